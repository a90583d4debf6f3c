//! Swarms in which peers come late, leave, and come back: those who stay get through.

use crate::MIB;
use crate::peers::{Leaves, PeerSpec};
use crate::sim::{Outcome, Sim};
use crate::swarm::Swarm;

fn run(len: u64, specs: &[PeerSpec], seed: u64) -> Outcome {
    let outcome = Sim::new(len, specs.to_vec(), seed).run(&format!("seed {seed}"), 600.0);
    let n_left = outcome.stayed.iter().filter(|stayed| !**stayed).count();
    println!(
        "seed {seed}: {} of {} gone; the last one was done at {:.1} s, median after {:.1} s; seeder sent {:.2} copies",
        n_left,
        specs.len(),
        outcome.end,
        outcome.times[outcome.times.len() / 2],
        outcome.copies_mean
    );
    outcome
}

/// Over twenty seconds leechers of all kinds come; a third leaves half-way, half of those for good; a third leaves as
/// soon as it is complete, or a little later.
#[test]
fn leechers_come_and_go() {
    for seed in 0..3 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut specs = Swarm::of(60, 16 * MIB, seed).mixed().specs();
        for leecher in &mut specs[1..] {
            leecher.arrives = 20.0 * rng.f64();
            let back_after = rng.bool().then(|| 1.0 + 5.0 * rng.f64());
            leecher.leaves = match rng.u32(..3) {
                0 => Leaves::HalfWay { part: rng.f64(), back_after },
                1 => Leaves::Complete { after: 3.0 * rng.f64() },
                _ => Leaves::Never,
            };
        }
        let n_awaited = specs.iter().filter(|spec| spec.is_awaited()).count();
        let outcome = run(16 * MIB, &specs, seed);
        assert_eq!(outcome.times.len(), n_awaited);
        assert!(n_awaited < 60, "nobody leaves for good");
        // The slowest downlink needs 2.7 s; whoever comes alone has the seeder's 100 Mbit/s.
        assert!(outcome.end <= 20.0 + 6.0 + 20.0, "seed {seed}: the last one was done at {} s", outcome.end);
    }
}

/// The seeder leaves when each chunk is out somewhere, which is long before anybody else is complete.
#[test]
fn the_seeder_leaves_early() {
    for seed in 0..3 {
        let mut specs = Swarm::of(20, 32 * MIB, seed).mixed().specs();
        specs[0].leaves = Leaves::Sent { n_copies: 1.05 };
        let outcome = run(32 * MIB, &specs, seed);
        assert!(!outcome.stayed[0], "seed {seed}: the seeder stayed");
        assert_eq!(outcome.times.len(), 20);
    }
}

/// One after another: each finds those before it, and the seeder has little to do.
#[test]
fn a_late_leecher_is_fed_by_all() {
    let mut specs = Swarm::of(10, 32 * MIB, 1).specs();
    for (number, leecher) in specs[1..].iter_mut().enumerate() {
        leecher.arrives = 4.0 * number as f64;
    }
    let outcome = run(32 * MIB, &specs, 1);
    // A downlink of 100 Mbit/s needs 2.7 s.
    assert!(*outcome.times.last().unwrap() <= 2.7 * 1.1, "{:?}", outcome.times);
    assert!(outcome.copies_mean <= 4.0, "{} copies", outcome.copies_mean);
}
