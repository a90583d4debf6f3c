//! What travels of the index of a synced folder.
//!
//! The index is a map from share paths to [`Register`]s. Everybody who keeps one (trackers, and peers that sync) gives
//! it out as a feed, `GET /v1/sync` with a [`SyncQuery`], answered by a [`SyncPage`]: each path that changed got a number,
//! each path is given once, at its latest number, in order of numbers. Whoever asks goes on after the number of the last page.
//! Numbers live as long as their `epoch`: when another one comes back, what is known of the old one's numbers is void, and
//! the first page of the new one comes in the same answer.
//!
//! With `wait_ms` an answer without entries is held back until there is news, for so long at most (a long poll).
//!
//! Peers push to trackers, never to peers: in [`Announce::index`](super::Announce::index). A register may tell of
//! anybody's writes, since somebody who has left can no longer tell of them. But a present peer that syncs speaks for itself: of its
//! writes only those are taken from others that it has told of, or could have before it was started
//! ([`GENERATION_SHIFT`]); the others are refused as [`RefusedBecause::Ahead`] and may be offered again later.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Sifted;
use crate::id::{ContentId, PeerId};
use crate::register::Register;
use crate::share_path::SharePath;

/// Most entries on one page.
pub const MAX_SYNC_PAGE: usize = 10_000;
/// A page ends before this many bytes of JSON, but has one entry at least.
pub const MAX_SYNC_PAGE_LEN: usize = 4 << 20;
/// The longest an answer is held back.
pub const MAX_SYNC_WAIT_MS: u64 = 30_000;
/// The number of a write is the generation of the writer shifted by so many bits, plus a count: a start that does not know how
/// far the last one came uses no number twice. There is room for 2^28 writes in a start.
pub const GENERATION_SHIFT: u32 = 28;

/// How a peer syncs its share folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// It gives its changes and takes those of others.
    Both,
    /// It only gives.
    Send,
    /// It only takes.
    Receive,
}

/// As it is typed.
impl fmt::Display for SyncMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both",
            Self::Send => "send",
            Self::Receive => "receive",
        })
    }
}

impl SyncMode {
    /// Whether changes of others come into its folder.
    pub const fn takes(self) -> bool {
        matches!(self, Self::Both | Self::Receive)
    }
}

/// What is known of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IndexEntry {
    /// The path.
    pub path: SharePath,
    /// Its versions.
    pub register: Register,
}

impl IndexEntry {
    /// At least as many bytes as it takes as JSON, with a comma.
    pub fn json_len_bound(&self) -> usize {
        const WRITER: usize = 56;
        const VERSION: usize = 264;
        const REST: usize = 64;
        // A character of a path takes two bytes in JSON at most, since control characters are refused.
        let path = 2 * self.path.as_str().len();
        REST + path + WRITER * self.register.seen().n_writers() + VERSION * self.register.live().len()
    }
}

/// A question for a page of the feed, as the query of `GET /v1/sync`. Everything may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct SyncQuery {
    /// The epoch of `after`.
    #[serde(default)]
    pub epoch: u64,
    /// Entries with higher numbers are wanted.
    #[serde(default)]
    pub after: u64,
    /// So many at most; [`MAX_SYNC_PAGE`] unless told, and never more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Wait so long for news, [`MAX_SYNC_WAIT_MS`] at most; 0: do not wait.
    #[serde(default)]
    pub wait_ms: u64,
}

/// Answer of `GET /v1/sync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncPage {
    /// Names one life of the numbers; never 0.
    pub epoch: u64,
    /// The number to ask `after` next.
    pub seq: u64,
    /// There is more already.
    pub more: bool,
    /// Paths and what is known of them, in the order of their latest changes.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<IndexEntry>))]
    pub entries: Sifted<IndexEntry>,
}

/// Why an entry of the index was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RefusedBecause {
    /// It tells of writes that their writer, who is there, has not told of. Offer it again later.
    Ahead,
    /// It tells of own writes that the speaker cannot have made in this start or an earlier one.
    NotYetWritten,
    /// Joined with what is known it would have more writers or versions than a register has.
    TooMany,
    /// The tracker's index is full, or this peer has brought more paths than one may.
    Quota,
    /// It is no register.
    Unreadable,
}

