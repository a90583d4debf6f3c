//! Response bodies: the bytes of a file in slices, one read ahead.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::buffers::BufferPool;
use crate::share::folder::FileIdentity;
use crate::traffic::Traffic;

/// Read and sent at once. Larger slices gain nothing on loopback, and two of them are held for each upload.
pub const SLICE_LEN: usize = 256 << 10;

/// What a body is made from.
#[derive(Debug)]
pub struct FileSlices {
    /// The file, open.
    pub file: Arc<File>,
    /// The state it must stay in: a file that changes while it is sent ends the body early. `None` for one that is being
    /// fetched, of which only verified chunks are sent.
    pub identity: Option<FileIdentity>,
    /// Which bytes.
    pub bytes: Range<u64>,
    /// Where slices come from.
    pub pool: Arc<BufferPool>,
    /// Counts what is sent.
    pub traffic: Arc<Traffic>,
    /// The upload slot, free again when the body ends or is dropped.
    pub slot: OwnedSemaphorePermit,
}

/// Counts a running upload for as long as it lives.
struct Running(Arc<Traffic>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.n_uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FileSlices {
    /// The bytes as a stream; the next slice is read while the last one is sent.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        self.traffic.n_uploads.fetch_add(1, Ordering::Relaxed);
        let running = Running(self.traffic.clone());
        let ahead = self.read_at(self.bytes.start);
        futures::stream::try_unfold((self, ahead, running), |(mut slices, ahead, running)| async move {
            let Some(ahead) = ahead else { return Ok(None) };
            let slice = ahead.await.map_err(io::Error::other)??;
            slices.bytes.start += slice.len() as u64;
            slices.traffic.up.fetch_add(slice.len() as u64, Ordering::Relaxed);
            let ahead = slices.read_at(slices.bytes.start);
            Ok(Some((slice, (slices, ahead, running))))
        })
    }

    fn read_at(&self, offset: u64) -> Option<JoinHandle<io::Result<Bytes>>> {
        let left = self.bytes.end.checked_sub(offset).filter(|left| *left > 0)?;
        let len = usize::try_from(left).unwrap_or(SLICE_LEN).min(SLICE_LEN);
        let (file, identity, pool) = (self.file.clone(), self.identity, self.pool.clone());
        Some(tokio::task::spawn_blocking(move || {
            let mut buffer = pool.take(len);
            file.read_exact_at(buffer.as_mut(), offset)?;
            if let Some(identity) = identity
                && FileIdentity::of(&*file)? != identity
            {
                return Err(io::Error::other("the file changed while it was sent"));
            }
            Ok(Bytes::from_owner(buffer))
        }))
    }
}
