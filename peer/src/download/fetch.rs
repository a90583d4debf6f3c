//! One request: reads a run of chunks from one owner, and hands each chunk to be verified and written.
//!
//! A task that returns values: it tells the driver what happened as [`Fact`]s and decides nothing. Permits bound how many
//! bytes wait to be written.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use potluck_common::ChunkIndex;
use potluck_common::chunk::Run;
use potluck_common::protocol::Owner;
use reqwest::{Response, Url};
use tokio::sync::mpsc;

use super::claim::next_piece;
use super::partial::PartialFile;
use super::writing::{WholeChunk, Writing};
use crate::buffers::Budget;
use crate::limit::Throttle;
use crate::scheduler::{Failure, RequestId};
use crate::traffic::{Reason, Traffic};
use crate::wire::origin_client::Origin;
use crate::wire::peer_client::{FetchError, PeerClient};

/// What happened to a request.
#[derive(Debug)]
pub enum Fact {
    /// So many bytes came.
    Bytes(RequestId, u64),
    /// For most of the time since it was last heard of, our own limit, memory or disk kept us from reading.
    HeldBack(RequestId),
    /// A chunk is verified and written.
    Chunk(RequestId, ChunkIndex),
    /// The owner has begun to give these chunks to somebody else.
    Coming(Vec<u32>),
    /// The response ended as it should.
    Ended(RequestId),
    /// The response is of no use.
    Failed(RequestId, Failure),
    /// The disk does not take a chunk; the request is over.
    Disk(RequestId, io::Error),
}

/// What a request works with.
pub struct Fetch {
    /// Which request.
    pub request: RequestId,
    /// What both logs call it.
    pub request_id: String,
    /// Neighbouring chunks.
    pub run: Run,
    /// Whether nobody is known to be getting it.
    pub is_fresh: bool,
    /// Who is asked.
    pub giver: Giver,
    /// Where chunks go.
    pub partial: Arc<PartialFile>,
    /// Bounds the bytes that wait to be written, over all requests of all downloads.
    pub budget: Arc<Budget>,
    /// Counts what comes.
    pub traffic: Arc<Traffic>,
    /// How fast may be read. What is not read, the owner cannot send.
    pub limit: Throttle,
    /// Where facts go.
    pub facts: mpsc::Sender<Fact>,
}

/// Somebody that gives chunks.
pub enum Giver {
    /// An owner.
    Peer {
        /// As the tracker lists it.
        owner: Arc<Owner>,
        /// Its address.
        base: Url,
        /// The client.
        peers: PeerClient,
    },
    /// A URL that the user named.
    Origin(Arc<Origin>),
}

/// Progress is told after so many bytes, but not more often than that…
const TELL_BYTES: u64 = 128 << 10;
const TELL_AFTER: Duration = Duration::from_millis(1);
/// …and at least so often.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What we wait for longer than this is told: less than an owner is given before others are asked for what it owes.
const OWN_WAIT: Duration = Duration::from_millis(50);

/// An owner whose bytes we did not take for so long may well have given us up.
const IMPATIENT_AFTER: Duration = Duration::from_secs(10);

/// What the driver has been told, and what not yet.
#[derive(Default)]
struct Told {
    at: Option<Instant>,
    n_untold: u64,
    /// How long we waited for our own limit since then.
    held_back: Duration,
    /// The longest time between two reads, of the limit's making.
    longest: Duration,
}

impl Told {
    /// What it means that the body broke off. An owner whose bytes we did not take for long enough gives us up: that is our
    /// doing, and it is asked again without blame. If it is gone for good, the next request finds that out.
    fn failure(&self, error: &FetchError) -> Failure {
        match error {
            FetchError::Unreachable(_) if self.longest >= IMPATIENT_AFTER => {
                Failure::Choked { retry_after: Duration::from_secs(1) }
            }
            _ => failure(error),
        }
    }
}

