//! SHA-256 of a shared file, whole and in pieces: what HTTP and Metalink clients verify with. potluck itself has no use for it.
//!
//! Invariant: sums are of the very bytes that the content id names. They are taken together with the id, since a sum of bytes
//! that a disk has damaged would be believed for ever.

use std::fs::File;

use potluck_common::ContentId;
use sha2::{Digest as _, Sha256};

use super::folder::FileIdentity;
use super::hashing::{HashError, READ_LEN, read_proven};

/// One SHA-256.
pub type Sum = [u8; 32];

/// Pieces are no shorter: what is fetched again of a damaged file then is little beside the file.
const MIN_PIECE_LEN: u64 = 1 << 20;
/// Most pieces, so that a Metalink stays below 200 KiB and what is kept of a content below 64 KiB.
const MAX_PIECES: u64 = 2_048;
const _: () = assert!(MIN_PIECE_LEN.is_multiple_of(READ_LEN as u64));
/// The sums of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Of all bytes.
    pub whole: Sum,
    /// Of each piece; none if there is only one.
    pub pieces: Vec<Sum>,
}

impl Sums {
    /// As it is kept: the whole, then the pieces.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.whole[..], self.pieces.as_flattened()].concat()
    }

    /// Reads what was kept.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sums, []) = bytes.as_chunks() else { return None };
        let (whole, pieces) = sums.split_first()?;
        Some(Self { whole: *whole, pieces: pieces.to_vec() })
    }
}

/// The length of the pieces of a content of `len` bytes; the last one may be shorter.
pub fn piece_len(len: u64) -> u64 {
    let mut piece_len = MIN_PIECE_LEN;
    while len.div_ceil(piece_len) > MAX_PIECES {
        piece_len *= 2;
    }
    piece_len
}

/// Reads an open file that is in the state `identity` and has the content `id`, looking now and then whether to stop.
///
/// # Errors
/// [`HashError::Changed`] also if its bytes are not those of the content.
pub fn sums_of(file: &File, identity: FileIdentity, id: ContentId, stop: &dyn Fn() -> bool) -> Result<Sums, HashError> {
    let piece_len = piece_len(identity.len);
    let (mut whole, mut piece, mut pieces) = (Sha256::new(), Sha256::new(), Vec::new());
    let mut n_taken = 0;
    read_proven(file, identity, id, stop, |bytes| {
        whole.update(bytes);
        // Pieces are a multiple of what is read at once, so none begins in the middle of it.
        piece.update(bytes);
        n_taken += bytes.len() as u64;
        if n_taken.is_multiple_of(piece_len) || n_taken == identity.len {
            pieces.push(piece.finalize_reset().into());
        }
    })?;
    if pieces.len() == 1 {
        pieces.clear();
    }
    Ok(Sums { whole: whole.finalize().into(), pieces })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(len: usize) -> (File, Vec<u8>) {
        let mut data = vec![0; len];
        fastrand::Rng::with_seed(len as u64).fill(&mut data);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&data).unwrap();
        (file, data)
    }

    #[test]
    fn whole_and_pieces() {
        let mib = 1 << 20;
        for (len, n_pieces) in [(0, 0), (1, 0), (mib, 0), (mib + 1, 2), (3 * mib, 3), (3 * mib + READ_LEN + 1, 4)] {
            let (file, data) = file_of(len);
            let identity = FileIdentity::of(&file).unwrap();
            let sums = sums_of(&file, identity, ContentId::of(&data), &|| false).unwrap();
            assert_eq!(sums.whole, Sum::from(Sha256::digest(&data)), "{len}");
            let want: Vec<Sum> = data.chunks(mib).map(|piece| Sha256::digest(piece).into()).collect();
            assert_eq!(sums.pieces, if n_pieces == 0 { vec![] } else { want }, "{len}");
            assert_eq!(sums.pieces.len(), n_pieces, "{len}");
            assert_eq!(Sums::from_bytes(&sums.to_bytes()), Some(sums));
        }
        assert_eq!(Sums::from_bytes(&[]), None);
        assert_eq!(Sums::from_bytes(&[1; 33]), None);
    }

    #[test]
    fn never_of_other_bytes() {
        let (mut file, data) = file_of(10_000);
        let identity = FileIdentity::of(&file).unwrap();
        let other = sums_of(&file, identity, ContentId::of(b"other"), &|| false);
        assert!(matches!(other, Err(HashError::Changed)));
        assert!(matches!(sums_of(&file, identity, ContentId::of(&data), &|| true), Err(HashError::Stopped)));
        file.write_all(b"more").unwrap();
        assert!(matches!(sums_of(&file, identity, ContentId::of(&data), &|| false), Err(HashError::Changed)));
    }

    #[test]
    fn piece_lengths() {
        let check = |len: u64, want: u64| assert_eq!(piece_len(len), want, "{len}");
        check(0, 1 << 20);
        check(2 << 30, 1 << 20);
        check((2 << 30) + 1, 2 << 20);
        check(4 << 40, 2 << 30);
    }
}
