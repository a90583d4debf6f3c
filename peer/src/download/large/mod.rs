//! The driver: one task owns the scheduler of one content, waits for one fact at a time, and hands the scheduler's answers
//! to tasks that fetch.
//!
//! Its owners and neighbours come in through `listening`, what is written goes to disk through `recording`.
//!
//! Invariant: the scheduler decides, this acts. Nothing here chooses an owner or a chunk.

mod listening;
mod recording;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use potluck_common::protocol::ContentInfo;
use potluck_common::{ChunkIndex, ContentId, HaveSet, PeerId};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::task::AbortOnDropHandle;

use recording::{Recording, finished_recording};

use super::claim::{Proven, Unproven, prove};
use super::fetch::{Fact, Fetch};
use super::job::{Downloads, Outcome};
use super::live::{LiveContent, News};
use super::moving::{Moving, OnlyHere};
use super::neighbours::{Heard, Neighbours};
use super::owners::{Sources, explain};
use super::partial::{PartialFile, Target};
use super::place::{PlaceError, disk_failed, is_no_space, path_of, place, taken};
use crate::scheduler::{Failure, HopelessCause, RequestId, Scheduler, Verdict};
use crate::share::folder::FileIdentity;
use crate::verb::{Contribution, Failed, FailureKind, From};
use crate::wire::tracker_client::AskError;

/// Facts that may wait for the driver: a few for each request.
const MAX_FACTS: usize = 256;
/// First pause before the tracker is asked again who is there; doubles up to the configured interval.
const FIRST_REFRESH: Duration = Duration::from_millis(100);
/// How often a paused download looks whether there is space again.
const SPACE_RETRY: Duration = Duration::from_secs(5);

/// A request under way.
struct Running {
    owner: PeerId,
    task: AbortHandle,
}

struct Driver<'a> {
    downloads: &'a Downloads,
    target: &'a Target,
    from: &'a From,
    moving: &'a Moving,
    partial: Arc<PartialFile>,
    scheduler: Scheduler,
    sources: Sources,
    /// Owners that contradicted themselves: never asked.
    liars: Vec<PeerId>,
    neighbours: Neighbours,
    running: BTreeMap<RequestId, Running>,
    tasks: JoinSet<()>,
    facts: mpsc::Sender<Fact>,
    /// Written and verified, recorded or not.
    have: HaveSet,
    /// Written since the last record was begun; `recording` holds those that wait for its sync.
    unrecorded: Vec<ChunkIndex>,
    n_unrecorded_bytes: u64,
    recorded_at: Instant,
    recording: Option<Recording>,
    /// When the tracker was last told how many chunks we hold.
    announced: Option<Instant>,
    /// When there was first no usable owner, counted from the last chunk that came.
    hopeless_since: Option<Instant>,
    is_hopeless: bool,
    /// The last chunk that somebody sent wrong.
    spoiled: Option<ChunkIndex>,
    no_space_until: Option<Instant>,
    n_bytes_from: BTreeMap<PeerId, u64>,
    /// Whom each request went to, also once it is over: its last chunk may come after its end.
    asked: BTreeMap<RequestId, PeerId>,
}

