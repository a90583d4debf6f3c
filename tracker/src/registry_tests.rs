//! The registry against tables, and against a naive model under random operations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use potluck_common::identity::Identity;
use potluck_common::protocol::{
    Activity, Announce, AnnounceEvent, Entry, PROTOCOL_VERSION, PartialEntry, Rates, Sifted,
};
use potluck_common::{ContentId, PeerId, SharePath};

use super::*;
use crate::admission::examine;
use crate::lookup::FilesQuery;
use crate::quota::QuotaError;
use crate::record::StoredEntry;

const LEASE: Duration = Duration::from_secs(15);
const FORGET: Duration = Duration::from_secs(600);

fn registry(quotas: Quotas) -> Registry {
    Registry::new(RegistryConfig { lease: LEASE, forget_after: FORGET, quotas })
}

fn identity(n: u8) -> Identity {
    Identity::from_secret(&[n + 1; 32])
}

fn source() -> IpAddr {
    "10.0.0.7".parse().unwrap()
}

fn entry(path: &str, content: &str) -> Entry {
    Entry { path: path.parse().unwrap(), content_id: ContentId::of(content.as_bytes()), len: content.len() as u64 }
}

fn part(content: &str, n_chunks: u32) -> PartialEntry {
    PartialEntry { content_id: ContentId::of(content.as_bytes()), len: content.len() as u64, n_chunks }
}

/// A `started` with nothing in it.
fn hello(n: u8) -> Announce {
    let identity = identity(n);
    Announce {
        protocol: PROTOCOL_VERSION,
        event: AnnounceEvent::Started,
        peer_id: identity.peer_id(),
        public_key: identity.public_key(),
        name: format!("node{n}"),
        port: 7701,
        advertise: None,
        generation: 1,
        instance: 0,
        seq: 0,
        base: 0,
        revision: 0,
        added: vec![],
        removed: vec![],
        partial: vec![],
        sync: None,
        index: Sifted::default(),
        rates: Rates::default(),
        activity: Activity::default(),
    }
}

fn send(registry: &mut Registry, message: Announce, now: Instant) -> Result<Accepted, Refusal> {
    let endpoint = examine(&message, source())?;
    registry.announce(message, endpoint, source(), now, 1_000)
}

fn paths(registry: &Registry) -> Vec<String> {
    let part = registry.files(&FilesQuery::default(), None, usize::MAX, usize::MAX);
    part.files.iter().map(|file| file.path.to_string()).collect()
}

#[test]
fn deltas_build_on_revisions() {
    let (mut registry, now) = (registry(Quotas::default()), Instant::now());
    let step = |registry: &mut Registry, message: Announce, want: (u64, bool), listed: &[&str]| {
        let accepted = send(registry, message, now).unwrap();
        assert_eq!((accepted.revision, accepted.resync), want);
        assert_eq!(paths(registry), listed);
    };
    let first = Announce { revision: 3, added: vec![entry("a", "x"), entry("b", "y")], ..hello(0) };
    step(&mut registry, first.clone(), (3, false), &["a", "b"]);
    step(&mut registry, first, (3, true), &["a", "b"]);
    let beat = Announce { event: AnnounceEvent::Heartbeat, ..hello(0) };
    step(&mut registry, Announce { seq: 1, base: 3, revision: 3, ..beat.clone() }, (3, false), &["a", "b"]);
    let delta = Announce { base: 3, revision: 4, removed: vec!["a".parse().unwrap()], ..beat.clone() };
    step(&mut registry, Announce { seq: 2, ..delta.clone() }, (4, false), &["b"]);
    // The answer was lost and the delta comes again: it does not fit, so all is sent.
    step(&mut registry, Announce { seq: 3, ..delta }, (4, true), &["b"]);
    let all = Announce { seq: 4, base: 0, revision: 9, added: vec![entry("c", "x")], ..beat.clone() };
    step(&mut registry, all, (9, false), &["c"]);
    // Unknown revision of an unknown peer.
    let other = Announce { base: 7, revision: 8, added: vec![entry("d", "x")], ..hello(1) };
    step(&mut registry, other, (0, true), &["c"]);
    assert_eq!(registry.peers().peers.len(), 2);
}

