//! The feed of a peer: what others who sync are told of its index while no tracker answers.
//!
//! Whoever keeps the index gets the questions through a channel and says through another what its latest number is;
//! this file knows neither index nor disk. It bounds what is asked, and holds back answers until there is news.

use std::net::IpAddr;
use std::time::Duration;

use potluck_common::net::per_address::{PerAddress, Place};
use potluck_common::protocol::{IndexEntry, MAX_SYNC_PAGE, MAX_SYNC_PAGE_LEN, MAX_SYNC_WAIT_MS, SyncPage, SyncQuery};
use tokio::sync::{mpsc, oneshot, watch};

/// Questions that wait for whoever keeps the index; further ones wait where they came in.
const MAX_ASKED: usize = 16;
/// Answers held back at once: each holds a connection, and peers remember eight others.
const MAX_WAITING: usize = 512;
/// Of these, for one address: containers behind one NAT count as one.
const MAX_WAITING_PER_IP: usize = 256;

/// One question: a page of what changed after a number. Dropping it unanswered says that there is no index any more.
#[derive(Debug)]
pub struct Ask {
    /// Entries with higher numbers.
    pub after: u64,
    /// So many at most.
    pub limit: usize,
    /// The answer.
    pub answer: oneshot::Sender<SyncPage>,
}

/// How far the numbers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latest {
    /// One life of them.
    pub epoch: u64,
    /// The latest.
    pub seq: u64,
}

/// The side of whoever keeps the index.
#[derive(Debug)]
pub struct FeedSource {
    /// Questions to answer.
    pub asked: mpsc::Receiver<Ask>,
    /// `None`: there is no index, we do not sync.
    pub latest: watch::Sender<Option<Latest>>,
}

/// Why there is no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// We do not sync.
    #[error("this peer does not sync its share folder")]
    Off,
    /// Too many wait.
    #[error("too many wait for news")]
    Busy,
}

/// The side of the routes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SyncFeed {
    asks: mpsc::Sender<Ask>,
    latest: watch::Receiver<Option<Latest>>,
    waiting: PerAddress,
}

/// A feed and its source.
pub fn sync_feed() -> (SyncFeed, FeedSource) {
    let (asks, asked) = mpsc::channel(MAX_ASKED);
    let (latest, seen) = watch::channel(None);
    (SyncFeed { asks, latest: seen, waiting: PerAddress::default() }, FeedSource { asked, latest })
}

impl SyncFeed {
    /// The page that is asked for, held back until there is news if that is asked for too.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub async fn page(&self, query: &SyncQuery, from: IpAddr) -> Result<SyncPage, FeedError> {
        let mut latest = self.latest.clone();
        let is_news = |latest: &Option<Latest>| {
            latest.is_none_or(|latest| query.epoch != latest.epoch || query.after != latest.seq)
        };
        let has_news = is_news(&latest.borrow_and_update());
        if query.wait_ms > 0 && !has_news {
            let _waiting: Place = self.waiting.take(from, MAX_WAITING, MAX_WAITING_PER_IP).ok_or(FeedError::Busy)?;
            let wait = Duration::from_millis(query.wait_ms.min(MAX_SYNC_WAIT_MS));
            // The time is over, or there is news, or we end; what is so now is told below.
            let _ = tokio::time::timeout(wait, latest.wait_for(is_news)).await;
        }
        let now = (*self.latest.borrow()).ok_or(FeedError::Off)?;
        let after = if query.epoch == now.epoch && query.after <= now.seq { query.after } else { 0 };
        let limit = query.limit.map_or(MAX_SYNC_PAGE, |limit| usize::try_from(limit).unwrap_or(MAX_SYNC_PAGE));
        let mut limit = limit.clamp(1, MAX_SYNC_PAGE);
        loop {
            let (answer, answered) = oneshot::channel();
            self.asks.send(Ask { after, limit, answer }).await.map_err(|_| FeedError::Off)?;
            let page = answered.await.map_err(|_| FeedError::Off)?;
            let len: usize = page.entries.items.iter().map(IndexEntry::json_len_bound).sum();
            if len <= MAX_SYNC_PAGE_LEN || limit <= 1 {
                return Ok(page);
            }
            limit = (page.entries.items.len().min(limit) / 2).max(1);
        }
    }
}
