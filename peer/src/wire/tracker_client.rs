//! Asking the tracker.
//!
//! Trackers are asked in the order in which they were given until one answers. Nothing of an answer is believed but
//! that somebody said so: ids are proven by hashing, names and addresses are parsed where they are read.

use potluck_common::identity::{Identity, SIGNATURE_HEADER};
use potluck_common::net::client::{ClientConfig, client};
use potluck_common::protocol::{Announce, AnnounceReply, ContentInfo, FileInfo, Files, Peers, Problem};
use potluck_common::{ContentId, SharePath};
use reqwest::{Response, StatusCode, Url, header};
use serde::de::DeserializeOwned;
use std::time::Duration;

use potluck_common::address::Reach;

/// Largest answer that is read, in bytes: a page of the longest names.
const MAX_ANSWER_LEN: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
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
    base: Url,
}

impl TrackerClient {
    /// A client for the tracker at `base`, an `http://HOST:PORT` that the user gave.
    ///
    /// # Errors
    /// If sockets cannot be set up.
    pub fn new(base: Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        // The user chose the address, so loopback by name is fine.
        let config = ClientConfig { read_timeout: timeout, reach: Reach::SameHost, ..ClientConfig::default() };
        Ok(Self { http: client(&config)?, base })
    }

    /// Its address.
    pub const fn base(&self) -> &Url {
        &self.base
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
            .body(body);
        read(request.send().await).await
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

    /// Everybody who is there.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn peers(&self) -> Result<Peers, AskError> {
        self.get(self.url("v1/peers", &[])).await
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
        read(self.http.get(url).send().await).await
    }
}

async fn read<T: DeserializeOwned>(response: Result<Response, reqwest::Error>) -> Result<T, AskError> {
    let mut response = response.map_err(|error| AskError::Unreachable(root_cause(&error)))?;
    let status = response.status();
    let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| AskError::Unreachable(root_cause(&error)))? {
        if body.len() + piece.len() > MAX_ANSWER_LEN {
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
