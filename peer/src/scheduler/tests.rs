//! The scheduler against a naive model under random operations, and one small test per failure and policy.

use std::collections::{BTreeMap, BTreeSet};

use potluck_common::chunk::MIN_CHUNK_LEN;

use super::*;

const CHUNK: u64 = MIN_CHUNK_LEN;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 16])
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A scheduler with a clock, and the shorthand of the table tests.
struct Table {
    geometry: Geometry,
    scheduler: Scheduler,
    now: Instant,
}

impl Table {
    fn new(n_chunks: u64) -> Self {
        Self::with(n_chunks, SchedulerConfig::default())
    }

    fn with(n_chunks: u64, config: SchedulerConfig) -> Self {
        let geometry = Geometry::new(n_chunks * CHUNK).unwrap();
        let scheduler = Scheduler::new(geometry, HaveSet::empty(geometry), config, 7);
        Self { geometry, scheduler, now: Instant::now() }
    }

    /// With complete owners 1..=n.
    fn complete(n_chunks: u64, n_owners: u8) -> Self {
        let mut table = Self::new(n_chunks);
        (1..=n_owners).for_each(|number| table.scheduler.on_owner(peer(number), Holds::All, table.now));
        table
    }

    fn chunk(&self, number: u32) -> ChunkIndex {
        self.geometry.index(number).unwrap()
    }

    fn some(&self, chunks: impl IntoIterator<Item = u32>) -> Holds {
        let mut have = HaveSet::empty(self.geometry);
        chunks.into_iter().for_each(|number| _ = have.insert(self.chunk(number)));
        Holds::Some(have)
    }

    fn requests(&mut self) -> Vec<Request> {
        let now = self.now;
        std::iter::from_fn(|| self.scheduler.next_request(now)).collect()
    }

    fn cancels(&mut self) -> Vec<RequestId> {
        std::iter::from_fn(|| self.scheduler.next_cancel()).collect()
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.scheduler.on_tick(self.now);
    }

    /// The next chunk of a response, after `time`.
    fn bring(&mut self, request: Request, chunk: ChunkIndex, time: Duration) -> Verdict {
        let n_bytes = self.geometry.len_of(chunk);
        for _ in 0..4 {
            self.now += time / 4;
            self.scheduler.on_bytes(request.id, n_bytes / 4, self.now);
        }
        self.scheduler.on_chunk(request.id, chunk, self.now)
    }

    fn bring_all(&mut self, request: Request, time_of_chunk: Duration) {
        for chunk in request.run.indices() {
            if self.bring(request, chunk, time_of_chunk) == Verdict::Stop {
                return;
            }
        }
        self.scheduler.on_end(request.id, self.now);
    }

    fn fail(&mut self, request: Request, failure: Failure) {
        self.scheduler.on_failed(request.id, failure, self.now);
    }
}

