//! A token bucket: how many bytes may move now, or when to come again.
//!
//! Pure: it reads no clock and nobody waits in it. Fairness is a matter of asking in turn, and that is up to whoever waits.
//!
//! Invariant: over any time `t` it grants at most `rate × t` and one burst, also across changes of the rate (with the
//! higher one).

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::schedule::Rate;

/// What an idle bucket saves up, in time: 1 % of ten seconds. It must cover how late a waiter is woken on a busy machine,
/// since what flows over is lost.
const BURST: Duration = Duration::from_millis(100);
/// What is granted at once, in time: so smooth is the flow, and with 256 uploads in turn each gets its piece every 2.6 s,
/// before its reader takes it for silent.
const PIECE: Duration = Duration::from_millis(10);
/// The longest piece, in bytes.
const MAX_PIECE_LEN: u64 = 256 << 10;

/// Tokens, one a byte.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    tokens: f64,
    filled_at: Instant,
}

/// The answer to a wish for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// So many may move now.
    Now(u64),
    /// None before this instant.
    NotBefore(Instant),
}

impl Bucket {
    /// An empty one.
    pub const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: 0.0, filled_at: now }
    }

    /// Changes the rate. What was saved up stays, as far as the new rate saves up.
    pub fn set_rate(&mut self, rate: Rate, now: Instant) {
        self.fill(now);
        self.rate = rate;
        self.fill(now);
    }

    /// Wishes to move `n_bytes`: all of them without a limit, otherwise one piece at most.
    pub fn take(&mut self, n_bytes: u64, now: Instant) -> Granted {
        self.fill(now);
        let Some(rate) = self.rate else { return Granted::Now(n_bytes) };
        let wanted = n_bytes.min(piece_len(rate));
        let missing = wanted as f64 - self.tokens;
        if missing <= 0.0 {
            self.tokens -= wanted as f64;
            return Granted::Now(wanted);
        }
        // Up to the next nanosecond, or a waiter that comes just then would be sent away once more.
        let wait = Duration::from_secs_f64(missing / rate.get() as f64) + Duration::from_nanos(1);
        Granted::NotBefore(now + wait)
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        let rate = self.rate.map_or(0.0, |rate| rate.get() as f64);
        self.tokens = (self.tokens + rate * elapsed).min(rate * BURST.as_secs_f64());
    }
}

/// What is granted at once at a rate.
fn piece_len(rate: NonZeroU64) -> u64 {
    let in_time = u128::from(rate.get()) * PIECE.as_nanos() / 1_000_000_000;
    u64::try_from(in_time).unwrap_or(MAX_PIECE_LEN).clamp(1, MAX_PIECE_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(n: u64) -> Rate {
        NonZeroU64::new(n)
    }

    #[test]
    fn without_a_limit_everything_at_once() {
        let now = Instant::now();
        let mut bucket = Bucket::new(None, now);
        assert_eq!(bucket.take(u64::MAX, now), Granted::Now(u64::MAX));
        bucket.set_rate(rate(1 << 20), now);
        assert!(matches!(bucket.take(1, now), Granted::NotBefore(_)), "nothing was saved up");
        bucket.set_rate(None, now);
        assert_eq!(bucket.take(5, now), Granted::Now(5));
    }

    #[test]
    fn idling_saves_a_burst_and_no_more() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(1_000_000), now);
        let later = now + Duration::from_secs(3_600);
        let mut n_granted = 0;
        while let Granted::Now(n) = bucket.take(u64::MAX, later) {
            assert_eq!(n, 10_000);
            n_granted += n;
        }
        assert_eq!(n_granted, 100_000);
    }

    #[test]
    fn a_clock_that_stands_still_grants_nothing() {
        let now = Instant::now() + Duration::from_secs(1);
        let mut bucket = Bucket::new(rate(1_000_000), now);
        assert!(matches!(bucket.take(1, now - Duration::from_secs(1)), Granted::NotBefore(_)));
        assert!(matches!(bucket.take(1, now), Granted::NotBefore(_)));
    }

    proptest! {
        /// Whoever comes when told, at most half a burst late, with wishes of any size, gets nearly all of the rate and
        /// never more; and nobody has to ask more than twice for a piece.
        #[test]
        fn holds_the_rate(
            rate in prop_oneof![(16u64 << 10)..(1 << 20), (1u64 << 20)..(4 << 30)],
            wishes in prop::collection::vec((1u64..(2 << 20), 0u64..50_000), 50..400),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(NonZeroU64::new(rate), now);
            let mut n_granted = 0;
            for (n_bytes, late_us) in wishes {
                let mut left = n_bytes;
                // One that is late every time for a piece of 10 ms gets what was saved up meanwhile in the next ones.
                let mut late = Duration::from_micros(late_us);
                let mut n_refused = 0;
                while left > 0 {
                    match bucket.take(left, now) {
                        Granted::Now(n) => {
                            prop_assert!(0 < n && n <= left);
                            (left, n_refused) = (left - n, 0);
                            n_granted += n;
                        }
                        Granted::NotBefore(at) => {
                            prop_assert!(at > now);
                            n_refused += 1;
                            prop_assert!(n_refused < 2, "told to come, and refused");
                            now = at + std::mem::take(&mut late);
                        }
                    }
                    let elapsed = now.saturating_duration_since(start).as_secs_f64();
                    let most = rate as f64 * (elapsed + BURST.as_secs_f64());
                    prop_assert!(n_granted as f64 <= most + 1.0, "{n_granted} in {elapsed} s at {rate}");
                }
            }
            let elapsed = now.saturating_duration_since(start).as_secs_f64();
            // What is still in the bucket is not lost.
            let least = 0.97 * rate as f64 * elapsed - rate as f64 * BURST.as_secs_f64();
            prop_assert!(n_granted as f64 >= least, "{n_granted} in {elapsed} s at {rate}");
        }

        /// Also while the rate changes, no stretch of time gets more than its highest rate and one burst.
        #[test]
        fn holds_across_changes(rates in prop::collection::vec((16u64 << 10)..(64 << 20), 2..10)) {
            let start = Instant::now();
            let highest = rates.iter().copied().max().unwrap_or(0) as f64;
            let mut bucket = Bucket::new(None, start);
            let (mut now, mut n_granted) = (start, 0);
            for rate in rates {
                bucket.set_rate(NonZeroU64::new(rate), now);
                for _ in 0..20 {
                    match bucket.take(u64::MAX, now) {
                        Granted::Now(n) => n_granted += n,
                        Granted::NotBefore(at) => now = at,
                    }
                }
                let elapsed = now.saturating_duration_since(start).as_secs_f64();
                prop_assert!(n_granted as f64 <= highest * (elapsed + BURST.as_secs_f64()) + 1.0);
            }
        }
    }
}
