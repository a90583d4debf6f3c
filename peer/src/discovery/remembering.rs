//! The task that remembers peers: asks a tracker that answers for some of them, as soon as it was joined and then ever
//! more seldom, so that a large swarm does not pay for it.

use std::time::{Duration, UNIX_EPOCH};

use potluck_common::PeerId;

use super::remembered::Remembered;
use crate::wire::trackers::Trackers;

/// Peers asked for at once: a random choice of a large swarm, everybody of a small one.
const N_ASKED: usize = 64;
/// The longest time between two questions.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Runs for ever. `me` says who we are now; `first` is the first pause after a tracker was joined, which doubles.
pub async fn run(mut trackers: Trackers, remembered: Remembered, me: impl Fn() -> PeerId, first: Duration) {
    let mut pause = first;
    loop {
        let answering: Vec<_> = trackers.list().iter().filter(|member| member.answers()).cloned().collect();
        let mut is_new = false;
        for member in &answering {
            match member.tracker.some_peers(N_ASKED).await {
                Ok(listed) => is_new |= remembered.on_listed(&listed.peers, me(), now_ms()),
                Err(error) => tracing::debug!(%error, "no peers to remember"),
            }
        }
        if is_new {
            let kept = remembered.clone();
            let saved = tokio::task::spawn_blocking(move || kept.save()).await;
            if let Err(error) = saved.map_err(std::io::Error::other).flatten() {
                tracing::warn!(%error, "cannot write down which peers there are");
            }
        }
        if answering.is_empty() {
            // The first peers come with the tracker, and may be all there is time for.
            trackers.joined().await;
            pause = first;
            continue;
        }
        tokio::select! {
            () = trackers.changed() => pause = first,
            () = tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())) => pause = (pause * 2).min(MAX_PAUSE),
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(UNIX_EPOCH.elapsed().unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
