//! Reconciling: what is to be done so that the folder becomes what the index says.
//!
//! [`plan`] compares, for one path, the projection of its register with the disk table. It is pure, and knows nothing of
//! time, other peers or failures: what must not be touched at the moment it is told (`Limits`). [`reconcile`] joins
//! the index of another replica and plans until nothing is left; both replicas end with equal folders.
//!
//! Invariant: no step overwrites or removes what the disk table does not know, and a file whose content lives on in its
//! register is never removed but moved.

use std::collections::BTreeMap;
use std::time::Instant;

use potluck_common::projection::{Place, Registers, places};
use potluck_common::protocol::{IndexEntry, SyncMode};
use potluck_common::register::{FileValue, Value};
use potluck_common::{ContentId, PeerId, Register, SharePath};

use super::action::{Action, Old, Outcome, Source};
use super::disk_table::{DiskTable, OnDisk, Row};
use super::file_identity::FileIdentity;
use super::machine::{Machine, Stored};

/// Places of a content that are looked at for one that is free to be moved.
const MAX_HOLDERS: usize = 8;

/// What a plan must leave alone.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Whether something may be done at a real path now: nothing is in flight there, nothing waits to be looked at.
    pub is_free: &'a dyn Fn(&SharePath) -> bool,
    /// Whether it is to be in this folder at all.
    pub is_wanted: &'a dyn Fn(&SharePath) -> bool,
    /// Whether it will soon be known what stands at a real path, and what the table tells of it may not be so any more.
    pub is_in_doubt: &'a dyn Fn(&SharePath) -> bool,
    /// What actions in flight put where.
    pub coming: &'a [Place],
}

/// What is to be done for a path.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows whose file is right, and stands for these places now.
    pub notes: Vec<Place>,
    /// What can be done at once; after one is begun the rest is to be planned anew.
    pub steps: Vec<Action>,
    /// Folders that must be something else first.
    pub after: Vec<SharePath>,
}

/// Plans for the versions of one path.
pub fn plan(index: &impl Registers, table: &DiskTable, origin: &SharePath, limits: Limits<'_>) -> Plan {
    let places = places(index, origin);
    let mut planner = Planner { index, table, limits, plan: Plan::default() };
    for place in &places {
        if (limits.is_wanted)(&place.real) && (limits.is_free)(&place.real) {
            planner.fill(place);
        }
    }
    let own = table.get(origin).filter(|row| row.copy_of.is_none()).map(|_| origin);
    for real in own.into_iter().chain(table.copies(origin)) {
        let is_place = |place: &Place| place.real == *real;
        if !places.iter().any(is_place) && (limits.is_free)(real) {
            planner.clear(real);
        }
    }
    planner.plan
}

struct Planner<'a, I> {
    index: &'a I,
    table: &'a DiskTable,
    limits: Limits<'a>,
    plan: Plan,
}

/// What becomes of a content that is to leave its real path.
enum Goes {
    Nowhere,
    To(Place),
    Later,
}

enum Above {
    Ready,
    Make(Place),
    After(SharePath),
}

