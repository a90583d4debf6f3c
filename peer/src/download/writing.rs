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
pub struct WholeChunk {
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
    gathered: Vec<WholeChunk>,
    n_gathered: u64,
    /// When the last chunk was whole.
    last_at: Instant,
    running: Option<JoinHandle<Result<(), Fact>>>,
}

impl Writing {
    /// Nothing yet, of a request that has just begun to read. Chunks that are written are told as facts at once.
    pub fn new(request: RequestId, partial: Arc<PartialFile>, facts: mpsc::Sender<Fact>, now: Instant) -> Self {
        Self { request, partial, facts, gathered: Vec::new(), n_gathered: 0, last_at: now, running: None }
    }

    /// Takes a chunk; whether what is gathered must be written now.
    pub fn add(&mut self, whole: WholeChunk, now: Instant) -> bool {
        let took = now.saturating_duration_since(mem::replace(&mut self.last_at, now));
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
    gathered: Vec<WholeChunk>,
) -> Result<(), Fact> {
    let chunks: Vec<_> = gathered.iter().map(|whole| (whole.chunk, &*whole.pieces)).collect();
    let n_kept = partial.keep(&chunks).map_err(|error| Fact::Disk(request, error))?;
    let chunks: Vec<_> = chunks.into_iter().map(|(chunk, _)| chunk).collect();
    // Telling may have to wait, and others wait for the memory.
    drop(gathered);
    for chunk in &chunks[..n_kept] {
        let _driver_gone = facts.blocking_send(Fact::Chunk(request, *chunk));
    }
    match chunks.get(n_kept) {
        Some(chunk) => Err(Fact::Failed(request, Failure::Corrupt { chunk: *chunk })),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cap_std::fs::Dir;
    use potluck_common::chunk::MIN_CHUNK_LEN;
    use potluck_common::tree::chunk_value;
    use potluck_common::{ChunkMap, Geometry, HaveSet, PeerId};

    use super::*;
    use crate::buffers::Budget;
    use crate::download::partial::{GoesOn, PartialStore, Target};
    use crate::scheduler::{Holds, Scheduler, SchedulerConfig};

    const CHUNK: usize = MIN_CHUNK_LEN as usize;

    struct Scene {
        _temp: tempfile::TempDir,
        data: Bytes,
        geometry: Geometry,
        budget: Budget,
        facts: mpsc::Receiver<Fact>,
        writing: Writing,
        now: Instant,
    }

    fn scene() -> Scene {
        let temp = tempfile::tempdir().unwrap();
        let mut data = vec![0; 6 * CHUNK];
        fastrand::Rng::with_seed(6).fill(&mut data);
        let geometry = Geometry::new(data.len() as u64).unwrap();
        let values =
            geometry.indices().zip(data.chunks(CHUNK)).map(|(chunk, bytes)| chunk_value(geometry, chunk, bytes));
        let map = ChunkMap::from_values(geometry, values.collect());
        let store = PartialStore::new(Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap());
        let only_here = Arc::new(Arc::new(tokio::sync::Mutex::new(())).try_lock_owned().unwrap());
        let target = Target::Share("a".parse().unwrap());
        let (partial, _) = store.open(map, target, GoesOn::ByItself, only_here).unwrap();
        let now = Instant::now();
        let mut scheduler = Scheduler::new(geometry, HaveSet::empty(geometry), SchedulerConfig::default(), 1);
        scheduler.on_owner(PeerId::from_bytes([7; 16]), Holds::All, now);
        let request = scheduler.next_request(now).unwrap().id;
        let (sender, facts) = mpsc::channel(10);
        let writing = Writing::new(request, Arc::new(partial), sender, now);
        Scene { _temp: temp, data: data.into(), geometry, budget: Budget::new(10 * CHUNK), facts, writing, now }
    }

    impl Scene {
        /// Adds chunk `n` with the bytes of chunk `of`, so long after the last one.
        fn add(&mut self, n: u32, of: usize, after: Duration) -> bool {
            self.now += after;
            let permit = self.budget.try_take(MIN_CHUNK_LEN).unwrap();
            let chunk = self.geometry.index(n).unwrap();
            let pieces = vec![self.data.slice(of * CHUNK..(of + 1) * CHUNK)];
            self.writing.add(WholeChunk { chunk, pieces, permit }, self.now)
        }

        fn told(&mut self) -> Vec<u32> {
            std::iter::from_fn(|| match self.facts.try_recv() {
                Ok(Fact::Chunk(_, chunk)) => Some(chunk.get()),
                _ => None,
            })
            .collect()
        }
    }

    #[tokio::test]
    async fn only_chunks_that_come_fast_wait_for_each_other() {
        let mut scene = scene();
        assert!(scene.add(0, 0, MAX_WAIT), "a slow one does not wait");
        scene.writing.finish().await.unwrap();
        assert_eq!((scene.told(), scene.writing.due()), (vec![0], None));
        for n in 1..4 {
            assert!(!scene.add(n, n as usize, MAX_WAIT / 2));
            assert_eq!(scene.writing.due(), Some(scene.now + MAX_WAIT));
        }
        assert!(scene.add(4, 4, MAX_WAIT / 2), "so many are enough");
        assert_eq!(scene.told(), [0_u32; 0], "nothing is written before it is begun");
        scene.writing.begin().await.unwrap();
        assert_eq!(scene.writing.due(), None);
        scene.writing.finish().await.unwrap();
        assert_eq!(scene.told(), [1, 2, 3, 4]);
        assert!(scene.budget.try_take(10 * MIN_CHUNK_LEN).is_some(), "their memory is free again");
    }

    #[tokio::test]
    async fn a_bad_chunk_ends_the_request_and_those_before_it_count() {
        let mut scene = scene();
        for (n, of) in [(0, 0), (1, 1), (2, 5), (3, 3)] {
            scene.add(n, of, Duration::ZERO);
        }
        match scene.writing.finish().await {
            Err(Fact::Failed(_, Failure::Corrupt { chunk })) => assert_eq!(chunk.get(), 2),
            other => panic!("{other:?}"),
        }
        assert_eq!(scene.told(), [0, 1]);
        assert!(scene.budget.try_take(10 * MIN_CHUNK_LEN).is_some(), "their memory is free again");
    }
}
