//! What a peer sends and receives, and how fast.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use potluck_common::protocol::Rates;

/// Counters of all bytes of contents, and the rates that [`Traffic::run`] derives from them.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes sent.
    pub up: AtomicU64,
    /// Bytes received, verified or not.
    pub down: AtomicU64,
    /// Uploads that run.
    pub n_uploads: AtomicU64,
    rate_up: AtomicU64,
    rate_down: AtomicU64,
}

/// How often rates are taken.
const SAMPLE: Duration = Duration::from_secs(1);

impl Traffic {
    /// Bytes a second over the last seconds.
    pub fn rates(&self) -> Rates {
        Rates { up: self.rate_up.load(Ordering::Relaxed), down: self.rate_down.load(Ordering::Relaxed) }
    }

    /// Takes samples for as long as it is polled.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval(SAMPLE);
        let (mut up, mut down) = (Meter::default(), Meter::default());
        loop {
            let now = ticks.tick().await.into_std();
            self.rate_up.store(up.sample(self.up.load(Ordering::Relaxed), now), Ordering::Relaxed);
            self.rate_down.store(down.sample(self.down.load(Ordering::Relaxed), now), Ordering::Relaxed);
        }
    }
}

/// A rate from samples of a total: an exponentially weighted mean with a time constant of about two samples. Pure.
#[derive(Debug, Default)]
pub struct Meter {
    last: Option<(u64, Instant)>,
    rate: f64,
}

impl Meter {
    /// Takes a sample and gives the rate in bytes a second.
    pub fn sample(&mut self, total: u64, now: Instant) -> u64 {
        const WEIGHT: f64 = 0.5;
        let Some((before, at)) = self.last.replace((total, now)) else { return 0 };
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        if seconds > 0.0 {
            let newest = total.saturating_sub(before) as f64 / seconds;
            self.rate += WEIGHT * (newest - self.rate);
        }
        // Below a byte a second it is over.
        if self.rate < 1.0 { 0 } else { self.rate as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rate_and_dies_out() {
        let (mut meter, mut now, mut total) = (Meter::default(), Instant::now(), 0);
        let mut step = |bytes: u64| {
            now += Duration::from_millis(500);
            total += bytes;
            meter.sample(total, now)
        };
        assert_eq!(step(500), 0, "one sample is no rate");
        let rate = (0..20).map(|_| step(500)).last();
        assert!((990..=1000).contains(&rate.unwrap()), "{rate:?}");
        assert_eq!((0..20).map(|_| step(0)).last(), Some(0));
    }
}
