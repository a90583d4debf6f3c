//! From a file to its content id and chunk map, on several cores.
//!
//! Chunks are hashed independently, so a large file keeps every core busy and a file is read exactly once. The file
//! is compared with its identity before and after: what changed meanwhile has no hash (F13).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use potluck_common::tree::{ChunkHasher, ChunkValue};
use potluck_common::{ChunkIndex, ChunkMap, ContentId, Geometry};

use super::folder::FileIdentity;

/// Why a file has no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// It is not what it was before; try again later.
    #[error("the file changed while it was read")]
    Changed,
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
    /// It cannot be shared.
    #[error(transparent)]
    TooLong(#[from] potluck_common::chunk::TooLong),
    /// The disk failed.
    #[error(transparent)]
    Io(io::Error),
}

/// Files with fewer chunks a thread than this are not worth a thread of their own.
const MIN_CHUNKS_A_THREAD: u32 = 8;
/// Read at once; fits a core's second-level cache together with the hasher's state.
pub(super) const READ_LEN: usize = 128 << 10;

/// Hashes an open file that is in the state `identity`, with at most `n_threads` threads.
///
/// # Errors
/// See [`HashError`].
pub fn hash_file(file: &File, identity: FileIdentity, n_threads: u32) -> Result<ChunkMap, HashError> {
    hash_file_until(file, identity, n_threads, &|| false)
}

/// The same, looking before each chunk whether to stop: a large file takes minutes, and a peer that ends must not wait for it.
///
/// # Errors
/// See [`HashError`].
pub fn hash_file_until(
    file: &File,
    identity: FileIdentity,
    n_threads: u32,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<ChunkMap, HashError> {
    let geometry = Geometry::new(identity.len)?;
    let n_threads = n_threads.min(geometry.n_chunks() / MIN_CHUNKS_A_THREAD).max(1);
    let (next, failed) = (AtomicU32::new(0), AtomicBool::new(false));
    let work = || -> Result<Vec<(ChunkIndex, ChunkValue)>, HashError> {
        let mut buffer = vec![0; READ_LEN.min(usize::try_from(identity.len).unwrap_or(READ_LEN))];
        let mut values = Vec::new();
        while !failed.load(Ordering::Relaxed)
            && let Some(chunk) = geometry.index(next.fetch_add(1, Ordering::Relaxed))
        {
            if stop() {
                failed.store(true, Ordering::Relaxed);
                return Err(HashError::Stopped);
            }
            let value = hash_chunk(file, geometry, chunk, &mut buffer)
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            values.push((chunk, value));
        }
        Ok(values)
    };
    let mut found = if n_threads == 1 {
        work()?
    } else {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(work)).collect();
            let mut found = work();
            for other in others {
                let more = other.join().expect("hashing does not panic");
                found = found.and_then(|mut found| {
                    found.extend(more?);
                    Ok(found)
                });
            }
            found
        })?
    };
    if found.len() < geometry.n_chunks() as usize {
        return Err(HashError::Stopped);
    }
    if FileIdentity::of(file).map_err(HashError::Io)? != identity {
        return Err(HashError::Changed);
    }
    found.sort_unstable_by_key(|(chunk, _)| *chunk);
    Ok(ChunkMap::from_values(geometry, found.into_iter().map(|(_, value)| value).collect()))
}

/// Gives all bytes of an open file that is in the state `identity` and has the content `id` to `take`, in order and in
/// pieces of bounded length; looks now and then whether to stop.
///
/// # Errors
/// [`HashError::Changed`] also if its bytes are not those of the content. What was taken is of no use then.
pub fn read_proven(
    file: &File,
    identity: FileIdentity,
    id: ContentId,
    stop: &dyn Fn() -> bool,
    mut take: impl FnMut(&[u8]),
) -> Result<(), HashError> {
    let mut proof = blake3::Hasher::new();
    let mut buffer = vec![0; READ_LEN.min(usize::try_from(identity.len).unwrap_or(READ_LEN))];
    let mut offset = 0;
    while offset < identity.len {
        if stop() {
            return Err(HashError::Stopped);
        }
        let n = usize::try_from(identity.len - offset).unwrap_or(READ_LEN).min(buffer.len());
        let bytes = &mut buffer[..n];
        read_exact(file, bytes, offset)?;
        proof.update(bytes);
        take(bytes);
        offset += n as u64;
    }
    if *proof.finalize().as_bytes() != *id.as_bytes() || FileIdentity::of(file).map_err(HashError::Io)? != identity {
        return Err(HashError::Changed);
    }
    Ok(())
}

/// A file that ends too early is no longer what it was.
fn read_exact(file: &File, bytes: &mut [u8], offset: u64) -> Result<(), HashError> {
    file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => HashError::Changed,
        _ => HashError::Io(error),
    })
}

fn hash_chunk(file: &File, geometry: Geometry, chunk: ChunkIndex, buffer: &mut [u8]) -> Result<ChunkValue, HashError> {
    let mut hasher = ChunkHasher::new(geometry, chunk);
    let mut bytes = geometry.bytes_of(chunk);
    while bytes.start < bytes.end {
        let want = usize::try_from(bytes.end - bytes.start).unwrap_or(READ_LEN).min(buffer.len());
        let piece = &mut buffer[..want];
        read_exact(file, piece, bytes.start)?;
        hasher.update(piece);
        bytes.start += want as u64;
    }
    Ok(hasher.finish())
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
    fn equals_blake3_whatever_the_threads() {
        const K: usize = 256 << 10;
        for len in [0, 1, READ_LEN, READ_LEN + 1, K - 1, K, K + 1, 33 * K + 7] {
            let (file, data) = file_of(len);
            for n_threads in [1, 2, 5] {
                let map = hash_file(&file, FileIdentity::of(&file).unwrap(), n_threads).unwrap();
                assert_eq!(map.content_id(), ContentId::of(&data), "len {len}, {n_threads} threads");
            }
        }
    }

    #[test]
    fn stops_when_told() {
        let (file, _) = file_of(40 * (256 << 10));
        let n_asked = AtomicU32::new(0);
        let stop = || n_asked.fetch_add(1, Ordering::Relaxed) >= 5;
        let stopped = hash_file_until(&file, FileIdentity::of(&file).unwrap(), 3, &stop);
        assert!(matches!(stopped, Err(HashError::Stopped)));
        assert!(n_asked.into_inner() < 12);
    }

    #[test]
    fn a_file_that_changed_has_no_hash() {
        let (mut file, _) = file_of(3 << 20);
        let before = FileIdentity::of(&file).unwrap();
        file.write_all(b"more").unwrap();
        assert!(matches!(hash_file(&file, before, 2), Err(HashError::Changed)));
        file.set_len(1 << 20).unwrap();
        assert!(matches!(hash_file(&file, before, 2), Err(HashError::Changed)));
    }
}
