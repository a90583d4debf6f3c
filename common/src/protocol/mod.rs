//! The messages between peers and tracker, and what each answer means.
//!
//! # Announce
//! A peer sends `POST /v1/announce` with an [`Announce`] as JSON and the signature of the body's exact bytes in
//! [`crate::identity::SIGNATURE_HEADER`]: `started` once it can serve, `heartbeat` at the interval the tracker gave
//! (and at once when its catalogue changes), `stopped` when it leaves.
//!
//! The catalogue travels as deltas. Every change of the peer's catalogue raises its `revision`; a message says
//! which revision it builds on (`base`) and which it leads to (`revision`). The tracker applies it only if `base`
//! is the revision it has, otherwise it answers `resync: true` and the peer starts again from `base: 0`, which
//! means "forget what you had of me". A catalogue that does not fit one body goes in pages: each page is an
//! ordinary delta on the one before it.
//!
//! `(generation, seq)` only grows: `generation` at each start of the peer (kept on disk beside the
//! identity), `seq` by one with every message, retries included. A message that does not grow it is a
//! replay and changes nothing. Within one generation only the `instance` that came first is heard: another one is a copy of the
//! peer's state folder that runs elsewhere.
//!
//! # Answers
//! | status | meaning to the peer |
//! | --- | --- |
//! | 200 | [`AnnounceReply`]; with `resync: true` nothing of the catalogue was applied: send it all |
//! | 403 `not-yours` | the signature does not prove the peer id |
//! | 409 `identity-conflict` | the key is not that of the id, or another process speaks with this identity: take a new one |
//! | 413, 429 | too large, or too often: smaller pages, or wait `Retry-After` |
//! | 422 `bad-name`, `bad-address` | names the entry or address; leave it out |
//! | 426 | another protocol version |
//!
//! # Folder sync
//! A peer that syncs says how in `sync` and sends what the tracker lacks of the index in `index`; see [`SyncPage`] for how
//! it comes back. Entries of the index need no base and no order: joining them is idempotent. They are taken with every 200,
//! also one with `resync: true`, but for those that the answer names in `index_refused`.
//!
//! # For people to look at
//! `rates` and [`Activity`] say what goes on at the peer at this moment: from whom it receives, and which parts it holds of what
//! it is fetching. Both are optional, hold until the next message, and decide nothing. While there is something to tell, a peer
//! announces itself every two seconds, or at the heartbeat if that is shorter.
//!
//! All errors are [`Problem`]. JSON names are snake_case, lengths are bytes, times are milliseconds (`_ms`; points in time
//! count from the Unix epoch by the tracker's clock and are for people to read, never compared).

use serde::{Deserialize, Serialize};

use crate::address::Advertise;
use crate::discovery::{SwarmName, TrackerId};
use crate::have::HaveText;
use crate::id::{ContentId, PeerId};
use crate::identity::PublicKey;
use crate::share_path::SharePath;

mod activity;
mod sifted;
mod sync;

pub use activity::{Activity, Flow, MAX_FLOWS, MAX_PARTS, MAX_PROGRESS, Parts, Progress, WHOLE};
pub use sifted::Sifted;
pub use sync::{
    GENERATION_SHIFT, IndexEntry, MAX_SYNC_PAGE, MAX_SYNC_PAGE_LEN, MAX_SYNC_WAIT_MS, Matrix, MatrixFile, MatrixPeer,
    RefusedBecause, RefusedEntry, SyncMode, SyncPage, SyncQuery,
};

/// The version of the messages below.
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest body of an announce in bytes; a peer pages its catalogue to stay below it.
pub const MAX_ANNOUNCE_LEN: usize = 4 << 20;
/// Most entries (added, removed, partial and of the index together) in one announce.
pub const MAX_ANNOUNCE_ENTRIES: usize = 10_000;
/// Longest peer name in bytes.
pub const MAX_NAME_LEN: usize = 64;

/// What happened to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AnnounceEvent {
    /// It can serve from now on.
    Started,
    /// It is still there.
    Heartbeat,
    /// It leaves; its lease ends now.
    Stopped,
}

/// One file that a peer holds completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// Where it lies in the share folder.
    pub path: SharePath,
    /// The id of its bytes.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
}

/// A content that a peer holds in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartialEntry {
    /// Which content.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// How many chunks are held, 1 also while the first one is on its way; 0 takes the entry back.
    pub n_chunks: u32,
}

