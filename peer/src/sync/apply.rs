//! The hands of sync: each changes one thing in the share folder, or nothing.
//!
//! Deciding what is to change is not done here. Each operation is told what it is to find (`expect`), compares that with
//! the open file immediately before the one system call that commits, and looks afterwards at what came out: between
//! the two a program may have saved. Then the user's file goes back to its name, and the answer is
//! [`ApplyError::Changed`]. All blocks; call it on the blocking pool. Names are durable after [`Hands::sync`], and what
//! relies on them (the disk table) is stored only then.
//!
//! Invariants: no name is ever given to another file than the one that was expected or none (`RENAME_NOREPLACE`,
//! `RENAME_EXCHANGE`). Whatever leaves its name is in the trash, or at the other name it was moved to. No link is followed
//! and no step leaves the share folder, whatever is swapped for what meanwhile.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, MetadataExt, OpenOptions, OpenOptionsExt};
use potluck_common::register::FileValue;
use potluck_common::{ContentId, PeerId, SharePath};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::beside::Shelf;
use super::copying::{copy_file, temporary_name};
use super::meta::{dress, settle, state_after};
use super::trash::{Record, Trash, Why};
use crate::share::folder::{FileIdentity, ShareFolder, exchange, rename_noreplace, sync_dir};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Something else stands at the name, or in the way to it.
    #[error("something else is in the way")]
    Taken,
    /// What stands there is not what was expected: look again.
    #[error("it changed meanwhile")]
    Changed,
    /// The folder is not empty.
    #[error("the folder is not empty")]
    NotEmpty,
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where a verified content lies that is to get a name.
#[derive(Debug, Clone, Copy)]
pub enum Supply<'a> {
    /// A file in `.potluck/partial`, its data synced.
    Staged(&'a str),
    /// An item of the trash. It leaves the trash.
    Trashed(&'a str),
}

/// What was known of a file that leaves its name, for the trash's record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Leaving {
    /// What its bytes are.
    pub content_id: Option<ContentId>,
    /// Who deleted or overwrote it.
    pub by: Option<PeerId>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Hands {
    pub(super) folder: Arc<ShareFolder>,
    pub(super) partial: Dir,
    pub(super) trash: Arc<Trash>,
    unsynced: Mutex<Unsynced>,
    #[cfg(test)]
    pub(super) pause: tests::Pause,
}

/// Folders that wait to be synced; with more of them everything on the file system is synced at once.
const MAX_UNSYNCED: usize = 128;

/// Folders with names that are not durable yet: open, since by its path one may be found no more.
#[derive(Debug, Default)]
struct Unsynced {
    folders: BTreeMap<(u64, u64), Dir>,
    all: bool,
}

impl Unsynced {
    fn note(&mut self, dir: &Dir) {
        if self.all {
            return;
        }
        let noted = dir.dir_metadata().and_then(|metadata| {
            if let Entry::Vacant(entry) = self.folders.entry((metadata.dev(), metadata.ino())) {
                entry.insert(dir.try_clone()?);
            }
            Ok(())
        });
        if noted.is_err() || self.folders.len() > MAX_UNSYNCED {
            self.all = true;
            self.folders.clear();
        }
    }

    fn sync(self, root: &Dir) -> io::Result<()> {
        if self.all {
            return Ok(rustix::fs::syncfs(root.open(".")?)?);
        }
        // A folder that was removed meanwhile can still be synced, and costs nothing.
        self.folders.values().try_for_each(sync_dir)
    }
}

/// A content on its way to its name: open, and where it lies.
pub(super) struct Coming<'a> {
    pub(super) file: File,
    pub(super) dir: &'a Dir,
    pub(super) name: &'a str,
    supply: Supply<'a>,
}

impl Hands {
    /// Works in `folder`, taking contents from `partial`.
    pub fn new(folder: Arc<ShareFolder>, partial: Dir, trash: Arc<Trash>) -> Self {
        Self {
            folder,
            partial,
            trash,
            unsynced: Mutex::default(),
            #[cfg(test)]
            pause: tests::Pause::default(),
        }
    }

