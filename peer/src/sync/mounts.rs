//! Mount points inside the share folder, remembered in `.potluck/`: a disk that is unplugged, also while no peer runs, leaves
//! an empty folder, and that is not a delete of all that was on it.
//!
//! Invariant: a mount point is remembered before anything that lies on it is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_std::fs::Dir;
use potluck_common::SharePath;
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};

use crate::share::state::{StateDir, load, save};

/// What the state file is called.
const MOUNTS: &str = "mounts";

/// See the module's text.
#[derive(Debug)]
pub struct Mounts {
    state: Arc<StateDir>,
    known: Mutex<BTreeSet<SharePath>>,
}

impl Mounts {
    /// Those that were known when a peer last ran.
    pub fn open(state: Arc<StateDir>) -> Self {
        let known = load(state.dir(), MOUNTS).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { state, known: Mutex::new(known.unwrap_or_default()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<SharePath>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something was mounted there.
    pub(super) fn has(&self, path: &SharePath) -> bool {
        self.lock().contains(path)
    }

    /// Whether something was mounted there, or above.
    pub(super) fn cover(&self, path: &SharePath) -> bool {
        self.lock().iter().any(|point| path == point || lies_below(path, point))
    }

    /// Those at or below a path, or all.
    pub(super) fn below(&self, start: Option<&SharePath>) -> Vec<SharePath> {
        let is_below = |path: &&SharePath| start.is_none_or(|start| *path == start || lies_below(path, start));
        self.lock().iter().filter(is_below).cloned().collect()
    }

    /// Something is mounted there.
    pub(super) fn note(&self, path: SharePath) {
        if self.lock().insert(path) {
            self.keep();
        }
    }

    /// Somebody says that nothing is to be mounted there any more.
    pub fn forget(&self, path: &SharePath) {
        if self.lock().remove(path) {
            self.keep();
        }
    }

    fn keep(&self) {
        let known = self.lock();
        let bytes = serde_json::to_vec(&*known).expect("paths are text");
        if let Err(error) = save(self.state.dir(), MOUNTS, &bytes) {
            tracing::warn!(%error, "mount points in the share folder cannot be remembered");
        }
    }
}

/// Whether a path leads through a folder.
pub(super) fn lies_below(path: &SharePath, folder: &SharePath) -> bool {
    path.as_str().strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether an open folder is the root of something mounted.
pub(super) fn is_mount_point(dir: &Dir) -> bool {
    statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
