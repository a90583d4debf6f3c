//! The state of every chunk, and how rare it is.
//!
//! Invariant: a chunk is Missing, InFlight or Held, in exactly one of the three. `missing`, the keys of
//! `carriers`, and `held` are disjoint and together all chunks; every change of state is one method here.
//! It knows requests only by their id, and owners not at all: copies are counts.
//!
//! Missing chunks lie in one bitmap per rank, where the rank is the number of copies at usable partial
//! owners, plus one if a copy is known to be on its way to somebody. Complete owners would add the same
//! to every chunk and are not counted.

use std::collections::BTreeMap;

use potluck_common::chunk::{ChunkIndex, Geometry};
use potluck_common::have::HaveSet;

use super::RequestId;
use super::bits::Bits;

/// Ranks from here on are not told apart: so many copies are no longer rare.
const MAX_RANK: usize = 40;

/// The requests that carry a chunk: one, or two in the endgame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carriers {
    pub(super) first: RequestId,
    pub(super) second: Option<RequestId>,
}

/// All chunks of one content.
#[derive(Debug)]
pub(super) struct Chunks {
    geometry: Geometry,
    missing: Bits,
    n_missing_bytes: u64,
    carriers: BTreeMap<ChunkIndex, Carriers>,
    n_doubled: usize,
    held: HaveSet,
    n_held_bytes: u64,
    copies: Vec<u16>,
    coming: Bits,
    by_rank: Vec<Bits>,
    /// Grows whenever a chunk becomes Missing again, so that "nothing left for this owner" can be remembered.
    pub(super) epoch: u64,
}

impl Chunks {
    pub(super) fn new(geometry: Geometry, have: &HaveSet) -> Self {
        let n_chunks = geometry.n_chunks();
        let mut chunks = Self {
            geometry,
            missing: Bits::empty(n_chunks),
            n_missing_bytes: 0,
            carriers: BTreeMap::new(),
            n_doubled: 0,
            held: HaveSet::empty(geometry),
            n_held_bytes: 0,
            copies: vec![0; n_chunks as usize],
            coming: Bits::empty(n_chunks),
            by_rank: Vec::new(),
            epoch: 0,
        };
        for chunk in geometry.indices() {
            if have.contains(chunk) {
                chunks.held.insert(chunk);
                chunks.n_held_bytes += geometry.len_of(chunk);
            } else {
                chunks.becomes_missing(chunk);
            }
        }
        chunks
    }

    /// The chunk of that number; `None` for the number of another content's chunk.
    pub(super) fn known(&self, chunk: ChunkIndex) -> Option<ChunkIndex> {
        self.geometry.index(chunk.get())
    }

    pub(super) fn missing(&self) -> &Bits {
        &self.missing
    }

    pub(super) fn n_missing_bytes(&self) -> u64 {
        self.n_missing_bytes
    }

    pub(super) fn held(&self) -> &HaveSet {
        &self.held
    }

    pub(super) fn n_held_bytes(&self) -> u64 {
        self.n_held_bytes
    }

    pub(super) fn n_in_flight(&self) -> usize {
        self.carriers.len()
    }

    pub(super) fn n_doubled(&self) -> usize {
        self.n_doubled
    }

    pub(super) fn carriers(&self, chunk: ChunkIndex) -> Option<Carriers> {
        self.carriers.get(&chunk).copied()
    }

    /// Missing → InFlight.
    pub(super) fn take(&mut self, chunk: ChunkIndex, request: RequestId) {
        if self.leaves_missing(chunk) {
            self.carriers.insert(chunk, Carriers { first: request, second: None });
        }
    }

    /// InFlight stays, with another carrier: the tail of `from` was stolen.
    pub(super) fn hand_over(&mut self, chunk: ChunkIndex, from: RequestId, to: RequestId) {
        if let Some(carriers) = self.carriers.get_mut(&chunk) {
            if carriers.first == from {
                carriers.first = to;
            } else if carriers.second == Some(from) {
                carriers.second = Some(to);
            }
        }
    }

    /// InFlight stays, with a second carrier: the endgame.
    pub(super) fn double(&mut self, chunk: ChunkIndex, request: RequestId) {
        if let Some(carriers) = self.carriers.get_mut(&chunk)
            && carriers.second.is_none()
        {
            carriers.second = Some(request);
            self.n_doubled += 1;
        }
    }

    /// A carrier failed: InFlight → Missing, unless there is a second one.
    pub(super) fn release(&mut self, chunk: ChunkIndex, request: RequestId) {
        let Some(carriers) = self.carriers.get_mut(&chunk) else { return };
        match *carriers {
            Carriers { first, second: Some(second) } if first == request => {
                *carriers = Carriers { first: second, second: None };
                self.n_doubled -= 1;
            }
            Carriers { second: Some(second), .. } if second == request => {
                carriers.second = None;
                self.n_doubled -= 1;
            }
            Carriers { first, second: None } if first == request => {
                self.carriers.remove(&chunk);
                self.becomes_missing(chunk);
            }
            Carriers { .. } => {}
        }
    }

