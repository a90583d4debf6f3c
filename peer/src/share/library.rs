//! The library: what we share, and how it changed.
//!
//! A catalogue of files with a revision that rises with every change, so that an announcer can ask "what changed since
//! revision r" in pages. Each path stands in the log once, at its latest change.
//!
//! Invariant: a file is in the library if and only if it was hashed in the state that its identity names.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use potluck_common::protocol::{Entry, PartialEntry};
use potluck_common::{ContentId, SharePath};
use tokio::sync::watch;

use super::folder::FileIdentity;

/// One file that we share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFile {
    /// The id of its bytes.
    pub content_id: ContentId,
    /// The state in which it was hashed.
    pub identity: FileIdentity,
}

/// Places of a content that are tried before it counts as not here.
const MAX_PLACES: usize = 8;

/// What changed in a catalogue between two revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// It builds on this revision.
    pub base: u64,
    /// It leads to this one.
    pub revision: u64,
    /// New or changed.
    pub added: Vec<Entry>,
    /// Gone.
    pub removed: Vec<SharePath>,
    /// Contents of which we hold another number of chunks; 0: none any more, or all.
    pub partial: Vec<PartialEntry>,
}

/// What a change was about.
#[derive(Debug, Clone)]
enum Subject {
    File(SharePath),
    Partial(ContentId),
}

/// The catalogue. Methods are short and never wait; the lock is not held across them.
#[derive(Debug)]
pub struct Library {
    inner: Mutex<Inner>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<SharePath, (SharedFile, u64)>,
    contents: HashMap<ContentId, Vec<SharePath>>,
    log: BTreeMap<u64, Subject>,
    gone: HashMap<SharePath, u64>,
    partial: HashMap<ContentId, (PartialEntry, u64)>,
    revision: u64,
    n_bytes: u64,
}

impl Default for Library {
    fn default() -> Self {
        Self { inner: Mutex::default(), revision: watch::Sender::new(0) }
    }
}

impl Library {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file, or changes what is known of it; whether that was news.
    pub fn insert(&self, path: SharePath, file: SharedFile) -> bool {
        let mut inner = self.lock();
        match inner.files.get_mut(&path) {
            Some((known, _)) if *known == file => return false,
            // Only its identity moved (a touch, a rename back and forth): nothing to announce.
            Some((known, _)) if known.content_id == file.content_id => {
                known.identity = file.identity;
                return false;
            }
            _ => {}
        }
        inner.take_out(&path);
        inner.revision += 1;
        let revision = inner.revision;
        inner.n_bytes += file.identity.len;
        inner.contents.entry(file.content_id).or_default().push(path.clone());
        inner.log.insert(revision, Subject::File(path.clone()));
        inner.files.insert(path, (file, revision));
        self.revision.send_replace(revision);
        true
    }

    /// Takes a file out; whether it was there.
    pub fn remove(&self, path: &SharePath) -> bool {
        self.remove_if(path, |_| true)
    }

    /// Takes a file out if it was hashed in the state `identity`; whether it was.
    pub fn remove_in(&self, path: &SharePath, identity: FileIdentity) -> bool {
        self.remove_if(path, |file| file.identity == identity)
    }

    /// Takes a file out unless it was hashed in the state `identity`; whether that is so, and nothing was done. One step,
    /// because a download may put the file in at this very moment.
    pub fn stays_in(&self, path: &SharePath, identity: FileIdentity) -> bool {
        self.remove_if(path, |file| file.identity != identity);
        self.get(path).is_some_and(|file| file.identity == identity)
    }

    fn remove_if(&self, path: &SharePath, wanted: impl Fn(&SharedFile) -> bool) -> bool {
        let mut inner = self.lock();
        if !inner.files.get(path).is_some_and(|(file, _)| wanted(file)) {
            return false;
        }
        inner.take_out(path);
        inner.revision += 1;
        let revision = inner.revision;
        inner.log.insert(revision, Subject::File(path.clone()));
        inner.gone.insert(path.clone(), revision);
        self.revision.send_replace(revision);
        true
    }

    /// We hold so many chunks of a content; 0 when it is complete or given up.
    pub fn set_partial(&self, content_id: ContentId, len: u64, n_chunks: u32) {
        let mut inner = self.lock();
        if let Some((_, revision)) = inner.partial.remove(&content_id) {
            inner.log.remove(&revision);
        } else if n_chunks == 0 {
            return;
        }
        inner.revision += 1;
        let revision = inner.revision;
        inner.log.insert(revision, Subject::Partial(content_id));
        inner.partial.insert(content_id, (PartialEntry { content_id, len, n_chunks }, revision));
        self.revision.send_replace(revision);
    }

    /// What is known of a path.
    pub fn get(&self, path: &SharePath) -> Option<SharedFile> {
        self.lock().files.get(path).map(|(file, _)| *file)
    }

    /// Where the bytes of a content can be read: a few places, for a tree may hold one content (the empty one, say) thousands of
    /// times.
    pub fn find(&self, content_id: ContentId) -> Vec<(SharePath, SharedFile)> {
        let inner = self.lock();
        let paths = inner.contents.get(&content_id).map(Vec::as_slice).unwrap_or_default();
        paths.iter().take(MAX_PLACES).filter_map(|path| Some((path.clone(), inner.files.get(path)?.0))).collect()
    }

