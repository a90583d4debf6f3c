//! What is known of one owner: what it holds, whether it may be asked, how fast it is.
//!
//! It decides nothing about chunks and keeps no list of requests, only their number. Invariant: an owner
//! dropped for a bad chunk stays dropped, whatever is announced about it later.

use std::time::{Duration, Instant};

use potluck_common::chunk::ChunkIndex;

use super::SchedulerConfig;
use super::bits::Bits;

/// Whether an owner may be asked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be asked, at once or after a back-off.
    Usable,
    /// The tracker no longer lists it.
    Gone,
    /// It failed too often in a row; announced again after this instant, it gets another chance.
    GivenUp {
        /// Until then announcements do not help it.
        until: Instant,
    },
    /// It sent a bad chunk.
    Dropped,
}

/// Why an owner is not asked for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    Choked,
    BackOff,
    /// It was slow; what it is worth after the pause has to be measured anew.
    Slow,
}

#[derive(Debug)]
pub(super) struct Owner {
    pub(super) standing: Standing,
    /// `None`: every chunk.
    pub(super) holds: Option<Bits>,
    /// Claimed, asked for, and answered "not held".
    absent: Option<Bits>,
    n_not_held: u32,
    pub(super) n_requests: u32,
    pub(super) pause: Option<(Pause, Instant)>,
    n_failures: u32,
    failed_at: Option<Instant>,
    n_slow: u32,
    pub(super) meter: Meter,
    pub(super) round_trip: Option<Duration>,
    /// How many requests it gets beyond the configured number, on a long round trip.
    pub(super) n_extra: u32,
    rate_before_extra: f64,
    /// The longest run it gets, in bytes, until a few have arrived whole.
    pub(super) run_len: u64,
    /// The chunk after its last run, where its next run preferably begins.
    pub(super) cursor: Option<u32>,
    /// There was nothing left for it in this epoch of the chunks.
    pub(super) barren_in: Option<u64>,
    pub(super) n_bytes: u64,
}

impl Owner {
    /// One of which nothing is known yet.
    pub(super) fn unlisted(n_chunks: u32, config: &SchedulerConfig) -> Self {
        Self {
            standing: Standing::Gone,
            holds: Some(Bits::empty(n_chunks)),
            absent: None,
            n_not_held: 0,
            n_requests: 0,
            pause: None,
            n_failures: 0,
            failed_at: None,
            n_slow: 0,
            meter: Meter::new(config.rate_memory),
            round_trip: None,
            n_extra: 0,
            rate_before_extra: 0.0,
            run_len: config.first_run_len,
            cursor: None,
            barren_in: None,
            n_bytes: 0,
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.standing == Standing::Usable
    }

    pub(super) fn is_partial(&self) -> bool {
        self.holds.is_some()
    }

    pub(super) fn has(&self, chunk: u32) -> bool {
        self.holds.as_ref().is_none_or(|holds| holds.contains(chunk))
    }

    pub(super) fn is_pausing(&self, now: Instant) -> bool {
        self.pause.is_some_and(|(_, until)| until > now)
    }

    /// A claim to hold these chunks, less those that it was asked for and had not, once it lied too often.
    pub(super) fn believe(&mut self, claim: Option<Bits>, n_chunks: u32, config: &SchedulerConfig) -> Option<Bits> {
        match &self.absent {
            None => claim,
            Some(_) if self.n_not_held < config.max_not_held => {
                self.absent = None;
                claim
            }
            Some(absent) => {
                let mut claim = claim.unwrap_or_else(|| Bits::full(n_chunks));
                for chunk in absent.iter() {
                    claim.remove(chunk);
                }
                Some(claim)
            }
        }
    }

    /// The same for one chunk.
    pub(super) fn believes_gain(&mut self, chunk: u32, config: &SchedulerConfig) -> bool {
        let Some(absent) = &mut self.absent else { return true };
        if absent.contains(chunk) && self.n_not_held >= config.max_not_held {
            return false;
        }
        absent.remove(chunk);
        true
    }

    /// It was asked for these chunks and has them not.
    pub(super) fn note_absent(&mut self, chunks: impl IntoIterator<Item = ChunkIndex>, n_chunks: u32) {
        self.n_not_held += 1;
        let absent = self.absent.get_or_insert_with(|| Bits::empty(n_chunks));
        for chunk in chunks {
            absent.insert(chunk.get());
        }
    }

    /// It answered "not held" so often that the answer itself is a failure.
    pub(super) fn lied_too_often(&self, config: &SchedulerConfig) -> bool {
        self.n_not_held > config.max_not_held
    }

    /// A failure of a request issued at `issued`: a back-off, or the end. Requests that ran side by side
    /// and fail together count once.
    pub(super) fn fail(&mut self, issued: Instant, now: Instant, config: &SchedulerConfig, rng: &mut fastrand::Rng) {
        if self.failed_at.is_none_or(|failed_at| issued > failed_at) {
            self.n_failures += 1;
            self.failed_at = Some(now);
        }
        self.run_len = config.first_run_len;
        let doublings = self.n_failures.saturating_sub(1).min(16);
        let wait = (config.back_off * (1 << doublings)).min(config.max_back_off);
        self.pause_for(Pause::BackOff, jittered(wait, rng), now);
    }

    pub(super) fn is_beyond_hope(&self, config: &SchedulerConfig) -> bool {
        self.n_failures >= config.give_up_after
    }

    /// Announced again after it was given up: one more chance, not three.
    pub(super) fn second_chance(&mut self, config: &SchedulerConfig) {
        self.n_failures = config.give_up_after.saturating_sub(1);
        self.pause = None;
    }

    pub(super) fn slow(&mut self, now: Instant, config: &SchedulerConfig, rng: &mut fastrand::Rng) {
        let wait = (config.slow_pause * (1 << self.n_slow.min(16))).min(config.max_slow_pause);
        self.n_slow += 1;
        self.run_len = 0;
        self.pause_for(Pause::Slow, jittered(wait, rng), now);
    }

    pub(super) fn pause_for(&mut self, why: Pause, wait: Duration, now: Instant) {
        let until = now + wait;
        if self.pause.is_none_or(|(_, other)| other < until) {
            self.pause = Some((why, until));
        }
    }

    /// Ends a pause whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        if let Some((why, until)) = self.pause
            && until <= now
        {
            self.pause = None;
            if why == Pause::Slow {
                self.meter.forget();
            }
        }
    }

