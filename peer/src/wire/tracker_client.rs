//! Asking the tracker.
//!
//! Trackers are asked in the order in which they were given until one answers. Nothing of an answer is believed but
//! that somebody said so: ids are proven by hashing, names and addresses are parsed where they are read.

use potluck_common::identity::{Identity, SIGNATURE_HEADER};
use potluck_common::net::client::{ClientConfig, client};
use potluck_common::protocol::{
    Announce, AnnounceReply, ContentInfo, FileInfo, Files, FolderInfo, MAX_SYNC_PAGE_LEN, MAX_SYNC_WAIT_MS, Matrix,
    Peers, Problem, SyncPage, SyncQuery, TrackerInfo,
};
use potluck_common::{ContentId, SharePath};
use reqwest::{Response, StatusCode, Url, header};
use serde::de::DeserializeOwned;
use std::time::Duration;

use potluck_common::address::Reach;

/// Largest answer that is read, in bytes: a page of the longest names.
const MAX_ANSWER_LEN: usize = 64 << 20;
/// How many times the longest silence a whole answer may take: a tracker that trickles must not hold a verb.
const PATIENCE: u32 = 6;
/// Largest page of the synced folder that is read: the last entry may reach over the end.
pub(super) const MAX_SYNC_ANSWER_LEN: usize = MAX_SYNC_PAGE_LEN + (1 << 20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none to ask.
    #[error("no tracker was found")]
    NoTracker,
    /// Nothing answers there, or not in time, or not as a tracker does.
    #[error("{0}")]
    Unreachable(String),
    /// The tracker does not know it.
    #[error("the tracker does not know it")]
    NotFound,
    /// Too much, too often: come back after this time.
    #[error("the tracker asks to wait {0:?}")]
    Wait(Duration),
    /// The tracker will not have it.
    #[error("{}: {}", .0.title, .0.detail)]
    Refused(Problem),
}

/// One tracker.
#[derive(Debug, Clone)]
pub struct TrackerClient {
    http: reqwest::Client,
    /// For answers that are held back.
    patient: reqwest::Client,
    base: Url,
    /// From question to the last byte of an answer that is not held back.
    patience: Duration,
}

impl TrackerClient {
    /// A client for the tracker at `base`, an `http://HOST:PORT` that the user gave.
    ///
    /// # Errors
    /// If sockets cannot be set up.
    pub fn new(base: Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        // The user chose the address, so loopback by name is fine.
        let config = ClientConfig { read_timeout: timeout, reach: Reach::SameHost, ..ClientConfig::default() };
        let patient = ClientConfig { read_timeout: timeout + longest_wait(), ..config.clone() };
        Ok(Self { http: client(&config)?, patient: client(&patient)?, base, patience: timeout * PATIENCE })
    }

    /// Its address.
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// Its address as people write it.
    pub fn name(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Which tracker it is.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn info(&self) -> Result<TrackerInfo, AskError> {
        self.get(self.url("v1/tracker", &[])).await
    }

    /// Which tracker it is, and what time it has: the value of its `Date` header.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn introduce(&self) -> Result<(TrackerInfo, Option<String>), AskError> {
        let response = self.http.get(self.url("v1/tracker", &[])).timeout(self.patience).send().await;
        let date = response.as_ref().ok().and_then(|response| response.headers().get(header::DATE));
        let date = date.and_then(|date| date.to_str().ok()).map(str::to_owned);
        Ok((read(response, MAX_ANSWER_LEN).await?, date))
    }

