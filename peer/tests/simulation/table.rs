//! One row of the table in BENCHMARKS.md, as JSON, and what would be if peers behaved otherwise. The environment says of
//! what: `POTLUCK_SIM_LEECHERS`, `_MIB`, `_SEED`, `_MIXED` (1), `_SLOTS` (seats); `_WAITING` (requests that wait for a slot),
//! `_LISTED_EARLY` (1), `_REQUESTS` (of one download at the same time), `_FIRST_REFRESH_MS`, `_MAX_REFRESH_MS`,
//! `_REFUSES_TWICE` (1), `_GATHER_MS`.

use std::time::Instant;

use crate::MIB;
use crate::sim::Habits;
use crate::swarm::Swarm;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(format!("POTLUCK_SIM_{name}")).map_or(default, |text| text.parse().unwrap())
}

#[test]
#[ignore = "a measurement that takes minutes; ./scripts/bench.sh simulation makes it"]
fn row() {
    let mut swarm = Swarm::of(number("LEECHERS", 100) as usize, number("MIB", 64) * MIB, number("SEED", 1));
    let usual = swarm.habits;
    swarm.is_mixed = number("MIXED", 0) == 1;
    swarm.slots = number("SLOTS", swarm.slots as u64) as usize;
    swarm.habits = Habits {
        n_waiting: number("WAITING", usual.n_waiting as u64) as usize,
        is_listed_early: number("LISTED_EARLY", u64::from(usual.is_listed_early)) == 1,
        refuses_twice: number("REFUSES_TWICE", u64::from(usual.refuses_twice)) == 1,
        first_refresh: number("FIRST_REFRESH_MS", (usual.first_refresh * 1e3) as u64) as f64 / 1e3,
        gather: number("GATHER_MS", (usual.gather * 1e3) as u64) as f64 / 1e3,
        max_refresh: number("MAX_REFRESH_MS", (usual.max_refresh * 1e3) as u64) as f64 / 1e3,
    };
    swarm.config.max_requests = number("REQUESTS", swarm.config.max_requests as u64) as usize;
    let began = Instant::now();
    let it = swarm.run();
    println!(
        r#"{{"leechers": {}, "len": {}, "chunks": {}, "bound": {:.3}, "last": {:.3}, "median": {:.3}, "copies": {:.3}, "copies_max": {}, "waste": {:.4}, "seconds": {:.2}}}"#,
        swarm.n_leechers,
        swarm.len,
        it.n_chunks,
        it.bound,
        it.last(),
        it.median(),
        it.outcome.copies_mean,
        it.outcome.copies_max,
        it.outcome.waste,
        began.elapsed().as_secs_f64(),
    );
}
