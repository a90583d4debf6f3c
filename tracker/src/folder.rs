//! A folder as the swarm knows it: what is listed below it, and which peers hold all of that. Asks the registry and changes
//! nothing.
//!
//! Invariant: what it costs is bounded, whatever is asked: so many names, and so many peers compared with them.

use std::ops::Bound;

use potluck_common::SharePath;
use potluck_common::protocol::FolderInfo;

use crate::index::{ContentIx, NameIx, PeerIx};
use crate::lookup::most_owned;
use crate::registry::Registry;

/// Files of the largest folder that is looked at as one.
pub const MAX_FOLDER_FILES: usize = 10_000;
/// Names looked at, among them those that only absent peers have.
const MAX_NAMES: usize = 2 * MAX_FOLDER_FILES;
/// Peers of which it is found out whether they hold all: of the owners of its rarest file, chosen at random.
const MAX_CANDIDATES: usize = 64;

/// Why a folder cannot be taken as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderError {
    /// Nothing is listed below it.
    Unknown,
    /// More than [`MAX_FOLDER_FILES`].
    TooLarge,
    /// This name stands for several contents; nobody guesses.
    Ambiguous(SharePath),
}

impl Registry {
    /// A folder with at most `max` of the peers that hold all of it, chosen at random.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn folder(&self, path: &SharePath, max: usize, seed: u64) -> Result<FolderInfo, FolderError> {
        let prefix = format!("{path}/");
        let names = self.index.names_from(Bound::Included(&prefix));
        let mut files: Vec<(NameIx, ContentIx)> = Vec::new();
        let (mut n_bytes, mut rarest) = (0u64, None::<ContentIx>);
        let n_owners = |content| self.index.content(content).complete.len();
        for (n_seen, (path, name, is_listed)) in
            names.take_while(|(path, ..)| path.as_str().starts_with(&prefix)).enumerate()
        {
            if n_seen >= MAX_NAMES || files.len() >= MAX_FOLDER_FILES {
                return Err(FolderError::TooLarge);
            }
            if !is_listed {
                continue;
            }
            let listed = most_owned(self.index.under(name));
            let Some(first) = listed.first() else { continue };
            // Whoever claims another length for the same id makes no name ambiguous.
            if listed.iter().any(|other| other.content.id != first.content.id) {
                return Err(FolderError::Ambiguous(path.clone()));
            }
            let content = self.index.find_content(first.content.id, first.content.len).expect("it is listed");
            n_bytes = n_bytes.saturating_add(first.content.len);
            files.push((name, content));
            if rarest.is_none_or(|rarest| n_owners(content) < n_owners(rarest)) {
                rarest = Some(content);
            }
        }
        let rarest = rarest.ok_or(FolderError::Unknown)?;
        let mut rng = fastrand::Rng::with_seed(seed);
        let candidates = self.index.content(rarest).complete.iter().map(|&(peer, _)| peer);
        let mut owners: Vec<PeerIx> = rng.choose_multiple(candidates, MAX_CANDIDATES);
        for (name, content) in &files {
            owners.retain(|&owner| self.peers.get(owner).catalogue.content_at(*name) == Some(*content));
        }
        rng.shuffle(&mut owners);
        let owners = owners.into_iter().take(max).map(|owner| self.owner(owner, true, 0)).collect();
        Ok(FolderInfo { path: path.clone(), n_files: files.len() as u64, n_bytes, owners })
    }
}
