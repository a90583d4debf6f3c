//! Entries from others that have come too early.
//!
//! Invariant: an origin is blocked if and only if one of its real paths is unknown: the first scan met a file there whose
//! bytes are not known yet.

use std::collections::BTreeMap;

use potluck_common::protocol::IndexEntry;
use potluck_common::{Register, SharePath};

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct KeptBack {
    entries: BTreeMap<SharePath, Register>,
    unknown: BTreeMap<SharePath, Vec<SharePath>>,
    blocked: BTreeMap<SharePath, usize>,
}

impl KeptBack {
    /// The entry waits.
    pub fn keep(&mut self, entry: IndexEntry) {
        self.entries.entry(entry.path).or_default().join(&entry.register);
    }

    /// Whether any entry waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether entries for this path have to wait.
    pub fn blocks(&self, origin: &SharePath) -> bool {
        self.blocked.contains_key(origin)
    }

    /// What stands at a real path may have been put there for one of these, and is not known.
    pub fn block(&mut self, real: SharePath, origins: Vec<SharePath>) {
        self.unblock(&real);
        for origin in &origins {
            *self.blocked.entry(origin.clone()).or_default() += 1;
        }
        self.unknown.insert(real, origins);
    }

    /// It is known now; whether anything waited for that.
    pub fn unblock(&mut self, real: &SharePath) -> bool {
        let Some(origins) = self.unknown.remove(real) else { return false };
        for origin in origins {
            match self.blocked.get_mut(&origin) {
                Some(n) if *n > 1 => *n -= 1,
                _ => drop(self.blocked.remove(&origin)),
            }
        }
        !self.is_empty()
    }

    /// The entries that need not wait.
    pub fn take(&mut self) -> Vec<IndexEntry> {
        let entries = std::mem::take(&mut self.entries);
        let mut free = Vec::with_capacity(entries.len());
        for (path, register) in entries {
            if self.blocks(&path) {
                self.entries.insert(path, register);
            } else {
                free.push(IndexEntry { path, register });
            }
        }
        free
    }
}
