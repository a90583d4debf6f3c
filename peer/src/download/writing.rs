//! Chunks on their way from the network to the disk: while some are hashed and written, the next ones are read.
//!
//! Chunks that come fast go to the blocking pool a few at a time: for one of 256 KiB the way there costs as much as its hash.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use potluck_common::ChunkIndex;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::fetch::Fact;
use super::partial::PartialFile;
use crate::scheduler::{Failure, RequestId};

/// So many bytes are written at once.
const MAX_GATHERED: u64 = 1 << 20;
/// A chunk waits so long at most for those that are written with it; one that took longer to come does not wait at all.
const MAX_WAIT: Duration = Duration::from_millis(3);

/// All bytes of a chunk.
#[derive(Debug)]
pub struct Whole {
    /// Which one.
    pub chunk: ChunkIndex,
    /// Its bytes, as they came.
    pub pieces: Vec<Bytes>,
    /// Its part of the memory that may be taken.
    pub permit: OwnedSemaphorePermit,
}

/// The chunks of one request that are read, and not known to be written.
#[derive(Debug)]
pub struct Writing {
    request: RequestId,
    partial: Arc<PartialFile>,
    facts: mpsc::Sender<Fact>,
    gathered: Vec<Whole>,
    n_gathered: u64,
    /// When the last chunk was whole.
    last_at: Instant,
    running: Option<JoinHandle<Result<(), Fact>>>,
}

impl Writing {
    /// Nothing yet, of a request that has just begun to read. Chunks that are written are told as facts at once.
    pub fn new(request: RequestId, partial: Arc<PartialFile>, facts: mpsc::Sender<Fact>) -> Self {
        let (gathered, n_gathered, last_at, running) = (Vec::new(), 0, Instant::now(), None);
        Self { request, partial, facts, gathered, n_gathered, last_at, running }
    }

    /// Takes a chunk; whether what is gathered must be written now.
    pub fn add(&mut self, whole: Whole) -> bool {
        let took = mem::replace(&mut self.last_at, Instant::now()).elapsed();
        self.n_gathered += self.partial.map().geometry().len_of(whole.chunk);
        self.gathered.push(whole);
        took >= MAX_WAIT || self.n_gathered >= MAX_GATHERED
    }

    /// When what is gathered must be written, if there is anything.
    pub fn due(&self) -> Option<Instant> {
        (!self.gathered.is_empty()).then(|| self.last_at + MAX_WAIT)
    }

    /// Begins to write what is gathered, once what was begun before is written.
    ///
    /// # Errors
    /// What ended the request: a chunk that is not what it should be, or the disk.
    pub async fn begin(&mut self) -> Result<(), Fact> {
        self.finish_running().await?;
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.n_gathered = 0;
        let (request, partial, facts) = (self.request, self.partial.clone(), self.facts.clone());
        let gathered = mem::take(&mut self.gathered);
        self.running = Some(tokio::task::spawn_blocking(move || write(request, &partial, &facts, gathered)));
        Ok(())
    }

    /// Writes all that is gathered, and waits for it.
    ///
    /// # Errors
    /// As [`Writing::begin`].
    pub async fn finish(&mut self) -> Result<(), Fact> {
        self.begin().await?;
        self.finish_running().await
    }

    async fn finish_running(&mut self) -> Result<(), Fact> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let written = running.await;
        self.running = None;
        written.unwrap_or_else(|error| Err(Fact::Disk(self.request, io::Error::other(error))))
    }
}

/// Verifies and writes, on the blocking pool.
fn write(
    request: RequestId,
    partial: &PartialFile,
    facts: &mpsc::Sender<Fact>,
    gathered: Vec<Whole>,
) -> Result<(), Fact> {
    let chunks: Vec<_> = gathered.iter().map(|whole| (whole.chunk, &*whole.pieces)).collect();
    let n_kept = partial.keep(&chunks).map_err(|error| Fact::Disk(request, error))?;
    for (n, Whole { chunk, pieces, permit }) in gathered.into_iter().enumerate() {
        if n == n_kept {
            return Err(Fact::Failed(request, Failure::Corrupt { chunk }));
        }
        drop((pieces, permit));
        let _driver_gone = facts.blocking_send(Fact::Chunk(request, chunk));
    }
    Ok(())
}
