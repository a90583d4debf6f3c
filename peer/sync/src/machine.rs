//! The machine that keeps a folder equal to the swarm's: facts in, actions and entries out. No clock, no disk, no sockets.
//!
//! Facts about the folder ([`local`](super::local)) become writes in the index, facts from others
//! ([`remote`](super::remote)) are joined into it, and what the index wants that the disk table has not becomes an
//! action ([`reconcile`](super::reconcile)). This file holds the state, what goes in and out of the store, and the
//! actions under way.
//!
//! The driver's part of the bargain:
//! - The folder is scanned first; until that is over there are no actions, and what others tell is kept back.
//! - It saves ([`Machine::take_unsaved`], [`Machine::on_saved`]) whenever there is something to save, a batch at once or not at all.
//! - What it tells of a path ([`Machine::on_seen`], [`Machine::on_gone`]) is not older than the last outcome there: it looks
//!   at the identity once more before it tells.
//! - It looks wherever [`Machine::take_looks`] says, and answers each with `on_seen` or `on_gone`.
//! - Every action gets an outcome.
//!
//! Invariant: nothing leaves the machine, neither an action nor an entry, before the store has kept what it rests on. So
//! after a crash no write is announced twice under two dots, and a file that we put somewhere is known as such.
//!
//! Invariant: when the index no longer wants what an action in flight is putting somewhere, one batch tells the store both
//! this and the intent. So whatever stands there after a crash is known as ours, by the index or by the intent.
//!
//! Invariant: at most one action is in flight at a real path, and nothing that is seen there meanwhile counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::time::{Duration, Instant};

use potluck_common::projection::{MAX_SYNCED_LEN, Place, originals, places};
use potluck_common::protocol::{GENERATION_SHIFT, IndexEntry, SyncMode};
use potluck_common::register::{Dot, FileValue, Value};
use potluck_common::{ContentId, PeerId, Register, SharePath};

use super::action::{Action, Old, Outcome, Seen};
use super::disk_table::{DiskTable, Intent, KeptAt, OnDisk, Row};
use super::file_identity::FileIdentity;
use super::guard::Guard;
use super::index::Index;
use super::kept_back::KeptBack;
use super::outbox::Outbox;
use super::queue::Queue;
use super::reconcile::{Limits, Replica, plan};
use super::timers::Timers;

/// A name that is taken, or a folder that is not empty, is tried again after so long if nothing happens there.
const BLOCKED_AGAIN: Duration = Duration::from_secs(30);

/// What the store has kept.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// The index.
    pub entries: Vec<IndexEntry>,
    /// The disk table.
    pub rows: Vec<(SharePath, KeptAt)>,
}

/// What the store must keep, in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsaved {
    /// Changed entries of the index.
    pub entries: Vec<IndexEntry>,
    /// Changed rows of the disk table; `None`: not there any more.
    pub rows: Vec<(SharePath, Option<KeptAt>)>,
}

/// Which paths are none of ours, for instance by ignore rules.
pub type Outside = Box<dyn Fn(&SharePath) -> bool + Send + Sync>;

/// A batch on its way to the store.
#[derive(Debug, Clone, Default)]
struct Saving {
    seq: u64,
    paths: BTreeSet<SharePath>,
    reals: BTreeSet<SharePath>,
}