/// Everything that must hold between any two calls.
fn check_invariants(scheduler: &Scheduler, context: &str) {
    let mut carriers: BTreeMap<ChunkIndex, BTreeSet<RequestId>> = BTreeMap::new();
    let mut n_requests: BTreeMap<PeerId, u32> = BTreeMap::new();
    for (id, running) in &scheduler.requests {
        *n_requests.entry(running.owner).or_default() += 1;
        assert!(running.owed.iter().zip(running.owed.iter().skip(1)).all(|(a, b)| a < b), "{context}: owed ascends");
        for chunk in &running.owed {
            carriers.entry(*chunk).or_default().insert(*id);
        }
    }
    let (mut n_doubled, mut n_missing_bytes, mut n_held_bytes) = (0, 0, 0);
    for chunk in scheduler.geometry.indices() {
        let missing = scheduler.chunks.missing().contains(chunk.get());
        let held = scheduler.chunks.held().contains(chunk);
        let carried = scheduler.chunks.carriers(chunk);
        let n_states = u32::from(missing) + u32::from(held) + u32::from(carried.is_some());
        assert_eq!(n_states, 1, "{context}: {chunk:?} is in one state");
        let known: BTreeSet<RequestId> = carried.iter().flat_map(|c| [Some(c.first), c.second]).flatten().collect();
        assert_eq!(known, carriers.remove(&chunk).unwrap_or_default(), "{context}: carriers of {chunk:?}");
        n_doubled += usize::from(known.len() == 2);
        n_missing_bytes += u64::from(missing) * scheduler.geometry.len_of(chunk);
        n_held_bytes += u64::from(held) * scheduler.geometry.len_of(chunk);
        assert_eq!(missing, scheduler.chunks.missing_with_rank(chunk.get(), usize::MAX));
    }
    assert_eq!(n_doubled, scheduler.chunks.n_doubled(), "{context}");
    assert_eq!(n_missing_bytes, scheduler.chunks.n_missing_bytes(), "{context}");
    assert_eq!(n_held_bytes, scheduler.chunks.n_held_bytes(), "{context}");
    for (id, owner) in &scheduler.owners {
        assert_eq!(owner.n_requests, n_requests.remove(id).unwrap_or(0), "{context}: requests of {id:?}");
    }
}

/// What the naive model knows of an owner.
#[derive(Default)]
struct ModelOwner {
    holds: BTreeSet<u32>,
    dropped: bool,
    listed: bool,
}

#[test]
fn against_a_naive_model() {
    for seed in 0..2_000 {
        random_operations(seed);
    }
}

