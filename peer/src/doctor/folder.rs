//! The share folder and the disk below it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use potluck_common::share_path::STATE_DIR;

use super::Finding;
use crate::download::job::reserve;
use crate::render::units::size;
use crate::share::folder::{ShareFolder, exchange, rename_noreplace};

/// Below this it is worth a word.
const LITTLE_SPACE: u64 = 2 << 30;

/// Looks at the folder; what it writes there it removes again.
pub(super) fn examine(share: &Path) -> Vec<Finding> {
    let folder = match ShareFolder::open(share) {
        Ok(folder) => folder,
        Err(failed) => return vec![Finding::fail("share", failed.message, failed.hint)],
    };
    vec![state(&folder), disk(&folder)]
}

/// Whether files can be made, and get their names as downloads and sync need it.
fn state(folder: &ShareFolder) -> Finding {
    let shown = folder.path().display();
    let here = folder.dir();
    // Where a peer works, or where it would make that place.
    let state = here.open_dir(STATE_DIR).ok();
    if let Some(state) = &state
        && let (Ok(above), Ok(below)) = (device(here), device(state))
        && above != below
    {
        let message = format!("{shown}/{STATE_DIR} is on another file system, so nothing can be moved out of it");
        return Finding::fail(
            "share",
            message,
            format!("Unmount {STATE_DIR}, or share a folder that has all in one place."),
        );
    }
    match try_names(state.as_ref().unwrap_or(here)) {
        Ok(()) => Finding::ok("share", format!("{shown} can be written, and names are moved in one step")),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Finding::fail(
                "share",
                format!("the file system of {shown} cannot exchange two names in one step ({error})"),
                "Share a folder on ext4, XFS, Btrfs, ZFS 2.2 or tmpfs: NFS and FUSE mounts mostly cannot.",
            )
        }
        Err(error) => Finding::fail(
            "share",
            format!("{shown} cannot be written: {error}"),
            "Make it belong to the user who runs potluck, or name another folder with --share.",
        ),
    }
}

fn device(dir: &cap_std::fs::Dir) -> io::Result<u64> {
    Ok(dir.try_clone()?.into_std_file().metadata()?.dev())
}

/// Makes two files, moves one to a free name, exchanges them, and removes all.
fn try_names(dir: &cap_std::fs::Dir) -> io::Result<()> {
    let name = |which: &str| format!(".potluck-doctor-{}-{which}", std::process::id());
    let (one, two, free) = (name("1"), name("2"), name("3"));
    let tried = (|| {
        dir.write(&one, b"1")?;
        dir.write(&two, b"2")?;
        rename_noreplace(dir, &one, dir, &free)?;
        exchange(dir, &free, dir, &two)
    })();
    for name in [one, two, free] {
        let _never_made = dir.remove_file(name);
    }
    tried
}

/// Whether there is space for what is to come.
fn disk(folder: &ShareFolder) -> Finding {
    let disk = match rustix::fs::fstatvfs(folder.dir()) {
        Ok(disk) => disk,
        Err(error) => {
            return Finding::warn("disk", format!("its free space is not known: {error}"), "Look with `df`.");
        }
    };
    let (free, total) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    let kept = reserve(total);
    let hint = "Free some space, or share a folder on another disk.";
    let usable = size(free.saturating_sub(kept));
    match free {
        _ if free <= kept => Finding::fail(
            "disk",
            format!("{} free, and {} are left for others: nothing can be downloaded", size(free), size(kept)),
            hint,
        ),
        _ if free < LITTLE_SPACE + kept => Finding::warn("disk", format!("{usable} free for downloads"), hint),
        _ => Finding::ok("disk", format!("{usable} free for downloads")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_good_folder_is_left_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let findings = examine(temp.path());
        assert_eq!(findings[0].verdict, Verdict::Ok, "{findings:?}");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
        std::fs::create_dir(temp.path().join(".potluck")).unwrap();
        assert_eq!(examine(temp.path())[0].verdict, Verdict::Ok);
        assert_eq!(std::fs::read_dir(temp.path().join(".potluck")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_good_says_what_to_do() {
        let missing = examine(Path::new("/nonexistent/x"));
        assert_eq!((missing.len(), missing[0].verdict), (1, Verdict::Fail));
        assert!(missing[0].hint.contains("mkdir -p"), "{missing:?}");
        // A file system that knows no such renames, and cannot be written whoever asks.
        let proc = examine(Path::new("/proc/self/task"));
        assert_eq!(proc[0].verdict, Verdict::Fail, "{proc:?}");
    }
}