impl Downloads {
    /// Fetches a content of several chunks from its owners and gives it its name.
    pub(super) async fn fetch_large(
        &self,
        id: ContentId,
        from: &From,
        sources: Sources,
        target: &Target,
        moving: &Moving,
        only_here: &OnlyHere,
    ) -> Result<Outcome, Failed> {
        let proven = prove(&self.peers, id, &sources).await;
        let (map, proof, liars) = match proven.map_err(|unproven| explain_unproven(&unproven))? {
            (Proven::Several(map, proof), liars) => (map, proof, liars),
            // The tracker named another length than the owners.
            (Proven::One(bytes, giver), _) => return self.keep_small(id, bytes, giver, target, only_here).await,
        };
        let geometry = map.geometry();
        self.check_space(geometry.len(), id)?;
        let (partials, goal, until_done) = (self.partials.clone(), target.clone(), only_here.clone());
        let opened = tokio::task::spawn_blocking(move || partials.open(map, &goal, until_done)).await;
        let opened = opened.map_err(io::Error::other).flatten();
        let (partial, have) = opened.map_err(|error| disk_failed(&path_of(&self.folder, target), &error))?;
        if have.n_held() > 0 {
            tracing::info!(content_id = %id, n_held = have.n_held(), n_chunks = have.n_chunks(), "going on with an unfinished download");
        }
        let partial = Arc::new(partial);
        self.live.enter(Arc::new(LiveContent::new(partial.clone(), proof, have.clone())));
        let _left = Left { downloads: self, id, len: geometry.len() };
        let (facts, inbox) = mpsc::channel(MAX_FACTS);
        let (heard, news) = mpsc::channel(MAX_FACTS);
        let now = Instant::now();
        let mut driver = Driver {
            downloads: self,
            target,
            from,
            moving,
            scheduler: Scheduler::new(geometry, have.clone(), self.config.scheduler.clone(), fastrand::u64(..)),
            partial,
            sources: Sources::new(),
            liars,
            neighbours: Neighbours::new(self.peers.clone(), id, heard),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            facts,
            have,
            unrecorded: Vec::new(),
            n_unrecorded_bytes: 0,
            recorded_at: now,
            recording: None,
            announced: None,
            hopeless_since: None,
            is_hopeless: false,
            spoiled: None,
            no_space_until: None,
            n_bytes_from: BTreeMap::new(),
            asked: BTreeMap::new(),
        };
        driver.on_sources(sources);
        driver.run(inbox, news).await
    }
}

/// Tells everybody that the content is no longer being fetched, however that ended.
struct Left<'a> {
    downloads: &'a Downloads,
    id: ContentId,
    len: u64,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.downloads.live.leave(self.id);
        self.downloads.library.set_partial(self.id, self.len, 0);
        if self.downloads.library.holds(self.id) {
            self.downloads.live.tell(self.id, News::Complete);
        }
    }
}

