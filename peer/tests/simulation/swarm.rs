//! Leechers that feed each other: how close the last one comes to the bound, and how often the seeder sends the same.

use potluck_peer::scheduler::SchedulerConfig;
use potluck_peer::wire::crowd::MAX_SENDING;

use crate::MIB;
use crate::peers::{PeerSpec, mbit};
use crate::sim::{Habits, Outcome, Sim};

/// A swarm with one seeder, in which all start together.
#[derive(Debug, Clone)]
pub(crate) struct Swarm {
    pub(crate) n_leechers: usize,
    pub(crate) len: u64,
    pub(crate) seed: u64,
    /// Leechers' uplinks from 20 to 200 Mbit/s, downlinks from 50 to 500, parts of round trips from 0.5 to 40 ms, drawn
    /// from the seed. Otherwise, as for the seeder, 100 Mbit/s both ways and 0.5 ms.
    pub(crate) is_mixed: bool,
    pub(crate) slots: usize,
    pub(crate) habits: Habits,
    pub(crate) config: SchedulerConfig,
}

/// An outcome beside what the links need at least.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// Seconds.
    pub(crate) bound: f64,
    pub(crate) n_chunks: u32,
}

impl Swarm {
    pub(crate) fn of(n_leechers: usize, len: u64, seed: u64) -> Self {
        let (habits, config) = (Habits::default(), SchedulerConfig::default());
        Self { n_leechers, len, seed, is_mixed: false, slots: MAX_SENDING, habits, config }
    }

    pub(crate) fn mixed(self) -> Self {
        Self { is_mixed: true, ..self }
    }

    pub(crate) fn specs(&self) -> Vec<PeerSpec> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let mut specs = vec![PeerSpec::seeder(mbit(100.0)); 1];
        for _ in 0..self.n_leechers {
            let mut leecher = PeerSpec::leecher(mbit(100.0), mbit(100.0));
            if self.is_mixed {
                let mut between = |least: f64, times: f64| least * times.powf(rng.f64());
                leecher.up = mbit(between(20.0, 10.0));
                leecher.down = mbit(between(50.0, 10.0));
                leecher.latency = between(0.000_5, 80.0);
            }
            specs.push(leecher);
        }
        specs.iter_mut().for_each(|spec| spec.slots = self.slots);
        specs
    }

    pub(crate) fn run(&self) -> Measured {
        let specs = self.specs();
        let bound = bound(self.len, &specs);
        let mut sim = Sim::new(self.len, specs, self.seed);
        (sim.habits, sim.config) = (self.habits, self.config.clone());
        let n_chunks = sim.geometry.n_chunks();
        Measured { outcome: sim.run(&format!("{self:?}"), 100.0 * bound), bound, n_chunks }
    }
}

/// Seconds that the links need at least, if all start together (Kumar and Ross).
fn bound(len: u64, specs: &[PeerSpec]) -> f64 {
    let (seeder, leechers) = specs.split_first().unwrap();
    let len = len as f64;
    let down = leechers.iter().map(|leecher| leecher.down).fold(f64::INFINITY, f64::min);
    let up: f64 = specs.iter().map(|peer| peer.up).sum();
    (len / seeder.up).max(len / down).max(leechers.len() as f64 * len / up)
}

impl Measured {
    pub(crate) fn last(&self) -> f64 {
        self.outcome.end / self.bound
    }

    pub(crate) fn median(&self) -> f64 {
        self.outcome.times[self.outcome.times.len() / 2] / self.bound
    }

    /// Says how it went, and that it went no worse than this.
    fn check(&self, what: &str, most: (f64, f64)) {
        let Outcome { copies_mean, copies_max, waste, .. } = self.outcome;
        println!(
            "{what}: last {:.3} and median {:.3} × bound of {:.2} s; seeder sent {copies_mean:.2} copies, {copies_max} of \
             one chunk; waste {waste:.4}",
            self.last(),
            self.median(),
            self.bound
        );
        assert!(self.last() <= most.0, "{what}: {} × bound", self.last());
        assert!(copies_mean <= most.1, "{what}: {copies_mean} copies");
        // Eight chunks may be asked twice at the end, and the smallest content here has 64.
        assert!(waste <= 0.1, "{what}: {waste} wasted");
    }
}

/// A crowd of the size that the benchmarks measure with real processes.
#[test]
fn crowds() {
    Swarm::of(8, 64 * MIB, 5).run().check("8 leechers", (1.2, 1.2));
    Swarm::of(16, 64 * MIB, 5).run().check("16 leechers", (1.3, 1.3));
    Swarm::of(16, 64 * MIB, 6).mixed().run().check("16 mixed leechers", (1.4, 1.6));
}

/// What a swarm costs as it grows. With only 64 chunks the start weighs four times as much as in the table of BENCHMARKS.md,
/// whose contents take too long in a debug build.
#[test]
fn growing_swarms() {
    Swarm::of(10, 16 * MIB, 1).run().check("10 leechers", (1.6, 1.6));
    Swarm::of(100, 16 * MIB, 1).run().check("100 leechers", (2.8, 2.5));
    Swarm::of(100, 16 * MIB, 1).mixed().run().check("100 mixed leechers", (2.0, 4.0));
}

/// A crowd in which everybody has few slots: refused and told to wait, everybody gets through and nobody is blamed.
#[test]
fn choking_owners() {
    let swarm = Swarm { slots: 3, ..Swarm::of(6, 32 * MIB, 3) };
    swarm.run().check("6 leechers, 3 slots", (1.6, 1.4));
}

#[test]
fn equal_seeds_make_equal_histories() {
    let run = |seed| Swarm::of(12, 8 * MIB, seed).mixed().run().outcome;
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first.trace, run(8).trace);
}
