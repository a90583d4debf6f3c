//! What a peer serves: contents, chunk maps, files by name, its index.
//!
//! Invariant: only reading. Nothing that arrives here changes the peer or its share folder, and every file is opened
//! through the share folder's handle in the very state in which it was hashed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use potluck_common::chunk::Run;
use potluck_common::net::host::{self, HostPolicy};
use potluck_common::net::problem::{method_not_allowed, not_found, problem};
use potluck_common::protocol::{Entry, Index, Problem};
use potluck_common::tree::LengthProof;
use potluck_common::{ContentId, Geometry, PeerId, SharePath};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::FileSlices;
use super::have::HaveStream;
use super::respond::{Negotiated, choked, negotiate, send};
use crate::buffers::BufferPool;
use crate::download::live::{Live, News};
use crate::share::cache::HashCache;
use crate::share::folder::{FileIdentity, ShareFolder};
use crate::share::library::{Library, SharedFile};
use crate::share::sharing::LookAgain;
use crate::traffic::Traffic;

/// Header of a chunk map: the length of the content, in bytes, that the map was made with.
pub const CONTENT_LEN_HEADER: &str = "potluck-content-len";
/// Header of a chunk map: what proves that length, in hexadecimal digits; absent for a content of one chunk.
pub const LENGTH_PROOF_HEADER: &str = "potluck-length-proof";
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
    /// Contents that are being fetched.
    pub live: Arc<Live>,
    /// Free upload slots.
    pub slots: Arc<Semaphore>,
    /// Claims that may be read at once.
    pub claims: Arc<Semaphore>,
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
        .route("/v1/content/{id}/have", get(have))
        .route("/f/{*path}", get(file))
        .route("/v1/index", get(index))
        .route("/healthz", get(|| async { Json(serde_json::json!({ "status": "ok" })) }))
        .fallback(|| async {
            not_found(
                "A peer serves /f/PATH, /v1/content/ID, /v1/content/ID/chunks, /v1/content/ID/have and /v1/index.",
            )
        })
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
        if let Some(response) = serve.respond(&path, file, &method, &headers).await {
            return Ok(response);
        }
    }
    serve.respond_in_part(id, &method, &headers)
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
    let mut response = serve.respond(&path, file, &method, &headers).await.ok_or_else(gone)?;
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
    for (path, file) in serve.library.find(id) {
        // A claim reads a whole chunk, which may be 16 MiB: a few at a time, the others wait for their turn.
        let turn = serve.claims.clone().acquire_owned().await.map_err(|_| not_held())?;
        let (cache, folder, place) = (serve.cache.clone(), serve.folder.clone(), path.clone());
        let claim = tokio::task::spawn_blocking(move || {
            let _until_done = turn;
            claim(&cache, &folder, &place, file)
        });
        match claim.await.map_err(io::Error::other).flatten() {
            Ok((map, proof)) => return Ok(claim_response(file.identity.len, map, proof.as_ref())),
            Err(error) => {
                tracing::debug!(?path, content_id = %id, %error, "no claim from a shared file");
                serve.look_again.at(path);
            }
        }
    }
    let live = serve.live.get(id).ok_or_else(not_held)?;
    let map = live.partial.map();
    Ok(claim_response(map.geometry().len(), map.as_wire().to_vec(), Some(&live.proof)))
}

/// What we say of a content that we hold: its chunk map and, if it has several chunks, the proof of its length.
fn claim(
    cache: &HashCache,
    folder: &ShareFolder,
    path: &SharePath,
    file: SharedFile,
) -> io::Result<(Vec<u8>, Option<LengthProof>)> {
    let map = cache.chunk_map(file.content_id, file.identity.len)?;
    let map = map.ok_or_else(|| io::Error::other("a shared content has no chunk map"))?;
    let geometry = Geometry::new(file.identity.len).map_err(io::Error::other)?;
    if geometry.n_chunks() == 1 {
        return Ok((map, None));
    }
    let bytes = geometry.bytes_of(geometry.last());
    let mut last_chunk = vec![0; usize::try_from(bytes.end - bytes.start).map_err(io::Error::other)?];
    folder.open_unchanged(path, file.identity)?.read_exact_at(&mut last_chunk, bytes.start)?;
    Ok((map, Some(LengthProof::of(geometry, &last_chunk))))
}

