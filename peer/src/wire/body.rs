//! Response bodies: the bytes of a file in slices, one read ahead, or what is in memory; under a limit sent in pieces.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::Stream;
use potluck_common::SharePath;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::crowd::Seat;
use crate::buffers::BufferPool;
use crate::limit::Throttle;
use crate::share::folder::FileIdentity;
use crate::share::sharing::LookAgain;
use crate::traffic::Traffic;

/// Read and sent at once. Larger slices gain nothing on loopback, and two of them are held for each upload.
pub const SLICE_LEN: usize = 256 << 10;

/// What a body is made from.
#[derive(Debug)]
pub struct FileSlices {
    /// The file, open.
    pub file: Arc<File>,
    /// Where it is shared. `None` for one that is being fetched, of which only verified chunks are sent.
    pub shared: Option<Arc<Shared>>,
    /// Which bytes.
    pub bytes: Range<u64>,
    /// Where slices come from.
    pub pool: Arc<BufferPool>,
    /// Counts what is sent.
    pub traffic: Arc<Traffic>,
    /// Asked before each piece.
    pub limit: Throttle,
    /// The upload slot, free again when the body ends or is dropped.
    pub slot: Slot,
}

/// A shared file as it is sent.
#[derive(Debug)]
pub struct Shared {
    /// Its name.
    pub path: SharePath,
    /// The state it must stay in: a file that changes while it is sent ends the body early.
    pub identity: FileIdentity,
    /// Told when it cannot be read, or changes.
    pub look_again: LookAgain,
}

/// The right to one response body.
#[derive(Debug)]
pub struct Slot {
    /// One of all of them.
    pub permit: OwnedSemaphorePermit,
    /// One among those who fetch the same content, for who is fetching it in chunks.
    pub seat: Option<Seat>,
}

/// Bytes that are in memory already, in pieces.
pub fn in_pieces(
    bytes: Bytes,
    limit: Throttle,
    traffic: Arc<Traffic>,
    slot: Slot,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let running = Running::new(traffic.clone());
    futures::stream::unfold(
        (bytes, limit, traffic, running, slot),
        |(mut left, limit, traffic, running, slot)| async move {
            if left.is_empty() {
                return None;
            }
            let piece = next_piece(&mut left, &limit, &traffic).await;
            Some((Ok(piece), (left, limit, traffic, running, slot)))
        },
    )
}

/// What may be sent now, and is counted as sent.
async fn next_piece(left: &mut Bytes, limit: &Throttle, traffic: &Traffic) -> Bytes {
    let n_granted = limit.take_piece(left.len() as u64).await;
    traffic.up.fetch_add(n_granted, Ordering::Relaxed);
    left.split_to(usize::try_from(n_granted).unwrap_or(usize::MAX).min(left.len()))
}

/// Counts a running upload for as long as it lives.
struct Running(Arc<Traffic>);

impl Running {
    fn new(traffic: Arc<Traffic>) -> Self {
        traffic.n_uploads.fetch_add(1, Ordering::Relaxed);
        Self(traffic)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.n_uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FileSlices {
    /// The bytes as a stream; the next slice is read while the last one is sent.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let running = Running::new(self.traffic.clone());
        let ahead = self.read_at(self.bytes.start);
        let begun = (self, Bytes::new(), ahead, running);
        futures::stream::try_unfold(begun, |(mut slices, mut slice, mut ahead, running)| async move {
            if slice.is_empty() {
                let Some(read) = ahead else { return Ok(None) };
                slice = read.await.map_err(io::Error::other)??;
                slices.bytes.start += slice.len() as u64;
                ahead = slices.read_at(slices.bytes.start);
            }
            let piece = next_piece(&mut slice, &slices.limit, &slices.traffic).await;
            Ok(Some((piece, (slices, slice, ahead, running))))
        })
    }

    fn read_at(&self, offset: u64) -> Option<JoinHandle<io::Result<Bytes>>> {
        let left = self.bytes.end.checked_sub(offset).filter(|left| *left > 0)?;
        let len = usize::try_from(left).unwrap_or(SLICE_LEN).min(SLICE_LEN);
        let (file, shared, pool) = (self.file.clone(), self.shared.clone(), self.pool.clone());
        Some(tokio::task::spawn_blocking(move || {
            let mut buffer = pool.take(len);
            let read = file.read_exact_at(buffer.as_mut(), offset);
            match shared {
                None => read?,
                Some(shared) => shared.check(&file, read)?,
            }
            Ok(Bytes::from_owner(buffer))
        }))
    }
}

impl Shared {
    /// What was read may be sent only if the file is still what was hashed.
    fn check(&self, file: &File, read: io::Result<()>) -> io::Result<()> {
        let changed = || io::Error::other("the file changed while it was sent");
        let checked = read.and_then(|()| FileIdentity::of(file));
        let checked = checked.and_then(|identity| if identity == self.identity { Ok(()) } else { Err(changed()) });
        checked.inspect_err(|error| self.look_again.on_unread(self.path.clone(), self.identity, error))
    }
}
