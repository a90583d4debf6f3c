//! The hands at their most delicate: putting a content in the place of a file. See [`super::apply`] for what all hands keep.
//!
//! The two change places in one step. What came out is compared with what was expected; if somebody saved in between,
//! the step is taken back, and what they saved once more meanwhile is told from what we put there by its inode.
//!
//! Invariant: the user's file is at all times at a name in the share folder or in the trash, also after a crash.

use std::fs::File;
use std::io;

use cap_std::fs::Dir;
use potluck_common::SharePath;
use potluck_common::register::FileValue;
use rustix::fs::{AtFlags, Mode, fchmod, fstat, statat};

use super::apply::{ApplyError, Coming, Hands, Leaving, Supply, record};
use super::beside::{Shelf, set_aside_record};
use super::meta::{state_after, with_executable};
use super::trash::{Record, Why};
use crate::share::folder::{FileIdentity, rename_noreplace};

/// Names are swapped back at most so often when somebody saves again and again meanwhile; what is left over goes into the
/// trash.
pub(super) const MAX_EXCHANGES: u32 = 16;

/// What becomes of a file that is replaced.
#[derive(Debug, Clone, Copy)]
pub enum Old<'a> {
    /// It goes to the trash, with this in its record.
    Trash(Leaving),
    /// It gets this name, which must be free.
    Keep(&'a SharePath),
}

/// What became of a file and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// What stands at the name now.
    pub identity: FileIdentity,
    /// The old file at its other name. `None` if it is in the trash: because it was to go there, or that name is taken.
    pub kept: Option<FileIdentity>,
}

impl Hands {
    /// Puts a content in the place of the file that is in the state `expect`. That file's
    /// permissions stay, but for the executable bit.
    ///
    /// # Errors
    /// See [`ApplyError`]; the supply is where it was then, unless somebody deleted it at the name meanwhile.
    pub fn replace(
        &self,
        supply: Supply<'_>,
        real: &SharePath,
        value: &FileValue,
        expect: FileIdentity,
        old: Old<'_>,
    ) -> Result<Replaced, ApplyError> {
        let coming = self.open_supply(supply, value)?;
        let (dir, old_file) = self.open_expected(real, expect)?;
        if let Supply::Staged(_) = supply {
            let mode = with_executable(fstat(&old_file).map_err(io::Error::from)?.st_mode, value.executable);
            fchmod(&coming.file, Mode::from_raw_mode(mode)).map_err(io::Error::from)?;
        }
        let leaving = match old {
            Old::Trash(leaving) => leaving,
            Old::Keep(_) => Leaving::default(),
        };
        let record = record(real, expect, Why::Overwritten, leaving);
        let mut shelf = self.shelf_in_trash(&coming, record.clone())?;
        let mut swapped = self.swap(&coming, &shelf, real, &dir, expect);
        if let Err(ApplyError::Io(error)) = &swapped
            && is_out_of_reach(error)
        {
            shelf = self.shelf_beside(&coming, &dir, record)?;
            swapped = self.swap(&coming, &shelf, real, &dir, expect);
        }
        swapped?;
        let placed = shelf.copy.as_ref().unwrap_or(&coming.file);
        let before = FileIdentity::of(placed)?;
        let kept = match old {
            Old::Trash(_) => None,
            Old::Keep(name) => self.keep(&shelf, name, &old_file, expect),
        };
        if kept.is_none()
            && !shelf.in_trash
            && let Err(error) = self.shelve(&dir, &shelf.name, &shelf.item)
        {
            self.exchange_back(&coming, real, &dir, &shelf)?;
            return Err(error);
        }
        let identity = self.arrived(&coming, shelf.copy.as_ref(), before, value)?;
        Ok(Replaced { identity, kept })
    }

    /// From here on the content lies where the old file will be after the exchange, so that no crash can leave that
    /// anywhere but at its name or in the trash.
    fn shelf_in_trash<'a>(&'a self, coming: &Coming<'_>, record: Record) -> Result<Shelf<'a>, ApplyError> {
        let item = self.trash.expect(record)?;
        let dir = self.trash.dir();
        match rename_noreplace(coming.dir, coming.name, dir, &item) {
            Ok(()) => Ok(Shelf { dir, name: item.clone(), item, copy: None, in_trash: true }),
            Err(error) => {
                self.trash.forget(&item);
                Err(error.into())
            }
        }
    }

