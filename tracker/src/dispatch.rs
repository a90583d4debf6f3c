//! Whom a client that is no peer is sent to: curl and browsers take a file from one owner.
//!
//! Pure: time and chance come in. What owners send is known from their announces and so some seconds old; in
//! between, whom others were sent to counts as well, else a room full of people would all be sent to the same idle owner.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use potluck_common::PeerId;

/// What a download that we sent somebody to is taken to cost its owner, in bytes a second, until the owner's own announce says:
/// a good part of a gigabit link.
const EXPECTED_RATE: u64 = 32 << 20;

/// Who was sent where lately.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// For how long a redirect counts: until owners have announced what they send now.
    window: Duration,
    since: Option<Instant>,
    sent: BTreeMap<PeerId, u64>,
}

impl Dispatch {
    pub(crate) const fn new(window: Duration) -> Self {
        Self { window, since: None, sent: BTreeMap::new() }
    }

    /// Chooses the least busy of these owners, given with the bytes a second that they send; ties by the seed.
    pub(crate) fn choose(&mut self, owners: &[(PeerId, u64)], seed: u64, now: Instant) -> Option<usize> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= self.window) {
            self.since = Some(now);
            self.sent.clear();
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let cost = |(peer, up): &(PeerId, u64)| {
            let n_sent = self.sent.get(peer).copied().unwrap_or(0);
            up.saturating_add(n_sent.saturating_mul(EXPECTED_RATE))
        };
        let (at, (peer, _)) = owners.iter().enumerate().min_by_key(|(_, owner)| (cost(owner), rng.u64(..)))?;
        *self.sent.entry(*peer).or_default() += 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);

    fn peers(rates: &[u64]) -> Vec<(PeerId, u64)> {
        let id = |n: usize| PeerId::from_bytes([u8::try_from(n).unwrap(); 16]);
        rates.iter().enumerate().map(|(n, up)| (id(n), *up)).collect()
    }

    #[test]
    fn the_least_busy_then_in_turn() {
        let (mut dispatch, start) = (Dispatch::new(WINDOW), Instant::now());
        assert_eq!(dispatch.choose(&[], 1, start), None);
        let owners = peers(&[EXPECTED_RATE * 5 / 2, 0, EXPECTED_RATE / 2]);
        let mut sent = [0; 3];
        for seed in 0..11 {
            sent[dispatch.choose(&owners, seed, start).unwrap()] += 1;
        }
        assert_eq!(sent, [2, 5, 4], "all come to cost the same");
        assert_eq!(dispatch.choose(&owners, 1, start + WINDOW), Some(1), "rates are fresh again");
    }

    #[test]
    fn ties_go_to_everybody() {
        let owners = peers(&[7; 10]);
        let first = |seed| Dispatch::new(WINDOW).choose(&owners, seed, Instant::now()).unwrap();
        let chosen: std::collections::BTreeSet<_> = (0..500).map(first).collect();
        assert_eq!(chosen.len(), 10);
    }
}