fn claim_response(len: u64, map: Vec<u8>, proof: Option<&LengthProof>) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "application/octet-stream")], map).into_response();
    response.headers_mut().insert(CONTENT_LEN_HEADER, HeaderValue::from(len));
    if let Some(proof) = proof {
        let proof = HeaderValue::try_from(hex::encode(proof.as_wire())).expect("hex digits are a header value");
        response.headers_mut().insert(LENGTH_PROOF_HEADER, proof);
    }
    response
}

async fn have(State(serve): State<Serve>, id: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = parse_id(&readable(id)?)?;
    let stream = HaveStream { id, live: serve.live.clone(), library: serve.library.clone() };
    let lines = stream.lines().ok_or_else(not_held)?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response())
}

fn not_held() -> Problem {
    not_found("This peer does not hold that content.")
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
    ) -> Option<Response> {
        let (id, len) = (file.content_id, file.identity.len);
        let (bytes, builder) = match negotiate(id, len, headers) {
            Negotiated::Over(response) => return Some(response),
            Negotiated::Send(bytes, builder) => (bytes, builder),
        };
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return Some(choked(self.retry_after_s)) };
        let (folder, shared_path, identity) = (self.folder.clone(), path.clone(), file.identity);
        let opened = tokio::task::spawn_blocking(move || folder.open_unchanged(&shared_path, identity)).await;
        let opened = match opened.map_err(io::Error::other).flatten() {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(?path, %error, "a shared file is not what it was");
                self.look_again.at(path.clone());
                return None;
            }
        };
        if let Ok(geometry) = Geometry::new(len) {
            self.hand_out(id, geometry.chunks_touching(bytes.clone()));
        }
        Some(send(builder, method, self.slices(opened.into(), Some(identity), bytes, slot)))
    }

    /// Answers with bytes of a content that is being fetched, if every chunk that they touch is verified.
    fn respond_in_part(&self, id: ContentId, method: &Method, headers: &HeaderMap) -> Result<Response, Problem> {
        let live = self.live.get(id).ok_or_else(not_held)?;
        let geometry = live.partial.map().geometry();
        let (bytes, builder) = match negotiate(id, geometry.len(), headers) {
            Negotiated::Over(response) => return Ok(response),
            Negotiated::Send(bytes, builder) => (bytes, builder),
        };
        let run = geometry.chunks_touching(bytes.clone());
        if !run.is_some_and(|run| live.holds(run.indices())) {
            let n_held = live.have().n_held();
            let n_chunks = geometry.n_chunks();
            return Err(not_found(format!(
                "This peer holds {n_held} of {n_chunks} chunks, and not all of that range."
            )));
        }
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return Ok(choked(self.retry_after_s)) };
        self.hand_out(id, run);
        Ok(send(builder, method, self.slices(live.partial.file(), None, bytes, slot)))
    }

    fn slices(
        &self,
        file: Arc<File>,
        identity: Option<FileIdentity>,
        bytes: Range<u64>,
        slot: OwnedSemaphorePermit,
    ) -> FileSlices {
        FileSlices { file, identity, bytes, pool: self.pool.clone(), traffic: self.traffic.clone(), slot }
    }

    /// Tells whoever follows the content that copies of these chunks are on their way.
    fn hand_out(&self, id: ContentId, run: Option<Run>) {
        for chunk in run.iter().flat_map(|run| run.indices()) {
            self.live.tell(id, News::Coming(chunk.get()));
        }
    }
}
