//! What is seen in the folder, and what that means: a write, a delete, or nothing.
//!
//! The disk table says what was there before. What differs from it is a change of the user's: it replaces the versions
//! that stood there, and no others. What the table does not know but the index wants just there is taken for that (a
//! crash forgot the row, or both have the same file), without a write. So in the first scan nothing is written before all has
//! been seen: a write moves what the index wants elsewhere. A path that is gone is judged by the [guard](super::guard).
//!
//! Whoever changes a conflict copy makes a file of its own of it, at its own name.

use std::collections::BTreeMap;
use std::time::Instant;

use potluck_common::projection::{Place, Registers, originals, places};
use potluck_common::protocol::SyncMode;
use potluck_common::register::{Dot, FileValue, Value};
use potluck_common::{ContentId, SharePath};

use super::action::Seen;
use super::disk_table::{Intent, OnDisk, Row};
use super::guard::Census;
use super::machine::{Machine, copy_of};

impl Machine {
    /// This stands there.
    pub fn on_seen(&mut self, real: &SharePath, seen: Seen, now: Instant) {
        self.meet(real);
        if self.is_paused || !self.is_ours(real) || self.interferes(real) {
            return;
        }
        self.asked.remove(real);
        self.guard.forget(real);
        self.thaw(real);
        // An action has found the name taken, and it may be by a file whose name differs in case only: then no look ever tells more,
        // and what is wanted there is tried again in its time, and counts as blocked until then.
        if seen == Seen::Unsettled && self.is_scanned && self.is_resting(real) && self.table.get(real).is_none() {
            return;
        }
        self.stop_resting(real);
        match seen {
            Seen::Unsettled => {
                self.unsettled.insert(real.clone());
                if !self.is_scanned && self.is_known(real) {
                    self.keep_back_for(real);
                }
            }
            Seen::File { .. } | Seen::Folder => {
                self.unsettled.remove(real);
                self.take_in(real, seen, now);
            }
        }
        self.wake(real);
        if !self.unsettled.contains(real) {
            if self.is_scanned {
                self.table.forget_intent(real);
            }
            self.settled(real);
        }
    }

    /// Nothing stands there, nor below.
    pub fn on_gone(&mut self, real: &SharePath, now: Instant) {
        self.meet(real);
        if self.is_paused || self.interferes(real) {
            return;
        }
        if let Some(deferred) = &mut self.deferred {
            let below = format!("{real}/");
            deferred.retain(|path, _| path != real && !path.as_str().starts_with(&below));
        }
        let below: Vec<_> = self.table.below(real).map(|(real, _)| real.clone()).collect();
        for real in below.iter().chain([real]) {
            self.asked.remove(real);
            self.unsettled.remove(real);
            self.thaw(real);
            if !self.is_busy(real) {
                self.table.forget_intent(real);
            }
            if self.table.get(real).is_some() {
                if !self.interferes(real) {
                    self.guard.miss(real.clone(), now);
                }
            } else if self.aside.remove(real) {
                self.wake(real);
            }
        }
        if let Some(folder) = real.parent() {
            self.stop_resting(&folder);
        }
        self.wake(real);
        self.settled(real);
    }

    /// A full scan has begun: until [`Self::on_scan_ended`] everything in the folder is told with [`Self::on_seen`],
    /// unchanged files too.
    pub fn on_scan_began(&mut self) {
        let known = self.table.iter().map(|(real, _)| real).chain(&self.unsettled).chain(self.frozen.keys());
        self.unmet = Some(known.filter(|real| self.is_ours(real)).cloned().collect());
    }

    /// The scan could not be finished: nothing follows from what it did not meet.
    pub fn on_scan_failed(&mut self) {
        self.unmet = None;
    }

    /// The scan is over: what it has not met is gone.
    pub fn on_scan_ended(&mut self, now: Instant) {
        for real in self.unmet.take().unwrap_or_default() {
            if self.interferes(&real) {
                continue;
            }
            self.thaw(&real);
            if self.unsettled.remove(&real) {
                self.wake(&real);
                self.settled(&real);
            }
            // What has left the table meanwhile is judged already.
            if self.table.get(&real).is_some() {
                self.guard.miss(real, now);
            }
        }
        if self.is_paused {
            return;
        }
        for (real, seen) in self.deferred.take().unwrap_or_default() {
            self.take_in(&real, seen, now);
            self.wake(&real);
        }
        self.is_scanned = true;
        self.guard.begin_window(self.table.n_files());
        self.queue.wake_all_waiting();
        self.judge_displaced();
        self.forget_intents();
        self.take_up_kept_back();
    }

