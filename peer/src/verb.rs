//! Verbs and events: what a person asks of a running peer, and what it answers.
//!
//! Command line, shell and control socket speak these and nothing else. On the control socket a verb is one line of
//! JSON, and each event of its answer another; the last event of an answer is [`Event::Done`] or
//! [`Event::Failed`] and nothing follows it. Closing the connection cancels the verb.

use std::fmt;
use std::path::PathBuf;

use potluck_common::protocol::{ContentSummary, Entry, Owner, PeerInfo, Rates};
use potluck_common::{ContentId, PeerId, SharePath};
use serde::{Deserialize, Serialize};

pub use self::sync::{Conflict, ConflictVersion, SyncChange, SyncPeer, SyncStatus, SyncTrouble, TrashItem};
use crate::limit::schedule::{Limit, Rate};
use crate::origin::url::OriginUrl;

mod sync;

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Files known to the tracker whose name matches: [`Event::Files`], one or more.
    Show {
        /// A substring, a glob, or a folder with a trailing `/`; everything if absent.
        pattern: Option<String>,
    },
    /// Fetch files: [`Event::Planned`], then [`Event::Progress`] and [`Event::Finished`] or [`Event::Unfinished`] a file.
    Download(Download),
    /// Addresses: [`Event::Addresses`].
    Getip {
        /// A peer's name or id, or a file's name; our own address if absent.
        target: Option<String>,
    },
    /// Who is there: [`Event::Peers`].
    Peers,
    /// What this peer is doing: [`Event::Status`].
    Status,
    /// Hash again what is shared: [`Event::Verified`] a file.
    Verify {
        /// Only what matches.
        pattern: Option<String>,
    },
    /// Content ids of files: [`Event::Entries`], none or more.
    Manifest {
        /// Only what matches, as for `show`.
        pattern: Option<String>,
        /// What the tracker lists, and not what we share.
        swarm: bool,
    },
    /// At most `limit` names that start with `prefix`, for completion: [`Event::Names`].
    Names {
        /// What has been typed.
        prefix: String,
        /// How many to give.
        limit: usize,
    },
    /// What is sent and received at most: [`Event::Limits`].
    Limit {
        /// What is to be another from now on, until the peer ends; nothing if absent.
        change: Option<LimitChange>,
    },
    /// How folder sync stands, once it is as wanted: [`Event::Sync`].
    Sync {
        /// What is to be another; nothing if absent.
        change: Option<SyncChange>,
    },
    /// Names under which several versions stand: [`Event::Conflicts`].
    Conflicts {
        /// Only what matches.
        pattern: Option<String>,
    },
    /// What sync took out of the folder: [`Event::Trash`].
    Trash {
        /// Only what matches.
        pattern: Option<String>,
    },
    /// Bring things back from the trash: [`Event::Restored`] each.
    Restore {
        /// Paths where they stood (the latest that stood there is meant), or what they are called in the trash.
        items: Vec<String>,
    },
    /// Wait until we hold what the synced folder holds, with what stood in our share folder when this was asked, noticed or not:
    /// [`Event::Lacking`] now and then.
    Wait {
        /// Only what matches.
        pattern: Option<String>,
        /// Until every peer that syncs does.
        all: bool,
    },
    /// End the running peer.
    Stop,
}

/// Another limit for one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitChange {
    /// Which.
    pub direction: Direction,
    /// The limit.
    pub limit: Limit,
}

/// A way that bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From us to others.
    Up,
    /// From others to us.
    Down,
}

/// As it is typed.
impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// A limit, and what it comes to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// As it was given, for example `200M@08-18`.
    pub limit: Limit,
    /// Bytes a second that hold at this time of day; `null` without a limit.
    pub rate: Rate,
}

/// The limits of both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsStatus {
    /// Of what is sent.
    pub up: LimitStatus,
    /// Of what is received.
    pub down: LimitStatus,
}

/// What to fetch, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Names, globs, folders (`dir/`), content ids, or `NAME@ID-PREFIX`.
    pub names: Vec<String>,
    /// From whom.
    pub from: From,
    /// Where to put it instead of under its own name in the share folder: an absolute path of a file, or of a
    /// folder that exists.
    pub output: Option<PathBuf>,
    /// A URL that gives the one file that is named as well, or alone if nobody holds it. Without a name it is the one that the
    /// URL ends in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginUrl>,
}

/// From whom to fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// Every owner at once.
    #[default]
    All,
    /// One owner, whichever.
    Single,
    /// The peer of that name or id.
    Peer(String),
}

/// How much of a content we hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// All of it.
    Complete,
    /// Some chunks.
    Partial,
    /// Nothing.
    None,
}

/// One content under a name, as `show` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownContent {
    /// What the tracker says.
    #[serde(flatten)]
    pub summary: ContentSummary,
    /// Whether we hold it.
    pub held: Held,
}

/// One name, as `show` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownFile {
    /// The name.
    pub path: SharePath,
    /// The contents under it, most owners first.
    pub contents: Vec<ShownContent>,
}

/// Where a peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Its name.
    pub name: String,
    /// Its id.
    pub peer_id: PeerId,
    /// The host to connect to: an address, or a name that the peer advertises.
    pub address: String,
    /// The port to connect to.
    pub port: u16,
}

