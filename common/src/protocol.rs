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
//! `(generation, seq)` only grows: `generation` by one at each start of the peer (kept on disk beside the
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
//! All errors are [`Problem`]. JSON names are snake_case, lengths are bytes, times are milliseconds (`_ms`; points in time
//! count from the Unix epoch by the tracker's clock and are for people to read, never compared).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address::Advertise;
use crate::have::HaveText;
use crate::id::{ContentId, PeerId};
use crate::identity::PublicKey;
use crate::share_path::SharePath;

/// The version of the messages below.
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest body of an announce in bytes; a peer pages its catalogue to stay below it.
pub const MAX_ANNOUNCE_LEN: usize = 4 << 20;
/// Most entries (added, removed and partial together) in one announce.
pub const MAX_ANNOUNCE_ENTRIES: usize = 10_000;
/// Longest peer name in bytes.
pub const MAX_NAME_LEN: usize = 64;

/// What happened to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct PartialEntry {
    /// Which content.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// How many chunks are held; 0 takes the entry back.
    pub n_chunks: u32,
}

/// A peer's word to the tracker. See the module's text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Drawn at random at this start. Two copies of one state folder count their starts alike; by this they differ.
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
    /// Bytes a second sent and received lately.
    #[serde(default)]
    pub rates: Rates,
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Sent to others.
    pub up: u64,
    /// Received from others.
    pub down: u64,
}

/// The tracker's answer to an announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceReply {
    /// Send the next heartbeat within this time.
    pub heartbeat_ms: u64,
    /// Without one for this time, the peer is no longer listed.
    pub lease_ms: u64,
    /// The address the tracker saw.
    pub seen: std::net::IpAddr,
    /// The base URL that the tracker hands out for the peer.
    pub base_url: String,
    /// The catalogue's revision that the tracker has now.
    pub revision: u64,
    /// The message did not build on what the tracker has: send the whole catalogue, from base 0.
    #[serde(default)]
    pub resync: bool,
}

/// One peer in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What it sends and receives.
    pub rates: Rates,
}

/// Answer of `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Peers whose lease runs, by name.
    pub peers: Vec<PeerInfo>,
}

/// One owner of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct FileSummary {
    /// The name.
    pub path: SharePath,
    /// The contents, most owners first.
    pub contents: Vec<ContentSummary>,
}

/// Answer of `GET /v1/files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Names in order.
    pub files: Sifted<FileSummary>,
    /// Pass it as `after=` for the next page; absent on the last.
    pub next: Option<String>,
}

/// One content under a name, with its owners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct FileInfo {
    /// The name.
    pub path: SharePath,
    /// The contents under it, most owners first.
    pub contents: Vec<ContentOwners>,
}

/// Answer of `GET /v1/content/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentInfo {
    /// Its id.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// Names it is shared under, a bounded number of them.
    pub names: Sifted<SharePath>,
    /// Complete owners in all.
    pub n_owners: u64,
    /// Partial owners in all.
    pub n_partial: u64,
    /// The handout: a bounded random choice of the owners.
    pub owners: Vec<Owner>,
}

/// Answer of `GET /v1/stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Peers whose lease runs.
    pub n_peers: u64,
    /// Names.
    pub n_files: u64,
    /// Contents.
    pub n_contents: u64,
    /// Lengths of all contents, each counted once.
    pub n_bytes: u64,
    /// What all peers send and receive together.
    pub rates: Rates,
    /// How long the tracker has been running.
    pub uptime_ms: u64,
}

/// What a peer shares: answer of `GET /v1/index` on a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Who.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Its files in order of path.
    pub files: Sifted<Entry>,
    /// Pass it as `after=` for the next page; absent on the last.
    pub next: Option<String>,
}

/// A list from somebody else, without the items that cannot be what they should (a name with `..`, an id of the
/// wrong length): one bad entry must not hide the good ones. Written as a plain list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sifted<T> {
    /// The good items in order.
    pub items: Vec<T>,
    /// How many were dropped while reading.
    pub n_refused: usize,
}

impl<T> From<Vec<T>> for Sifted<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, n_refused: 0 }
    }
}

impl<T: Serialize> Serialize for Sifted<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sifted<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Item<T> {
            Good(T),
            Bad(serde::de::IgnoredAny),
        }
        let mut sifted = Self::from(Vec::new());
        for item in Vec::<Item<T>>::deserialize(deserializer)? {
            match item {
                Item::Good(item) => sifted.items.push(item),
                Item::Bad(_) => sifted.n_refused += 1,
            }
        }
        Ok(sifted)
    }
}

/// One line of `GET /v1/content/{id}/have` on a peer. The first says what is held; what follows is news, gathered over a few
/// milliseconds. A line without anything in it keeps the connection alive. After a line with `have` or `complete`, what was said
/// before no longer counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// An error on the wire: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
            rates: Rates::default(),
        };
        insta::assert_json_snapshot!(announce);
        let mut value = serde_json::to_value(&announce).unwrap();
        value["from_a_later_version"] = true.into();
        assert_eq!(serde_json::from_value::<Announce>(value.clone()).unwrap(), announce);
        value["added"][0]["path"] = "../x".into();
        assert!(serde_json::from_value::<Announce>(value).is_err());
    }

    #[test]
    fn one_bad_name_does_not_hide_the_good_ones() {
        let id = ContentId::of(b"x");
        let text = format!(
            r#"{{"peer_id":"{}","name":"n","next":null,"files":[
                {{"path":"a","content_id":"{id}","len":1}}, {{"path":"../a","content_id":"{id}","len":1}},
                {{"path":"b","content_id":"0","len":1}}, {{"path":"c","content_id":"{id}","len":-1}}, 7, null,
                {{"path":"d","content_id":"{id}","len":2}}]}}"#,
            Identity::from_secret(&[1; 32]).peer_id()
        );
        let index: Index = serde_json::from_str(&text).unwrap();
        let paths: Vec<_> = index.files.items.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!((paths, index.files.n_refused), (vec!["a", "d"], 5));
    }
}
