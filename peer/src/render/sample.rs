//! Canned values for the tests of what is shown.

use std::num::NonZeroU64;
use std::path::PathBuf;

use potluck_common::protocol::{ContentSummary, Entry, Owner, PeerInfo, Rates, RefusedBecause, SyncMode};
use potluck_common::{ContentId, PeerId};

use crate::verb::*;

pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

pub(crate) fn id(seed: u8) -> ContentId {
    ContentId::of(&[seed])
}

fn peer_id(seed: u8) -> PeerId {
    PeerId::from_bytes([seed; 16])
}

fn content(seed: u8, len: u64, n_owners: u64, n_partial: u64, held: Held) -> ShownContent {
    let summary = ContentSummary {
        content_id: id(seed),
        len,
        n_owners,
        n_partial,
        since_ms: NOW_MS - 90_000,
        owners: Vec::new(),
    };
    ShownContent { summary, held }
}

pub(crate) fn files() -> Vec<ShownFile> {
    let file = |path: &str, contents| ShownFile { path: path.parse().unwrap(), contents };
    vec![
        file("--option", vec![content(1, 0, 1, 0, Held::None)]),
        file(
            "films/a film with quite a long name, in several parts.mkv",
            vec![content(2, 4 << 30, 3, 1, Held::Partial)],
        ),
        file("notes.txt", vec![content(3, 1536, 2, 0, Held::Complete), content(4, 1600, 1, 0, Held::None)]),
        file("photo\u{202e}gpj.exe", vec![content(5, 43 << 20, 1, 0, Held::None)]),
        file("音楽/歌.ogg", vec![content(6, 150 << 20, 12, 0, Held::Complete)]),
    ]
}

pub(crate) fn peers() -> Vec<PeerInfo> {
    let peer = |seed: u8, name: &str, address: &str, rates| PeerInfo {
        peer_id: peer_id(seed),
        name: name.into(),
        base_url: String::new(),
        address: address.into(),
        port: 7700 + u16::from(seed),
        since_ms: NOW_MS - u64::from(seed) * 1_000_000,
        seen_ms: NOW_MS,
        n_files: u64::from(seed) * 10,
        n_bytes: u64::from(seed) << 30,
        sync: None,
        reachable: None,
        rates,
    };
    vec![
        peer(1, "node1", "172.18.0.3", Rates::default()),
        peer(2, "node2", "fd00::1", Rates { up: 20 << 20, down: 0 }),
        peer(3, "Ann's\u{9b} laptop", "ann.local", Rates { up: 0, down: 20 << 20 }),
    ]
}

pub(crate) fn addresses() -> Vec<Address> {
    let address = |seed: u8, name: &str, address: &str| Address {
        name: name.into(),
        peer_id: peer_id(seed),
        address: address.into(),
        port: 7701,
    };
    vec![address(1, "node1", "172.18.0.3"), address(2, "node2", "[fd00::1]")]
}

pub(crate) fn candidates() -> Vec<Candidate> {
    let owner = |seed: u8, name: &str, complete| Owner {
        peer_id: peer_id(seed),
        name: name.into(),
        base_url: String::new(),
        complete,
        n_chunks: 1,
    };
    let candidate = |seed: u8, len, owners, age_ms| Candidate {
        content_id: id(seed),
        len,
        owners,
        age_ms,
        ask_for: format!("notes.txt@{}", id(seed).short()),
    };
    vec![
        candidate(3, 1536, vec![owner(1, "node1", true), owner(2, "node2", true)], 7_200_000),
        candidate(4, 1600, vec![owner(3, "node3", true), owner(4, "node4", false)], 40_000),
    ]
}

pub(crate) fn transfer(name: &str, seed: u8, len: u64, n_bytes: u64, waiting: Option<&str>) -> Transfer {
    let waiting = waiting.map(Into::into);
    let rate = if waiting.is_some() { 0 } else { 20 << 20 };
    let n_owners = if waiting.is_some() { 0 } else { 3 };
    Transfer { name: name.into(), content_id: Some(id(seed)), len, n_bytes, rate, n_owners, waiting }
}

pub(crate) fn limits() -> LimitsStatus {
    let limit = |text: &str, rate| LimitStatus { limit: text.parse().unwrap(), rate: NonZeroU64::new(rate) };
    LimitsStatus { up: limit("1536K", 1536 << 10), down: limit("10M,off@22-06:30", 0) }
}

