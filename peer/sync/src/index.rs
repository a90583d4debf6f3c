//! The index: share path → register, with the number of each path's latest change.
//!
//! Numbers order what is given to others: each path stands once, at its latest change, and only what the store has kept
//! is given out ([`Index::page`]). They live as long as the process.
//!
//! Invariant: what it knows of life below a path is what its registers say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use potluck_common::conflict_name::mark_of;
use potluck_common::occupancy::Occupancy;
use potluck_common::projection::{Registers, affected};
use potluck_common::protocol::IndexEntry;
use potluck_common::{Register, SharePath};

#[derive(Debug, Clone)]
struct Known {
    register: Register,
    seq: u64,
}

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Index {
    known: BTreeMap<SharePath, Known>,
    occupancy: Occupancy,
    /// Folder and mark of each long name: names that look like its conflict names are anybody's to make, and are not looked
    /// for through all others.
    marked: BTreeMap<(Option<SharePath>, String), SharePath>,
    log: BTreeMap<u64, SharePath>,
    seq: u64,
    saved_seq: u64,
    unsaved: BTreeSet<SharePath>,
}

impl Registers for Index {
    fn register(&self, path: &SharePath) -> Option<&Register> {
        self.known.get(path).map(|known| &known.register)
    }

    fn is_above_life(&self, path: &SharePath) -> bool {
        self.occupancy.is_above_life(path)
    }

    fn marked(&self, folder: Option<&SharePath>, mark: &str) -> Option<SharePath> {
        self.marked.get(&(folder.cloned(), mark.to_owned())).cloned()
    }
}

impl Index {
    /// From what was stored.
    pub fn restored(entries: impl IntoIterator<Item = IndexEntry>) -> Self {
        let mut index = Self::default();
        for IndexEntry { path, register } in entries {
            index.change(&path, |mine| mine.join(&register));
        }
        index.unsaved.clear();
        index.saved_seq = index.seq;
        index
    }

    /// Changes a register; `edit` says whether it did. Returns the paths whose places may have altered.
    pub fn change(&mut self, path: &SharePath, edit: impl FnOnce(&mut Register) -> bool) -> Vec<SharePath> {
        let is_new = !self.known.contains_key(path);
        let known = self.known.entry(path.clone()).or_insert_with(|| Known { register: Register::default(), seq: 0 });
        let lived = !known.register.is_tombstone();
        if !edit(&mut known.register) {
            if is_new {
                self.known.remove(path);
            }
            return Vec::new();
        }
        if let Some(mark) = mark_of(path.file_name()).filter(|_| is_new) {
            self.marked.insert((path.parent(), mark), path.clone());
        }
        self.log.remove(&known.seq);
        self.seq += 1;
        known.seq = self.seq;
        self.log.insert(self.seq, path.clone());
        self.unsaved.insert(path.clone());
        let lives = !known.register.is_tombstone();
        let mut turned = Vec::new();
        if lives != lived {
            let is_live = |path: &SharePath| self.known.get(path).is_some_and(|known| !known.register.is_tombstone());
            turned = self.occupancy.turn(path, lives, is_live);
            turned.push(path.clone());
        }
        affected(self, path, &turned)
    }

    /// All paths that anything is known of.
    pub fn paths(&self) -> impl Iterator<Item = &SharePath> {
        self.known.keys()
    }

    /// What is known of a path, as it travels.
    pub fn entry(&self, path: &SharePath) -> Option<IndexEntry> {
        self.register(path).map(|register| IndexEntry { path: path.clone(), register: register.clone() })
    }

    /// Whether the store has kept all that is known of a path.
    pub fn is_saved(&self, path: &SharePath) -> bool {
        self.known.get(path).is_some_and(|known| known.seq <= self.saved_seq)
    }

    /// The number of the latest change that may be given out.
    pub const fn saved_seq(&self) -> u64 {
        self.saved_seq
    }

    /// The first changes after a number that the store has kept, and the number to go on after.
    pub fn page(&self, after: u64, limit: usize) -> (u64, Vec<IndexEntry>) {
        if after >= self.saved_seq {
            return (after, Vec::new());
        }
        let range = (Bound::Excluded(after), Bound::Included(self.saved_seq));
        let page: Vec<_> = self.log.range(range).take(limit).collect();
        let seq = if page.len() < limit { self.saved_seq } else { page.last().map_or(after, |(seq, _)| **seq) };
        (seq, page.into_iter().filter_map(|(_, path)| self.entry(path)).collect())
    }

    /// The number of the latest change, and the paths that have changed since this was last asked.
    pub fn take_unsaved(&mut self) -> (u64, BTreeSet<SharePath>) {
        (self.seq, std::mem::take(&mut self.unsaved))
    }

    /// The store has kept everything up to this number.
    pub fn on_saved(&mut self, seq: u64) {
        self.saved_seq = seq;
    }

    /// These could not be stored after all.
    pub fn still_unsaved(&mut self, paths: BTreeSet<SharePath>) {
        self.unsaved.extend(paths);
    }
}
