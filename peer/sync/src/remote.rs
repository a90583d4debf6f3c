//! What others tell, and what they are told.
//!
//! Entries are joined; only which of them are new matters, not their order or number. Two kinds wait:
//! - Until the folder has been scanned, and for a path that the scan met without knowing its bytes yet, entries are
//!   kept back. A crash may have forgotten the row of a file that we put there ourselves; it is recognised by the register it was
//!   put for, and must not be taken for the user's after that register has moved on.
//! - Entries that tell of writes of ours which we do not know: our state was restored from a backup, or copied. Under another
//!   identity these are just somebody else's writes.

use potluck_common::projection::{MAX_SYNCED_LEN, Registers};
use potluck_common::protocol::{GENERATION_SHIFT, IndexEntry};
use potluck_common::register::{Dot, Version};
use potluck_common::{PeerId, SharePath};

use super::action::Source;
use super::disk_table::Row;
use super::machine::Machine;

/// What is to be done about entries from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: they are part of the index, or will be.
    Fine,
    /// Somebody wrote under our identity. Nothing goes on until [`Machine::take_identity`].
    TakeNewIdentity,
}

impl Machine {
    /// What a source knows of some paths.
    pub fn on_remote(&mut self, entries: Vec<IndexEntry>, source: Source) -> Heard {
        let entries: Vec<_> = entries.into_iter().filter(|entry| entry.path.as_str().len() <= MAX_SYNCED_LEN).collect();
        if entries.iter().any(|entry| self.knows_more_of_us(entry)) {
            self.needs_identity = true;
        }
        for entry in entries {
            if self.needs_identity || !self.is_scanned || self.kept_back.blocks(&entry.path) {
                self.kept_back.keep(entry);
            } else {
                self.join(&entry, Some(source));
            }
        }
        if self.needs_identity { Heard::TakeNewIdentity } else { Heard::Fine }
    }

    /// Goes on under another identity, which has never written; `generation` as in [`Machine::new`]. What this start has
    /// written so far is written again under it.
    pub fn take_identity(&mut self, me: PeerId, generation: u64) {
        let (old, first) = (self.me, self.first_write);
        self.me = me;
        self.first_write = generation << GENERATION_SHIFT;
        self.last_write = self.first_write;
        self.needs_identity = false;
        let is_of_this_start = |version: &&Version| version.dot.by == old && version.dot.n > first;
        let paths: Vec<_> = self.index.paths().cloned().collect();
        for path in paths {
            let Some(register) = self.index.register(&path) else { continue };
            let versions: Vec<_> = register.live().iter().filter(is_of_this_start).copied().collect();
            for version in versions {
                let dot = self.write(&path, &[version.dot], version.value);
                self.rename_dot(&path, version.dot, dot);
            }
        }
        self.take_up_kept_back();
    }

    fn rename_dot(&mut self, origin: &SharePath, old: Dot, new: Dot) {
        // Actions in flight know it by its old name.
        if self.is_acting() {
            self.renamed.values_mut().filter(|dot| **dot == old).for_each(|dot| *dot = new);
            self.renamed.insert(old, new);
        }
        let reals: Vec<_> = self.table.copies(origin).chain([origin]).cloned().collect();
        for real in reals {
            let Some(row) = self.table.get(&real) else { continue };
            if row.origin(&real) == origin && row.dots.contains(&old) {
                let mut dots: Vec<_> = row.dots.iter().map(|dot| if *dot == old { new } else { *dot }).collect();
                dots.sort_unstable();
                let row = Row { dots: dots.into(), ..row.clone() };
                self.table.put(real, row);
            }
        }
    }

    /// From now on what a source lacks is kept account of. It counts as lacking everything that it has not told of since.
    pub fn open_source(&mut self, source: Source) {
        self.outbox.open(source, self.index.paths().cloned());
    }

    /// The source is gone.
    pub fn close_source(&mut self, source: Source) {
        self.outbox.close(source);
    }

    /// Some of what a source lacks and the store has kept.
    pub fn next_push(&self, source: Source, limit: usize) -> Vec<IndexEntry> {
        if self.needs_identity {
            return Vec::new();
        }
        let saved = self.outbox.lacks(source).filter(|path| self.index.is_saved(path));
        saved.take(limit).filter_map(|path| self.index.entry(path)).collect()
    }

