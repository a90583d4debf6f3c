//! One request: reads a run of chunks from one owner, and hands each chunk to be verified and written.
//!
//! A task that returns values: it tells the driver what happened as [`Fact`]s and decides nothing. While a chunk is
//! hashed and written on the blocking pool, the next one is being read; permits bound how many bytes wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use potluck_common::ChunkIndex;
use potluck_common::chunk::Run;
use reqwest::Url;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::claim::next_piece;
use super::partial::{Kept, PartialFile};
use crate::buffers::Budget;
use crate::scheduler::{Failure, RequestId};
use crate::traffic::Traffic;
use crate::wire::peer_client::{FetchError, PeerClient};

/// What happened to a request.
#[derive(Debug)]
pub enum Fact {
    /// So many bytes came.
    Bytes(RequestId, u64),
    /// A chunk is verified and written.
    Chunk(RequestId, ChunkIndex),
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
    /// Neighbouring chunks.
    pub run: Run,
    /// The owner's address.
    pub base: Url,
    /// The client.
    pub peers: PeerClient,
    /// Where chunks go.
    pub partial: Arc<PartialFile>,
    /// Bounds the bytes that wait to be written, over all requests of all downloads.
    pub budget: Arc<Budget>,
    /// Counts what comes.
    pub traffic: Arc<Traffic>,
    /// Where facts go.
    pub facts: mpsc::Sender<Fact>,
}

/// Progress is told after so many bytes…
const TELL_BYTES: u64 = 128 << 10;
/// …or so much time, whichever comes first.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// The task is over; the driver is gone or knows.
struct Over;

impl Fetch {
    /// Runs to the end of the request. Dropping it closes the connection.
    pub async fn run(self) {
        let outcome = self.read().await;
        if let Ok(fact) = outcome {
            let _driver_gone = self.facts.send(fact).await;
        }
    }

    async fn read(&self) -> Result<Fact, Over> {
        let geometry = self.partial.map().geometry();
        let id = self.partial.map().content_id();
        let mut response = match self.peers.range(&self.base, id, geometry.bytes_of_run(self.run)).await {
            Ok(response) => response,
            Err(error) => return Ok(Fact::Failed(self.request, failure(&error))),
        };
        let mut writing = Writing { fetch: self, task: None };
        let (mut untold, mut told_at) = (0, None::<Instant>);
        let mut rest = Bytes::new();
        for chunk in self.run.indices() {
            let len = geometry.len_of(chunk);
            let permit = self.budget.take(len).await;
            let mut pieces = Vec::new();
            let mut missing = usize::try_from(len).map_err(|_| Over)?;
            while missing > 0 {
                if rest.is_empty() {
                    match next_piece(&mut response).await {
                        Ok(Some(piece)) => rest = piece,
                        Ok(None) => {
                            writing.finish().await?;
                            return Ok(Fact::Failed(self.request, Failure::Short));
                        }
                        Err(error) => {
                            writing.finish().await?;
                            return Ok(Fact::Failed(self.request, failure(&error)));
                        }
                    }
                    self.traffic.down.fetch_add(rest.len() as u64, Ordering::Relaxed);
                    untold += rest.len() as u64;
                    // The first bytes are told at once: they start the clock that the owner's rate is measured with.
                    if told_at.is_none_or(|at| untold >= TELL_BYTES || at.elapsed() >= TELL_EVERY) {
                        self.tell(Fact::Bytes(self.request, untold)).await?;
                        (untold, told_at) = (0, Some(Instant::now()));
                    }
                }
                let piece = rest.split_to(missing.min(rest.len()));
                missing -= piece.len();
                pieces.push(piece);
            }
            // One chunk is written while the next is read; a second one waits for the first.
            writing.finish().await?;
            let partial = self.partial.clone();
            let task = tokio::task::spawn_blocking(move || {
                let kept = partial.keep(chunk, &pieces);
                drop((pieces, permit));
                kept
            });
            writing.task = Some((chunk, task));
        }
        self.tell(Fact::Bytes(self.request, untold)).await?;
        writing.finish().await?;
        // Reading the end of the body lets the connection be used again, and shows one that goes on.
        match next_piece(&mut response).await {
            Ok(None) if rest.is_empty() => Ok(Fact::Ended(self.request)),
            _ => Ok(Fact::Failed(self.request, Failure::Short)),
        }
    }

    async fn tell(&self, fact: Fact) -> Result<(), Over> {
        self.facts.send(fact).await.map_err(|_| Over)
    }
}

/// The chunk that is being written.
struct Writing<'a> {
    fetch: &'a Fetch,
    task: Option<(ChunkIndex, JoinHandle<io::Result<Kept>>)>,
}

impl Writing<'_> {
    /// Waits for it and tells what became of it; a bad chunk or a failing disk ends the request.
    async fn finish(&mut self) -> Result<(), Over> {
        let Some((chunk, task)) = self.task.take() else { return Ok(()) };
        let request = self.fetch.request;
        let fact = match task.await.map_err(io::Error::other).flatten() {
            Ok(Kept::Yes) => return self.fetch.tell(Fact::Chunk(request, chunk)).await,
            Ok(Kept::Bad) => Fact::Failed(request, Failure::Corrupt { chunk }),
            Err(error) => Fact::Disk(request, error),
        };
        self.fetch.tell(fact).await?;
        Err(Over)
    }
}

/// What an owner's answer means to the scheduler.
fn failure(error: &FetchError) -> Failure {
    match error {
        FetchError::Unreachable(_) => Failure::Unreachable,
        FetchError::Choked(retry_after) => Failure::Choked { retry_after: *retry_after },
        FetchError::NotHeld => Failure::NotHeld,
        FetchError::Wrong(_) => Failure::Short,
    }
}
