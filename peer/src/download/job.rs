//! Downloads of this peer: what a `download` does from the names to the last file, and what is moving at the moment.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use potluck_common::{ChunkMap, ContentId, Geometry};
use tokio::sync::{Semaphore, mpsc};

use super::bundling::Bundler;
use super::live::Live;
use super::moving::{AllMoving, Moving, OnlyHere};
use super::owners::{Recent, attempts, explain};
use super::partial::{GoesOn, PartialStore, Record, Target};
use super::place::{PlaceError, disk_failed, is_taken, path_of, place, taken};
use super::placing::Placer;
use super::plan::{Item, Plan};
use super::small::Turns;
use crate::buffers::Budget;
use crate::config::Config;
use crate::discovery::directory::Directory;
use crate::limit::Throttle;
use crate::on_complete::Completions;
use crate::share::cache::HashCache;
use crate::share::folder::{FileIdentity, ShareFolder};
use crate::share::hashing::hash_file;
use crate::share::library::{Library, SharedFile};
use crate::share::sharing::SharingState;
use crate::traffic::Traffic;
use crate::verb::{Contribution, Download, Event, Failed, FailureKind, Finished, From};
use crate::wire::announce::Who;
use crate::wire::peer_client::PeerClient;
use crate::wire::tracker_client::AskError;

/// Contents of several chunks that are fetched at once: each one by itself fills the links there are.
const MAX_LARGE: usize = 4;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// How long a download waits for the first look at the share folder.
const SCAN_PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries to go on with an unfinished download that nobody waits for.
const RESUME_EVERY: Duration = Duration::from_secs(30);
/// Space that a download leaves free: this much, or a hundredth of the disk if that is more.
const MIN_RESERVE: u64 = 256 << 20;

/// Everything downloads work with. Cheap to clone.
#[derive(Clone)]
pub struct Downloads {
    /// Where files go.
    pub folder: Arc<ShareFolder>,
    /// What we have.
    pub library: Arc<Library>,
    /// Hashes of what we fetched.
    pub cache: Arc<HashCache>,
    /// How far the first scan is.
    pub sharing: Arc<SharingState>,
    /// Unfinished contents.
    pub partials: Arc<PartialStore>,
    /// Whom to ask who has what.
    pub directory: Directory,
    /// For asking owners.
    pub peers: PeerClient,
    /// Who we are, so as not to ask ourselves.
    pub who: Arc<Who>,
    /// Counts what comes.
    pub traffic: Arc<Traffic>,
    /// How fast may be received.
    pub limit: Throttle,
    /// Bounds what waits to be written.
    pub budget: Arc<Budget>,
    /// Bounds large contents at once.
    pub large: Arc<Semaphore>,
    /// Asks for small contents, many at once.
    pub bundler: Bundler,
    /// Bounds what is done at once for small contents.
    pub small: Arc<Turns>,
    /// Whoever had the last small content.
    pub recent: Arc<Recent>,
    /// Gives small contents their names.
    pub placer: Placer,
    /// What of it others may have already.
    pub live: Arc<Live>,
    /// What is moving.
    pub moving: Arc<AllMoving>,
    /// Whether a download without space waits for some (in a running peer) or ends (in a single command).
    pub patient: bool,
    /// Told of files that have come.
    pub completions: Completions,
    /// Durations and bounds.
    pub config: Arc<Config>,
}

/// Space that downloads leave free on a disk of `total` bytes.
pub fn reserve(total: u64) -> u64 {
    MIN_RESERVE.max(total / 100)
}

/// How many large contents may be fetched at once.
pub fn large_slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_LARGE))
}

/// What a content was made of when it was complete.
#[derive(Debug)]
pub struct Outcome {
    /// Its length in bytes.
    pub len: u64,
    /// Who gave how much.
    pub from: Vec<Contribution>,
    /// Its state, if it has been given what [`Item::dress`] says together with its name.
    pub dressed: Option<FileIdentity>,
}

