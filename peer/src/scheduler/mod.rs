//! The download scheduler: which chunks to ask of whom, next.
//!
//! A pure state machine. Facts go in (`on_*`), decisions come out (`next_*`); the clock, the seed and all
//! facts are arguments, so the same facts give the same decisions. It opens no connection, verifies no
//! byte and writes none: the download driver does, and tells it.
//!
//! Invariant: a chunk is Missing, InFlight or Held, in exactly one of them (`chunks`). InFlight means
//! that one running request owes it, or two in the endgame, when nothing is Missing any more. Remote
//! timing cannot break this: facts about requests that were cancelled or never existed change nothing,
//! except that a verified chunk is Held whoever brought it.
//!
//! Policy, in reading order: `chunks` (state and rarity of chunks), `owners` (rate, back-off and
//! trust of an owner), `picker` (whom to ask for which run), `steal` (the end of a download),
//! `deadlines` (what happens when nothing happens).

mod bits;
mod chunks;
mod config;
mod deadlines;
mod owners;
mod picker;
mod report;
mod steal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use potluck_common::PeerId;
use potluck_common::chunk::{ChunkIndex, Geometry, Run};
use potluck_common::have::HaveSet;

use bits::Bits;
use chunks::Chunks;
pub use config::SchedulerConfig;
pub use owners::Standing;
use owners::{Owner, Pause};
pub use report::{Hopeless, HopelessCause, OwnerProgress, Progress};

/// The name of a request, minted by the scheduler and never used twice.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Ord, PartialOrd, Debug)]
pub struct RequestId(u64);

impl RequestId {
    /// As a plain number, for logs.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What an owner holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// Every chunk: a complete owner.
    All,
    /// These chunks: a partial owner.
    Some(HaveSet),
}

/// One Range request to one owner, for neighbouring chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How facts about it are named.
    pub id: RequestId,
    /// Whom to ask.
    pub owner: PeerId,
    /// What to ask for.
    pub run: Run,
    /// Nobody is known to hold any of it in part or to be getting it: the owner may refuse, if it knows better
    /// ([`Failure::Coming`]).
    pub is_fresh: bool,
}

/// Whether a response is worth reading on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More chunks of it are wanted, or it has just delivered its last one.
    Continue,
    /// The rest of its run belongs to another request or is held already: close it. It is over for the
    /// scheduler; nothing needs to be said about it any more.
    Stop,
}

/// Why a request ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke: the rest of the run goes back, the owner gets a back-off, and after a
    /// few failures in a row it is given up until it is announced again.
    Unreachable,
    /// 503: it has no free slot. No blame.
    Choked {
        /// When it wants to be asked again.
        retry_after: Duration,
    },
    /// The body ended early, was too long or was not what was asked for.
    Short,
    /// 404 or 416: the chunks still owed count as absent at that owner (C06).
    NotHeld,
    /// The request was fresh, but chunks of its run have just begun to go from there to somebody else. Tell first which
    /// ([`Scheduler::on_coming`]): with that it is news and no blame, and another chunk is asked of the owner at once.
    Coming,
    /// No byte came for too long, in the eyes of the driver.
    Stalled,
    /// A bad chunk. The caller says so only because the length is proven (trust rule 5 in the threat list);
    /// the owner is dropped for this content and all its requests are cancelled.
    Corrupt {
        /// Which one.
        chunk: ChunkIndex,
    },
}

/// A request under way.
#[derive(Debug)]
struct Running {
    owner: PeerId,
    run: Run,
    /// The chunks it still has to bring, ascending. Exactly the chunks that name it as a carrier.
    owed: VecDeque<ChunkIndex>,
    /// How many chunks of its run it has brought, wanted or not.
    n_brought: u32,
    n_received: u64,
    issued: Instant,
    /// When the last byte came; at first, when it was issued.
    heard: Instant,
    window_start: Instant,
    n_window_bytes: u64,
    /// When we last did not read it because of a limit of our own.
    held_back: Option<Instant>,
}

