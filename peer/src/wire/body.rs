//! Response bodies: the bytes of a file, sent by the kernel or in slices of which one is read ahead, or what is in memory;
//! under a limit in pieces.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::Stream;
use potluck_common::SharePath;
use potluck_common::net::sendfile::{FilePart, FileParts, MAX_PART_LEN, OnUnread};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::crowd::Seat;
use super::page_cache;
use crate::buffers::BufferPool;
use crate::limit::Throttle;
use crate::share::folder::FileIdentity;
use crate::share::sharing::LookAgain;
use crate::traffic::Traffic;

/// Read and sent at once. Larger slices gain nothing on loopback, and two of them are held for each upload.
pub const SLICE_LEN: usize = 256 << 10;

/// Shorter ones are read: with so few bytes the copy costs less than the system calls that it saves.
const LEAST_PART_LEN: u64 = 32 << 10;

/// What a body is made from.
#[derive(Debug)]
pub struct FileSlices {
    /// The file, open.
    pub file: Arc<File>,
    /// Where it is shared. `None` for one that is being fetched, of which only verified chunks are sent.
    pub shared: Option<Arc<Shared>>,
    /// Which bytes.
    pub bytes: Range<u64>,
    /// Where parts go that the kernel sends by itself. Only for who verifies what comes: a file that changes right then changes
    /// what the kernel still has to send.
    pub parts: Option<FileParts>,
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
    /// The bytes as a stream.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let running = Running::new(self.traffic.clone());
        let sending = Sending { left: self, slice: Bytes::new(), ahead: None };
        futures::stream::try_unfold((sending, running), |(mut sending, running)| async move {
            Ok(sending.next().await?.map(|piece| (piece, (sending, running))))
        })
    }

    /// The next bytes, if the kernel may send them by itself and need not wait for the disk.
    fn part(&self) -> Option<(Range<u64>, &FileParts)> {
        let parts = self.parts.as_ref()?;
        let Range { start, end } = self.bytes;
        let part = start..end.min(start + MAX_PART_LEN as u64);
        // Under a limit a slice goes out in many pieces, each of which would cost a system call.
        let is_worth_it = part.end - part.start >= LEAST_PART_LEN && self.limit.rate().is_none();
        (is_worth_it && page_cache::holds(&self.file, part.clone())).then_some((part, parts))
    }

    /// Begins to read the next bytes.
    fn read(&self) -> JoinHandle<io::Result<Bytes>> {
        let Range { start, end } = self.bytes;
        let len = usize::try_from(end - start).unwrap_or(SLICE_LEN).min(SLICE_LEN);
        let (file, shared, pool) = (self.file.clone(), self.shared.clone(), self.pool.clone());
        tokio::task::spawn_blocking(move || {
            let mut buffer = pool.take(len);
            let read = file.read_exact_at(buffer.as_mut(), start);
            match shared {
                None => read?,
                Some(shared) => shared.check(&file, read)?,
            }
            Ok(Bytes::from_owner(buffer))
        })
    }
}

/// A body on its way.
struct Sending {
    /// What is neither sent nor read.
    left: FileSlices,
    /// What is read and not sent.
    slice: Bytes,
    /// What is being read: it begins where `left` does.
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Sending {
    /// What goes out next. What is in the page cache, the kernel sends if it may; otherwise a slice is read while the one before it is
    /// sent.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.slice.is_empty() {
            let read = match self.ahead.take() {
                Some(read) => read,
                None if self.left.bytes.is_empty() => return Ok(None),
                None => match self.left.part() {
                    Some((part, parts)) => {
                        let piece = send_part(&self.left, part, parts).await?;
                        self.left.bytes.start += piece.len() as u64;
                        return Ok(Some(piece));
                    }
                    None => self.left.read(),
                },
            };
            self.slice = read.await.map_err(io::Error::other)??;
            self.left.bytes.start += self.slice.len() as u64;
            if !self.left.bytes.is_empty() && self.left.part().is_none() {
                self.ahead = Some(self.left.read());
            }
        }
        Ok(Some(next_piece(&mut self.slice, &self.left.limit, &self.left.traffic).await))
    }
}

