//! Following what changes in the synced folder: one tracker's feed, or those of remembered peers.
//!
//! Each [`Follower`] asks one source for page after page and gives them on; an answer is held back at the source until there
//! is news, so an edit is here one round trip after the source knows of it. How far a feed was read is kept nowhere: who follows
//! begins at the start of it.
//!
//! Invariants: a page is given on before the next is asked for, so a slow taker slows the source and not memory; a
//! source that is hostile costs a request per pause and nothing else.

use std::fmt;
use std::time::Duration;

use potluck_common::PeerId;
use potluck_common::protocol::{IndexEntry, MAX_SYNC_PAGE, MAX_SYNC_WAIT_MS, SyncPage, SyncQuery};
use reqwest::Url;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::announce::next_pause;
use super::peer_client::{FetchError, PeerClient};
use super::tracker_client::{AskError, TrackerClient};

/// Pages that wait to be taken, of up to a few MiB each.
pub const MAX_PULLED: usize = 2;
/// How long an answer may be held back: well below what routers remember of a silent connection.
const WAIT: Duration = Duration::from_millis(MAX_SYNC_WAIT_MS * 2 / 3);
/// Between two questions, at least: the first edit is here at once, and of a thousand in a row not each is fetched alone.
const PACE: Duration = Duration::from_millis(20);
/// A peer that fails so often in a row is left alone.
const MAX_FAILURES: u32 = 3;

/// Whose index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The tracker at this address.
    Tracker(Url),
    /// This peer.
    Peer(PeerId),
}

/// For the log.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracker(url) => url.fmt(f),
            Self::Peer(peer_id) => peer_id.fmt(f),
        }
    }
}

/// How far a source's feed was read.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// The life of its numbers; 0: never read.
    epoch: u64,
    /// The number to go on after.
    seq: u64,
}

/// One page, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Whose.
    pub source: Source,
    /// It is the first page of another life of the source's index: what it was known to have is void.
    pub anew: bool,
    /// There is no more for now: what was not told of since the last `anew`, the source lacks.
    pub is_all: bool,
    /// What changed there.
    pub entries: Vec<IndexEntry>,
}

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// No life of numbers is called 0.
    #[error("its index has no epoch")]
    NoEpoch,
    /// More than a page can have.
    #[error("a page of {0} entries")]
    TooMany(usize),
    /// There is more, it says, but its numbers do not go on.
    #[error("its pages do not go on")]
    Stuck,
}

/// Where the feed is.
#[derive(Debug, Clone)]
pub enum Feed {
    /// A tracker.
    Tracker(TrackerClient),
    /// A peer, and where it serves.
    Peer(PeerClient, PeerId, Url),
}

/// Why there is no page.
enum PullError {
    /// It asks to be left alone for so long.
    Wait(Duration),
    /// It has no index.
    Off,
    /// Anything else, in words.
    Failed(String),
}

impl Feed {
    fn source(&self) -> Source {
        match self {
            Self::Tracker(client) => Source::Tracker(client.base().clone()),
            Self::Peer(_, id, _) => Source::Peer(*id),
        }
    }

    async fn page(&self, query: &SyncQuery) -> Result<SyncPage, PullError> {
        match self {
            Self::Tracker(client) => client.sync_page(query).await.map_err(|error| match error {
                AskError::Wait(wait) => PullError::Wait(wait),
                AskError::NotFound => PullError::Off,
                other => PullError::Failed(other.to_string()),
            }),
            Self::Peer(client, _, base) => client.sync_page(base, query).await.map_err(|error| match error {
                FetchError::Choked(wait) => PullError::Wait(wait),
                FetchError::NotHeld => PullError::Off,
                other => PullError::Failed(other.to_string()),
            }),
        }
    }
}

/// A task that follows one source.
#[derive(Debug)]
pub struct Follower {
    /// Where.
    pub feed: Feed,
    /// Where the pages go.
    pub pages: mpsc::Sender<Pulled>,
    /// Whether the source answers; `None` until it was asked.
    pub answers: watch::Sender<Option<bool>>,
    /// First pause after a failure; doubles up to the next.
    pub retry_min: Duration,
    /// Longest pause after failures.
    pub retry_max: Duration,
}

