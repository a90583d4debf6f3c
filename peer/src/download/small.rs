//! Contents of one chunk: fetched whole, many in one request ([`super::bundling`]), and where that does not give them each by
//! itself, from one owner after another until one gives the right bytes.
//!
//! The length that the tracker lists is a claim, and no more than that is read: where an owner has more bytes, the content
//! is fetched as a large one is, with its length proven.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use potluck_common::chunk::MIN_CHUNK_LEN;
use potluck_common::{ChunkMap, ContentId, Geometry};
use tokio::sync::Semaphore;

use super::batch::Small;
use super::claim::HEAD_START;
use super::fetch::{failure, reason};
use super::job::{Downloads, Outcome};
use super::owners::{Source, Sources, attempts};
use super::place::{PlaceError, disk_failed, path_of, taken};
use super::plan::Item;
use crate::traffic::{Reason, Traffic};
use crate::verb::{Contribution, Failed, FailureKind, From};
use crate::wire::peer_client::{FetchError, TOO_LONG};

/// Rounds over all owners while some are only busy.
const MAX_ROUNDS: u32 = 30;
/// Enough to keep several owners and this machine busy, few enough for any owner's upload slots. More contents than these may be
/// waiting to be placed.
const AT_ONCE: usize = 32;

/// Who may do what at once for small contents.
#[derive(Debug)]
pub struct Turns {
    /// Waiting for our limit.
    limited: Semaphore,
    /// Asking the tracker who has one.
    lookups: Semaphore,
    /// Asking owners for one by itself.
    alone: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        let semaphore = || Semaphore::new(AT_ONCE);
        Self { limited: semaphore(), lookups: semaphore(), alone: semaphore() }
    }
}

/// What a guess or a look-up brought.
enum Found {
    /// All of it.
    Content(Fetched),
    /// Its owners, and those who were guessed and did not give it.
    Sources(Sources, Option<Sources>),
}

/// What came from whom.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// All of it, verified.
    pub bytes: Bytes,
    /// The name of the owner that gave it; `None` if it was here.
    pub from: Option<String>,
}

/// What an owner sent, if it is that content; counted either way.
pub(super) fn verified(id: ContentId, bytes: Bytes, source: &Source, traffic: &Traffic) -> Option<Fetched> {
    if ContentId::of(&bytes) != id {
        traffic.on_failed(Reason::Corrupt);
        tracing::warn!(owner = source.owner.name, content_id = %id, "an owner sent other bytes than it is listed for");
        return None;
    }
    traffic.n_verified.fetch_add(1, Ordering::Relaxed);
    traffic.on_received(&source.owner, id, bytes.len() as u64);
    Some(Fetched { bytes, from: Some(source.owner.name.clone()) })
}

impl Downloads {
    /// Fetches a content that is listed with at most one chunk and gives it its name. `None` if nobody has such a content and
    /// somebody has a longer one.
    pub(super) async fn fetch_small(&self, item: &Item, from: &From) -> Result<Option<Outcome>, Failed> {
        let (id, target) = (item.content_id, &item.target);
        if self.is_there(id, item.len, target).await? {
            return Ok(Some(Outcome { len: item.len, from: Vec::new(), dressed: None }));
        }
        let permit = self.budget.take(item.len).await;
        let Some(fetched) = self.bytes_of(item, from).await? else { return Ok(None) };
        let small = Small { content_id: id, bytes: fetched.bytes, target: target.clone(), dress: item.dress };
        let outcome = self.keep_small(small, fetched.from).await?;
        drop(permit);
        Ok(Some(outcome))
    }