impl Downloads {
    /// Does what a `download` asks for, telling each step.
    ///
    /// # Errors
    /// If anything could not be fetched.
    pub async fn run(&self, request: &Download, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        self.wait_for_scan().await;
        if let Some(origin) = &request.origin {
            return self.run_with_origin(request, origin, events).await;
        }
        let Plan { items, unresolved, .. } = self.plan(request).await?;
        if let Some(message) = self.directory.notice() {
            tell(events, Event::Notice { message }).await;
        }
        let only_one = items.len() + unresolved.len() == 1;
        let (n_files, n_bytes) = (items.len() as u64, items.iter().fold(0u64, |n, item| n.saturating_add(item.len)));
        let mut failures = Vec::new();
        for unresolved in unresolved {
            let (name, candidates) = (unresolved.name, unresolved.candidates);
            if !candidates.is_empty() {
                tell(events, Event::Ambiguous { name: name.clone(), candidates }).await;
            }
            if !only_one {
                tell(events, Event::Unfinished { name, why: unresolved.why.clone() }).await;
            }
            failures.push(unresolved.why);
        }
        if n_files > 0 {
            tell(events, Event::Planned { n_files, n_bytes }).await;
        }
        let n_all = items.len() + failures.len();
        let fetching = futures::stream::iter(items).map(|item| self.one_of_many(item, &request.from, events, only_one));
        let mut fetching = std::pin::pin!(fetching.buffer_unordered(self.config.max_files));
        while let Some(ended) = fetching.next().await {
            failures.extend(ended.err());
        }
        match failures.into_iter().next() {
            None => Ok(()),
            Some(failed) if only_one => Err(failed),
            Some(first) => Err(Failed::new(
                first.kind,
                format!("not all of {n_all} could be fetched; first: {}", first.message),
                first.hint,
            )),
        }
    }