/// A peer's word to the tracker. See the module's text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Announce {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// What happened.
    pub event: AnnounceEvent,
    /// Who speaks.
    pub peer_id: PeerId,
    /// The key that the signature is checked with and the id is made from.
    pub public_key: PublicKey,
    /// What people call the peer: see [`is_valid_name`].
    pub name: String,
    /// The port it serves on, at the address the tracker sees, unless `advertise` says otherwise.
    pub port: u16,
    /// The address to hand out instead of the one the tracker sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<Advertise>,
    /// Number of this start of the peer.
    pub generation: u64,
    /// Drawn at random at this start. Two copies of one state folder may number their starts alike; by this they differ.
    pub instance: u64,
    /// Number of this message within the generation.
    pub seq: u64,
    /// The catalogue's revision that the changes build on; 0: nothing.
    pub base: u64,
    /// The catalogue's revision after the changes.
    pub revision: u64,
    /// Entries that are new or have another content now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<Entry>,
    /// Paths that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<SharePath>,
    /// Contents held in part whose number of chunks changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<PartialEntry>,
    /// How the peer syncs; `None`: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncMode>,
    /// What the tracker lacks of the index.
    #[serde(default, skip_serializing_if = "Sifted::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<IndexEntry>))]
    pub index: Sifted<IndexEntry>,
    /// Bytes a second sent and received lately.
    #[serde(default)]
    pub rates: Rates,
    /// What goes on at the peer, for people to look at.
    #[serde(default, skip_serializing_if = "Activity::is_empty")]
    pub activity: Activity,
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rates {
    /// Sent to others.
    pub up: u64,
    /// Received from others.
    pub down: u64,
}

/// The tracker's answer to an announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnnounceReply {
    /// Send the next heartbeat within this time.
    pub heartbeat_ms: u64,
    /// Without one for this time, the peer is no longer listed.
    pub lease_ms: u64,
    /// The address the tracker saw.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub seen: std::net::IpAddr,
    /// The base URL that the tracker hands out for the peer.
    pub base_url: String,
    /// The catalogue's revision that the tracker has now.
    pub revision: u64,
    /// The message did not build on what the tracker has: send the whole catalogue, from base 0.
    #[serde(default)]
    pub resync: bool,
    /// The life of the tracker's index: see [`SyncPage::epoch`]. 0: this tracker keeps no index, so what was sent of it is not
    /// acknowledged.
    #[serde(default)]
    pub index_epoch: u64,
    /// Entries of the index that were not taken.
    #[serde(default, skip_serializing_if = "Sifted::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<RefusedEntry>))]
    pub index_refused: Sifted<RefusedEntry>,
    /// The tracker is about to end because another one has taken over: look for that one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retiring: bool,
    /// Whether the peer answered at `base_url` when the tracker connected back; absent until it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
}

/// Answer of `GET /healthz` on a peer. A tracker that connects back takes it for the peer's own by the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerHealth {
    /// `ok`.
    pub status: String,
    /// Who answers.
    pub peer_id: PeerId,
}

/// Answer of `GET /v1/tracker`: which tracker this is. A peer that found it on the LAN asks before it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackerInfo {
    /// Drawn at its start.
    pub tracker_id: TrackerId,
    /// The swarm it is for.
    pub swarm: SwarmName,
    /// Whether a peer hosts it because it found none. Such a tracker makes way for any other.
    pub hosted: bool,
    /// Whether it is about to end.
    pub retiring: bool,
    /// The version of its program.
    #[serde(default)]
    pub version: String,
}

/// One peer in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerInfo {
    /// Its id.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub base_url: String,
    /// Host part of the base URL.
    pub address: String,
    /// Port of the base URL.
    pub port: u16,
    /// When it joined.
    pub since_ms: u64,
    /// Its last heartbeat.
    pub seen_ms: u64,
    /// Files it holds completely.
    pub n_files: u64,
    /// Their lengths in all.
    pub n_bytes: u64,
    /// How it syncs; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncMode>,
    /// Whether it answered at `base_url` when the tracker connected back; absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// What it sends and receives.
    pub rates: Rates,
}

/// Answer of `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Peers {
    /// Peers whose lease runs, by name.
    pub peers: Vec<PeerInfo>,
}

/// One owner of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Owner {
    /// Its id.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub base_url: String,
    /// Whether it holds every chunk.
    pub complete: bool,
    /// How many chunks it holds.
    pub n_chunks: u32,
}

/// One content under a name, without its owners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContentSummary {
    /// Its id.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// Complete owners.
    pub n_owners: u64,
    /// Partial owners.
    pub n_partial: u64,
    /// When the tracker first saw the content under this name.
    pub since_ms: u64,
    /// Some of its owners, where the question asked for them (`owners=N`): who fetches thousands of files must not ask
    /// for the owners of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<Owner>,
}

/// One name and the contents under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileSummary {
    /// The name.
    pub path: SharePath,
    /// The contents, most owners first.
    pub contents: Vec<ContentSummary>,
}

/// Answer of `GET /v1/files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Files {
    /// Names in order.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<FileSummary>))]
    pub files: Sifted<FileSummary>,
    /// Pass it as `after=` for the next page; absent on the last.
    pub next: Option<String>,
}