impl<I: Registers> Planner<'_, I> {
    fn fill(&mut self, place: &Place) {
        let row = self.table.get(&place.real);
        if let Value::File(file) = place.value
            && !row.is_some_and(|row| row.has_content(&file.content_id))
            && self.is_undecided(place, &file.content_id)
        {
            return;
        }
        match (place.value, row) {
            (Value::Folder, None) => match self.above(&place.real) {
                Above::Ready => self.step(Action::MakeFolder(place.clone())),
                Above::Make(above) => self.make_above(above),
                Above::After(folder) => self.plan.after.push(folder),
            },
            (Value::Folder, Some(row)) => match row.on_disk {
                OnDisk::Folder => self.note(place, row),
                OnDisk::File { .. } => self.clear(&place.real),
            },
            (Value::File(_), Some(Row { on_disk: OnDisk::Folder, .. })) => self.clear(&place.real),
            (Value::File(file), None) => match self.above(&place.real) {
                Above::Ready => match self.movable(&place.real, &file.content_id) {
                    Some((from, expect)) => self.step(Action::Move { from, expect, place: place.clone() }),
                    // It is on its way from there.
                    None if self.other_rows(place, &file.content_id).next().is_some() => {}
                    None => self.step(Action::Place(place.clone())),
                },
                Above::Make(above) => self.make_above(above),
                Above::After(folder) => self.plan.after.push(folder),
            },
            (Value::File(file), Some(row)) => self.change(place, &file, row),
        }
    }

    /// A file stands where a file is to stand.
    fn change(&mut self, place: &Place, file: &FileValue, row: &Row) {
        let Some((value, identity)) = row.file() else { return };
        let expect = *identity;
        if value.content_id == file.content_id {
            self.note(place, row);
            if value != file {
                self.step(Action::SetMeta { place: place.clone(), expect });
            }
            return;
        }
        if self.is_above_rows(&place.real) {
            return;
        }
        if self.movable(&place.real, &file.content_id).is_some() {
            self.clear(&place.real);
            return;
        }
        let old = match self.goes(&place.real, row) {
            Goes::Nowhere => Old::Trash,
            Goes::To(kept) => Old::Keep(kept),
            Goes::Later => return,
        };
        self.step(Action::Replace { place: place.clone(), expect, old });
    }

    /// What stands there is to leave.
    fn clear(&mut self, real: &SharePath) {
        let Some(row) = self.table.get(real) else { return };
        // Rows below a file, or below a folder that is to go: they leave first.
        if self.is_above_rows(real) {
            return;
        }
        let Some((_, identity)) = row.file() else {
            self.step(Action::RemoveFolder { real: real.clone() });
            return;
        };
        match self.goes(real, row) {
            Goes::Nowhere => self.step(Action::Remove { real: real.clone(), expect: *identity }),
            Goes::To(place) => self.step(Action::Move { from: real.clone(), expect: *identity, place }),
            Goes::Later => {}
        }
    }

    fn goes(&self, real: &SharePath, row: &Row) -> Goes {
        let wants = |place: &Place| {
            place.real != *real && place.value.file().is_some_and(|file| row.has_content(&file.content_id))
        };
        let Some(place) = places(self.index, row.origin(real)).into_iter().find(wants) else { return Goes::Nowhere };
        if !(self.limits.is_wanted)(&place.real) {
            return Goes::Nowhere;
        }
        let content_id = place.value.file().map(|file| file.content_id);
        match self.table.get(&place.real) {
            // What the table tells of a place that is not free may not be so any more.
            _ if !(self.limits.is_free)(&place.real) => Goes::Later,
            Some(there) if content_id.is_some_and(|id| there.has_content(&id)) => Goes::Nowhere,
            None => Goes::To(place),
            Some(_) => Goes::Later,
        }
    }

    /// A file with this content that nothing wants where it is.
    fn movable(&self, to: &SharePath, content_id: &ContentId) -> Option<(SharePath, FileIdentity)> {
        let holders = self.table.holders(content_id).filter(|real| *real != to).take(MAX_HOLDERS);
        holders.filter(|real| (self.limits.is_free)(real) && !self.is_above_rows(real)).find_map(|real| {
            let row = self.table.get(real)?;
            let (_, identity) = row.file()?;
            let wanted = places(self.index, row.origin(real)).into_iter().any(|place| {
                let has_content = place.value.file().is_some_and(|file| file.content_id == *content_id);
                let is_there = self.table.get(&place.real).is_some() && (self.limits.is_free)(&place.real);
                has_content && place.real != *to && (place.real == *real || !is_there)
            });
            (!wanted).then(|| (real.clone(), *identity))
        })
    }

    /// Whether this content of the path stands, or is being put, at another name too, and it is not known yet what the user has
    /// done to it there. A version that is deleted or replaced under one name would stay if it got the other one meanwhile.
    fn is_undecided(&self, place: &Place, content_id: &ContentId) -> bool {
        let is_it = |other: &Place| {
            let is_content = other.value.file().is_some_and(|file| file.content_id == *content_id);
            is_content && other.origin == place.origin && other.real != place.real
        };
        self.limits.coming.iter().any(is_it)
            || self.other_rows(place, content_id).any(|real| (self.limits.is_in_doubt)(real))
    }

    /// The other rows of the same path that have this content.
    fn other_rows<'b>(&'b self, place: &'b Place, content_id: &'b ContentId) -> impl Iterator<Item = &'b SharePath> {
        let own = self.table.get(&place.origin).filter(|row| row.copy_of.is_none()).map(|_| &place.origin);
        let rows = own.into_iter().chain(self.table.copies(&place.origin)).filter(|real| **real != place.real);
        rows.filter(|real| self.table.get(real).is_some_and(|row| row.has_content(content_id)))
    }

    fn is_above_rows(&self, real: &SharePath) -> bool {
        self.table.below(real).next().is_some()
    }

    /// Whether the folder that a real path lies in is there, and what to do first if not.
    fn above(&self, real: &SharePath) -> Above {
        let Some(folder) = real.parent() else { return Above::Ready };
        if !(self.limits.is_free)(&folder) {
            return Above::After(folder);
        }
        match self.table.get(&folder) {
            Some(Row { on_disk: OnDisk::Folder, .. }) => Above::Ready,
            Some(_) => Above::After(folder),
            None => match self.above(&folder) {
                Above::Ready => {
                    let place = places(self.index, &folder).into_iter().next();
                    match place.filter(|place| place.value == Value::Folder) {
                        Some(place) => Above::Make(place),
                        None => Above::After(folder),
                    }
                }
                other => other,
            },
        }
    }

    /// Makes a folder first, and goes on when it is there.
    fn make_above(&mut self, folder: Place) {
        self.plan.after.push(folder.real.clone());
        self.step(Action::MakeFolder(folder));
    }

    fn note(&mut self, place: &Place, row: &Row) {
        if row.origin(&place.real) != &place.origin || *row.dots != *place.dots {
            self.plan.notes.push(place.clone());
        }
    }

    fn step(&mut self, action: Action) {
        self.plan.steps.push(action);
    }
}

