//! Copies of files where a rename cannot reach: from one file system to another, inside the share folder or to the trash.
//!
//! A copy has a temporary name that no share path can express until it is whole and durable, so it is never shared, and a
//! crash leaves nothing that looks like a file of the user's.

use std::fs::File;
use std::io;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens};

use super::apply::open_file;
use crate::share::folder::FileIdentity;

/// Begins the name of everything that is on its way beside where it is to be.
pub(super) const TEMPORARY: &str = ".potluck-tmp-";

/// A name that nothing has.
pub(super) fn temporary_name() -> String {
    format!("{TEMPORARY}{:016x}", fastrand::u64(..))
}

/// Copies a file with its time and permissions under a free name, and makes the bytes durable. The copy, open.
///
/// # Errors
/// As the file operations, and `StaleNetworkFileHandle` if somebody wrote to the file meanwhile; nothing is left then.
pub(super) fn copy_file(from: &Dir, name: &str, to: &Dir, new_name: &str) -> io::Result<File> {
    let mut source = open_file(from, name)?;
    let (before, stat) = (FileIdentity::of(&source)?, fstat(&source)?);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut copy = to.open_with(new_name, &options)?.into_std();
    let copied = (|| {
        io::copy(&mut source, &mut copy)?;
        match fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777)) {
            // A file system without permissions.
            Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP) => {}
            set => set?,
        }
        let (tv_sec, tv_nsec) = before.mtime;
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        futimens(&copy, &Timestamps { last_access, last_modification: Timespec { tv_sec, tv_nsec } })?;
        copy.sync_all()?;
        if FileIdentity::of(&source)? == before {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "it was written to while it was copied"))
    })();
    match copied {
        Ok(()) => Ok(copy),
        Err(error) => {
            let _also_gone = to.remove_file(new_name);
            Err(error)
        }
    }
}
