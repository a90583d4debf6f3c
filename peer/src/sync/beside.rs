//! The hands where a rename does not reach the trash (another file system is mounted inside the share folder), or where
//! two names cannot change places in one step (a file system without `RENAME_EXCHANGE`).
//!
//! What leaves its name gets a temporary one in the same folder, which is one step and can be looked at and taken back
//! like any other; from there it is copied to the trash, and goes when the copy is durable. Its record says that it may lie
//! *beside*, and is durable before the first step: so after a crash [`Hands::recover`] finds it, and gives it back its name
//! or brings it to the trash.
//!
//! Invariant: the same as of all hands. What a user made is at all times at its name, at the temporary one that the record leads to, or
//! in the trash.

use std::fs::File;
use std::io;

use cap_std::fs::Dir;
use potluck_common::SharePath;

use super::apply::{ApplyError, Coming, Hands, Leaving, record};
use super::copying::{TEMPORARY, copy_file, temporary_name};
use super::trash::{Record, Why};
use crate::share::folder::{FileIdentity, rename_noreplace};

/// Where a file comes to lie that leaves its name, and until then what is to take that name.
pub(super) struct Shelf<'a> {
    pub(super) dir: &'a Dir,
    pub(super) name: String,
    /// What it is called in the trash.
    pub(super) item: String,
    /// The content that is to be placed, if it came here as a copy.
    pub(super) copy: Option<File>,
    /// Whether this is the trash already.
    pub(super) in_trash: bool,
}

/// Under which name something lies beside, for an item of the trash.
fn beside(item: &str) -> String {
    format!("{TEMPORARY}{item}")
}

/// The same, between the two steps of an exchange.
fn between(item: &str) -> String {
    format!("{TEMPORARY}{item}-old")
}

