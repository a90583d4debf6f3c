//! One leecher with a wide downlink, and its owners: whether all of them are used, and what a bad one costs.

use potluck_common::chunk::Geometry;
use potluck_common::have::HaveSet;

use crate::MIB;
use crate::peers::{Fault, PeerSpec, Role, mbit};
use crate::sim::{Outcome, Sim};

fn download(len: u64, owners: Vec<PeerSpec>, seed: u64) -> Outcome {
    let mut specs = owners;
    specs.push(PeerSpec::leecher(0.0, mbit(100_000.0)));
    Sim::new(len, specs, seed).run(&format!("seed {seed}"), 3_000.0)
}

#[test]
fn four_equal_owners() {
    for (len, rate) in [(256 * MIB, 100.0), (64 * MIB, 100.0), (512 * MIB, 1_000.0), (300 * MIB + 12_345, 40.0)] {
        for seed in 0..2 {
            let outcome = download(len, vec![PeerSpec::seeder(mbit(rate)); 4], seed);
            let ratio = outcome.end / (len as f64 / (4.0 * mbit(rate)));
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
        let outcome = download(len, rates.map(|rate| PeerSpec::seeder(mbit(rate))).to_vec(), seed);
        let ratio = outcome.end / (len as f64 / mbit(260.0));
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
        let mut owners = vec![PeerSpec::seeder(mbit(100.0)); 4];
        let without = download(len, owners.clone(), seed).end;
        owners.insert(0, PeerSpec::seeder(mbit(0.064)));
        let with = download(len, owners, seed);
        println!("64 kbit/s beside 4 fast owners: {:.3} × without, waste {:.4}", with.end / without, with.waste);
        assert!(with.end <= 1.05 * without, "seed {seed}: {} after {without}", with.end);
    }
}

/// F30: half the owners accept and send nothing; F21: one freezes and one is reset half-way.
#[test]
fn silent_and_vanishing_owners() {
    for seed in 0..4 {
        let len = 256 * MIB;
        let good = PeerSpec::seeder(mbit(100.0));
        let faults =
            [Fault::None, Fault::None, Fault::Silent, Fault::Silent, Fault::Vanishes(3.0), Fault::Freezes(3.0)];
        let outcome = download(len, faults.map(|fault| good.clone().with(fault)).to_vec(), seed);
        // Four are good for 3 s, two for the rest.
        let least = (len as f64 - 2.0 * 3.0 * mbit(100.0)) / mbit(200.0);
        println!(
            "2 good, 2 silent, 1 vanishing, 1 freezing: {:.3} × bound, waste {:.4}, silent for {:.2} s at most",
            outcome.end / least,
            outcome.waste,
            outcome.longest_silence
        );
        assert!(outcome.end <= 1.15 * least, "seed {seed}: {} of {least}", outcome.end);
        assert!(outcome.waste <= 0.02, "seed {seed}: {}", outcome.waste);
        assert!(outcome.longest_silence <= 5.0, "seed {seed}: replaced after {} s", outcome.longest_silence);
    }
}

/// F31: half of 32 owners give 10 % bad chunks and 10 % disconnects.
#[test]
fn half_of_32_owners_are_bad() {
    for seed in 0..4 {
        let len = 256 * MIB;
        let good = PeerSpec::seeder(mbit(20.0));
        let bad = good.clone().with(Fault::Bad { corrupt: 0.1, disconnect: 0.1 });
        let undisturbed = download(len, vec![good.clone(); 32], seed).end;
        let outcome = download(len, [vec![good; 16], vec![bad; 16]].concat(), seed);
        println!("half of 32 bad: {:.2} × undisturbed, waste {:.4}", outcome.end / undisturbed, outcome.waste);
        assert!(outcome.end <= 3.0 * undisturbed, "seed {seed}");
        assert!(outcome.waste <= 0.15, "seed {seed}: {}", outcome.waste);
    }
}

/// F28: 300 ms round trip; 5 owners.
#[test]
fn long_round_trip() {
    let len = 256 * MIB;
    let outcome = download(len, vec![PeerSpec { latency: 0.3, ..PeerSpec::seeder(mbit(50.0)) }; 5], 1);
    let ratio = outcome.end / (len as f64 / mbit(250.0));
    println!("300 ms round trip: {ratio:.3} × bound, waste {:.4}", outcome.waste);
    assert!(ratio <= 1.35, "{ratio}");
}

/// Links as fast as loopback: the rate must be found, and runs grow, within a few milliseconds.
#[test]
fn fast_links() {
    for (len, limit) in [(64 * MIB, 1.6), (1024 * MIB, 1.1)] {
        let owner = PeerSpec { latency: 0.000_2, ..PeerSpec::seeder(mbit(4_000.0)) };
        let outcome = download(len, vec![owner; 4], 1);
        let ratio = outcome.end / (len as f64 / mbit(16_000.0));
        println!("4 owners × 4 Gbit/s, {} MiB: {ratio:.3} × bound, waste {:.4}", len / MIB, outcome.waste);
        assert!(ratio <= limit, "{ratio}");
        assert!(outcome.waste <= 0.02, "{}", outcome.waste);
    }
}

/// F32: no owner is complete, their union is.
#[test]
fn only_partial_owners() {
    for seed in 0..4 {
        let geometry = Geometry::new(32 * MIB).unwrap();
        let owners = (0..3_usize).map(|owner| {
            let mut have = HaveSet::empty(geometry);
            geometry.indices().filter(|chunk| chunk.as_usize() % 4 != owner).for_each(|chunk| _ = have.insert(chunk));
            PeerSpec { role: Role::Holder(have), ..PeerSpec::seeder(mbit(100.0)) }
        });
        let outcome = download(32 * MIB, owners.collect(), seed);
        let ratio = outcome.end / (32.0 * MIB as f64 / mbit(300.0));
        println!("three partial owners: {ratio:.3} × bound");
        assert!(ratio <= 1.15, "seed {seed}: {ratio}");
    }
}
