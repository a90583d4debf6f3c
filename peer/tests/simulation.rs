//! Simulation: real schedulers, no sockets, virtual time.
//!
//! Links are a fluid: in each small step every running response gets its fair share of its sender's uplink
//! and its receiver's downlink. Owners may be slow, silent, choke, vanish, disconnect or send bad chunks.
//! What is asserted: completion, time against the least possible time, and bytes that were for nothing.
//! It says nothing about sockets, disks or processor time; the benchmarks do.
//!
//! `POTLUCK_SIM_LEECHERS=1000 cargo test --release -p potluck-peer --test simulation -- --nocapture swarm_of_any_size`
//! runs the swarm at another size (several sizes separated by commas).

// The lint configuration excuses only functions that are tests themselves, and here the whole file is one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use potluck_common::PeerId;
use potluck_common::chunk::{ChunkIndex, Geometry};
use potluck_common::have::HaveSet;
use potluck_peer::scheduler::{Failure, Holds, Request, RequestId, Scheduler, SchedulerConfig, Verdict};

const MIB: u64 = 1 << 20;

/// Bytes a second of a link of so many Mbit/s.
fn mbit(rate: f64) -> f64 {
    rate * 1e6 / 8.0
}

/// What is wrong with an owner.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Accepts requests and sends nothing.
    Silent,
    /// Each chunk is bad, and each chunk is the last before a reset, with these probabilities.
    Bad {
        corrupt: f64,
        disconnect: f64,
    },
    /// From this second on every connection is reset.
    Vanishes(f64),
    /// From this second on nothing more arrives, and nothing says so.
    Freezes(f64),
}

#[derive(Clone)]
struct Node {
    up: f64,
    down: f64,
    /// Responses that it sends at the same time; further requests are choked.
    slots: usize,
    /// Whether it starts with everything. Otherwise it downloads.
    is_seeder: bool,
    fault: Fault,
}

impl Node {
    fn owner(up: f64) -> Self {
        Self { up, down: 0.0, slots: usize::MAX, is_seeder: true, fault: Fault::None }
    }

    fn leecher(up: f64, down: f64) -> Self {
        Self { up, down, slots: usize::MAX, is_seeder: false, fault: Fault::None }
    }

    fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }
}

struct Flow {
    to: usize,
    from: usize,
    request: Request,
    len: f64,
    n_sent: f64,
    n_told: u64,
    n_chunks_told: u32,
    begins: f64,
    share: f64,
}

/// What reaches a leecher later.
enum Word {
    Have(usize, ChunkIndex),
    Coming(ChunkIndex),
    Failed(RequestId, Failure),
}

struct Leecher {
    scheduler: Scheduler,
    neighbours: Vec<usize>,
    done_at: Option<f64>,
    n_received: f64,
    must_look: bool,
}

struct Sim {
    geometry: Geometry,
    nodes: Vec<Node>,
    leechers: BTreeMap<usize, Leecher>,
    flows: Vec<Flow>,
    words: VecDeque<(f64, usize, Word)>,
    round_trip: f64,
    step: f64,
    time: f64,
    epoch: Instant,
    rng: fastrand::Rng,
    n_sent: Vec<f64>,
    /// Whether a seeder tells which chunks it has begun to hand out.
    has_hints: bool,
}

struct Outcome {
    /// Seconds until the last leecher was done.
    time: f64,
    /// Bytes that were received beyond the content, as a part of it, over all leechers.
    waste: f64,
    /// Bytes sent by each node.
    n_sent: Vec<f64>,
}

fn id_of(node: usize) -> PeerId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&(node as u64).to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn node_of(id: PeerId) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.as_bytes()[8..]);
    u64::from_be_bytes(bytes) as usize
}

impl Sim {
    fn new(len: u64, nodes: Vec<Node>, round_trip: f64, seed: u64) -> Self {
        Self::with(len, nodes, round_trip, seed, &SchedulerConfig::default(), usize::MAX)
    }

