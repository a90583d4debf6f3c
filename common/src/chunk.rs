//! Chunk geometry: how a content of a given length is cut.
//!
//! `chunk_len` is a pure function of the length and part of the protocol, so two peers that agree on
//! a length agree on every boundary. A [`ChunkIndex`] can only be made by the [`Geometry`] that has
//! the chunk (after rqbit's `ValidPieceIndex`), which removes the bounds checks further in.

use std::ops::Range;

/// The smallest chunk length in use, in bytes.
pub const MIN_CHUNK_LEN: u64 = 256 << 10;
/// The largest chunk length in use, in bytes.
pub const MAX_CHUNK_LEN: u64 = 16 << 20;
/// Chunk lengths double until a content has at most this many chunks (or [`MAX_CHUNK_LEN`] is reached).
pub const MAX_CHUNKS_BEFORE_DOUBLING: u64 = 16_384;
/// The longest content that peers handle, in bytes (4 TiB): its chunk map is 8 MiB, so a claimed
/// length can never make anybody reserve more than that.
pub const MAX_CONTENT_LEN: u64 = 4 << 40;

/// The chunk length for a content of `len` bytes: a power of two.
///
/// ```
/// use potluck_common::chunk::chunk_len;
/// assert_eq!(chunk_len(0), 256 << 10);
/// assert_eq!(chunk_len(4 << 30), 256 << 10);
/// assert_eq!(chunk_len((4 << 30) + 1), 512 << 10);
/// assert_eq!(chunk_len(1 << 50), 16 << 20);
/// ```
pub const fn chunk_len(len: u64) -> u64 {
    let mut chunk_len = MIN_CHUNK_LEN;
    while chunk_len < MAX_CHUNK_LEN && len.div_ceil(chunk_len) > MAX_CHUNKS_BEFORE_DOUBLING {
        chunk_len *= 2;
    }
    chunk_len
}

/// The number of a chunk that exists: only a [`Geometry`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(u32);

impl ChunkIndex {
    /// As a plain number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As an index into a slice with one item per chunk.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// A length beyond [`MAX_CONTENT_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a content of {0} bytes is longer than the limit of {MAX_CONTENT_LEN} bytes")]
pub struct TooLong(pub u64);

/// How one content is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    len: u64,
    chunk_len: u64,
    n_chunks: u32,
}

impl Geometry {
    /// The geometry of a content of `len` bytes. Empty content has one, empty, chunk: everything
    /// that can be owned has at least one chunk to own.
    pub fn new(len: u64) -> Result<Self, TooLong> {
        if len > MAX_CONTENT_LEN {
            return Err(TooLong(len));
        }
        let chunk_len = chunk_len(len);
        let n_chunks = u32::try_from(len.div_ceil(chunk_len).max(1)).map_err(|_| TooLong(len))?;
        Ok(Self { len, chunk_len, n_chunks })
    }

    /// Length of the content in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the content has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Length of every chunk but the last, in bytes.
    pub const fn chunk_len(&self) -> u64 {
        self.chunk_len
    }

    /// How many chunks there are; at least one.
    pub const fn n_chunks(&self) -> u32 {
        self.n_chunks
    }

    /// The chunk of that number, if there is one.
    pub fn index(&self, number: u32) -> Option<ChunkIndex> {
        (number < self.n_chunks).then_some(ChunkIndex(number))
    }

    /// The last chunk: the one that proves the length.
    pub fn last(&self) -> ChunkIndex {
        ChunkIndex(self.n_chunks - 1)
    }

