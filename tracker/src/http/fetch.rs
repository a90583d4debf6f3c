//! `/f/{path}`: any HTTP client downloads by asking the tracker, which sends it to an owner; with `.meta4` after the name,
//! to an owner's Metalink of the content, and with `.torrent` to its torrent of a file or of a folder.
//!
//! Invariant: the answer is a redirect or a problem, never a byte of a file. It names a content and not a path at the
//! owner: there the same name may stand for something else by now. Only a folder has no other name.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use potluck_common::address::means_the_same_at;
use potluck_common::net::problem::{internal, not_found};
use potluck_common::openapi::{AnyProblem, BadQuery, NotFound};
use potluck_common::protocol::{ContentOwners, FileInfo, PeerInfo, Problem};
use potluck_common::{ContentId, PeerId, SharePath, percent};
use serde::Deserialize;
use utoipa::IntoParams;

use super::failure::Failure;
use super::{App, Source};
use crate::handout::MAX_HANDOUT;

/// Fewer digits of a content id would be met by accident.
const MIN_ID_PREFIX: usize = 4;
/// Contents named to whoever has to choose.
const MAX_CHOICES: usize = 10;
/// What RFC 5854 gives Metalinks as their ending.
const METALINK_SUFFIX: &str = ".meta4";
/// The ending of torrents.
const TORRENT_SUFFIX: &str = ".torrent";
/// When to ask again for a content that nobody holds completely: those who fetch it may be done then.
const OWNERS_WAIT: Duration = Duration::from_secs(5);

const NOT_COMPLETE: &str =
    "Nobody who is here holds all of it. Ask again later, or use potluck, which takes it from those who hold a part.";
const NOT_WHOLE: &str = "Nobody who is here holds all files of this folder. Ask again later, or use potluck, which takes each from whoever has it.";
const NOT_REACHABLE: &str = "Its owners are listed at loopback addresses of another machine. Start them with the tracker's address on the network.";

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FetchParams {
    /// The content id or its first digits, where the name stands for several contents.
    content: Option<String>,
}

/// A file, by way of one of its owners.
///
/// `curl -LO http://TRACKER:7700/f/NAME`. With `.meta4` after the name: an owner's Metalink of it.
#[utoipa::path(get, path = "/f/{*path}",
    params(("path" = String, Path, description = "The name, or `NAME@` and the first digits of the content id."), FetchParams),
    responses(
        (status = 307, description = "To the least busy owner of all of it that the client can reach.",
            headers(("location" = String, description = "The content at that owner."))),
        (status = 409, description = "The name stands for several contents; `detail` names them.",
            body = Problem, content_type = "application/problem+json"),
        BadQuery, NotFound, AnyProblem))]
pub(crate) async fn fetch(
    State(app): State<App>,
    Source(from): Source,
    path: Result<Path<String>, PathRejection>,
    params: Result<Query<FetchParams>, QueryRejection>,
) -> Result<Response, Failure> {
    let unknown = || not_found("Nobody shares a file of this name. GET /v1/files lists what is shared.");
    let Path(text) = path.map_err(|_| unknown())?;
    let Query(params) = params.map_err(|error| Failure::bad_query(error.body_text()))?;
    let Some(Asked { file, digits, kind }) = find(&app, &text, params.content.as_deref()) else {
        let folder = text.strip_suffix(TORRENT_SUFFIX).and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
        return folder_torrent(&app, &folder, from);
    };
    let content = only(&file, digits.as_deref())?;
    let complete = content.owners.iter().filter(|owner| owner.complete);
    let owner = owner_among(&app, complete.map(|owner| owner.peer_id), from, NOT_COMPLETE)?;
    let (id, name) = (content.content_id, percent::part(file.path.file_name()));
    redirect(&format!("{}/v1/content/{id}{kind}?name={name}", owner.base_url))
}

/// To a peer that holds all of a folder: the tracker, which has no bytes, cannot put together what several hold.
fn folder_torrent(app: &App, path: &SharePath, from: IpAddr) -> Result<Response, Failure> {
    let folder = app.swarm().ask(|registry| registry.folder(path, MAX_HANDOUT, fastrand::u64(..)))?;
    let owner = owner_among(app, folder.owners.iter().map(|owner| owner.peer_id), from, NOT_WHOLE)?;
    redirect(&format!("{}/f/{}{TORRENT_SUFFIX}", owner.base_url, percent::path(path.as_str())))
}

