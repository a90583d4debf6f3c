//! BLAKE3 subtree maths: the chaining value of a chunk, and the fold of a chunk map to the content id.
//!
//! BLAKE3 is a binary tree over 1 KiB leaves in which every left subtree is complete (section 2.1 of
//! the BLAKE3 paper). A chunk is a power of two of leaves at an offset that is a multiple of its
//! length, hence a complete subtree: its chaining value can be computed alone, and the values of all
//! chunks merge pairwise to the root.
//!
//! Invariant: a [`ChunkMap`] folds to its content id. What the fold does *not* prove is the length
//! and with it the depth of the tree: parents are hashed alike at every level. A verified last chunk proves the length
//! (trust rule 4 in the threat list), and so does a [`LengthProof`].

use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use crate::chunk::{ChunkIndex, Geometry};
use crate::id::ContentId;

/// The value of one chunk: 32 bytes. For a content of a single chunk it is the root hash, otherwise a
/// non-root chaining value.
pub type ChunkValue = [u8; 32];

/// Why bytes are not the chunk map of a content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkMapError {
    /// Its length is not 32 bytes a chunk.
    #[error("a chunk map of {got} bytes where {want} were expected")]
    WrongLen {
        /// 32 × the number of chunks.
        want: u64,
        /// What came.
        got: u64,
    },
    /// It is well-formed and belongs to something else.
    #[error("the chunk map does not fold to the content id")]
    WrongRoot,
}

/// The values of all chunks of a content, in order, that fold to its content id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkMap {
    content_id: ContentId,
    geometry: Geometry,
    values: Box<[ChunkValue]>,
}

impl ChunkMap {
    /// The map of values that we computed ourselves; the content id is what they fold to.
    ///
    /// # Panics
    /// If there is not one value per chunk.
    pub fn from_values(geometry: Geometry, values: Vec<ChunkValue>) -> Self {
        assert_eq!(values.len(), geometry.n_chunks() as usize, "one value per chunk");
        let content_id = ContentId::from_bytes(fold(&values));
        Self { content_id, geometry, values: values.into() }
    }

    /// Accepts the map that somebody sent for `content_id`, if it folds to it.
    pub fn from_wire(content_id: ContentId, geometry: Geometry, bytes: &[u8]) -> Result<Self, ChunkMapError> {
        let (values, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() || values.len() != geometry.n_chunks() as usize {
            return Err(ChunkMapError::WrongLen { want: 32 * u64::from(geometry.n_chunks()), got: bytes.len() as u64 });
        }
        if fold(values) != *content_id.as_bytes() {
            return Err(ChunkMapError::WrongRoot);
        }
        Ok(Self { content_id, geometry, values: values.into() })
    }

    /// As sent on the wire: 32 bytes a chunk.
    pub fn as_wire(&self) -> &[u8] {
        self.values.as_flattened()
    }

    /// What the map folds to.
    pub const fn content_id(&self) -> ContentId {
        self.content_id
    }

    /// The geometry the map was made or accepted with.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The value of a chunk.
    pub fn value(&self, chunk: ChunkIndex) -> &ChunkValue {
        &self.values[chunk.as_usize()]
    }

    /// Whether `data` is exactly the bytes of that chunk.
    pub fn verifies(&self, chunk: ChunkIndex, data: &[u8]) -> bool {
        data.len() as u64 == self.geometry.len_of(chunk)
            && chunk_value(self.geometry, chunk, data) == self.values[chunk.as_usize()]
    }
}

/// The value of a chunk's bytes.
///
/// ```
/// use potluck_common::{Geometry, tree::chunk_value};
/// let geometry = Geometry::new(5)?;
/// assert_eq!(chunk_value(geometry, geometry.last(), b"hello"), *blake3::hash(b"hello").as_bytes());
/// # Ok::<(), potluck_common::chunk::TooLong>(())
/// ```
pub fn chunk_value(geometry: Geometry, chunk: ChunkIndex, data: &[u8]) -> ChunkValue {
    let mut hasher = ChunkHasher::new(geometry, chunk);
    hasher.update(data);
    hasher.finish()
}

/// Computes the value of one chunk from pieces of its bytes.
#[derive(Debug, Clone)]
pub struct ChunkHasher {
    hasher: blake3::Hasher,
    alone: bool,
}

impl ChunkHasher {
    /// Starts at the first byte of `chunk`.
    pub fn new(geometry: Geometry, chunk: ChunkIndex) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(geometry.bytes_of(chunk).start);
        Self { hasher, alone: geometry.n_chunks() == 1 }
    }

    /// Takes the next bytes. The caller gives at most the chunk's length in all.
    pub fn update(&mut self, data: &[u8]) {
        self.hasher.update(data);
    }

    /// The value of all bytes taken.
    pub fn finish(&self) -> ChunkValue {
        if self.alone { *self.hasher.finalize().as_bytes() } else { self.hasher.finalize_non_root() }
    }
}

