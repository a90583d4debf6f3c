//! What a peer serves: contents, chunk maps, files by name, its index.
//!
//! Invariant: only reading. Nothing that arrives here changes the peer or its share folder, and every file is opened
//! through the share folder's handle in the very state in which it was hashed.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use potluck_common::net::host::{self, HostPolicy};
use potluck_common::net::problem::{internal, method_not_allowed, not_found, problem};
use potluck_common::protocol::{Entry, Index, Problem};
use potluck_common::{ContentId, PeerId, SharePath};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::body::FileSlices;
use crate::buffers::BufferPool;
use crate::range::{Wanted, parse_range};
use crate::share::cache::HashCache;
use crate::share::folder::ShareFolder;
use crate::share::library::{Library, SharedFile};
use crate::share::sharing::LookAgain;
use crate::traffic::Traffic;

/// Header of a chunk map: the length of the content, in bytes, that the map was made with.
pub const CONTENT_LEN_HEADER: &str = "potluck-content-len";
/// Most files in one page of the index.
const MAX_INDEX_PAGE: usize = 10_000;

/// What the handlers work with.
#[derive(Clone)]
pub struct Serve {
    /// The share folder.
    pub folder: Arc<ShareFolder>,
    /// What is shared.
    pub library: Arc<Library>,
    /// Chunk maps.
    pub cache: Arc<HashCache>,
    /// Free upload slots.
    pub slots: Arc<Semaphore>,
    /// What an upload without a slot is told to wait.
    pub retry_after_s: u64,
    /// Buffers for slices of files.
    pub pool: Arc<BufferPool>,
    /// Counts what is sent.
    pub traffic: Arc<Traffic>,
    /// Told when a file is no longer what it was.
    pub look_again: LookAgain,
    /// Who we are, for the index.
    pub who: Arc<dyn Fn() -> (PeerId, String) + Send + Sync>,
}

/// All routes of a peer.
pub fn router(serve: Serve, hosts: HostPolicy) -> Router {
    Router::new()
        .route("/v1/content/{id}", get(content))
        .route("/v1/content/{id}/chunks", get(chunk_map))
        .route("/f/{*path}", get(file))
        .route("/v1/index", get(index))
        .route("/healthz", get(|| async { Json(serde_json::json!({ "status": "ok" })) }))
        .fallback(|| async { not_found("A peer serves /f/PATH, /v1/content/ID, /v1/content/ID/chunks and /v1/index.") })
        .method_not_allowed_fallback(|| async { method_not_allowed() })
        .layer(axum::middleware::from_fn_with_state(hosts, host::guard))
        .layer(axum::middleware::map_response(harden))
        .with_state(serve)
}

/// No answer of a peer is ever run, framed or guessed at by a browser.
async fn harden(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn content(
    State(serve): State<Serve>,
    id: Result<Path<String>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = parse_id(&readable(id)?)?;
    for (path, file) in serve.library.find(id) {
        if let Some(response) = serve.respond(&path, file, &method, &headers).await? {
            return Ok(response);
        }
    }
    Err(not_found("This peer does not hold that content."))
}

async fn file(
    State(serve): State<Serve>,
    path: Result<Path<String>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let gone = || not_found("This peer does not share a file of that name.");
    let path: SharePath = readable(path)?.parse().map_err(|_| gone())?;
    let file = serve.library.get(&path).ok_or_else(gone)?;
    let mut response = serve.respond(&path, file, &method, &headers).await?.ok_or_else(gone)?;
    if let Ok(value) = HeaderValue::try_from(disposition(path.file_name())) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// `attachment` with the name percent-encoded (RFC 6266, RFC 8187).
fn disposition(name: &str) -> String {
    let mut value = String::from("attachment; filename*=UTF-8''");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            value.push(char::from(byte));
        } else {
            value += &format!("%{byte:02X}");
        }
    }
    value
}

async fn chunk_map(State(serve): State<Serve>, id: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = parse_id(&readable(id)?)?;
    let found = serve.library.find(id);
    let Some((_, file)) = found.first() else {
        return Err(not_found("This peer does not hold that content."));
    };
    let (cache, len) = (serve.cache.clone(), file.identity.len);
    let map = tokio::task::spawn_blocking(move || cache.chunk_map(id, len)).await;
    match map {
        Ok(Ok(Some(map))) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (HeaderName::from_static(CONTENT_LEN_HEADER), len.to_string()),
            ];
            Ok((headers, map).into_response())
        }
        Ok(Ok(None)) => {
            tracing::error!(content_id = %id, "a shared content has no chunk map");
            Err(internal())
        }
        Ok(Err(error)) => {
            tracing::error!(content_id = %id, %error, "cannot read a chunk map");
            Err(internal())
        }
        Err(error) => {
            tracing::error!(content_id = %id, %error, "cannot read a chunk map");
            Err(internal())
        }
    }
}

