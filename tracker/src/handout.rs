//! The handout: a bounded random choice of owners, so that a large swarm spreads over all of them.
//!
//! Pure: chance comes in as a seed. Invariant: nobody is named twice, and never more than asked for.

/// Owners named when nothing is asked.
pub const DEFAULT_HANDOUT: usize = 50;
/// Owners named at most, whatever is asked.
pub const MAX_HANDOUT: usize = 200;
/// The share of a full handout that is kept for partial owners: they hold what the complete ones are busy giving away.
const PARTIAL_SHARE: usize = 4;

/// Which of `n_complete` and `n_partial` owners to name, as positions in the two lists.
pub(crate) fn choose(n_complete: usize, n_partial: usize, max: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let max = max.clamp(1, MAX_HANDOUT);
    let for_partial = n_partial.min((max / PARTIAL_SHARE).max(max.saturating_sub(n_complete)));
    let for_complete = n_complete.min(max - for_partial);
    let mut rng = fastrand::Rng::with_seed(seed);
    (sample(n_complete, for_complete, &mut rng), sample(n_partial, for_partial, &mut rng))
}

/// `k` different numbers below `n` in random order (Floyd's algorithm, then a shuffle); `k` is small.
fn sample(n: usize, k: usize, rng: &mut fastrand::Rng) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(k);
    for top in n - k..n {
        let at = rng.usize(..=top);
        chosen.push(if chosen.contains(&at) { top } else { at });
    }
    rng.shuffle(&mut chosen);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// T19.
    #[test]
    fn bounded_and_without_repeats() {
        let check = |n_complete: usize, n_partial: usize, max: usize, want: (usize, usize)| {
            for seed in 0..50 {
                let (complete, partial) = choose(n_complete, n_partial, max, seed);
                assert_eq!((complete.len(), partial.len()), want, "{n_complete} {n_partial} {max}");
                for (list, n) in [(complete, n_complete), (partial, n_partial)] {
                    assert!(list.iter().all(|at| *at < n));
                    assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
                }
            }
        };
        check(0, 0, 50, (0, 0));
        check(3, 2, 50, (3, 2));
        check(100, 0, 50, (50, 0));
        check(100, 100, 50, (38, 12));
        check(10, 100, 50, (10, 40));
        check(1_000_000, 0, usize::MAX, (200, 0));
        check(5, 5, 0, (1, 0));
        check(0, 5, 1, (0, 1));
    }

    #[test]
    fn every_owner_gets_a_turn() {
        let seen: BTreeSet<usize> = (0..2_000).flat_map(|seed| choose(1_000, 0, 50, seed).0).collect();
        assert_eq!(seen.len(), 1_000);
    }
}
