//! Asking an owner: bytes and chunk maps; and any peer: what changed in the synced folder.
//!
//! Invariant: of what is read to its end here never more is read than was asked for, and what is returned as a response starts
//! at the first byte of the range or bundle that was asked for. Whether the bytes are right is for the caller to prove.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use potluck_common::address::Reach;
use potluck_common::chunk::Geometry;
use potluck_common::net::client::{ClientConfig, client, parse_base_url};
use potluck_common::net::request_id::REQUEST_ID;
use potluck_common::protocol::{Index, Owner, SyncPage, SyncQuery};
use potluck_common::tree::LengthProof;
use potluck_common::{ContentId, SharePath};
use reqwest::{Response, StatusCode, Url, header};

use super::bundle::write_ids;
use super::serve::{COMING_HEADER, CONTENT_LEN_HEADER, FRESH_HEADER, LENGTH_PROOF_HEADER};
use super::tracker_client::{MAX_SYNC_ANSWER_LEN, longest_wait, root_cause, set_sync_query};
use crate::range::parse_content_range;

/// What is wrong with a body that goes on after its end.
pub const TOO_LONG: &str = "a body that is too long";

/// An owner that gives fewer bytes a second of a chunk map is given up (C11): the next byte alone would come in time.
const SLOW_RATE: u64 = 8 << 10;
/// Chunks that a refusal may name: the most that one request is for.
const MAX_COMING: usize = 64;
/// What every chunk map is granted besides.
const SLOW_START: Duration = Duration::from_secs(10);

/// Largest page of an index that is read: 10,000 long names.
const MAX_INDEX_LEN: u64 = 64 << 20;

/// Why an owner gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It cannot be connected to, or went silent, or closed.
    #[error("{0}")]
    Unreachable(String),
    /// All its slots are taken.
    #[error("busy for {0:?}")]
    Choked(Duration),
    /// It has begun to give these chunks, which were asked for as fresh, to somebody else.
    #[error("on their way to others: {0:?}")]
    Coming(Vec<u32>),
    /// It does not have what it was listed for.
    #[error("it does not hold that")]
    NotHeld,
    /// It answered something else than it was asked for.
    #[error("it answered something else: {0}")]
    Wrong(&'static str),
}

/// What an owner says of a content: a chunk map that was made with this length. Neither is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapClaim {
    /// The length in bytes.
    pub len: u64,
    /// 32 bytes a chunk.
    pub map: Vec<u8>,
    /// What is to prove the length, if the owner sent anything.
    pub proof: Option<LengthProof>,
}

#[derive(Clone)]
struct Clients {
    http: reqwest::Client,
    /// For answers that are held back.
    patient: reqwest::Client,
}

/// A client for all owners.
#[derive(Clone)]
pub struct PeerClient {
    /// That judge names as they resolve, for either reach.
    same_host: Clients,
    network: Clients,
    reach: Arc<dyn Fn() -> Reach + Send + Sync>,
}

impl fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerClient").field("reach", &(self.reach)()).finish_non_exhaustive()
    }
}

impl PeerClient {
    /// A client that gives up an owner that is silent for `timeout`. `reach` says whether loopback may be dialled now.
    ///
    /// # Errors
    /// If sockets cannot be set up.
    pub fn new(timeout: Duration, reach: impl Fn() -> Reach + Send + Sync + 'static) -> Result<Self, reqwest::Error> {
        let of = |reach| {
            let config = ClientConfig { read_timeout: timeout, reach, ..ClientConfig::default() };
            let patient = ClientConfig { read_timeout: timeout + longest_wait(), ..config.clone() };
            Ok(Clients { http: client(&config)?, patient: client(&patient)? })
        };
        Ok(Self { same_host: of(Reach::SameHost)?, network: of(Reach::Network)?, reach: Arc::new(reach) })
    }

    fn clients(&self) -> &Clients {
        match (self.reach)() {
            Reach::SameHost => &self.same_host,
            Reach::Network => &self.network,
        }
    }

    /// The base URL of an owner, if it is one to dial.
    pub fn base_of(&self, owner: &Owner) -> Option<Url> {
        match parse_base_url(&owner.base_url, (self.reach)()) {
            Ok(base) => Some(base),
            Err(error) => {
                tracing::warn!(owner = owner.name, base_url = owner.base_url, %error, "an owner is not dialled");
                None
            }
        }
    }