fn random_operations(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let n_chunks = rng.u32(1..30);
    let geometry = Geometry::new(u64::from(n_chunks) * CHUNK - rng.u64(..CHUNK)).unwrap();
    let config = SchedulerConfig { max_requests: rng.usize(1..12), ..Default::default() };
    let mut have = HaveSet::empty(geometry);
    geometry.indices().filter(|_| rng.u8(..10) == 0).for_each(|chunk| _ = have.insert(chunk));
    let mut held: BTreeSet<u32> = have.held(geometry).map(ChunkIndex::get).collect();
    let mut scheduler = Scheduler::new(geometry, have, config.clone(), seed);
    let mut owners: BTreeMap<PeerId, ModelOwner> = BTreeMap::new();
    // Requests ever issued, and the running ones with the next chunk that each will bring.
    let mut issued: Vec<Request> = Vec::new();
    let mut running: BTreeMap<RequestId, (Request, u32)> = BTreeMap::new();
    let mut now = Instant::now();
    for step in 0..60 {
        let context = format!("seed {seed} step {step}");
        now += ms([0, 1, 20, 300, 3_000][rng.usize(..5)]);
        let any = geometry.index(rng.u32(..n_chunks)).unwrap();
        let id = peer(rng.u8(..6));
        let pick = rng.choice(running.keys().copied().collect::<Vec<_>>());
        match rng.u32(..20) {
            0..2 => {
                let complete = rng.bool();
                let chunks: BTreeSet<u32> = (0..n_chunks).filter(|_| complete || rng.bool()).collect();
                let mut set = HaveSet::empty(geometry);
                chunks.iter().for_each(|chunk| _ = set.insert(geometry.index(*chunk).unwrap()));
                let owner = owners.entry(id).or_default();
                (owner.listed, owner.holds) = (true, chunks);
                scheduler.on_owner(id, if complete { Holds::All } else { Holds::Some(set) }, now);
            }
            2..4 => {
                if let Some(owner) = owners.get_mut(&id) {
                    owner.holds.insert(any.get());
                }
                scheduler.on_have(id, any);
            }
            4 => {
                scheduler.on_owner_gone(id);
                owners.entry(id).or_default().listed = false;
            }
            5 => scheduler.on_tick(now),
            6 => scheduler.on_coming(any),
            7 if held.remove(&any.get()) => scheduler.on_lost(any),
            8..10 => {
                if let Some(id) = pick {
                    let failure = match rng.u32(..6) {
                        0 => Failure::Unreachable,
                        1 => Failure::Choked { retry_after: ms(rng.u64(..5_000)) },
                        2 => Failure::Short,
                        3 => Failure::NotHeld,
                        4 => Failure::Stalled,
                        _ => Failure::Corrupt { chunk: any },
                    };
                    let (request, next) = running.remove(&id).unwrap();
                    let owner = owners.get_mut(&request.owner).unwrap();
                    if failure == Failure::NotHeld {
                        // At least the next chunk, unless somebody else brought it meanwhile.
                        let owed = scheduler.requests[&id].owed.clone();
                        owed.iter().for_each(|chunk| _ = owner.holds.remove(&chunk.get()));
                        assert!(owed.iter().all(|chunk| chunk.get() >= next), "{context}");
                    }
                    scheduler.on_failed(id, failure, now);
                    if matches!(failure, Failure::Corrupt { .. }) {
                        owner.dropped = true;
                    }
                }
            }
            10 => {
                // Facts about requests that are over, or never were.
                if let Some(request) = rng.choice(&issued).filter(|request| !running.contains_key(&request.id)) {
                    scheduler.on_bytes(request.id, 1_000, now);
                    scheduler.on_end(request.id, now);
                    scheduler.on_failed(request.id, Failure::Corrupt { chunk: any }, now);
                    if rng.bool() {
                        assert_eq!(scheduler.on_chunk(request.id, request.run.first(), now), Verdict::Stop);
                        held.insert(request.run.first().get());
                    }
                }
                scheduler.on_end(RequestId(u64::MAX), now);
            }
            11..16 => {
                if let Some(id) = pick {
                    let (request, next) = running[&id];
                    let chunk = geometry.index(next).unwrap();
                    scheduler.on_bytes(id, geometry.len_of(chunk), now);
                    held.insert(next);
                    let verdict = scheduler.on_chunk(id, chunk, now);
                    if verdict == Verdict::Stop {
                        running.remove(&id);
                    } else if chunk == request.run.last() {
                        scheduler.on_end(id, now);
                        running.remove(&id);
                    } else {
                        running.insert(id, (request, next + 1));
                    }
                }
            }
            _ => {
                while let Some(request) = scheduler.next_request(now) {
                    let owner = &owners[&request.owner];
                    assert!(!owner.dropped && owner.listed, "{context}: {request:?} to a dropped or gone owner");
                    for chunk in request.run.indices() {
                        assert!(owner.holds.contains(&chunk.get()), "{context}: {chunk:?} is not held there");
                        assert!(!held.contains(&chunk.get()), "{context}: {chunk:?} is held already");
                        let second = scheduler.chunks.carriers(chunk).unwrap().second;
                        assert!(
                            second.is_none() || scheduler.chunks.missing().is_empty(),
                            "{context}: twice too early"
                        );
                    }
                    issued.push(request);
                    running.insert(request.id, (request, request.run.first().get()));
                    check_invariants(&scheduler, &context);
                }
                assert!(running.len() <= config.max_requests + scheduler.cancels.len(), "{context}");
            }
        }
        while let Some(id) = scheduler.next_cancel() {
            running.remove(&id);
        }
        check_invariants(&scheduler, &context);
        assert_eq!(scheduler.held().held(geometry).map(ChunkIndex::get).collect::<BTreeSet<_>>(), held, "{context}");
        let (mine, theirs): (Vec<_>, Vec<_>) = (running.keys().collect(), scheduler.requests.keys().collect());
        assert_eq!(mine, theirs, "{context}: running requests");
        if let Some(hopeless) = scheduler.hopeless() {
            let is_usable = |id: &PeerId| scheduler.owners[id].is_usable();
            let can = |(id, owner): (&PeerId, &ModelOwner)| {
                !owner.dropped && owner.listed && is_usable(id) && scheduler.owners[id].has(hopeless.chunk.get())
            };
            assert!(!owners.iter().any(can), "{context}: {hopeless:?}");
        }
        scheduler.on_tick(now);
        while let Some(id) = scheduler.next_cancel() {
            running.remove(&id);
        }
        assert!(scheduler.next_deadline().is_none_or(|deadline| deadline > now), "{context}: would spin");
    }
}