    /// Sends an announce, signed.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn announce(&self, announce: &Announce, identity: &Identity) -> Result<AnnounceReply, AskError> {
        let body = serde_json::to_vec(announce).map_err(|error| AskError::Unreachable(error.to_string()))?;
        let signature = identity.sign(&body);
        let request = self
            .http
            .post(self.url("v1/announce", &[]))
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE_HEADER, signature)
            .body(body)
            .timeout(self.patience);
        read(request.send().await, MAX_ANSWER_LEN).await
    }

    /// A page of names.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn files(&self, query: &[(&str, &str)]) -> Result<Files, AskError> {
        self.get(self.url("v1/files", query)).await
    }

    /// One name.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn file(&self, path: &SharePath) -> Result<FileInfo, AskError> {
        let mut url = self.url("v1/files", &[]);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.components());
        }
        let info: FileInfo = self.get(url).await?;
        if info.path != *path {
            return Err(AskError::Unreachable("it answers about another file than it was asked for".into()));
        }
        Ok(info)
    }

    /// The owners of a content, at most `max`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn content(&self, id: ContentId, max: usize) -> Result<ContentInfo, AskError> {
        let info: ContentInfo = self.get(self.url(&format!("v1/content/{id}"), &[("max", &max.to_string())])).await?;
        if info.content_id != id {
            return Err(AskError::Unreachable("it answers about another content than it was asked for".into()));
        }
        Ok(info)
    }

    /// A folder, and some of those who hold all of it.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn folder(&self, path: &SharePath) -> Result<FolderInfo, AskError> {
        let mut url = self.url("v1/folders", &[]);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.components());
        }
        self.get(url).await
    }

    /// Some of those who are there, chosen at random.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn some_peers(&self, max: usize) -> Result<Peers, AskError> {
        self.get(self.url("v1/peers", &[("max", &max.to_string())])).await
    }

    /// Everybody who is there.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn peers(&self) -> Result<Peers, AskError> {
        self.get(self.url("v1/peers", &[])).await
    }

    /// What changed in the synced folder; held back until there is news, if the query says so.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn sync_page(&self, query: &SyncQuery) -> Result<SyncPage, AskError> {
        let mut url = self.url("v1/sync", &[]);
        set_sync_query(&mut url, query);
        let patience = self.patience + longest_wait();
        read(self.patient.get(url).timeout(patience).send().await, MAX_SYNC_ANSWER_LEN).await
    }

    /// Who lacks what of the synced folder, as a page: see [`Matrix`].
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn matrix(&self, query: &[(&str, &str)]) -> Result<Matrix, AskError> {
        self.get(self.url("v1/matrix", query)).await
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, AskError> {
        read(self.http.get(url).timeout(self.patience).send().await, MAX_ANSWER_LEN).await
    }
}

/// The longest that an answer is held back, and with it the silence before it.
pub(super) const fn longest_wait() -> Duration {
    Duration::from_millis(MAX_SYNC_WAIT_MS)
}

pub(super) fn set_sync_query(url: &mut Url, query: &SyncQuery) {
    let SyncQuery { epoch, after, limit, wait_ms } = *query;
    let mut pairs = url.query_pairs_mut();
    for (name, value) in [("epoch", Some(epoch)), ("after", Some(after)), ("limit", limit), ("wait_ms", Some(wait_ms))]
    {
        if let Some(value) = value {
            pairs.append_pair(name, &value.to_string());
        }
    }
}

async fn read<T: DeserializeOwned>(response: Result<Response, reqwest::Error>, max_len: usize) -> Result<T, AskError> {
    let mut response = response.map_err(|error| AskError::Unreachable(root_cause(&error)))?;
    let status = response.status();
    let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| AskError::Unreachable(root_cause(&error)))? {
        if body.len() + piece.len() > max_len {
            return Err(AskError::Unreachable("the answer is too long".into()));
        }
        body.extend_from_slice(&piece);
    }
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|error| AskError::Unreachable(format!("this is not the answer of a tracker: {error}")));
    }
    match status {
        StatusCode::NOT_FOUND => Err(AskError::NotFound),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Err(AskError::Wait(Duration::from_secs(wait.unwrap_or(1).clamp(1, 60))))
        }
        _ => match serde_json::from_slice(&body) {
            Ok(problem) => Err(AskError::Refused(problem)),
            Err(_) => Err(AskError::Unreachable(format!("this is not a tracker: it answers {status}"))),
        },
    }
}

/// The innermost cause: "connection refused" says more than "error sending request".
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// A tracker that sends a byte now and then is never silent, and yet is given up.
    #[tokio::test]
    async fn a_trickling_tracker_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let trickling = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _head = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let client = TrackerClient::new(base, Duration::from_millis(100)).unwrap();
        let asking = tokio::time::timeout(Duration::from_secs(20), client.peers());
        let ((), answer) = tokio::join!(trickling, asking);
        assert!(matches!(answer.expect("given up in time"), Err(AskError::Unreachable(_))));
    }
}
