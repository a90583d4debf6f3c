//! The index of the synced folder, as the tracker keeps it for those who sync: path → register, joined over everything that
//! was announced, with the number of the latest change of each. A pure state machine.
//!
//! It decides nothing about the folder: who wins and what lies where follows from the registers alone. It never forgets a
//! path either, since a tombstone that is gone lets an old file come back.
//!
//! Invariants: each path has one number, that of its latest change, and no number is given twice in an epoch; a
//! register here can be read by everybody (it is within the bounds of [`Register`]); an entry counts as kept only once the store
//! has it, and is handed to the store again with every announce that repeats it until then.

use std::collections::BTreeMap;
use std::ops::Bound;

use potluck_common::conflict_name::mark_of;
use potluck_common::occupancy::Occupancy;
use potluck_common::projection::Registers;
use potluck_common::protocol::{
    GENERATION_SHIFT, IndexEntry, MAX_SYNC_PAGE, MAX_SYNC_PAGE_LEN, RefusedBecause, RefusedEntry, SyncPage, SyncQuery,
};
use potluck_common::register::{MAX_LIVE, MAX_WRITERS, Register};
use potluck_common::{PeerId, SharePath};

use crate::quota::Quotas;
use crate::record::StoredRegister;

/// What a path takes besides its name, its writers and its versions: two trees' nodes and the row. Measured: 100,000 files with
/// names of 45 bytes take 44 MiB, and so says [`weight`].
const ROW_BYTES: usize = 320;

/// Who speaks.
#[derive(Debug, Clone, Copy)]
pub struct Speaker {
    /// The peer.
    pub peer_id: PeerId,
    /// Its start.
    pub generation: u64,
}

/// What became of the entries of one announce.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Paths that changed.
    pub changed: Vec<SharePath>,
    /// What the store must keep before the peer is answered.
    pub keep: Vec<StoredRegister>,
    /// What was not taken.
    pub refused: Vec<RefusedEntry>,
    /// The highest number of a write that the speaker told of itself.
    pub told: u64,
}

#[derive(Debug)]
struct Row {
    register: Register,
    seq: u64,
    brought_by: PeerId,
    is_kept: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct SyncIndex {
    epoch: u64,
    seq: u64,
    rows: BTreeMap<SharePath, Row>,
    log: BTreeMap<u64, SharePath>,
    brought: BTreeMap<PeerId, usize>,
    occupancy: Occupancy,
    n_bytes: usize,
    n_refused: u64,
    quotas: Quotas,
}

impl SyncIndex {
    /// An empty one whose numbers begin after `seq`.
    pub fn new(epoch: u64, seq: u64, quotas: Quotas) -> Self {
        Self {
            epoch,
            seq,
            rows: BTreeMap::new(),
            log: BTreeMap::new(),
            brought: BTreeMap::new(),
            occupancy: Occupancy::default(),
            n_bytes: 0,
            n_refused: 0,
            quotas,
        }
    }

    /// Takes back what the store kept of a path.
    pub fn restore(&mut self, stored: StoredRegister) {
        let StoredRegister { path, register, seq, brought_by } = stored;
        self.n_bytes += weight(&path, &register);
        self.seq = self.seq.max(seq);
        *self.brought.entry(brought_by).or_default() += 1;
        self.log.insert(seq, path.clone());
        let lives = !register.is_tombstone();
        self.rows.insert(path.clone(), Row { register, seq, brought_by, is_kept: true });
        self.turn(&path, false, lives);
    }

    /// Joins what a peer announced into what is known. `told` gives the highest write that a peer who speaks for itself can
    /// have told of; `None`: it is not there, so others may tell of all its writes.
    pub fn take(&mut self, speaker: Speaker, entries: Vec<IndexEntry>, told: impl Fn(PeerId) -> Option<u64>) -> Taken {
        let mut taken = Taken::default();
        for IndexEntry { path, register } in entries {
            let own = register.seen().latest(speaker.peer_id);
            match self.join(speaker, &path, &register, &told) {
                Ok(changed) => {
                    taken.told = taken.told.max(own);
                    let row = &self.rows[&path];
                    if !row.is_kept {
                        taken.keep.push(StoredRegister {
                            path: path.clone(),
                            register: row.register.clone(),
                            seq: row.seq,
                            brought_by: row.brought_by,
                        });
                    }
                    if changed {
                        taken.changed.push(path);
                    }
                }
                Err(why) => {
                    if why == RefusedBecause::Ahead && own >> GENERATION_SHIFT <= speaker.generation {
                        // It has told of its own writes all the same. Two who have both written this path and come to a tracker
                        // that knows nothing would else wait for each other for ever.
                        taken.told = taken.told.max(own);
                    }
                    self.n_refused += 1;
                    taken.refused.push(RefusedEntry { path, why });
                }
            }
        }
        taken
    }

