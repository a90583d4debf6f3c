//! The users of a swarm: what they do in their folders, and what the [oracle](crate::oracle) is told of it.

use potluck_common::conflict_name::original;
use potluck_common::{ContentId, SharePath};

use crate::folder::Node;
use crate::oracle::Oracle;
use crate::world::{World, Written};

/// A swarm that does not come to rest in so many rounds never does.
const MAX_ROUNDS: usize = 200;

/// See the module's text.
pub(crate) struct Users {
    pub(crate) world: World,
    pub(crate) oracle: Oracle,
    /// What this peer has put under a conflict name, but could not make durable, it may take for its user's.
    pub(crate) fails: Option<usize>,
    /// A write that no user made.
    needless: Option<String>,
}

impl Users {
    pub(crate) fn of(world: World) -> Self {
        Self { world, oracle: Oracle::default(), fails: None, needless: None }
    }

    /// Lets everybody come to rest, and judges what is there then.
    pub(crate) fn rest(&mut self) -> Result<(), String> {
        for _ in 0..MAX_ROUNDS {
            self.world.round();
            self.take_notes();
            if let Some(needless) = self.needless.take() {
                return Err(needless);
            }
            if self.world.is_quiet() {
                return self
                    .oracle
                    .judge(&self.world.peers[0].folder)
                    .map_err(|error| error + &self.world.differences());
            }
        }
        Err(format!("not quiet after {MAX_ROUNDS} rounds{}", self.world.differences()))
    }

    /// Tells the oracle what machines have kept and written.
    pub(crate) fn take_notes(&mut self) {
        for n in std::mem::take(&mut self.world.saved) {
            self.oracle.saved(n);
        }
        for n in std::mem::take(&mut self.world.renamed) {
            self.oracle.forgot(n, &self.world.peers[n].folder);
        }
        for Written { n, name, content, is_edited } in std::mem::take(&mut self.world.written) {
            if self.oracle.has_made(n, &name, content) {
                continue;
            }
            if is_edited || (self.fails == Some(n) && original(&name).is_some()) {
                self.oracle.may_make(&name, content);
            } else if self.needless.is_none() {
                self.world.tell(|| format!("  {n}: NEEDLESS {name} {content:?}"));
                self.needless = Some(format!("{n} takes {content:?} at {name} for its user's"));
            }
        }
    }

    /// Makes the folders above a name; whether that is possible.
    fn make_above(&mut self, n: usize, name: &SharePath) -> bool {
        let Some(folder) = name.parent() else { return true };
        match self.world.node(n, &folder) {
            Some(Node::Folder) => true,
            Some(Node::File(_)) => false,
            None => self.make_above(n, &folder) && self.make_folder(n, &folder),
        }
    }

    /// Makes a folder, and those above it; whether that is possible.
    pub(crate) fn make_folder(&mut self, n: usize, name: &SharePath) -> bool {
        match self.world.node(n, name) {
            Some(Node::Folder) => return true,
            Some(node @ Node::File(_)) => {
                self.cover_one(n, name, &node);
                self.world.peers[n].folder.take(name);
            }
            None if !self.make_above(n, name) => return false,
            None => {}
        }
        self.world.tell(|| format!("{n}: user makes folder {name}"));
        self.oracle.make(n, name, None);
        self.world.peers[n].edited.insert(name.clone());
        self.world.peers[n].folder.make_folder(name);
        true
    }

    fn cover(&mut self, n: usize, real: &SharePath) {
        let below = format!("{real}/");
        let nodes: Vec<_> = self.world.peers[n].folder.nodes.iter().map(|(path, node)| (path.clone(), *node)).collect();
        for (path, node) in nodes {
            if path == *real || path.as_str().starts_with(&below) {
                self.cover_one(n, &path, &node);
            }
        }
    }

    fn cover_one(&mut self, n: usize, real: &SharePath, node: &Node) {
        self.world.peers[n].edited.insert(real.clone());
        // A crash made the machine forget that it put this there; until it has looked again it takes it for the user's. And while
        // a file is being given another name, its version stands under both, and what is done to one of them is not done to it. And
        // who has heard of what lies in a folder, and not of the folder, has it for that only: deleting it says nothing of the folder
        // that somebody else made.
        let is_implied = *node == Node::Folder && self.world.is_implied(n, real);
        if is_implied || self.world.has_forgotten(n, real) || self.world.stands_twice(n, real, node) {
            self.oracle.maybe_cover(n, real, node);
        } else {
            self.oracle.cover(n, real, node);
        }
    }