/// Why a request is not read to its end.
enum Stop {
    /// Nobody listens any more.
    Unheard,
    /// This ended it.
    With(Fact),
}

impl From<Fact> for Stop {
    fn from(fact: Fact) -> Self {
        Self::With(fact)
    }
}

impl Fetch {
    /// Runs to the end of the request. Dropping it closes the connection.
    pub async fn run(self) {
        let (Ok(last) | Err(Stop::With(last))) = self.read().await else { return };
        let _driver_gone = self.facts.send(last).await;
    }

    /// The last fact.
    async fn read(&self) -> Result<Fact, Stop> {
        let failed = |failure| Fact::Failed(self.request, failure);
        let id = self.partial.map().content_id();
        let bytes = self.partial.map().geometry().bytes_of_run(self.run);
        let response = match &self.giver {
            Giver::Peer { base, peers, .. } => {
                peers.range(base, id, bytes, Some(self.is_fresh), &self.request_id).await
            }
            Giver::Origin(origin) => origin.range(bytes).await,
        };
        let mut response = match response {
            Ok(response) => response,
            Err(FetchError::Coming(chunks)) => {
                self.tell(Fact::Coming(chunks)).await?;
                return Ok(failed(Failure::Coming));
            }
            Err(error) => return Ok(failed(failure(&error))),
        };
        let mut writing = Writing::new(self.request, self.partial.clone(), self.facts.clone(), Instant::now());
        let brought = self.bring(&mut response, &mut writing).await;
        // What came before it broke off is kept.
        self.own_wait(writing.finish()).await??;
        let rest = brought?;
        // Reading the end of the body lets the connection be used again, and shows one that goes on.
        match next_piece(&mut response).await {
            Ok(None) if rest.is_empty() => Ok(Fact::Ended(self.request)),
            _ => Ok(failed(Failure::Short)),
        }
    }

    /// Reads all chunks; what came beyond them.
    async fn bring(&self, response: &mut Response, writing: &mut Writing) -> Result<Bytes, Stop> {
        let geometry = self.partial.map().geometry();
        let mut told = Told::default();
        let mut rest = Bytes::new();
        for chunk in self.run.indices() {
            let mut missing = geometry.len_of(chunk);
            let permit = match self.budget.try_take(missing) {
                Some(permit) => permit,
                None => {
                    // What is gathered holds memory that others wait for.
                    self.own_wait(writing.begin()).await??;
                    self.own_wait(self.budget.take(missing)).await?
                }
            };
            let mut pieces = Vec::new();
            while missing > 0 {
                if rest.is_empty() {
                    rest = self.next(response, writing, &told).await?;
                    self.count(rest.len() as u64, &mut told).await?;
                }
                let n_taken = usize::try_from(missing).unwrap_or(usize::MAX).min(rest.len());
                pieces.push(rest.split_to(n_taken));
                missing -= n_taken as u64;
            }
            let is_due = writing.add(WholeChunk { chunk, pieces, permit }, Instant::now());
            // Under a limit the next bytes may be long in coming although they are here.
            if is_due || self.limit.rate().is_some() {
                self.own_wait(writing.begin()).await??;
            }
        }
        self.tell(Fact::Bytes(self.request, told.n_untold)).await?;
        Ok(rest)
    }

    /// What comes next; what is gathered is written meanwhile, if it does not come at once.
    async fn next(&self, response: &mut Response, writing: &mut Writing, told: &Told) -> Result<Bytes, Stop> {
        let mut piece = None;
        if let Some(due) = writing.due() {
            piece = tokio::time::timeout_at(due.into(), next_piece(response)).await.ok();
            if piece.is_none() {
                self.own_wait(writing.begin()).await??;
            }
        }
        let piece = match piece {
            Some(piece) => piece,
            None => next_piece(response).await,
        };
        match piece {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => Err(Fact::Failed(self.request, Failure::Short).into()),
            Err(error) => Err(Fact::Failed(self.request, told.failure(&error)).into()),
        }
    }

