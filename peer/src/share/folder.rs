//! The share folder through a handle that cannot leave it.
//!
//! Invariant: every file operation goes through the folder's own handle (`cap-std`, on Linux `openat2` with
//! `RESOLVE_BENEATH`), so neither a symlink nor a swapped component leads outside, whatever happens between
//! looking and opening.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use potluck_common::SharePath;
use rustix::fs::{OFlags, RenameFlags, fstat, renameat_with};

use crate::verb::{Failed, FailureKind};

/// What tells one state of a file from another: its place on disk, its length, and both change times. The change
/// time (`ctime`) moves with every write and cannot be set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// Device and inode.
    pub inode: (u64, u64),
    /// Length in bytes.
    pub len: u64,
    /// Last change of the bytes, in seconds and nanoseconds since the epoch.
    pub mtime: (i64, i64),
    /// Last change of bytes or inode, likewise.
    pub ctime: (i64, i64),
}

impl FileIdentity {
    /// Reads it from an open file.
    ///
    /// # Errors
    /// As `fstat`, and `InvalidInput` if it is not a regular file.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let stat = fstat(file)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self {
            inode: (stat.st_dev, stat.st_ino),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            ctime: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        })
    }

    /// As a key of the hash cache.
    pub fn to_bytes(self) -> [u8; 56] {
        let mut bytes = [0; 56];
        let fields = [
            self.inode.0.to_le_bytes(),
            self.inode.1.to_le_bytes(),
            self.len.to_le_bytes(),
            self.mtime.0.to_le_bytes(),
            self.mtime.1.to_le_bytes(),
            self.ctime.0.to_le_bytes(),
            self.ctime.1.to_le_bytes(),
        ];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field);
        }
        bytes
    }
}

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