    /// Every leecher knows all seeders and at most `n_neighbours` leechers.
    fn with(
        len: u64,
        nodes: Vec<Node>,
        round_trip: f64,
        seed: u64,
        config: &SchedulerConfig,
        n_neighbours: usize,
    ) -> Self {
        let geometry = Geometry::new(len).unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let epoch = Instant::now();
        let all: Vec<usize> = (0..nodes.len()).filter(|node| !nodes[*node].is_seeder).collect();
        let mut leechers: BTreeMap<usize, Leecher> = BTreeMap::new();
        for &node in &all {
            let scheduler = Scheduler::new(geometry, HaveSet::empty(geometry), config.clone(), rng.u64(..));
            let leecher =
                Leecher { scheduler, neighbours: Vec::new(), done_at: None, n_received: 0.0, must_look: true };
            leechers.insert(node, leecher);
        }
        let mut meet = |a: usize, b: usize| {
            if a != b && !leechers[&a].neighbours.contains(&b) {
                leechers.get_mut(&a).unwrap().neighbours.push(b);
                leechers.get_mut(&b).unwrap().neighbours.push(a);
            }
        };
        for &a in &all {
            if all.len() <= n_neighbours {
                all.iter().for_each(|b| meet(a, *b));
            } else {
                (0..n_neighbours / 2).for_each(|_| meet(a, all[rng.usize(..all.len())]));
            }
        }
        for leecher in leechers.values_mut() {
            for (node, _) in nodes.iter().enumerate().filter(|(_, node)| node.is_seeder) {
                leecher.scheduler.on_owner(id_of(node), Holds::All, epoch);
            }
            for node in leecher.neighbours.clone() {
                leecher.scheduler.on_owner(id_of(node), Holds::Some(HaveSet::empty(geometry)), epoch);
            }
        }
        Self {
            geometry,
            n_sent: vec![0.0; nodes.len()],
            nodes,
            leechers,
            flows: Vec::new(),
            words: VecDeque::new(),
            round_trip,
            step: 0.002,
            time: 0.0,
            epoch,
            rng,
            has_hints: true,
        }
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_secs_f64(self.time)
    }

    fn run(mut self, context: &str) -> Outcome {
        while self.leechers.values().any(|leecher| leecher.done_at.is_none()) {
            self.time += self.step;
            self.hear_words();
            self.share_links();
            self.move_bytes();
            self.ask();
            let stuck: Vec<_> = self.leechers.values().filter(|leecher| leecher.done_at.is_none()).collect();
            assert!(
                self.time < 3_000.0,
                "{context}: never ends: {:?}",
                stuck.first().map(|it| it.scheduler.progress())
            );
        }
        let len = self.geometry.len() as f64;
        let waste = self.leechers.values().map(|leecher| leecher.n_received / len - 1.0).sum::<f64>();
        let time = self.leechers.values().filter_map(|leecher| leecher.done_at).fold(0.0, f64::max);
        Outcome { time, waste: waste / self.leechers.len() as f64, n_sent: self.n_sent }
    }

    fn say(&mut self, delay: f64, to: usize, word: Word) {
        let at = self.time + delay;
        let index = self.words.partition_point(|(other, ..)| *other <= at);
        self.words.insert(index, (at, to, word));
    }

    fn hear_words(&mut self) {
        let now = self.now();
        while self.words.front().is_some_and(|(at, ..)| *at <= self.time) {
            let Some((_, to, word)) = self.words.pop_front() else { return };
            let Some(leecher) = self.leechers.get_mut(&to).filter(|leecher| leecher.done_at.is_none()) else {
                continue;
            };
            leecher.must_look = true;
            match word {
                Word::Have(owner, chunk) => leecher.scheduler.on_have(id_of(owner), chunk),
                Word::Coming(chunk) => leecher.scheduler.on_coming(chunk),
                Word::Failed(request, failure) => leecher.scheduler.on_failed(request, failure, now),
            }
        }
    }

    /// Fair shares of uplinks and downlinks; what one end cannot use goes to the others in further rounds.
    fn share_links(&mut self) {
        let mut up: Vec<(f64, u32)> = self.nodes.iter().map(|node| (node.up * self.step, 0)).collect();
        let mut down: Vec<(f64, u32)> = self.nodes.iter().map(|node| (node.down * self.step, 0)).collect();
        for (node, it) in self.nodes.iter().enumerate() {
            let is_dead = it.fault == Fault::Silent || matches!(it.fault, Fault::Freezes(at) if self.time >= at);
            if is_dead {
                up[node].0 = 0.0;
            }
        }
        self.flows.iter_mut().for_each(|flow| flow.share = 0.0);
        for _ in 0..4 {
            up.iter_mut().chain(&mut down).for_each(|(_, n)| *n = 0);
            let time = self.time;
            let wants = |flow: &Flow, up: &[(f64, u32)], down: &[(f64, u32)]| {
                flow.begins <= time
                    && flow.n_sent + flow.share + 0.01 < flow.len
                    && up[flow.from].0 > 0.5
                    && down[flow.to].0 > 0.5
            };
            for flow in &self.flows {
                if wants(flow, &up, &down) {
                    up[flow.from].1 += 1;
                    down[flow.to].1 += 1;
                }
            }
            let before: Vec<(f64, f64)> = up
                .iter()
                .zip(&down)
                .map(|(up, down)| (up.0 / f64::from(up.1.max(1)), down.0 / f64::from(down.1.max(1))))
                .collect();
            let (up_before, down_before) = (up.clone(), down.clone());
            for flow in &mut self.flows {
                if wants(flow, &up_before, &down_before) {
                    let share = before[flow.from].0.min(before[flow.to].1).min(flow.len - flow.n_sent - flow.share);
                    flow.share += share;
                    up[flow.from].0 -= share;
                    down[flow.to].0 -= share;
                }
            }
        }
    }

