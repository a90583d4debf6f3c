//! The have-set: a bitmap of the chunks that somebody holds.
//!
//! On the wire and in state files it is one bit a chunk, the lowest bit of the first byte first, with
//! the unused bits of the last byte zero. In JSON it is hexadecimal text.

use serde::{Deserialize, Serialize};

use crate::chunk::{ChunkIndex, Geometry};

/// Which chunks of a content are held. The number of bits is the content's number of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaveSet {
    words: Vec<u64>,
    n_chunks: u32,
    n_held: u32,
}

/// Bytes that are not a have-set of the expected number of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a have-set of {n_chunks} chunks")]
pub struct HaveSetError {
    n_chunks: u32,
}

impl HaveSet {
    /// Nothing held yet.
    pub fn empty(geometry: Geometry) -> Self {
        let n_chunks = geometry.n_chunks();
        Self { words: vec![0; n_chunks.div_ceil(64) as usize], n_chunks, n_held: 0 }
    }

    /// Everything held.
    pub fn full(geometry: Geometry) -> Self {
        let mut have = Self::empty(geometry);
        for chunk in geometry.indices() {
            have.insert(chunk);
        }
        have
    }

    /// Marks a chunk as held; whether it is news.
    pub fn insert(&mut self, chunk: ChunkIndex) -> bool {
        let (word, bit) = place(chunk);
        let news = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.n_held += u32::from(news);
        news
    }

    /// Marks a chunk as not held; whether it was.
    pub fn remove(&mut self, chunk: ChunkIndex) -> bool {
        let (word, bit) = place(chunk);
        let held = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        self.n_held -= u32::from(held);
        held
    }

    /// Whether a chunk is held.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        let (word, bit) = place(chunk);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// How many chunks are held.
    pub const fn n_held(&self) -> u32 {
        self.n_held
    }

    /// How many chunks there are.
    pub const fn n_chunks(&self) -> u32 {
        self.n_chunks
    }

    /// Whether every chunk is held.
    pub const fn is_complete(&self) -> bool {
        self.n_held == self.n_chunks
    }

    /// The held chunks in order.
    pub fn held(&self, geometry: Geometry) -> impl Iterator<Item = ChunkIndex> + '_ {
        geometry.indices().filter(|chunk| self.contains(*chunk))
    }

    /// One bit a chunk, lowest bit first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.n_chunks.div_ceil(8) as usize);
        bytes
    }

    /// The inverse of [`HaveSet::to_bytes`]; refuses another length and stray bits.
    pub fn from_bytes(geometry: Geometry, bytes: &[u8]) -> Result<Self, HaveSetError> {
        let n_chunks = geometry.n_chunks();
        let refuse = HaveSetError { n_chunks };
        if bytes.len() != n_chunks.div_ceil(8) as usize {
            return Err(refuse);
        }
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|part| {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                u64::from_le_bytes(word)
            })
            .collect();
        let used = n_chunks % 64;
        let stray = used != 0 && words.last().is_some_and(|word| word >> used != 0);
        if stray {
            return Err(refuse);
        }
        let n_held = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { words, n_chunks, n_held })
    }
}

fn place(chunk: ChunkIndex) -> (usize, u64) {
    (chunk.as_usize() / 64, 1 << (chunk.get() % 64))
}

/// A have-set as text in JSON: lower-case hexadecimal of [`HaveSet::to_bytes`]. What it means is known
/// only together with the geometry, so it stays text until [`HaveText::parse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HaveText(String);

impl HaveText {
    /// The have-set, if the text is one for this geometry.
    pub fn parse(&self, geometry: Geometry) -> Result<HaveSet, HaveSetError> {
        let refuse = HaveSetError { n_chunks: geometry.n_chunks() };
        HaveSet::from_bytes(geometry, &hex::decode(&self.0).map_err(|_| refuse)?)
    }
}

impl From<&HaveSet> for HaveText {
    fn from(have: &HaveSet) -> Self {
        Self(hex::encode(have.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::MIN_CHUNK_LEN;
    use std::collections::BTreeSet;

    /// Against a set of numbers, under seeded random operations.
    #[test]
    fn model() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let geometry = Geometry::new(rng.u64(1..200 * MIN_CHUNK_LEN)).unwrap();
            let (mut have, mut model) = (HaveSet::empty(geometry), BTreeSet::new());
            for _ in 0..500 {
                let chunk = geometry.index(rng.u32(..geometry.n_chunks())).unwrap();
                if rng.bool() {
                    assert_eq!(have.insert(chunk), model.insert(chunk), "seed {seed}");
                } else {
                    assert_eq!(have.remove(chunk), model.remove(&chunk), "seed {seed}");
                }
                assert_eq!(have.n_held() as usize, model.len());
            }
            assert!(have.held(geometry).eq(model.iter().copied()), "seed {seed}");
            assert_eq!(HaveSet::from_bytes(geometry, &have.to_bytes()), Ok(have.clone()));
            assert_eq!(HaveText::from(&have).parse(geometry), Ok(have));
        }
    }

    #[test]
    fn refusals() {
        let geometry = Geometry::new(10 * MIN_CHUNK_LEN).unwrap();
        let check = |bytes: &[u8], ok: bool| assert_eq!(HaveSet::from_bytes(geometry, bytes).is_ok(), ok, "{bytes:?}");
        check(&[0xff, 0x03], true);
        check(&[0xff, 0x04], false);
        check(&[0xff], false);
        check(&[0, 0, 0], false);
        check(&[], false);
        assert!(HaveText("zz00".into()).parse(geometry).is_err());
        assert!(HaveSet::full(geometry).is_complete());
    }
}
