//! Which paths are looked at next.
//!
//! A path whose places changed is *fresh* until the store has kept the change, then *ready*: what an action rests on is
//! on disk before the action. Removals come after everything else, so that a file that is wanted elsewhere is moved there
//! first. A path whose folder has to be made first waits for it.
//!
//! Invariant: a path that is fresh or being saved is not ready.

use std::collections::{BTreeMap, BTreeSet};

use potluck_common::SharePath;

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    fresh: BTreeSet<SharePath>,
    saving: BTreeSet<SharePath>,
    ready: BTreeSet<SharePath>,
    removals: BTreeSet<SharePath>,
    waiting: BTreeMap<SharePath, BTreeSet<SharePath>>,
}

impl Queue {
    /// The index has changed for it.
    pub fn change(&mut self, path: SharePath) {
        self.ready.remove(&path);
        self.removals.remove(&path);
        self.fresh.insert(path);
    }

    /// Something else has changed for it: it is to be looked at again.
    pub fn wake(&mut self, path: &SharePath) {
        if !self.fresh.contains(path) && !self.saving.contains(path) {
            self.removals.remove(path);
            self.ready.insert(path.clone());
        }
    }

    /// Those that waited for this folder are to be looked at again.
    pub fn wake_below(&mut self, folder: &SharePath) {
        for path in self.waiting.remove(folder).unwrap_or_default() {
            self.wake(&path);
        }
    }

    /// Everybody who waits is to be looked at again.
    pub fn wake_all_waiting(&mut self) {
        for path in std::mem::take(&mut self.waiting).into_values().flatten() {
            self.wake(&path);
        }
    }

    /// The next one to look at.
    pub fn next_ready(&mut self) -> Option<SharePath> {
        self.ready.pop_first()
    }

    /// The next one that has something to remove; what lies deepest first.
    pub fn next_removal(&mut self) -> Option<SharePath> {
        self.removals.pop_last()
    }

    /// It has something to remove, later.
    pub fn remove_later(&mut self, path: SharePath) {
        self.removals.insert(path);
    }

    /// It goes on when something happens to this folder.
    pub fn wait_for(&mut self, folder: SharePath, path: SharePath) {
        self.waiting.entry(folder).or_default().insert(path);
    }

    /// Whether changes are being saved.
    pub fn is_saving(&self) -> bool {
        !self.saving.is_empty()
    }

    /// What is fresh is being saved.
    pub fn save(&mut self) {
        self.saving.append(&mut self.fresh);
    }

    /// It has been saved.
    pub fn saved(&mut self) {
        for path in std::mem::take(&mut self.saving) {
            if !self.fresh.contains(&path) {
                self.ready.insert(path);
            }
        }
    }

    /// It could not be saved.
    pub fn not_saved(&mut self) {
        self.fresh.append(&mut self.saving);
    }

    /// Whether nothing waits to be looked at.
    pub fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.saving.is_empty() && self.ready.is_empty() && self.removals.is_empty()
    }
}
