//! The step to the final name: what is complete and synced is renamed into place, never over anything.
//!
//! Invariant: what has been placed is durable, its bytes and its name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use potluck_common::SharePath;

use super::partial::Target;
use crate::share::folder::{ShareFolder, rename_noreplace, sync_dir};
use crate::verb::{Failed, FailureKind};

/// Why a complete content does not get its name.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Something stands there already.
    #[error("something of that name is already there")]
    Taken,
    /// The disk, or what stands in the way.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Folders whose new names are not durable yet.
#[derive(Debug, Default)]
pub struct UnsyncedFolders(BTreeSet<Option<SharePath>>);

impl UnsyncedFolders {
    /// A name in the folder of `path` is new, and perhaps the folder itself, and the one above it.
    pub fn note(&mut self, path: &SharePath) {
        let mut folder = path.parent();
        while self.0.insert(folder.clone())
            && let Some(below) = folder
        {
            folder = below.parent();
        }
    }

    /// Makes them durable.
    ///
    /// # Errors
    /// As `fsync`; folders that are gone meanwhile are passed over.
    pub fn sync(self, share: &ShareFolder) -> io::Result<()> {
        let folders: Vec<_> = self.0.into_iter().collect();
        let synced = at_once(&folders, |folder| match folder {
            None => sync_dir(share.dir()),
            Some(path) => share.dir().open_dir(path.as_str()).and_then(|dir| sync_dir(&dir)),
        });
        let failed = synced.into_iter().filter_map(Result::err).find(|error| error.kind() != io::ErrorKind::NotFound);
        failed.map_or(Ok(()), Err)
    }
}

/// Syncs that are asked for at once: the file system writes its journal once for all that wait, and the disk flushes once.
const SYNCS_AT_ONCE: usize = 4;

/// Does the same with each item on a few threads, since each waits for the disk; results in the order of the items.
pub(super) fn at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let each = items.len().div_ceil(SYNCS_AT_ONCE).max(1);
    let mut parts = items.chunks(each);
    let Some(first) = parts.next() else { return Vec::new() };
    let work = &work;
    std::thread::scope(|scope| {
        let others: Vec<_> = parts.map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<_>>())).collect();
        let mut results: Vec<_> = first.iter().map(work).collect();
        for other in others {
            results.extend(other.join().expect("a sync does not panic"));
        }
        results
    })
}

/// Moves `name` in `from` to its target, and makes the new name durable; `file` is the same file, open. The caller has
/// synced its data.
///
/// # Errors
/// See [`PlaceError`].
pub fn place(share: &ShareFolder, from: &Dir, name: &str, file: &File, target: &Target) -> Result<(), PlaceError> {
    let (dir, new_name) = (open_parent(share, target)?, name_of(target)?);
    move_into(from, name, file, &dir, new_name)?;
    match target {
        Target::Share(path) => {
            let mut folders = UnsyncedFolders::default();
            folders.note(path);
            folders.sync(share)?;
        }
        Target::Elsewhere(_) => sync_dir(&dir)?,
    }
    Ok(())
}

/// Gives a file its name in an open folder, never over anything; the name is not durable yet.
pub(super) fn move_into(from: &Dir, name: &str, file: &File, dir: &Dir, new_name: &str) -> Result<(), PlaceError> {
    match rename_noreplace(from, name, dir, new_name) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_into(from, name, file, dir, new_name),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(PlaceError::Taken),
        moved => Ok(moved?),
    }
}

/// The folder that a target lies in; in the share folder it is made if missing.
pub(super) fn open_parent(share: &ShareFolder, target: &Target) -> io::Result<Dir> {
    match target {
        Target::Share(path) => share.make_parent(path),
        Target::Elsewhere(path) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Dir::open_ambient_dir(parent, ambient_authority())
        }
    }
}

/// What a target is called in its folder.
pub(super) fn name_of(target: &Target) -> io::Result<&str> {
    match target {
        Target::Share(path) => Ok(path.file_name()),
        Target::Elsewhere(path) => {
            let name = path.file_name().and_then(|name| name.to_str());
            name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this names no file"))
        }
    }
}