    fn move_bytes(&mut self) {
        let now = self.now();
        let mut ended = Vec::new();
        for index in 0..self.flows.len() {
            let flow = &mut self.flows[index];
            flow.n_sent += flow.share;
            let (to, from, request) = (flow.to, flow.from, flow.request);
            self.n_sent[from] += flow.share;
            let leecher = self.leechers.get_mut(&to).unwrap();
            leecher.n_received += flow.share;
            let n_new = flow.n_sent as u64 - flow.n_told;
            if n_new > 0 {
                flow.n_told += n_new;
                leecher.scheduler.on_bytes(request.id, n_new, now);
            }
            let start = self.geometry.bytes_of_run(request.run).start;
            while let Some(chunk) = request.run.indices().nth(self.flows[index].n_chunks_told as usize) {
                let flow = &mut self.flows[index];
                if flow.n_sent + 0.5 < (self.geometry.bytes_of(chunk).end - start) as f64 {
                    break;
                }
                flow.n_chunks_told += 1;
                if self.deliver(to, from, request, chunk) {
                    ended.push(request.id);
                    break;
                }
            }
            if matches!(self.nodes[from].fault, Fault::Vanishes(at) if self.time >= at) {
                let leecher = self.leechers.get_mut(&to).unwrap();
                leecher.scheduler.on_failed(request.id, Failure::Unreachable, now);
                leecher.must_look = true;
                ended.push(request.id);
            }
        }
        self.close(&ended, None);
    }

    /// A chunk has arrived whole. Whether the response is over.
    fn deliver(&mut self, to: usize, from: usize, request: Request, chunk: ChunkIndex) -> bool {
        let now = self.now();
        let leecher = self.leechers.get_mut(&to).unwrap();
        leecher.must_look = true;
        if let Fault::Bad { corrupt, disconnect } = self.nodes[from].fault {
            if self.rng.f64() < corrupt {
                leecher.scheduler.on_failed(request.id, Failure::Corrupt { chunk }, now);
                return true;
            }
            if self.rng.f64() < disconnect {
                leecher.scheduler.on_failed(request.id, Failure::Unreachable, now);
                return true;
            }
        }
        let verdict = leecher.scheduler.on_chunk(request.id, chunk, now);
        let is_end = verdict == Verdict::Continue && chunk == request.run.last();
        if is_end {
            leecher.scheduler.on_end(request.id, now);
        }
        if leecher.scheduler.is_complete() && leecher.done_at.is_none() {
            leecher.done_at = Some(self.time);
        }
        for neighbour in leecher.neighbours.clone() {
            self.say(self.round_trip / 2.0 + 0.003, neighbour, Word::Have(to, chunk));
        }
        is_end || verdict == Verdict::Stop
    }

    /// Closes these responses, of one leecher or (ids are unique only within one) of those just worked on.
    fn close(&mut self, ended: &[RequestId], of: Option<usize>) {
        if of.is_some() {
            self.flows.retain(|flow| Some(flow.to) != of || !ended.contains(&flow.request.id));
        } else if !ended.is_empty() {
            let leechers = &self.leechers;
            self.flows.retain(|flow| leechers[&flow.to].scheduler.owner_of(flow.request.id).is_some());
        }
    }

