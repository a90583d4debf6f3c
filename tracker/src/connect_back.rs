//! Looks whether peers answer where they say they serve.
//!
//! What could be abused of a tracker that dials what strangers name is kept small: it dials only the recorded endpoint, which the
//! address policy has judged and judges again when a name is resolved; one small `GET /healthz`, no redirect; nothing
//! of the answer is told but whether that very peer gave it; and a failure is told at the same moment whether the port was
//! closed, silent or somebody else's, so that a tracker is no port scanner (THREATS T04).

use std::time::Duration;

use axum::http::{StatusCode, header};
use potluck_common::address::Reach;
use potluck_common::net::client::{ClientConfig, client};
use potluck_common::protocol::PeerHealth;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::rate::RateLimits;
use crate::reachability::Check;
use crate::swarm::Swarm;

/// Longest answer that is read, in bytes.
const MAX_ANSWER_LEN: usize = 4 << 10;
/// Looks that may wait; a peer for which there is no room is looked at after its next announce.
pub(crate) const MAX_WAITING: usize = 256;

/// How peers are looked for.
#[derive(Debug, Clone)]
pub struct ConnectBack {
    /// For a connection and the whole answer.
    pub patience: Duration,
    /// Looks at once.
    pub max_at_once: usize,
    /// Looks granted to the announces of one address. The default lets 64 peers behind one address start together.
    pub rate: RateLimits,
}

impl Default for ConnectBack {
    fn default() -> Self {
        let rate = RateLimits { per_second: 2.0, burst: 64.0, max_addresses: 16_384 };
        Self { patience: Duration::from_secs(2), max_at_once: 64, rate }
    }
}

/// Looks where `checks` say, until it is dropped.
pub(crate) async fn run(swarm: Swarm, mut checks: mpsc::Receiver<Check>, config: ConnectBack) {
    let make = |reach| client(&ClientConfig { connect_timeout: config.patience, read_timeout: config.patience, reach });
    let (near, far) = match (make(Reach::SameHost), make(Reach::Network)) {
        (Ok(near), Ok(far)) => (near, far),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "peers will not be told whether they can be reached");
            return;
        }
    };
    let mut looks = JoinSet::new();
    loop {
        let check = tokio::select! {
            Some(_ended) = looks.join_next(), if !looks.is_empty() => continue,
            check = checks.recv(), if looks.len() < config.max_at_once => check,
        };
        let Some(check) = check else { return };
        let http = if Reach::of(check.source) == Reach::SameHost { near.clone() } else { far.clone() };
        let (swarm, deadline) = (swarm.clone(), Instant::now() + config.patience);
        looks.spawn(async move {
            let found = timeout_at(deadline, answers(&http, &check)).await.unwrap_or(false);
            if !found {
                sleep_until(deadline).await;
            }
            swarm.on_checked(&check, found);
        });
    }
}

/// Whether the peer answers there.
async fn answers(http: &reqwest::Client, check: &Check) -> bool {
    let request = http.get(format!("{}/healthz", check.endpoint.base_url())).header(header::CONNECTION, "close");
    let Ok(mut response) = request.send().await else { return false };
    if response.status() != StatusCode::OK {
        return false;
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(piece)) if body.len() + piece.len() <= MAX_ANSWER_LEN => body.extend_from_slice(&piece),
            Ok(None) => break,
            Ok(Some(_)) | Err(_) => return false,
        }
    }
    serde_json::from_slice::<PeerHealth>(&body).is_ok_and(|health| health.peer_id == check.peer_id)
}
