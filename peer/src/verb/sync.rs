//! What people ask of folder sync, and what it answers.

use std::fmt;

use potluck_common::protocol::SyncMode;
use potluck_common::{ContentId, PeerId, SharePath};
use serde::{Deserialize, Serialize};

/// What is to be another with folder sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncChange {
    /// Sync this way from now on.
    Mode(SyncMode),
    /// Do not sync any more.
    Off,
    /// The deletes that were held back are meant.
    Confirm,
    /// They are not: bring those files back.
    Restore,
}

/// As it is typed.
impl fmt::Display for SyncChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode(mode) => mode.fmt(f),
            Self::Off => f.write_str("off"),
            Self::Confirm => f.write_str("confirm"),
            Self::Restore => f.write_str("restore"),
        }
    }
}

/// How folder sync stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// How this peer syncs; `null` if it does not.
    pub mode: Option<SyncMode>,
    /// Files of the synced folder.
    pub n_files: u64,
    /// Steps still to be done here: files to be fetched, replaced, moved, removed.
    pub n_to_do: u64,
    /// Deletes held back until somebody confirms them.
    pub n_held: u64,
    /// Names under which several versions stand.
    pub n_conflicts: u64,
    /// Why nothing is done at the moment, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// What does not succeed here, a bounded number of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<SyncTrouble>,
    /// Peers that sync, with what each lacks, as a tracker knows it; empty while none answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<SyncPeer>,
}

impl SyncStatus {
    /// That of a peer that does not sync.
    pub const fn off() -> Self {
        Self {
            mode: None,
            n_files: 0,
            n_to_do: 0,
            n_held: 0,
            n_conflicts: 0,
            paused: None,
            troubles: Vec::new(),
            peers: Vec::new(),
        }
    }
}

/// A step of sync that does not succeed, and is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncTrouble {
    /// At which path.
    pub path: SharePath,
    /// Why.
    pub why: String,
}

/// A peer that syncs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPeer {
    /// Its id.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// How it syncs.
    pub mode: SyncMode,
    /// Files that it does not have yet.
    pub n_lacking: u64,
    /// Their lengths in all.
    pub n_bytes_lacking: u64,
}

/// A name under which several versions stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The name.
    pub path: SharePath,
    /// The versions; the first one has the name.
    pub versions: Vec<ConflictVersion>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictVersion {
    /// Where it lies.
    pub path: SharePath,
    /// Its bytes; `null` for a folder.
    pub content_id: Option<ContentId>,
    /// Their number.
    pub len: u64,
    /// Its modification time, in milliseconds since the Unix epoch.
    pub mtime_ms: i64,
}

/// Something in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashItem {
    /// What it is called there.
    pub item: String,
    /// Where it stood, if that is known.
    pub path: Option<SharePath>,
    /// Its length in bytes.
    pub len: u64,
    /// When it came, in milliseconds since the Unix epoch, if that is known.
    pub since_ms: Option<u64>,
    /// Why: `deleted`, `overwritten` or `set_aside`, if that is known.
    pub why: Option<String>,
}
