//! The trash gives up what it has kept for long enough: at the start of a peer, and then every hour.
//!
//! What counts is decided by [`Trash::prune`]; here are only the clock and the size of the disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::trash::Trash;

/// Between two looks at the trash.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Of the file system that it lies on the trash may fill one part in this many; then the oldest goes before its time.
const QUOTA_ONE_IN: u64 = 10;

/// Runs until `shutdown`; items go when they are older than `keep`.
pub async fn run(trash: Arc<Trash>, keep: Duration, shutdown: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(every.tick()).await.is_some() {
        let trash = trash.clone();
        let pruned = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            trash.prune(millis(now), millis(keep), trash.disk_size()? / QUOTA_ONE_IN)
        });
        if let Err(error) = pruned.await.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%error, "the trash could not be looked through; it is tried again in an hour");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
