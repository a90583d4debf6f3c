//! `POST /v1/announce`: read, parse, prove, judge, apply.
//!
//! Nothing reaches the registry that is not signed by the key its peer id is made from.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use potluck_common::address::Advertise;
use potluck_common::identity::SIGNATURE_HEADER;
use potluck_common::net::problem::internal;
use potluck_common::openapi::AnyProblem;
use potluck_common::protocol::{
    Announce, AnnounceEvent, AnnounceReply, PROTOCOL_VERSION, Problem, RefusedBecause, RefusedEntry,
};
use potluck_common::share_path::SharePathError;
use potluck_common::{Register, SharePath};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::SMALL_LEN;
use super::failure::Failure;
use super::{App, Source};
use crate::admission::{Refusal, examine};
use crate::endpoint::Endpoint;
use crate::swarm::Answer;

/// Longest part of a foreign text that is repeated in an answer.
const MAX_QUOTED: usize = 200;

/// A peer's word: what it is called, where it serves, and what changed in its catalogue.
///
/// Signed: the header `potluck-signature` holds the Ed25519 signature of the body, in hexadecimal digits.
#[utoipa::path(post, path = "/v1/announce", request_body = Announce,
    params(("potluck-signature" = String, Header, description = "Of the body, by the key that the peer id is made from.")),
    responses(
        (status = 200, description = "It is kept.", body = AnnounceReply),
        (status = 400, description = "Not the message it should be.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The signature is not this peer's.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The identity is another's.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too long.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A name, address or revision that cannot be.", body = Problem, content_type = "application/problem+json"),
        (status = 426, description = "Another protocol version.", body = Problem, content_type = "application/problem+json"),
        AnyProblem))]
pub(crate) async fn announce(
    State(app): State<App>,
    Source(source): Source,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AnnounceReply>, Failure> {
    require_json(&headers)?;
    let body = app.0.bodies.read(&headers, body).await?;
    let signature = headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let Proven { message, endpoint, unreadable } = if body.bytes.len() <= SMALL_LEN {
        prove(&body.bytes, &signature, source)?
    } else {
        let bytes = body.bytes.clone();
        let proven = tokio::task::spawn_blocking(move || prove(&bytes, &signature, source)).await;
        proven.unwrap_or_else(|error| {
            tracing::error!(%error, "reading an announce failed");
            Err(internal().into())
        })?
    };
    refuse_own(&app, &endpoint)?;
    let (peer_id, name, event) = (message.peer_id, message.name.clone(), message.event);
    let Answer { accepted, index_epoch, mut index_refused, reachable } =
        app.swarm().announce(message, endpoint, source).await?;
    let n_unreadable = unreadable.len();
    index_refused.extend(unreadable.into_iter().map(|path| RefusedEntry { path, why: RefusedBecause::Unreadable }));
    let worst = index_refused.iter().find(|refused| refused.why != RefusedBecause::Ahead);
    if let Some(RefusedEntry { path, why }) = worst
        && app.swarm().note_refused(peer_id, n_unreadable)
    {
        let n = index_refused.len();
        let path = path.as_str();
        tracing::warn!(%peer_id, name, n, path, %why, "entries of the synced folder are not taken from this peer");
    }
    if accepted.joined {
        tracing::info!(%peer_id, name, base_url = accepted.endpoint.base_url(), "peer joined");
    }
    if event == AnnounceEvent::Stopped {
        tracing::info!(%peer_id, name, "peer left");
    }
    if accepted.name_taken {
        tracing::warn!(%peer_id, name, "another peer has this name; both are listed, their ids tell them apart");
    }
    let config = &app.0.config;
    Ok(Json(AnnounceReply {
        heartbeat_ms: millis(config.heartbeat),
        lease_ms: millis(config.lease),
        seen: source,
        base_url: accepted.endpoint.base_url(),
        revision: accepted.revision,
        resync: accepted.resync,
        index_epoch,
        index_refused: index_refused.into(),
        retiring: app.swarm().is_retiring(),
        reachable,
    }))
}

/// A form or a page of another origin can post plain text without asking; JSON it cannot.
fn require_json(headers: &HeaderMap) -> Result<(), Failure> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = given.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let title = "Another content type is needed";
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", title, "Send application/json."))
}

/// A message that is from whom it says.
struct Proven {
    message: Announce,
    endpoint: Endpoint,
    /// Paths of entries of the index that are no registers. A bad name is refused with the whole message; a register may be
    /// unreadable because it has grown too large for everybody, and that must not keep the others from being taken.
    unreadable: Vec<SharePath>,
}