#[test]
fn owners_start_in_different_regions() {
    let mut table = Table::complete(1_000, 4);
    let first = table.requests();
    assert_eq!(first.len(), 4, "one each until something has come: {first:?}");
    first.iter().for_each(|request| table.bring_all(*request, ms(20)));
    let requests = table.requests();
    assert!(requests.len() >= 8, "two each: {requests:?}");
    let regions: BTreeSet<u32> = requests.iter().map(|request| request.run.first().get() / 50).collect();
    assert!(regions.len() >= 4, "{requests:?}");
}

/// When all that is left is owed by somebody who is silent, it is asked again of an owner that has given something, and not
/// of one that is as silent.
#[test]
fn the_last_chunk_goes_to_who_has_shown_itself() {
    let mut table = Table::complete(3, 3);
    let requests = table.requests();
    assert_eq!(requests.len(), 3);
    let good = requests[2];
    table.bring_all(good, ms(20));
    // The two others say nothing; one of them comes back from its pause when the other is stuck.
    table.fail(requests[0], Failure::Stalled);
    let again = table.requests();
    assert!(again.iter().all(|request| request.owner == good.owner), "{again:?}");
    again.iter().for_each(|request| table.bring_all(*request, ms(20)));
    table.wait(ms(2_000));
    let doubled = table.requests();
    assert_eq!(doubled.len(), 1, "{doubled:?}");
    assert_eq!((doubled[0].owner, doubled[0].run), (good.owner, requests[1].run));
}

/// Leechers that have not heard of each other yet ask the seeder for the same chunk; it refuses the second of them.
#[test]
fn refused_fresh_run_is_news_and_no_blame() {
    let mut table = Table::complete(40, 1);
    table.scheduler.config.per_owner = 1;
    table.scheduler.config.first_run_len = CHUNK;
    let mut seen = BTreeSet::new();
    for _ in 0..39 {
        let request = table.requests()[0];
        assert!(request.is_fresh && seen.insert(request.run.first()), "asked again: {request:?}");
        table.scheduler.on_coming(request.run.first());
        table.fail(request, Failure::Coming);
    }
    // What is on its way to others is asked for in the end, and then without the question whether it is.
    let last_fresh = table.requests()[0];
    assert!(last_fresh.is_fresh && !seen.contains(&last_fresh.run.first()), "{last_fresh:?}");
    table.bring_all(last_fresh, ms(1));
    for _ in 0..39 {
        let Some(request) = table.requests().first().copied() else { break };
        assert!(!request.is_fresh, "{request:?}");
        table.bring_all(request, ms(1));
    }
    assert!(table.scheduler.is_complete());
}

#[test]
fn refusal_without_news_is_blamed() {
    let mut table = Table::complete(40, 1);
    let requests = table.requests();
    requests.into_iter().for_each(|request| table.fail(request, Failure::Coming));
    assert_eq!(table.requests(), [], "backs off");
}

#[test]
fn runs_grow_with_the_rate_and_stay_neighbours() {
    let mut table = Table::complete(4_000, 1);
    let mut longest = 0;
    let mut ends = BTreeSet::new();
    let mut n_jumps = 0;
    for _ in 0..40 {
        for request in table.requests() {
            longest = longest.max(request.run.n_chunks());
            n_jumps += u32::from(!ends.contains(&request.run.first().get()));
            ends.insert(request.run.last().get() + 1);
            table.bring_all(request, ms(1));
        }
    }
    assert_eq!(u64::from(longest), (16 << 20) / CHUNK, "256 MB/s is worth the longest run");
    assert!(n_jumps <= 3, "{n_jumps} jumps");
}

