//! What a peer serves: contents, chunk maps, files by name, its index, and what changed in the synced folder.
//!
//! Invariant: only reading. Nothing that arrives here changes the peer or its share folder, and every file is opened
//! through the share folder's handle in the very state in which it was hashed.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{ExtensionRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, FromRequestParts, Path, Query, RawQuery, State};
use axum::http::Method;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::response::Builder;
use axum::response::{IntoResponse, Json, Response};
use potluck_common::chunk::Run;
use potluck_common::net::docs;
use potluck_common::net::host::{self, HostPolicy};
use potluck_common::net::metrics::measure;
use potluck_common::net::problem::{method_not_allowed, not_found};
use potluck_common::net::request_id;
use potluck_common::net::sendfile::FileParts;
use potluck_common::openapi::{AnyProblem, BadQuery, NotFound, without_wildcards};
use potluck_common::protocol::{Entry, HaveLine, Index, PeerHealth, Problem, SyncPage, SyncQuery};
use potluck_common::tree::LengthProof;
use potluck_common::{ChunkIndex, ContentId, Geometry, PeerId, SharePath};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{FileSlices, Shared, Slot};
use super::bundles;
use super::crowd::Crowd;
use super::exports;
use super::feed::{FeedError, SyncFeed};
use super::handed::Handed;
use super::have::HaveStream;
use super::pages::{self, Pages};
use super::people::{self, People, disposition};
use super::respond::{Negotiated, bad_query, busy, choked, coming, negotiate, send};
use crate::buffers::BufferPool;
use crate::download::live::{Live, News};
use crate::limit::Throttle;
use crate::metrics::{self, PeerMetrics};
use crate::share::cache::HashCache;
use crate::share::folder::ShareFolder;
use crate::share::library::{Library, SharedFile};
use crate::share::sharing::LookAgain;
use crate::traffic::Traffic;

/// Header of a chunk map: the length of the content, in bytes, that the map was made with.
pub const CONTENT_LEN_HEADER: &str = "potluck-content-len";
/// Header of a chunk map: what proves that length, in hexadecimal digits; absent for a content of one chunk.
pub const LENGTH_PROOF_HEADER: &str = "potluck-length-proof";
/// Header of a leecher's request for chunks: `1` if it knows of no copy on its way, and then refused (412) if there is one;
/// otherwise `0`.
pub const FRESH_HEADER: &str = "potluck-fresh";
/// Header of that refusal: the numbers of those chunks, separated by commas.
pub const COMING_HEADER: &str = "potluck-coming";
/// Under a limit, so many bytes a second at least for each upload: twice what owners of this network must give (C11).
const LEAST_UPLOAD_RATE: NonZeroU64 = NonZeroU64::new(16 << 10).expect("it is not zero");
/// How long a request waits for a slot under a limit: half of what makes an owner silent.
const SLOT_PATIENCE: Duration = Duration::from_secs(2);
/// How often the next in turn looks for a slot; also the limit may have changed.
const SLOT_LOOK: Duration = Duration::from_millis(20);
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
    /// How many there are in all.
    pub n_slots: usize,
    /// Who is sent chunks.
    pub crowd: Crowd,
    /// What has just begun to go out.
    pub handed: Arc<Mutex<Handed>>,
    /// Held by the request that gets the next slot under a limit.
    pub slot_turn: Arc<tokio::sync::Mutex<()>>,
    /// How fast may be sent.
    pub limit: Throttle,
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
    /// What changed in the synced folder, if we sync.
    pub sync: Option<SyncFeed>,
}

/// What the description of the routes begins with.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "potluck peer",
        description = "What one peer shares. Everything only reads. Lengths are bytes (`len`), times milliseconds (`_ms`). \
                       Errors are `application/problem+json` (RFC 9457)."
    ),
    components(schemas(Problem, HaveLine))
)]
struct Described;