#[test]
fn an_earlier_start_is_refused() {
    let (mut registry, now) = (registry(Quotas::default()), Instant::now());
    send(&mut registry, Announce { generation: 5, ..hello(0) }, now).unwrap();
    let copy = Announce { generation: 5, instance: 7, seq: 99, ..hello(0) };
    assert_eq!(send(&mut registry, copy, now), Err(Refusal::Superseded { known: 5, got: 5 }), "S06: a copied identity");
    let old = Announce { generation: 4, seq: 99, event: AnnounceEvent::Stopped, ..hello(0) };
    assert_eq!(send(&mut registry, old, now), Err(Refusal::Superseded { known: 5, got: 4 }));
    assert_eq!(registry.peers().peers.len(), 1);
    send(&mut registry, Announce { generation: 6, ..hello(0) }, now).unwrap();
}

#[test]
fn leases_end() {
    let (mut registry, now) = (registry(Quotas::default()), Instant::now());
    let files = Announce { revision: 1, added: vec![entry("a", "x")], ..hello(0) };
    send(&mut registry, files, now).unwrap();
    assert_eq!(registry.next_expiry(), Some(now + LEASE));
    assert_eq!(registry.expire(now + LEASE - Duration::from_millis(1)), (vec![], vec![]));
    assert_eq!(paths(&registry), ["a"]);
    let (events, _) = registry.expire(now + LEASE);
    assert!(matches!(&events[..], [Event::PeerLeft(_)]));
    assert_eq!((paths(&registry).len(), registry.stats()), (0, potluck_common::protocol::Stats::default()));
    // It comes back and goes on where it was.
    let later = now + LEASE * 2;
    let beat = Announce { event: AnnounceEvent::Heartbeat, seq: 1, base: 1, revision: 1, ..hello(0) };
    assert!(!send(&mut registry, beat, later).unwrap().resync);
    assert_eq!(paths(&registry), ["a"]);
    let stop = Announce { event: AnnounceEvent::Stopped, seq: 2, base: 1, revision: 1, ..hello(0) };
    send(&mut registry, stop, later).unwrap();
    assert_eq!(paths(&registry).len(), 0);
    let (_, forgotten) = registry.expire(later + FORGET);
    assert_eq!(forgotten, [identity(0).peer_id()]);
    assert_eq!((registry.index.n_names(), registry.index.n_name_bytes(), registry.next_expiry()), (0, 0, None));
}

#[test]
fn refusals() {
    let mut registry = registry(Quotas::default());
    let mut check = |message: Announce, want: fn(&Refusal) -> bool| {
        let refusal = send(&mut registry, message, Instant::now()).unwrap_err();
        assert!(want(&refusal), "{refusal:?}");
        assert!(registry.peers().peers.is_empty());
    };
    check(Announce { protocol: 2, ..hello(0) }, |r| matches!(r, Refusal::Protocol(2)));
    check(Announce { peer_id: identity(1).peer_id(), ..hello(0) }, |r| matches!(r, Refusal::ForeignKey));
    check(Announce { name: "a\x1b[2J".into(), ..hello(0) }, |r| matches!(r, Refusal::PeerName));
    check(Announce { port: 22, ..hello(0) }, |r| matches!(r, Refusal::Address(_)));
    check(Announce { advertise: Some("127.0.0.1".parse().unwrap()), ..hello(0) }, |r| matches!(r, Refusal::Address(_)));
    check(Announce { base: 2, revision: 1, ..hello(0) }, |r| matches!(r, Refusal::Revision { .. }));
    check(Announce { base: 2, revision: 2, added: vec![entry("a", "x")], ..hello(0) }, |r| {
        matches!(r, Refusal::Revision { .. })
    });
    let long = Entry { len: u64::MAX, ..entry("a", "x") };
    check(Announce { revision: 1, added: vec![long], ..hello(0) }, |r| matches!(r, Refusal::TooLong { .. }));
    let many = vec![entry("a", "x"); 10_001];
    check(Announce { revision: 1, added: many, ..hello(0) }, |r| matches!(r, Refusal::TooManyEntries(10_001)));
}

