//! What a peer sends and receives, and how fast.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use potluck_common::protocol::{Flow, Owner, Rates};
use potluck_common::{ContentId, PeerId};

/// Counters of all bytes of contents, and the rates that [`Traffic::run`] derives from them.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes sent.
    pub up: AtomicU64,
    /// Bytes received, verified or not.
    pub down: AtomicU64,
    /// Uploads that run.
    pub n_uploads: AtomicU64,
    /// Uploads refused because all slots were taken.
    pub n_refused: AtomicU64,
    /// Chunks that were fetched and are right.
    pub n_verified: AtomicU64,
    n_failed: [AtomicU64; Reason::ALL.len()],
    rate_up: AtomicU64,
    rate_down: AtomicU64,
    givers: Mutex<Givers>,
}

/// From whom it comes; who has given nothing for a while is not in it.
#[derive(Debug, Default)]
struct Givers {
    by_id: BTreeMap<PeerId, Given>,
    sampled_at: Option<Instant>,
}

/// What one owner gives, over all downloads.
#[derive(Debug)]
struct Given {
    name: String,
    content_id: ContentId,
    n_bytes: u64,
    meter: Meter,
    rate: u64,
}

/// Somebody from whom bytes come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Giver {
    /// Its id.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Of which content the last bytes were.
    pub content_id: ContentId,
    /// Bytes a second.
    pub rate: u64,
}

impl From<Giver> for Flow {
    fn from(giver: Giver) -> Self {
        Self { from: giver.peer_id, content_id: giver.content_id, rate: giver.rate }
    }
}

/// Why a request for bytes came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No connection, or it broke.
    Unreachable,
    /// All the owner's slots were taken.
    Busy,
    /// The owner does not hold what it was asked for.
    NotHeld,
    /// Too few bytes, too many, or something else.
    Short,
    /// A copy was just on its way to somebody.
    Coming,
    /// No byte came for too long.
    Stalled,
    /// The bytes were wrong.
    Corrupt,
}

impl Reason {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::Unreachable, Self::Busy, Self::NotHeld, Self::Short, Self::Coming, Self::Stalled, Self::Corrupt];

    /// What it is called in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::NotHeld => "not_held",
            Self::Short => "short",
            Self::Coming => "coming",
            Self::Stalled => "stalled",
            Self::Corrupt => "corrupt",
        }
    }
}

/// How often rates are taken.
const SAMPLE: Duration = Duration::from_secs(1);

impl Traffic {
    /// Bytes a second over the last seconds.
    pub fn rates(&self) -> Rates {
        Rates { up: self.rate_up.load(Ordering::Relaxed), down: self.rate_down.load(Ordering::Relaxed) }
    }

    /// A request for bytes came to nothing.
    pub fn on_failed(&self, reason: Reason) {
        self.n_failed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many did for this reason.
    pub fn n_failed(&self, reason: Reason) -> u64 {
        self.n_failed[reason as usize].load(Ordering::Relaxed)
    }

    /// Bytes of a content came from an owner.
    pub fn on_received(&self, from: &Owner, content_id: ContentId, n_bytes: u64) {
        self.down.fetch_add(n_bytes, Ordering::Relaxed);
        let mut givers = self.givers.lock().unwrap_or_else(PoisonError::into_inner);
        let Givers { by_id, sampled_at } = &mut *givers;
        let given = by_id.entry(from.peer_id).or_insert_with(|| Given {
            name: from.name.clone(),
            content_id,
            n_bytes: 0,
            // It gave nothing until the last sample, so the next one is a rate already.
            meter: Meter { last: sampled_at.map(|at| (0, at)), rate: 0.0 },
            rate: 0,
        });
        given.n_bytes += n_bytes;
        given.content_id = content_id;
    }

    /// From whom bytes come, the fastest first.
    pub fn givers(&self) -> Vec<Giver> {
        let givers = self.givers.lock().unwrap_or_else(PoisonError::into_inner);
        let moving = givers.by_id.iter().filter(|(_, given)| given.rate > 0);
        let mut moving: Vec<_> = moving
            .map(|(&peer_id, Given { name, content_id, rate, .. })| Giver {
                peer_id,
                name: name.clone(),
                content_id: *content_id,
                rate: *rate,
            })
            .collect();
        moving.sort_by_key(|giver| (Reverse(giver.rate), giver.peer_id));
        moving
    }

    fn sample_givers(&self, now: Instant) {
        let mut givers = self.givers.lock().unwrap_or_else(PoisonError::into_inner);
        givers.sampled_at = Some(now);
        givers.by_id.retain(|_, given| {
            given.rate = given.meter.sample(given.n_bytes, now);
            given.rate > 0
        });
    }

    /// Takes samples for as long as it is polled.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval(SAMPLE);
        let (mut up, mut down) = (Meter::default(), Meter::default());
        loop {
            let now = ticks.tick().await.into_std();
            self.rate_up.store(up.sample(self.up.load(Ordering::Relaxed), now), Ordering::Relaxed);
            self.sample_givers(now);
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
    fn each_reason_has_a_count_of_its_own() {
        let traffic = Traffic::default();
        for (n, reason) in Reason::ALL.into_iter().enumerate() {
            (0..=n).for_each(|_| traffic.on_failed(reason));
        }
        assert_eq!(Reason::ALL.map(|reason| traffic.n_failed(reason)), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn who_gives_and_who_has_stopped() {
        let traffic = Traffic::default();
        let owner = |n: u8| Owner {
            peer_id: PeerId::from_bytes([n; 16]),
            name: format!("node{n}"),
            base_url: String::new(),
            complete: true,
            n_chunks: 1,
        };
        let (first, second) = (ContentId::of(b"1"), ContentId::of(b"2"));
        let mut now = Instant::now();
        traffic.sample_givers(now);
        traffic.on_received(&owner(1), first, 1_000);
        traffic.on_received(&owner(2), first, 2_000_000);
        traffic.on_received(&owner(2), second, 2_000_000);
        assert_eq!(traffic.givers(), [], "no rate is known yet");
        now += Duration::from_secs(1);
        traffic.sample_givers(now);
        assert_eq!(traffic.givers()[1].rate, 500, "half of what came, as in every mean of ours");
        let givers: Vec<_> = traffic.givers().into_iter().map(|giver| (giver.name, giver.content_id)).collect();
        assert_eq!(givers, [("node2".into(), second), ("node1".into(), first)]);
        for _ in 0..30 {
            now += Duration::from_secs(1);
            traffic.sample_givers(now);
        }
        assert_eq!(traffic.givers(), []);
        assert_eq!(traffic.down.load(Ordering::Relaxed), 4_001_000);
    }

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
