//! The sharing task: keeps the library equal to the share folder.
//!
//! It owns the list of files to hash, and waits for one thing at a time: a hint from the watcher, files that a scan found, the
//! rescan timer, a file that came to rest, a finished hash. Hashing runs on the blocking pool, a few files at once; each file is in the library,
//! and so announced, as soon as its hash is known.
//!
//! Invariant: what enters the library was hashed in a state it was in before and after.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use potluck_common::share_path::IGNORE_FILE;
use potluck_common::{ChunkMap, SharePath};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::cache::HashCache;
use super::dirt::{Dirt, Dirty};
use super::folder::{FileIdentity, ShareFolder};
use super::hashing::{HashError, hash_file_until};
use super::ignore::{IgnoreRules, Kind, read_ignore_file};
use super::library::{Library, SharedFile};
use super::queue::HashQueue;
use super::scan::{ScanReport, Skipped, scan};
use super::scanning::{Scanning, Step};
use super::watch::FolderWatch;
use crate::config::Config;
use crate::deadline::sleep_until;

/// Hashes are written to the cache at this interval, each write being a sync.
const CACHE_FLUSH: Duration = Duration::from_secs(2);
/// Small files are hashed together in one go, up to so many bytes: handing each to another thread takes longer than hashing it.
const HASH_TOGETHER: u64 = 256 << 10;
/// Files in one go: the first of them is announced only with the last.
const MAX_HASH_TOGETHER: usize = 32;
/// A scan may take at most this share of the time; the interval stretches for slow folders.
const SCAN_SHARE: u32 = 50;

/// What the sharing task shows of itself.
#[derive(Debug, Default)]
pub struct SharingState {
    /// Files still to be hashed.
    pub n_hashing: AtomicU64,
    /// Bytes hashed so far.
    pub n_hashed_bytes: AtomicU64,
    /// Entries of the folder that cannot be shared, as of the last full scan.
    pub n_skipped: AtomicU64,
    /// Whether the first scan is over and everything the cache knew is in the library.
    pub scanned: watch::Sender<bool>,
    /// What is not shared.
    pub ignored: watch::Sender<Arc<IgnoreRules>>,
}

/// Asks for a look, at one path, for example because a request found the file changed, or at everything.
#[derive(Debug, Clone)]
pub struct LookAgain(mpsc::Sender<Wish>);

/// What is to be looked at.
#[derive(Debug)]
enum Wish {
    At(SharePath),
    /// What was hashed in this state is not what the disk gives now.
    Distrust(SharePath, FileIdentity, Option<oneshot::Sender<()>>),
    Everything(oneshot::Sender<()>),
}

impl LookAgain {
    /// Never waits; when too many ask at once, the rescan will do.
    pub fn at(&self, path: SharePath) {
        let _full = self.0.try_send(Wish::At(path));
    }

    /// A file of the library could not be read. Mostly it is another one by now; but what the disk fails to give although
    /// it is still the same, must be hashed again before it is offered again. Never waits; when too many ask at once, the next
    /// failing read will do.
    pub fn on_unread(&self, path: SharePath, identity: FileIdentity, error: &io::Error) {
        let wish = match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::IO.raw_os_error() => Wish::Distrust(path, identity, None),
            _ => Wish::At(path),
        };
        let _full = self.0.try_send(wish);
    }

    /// The bytes of a file are not those that were hashed in this state. Returns once it is offered no more.
    pub async fn distrust(&self, path: SharePath, identity: FileIdentity) {
        let (told, over) = oneshot::channel();
        if self.0.send(Wish::Distrust(path, identity, Some(told))).await.is_ok() {
            let _over_too = over.await;
        }
    }

    /// Waits for a scan that begins from now on: what stood in the folder before is shared after it, or waits to be hashed. Whether
    /// the scan was complete.
    pub async fn everywhere(&self) -> bool {
        let (told, over) = oneshot::channel();
        self.0.send(Wish::Everything(told)).await.is_ok() && over.await.is_ok()
    }
}

/// Requests for a look that may wait at once.
const LOOKS: usize = 64;