/// Shows that a chunk map's length is true without the last chunk: its last leaf, and the values that stand beside the
/// way from that leaf up to the chunk's value.
///
/// A leaf's value is computed from its position in the content and from its own length, so no other length leads to the
/// same chunk value. It proves what a whole verified last chunk proves, in at most 1 KiB and 14 values (after the slices
/// of Bao, J. O'Connor). On the wire it is the leaf's length in two bytes (little-endian), the leaf, and the values from the
/// lowest up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LengthProof(Vec<u8>);

/// Length of BLAKE3's own block in bytes.
const LEAF_LEN: u64 = 1024;

impl LengthProof {
    /// The proof for a content of several chunks, from the bytes of its last one.
    ///
    /// # Panics
    /// If the bytes have another length than the last chunk, or the content has a single chunk, whose hash needs no proof.
    pub fn of(geometry: Geometry, last_chunk: &[u8]) -> Self {
        let bytes = geometry.bytes_of(geometry.last());
        assert!(geometry.n_chunks() > 1 && last_chunk.len() as u64 == bytes.end - bytes.start, "the whole last chunk");
        let (mut offset, mut right, mut beside) = (bytes.start, last_chunk, Vec::new());
        while right.len() as u64 > LEAF_LEN {
            let (left, rest) = right.split_at(left_subtree_len(right.len() as u64) as usize);
            beside.push(value_at(offset, left));
            offset += left.len() as u64;
            right = rest;
        }
        let mut wire = (right.len() as u16).to_le_bytes().to_vec();
        wire.extend(right);
        wire.extend(beside.iter().rev().flatten());
        Self(wire)
    }

    /// Takes what somebody sent; it proves nothing until [`LengthProof::proves`].
    pub fn from_wire(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As sent on the wire.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// Whether the length (and so the geometry) that the map was accepted with is that of the content.
    pub fn proves(&self, map: &ChunkMap) -> bool {
        let last = map.geometry.bytes_of(map.geometry.last());
        // Where the lefts of the last chunk's right edge start, from the top down.
        let (mut offset, mut len, mut lefts) = (last.start, last.end - last.start, 0);
        while len > LEAF_LEN {
            lefts += 1;
            offset += left_subtree_len(len);
            len -= left_subtree_len(len);
        }
        let Some((leaf_len, rest)) = self.0.split_first_chunk::<2>() else { return false };
        let Some((leaf, beside)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*leaf_len))) else {
            return false;
        };
        let (beside, stray) = beside.as_chunks::<32>();
        if leaf.len() as u64 != len || beside.len() != lefts || !stray.is_empty() || map.geometry.n_chunks() == 1 {
            return false;
        }
        let value =
            beside.iter().fold(value_at(offset, leaf), |right, left| merge_subtrees_non_root(left, &right, Mode::Hash));
        value == *map.value(map.geometry.last())
    }
}

fn value_at(offset: u64, data: &[u8]) -> ChunkValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(data);
    hasher.finalize_non_root()
}

/// Folds the values of all chunks to the root. One value is the root already.
fn fold(values: &[ChunkValue]) -> ChunkValue {
    if values.len() == 1 {
        return values[0];
    }
    let (left, right) = split(values);
    *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
}

