//! The state of a file, by which it is told whether anybody has touched it.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Stat, fstat, statat};
use serde::{Deserialize, Serialize};

/// What tells one state of a file from another: its place on disk, its length, and both change times. The change
/// time (`ctime`) moves with every write and cannot be set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
        Self::from_stat(&fstat(file)?)
    }

    /// Reads it from what stands under a name in a folder; a link is not followed.
    ///
    /// # Errors
    /// As `fstatat`, and `InvalidInput` if it is not a regular file.
    pub fn at(dir: impl AsFd, name: &str) -> io::Result<Self> {
        Self::from_stat(&statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whether these are the same but for the change time, which a rename moves too.
    pub fn is_but_for_ctime(&self, other: &Self) -> bool {
        *self == Self { ctime: self.ctime, ..*other }
    }

    fn from_stat(stat: &Stat) -> io::Result<Self> {
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
