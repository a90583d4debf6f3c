//! The guard over deletions: what is missing in the folder, and whether that may be told to others.
//!
//! A path that is missing waits a moment first: an editor that saves by renaming puts it back, and a file that was renamed
//! turns up elsewhere. Then it counts as deleted, unless too much is missing at once: more than a quarter of at least
//! [`FEW`] files since the last full scan, or all of more than one. Then deletions are *held* until a person confirms
//! or takes them back.
//!
//! Invariant: while anything is held, nothing is let go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use potluck_common::SharePath;

use super::timers::Timers;

/// How long a path is missing before that counts: longer than an editor takes to save and than a file takes from one
/// name to the next, short beside what a person takes for slow.
pub const SETTLE: Duration = Duration::from_millis(150);
/// With fewer files than this a quarter is nothing unusual.
pub const FEW: usize = 20;
/// Held if more than one in this many is missing.
const ONE_IN: usize = 4;

/// The files of the disk table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Census {
    /// All of them.
    pub n_files: usize,
    /// Those that are missing.
    pub n_missing: usize,
    /// Those that are missing and whose content is nowhere else in the folder.
    pub n_lost: usize,
}

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    due: Timers,
    held: BTreeSet<SharePath>,
    n_let_go: usize,
    n_known: usize,
}

impl Guard {
    /// Whether a path is missing, held or not.
    pub fn is_missing(&self, real: &SharePath) -> bool {
        self.due.contains(real) || self.held.contains(real)
    }

    /// A path is missing from now on.
    pub fn miss(&mut self, real: SharePath, now: Instant) {
        if !self.is_missing(&real) {
            self.due.set(real, now + SETTLE);
        }
    }

    /// It is missing, and to be judged again later.
    pub fn postpone(&mut self, real: SharePath, now: Instant) {
        self.held.remove(&real);
        self.due.set(real, now + SETTLE);
    }

    /// It is there, or is no longer ours to judge.
    pub fn forget(&mut self, real: &SharePath) -> bool {
        self.due.clear(real) | self.held.remove(real)
    }

    /// All that are missing.
    pub fn missing(&self) -> impl Iterator<Item = &SharePath> {
        self.due.paths().chain(&self.held)
    }

    /// Deletions that wait for a person.
    pub fn held(&self) -> impl Iterator<Item = &SharePath> {
        self.held.iter()
    }

    /// Whether anything is held.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// When something is to be judged.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.next()
    }

    /// A file has been let go whose content is nowhere else.
    pub fn on_let_go(&mut self) {
        self.n_let_go += 1;
    }

    /// A full scan is over, or a person has decided: counting begins anew, unless deletions are held.
    pub fn begin_window(&mut self, n_files: usize) {
        if !self.holds() {
            self.n_known = n_files;
            self.n_let_go = 0;
        }
    }

    /// Judges what is due; returns what is let go. What is held stays so until enough of it has come back, however many
    /// files are added meanwhile.
    pub fn judge(&mut self, now: Instant, folder: &Census) -> Vec<SharePath> {
        if !self.holds() {
            self.n_known = self.n_known.max(folder.n_files);
        }
        let n_gone = self.n_let_go + folder.n_lost;
        let too_many = self.n_known >= FEW && n_gone * ONE_IN > self.n_known;
        let emptied = self.n_known > 1 && folder.n_lost > 0 && folder.n_missing == folder.n_files;
        if too_many || emptied {
            for real in self.due.take_all() {
                self.held.insert(real);
            }
            return Vec::new();
        }
        let mut free = self.due.take_due(now);
        free.extend(std::mem::take(&mut self.held));
        free
    }

    /// Takes everything that is missing: nothing is to be made of it.
    pub fn take_all(&mut self) -> BTreeSet<SharePath> {
        let mut all = self.take_held();
        all.extend(self.due.take_all());
        all
    }

    /// Takes everything that is held.
    pub fn take_held(&mut self) -> BTreeSet<SharePath> {
        std::mem::take(&mut self.held)
    }
}
