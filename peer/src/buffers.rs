//! Buffers that are used again: reading a file in slices of 256 KiB would otherwise cost a page fault per 4 KiB.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A stock of buffers of one length.
#[derive(Debug)]
pub struct BufferPool {
    len: usize,
    max_kept: usize,
    free: Mutex<Vec<Box<[u8]>>>,
}

impl BufferPool {
    /// Buffers of `len` bytes, of which at most `max_kept` are kept while unused.
    pub fn new(len: usize, max_kept: usize) -> Arc<Self> {
        Arc::new(Self { len, max_kept, free: Mutex::default() })
    }

    /// A buffer whose first `len` bytes (at most the pool's length) count; what is in it is left over from before.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = kept.unwrap_or_else(|| vec![0; self.len].into_boxed_slice());
        Buffer { bytes, len: len.min(self.len), pool: self.clone() }
    }
}

/// A buffer that goes back to its pool.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.pool.max_kept {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// A bound on the bytes that wait in memory, in steps of 1 KiB.
#[derive(Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    /// For `len` bytes at once.
    pub fn new(len: usize) -> Self {
        let total = u32::try_from(len >> 10).unwrap_or(u32::MAX >> 4).max(1);
        Self { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits until `len` bytes fit; what is larger than the whole budget takes all of it.
    pub async fn take(&self, len: u64) -> OwnedSemaphorePermit {
        self.free.clone().acquire_many_owned(self.steps(len)).await.expect("the semaphore is never closed")
    }

    /// The same if they fit now and nobody waits.
    pub fn try_take(&self, len: u64) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(self.steps(len)).ok()
    }

    fn steps(&self, len: u64) -> u32 {
        u32::try_from(len.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, self.total)
    }
}

/// Has the allocator keep some megabytes of what is freed, instead of giving each few hundred kilobytes back to the kernel and
/// paying a page fault for every 4 KiB of them a moment later, as it does at first: bodies come in pieces of up to 400 KiB.
///
/// glibc learns from blocks that are freed: blocks of this size are no longer mapped one by one, and twice as much may stay
/// free (`mallopt(3)`, `M_MMAP_THRESHOLD`). Other allocators do nothing about it.
pub fn keep_what_is_freed() {
    const LEN: usize = 4 << 20;
    drop(std::hint::black_box(vec![0_u8; LEN]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let pool = BufferPool::new(10, 1);
        let (mut a, b) = (pool.take(4), pool.take(100));
        assert_eq!((a.as_ref().len(), b.as_ref().len()), (4, 10));
        a.as_mut().fill(7);
        drop((a, b));
        assert_eq!(pool.free.lock().unwrap().len(), 1);
        assert_eq!(pool.take(4).as_ref(), [7; 4]);
    }
}
