//! Which file is hashed next: pure, time comes in as an argument.
//!
//! Invariant: a path waits at most once, and is never handed out twice at the same time; if its file changes while it is
//! being hashed, it is handed out again afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use potluck_common::SharePath;

use super::folder::FileIdentity;

/// First pause before a file that changed while it was hashed is tried again; doubles up to [`MAX_RETRY`].
pub const MIN_RETRY: Duration = Duration::from_millis(250);
/// Longest such pause.
pub const MAX_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Waiting {
    /// `None`: gone while it is being hashed.
    identity: Option<FileIdentity>,
    not_before: Instant,
    pause: Duration,
    handed_out: Option<FileIdentity>,
}

/// Files to be hashed, in the order in which they came to rest.
#[derive(Debug, Default)]
pub struct HashQueue {
    files: BTreeMap<SharePath, Waiting>,
    order: BTreeSet<(Instant, SharePath)>,
}

impl HashQueue {
    /// Files that wait or are being hashed.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether the path already waits in just that state.
    pub fn contains(&self, path: &SharePath, identity: FileIdentity) -> bool {
        self.files.get(path).is_some_and(|file| file.identity == Some(identity))
    }

    /// A file is in a new state, to be hashed not before `not_before`.
    pub fn on_changed(&mut self, path: SharePath, identity: FileIdentity, not_before: Instant) {
        match self.files.get_mut(&path) {
            Some(file) => {
                self.order.remove(&(file.not_before, path.clone()));
                (file.identity, file.not_before) = (Some(identity), not_before);
                if file.handed_out.is_none() {
                    self.order.insert((not_before, path));
                }
            }
            None => {
                self.order.insert((not_before, path.clone()));
                let identity = Some(identity);
                self.files.insert(path, Waiting { identity, not_before, pause: MIN_RETRY, handed_out: None });
            }
        }
    }

    /// The next file to hash, if one has come to rest.
    pub fn next_file(&mut self, now: Instant) -> Option<(SharePath, FileIdentity)> {
        let (not_before, _) = self.order.first()?;
        if *not_before > now {
            return None;
        }
        let (_, path) = self.order.pop_first()?;
        let file = self.files.get_mut(&path)?;
        file.handed_out = file.identity;
        Some((path, file.identity?))
    }

    /// The next one, if it is no longer than this.
    pub fn next_file_up_to(&mut self, max_len: u64, now: Instant) -> Option<(SharePath, FileIdentity)> {
        let (_, path) = self.order.first()?;
        let is_short = self.files.get(path)?.identity.is_some_and(|identity| identity.len <= max_len);
        if is_short { self.next_file(now) } else { None }
    }

    /// When the next file will have come to rest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(not_before, _)| *not_before)
    }

    /// A file that was handed out is hashed, or cannot be; whether it is still in the state in which it was handed out.
    pub fn on_done(&mut self, path: &SharePath) -> bool {
        let Some(file) = self.files.get_mut(path) else { return false };
        let handed_out = file.handed_out.take();
        if file.identity.is_some() && handed_out != file.identity {
            self.order.insert((file.not_before, path.clone()));
            return false;
        }
        self.files.remove(path).is_some_and(|file| file.identity.is_some())
    }

    /// A file that was handed out changed meanwhile and is now in the state `identity`: again, after a growing pause.
    pub fn on_unsettled(&mut self, path: &SharePath, identity: FileIdentity, now: Instant) {
        let Some(file) = self.files.get_mut(path) else { return };
        self.order.remove(&(file.not_before, path.clone()));
        file.handed_out = None;
        file.identity = Some(identity);
        file.not_before = now + file.pause;
        file.pause = (file.pause * 2).min(MAX_RETRY);
        self.order.insert((file.not_before, path.clone()));
    }

    /// A file is gone, or need not be hashed any more. One that is being hashed keeps its place until that is over, or it
    /// could be handed out a second time meanwhile.
    pub fn on_gone(&mut self, path: &SharePath) {
        let Some(file) = self.files.get_mut(path) else { return };
        self.order.remove(&(file.not_before, path.clone()));
        file.identity = None;
        if file.handed_out.is_none() {
            self.files.remove(path);
        }
    }

    /// The paths that wait.
    pub fn paths(&self) -> impl Iterator<Item = &SharePath> {
        self.files.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u64) -> FileIdentity {
        FileIdentity { inode: (0, n), len: n, mtime: (0, 0), ctime: (0, 0) }
    }

    fn path(text: &str) -> SharePath {
        text.parse().unwrap()
    }

    #[test]
    fn in_order_of_rest_and_never_twice() {
        let t = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = HashQueue::default();
        queue.on_changed(path("b"), identity(1), t + second);
        queue.on_changed(path("a"), identity(2), t + 2 * second);
        assert_eq!(queue.next_file(t), None);
        assert_eq!(queue.next_deadline(), Some(t + second));
        assert_eq!(queue.next_file(t + 3 * second), Some((path("b"), identity(1))));
        assert_eq!(queue.next_file(t + 3 * second), Some((path("a"), identity(2))));
        assert_eq!(queue.next_file(t + 9 * second), None);
        queue.on_changed(path("b"), identity(3), t);
        assert_eq!(queue.next_file(t + 9 * second), None, "it is being hashed");
        assert!(!queue.on_done(&path("b")), "it changed meanwhile");
        assert_eq!(queue.next_file(t), Some((path("b"), identity(3))));
        assert!(queue.on_done(&path("b")));
        queue.on_gone(&path("a"));
        assert!(!queue.on_done(&path("a")), "it is gone");
        assert!(queue.is_empty() && queue.next_deadline().is_none());
    }

    /// Removed and made anew while it was being hashed, a file was handed out a second time before the first hash was over.
    #[test]
    fn gone_and_back_while_it_is_hashed() {
        let t = Instant::now();
        let mut queue = HashQueue::default();
        queue.on_changed(path("a"), identity(1), t);
        assert_eq!(queue.next_file(t), Some((path("a"), identity(1))));
        queue.on_gone(&path("a"));
        queue.on_changed(path("a"), identity(2), t);
        assert_eq!(queue.next_file(t), None, "it is being hashed");
        assert!(!queue.on_done(&path("a")), "that was the old file");
        assert_eq!(queue.next_file(t), Some((path("a"), identity(2))));
        assert!(queue.on_done(&path("a")) && queue.is_empty());
    }

    #[test]
    fn a_restless_file_waits_longer_and_longer() {
        let mut now = Instant::now();
        let mut queue = HashQueue::default();
        queue.on_changed(path("a"), identity(1), now);
        let mut pauses = Vec::new();
        for n in 0..10 {
            let (path, _) = queue.next_file(now).unwrap();
            queue.on_unsettled(&path, identity(n), now);
            let next = queue.next_deadline().unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert_eq!((pauses[0], pauses[1], pauses[9]), (MIN_RETRY, 2 * MIN_RETRY, MAX_RETRY));
    }
}