/// T07, T10, T18: quotas of one do not touch others, absent peers make place, honest leases stay.
#[test]
fn quotas() {
    let now = Instant::now();
    let files = |n: u8, from: usize, k: usize| {
        let added = (from..from + k).map(|at| entry(&format!("p{n}/{at}"), "x")).collect();
        Announce { base: from as u64, revision: (from + k) as u64, seq: from as u64, added, ..hello(n) }
    };
    let mut registry = registry(Quotas {
        max_peers: 3,
        max_files_per_peer: 10,
        max_entries: 20,
        max_names: 18,
        max_partial_per_peer: 1,
        ..Quotas::default()
    });
    send(&mut registry, files(0, 0, 10), now).unwrap();
    let over = send(&mut registry, files(0, 10, 1), now);
    assert_eq!(over, Err(Refusal::Quota(QuotaError::FilesPerPeer(10))));
    let parts = Announce { base: 10, revision: 11, seq: 50, partial: vec![part("q", 1), part("r", 1)], ..hello(0) };
    assert_eq!(send(&mut registry, parts, now), Err(Refusal::Quota(QuotaError::PartialPerPeer(1))));
    send(&mut registry, files(1, 0, 8), now).unwrap();
    assert_eq!(send(&mut registry, files(2, 0, 1), now), Err(Refusal::Quota(QuotaError::Names(18))));
    send(&mut registry, files(2, 0, 0), now).unwrap();
    assert_eq!(send(&mut registry, files(3, 0, 0), now), Err(Refusal::Quota(QuotaError::Peers(3))));
    assert_eq!(registry.stats().n_files, 18);
    let stop = Announce { event: AnnounceEvent::Stopped, base: 8, revision: 8, seq: 99, ..hello(1) };
    send(&mut registry, stop, now).unwrap();
    let accepted = send(&mut registry, files(3, 0, 5), now).unwrap();
    assert_eq!(accepted.forgotten, [identity(1).peer_id()]);
    assert_eq!(registry.stats().n_files, 15);
}

#[test]
fn two_lengths_of_one_content_are_two_contents() {
    let (mut registry, now) = (registry(Quotas::default()), Instant::now());
    for n in 0..3 {
        send(&mut registry, Announce { revision: 1, added: vec![entry("a", "xyz")], ..hello(n) }, now).unwrap();
    }
    let lie = Entry { len: 9, ..entry("a", "xyz") };
    send(&mut registry, Announce { revision: 1, added: vec![lie], ..hello(3) }, now).unwrap();
    let content = registry.content(ContentId::of(b"xyz"), 50, 1).unwrap();
    assert_eq!((content.len, content.n_owners, content.owners.len()), (3, 4, 4), "the liar's owners hide nobody's");
    let few = registry.content(ContentId::of(b"xyz"), 2, 1).unwrap();
    let ids: Vec<_> = few.owners.iter().map(|owner| owner.peer_id).collect();
    assert!(ids.contains(&identity(3).peer_id()), "each claim has its turn, also in a short handout");
    let file = registry.file("a", 1).unwrap();
    assert_eq!(file.contents.iter().map(|c| (c.len, c.owners.len())).collect::<Vec<_>>(), [(3, 3), (9, 1)]);
}

