//! Places where it cannot be told what stands there: a link or a device in the place of a file, a folder that cannot be read, a
//! disk that is not mounted. What was known there and below is *frozen*: it is not deleted for others, others' changes do not
//! touch it, and nothing is put there.

use std::time::Instant;

use potluck_common::SharePath;

use super::machine::Machine;

impl Machine {
    /// What stands there and below cannot be told; whether that freezes anything. Where nothing was known, it is as
    /// if nothing stood there.
    pub fn on_obscured(&mut self, real: &SharePath, now: Instant) -> bool {
        let rows: Vec<_> = self.table.below(real).map(|(real, _)| real.clone()).collect();
        if rows.is_empty() && self.table.get(real).is_none() {
            self.on_gone(real, now);
            return false;
        }
        for real in rows.iter().chain([real]) {
            self.meet(real);
            if self.is_paused || self.interferes(real) {
                continue;
            }
            // What waits for it to be known need not any more.
            if self.asked.remove(real) | self.unsettled.remove(real) | self.guard.forget(real) {
                self.wake_row(real);
            }
            self.frozen.entry(real.clone()).or_insert(false);
            self.settled(real);
        }
        if let Some(is_root) = self.frozen.get_mut(real) {
            *is_root = true;
        }
        true
    }

    /// Whether it, or a folder that it lies in, is frozen.
    pub fn is_frozen(&self, real: &SharePath) -> bool {
        if self.frozen.is_empty() {
            return false;
        }
        let mut above = Some(real.clone());
        while let Some(path) = above {
            if self.frozen.contains_key(&path) {
                return true;
            }
            above = path.parent();
        }
        false
    }

    /// Something, or nothing, stands there again: what waits for it goes on.
    pub(super) fn thaw(&mut self, real: &SharePath) {
        if self.frozen.remove(real) == Some(true) {
            let below = format!("{real}/");
            let below: Vec<_> = self.index.paths().filter(|path| path.as_str().starts_with(&below)).cloned().collect();
            below.iter().for_each(|path| self.queue.wake(path));
        }
    }

    /// Files that lie below a frozen path.
    pub fn n_frozen_files(&self, real: &SharePath) -> usize {
        self.table.below(real).filter(|(real, row)| self.frozen.contains_key(*real) && row.file().is_some()).count()
    }

    /// A person says that what lay below a frozen path is gone on purpose.
    pub fn let_go(&mut self, real: &SharePath) {
        for real in self.thaw_below(real) {
            self.vanish(&real);
        }
    }

    /// A person wants back what lay below a frozen path.
    pub fn bring_back(&mut self, real: &SharePath) {
        for real in self.thaw_below(real) {
            self.wake_row(&real);
            self.table.take(&real);
            self.wake(&real);
        }
    }

    fn thaw_below(&mut self, real: &SharePath) -> Vec<SharePath> {
        let below: Vec<_> = self.table.below(real).map(|(real, _)| real.clone()).collect();
        for real in below.iter().chain([real]) {
            self.thaw(real);
        }
        below
    }
}
