//! How many of something strangers hold: connections, answers that are held back. Limited in all and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The count. Cheap to clone; clones count together.
#[derive(Debug, Default, Clone)]
pub struct PerAddress(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    n_all: usize,
    per_ip: HashMap<IpAddr, usize>,
}

/// One that is counted until it is dropped.
#[derive(Debug)]
pub struct Place {
    counted: PerAddress,
    ip: IpAddr,
}

impl PerAddress {
    /// Counts one more, unless there are `max` in all or `max_per_ip` of this address.
    pub fn take(&self, ip: IpAddr, max: usize, max_per_ip: usize) -> Option<Place> {
        let ip = ip.to_canonical();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n_ip = counts.per_ip.get(&ip).copied().unwrap_or(0);
        if counts.n_all >= max || n_ip >= max_per_ip {
            return None;
        }
        counts.n_all += 1;
        counts.per_ip.insert(ip, n_ip + 1);
        Some(Place { counted: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counted.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.n_all -= 1;
        match counts.per_ip.get_mut(&self.ip) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(counts.per_ip.remove(&self.ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_gives_back() {
        let counted = PerAddress::default();
        let take = |ip: &str| counted.take(ip.parse().unwrap(), 3, 2);
        let places = [take("10.0.0.1"), take("::ffff:10.0.0.1"), take("10.0.0.2")];
        assert!(places.iter().all(Option::is_some));
        assert!(take("10.0.0.1").is_none() && take("10.0.0.3").is_none());
        drop(places);
        let again = [take("10.0.0.1"), take("10.0.0.1"), take("10.0.0.1")];
        assert_eq!(again.iter().flatten().count(), 2);
    }
}