#[test]
fn choked_owner_is_asked_again_after_its_delay_without_blame() {
    let mut table = Table::complete(100, 1);
    for round in 0..20 {
        let requests = table.requests();
        assert!(!requests.is_empty(), "round {round}");
        requests.iter().for_each(|request| table.fail(*request, Failure::Choked { retry_after: ms(1_000) }));
        assert_eq!(table.requests(), []);
        table.wait(ms(900));
        assert_eq!(table.requests(), [], "too early");
        table.wait(ms(400));
    }
    assert_eq!(table.scheduler.hopeless(), None);
}

#[test]
fn unreachable_backs_off_then_is_given_up_and_comes_back_after_a_pause() {
    let mut table = Table::complete(100, 1);
    let first = table.requests()[0];
    table.bring_all(first, ms(20));
    for round in 0..3 {
        let requests = table.requests();
        assert_eq!(requests.len(), 2, "round {round}");
        // Both fail together: that is one failure.
        requests.iter().for_each(|request| table.fail(*request, Failure::Unreachable));
        assert_eq!(table.requests(), [], "backs off");
        table.wait(ms(3_000));
    }
    assert_eq!(table.requests(), []);
    assert_eq!(table.scheduler.hopeless().map(|it| it.cause), Some(HopelessCause::Unreachable));
    table.scheduler.on_owner(peer(1), Holds::All, table.now);
    assert_eq!(table.requests(), [], "announced too early");
    table.wait(ms(10_000));
    table.scheduler.on_owner(peer(1), Holds::All, table.now);
    assert_eq!(table.requests().len(), 2);
    assert_eq!(table.scheduler.hopeless(), None);
}

#[test]
fn corrupt_owner_is_dropped_for_good() {
    let mut table = Table::complete(100, 1);
    let first = table.requests()[0];
    table.bring_all(first, ms(20));
    let requests = table.requests();
    table.fail(requests[1], Failure::Corrupt { chunk: requests[1].run.first() });
    assert_eq!(table.cancels(), [requests[0].id], "its other request too");
    table.scheduler.on_owner(peer(1), Holds::All, table.now);
    table.wait(ms(60_000));
    table.scheduler.on_owner(peer(1), Holds::All, table.now);
    assert_eq!(table.requests(), []);
    assert_eq!(table.scheduler.hopeless().map(|it| it.cause), Some(HopelessCause::Corrupt));
}

/// C06: an owner that claims everything and holds nothing is not asked again and again.
#[test]
fn not_held_counts_as_absent() {
    let mut table = Table::complete(64, 1);
    let mut asked = BTreeMap::new();
    let mut n_requests = 0;
    for _ in 0..100 {
        table.scheduler.on_owner(peer(1), Holds::All, table.now);
        for request in table.requests() {
            n_requests += 1;
            request.run.indices().for_each(|chunk| *asked.entry(chunk).or_insert(0) += 1);
            table.fail(request, Failure::NotHeld);
        }
        table.wait(ms(2_000));
    }
    assert!(n_requests <= 64, "{n_requests} requests");
    assert!(asked.values().all(|n| *n <= table.scheduler.config.max_not_held + 1), "{asked:?}");
}

/// What our own limit holds back is neither silent nor slow, nor is any of it asked a second time; once it no longer is,
/// the rules hold again.
#[test]
fn nobody_is_blamed_for_our_own_limit() {
    let mut table = Table::complete(2, 2);
    let asked = table.requests();
    for _ in 0..60 {
        table.wait(ms(500));
        asked.iter().for_each(|request| table.scheduler.on_held_back(request.id, table.now));
    }
    assert_eq!(table.cancels(), []);
    let (first, other) = (asked[0], asked.iter().find(|request| request.owner != asked[0].owner).copied());
    table.bring_all(first, ms(1));
    table.scheduler.on_end(first.id, table.now);
    let other = other.expect("both owners are asked");
    table.scheduler.on_held_back(other.id, table.now);
    table.wait(ms(600));
    assert_eq!(table.requests(), [], "nobody else would be faster");
    table.wait(ms(4_000));
    assert!(table.cancels().contains(&other.id), "it is silent now");
}

