//! The sharing task: keeps the library equal to the share folder.
//!
//! It owns the list of files to hash, and waits for one thing at a time: a hint from the watcher, the rescan timer, a file that
//! came to rest, a finished hash. Hashing runs on the blocking pool, a few files at once; each file is in the library,
//! and so announced, as soon as its hash is known.
//!
//! Invariant: what enters the library was hashed in a state it was in before and after.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use potluck_common::{ChunkMap, SharePath};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::HashCache;
use super::folder::{FileIdentity, ShareFolder};
use super::hashing::{HashError, hash_file_until};
use super::library::{Library, SharedFile};
use super::queue::HashQueue;
use super::scan::{ScanReport, Skipped, scan};
use super::watch::{Dirty, FolderWatch};
use crate::config::Config;

/// Files that a scan hands over at once: large enough to amortise a look-up in the cache, small enough that the first
/// files that the cache knows are announced while later ones are still being listed.
const SCAN_BATCH: usize = 512;
/// Batches that a scan may be ahead.
const SCAN_AHEAD: usize = 4;
/// Hashes are written to the cache at this interval, each write being a sync.
const CACHE_FLUSH: Duration = Duration::from_secs(2);
/// A scan may take at most this share of the time; the interval stretches for slow folders.
const SCAN_SHARE: u32 = 50;

/// What the sharing task shows of itself.
#[derive(Debug, Default)]
pub struct SharingState {
    /// Files still to be hashed.
    pub n_hashing: AtomicU64,
    /// Entries of the folder that cannot be shared, as of the last full scan.
    pub n_skipped: AtomicU64,
    /// Whether the first scan is over and everything the cache knew is in the library.
    pub scanned: watch::Sender<bool>,
}

/// Asks for a look at one path, for example because a request found the file changed.
#[derive(Debug, Clone)]
pub struct LookAgain(mpsc::Sender<SharePath>);

impl LookAgain {
    /// Never waits; when too many ask at once, the rescan will do.
    pub fn at(&self, path: SharePath) {
        let _full = self.0.try_send(path);
    }
}

/// Requests for a look that may wait at once.
const LOOKS: usize = 64;

/// The receiving end of [`LookAgain`].
#[derive(Debug)]
pub struct Looks(mpsc::Receiver<SharePath>);

/// Makes a pair.
pub fn looks() -> (LookAgain, Looks) {
    let (sender, receiver) = mpsc::channel(LOOKS);
    (LookAgain(sender), Looks(receiver))
}

/// Everything the task works with.
pub struct Sharing {
    /// The folder.
    pub folder: Arc<ShareFolder>,
    /// Known hashes.
    pub cache: Arc<HashCache>,
    /// What is shared.
    pub library: Arc<Library>,
    /// What it shows of itself.
    pub state: Arc<SharingState>,
    /// Requests for a look.
    pub looks: Looks,
    /// Durations.
    pub config: Config,
}

struct Hashed {
    path: SharePath,
    identity: FileIdentity,
    result: Result<ChunkMap, HashError>,
}