/// All routes of a peer.
pub fn router(serve: Serve, people: People, pages: Pages, metrics: PeerMetrics, hosts: HostPolicy) -> Router {
    let (described, document) = OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(content))
        .routes(routes!(file))
        .route_layer(axum::middleware::from_fn_with_state(people.clone(), people::dress))
        .merge(exports::router(people))
        .routes(routes!(chunk_map))
        .merge(bundles::router())
        .routes(routes!(have))
        .routes(routes!(index))
        .routes(routes!(sync))
        .routes(routes!(healthz))
        .merge(metrics::router(metrics.clone()))
        .split_for_parts();
    described
        .merge(pages::router(pages))
        .merge(docs::router(&without_wildcards(document)))
        .fallback(|| async {
            not_found(
                "A peer serves its page at /, and /f/PATH, /v1/content/ID, /v1/content/ID/chunks, …/have, …/metalink, …/torrent, /v1/contents, /v1/index and /v1/sync.",
            )
        })
        .method_not_allowed_fallback(|| async { method_not_allowed() })
        .layer(axum::middleware::from_fn_with_state(hosts, host::guard))
        .layer(axum::middleware::from_fn(request_id::follow))
        .layer(axum::middleware::map_response(harden))
        .layer(axum::middleware::from_fn_with_state(metrics.metrics, measure))
        .with_state(serve)
}

/// No answer of a peer is ever run, framed or guessed at by a browser, but for its page, which brings a policy of its own.
async fn harden(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 2] =
        [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::REFERRER_POLICY, "no-referrer")];
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    // Only our own pages have a policy of their own.
    let policy = HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'");
    response.headers_mut().entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    response
}

/// Whether it lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It does.", body = PeerHealth), AnyProblem))]
async fn healthz(State(serve): State<Serve>) -> Json<PeerHealth> {
    Json(PeerHealth { status: "ok".into(), peer_id: (serve.who)().0 })
}

/// A content's bytes.
///
/// An unfinished one is given as far as it is verified: a range that is not all here is answered with 404.
#[utoipa::path(get, path = "/v1/content/{id}",
    params(("id" = ContentId, Path, description = "Which content."),
        ("name" = Option<String>, Query, description = "What the download is to be called."),
        ("range" = Option<String>, Header, description = "One byte range.")),
    responses(
        (status = 200, description = "All of it, with an ETag; other owners in Link, the SHA-256 in Repr-Digest once it is known.",
            body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range that was asked for.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has it: If-None-Match."),
        (status = 416, description = "It has no such bytes.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was asked for as fresh, and a copy is on its way to somebody.",
            body = Problem, content_type = "application/problem+json"),
        NotFound, AnyProblem))]
async fn content(
    State(serve): State<Serve>,
    id: Result<Path<String>, PathRejection>,
    asker: Asker,
) -> Result<Response, Problem> {
    let id = parse_id(&readable(id)?)?;
    for (path, file) in serve.library.find(id) {
        if let Some(response) = serve.respond(&path, file, &asker).await {
            return Ok(response);
        }
    }
    serve.respond_in_part(id, &asker).await
}

/// A file by name, as a download. With `.meta4` after the name: its Metalink.
#[utoipa::path(get, path = "/f/{*path}",
    params(("path" = String, Path, description = "The name."),
        ("range" = Option<String>, Header, description = "One byte range.")),
    responses(
        (status = 200, description = "All of it, with an ETag; other owners in Link, the SHA-256 in Repr-Digest once it is known.",
            body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range that was asked for.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has it: If-None-Match."),
        (status = 416, description = "It has no such bytes.", body = Problem, content_type = "application/problem+json"),
        NotFound, AnyProblem))]
async fn file(
    State(serve): State<Serve>,
    path: Result<Path<String>, PathRejection>,
    asker: Asker,
) -> Result<Response, Problem> {
    let gone = || not_found("This peer does not share a file of that name.");
    let path: SharePath = readable(path)?.parse().map_err(|_| gone())?;
    let file = serve.library.get(&path).ok_or_else(gone)?;
    let mut response = serve.respond(&path, file, &asker).await.ok_or_else(gone)?;
    response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition(path.file_name()));
    Ok(response)
}

/// A content's chunk map: 32 bytes a chunk, and what proves the length.
#[utoipa::path(get, path = "/v1/content/{id}/chunks", params(("id" = ContentId, Path, description = "Which content.")),
    responses(
        (status = 200, description = "The map.", body = Vec<u8>, content_type = "application/octet-stream",
            headers(("potluck-content-len" = u64, description = "The content's length in bytes."),
                ("potluck-length-proof" = String, description = "What proves it, if there are several chunks."))),
        NotFound, AnyProblem))]
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
                tracing::debug!(path = path.as_str(), content_id = %id, %error, "no claim from a shared file");
                serve.look_again.on_unread(path, file.identity, &error);
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