/// F30: a silent owner is replaced within 5 s.
#[test]
fn silent_owner_loses_its_run() {
    let mut table = Table::complete(100, 1);
    let silent = table.requests();
    table.scheduler.on_owner(peer(2), Holds::All, table.now);
    let deadline = table.scheduler.next_deadline().unwrap();
    assert!(deadline <= table.now + ms(4_000));
    table.wait(ms(4_000));
    assert_eq!(table.cancels(), silent.iter().map(|request| request.id).collect::<Vec<_>>());
    let asked: Vec<Request> = table.requests();
    assert!(asked.iter().all(|request| request.owner == peer(2)), "{asked:?}");
    assert_eq!(asked.len(), silent.len());
}

/// C11: one that drips loses its run, if there is somebody else; alone it may go on.
#[test]
fn slow_owner_loses_its_run_only_to_somebody() {
    for n_owners in [1, 2] {
        let mut table = Table::complete(1_000, 1);
        let slow = table.requests();
        if n_owners == 2 {
            table.scheduler.on_owner(peer(2), Holds::All, table.now);
        }
        for _ in 0..11 {
            slow.iter().for_each(|request| table.scheduler.on_bytes(request.id, 1_000, table.now));
            table.wait(ms(1_000));
        }
        assert_eq!(table.cancels().len(), if n_owners == 2 { slow.len() } else { 0 });
    }
}

#[test]
fn tail_is_stolen_in_proportion_and_the_victim_told_to_stop() {
    let mut table = Table::new(65);
    table.scheduler.on_owner(peer(1), Holds::All, table.now);
    table.scheduler.config.run_time = ms(600_000);
    table.scheduler.config.per_owner = 1;
    let victim = loop {
        let request = table.requests()[0];
        if table.scheduler.chunks.missing().is_empty() || request.run.n_chunks() >= 12 {
            break request;
        }
        table.bring_all(request, ms(100));
    };
    assert!(victim.run.n_chunks() >= 8, "{victim:?}");
    let chunks: Vec<ChunkIndex> = victim.run.indices().collect();
    table.bring(victim, chunks[0], ms(100));
    // A second owner takes what is Missing, and when nothing is, a part of the victim's tail.
    table.scheduler.on_owner(peer(2), Holds::All, table.now);
    let mut stolen = None;
    while stolen.is_none() {
        let request = table.requests().into_iter().find(|request| request.owner == peer(2)).unwrap();
        if victim.run.first() < request.run.first() && request.run.last() == victim.run.last() {
            stolen = Some(request);
        } else {
            table.bring_all(request, ms(1));
        }
    }
    let stolen = stolen.unwrap();
    assert!(stolen.run.n_chunks() >= chunks.len() as u32 / 2, "a fast thief takes the larger part: {stolen:?}");
    let mut verdict = Verdict::Continue;
    for chunk in &chunks[1..chunks.len() - stolen.run.n_chunks() as usize] {
        assert_eq!(verdict, Verdict::Continue);
        verdict = table.bring(victim, *chunk, ms(100));
    }
    assert_eq!(verdict, Verdict::Stop, "it reached the stolen chunks");
    table.bring_all(stolen, ms(1));
    assert!(table.scheduler.is_complete());
}

#[test]
fn endgame_asks_the_last_chunk_twice_and_cancels_the_loser() {
    let mut table = Table::complete(1, 1);
    let slow = table.requests()[0];
    table.now += ms(10);
    table.scheduler.on_bytes(slow.id, 100, table.now);
    table.scheduler.on_owner(peer(2), Holds::All, table.now);
    assert_eq!(table.requests(), [], "no reason yet");
    table.wait(ms(600));
    let twice = table.requests();
    assert_eq!(twice.len(), 1);
    assert_eq!((twice[0].owner, twice[0].run), (peer(2), slow.run));
    table.bring_all(twice[0], ms(10));
    assert!(table.scheduler.is_complete());
    assert_eq!(table.cancels(), [slow.id]);
    assert_eq!(table.scheduler.on_chunk(slow.id, slow.run.first(), table.now), Verdict::Stop);
}