impl Driver<'_> {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Fact>,
        mut news: mpsc::Receiver<Heard>,
    ) -> Result<Outcome, Failed> {
        let content_id = self.partial.map().content_id();
        // Those who start together find each other within moments; later once in a while will do.
        let mut refresh_pause = FIRST_REFRESH;
        let mut next_refresh = Instant::now() + refresh_pause;
        let mut owners: Option<AbortOnDropHandle<Result<ContentInfo, AskError>>> = None;
        let mut failed = None;
        while !self.scheduler.is_complete() && failed.is_none() {
            let now = Instant::now();
            self.scheduler.on_tick(now);
            self.act(now);
            self.show();
            failed = self.give_up(now);
            let deadline = self.next_deadline(now);
            tokio::select! {
                Some(fact) = inbox.recv() => {
                    let mut fact = Some(fact);
                    while let Some(next) = fact {
                        failed = failed.or(self.on_fact(next).err());
                        fact = inbox.try_recv().ok();
                    }
                }
                Some(heard) = news.recv() => self.on_heard(heard),
                () = tokio::time::sleep_until(next_refresh.into()), if owners.is_none() => {
                    let downloads = self.downloads.clone();
                    let asking = tokio::spawn(async move { downloads.content_info(content_id).await });
                    owners = Some(AbortOnDropHandle::new(asking));
                }
                Some(answer) = finished(&mut owners) => {
                    owners = None;
                    next_refresh = Instant::now() + refresh_pause;
                    refresh_pause = (refresh_pause * 2).min(self.downloads.config.owners_refresh);
                    if let Ok(info) = answer {
                        self.on_owners(&info);
                    }
                }
                Some(recorded) = finished_recording(&mut self.recording) => self.on_recorded(recorded),
                () = tokio::time::sleep_until(deadline.into()) => {}
                Some(_) = self.tasks.join_next() => {}
            }
        }
        self.show();
        self.tasks.shutdown().await;
        drop(owners);
        match failed {
            Some(failed) => {
                self.record_now().await;
                Err(failed)
            }
            None => self.finish().await,
        }
    }

    /// Starts what the scheduler asks for, ends what it no longer wants, records what is due.
    fn act(&mut self, now: Instant) {
        while let Some(request) = self.scheduler.next_cancel() {
            self.end(request);
        }
        if self.no_space_until.is_some_and(|until| now < until) {
            return;
        }
        self.no_space_until = None;
        while let Some(request) = self.scheduler.next_request(now) {
            let Some(source) = self.sources.get(&request.owner) else {
                self.scheduler.on_failed(request.id, Failure::Unreachable, now);
                continue;
            };
            let fetch = Fetch {
                request: request.id,
                run: request.run,
                base: source.base.clone(),
                peers: self.downloads.peers.clone(),
                partial: self.partial.clone(),
                budget: self.downloads.budget.clone(),
                traffic: self.downloads.traffic.clone(),
                facts: self.facts.clone(),
            };
            let task = self.tasks.spawn(fetch.run());
            self.running.insert(request.id, Running { owner: request.owner, task });
            self.asked.insert(request.id, request.owner);
        }
        let due = self.n_unrecorded_bytes >= self.downloads.config.record_bytes
            || (!self.unrecorded.is_empty() && now >= self.recorded_at + self.downloads.config.record_interval);
        if due && self.recording.is_none() {
            self.record(now);
        }
    }

    fn end(&mut self, request: RequestId) {
        if let Some(running) = self.running.remove(&request) {
            running.task.abort();
        }
    }

    fn on_fact(&mut self, fact: Fact) -> Result<(), Failed> {
        let now = Instant::now();
        match fact {
            Fact::Bytes(request, n_bytes) => self.scheduler.on_bytes(request, n_bytes, now),
            Fact::Chunk(request, chunk) => {
                let len = self.partial.map().geometry().len_of(chunk);
                if self.have.insert(chunk) {
                    self.hopeless_since = None;
                    self.downloads.live.on_gained(self.partial.map().content_id(), chunk);
                    self.announce(now);
                    self.unrecorded.push(chunk);
                    self.n_unrecorded_bytes += len;
                    if let Some(owner) = self.asked.get(&request) {
                        *self.n_bytes_from.entry(*owner).or_default() += len;
                    }
                }
                if self.scheduler.on_chunk(request, chunk, now) == Verdict::Stop {
                    self.end(request);
                }
            }
            Fact::Ended(request) => {
                self.running.remove(&request);
                self.scheduler.on_end(request, now);
            }
            Fact::Failed(request, failure) => {
                let owner = self.asked.get(&request).map(|owner| self.name_of(*owner));
                tracing::debug!(?owner, ?failure, "a request failed");
                if let (Failure::Corrupt { chunk }, Some(running)) = (failure, self.running.get(&request)) {
                    let owner = self.name_of(running.owner);
                    tracing::warn!(
                        ?owner,
                        chunk = chunk.get(),
                        "an owner sent a bad chunk and is dropped for this content"
                    );
                }
                if let Failure::Corrupt { chunk } = failure {
                    self.spoiled = Some(chunk);
                }
                self.running.remove(&request);
                self.scheduler.on_failed(request, failure, now);
            }
            Fact::Disk(request, error) => {
                self.running.remove(&request);
                self.scheduler.on_failed(request, Failure::Short, now);
                let path = path_of(&self.downloads.folder, self.target);
                if !is_no_space(&error) || !self.downloads.patient {
                    return Err(disk_failed(&path, &error));
                }
                tracing::warn!(?path, "no space; the download waits for some");
                self.no_space_until = Some(now + SPACE_RETRY);
            }
        }
        Ok(())
    }

    /// Whether to give up: every owner lied, or there has been none for too long. An owner that gets another chance and
    /// brings nothing does not start the time anew, or one that is listed and silent would be waited for without end.
    fn give_up(&mut self, now: Instant) -> Option<Failed> {
        let hopeless = self.scheduler.hopeless();
        self.is_hopeless = hopeless.is_some();
        let hopeless = hopeless?;
        let since = *self.hopeless_since.get_or_insert(now);
        if hopeless.cause == HopelessCause::Corrupt && self.running.is_empty() {
            // With all owners dropped no chunk has a source; the one to be named is the one that was bad.
            return Some(unverified(self.spoiled.unwrap_or(hopeless.chunk)));
        }
        if now < since + self.downloads.config.owners_patience {
            return None;
        }
        Some(Failed::new(
            FailureKind::Unreachable,
            format!("nobody who has chunk {} of it answers", hopeless.chunk.get()),
            "What is there is kept: run the same command again when an owner is back.",
        ))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let due = (!self.unrecorded.is_empty() && self.recording.is_none())
            .then(|| self.recorded_at + self.downloads.config.record_interval);
        let patience = self.hopeless_since.map(|since| since + self.downloads.config.owners_patience);
        let candidates = [self.scheduler.next_deadline(), due, patience.filter(|at| *at > now), self.no_space_until];
        candidates.into_iter().flatten().min().unwrap_or(now + Duration::from_secs(1))
    }

    /// Shows how far it is.
    fn show(&self) {
        let owners: std::collections::BTreeSet<_> = self.running.values().map(|running| running.owner).collect();
        let waiting = if self.no_space_until.is_some() {
            Some("no space")
        } else if self.is_hopeless {
            Some("no owner")
        } else {
            None
        };
        let geometry = self.partial.map().geometry();
        let last = geometry.chunk_len() - geometry.len_of(geometry.last());
        let n_bytes = u64::from(self.have.n_held()) * geometry.chunk_len();
        let n_bytes = if self.have.contains(geometry.last()) { n_bytes - last } else { n_bytes };
        self.moving.on_progress(geometry.len(), n_bytes, owners.len(), waiting);
    }

    async fn finish(mut self) -> Result<Outcome, Failed> {
        if let Some((_, recording)) = self.recording.take() {
            let _superseded = recording.await;
        }
        let (folder, partials, target) =
            (self.downloads.folder.clone(), self.downloads.partials.clone(), self.target.clone());
        let partial = self.partial.clone();
        let placed = tokio::task::spawn_blocking(move || {
            let map = partial.map();
            partial.file().sync_all()?;
            if partial.file().metadata()?.len() != map.geometry().len() {
                return Err(PlaceError::Io(io::Error::other("the file does not have the length it should")));
            }
            place(&folder, partials.dir(), &map.content_id().to_string(), &partial.file(), &target)?;
            partials.forget(map.content_id())?;
            Ok(FileIdentity::of(partial.file())?)
        });
        match placed.await.map_err(|error| PlaceError::Io(io::Error::other(error))).flatten() {
            Ok(identity) => {
                let len = self.partial.map().geometry().len();
                self.downloads.on_placed(self.partial.map().clone(), identity, self.target);
                let from = self
                    .n_bytes_from
                    .iter()
                    .map(|(owner, n_bytes)| Contribution { name: self.name_of(*owner), n_bytes: *n_bytes });
                Ok(Outcome { len, from: from.collect() })
            }
            Err(PlaceError::Taken) => Err(taken(&self.downloads.folder, self.target)),
            Err(PlaceError::Io(error)) => Err(disk_failed(&path_of(&self.downloads.folder, self.target), &error)),
        }
    }

    fn name_of(&self, owner: PeerId) -> String {
        self.sources.get(&owner).map_or_else(|| owner.to_string(), |source| source.owner.name.clone())
    }
}

/// Waits for a task, if there is one.
async fn finished<T>(task: &mut Option<AbortOnDropHandle<T>>) -> Option<T> {
    match task {
        Some(running) => {
            let ended = running.await.ok();
            *task = None;
            ended
        }
        None => None,
    }
}

fn unverified(chunk: ChunkIndex) -> Failed {
    Failed::new(
        FailureKind::Unverified,
        format!("no owner gave bytes that verify (chunk {} has no valid source)", chunk.get()),
        "What is right is kept. Try again later, or ask its owners to verify.",
    )
}

fn explain_unproven(unproven: &Unproven) -> Failed {
    match &unproven.unreachable {
        None if !unproven.liars.is_empty() => Failed::new(
            FailureKind::Unverified,
            "no owner gave a chunk map and a last chunk that verify",
            "Try again later, or ask its owners to verify.",
        ),
        None => explain(&AskError::NotFound, "it"),
        Some(why) => Failed::new(
            FailureKind::Unreachable,
            format!("no owner answers: {why}"),
            "Check that a peer which has it is running and can be reached; peers lists them.",
        ),
    }
}
