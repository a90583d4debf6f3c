//! One peer's catalogue: what it said it holds, in the index's numbers.
//!
//! Invariant: every entry is counted in the index as known, and as listed exactly while its peer is present; no
//! content is both a file and a partial entry.

use std::collections::{BTreeMap, BTreeSet};

use potluck_common::protocol::{Announce, Entry, PartialEntry};
use potluck_common::{PeerId, SharePath};

use crate::events::{FilesEvent, MAX_EVENT_PATHS};
use crate::index::{ContentIx, Index, NameIx, PeerIx};
use crate::record::StoredEntry;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    files: BTreeMap<NameIx, ContentIx>,
    partial: BTreeMap<ContentIx, u32>,
    n_bytes: u128,
}

/// What a message says about a catalogue.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) added: Vec<Entry>,
    pub(crate) removed: Vec<SharePath>,
    pub(crate) partial: Vec<PartialEntry>,
}

/// Where the changes start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// What is known: what the changes do not name stays.
    Known,
    /// Nothing: what the changes do not name goes.
    Nothing,
}

/// What goes into the delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// What differs from before.
    Differences,
    /// Every entry of the changes: the store starts anew.
    Everything,
}

/// What the changes came down to.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub(crate) removed: Vec<SharePath>,
    pub(crate) added: Vec<StoredEntry>,
    pub(crate) partial: Vec<PartialEntry>,
}

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.partial.is_empty()
    }

    /// As others are told of it.
    pub(crate) fn event(&self, peer_id: PeerId) -> Option<FilesEvent> {
        (!self.removed.is_empty() || !self.added.is_empty()).then(|| FilesEvent {
            peer_id,
            added: self.added.iter().take(MAX_EVENT_PATHS).map(|entry| entry.path.clone()).collect(),
            removed: self.removed.iter().take(MAX_EVENT_PATHS).cloned().collect(),
            n_added: self.added.len() as u64,
            n_removed: self.removed.len() as u64,
        })
    }
}

impl Catalogue {
    /// Takes back what the store kept; the peer is absent.
    pub(crate) fn restore(&mut self, index: &mut Index, entries: Vec<StoredEntry>, partial: &[PartialEntry]) {
        for StoredEntry { path, content_id, len, since_ms } in entries {
            let (name, content) = index.know(path, content_id, len, since_ms);
            if let Some(old) = self.files.insert(name, content) {
                index.forget(name, old);
            } else {
                self.n_bytes += u128::from(len);
            }
        }
        for entry in partial.iter().filter(|entry| entry.n_chunks > 0) {
            let content = index.know_content(entry.content_id, entry.len);
            if self.partial.insert(content, entry.n_chunks).is_some() {
                index.forget_content(content);
            }
        }
    }

    /// Applies changes of a present peer.
    pub(crate) fn apply(
        &mut self,
        peer: PeerIx,
        index: &mut Index,
        changes: Changes,
        (start, report): (Start, Report),
        now_ms: u64,
    ) -> Delta {
        let mut delta = Delta::default();
        if start == Start::Nothing {
            self.drop_unnamed(peer, index, &changes, &mut delta);
        }
        for path in changes.removed {
            if let Some(name) = index.find_name(path.as_str()).filter(|name| self.files.contains_key(name)) {
                self.drop_file(peer, index, name);
                delta.removed.push(path);
            }
        }
        for entry in changes.added {
            self.add(peer, index, entry, report, now_ms, &mut delta);
        }
        for entry in changes.partial {
            self.set_partial(peer, index, entry, report, &mut delta);
        }
        delta
    }

    fn drop_unnamed(&mut self, peer: PeerIx, index: &mut Index, changes: &Changes, delta: &mut Delta) {
        let named: BTreeSet<&str> = changes.added.iter().map(|entry| entry.path.as_str()).collect();
        let unnamed: Vec<NameIx> =
            self.files.keys().copied().filter(|name| !named.contains(index.path(*name).as_str())).collect();
        for name in unnamed {
            delta.removed.push(index.path(name).clone());
            self.drop_file(peer, index, name);
        }
        let named: BTreeSet<_> = changes.partial.iter().map(|entry| (entry.content_id, entry.len)).collect();
        let unnamed: Vec<PartialEntry> = self
            .partial
            .keys()
            .map(|content| index.content(*content))
            .filter(|row| !named.contains(&(row.id, row.len)))
            .map(|row| PartialEntry { content_id: row.id, len: row.len, n_chunks: 0 })
            .collect();
        for entry in unnamed {
            self.set_partial(peer, index, entry, Report::Differences, delta);
        }
    }

    fn drop_file(&mut self, peer: PeerIx, index: &mut Index, name: NameIx) {
        let content = self.files.remove(&name).expect("the caller found it");
        self.n_bytes -= u128::from(index.content(content).len);
        index.unlist(peer, name, content);
        index.forget(name, content);
    }