#[test]
fn pages() {
    let (mut registry, now) = (registry(Quotas::default()), Instant::now());
    let names = ["Music/A.ogg", "b", "music", "music/a.ogg", "music/b.ogg", "muszic", "z"];
    let added = names.iter().map(|name| entry(name, "x")).collect();
    send(&mut registry, Announce { revision: 1, added, ..hello(0) }, now).unwrap();
    let check =
        |prefix: &str, contains: &str, after: Option<&str>, limit, budget, want: &[&str], next: Option<&str>| {
            let query = FilesQuery { prefix: prefix.into(), contains: contains.into(), ..FilesQuery::default() };
            let part = registry.files(&query, after, limit, budget);
            let found: Vec<_> = part.files.iter().map(|file| file.path.as_str()).collect();
            assert_eq!((found.as_slice(), part.next.as_ref().map(SharePath::as_str)), (want, next));
        };
    check("", "", None, 99, 99, &names, None);
    check("", "", None, 2, 99, &names[..2], Some("b"));
    check("", "", Some("b"), 2, 99, &names[2..4], Some("music/a.ogg"));
    check("", "", Some("c/.."), 99, 99, &names[2..], None);
    check("music/", "", None, 99, 99, &names[3..5], None);
    check("music/", "", Some("b"), 99, 99, &names[3..5], None);
    check("music/", "", Some("music/a.ogg"), 99, 99, &names[4..5], None);
    check("music/", "", Some("z"), 99, 99, &[], None);
    check("", "A.OGG", None, 99, 99, &["Music/A.ogg", "music/a.ogg"], None);
    check("", "a.ogg", None, 99, 2, &["Music/A.ogg"], Some("b"));
    check("", "nothing", None, 99, 99, &[], None);
}

#[derive(Debug, Clone, Default, PartialEq)]
struct ModelPeer {
    until: Option<Instant>,
    generation: u64,
    seq: u64,
    revision: Option<u64>,
    files: BTreeMap<String, (ContentId, u64)>,
    partial: BTreeMap<(ContentId, u64), u32>,
}

/// The registry as one would first write it, and beside it what a store that follows the changes holds.
#[derive(Default)]
struct Model {
    peers: BTreeMap<PeerId, ModelPeer>,
    stored: BTreeMap<PeerId, StoredPeer>,
}

impl Model {
    fn announce(&mut self, message: &Announce, now: Instant) -> Option<(u64, bool)> {
        let is_new = !self.peers.contains_key(&message.peer_id);
        if is_new && message.event == AnnounceEvent::Stopped {
            return Some((0, message.revision != 0));
        }
        let fresh = ModelPeer { revision: Some(0), ..ModelPeer::default() };
        let peer = self.peers.entry(message.peer_id).or_insert(fresh);
        if message.generation < peer.generation {
            return None;
        }
        if !is_new && (message.generation, message.seq) <= (peer.generation, peer.seq) {
            return Some((peer.revision.unwrap_or(0), true));
        }
        (peer.generation, peer.seq) = (message.generation, message.seq);
        if message.event == AnnounceEvent::Stopped && peer.until.is_none() {
            return Some((peer.revision.unwrap_or(0), peer.revision != Some(message.revision)));
        }
        peer.until = Some(now + LEASE);
        let applies = message.base == 0 || peer.revision == Some(message.base);
        if applies {
            if message.base == 0 {
                peer.files.clear();
                // Partial entries that are named again stay what they were; that shows nowhere.
                peer.partial.clear();
            }
            for path in &message.removed {
                peer.files.remove(path.as_str());
            }
            for entry in &message.added {
                peer.files.insert(entry.path.to_string(), (entry.content_id, entry.len));
                peer.partial.remove(&(entry.content_id, entry.len));
            }
            for entry in &message.partial {
                let content = (entry.content_id, entry.len);
                if entry.n_chunks == 0 {
                    peer.partial.remove(&content);
                } else if !peer.files.values().any(|held| *held == content) {
                    peer.partial.insert(content, entry.n_chunks);
                }
            }
            peer.revision = Some(message.revision);
        }
        if message.event == AnnounceEvent::Stopped {
            peer.until = None;
        }
        Some((peer.revision.unwrap_or(0), !applies))
    }