/// Which chunks are held, and then those that are gained, as they are verified: a stream of `HaveLine`.
#[utoipa::path(get, path = "/v1/content/{id}/have", params(("id" = ContentId, Path, description = "Which content.")),
    responses((status = 200, description = "JSON, one object a line.", body = String, content_type = "application/jsonl"),
        NotFound, AnyProblem))]
async fn have(State(serve): State<Serve>, id: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = parse_id(&readable(id)?)?;
    let stream = HaveStream { id, live: serve.live.clone(), library: serve.library.clone() };
    let lines = stream.lines().ok_or_else(not_held)?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response())
}

fn not_held() -> Problem {
    not_found("This peer does not hold that content.")
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct IndexQuery {
    /// `next` of the last page.
    after: Option<SharePath>,
    /// Files on one page, 10,000 at most.
    limit: Option<usize>,
}

/// What this peer shares, page by page.
#[utoipa::path(get, path = "/v1/index", params(IndexQuery),
    responses((status = 200, description = "A page, in order of path.", body = Index), BadQuery, AnyProblem))]
async fn index(State(serve): State<Serve>, RawQuery(raw): RawQuery) -> Result<Json<Index>, Problem> {
    let query = axum::http::Uri::builder().path_and_query(format!("/?{}", raw.unwrap_or_default())).build();
    let query = query
        .ok()
        .and_then(|uri| Query::<IndexQuery>::try_from_uri(&uri).ok())
        .ok_or_else(|| bad_query("It takes after=PATH and limit=N."))?;
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

/// What changed in the synced folder as this peer knows it, in pages that can be waited for.
#[utoipa::path(get, path = "/v1/sync", params(SyncQuery),
    responses((status = 200, description = "Paths that changed after that number, each once.", body = SyncPage),
        BadQuery, NotFound, AnyProblem))]
async fn sync(
    State(serve): State<Serve>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    query: Result<Query<SyncQuery>, QueryRejection>,
) -> Result<Json<SyncPage>, Response> {
    let query = query.map(|Query(query)| query).map_err(|error| bad_query(error.body_text()).into_response())?;
    let off = || not_found("This peer does not sync its share folder.").into_response();
    match serve.sync.as_ref().ok_or_else(off)?.page(&query, from.ip()).await {
        Ok(page) => Ok(Json(page)),
        Err(FeedError::Off) => Err(off()),
        Err(FeedError::Busy) => Err(busy("busy", "Too many wait for news", serve.retry_after_s)),
    }
}

/// What stands in the address, decoded; bytes that are not UTF-8 name nothing here.
fn readable(text: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    text.map(|Path(text)| text).map_err(|_| not_found("The address is not UTF-8 once it is decoded."))
}

fn parse_id(text: &str) -> Result<ContentId, Problem> {
    text.parse().map_err(|_| not_found("A content id has 64 hexadecimal digits."))
}

/// How bytes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// By any HTTP client.
    Plainly,
    /// By a leecher.
    Chunks,
    /// By a leecher that knows of no copy on its way.
    Fresh,
}

impl Asked {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get(FRESH_HEADER).map(HeaderValue::as_bytes) {
            None => Self::Plainly,
            Some(b"1") => Self::Fresh,
            Some(_) => Self::Chunks,
        }
    }
}

/// A request for bytes.
struct Asker {
    method: Method,
    headers: HeaderMap,
    asked: Asked,
    from: IpAddr,
    /// Parts of files that the kernel sends, for a leecher.
    parts: Option<FileParts>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(request: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let ConnectInfo(from) = ConnectInfo::<SocketAddr>::from_request_parts(request, state).await?;
        let (method, headers) = (request.method.clone(), request.headers.clone());
        let asked = Asked::of(&headers);
        let parts = request.extensions.get().filter(|_| asked != Asked::Plainly).cloned();
        Ok(Self { method, headers, asked, from: from.ip(), parts })
    }
}

