//! Files for clients of other kinds, made of what we share: Metalinks (RFC 5854), and torrents with web seeds (BEP 19). They
//! name all owners, and what to verify the bytes with.
//!
//! Both need sums that cost a reading of the files. Those are made in the background, and until then the answer is 503: clients
//! would save a 202, and ask again by themselves after a 503.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use potluck_common::net::problem::{not_found, problem};
use potluck_common::openapi::{AnyProblem, NotFound};
use potluck_common::protocol::Problem;
use potluck_common::{ContentId, SharePath};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::metalink::{self, metalink};
use super::mirrors::parent_url;
use super::people::{People, disposition, wanted_name};
use super::torrent::{self, Subject, torrent};
use crate::share::sha1::{Part, piece_len};

/// How long a request waits, below what clients take for silence.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to ask again for what is being made.
const RETRY_S: u64 = 5;
/// Files in a folder of which there is a torrent; the tracker's limit is the same.
const MAX_FOLDER_FILES: usize = 10_000;

/// The routes that only people's clients ask. By name they are asked for below `/f/`, see `People::export`.
pub fn router<S: Clone + Send + Sync + 'static>(people: People) -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(metalink_by_id)).routes(routes!(torrent_by_id)).with_state(people)
}

/// Which content, and what it is to be called.
type Named = (ContentId, SharePath);

fn named(people: &People, id: Result<Path<String>, PathRejection>, uri: &Uri) -> Result<Named, Problem> {
    let id = id.ok().and_then(|Path(text)| text.parse().ok());
    let id = id.ok_or_else(|| not_found("A content id has 64 hexadecimal digits."))?;
    let places = people.library.find(id);
    let (path, _) = places.first().ok_or_else(|| not_found("This peer does not hold all of that content."))?;
    Ok((id, wanted_name(uri).unwrap_or_else(|| path.clone())))
}

/// A content's Metalink 4 (RFC 5854): all complete owners, length, SHA-256 of the whole and of pieces.
#[utoipa::path(get, path = "/v1/content/{id}/metalink",
    params(("id" = ContentId, Path, description = "Which content."),
        ("name" = Option<String>, Query, description = "What the download is to be called.")),
    responses(
        (status = 200, description = "The Metalink. While it is made: 503 with Retry-After.",
            body = String, content_type = "application/metalink4+xml"),
        NotFound, AnyProblem))]
async fn metalink_by_id(
    State(people): State<People>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, name) = named(&people, id, &uri)?;
    people.metalink(id, name.file_name(), &headers, Some(from.ip().to_canonical())).await
}

/// A content's torrent, whose web seeds (BEP 19) are all complete owners.
#[utoipa::path(get, path = "/v1/content/{id}/torrent",
    params(("id" = ContentId, Path, description = "Which content."),
        ("name" = Option<String>, Query, description = "What the download is to be called.")),
    responses(
        (status = 200, description = "The torrent. While it is made: 503 with Retry-After.",
            body = Vec<u8>, content_type = "application/x-bittorrent"),
        NotFound, AnyProblem))]
async fn torrent_by_id(
    State(people): State<People>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, name) = named(&people, id, &uri)?;
    people.torrent(id, name.file_name(), &headers, Some(from.ip().to_canonical())).await
}