/// The word that it has on the wire.
impl fmt::Display for RefusedBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ahead => "ahead",
            Self::NotYetWritten => "not_yet_written",
            Self::TooMany => "too_many",
            Self::Quota => "quota",
            Self::Unreadable => "unreadable",
        })
    }
}

impl RefusedBecause {
    /// Why, and what to do about it, for people.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Ahead => {
                "another peer wrote it and has not told of it itself; offered again until it does, or leaves"
            }
            Self::NotYetWritten => {
                "it tells of later writes of this peer, as after a backup was restored; start this peer again"
            }
            Self::TooMany => "it has more writers or versions than a path can have; give the file another name",
            Self::Quota => {
                "the tracker's index is full; sync fewer files there, or start a tracker for this folder alone"
            }
            Self::Unreadable => "the tracker cannot read it; run the same version of potluck on both",
        }
    }
}

/// One entry that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedEntry {
    /// Its path.
    pub path: SharePath,
    /// Why.
    pub why: RefusedBecause,
}

/// A syncing peer in the [`Matrix`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatrixPeer {
    /// Its id.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// How it syncs.
    pub sync: SyncMode,
}

/// One file of the synced folder, at the path where it lies at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatrixFile {
    /// Where it lies: the path it was written at, or the name of a conflict copy.
    pub path: SharePath,
    /// Its content.
    pub content_id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// How many of the peers hold it there.
    pub n_held: u64,
    /// Positions in [`Matrix::peers`] of those that take changes and do not hold it yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<u32>,
}

/// Answer of `GET /v1/matrix`: who lacks what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Matrix {
    /// Present peers that sync, by name.
    pub peers: Vec<MatrixPeer>,
    /// The files, in the order of the paths they were written at.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<MatrixFile>))]
    pub files: Sifted<MatrixFile>,
    /// Pass it as `after=` for the next page; absent on the last.
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::{Dot, FileValue, MAX_WRITE, Value};

    fn entry(path: &str, n_versions: u8) -> IndexEntry {
        let mut register = Register::default();
        for n in 0..n_versions {
            let value =
                FileValue { mtime_ns: i64::MIN, content_id: ContentId::of(&[n]), len: u64::MAX, executable: false };
            register.write(Dot { by: PeerId::from_bytes([n; 16]), n: MAX_WRITE }, &[], Value::File(value));
        }
        IndexEntry { path: path.parse().unwrap(), register }
    }

    #[test]
    fn lengths_are_bounded() {
        for (path, n_versions) in [("a", 0), ("a", 1), (&*"\"".repeat(255), 3), ("é/ü", 100)] {
            let entry = entry(path, n_versions);
            let len = serde_json::to_string(&entry).unwrap().len() + 1;
            assert!(len <= entry.json_len_bound(), "{path} {n_versions}: {len} > {}", entry.json_len_bound());
        }
    }

    #[test]
    fn on_the_wire() {
        let entries = vec![entry("a/b", 1)].into();
        insta::assert_json_snapshot!(SyncPage { epoch: 7, seq: 9, more: true, entries });
    }

    /// P01 and S01 on the way in: a bad path or register is dropped and counted, the others stay.
    #[test]
    fn bad_entries_do_not_hide_the_good_ones() {
        let good = serde_json::to_value(entry("a", 1)).unwrap();
        let mut entries = vec![good.clone()];
        for (key, bad) in [
            ("path", serde_json::json!("../a")),
            ("path", serde_json::json!(".potluck/identity.1")),
            ("register", serde_json::json!({"seen": {"00000000000000000000000000000000": u64::MAX}})),
            ("register", serde_json::json!({"live": []})),
            ("register", serde_json::json!(null)),
        ] {
            let mut entry = good.clone();
            entry[key] = bad;
            entries.push(entry);
        }
        entries.push(serde_json::to_value(entry("b", 0)).unwrap());
        let page = serde_json::json!({"epoch": 1, "seq": 2, "more": false, "entries": entries, "later": 1});
        let page: SyncPage = serde_json::from_value(page).unwrap();
        let paths: Vec<_> = page.entries.items.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!((paths, page.entries.n_refused), (vec!["a", "b"], 5));
    }
}