    fn add(&mut self, peer: PeerIx, index: &mut Index, entry: Entry, report: Report, now_ms: u64, delta: &mut Delta) {
        let Entry { path, content_id, len } = entry;
        let name = index.find_name(path.as_str());
        let old = name.and_then(|name| Some((name, *self.files.get(&name)?)));
        let is_same = old.is_some_and(|(_, content)| index.find_content(content_id, len) == Some(content));
        let (name, content) = match old {
            Some(same) if is_same => same,
            _ => {
                // Known before the old one is dropped, so that a name that stays keeps its row.
                let (name, content) = index.know(path.clone(), content_id, len, now_ms);
                if old.is_some() {
                    self.drop_file(peer, index, name);
                }
                self.files.insert(name, content);
                self.n_bytes += u128::from(len);
                index.list(peer, name, content);
                (name, content)
            }
        };
        if self.partial.contains_key(&content) {
            let gone = PartialEntry { content_id, len, n_chunks: 0 };
            self.set_partial(peer, index, gone, Report::Differences, delta);
        }
        if !is_same || report == Report::Everything {
            let since_ms = index.since_ms(name, content).unwrap_or(now_ms);
            delta.added.push(StoredEntry { path, content_id, len, since_ms });
        }
    }

    fn set_partial(&mut self, peer: PeerIx, index: &mut Index, entry: PartialEntry, report: Report, delta: &mut Delta) {
        let PartialEntry { content_id, len, n_chunks } = entry;
        let known = index.find_content(content_id, len);
        let old = known.and_then(|content| Some((content, *self.partial.get(&content)?)));
        match old {
            None if n_chunks == 0 || known.is_some_and(|content| index.holds(peer, content)) => return,
            Some((_, old)) if old == n_chunks && report == Report::Differences => return,
            Some((content, _)) if n_chunks == 0 => {
                self.partial.remove(&content);
                index.list_partial(peer, content, 0);
                index.forget_content(content);
            }
            Some((content, _)) => {
                self.partial.insert(content, n_chunks);
                index.list_partial(peer, content, n_chunks);
            }
            None => {
                let content = index.know_content(content_id, len);
                self.partial.insert(content, n_chunks);
                index.list_partial(peer, content, n_chunks);
            }
        }
        delta.partial.push(entry);
    }

    /// Its peer is present from now on.
    pub(crate) fn list(&self, peer: PeerIx, index: &mut Index) {
        for (&name, &content) in &self.files {
            index.list(peer, name, content);
        }
        for (&content, &n_chunks) in &self.partial {
            index.list_partial(peer, content, n_chunks);
        }
    }

    /// Its peer is absent from now on.
    pub(crate) fn unlist(&self, peer: PeerIx, index: &mut Index) {
        for (&name, &content) in &self.files {
            index.unlist(peer, name, content);
        }
        for &content in self.partial.keys() {
            index.list_partial(peer, content, 0);
        }
    }

    /// Its peer, which is absent, is known no more.
    pub(crate) fn forget(&mut self, index: &mut Index) {
        for (name, content) in std::mem::take(&mut self.files) {
            index.forget(name, content);
        }
        for content in std::mem::take(&mut self.partial).into_keys() {
            index.forget_content(content);
        }
        self.n_bytes = 0;
    }

    /// How many files and partial entries there would be after a message, or a little more than that.
    pub(crate) fn n_after(&self, index: &Index, message: &Announce) -> (usize, usize) {
        if message.base == 0 {
            return (message.added.len(), message.partial.len());
        }
        let has = |path: &SharePath| index.find_name(path.as_str()).is_some_and(|name| self.files.contains_key(&name));
        let n_new = message.added.iter().filter(|entry| !has(&entry.path)).count();
        let n_gone = message.removed.iter().filter(|path| has(path)).count();
        let has = |entry: &PartialEntry| {
            index.find_content(entry.content_id, entry.len).is_some_and(|content| self.partial.contains_key(&content))
        };
        let n_new_partial = message.partial.iter().filter(|entry| entry.n_chunks > 0 && !has(entry)).count();
        ((self.files.len() + n_new).saturating_sub(n_gone), self.partial.len() + n_new_partial)
    }

    /// What it has under a name.
    pub(crate) fn content_at(&self, name: NameIx) -> Option<ContentIx> {
        self.files.get(&name).copied()
    }

    pub(crate) fn n_files(&self) -> u64 {
        self.files.len() as u64
    }

    pub(crate) fn n_bytes(&self) -> u64 {
        u64::try_from(self.n_bytes).unwrap_or(u64::MAX)
    }

    pub(crate) fn n_entries(&self) -> usize {
        self.files.len() + self.partial.len()
    }
}
