//! What each source does not have yet.
//!
//! A source counts as lacking a path until it has given or taken just what our index knows of it. It is told by comparing
//! whole registers, so nothing depends on the order in which messages arrive.
//!
//! Invariant: an open source that lacks nothing has everything that our index had at its last change.

use std::collections::{BTreeMap, BTreeSet};

use potluck_common::SharePath;

use super::action::Source;

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Outbox(BTreeMap<Source, BTreeSet<SharePath>>);

impl Outbox {
    /// From now on this is kept for a source, which has nothing of `paths` as far as is known. Opened again (after another
    /// epoch) it begins afresh.
    pub fn open(&mut self, source: Source, paths: impl Iterator<Item = SharePath>) {
        self.0.insert(source, paths.collect());
    }

    /// The source is gone.
    pub fn close(&mut self, source: Source) {
        self.0.remove(&source);
    }

    /// Our index has changed at a path.
    pub fn changed(&mut self, path: &SharePath) {
        for lacks in self.0.values_mut() {
            lacks.insert(path.clone());
        }
    }

    /// The source knows of a path what we know, or not.
    pub fn compared(&mut self, source: Source, path: &SharePath, is_equal: bool) {
        if let Some(lacks) = self.0.get_mut(&source) {
            if is_equal {
                lacks.remove(path);
            } else {
                lacks.insert(path.clone());
            }
        }
    }

    /// What a source lacks.
    pub fn lacks(&self, source: Source) -> impl Iterator<Item = &SharePath> {
        self.0.get(&source).into_iter().flatten()
    }
}
