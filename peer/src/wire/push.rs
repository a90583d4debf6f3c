//! What one tracker lacks of the index: filled by whoever keeps the index, emptied by the announcer.
//!
//! An entry leaves the queue when the tracker acknowledged it, or when the tracker turned out to know all of it. What it
//! refused because the writer has yet to speak for itself is offered again after a while; what it will never take is remembered, and
//! said once. Whoever learns of a new life of the tracker's index ([`PushQueue::life`]) pulls all of it first and then pushes
//! what was not covered.
//!
//! Invariant: of one path there is one entry, the latest; nothing is dropped because a request failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use potluck_common::protocol::{AnnounceReply, IndexEntry, RefusedBecause, RefusedEntry, SyncMode};
use potluck_common::{Register, SharePath};
use tokio::sync::watch;

/// Entries that wait before whoever pushes all of an index holds back: two announces.
const ROOM: usize = 20_000;
/// What a tracker refused for now is offered again after this time: its writer has long spoken, or left.
const LATER: Duration = Duration::from_secs(20);

/// See the module's text.
#[derive(Debug)]
pub struct PushQueue {
    inner: Mutex<Inner>,
    /// Grows with everything the announcer should wake for.
    news: watch::Sender<u64>,
    /// How many entries wait.
    waiting: watch::Sender<usize>,
    /// The life of the tracker's index; 0: none, or not known yet.
    life: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    mode: Option<SyncMode>,
    waiting: BTreeMap<SharePath, Register>,
    /// Sent and not answered yet.
    sent: BTreeMap<SharePath, Register>,
    /// Refused for now, and since when.
    later: BTreeMap<SharePath, (Register, Instant)>,
    /// The tracker keeps no index.
    is_deaf: bool,
    /// Refused when it was last offered.
    refused: BTreeMap<SharePath, Refusal>,
}

#[derive(Debug)]
struct Refusal {
    register: Register,
    why: RefusedBecause,
    since: Instant,
}

/// What of the synced folder a tracker does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals {
    /// So many paths.
    pub n_paths: usize,
    /// The first of them.
    pub first: RefusedEntry,
}

impl Default for PushQueue {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            news: watch::Sender::new(0),
            waiting: watch::Sender::new(0),
            life: watch::Sender::new(0),
        }
    }
}