    /// All chunks in order.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = ChunkIndex> + ExactSizeIterator + use<> {
        (0..self.n_chunks).map(ChunkIndex)
    }

    /// The bytes of a chunk, as offsets into the content.
    pub fn bytes_of(&self, chunk: ChunkIndex) -> Range<u64> {
        let start = u64::from(chunk.0) * self.chunk_len;
        start..(start + self.chunk_len).min(self.len)
    }

    /// Length of a chunk in bytes.
    pub fn len_of(&self, chunk: ChunkIndex) -> u64 {
        let bytes = self.bytes_of(chunk);
        bytes.end - bytes.start
    }

    /// The bytes of a run of neighbouring chunks `first..first+n`, cut at the end of the content.
    pub fn bytes_of_run(&self, run: Run) -> Range<u64> {
        self.bytes_of(run.first).start..self.bytes_of(run.last()).end
    }

    /// A run of `n` chunks from `first`, cut at the end of the content; never empty.
    pub fn run(&self, first: ChunkIndex, n: u32) -> Run {
        Run { first, n: n.clamp(1, self.n_chunks - first.0) }
    }

    /// The chunks that a byte range touches; `None` if it is empty or leaves the content.
    pub fn chunks_touching(&self, bytes: Range<u64>) -> Option<Run> {
        if bytes.start >= bytes.end || bytes.end > self.len {
            return None;
        }
        let first = u32::try_from(bytes.start / self.chunk_len).ok()?;
        let last = u32::try_from((bytes.end - 1) / self.chunk_len).ok()?;
        Some(Run { first: ChunkIndex(first), n: last - first + 1 })
    }
}

/// Neighbouring chunks that are fetched by one Range request; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    first: ChunkIndex,
    n: u32,
}

impl Run {
    /// Its first chunk.
    pub const fn first(self) -> ChunkIndex {
        self.first
    }

    /// Its last chunk.
    pub const fn last(self) -> ChunkIndex {
        ChunkIndex(self.first.0 + self.n - 1)
    }

    /// How many chunks it has.
    pub const fn n_chunks(self) -> u32 {
        self.n
    }

    /// Its chunks in order.
    pub fn indices(self) -> impl DoubleEndedIterator<Item = ChunkIndex> + ExactSizeIterator + use<> {
        (self.first.0..self.first.0 + self.n).map(ChunkIndex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(len: u64, chunk_len: u64, n_chunks: u32, last_len: u64) {
        let geometry = Geometry::new(len).unwrap();
        assert_eq!(
            (geometry.chunk_len(), geometry.n_chunks(), geometry.len_of(geometry.last())),
            (chunk_len, n_chunks, last_len),
            "len {len}"
        );
        let mut offset = 0;
        for chunk in geometry.indices() {
            let bytes = geometry.bytes_of(chunk);
            assert_eq!(bytes.start, offset);
            offset = bytes.end;
        }
        assert_eq!(offset, len, "chunks cover the content exactly");
    }

    #[test]
    fn boundaries() {
        const K: u64 = 256 << 10;
        check(0, K, 1, 0);
        check(1, K, 1, 1);
        check(K - 1, K, 1, K - 1);
        check(K, K, 1, K);
        check(K + 1, K, 2, 1);
        check(16_384 * K, K, 16_384, K);
        check(16_384 * K + 1, 2 * K, 8_193, 1);
        check(16_384 * (16 << 20) + 1, 16 << 20, 16_385, 1);
        check(MAX_CONTENT_LEN, 16 << 20, 262_144, 16 << 20);
        for len in [MAX_CONTENT_LEN + 1, u64::MAX] {
            assert_eq!(Geometry::new(len), Err(TooLong(len)));
        }
    }

    #[test]
    fn chunks_touching_a_byte_range() {
        let geometry = Geometry::new(3 * MIN_CHUNK_LEN + 10).unwrap();
        let check = |bytes: Range<u64>, want: Option<(u32, u32)>| {
            let got = geometry.chunks_touching(bytes.clone()).map(|run| (run.first().get(), run.n_chunks()));
            assert_eq!(got, want, "{bytes:?}");
        };
        check(0..1, Some((0, 1)));
        check(0..MIN_CHUNK_LEN, Some((0, 1)));
        check(0..MIN_CHUNK_LEN + 1, Some((0, 2)));
        check(MIN_CHUNK_LEN - 1..MIN_CHUNK_LEN + 1, Some((0, 2)));
        check(3 * MIN_CHUNK_LEN..3 * MIN_CHUNK_LEN + 10, Some((3, 1)));
        check(0..geometry.len() + 1, None);
        check(5..5, None);
    }
}
