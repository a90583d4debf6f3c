//! A file system in a file, mounted for a test. Only root may do that; elsewhere the test says that it was skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted file system; unmounted when it is dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Makes an ext4 in a file.
    pub(crate) fn make(image: &Path) -> bool {
        quietly(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0"]).arg(image))
            || skipped("there is no mkfs.ext4")
    }

    /// Mounts the file system in a file.
    pub(crate) fn mount(image: &Path, at: &Path) -> Option<Self> {
        Self::mount_with(image, at, "loop")
    }

    /// The same, with options of `mount`.
    pub(crate) fn mount_with(image: &Path, at: &Path, options: &str) -> Option<Self> {
        let done = quietly(Command::new("mount").args(["-o", options]).arg(image).arg(at))
            || skipped("a file system in a file cannot be mounted (it takes root)");
        done.then(|| Self(at.to_owned()))
    }

    /// Unmounts it at once, whoever uses it.
    pub(crate) fn unmount(self) {
        drop(self);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // At once if nobody uses it, so that what was written is in the file; else when the last user is gone.
        if !quietly(Command::new("umount").arg(&self.0)) {
            quietly(Command::new("umount").arg("-l").arg(&self.0));
        }
    }
}

fn quietly(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn skipped(why: &str) -> bool {
    crate::harness::skipped(format_args!("a disk of its own: {why}"));
    false
}