    /// Counts what came and tells of it, as fast as the limit lets us take it.
    async fn count(&self, n_bytes: u64, told: &mut Told) -> Result<(), Stop> {
        let came_at = Instant::now();
        let mut left = n_bytes;
        while left > 0 {
            let n_granted = self.limited(left, told).await?;
            left -= n_granted;
            match &self.giver {
                Giver::Peer { owner, .. } => {
                    self.traffic.on_received(owner, self.partial.map().content_id(), n_granted);
                }
                // It is nobody whom trackers know, so it is not told of among those who give.
                Giver::Origin(_) => drop(self.traffic.down.fetch_add(n_granted, Ordering::Relaxed)),
            }
            told.n_untold += n_granted;
            // The first bytes are told at once: they start the clock that the owner's rate is measured with.
            let is_due = |at: Instant| {
                let since = at.elapsed();
                since >= TELL_EVERY || (since >= TELL_AFTER && told.n_untold >= TELL_BYTES)
            };
            if told.at.is_none_or(is_due) {
                self.tell(Fact::Bytes(self.request, std::mem::take(&mut told.n_untold))).await?;
                self.tell_held_back(told).await?;
            }
        }
        told.longest = told.longest.max(came_at.elapsed());
        Ok(())
    }

    /// Waits until the limit lets us take a piece; how long it is.
    async fn limited(&self, n_bytes: u64, told: &mut Told) -> Result<u64, Stop> {
        if self.limit.rate().is_none() {
            return Ok(n_bytes);
        }
        let mut waiting_since = Instant::now();
        let mut granted = std::pin::pin!(self.limit.take_piece(n_bytes));
        loop {
            let answer = tokio::time::timeout(TELL_EVERY, granted.as_mut()).await;
            told.held_back += waiting_since.elapsed();
            match answer {
                Ok(n_granted) => return Ok(n_granted),
                Err(_) => {
                    self.tell_held_back(told).await?;
                    waiting_since = Instant::now();
                }
            }
        }
    }

    /// Waits for our own memory or disk, and tells that nobody else is to blame if it takes long.
    async fn own_wait<T>(&self, wait: impl Future<Output = T>) -> Result<T, Stop> {
        let mut wait = std::pin::pin!(wait);
        loop {
            match tokio::time::timeout(OWN_WAIT, wait.as_mut()).await {
                Ok(over) => return Ok(over),
                Err(_) => self.tell(Fact::HeldBack(self.request)).await?,
            }
        }
    }

    async fn tell_held_back(&self, told: &mut Told) -> Result<(), Stop> {
        let now = Instant::now();
        let since_told = told.at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if std::mem::take(&mut told.held_back) * 2 > since_told && !since_told.is_zero() {
            self.tell(Fact::HeldBack(self.request)).await?;
        }
        Ok(())
    }

    async fn tell(&self, fact: Fact) -> Result<(), Stop> {
        self.facts.send(fact).await.map_err(|_| Stop::Unheard)
    }
}

/// What a failure counts as.
pub(super) const fn reason(failure: Failure) -> Reason {
    match failure {
        Failure::Unreachable => Reason::Unreachable,
        Failure::Choked { .. } => Reason::Busy,
        Failure::Short => Reason::Short,
        Failure::NotHeld => Reason::NotHeld,
        Failure::Coming => Reason::Coming,
        Failure::Stalled => Reason::Stalled,
        Failure::Corrupt { .. } => Reason::Corrupt,
    }
}

/// What an owner's answer means to the scheduler.
pub(super) fn failure(error: &FetchError) -> Failure {
    match error {
        FetchError::Unreachable(_) => Failure::Unreachable,
        FetchError::Choked(retry_after) => Failure::Choked { retry_after: *retry_after },
        FetchError::Coming(_) => Failure::Coming,
        FetchError::NotHeld => Failure::NotHeld,
        FetchError::Wrong(_) => Failure::Short,
    }
}