impl Hands {
    /// A shelf beside the name, with the content on it.
    pub(super) fn shelf_beside<'a>(
        &self,
        coming: &Coming<'_>,
        dir: &'a Dir,
        record: Record,
    ) -> Result<Shelf<'a>, ApplyError> {
        let item = self.expect_beside(record)?;
        let name = beside(&item);
        let copy = match rename_noreplace(coming.dir, coming.name, dir, &name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy_file(coming.dir, coming.name, dir, &name).map(Some)
            }
            moved => moved.map(|()| None),
        };
        match copy {
            Ok(copy) => Ok(Shelf { dir, name, item, copy, in_trash: false }),
            Err(error) => {
                self.trash.forget(&item);
                Err(error.into())
            }
        }
    }

    /// Writes a record and makes it durable.
    fn expect_beside(&self, mut record: Record) -> io::Result<String> {
        record.beside = true;
        let item = self.trash.expect(record)?;
        self.trash.sync().inspect_err(|_| self.trash.forget(&item))?;
        Ok(item)
    }

    /// What a file system does that cannot exchange names: the old file leaves its name, and then the new one takes it. As
    /// after an exchange, the old file is on the shelf.
    pub(super) fn exchange_in_two(
        &self,
        shelf: &Shelf<'_>,
        real: &SharePath,
        expect: FileIdentity,
    ) -> Result<(), ApplyError> {
        let (dir, name, old) = (shelf.dir, real.file_name(), between(&shelf.item));
        match rename_noreplace(dir, name, dir, &old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ApplyError::Changed),
            moved => moved?,
        }
        self.note(dir);
        let is_expected = FileIdentity::at(dir, &old).is_ok_and(|out| out.is_but_for_ctime(&expect));
        self.pause();
        let placed = if is_expected {
            rename_noreplace(dir, &shelf.name, dir, name).map_err(ApplyError::from)
        } else {
            Err(ApplyError::Changed)
        };
        let Err(error) = placed else { return Ok(rename_noreplace(dir, &old, dir, &shelf.name)?) };
        match rename_noreplace(dir, &old, dir, name) {
            Ok(()) if !is_expected => Err(ApplyError::Changed),
            Ok(()) => Err(error),
            // Something newer stands there already.
            Err(_) => {
                let item = self.expect_beside(set_aside_record(dir, &old, real)?)?;
                self.shelve(dir, &old, &item)?;
                Err(ApplyError::Changed)
            }
        }
    }

    /// Moves the file that is in the state `expect` to the trash, which lies on another file system.
    pub(super) fn remove_from_other_device(
        &self,
        dir: &Dir,
        real: &SharePath,
        expect: FileIdentity,
        why: Why,
        leaving: Leaving,
    ) -> Result<(), ApplyError> {
        let item = self.expect_beside(record(real, expect, why, leaving))?;
        let name = beside(&item);
        if let Err(error) = rename_noreplace(dir, real.file_name(), dir, &name) {
            self.trash.forget(&item);
            return Err(match error.kind() {
                io::ErrorKind::NotFound => ApplyError::Changed,
                _ => error.into(),
            });
        }
        self.note(dir);
        let is_expected = FileIdentity::at(dir, &name).is_ok_and(|out| out.is_but_for_ctime(&expect));
        let shelved = if is_expected { self.shelve(dir, &name, &item) } else { Err(ApplyError::Changed) };
        let Err(error) = shelved else { return Ok(()) };
        self.pause();
        match rename_noreplace(dir, &name, dir, real.file_name()) {
            Ok(()) => self.trash.forget(&item),
            // Something newer stands there already.
            Err(_) => {
                self.trash.amend(&item, set_aside_record(dir, &name, real)?)?;
                self.shelve(dir, &name, &item)?;
            }
        }
        Err(error)
    }

    /// Copies what lies beside to the trash, where its record is already, and then lets it go.
    pub(super) fn shelve(&self, dir: &Dir, name: &str, item: &str) -> Result<(), ApplyError> {
        let Some(mut record) = self.trash.record(item) else { return Err(ApplyError::Changed) };
        let part = temporary_name();
        // No item has such a name, so it is not listed; a crash leaves it, and the next start sweeps it away.
        let copied = copy_file(dir, name, self.trash.dir(), &part);
        let copy = copied.map_err(|error| match error.kind() {
            io::ErrorKind::StaleNetworkFileHandle => ApplyError::Changed,
            _ => error.into(),
        })?;
        let moved = rename_noreplace(self.trash.dir(), &part, self.trash.dir(), item).and_then(|()| {
            record.is_now(FileIdentity::of(&copy)?);
            self.trash.amend(item, record)?;
            self.trash.sync()
        });
        if let Err(error) = moved {
            let _gone = self.trash.dir().remove_file(&part).or_else(|_| self.trash.dir().remove_file(item));
            return Err(error.into());
        }
        dir.remove_file(name)?;
        self.note(dir);
        Ok(())
    }

    /// Gives a file a name on another file system: a copy there, and then the old one leaves for the trash.
    pub(super) fn move_to_other_device(
        &self,
        from: (&SharePath, &Dir),
        expect: FileIdentity,
        to: &Dir,
        real: &SharePath,
    ) -> Result<FileIdentity, ApplyError> {
        let (copy, before) = self.copy_to_name((from.1, from.0.file_name()), to, real.file_name())?;
        self.remove(from.0, expect, Leaving::default())?;
        Ok(super::meta::state_after(&copy, before)?)
    }

    /// Brings home what a crash has left beside its name: to its name, if that is free, and else to the trash. To be called before
    /// anything else is done; what cannot be reached now stays for the next time.
    ///
    /// # Errors
    /// If something cannot be made durable.
    pub fn recover(&self) -> io::Result<()> {
        for (item, record) in self.trash.take_leftovers() {
            let Ok(dir) = self.folder.parent_without_links(&record.path) else { continue };
            let mut is_over = true;
            for name in [between(&item), beside(&item)] {
                let Ok(identity) = FileIdentity::at(&dir, &name) else { continue };
                let home = self.bring_home(&dir, &name, &item, &record, identity);
                if let Err(error) = home {
                    tracing::warn!(path = record.path.as_str(), name, %error, "what a crash left beside it stays there");
                    is_over = false;
                }
            }
            if is_over && self.trash.dir().symlink_metadata(&item).is_err() {
                self.trash.forget(&item);
            }
        }
        self.sync()
    }

    fn bring_home(
        &self,
        dir: &Dir,
        name: &str,
        item: &str,
        record: &Record,
        identity: FileIdentity,
    ) -> Result<(), ApplyError> {
        let file_name = record.path.file_name();
        if record.is_of(&identity) && rename_noreplace(dir, name, dir, file_name).is_ok() {
            tracing::info!(path = record.path.as_str(), "back at its name after a crash");
            self.note(dir);
            return Ok(());
        }
        match FileIdentity::at(self.trash.dir(), item) {
            // It had been copied, and was about to go.
            Ok(kept) if (kept.len, kept.mtime) == (identity.len, identity.mtime) => Ok(dir.remove_file(name)?),
            Ok(_) => {
                let item = self.expect_beside(set_aside_record(dir, name, &record.path)?)?;
                self.shelve(dir, name, &item)
            }
            Err(_) => self.shelve(dir, name, item),
        }
    }
}

pub(super) fn set_aside_record(dir: &Dir, name: &str, real: &SharePath) -> io::Result<Record> {
    Ok(record(real, FileIdentity::at(dir, name)?, Why::SetAside, Leaving::default()))
}
