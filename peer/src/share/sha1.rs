//! SHA-1 of the pieces of files laid end to end: what BitTorrent clients verify with. potluck itself has no use for it.
//!
//! Invariant: sums are of the very bytes that the content ids name. They are taken together with the ids, since a sum of bytes
//! that a disk has damaged would be believed for ever.

use std::fs::File;

use potluck_common::ContentId;
use sha1::{Digest as _, Sha1};

use super::folder::FileIdentity;
use super::hashing::{HashError, read_proven};

/// The length of one sum in bytes.
pub const SUM_LEN: usize = 20;
/// Pieces are no shorter, so that the sums stay few beside the bytes…
const MIN_PIECE_LEN: u64 = 1 << 20;
/// …and no longer, which clients refuse.
const MAX_PIECE_LEN: u64 = 64 << 20;
/// Between these, as many pieces at most.
const MAX_PIECES: u64 = 4_096;
/// One of the files: its content and its length in bytes.
pub type Part = (ContentId, u64);

/// The length of the pieces of files that have `len` bytes in all; the last one may be shorter.
pub fn piece_len(len: u64) -> u64 {
    let mut piece_len = MIN_PIECE_LEN;
    while piece_len < MAX_PIECE_LEN && len.div_ceil(piece_len) > MAX_PIECES {
        piece_len *= 2;
    }
    piece_len
}

/// What the sums of these files are kept under: they depend on the contents and their order alone.
pub fn key_of(parts: &[Part]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("potluck 2026 SHA-1 sums of pieces of contents, in order");
    for (id, len) in parts {
        hasher.update(id.as_bytes());
        hasher.update(&len.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Takes the sums of pieces while the bytes go by.
pub struct Pieces {
    piece_len: u64,
    n_in_piece: u64,
    piece: Sha1,
    sums: Vec<u8>,
}

impl Pieces {
    /// Of files with so many bytes in all.
    pub fn new(len: u64) -> Self {
        Self { piece_len: piece_len(len), n_in_piece: 0, piece: Sha1::new(), sums: Vec::new() }
    }

    /// The next bytes, wherever pieces begin in them.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.piece_len - self.n_in_piece).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.piece.update(now);
            self.n_in_piece += now.len() as u64;
            if self.n_in_piece == self.piece_len {
                self.end_piece();
            }
            bytes = rest;
        }
    }

    /// The next file, open, which is in the state `identity` and has the content `id`; looks now and then whether to stop.
    ///
    /// # Errors
    /// [`HashError::Changed`] also if its bytes are not those of the content. The sums are of no use then.
    pub fn read(
        &mut self,
        file: &File,
        identity: FileIdentity,
        id: ContentId,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), HashError> {
        read_proven(file, identity, id, stop, |bytes| self.update(bytes))
    }

    /// All sums, [`SUM_LEN`] bytes each.
    pub fn finish(mut self) -> Vec<u8> {
        if self.n_in_piece > 0 {
            self.end_piece();
        }
        self.sums
    }

    fn end_piece(&mut self) {
        self.sums.extend(self.piece.finalize_reset());
        self.n_in_piece = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::hashing::READ_LEN;
    use std::io::Write;

    fn file_of(len: usize) -> (File, FileIdentity, Vec<u8>) {
        let mut data = vec![0; len];
        fastrand::Rng::with_seed(len as u64).fill(&mut data);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&data).unwrap();
        let identity = FileIdentity::of(&file).unwrap();
        (file, identity, data)
    }

    #[test]
    fn pieces_run_on_over_the_ends_of_files() {
        let mib = 1 << 20;
        for lens in
            [&[1][..], &[mib], &[mib + 1], &[3, 0, mib, 2 * mib + 7, 5], &[READ_LEN + 3, mib - READ_LEN - 3, mib]]
        {
            let mut pieces = Pieces::new(lens.iter().sum::<usize>() as u64);
            let mut all = Vec::new();
            for len in lens {
                let (file, identity, data) = file_of(*len);
                pieces.read(&file, identity, ContentId::of(&data), &|| false).unwrap();
                all.extend(data);
            }
            let want: Vec<_> = all.chunks(mib).flat_map(Sha1::digest).collect();
            assert_eq!(pieces.finish(), want, "{lens:?}");
        }
    }

    #[test]
    fn never_of_other_bytes() {
        let (mut file, identity, data) = file_of(10_000);
        let id = ContentId::of(&data);
        let read = |file: &File, id, stop: bool| Pieces::new(10_000).read(file, identity, id, &|| stop);
        assert!(matches!(read(&file, ContentId::of(b"other"), false), Err(HashError::Changed)));
        assert!(matches!(read(&file, id, true), Err(HashError::Stopped)));
        file.write_all(b"more").unwrap();
        assert!(matches!(read(&file, id, false), Err(HashError::Changed)));
    }

    #[test]
    fn piece_lengths() {
        let check = |len: u64, want: u64| assert_eq!(piece_len(len), want, "{len}");
        check(0, 1 << 20);
        check(4 << 30, 1 << 20);
        check((4 << 30) + 1, 2 << 20);
        check(4 << 40, 64 << 20);
    }

    #[test]
    fn kept_under_what_they_are_of() {
        let [a, b] = [b"a", b"b"].map(|bytes| (ContentId::of(bytes), 1));
        assert_eq!(key_of(&[a, b]), key_of(&[a, b]));
        assert_ne!(key_of(&[a, b]), key_of(&[b, a]));
        assert_ne!(key_of(&[a]), key_of(&[(a.0, 2)]));
    }
}
