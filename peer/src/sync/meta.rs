//! What travels with a file besides its bytes: modification time and executable bit. Other permissions are each
//! machine's own, as its umask makes them.

use std::fs::File;
use std::io;

use potluck_common::register::FileValue;
use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens};

use super::apply::ApplyError;
use crate::share::folder::FileIdentity;

const NS: i64 = 1_000_000_000;
const EXECUTE: u32 = 0o111;

/// Sets time and executable bit of a file before it is synced and placed, so that both are durable with its data.
///
/// # Errors
/// As `fchmod` and `futimens`.
pub fn dress(file: &File, value: &FileValue) -> io::Result<()> {
    let stat = fstat(file)?;
    let mode = with_executable(stat.st_mode, value.executable);
    if mode != stat.st_mode & 0o7777 {
        fchmod(file, Mode::from_raw_mode(mode))?;
    }
    let (tv_sec, tv_nsec) = (value.mtime_ns.div_euclid(NS), value.mtime_ns.rem_euclid(NS));
    if (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(-1)) != (tv_sec, tv_nsec) {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        futimens(file, &Timestamps { last_access, last_modification: Timespec { tv_sec, tv_nsec } })?;
    }
    Ok(())
}

/// Who may read may execute, as an ordinary program would set it; other permissions are the machine's own.
pub(super) fn with_executable(mode: u32, executable: bool) -> u32 {
    let mode = mode & 0o7777;
    // Already as it should be in the eyes of whoever owns it: leave finer settings alone.
    if (mode & 0o100 != 0) == executable {
        return mode;
    }
    if executable { mode | ((mode & 0o444) >> 2) | 0o100 } else { mode & !EXECUTE }
}

/// Sets what else `value` says of a file that has its name already and was in the state `before`.
pub(super) fn settle(file: &File, before: FileIdentity, value: &FileValue) -> Result<FileIdentity, ApplyError> {
    if !FileIdentity::of(file)?.is_but_for_ctime(&before) {
        return Err(ApplyError::Changed);
    }
    dress(file, value)?;
    let after = FileIdentity::of(file)?;
    if (after.inode, after.len) == (before.inode, before.len) { Ok(after) } else { Err(ApplyError::Changed) }
}

/// The state of a file that got its name, unless somebody has written to it since: then the one before, so that the change is
/// noticed at the next look.
pub(super) fn state_after(file: &File, before: FileIdentity) -> io::Result<FileIdentity> {
    let after = FileIdentity::of(file)?;
    Ok(if after.is_but_for_ctime(&before) { after } else { before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_common::ContentId;

    #[test]
    fn who_may_read_may_execute() {
        for (mode, executable, want) in [
            (0o644, true, 0o755),
            (0o600, true, 0o700),
            (0o640, true, 0o750),
            (0o755, false, 0o644),
            (0o700, true, 0o700),
            (0o744, true, 0o744),
            (0o645, false, 0o645),
            (0o200, true, 0o300),
        ] {
            assert_eq!(with_executable(mode, executable), want, "{mode:o}");
        }
    }

    #[test]
    fn times_before_and_after_the_epoch() {
        let file = tempfile::tempfile().unwrap();
        for mtime_ns in [0, 1, 1_700_000_000_123_456_789, -1_500_000_000] {
            dress(&file, &FileValue { mtime_ns, content_id: ContentId::of(b""), len: 0, executable: false }).unwrap();
            let identity = FileIdentity::of(&file).unwrap();
            assert_eq!(identity.mtime.0 * NS + identity.mtime.1, mtime_ns);
        }
    }
}
