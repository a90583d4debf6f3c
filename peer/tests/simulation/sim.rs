//! The simulation itself: one queue of events, and what each of them does first.
//!
//! What follows from it stands in `visits` (peers come, meet and go), `transfer` (responses and chunks) and `look`
//! (what a driver does: hear, tell its scheduler, ask).

use std::time::{Duration, Instant};

use potluck_common::chunk::Geometry;
use potluck_common::have::HaveSet;
use potluck_peer::scheduler::SchedulerConfig;

use crate::events::{Event, Events};
use crate::links::Links;
use crate::peers::{Fault, Peer, PeerSpec, Role};
use crate::tracker::{Listed, Tracker};

/// How peers behave beside what their schedulers decide; by default as they do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Habits {
    /// Seconds between two questions to the tracker while the swarm gathers…
    pub(crate) first_refresh: f64,
    /// …and later.
    pub(crate) max_refresh: f64,
    /// Whether owners refuse fresh chunks that have just begun to go elsewhere.
    pub(crate) refuses_twice: bool,
    /// Whether leechers are listed, and listened to, from their start on, and not from their first chunk on.
    pub(crate) is_listed_early: bool,
    /// Requests that wait for an upload slot instead of being refused.
    pub(crate) n_waiting: usize,
    /// News are gathered and heard on a grid of so many seconds, as have streams gather them.
    pub(crate) gather: f64,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            first_refresh: 0.25,
            max_refresh: 2.0,
            refuses_twice: true,
            is_listed_early: true,
            n_waiting: 0,
            gather: 0.05,
        }
    }
}

/// A simulation under way.
pub(crate) struct Sim {
    pub(crate) geometry: Geometry,
    pub(crate) config: SchedulerConfig,
    pub(crate) habits: Habits,
    pub(crate) peers: Vec<Peer>,
    pub(crate) links: Links,
    pub(crate) tracker: Tracker,
    pub(crate) events: Events,
    pub(crate) time: f64,
    pub(crate) rng: fastrand::Rng,
    epoch: Instant,
    /// Leechers that are not complete, or not even there, and will be.
    pub(crate) n_awaited: usize,
    /// What those hold who stay.
    pub(crate) safe: HaveSet,
    /// How many copies of each chunk seeders sent.
    pub(crate) copies: Vec<u32>,
    /// Seconds that a response stood still before it was given up.
    pub(crate) longest_silence: f64,
    /// Of every chunk that arrived: when, whose and from whom.
    pub(crate) trace: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// Seconds until each awaited leecher was done, since it came first, ascending.
    pub(crate) times: Vec<f64>,
    /// When the last one was done.
    pub(crate) end: f64,
    /// Bytes that were received beyond the content, as a part of it, on average over awaited leechers.
    pub(crate) waste: f64,
    /// Bytes sent by each peer.
    pub(crate) n_sent: Vec<f64>,
    /// How many copies of each chunk were sent by seeders: on average (with pieces of chunks), and of the worst.
    pub(crate) copies_mean: f64,
    pub(crate) copies_max: u32,
    pub(crate) longest_silence: f64,
    /// Whether each peer was still there at the end.
    pub(crate) stayed: Vec<bool>,
    /// Equal for equal histories.
    pub(crate) trace: u64,
}

impl Sim {
    pub(crate) fn new(len: u64, specs: Vec<PeerSpec>, seed: u64) -> Self {
        let geometry = Geometry::new(len).unwrap();
        let mut sim = Self {
            geometry,
            config: SchedulerConfig::default(),
            habits: Habits::default(),
            n_awaited: specs.iter().filter(|spec| spec.is_awaited()).count(),
            peers: Vec::new(),
            links: Links::default(),
            tracker: Tracker::default(),
            events: Events::default(),
            time: 0.0,
            rng: fastrand::Rng::with_seed(seed),
            epoch: Instant::now(),
            safe: HaveSet::empty(geometry),
            copies: vec![0; geometry.n_chunks() as usize],
            longest_silence: 0.0,
            trace: seed,
        };
        // Owners are there, and listed, before the first leecher comes.
        let (leechers, owners): (Vec<_>, Vec<_>) =
            (0..specs.len()).partition(|peer| specs[*peer].role == Role::Leecher);
        for spec in specs {
            let up = if spec.fault == Fault::Silent { 0.0 } else { spec.up };
            sim.links.add_node(up, spec.down);
            sim.peers.push(Peer::new(spec, geometry));
        }
        for peer in owners {
            let owner = &mut sim.peers[peer];
            (owner.is_present, owner.n_visits) = (true, 1);
            let listed = if owner.have.is_complete() { Listed::Complete } else { Listed::Partial };
            sim.tracker.list(peer, Some(listed));
            if let Fault::Vanishes(at) | Fault::Freezes(at) = owner.spec.fault {
                sim.events.push(at, Event::Fault(peer));
            }
        }
        for peer in leechers {
            sim.events.push(sim.peers[peer].spec.arrives, Event::Arrives(peer));
        }
        sim
    }