    /// The share folder is not what it was: gone, another one, or without its state. Nothing is judged by what is seen now, and
    /// nothing is done, until [`Self::on_folder_back`].
    pub fn on_folder_lost(&mut self) {
        self.is_paused = true;
        self.unmet = None;
        for real in self.guard.take_all() {
            self.wake(&real);
        }
    }

    /// The share folder is there again, and is to be scanned before anything else.
    pub fn on_folder_back(&mut self) {
        self.is_paused = false;
        self.is_scanned = false;
        self.deferred = Some(BTreeMap::new());
    }

    /// Whether the share folder is lost.
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Deletions that wait for a person.
    pub fn held(&self) -> impl Iterator<Item = &SharePath> {
        self.guard.held()
    }

    /// A person says that what is held has been deleted on purpose.
    pub fn confirm(&mut self) {
        for real in self.guard.take_held() {
            self.vanish(&real);
        }
        self.guard.begin_window(self.table.n_files());
    }

    /// A person wants back what is held.
    pub fn restore(&mut self) {
        for real in self.guard.take_held() {
            self.wake_row(&real);
            self.table.take(&real);
            self.wake(&real);
        }
        self.guard.begin_window(self.table.n_files());
    }

    pub(super) fn judge_missing(&mut self, now: Instant) {
        let is_due = self.guard.next_deadline().is_some_and(|at| at <= now);
        if self.is_paused || !self.is_scanned || !is_due {
            return;
        }
        let census = self.census();
        for real in self.guard.judge(now, &census) {
            if self.table.get(&real).is_some_and(|row| self.may_have_moved(&real, row)) {
                self.guard.postpone(real, now);
            } else {
                self.vanish(&real);
            }
        }
    }

    fn census(&self) -> Census {
        let mut census = Census { n_files: self.table.n_files(), ..Census::default() };
        for real in self.guard.missing() {
            if let Some((value, _)) = self.table.get(real).and_then(Row::file) {
                census.n_missing += 1;
                census.n_lost += usize::from(!self.is_elsewhere(&value.content_id));
            }
        }
        census
    }

    fn is_elsewhere(&self, content_id: &ContentId) -> bool {
        self.table.holders(content_id).any(|real| !self.guard.is_missing(real))
    }

    /// A crash may have forgotten that we moved this to where its register wants it; what is there is not known yet.
    fn may_have_moved(&self, real: &SharePath, row: &Row) -> bool {
        let Some((value, _)) = row.file() else { return false };
        let origin = row.origin(real);
        let is_wanted = places(&self.index, origin).iter().any(|place| {
            let is_content = place.value.file().is_some_and(|file| file.content_id == value.content_id);
            is_content && place.real != *real && self.unsettled.contains(&place.real)
        });
        let is_intended = |(at, intent): (&SharePath, &Intent)| {
            intent.has_content(&value.content_id)
                && at != real
                && intent.origin(at) == origin
                && self.unsettled.contains(at)
        };
        is_wanted || self.table.intents().any(is_intended)
    }

    /// After a scan only those of actions in flight, and where it is not known yet what stands there, say anything.
    fn forget_intents(&mut self) {
        let is_known =
            |real: &SharePath| !self.is_busy(real) && !self.unsettled.contains(real) && !self.is_frozen(real);
        let is_over = |(real, _): &(&SharePath, &Intent)| is_known(real);
        let over: Vec<_> = self.table.intents().filter(is_over).map(|(real, _)| real.clone()).collect();
        for real in over {
            self.table.forget_intent(&real);
        }
    }

    /// It is deleted: by the user, and so for all. In a folder that only receives it comes back.
    pub(super) fn vanish(&mut self, real: &SharePath) {
        self.guard.forget(real);
        self.wake_row(real);
        let Some(row) = self.table.take(real) else { return };
        if row.file().is_some_and(|(value, _)| !self.is_elsewhere(&value.content_id)) {
            self.guard.on_let_go();
        }
        if self.mode != SyncMode::Receive && self.is_ours(real) {
            self.give_up(&row, real);
        }
        self.wake(real);
    }