    /// Gives verified bytes of at most one chunk their name.
    pub(super) async fn keep_small(&self, small: Small, from: Option<String>) -> Result<Outcome, Failed> {
        let (content_id, len, target) = (small.content_id, small.bytes.len() as u64, &small.target.clone());
        let is_dressed = small.dress.is_some();
        match self.placer.place(small).await {
            Ok(identity) => {
                let geometry = Geometry::new(len).expect("it is at most one chunk");
                self.on_placed(ChunkMap::from_values(geometry, vec![*content_id.as_bytes()]), identity, target);
                let from = from.map(|name| Contribution { name, n_bytes: len });
                Ok(Outcome { len, from: from.into_iter().collect(), dressed: is_dressed.then_some(identity) })
            }
            // Perhaps another download has just put the same there.
            Err(PlaceError::Taken) if self.is_there(content_id, len, target).await? => {
                Ok(Outcome { len, from: Vec::new(), dressed: None })
            }
            Err(PlaceError::Taken) => Err(taken(&self.folder, target)),
            Err(PlaceError::Io(error)) => Err(disk_failed(&path_of(&self.folder, target), &error)),
        }
    }

    /// The bytes, from another file of ours or from an owner.
    async fn bytes_of(&self, item: &Item, from: &From) -> Result<Option<Fetched>, Failed> {
        let id = item.content_id;
        if item.len == 0 && id == ContentId::of(&[]) {
            return Ok(Some(Fetched { bytes: Bytes::new(), from: None }));
        }
        if let Some(bytes) = self.bytes_here(id).await {
            return Ok(Some(Fetched { bytes: bytes.into(), from: None }));
        }
        // Before they come: what is asked for is sent at once. A few wait for the limit, so that large contents get their turn
        // among them.
        if self.limit.rate().is_some() {
            let _turn = self.small.limited.acquire().await;
            self.limit.take(item.len).await;
        }
        let (sources, guessed) = match &item.owners {
            Some(_) => (self.sources_of(item, from).await?, None),
            None => match self.guess_or_look_up(item, from).await? {
                Found::Content(fetched) => return Ok(Some(fetched)),
                Found::Sources(sources, guessed) => (sources, guessed),
            },
        };
        let mut last = None;
        for sources in attempts(sources, from) {
            if guessed.as_ref().is_none_or(|guessed| !guessed.keys().eq(sources.keys()))
                && let Some(fetched) = self.bundled(item, &sources).await
            {
                return Ok(Some(fetched));
            }
            match self.fetch_whole(item, &sources).await {
                Err(failed) if matches!(failed.kind, FailureKind::Unreachable | FailureKind::Unverified) => {
                    last = Some(failed);
                }
                fetched => return fetched,
            }
        }
        last.map_or(Ok(None), Err)
    }

    /// Whoever had the last small content most likely has this one. While nothing is known of anybody, the first who ask find it
    /// out for the others.
    async fn guess_or_look_up(&self, item: &Item, from: &From) -> Result<Found, Failed> {
        if *from != From::All {
            return Ok(Found::Sources(self.sources_of(item, from).await?, None));
        }
        let mut guessed = self.recent.get(Instant::now());
        if guessed.is_none() {
            let _turn = self.small.lookups.acquire().await;
            guessed = self.recent.get(Instant::now());
            if guessed.is_none() {
                return Ok(Found::Sources(self.look_up(item).await?, None));
            }
        }
        let guessed = guessed.unwrap_or_default();
        let mut guess = std::pin::pin!(self.bundled(item, &guessed));
        let early = tokio::time::timeout(HEAD_START, guess.as_mut()).await;
        if let Ok(Some(fetched)) = early {
            return Ok(Found::Content(fetched));
        }
        let turn = self.small.lookups.acquire().await;
        let sources = self.look_up(item).await?;
        drop(turn);
        // A right guess that takes its time is waited for; a wrong one costs no more than this.
        if early.is_err()
            && guessed.keys().eq(sources.keys())
            && let Some(fetched) = guess.as_mut().await
        {
            return Ok(Found::Content(fetched));
        }
        Ok(Found::Sources(sources, Some(guessed.clone())))
    }