impl PushQueue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How we sync; the tracker is told.
    pub fn set_mode(&self, mode: Option<SyncMode>) {
        if std::mem::replace(&mut self.lock().mode, mode) != mode {
            self.news.send_modify(|n| *n += 1);
        }
    }

    /// The tracker lacks this: a write of ours, or one that was learned elsewhere.
    pub fn push(&self, entries: impl IntoIterator<Item = IndexEntry>) {
        let mut inner = self.lock();
        for IndexEntry { path, register } in entries {
            inner.later.remove(&path);
            inner.waiting.insert(path, register);
        }
        self.waiting.send_replace(inner.waiting.len());
        self.news.send_modify(|n| *n += 1);
    }

    /// The tracker knows this: it lacks nothing that is covered by it.
    pub fn covered(&self, path: &SharePath, known: &Register) {
        let mut inner = self.lock();
        if inner.waiting.get(path).is_some_and(|register| known.covers(register)) {
            inner.waiting.remove(path);
            self.waiting.send_replace(inner.waiting.len());
        }
        if inner.later.get(path).is_some_and(|(register, _)| known.covers(register)) {
            inner.later.remove(path);
        }
        // From somebody else: what one peer may not add another may.
        if inner.refused.get(path).is_some_and(|refusal| known.covers(&refusal.register)) {
            inner.refused.remove(path);
        }
    }

    /// Waits until so little waits that all of an index can go on being pushed.
    pub async fn room(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender is ours, so it is there.
        let _ = waiting.wait_for(|n| *n < ROOM).await;
    }

    /// The life of the tracker's index, as its latest answer named it; 0: none known.
    pub fn life(&self) -> watch::Receiver<u64> {
        self.life.subscribe()
    }

    /// Whether the tracker has answered all that was pushed, be it that it refused some.
    pub fn is_answered(&self) -> bool {
        let inner = self.lock();
        inner.waiting.is_empty() && inner.sent.is_empty()
    }

    /// Whether the tracker keeps no index.
    pub fn is_deaf(&self) -> bool {
        self.lock().is_deaf
    }

    /// What the tracker does not take of the paths that are `meant`, as of `now`; a writer who has yet to speak is given some
    /// time for it.
    pub fn refusals(&self, now: Instant, meant: impl Fn(&SharePath) -> bool) -> Option<Refusals> {
        let inner = self.lock();
        let counts = |refusal: &Refusal| refusal.why != RefusedBecause::Ahead || now >= refusal.since + LATER;
        let mut refused = inner.refused.iter().filter(|(path, refusal)| meant(path) && counts(refusal));
        let (path, Refusal { why, .. }) = refused.next()?;
        let first = RefusedEntry { path: path.clone(), why: *why };
        Some(Refusals { n_paths: 1 + refused.count(), first })
    }

    pub(super) fn mode(&self) -> Option<SyncMode> {
        self.lock().mode
    }

    /// Wakes the announcer.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Whether there is something to send now.
    pub(super) fn has_more(&self, now: Instant) -> bool {
        let inner = self.lock();
        !inner.is_deaf && (!inner.waiting.is_empty() || inner.later.values().any(|(_, since)| now >= *since + LATER))
    }

    /// Entries for one announce; [`PushQueue::settle`] or [`PushQueue::give_back`] says what became of them.
    pub(super) fn next_page(&self, max_entries: usize, max_len: usize, now: Instant) -> Vec<IndexEntry> {
        let mut inner = self.lock();
        let Inner { waiting, sent, later, is_deaf, .. } = &mut *inner;
        if *is_deaf {
            return Vec::new();
        }
        for (path, (register, _)) in later.extract_if(.., |_, (_, since)| now >= *since + LATER) {
            waiting.entry(path).or_insert(register);
        }
        let (mut page, mut len) = (Vec::new(), 0);
        while page.len() < max_entries
            && let Some(first) = waiting.first_entry()
        {
            let entry = IndexEntry { path: first.key().clone(), register: first.get().clone() };
            len += entry.json_len_bound();
            if len > max_len && !page.is_empty() {
                break;
            }
            let (path, register) = first.remove_entry();
            sent.insert(path, register);
            page.push(entry);
        }
        self.waiting.send_replace(waiting.len());
        page
    }

    /// The announce with the last page was answered with 200.
    pub(super) fn settle(&self, reply: &AnnounceReply, now: Instant) {
        let mut inner = self.lock();
        inner.is_deaf = reply.index_epoch == 0;
        if inner.is_deaf {
            drop(inner);
            self.give_back();
        } else {
            if *self.life.borrow() != reply.index_epoch {
                // To another index everything is offered anew.
                inner.refused.clear();
            }
            let mut sent = std::mem::take(&mut inner.sent);
            for RefusedEntry { path, why } in &reply.index_refused.items {
                let Some(register) = sent.remove(path) else { continue };
                if *why != RefusedBecause::Ahead {
                    if inner.refused.values().all(|refusal| refusal.why == RefusedBecause::Ahead) {
                        tracing::warn!(path = path.as_str(), %why, "the tracker does not take all of the synced folder");
                    }
                } else if !inner.waiting.contains_key(path) {
                    inner.later.insert(path.clone(), (register.clone(), now));
                }
                let before = inner.refused.get(path).filter(|refusal| refusal.why == *why);
                let since = before.map_or(now, |refusal| refusal.since);
                inner.refused.insert(path.clone(), Refusal { register, why: *why, since });
            }
            for taken in sent.keys() {
                inner.refused.remove(taken);
            }
        }
        self.life.send_if_modified(|life| std::mem::replace(life, reply.index_epoch) != reply.index_epoch);
    }

    /// The announce with the last page was not answered, or refused.
    pub(super) fn give_back(&self) {
        let mut inner = self.lock();
        let sent = std::mem::take(&mut inner.sent);
        for (path, register) in sent {
            inner.waiting.entry(path).or_insert(register);
        }
        self.waiting.send_replace(inner.waiting.len());
    }
}

#[cfg(test)]
mod tests {
    use potluck_common::PeerId;
    use potluck_common::register::{Dot, Value};

    use super::*;

    fn entry(path: &str, n: u64) -> IndexEntry {
        let mut register = Register::default();
        register.write(Dot { by: PeerId::from_bytes([1; 16]), n }, &[], Value::Folder);
        IndexEntry { path: path.parse().unwrap(), register }
    }

    fn reply(index_epoch: u64, refused: &[(&str, RefusedBecause)]) -> AnnounceReply {
        let refused = refused.iter().map(|(path, why)| RefusedEntry { path: path.parse().unwrap(), why: *why });
        AnnounceReply {
            heartbeat_ms: 5_000,
            lease_ms: 15_000,
            seen: "10.0.0.1".parse().unwrap(),
            base_url: String::new(),
            revision: 0,
            resync: false,
            retiring: false,
            reachable: None,
            index_epoch,
            index_refused: refused.collect::<Vec<_>>().into(),
        }
    }

    #[track_caller]
    fn check_page(queue: &PushQueue, now: Instant, want: &[IndexEntry]) {
        assert_eq!(queue.next_page(100, usize::MAX, now), want);
    }