    fn expire(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.until = peer.until.filter(|until| *until > now);
        }
    }

    fn store(&mut self, change: Change) {
        let Change { peer_id, record, builds, removed, added, partial } = change;
        let fresh = StoredPeer {
            peer_id,
            record: PeerRecord { revision: 0, ..record.clone() },
            entries: vec![],
            partial: vec![],
            intact: true,
        };
        let stored = self.stored.entry(peer_id).or_insert(fresh);
        let revision = match builds {
            Builds::On(base) => {
                assert_eq!(stored.record.revision, base, "a change fits what is stored");
                record.revision
            }
            Builds::Anew => {
                stored.entries.clear();
                stored.partial.clear();
                record.revision
            }
            Builds::RecordOnly => stored.record.revision,
        };
        stored.record = PeerRecord { revision, ..record };
        stored.entries.retain(|entry| !removed.contains(&entry.path));
        for entry in added {
            stored.entries.retain(|old| old.path != entry.path);
            stored.entries.push(entry);
        }
        for entry in partial {
            stored.partial.retain(|old| (old.content_id, old.len) != (entry.content_id, entry.len));
            stored.partial.extend((entry.n_chunks > 0).then_some(entry));
        }
    }

    fn check(&self, registry: &Registry) {
        let present: BTreeMap<_, _> = self.peers.iter().filter(|(_, peer)| peer.until.is_some()).collect();
        let owners = |content: (ContentId, u64)| {
            present.values().filter(|peer| peer.files.values().any(|held| *held == content)).count() as u64
        };
        let partial = |content: (ContentId, u64)| {
            present.values().filter(|peer| peer.partial.contains_key(&content)).count() as u64
        };
        let mut files: BTreeMap<String, BTreeSet<(ContentId, u64, u64, u64)>> = BTreeMap::new();
        let mut contents = BTreeSet::new();
        for peer in present.values() {
            for (path, &content) in &peer.files {
                let row = (content.0, content.1, owners(content), partial(content));
                files.entry(path.clone()).or_default().insert(row);
                contents.insert(content);
            }
            contents.extend(peer.partial.keys());
        }
        let part = registry.files(&FilesQuery::default(), None, usize::MAX, usize::MAX);
        let listed: BTreeMap<String, BTreeSet<_>> = part
            .files
            .iter()
            .map(|file| {
                let rows = file.contents.iter().map(|c| (c.content_id, c.len, c.n_owners, c.n_partial));
                (file.path.to_string(), rows.collect())
            })
            .collect();
        assert_eq!(listed, files);
        let stats = registry.stats();
        let n_bytes = contents.iter().map(|(_, len)| len).sum::<u64>();
        assert_eq!(
            (stats.n_peers, stats.n_files, stats.n_contents, stats.n_bytes),
            (present.len() as u64, files.len() as u64, contents.len() as u64, n_bytes)
        );
        for &content in &contents {
            let info = registry.content(content.0, 200, 7).expect("owned");
            // Whatever length they claim, all of them are named.
            let claims = || contents.iter().copied().filter(|claim| claim.0 == content.0);
            assert!(claims().any(|claim| claim.1 == info.len));
            let (n_owners, n_partial) = (claims().map(owners).sum::<u64>(), claims().map(partial).sum::<u64>());
            assert_eq!((info.n_owners, info.n_partial), (n_owners, n_partial));
            assert_eq!(info.owners.len() as u64, n_owners + n_partial);
            for owner in info.owners.iter().filter(|owner| owner.complete) {
                let peer = present[&owner.peer_id];
                assert!(peer.files.values().any(|held| held.0 == content.0));
            }
        }
        for (id, peer) in &self.peers {
            let info = registry.peer(*id);
            assert_eq!(info.is_some(), peer.until.is_some());
            if let Some(info) = info {
                let n_bytes = peer.files.values().map(|(_, len)| len).sum();
                assert_eq!((info.n_files, info.n_bytes), (peer.files.len() as u64, n_bytes));
            }
            let stored = self.stored.get(id);
            if let (Some(revision), Some(stored)) = (peer.revision, stored) {
                assert_eq!(stored.record.revision, revision);
                let entries: BTreeMap<_, _> =
                    stored.entries.iter().map(|e| (e.path.to_string(), (e.content_id, e.len))).collect();
                assert_eq!(entries, peer.files);
                let partial: BTreeMap<_, _> =
                    stored.partial.iter().map(|e| ((e.content_id, e.len), e.n_chunks)).collect();
                assert_eq!(partial, peer.partial);
            }
        }
    }
}