    pub(crate) fn now(&self) -> Instant {
        self.epoch + Duration::from_secs_f64(self.time)
    }

    /// That instant on the simulation's clock, rounded up.
    pub(crate) fn time_of(&self, instant: Instant) -> f64 {
        instant.saturating_duration_since(self.epoch).as_secs_f64() + 1e-6
    }

    pub(crate) fn round_trip(&self, a: usize, b: usize) -> f64 {
        self.peers[a].spec.latency + self.peers[b].spec.latency
    }

    /// Until every awaited leecher is complete, which must be before `limit` seconds.
    pub(crate) fn run(mut self, context: &str, limit: f64) -> Outcome {
        let mut due = Vec::new();
        while self.n_awaited > 0 {
            let next = self.events.pop();
            let (at, event) = next.unwrap_or_else(|| panic!("{context}: nothing more happens: {}", self.stuck()));
            assert!(at < limit, "{context}: not done after {limit} s: {}", self.stuck());
            self.time = at;
            self.on_event(event);
            self.links.share(self.time, &mut due);
            for (at, flow) in due.drain(..) {
                self.events.push(at, Event::Flow(flow));
            }
        }
        self.outcome()
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Arrives(peer) => self.arrive(peer),
            Event::Leaves(peer, visit) if self.is_visit(peer, visit) => self.leave(peer),
            Event::Answer(peer, visit, request) if self.is_visit(peer, visit) => self.answer(peer, request),
            Event::Refuse(peer, visit, request) if self.is_visit(peer, visit) => self.refuse_waiting(peer, request),
            Event::Flow(flow) => self.move_flow(flow),
            Event::Look(peer) if self.peers[peer].look_at.to_bits() == self.time.to_bits() => self.look(peer),
            Event::Refresh(peer, visit) if self.is_visit(peer, visit) => self.refresh(peer),
            Event::Announced(peer, visit) if self.is_visit(peer, visit) => {
                let is_complete = self.peers[peer].have.is_complete();
                self.tracker.list(peer, Some(if is_complete { Listed::Complete } else { Listed::Partial }));
            }
            Event::Fault(peer) => self.fail(peer),
            Event::Leaves(..)
            | Event::Answer(..)
            | Event::Refuse(..)
            | Event::Look(_)
            | Event::Refresh(..)
            | Event::Announced(..) => {}
        }
    }

    pub(crate) fn is_visit(&self, peer: usize, visit: u32) -> bool {
        self.peers[peer].is_present && self.peers[peer].n_visits == visit
    }

    /// What a failing test shows of the first peer that does not get on.
    fn stuck(&self) -> String {
        let (n_awaited, time) = (self.n_awaited, self.time);
        let first = self.peers.iter().enumerate().find(|(_, it)| it.spec.is_awaited() && it.done_at.is_none());
        let progress = first.map(|(peer, it)| (peer, it.scheduler.as_ref().map(|it| (it.progress(), it.hopeless()))));
        format!("{n_awaited} are awaited at {time} s, the first of them: {progress:?}")
    }

    fn outcome(self) -> Outcome {
        let len = self.geometry.len() as f64;
        let awaited: Vec<&Peer> = self.peers.iter().filter(|peer| peer.spec.is_awaited()).collect();
        let n = awaited.len() as f64;
        let mut times: Vec<f64> =
            awaited.iter().map(|peer| peer.done_at.expect("nobody is awaited any more") - peer.spec.arrives).collect();
        times.sort_by(f64::total_cmp);
        let n_sent: Vec<f64> = self.peers.iter().map(|peer| peer.n_sent).collect();
        let seeders = self.peers.iter().filter(|peer| peer.spec.role == Role::Seeder);
        Outcome {
            times,
            end: awaited.iter().filter_map(|peer| peer.done_at).fold(0.0, f64::max),
            waste: awaited.iter().map(|peer| peer.n_received / len - 1.0).sum::<f64>() / n,
            copies_mean: seeders.map(|peer| peer.n_sent).sum::<f64>() / len,
            copies_max: self.copies.iter().copied().max().unwrap_or(0),
            stayed: self.peers.iter().map(|peer| peer.is_present).collect(),
            n_sent,
            longest_silence: self.longest_silence,
            trace: self.trace,
        }
    }
}