/// What a replica knows: of the swarm, and of its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replica {
    /// The index.
    pub registers: BTreeMap<SharePath, Register>,
    /// The disk table.
    pub rows: BTreeMap<SharePath, Row>,
}

/// Joins what another replica knows, and says what is to be done in the local folder, in order. Returns the local replica
/// as it is when that is done.
///
/// `reconcile(a, b)` and `reconcile(b, a)` end with equal registers and equal folders; done again it does nothing.
pub fn reconcile(local: &Replica, remote: &BTreeMap<SharePath, Register>) -> (Replica, Vec<Action>) {
    let entry =
        |(path, register): (&SharePath, &Register)| IndexEntry { path: path.clone(), register: register.clone() };
    let stored = Stored {
        entries: local.registers.iter().map(entry).collect(),
        rows: local.rows.iter().map(|(real, row)| (real.clone(), row.clone().into())).collect(),
    };
    // Nobody writes here, so nobody's name is needed, and time does not pass.
    let now = Instant::now();
    let mut machine = Machine::new(PeerId::from_bytes([0; PeerId::LEN]), 0, SyncMode::Both, stored);
    machine.trust_the_table();
    machine.on_remote(remote.iter().map(entry).collect(), Source(0));
    if machine.take_unsaved().is_some() {
        machine.on_saved();
    }
    let mut actions = Vec::new();
    while let Some(action) = machine.next_action(now) {
        machine.on_outcome(&action, as_if_done(&action), now);
        actions.push(action);
    }
    (machine.replica(), actions)
}

/// The outcome of an action in a folder that exists in thought only.
fn as_if_done(action: &Action) -> Outcome {
    let made = |place: &Place| {
        place.value.file().map(|file| FileIdentity {
            inode: (0, 0),
            len: file.len,
            mtime: (file.mtime_ns.div_euclid(NS_PER_SEC), file.mtime_ns.rem_euclid(NS_PER_SEC)),
            ctime: (0, 0),
        })
    };
    match action {
        Action::Replace { place, expect, old } => {
            let kept = matches!(old, Old::Keep(_)).then_some(*expect);
            Outcome::Done { identity: made(place), kept }
        }
        Action::Place(place) | Action::SetMeta { place, .. } => Outcome::Done { identity: made(place), kept: None },
        Action::Move { expect, .. } => Outcome::placed(*expect),
        Action::MakeFolder(_) | Action::Remove { .. } | Action::RemoveFolder { .. } => Outcome::DONE,
    }
}

const NS_PER_SEC: i64 = 1_000_000_000;