/// See the module's text.
pub struct Machine {
    pub(super) me: PeerId,
    pub(super) last_write: u64,
    pub(super) first_write: u64,
    pub(super) mode: SyncMode,
    pub(super) outside: Outside,
    pub(super) index: Index,
    pub(super) table: DiskTable,
    pub(super) queue: Queue,
    pub(super) outbox: Outbox,
    pub(super) guard: Guard,
    /// Real paths of actions in flight; whether something was seen there meanwhile.
    busy: BTreeMap<SharePath, bool>,
    /// What these actions put where.
    coming: Vec<Place>,
    /// Writes that were made again under another identity since the first of these actions began: the new ones by the old.
    pub(super) renamed: BTreeMap<Dot, Dot>,
    n_naming: usize,
    resting: Timers,
    pub(super) asked: BTreeSet<SharePath>,
    looks: Vec<SharePath>,
    pub(super) unsettled: BTreeSet<SharePath>,
    /// Where it cannot be told what stands; whether it is the place that was looked at, and not one below.
    pub(super) frozen: BTreeMap<SharePath, bool>,
    /// Files of ours that differ in a folder that only receives.
    pub(super) aside: BTreeSet<SharePath>,
    /// Rows that the scan under way has not met yet.
    pub(super) unmet: Option<BTreeSet<SharePath>>,
    pub(super) is_scanned: bool,
    pub(super) is_paused: bool,
    pub(super) needs_identity: bool,
    pub(super) kept_back: KeptBack,
    /// During the first scan on a state that was stored: what is to be written when all has been seen.
    pub(super) deferred: Option<BTreeMap<SharePath, Seen>>,
    /// Rows in whose place something was found that the index wants there.
    pub(super) displaced: Vec<(SharePath, Row)>,
    saving: Option<Saving>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("me", &self.me).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Machine {
    /// `generation` is the number of this start of the peer, and durable already.
    pub fn new(me: PeerId, generation: u64, mode: SyncMode, stored: Stored) -> Self {
        let index = Index::restored(stored.entries);
        let table = DiskTable::restored(stored.rows);
        let deferred = index.paths().next().map(|_| BTreeMap::new());
        let first_write = generation << GENERATION_SHIFT;
        let mut machine = Self {
            me,
            last_write: first_write,
            first_write,
            mode,
            outside: Box::new(|_| false),
            index,
            table,
            queue: Queue::default(),
            outbox: Outbox::default(),
            guard: Guard::default(),
            busy: BTreeMap::new(),
            coming: Vec::new(),
            renamed: BTreeMap::new(),
            n_naming: 0,
            resting: Timers::default(),
            asked: BTreeSet::new(),
            looks: Vec::new(),
            unsettled: BTreeSet::new(),
            frozen: BTreeMap::new(),
            aside: BTreeSet::new(),
            unmet: None,
            is_scanned: false,
            is_paused: false,
            needs_identity: false,
            kept_back: KeptBack::default(),
            deferred,
            displaced: Vec::new(),
            saving: None,
        };
        machine.wake_everything();
        machine
    }

    /// Takes the disk table for what is in the folder, without a scan.
    pub(super) fn trust_the_table(&mut self) {
        self.is_scanned = true;
    }

    /// What is to be kept now, if anything. One batch at a time: after it [`Self::on_saved`] or [`Self::on_not_saved`].
    pub fn take_unsaved(&mut self) -> Option<Unsaved> {
        if self.saving.is_some() {
            return None;
        }
        let (seq, paths) = self.index.take_unsaved();
        let reals = self.table.take_unsaved();
        if paths.is_empty() && reals.is_empty() {
            return None;
        }
        self.queue.save();
        let unsaved = Unsaved {
            entries: paths.iter().filter_map(|path| self.index.entry(path)).collect(),
            rows: reals.iter().map(|real| (real.clone(), self.table.kept(real))).collect(),
        };
        self.saving = Some(Saving { seq, paths, reals });
        Some(unsaved)
    }

    /// The store has kept the batch.
    pub fn on_saved(&mut self) {
        if let Some(saving) = self.saving.take() {
            self.index.on_saved(saving.seq);
            self.queue.saved();
        }
    }

    /// The store could not keep the batch; it is part of the next one.
    pub fn on_not_saved(&mut self) {
        if let Some(saving) = self.saving.take() {
            self.index.still_unsaved(saving.paths);
            self.table.still_unsaved(saving.reals);
            self.queue.not_saved();
        }
    }

    /// How the folder is synced from now on. After leaving [`SyncMode::Receive`] the folder is to be scanned.
    pub fn set_mode(&mut self, mode: SyncMode) {
        self.mode = mode;
        self.aside.clear();
        self.wake_everything();
    }

    /// Which paths are none of ours from now on. What stands there stays, and is forgotten without being deleted for
    /// others. The folder is to be scanned after it.
    pub fn set_outside(&mut self, outside: Outside) {
        self.outside = outside;
        let reals = self.table.iter().map(|(real, _)| real).chain(&self.unsettled);
        let outside: BTreeSet<_> = reals.filter(|real| (self.outside)(real)).cloned().collect();
        for real in outside {
            self.table.take(&real);
            self.table.forget_intent(&real);
            self.guard.forget(&real);
            self.unsettled.remove(&real);
            self.frozen.remove(&real);
            self.aside.remove(&real);
            self.settled(&real);
        }
        self.wake_everything();
    }

    /// The next thing to do, if there is one now.
    pub fn next_action(&mut self, now: Instant) -> Option<Action> {
        self.on_time(now);
        if self.is_paused || !self.is_scanned || self.needs_identity {
            return None;
        }
        loop {
            while let Some(origin) = self.queue.next_ready() {
                if let Some(action) = self.look_at(&origin, Turn::First) {
                    return Some(action);
                }
            }
            // A rename is a removal here and a file there: while folders are being made and files moved, removals wait, so
            // that what is to be removed can be moved instead.
            let origin = if self.n_naming == 0 { self.queue.next_removal()? } else { return None };
            if let Some(action) = self.look_at(&origin, Turn::Removals) {
                return Some(action);
            }
        }
    }

    /// Plans for one path and begins what can be begun.
    fn look_at(&mut self, origin: &SharePath, turn: Turn) -> Option<Action> {
        let is_free = |real: &SharePath| self.is_free(real);
        let is_wanted = |real: &SharePath| !(self.outside)(real);
        let is_in_doubt = |real: &SharePath| self.is_in_doubt(real);
        let limits =
            Limits { is_free: &is_free, is_wanted: &is_wanted, is_in_doubt: &is_in_doubt, coming: &self.coming };
        let mut plan = plan(&self.index, &self.table, origin, limits);
        for place in std::mem::take(&mut plan.notes) {
            self.note(place);
        }
        if self.mode == SyncMode::Send {
            return None;
        }
        for folder in plan.after {
            self.queue.wait_for(folder, origin.clone());
        }
        let is_removal = |action: &Action| matches!(action, Action::Remove { .. } | Action::RemoveFolder { .. });
        let n_steps = plan.steps.len();
        let is_next = |action: &Action| match action {
            Action::RemoveFolder { real } => turn == Turn::Removals && !self.is_busy_below(real),
            Action::Remove { .. } => turn == Turn::Removals,
            _ => true,
        };
        let later = plan.steps.iter().any(|action| is_removal(action) && turn == Turn::First);
        let action = plan.steps.into_iter().find(is_next);
        if later {
            self.queue.remove_later(origin.clone());
        }
        let action = action?;
        if n_steps > 1 {
            self.queue.wake(origin);
        }
        self.begin(&action);
        Some(action)
    }

    fn begin(&mut self, action: &Action) {
        for real in action.touches() {
            self.busy.insert(real.clone(), false);
        }
        self.coming.extend(action.puts().into_iter().cloned());
        self.n_naming += usize::from(action.makes_name());
    }

    /// A file is right; it stands for these versions now.
    fn note(&mut self, place: Place) {
        if let Some(row) = self.table.get(&place.real) {
            let row = Row { copy_of: copy_of(&place), dots: place.dots.into(), on_disk: row.on_disk };
            self.table.put(place.real, row);
        }
    }

    fn is_wanted(&self, place: &Place) -> bool {
        let same = |now: &Place| now.real == place.real && now.value == place.value;
        places(&self.index, &place.origin).iter().any(same)
    }

    /// The places of a path may have altered: what is being put where the index no longer wants it is kept as an intent.
    fn keep_intents(&mut self, origin: &SharePath) {
        let given_up = |place: &&Place| place.origin == *origin && !self.is_wanted(place);
        let given_up: Vec<_> = self.coming.iter().filter(given_up).cloned().collect();
        for place in given_up {
            let intent = Intent { value: place.value, copy_of: copy_of(&place), dots: place.dots.into() };
            self.table.intend(place.real, intent);
        }
    }

    /// What became of an action.
    pub fn on_outcome(&mut self, action: &Action, outcome: Outcome, now: Instant) {
        self.n_naming -= usize::from(action.makes_name());
        for real in action.touches() {
            // What was seen while it was in flight may have been ours or not: only another look can tell.
            if self.busy.remove(real) == Some(true) {
                self.ask(real);
            }
        }
        for place in action.puts() {
            self.coming.retain(|coming| coming.real != place.real);
            self.table.forget_intent(&place.real);
        }
        match outcome {
            Outcome::Done { identity, kept } => self.on_done(action, identity, kept),
            Outcome::Dropped => {}
            Outcome::Changed => action.touches().into_iter().for_each(|real| self.ask(real)),
            // It is there for what lies in it, and is none of ours otherwise.
            Outcome::Taken if matches!(action, Action::MakeFolder(place) if !self.is_ours(&place.real)) => {
                self.on_done(action, None, None);
            }
            Outcome::Taken => {
                self.rest(action, now + BLOCKED_AGAIN);
                self.ask(action.touches()[0]);
            }
            Outcome::NotEmpty => self.rest(action, now + BLOCKED_AGAIN),
            Outcome::Failed { again_after } => self.rest(action, now + again_after),
        }
        if !self.is_acting() {
            self.renamed.clear();
        }
        for real in action.touches() {
            self.wake(real);
        }
    }

    fn on_done(&mut self, action: &Action, identity: Option<FileIdentity>, kept: Option<FileIdentity>) {
        for real in action.touches() {
            if let Some(unmet) = &mut self.unmet {
                unmet.remove(real);
            }
        }
        match action {
            Action::Place(place) | Action::SetMeta { place, .. } => {
                if let Value::File(value) = place.value {
                    self.put(place, value, identity);
                }
            }
            Action::Replace { place, old, .. } => {
                let before = self.table.take(&place.real);
                if let (Old::Keep(place), Some((value, _))) = (old, before.as_ref().and_then(Row::file)) {
                    self.put(place, *value, kept);
                }
                if let Value::File(value) = place.value {
                    self.put(place, value, identity);
                }
            }
            Action::Move { from, place, .. } => {
                if let Some((value, _)) = self.table.take(from).as_ref().and_then(Row::file) {
                    self.put(place, *value, identity);
                }
            }
            Action::MakeFolder(place) => {
                let row = self.row_of(place, OnDisk::Folder);
                self.table.put(place.real.clone(), row);
            }
            Action::Remove { real, .. } | Action::RemoveFolder { real } => drop(self.table.take(real)),
        }
    }

    fn put(&mut self, place: &Place, value: FileValue, identity: Option<FileIdentity>) {
        match identity {
            Some(identity) => {
                let row = self.row_of(place, OnDisk::File { value, identity });
                self.table.put(place.real.clone(), row);
            }
            None => self.ask(&place.real),
        }
    }

    /// The row of what an action has put somewhere, whose versions may have got other names while it was in flight.
    fn row_of(&self, place: &Place, on_disk: OnDisk) -> Row {
        let mut dots: Vec<_> = place.dots.iter().map(|dot| *self.renamed.get(dot).unwrap_or(dot)).collect();
        dots.sort_unstable();
        Row { on_disk, copy_of: copy_of(place), dots: dots.into() }
    }

    /// Whether actions are in flight.
    pub(super) fn is_acting(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Lets the paths of an action rest.
    fn rest(&mut self, action: &Action, until: Instant) {
        for real in action.touches() {
            self.resting.set(real.clone(), until);
        }
    }

    /// What is due by now.
    fn on_time(&mut self, now: Instant) {
        for real in self.resting.take_due(now) {
            self.wake(&real);
        }
        self.judge_missing(now);
    }

    /// When [`Self::next_action`] is to be asked again, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        [self.resting.next(), self.guard.next_deadline()].into_iter().flatten().min()
    }

    /// Where to look; each path is to be answered.
    pub fn take_looks(&mut self) -> Vec<SharePath> {
        std::mem::take(&mut self.looks)
    }

    pub(super) fn ask(&mut self, real: &SharePath) {
        if self.asked.insert(real.clone()) {
            self.looks.push(real.clone());
        }
    }

    /// Whether something is in flight at a real path; notes that something was seen there.
    pub(super) fn interferes(&mut self, real: &SharePath) -> bool {
        match self.busy.get_mut(real) {
            Some(seen) => {
                *seen = true;
                true
            }
            None => false,
        }
    }

    pub(super) fn is_busy(&self, real: &SharePath) -> bool {
        self.busy.contains_key(real)
    }

    fn is_busy_below(&self, real: &SharePath) -> bool {
        let below = format!("{real}/");
        self.busy
            .range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded))
            .next()
            .is_some_and(|(path, _)| path.as_str().starts_with(&below))
    }

    /// Whether an action may touch a real path.
    fn is_free(&self, real: &SharePath) -> bool {
        !(self.is_in_doubt(real) || self.is_frozen(real) || self.is_resting(real) || self.aside.contains(real))
    }

    /// Whether something goes on at a real path, and what stands there will be known when that is over.
    fn is_in_doubt(&self, real: &SharePath) -> bool {
        self.busy.contains_key(real)
            || self.asked.contains(real)
            || self.unsettled.contains(real)
            || self.guard.is_missing(real)
    }

    pub(super) fn is_resting(&self, real: &SharePath) -> bool {
        self.resting.contains(real)
    }

    pub(super) fn stop_resting(&mut self, real: &SharePath) {
        self.resting.clear(real);
    }

    /// Something has changed at a real path: whoever may want something there is looked at again.
    pub(super) fn wake(&mut self, real: &SharePath) {
        self.queue.wake(real);
        if let Some(origin) = self.table.get(real).and_then(|row| row.copy_of.as_ref()) {
            self.queue.wake(origin);
        }
        for origin in originals(&self.index, real) {
            self.queue.wake(&origin);
        }
        let mut above = real.parent();
        while let Some(folder) = above {
            self.queue.wake(&folder);
            above = folder.parent();
        }
        self.queue.wake_below(real);
    }

    pub(super) fn wake_everything(&mut self) {
        for path in self.index.paths() {
            self.queue.wake(path);
        }
        for (real, row) in self.table.iter() {
            self.queue.wake(row.origin(real));
        }
    }

    /// Changes a register and has everything looked at that this may have altered; whether it changed.
    pub(super) fn change(&mut self, path: &SharePath, edit: impl FnOnce(&mut Register) -> bool) -> bool {
        let affected = self.index.change(path, edit);
        let has_changed = !affected.is_empty();
        if has_changed {
            self.outbox.changed(path);
        }
        for path in affected {
            self.keep_intents(&path);
            self.queue.change(path);
        }
        has_changed
    }

    /// A write of ours.
    pub(super) fn write(&mut self, path: &SharePath, replaces: &[Dot], value: Value) -> Dot {
        use potluck_common::projection::Registers;
        let known = self.index.register(path).map_or(0, |register| register.seen().latest(self.me));
        self.last_write = self.last_write.max(known) + 1;
        let dot = Dot { by: self.me, n: self.last_write };
        self.change(path, |register| {
            register.write(dot, replaces, value);
            true
        });
        dot
    }

    /// Where a content stands in the folder, as far as we know.
    pub fn holders(&self, content_id: &ContentId) -> impl Iterator<Item = &SharePath> {
        let is_known = |real: &SharePath| !self.unsettled.contains(real) && !self.frozen.contains_key(real);
        self.table.holders(content_id).filter(move |real| !self.guard.is_missing(real) && is_known(real))
    }

    /// Conflict copies in the folder: of what, and where.
    pub fn copies(&self) -> impl Iterator<Item = (&SharePath, &SharePath)> {
        self.table.all_copies()
    }

    /// Files that differ from the swarm's and stay as they are, in a folder that only receives.
    pub fn set_aside(&self) -> impl Iterator<Item = &SharePath> {
        self.aside.iter()
    }

    /// Where an action failed and is to be tried again later.
    pub fn blocked(&self) -> impl Iterator<Item = &SharePath> {
        self.resting.paths()
    }

    /// The disk table.
    pub const fn table(&self) -> &DiskTable {
        &self.table
    }

    /// The index.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Whether nothing is left to do, save, or wait for.
    pub fn is_at_rest(&self) -> bool {
        self.is_scanned
            && self.queue.is_idle()
            && self.saving.is_none()
            && self.busy.is_empty()
            && self.asked.is_empty()
            && self.unsettled.is_empty()
            && self.kept_back.is_empty()
            && self.resting.next().is_none()
            && self.guard.missing().next().is_none()
    }

    /// Under which identity it writes.
    pub const fn me(&self) -> PeerId {
        self.me
    }

    /// Whether nothing goes on before [`Self::take_identity`].
    pub const fn needs_identity(&self) -> bool {
        self.needs_identity
    }

    /// All that it knows.
    pub fn replica(&self) -> Replica {
        let entry = |path: &SharePath| self.index.entry(path).map(|entry| (entry.path, entry.register));
        Replica {
            registers: self.index.paths().filter_map(entry).collect(),
            rows: self.table.iter().map(|(real, row)| (real.clone(), row.clone())).collect(),
        }
    }

    pub(super) fn is_ours(&self, real: &SharePath) -> bool {
        real.as_str().len() <= MAX_SYNCED_LEN && !(self.outside)(real)
    }
}

/// What a path is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Removals,
}

pub(super) fn copy_of(place: &Place) -> Option<SharePath> {
    (place.origin != place.real).then(|| place.origin.clone())
}