    /// Whether a content is here completely.
    pub fn holds(&self, content_id: ContentId) -> bool {
        self.lock().contents.contains_key(&content_id)
    }

    /// Number of files and their lengths in all.
    pub fn totals(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.files.len() as u64, inner.n_bytes)
    }

    /// At most `limit` files after the path `after`, in order.
    pub fn page(&self, after: Option<&SharePath>, limit: usize) -> Vec<(SharePath, SharedFile)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.lock();
        inner
            .files
            .range::<SharePath, _>((start, Bound::Unbounded))
            .take(limit)
            .map(|(path, (file, _))| (path.clone(), *file))
            .collect()
    }

    /// The files at or below a path.
    pub fn below(&self, path: &SharePath) -> Vec<SharePath> {
        let inner = self.lock();
        let folder = format!("{path}/");
        let below = inner.files.range::<SharePath, _>(path..).map(|(path, _)| path);
        // Names such as `a-b` sort between `a` and `a/`, so the range cannot end at the first other one.
        below
            .take_while(|found| found.as_str().starts_with(path.as_str()))
            .filter(|found| *found == path || found.as_str().starts_with(&folder))
            .cloned()
            .collect()
    }

    /// The changes after `base`, at most `limit` of them.
    pub fn changes_since(&self, base: u64, limit: usize) -> Delta {
        let inner = self.lock();
        let mut delta = Delta { base, revision: base, added: Vec::new(), removed: Vec::new(), partial: Vec::new() };
        for (revision, subject) in inner.log.range(base + 1..).take(limit) {
            delta.revision = *revision;
            match subject {
                Subject::Partial(id) => delta.partial.extend(inner.partial.get(id).map(|(entry, _)| *entry)),
                Subject::File(path) => match inner.files.get(path) {
                    Some((file, _)) => {
                        let (content_id, len) = (file.content_id, file.identity.len);
                        delta.added.push(Entry { path: path.clone(), content_id, len });
                    }
                    None => delta.removed.push(path.clone()),
                },
            }
        }
        delta
    }

    /// The revision now, and a way to wait for the next.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

impl Inner {
    /// Removes a path from everything, so that it can be entered anew.
    fn take_out(&mut self, path: &SharePath) {
        if let Some(revision) = self.gone.remove(path) {
            self.log.remove(&revision);
        }
        let Some((file, revision)) = self.files.remove(path) else { return };
        self.log.remove(&revision);
        self.n_bytes -= file.identity.len;
        if let Some(paths) = self.contents.get_mut(&file.content_id) {
            paths.retain(|known| known != path);
            if paths.is_empty() {
                self.contents.remove(&file.content_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(n: u32) -> SharePath {
        format!("d{}/f{}", n % 3, n).parse().unwrap()
    }

    fn file(n: u8) -> SharedFile {
        let identity = FileIdentity { inode: (1, n.into()), len: n.into(), mtime: (0, 0), ctime: (0, 0) };
        SharedFile { content_id: ContentId::of(&[n]), identity }
    }

    /// A tracker that applies pages of deltas, at whatever moments, ends with what the library holds.
    #[test]
    fn deltas_lead_a_follower_to_the_same_catalogue() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let library = Library::default();
            let (mut follower, mut acked) = (BTreeMap::new(), 0);
            let mut follow = |limit: usize, acked: &mut u64| {
                let delta = library.changes_since(*acked, limit);
                for path in delta.removed {
                    follower.remove(&path);
                }
                for entry in delta.added {
                    follower.insert(entry.path, entry.content_id);
                }
                *acked = delta.revision;
                follower.clone()
            };
            for _ in 0..200 {
                match rng.u8(..4) {
                    0 => drop(library.remove(&path(rng.u32(..20)))),
                    1 => drop(follow(rng.usize(1..5), &mut acked)),
                    _ => drop(library.insert(path(rng.u32(..20)), file(rng.u8(..10)))),
                }
            }
            let follower = follow(usize::MAX, &mut acked);
            let truth: BTreeMap<_, _> =
                library.page(None, usize::MAX).into_iter().map(|(path, file)| (path, file.content_id)).collect();
            assert_eq!(follower, truth, "seed {seed}");
            let n_bytes: u64 = library.page(None, usize::MAX).iter().map(|(_, file)| file.identity.len).sum();
            assert_eq!(library.totals(), (truth.len() as u64, n_bytes), "seed {seed}");
            for (path, id) in &truth {
                assert!(library.find(*id).iter().any(|(found, _)| found == path), "seed {seed}");
            }
        }
    }

    #[test]
    fn below_a_folder() {
        let library = Library::default();
        for name in ["a", "a-b", "a/x", "a/y/z", "ab/x", "b"] {
            library.insert(name.parse().unwrap(), file(1));
        }
        let below: Vec<_> = library.below(&"a".parse().unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(below, ["a", "a/x", "a/y/z"]);
    }
}