    /// Covers what stands where something is written.
    fn write_over(&mut self, n: usize, name: &SharePath, content: ContentId) -> bool {
        match self.world.node(n, name) {
            Some(_) => self.cover(n, name),
            None if !self.make_above(n, name) => return false,
            None => {}
        }
        if self.world.node(n, name) == Some(Node::Folder) {
            self.world.peers[n].folder.take(name);
        }
        self.oracle.make(n, name, Some(content));
        self.world.peers[n].edited.insert(name.clone());
        true
    }

    /// Gives a name to new bytes.
    pub(crate) fn write(&mut self, n: usize, name: &SharePath, content: ContentId, mtime_ns: i64, executable: bool) {
        self.write_as(n, name, content, || (mtime_ns, executable));
    }

    /// The same, with time and mode that are asked for only if it can be written.
    pub(crate) fn write_as(
        &mut self,
        n: usize,
        name: &SharePath,
        content: ContentId,
        look: impl FnOnce() -> (i64, bool),
    ) {
        if self.write_over(n, name, content) {
            self.world.tell(|| format!("{n}: user writes {name}: {content:?}"));
            let (mtime_ns, executable) = look();
            self.world.peers[n].folder.put(name, content, 7, mtime_ns, executable);
        }
    }

    /// Other bytes under the same length and time.
    pub(crate) fn rewrite(&mut self, n: usize, real: &SharePath, content: ContentId) {
        let Some(file) = self.world.peers[n].folder.file(real) else { return };
        self.write_over(n, real, content);
        self.world.tell(|| format!("{n}: user rewrites {real}: {content:?}"));
        let (mtime, len) = (file.identity.mtime, file.identity.len);
        self.world.peers[n].folder.put(real, content, len, mtime.0 * 1_000_000_000 + mtime.1, file.executable);
    }

    /// Gives a file another time and mode.
    pub(crate) fn touch(&mut self, n: usize, real: &SharePath, mtime_ns: i64, executable: bool) {
        let Some(file) = self.world.peers[n].folder.file(real) else { return };
        let (mtime, was_executable) = (file.identity.mtime, file.executable);
        if (mtime.0 * 1_000_000_000 + mtime.1, was_executable) == (mtime_ns, executable) {
            // Nobody can see a difference, and nothing is written.
            self.world.peers[n].folder.touch(real, mtime_ns, executable);
            return;
        }
        let is_forgotten = self.world.has_forgotten(n, real);
        self.oracle.touch(n, real, file, is_forgotten);
        self.world.tell(|| format!("{n}: user touches {real}"));
        self.world.peers[n].folder.touch(real, mtime_ns, executable);
    }

    /// Deletes what stands there, with all below.
    pub(crate) fn delete(&mut self, n: usize, real: &SharePath) {
        self.world.tell(|| format!("{n}: user deletes {real}"));
        self.cover(n, real);
        self.world.peers[n].folder.take(real);
    }

    /// Gives something another name, with all below, where that is possible.
    pub(crate) fn rename(&mut self, n: usize, from: &SharePath, to: &SharePath) {
        let is_inside = format!("{to}/").starts_with(&format!("{from}/"));
        if is_inside || self.world.node(n, to) == Some(Node::Folder) {
            return;
        }
        let is_folder = match self.world.node(n, from) {
            Some(node) => node == Node::Folder,
            None => return,
        };
        if is_folder && self.world.node(n, to).is_some() {
            return;
        }
        if !self.make_above(n, to) {
            return;
        }
        self.world.tell(|| format!("{n}: user renames {from} to {to}"));
        let below = format!("{from}/");
        let nodes: Vec<_> = self.world.peers[n].folder.nodes.iter().map(|(path, node)| (path.clone(), *node)).collect();
        let moved = nodes.into_iter().filter(|(path, _)| *path == *from || path.as_str().starts_with(&below));
        for (path, node) in moved {
            let to = format!("{to}{}", &path.as_str()[from.as_str().len()..]).parse().unwrap();
            let content = match node {
                Node::Folder => None,
                Node::File(file) => Some(file.content_id),
            };
            if let Some(content) = content {
                self.write_over(n, &to, content);
            } else {
                self.oracle.make(n, &to, None);
            }
            self.cover_one(n, &path, &node);
        }
        self.world.peers[n].folder.rename(from, to);
    }
}