    /// Starts reading a range; the response's body is that range, if the owner is honest, and may be anything. `is_fresh` is for
    /// chunks: the owner may refuse those that are ([`FetchError::Coming`]). `request_id` names the request in both logs.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn range(
        &self,
        base: &Url,
        id: ContentId,
        bytes: Range<u64>,
        is_fresh: Option<bool>,
        request_id: &str,
    ) -> Result<Response, FetchError> {
        let mut request = self
            .clients()
            .http
            .get(content_url(base, id, ""))
            .header(REQUEST_ID, request_id)
            .header(header::RANGE, format!("bytes={}-{}", bytes.start, bytes.end - 1));
        if let Some(is_fresh) = is_fresh {
            request = request.header(FRESH_HEADER, if is_fresh { "1" } else { "0" });
        }
        ranged(check(request.send().await)?, bytes)
    }

    /// Reads a whole content of at most `max` bytes; one byte more is an error. `request_id` is as for [`PeerClient::range`].
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn whole(&self, base: &Url, id: ContentId, max: u64, request_id: &str) -> Result<Vec<u8>, FetchError> {
        let request = self.clients().http.get(content_url(base, id, "")).header(REQUEST_ID, request_id);
        let response = check(request.send().await)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Wrong("not the whole"));
        }
        read_at_most(response, max).await
    }

    /// Starts reading a bundle of small contents; the body is one, if the owner is honest, and may be anything.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn bundle(
        &self,
        base: &Url,
        ids: impl IntoIterator<Item = ContentId>,
        request_id: &str,
    ) -> Result<Response, FetchError> {
        let mut url = base.clone();
        url.set_path("v1/contents");
        url.set_query(Some(&format!("ids={}", write_ids(ids))));
        let response = check(self.clients().http.get(url).header(REQUEST_ID, request_id).send().await)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => Err(FetchError::Wrong("not the whole")),
        }
    }

    /// Reads a short range to its end; it may be empty.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn bytes(
        &self,
        base: &Url,
        id: ContentId,
        bytes: Range<u64>,
        request_id: &str,
    ) -> Result<Vec<u8>, FetchError> {
        let len = bytes.end - bytes.start;
        if len == 0 {
            return Ok(Vec::new());
        }
        read_at_most(self.range(base, id, bytes, None, request_id).await?, len).await
    }

    /// Asks for the chunk map.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn chunk_map(&self, base: &Url, id: ContentId) -> Result<MapClaim, FetchError> {
        let response = check(self.clients().http.get(content_url(base, id, "/chunks")).send().await)?;
        let len = response.headers().get(CONTENT_LEN_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        let len: u64 = len.ok_or(FetchError::Wrong("no length"))?;
        let geometry = Geometry::new(len).map_err(|_| FetchError::Wrong("a length over the limit"))?;
        let proof = response.headers().get(LENGTH_PROOF_HEADER).and_then(|value| hex::decode(value.as_bytes()).ok());
        let map_len = 32 * u64::from(geometry.n_chunks());
        let patience = SLOW_START + Duration::from_secs(map_len / SLOW_RATE);
        let map = tokio::time::timeout(patience, read_at_most(response, map_len)).await;
        let map = map.unwrap_or_else(|_| Err(FetchError::Unreachable("its chunk map comes too slowly".into())))?;
        Ok(MapClaim { len, map, proof: proof.map(LengthProof::from_wire) })
    }

    /// A page of what a peer shares.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn index(&self, base: &Url, after: Option<&SharePath>) -> Result<Index, FetchError> {
        let mut url = base.clone();
        url.set_path("v1/index");
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", after.as_str());
        }
        let response = check(self.clients().http.get(url).send().await)?;
        let body = read_at_most(response, MAX_INDEX_LEN).await?;
        serde_json::from_slice(&body).map_err(|_| FetchError::Wrong("no index"))
    }

    /// Starts listening to what an owner holds and gains.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn have(&self, base: &Url, id: ContentId) -> Result<Response, FetchError> {
        check(self.clients().http.get(content_url(base, id, "/have")).send().await)
    }

    /// What changed in the synced folder as that peer knows it; held back until there is news, if the query says so.
    ///
    /// # Errors
    /// See [`FetchError`]; `NotHeld` if the peer does not sync.
    pub async fn sync_page(&self, base: &Url, query: &SyncQuery) -> Result<SyncPage, FetchError> {
        let mut url = base.clone();
        url.set_path("v1/sync");
        set_sync_query(&mut url, query);
        let response = check(self.clients().patient.get(url).send().await)?;
        let body = read_at_most(response, MAX_SYNC_ANSWER_LEN as u64).await?;
        serde_json::from_slice(&body).map_err(|_| FetchError::Wrong("not a page of its index"))
    }
}

fn content_url(base: &Url, id: ContentId, rest: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("v1/content/{id}{rest}"));
    url
}

/// The response, if it is to bring these bytes.
pub(super) fn ranged(response: Response, bytes: Range<u64>) -> Result<Response, FetchError> {
    let content_range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    match response.status() {
        StatusCode::PARTIAL_CONTENT if content_range.and_then(parse_content_range) == Some(bytes) => Ok(response),
        StatusCode::PARTIAL_CONTENT => Err(FetchError::Wrong("another range")),
        _ => Err(FetchError::Wrong("no range")),
    }
}

/// What an answer means before its body.
pub(super) fn check(response: Result<Response, reqwest::Error>) -> Result<Response, FetchError> {
    let response = response.map_err(|error| FetchError::Unreachable(root_cause(&error)))?;
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::GONE | StatusCode::CONFLICT => {
            Err(FetchError::NotHeld)
        }
        StatusCode::PRECONDITION_FAILED => {
            let numbers =
                response.headers().get(COMING_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
            Err(FetchError::Coming(
                numbers.split(',').take(MAX_COMING).filter_map(|number| number.parse().ok()).collect(),
            ))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Err(FetchError::Choked(Duration::from_secs(wait.unwrap_or(1).clamp(1, 30))))
        }
        _ => Err(FetchError::Wrong("an error")),
    }
}

async fn read_at_most(mut response: Response, max: u64) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| FetchError::Unreachable(root_cause(&error)))? {
        if (body.len() + piece.len()) as u64 > max {
            return Err(FetchError::Wrong(TOO_LONG));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}