fn prove(body: &Bytes, signature: &str, source: IpAddr) -> Result<Proven, Failure> {
    let message: Announce = serde_json::from_slice(body).map_err(|error| explain(body, &error))?;
    if message.protocol != PROTOCOL_VERSION {
        return Err(Failure::other_protocol(message.protocol.into()));
    }
    if message.public_key.peer_id() != message.peer_id {
        return Err(Refusal::ForeignKey.into());
    }
    if !message.public_key.verifies(body, signature) {
        let detail = format!("The header {SIGNATURE_HEADER} must hold this peer's signature of the body.");
        return Err(Failure::new(StatusCode::FORBIDDEN, "not-yours", "The message proves nothing", detail));
    }
    let endpoint = examine(&message, source)?;
    let unreadable = if message.index.n_refused > 0 { unreadable(body)? } else { Vec::new() };
    Ok(Proven { message, endpoint, unreadable })
}

fn refuse_own(app: &App, endpoint: &Endpoint) -> Result<(), Failure> {
    let own_name = app.0.config.hosts.iter().any(|name| name.eq_ignore_ascii_case(endpoint.host()));
    let is_own = match endpoint.ip() {
        Some(ip) => app.is_own(ip, endpoint.port()),
        None => own_name && endpoint.port() == app.0.own.port(),
    };
    if is_own {
        let detail = "That is the tracker's own address. Let the peer listen on another port, or set --advertise.";
        return Err(Failure::bad_address(detail));
    }
    Ok(())
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The same message with nothing proven, to find out which part cannot be what it should be.
#[derive(Deserialize)]
struct Loose<'a> {
    #[serde(default)]
    protocol: Option<u64>,
    #[serde(default, borrow)]
    advertise: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    added: Vec<LooseEntry<'a>>,
    #[serde(default, borrow)]
    removed: Vec<Cow<'a, str>>,
    #[serde(default, borrow)]
    index: Vec<LooseIndexEntry<'a>>,
}

#[derive(Deserialize)]
struct LooseIndexEntry<'a> {
    #[serde(default, borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    register: Option<&'a RawValue>,
}

/// Which entries of the index are no registers.
fn unreadable(body: &Bytes) -> Result<Vec<SharePath>, Failure> {
    let index = match serde_json::from_slice::<Loose<'_>>(body) {
        Ok(loose) => loose.index,
        Err(error) => return Err(bad_json(&error)),
    };
    let mut paths = Vec::new();
    for LooseIndexEntry { path, register } in index {
        let name = path.unwrap_or_default();
        let path = name.parse().map_err(|why| bad_name(&name, why))?;
        if register.is_none_or(|register| serde_json::from_str::<Register>(register.get()).is_err()) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn bad_name(name: &str, why: SharePathError) -> Failure {
    Failure::bad_name(format!("{}: {why}. Leave it out.", quoted(name)))
}

fn bad_json(error: &serde_json::Error) -> Failure {
    let detail: String = error.to_string().chars().filter(|c| !c.is_control()).take(MAX_QUOTED).collect();
    Failure::new(StatusCode::BAD_REQUEST, "bad-json", "The body is not the message it should be", detail)
}

#[derive(Deserialize)]
struct LooseEntry<'a> {
    #[serde(default, borrow)]
    path: Option<Cow<'a, str>>,
}

/// The version alone, whatever else a later protocol has made of the message.
#[derive(Deserialize)]
struct Version<'a> {
    #[serde(borrow)]
    protocol: &'a RawValue,
}

fn explain(body: &Bytes, error: &serde_json::Error) -> Failure {
    if let Ok(Loose { protocol, advertise, added, removed, .. }) = serde_json::from_slice(body) {
        if let Some(version) = protocol.filter(|version| *version != u64::from(PROTOCOL_VERSION)) {
            return Failure::other_protocol(version);
        }
        let names = added.iter().filter_map(|entry| entry.path.as_ref()).chain(&removed);
        for name in names {
            if let Err(why) = name.parse::<SharePath>() {
                return bad_name(name, why);
            }
        }
        if let Some(advertise) = advertise
            && let Err(why) = advertise.parse::<Advertise>()
        {
            return Failure::bad_address(format!("{}: {why}.", quoted(&advertise)));
        }
    } else if let Ok(Version { protocol }) = serde_json::from_slice(body)
        && let Ok(version) = protocol.get().parse::<u64>()
        && version != u64::from(PROTOCOL_VERSION)
    {
        return Failure::other_protocol(version);
    }
    bad_json(error)
}

/// Somebody's text, escaped and not too long.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(MAX_QUOTED).collect();
    format!("{short:?}")
}
