//! The share folder through a handle that cannot leave it.
//!
//! Invariant: every file operation goes through the folder's own handle (`cap-std`, on Linux `openat2` with
//! `RESOLVE_BENEATH`), so neither a symlink nor a swapped component leads outside, whatever happens between
//! looking and opening.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cap_fs_ext::DirExt;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, MetadataExt, OpenOptions, OpenOptionsExt};
use potluck_common::SharePath;
use potluck_common::share_path::STATE_DIR;
use rustix::fs::{OFlags, RenameFlags, renameat_with};

pub use potluck_sync::FileIdentity;

use crate::verb::{Failed, FailureKind};

/// The folder that is shared.
#[derive(Debug)]
pub struct ShareFolder {
    path: PathBuf,
    dir: Dir,
}

impl ShareFolder {
    /// Opens the folder.
    ///
    /// # Errors
    /// If it does not exist, is not a folder, or cannot be read; the message says what to do.
    pub fn open(path: &Path) -> Result<Self, Failed> {
        let failed = |error: &io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => format!("Make it first: mkdir -p {}", path.display()),
                io::ErrorKind::NotADirectory => "Name a folder with --share.".into(),
                _ => "Check its permissions, or name another folder with --share.".into(),
            };
            Failed::new(FailureKind::Failed, format!("cannot open the share folder {}: {error}", path.display()), hint)
        };
        let canonical = path.canonicalize().map_err(|error| failed(&error))?;
        let dir = Dir::open_ambient_dir(&canonical, ambient_authority()).map_err(|error| failed(&error))?;
        Ok(Self { path: canonical, dir })
    }

    /// Where it is, for people and for the watcher.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The handle.
    pub const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Opens a regular file for reading. Links are followed only inside the folder; a FIFO never blocks.
    ///
    /// # Errors
    /// As `open`, and `InvalidInput` for anything but a regular file.
    pub fn open_file(&self, path: &SharePath) -> io::Result<(File, FileIdentity)> {
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).expect("two low bits");
        let options = OpenOptions::new().read(true).custom_flags(flags).clone();
        let file = self.dir.open_with(path.as_str(), &options)?.into_std();
        let identity = FileIdentity::of(&file)?;
        Ok((file, identity))
    }

    /// Opens a regular file only if it is still in the state `identity`.
    ///
    /// # Errors
    /// As [`ShareFolder::open_file`], and `StaleNetworkFileHandle` if it has changed.
    pub fn open_unchanged(&self, path: &SharePath, identity: FileIdentity) -> io::Result<File> {
        let (file, now) = self.open_file(path)?;
        if now == identity {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "the file has changed"))
        }
    }

    /// The folder that a file of that path lies in, reached without following any link, also not one that stays inside:
    /// for changing what is there.
    ///
    /// # Errors
    /// As `open`; a link or a file among the components is `NotADirectory`.
    pub fn parent_without_links(&self, path: &SharePath) -> io::Result<Dir> {
        self.walk_without_links(path, None)
    }

    /// The same, with what is missing of it made; `changed` is given each folder in which one was made.
    ///
    /// # Errors
    /// As [`ShareFolder::parent_without_links`] and `mkdir`.
    pub fn make_parent_without_links(&self, path: &SharePath, changed: &mut dyn FnMut(&Dir)) -> io::Result<Dir> {
        self.walk_without_links(path, Some(changed))
    }

    fn walk_without_links(&self, path: &SharePath, mut make: Option<&mut dyn FnMut(&Dir)>) -> io::Result<Dir> {
        let mut dir = self.dir.try_clone()?;
        let mut folders = path.components();
        folders.next_back();
        for folder in folders {
            dir = match dir.open_dir_nofollow(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let Some(changed) = &mut make else { return Err(error) };
                    match dir.create_dir(folder) {
                        // Somebody else was quicker.
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                        _ => changed(&dir),
                    }
                    dir.open_dir_nofollow(folder)?
                }
                opened => opened?,
            };
        }
        Ok(dir)
    }

    /// The inode of the folder itself: another one under the same path is another folder.
    ///
    /// # Errors
    /// As `fstat`.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.dir.dir_metadata()?.ino())
    }

    /// Whether the folder still is where it was, with our state in it: not moved away, emptied, or hidden by a mount.
    pub fn is_intact(&self) -> bool {
        let there = Dir::open_ambient_dir(&self.path, ambient_authority()).and_then(|dir| dir.dir_metadata());
        let (Ok(here), Ok(there)) = (self.dir.dir_metadata(), there) else { return false };
        (here.dev(), here.ino()) == (there.dev(), there.ino())
            && self.dir.symlink_metadata(STATE_DIR).is_ok_and(|state| state.is_dir())
    }

    /// Whether anything stands under that name.
    pub fn is_taken(&self, path: &SharePath) -> bool {
        self.dir.symlink_metadata(path.as_str()).is_ok()
    }

    /// The folder that a file of that path lies in, made if missing.
    ///
    /// # Errors
    /// As `mkdir` and `open`; also if a component is a file or a link that leads outside.
    pub fn make_parent(&self, path: &SharePath) -> io::Result<Dir> {
        match path.parent() {
            None => self.dir.try_clone(),
            Some(parent) => {
                self.dir.create_dir_all(parent.as_str())?;
                self.dir.open_dir(parent.as_str())
            }
        }
    }
}