    fn ask(&mut self) {
        let now = self.now();
        let nodes: Vec<usize> = self.leechers.keys().copied().collect();
        let mut n_flows = vec![0; self.nodes.len()];
        self.flows.iter().for_each(|flow| n_flows[flow.from] += 1);
        for to in nodes {
            let leecher = self.leechers.get_mut(&to).unwrap();
            let is_due = leecher.scheduler.next_deadline().is_some_and(|deadline| deadline <= now);
            if leecher.done_at.is_some() || !(leecher.must_look || is_due) {
                continue;
            }
            leecher.must_look = false;
            leecher.scheduler.on_tick(now);
            let cancels: Vec<RequestId> = std::iter::from_fn(|| leecher.scheduler.next_cancel()).collect();
            let requests: Vec<Request> = std::iter::from_fn(|| leecher.scheduler.next_request(now)).collect();
            if !cancels.is_empty() {
                self.close(&cancels, Some(to));
            }
            for request in requests {
                let from = node_of(request.owner);
                if matches!(self.nodes[from].fault, Fault::Vanishes(at) if self.time >= at) {
                    self.say(self.round_trip, to, Word::Failed(request.id, Failure::Unreachable));
                    continue;
                }
                if n_flows[from] >= self.nodes[from].slots {
                    let retry_after = Duration::from_millis(200);
                    self.say(self.round_trip, to, Word::Failed(request.id, Failure::Choked { retry_after }));
                    continue;
                }
                n_flows[from] += 1;
                let bytes = self.geometry.bytes_of_run(request.run);
                self.flows.push(Flow {
                    to,
                    from,
                    request,
                    len: (bytes.end - bytes.start) as f64,
                    n_sent: 0.0,
                    n_told: 0,
                    n_chunks_told: 0,
                    begins: self.time + self.round_trip,
                    share: 0.0,
                });
                if self.has_hints && self.nodes[from].is_seeder && self.leechers.len() > 1 {
                    for neighbour in self.leechers.keys().copied().filter(|other| *other != to).collect::<Vec<_>>() {
                        for chunk in request.run.indices() {
                            self.say(self.round_trip, neighbour, Word::Coming(chunk));
                        }
                    }
                }
            }
        }
        let leechers = &self.leechers;
        self.flows.retain(|flow| leechers[&flow.to].done_at.is_none());
    }
}

/// One leecher with a wide downlink and these owners.
fn one_leecher(len: u64, owners: Vec<Node>, seed: u64) -> Outcome {
    let mut nodes = owners;
    nodes.push(Node::leecher(0.0, mbit(100_000.0)));
    Sim::new(len, nodes, 0.001, seed).run(&format!("seed {seed}"))
}

#[test]
fn four_equal_owners() {
    for (len, rate) in [(256 * MIB, 100.0), (64 * MIB, 100.0), (512 * MIB, 1_000.0), (300 * MIB + 12_345, 40.0)] {
        for seed in 0..2 {
            let outcome = one_leecher(len, vec![Node::owner(mbit(rate)); 4], seed);
            let ratio = outcome.time / (len as f64 / (4.0 * mbit(rate)));
            println!("4 owners × {rate} Mbit/s, {} MiB: {ratio:.3} × bound, waste {:.4}", len / MIB, outcome.waste);
            assert!(ratio <= 1.07, "seed {seed}: {ratio}");
            assert!(outcome.waste <= 0.02, "seed {seed}: waste {}", outcome.waste);
        }
    }
}

#[test]
fn different_owners_are_used_in_proportion() {
    for seed in 0..4 {
        let rates = [10.0, 50.0, 200.0];
        let len = 256 * MIB;
        let outcome = one_leecher(len, rates.map(|rate| Node::owner(mbit(rate))).to_vec(), seed);
        let ratio = outcome.time / (len as f64 / mbit(260.0));
        let parts: Vec<f64> = outcome.n_sent.iter().map(|n| n / len as f64).collect();
        println!("10, 50, 200 Mbit/s: {ratio:.3} × bound, parts {:.3?}, waste {:.4}", &parts[..3], outcome.waste);
        assert!(ratio <= 1.10, "seed {seed}: {ratio}");
        for (rate, part) in rates.iter().zip(parts) {
            assert!((part - rate / 260.0).abs() < 0.05, "seed {seed}: {rate} Mbit/s brought {part}");
        }
    }
}

#[test]
fn slow_owner_does_not_hold_up_the_end() {
    for seed in 0..4 {
        let len = 128 * MIB;
        let mut owners = vec![Node::owner(mbit(100.0)); 4];
        let without = one_leecher(len, owners.clone(), seed).time;
        owners.insert(0, Node::owner(mbit(0.064)));
        let with = one_leecher(len, owners, seed);
        println!("64 kbit/s beside 4 fast owners: {:.3} × without, waste {:.4}", with.time / without, with.waste);
        assert!(with.time <= 1.05 * without, "seed {seed}: {} after {without}", with.time);
    }
}

