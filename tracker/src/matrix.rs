//! Who lacks what: the files of the synced folder, as they lie at rest, against the peers that sync.
//!
//! A question to registry and index; nothing here changes either. Whether a peer holds a file is what its catalogue says:
//! that content under that name.
//!
//! Invariant: no part of an answer looks at more than it was granted, however many files and peers there are.

use std::ops::Bound;

use potluck_common::projection::places;
use potluck_common::protocol::{MatrixFile, MatrixPeer};
use potluck_common::{ContentId, SharePath};

use crate::registry::Registry;
use crate::sync_index::SyncIndex;

/// A part of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The files, in the order of the paths they were written at.
    pub files: Vec<MatrixFile>,
    /// Where to go on; `None`: there are no more paths.
    pub next: Option<SharePath>,
    /// What it took: a path, or each of its versions, and each peer of each file.
    pub n_looks: usize,
}

/// Files whose path starts with `prefix`, written at paths after `after`: at most `limit` of them, looking at not much more
/// than `budget` cells.
pub fn part(
    registry: &Registry,
    index: &SyncIndex,
    peers: &[MatrixPeer],
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    budget: usize,
) -> Part {
    // A conflict copy lies in the folder of its original under another name, so all of the folder is looked at.
    let folder = prefix.rfind('/').map_or("", |at| &prefix[..=at]);
    let from = match after {
        Some(after) if after >= folder => Bound::Excluded(after),
        _ => Bound::Included(folder),
    };
    let (mut files, mut n_looks) = (Vec::new(), 0);
    for (path, register) in index.from(from).take_while(|(path, _)| path.as_str().starts_with(folder)) {
        n_looks += register.live().len().max(1);
        let may_match = path.as_str().starts_with(prefix) || register.live().len() > 1 || index.is_folder(path);
        if may_match && !register.is_tombstone() {
            for place in places(index, path) {
                let Some(file) = place.value.file().filter(|_| place.real.as_str().starts_with(prefix)) else {
                    continue;
                };
                n_looks += peers.len();
                files.push(row(registry, peers, place.real, file.content_id, file.len));
            }
        }
        if files.len() >= limit || n_looks >= budget {
            return Part { files, next: Some(path.clone()), n_looks };
        }
    }
    Part { files, next: None, n_looks }
}

fn row(registry: &Registry, peers: &[MatrixPeer], path: SharePath, content_id: ContentId, len: u64) -> MatrixFile {
    let (mut n_held, mut lacking) = (0, Vec::new());
    for (at, peer) in (0..).zip(peers) {
        if registry.holds(peer.peer_id, &path, content_id) {
            n_held += 1;
        } else if peer.sync.takes() {
            lacking.push(at);
        }
    }
    MatrixFile { path, content_id, len, n_held, lacking }
}
