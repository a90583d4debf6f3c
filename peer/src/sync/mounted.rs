//! A memory file system for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// It goes with the test.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    /// `None` where it cannot be mounted, which is said. `options` are those of `mount -t tmpfs -o`.
    pub(super) fn at(path: &Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        // Nothing else prints; here it tells that nothing was tested.
        std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: only root can mount a file system\n").unwrap();
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
