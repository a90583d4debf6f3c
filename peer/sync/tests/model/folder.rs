//! A share folder in memory: what users do to it, and the hands that do what a machine wants.
//!
//! Its file system may take names for one that differ in case or Unicode form, and its calls may fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use potluck_common::projection::Place;
use potluck_common::register::{FileValue, Value};
use potluck_common::{ContentId, SharePath};
use potluck_sync::FileIdentity;
use potluck_sync::action::{Action, Old, Outcome, Seen};

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    /// A file.
    File(File),
    /// A folder.
    Folder,
}

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content_id: ContentId,
    pub(crate) executable: bool,
    pub(crate) identity: FileIdentity,
}

/// What people see of a file: its bytes, its time, whether it may be executed. Nothing for a folder.
type Look = Option<(ContentId, (i64, i64), bool)>;

/// The folder, and what was taken out of it by hands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folder {
    pub(crate) nodes: BTreeMap<SharePath, Node>,
    pub(crate) trash: Vec<ContentId>,
    /// Every content that was ever here.
    pub(crate) had: BTreeSet<ContentId>,
    /// Where something has changed since this was last taken.
    pub(crate) hints: Vec<SharePath>,
    /// What stood here before each step of the hands that is not durable yet.
    unsynced: Vec<BTreeMap<SharePath, Node>>,
    ticks: i64,
    inodes: u64,
    /// Whether names that differ in case or Unicode form are one.
    pub(crate) is_folding: bool,
    /// How many calls of the hands have been made.
    pub(crate) n_calls: u64,
    /// Which of them fails.
    pub(crate) fails_at: Option<u64>,
}

/// What failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// A name as a file system sees it that takes names for one.
fn folded(name: &str) -> String {
    name.to_lowercase().replace("e\u{301}", "\u{e9}")
}

/// Mutations of the hands, to see that the tests notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Careless {
    /// Nobody compares with `expect`.
    pub(crate) skips_expect: bool,
}