/// The scheduler of one download. See the module's text for what it promises.
#[derive(Debug)]
pub struct Scheduler {
    geometry: Geometry,
    config: SchedulerConfig,
    rng: fastrand::Rng,
    chunks: Chunks,
    owners: BTreeMap<PeerId, Owner>,
    requests: BTreeMap<RequestId, Running>,
    cancels: VecDeque<RequestId>,
    n_minted: u64,
    /// The latest instant it was told.
    latest: Option<Instant>,
}

impl Scheduler {
    /// A download of what is not in `have`. The seed decides ties, start regions and jitter; two peers
    /// that start together should not have the same.
    pub fn new(geometry: Geometry, have: HaveSet, config: SchedulerConfig, seed: u64) -> Self {
        Self {
            geometry,
            config,
            rng: fastrand::Rng::with_seed(seed),
            chunks: Chunks::new(geometry, &have),
            owners: BTreeMap::new(),
            requests: BTreeMap::new(),
            cancels: VecDeque::new(),
            n_minted: 0,
            latest: None,
        }
    }

    /// An owner is new, or announced again; what it holds replaces what was known. One that was dropped
    /// stays dropped, one that was given up comes back only after its pause. The caller bounds how many
    /// different owners it names.
    pub fn on_owner(&mut self, owner: PeerId, holds: Holds, now: Instant) {
        self.notice(now);
        let n_chunks = self.geometry.n_chunks();
        let claim = match holds {
            Holds::All => None,
            Holds::Some(have) => Some(Bits::of(&have, n_chunks)),
        };
        let known = self.owners.entry(owner).or_insert_with(|| Owner::unlisted(n_chunks, &self.config));
        if known.standing == Standing::Dropped {
            return;
        }
        let claim = known.believe(claim, n_chunks, &self.config).filter(|bits| !bits.is_full());
        set_holds(&mut self.chunks, known, claim);
        known.barren_in = None;
        match known.standing {
            Standing::GivenUp { until } if now < until => {}
            Standing::GivenUp { .. } => {
                known.second_chance(&self.config);
                set_standing(&mut self.chunks, known, Standing::Usable);
            }
            Standing::Gone | Standing::Usable | Standing::Dropped => {
                set_standing(&mut self.chunks, known, Standing::Usable);
            }
        }
    }

    /// A partial owner gained a chunk. Gains of an owner that was never named are ignored.
    pub fn on_have(&mut self, owner: PeerId, chunk: ChunkIndex) {
        let (Some(chunk), Some(known)) = (self.chunks.known(chunk), self.owners.get_mut(&owner)) else { return };
        if known.standing == Standing::Dropped || !known.believes_gain(chunk.get(), &self.config) {
            return;
        }
        let is_usable = known.is_usable();
        let Some(holds) = &mut known.holds else { return };
        if !holds.insert(chunk.get()) {
            return;
        }
        let is_full = holds.is_full();
        if is_usable {
            self.chunks.add_copy(chunk.get());
        }
        if is_full {
            set_holds(&mut self.chunks, known, None);
        }
        if self.chunks.missing().contains(chunk.get()) {
            known.barren_in = None;
        }
    }

    /// A copy of the chunk is on its way to somebody else (a seeder's stream may tell what it has begun
    /// to hand out): it counts as less rare. A hint; nobody can be asked for it yet.
    pub fn on_coming(&mut self, chunk: ChunkIndex) {
        if let Some(chunk) = self.chunks.known(chunk) {
            self.chunks.add_coming(chunk);
        }
    }

    /// The tracker no longer lists the owner: nothing new is asked of it, what runs may finish.
    pub fn on_owner_gone(&mut self, owner: PeerId) {
        if let Some(known) = self.owners.get_mut(&owner)
            && known.standing != Standing::Dropped
        {
            set_standing(&mut self.chunks, known, Standing::Gone);
        }
    }