/// F30: half the owners accept and send nothing; F21: one freezes and one is reset half-way.
#[test]
fn silent_and_vanishing_owners() {
    for seed in 0..4 {
        let len = 256 * MIB;
        let good = Node::owner(mbit(100.0));
        let faults =
            [Fault::None, Fault::None, Fault::Silent, Fault::Silent, Fault::Vanishes(3.0), Fault::Freezes(3.0)];
        let outcome = one_leecher(len, faults.map(|fault| good.clone().with(fault)).to_vec(), seed);
        // Four are good for 3 s, two for the rest.
        let least = (len as f64 - 2.0 * 3.0 * mbit(100.0)) / mbit(200.0);
        println!(
            "2 good, 2 silent, 1 vanishing, 1 freezing: {:.3} × bound, waste {:.4}",
            outcome.time / least,
            outcome.waste
        );
        assert!(outcome.time <= 1.15 * least, "seed {seed}: {} of {least}", outcome.time);
        assert!(outcome.waste <= 0.02, "seed {seed}: {}", outcome.waste);
    }
}

/// F31: half of 32 owners give 10 % bad chunks and 10 % disconnects.
#[test]
fn half_of_32_owners_are_bad() {
    for seed in 0..4 {
        let len = 256 * MIB;
        let good = Node::owner(mbit(20.0));
        let bad = good.clone().with(Fault::Bad { corrupt: 0.1, disconnect: 0.1 });
        let undisturbed = one_leecher(len, vec![good.clone(); 32], seed).time;
        let outcome = one_leecher(len, [vec![good; 16], vec![bad; 16]].concat(), seed);
        println!("half of 32 bad: {:.2} × undisturbed, waste {:.4}", outcome.time / undisturbed, outcome.waste);
        assert!(outcome.time <= 3.0 * undisturbed, "seed {seed}");
        assert!(outcome.waste <= 0.15, "seed {seed}: {}", outcome.waste);
    }
}

/// F28: 300 ms round trip; 5 owners.
#[test]
fn long_round_trip() {
    let len = 256 * MIB;
    let mut nodes = vec![Node::owner(mbit(50.0)); 5];
    nodes.push(Node::leecher(0.0, mbit(100_000.0)));
    let outcome = Sim::new(len, nodes, 0.3, 1).run("long round trip");
    let ratio = outcome.time / (len as f64 / mbit(250.0));
    println!("300 ms round trip: {ratio:.3} × bound, waste {:.4}", outcome.waste);
    assert!(ratio <= 1.35, "{ratio}");
}

/// Links as fast as loopback: the rate must be found, and runs grow, within a few milliseconds.
#[test]
fn fast_links() {
    for (len, limit) in [(64 * MIB, 1.6), (1024 * MIB, 1.1)] {
        let mut nodes = vec![Node::owner(mbit(4_000.0)); 4];
        nodes.push(Node::leecher(0.0, mbit(100_000.0)));
        let mut sim = Sim::new(len, nodes, 0.000_2, 1);
        sim.step = 0.000_1;
        let outcome = sim.run("fast links");
        let ratio = outcome.time / (len as f64 / mbit(16_000.0));
        println!("4 owners × 4 Gbit/s, {} MiB: {ratio:.3} × bound, waste {:.4}", len / MIB, outcome.waste);
        assert!(ratio <= limit, "{ratio}");
        assert!(outcome.waste <= 0.02, "{}", outcome.waste);
    }
}

/// A crowd with a choking seeder: everybody gets through, nobody is blamed.
#[test]
fn choking_seeder() {
    let mut nodes = vec![Node { slots: 2, ..Node::owner(mbit(100.0)) }];
    nodes.extend(vec![Node { slots: 4, ..Node::leecher(mbit(100.0), mbit(1_000.0)) }; 6]);
    let outcome = Sim::new(32 * MIB, nodes, 0.001, 3).run("choking seeder");
    let ratio = outcome.time / (32.0 * MIB as f64 / mbit(100.0));
    println!("choking seeder, 6 leechers: {ratio:.3} × bound");
    assert!(ratio < 1.5, "{ratio}");
}