impl Folder {
    pub(crate) fn file(&self, real: &SharePath) -> Option<File> {
        match self.nodes.get(real) {
            Some(Node::File(file)) => Some(*file),
            _ => None,
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&SharePath, &File)> {
        self.nodes.iter().filter_map(|(real, node)| match node {
            Node::File(file) => Some((real, file)),
            Node::Folder => None,
        })
    }

    pub(crate) fn has_below(&self, real: &SharePath) -> bool {
        let below = format!("{real}/");
        self.nodes.keys().any(|path| path.as_str().starts_with(&below))
    }

    /// Under which name something stands where a path leads, or would stand.
    fn found_at(&self, real: &SharePath) -> SharePath {
        if !self.is_folding || self.nodes.contains_key(real) {
            return real.clone();
        }
        let name = folded(real.as_str());
        if let Some(twin) = self.nodes.keys().find(|path| folded(path.as_str()) == name) {
            return twin.clone();
        }
        let parent = real.parent().map(|parent| self.found_at(&parent));
        SharePath::join(parent.as_ref(), real.file_name().as_ref()).unwrap()
    }

    /// The content of each file, by its name.
    pub(crate) fn contents(&self) -> BTreeMap<String, ContentId> {
        self.files().map(|(real, file)| (real.to_string(), file.content_id)).collect()
    }

    /// What a look at a path tells. A file that is found there under another name is none whose bytes are known by this one.
    pub(crate) fn seen(&self, real: &SharePath) -> Option<Seen> {
        let found = self.found_at(real);
        self.nodes.get(&found).map(|node| match node {
            Node::Folder => Seen::Folder,
            Node::File(_) if found != *real => Seen::Unsettled,
            Node::File(File { content_id, executable, identity }) => {
                Seen::File { identity: *identity, content_id: *content_id, executable: *executable }
            }
        })
    }

    /// Puts a new file, by whomever.
    pub(crate) fn put(
        &mut self,
        real: &SharePath,
        content_id: ContentId,
        len: u64,
        mtime_ns: i64,
        executable: bool,
    ) -> FileIdentity {
        self.ticks += 1;
        self.inodes += 1;
        self.had.insert(content_id);
        let mtime = (mtime_ns.div_euclid(1_000_000_000), mtime_ns.rem_euclid(1_000_000_000));
        let identity = FileIdentity { inode: (1, self.inodes), len, mtime, ctime: (self.ticks, 0) };
        self.nodes.insert(real.clone(), Node::File(File { content_id, executable, identity }));
        self.hints.push(real.clone());
        identity
    }

    /// Changes times and mode of a file.
    pub(crate) fn touch(&mut self, real: &SharePath, mtime_ns: i64, executable: bool) -> FileIdentity {
        let file = self.file(real).unwrap();
        let inode = file.identity.inode;
        self.put(real, file.content_id, file.identity.len, mtime_ns, executable);
        let Some(Node::File(file)) = self.nodes.get_mut(real) else { unreachable!() };
        file.identity.inode = inode;
        file.identity
    }

    pub(crate) fn make_folder(&mut self, real: &SharePath) {
        self.nodes.insert(real.clone(), Node::Folder);
        self.hints.push(real.clone());
    }

    /// Takes something away, with all below.
    pub(crate) fn take(&mut self, real: &SharePath) -> Vec<(SharePath, Node)> {
        let below = format!("{real}/");
        let gone: Vec<_> =
            self.nodes.keys().filter(|path| *path == real || path.as_str().starts_with(&below)).cloned().collect();
        self.hints.push(real.clone());
        gone.into_iter().map(|path| (path.clone(), self.nodes.remove(&path).unwrap())).collect()
    }

    /// Gives something another name, with all below. The new name is free, or a file's.
    pub(crate) fn rename(&mut self, from: &SharePath, to: &SharePath) {
        for (path, mut node) in self.take(from) {
            let to: SharePath = format!("{to}{}", &path.as_str()[from.as_str().len()..]).parse().unwrap();
            if let Node::File(file) = &mut node
                && path == *from
            {
                self.ticks += 1;
                file.identity.ctime = (self.ticks, 0);
            }
            self.nodes.insert(to.clone(), node);
            self.hints.push(to);
        }
    }

    fn has_parent(&self, real: &SharePath) -> bool {
        real.parent().is_none_or(|parent| self.nodes.get(&self.found_at(&parent)) == Some(&Node::Folder))
    }

    fn is_free(&self, real: &SharePath) -> bool {
        !self.nodes.contains_key(&self.found_at(real)) && self.has_parent(real)
    }

    fn is(&self, real: &SharePath, expect: &FileIdentity, careless: Careless) -> bool {
        self.file(real).is_some_and(|file| file.identity == *expect || careless.skips_expect)
    }

    fn put_value(&mut self, real: &SharePath, value: Value) -> FileIdentity {
        let Value::File(FileValue { mtime_ns, content_id, len, executable }) = value else {
            panic!("{real} is no file")
        };
        self.put(real, content_id, len, mtime_ns, executable)
    }

    /// Everything so far is durable.
    pub(crate) fn sync(&mut self) {
        self.unsynced.clear();
    }

    /// Steps of the hands that are not.
    pub(crate) fn n_unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Undoes all but the first of these: a file system loses the latest changes of names, and nothing out of their middle.
    pub(crate) fn undo_after(&mut self, n_kept: usize) {
        if let Some(before) = self.unsynced.get(n_kept) {
            self.nodes = before.clone();
        }
        self.sync();
    }

    /// Does what is wanted, or finds that it cannot be done.
    pub(crate) fn perform(&mut self, action: &Action, has_content: bool, careless: Careless) -> Outcome {
        // Opening what is there, or the step itself.
        if self.call_fails() {
            return Outcome::Failed { again_after: AGAIN };
        }
        let before = self.nodes.clone();
        let outcome = self.try_to(&self.as_found(action), has_content, careless);
        if self.nodes != before {
            self.unsynced.push(before);
        }
        // Making it durable: it is done, and nobody is told so.
        if self.call_fails() && matches!(outcome, Outcome::Done { .. }) {
            return Outcome::Failed { again_after: AGAIN };
        }
        outcome
    }

    /// One more call is made; whether it fails.
    pub(crate) fn call_fails(&mut self) -> bool {
        self.n_calls += 1;
        self.fails_at == Some(self.n_calls)
    }

    /// An action under the names that its paths lead to.
    fn as_found(&self, action: &Action) -> Action {
        let at = |place: &Place| Place { real: self.found_at(&place.real), ..place.clone() };
        match action {
            Action::Place(place) => Action::Place(at(place)),
            Action::Replace { place, expect, old } => {
                let old = match old {
                    Old::Trash => Old::Trash,
                    Old::Keep(kept) => Old::Keep(at(kept)),
                };
                Action::Replace { place: at(place), expect: *expect, old }
            }
            Action::SetMeta { place, expect } => Action::SetMeta { place: at(place), expect: *expect },
            Action::Move { from, expect, place } => {
                Action::Move { from: self.found_at(from), expect: *expect, place: at(place) }
            }
            Action::MakeFolder(place) => Action::MakeFolder(at(place)),
            Action::Remove { real, expect } => Action::Remove { real: self.found_at(real), expect: *expect },
            Action::RemoveFolder { real } => Action::RemoveFolder { real: self.found_at(real) },
        }
    }

    fn try_to(&mut self, action: &Action, has_content: bool, careless: Careless) -> Outcome {
        match action {
            Action::Place(_) | Action::Replace { .. } if !has_content => Outcome::Failed { again_after: AGAIN },
            Action::Place(place) => match self.is_free(&place.real) {
                true => Outcome::placed(self.put_value(&place.real, place.value)),
                false if self.nodes.contains_key(&place.real) => Outcome::Taken,
                false => Outcome::Changed,
            },
            Action::Replace { place, expect, old } => {
                if !self.is(&place.real, expect, careless) {
                    return Outcome::Changed;
                }
                let kept = match old {
                    Old::Trash => {
                        self.trash.push(self.file(&place.real).unwrap().content_id);
                        None
                    }
                    Old::Keep(kept) if !self.is_free(&kept.real) => return Outcome::Taken,
                    // The two have changed places already, and it does not get its other name.
                    Old::Keep(_) if self.call_fails() => {
                        self.trash.push(self.file(&place.real).unwrap().content_id);
                        None
                    }
                    Old::Keep(kept) => {
                        self.rename(&place.real, &kept.real);
                        self.file(&kept.real).map(|file| file.identity)
                    }
                };
                Outcome::Done { identity: Some(self.put_value(&place.real, place.value)), kept }
            }
            Action::SetMeta { place, expect } => match (self.is(&place.real, expect, careless), place.value) {
                (true, Value::File(file)) => Outcome::placed(self.touch(&place.real, file.mtime_ns, file.executable)),
                _ => Outcome::Changed,
            },
            Action::Move { from, expect, place } => {
                if !self.is(from, expect, careless) || !self.has_parent(&place.real) {
                    return Outcome::Changed;
                }
                if !self.is_free(&place.real) {
                    return Outcome::Taken;
                }
                self.rename(from, &place.real);
                Outcome::placed(self.file(&place.real).unwrap().identity)
            }
            Action::MakeFolder(place) => match self.nodes.get(&place.real) {
                Some(_) => Outcome::Taken,
                None if !self.has_parent(&place.real) => Outcome::Changed,
                None => {
                    self.make_folder(&place.real);
                    Outcome::DONE
                }
            },
            Action::Remove { real, expect } => match self.is(real, expect, careless) {
                true => {
                    self.trash.push(self.file(real).unwrap().content_id);
                    self.take(real);
                    Outcome::DONE
                }
                false => Outcome::Changed,
            },
            Action::RemoveFolder { real } => match self.nodes.get(real) {
                Some(Node::Folder) if self.has_below(real) => Outcome::NotEmpty,
                Some(Node::Folder) => {
                    self.take(real);
                    Outcome::DONE
                }
                _ => Outcome::Changed,
            },
        }
    }

    /// What people and programs see: names, bytes, times and modes.
    pub(crate) fn look(&self) -> BTreeMap<String, Look> {
        let look = |node: &Node| match node {
            Node::Folder => None,
            Node::File(file) => Some((file.content_id, file.identity.mtime, file.executable)),
        };
        self.nodes.iter().map(|(real, node)| (real.to_string(), look(node))).collect()
    }
}
