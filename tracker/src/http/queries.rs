//! The routes that only ask.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use potluck_common::net::problem::not_found;
use potluck_common::openapi::{AnyProblem, BadQuery, NotFound};
use potluck_common::protocol::{
    ContentInfo, FileInfo, FileSummary, Files, FolderInfo, Health, PeerInfo, Peers, Sifted, Stats, TrackerInfo,
};
use potluck_common::{ContentId, PeerId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::failure::Failure;
use crate::handout::{DEFAULT_HANDOUT, MAX_HANDOUT};
use crate::lookup::FilesQuery;
use crate::registry::Registry;

/// Files on one page when nothing is asked.
const DEFAULT_PAGE: usize = 1_000;
/// Files on one page at most.
const MAX_PAGE: usize = 10_000;
/// Owners given with each content of a page.
const MAX_OWNERS_LISTED: usize = 10;
/// Contents on one page, where names have very many.
const MAX_PAGE_CONTENTS: usize = 2 * MAX_PAGE;
/// Peers in a random choice at most.
const MAX_SOME_PEERS: usize = 256;
/// Names looked at under one lock: a search that finds nothing must not keep announces waiting.
const SCAN_BUDGET: usize = 20_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PeersParams {
    /// A random choice of so many, 256 at most.
    max: Option<usize>,
}

/// Who is there: everybody, or a random choice.
// So many at most: peers that remember a few addresses must not cost a list of all.
#[utoipa::path(get, path = "/v1/peers", params(PeersParams),
    responses((status = 200, description = "Peers whose lease runs.", body = Peers), BadQuery, AnyProblem))]
pub(crate) async fn peers(
    State(app): State<App>,
    params: Result<Query<PeersParams>, QueryRejection>,
) -> Result<Json<Peers>, Failure> {
    let Query(params) = params.map_err(|error| Failure::bad_query(error.body_text()))?;
    Ok(Json(app.swarm().ask(|registry| match params.max {
        None => registry.peers(),
        Some(max) => registry.some_peers(max.min(MAX_SOME_PEERS), fastrand::u64(..)),
    })))
}

/// One peer.
#[utoipa::path(get, path = "/v1/peers/{id}", params(("id" = PeerId, Path, description = "Which peer.")),
    responses((status = 200, description = "The peer.", body = PeerInfo), NotFound, AnyProblem))]
pub(crate) async fn peer(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<PeerInfo>, Failure> {
    let id: PeerId = parse_id(id)?;
    let found = app.swarm().ask(|registry| registry.peer(id));
    found.map(Json).ok_or_else(|| not_found("No peer with this id is here. GET /v1/peers lists them.").into())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FilesParams {
    /// A part of the name, in any letter case.
    #[serde(default)]
    q: String,
    /// What the name begins with.
    #[serde(default)]
    prefix: String,
    /// `next` of the last page.
    after: Option<String>,
    /// Names on one page: 1,000 unless told, 10,000 at most.
    #[param(value_type = Option<u64>)]
    limit: Option<String>,
    /// Owners given with each content, 10 at most.
    #[serde(default)]
    owners: usize,
}

/// Names and the contents under them, page by page.
#[utoipa::path(get, path = "/v1/files", params(FilesParams),
    responses((status = 200, description = "A page, with an ETag.", body = Files),
        (status = 304, description = "Nothing changed since the ETag in If-None-Match."), BadQuery, AnyProblem))]
pub(crate) async fn files(
    State(app): State<App>,
    headers: HeaderMap,
    params: Result<Query<FilesParams>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(params) = params.map_err(|error| Failure::bad_query(error.body_text()))?;
    let limit = match params.limit.as_deref().map(str::parse::<u64>) {
        None => DEFAULT_PAGE,
        Some(Ok(limit @ 1..)) => usize::try_from(limit).unwrap_or(MAX_PAGE).min(MAX_PAGE),
        Some(_) => return Err(Failure::bad_query(format!("limit is a number from 1 to {MAX_PAGE}."))),
    };
    let n_owners = params.owners.min(MAX_OWNERS_LISTED);
    let query = FilesQuery { contains: params.q, prefix: params.prefix, n_owners, seed: fastrand::u64(..) };
    // Taken first: should something change meanwhile, the tag is too old, which only costs another answer.
    let version = app.swarm().ask(Registry::version);
    let tag = format!("\"{:016x}-{version:x}\"", app.swarm().boot());
    let cached = [
        (header::ETAG, HeaderValue::from_str(&tag).expect("hex digits are a header value")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if matches_tag(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, cached).into_response());
    }
    let page = page(&app, &query, params.after, limit).await;
    Ok((cached, Json(page)).into_response())
}

/// Files after a name, one lock for each part of them.
pub(super) async fn page(app: &App, query: &FilesQuery, mut after: Option<String>, limit: usize) -> Files {
    let mut files: Vec<FileSummary> = Vec::new();
    let last = |files: &[FileSummary]| files.last().map(|file| file.path.to_string());
    let next = loop {
        // One more than asked tells whether there is a next page.
        let wanted = limit + 1 - files.len();
        let part = app.swarm().ask(|registry| registry.files(query, after.as_deref(), wanted, SCAN_BUDGET));
        files.extend(part.files);
        if files.len() > limit {
            files.truncate(limit);
            break last(&files);
        }
        let Some(path) = part.next else { break None };
        if files.iter().map(|file| file.contents.len()).sum::<usize>() >= MAX_PAGE_CONTENTS {
            break last(&files);
        }
        after = Some(path.to_string());
        tokio::task::yield_now().await;
    };
    Files { files: Sifted::from(files), next }
}

