//! What the registry asks the store to keep, and gets back after a restart.

use std::net::IpAddr;

use potluck_common::protocol::PartialEntry;
use potluck_common::{ContentId, PeerId, Register, SharePath};
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;

/// One peer, without its catalogue. Written as JSON: fields may be added, unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// What it calls itself.
    pub name: String,
    /// Where it served.
    pub endpoint: Endpoint,
    /// Where its last announce came from.
    pub source: IpAddr,
    /// Its last start.
    pub generation: u64,
    /// Its last message of that start.
    pub seq: u64,
    /// The revision of its catalogue.
    pub revision: u64,
    /// When it was last heard of, by the wall clock: for people, and to forget it one day.
    pub seen_ms: u64,
}

/// One complete entry of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The name.
    pub path: SharePath,
    /// The content.
    pub content_id: ContentId,
    /// Its length.
    pub len: u64,
    /// When the tracker first saw the content under the name.
    pub since_ms: u64,
}

/// What a change of a catalogue starts from. The store refuses one that does not fit what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builds {
    /// The stored catalogue of this revision.
    On(u64),
    /// Nothing: what is stored of the peer goes first.
    Anew,
    /// The catalogue stays as it is, and so does its revision.
    RecordOnly,
}

/// What one announce changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub peer_id: PeerId,
    /// The peer afterwards.
    pub record: PeerRecord,
    /// What it starts from.
    pub builds: Builds,
    /// Names that are gone.
    pub removed: Vec<SharePath>,
    /// Entries that are new or different.
    pub added: Vec<StoredEntry>,
    /// Partial entries that are new or different; 0 chunks: gone.
    pub partial: Vec<PartialEntry>,
}

/// Everything known of one peer, as it comes back from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPeer {
    /// Who.
    pub peer_id: PeerId,
    /// The peer.
    pub record: PeerRecord,
    /// Its complete entries.
    pub entries: Vec<StoredEntry>,
    /// Its partial entries.
    pub partial: Vec<PartialEntry>,
    /// Whether every stored row could be read; if not, the peer is asked for all of it again.
    pub intact: bool,
}

/// What is known of one path of the synced folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRegister {
    /// The path.
    pub path: SharePath,
    /// Its versions.
    pub register: Register,
    /// The number of its latest change.
    pub seq: u64,
    /// Who was the first to tell of it.
    pub brought_by: PeerId,
}

/// The index of the synced folder, as it comes back from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredIndex {
    /// The life of its numbers.
    pub epoch: u64,
    /// New numbers begin after this one.
    pub seq: u64,
    /// All paths.
    pub rows: Vec<StoredRegister>,
}

impl StoredIndex {
    /// One that nothing is known of.
    pub fn empty() -> Self {
        Self { epoch: Self::new_epoch(), seq: 0, rows: Vec::new() }
    }

    /// Drawn at random; a JSON number holds it exactly.
    pub(crate) fn new_epoch() -> u64 {
        fastrand::u64(1..1 << 53)
    }
}

/// Everything that the store kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Peers and their catalogues.
    pub peers: Vec<StoredPeer>,
    /// The index of the synced folder.
    pub index: StoredIndex,
}