/// One file of a download as it moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The name it was asked for by.
    pub name: String,
    /// Its content; absent while an origin gives what nobody has hashed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<ContentId>,
    /// Its length in bytes; 0 while an origin does not say it.
    pub len: u64,
    /// Bytes verified and written; of an origin without a content id, only written.
    pub n_bytes: u64,
    /// Bytes a second lately.
    pub rate: u64,
    /// Owners it is coming from.
    pub n_owners: u32,
    /// Why it does not move, if it does not: for example `no space` or `no owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// Bytes that one owner gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// The owner's name.
    pub name: String,
    /// Bytes that were verified.
    pub n_bytes: u64,
}

/// A file that is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The name it was asked for by.
    pub name: String,
    /// Its content.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// Where it lies.
    pub path: PathBuf,
    /// Who gave how much; empty if we held it already.
    pub from: Vec<Contribution>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// What this peer is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Where it serves, as the tracker hands it out; as it listens, while no tracker answered.
    pub base_url: String,
    /// The share folder.
    pub share: PathBuf,
    /// Each tracker, and whether it answers.
    pub trackers: Vec<TrackerStatus>,
    /// Files shared.
    pub n_files: u64,
    /// Their lengths in all.
    pub n_bytes: u64,
    /// Files still to be hashed.
    pub n_hashing: u64,
    /// Entries of the share folder that cannot be shared (names that are not UTF-8, special files, links, …).
    pub n_skipped: u64,
    /// What is sent and received.
    pub rates: Rates,
    /// What is sent and received at most.
    pub limits: LimitsStatus,
    /// Downloads that run or wait.
    pub downloads: Vec<Transfer>,
    /// Uploads that run.
    pub n_uploads: u64,
}

/// A tracker as this peer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerStatus {
    /// Its URL.
    pub url: String,
    /// Whether the last announce was answered.
    pub reachable: bool,
    /// Whether it reached us when it connected back; absent until it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaches_us: Option<bool>,
    /// What of the synced folder it does not take, so that nobody hears of it there; absent if it takes everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<RefusedPaths>,
}

/// Paths of the synced folder that a tracker does not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPaths {
    /// So many.
    pub n_paths: u64,
    /// The first of them.
    pub path: SharePath,
    /// Why that one is not taken, and what to do.
    pub why: String,
}

/// How a verb ends badly; the number is the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Anything else: 1.
    Failed,
    /// The request makes no sense: 2.
    Usage,
    /// No such file, content or peer: 3.
    NotFound,
    /// Tracker or owners do not answer: 4.
    Unreachable,
    /// No owner gave bytes that verify: 5.
    Unverified,
    /// The disk is full: 6.
    NoSpace,
}

impl FailureKind {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Unreachable => 4,
            Self::Unverified => 5,
            Self::NoSpace => 6,
        }
    }
}

/// A verb, or one file of it, that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// Which kind.
    pub kind: FailureKind,
    /// What happened, to which file or peer.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Failed {
    /// A failure with what happened and what to do next.
    pub fn new(kind: FailureKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: hint.into() }
    }
}

/// A content that could be meant by an ambiguous name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its id.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// Who has it.
    pub owners: Vec<Owner>,
    /// How long the tracker has known it under this name.
    pub age_ms: u64,
    /// What to type to get this one: `NAME@ID-PREFIX`.
    pub ask_for: String,
}

/// One step of the answer to a verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A page of files.
    Files {
        /// In order of name.
        files: Vec<ShownFile>,
    },
    /// Some lines of a manifest.
    Entries {
        /// In order of name.
        entries: Vec<Entry>,
    },
    /// All peers.
    Peers {
        /// By name.
        peers: Vec<PeerInfo>,
    },
    /// Addresses asked for.
    Addresses {
        /// One for each peer.
        addresses: Vec<Address>,
    },
    /// What this peer is doing.
    Status(Status),
    /// What is sent and received at most.
    Limits(LimitsStatus),
    /// How folder sync stands.
    Sync(SyncStatus),
    /// Names under which several versions stand.
    Conflicts {
        /// In order of name.
        conflicts: Vec<Conflict>,
    },
    /// What is in the trash.
    Trash {
        /// The latest first.
        items: Vec<TrashItem>,
    },
    /// Something is back from the trash.
    Restored {
        /// What it was called there.
        item: String,
        /// Where it is now.
        path: SharePath,
    },
    /// What is waited for.
    Lacking {
        /// Files that somebody lacks.
        n_files: u64,
        /// Their lengths in all.
        n_bytes: u64,
        /// Who lacks any.
        peers: Vec<String>,
    },
    /// Names for completion.
    Names {
        /// In order.
        names: Vec<String>,
    },
    /// What a download comes to, once names are resolved.
    Planned {
        /// Files to fetch.
        n_files: u64,
        /// Their lengths in all.
        n_bytes: u64,
    },
    /// A name stands for several contents; a failure follows.
    Ambiguous {
        /// The name.
        name: String,
        /// What could be meant.
        candidates: Vec<Candidate>,
    },
    /// How a file's download stands; a few times a second.
    Progress(Transfer),
    /// A file is there.
    Finished(Finished),
    /// A file could not be fetched; the others go on.
    Unfinished {
        /// Which.
        name: String,
        /// Why.
        #[serde(flatten)]
        why: Failed,
    },
    /// A shared file was hashed again.
    Verified {
        /// Which.
        path: SharePath,
        /// Whether its bytes are those we announced.
        intact: bool,
    },
    /// Something worth knowing that does not end the verb.
    Notice {
        /// In words.
        message: String,
    },
    /// The verb succeeded.
    Done,
    /// The verb failed.
    Failed(Failed),
}

impl Event {
    /// Whether nothing follows.
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Done | Self::Failed(_))
    }
}