    /// Takes the versions that a row stood for out of its register, but for those that another row stands for.
    fn give_up(&mut self, row: &Row, real: &SharePath) {
        let origin = row.origin(real).clone();
        let kept = self.kept_elsewhere(&origin, real);
        let dots: Vec<_> = row.dots.iter().copied().filter(|dot| !kept.contains(dot)).collect();
        self.change(&origin, |register| {
            let n_live = register.live().len();
            register.remove(&dots);
            register.live().len() != n_live
        });
    }

    /// The versions of a path that other rows than the one at `real` stand for.
    fn kept_elsewhere(&self, origin: &SharePath, real: &SharePath) -> Vec<Dot> {
        let own = self.table.get(origin).filter(|row| row.copy_of.is_none()).map(|_| origin);
        let others = own.into_iter().chain(self.table.copies(origin));
        others
            .filter(|other| *other != real && !self.guard.is_missing(other))
            .filter_map(|other| self.table.get(other))
            .flat_map(|row| row.dots.iter().copied())
            .collect()
    }

    /// What stands there is known now.
    fn take_in(&mut self, real: &SharePath, seen: Seen, now: Instant) {
        let on_disk = match seen {
            Seen::File { identity, content_id, executable } => {
                let mtime_ns = identity.mtime.0.saturating_mul(1_000_000_000).saturating_add(identity.mtime.1);
                let value = FileValue { mtime_ns, content_id, len: identity.len, executable };
                OnDisk::File { value, identity }
            }
            Seen::Folder => OnDisk::Folder,
            Seen::Unsettled => return,
        };
        if self.is_unchanged(real, &on_disk) || self.is_expected(real, &on_disk) || self.is_intended(real, &on_disk) {
            self.aside.remove(real);
        } else if let Some(deferred) = &mut self.deferred {
            deferred.insert(real.clone(), seen);
        } else if self.mode != SyncMode::Receive {
            self.write_over(real, on_disk, now);
        } else if on_disk != OnDisk::Folder || self.table.get(real).is_some() {
            self.aside.insert(real.clone());
        }
    }

    /// Whether it is what stood there before; if only its state is another one, that is noted.
    fn is_unchanged(&mut self, real: &SharePath, on_disk: &OnDisk) -> bool {
        let Some(row) = self.table.get(real) else { return false };
        let (OnDisk::File { value, identity }, Some((known, state))) = (on_disk, row.file()) else {
            return row.on_disk == *on_disk;
        };
        // A file system may store times more coarsely than they were asked for: what it made of them is compared.
        let is_same = known.content_id == value.content_id
            && known.executable == value.executable
            && state.mtime == identity.mtime;
        if is_same && state != identity {
            let row = Row { on_disk: OnDisk::File { value: *known, identity: *identity }, ..row.clone() };
            self.table.put(real.clone(), row);
        }
        is_same
    }

    /// Whether it is what the index wants there; then it is taken for that.
    fn is_expected(&mut self, real: &SharePath, on_disk: &OnDisk) -> bool {
        let Some(place) = self.wanted_at(real) else { return false };
        let is_expected = match (on_disk, place.value) {
            (OnDisk::File { value, .. }, Value::File(wanted)) => {
                // Only times or mode are others than before: a change of the user's, unless they are just what is wanted.
                let is_touched = self.table.get(real).is_some_and(|row| row.has_content(&value.content_id));
                value.content_id == wanted.content_id && (!is_touched || *value == wanted)
            }
            // A folder that is wanted only for what lies in it is the user's own all the same, unless a crash may have
            // made us forget that we made it.
            (OnDisk::Folder, Value::Folder) => !place.dots.is_empty() || self.deferred.is_some(),
            _ => false,
        };
        if is_expected {
            self.put_seen(&place, *on_disk);
        }
        is_expected
    }

    /// Whether it is what we put there before a crash, for a register that has moved on; then it stands for what it stood for.
    fn is_intended(&mut self, real: &SharePath, on_disk: &OnDisk) -> bool {
        let Some(intent) = self.table.intent(real).cloned() else { return false };
        let is_intended = match (on_disk, intent.value) {
            (OnDisk::File { value, .. }, Value::File(intended)) => {
                let is_touched = self.table.get(real).is_some_and(|row| row.has_content(&value.content_id));
                value.content_id == intended.content_id && (!is_touched || *value == intended)
            }
            (OnDisk::Folder, Value::Folder) => true,
            _ => false,
        };
        if is_intended {
            let origin = intent.origin(real).clone();
            let place = Place { real: real.clone(), value: intent.value, origin, dots: intent.dots.into() };
            self.put_seen(&place, *on_disk);
        }
        is_intended
    }