    /// Whether a source lacks something that we know.
    pub fn is_lacking(&self, source: Source) -> bool {
        self.outbox.lacks(source).next().is_some()
    }

    /// A source has taken these.
    pub fn on_pushed(&mut self, source: Source, entries: &[IndexEntry]) {
        for entry in entries {
            if self.index.register(&entry.path) == Some(&entry.register) {
                self.outbox.compared(source, &entry.path, true);
            }
        }
    }

    /// The first changes after a number, for whoever asks, and the number to go on after. Numbers are those of this process.
    pub fn changes_since(&self, seq: u64, limit: usize) -> (u64, Vec<IndexEntry>) {
        if self.needs_identity { (seq, Vec::new()) } else { self.index.page(seq, limit) }
    }

    fn join(&mut self, entry: &IndexEntry, source: Option<Source>) {
        if self.change(&entry.path, |register| register.join(&entry.register)) {
            self.stop_resting(&entry.path);
        }
        if let Some(source) = source {
            let is_equal = self.index.register(&entry.path) == Some(&entry.register);
            self.outbox.compared(source, &entry.path, is_equal);
        }
    }

    pub(super) fn take_up_kept_back(&mut self) {
        if self.needs_identity || !self.is_scanned {
            return;
        }
        for entry in self.kept_back.take() {
            self.join(&entry, None);
        }
    }

    fn knows_more_of_us(&self, entry: &IndexEntry) -> bool {
        let known = self.index.register(&entry.path).map_or(0, |register| register.seen().latest(self.me));
        entry.register.seen().latest(self.me) > known
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use potluck_common::protocol::SyncMode;
    use potluck_common::register::{FileValue, Value};
    use potluck_common::{ContentId, Register};

    use super::*;
    use crate::action::{Action, Old, Outcome, Seen};
    use crate::file_identity::FileIdentity;
    use crate::machine::Stored;

    fn save(machine: &mut Machine) {
        while machine.take_unsaved().is_some() {
            machine.on_saved();
        }
    }

    /// Our version gives way to a concurrent one and is to stay as a copy. While the hands are at it, we become somebody else: the
    /// copy stands for our version under its new name. (Found by the simulation: edited later, the copy did not replace it, and
    /// everybody went on asking for bytes that nobody had.)
    #[test]
    fn actions_in_flight_when_the_identity_changes() {
        let (old, new, other) = (PeerId::from_bytes([1; 16]), PeerId::from_bytes([2; 16]), PeerId::from_bytes([9; 16]));
        let (now, real) = (Instant::now(), "b".parse::<SharePath>().unwrap());
        let mut machine = Machine::new(old, 1, SyncMode::Both, Stored::default());
        machine.on_scan_began();
        let identity = FileIdentity { inode: (1, 1), len: 3, mtime: (5, 0), ctime: (5, 0) };
        let seen = Seen::File { identity, content_id: ContentId::of(b"our"), executable: false };
        machine.on_seen(&real, seen, now);
        machine.on_scan_ended(now);
        save(&mut machine);
        let mut register = Register::default();
        let theirs =
            FileValue { mtime_ns: 9_000_000_000, content_id: ContentId::of(b"their"), len: 5, executable: false };
        register.write(Dot { by: other, n: 1 << GENERATION_SHIFT }, &[], Value::File(theirs));
        machine.on_remote(vec![IndexEntry { path: real.clone(), register }], Source(0));
        save(&mut machine);
        let action = machine.next_action(now).unwrap();
        let Action::Replace { old: Old::Keep(copy), .. } = &action else { panic!("{action:?}") };
        assert_eq!(copy.dots[0].by, old);
        machine.take_identity(new, 1);
        let kept = FileIdentity { ctime: (7, 0), ..identity };
        let placed = FileIdentity { inode: (1, 2), len: 5, mtime: (9, 0), ctime: (7, 0) };
        machine.on_outcome(&action, Outcome::Done { identity: Some(placed), kept: Some(kept) }, now);
        let live = machine.index().register(&real).unwrap().live();
        let ours: Vec<_> = live.iter().map(|version| version.dot).filter(|dot| dot.by == new).collect();
        assert_eq!((ours.len(), &*machine.table().get(&copy.real).unwrap().dots), (1, &*ours));
    }
}
