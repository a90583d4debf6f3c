//! While no tracker answers, the synced folder is followed at peers that are remembered.
//!
//! The same feed and the same pages as a tracker's; eight peers, chosen at random and changed when they are silent, join a
//! swarm of any size. When a tracker answers again they are left alone: it tells more, sooner, with fewer requests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use potluck_common::PeerId;
use reqwest::Url;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::announce::Standing;
use super::follow::{Feed, Follower, Pulled};
use super::peer_client::PeerClient;
use super::trackers::any_changed;

/// Peers that are followed at once.
pub const MAX_NEIGHBOURS: usize = 8;
/// So long no tracker may answer before peers are asked: longer than a tracker takes to be restarted.
const PATIENCE: Duration = Duration::from_secs(3);
/// Places that became free are given to others this often.
const REFILL: Duration = Duration::from_secs(5);

/// Peers to ask, and where they served when they were last heard of.
pub type Remembered = Arc<dyn Fn() -> Vec<(PeerId, Url)> + Send + Sync>;

/// See the module's text.
pub struct Neighbours {
    /// Whether each tracker's feed answers; `None` until it was asked. Empty: there is no tracker.
    pub trackers: Vec<watch::Receiver<Option<bool>>>,
    /// How they stand to our announces: a cut is seen there first, since a feed may be silent for long.
    pub standings: Vec<watch::Receiver<Standing>>,
    /// Who may be asked instead.
    pub remembered: Remembered,
    /// Who asks.
    pub client: PeerClient,
    /// Where the pages go.
    pub pages: mpsc::Sender<Pulled>,
    /// First pause after a failure; doubles up to the next.
    pub retry_min: Duration,
    /// Longest pause after failures.
    pub retry_max: Duration,
}

impl Neighbours {
    /// Runs until `shutdown`, or nobody takes the pages.
    pub async fn run(self, shutdown: CancellationToken) {
        let pages = self.pages.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = pages.closed() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(self) {
        loop {
            self.answering(|answers| !answers).await;
            if timeout(PATIENCE, self.answering(|answers| answers)).await.is_ok() {
                continue;
            }
            tracing::info!("no tracker answers; the synced folder is followed at other peers");
            tokio::select! {
                () = self.answering(|answers| answers) => {}
                () = self.follow() => {}
            }
        }
    }

    /// Waits until whether some tracker answers is as wanted. A tracker that was not asked yet may be about to.
    async fn answering(&self, wanted: impl Fn(bool) -> bool) {
        let (mut trackers, mut standings) = (self.trackers.clone(), self.standings.clone());
        loop {
            let feeds = trackers.iter_mut().any(|answers| *answers.borrow_and_update() != Some(false));
            let takes = standings.iter_mut().any(|standing| !standing.borrow_and_update().is_silent());
            if wanted(feeds && takes) {
                return;
            }
            tokio::select! {
                () = any_changed(&mut trackers) => {}
                () = any_changed(&mut standings) => {}
            }
        }
    }

    /// Follows some peers, others when these end; until dropped.
    async fn follow(&self) {
        let mut followers = JoinSet::new();
        let mut followed = BTreeSet::new();
        loop {
            while let Some(ended) = followers.try_join_next() {
                match ended {
                    Ok(id) => drop(followed.remove(&id)),
                    Err(error) => tracing::error!(%error, "following a peer failed"),
                }
            }
            let others = (self.remembered)().into_iter().filter(|(id, _)| !followed.contains(id));
            let n_free = MAX_NEIGHBOURS.saturating_sub(followers.len());
            for (id, base) in fastrand::choose_multiple(others, n_free) {
                if !followed.insert(id) {
                    continue;
                }
                let follower = Follower {
                    feed: Feed::Peer(self.client.clone(), id, base),
                    pages: self.pages.clone(),
                    answers: watch::Sender::new(None),
                    retry_min: self.retry_min,
                    retry_max: self.retry_max,
                };
                // Dropping the set ends them all.
                followers.spawn(async move {
                    follower.run(CancellationToken::new()).await;
                    id
                });
            }
            sleep(REFILL).await;
        }
    }
}
