//! How often one address may ask: a token bucket each.
//!
//! Pure: `now` is an argument. Generous, since many peers may stand behind one address (containers behind a NAT,
//! tests on loopback); it only keeps one machine from taking all of the tracker.
//!
//! Invariant: no more than [`RateLimits::max_addresses`] buckets, whatever addresses ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// What one address is granted.
#[derive(Debug, Clone)]
pub struct RateLimits {
    /// Requests a second in the long run. The default serves 1,000 peers that beat every 5 s from one address, five
    /// times over.
    pub per_second: f64,
    /// Requests at once after a pause.
    pub burst: f64,
    /// Buckets kept; when all are taken the fullest go, which loses nothing.
    pub max_addresses: usize,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { per_second: 1_000.0, burst: 4_000.0, max_addresses: 16_384 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of all addresses.
#[derive(Debug)]
pub struct Rate {
    limits: RateLimits,
    buckets: BTreeMap<IpAddr, Bucket>,
}

impl Rate {
    /// Nobody has asked yet.
    pub fn new(limits: RateLimits) -> Self {
        Self { limits, buckets: BTreeMap::new() }
    }

    /// Takes one token, or says how long to wait for one.
    ///
    /// # Errors
    /// The time until the next request is granted.
    pub fn take(&mut self, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        let RateLimits { per_second, burst, max_addresses } = self.limits;
        let filled = |bucket: &Bucket| {
            (bucket.tokens + now.saturating_duration_since(bucket.at).as_secs_f64() * per_second).min(burst)
        };
        let ip = network_of(ip);
        if self.buckets.len() >= max_addresses && !self.buckets.contains_key(&ip) {
            self.buckets.retain(|_, bucket| filled(bucket) < burst);
            if self.buckets.len() >= max_addresses {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = self.buckets.entry(ip).or_insert(Bucket { tokens: burst, at: now });
        *bucket = Bucket { tokens: filled(bucket), at: bucket.at.max(now) };
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / per_second));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

/// A host has a whole /64 of IPv6 to itself, so that counts as one address.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_bursts_then_the_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(RateLimits { per_second: 10.0, burst: 5.0, max_addresses: 2 });
        let a: IpAddr = "10.0.0.1".parse().unwrap();
        let granted = |rate: &mut Rate, ip, now| (0..100).take_while(|_| rate.take(ip, now).is_ok()).count();
        assert_eq!(granted(&mut rate, a, start), 5);
        assert_eq!(rate.take(a, start), Err(Duration::from_millis(100)));
        assert_eq!(granted(&mut rate, a, start + Duration::from_millis(250)), 2);
        assert_eq!(granted(&mut rate, a, start + Duration::from_secs(60)), 5);
        let same = ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(granted(&mut rate, same[0], start), 5);
        assert!(rate.take(same[1], start).is_err(), "one /64 is one address");
        let b: IpAddr = "10.0.0.2".parse().unwrap();
        assert!(rate.take(b, start).is_err(), "no place while two others are short of tokens");
        assert!(rate.take(b, start + Duration::from_secs(120)).is_ok(), "full buckets made place");
    }
}