impl Sharing {
    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let watch = match FolderWatch::start(self.folder.path()) {
            Ok(watch) => Some(watch),
            Err(error) => {
                let every = self.config.rescan_interval;
                tracing::warn!(%error, "cannot watch the share folder; changes are found by a scan every {every:?}. Raising fs.inotify.max_user_watches may help");
                None
            }
        };
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut queue = HashQueue::default();
        let mut hashing = JoinSet::<Hashed>::new();
        let mut next_scan = Instant::now();
        let mut cache_flush = tokio::time::interval(CACHE_FLUSH);
        loop {
            while hashing.len() < n_cores
                && let Some((path, identity)) = queue.next_file(Instant::now())
            {
                let (folder, ending) = (self.folder.clone(), shutdown.clone());
                let n_threads = if queue.len() > n_cores { 1 } else { u32::try_from(n_cores).unwrap_or(1) };
                hashing.spawn_blocking(move || {
                    let result = match folder.open_unchanged(&path, identity) {
                        Ok(file) => hash_file_until(&file, identity, n_threads, &|| ending.is_cancelled()),
                        Err(_) => Err(HashError::Changed),
                    };
                    Hashed { path, identity, result }
                });
            }
            self.state.n_hashing.store(queue.len() as u64, Ordering::Relaxed);
            // While every core hashes, a finished hash is what comes next.
            let rested = queue.next_deadline().filter(|_| hashing.len() < n_cores);
            let wake = rested.map_or(next_scan, |at| at.min(next_scan));
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(hashed) = hashing.join_next() => {
                    match hashed {
                        Ok(hashed) => self.on_hashed(hashed, &mut queue),
                        Err(error) => tracing::error!(%error, "hashing failed"),
                    }
                }
                () = changed(watch.as_ref()) => {
                    tokio::time::sleep(self.config.watch_coalesce).await;
                    match watch.as_ref().map(FolderWatch::take) {
                        Some(Dirty::Places(places)) => self.look_at(&places, &mut queue).await,
                        Some(Dirty::Everything) => next_scan = Instant::now(),
                        None => {}
                    }
                }
                Some(path) = self.looks.0.recv() => self.look_at(&[path], &mut queue).await,
                _ = cache_flush.tick() => self.flush_cache().await,
                () = tokio::time::sleep_until(wake.into()) => {
                    if Instant::now() >= next_scan {
                        let started = Instant::now();
                        self.scan_everything(&mut queue, &shutdown).await;
                        next_scan = Instant::now() + self.config.rescan_interval.max(started.elapsed() * SCAN_SHARE);
                    }
                }
            }
        }
        hashing.abort_all();
        while hashing.join_next().await.is_some() {}
        self.flush_cache().await;
    }

    fn on_hashed(&self, hashed: Hashed, queue: &mut HashQueue) {
        let Hashed { path, identity, result } = hashed;
        match result {
            Ok(map) => {
                queue.on_done(&path);
                let content_id = map.content_id();
                self.cache.insert(identity, map);
                if self.library.insert(path.clone(), SharedFile { content_id, identity }) {
                    tracing::debug!(?path, %content_id, "shared");
                }
            }
            Err(HashError::Changed) => {
                self.library.remove(&path);
                match self.folder.open_file(&path) {
                    Ok((_, identity)) => queue.on_unsettled(&path, identity, Instant::now()),
                    Err(_) => queue.on_gone(&path),
                }
            }
            Err(error) => {
                tracing::warn!(?path, %error, "cannot be shared");
                queue.on_done(&path);
                self.library.remove(&path);
            }
        }
    }

    /// Takes note of files as they are now: those the cache knows are shared at once, others are to be hashed.
    fn note(&self, files: Vec<(SharePath, FileIdentity)>, queue: &mut HashQueue) {
        let changed: Vec<_> = files
            .into_iter()
            .filter(|(path, identity)| {
                self.library.get(path).is_none_or(|known| known.identity != *identity)
                    && !queue.contains(path, *identity)
            })
            .collect();
        if changed.is_empty() {
            return;
        }
        let known = self.cache.lookup(changed.iter().map(|(_, identity)| *identity)).unwrap_or_else(|error| {
            tracing::warn!(%error, "files are hashed again");
            vec![None; changed.len()]
        });
        for ((path, identity), known) in changed.into_iter().zip(known) {
            match known {
                Some(content_id) => {
                    queue.on_gone(&path);
                    self.library.insert(path, SharedFile { content_id, identity });
                }
                None => {
                    // What is announced of it is no longer true, unless a download has just put it there.
                    if self.library.stays_in(&path, identity) {
                        continue;
                    }
                    let not_before = Instant::now() + self.time_to_rest(identity);
                    queue.on_changed(path, identity, not_before);
                }
            }
        }
    }

    /// How long a file has still to be left alone before it is hashed: it may be in the middle of being written, and
    /// two writes within one tick of the file system's clock look alike.
    fn time_to_rest(&self, identity: FileIdentity) -> Duration {
        let newest = identity.mtime.max(identity.ctime);
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(newest.0), u32::try_from(newest.1)) else {
            return Duration::ZERO;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        match SystemTime::now().duration_since(changed) {
            Ok(age) => self.config.settle.saturating_sub(age),
            // From the future: a clock is wrong, and waiting for it could take forever.
            Err(_) => self.config.settle,
        }
    }

    async fn scan_everything(&self, queue: &mut HashQueue, shutdown: &CancellationToken) {
        let (sender, mut batches) = mpsc::channel::<Vec<(SharePath, FileIdentity)>>(SCAN_AHEAD);
        let (folder, ending) = (self.folder.clone(), shutdown.clone());
        let scanning = tokio::task::spawn_blocking(move || {
            let mut batch = Vec::with_capacity(SCAN_BATCH);
            let report = scan(&folder, None, &mut |path, identity| {
                batch.push((path, identity));
                let goes_on = !ending.is_cancelled();
                goes_on && (batch.len() < SCAN_BATCH || sender.blocking_send(std::mem::take(&mut batch)).is_ok())
            });
            let _closed = sender.blocking_send(batch);
            report
        });
        let mut seen = BTreeSet::new();
        while let Some(batch) = batches.recv().await {
            seen.extend(batch.iter().map(|(path, _)| path.clone()));
            self.note(batch, queue);
        }
        match scanning.await {
            // What was not seen may well be there.
            Ok(Ok(_)) if shutdown.is_cancelled() => {}
            Ok(Ok(report)) => {
                self.forget_unseen(&seen, queue);
                self.report(&report);
                self.state.scanned.send_replace(true);
            }
            Ok(Err(error)) => tracing::error!(%error, "cannot read the share folder; what was shared stays listed"),
            Err(error) => tracing::error!(%error, "the scan failed"),
        }
    }

    fn forget_unseen(&self, seen: &BTreeSet<SharePath>, queue: &mut HashQueue) {
        let gone: Vec<_> = queue.paths().filter(|path| !seen.contains(*path)).cloned().collect();
        for path in gone.iter().filter(|path| self.folder.open_file(path).is_err()) {
            queue.on_gone(path);
        }
        let shared = self.library.page(None, usize::MAX);
        for (path, _) in &shared {
            // It may have come since the scan passed by.
            if !seen.contains(path) && self.folder.open_file(path).is_err() {
                self.library.remove(path);
            }
        }
        let live: Vec<_> = shared.iter().map(|(_, file)| (file.identity, file.content_id)).collect();
        if let Err(error) = self.cache.prune(&live) {
            tracing::warn!(%error, "the hash cache keeps entries of files that are gone");
        }
    }

    fn report(&self, report: &ScanReport) {
        let before = self.state.n_skipped.swap(report.n_skipped, Ordering::Relaxed);
        if report.n_skipped != before {
            tracing::warn!(n = report.n_skipped, "entries of the share folder are not shared");
            for Skipped { name, reason } in &report.skipped {
                tracing::warn!(?name, %reason, "not shared");
            }
        }
    }

    async fn look_at(&self, places: &[SharePath], queue: &mut HashQueue) {
        let (folder, places) = (self.folder.clone(), places.to_vec());
        let looked = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            let mut looked_at = Vec::new();
            for place in places {
                let listed = scan(&folder, Some(&place), &mut |path, identity| {
                    found.push((path, identity));
                    true
                });
                match listed {
                    Ok(_) => looked_at.push(place),
                    // Nothing is known of it then: what was shared stays so until the next scan.
                    Err(error) => tracing::debug!(?place, %error, "cannot be looked at"),
                }
            }
            (looked_at, found)
        });
        let Ok((places, found)) = looked.await else { return };
        let there: BTreeSet<_> = found.iter().map(|(path, _)| path.clone()).collect();
        for place in &places {
            for path in self.library.below(place) {
                if !there.contains(&path) {
                    self.library.remove(&path);
                }
            }
        }
        self.note(found, queue);
    }

    async fn flush_cache(&self) {
        let cache = self.cache.clone();
        let flushed = tokio::task::spawn_blocking(move || cache.flush()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "hashes are not remembered across a restart");
        }
    }
}

async fn changed(watch: Option<&FolderWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
