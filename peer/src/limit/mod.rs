//! How fast this peer sends and receives: limits by time of day, changed while it runs.
//!
//! Whoever moves bytes of contents asks a [`Throttle`] before each piece and waits in turn. Chunk maps, have streams, lists
//! and announces are not limited: they are small, and a peer that holds them back would be taken for silent.
//! Invariant: without a limit asking costs one atomic load.

pub mod bucket;
pub mod schedule;

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use bucket::{Bucket, Granted};
use schedule::{Limit, Rate, TimeOfDay};

/// How often is looked whether another time of day has come, with another rate.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The limits of both directions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// What we send.
    pub up: Throttle,
    /// What we receive.
    pub down: Throttle,
}

impl Limits {
    /// Follows the time of day for as long as it is polled.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            for throttle in [&self.up, &self.down] {
                if throttle.limit().has_hours() {
                    throttle.follow(local_time());
                }
            }
        }
    }
}

/// One direction. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Throttle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The rate that holds now; 0 without limit. Changed only while `state` is locked.
    rate: AtomicU64,
    state: Mutex<State>,
    /// Who holds it is the next to be granted anything; the others wait in order.
    turn: tokio::sync::Mutex<()>,
    /// The rate is another.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    limit: Limit,
    bucket: Bucket,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(Limit::OFF)
    }
}

impl Throttle {
    /// With a limit.
    pub fn new(limit: Limit) -> Self {
        let bucket = Bucket::new(None, Instant::now());
        let throttle = Self(Arc::new(Inner {
            rate: AtomicU64::new(0),
            state: Mutex::new(State { limit: Limit::OFF, bucket }),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }));
        throttle.set(limit);
        throttle
    }

    /// Changes the limit, at once also for those who wait.
    pub fn set(&self, limit: Limit) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).limit = limit;
        self.follow(local_time());
    }

    fn follow(&self, time: TimeOfDay) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = state.limit.rate_at(time);
        if rate != self.rate() {
            state.bucket.set_rate(rate, Instant::now());
            self.0.rate.store(rate.map_or(0, NonZeroU64::get), Ordering::Relaxed);
            self.0.changed.notify_waiters();
        }
    }

    /// The limit as it was given.
    pub fn limit(&self) -> Limit {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).limit.clone()
    }

    /// What holds at this time of day.
    pub fn rate(&self) -> Rate {
        NonZeroU64::new(self.0.rate.load(Ordering::Relaxed))
    }

    /// How many transfers side by side each get at least `least` bytes a second; one at least.
    pub fn n_at_once(&self, least: NonZeroU64) -> usize {
        self.rate().map_or(usize::MAX, |rate| usize::try_from(rate.get() / least).unwrap_or(usize::MAX).max(1))
    }

    /// Waits for its turn, and then until a piece of `n_bytes` may move; how long that piece is. Dropping it takes nothing.
    pub async fn take_piece(&self, n_bytes: u64) -> u64 {
        if self.rate().is_none() {
            return n_bytes;
        }
        let _turn = self.0.turn.lock().await;
        self.next_piece(n_bytes).await
    }

    /// The same until all of it may move. Nobody else is granted anything meanwhile: what is asked for whole is of no use in
    /// parts, and many that wait for their parts side by side would all come at once.
    pub async fn take(&self, n_bytes: u64) {
        if self.rate().is_none() {
            return;
        }
        let _turn = self.0.turn.lock().await;
        let mut left = n_bytes;
        while left > 0 {
            left -= self.next_piece(left).await;
        }
    }

    async fn next_piece(&self, n_bytes: u64) -> u64 {
        loop {
            // Made before the look, so that no change after it is missed.
            let changed = self.0.changed.notified();
            let granted = {
                let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.bucket.take(n_bytes, Instant::now())
            };
            match granted {
                Granted::Now(n_granted) => return n_granted,
                Granted::NotBefore(at) => {
                    let _either = tokio::time::timeout_at(at.into(), changed).await;
                }
            }
        }
    }
}

/// The time of day where this machine is: `TZ`, or the system's time zone, or UTC.
fn local_time() -> TimeOfDay {
    let now = jiff::Zoned::now();
    let part = |n: i8| u16::try_from(n).unwrap_or(0);
    TimeOfDay::new(part(now.hour()), part(now.minute()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(limit: &str) -> Throttle {
        Throttle::new(limit.parse().unwrap())
    }

    /// Nobody here gets what it asks for: at this rate that would take years.
    #[tokio::test]
    async fn a_change_wakes_who_waits() {
        let throttle = throttle("16K");
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let throttle = throttle.clone();
                tokio::spawn(async move { throttle.take(1 << 40).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        throttle.set(Limit::OFF);
        let all = futures::future::join_all(waiting);
        let ended = tokio::time::timeout(Duration::from_secs(30), all).await.expect("all of them end");
        assert!(ended.iter().all(Result::is_ok));
        assert_eq!(throttle.take_piece(1 << 40).await, 1 << 40);
    }

    #[tokio::test]
    async fn one_that_gives_up_does_not_hold_up_the_others() {
        let throttle = throttle("16K");
        let given_up = tokio::time::timeout(Duration::from_millis(1), throttle.take(1 << 40)).await;
        assert!(given_up.is_err());
        let next = tokio::time::timeout(Duration::from_secs(30), throttle.take_piece(1 << 40)).await;
        assert!((1..1 << 14).contains(&next.unwrap()));
    }

    #[test]
    fn hours_are_followed() {
        let throttle = throttle("1M,2M@08-18");
        for (hour, want) in [(7, 1 << 20), (8, 2 << 20), (18, 1 << 20)] {
            throttle.follow(TimeOfDay::new(hour, 0));
            assert_eq!(throttle.rate(), NonZeroU64::new(want));
        }
        assert_eq!(throttle.limit().to_string(), "1M,2M@08-18");
    }

    #[test]
    fn at_once() {
        let check = |limit: &str, want: usize| {
            let least = NonZeroU64::new(16 << 10).unwrap();
            assert_eq!(throttle(limit).n_at_once(least), want, "{limit}");
        };
        check("off", usize::MAX);
        check("16K", 1);
        check("100K", 6);
        check("1M", 64);
    }
}