fn random_message(rng: &mut fastrand::Rng, model: &Model, n: u8) -> Announce {
    let known = model.peers.get(&identity(n).peer_id()).cloned().unwrap_or_default();
    let revision = known.revision.unwrap_or(0);
    let path = |rng: &mut fastrand::Rng| ["a", "a/b", "b", "c d", "é"][rng.usize(..5)];
    let content = |rng: &mut fastrand::Rng| ["", "x", "yy"][rng.usize(..3)];
    let event = match rng.u8(..10) {
        0 => AnnounceEvent::Stopped,
        1 => AnnounceEvent::Started,
        _ => AnnounceEvent::Heartbeat,
    };
    let generation = match rng.u8(..20) {
        0 => known.generation.saturating_sub(1),
        1 => known.generation + 1,
        _ => known.generation,
    };
    let seq = if rng.u8(..10) == 0 { rng.u64(..=known.seq) } else { known.seq + rng.u64(1..3) };
    let base = match rng.u8(..10) {
        0 => 0,
        1 => revision + 1,
        _ => revision,
    };
    let mut message = Announce { event, generation, seq, base, revision: base, ..hello(n) };
    if rng.bool() {
        message.revision = base + rng.u64(1..3);
        for _ in 0..rng.u8(..4) {
            let mut entry = entry(path(rng), content(rng));
            entry.len += u64::from(rng.u8(..8) == 0);
            message.added.push(entry);
        }
        for _ in 0..rng.u8(..3) {
            message.removed.push(path(rng).parse().unwrap());
        }
        for _ in 0..rng.u8(..3) {
            message.partial.push(part(content(rng), rng.u32(..3)));
        }
    }
    message
}

/// I7, and that what the store is told suffices to go on after a restart at any moment.
#[test]
fn behaves_like_the_model() {
    let first = std::env::var("POTLUCK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(0..1_000, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run_model(seed));
        assert!(outcome.is_ok(), "failed with POTLUCK_TEST_SEED={seed}");
    }
}

fn run_model(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut now = Instant::now();
    let mut registry = registry(Quotas::default());
    let mut model = Model::default();
    for _ in 0..100 {
        match rng.u8(..20) {
            0 => {
                now += Duration::from_secs(rng.u64(..20));
                registry.expire(now);
                model.expire(now);
            }
            1 => {
                registry = restart(&mut model, now);
            }
            _ => {
                let n = rng.u8(..4);
                let message = random_message(&mut rng, &model, n);
                let version = registry.version();
                let want = model.announce(&message, now);
                let peer_id = message.peer_id;
                let got = send(&mut registry, message, now);
                assert_eq!(got.as_ref().ok().map(|accepted| (accepted.revision, accepted.resync)), want);
                if got.is_err() {
                    assert_eq!(registry.version(), version, "a refused message changes nothing");
                }
                if let Some(change) = got.ok().and_then(|accepted| accepted.change) {
                    if rng.u8(..10) == 0 {
                        registry.unlearn(peer_id);
                        model.peers.get_mut(&peer_id).unwrap().revision = None;
                    } else {
                        model.store(change);
                    }
                }
            }
        }
        model.check(&registry);
    }
    let everyone_left = now + LEASE;
    registry.expire(everyone_left);
    registry.expire(everyone_left + FORGET);
    assert_eq!((registry.index.n_names(), registry.peers.len(), registry.n_entries), (0, 0, 0), "nothing leaks");
    assert!(registry.sources.is_empty() && registry.touched.is_empty());
}