/// One content under a name, with its owners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContentOwners {
    /// Its id.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// When the tracker first saw the content under this name.
    pub since_ms: u64,
    /// Its owners, a bounded number of them.
    pub owners: Vec<Owner>,
}

/// Answer of `GET /v1/files/{path}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileInfo {
    /// The name.
    pub path: SharePath,
    /// The contents under it, most owners first.
    pub contents: Vec<ContentOwners>,
}

/// Answer of `GET /v1/content/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContentInfo {
    /// Its id.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// Names it is shared under, a bounded number of them.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<SharePath>))]
    pub names: Sifted<SharePath>,
    /// Complete owners in all.
    pub n_owners: u64,
    /// Partial owners in all.
    pub n_partial: u64,
    /// The handout: a bounded random choice of the owners.
    pub owners: Vec<Owner>,
}

/// Answer of `GET /v1/folders/{path}`: a folder of which every name stands for one content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FolderInfo {
    /// The folder.
    pub path: SharePath,
    /// Names below it, at any depth.
    pub n_files: u64,
    /// The lengths of what they stand for in bytes, in all.
    pub n_bytes: u64,
    /// A bounded random choice of the peers that hold all of it under these names.
    pub owners: Vec<Owner>,
}

/// Answer of `GET /v1/stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stats {
    /// Peers whose lease runs.
    pub n_peers: u64,
    /// Names.
    pub n_files: u64,
    /// Contents.
    pub n_contents: u64,
    /// Lengths of all contents, each counted once.
    pub n_bytes: u64,
    /// Present peers that sync.
    #[serde(default)]
    pub n_syncing: u64,
    /// Paths in the index, those of deleted files too.
    #[serde(default)]
    pub n_index: u64,
    /// Entries of the index that peers sent and that were not taken.
    #[serde(default)]
    pub n_index_refused: u64,
    /// What all peers send and receive together.
    pub rates: Rates,
    /// How long the tracker has been running.
    pub uptime_ms: u64,
}

/// What a peer shares: answer of `GET /v1/index` on a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Index {
    /// Who.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Its files in order of path.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Entry>))]
    pub files: Sifted<Entry>,
    /// Pass it as `after=` for the next page; absent on the last.
    pub next: Option<String>,
}

/// One line of `GET /v1/content/{id}/have` on a peer. The first says what is held; what follows is news, gathered over a few
/// milliseconds. A line without anything in it keeps the connection alive. After a line with `have` or `complete`, what was said
/// before no longer counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HaveLine {
    /// The chunks held, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<HaveText>,
    /// Every chunk is held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    /// Chunks verified since the last line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gained: Vec<u32>,
    /// Chunks that the peer has begun to send to somebody since the last line: copies on their way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coming: Vec<u32>,
}

/// Answer of `GET /healthz` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// `ok` or `ready`.
    pub status: String,
}

/// An error on the wire: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Stable name of the kind of error: `urn:potluck:problem:` and a slug.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened, in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened here, and what to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What stands before every slug in [`Problem::kind`].
pub const PROBLEM_PREFIX: &str = "urn:potluck:problem:";

impl Problem {
    /// The slug: [`Problem::kind`] without its prefix.
    pub fn slug(&self) -> &str {
        self.kind.strip_prefix(PROBLEM_PREFIX).unwrap_or(&self.kind)
    }
}

/// Whether a peer may be called that: 1 to [`MAX_NAME_LEN`] bytes, no control characters, no `/`, no space at an end.
///
/// ```
/// use potluck_common::protocol::is_valid_name;
/// assert!(is_valid_name("node1") && is_valid_name("Ann's laptop"));
/// assert!(!is_valid_name("") && !is_valid_name("a/b") && !is_valid_name("\x1b[2J"));
/// ```
pub fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len())
        && name.trim() == name
        && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn announce_on_the_wire() {
        let identity = Identity::from_secret(&[1; 32]);
        let announce = Announce {
            protocol: PROTOCOL_VERSION,
            event: AnnounceEvent::Started,
            peer_id: identity.peer_id(),
            public_key: identity.public_key(),
            name: "node1".into(),
            port: 7701,
            advertise: None,
            generation: 3,
            instance: 42,
            seq: 0,
            base: 0,
            revision: 7,
            added: vec![Entry { path: "a/b".parse().unwrap(), content_id: ContentId::of(b"x"), len: 1 }],
            removed: vec![],
            partial: vec![],
            sync: None,
            index: Sifted::default(),
            rates: Rates::default(),
            activity: Activity::default(),
        };
        insta::assert_json_snapshot!(announce);
        let mut value = serde_json::to_value(&announce).unwrap();
        value["from_a_later_version"] = true.into();
        assert_eq!(serde_json::from_value::<Announce>(value.clone()).unwrap(), announce);
        value["added"][0]["path"] = "../x".into();
        assert!(serde_json::from_value::<Announce>(value).is_err());
    }
}