/// Moves a file to its final name, never over something that stands there.
///
/// # Errors
/// `AlreadyExists` if the name is taken; otherwise as `renameat2`.
pub fn rename_noreplace(from: &Dir, name: &str, to: &Dir, new_name: &str) -> io::Result<()> {
    Ok(renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE)?)
}

/// Lets two names change what they stand for, in one step.
///
/// # Errors
/// `NotFound` if one of them stands for nothing; otherwise as `renameat2`.
pub fn exchange(from: &Dir, name: &str, to: &Dir, other_name: &str) -> io::Result<()> {
    Ok(renameat_with(from, name, to, other_name, RenameFlags::EXCHANGE)?)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// As `fsync`.
pub fn sync_dir(dir: &Dir) -> io::Result<()> {
    // The handle may be O_PATH, which cannot be synced.
    let readable = dir.open_with(".", OpenOptions::new().read(true))?;
    readable.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P14, P15, P17.
    #[test]
    fn nothing_leads_outside_and_nothing_blocks() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let share = tempfile::tempdir().unwrap();
        let at = |name: &str| share.path().join(name);
        std::os::unix::fs::symlink(outside.path().join("secret"), at("link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), at("dir")).unwrap();
        std::os::unix::fs::symlink("../secret", at("up")).unwrap();
        std::fs::write(at("file"), "f").unwrap();
        std::os::unix::fs::symlink("file", at("inside")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let folder = ShareFolder::open(share.path()).unwrap();
        let opens = |name: &str| folder.open_file(&name.parse().unwrap()).is_ok();
        assert!(opens("file") && opens("inside"));
        for name in ["link", "dir/secret", "up", "fifo", "dir", "missing"] {
            assert!(!opens(name), "{name}");
        }
        assert!(folder.make_parent(&"dir/x/y".parse().unwrap()).is_err());
        assert!(folder.make_parent(&"file/y".parse().unwrap()).is_err());
        std::fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("real", at("inner")).unwrap();
        for name in ["dir/x/y", "inner/y", "file/y"] {
            let error = folder.make_parent_without_links(&name.parse().unwrap(), &mut |_| {}).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{name}");
        }
        assert!(folder.parent_without_links(&"real/new/y".parse().unwrap()).is_err());
        let mut n_made = 0;
        folder.make_parent_without_links(&"real/new/deep/y".parse().unwrap(), &mut |_| n_made += 1).unwrap();
        assert_eq!(n_made, 2);
        folder.parent_without_links(&"real/new/y".parse().unwrap()).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_changed_file_is_not_opened() {
        let share = tempfile::tempdir().unwrap();
        let folder = ShareFolder::open(share.path()).unwrap();
        let path: SharePath = "a".parse().unwrap();
        std::fs::write(share.path().join("a"), "one").unwrap();
        let (_, identity) = folder.open_file(&path).unwrap();
        assert!(folder.open_unchanged(&path, identity).is_ok());
        std::fs::write(share.path().join("a"), "four").unwrap();
        assert!(folder.open_unchanged(&path, identity).is_err());
    }

    #[test]
    fn rename_never_replaces() {
        let share = tempfile::tempdir().unwrap();
        let folder = ShareFolder::open(share.path()).unwrap();
        std::fs::write(share.path().join("new"), "n").unwrap();
        std::fs::write(share.path().join("old"), "o").unwrap();
        let error = rename_noreplace(folder.dir(), "new", folder.dir(), "old").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(share.path().join("old")).unwrap(), "o");
        rename_noreplace(folder.dir(), "new", folder.dir(), "newer").unwrap();
        sync_dir(folder.dir()).unwrap();
    }

    #[test]
    fn a_missing_folder_says_what_to_do() {
        let failed = ShareFolder::open(Path::new("/nonexistent/x")).unwrap_err();
        assert!(failed.hint.contains("mkdir"), "{failed:?}");
    }
}
