//! What is being fetched at the moment: for people to look at, and so that no content is fetched twice at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use potluck_common::ContentId;

use crate::traffic::Meter;
use crate::verb::Transfer;

/// One content that is being fetched.
#[derive(Debug)]
pub struct Moving(Mutex<(Transfer, Meter, bool)>);

impl Moving {
    fn new(name: String, content_id: Option<ContentId>, len: u64) -> Self {
        let transfer = Transfer { name, content_id, len, n_bytes: 0, rate: 0, n_owners: 0, waiting: None };
        Self(Mutex::new((transfer, Meter::default(), true)))
    }

    /// Shows how far it is.
    pub fn on_progress(&self, len: u64, n_bytes: u64, n_owners: usize, waiting: Option<&str>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (transfer, _, changed) = &mut *inner;
        *changed = true;
        (transfer.len, transfer.n_bytes) = (len, n_bytes);
        transfer.n_owners = u32::try_from(n_owners).unwrap_or(u32::MAX);
        transfer.waiting = waiting.map(ToOwned::to_owned);
    }

    /// How far it is, with the rate since the last call.
    pub(super) fn sample(&self, now: Instant) -> Transfer {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (transfer, meter, changed) = &mut *inner;
        *changed = false;
        transfer.rate = meter.sample(transfer.n_bytes, now);
        transfer.clone()
    }

    fn peek(&self) -> Transfer {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// Held by whoever works on a content. Work on the blocking pool outlives a download that is dropped, so it holds a clone:
/// the next download of the same content begins when the last write, record or rename of this one is over.
pub type OnlyHere = Arc<tokio::sync::OwnedMutexGuard<()>>;

/// All contents that are being fetched.
#[derive(Debug, Default)]
pub struct AllMoving {
    list: Mutex<BTreeMap<u64, Arc<Moving>>>,
    locks: Mutex<BTreeMap<ContentId, Weak<tokio::sync::Mutex<()>>>>,
}

/// Keeps an entry in the list for as long as it lives.
pub(super) struct Listed {
    all: Arc<AllMoving>,
    key: u64,
    pub(super) moving: Arc<Moving>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.all.list.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl AllMoving {
    /// How many contents are being fetched.
    pub fn n_moving(&self) -> usize {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What is moving now.
    pub fn transfers(&self) -> Vec<Transfer> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.values().map(|moving| moving.peek()).collect()
    }

    pub(super) fn enter(self: &Arc<Self>, name: String, content_id: Option<ContentId>, len: u64) -> Listed {
        let moving = Arc::new(Moving::new(name, content_id, len));
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let key = list.last_key_value().map_or(0, |(key, _)| key + 1);
        list.insert(key, moving.clone());
        Listed { all: self.clone(), key, moving }
    }

    /// One content is fetched once at a time; who comes second finds it here. What is held is [`OnlyHere`].
    pub(super) fn lock_of(&self, id: ContentId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(&id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(id, Arc::downgrade(&lock));
        lock
    }
}