    /// Gives a content its name, which must be free. Folders on the way are made.
    ///
    /// # Errors
    /// See [`ApplyError`]; `Changed` also if an item of the trash is not what its record says.
    pub fn place(&self, supply: Supply<'_>, real: &SharePath, value: &FileValue) -> Result<FileIdentity, ApplyError> {
        let coming = self.open_supply(supply, value)?;
        let before = FileIdentity::of(&coming.file)?;
        let dir = self.make_parent(real)?;
        self.pause();
        match rename_noreplace(coming.dir, coming.name, &dir, real.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(ApplyError::Taken),
            // The folder is gone again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ApplyError::Changed),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                return self.place_on_other_device(&coming, real, &dir, value);
            }
            moved => moved?,
        }
        self.note(&dir);
        self.arrived(&coming, None, before, value)
    }

    /// Gives a file another name, which must be free. No bytes move; its time and mode stay.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn move_file(
        &self,
        from: &SharePath,
        expect: FileIdentity,
        real: &SharePath,
    ) -> Result<FileIdentity, ApplyError> {
        let (dir, file) = self.open_expected(from, expect)?;
        let to = self.make_parent(real)?;
        self.pause();
        match rename_noreplace(&dir, from.file_name(), &to, real.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(ApplyError::Taken),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ApplyError::Changed),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                return self.move_to_other_device((from, &dir), expect, &to, real);
            }
            moved => moved?,
        }
        self.note(&dir);
        self.note(&to);
        if FileIdentity::at(&to, real.file_name()).is_ok_and(|came| came.is_but_for_ctime(&expect)) {
            return Ok(state_after(&file, expect)?);
        }
        // If the old name is taken again, both files of the user's stay: this one under its new name.
        let _taken = rename_noreplace(&to, real.file_name(), &dir, from.file_name());
        Err(ApplyError::Changed)
    }

    /// Sets modification time and executable bit of the file that is in the state `expect`.
    ///
    /// A program that writes between the look and the call cannot be noticed here. The file has a new change time, so it is
    /// hashed again, and other bytes are found then.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn set_meta(
        &self,
        real: &SharePath,
        value: &FileValue,
        expect: FileIdentity,
    ) -> Result<FileIdentity, ApplyError> {
        let (_, file) = self.open_expected(real, expect)?;
        settle(&file, expect, value)
    }

    /// Moves the file that is in the state `expect` to the trash.
    ///
    /// # Errors
    /// See [`ApplyError`]; `Changed` also if it is gone already.
    pub fn remove(&self, real: &SharePath, expect: FileIdentity, leaving: Leaving) -> Result<(), ApplyError> {
        let (dir, _file) = self.open_expected(real, expect)?;
        let item = self.trash.expect(record(real, expect, Why::Deleted, leaving))?;
        self.pause();
        if let Err(error) = rename_noreplace(&dir, real.file_name(), self.trash.dir(), &item) {
            self.trash.forget(&item);
            return Err(match error.kind() {
                io::ErrorKind::NotFound => ApplyError::Changed,
                io::ErrorKind::CrossesDevices => {
                    return self.remove_from_other_device(&dir, real, expect, Why::Deleted, leaving);
                }
                _ => error.into(),
            });
        }
        self.note(&dir);
        if FileIdentity::at(self.trash.dir(), &item).is_ok_and(|out| out.is_but_for_ctime(&expect)) {
            return Ok(());
        }
        self.pause();
        match rename_noreplace(self.trash.dir(), &item, &dir, real.file_name()) {
            Ok(()) => self.trash.forget(&item),
            // Something newer stands there already.
            Err(_) => self.set_aside(&item, real)?,
        }
        Err(ApplyError::Changed)
    }

    /// Makes a folder, and those above it; one that is there is as good.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn make_folder(&self, real: &SharePath) -> Result<(), ApplyError> {
        let dir = self.make_parent(real)?;
        match dir.create_dir(real.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_folder = dir.symlink_metadata(real.file_name()).is_ok_and(|there| there.is_dir());
                is_folder.then_some(()).ok_or(ApplyError::Taken)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ApplyError::Changed),
            made => {
                made?;
                self.note(&dir);
                Ok(())
            }
        }
    }

    /// Removes a folder if it is empty; one that is gone is as good.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn remove_folder(&self, real: &SharePath) -> Result<(), ApplyError> {
        let dir = match self.folder.parent_without_links(real) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if is_no_folder(&error) => return Err(ApplyError::Changed),
            opened => opened?,
        };
        match dir.remove_dir(real.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(ApplyError::NotEmpty),
            Err(error) if is_no_folder(&error) => Err(ApplyError::Changed),
            removed => {
                removed?;
                self.note(&dir);
                Ok(())
            }
        }
    }

    /// Whether everything that was done and not just being done is durable, unless a [`Hands::sync`] runs.
    pub fn is_synced(&self) -> bool {
        let unsynced = self.lock();
        !unsynced.all && unsynced.folders.is_empty() && self.trash.is_synced()
    }

    /// Makes every name that was given or taken away durable, and the trash.
    ///
    /// # Errors
    /// As `fsync`; then it is unknown what of everything since the last success is durable, and a later success does not
    /// tell: all of it is to be looked at again.
    pub fn sync(&self) -> io::Result<()> {
        // What left its name must be found again before the name is gone.
        self.trash.sync()?;
        let unsynced = std::mem::take(&mut *self.lock());
        unsynced.sync(self.folder.dir()).inspect_err(|_| self.lock().all = true)
    }

    fn lock(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name in this folder is new or gone.
    pub(super) fn note(&self, dir: &Dir) {
        self.lock().note(dir);
    }

    pub(super) fn make_parent(&self, real: &SharePath) -> Result<Dir, ApplyError> {
        self.folder.make_parent_without_links(real, &mut |above| self.note(above)).map_err(in_the_way)
    }

    /// Opens what is to be placed. A staged file gets its time and mode here, before it has its name; nobody else knows of it.
    pub(super) fn open_supply<'a>(&'a self, supply: Supply<'a>, value: &FileValue) -> Result<Coming<'a>, ApplyError> {
        let (dir, name) = match supply {
            Supply::Staged(name) => (&self.partial, name),
            Supply::Trashed(name) => (self.trash.dir(), name),
        };
        let file = open_file(dir, name)?;
        match supply {
            Supply::Staged(_) => dress(&file, value)?,
            Supply::Trashed(name) => {
                let known = self.trash.content_of(name).filter(|(content_id, _)| *content_id == value.content_id);
                if known.map(|(_, identity)| identity) != Some(FileIdentity::of(&file)?) {
                    return Err(ApplyError::Changed);
                }
            }
        }
        Ok(Coming { file, dir, name, supply })
    }

    /// The folder of a path and its file, if that is in the state `expect`.
    pub(super) fn open_expected(&self, real: &SharePath, expect: FileIdentity) -> Result<(Dir, File), ApplyError> {
        let opened = self.folder.parent_without_links(real).and_then(|dir| {
            let file = open_file(&dir, real.file_name())?;
            Ok((FileIdentity::of(&file)?, dir, file))
        });
        match opened {
            Ok((identity, dir, file)) if identity == expect => Ok((dir, file)),
            Ok(_) => Err(ApplyError::Changed),
            Err(error) if is_gone_or_changed(&error) => Err(ApplyError::Changed),
            Err(error) => Err(error.into()),
        }
    }

    /// A content has its name; `before` was its state until then. If it came there as a copy, that is `copy`, and what was
    /// copied goes.
    pub(super) fn arrived(
        &self,
        coming: &Coming<'_>,
        copy: Option<&File>,
        before: FileIdentity,
        value: &FileValue,
    ) -> Result<FileIdentity, ApplyError> {
        if copy.is_some() {
            coming.dir.remove_file(coming.name)?;
        }
        let file = copy.unwrap_or(&coming.file);
        match coming.supply {
            Supply::Staged(_) => Ok(state_after(file, before)?),
            Supply::Trashed(name) => {
                self.trash.forget(name);
                settle(file, before, value)
            }
        }
    }

    /// Lets two names change places, in one step.
    pub(super) fn exchange(&self, shelf: &Shelf<'_>, dir: &Dir, name: &str) -> io::Result<()> {
        #[cfg(test)]
        if self.pause.cannot_exchange() {
            return Err(Errno::INVAL.into());
        }
        exchange(shelf.dir, &shelf.name, dir, name)
    }

    /// What is under `item` was somebody's at `real`, and cannot go back there.
    pub(super) fn set_aside(&self, item: &str, real: &SharePath) -> Result<(), ApplyError> {
        tracing::warn!(
            path = real.as_str(),
            item,
            "changed while it was being replaced; an earlier state of it is in the trash"
        );
        match FileIdentity::at(self.trash.dir(), item) {
            Ok(identity) => {
                let record = record(real, identity, Why::SetAside, Leaving::default());
                Ok(self.trash.amend(item, record)?)
            }
            // A folder or a link: it is listed with the record that does not fit it.
            Err(_) => Ok(()),
        }
    }

    /// The name lies on another file system: a copy beside it under a temporary name, then the same step.
    fn place_on_other_device(
        &self,
        coming: &Coming<'_>,
        real: &SharePath,
        dir: &Dir,
        value: &FileValue,
    ) -> Result<FileIdentity, ApplyError> {
        let (copy, before) = self.copy_to_name((coming.dir, coming.name), dir, real.file_name())?;
        self.arrived(coming, Some(&copy), before, value)
    }

    /// A copy on another file system, durable under a name that was free; with the state it had before it got that name.
    pub(super) fn copy_to_name(
        &self,
        from: (&Dir, &str),
        to: &Dir,
        name: &str,
    ) -> Result<(File, FileIdentity), ApplyError> {
        let temporary = temporary_name();
        let copy = copy_file(from.0, from.1, to, &temporary)?;
        let before = FileIdentity::of(&copy)?;
        if let Err(error) = rename_noreplace(to, &temporary, to, name) {
            let _also_gone = to.remove_file(&temporary);
            return Err(if error.kind() == io::ErrorKind::AlreadyExists { ApplyError::Taken } else { error.into() });
        }
        self.note(to);
        sync_dir(to)?;
        Ok((copy, before))
    }

    /// Where a test does what a user might do at just that moment.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests use it"))]
    pub(super) fn pause(&self) {
        #[cfg(test)]
        self.pause.here();
    }
}

pub(super) fn open_file(dir: &Dir, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).expect("two low bits");
    options.read(true).follow(FollowSymlinks::No).custom_flags(flags);
    Ok(dir.open_with(name, &options)?.into_std())
}

pub(super) fn record(real: &SharePath, identity: FileIdentity, why: Why, leaving: Leaving) -> Record {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut record = Record::new(real.clone(), identity, why, u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    (record.content_id, record.by) = (leaving.content_id, leaving.by);
    record
}

fn in_the_way(error: io::Error) -> ApplyError {
    if is_no_folder(&error) {
        ApplyError::Taken
    } else if error.kind() == io::ErrorKind::NotFound {
        ApplyError::Changed
    } else {
        error.into()
    }
}

fn is_no_folder(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTDIR | Errno::LOOP))
}

/// Whether an open fails because something else, or nothing, stands there now.
pub(super) fn is_gone_or_changed(error: &io::Error) -> bool {
    // ENXIO: a socket. InvalidInput: no regular file.
    is_no_folder(error)
        || matches!(Errno::from_io_error(error), Some(Errno::NXIO | Errno::STALE))
        || matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::StaleNetworkFileHandle
        )
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
