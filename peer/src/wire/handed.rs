//! What has just begun to go out, and to whom.
//!
//! Leechers that start together choose what to ask of a lone seeder before they have heard of each other, and a chunk that
//! goes out twice delays the last one that goes out once. So a request may say that it is meant for a chunk of which no copy
//! is known, and is refused if one is on its way. Only for moments: then the copy's new owner is heard of.
//!
//! Pure: the time comes in. Bounded by time and number; what is forgotten early costs a copy sent twice.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use potluck_common::ContentId;
use potluck_common::chunk::{ChunkIndex, Run};

/// By then whoever follows the content has heard of it, also one who is still looking for its neighbours.
const RECENT: Duration = Duration::from_secs(2);
/// Chunks of 256 KiB that a link of 10 Gbit/s takes within that time.
const MAX_RECENT: usize = 10_000;

/// Chunks that have begun to go to somebody.
#[derive(Debug, Default)]
pub struct Handed {
    to: BTreeMap<(ContentId, u32), (Instant, IpAddr)>,
    order: VecDeque<(Instant, ContentId, u32)>,
}

impl Handed {
    /// The chunks of a run begin to go to `to`.
    ///
    /// # Errors
    /// If they were asked for as fresh, and these are on their way to somebody else; then none goes.
    pub fn hand(
        &mut self,
        id: ContentId,
        run: Run,
        to: IpAddr,
        is_fresh: bool,
        now: Instant,
    ) -> Result<(), Vec<ChunkIndex>> {
        self.forget(now);
        let is_elsewhere = |chunk: &ChunkIndex| self.to.get(&(id, chunk.get())).is_some_and(|(_, other)| *other != to);
        let elsewhere: Vec<ChunkIndex> = run.indices().filter(|chunk| is_fresh && is_elsewhere(chunk)).collect();
        if !elsewhere.is_empty() {
            return Err(elsewhere);
        }
        for chunk in run.indices() {
            self.to.insert((id, chunk.get()), (now, to));
            self.order.push_back((now, id, chunk.get()));
        }
        self.forget(now);
        Ok(())
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, id, chunk)) = self.order.front().copied()
            && (now.saturating_duration_since(at) >= RECENT || self.order.len() > MAX_RECENT)
        {
            self.order.pop_front();
            // It may have gone out again since.
            if self.to.get(&(id, chunk)).is_some_and(|(noted, _)| *noted == at) {
                self.to.remove(&(id, chunk));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_common::chunk::{Geometry, MIN_CHUNK_LEN};

    #[test]
    fn recent_and_to_somebody_else() {
        let geometry = Geometry::new(20_000 * MIN_CHUNK_LEN).unwrap();
        let run = |first, n| geometry.run(geometry.index(first).unwrap(), n);
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let (id, start) = (ContentId::of(b"x"), Instant::now());
        let mut handed = Handed::default();
        let refused = |handed: &mut Handed, run, to, now| -> Vec<u32> {
            let elsewhere = handed.hand(id, run, to, true, now).err().unwrap_or_default();
            elsewhere.into_iter().map(ChunkIndex::get).collect()
        };
        assert_eq!(refused(&mut handed, run(5, 2), a, start), [0; 0]);
        assert_eq!(refused(&mut handed, run(4, 9), b, start), [5, 6]);
        assert_eq!(refused(&mut handed, run(5, 1), a, start), [0; 0], "it asks again");
        assert!(handed.hand(ContentId::of(b"y"), run(5, 1), b, true, start).is_ok(), "another content");
        handed.hand(id, run(6, 1), b, false, start + RECENT / 2).expect("not asked for as fresh");
        assert_eq!(refused(&mut handed, run(5, 9), a, start + RECENT), [6]);
        assert_eq!(refused(&mut handed, run(4, 9), a, start + RECENT * 2), [0; 0], "long ago");
        assert!(handed.hand(id, run(0, 20_000), a, false, start + RECENT * 2).is_ok());
        assert!(handed.to.len() <= MAX_RECENT && handed.order.len() <= MAX_RECENT);
    }
}