/// A lost packet at the end of a burst is sent again after 200 ms and more; what is lost again then, after 400. (The last chunk
/// of a crowd hung on that for seconds, with a few bytes now and then, while everybody else was idle.)
#[test]
fn a_last_chunk_that_stalls_is_asked_of_another() {
    let check = |n_begun: u64, round_trip, quiet, is_asked: bool| {
        let mut table = Table::complete(1, 1);
        let first = table.requests()[0];
        table.now += round_trip;
        for _ in 0..n_begun.div_ceil(10_000) {
            table.now += ms(5);
            table.scheduler.on_bytes(first.id, 10_000, table.now);
        }
        table.scheduler.on_owner(peer(2), Holds::All, table.now);
        table.wait(quiet);
        let n_asked = table.requests().len();
        assert_eq!(n_asked == 1, is_asked, "{n_begun} bytes, after {round_trip:?} nothing for {quiet:?}");
    };
    check(CHUNK - 12_144, ms(1), ms(140), false);
    check(CHUNK - 12_144, ms(1), ms(160), true);
    // Far away, a pause is nothing special.
    check(CHUNK - 12_144, ms(95), ms(390), false);
    check(CHUNK - 12_144, ms(95), ms(410), true);
    check(CHUNK - 12_144, ms(300), ms(510), true);
    // Before its first byte it may be queueing at its owner.
    check(0, ms(1), ms(490), false);
    check(0, ms(1), ms(510), true);
}

/// Also if the owner has answered quickly before.
#[test]
fn a_last_chunk_that_has_not_begun_may_be_queueing() {
    let mut table = Table::complete(2, 1);
    let first = table.requests()[0];
    table.bring_all(first, ms(5));
    let _last = table.requests()[0];
    table.scheduler.on_owner(peer(2), Holds::All, table.now);
    table.wait(ms(450));
    assert_eq!(table.requests(), []);
    table.wait(ms(100));
    assert_eq!(table.requests().len(), 1);
}

#[test]
fn partial_owners_rarest_first_counting_copies_on_their_way() {
    let mut table = Table::new(20);
    let now = table.now;
    let (most, few) = (table.some(1..20), table.some((1..20).filter(|chunk| *chunk != 5 && *chunk != 6)));
    table.scheduler.on_owner(peer(1), most, now);
    table.scheduler.on_owner(peer(2), few, now);
    table.scheduler.on_coming(table.chunk(5));
    let first = table.requests();
    let by_1: Vec<u32> = first.iter().filter(|r| r.owner == peer(1)).map(|r| r.run.first().get()).collect();
    let n_by_2 = first.iter().filter(|r| r.owner == peer(2)).count();
    // Of the two that only owner 1 holds, 5 is on its way to somebody already.
    assert_eq!((by_1.as_slice(), n_by_2), (&[6][..], 1));
}

/// Two slow owners hold the last chunk, and a fast one does not: one of the slow ones is asked.
#[test]
fn slow_owners_are_not_spared_for_each_other() {
    let mut table = Table::new(41);
    let all_but_one: Vec<u32> = (0..40).collect();
    let fast = table.some(all_but_one);
    table.scheduler.on_owner(peer(1), fast, table.now);
    let halves = [table.some((0..20).chain([40])), table.some((20..40).chain([40]))];
    for (number, half) in (2..).zip(halves) {
        table.scheduler.on_owner(peer(number), half, table.now);
    }
    for _ in 0..400 {
        if table.scheduler.is_complete() {
            break;
        }
        for request in table.requests() {
            if request.run.first().get() == 40 && table.scheduler.chunks.held().n_held() < 40 {
                table.scheduler.on_coming(table.chunk(40));
                table.fail(request, Failure::Coming); // so that it stays until the others are held
                table.wait(ms(10));
            } else {
                table.bring_all(request, if request.owner == peer(1) { ms(1) } else { ms(2_000) });
            }
        }
        table.wait(ms(10));
    }
    assert!(table.scheduler.is_complete(), "{:?}", table.scheduler.progress());
}