    /// A write of the user's, over what stood there.
    fn write_over(&mut self, real: &SharePath, on_disk: OnDisk, now: Instant) {
        self.wake_row(real);
        let mut replaces = Vec::new();
        if let Some(row) = self.table.get(real).cloned() {
            if row.copy_of.is_some() {
                self.give_up(&row, real);
            } else {
                let kept = self.kept_elsewhere(real, real);
                replaces = row.dots.iter().copied().filter(|dot| !kept.contains(dot)).collect();
            }
        }
        let dot = self.write(real, &replaces, on_disk.value());
        self.table.put(real.clone(), Row { on_disk, copy_of: None, dots: [dot].into() });
        if let OnDisk::File { value, .. } = on_disk {
            let below: Vec<_> = self.table.below(real).map(|(real, _)| real.clone()).collect();
            for real in below {
                if !self.interferes(&real) {
                    self.guard.miss(real, now);
                }
            }
            self.moved_away(real, &value.content_id);
        }
    }

    /// A content has turned up at a new name: where it is missing, it was renamed, and there is nothing to wait for.
    fn moved_away(&mut self, to: &SharePath, content_id: &ContentId) {
        let from: Vec<_> =
            self.table.holders(content_id).filter(|real| *real != to && self.guard.is_missing(real)).cloned().collect();
        if !self.is_scanned {
            return;
        }
        for real in from {
            self.vanish(&real);
        }
    }

    /// What the index wants there stands there, unless it is what stood there before.
    fn put_seen(&mut self, place: &Place, on_disk: OnDisk) {
        self.wake_row(&place.real);
        let is_other = |row: &&Row| !row.on_disk.has_same_bytes(&on_disk);
        if let Some(before) = self.table.get(&place.real).filter(is_other).cloned() {
            self.displaced.push((place.real.clone(), before));
        }
        let row = Row { on_disk, copy_of: copy_of(place), dots: place.dots.clone().into() };
        self.table.put(place.real.clone(), row);
        self.judge_displaced();
    }

    /// What stood where something else was found that the index wants there: the user has replaced it. But in the first
    /// scan it may be that we did, and a crash forgot; then what stood there has been moved to where its register wants it.
    fn judge_displaced(&mut self) {
        if !self.is_scanned {
            return;
        }
        for (real, row) in std::mem::take(&mut self.displaced) {
            if self.may_have_moved(&real, &row) {
                self.displaced.push((real, row));
            } else {
                self.give_up(&row, &real);
            }
        }
    }

    /// What the index wants at a real path.
    fn wanted_at(&self, real: &SharePath) -> Option<Place> {
        let origins = originals(&self.index, real);
        [real]
            .into_iter()
            .chain(&origins)
            .find_map(|origin| places(&self.index, origin).into_iter().find(|place| place.real == *real))
    }

    /// What stands at a real path is not known for sure: entries for whatever may have put it there wait.
    pub(super) fn keep_back_for(&mut self, real: &SharePath) {
        let mut origins = originals(&self.index, real);
        origins.extend(self.table.get(real).map(|row| row.origin(real).clone()));
        origins.push(real.clone());
        self.kept_back.block(real.clone(), origins);
    }

    /// Whether we may have put something there.
    fn is_known(&self, real: &SharePath) -> bool {
        self.index.register(real).is_some() || !originals(&self.index, real).is_empty()
    }

    pub(super) fn wake_row(&mut self, real: &SharePath) {
        if let Some(origin) = self.table.get(real).map(|row| row.origin(real).clone()) {
            self.queue.wake(&origin);
        }
    }

    pub(super) fn meet(&mut self, real: &SharePath) {
        if let Some(unmet) = &mut self.unmet {
            unmet.remove(real);
        }
    }

    pub(super) fn settled(&mut self, real: &SharePath) {
        self.judge_displaced();
        if self.kept_back.unblock(real) {
            self.take_up_kept_back();
        }
    }
}