    async fn look_up(&self, item: &Item) -> Result<Sources, Failed> {
        let sources = self.sources_of(item, &From::All).await?;
        self.recent.set(&sources, Instant::now());
        Ok(sources)
    }

    /// The bytes, if an owner gives them in a bundle.
    async fn bundled(&self, item: &Item, sources: &Sources) -> Option<Fetched> {
        let complete = sources.iter().filter(|(_, source)| source.owner.complete);
        let complete = complete.map(|(peer, source)| (*peer, source.clone())).collect();
        self.bundler.fetch(item.content_id, item.len, complete).await
    }

    /// The bytes of a file that we share under another name, verified like anybody else's.
    async fn bytes_here(&self, id: ContentId) -> Option<Vec<u8>> {
        let (path, file) =
            self.library.find(id).into_iter().next().filter(|(_, file)| file.identity.len <= MIN_CHUNK_LEN)?;
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            folder.open_unchanged(&path, file.identity)?.take(MIN_CHUNK_LEN + 1).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        });
        read.await.ok()?.ok().filter(|bytes| ContentId::of(bytes) == id)
    }

    async fn fetch_whole(&self, item: &Item, sources: &Sources) -> Result<Option<Fetched>, Failed> {
        let id = item.content_id;
        let mut left: Vec<_> = sources.values().filter(|source| source.owner.complete).collect();
        fastrand::shuffle(&mut left);
        // Slower than this is too slow (C11), and an owner that is slow or silent does not keep the next one waiting.
        let slow_rate = self.config.scheduler.slow_rate.max(1);
        let patience = self.config.owner_timeout + Duration::from_secs(MIN_CHUNK_LEN / slow_rate);
        let mut is_longer = false;
        let (tag, mut n_asked) = (fastrand::u32(..), 0u32);
        let (mut bad, mut why) = (0, String::from("nobody who has it answers"));
        for _ in 0..MAX_ROUNDS {
            let turn = self.small.alone.acquire().await;
            let mut busy = Vec::new();
            let mut wait = None;
            let mut asking = FuturesUnordered::new();
            loop {
                if let Some(source) = left.pop() {
                    let request_id = format!("{tag:08x}-{n_asked}");
                    n_asked += 1;
                    tracing::debug!(request_id, owner = source.owner.name, content_id = %id, "asking");
                    asking.push(async move {
                        let whole = self.peers.whole(&source.base, id, item.len, &request_id);
                        let whole = tokio::time::timeout(patience, whole);
                        let slow = |_| Err(FetchError::Unreachable("it is too slow".into()));
                        (source, whole.await.unwrap_or_else(slow))
                    });
                } else if asking.is_empty() {
                    break;
                }
                let head_start = if left.is_empty() { Duration::MAX } else { HEAD_START };
                let Ok(Some((source, answer))) = tokio::time::timeout(head_start, asking.next()).await else {
                    continue;
                };
                if let Err(error) = &answer {
                    self.traffic.on_failed(reason(failure(error)));
                }
                match answer {
                    Ok(bytes) => match verified(id, bytes.into(), source, &self.traffic) {
                        None => bad += 1,
                        fetched => return Ok(fetched),
                    },
                    Err(FetchError::Choked(retry_after)) => {
                        wait = Some(retry_after);
                        busy.push(source);
                    }
                    Err(FetchError::Wrong(TOO_LONG)) => is_longer = true,
                    Err(error) => why = format!("{} does not give it: {error}", source.owner.name),
                }
            }
            drop(turn);
            let Some(wait) = wait else { break };
            left = busy;
            tokio::time::sleep(wait).await;
        }
        if is_longer {
            return Ok(None);
        }
        if bad > 0 {
            let message = "no owner gave bytes that verify (chunk 0 has no valid source)";
            return Err(Failed::new(FailureKind::Unverified, message, "Try again later, or ask its owners to verify."));
        }
        Err(Failed::new(FailureKind::Unreachable, why, "Check that a peer which has it is running; peers lists them."))
    }
}