impl People {
    /// What `/f/{path}` stands for if no file is called so: a file's or a folder's name with an ending after it. `None` if it
    /// stands for nothing.
    pub(super) async fn export(
        &self,
        path: &str,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Option<Result<Response, Problem>> {
        let before = |suffix| path.strip_suffix(suffix).and_then(|path| path.parse::<SharePath>().ok());
        if let Some(path) = before(metalink::SUFFIX) {
            let file = self.library.get(&path)?;
            return Some(self.metalink(file.content_id, path.file_name(), headers, from).await);
        }
        let path = before(torrent::SUFFIX)?;
        match self.library.get(&path) {
            Some(file) => Some(self.torrent(file.content_id, path.file_name(), headers, from).await),
            None => self.folder_torrent(&path, headers, from).await,
        }
    }

    async fn metalink(
        &self,
        id: ContentId,
        name: &str,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Result<Response, Problem> {
        let (others, sums) = tokio::join!(self.urls(id, from), self.digests.wait(id, PATIENCE));
        let (Some(len), Some(sums)) = (self.len_of(id), sums) else { return Ok(being_made()) };
        let own = own_url(headers, &format!("/v1/content/{id}"));
        let urls: Vec<_> = own.into_iter().chain(others).collect();
        let text = metalink(name, len, &sums, &urls);
        Ok(exported(text.into_bytes(), metalink::CONTENT_TYPE, &format!("{name}{}", metalink::SUFFIX)))
    }

    async fn torrent(
        &self,
        id: ContentId,
        name: &str,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Result<Response, Problem> {
        let len = self.len_of(id).ok_or_else(|| not_found("This peer does not hold all of that content."))?;
        if len == 0 {
            return Err(empty());
        }
        let parts: Arc<[Part]> = Arc::new([(id, len)]);
        let (others, pieces) = tokio::join!(self.urls(id, from), self.digests.wait_for_pieces(parts, PATIENCE));
        let Some(pieces) = pieces else { return Ok(being_made()) };
        let own = own_url(headers, &format!("/v1/content/{id}"));
        let seeds: Vec<_> = own.into_iter().chain(others).collect();
        let bytes = torrent(name, Subject::File(len), piece_len(len), &pieces, &seeds);
        Ok(exported(bytes, torrent::CONTENT_TYPE, &format!("{name}{}", torrent::SUFFIX)))
    }

    /// `None` if there is nothing below that name.
    async fn folder_torrent(
        &self,
        folder: &SharePath,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Option<Result<Response, Problem>> {
        let prefix = format!("{folder}/");
        let mut files: Vec<(SharePath, u64)> = Vec::new();
        let mut parts: Vec<Part> = Vec::new();
        for path in self.library.below(folder) {
            // What is gone meanwhile, or stands at the folder's own name, is not in it.
            let below = path.as_str().strip_prefix(&prefix).and_then(|below| below.parse().ok());
            let Some((below, file)) = below.zip(self.library.get(&path)) else { continue };
            files.push((below, file.identity.len));
            parts.push((file.content_id, file.identity.len));
        }
        let (n_files, len) = (files.len(), files.iter().map(|(_, len)| len).sum::<u64>());
        match n_files {
            0 => return None,
            _ if len == 0 => return Some(Err(empty())),
            1..=MAX_FOLDER_FILES => {}
            _ => {
                let detail = format!("A torrent is made of at most {MAX_FOLDER_FILES} files. Ask for a folder in it.");
                return Some(Err(problem(
                    StatusCode::CONFLICT,
                    "too-many-files",
                    "The folder has too many files",
                    detail,
                )));
            }
        }
        let others = async {
            match from {
                Some(from) => self.mirrors.folder_urls(folder, n_files as u64, len, from).await,
                None => Vec::new(),
            }
        };
        let (others, pieces) = tokio::join!(others, self.digests.wait_for_pieces(parts.into(), PATIENCE));
        let Some(pieces) = pieces else { return Some(Ok(being_made())) };
        let seeds: Vec<_> = own_url(headers, &parent_url(folder)).into_iter().chain(others).collect();
        let name = folder.file_name();
        let bytes = torrent(name, Subject::Folder(&files), piece_len(len), &pieces, &seeds);
        Some(Ok(exported(bytes, torrent::CONTENT_TYPE, &format!("{name}{}", torrent::SUFFIX))))
    }

    fn len_of(&self, id: ContentId) -> Option<u64> {
        self.library.find(id).first().map(|(_, file)| file.identity.len)
    }
}

/// At this peer: the way that the client found to us is one that works for it.
fn own_url(headers: &HeaderMap, path: &str) -> Option<String> {
    let host: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    Some(format!("http://{host}{path}"))
}

fn exported(bytes: Vec<u8>, content_type: &'static str, name: &str) -> Response {
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_DISPOSITION, disposition(name));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn empty() -> Problem {
    problem(StatusCode::CONFLICT, "empty", "There is no torrent of nothing", "BitTorrent has no empty torrents.")
}

fn being_made() -> Response {
    let title = "It is being made";
    let detail = "The files are read for their sums. Ask again after the time in Retry-After.";
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "being-made", title, detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_S));
    response
}
