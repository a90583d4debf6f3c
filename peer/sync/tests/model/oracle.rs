//! What must stand in the folders when everything is quiet. It knows users and names, and nothing of registers.
//!
//! A *fact* is a content under a name that a user gave it (or a folder under a name). A write makes a fact. It also *covers*
//! what that user saw under the same name in that folder, and so do delete and rename; a conflict copy that is covered
//! covers the fact under the name it is a copy of. Then:
//!
//! - a fact that nobody covered stands under its name or as a copy of it, in every folder;
//! - a fact that was covered, and was made once, stands nowhere;
//! - what was made more than once and covered may stand or not, since the order decides: touching a file, making
//!   the same file on two machines, giving a name back are such writes;
//! - nothing else stands anywhere.
//!
//! And a peer writes under its own name only what its own user made, whatever has crashed when: a file that it has put
//! there itself for another peer's write is never taken for an edit.
//!
//! Lost state, a restored backup and a new identity are writes of all that is in that folder, and take back what was covered
//! there, since that may never have been told; a crash takes back what was covered there since the last save.

use std::collections::{BTreeMap, BTreeSet};

use potluck_common::conflict_name::is_conflict_name_of;
use potluck_common::{ContentId, SharePath};

use crate::folder::{File, Folder, Node};

/// A content, or a folder, under a name.
pub(crate) type Fact = (SharePath, Option<ContentId>);

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    made: BTreeMap<Fact, usize>,
    made_by: BTreeMap<usize, BTreeSet<Fact>>,
    covered: BTreeMap<Fact, BTreeSet<usize>>,
    /// By peer: what was covered since its last save, and at all.
    recent: BTreeMap<usize, BTreeSet<Fact>>,
    /// Folders and touched files.
    recently_made: BTreeMap<usize, BTreeSet<Fact>>,
    by: BTreeMap<usize, BTreeSet<Fact>>,
    /// It is not decided whether they were covered; whether they were made.
    undecided: BTreeSet<Fact>,
    doubtful: BTreeSet<Fact>,
}

impl Oracle {
    /// The user of a peer makes this.
    pub(crate) fn make(&mut self, peer: usize, name: &SharePath, content: Option<ContentId>) {
        let fact = (name.clone(), content);
        self.made_by.entry(peer).or_default().insert(fact.clone());
        if content.is_none() {
            self.recently_made.entry(peer).or_default().insert(fact.clone());
        }
        *self.made.entry(fact).or_default() += 1;
    }

    /// A peer says that its user made this, and is excused: it may stand, under its name or as a copy of it, or not.
    pub(crate) fn may_make(&mut self, name: &SharePath, content: Option<ContentId>) {
        let fact = (name.clone(), content);
        self.doubtful.insert(fact.clone());
        self.undecided.insert(fact.clone());
        *self.made.entry(fact).or_default() += 1;
    }

    /// The user of a peer gives a file other times or modes. It may be taken for one that the machine put there.
    pub(crate) fn touch(&mut self, peer: usize, name: &SharePath, file: File, is_forgotten: bool) {
        self.maybe_cover(peer, name, &Node::File(file));
        let content = Some(file.content_id);
        self.make(peer, name, content);
        if is_forgotten {
            self.doubtful.insert((name.clone(), content));
        }
        self.recently_made.entry(peer).or_default().insert((name.clone(), content));
    }

    /// The user of a peer covers what stands under a real path.
    pub(crate) fn cover(&mut self, peer: usize, real: &SharePath, node: &Node) {
        let facts = self.facts_of(real, node);
        let is_clear = facts.len() == 1;
        for fact in facts {
            self.covered.entry(fact.clone()).or_default().insert(peer);
            self.recent.entry(peer).or_default().insert(fact.clone());
            self.by.entry(peer).or_default().insert(fact.clone());
            if !is_clear {
                self.undecided.insert(fact);
            }
        }
    }

    /// As [`Self::cover`], where the order of things decides whether it counts.
    pub(crate) fn maybe_cover(&mut self, peer: usize, real: &SharePath, node: &Node) {
        self.cover(peer, real, node);
        self.undecided.extend(self.facts_of(real, node));
    }

    fn facts_of(&self, real: &SharePath, node: &Node) -> Vec<Fact> {
        let Node::File(file) = node else { return vec![(real.clone(), None)] };
        let content = Some(file.content_id);
        let names = self
            .made
            .keys()
            .filter(|(name, made)| *made == content && (name == real || is_conflict_name_of(real, name)));
        names.cloned().collect()
    }

    /// Whether the user of a peer has ever made this: else the peer must not say so.
    pub(crate) fn has_made(&self, peer: usize, name: &SharePath, content: Option<ContentId>) -> bool {
        self.made_by.get(&peer).is_some_and(|made| made.contains(&(name.clone(), content)))
    }

    /// What the peer has told so far is kept.
    pub(crate) fn saved(&mut self, peer: usize) {
        self.recent.remove(&peer);
        self.recently_made.remove(&peer);
    }

    /// The peer forgot what it did since its last save.
    pub(crate) fn crashed(&mut self, peer: usize) {
        self.undecided.extend(self.recent.remove(&peer).unwrap_or_default());
        // A folder may be taken for one that is only there for what lies in it, and a touched file for a copy.
        self.doubtful.extend(self.recently_made.remove(&peer).unwrap_or_default());
    }

    /// The peer is not who it was: all in its folder is as if made now.
    pub(crate) fn forgot(&mut self, peer: usize, folder: &Folder) {
        self.undecided.extend(self.by.remove(&peer).unwrap_or_default());
        for (real, node) in &folder.nodes {
            let content = match node {
                Node::Folder => None,
                Node::File(file) => Some(file.content_id),
            };
            let facts = self.facts_of(real, node);
            // It may be taken for a copy again, or for a file of that name.
            if facts.iter().any(|(name, _)| name != real) {
                self.doubtful.insert((real.clone(), content));
            }
            self.undecided.extend(facts);
            self.make(peer, real, content);
        }
    }

    /// The peer's folder is as it was once: what its user has made since may be nowhere.
    pub(crate) fn restored(&mut self, peer: usize, folder: &Folder) {
        self.doubtful.extend(self.made_by.remove(&peer).unwrap_or_default());
        self.forgot(peer, folder);
    }

    /// Judges the folder that all peers have in common.
    pub(crate) fn judge(&self, folder: &Folder) -> Result<(), String> {
        let mut standing = BTreeSet::new();
        for (real, node) in &folder.nodes {
            let facts = self.facts_of(real, node);
            let may_stand = facts.iter().any(|fact| {
                !self.covered.contains_key(fact)
                    || self.undecided.contains(fact)
                    || self.made.get(fact).is_some_and(|n| *n > 1)
            });
            let is_needed = *node == Node::Folder && folder.has_below(real);
            if !may_stand && !is_needed {
                return Err(format!("{real} came back or from nowhere: {node:?}, {facts:?}"));
            }
            standing.extend(facts);
        }
        let missing = self.made.keys().find(|fact| {
            !self.covered.contains_key(*fact) && !self.doubtful.contains(*fact) && !standing.contains(*fact)
        });
        match missing {
            Some((name, content)) => Err(format!("lost: {content:?} at {name}")),
            None => Ok(()),
        }
    }
}