pub(crate) fn status() -> Status {
    Status {
        peer_id: peer_id(1),
        name: "node1".into(),
        base_url: "http://172.18.0.3:7701".into(),
        share: PathBuf::from("/share"),
        trackers: vec![
            TrackerStatus {
                url: "http://tracker:7700".into(),
                reachable: true,
                reaches_us: Some(false),
                refuses: Some(RefusedPaths {
                    n_paths: 2,
                    path: "a/rtl\u{202e}fdp".parse().unwrap(),
                    why: RefusedBecause::Quota.explain().into(),
                }),
            },
            TrackerStatus { url: "http://other:7700".into(), reachable: false, reaches_us: None, refuses: None },
        ],
        n_files: 12,
        n_bytes: 3 << 30,
        n_hashing: 2,
        n_skipped: 1,
        rates: Rates { up: 1 << 20, down: 20 << 20 },
        limits: limits(),
        downloads: vec![
            transfer("film.mkv", 2, 100 << 20, 45 << 20, None),
            transfer("disk.img", 7, 4 << 30, 1 << 30, Some("no space")),
        ],
        n_uploads: 1,
    }
}

pub(crate) fn finished(name: &str, seed: u8, len: u64, elapsed_ms: u64, from: &[(&str, u64)]) -> Finished {
    let from = from.iter().map(|(name, n_bytes)| Contribution { name: (*name).into(), n_bytes: *n_bytes }).collect();
    Finished {
        name: name.into(),
        content_id: id(seed),
        len,
        path: PathBuf::from("/share").join(name),
        from,
        elapsed_ms,
    }
}

/// A download of three files: one comes from two owners, one is here already, one fails.
pub(crate) fn download() -> Vec<Event> {
    vec![
        Event::Notice { message: "tracker http://other:7700 does not answer".into() },
        Event::Planned { n_files: 3, n_bytes: 3 << 30 },
        Event::Progress(transfer("film.mkv", 2, 100 << 20, 45 << 20, None)),
        Event::Progress(transfer("disk.img", 7, 2 << 30, 1 << 20, Some("no space"))),
        Event::Finished(finished("notes.txt", 3, 1536, 0, &[])),
        Event::Finished(finished(
            "film.mkv",
            2,
            100 << 20,
            4_800,
            &[("node2", 60 << 20), ("node3\u{1b}[31m", 40 << 20)],
        )),
        Event::Unfinished {
            name: "disk.img".into(),
            why: Failed::new(
                FailureKind::NoSpace,
                "disk.img: no space left in /share",
                "Make room, then download it again.",
            ),
        },
        Event::Failed(Failed::new(
            FailureKind::NoSpace,
            "1 of 3 files could not be fetched",
            "Make room, then download again.",
        )),
    ]
}

pub(crate) fn sync() -> SyncStatus {
    let peer = |n: u8, mode, n_lacking| SyncPeer {
        peer_id: PeerId::from_bytes([n; 16]),
        name: format!("node{n}"),
        mode,
        n_lacking,
        n_bytes_lacking: n_lacking << 20,
    };
    SyncStatus {
        mode: Some(SyncMode::Both),
        n_files: 4_711,
        n_to_do: 3,
        n_held: 1_200,
        n_conflicts: 1,
        paused: Some("the share folder is gone".into()),
        troubles: vec![SyncTrouble { path: "a/B.txt".parse().unwrap(), why: "something else stands there".into() }],
        peers: vec![peer(1, SyncMode::Both, 0), peer(2, SyncMode::Receive, 3)],
    }
}

pub(crate) fn conflicts() -> Vec<Conflict> {
    let version = |path: &str, bytes: &[u8]| ConflictVersion {
        path: path.parse().unwrap(),
        content_id: Some(ContentId::of(bytes)),
        len: 1 << 20,
        mtime_ms: 0,
    };
    let versions = vec![version("notes.txt", b"a"), version("notes.conflict-10e5cf3d.txt", b"b")];
    vec![Conflict { path: "notes.txt".parse().unwrap(), versions }]
}

pub(crate) fn trash() -> Vec<TrashItem> {
    let item = |path: Option<&str>, why: &str| TrashItem {
        item: "18c2-00ff".into(),
        path: path.map(|path| path.parse().unwrap()),
        len: 12_345,
        since_ms: path.map(|_| NOW_MS - 3_600_000),
        why: path.map(|_| why.into()),
    };
    vec![item(Some("docs/notes.txt"), "overwritten"), item(Some("a\u{202e}b"), "set_aside"), item(None, "")]
}

/// Lines of a manifest.
pub(crate) fn entries() -> Vec<Entry> {
    let entry =
        |path: &str, len| Entry { path: path.parse().unwrap(), content_id: ContentId::of(path.as_bytes()), len };
    vec![entry("docs/crème brûlée.md", 126), entry("rtl\u{202e}fdp", 0)]
}