#[derive(Deserialize)]
struct IndexQuery {
    after: Option<SharePath>,
    limit: Option<usize>,
}

async fn index(State(serve): State<Serve>, RawQuery(raw): RawQuery) -> Result<Json<Index>, Problem> {
    let query = axum::http::Uri::builder().path_and_query(format!("/?{}", raw.unwrap_or_default())).build();
    let query = query.ok().and_then(|uri| Query::<IndexQuery>::try_from_uri(&uri).ok()).ok_or_else(|| {
        problem(StatusCode::BAD_REQUEST, "bad-query", "The query cannot be read", "It takes after=PATH and limit=N.")
    })?;
    let limit = query.limit.unwrap_or(MAX_INDEX_PAGE).clamp(1, MAX_INDEX_PAGE);
    let page = serve.library.page(query.after.as_ref(), limit);
    let next = (page.len() == limit).then(|| page.last().map(|(path, _)| path.to_string())).flatten();
    let files: Vec<_> = page
        .into_iter()
        .map(|(path, file)| Entry { path, content_id: file.content_id, len: file.identity.len })
        .collect();
    let (peer_id, name) = (serve.who)();
    Ok(Json(Index { peer_id, name, files: files.into(), next }))
}

/// What stands in the address, decoded; bytes that are not UTF-8 name nothing here.
fn readable(text: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    text.map(|Path(text)| text).map_err(|_| not_found("The address is not UTF-8 once it is decoded."))
}

fn parse_id(text: &str) -> Result<ContentId, Problem> {
    text.parse().map_err(|_| not_found("A content id has 64 hexadecimal digits."))
}

impl Serve {
    /// Answers with the bytes of a file; `None` if it is no longer what was hashed.
    async fn respond(
        &self,
        path: &SharePath,
        file: SharedFile,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Option<Response>, Problem> {
        let len = file.identity.len;
        let etag = format!("\"b3:{}\"", file.content_id);
        let wanted = match headers.get(header::IF_RANGE).map(HeaderValue::as_bytes) {
            Some(value) if value != etag.as_bytes() => Wanted::Whole,
            _ => {
                let ranges = headers.get_all(header::RANGE).iter().map(|value| value.to_str().unwrap_or_default());
                parse_range(ranges, len)
            }
        };
        let builder = Response::builder()
            .header(header::ETAG, &etag)
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CONTENT_TYPE, "application/octet-stream");
        if headers.get_all(header::IF_NONE_MATCH).iter().any(|value| matches_etag(value, &etag)) {
            return Ok(builder.status(StatusCode::NOT_MODIFIED).body(Body::empty()).ok());
        }
        let (bytes, builder) = match wanted {
            Wanted::Whole => (0..len, builder.status(StatusCode::OK)),
            Wanted::Bytes(bytes) => {
                let content_range = format!("bytes {}-{}/{len}", bytes.start, bytes.end - 1);
                (bytes, builder.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range))
            }
            Wanted::Unsatisfiable => {
                let mut response = problem(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "no-such-range",
                    "The content does not have those bytes",
                    format!("It has {len} bytes."),
                )
                .into_response();
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{len}")) {
                    response.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                return Ok(Some(response));
            }
        };
        let builder = builder.header(header::CONTENT_LENGTH, bytes.end - bytes.start);
        let slot = match self.slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => return Ok(Some(self.choked())),
        };
        let (folder, shared_path, identity) = (self.folder.clone(), path.clone(), file.identity);
        let opened = tokio::task::spawn_blocking(move || folder.open_unchanged(&shared_path, identity)).await;
        let opened = match opened.map_err(io::Error::other).flatten() {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(?path, %error, "a shared file is not what it was");
                self.look_again.at(path.clone());
                return Ok(None);
            }
        };
        let body = if *method == Method::HEAD || bytes.is_empty() {
            Body::empty()
        } else {
            let slices = FileSlices {
                file: Arc::new(opened),
                identity,
                bytes,
                pool: self.pool.clone(),
                traffic: self.traffic.clone(),
                slot,
            };
            Body::from_stream(slices.into_stream())
        };
        builder.body(body).map(Some).map_err(|error| {
            tracing::error!(%error, "cannot answer");
            internal()
        })
    }

    fn choked(&self) -> Response {
        let mut response = problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-upload-slot",
            "All upload slots are taken",
            "Ask again after the time in Retry-After, or ask another owner.",
        )
        .into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_s));
        response
    }
}

fn matches_etag(value: &HeaderValue, etag: &str) -> bool {
    value.to_str().is_ok_and(|value| {
        value.split(',').any(|candidate| {
            let candidate = candidate.trim();
            candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag
        })
    })
}