/// RFC 9110: a list, weak comparison.
fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

/// One name: each content under it, with its owners.
#[utoipa::path(get, path = "/v1/files/{*path}", params(("path" = String, Path, description = "The name.")),
    responses((status = 200, description = "The contents, most owners first.", body = FileInfo), NotFound, AnyProblem))]
pub(crate) async fn file(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<FileInfo>, Failure> {
    let unknown = || not_found("Nobody shares a file of this name. GET /v1/files lists what is shared.");
    let Path(path) = path.map_err(|_| unknown())?;
    let found = app.swarm().ask(|registry| registry.file(&path, fastrand::u64(..)));
    found.map(Json).ok_or_else(|| unknown().into())
}

/// A folder: who holds all of its files.
#[utoipa::path(get, path = "/v1/folders/{*path}", params(("path" = String, Path, description = "The folder.")),
    responses((status = 200, description = "The folder.", body = FolderInfo),
        (status = 409, description = "It has too many files, or a name in it stands for several contents.",
            body = potluck_common::protocol::Problem, content_type = "application/problem+json"),
        NotFound, AnyProblem))]
pub(crate) async fn folder(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<FolderInfo>, Failure> {
    let unknown = || not_found("Nobody shares anything in a folder of this name. GET /v1/files lists what is shared.");
    let path = path.ok().and_then(|Path(path)| path.trim_end_matches('/').parse().ok()).ok_or_else(unknown)?;
    Ok(Json(app.swarm().ask(|registry| registry.folder(&path, DEFAULT_HANDOUT, fastrand::u64(..)))?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ContentParams {
    /// Owners in the answer: 50 unless told, 200 at most.
    #[param(value_type = Option<u64>)]
    max: Option<String>,
}

/// One content: its names, and a random choice of its owners.
#[utoipa::path(get, path = "/v1/content/{id}",
    params(("id" = ContentId, Path, description = "Which content."), ContentParams),
    responses((status = 200, description = "The content.", body = ContentInfo), BadQuery, NotFound, AnyProblem))]
pub(crate) async fn content(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    params: Result<Query<ContentParams>, QueryRejection>,
) -> Result<Json<ContentInfo>, Failure> {
    let id: ContentId = parse_id(id)?;
    let Query(params) = params.map_err(|error| Failure::bad_query(error.body_text()))?;
    // Whatever number is asked, the answer is between one owner and the most that are handed out.
    let max = match params.max.as_deref().map(str::parse::<i128>) {
        None => DEFAULT_HANDOUT,
        Some(Ok(max)) => usize::try_from(max.clamp(1, MAX_HANDOUT as i128)).unwrap_or(DEFAULT_HANDOUT),
        Some(Err(_)) => return Err(Failure::bad_query(format!("max is a number from 1 to {MAX_HANDOUT}."))),
    };
    let found = app.swarm().ask(|registry| registry.content(id, max, fastrand::u64(..)));
    found.map(Json).ok_or_else(|| not_found("Nobody here has a content with this id.").into())
}

fn parse_id<T: std::str::FromStr<Err = potluck_common::id::ParseIdError>>(
    path: Result<Path<String>, PathRejection>,
) -> Result<T, Failure> {
    let Path(text) = path.map_err(|_| not_found("That is not an id."))?;
    text.parse().map_err(|error: potluck_common::id::ParseIdError| not_found(format!("That is {error}.")).into())
}

/// Totals.
#[utoipa::path(get, path = "/v1/stats",
    responses((status = 200, description = "Totals over all that is listed.", body = Stats), AnyProblem))]
pub(crate) async fn stats(State(app): State<App>) -> Json<Stats> {
    Json(app.swarm().stats())
}

/// Which tracker this is.
#[utoipa::path(get, path = "/v1/tracker",
    responses((status = 200, description = "The tracker.", body = TrackerInfo), AnyProblem))]
pub(crate) async fn tracker(State(app): State<App>) -> Json<TrackerInfo> {
    let (swarm, config) = (app.swarm(), &app.0.config);
    Json(TrackerInfo {
        tracker_id: swarm.tracker_id(),
        swarm: config.swarm.clone(),
        hosted: config.hosted,
        retiring: swarm.is_retiring(),
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

/// Whether it lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It does.", body = Health), AnyProblem))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok".into() })
}

/// Whether it can keep what it is told.
#[utoipa::path(get, path = "/readyz",
    responses((status = 200, description = "It can.", body = Health), AnyProblem))]
pub(crate) async fn readyz(State(app): State<App>) -> Result<Json<Health>, Failure> {
    if app.0.shutdown.is_cancelled() || !app.swarm().is_ready() {
        let title = "The tracker cannot keep what peers announce";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", title, "Its log has the cause."));
    }
    Ok(Json(Health { status: "ready".into() }))
}