/// The receiving end of [`LookAgain`].
#[derive(Debug)]
pub struct Looks(mpsc::Receiver<Wish>);

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
    /// Told what has changed, or become known, for folder sync.
    pub changes: Arc<Dirt>,
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
        let mut hashing = JoinSet::<Vec<Hashed>>::new();
        let mut next_scan = Instant::now();
        let mut scanning: Option<Scanning> = None;
        // Who asked for a scan that has not begun yet.
        let mut asked = Vec::new();
        // When the hints that have come are looked at.
        let mut next_look: Option<Instant> = None;
        let mut cache_flush = tokio::time::interval(CACHE_FLUSH);
        loop {
            while hashing.len() < n_cores
                && let Some(first) = queue.next_file(Instant::now())
            {
                let mut files = vec![first];
                while files.iter().map(|(_, identity)| identity.len).sum::<u64>() < HASH_TOGETHER
                    && files.len() < MAX_HASH_TOGETHER
                    && let Some(next) = queue.next_file_up_to(HASH_TOGETHER, Instant::now())
                {
                    files.push(next);
                }
                let (folder, ending) = (self.folder.clone(), shutdown.clone());
                let n_threads = if queue.len() > n_cores { 1 } else { u32::try_from(n_cores).unwrap_or(1) };
                hashing.spawn_blocking(move || {
                    let hash = |(path, identity)| {
                        let result = match folder.open_unchanged(&path, identity) {
                            Ok(file) => hash_file_until(&file, identity, n_threads, &|| ending.is_cancelled()),
                            Err(_) => Err(HashError::Changed),
                        };
                        Hashed { path, identity, result }
                    };
                    files.into_iter().map(hash).collect()
                });
            }
            self.state.n_hashing.store(queue.len() as u64, Ordering::Relaxed);
            // While every core hashes, a finished hash is what comes next.
            let rested = queue.next_deadline().filter(|_| hashing.len() < n_cores);
            let due = [rested, next_look, scanning.is_none().then_some(next_scan)];
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(hashed) = hashing.join_next() => {
                    match hashed {
                        Ok(hashed) => hashed.into_iter().for_each(|hashed| self.on_hashed(hashed, &mut queue)),
                        Err(error) => tracing::error!(%error, "hashing failed"),
                    }
                }
                () = changed(watch.as_ref()), if next_look.is_none() => {
                    next_look = Some(Instant::now() + self.config.watch_coalesce);
                }
                Some(wish) = self.looks.0.recv() => {
                    let everything = match wish {
                        Wish::At(path) => self.look_at(&[path], &mut queue).await,
                        Wish::Distrust(path, identity, told) => {
                            self.withdraw(&path, identity).await;
                            drop(told);
                            self.look_at(&[path], &mut queue).await
                        }
                        Wish::Everything(told) => {
                            asked.push(told);
                            true
                        }
                    };
                    if everything {
                        next_scan = Instant::now();
                    }
                }
                _ = cache_flush.tick() => self.flush_cache().await,
                step = next_step(&mut scanning) => match step {
                    Step::Found(batch) => self.note(batch, &mut queue),
                    Step::Over(report) => {
                        let Some(Scanning { seen, started, told, .. }) = scanning.take() else { continue };
                        if self.on_scanned(report, &seen, &mut queue, &shutdown) {
                            for told in told {
                                let _gone = told.send(());
                            }
                        }
                        let pause = self.config.rescan_interval.max(started.elapsed() * SCAN_SHARE);
                        // Unless more was asked for while it ran.
                        if next_scan <= started {
                            next_scan = Instant::now() + pause;
                        }
                    }
                },
                () = sleep_until(due.into_iter().flatten().min()) => {
                    let now = Instant::now();
                    if next_look.is_some_and(|at| at <= now) {
                        next_look = None;
                        let everything = match watch.as_ref().map(FolderWatch::take) {
                            Some(Dirty::Places(places)) => {
                                let everything = self.look_at(&places, &mut queue).await;
                                self.changes.note(places);
                                everything
                            }
                            Some(Dirty::Everything) => true,
                            None => false,
                        };
                        if everything {
                            next_scan = Instant::now();
                        }
                    }
                    if scanning.is_none() && next_scan <= now {
                        let told = std::mem::take(&mut asked);
                        scanning = Some(Scanning::start(self.folder.clone(), self.rules(), told, shutdown.clone()));
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
                self.state.n_hashed_bytes.fetch_add(identity.len, Ordering::Relaxed);
                let is_still_there = queue.on_done(&path);
                let content_id = map.content_id();
                self.cache.insert(identity, map);
                if is_still_there && self.library.insert(path.clone(), SharedFile { content_id, identity }) {
                    tracing::debug!(path = path.as_str(), %content_id, "shared");
                }
                self.changes.note([path]);
            }
            Err(HashError::Changed) => {
                self.library.remove(&path);
                match self.folder.open_file(&path) {
                    Ok((_, identity)) => queue.on_unsettled(&path, identity, Instant::now()),
                    Err(_) => {
                        queue.on_gone(&path);
                        queue.on_done(&path);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(path = path.as_str(), %error, "cannot be shared");
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

    /// A scan is over; whether it was complete.
    fn on_scanned(
        &self,
        report: Result<io::Result<ScanReport>, JoinError>,
        seen: &BTreeSet<SharePath>,
        queue: &mut HashQueue,
        shutdown: &CancellationToken,
    ) -> bool {
        match report {
            // What was not seen may well be there.
            Ok(Ok(_)) if shutdown.is_cancelled() => return false,
            Ok(Ok(report)) => {
                self.report(&report);
                self.take_rules(report.rules, queue);
                self.forget_unseen(seen, queue);
                self.changes.note_everything();
                self.state.scanned.send_replace(true);
                return true;
            }
            Ok(Err(error)) => tracing::error!(%error, "cannot read the share folder; what was shared stays listed"),
            Err(error) => tracing::error!(%error, "the scan failed"),
        }
        false
    }

    fn forget_unseen(&self, seen: &BTreeSet<SharePath>, queue: &mut HashQueue) {
        let gone: Vec<_> = queue.paths().filter(|path| !seen.contains(*path)).cloned().collect();
        for path in gone.iter().filter(|path| self.folder.open_file(path).is_err()) {
            queue.on_gone(path);
        }
        let (shared, rules) = (self.library.page(None, usize::MAX), self.rules());
        for (path, _) in &shared {
            // It may have come since the scan passed by.
            if !seen.contains(path) && (rules.is_ignored(path, Kind::File) || self.folder.open_file(path).is_err()) {
                self.library.remove(path);
            }
        }
        let live: Vec<_> = shared.iter().map(|(_, file)| (file.identity, file.content_id)).collect();
        if let Err(error) = self.cache.prune(&live) {
            tracing::warn!(%error, "the hash cache keeps entries of files that are gone");
        }
    }

    fn rules(&self) -> Arc<IgnoreRules> {
        self.state.ignored.borrow().clone()
    }

    /// The ignore rules are these now; whether they were others before. What is ignored is withdrawn at once; what is not any
    /// more, the next scan finds.
    fn take_rules(&self, rules: IgnoreRules, queue: &mut HashQueue) -> bool {
        if *self.rules() == rules {
            return false;
        }
        for (folder, bad) in rules.bad() {
            let folder = folder.map(SharePath::as_str);
            tracing::warn!(folder, line = bad.line, reason = %bad.reason, "a pattern in an ignore file is passed over");
        }
        let waiting: Vec<_> = queue.paths().filter(|path| rules.is_ignored(path, Kind::File)).cloned().collect();
        for path in waiting {
            queue.on_gone(&path);
        }
        for (path, _) in self.library.page(None, usize::MAX) {
            if rules.is_ignored(&path, Kind::File) {
                self.library.remove(&path);
            }
        }
        self.state.ignored.send_replace(Arc::new(rules));
        true
    }

    fn report(&self, report: &ScanReport) {
        let before = self.state.n_skipped.swap(report.n_skipped, Ordering::Relaxed);
        if report.n_skipped != before {
            tracing::warn!(n = report.n_skipped, "entries of the share folder are not shared");
            for Skipped { name, reason } in &report.skipped {
                tracing::warn!(name, %reason, "not shared");
            }
        }
    }

    /// Looks at some places; whether the ignore rules are others now, so that everything is to be looked at.
    async fn look_at(&self, places: &[SharePath], queue: &mut HashQueue) -> bool {
        let (folder, places, before) = (self.folder.clone(), places.to_vec(), self.rules());
        let looked = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            let mut looked_at = Vec::new();
            let mut rules = IgnoreRules::clone(&before);
            for file in places.iter().filter(|place| place.file_name() == IGNORE_FILE) {
                rules.put(file.parent(), read_ignore_file(&folder, file.parent().as_ref()), &before);
            }
            for place in places {
                let listed = scan(&folder, Some(&place), &rules, &mut |path, identity| {
                    found.push((path, identity));
                    true
                });
                match listed {
                    Ok(report) => {
                        rules = report.rules;
                        looked_at.push(place);
                    }
                    // Nothing is known of it then: what was shared stays so until the next scan.
                    Err(error) => tracing::debug!(?place, %error, "cannot be looked at"),
                }
            }
            (looked_at, found, rules)
        });
        let Ok((places, found, rules)) = looked.await else { return false };
        let there: BTreeSet<_> = found.iter().map(|(path, _)| path.clone()).collect();
        for place in &places {
            for path in self.library.below(place) {
                if !there.contains(&path) {
                    self.library.remove(&path);
                }
            }
        }
        self.note(found, queue);
        self.take_rules(rules, queue)
    }

    /// What was hashed in that state is not offered until it could be read again (F11).
    async fn withdraw(&self, path: &SharePath, identity: FileIdentity) {
        if !self.library.remove_in(path, identity) {
            return;
        }
        tracing::warn!(
            path = path.as_str(),
            "a shared file is not what was hashed, or cannot be read; it is hashed again"
        );
        let cache = self.cache.clone();
        let removed = tokio::task::spawn_blocking(move || cache.remove(identity)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(path = path.as_str(), %error, "the old hash stays cached");
        }
    }

    async fn flush_cache(&self) {
        let cache = self.cache.clone();
        let flushed = tokio::task::spawn_blocking(move || cache.flush()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "hashes are not remembered across a restart");
        }
    }
}

async fn next_step(scanning: &mut Option<Scanning>) -> Step {
    match scanning {
        Some(scanning) => scanning.next().await,
        None => std::future::pending().await,
    }
}

async fn changed(watch: Option<&FolderWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