    /// It delivered a good chunk.
    pub(super) fn delivered(&mut self, n_bytes: u64) {
        self.n_bytes += n_bytes;
        self.n_failures = 0;
    }

    /// A run arrived whole.
    pub(super) fn ran_well(&mut self, now: Instant, config: &SchedulerConfig) {
        self.run_len = self.run_len.max(config.first_run_len).saturating_mul(4).min(config.max_run_len);
        if self.pause.is_some_and(|(why, _)| why == Pause::Choked) {
            self.pause = None; // the slot that this request had is free
        }
        // More requests side by side help only where one alone cannot fill the link. Each further one has
        // to bring at least half of what a link without limit would give.
        let depth = config.per_owner + self.n_extra;
        if let (Some(round_trip), Some(rate)) = (self.round_trip, self.meter.rate(now))
            && round_trip >= config.long_round_trip
            && depth < config.max_per_owner
            && rate >= self.rate_before_extra * (1.0 + 0.5 / f64::from(depth))
        {
            self.n_extra += 1;
            self.rate_before_extra = rate;
        }
    }
}

/// Up to a quarter more, so that many peers that failed together do not come back together.
pub(super) fn jittered(wait: Duration, rng: &mut fastrand::Rng) -> Duration {
    wait.mul_f64(1.0 + 0.25 * rng.f64())
}

/// Bytes a second while requests run, as a moving average.
#[derive(Debug)]
pub(super) struct Meter {
    memory: Duration,
    rate: Option<f64>,
    since: Option<Instant>,
    n_bytes: u64,
}

/// Between two samples; fewer bytes than a few packets would be noise.
const SAMPLE: Duration = Duration::from_millis(50);

impl Meter {
    fn new(memory: Duration) -> Self {
        Self { memory, rate: None, since: None, n_bytes: 0 }
    }

    fn forget(&mut self) {
        (self.rate, self.since) = (None, None);
    }

    pub(super) fn add(&mut self, n_bytes: u64, now: Instant) {
        let Some(since) = self.since else {
            // The clock starts with the first bytes: the wait for them is the round trip.
            (self.since, self.n_bytes) = (Some(now), 0);
            return;
        };
        self.n_bytes += n_bytes;
        if now.saturating_duration_since(since) >= SAMPLE {
            self.rate = self.rate(now);
            (self.since, self.n_bytes) = (Some(now), 0);
        }
    }

    /// A request ended after `elapsed`; the only sample there is if everything came at once.
    pub(super) fn first_guess(&mut self, n_bytes: u64, elapsed: Duration) {
        if self.rate.is_none() && n_bytes > 0 {
            self.rate = Some(n_bytes as f64 / elapsed.max(Duration::from_micros(100)).as_secs_f64());
        }
    }

    /// No request runs any more: time that passes now says nothing about the owner.
    pub(super) fn stop(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) >= SAMPLE / 2) {
            self.rate = self.rate(now);
        }
        self.since = None;
    }

    /// The estimate at `now`, with what has (or has not) come since the last sample.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        let elapsed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if elapsed < SAMPLE / 2 {
            return self.rate;
        }
        let sample = self.n_bytes as f64 / elapsed.as_secs_f64();
        let weight = 1.0 - (-elapsed.as_secs_f64() / self.memory.as_secs_f64()).exp();
        Some(self.rate.map_or(sample, |rate| rate + (sample - rate) * weight))
    }

    pub(super) fn last_rate(&self) -> Option<f64> {
        self.rate
    }
}
