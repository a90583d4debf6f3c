//! Reading a body from a stranger: bounded in bytes, in time, and in how many are read at once.
//!
//! Invariant: whatever arrives, bodies in memory stay below [`N_SMALL`] × [`SMALL_LEN`] plus [`N_LARGE`] ×
//! [`MAX_ANNOUNCE_LEN`], and a large one never keeps heartbeats, which are small, from being read.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use potluck_common::protocol::MAX_ANNOUNCE_LEN;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::failure::Failure;

/// Up to this length a body is small.
pub(crate) const SMALL_LEN: usize = 64 << 10;
/// Small bodies read and worked on at once.
const N_SMALL: usize = 1_024;
/// Large bodies read and worked on at once.
const N_LARGE: usize = 16;
/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// So much of a body that is too long is still read, and thrown away: whoever is a little over the limit gets to
/// read the answer instead of a reset.
const MAX_DISCARDED: usize = 2 * MAX_ANNOUNCE_LEN;

/// Turns for reading bodies.
pub(crate) struct Bodies {
    small: Semaphore,
    large: Semaphore,
    timeout: Duration,
}

/// A whole body, and the turn that it takes until it is dropped.
pub(crate) struct Whole<'a> {
    pub(crate) bytes: Bytes,
    _turn: SemaphorePermit<'a>,
}

impl Bodies {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { small: Semaphore::new(N_SMALL), large: Semaphore::new(N_LARGE), timeout }
    }

    /// Reads a body of at most [`MAX_ANNOUNCE_LEN`] bytes.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Whole<'_>, Failure> {
        let len = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
        let len = len.map(|len| usize::try_from(len).unwrap_or(usize::MAX));
        if len.is_some_and(|len| len > MAX_DISCARDED) {
            return Err(too_large());
        }
        let turns = if len.is_some_and(|len| len <= SMALL_LEN) { &self.small } else { &self.large };
        let turn = match timeout(TURN_TIMEOUT, turns.acquire()).await {
            Ok(Ok(turn)) => turn,
            _ => return Err(Failure::busy()),
        };
        let bytes = timeout(self.timeout, collect(body)).await.map_err(|_| too_slow())??;
        Ok(Whole { bytes, _turn: turn })
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    let mut n_read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            let title = "The body broke off";
            Failure::new(StatusCode::BAD_REQUEST, "broken-body", title, "Send it again.")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        n_read += data.len();
        if n_read <= MAX_ANNOUNCE_LEN {
            bytes.extend_from_slice(&data);
        } else if n_read <= MAX_DISCARDED {
            bytes = BytesMut::new();
        } else {
            break;
        }
    }
    if n_read > MAX_ANNOUNCE_LEN { Err(too_large()) } else { Ok(bytes.freeze()) }
}

fn too_large() -> Failure {
    let detail = format!("At most {MAX_ANNOUNCE_LEN} bytes. Send the catalogue in smaller pages.");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
}

fn too_slow() -> Failure {
    let title = "The body did not come in time";
    Failure::new(StatusCode::REQUEST_TIMEOUT, "too-slow", title, "Send it again, in smaller pages.")
}