    fn join(
        &mut self,
        speaker: Speaker,
        path: &SharePath,
        register: &Register,
        told: impl Fn(PeerId) -> Option<u64>,
    ) -> Result<bool, RefusedBecause> {
        let known = self.rows.get(path);
        if known.is_some_and(|row| row.register.covers(register)) {
            return Ok(false);
        }
        for (by, n) in register.seen().iter() {
            if known.is_some_and(|row| row.register.seen().latest(by) >= n) {
                continue;
            }
            if by == speaker.peer_id {
                if n >> GENERATION_SHIFT > speaker.generation {
                    return Err(RefusedBecause::NotYetWritten);
                }
            } else if told(by).is_some_and(|told| n > told) {
                return Err(RefusedBecause::Ahead);
            }
        }
        let mut joined = known.map_or_else(Register::default, |row| row.register.clone());
        joined.join(register);
        if joined.seen().n_writers() > MAX_WRITERS || joined.live().len() > MAX_LIVE {
            return Err(RefusedBecause::TooMany);
        }
        let weight_before = known.map_or(0, |row| weight(path, &row.register));
        let weight = weight(path, &joined);
        let growth = weight.saturating_sub(weight_before);
        if growth > 0 && self.n_bytes + growth > self.quotas.max_index_bytes {
            return Err(RefusedBecause::Quota);
        }
        let brought_by = match known {
            Some(row) => row.brought_by,
            None => {
                let n_brought = self.brought.get(&speaker.peer_id).copied().unwrap_or(0);
                if self.rows.len() >= self.quotas.max_index_paths || n_brought >= self.quotas.max_index_paths_per_peer {
                    return Err(RefusedBecause::Quota);
                }
                self.brought.insert(speaker.peer_id, n_brought + 1);
                speaker.peer_id
            }
        };
        self.n_bytes = self.n_bytes - weight_before + weight;
        let (lived, lives) = (known.is_some_and(|row| !row.register.is_tombstone()), !joined.is_tombstone());
        self.seq += 1;
        let row = Row { register: joined, seq: self.seq, brought_by, is_kept: false };
        if let Some(old) = self.rows.insert(path.clone(), row) {
            self.log.remove(&old.seq);
        }
        self.log.insert(self.seq, path.clone());
        self.turn(path, lived, lives);
        Ok(true)
    }

    /// Something came to life or died at a path.
    fn turn(&mut self, path: &SharePath, lived: bool, lives: bool) {
        let Self { occupancy, rows, .. } = self;
        if lived != lives {
            occupancy.turn(path, lives, |path| rows.get(path).is_some_and(|row| !row.register.is_tombstone()));
        }
    }

    /// The store has these states of these paths.
    pub fn kept(&mut self, rows: &[(SharePath, u64)]) {
        for (path, seq) in rows {
            if let Some(row) = self.rows.get_mut(path).filter(|row| row.seq == *seq) {
                row.is_kept = true;
            }
        }
    }

    /// What changed after the number that is asked for.
    pub fn page(&self, query: &SyncQuery) -> SyncPage {
        let after = if query.epoch == self.epoch && query.after <= self.seq { query.after } else { 0 };
        let limit = query.limit.map_or(MAX_SYNC_PAGE, |limit| usize::try_from(limit).unwrap_or(MAX_SYNC_PAGE));
        let limit = limit.clamp(1, MAX_SYNC_PAGE);
        let (mut entries, mut len, mut seq, mut more) = (Vec::new(), 0, self.seq, false);
        for (&number, path) in self.log.range((Bound::Excluded(after), Bound::Unbounded)) {
            let entry = IndexEntry { path: path.clone(), register: self.rows[path].register.clone() };
            len += entry.json_len_bound();
            if entries.len() == limit || (!entries.is_empty() && len > MAX_SYNC_PAGE_LEN) {
                more = true;
                break;
            }
            entries.push(entry);
            seq = number;
        }
        if !more {
            seq = self.seq;
        }
        SyncPage { epoch: self.epoch, seq, more, entries: entries.into() }
    }

    /// Whether [`SyncIndex::page`] has something for who asks so: entries, or another life of the numbers.
    pub fn has_news(&self, query: &SyncQuery) -> bool {
        query.epoch != self.epoch || query.after != self.seq
    }

    /// Paths and registers in order.
    pub fn from<'a>(&'a self, from: Bound<&str>) -> impl Iterator<Item = (&'a SharePath, &'a Register)> + use<'a> {
        self.rows.range::<str, _>((from, Bound::Unbounded)).map(|(path, row)| (path, &row.register))
    }

    /// Whether a path is a folder because of what lies below it.
    pub fn is_folder(&self, path: &SharePath) -> bool {
        self.occupancy.is_above_life(path)
    }

    /// Names the life of the numbers.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the latest change.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Paths, those of deleted files too.
    pub fn n_paths(&self) -> usize {
        self.rows.len()
    }

    /// Entries that were not taken.
    pub const fn n_refused(&self) -> u64 {
        self.n_refused
    }

    /// Takes note of entries that were no entries.
    pub fn note_refused(&mut self, n: usize) {
        self.n_refused += n as u64;
    }
}

impl Registers for SyncIndex {
    fn register(&self, path: &SharePath) -> Option<&Register> {
        self.rows.get(path).map(|row| &row.register)
    }

    fn is_above_life(&self, path: &SharePath) -> bool {
        self.occupancy.is_above_life(path)
    }

    /// Only who lays out a folder asks for the originals of a path often; here nobody does.
    fn marked(&self, folder: Option<&SharePath>, mark: &str) -> Option<SharePath> {
        let is_it = |path: &&SharePath| {
            path.parent().as_ref() == folder && mark_of(path.file_name()).is_some_and(|other| other == mark)
        };
        self.rows.keys().find(is_it).cloned()
    }
}

/// About what a path takes in memory.
fn weight(path: &SharePath, register: &Register) -> usize {
    const WRITER: usize = size_of::<(PeerId, u64)>();
    ROW_BYTES + path.as_str().len() + WRITER * register.seen().n_writers() + size_of_val(register.live())
}

#[cfg(test)]
#[path = "sync_index_tests.rs"]
mod tests;