    /// Missing or InFlight → Held. The carriers it had; `None` if it was Held already.
    pub(super) fn hold(&mut self, chunk: ChunkIndex) -> Option<[Option<RequestId>; 2]> {
        if !self.held.insert(chunk) {
            return None;
        }
        self.n_held_bytes += self.geometry.len_of(chunk);
        match self.carriers.remove(&chunk) {
            Some(Carriers { first, second }) => {
                self.n_doubled -= usize::from(second.is_some());
                Some([Some(first), second])
            }
            None => {
                self.leaves_missing(chunk);
                Some([None, None])
            }
        }
    }

    /// Held → Missing.
    pub(super) fn lose(&mut self, chunk: ChunkIndex) {
        if self.held.remove(chunk) {
            self.n_held_bytes -= self.geometry.len_of(chunk);
            self.becomes_missing(chunk);
        }
    }

    /// A usable partial owner holds it.
    pub(super) fn add_copy(&mut self, chunk: u32) {
        self.rerank(chunk, |chunks| chunks.copies[chunk as usize] = chunks.copies[chunk as usize].saturating_add(1));
    }

    /// One fewer of them.
    pub(super) fn remove_copy(&mut self, chunk: u32) {
        self.rerank(chunk, |chunks| chunks.copies[chunk as usize] = chunks.copies[chunk as usize].saturating_sub(1));
    }

    /// Somebody else is already fetching it.
    pub(super) fn add_coming(&mut self, chunk: ChunkIndex) {
        if !self.coming.contains(chunk.get()) {
            self.rerank(chunk.get(), |chunks| _ = chunks.coming.insert(chunk.get()));
        }
    }

    /// Whether no copy of it is known, at a partial owner or on its way.
    pub(super) fn is_fresh(&self, chunk: ChunkIndex) -> bool {
        self.rank(chunk.get()) == 0
    }

    /// Whether there is anything to tell chunks apart by.
    pub(super) fn all_alike(&self) -> bool {
        self.by_rank.iter().filter(|bits| !bits.is_empty()).count() <= 1
    }

    /// A rarest Missing chunk among `holds` (`None`: all) and its rank; of equals one by lot.
    ///
    /// By lot, and not the next one from some place on: then all leechers that see the same gap would
    /// ask a lone seeder for the same chunk at its start, and go on side by side.
    pub(super) fn rarest(&self, holds: Option<&Bits>, rng: &mut fastrand::Rng) -> Option<(usize, u32)> {
        self.by_rank
            .iter()
            .enumerate()
            .find_map(|(rank, bits)| Some((rank, bits.one_of_both(holds, |n| rng.u32(..n))?)))
    }

    /// Whether a chunk is Missing with that rank or a lower one.
    pub(super) fn missing_with_rank(&self, chunk: u32, rank: usize) -> bool {
        self.missing.contains(chunk) && self.rank(chunk) <= rank
    }

    /// A Missing chunk that no usable partial owner holds.
    pub(super) fn first_without_copy(&self) -> Option<u32> {
        let rank_0 = self.by_rank.first().and_then(|bits| bits.one_of_both(None, |_| 0));
        // A chunk of rank 1 that is coming to somebody has no copy that we could ask for yet.
        rank_0.or_else(|| self.by_rank.get(1)?.one_of_both(Some(&self.coming), |_| 0))
    }

    fn rank(&self, chunk: u32) -> usize {
        (usize::from(self.copies[chunk as usize]) + usize::from(self.coming.contains(chunk))).min(MAX_RANK)
    }

    fn rerank(&mut self, chunk: u32, change: impl FnOnce(&mut Self)) {
        let before = self.rank(chunk);
        change(self);
        let after = self.rank(chunk);
        if before != after && self.missing.contains(chunk) {
            self.by_rank[before].remove(chunk);
            self.rank_bits(after).insert(chunk);
        }
    }

    fn rank_bits(&mut self, rank: usize) -> &mut Bits {
        let n_chunks = self.geometry.n_chunks();
        if self.by_rank.len() <= rank {
            self.by_rank.resize_with(rank + 1, || Bits::empty(n_chunks));
        }
        &mut self.by_rank[rank]
    }

    fn becomes_missing(&mut self, chunk: ChunkIndex) {
        self.missing.insert(chunk.get());
        self.n_missing_bytes += self.geometry.len_of(chunk);
        let rank = self.rank(chunk.get());
        self.rank_bits(rank).insert(chunk.get());
        self.epoch += 1;
    }

    fn leaves_missing(&mut self, chunk: ChunkIndex) -> bool {
        let was = self.missing.remove(chunk.get());
        if was {
            self.n_missing_bytes -= self.geometry.len_of(chunk);
            let rank = self.rank(chunk.get());
            self.by_rank[rank].remove(chunk.get());
        }
        was
    }
}
