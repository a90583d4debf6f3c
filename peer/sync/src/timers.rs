//! Paths that wait for a time.
//!
//! Invariant: a path waits once, for the time it was last set to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use potluck_common::SharePath;

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Timers {
    by_path: BTreeMap<SharePath, Instant>,
    by_time: BTreeSet<(Instant, SharePath)>,
}

impl Timers {
    /// Lets a path wait.
    pub fn set(&mut self, path: SharePath, at: Instant) {
        self.clear(&path);
        self.by_time.insert((at, path.clone()));
        self.by_path.insert(path, at);
    }

    /// Whether it waits no longer because of this.
    pub fn clear(&mut self, path: &SharePath) -> bool {
        match self.by_path.remove(path) {
            Some(at) => self.by_time.remove(&(at, path.clone())),
            None => false,
        }
    }

    /// Whether it waits.
    pub fn contains(&self, path: &SharePath) -> bool {
        self.by_path.contains_key(path)
    }

    /// When the next one's time comes.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Those whose time has come; they wait no longer.
    pub fn take_due(&mut self, now: Instant) -> Vec<SharePath> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            let Some((_, path)) = self.by_time.pop_first() else { break };
            self.by_path.remove(&path);
            due.push(path);
        }
        due
    }

    /// All that wait; they wait no longer.
    pub fn take_all(&mut self) -> Vec<SharePath> {
        self.by_time.clear();
        std::mem::take(&mut self.by_path).into_keys().collect()
    }

    /// All that wait.
    pub fn paths(&self) -> impl Iterator<Item = &SharePath> {
        self.by_path.keys()
    }
}