#[test]
fn gains_make_an_idle_partial_owner_useful() {
    let mut table = Table::new(20);
    let none = table.some([]);
    table.scheduler.on_owner(peer(1), none, table.now);
    assert_eq!(table.requests(), []);
    assert_eq!(table.scheduler.hopeless().map(|it| it.cause), Some(HopelessCause::Absent));
    table.scheduler.on_have(peer(1), table.chunk(3));
    assert_eq!(table.requests()[0].run, table.geometry.run(table.chunk(3), 1));
}

#[test]
fn lost_chunk_is_fetched_again() {
    let mut table = Table::complete(3, 1);
    while !table.scheduler.is_complete() {
        table.requests().into_iter().for_each(|request| table.bring_all(request, ms(5)));
    }
    table.scheduler.on_lost(table.chunk(1));
    assert!(!table.scheduler.is_complete());
    assert_eq!(table.requests()[0].run, table.geometry.run(table.chunk(1), 1));
}

#[test]
fn gone_owner_may_finish_and_gets_nothing_new() {
    let mut table = Table::complete(50, 1);
    let requests = table.requests();
    table.scheduler.on_owner_gone(peer(1));
    assert_eq!(table.bring(requests[0], requests[0].run.first(), ms(10)), Verdict::Continue);
    assert_eq!((table.requests(), table.cancels()), (vec![], vec![]));
    assert!(table.scheduler.hopeless().is_some());
}

#[test]
fn more_requests_side_by_side_on_a_long_round_trip() {
    let mut table = Table::complete(8_000, 1);
    let mut running: VecDeque<(Request, u64)> = VecDeque::new();
    // Every request gets 50 KB/s whatever the others do, as a lossy link gives it; the first byte after 300 ms.
    let mut most = 0;
    for _ in 0..12_000 {
        table.now += ms(100);
        running.extend(table.requests().into_iter().map(|request| (request, 0)));
        most = most.max(running.len());
        for _ in 0..running.len() {
            let (request, n_ticks) = running.pop_front().unwrap();
            if n_ticks >= 3 {
                table.scheduler.on_bytes(request.id, 5_000, table.now);
            }
            let done = (n_ticks.saturating_sub(2) * 5_000) / CHUNK;
            let before = (n_ticks.saturating_sub(3) * 5_000) / CHUNK;
            if done > before {
                let chunk = table.chunk(request.run.first().get() + before as u32);
                table.scheduler.on_chunk(request.id, chunk, table.now);
                if chunk == request.run.last() {
                    table.scheduler.on_end(request.id, table.now);
                    continue;
                }
            }
            running.push_back((request, n_ticks + 1));
        }
    }
    assert!(most >= 12, "{most} side by side");
}

/// As many chunks as most contents have, from many owners, complete and partial: no step may scan them one by one.
#[test]
fn many_chunks_from_many_owners() {
    let mut table = Table::new(16_384);
    for number in 1..=50 {
        let holds =
            if number <= 20 { Holds::All } else { table.some((0..16_384).filter(|n| n % 50 != u32::from(number))) };
        table.scheduler.on_owner(peer(number), holds, table.now);
    }
    let mut n_requests = 0;
    while !table.scheduler.is_complete() {
        let requests = table.requests();
        assert!(!requests.is_empty());
        n_requests += requests.len();
        requests.into_iter().for_each(|request| table.bring_all(request, ms(2)));
    }
    assert!(n_requests <= 16_384);
}