    /// More bytes of a response arrived. Cheap enough for every read.
    pub fn on_bytes(&mut self, request: RequestId, n_bytes: u64, now: Instant) {
        let Some(running) = self.requests.get_mut(&request) else { return };
        let Some(owner) = self.owners.get_mut(&running.owner) else { return };
        if running.n_received == 0 {
            let round_trip = now.saturating_duration_since(running.issued);
            owner.round_trip = Some(owner.round_trip.map_or(round_trip, |least| least.min(round_trip)));
        }
        running.n_received += n_bytes;
        running.n_window_bytes += n_bytes;
        running.heard = now;
        owner.meter.add(n_bytes, now);
    }

    /// A limit of our own kept us from reading the response. That is not its owner's fault: it is neither silent nor slow,
    /// and nobody else would be faster.
    pub fn on_held_back(&mut self, request: RequestId, now: Instant) {
        let Some(running) = self.requests.get_mut(&request) else { return };
        (running.heard, running.window_start, running.n_window_bytes) = (now, now, 0);
        running.held_back = Some(now);
    }

    /// A chunk is verified and written: Held from now on, even if its request was cancelled meanwhile.
    pub fn on_chunk(&mut self, request: RequestId, chunk: ChunkIndex, now: Instant) -> Verdict {
        self.notice(now);
        let Some(chunk) = self.chunks.known(chunk) else { return Verdict::Stop };
        let carriers = self.chunks.hold(chunk);
        let is_news = carriers.is_some();
        for carrier in carriers.into_iter().flatten().flatten() {
            let Some(running) = self.requests.get_mut(&carrier) else { continue };
            running.owed.retain(|owed| *owed != chunk);
            if carrier != request && running.owed.is_empty() {
                self.finish(carrier, now);
                self.cancels.push_back(carrier);
            }
        }
        let Some(running) = self.requests.get_mut(&request) else { return Verdict::Stop };
        running.n_brought += 1;
        let nothing_owed = running.owed.is_empty();
        let all_brought = running.n_brought >= running.run.n_chunks();
        if let Some(owner) = self.owners.get_mut(&running.owner) {
            owner.delivered(if is_news { self.geometry.len_of(chunk) } else { 0 });
            if matches!(owner.standing, Standing::GivenUp { .. }) {
                set_standing(&mut self.chunks, owner, Standing::Usable);
            }
        }
        if nothing_owed && !all_brought {
            self.finish(request, now);
            return Verdict::Stop;
        }
        Verdict::Continue
    }

    /// A response ended as promised, after its last chunk was reported. Chunks it still owes, if any, go back.
    pub fn on_end(&mut self, request: RequestId, now: Instant) {
        self.notice(now);
        let Some(running) = self.finish(request, now) else { return };
        let Some(owner) = self.owners.get_mut(&running.owner) else { return };
        owner.meter.first_guess(running.n_received, now.saturating_duration_since(running.issued));
        if running.owed.is_empty() {
            owner.ran_well(now, &self.config);
        }
    }

    /// A request failed; see [`Failure`] for what follows from each kind.
    pub fn on_failed(&mut self, request: RequestId, failure: Failure, now: Instant) {
        self.notice(now);
        let Some(running) = self.finish(request, now) else { return };
        let Some(owner) = self.owners.get_mut(&running.owner) else { return };
        match failure {
            Failure::Unreachable | Failure::Short | Failure::Stalled => self.blame(running.owner, running.issued, now),
            Failure::Choked { retry_after } => {
                let wait = retry_after.clamp(Duration::from_millis(20), self.config.max_choke);
                owner.pause_for(Pause::Choked, owners::jittered(wait, &mut self.rng), now);
            }
            Failure::NotHeld => self.note_absent(&running, now),
            // A refusal that brings no news could go on for ever.
            Failure::Coming if running.owed.iter().all(|chunk| self.chunks.is_fresh(*chunk)) => {
                self.blame(running.owner, running.issued, now);
            }
            Failure::Coming => {}
            Failure::Corrupt { .. } => {
                set_standing(&mut self.chunks, owner, Standing::Dropped);
                self.cancel_all_of(running.owner, now);
            }
        }
    }