    /// The file that is in the state `expect` is on the shelf then, and what was on the shelf is at its name; or, with an
    /// error, both are where they were.
    fn swap(
        &self,
        coming: &Coming<'_>,
        shelf: &Shelf<'_>,
        real: &SharePath,
        dir: &Dir,
        expect: FileIdentity,
    ) -> Result<(), ApplyError> {
        self.pause();
        let swapped = match self.exchange(shelf, dir, real.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && !shelf.in_trash => {
                self.exchange_in_two(shelf, real, expect)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ApplyError::Changed),
            exchanged => exchanged.map_err(ApplyError::from),
        };
        if let Err(error) = swapped {
            self.put_back(coming, shelf);
            return Err(error);
        }
        self.note(dir);
        if FileIdentity::at(shelf.dir, &shelf.name).is_ok_and(|out| out.is_but_for_ctime(&expect)) {
            return Ok(());
        }
        self.exchange_back(coming, real, dir, shelf)?;
        Err(ApplyError::Changed)
    }

    /// Gives the old file its other name. If that cannot be, it stays on the shelf.
    fn keep(&self, shelf: &Shelf<'_>, name: &SharePath, old: &File, expect: FileIdentity) -> Option<FileIdentity> {
        let kept = self.make_parent(name).and_then(|dir| {
            rename_noreplace(shelf.dir, &shelf.name, &dir, name.file_name())?;
            self.note(&dir);
            Ok(state_after(old, expect)?)
        });
        match kept {
            Ok(identity) => {
                self.trash.forget(&shelf.item);
                Some(identity)
            }
            Err(error) => {
                tracing::debug!(path = name.as_str(), %error, "the old version goes to the trash");
                None
            }
        }
    }

    /// An exchange did not take place: the content goes back where it came from.
    fn put_back(&self, coming: &Coming<'_>, shelf: &Shelf<'_>) {
        let gone = match shelf.copy {
            None => rename_noreplace(shelf.dir, &shelf.name, coming.dir, coming.name),
            Some(_) => shelf.dir.remove_file(&shelf.name),
        };
        match gone {
            Ok(()) => self.trash.forget(&shelf.item),
            Err(error) => tracing::warn!(name = shelf.name, %error, "a content that was to be placed stays there"),
        }
    }

    /// The exchange gave out something else than was expected: that gets its name back. If somebody saved once more
    /// meanwhile, the newest stays at the name, and what it replaced there goes into the trash.
    fn exchange_back(
        &self,
        coming: &Coming<'_>,
        real: &SharePath,
        dir: &Dir,
        shelf: &Shelf<'_>,
    ) -> Result<(), ApplyError> {
        let ours = inode(&fstat(shelf.copy.as_ref().unwrap_or(&coming.file)).map_err(io::Error::from)?);
        let here =
            || -> io::Result<(u64, u64)> { Ok(inode(&statat(shelf.dir, &shelf.name, AtFlags::SYMLINK_NOFOLLOW)?)) };
        // What we last put at the name, and what came out for it.
        let (mut put, mut out) = (ours, here()?);
        for _ in 0..MAX_EXCHANGES {
            self.pause();
            match self.exchange(shelf, dir, real.file_name()) {
                Ok(()) => {}
                // Somebody deleted what we put there: then the name is free for what came out.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match rename_noreplace(shelf.dir, &shelf.name, dir, real.file_name()) {
                        Ok(()) => {
                            self.trash.forget(&shelf.item);
                            return Ok(());
                        }
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                        Err(_) => break,
                    }
                }
                Err(_) => break,
            }
            let came = here()?;
            if came == put {
                break;
            }
            (put, out) = (out, came);
        }
        if here()? == ours {
            self.put_back(coming, shelf);
            Ok(())
        } else if shelf.in_trash {
            self.set_aside(&shelf.item, real)
        } else {
            self.trash.amend(&shelf.item, set_aside_record(shelf.dir, &shelf.name, real)?)?;
            self.shelve(shelf.dir, &shelf.name, &shelf.item)
        }
    }
}

/// Whether another file system is to blame, or one that cannot exchange names.
fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::InvalidInput)
}

fn inode(stat: &rustix::fs::Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