fn subtree(values: &[ChunkValue]) -> ChunkValue {
    if values.len() == 1 {
        return values[0];
    }
    let (left, right) = split(values);
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// The left subtree takes the largest power of two that leaves something for the right one.
fn split(values: &[ChunkValue]) -> (&[ChunkValue], &[ChunkValue]) {
    values.split_at((values.len().div_ceil(2)).next_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::MIN_CHUNK_LEN;
    use proptest::prelude::*;

    fn map_of(data: &[u8]) -> ChunkMap {
        let geometry = Geometry::new(data.len() as u64).unwrap();
        let values = geometry
            .indices()
            .map(|chunk| {
                let bytes = geometry.bytes_of(chunk);
                chunk_value(geometry, chunk, &data[bytes.start as usize..bytes.end as usize])
            })
            .collect();
        ChunkMap::from_values(geometry, values)
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut data = vec![0; len];
        rng.fill(&mut data);
        data
    }

    /// C05: sizes that straddle every boundary, against `blake3::hash`.
    #[test]
    fn oracle_over_boundaries() {
        const K: usize = MIN_CHUNK_LEN as usize;
        let mut lens = vec![0, 1, 1023, 1024, 1025, (1 << 20) + 1];
        for n in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31] {
            lens.extend([n * K - 1, n * K, n * K + 1]);
        }
        for len in lens {
            let data = noise(len, len as u64);
            let map = map_of(&data);
            assert_eq!(map.content_id(), ContentId::of(&data), "len {len}");
            let again = ChunkMap::from_wire(map.content_id(), map.geometry(), map.as_wire());
            assert_eq!(again.as_ref(), Ok(&map));
        }
    }

    #[test]
    fn root_and_chaining_value_are_not_interchangeable() {
        let data = noise(MIN_CHUNK_LEN as usize, 1);
        let two = Geometry::new(2 * MIN_CHUNK_LEN).unwrap();
        let non_root = chunk_value(two, two.index(0).unwrap(), &data);
        assert_ne!(non_root, *ContentId::of(&data).as_bytes());
        let one = Geometry::new(MIN_CHUNK_LEN).unwrap();
        assert_eq!(ChunkMap::from_wire(ContentId::of(&data), one, &non_root), Err(ChunkMapError::WrongRoot));
    }

    /// C03, C04: short, long, reordered, duplicated, flipped maps.
    #[test]
    fn foreign_maps_are_refused() {
        let data = noise(5 * MIN_CHUNK_LEN as usize + 3, 2);
        let map = map_of(&data);
        let good = map.as_wire().to_vec();
        let check = |bytes: &[u8]| ChunkMap::from_wire(map.content_id(), map.geometry(), bytes);
        assert!(check(&good).is_ok());
        assert!(matches!(check(&good[..good.len() - 1]), Err(ChunkMapError::WrongLen { .. })));
        assert!(matches!(check(&good[..good.len() - 32]), Err(ChunkMapError::WrongLen { .. })));
        assert!(matches!(check(&[]), Err(ChunkMapError::WrongLen { .. })));
        let mut long = good.clone();
        long.extend([0; 32]);
        assert!(matches!(check(&long), Err(ChunkMapError::WrongLen { .. })));
        let mut swapped = good.clone();
        swapped.rotate_left(32);
        assert_eq!(check(&swapped), Err(ChunkMapError::WrongRoot));
        let mut doubled = good.clone();
        doubled.copy_within(0..32, 32);
        assert_eq!(check(&doubled), Err(ChunkMapError::WrongRoot));
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            assert_eq!(check(&flipped), Err(ChunkMapError::WrongRoot), "byte {at}");
        }
    }

    /// Trust rule 4: true chaining values fit a false length; the last chunk exposes it.
    #[test]
    fn false_length_folds_and_the_last_chunk_exposes_it() {
        let data = noise(4 * MIN_CHUNK_LEN as usize, 3);
        let map = map_of(&data);
        let lie = Geometry::new(4 * MIN_CHUNK_LEN - 1).unwrap();
        let accepted = ChunkMap::from_wire(map.content_id(), lie, map.as_wire()).expect("the fold cannot see it");
        let last = &data[3 * MIN_CHUNK_LEN as usize..];
        assert!(!accepted.verifies(lie.last(), last));
        assert!(!accepted.verifies(lie.last(), &last[..last.len() - 1]));
    }

    /// The proof holds for the true length alone, and for no damaged proof.
    #[test]
    fn length_proofs() {
        const K: u64 = MIN_CHUNK_LEN;
        for len in [K + 1, K + 1024, K + 1025, K + 3 * 1024, 2 * K - 1, 2 * K, 2 * K + 1, 3 * K + 200_000, 4 * K] {
            let data = noise(len as usize, len);
            let map = map_of(&data);
            let geometry = map.geometry();
            let last = &data[geometry.bytes_of(geometry.last()).start as usize..];
            let proof = LengthProof::of(geometry, last);
            assert!(proof.proves(&map), "len {len}");
            for lie in [len - 1, len + 1, len - 1024, len + 1024, len + K] {
                let Ok(other) = Geometry::new(lie) else { continue };
                if other.n_chunks() != geometry.n_chunks() {
                    continue;
                }
                let accepted = ChunkMap::from_wire(map.content_id(), other, map.as_wire()).unwrap();
                assert!(!proof.proves(&accepted), "len {len} as {lie}");
            }
            let wire = proof.as_wire();
            for at in (0..wire.len()).step_by(37).chain([0, 1, 2, wire.len() - 1]) {
                let mut flipped = wire.to_vec();
                flipped[at] ^= 1;
                assert!(!LengthProof::from_wire(flipped).proves(&map), "len {len}, byte {at}");
                assert!(!LengthProof::from_wire(wire[..at].to_vec()).proves(&map), "len {len}, cut at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn one_flipped_bit_in_a_chunk_is_seen(len in 1usize..(3 * MIN_CHUNK_LEN as usize), at: prop::sample::Index, bit in 0u8..8) {
            let data = noise(len, 4);
            let map = map_of(&data);
            let at = at.index(len);
            let chunk = map.geometry().chunks_touching(at as u64..at as u64 + 1).unwrap().first();
            let bytes = map.geometry().bytes_of(chunk);
            let mut piece = data[bytes.start as usize..bytes.end as usize].to_vec();
            prop_assert!(map.verifies(chunk, &piece));
            piece[at - bytes.start as usize] ^= 1 << bit;
            prop_assert!(!map.verifies(chunk, &piece));
        }
    }
}
