//! Noticing changes: which places of the share folder are worth a look.
//!
//! A hint and nothing more. Events may be late, doubled or lost; a periodic rescan finds what they missed, and after
//! an overflow everything is looked at.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use potluck_common::SharePath;
use potluck_common::share_path::STATE_DIR;
use tokio::sync::Notify;

/// More places than this are not remembered one by one: everything is looked at.
const MAX_PLACES: usize = 10_000;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dirty {
    /// These files and folders.
    Places(Vec<SharePath>),
    /// All of it.
    Everything,
}

#[derive(Debug, Default)]
struct Seen {
    places: std::collections::BTreeSet<SharePath>,
    everything: bool,
}

/// Watches one folder for as long as it lives.
#[derive(Debug)]
pub struct FolderWatch {
    seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

impl FolderWatch {
    /// Starts watching everything below `root`, which is an absolute path without links.
    ///
    /// # Errors
    /// If the system refuses, for example at its limit of inotify watches.
    pub fn start(root: &Path) -> notify::Result<Self> {
        let (seen, changed) = (Arc::<Mutex<Seen>>::default(), Arc::new(Notify::new()));
        let (sink, wake, base) = (seen.clone(), changed.clone(), root.to_owned());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let mut seen = sink.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.note(&base, event) {
                wake.notify_one();
            }
        })?;
        watcher.watch(root, RecursiveMode::Recursive)?;
        // Downloads write there all the time. Where it cannot be left out, `note` passes its events over.
        if let Err(error) = watcher.unwatch(&root.join(STATE_DIR)) {
            tracing::debug!(%error, "the state folder stays watched");
        }
        Ok(Self { seen, changed, _watcher: watcher })
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What may have changed since the last call.
    pub fn take(&self) -> Dirty {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.everything { Dirty::Everything } else { Dirty::Places(seen.places.into_iter().collect()) }
    }
}

impl Seen {
    /// Whether the event is worth a look.
    fn note(&mut self, base: &Path, event: notify::Result<notify::Event>) -> bool {
        let Ok(event) = event else {
            self.everything = true;
            return true;
        };
        if event.need_rescan() {
            self.everything = true;
            return true;
        }
        if matches!(event.kind, EventKind::Access(_)) {
            return false;
        }
        let mut news = false;
        for path in &event.paths {
            let place =
                path.strip_prefix(base).ok().and_then(Path::to_str).and_then(|text| text.parse::<SharePath>().ok());
            // Our own state folder is no share path, so it is passed over here.
            let Some(place) = place else { continue };
            news = true;
            if self.places.len() < MAX_PLACES {
                self.places.insert(place);
            } else {
                self.everything = true;
            }
        }
        news
    }
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