impl Serve {
    /// Answers with the bytes of a file; `None` if it is no longer what was hashed.
    async fn respond(&self, path: &SharePath, file: SharedFile, asker: &Asker) -> Option<Response> {
        let (id, len) = (file.content_id, file.identity.len);
        let (bytes, builder) = match negotiate(id, len, &asker.headers) {
            Negotiated::Over(response) => return Some(response),
            Negotiated::Send(bytes, builder) => (bytes, builder),
        };
        let Some(slot) = self.slot(id, asker.asked).await else { return Some(self.choked()) };
        let run = Geometry::new(len).ok().and_then(|geometry| geometry.chunks_touching(bytes.clone()));
        // Before the file is opened, so that nobody else gets the same chunks meanwhile.
        if let Err(elsewhere) = self.hand_out(id, run, asker) {
            return Some(coming(&elsewhere));
        }
        let (folder, shared_path, identity) = (self.folder.clone(), path.clone(), file.identity);
        let opened = tokio::task::spawn_blocking(move || folder.open_unchanged(&shared_path, identity)).await;
        let opened = match opened.map_err(io::Error::other).flatten() {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(path = path.as_str(), %error, "a shared file is not what it was");
                self.look_again.on_unread(path.clone(), identity, &error);
                return None;
            }
        };
        let shared = Shared { path: path.clone(), identity, look_again: self.look_again.clone() };
        Some(self.answer(builder, opened.into(), Some(shared.into()), bytes, slot, asker))
    }

    /// Answers with bytes of a content that is being fetched, if every chunk that they touch is verified.
    async fn respond_in_part(&self, id: ContentId, asker: &Asker) -> Result<Response, Problem> {
        let live = self.live.get(id).ok_or_else(not_held)?;
        let geometry = live.partial.map().geometry();
        let (bytes, builder) = match negotiate(id, geometry.len(), &asker.headers) {
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
        let Some(slot) = self.slot(id, asker.asked).await else { return Ok(self.choked()) };
        if let Err(elsewhere) = self.hand_out(id, run, asker) {
            return Ok(coming(&elsewhere));
        }
        Ok(self.answer(builder, live.partial.file(), None, bytes, slot, asker))
    }

    /// A slot for one upload, if there is one; for a leecher also a seat among those who fetch the content.
    async fn slot(&self, id: ContentId, asked: Asked) -> Option<Slot> {
        let seat = match asked {
            Asked::Plainly => None,
            Asked::Fresh | Asked::Chunks => Some(self.crowd.enter(id)?),
        };
        Some(Slot { permit: self.permit().await?, seat })
    }

    /// Under a limit as few uploads run side by side as get a rate that their readers can live with. A request waits in
    /// turn for a while then: each place that gets free would otherwise go to whoever asks just then, and some would ask in
    /// vain for ever.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let take = || self.slots.clone().try_acquire_owned().ok();
        let n_at_once = || self.limit.n_at_once(LEAST_UPLOAD_RATE);
        if n_at_once() >= self.n_slots {
            return take();
        }
        let in_turn = async {
            let _turn = self.slot_turn.lock().await;
            loop {
                let n_running = self.n_slots - self.slots.available_permits();
                if n_running < n_at_once()
                    && let Some(slot) = take()
                {
                    return slot;
                }
                tokio::time::sleep(SLOT_LOOK).await;
            }
        };
        tokio::time::timeout(SLOT_PATIENCE, in_turn).await.ok()
    }

    pub(super) fn choked(&self) -> Response {
        self.traffic.n_refused.fetch_add(1, Ordering::Relaxed);
        choked(self.retry_after_s)
    }

    fn answer(
        &self,
        builder: Builder,
        file: Arc<File>,
        shared: Option<Arc<Shared>>,
        bytes: Range<u64>,
        slot: Slot,
        asker: &Asker,
    ) -> Response {
        let (pool, traffic, limit) = (self.pool.clone(), self.traffic.clone(), self.limit.clone());
        let parts = asker.parts.clone();
        send(builder, &asker.method, FileSlices { file, shared, bytes, parts, pool, traffic, limit, slot })
    }

    /// Tells whoever follows the content that copies of these chunks are on their way; those that go elsewhere if they
    /// were asked for as fresh and are not. Nothing is on its way after `HEAD`.
    fn hand_out(&self, id: ContentId, run: Option<Run>, asker: &Asker) -> Result<(), Vec<ChunkIndex>> {
        let Some(run) = run.filter(|_| asker.method != Method::HEAD) else { return Ok(()) };
        let (is_fresh, now) = (asker.asked == Asked::Fresh, Instant::now());
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).hand(id, run, asker.from, is_fresh, now)?;
        for chunk in run.indices() {
            self.live.tell(id, News::Coming(chunk.get()));
        }
        Ok(())
    }
}