/// F32: no owner is complete, their union is.
#[test]
fn only_partial_owners() {
    for seed in 0..4 {
        let mut nodes = vec![Node { is_seeder: false, ..Node::owner(mbit(100.0)) }; 3];
        nodes.push(Node::leecher(0.0, mbit(1_000.0)));
        let mut sim = Sim::new(32 * MIB, nodes, 0.001, seed);
        let geometry = sim.geometry;
        let epoch = sim.epoch;
        (0..3).for_each(|node| _ = sim.leechers.remove(&node));
        let leecher = sim.leechers.get_mut(&3).unwrap();
        leecher.neighbours.clear();
        for node in 0..3_usize {
            let mut have = HaveSet::empty(geometry);
            geometry.indices().filter(|chunk| chunk.as_usize() % 4 != node).for_each(|chunk| _ = have.insert(chunk));
            leecher.scheduler.on_owner(id_of(node), Holds::Some(have), epoch);
        }
        assert_eq!(leecher.scheduler.hopeless(), None);
        let outcome = sim.run("only partial owners");
        let ratio = outcome.time / (32.0 * MIB as f64 / mbit(300.0));
        println!("three partial owners: {ratio:.3} × bound");
        assert!(ratio <= 1.15, "seed {seed}: {ratio}");
    }
}

struct Swarm {
    n_leechers: usize,
    len: u64,
    rate: f64,
    slots: usize,
    n_neighbours: usize,
    has_hints: bool,
    step: f64,
    config: SchedulerConfig,
    seed: u64,
}

/// Last peer over the fluid bound, mean copies of each chunk that the seeder sent, waste.
fn swarm(it: &Swarm) -> (f64, f64, f64) {
    let rate = mbit(it.rate);
    let mut nodes = vec![Node { slots: it.slots, ..Node::owner(rate) }];
    nodes.extend(vec![Node { slots: it.slots, ..Node::leecher(rate, rate) }; it.n_leechers]);
    let mut sim = Sim::with(it.len, nodes, 0.001, it.seed, &it.config, it.n_neighbours);
    sim.has_hints = it.has_hints;
    sim.step = it.step;
    let outcome = sim.run("swarm");
    let (len, n) = (it.len as f64, it.n_leechers as f64);
    let bound = (len / rate).max(n * len / (rate + n * rate));
    (outcome.time / bound, outcome.n_sent[0] / len, outcome.waste)
}

fn crowd(n_leechers: usize, len: u64, seed: u64) -> Swarm {
    let config = SchedulerConfig::default();
    Swarm {
        n_leechers,
        len,
        rate: 100.0,
        slots: usize::MAX,
        n_neighbours: 40,
        has_hints: true,
        step: 0.004,
        config,
        seed,
    }
}

#[test]
fn crowds() {
    // Without hints leechers that see the same few fresh chunks left collide on them; with hints they do not.
    for (n_leechers, len, has_hints, limit) in
        [(8, 64 * MIB, false, 1.3), (16, 64 * MIB, false, 1.5), (8, 64 * MIB, true, 1.15), (16, 128 * MIB, true, 1.18)]
    {
        let (ratio, copies, waste) = swarm(&Swarm { has_hints, ..crowd(n_leechers, len, 5) });
        println!(
            "crowd of {n_leechers}, {} MiB, hints {has_hints}: {ratio:.3} × bound, {copies:.2} copies, waste {waste:.4}",
            len / MIB
        );
        assert!(ratio <= limit, "{n_leechers} leechers: {ratio}");
        assert!(copies <= limit, "{n_leechers} leechers: {copies} copies");
    }
}

#[test]
fn swarm_of_any_size() {
    let number = |name: &str, default: u64| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let sizes = std::env::var("POTLUCK_SIM_LEECHERS").unwrap_or_else(|_| "24".into());
    for n_leechers in sizes.split(',').map(|size| size.parse().unwrap()) {
        let base = crowd(n_leechers, number("POTLUCK_SIM_MIB", 16) * MIB, number("POTLUCK_SIM_SEED", 1));
        let slots = number("POTLUCK_SIM_SLOTS", 16) as usize;
        let n_neighbours = number("POTLUCK_SIM_NEIGHBOURS", 40) as usize;
        let has_hints = number("POTLUCK_SIM_HINTS", 1) == 1;
        let mut config = SchedulerConfig::default();
        config.per_owner_in_swarm = number("POTLUCK_SIM_PER_OWNER", u64::from(config.per_owner_in_swarm)) as u32;
        let step = if n_leechers > 100 { 0.01 } else { 0.004 };
        let (ratio, copies, waste) = swarm(&Swarm { slots, n_neighbours, has_hints, step, config, ..base });
        println!("swarm of {n_leechers}: {ratio:.3} × bound, {copies:.2} copies from the seeder, waste {waste:.4}");
        assert!(ratio < 4.0);
    }
}