    /// Fetches one content to its target, unless it is there; nobody is told how it goes but `status`. Its state, if it has
    /// also been given what [`Item::dress`] says.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub(crate) async fn bring(&self, item: Item) -> Result<Option<FileIdentity>, Failed> {
        let listed = self.moving.enter(item.name.clone(), Some(item.content_id), item.len);
        self.fetch(&item, &From::All, &listed.moving).await.map(|outcome| outcome.dressed)
    }

    pub(super) async fn one_of_many(
        &self,
        item: Item,
        from: &From,
        events: &mpsc::Sender<Event>,
        only_one: bool,
    ) -> Result<(), Failed> {
        let started = Instant::now();
        let listed = self.moving.enter(item.name.clone(), Some(item.content_id), item.len);
        let outcome = Self::watched(&listed.moving, events, self.fetch(&item, from, &listed.moving)).await;
        drop(listed);
        let outcome = outcome.map(|outcome| (item.content_id, outcome));
        self.conclude(item.name, &item.target, started, outcome, events, only_one).await
    }

    /// Does it, telling how far it is.
    pub(super) async fn watched<T>(moving: &Moving, events: &mpsc::Sender<Event>, work: impl Future<Output = T>) -> T {
        let telling = async {
            let mut ticks = tokio::time::interval(TELL_EVERY);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                tell(events, Event::Progress(moving.sample(Instant::now()))).await;
            }
        };
        tokio::select! {
            done = work => done,
            () = telling => unreachable!("telling goes on for ever"),
        }
    }

    /// Tells what became of one content.
    pub(super) async fn conclude(
        &self,
        name: String,
        target: &Target,
        started: Instant,
        outcome: Result<(ContentId, Outcome), Failed>,
        events: &mpsc::Sender<Event>,
        only_one: bool,
    ) -> Result<(), Failed> {
        match outcome {
            Ok((content_id, Outcome { len, from, .. })) => {
                let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let shares: Vec<_> = from.iter().map(|share| format!("{}={}", share.name, share.n_bytes)).collect();
                let from_whom = shares.join(" ");
                tracing::info!(name, %content_id, len, elapsed_ms, from = from_whom, "downloaded");
                let path = path_of(&self.folder, target);
                self.completions.note(path.clone(), content_id, len);
                tell(events, Event::Finished(Finished { name, content_id, len, path, from, elapsed_ms })).await;
                Ok(())
            }
            Err(mut why) => {
                why.message = format!("{name}: {}", why.message);
                tracing::warn!(reason = why.message, "not downloaded");
                if !only_one {
                    tell(events, Event::Unfinished { name, why: why.clone() }).await;
                }
                Err(why)
            }
        }
    }

    /// Fetches one content to its target, unless it is there.
    async fn fetch(&self, item: &Item, from: &From, moving: &Moving) -> Result<Outcome, Failed> {
        let is_small = Geometry::new(item.len).is_ok_and(|geometry| geometry.n_chunks() == 1);
        if is_small && let Some(outcome) = self.fetch_small(item, from).await? {
            return Ok(outcome);
        }
        let lock = self.moving.lock_of(item.content_id);
        let only_here: OnlyHere = Arc::new(lock.lock_owned().await);
        if self.is_there(item.content_id, item.len, &item.target).await? {
            return Ok(Outcome { len: item.len, from: Vec::new(), dressed: None });
        }
        if let Some((path, file)) = self.library.find(item.content_id).into_iter().next() {
            let copied = self.copy(&path, file, &item.target, only_here.clone()).await;
            match copied {
                Ok(outcome) => return Ok(outcome),
                Err(failed) => tracing::debug!(%failed, "a copy of our own is of no use"),
            }
        }
        let sources = self.sources_of(item, from).await?;
        Geometry::new(item.len)
            .map_err(|error| Failed::new(FailureKind::Failed, error.to_string(), "Split it into smaller files."))?;
        let _slot = self.large.acquire().await;
        let mut last = explain(&AskError::NotFound, "it");
        for sources in attempts(sources, from) {
            match self.fetch_large(item, from, sources, moving, &only_here).await {
                Err(failed) if matches!(failed.kind, FailureKind::Unreachable | FailureKind::Unverified) => {
                    last = failed;
                }
                outcome => return outcome,
            }
        }
        Err(last)
    }

    /// Whether the target is this content already.
    pub(super) async fn is_there(&self, id: ContentId, len: u64, goal: &Target) -> Result<bool, Failed> {
        if !is_taken(&self.folder, goal) {
            return Ok(false);
        }
        let (folder, target, library) = (self.folder.clone(), goal.clone(), self.library.clone());
        let same = tokio::task::spawn_blocking(move || {
            let (file, identity) = match &target {
                Target::Share(path) => {
                    let (file, identity) = folder.open_file(path).ok()?;
                    if library.get(path) == Some(SharedFile { content_id: id, identity }) {
                        return Some(());
                    }
                    (file, identity)
                }
                Target::Elsewhere(path) => {
                    let file = std::fs::File::open(path).ok()?;
                    let identity = FileIdentity::of(&file).ok()?;
                    (file, identity)
                }
            };
            let same = identity.len == len && hash_file(&file, identity, 2).ok()?.content_id() == id;
            same.then_some(())
        });
        match same.await {
            Ok(Some(())) => Ok(true),
            _ => Err(taken(&self.folder, goal)),
        }
    }

    /// Copies a content that we share under another name; its bytes are verified like anybody else's.
    async fn copy(
        &self,
        path: &potluck_common::SharePath,
        file: SharedFile,
        target: &Target,
        only_here: OnlyHere,
    ) -> Result<Outcome, Failed> {
        let (folder, partials, path, goal) = (self.folder.clone(), self.partials.clone(), path.clone(), target.clone());
        let copied = tokio::task::spawn_blocking(move || {
            let _until_done = only_here;
            let mut source = folder.open_unchanged(&path, file.identity)?;
            let name = format!("{}.copy", file.content_id);
            let mut options = cap_std::fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true);
            let mut copy = partials.dir().open_with(&name, &options)?.into_std();
            let placed = (|| {
                std::io::copy(&mut source, &mut copy)?;
                copy.sync_all()?;
                let map = hash_file(&copy, FileIdentity::of(&copy)?, 2).map_err(std::io::Error::other)?;
                if map.content_id() != file.content_id {
                    return Err(PlaceError::Io(std::io::Error::other("our own copy is not what it was")));
                }
                place(&folder, partials.dir(), &name, &copy, &goal)?;
                Ok((map, FileIdentity::of(&copy)?))
            })();
            if placed.is_err() {
                let _also_gone = partials.dir().remove_file(&name);
            }
            placed
        });
        match copied.await.map_err(|error| PlaceError::Io(std::io::Error::other(error))).flatten() {
            Ok((map, identity)) => {
                self.on_placed(map, identity, target);
                Ok(Outcome { len: file.identity.len, from: Vec::new(), dressed: None })
            }
            Err(PlaceError::Taken) => Err(taken(&self.folder, target)),
            Err(PlaceError::Io(error)) => Err(disk_failed(&path_of(&self.folder, target), &error)),
        }
    }

    /// A content has its final name: from now on we share it.
    pub(super) fn on_placed(&self, map: ChunkMap, identity: FileIdentity, target: &Target) {
        if let Target::Share(path) = target {
            let content_id = map.content_id();
            self.cache.insert(identity, map);
            self.library.insert(path.clone(), SharedFile { content_id, identity });
        }
    }

    /// Refuses what does not fit before its first byte (F08).
    pub(super) fn check_space(&self, len: u64, id: ContentId) -> Result<(), Failed> {
        let held = self.partials.held(id).map_or(0, |have| {
            let geometry = Geometry::new(len).map_or(0, |geometry| geometry.chunk_len());
            u64::from(have.n_held()) * geometry
        });
        self.check_free(len.saturating_sub(held))
    }

    /// The same for so many more bytes.
    pub(super) fn check_free(&self, needed: u64) -> Result<(), Failed> {
        let Ok(disk) = rustix::fs::fstatvfs(self.partials.dir()) else { return Ok(()) };
        let (free, total) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        let reserve = reserve(total);
        // What is needed may be what a stranger said.
        if needed.saturating_add(reserve) <= free {
            return Ok(());
        }
        Err(Failed::new(
            FailureKind::NoSpace,
            format!("{needed} bytes are needed and {free} are free, of which {reserve} are left for others"),
            "Free some space, or name a share folder on another disk with --share.",
        ))
    }

    /// Waits for the first look at the share folder: before it, what we share is not known to ourselves.
    pub(crate) async fn wait_for_scan(&self) {
        let mut scanned = self.sharing.scanned.subscribe();
        let _late = tokio::time::timeout(SCAN_PATIENCE, scanned.wait_for(|scanned| *scanned)).await;
    }

    /// Goes on with what was unfinished when the peer last ended, until it is done or cannot be: contents, and files of origins.
    pub async fn resume(&self, records: Vec<Record>, unheld: Vec<Download>) {
        self.wait_for_scan().await;
        let contents = records.into_iter().map(|record| async move {
            let name = match &record.target {
                Target::Share(path) => path.to_string(),
                Target::Elsewhere(path) => path.display().to_string(),
            };
            let item = Item {
                name,
                content_id: record.content_id,
                len: record.len,
                target: record.target,
                owners: None,
                dress: None,
                origin: None,
                goes_on: GoesOn::ByItself,
            };
            tracing::info!(name = item.name, "going on with an unfinished download");
            let item = &item;
            Self::keep_trying(|events| async move { self.one_of_many(item.clone(), &From::All, &events, true).await })
                .await;
        });
        let origins = unheld.into_iter().map(|request| async move {
            let origin = request.origin.as_ref().map(ToString::to_string);
            tracing::info!(origin, "going on with an unfinished download");
            let request = &request;
            Self::keep_trying(|events| async move { self.run(request, &events).await }).await;
        });
        tokio::join!(futures::future::join_all(contents), futures::future::join_all(origins));
    }

    /// Tries until nothing is unreachable, telling nobody how it goes.
    async fn keep_trying<F: Future<Output = Result<(), Failed>>>(work: impl Fn(mpsc::Sender<Event>) -> F) {
        let (events, mut ignored) = mpsc::channel(1);
        let draining = async { while ignored.recv().await.is_some() {} };
        let trying = async {
            while let Err(failed) = work(events.clone()).await
                && matches!(failed.kind, FailureKind::Unreachable | FailureKind::NotFound)
            {
                tokio::time::sleep(RESUME_EVERY).await;
            }
        };
        tokio::select! { () = trying => {}, () = draining => {} }
    }
}

/// Tells an event; that nobody listens any more is found out by whoever runs the verb.
pub async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    let _nobody_listens = events.send(event).await;
}

/// Opens the folder of unfinished contents.
///
/// # Errors
/// As `open`.
pub fn open_partials(state: &cap_std::fs::Dir, share: &Path) -> Result<PartialStore, Failed> {
    let dir = state.open_dir(crate::share::state::PARTIAL_DIR);
    dir.map(PartialStore::new).map_err(|error| disk_failed(share, &error))
}