    #[test]
    fn nothing_is_lost_and_nothing_said_twice() {
        let (queue, now) = (PushQueue::default(), Instant::now());
        queue.push([entry("a", 1), entry("b", 1)]);
        check_page(&queue, now, &[entry("a", 1), entry("b", 1)]);
        // Written again while the first is on its way; then the request fails.
        queue.push([entry("b", 2)]);
        queue.give_back();
        assert!(!queue.is_answered());
        check_page(&queue, now, &[entry("a", 1), entry("b", 2)]);
        queue.push([entry("c", 1)]);
        queue.settle(&reply(7, &[]), now);
        assert!(queue.has_more(now) && !queue.is_answered());
        check_page(&queue, now, &[entry("c", 1)]);
        assert!(!queue.is_answered(), "it is on its way");
        queue.settle(&reply(7, &[]), now);
        assert!(!queue.has_more(now) && queue.is_answered() && *queue.life().borrow() == 7);
        // What the tracker tells of itself need not be pushed; an older state of it says nothing.
        queue.push([entry("a", 5), entry("b", 5)]);
        queue.covered(&"a".parse().unwrap(), &entry("a", 5).register);
        queue.covered(&"b".parse().unwrap(), &entry("b", 4).register);
        check_page(&queue, now, &[entry("b", 5)]);
    }

    #[test]
    fn refused_entries() {
        let (queue, now) = (PushQueue::default(), Instant::now());
        queue.push([entry("a", 1), entry("b", 1), entry("c", 1)]);
        assert_eq!(queue.next_page(100, usize::MAX, now).len(), 3);
        let refused = [("a", RefusedBecause::Ahead), ("b", RefusedBecause::Quota), ("z", RefusedBecause::Quota)];
        queue.settle(&reply(7, &refused), now);
        let told =
            |now| queue.refusals(now, |_| true).map(|told| (told.n_paths, told.first.path.to_string(), told.first.why));
        assert!(!queue.has_more(now));
        assert_eq!(told(now), Some((1, "b".into(), RefusedBecause::Quota)));
        assert!(queue.has_more(now + LATER));
        check_page(&queue, now + LATER, &[entry("a", 1)]);
        queue.settle(&reply(7, &[("a", RefusedBecause::Ahead)]), now + LATER);
        assert_eq!(told(now + LATER), Some((2, "a".into(), RefusedBecause::Ahead)), "nobody has spoken for it");
        // What is taken after all is told no more, and nothing of an earlier index.
        queue.push([entry("b", 2)]);
        check_page(&queue, now + LATER, &[entry("b", 2)]);
        queue.settle(&reply(7, &[]), now + LATER);
        queue.covered(&"a".parse().unwrap(), &entry("a", 1).register);
        assert_eq!(told(now + LATER), None);
        queue.push([entry("d", 1)]);
        check_page(&queue, now, &[entry("d", 1)]);
        queue.settle(&reply(7, &[("d", RefusedBecause::TooMany)]), now);
        assert!(told(now).is_some());
        // The tracker has it from somebody else.
        queue.covered(&"d".parse().unwrap(), &entry("d", 1).register);
        assert_eq!(told(now), None);
        queue.push([entry("d", 2)]);
        check_page(&queue, now, &[entry("d", 2)]);
        queue.settle(&reply(7, &[("d", RefusedBecause::TooMany)]), now);
        queue.covered(&"d".parse().unwrap(), &entry("d", 1).register);
        assert!(told(now).is_some(), "it has an older one");
        queue.settle(&reply(8, &[]), now);
        assert_eq!(told(now), None);
    }

    /// F52: a tracker of before the index ignores what it does not know, which is no acknowledgement.
    #[test]
    fn a_tracker_without_an_index() {
        let (queue, now) = (PushQueue::default(), Instant::now());
        queue.push([entry("a", 1)]);
        check_page(&queue, now, &[entry("a", 1)]);
        queue.settle(&reply(0, &[]), now);
        assert!(!queue.has_more(now));
        check_page(&queue, now, &[]);
        queue.settle(&reply(3, &[]), now);
        check_page(&queue, now, &[entry("a", 1)]);
    }

    #[test]
    fn pages_have_bounds() {
        let (queue, now) = (PushQueue::default(), Instant::now());
        queue.push((0..10).map(|n| entry(&format!("f{n}"), 1)));
        let len = entry("f0", 1).json_len_bound();
        assert_eq!(queue.next_page(100, 3 * len, now).len(), 3);
        assert_eq!(queue.next_page(2, usize::MAX, now).len(), 2);
        assert_eq!(queue.next_page(100, 1, now).len(), 1, "one entry always fits");
        assert_eq!(queue.next_page(100, usize::MAX, now).len(), 4);
    }
}
