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
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use potluck_common::protocol::ContentInfo;
use potluck_common::{ChunkIndex, ContentId, HaveSet, PeerId};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::task::AbortOnDropHandle;

use recording::{Recording, finished_recording};

use super::batch::Small;
use super::claim::{Proven, Unproven, prove};
use super::fetch::{Fact, Fetch, Giver, reason};
use super::job::{Downloads, Outcome};
use super::live::{LiveContent, News};
use super::moving::{Moving, OnlyHere};
use super::neighbours::{Heard, Neighbours};
use super::owners::{Sources, explain};
use super::partial::{PartialFile, Target};
use super::place::{PlaceError, disk_failed, is_no_space, path_of, place, taken};
use super::plan::Item;
use crate::scheduler::{Failure, Holds, HopelessCause, RequestId, Scheduler, Verdict};
use crate::share::folder::FileIdentity;
use crate::verb::{Contribution, Failed, FailureKind, From};
use crate::wire::origin_client::Origin;
use crate::wire::tracker_client::AskError;

/// Facts that may wait for the driver: a few for each request.
const MAX_FACTS: usize = 256;
/// Under a limit, so many bytes a second at least for each request: the client reads up to 400 KiB at once, and an owner
/// closes a connection that takes nothing for 30 s.
const LEAST_REQUEST_RATE: NonZeroU64 = NonZeroU64::new(64 << 10).expect("it is not zero");
/// How often the tracker is asked who is there while a swarm may be gathering…
const GATHERING_REFRESH: Duration = Duration::from_millis(250);
/// …which is so long after the start, as long as there is room for more neighbours: leechers that start together become
/// owners one after another, and whoever hears of them late leaves their uplinks idle.
const GATHERING: Duration = Duration::from_secs(5);
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
    /// One more that holds all of it, and is no peer.
    origin: Option<Arc<Origin>>,
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
    /// What requests of this download begin their names with.
    tag: u32,
    /// Whom each request went to, also once it is over: its last chunk may come after its end.
    asked: BTreeMap<RequestId, PeerId>,
}