/// The target lies on another file system: a copy beside it under a temporary name, then the same rename.
fn copy_into(from: &Dir, name: &str, file: &File, dir: &Dir, new_name: &str) -> Result<(), PlaceError> {
    let temporary = format!(".potluck-tmp-{:016x}", fastrand::u64(..));
    let copied = (|| {
        let mut copy = dir.open_with(&temporary, OpenOptions::new().write(true).create_new(true))?.into_std();
        // The same open file may be in use for serving: read it by a handle with an offset of its own.
        let mut source = from.open(name)?.into_std();
        debug_assert_eq!(source.metadata()?.len(), file.metadata()?.len());
        io::copy(&mut source, &mut copy)?;
        copy.sync_all()?;
        match rename_noreplace(dir, &temporary, dir, new_name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(PlaceError::Taken),
            moved => Ok(moved?),
        }
    })();
    if copied.is_err() {
        let _also_gone = dir.remove_file(&temporary);
    } else {
        from.remove_file(name)?;
    }
    copied
}

/// Whether anything stands at the target.
pub fn is_taken(share: &ShareFolder, target: &Target) -> bool {
    match target {
        Target::Share(path) => share.is_taken(path),
        Target::Elsewhere(path) => path.symlink_metadata().is_ok(),
    }
}

/// Where the target is, for people.
pub fn path_of(share: &ShareFolder, target: &Target) -> PathBuf {
    match target {
        Target::Share(path) => share.path().join(path.as_str()),
        Target::Elsewhere(path) => path.clone(),
    }
}

/// For a target that is taken by something else.
pub fn taken(share: &ShareFolder, target: &Target) -> Failed {
    Failed::new(
        FailureKind::Failed,
        format!("{} is already there and has other content; it is left as it is", path_of(share, target).display()),
        "Move it away first, or put the download elsewhere with -o PATH.",
    )
}

/// A disk error in words for a person.
pub fn disk_failed(path: &Path, error: &io::Error) -> Failed {
    let message = format!("cannot write {}: {error}", path.display());
    if is_no_space(error) {
        Failed::new(
            FailureKind::NoSpace,
            message,
            "Free some space and run the same command again; what is there is kept.",
        )
    } else {
        Failed::new(FailureKind::Failed, message, "Mend what stands in the way and run the same command again.")
    }
}

/// Whether space or quota is what is missing.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn into_place_and_never_over_anything() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let share = ShareFolder::open(temp.path()).unwrap();
        let go = |target: &Target| {
            std::fs::write(at("new"), "new").unwrap();
            let file = File::open(at("new")).unwrap();
            place(&share, share.dir(), "new", &file, target)
        };
        let target = |text: &str| Target::Share(text.parse().unwrap());
        go(&target("a/b/c")).unwrap();
        assert_eq!(std::fs::read_to_string(at("a/b/c")).unwrap(), "new");
        std::fs::write(at("old"), "old and longer").unwrap();
        assert!(matches!(go(&target("old")), Err(PlaceError::Taken)));
        assert_eq!(std::fs::read_to_string(at("old")).unwrap(), "old and longer");
        assert!(matches!(go(&target("a/b")), Err(PlaceError::Taken)));
        assert!(matches!(go(&target("old/x")), Err(PlaceError::Io(_))));
        go(&Target::Elsewhere(at("elsewhere"))).unwrap();
        let mut folders = UnsyncedFolders::default();
        folders.note(&"gone/x".parse().unwrap());
        folders.sync(&share).unwrap();
    }

    #[test]
    fn a_copy_across_file_systems() {
        let temp = tempfile::tempdir().unwrap();
        let share = ShareFolder::open(temp.path()).unwrap();
        std::fs::write(temp.path().join("new"), "new").unwrap();
        let file = File::open(temp.path().join("new")).unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        let dir = share.dir().open_dir("d").unwrap();
        copy_into(share.dir(), "new", &file, &dir, "x").unwrap();
        assert_eq!(std::fs::read_to_string(temp.path().join("d/x")).unwrap(), "new");
        assert!(!temp.path().join("new").exists());
        assert_eq!(std::fs::read_dir(temp.path().join("d")).unwrap().count(), 1);
    }
}