    /// A chunk that was Held turned out not to be on disk.
    pub fn on_lost(&mut self, chunk: ChunkIndex) {
        if let Some(chunk) = self.chunks.known(chunk) {
            self.chunks.lose(chunk);
        }
    }

    /// A request to close now; call until `None`. Nothing needs to be said about it any more.
    pub fn next_cancel(&mut self) -> Option<RequestId> {
        self.cancels.pop_front()
    }

    /// Whether every chunk is Held.
    pub fn is_complete(&self) -> bool {
        self.chunks.held().is_complete()
    }

    /// The chunks that are Held.
    pub fn held(&self) -> &HaveSet {
        self.chunks.held()
    }

    fn notice(&mut self, now: Instant) {
        self.latest = self.latest.max(Some(now));
    }

    /// Ends a request; what it still owes becomes Missing, or stays with its other carrier.
    fn finish(&mut self, request: RequestId, now: Instant) -> Option<Running> {
        let running = self.requests.remove(&request)?;
        for chunk in &running.owed {
            self.chunks.release(*chunk, request);
        }
        if let Some(owner) = self.owners.get_mut(&running.owner) {
            owner.n_requests -= 1;
            if owner.n_requests == 0 {
                owner.meter.stop(now);
            }
        }
        Some(running)
    }

    fn blame(&mut self, owner: PeerId, issued: Instant, now: Instant) {
        let Some(known) = self.owners.get_mut(&owner) else { return };
        known.fail(issued, now, &self.config, &mut self.rng);
        if known.is_usable() && known.is_beyond_hope(&self.config) {
            let until = now + self.config.give_up_pause;
            set_standing(&mut self.chunks, known, Standing::GivenUp { until });
        }
    }

    fn note_absent(&mut self, running: &Running, now: Instant) {
        let n_chunks = self.geometry.n_chunks();
        let Some(owner) = self.owners.get_mut(&running.owner) else { return };
        owner.note_absent(running.owed.iter().copied(), n_chunks);
        let mut holds = owner.holds.clone().unwrap_or_else(|| Bits::full(n_chunks));
        for chunk in &running.owed {
            holds.remove(chunk.get());
        }
        set_holds(&mut self.chunks, owner, Some(holds));
        if owner.lied_too_often(&self.config) {
            self.blame(running.owner, running.issued, now);
        }
    }

    fn cancel_all_of(&mut self, owner: PeerId, now: Instant) {
        let of_owner = |(id, running): (&RequestId, &Running)| (running.owner == owner).then_some(*id);
        let ids: Vec<RequestId> = self.requests.iter().filter_map(of_owner).collect();
        for id in ids {
            self.finish(id, now);
            self.cancels.push_back(id);
        }
    }
}

/// Changes what an owner holds, and with it how rare chunks are.
fn set_holds(chunks: &mut Chunks, owner: &mut Owner, holds: Option<Bits>) {
    if owner.holds == holds {
        return;
    }
    count_copies(chunks, owner, Chunks::remove_copy);
    owner.holds = holds;
    count_copies(chunks, owner, Chunks::add_copy);
}

/// Changes whether an owner may be asked, and with it how rare chunks are.
fn set_standing(chunks: &mut Chunks, owner: &mut Owner, standing: Standing) {
    if owner.standing == standing {
        return;
    }
    count_copies(chunks, owner, Chunks::remove_copy);
    owner.standing = standing;
    count_copies(chunks, owner, Chunks::add_copy);
}

/// Only usable partial owners count.
fn count_copies(chunks: &mut Chunks, owner: &Owner, count: fn(&mut Chunks, u32)) {
    if let (true, Some(holds)) = (owner.is_usable(), &owner.holds) {
        for chunk in holds.iter() {
            count(chunks, chunk);
        }
    }
}