/// Has the kernel send as much of a part as may be sent now; what stands in for it.
async fn send_part(from: &FileSlices, part: Range<u64>, parts: &FileParts) -> io::Result<Bytes> {
    let n_granted = from.limit.take_piece(part.end - part.start).await;
    if let Some(shared) = &from.shared {
        shared.check(&from.file, Ok(()))?;
    }
    from.traffic.up.fetch_add(n_granted, Ordering::Relaxed);
    let on_unread =
        from.shared.clone().map(|shared| Arc::new(move |error: &io::Error| shared.on_unread(error)) as OnUnread);
    Ok(parts.push(FilePart { file: from.file.clone(), bytes: part.start..part.start + n_granted, on_unread }))
}

impl Shared {
    /// What was read may be sent only if the file is still what was hashed.
    fn check(&self, file: &File, read: io::Result<()>) -> io::Result<()> {
        let changed = || io::Error::other("the file changed while it was sent");
        let checked = read.and_then(|()| FileIdentity::of(file));
        let checked = checked.and_then(|identity| if identity == self.identity { Ok(()) } else { Err(changed()) });
        checked.inspect_err(|error| self.on_unread(error))
    }

    fn on_unread(&self, error: &io::Error) {
        self.look_again.on_unread(self.path.clone(), self.identity, error);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::{StreamExt, TryStreamExt};
    use tokio::sync::Semaphore;

    use super::*;

    const LEN: usize = 3 * MAX_PART_LEN + 5;

    fn slices(file: File, parts: Option<FileParts>) -> FileSlices {
        FileSlices {
            file: Arc::new(file),
            shared: None,
            bytes: 0..LEN as u64,
            parts,
            pool: BufferPool::new(SLICE_LEN, 2),
            traffic: Arc::default(),
            limit: Throttle::default(),
            slot: Slot { permit: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(), seat: None },
        }
    }

    fn file() -> (File, Vec<u8>) {
        let mut data = vec![0; LEN];
        fastrand::Rng::with_seed(7).fill(&mut data);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&data).unwrap();
        (file, data)
    }

    #[tokio::test]
    async fn the_kernel_sends_what_is_long_and_in_memory_to_who_verifies() {
        let (file, data) = file();
        if !page_cache::holds(&file, 0..LEN as u64) {
            return; // It was just written: this file system cannot tell.
        }
        let sent = slices(file.try_clone().unwrap(), Some(FileParts::default())).into_stream();
        let sent: Vec<Bytes> = sent.try_collect().await.unwrap();
        let lens: Vec<usize> = sent.iter().map(Bytes::len).collect();
        assert_eq!(lens, [MAX_PART_LEN, MAX_PART_LEN, MAX_PART_LEN, 5]);
        // What stands in is not what it stands for; the end is too short to be worth it.
        assert!(sent[..3].iter().all(|piece| piece.iter().all(|byte| *byte == 0)));
        assert_eq!(sent[3], data[3 * MAX_PART_LEN..]);
        let read: Vec<Bytes> = slices(file, None).into_stream().try_collect().await.unwrap();
        assert!(read.iter().all(|piece| piece.len() <= SLICE_LEN));
        assert!(read.concat() == data);
    }

    #[tokio::test]
    async fn a_file_that_got_shorter_ends_the_body_early() {
        let (file, data) = file();
        file.set_len(2 * MAX_PART_LEN as u64 + 9).unwrap();
        let mut stream = std::pin::pin!(slices(file, None).into_stream());
        let mut read = Vec::new();
        let ended = loop {
            match stream.next().await {
                Some(Ok(piece)) => read.extend_from_slice(&piece),
                ended => break ended,
            }
        };
        assert!(matches!(ended, Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof));
        assert!(read == data[..2 * MAX_PART_LEN]);
    }
}