/// What a request comes to.
struct Asked {
    file: FileInfo,
    /// The first digits of the content's id, if they are given.
    digits: Option<String>,
    /// What of the content is meant, as it stands in the owner's URL.
    kind: &'static str,
}

/// Reads the text as a name, else as `NAME@ID-PREFIX`, else as one of these with `.meta4` or `.torrent`.
fn find(app: &App, text: &str, digits: Option<&str>) -> Option<Asked> {
    let named = |name: &str| app.swarm().ask(|registry| registry.file(name, fastrand::u64(..)));
    let read = |text: &str, kind| {
        if let Some(file) = named(text) {
            return Some(Asked { file, digits: digits.map(str::to_ascii_lowercase), kind });
        }
        let (name, version) = text.rsplit_once('@').filter(|(_, version)| digits.is_none() && is_id_prefix(version))?;
        Some(Asked { file: named(name)?, digits: Some(version.to_ascii_lowercase()), kind })
    };
    read(text, "")
        .or_else(|| read(text.strip_suffix(METALINK_SUFFIX)?, "/metalink"))
        .or_else(|| read(text.strip_suffix(TORRENT_SUFFIX)?, "/torrent"))
}

fn is_id_prefix(text: &str) -> bool {
    (MIN_ID_PREFIX..=2 * ContentId::LEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The one content that is meant; nobody guesses.
fn only<'a>(file: &'a FileInfo, digits: Option<&str>) -> Result<&'a ContentOwners, Failure> {
    if let Some(digits) = digits.filter(|digits| !is_id_prefix(digits)) {
        let limits = format!("{MIN_ID_PREFIX} to {} hexadecimal digits", 2 * ContentId::LEN);
        return Err(Failure::bad_query(format!("content is an id or its beginning, {limits}, and not {digits:?}.")));
    }
    let is_meant = |content: &&ContentOwners| match digits {
        Some(digits) => content.content_id.to_string().starts_with(digits),
        None => true,
    };
    let mut meant: Vec<_> = file.contents.iter().filter(is_meant).collect();
    // Where lengths are contested, one id stands here several times, with the most owners first.
    let mut seen = std::collections::BTreeSet::new();
    meant.retain(|content| seen.insert(content.content_id));
    match meant.as_slice() {
        [content] => Ok(content),
        [] => Err(not_found("No content under this name has an id that begins so.").into()),
        several => {
            let ids: Vec<_> = several.iter().take(MAX_CHOICES).map(|content| content.content_id.to_string()).collect();
            let more = if several.len() > MAX_CHOICES { ", and others" } else { "" };
            let detail = format!("Ask for one of them with ?content=ID: {}{more}.", ids.join(", "));
            Err(Failure::new(StatusCode::CONFLICT, "ambiguous", "This name stands for several contents", detail))
        }
    }
}

/// The least busy of these owners that the client can reach; `nobody` says why there is none at all.
fn owner_among(
    app: &App,
    owners: impl Iterator<Item = PeerId>,
    from: IpAddr,
    nobody: &str,
) -> Result<PeerInfo, Failure> {
    let mut owners: Vec<PeerInfo> =
        app.swarm().ask(|registry| owners.filter_map(|owner| registry.peer(owner)).collect());
    let detail = if owners.is_empty() { nobody } else { NOT_REACHABLE };
    owners.retain(|owner| means_the_same_at(&owner.address, from));
    let rates: Vec<_> = owners.iter().map(|owner| (owner.peer_id, owner.rates.up)).collect();
    let now = tokio::time::Instant::now().into_std();
    let mut dispatch = app.0.dispatch.lock().unwrap_or_else(PoisonError::into_inner);
    match dispatch.choose(&rates, fastrand::u64(..), now) {
        Some(at) => Ok(owners.swap_remove(at)),
        None => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "no-owner", "No owner can be reached", detail)
            .retry_after(OWNERS_WAIT)),
    }
}

/// Not permanent, and not to be kept: the next client is sent elsewhere.
fn redirect(to: &str) -> Result<Response, Failure> {
    let location = HeaderValue::try_from(to).map_err(|error| {
        tracing::error!(%error, to, "an address cannot stand in a header");
        internal()
    })?;
    Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response())
}
