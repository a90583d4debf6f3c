//! Noticing changes: which places of the share folder are worth a look.
//!
//! A hint and nothing more. Events may be late, doubled or lost; a periodic rescan finds what they missed, and after
//! an overflow everything is looked at.

use std::path::Path;
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use potluck_common::SharePath;
use potluck_common::share_path::STATE_DIR;

use super::dirt::{Dirt, Dirty};

/// Watches one folder for as long as it lives.
#[derive(Debug)]
pub struct FolderWatch {
    seen: Arc<Dirt>,
    _watcher: RecommendedWatcher,
}

impl FolderWatch {
    /// Starts watching everything below `root`, which is an absolute path without links.
    ///
    /// # Errors
    /// If the system refuses, for example at its limit of inotify watches.
    pub fn start(root: &Path) -> notify::Result<Self> {
        let seen = Arc::<Dirt>::default();
        let (sink, base) = (seen.clone(), root.to_owned());
        let mut watcher = notify::recommended_watcher(move |event| note(&sink, &base, event))?;
        watcher.watch(root, RecursiveMode::Recursive)?;
        // Downloads write there all the time. Where it cannot be left out, `note` passes its events over.
        if let Err(error) = watcher.unwatch(&root.join(STATE_DIR)) {
            tracing::debug!(%error, "the state folder stays watched");
        }
        Ok(Self { seen, _watcher: watcher })
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        self.seen.changed().await;
    }

    /// What may have changed since the last call.
    pub fn take(&self) -> Dirty {
        self.seen.take()
    }
}

/// Takes note of an event that is worth a look.
fn note(seen: &Dirt, base: &Path, event: notify::Result<notify::Event>) {
    let Ok(event) = event else { return seen.note_everything() };
    if event.need_rescan() {
        return seen.note_everything();
    }
    if matches!(event.kind, EventKind::Access(_)) {
        return;
    }
    // Our own state folder is no share path, so it is passed over here.
    let place = |path: &std::path::PathBuf| path.strip_prefix(base).ok()?.to_str()?.parse::<SharePath>().ok();
    seen.note(event.paths.iter().filter_map(place));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn sees_changes_and_not_our_own_state() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join(".potluck")).unwrap();
        let watch = FolderWatch::start(&root).unwrap();
        std::fs::write(root.join(".potluck/x"), "x").unwrap();
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("a"), "x").unwrap();
        let wanted: Vec<SharePath> = vec!["a".parse().unwrap(), "d".parse().unwrap()];
        let mut seen = std::collections::BTreeSet::new();
        let all = async {
            while !wanted.iter().all(|path| seen.contains(path)) {
                watch.changed().await;
                match watch.take() {
                    Dirty::Places(places) => seen.extend(places),
                    Dirty::Everything => panic!("nothing overflowed"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("seen in time");
        assert!(seen.iter().all(|path| !path.as_str().contains("potluck")));
    }
}