impl Follower {
    /// Runs until `shutdown`, or nobody takes the pages; for a peer also until it has failed a few times in a row.
    pub async fn run(self, shutdown: CancellationToken) {
        let source = self.feed.source();
        tracing::debug!(%source, "following");
        shutdown.run_until_cancelled(self.follow(source.clone())).await;
        tracing::debug!(%source, "no longer following");
    }

    async fn follow(self, source: Source) {
        let mut cursor = Cursor::default();
        let (mut pause, mut n_failures, mut is_first, mut has_complained) = (self.retry_min, 0, true, false);
        loop {
            // The first answer is wanted at once: it tells whether anything is missing.
            let wait = if is_first { Duration::ZERO } else { WAIT };
            let wait_ms = u64::try_from(wait.as_millis()).expect("a constant of a few seconds");
            let query = SyncQuery { epoch: cursor.epoch, after: cursor.seq, limit: None, wait_ms };
            let asked = Instant::now();
            let failure = match self.feed.page(&query).await {
                Ok(page) => {
                    let read = Cursor { epoch: page.epoch, seq: page.seq };
                    let n_refused = page.entries.n_refused;
                    match judge(&source, cursor, page) {
                        Ok(pulled) => {
                            if n_refused > 0 && !std::mem::replace(&mut has_complained, true) {
                                tracing::warn!(%source, n_refused, "dropped entries that are none from its index");
                            }
                            Ok((pulled, read))
                        }
                        Err(error) => Err(PullError::Failed(error.to_string())),
                    }
                }
                Err(error) => Err(error),
            };
            match failure {
                Ok((pulled, read)) => {
                    if n_failures > 0 {
                        tracing::info!(%source, "its index is followed again");
                    }
                    n_failures = 0;
                    self.answers.send_if_modified(|answers| answers.replace(true) != Some(true));
                    let Pulled { anew, is_all, .. } = pulled;
                    let is_empty = pulled.entries.is_empty();
                    if (is_first || anew || !is_empty) && self.pages.send(pulled).await.is_err() {
                        return;
                    }
                    cursor = read;
                    // An index that begins anew again and again, or says early that there is nothing, is asked less often.
                    let is_odd = !is_first && (anew || (is_empty && (!is_all || asked.elapsed() < wait / 2)));
                    is_first = false;
                    if is_odd {
                        sleep(next_pause(&mut pause, self.retry_max)).await;
                    } else {
                        pause = self.retry_min;
                        if is_all {
                            sleep_until(asked + PACE).await;
                        }
                    }
                }
                Err(PullError::Wait(wait)) => sleep(wait).await,
                Err(error) => {
                    n_failures += 1;
                    self.answers.send_if_modified(|answers| answers.replace(false) != Some(false));
                    let is_peer = matches!(source, Source::Peer(_));
                    match error {
                        PullError::Failed(error) if n_failures == 1 => {
                            tracing::warn!(%source, %error, "its index cannot be followed; trying on");
                        }
                        PullError::Off if is_peer => return,
                        _ => {}
                    }
                    if is_peer && n_failures >= MAX_FAILURES {
                        return;
                    }
                    sleep(next_pause(&mut pause, self.retry_max)).await;
                }
            }
        }
    }
}

/// What a page comes to for somebody who has read up to `cursor`.
fn judge(source: &Source, cursor: Cursor, page: SyncPage) -> Result<Pulled, PageError> {
    let SyncPage { epoch, seq, more, entries } = page;
    // Numbers that went back, as after the source's own state was restored from a copy, are another life of them.
    let anew = epoch != cursor.epoch || seq < cursor.seq;
    if epoch == 0 {
        return Err(PageError::NoEpoch);
    }
    if entries.items.len() > MAX_SYNC_PAGE {
        return Err(PageError::TooMany(entries.items.len()));
    }
    if more && !anew && seq == cursor.seq {
        return Err(PageError::Stuck);
    }
    Ok(Pulled { source: source.clone(), anew, is_all: !more, entries: entries.items })
}