impl Downloads {
    /// Fetches a content of several chunks from its owners and gives it its name.
    pub(super) async fn fetch_large(
        &self,
        item: &Item,
        from: &From,
        sources: Sources,
        moving: &Moving,
        only_here: &OnlyHere,
    ) -> Result<Outcome, Failed> {
        let (id, target) = (item.content_id, &item.target);
        let proven = prove(&self.peers, id, &sources).await;
        let (map, proof, liars) = match proven.map_err(|unproven| explain_unproven(&unproven))? {
            (Proven::Several(map, proof), liars) => (map, proof, liars),
            // The tracker named another length than the owners.
            (Proven::One(bytes, giver), _) => {
                let small = Small { content_id: id, bytes: bytes.into(), target: target.clone(), dress: None };
                return self.keep_small(small, Some(giver)).await;
            }
        };
        let geometry = map.geometry();
        self.check_space(geometry.len(), id)?;
        let (partials, until_done) = (self.partials.clone(), only_here.clone());
        let (goal, goes_on) = (target.clone(), item.goes_on);
        let opened = tokio::task::spawn_blocking(move || partials.open(map, goal, goes_on, until_done)).await;
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
            origin: item.origin.clone(),
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
            tag: fastrand::u32(..),
            asked: BTreeMap::new(),
        };
        if let Some(origin) = &driver.origin {
            driver.scheduler.on_owner(origin.url.peer_id(), Holds::All, now);
        }
        driver.on_sources(sources);
        driver.announce(now);
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
        let begun = Instant::now();
        let mut next_refresh = begun + self.refresh_pause(begun);
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
                Some(heard) = news.recv() => {
                    let mut heard = Some(heard);
                    while let Some(next) = heard {
                        self.on_heard(next);
                        heard = news.try_recv().ok();
                    }
                }
                () = tokio::time::sleep_until(next_refresh.into()), if owners.is_none() => {
                    let downloads = self.downloads.clone();
                    let asking = tokio::spawn(async move { downloads.content_info(content_id).await });
                    owners = Some(AbortOnDropHandle::new(asking));
                }
                Some(answer) = finished(&mut owners) => {
                    owners = None;
                    next_refresh = Instant::now() + self.refresh_pause(begun);
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
        // Whoever still writes must not wait to be heard.
        inbox.close();
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

    /// How long until the tracker is asked again who is there.
    fn refresh_pause(&self, begun: Instant) -> Duration {
        let usual = self.downloads.config.owners_refresh;
        let is_gathering = begun.elapsed() < GATHERING && self.neighbours.has_room();
        if is_gathering { usual.min(GATHERING_REFRESH) } else { usual }
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
        // Under a limit as few requests as get on at a rate that their owners can live with.
        let n_at_once = self.downloads.limit.n_at_once(LEAST_REQUEST_RATE);
        while self.running.len() < n_at_once {
            let Some(request) = self.scheduler.next_request(now) else { break };
            let Some(giver) = self.giver_of(request.owner) else {
                self.scheduler.on_failed(request.id, Failure::Unreachable, now);
                continue;
            };
            let fetch = Fetch {
                request: request.id,
                request_id: self.request_id(request.id),
                run: request.run,
                is_fresh: request.is_fresh,
                giver,
                partial: self.partial.clone(),
                budget: self.downloads.budget.clone(),
                traffic: self.downloads.traffic.clone(),
                limit: self.downloads.limit.clone(),
                facts: self.facts.clone(),
            };
            let (owner, run) = (self.name_of(request.owner), fetch.run);
            tracing::debug!(
                request_id = fetch.request_id,
                owner,
                first = run.first().get(),
                n_chunks = run.n_chunks(),
                "asking"
            );
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

    fn request_id(&self, request: RequestId) -> String {
        format!("{:08x}-{}", self.tag, request.get())
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
            Fact::HeldBack(request) => self.scheduler.on_held_back(request, now),
            Fact::Chunk(request, chunk) => {
                let len = self.partial.map().geometry().len_of(chunk);
                if self.have.insert(chunk) {
                    self.downloads.traffic.n_verified.fetch_add(1, Ordering::Relaxed);
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
            Fact::Coming(chunks) => {
                let geometry = self.partial.map().geometry();
                for chunk in chunks.into_iter().filter_map(|chunk| geometry.index(chunk)) {
                    self.scheduler.on_coming(chunk);
                }
            }
            Fact::Ended(request) => {
                self.running.remove(&request);
                self.scheduler.on_end(request, now);
            }
            Fact::Failed(request, failure) => {
                self.downloads.traffic.on_failed(reason(failure));
                let owner = self.asked.get(&request).map(|owner| self.name_of(*owner));
                let request_id = self.request_id(request);
                tracing::debug!(owner, ?failure, request_id, "a request failed");
                if let (Failure::Corrupt { chunk }, Some(running)) = (failure, self.running.get(&request)) {
                    let owner = self.name_of(running.owner);
                    tracing::warn!(
                        owner,
                        request_id,
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
                let path = path.to_string_lossy();
                tracing::warn!(path = path.as_ref(), "no space; the download waits for some");
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
                Ok(Outcome { len, from: from.collect(), dressed: None })
            }
            Err(PlaceError::Taken) => Err(taken(&self.downloads.folder, self.target)),
            Err(PlaceError::Io(error)) => Err(disk_failed(&path_of(&self.downloads.folder, self.target), &error)),
        }
    }

    /// Whom to ask, if it may be asked.
    fn giver_of(&self, owner: PeerId) -> Option<Giver> {
        if let Some(source) = self.sources.get(&owner) {
            let (base, peers) = (source.base.clone(), self.downloads.peers.clone());
            return Some(Giver::Peer { owner: Arc::new(source.owner.clone()), base, peers });
        }
        self.origin.clone().filter(|origin| origin.url.peer_id() == owner).map(Giver::Origin)
    }

    fn name_of(&self, owner: PeerId) -> String {
        match (self.sources.get(&owner), &self.origin) {
            (Some(source), _) => source.owner.name.clone(),
            (None, Some(origin)) if origin.url.peer_id() == owner => origin.url.host(),
            (None, _) => owner.to_string(),
        }
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