/// The tracker is killed: only what was stored is known, and nobody is present.
fn restart(model: &mut Model, now: Instant) -> Registry {
    let mut registry = registry(Quotas::default());
    model.peers.clear();
    for stored in model.stored.values() {
        registry.restore(stored.clone(), now, 1_000);
        let peer = ModelPeer {
            until: None,
            generation: stored.record.generation,
            seq: stored.record.seq,
            revision: Some(stored.record.revision),
            files: stored.entries.iter().map(|e| (e.path.to_string(), (e.content_id, e.len))).collect(),
            partial: stored.partial.iter().map(|e| ((e.content_id, e.len), e.n_chunks)).collect(),
        };
        model.peers.insert(stored.peer_id, peer);
    }
    registry
}

/// F40: the wall clock is for people. One that jumps neither keeps nor forgets.
#[test]
fn wall_clock_jumps() {
    let now = Instant::now();
    let record = |seen_ms| PeerRecord {
        name: "n".into(),
        endpoint: Endpoint::judge(source(), 7701, None).unwrap(),
        source: source(),
        generation: 1,
        seq: 1,
        revision: 1,
        seen_ms,
    };
    let check = |seen_ms: u64, now_ms: u64, known_for: Duration| {
        let mut registry = registry(Quotas::default());
        let entries =
            vec![StoredEntry { path: "a".parse().unwrap(), content_id: ContentId::of(b"x"), len: 1, since_ms: 1 }];
        let peer_id = identity(0).peer_id();
        let stored = StoredPeer { peer_id, record: record(seen_ms), entries, partial: vec![], intact: true };
        registry.restore(stored, now, now_ms);
        assert_eq!(registry.next_expiry(), Some(now + known_for));
        let beat = Announce { seq: 2, base: 1, revision: 1, ..hello(0) };
        assert!(!registry.announce(beat, record(0).endpoint, source(), now, 0).unwrap().resync);
        assert_eq!(registry.expire(now + LEASE - Duration::from_millis(1)), (vec![], vec![]));
    };
    let ten_years = 10 * 365 * 86_400_000;
    check(1_000, 1_000, FORGET);
    check(1_000, 61_000, FORGET - Duration::from_secs(60));
    check(ten_years, 1_000, FORGET);
    check(1_000, ten_years, Duration::ZERO);
}

/// T11: names chosen by somebody else cost what any names cost.
#[test]
fn crafted_names_cost_no_more() {
    let fill = |name: &dyn Fn(usize) -> String| {
        let (mut registry, now) = (registry(Quotas::default()), Instant::now());
        for page in 0..4u64 {
            let at = (page as usize) * 5_000;
            let added = (at..at + 5_000).map(|n| entry(&name(n), "x")).collect();
            let message = Announce { base: page, revision: page + 1, seq: page, added, ..hello(0) };
            send(&mut registry, message, now).unwrap();
        }
        now.elapsed()
    };
    let random = fill(&|n| format!("{}", blake3_like(n)));
    let crafted = fill(&|n| format!("{}{n:06}", "a/".repeat(40)));
    // Keys that collide would take hours; the machine's own moods take seconds.
    assert!(
        crafted < random * 4 + Duration::from_secs(60),
        "{crafted:?} for crafted names, {random:?} for random ones"
    );
}

fn blake3_like(n: usize) -> ContentId {
    ContentId::of(&n.to_le_bytes())
}
