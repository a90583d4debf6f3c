//! The store: what it gives back, what it refuses, and what it says when its file is not its file.

use std::time::Duration;

use potluck_common::ContentId;
use tempfile::TempDir;

use super::*;
use crate::endpoint::Endpoint;

fn record(revision: u64) -> PeerRecord {
    let source = "10.0.0.7".parse().unwrap();
    PeerRecord {
        name: "node".into(),
        endpoint: Endpoint::judge(source, 7701, None).unwrap(),
        source,
        generation: 1,
        seq: revision,
        revision,
        seen_ms: 5,
    }
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 16])
}

fn entry(path: &str) -> StoredEntry {
    StoredEntry { path: path.parse().unwrap(), content_id: ContentId::of(path.as_bytes()), len: 3, since_ms: 9 }
}

fn change(n: u8, builds: Builds, revision: u64, added: &[&str], removed: &[&str]) -> Change {
    Change {
        peer_id: peer(n),
        record: record(revision),
        builds,
        removed: removed.iter().map(|path| path.parse().unwrap()).collect(),
        added: added.iter().map(|path| entry(path)).collect(),
        partial: vec![],
    }
}

fn put(store: &Store, change: Change) -> Result<(), WriteError> {
    let place = store.try_place().unwrap();
    place.write(Write { change: Some(change), ..Write::default() }).blocking_recv().unwrap()
}

fn paths(peers: &[StoredPeer]) -> Vec<(u8, u64, Vec<String>)> {
    let paths = |peer: &StoredPeer| peer.entries.iter().map(|entry| entry.path.to_string()).collect();
    peers.iter().map(|peer| (peer.peer_id.as_bytes()[0], peer.record.revision, paths(peer))).collect()
}

fn reopen(dir: &TempDir, store: &Store) -> (Store, Vec<StoredPeer>) {
    store.close();
    let (store, stored) = Store::open(dir.path()).unwrap();
    (store, stored.peers)
}

#[test]
fn gives_back_what_was_kept() {
    let dir = TempDir::new().unwrap();
    let (store, stored) = Store::open(dir.path()).unwrap();
    assert!(stored.peers.is_empty() && stored.index.rows.is_empty());
    // 0xff: the last id there is, whose range has no end.
    for n in [0, 7, 0xff] {
        put(&store, change(n, Builds::Anew, 3, &["a", "b/c", "\u{10ffff}\u{10ffff}\u{10ffff}"], &[])).unwrap();
    }
    let parts = |n_chunks| PartialEntry { content_id: ContentId::of(b"p"), len: 9, n_chunks };
    put(&store, Change { partial: vec![parts(2)], ..change(7, Builds::On(3), 4, &["d"], &["a"]) }).unwrap();
    let (store, peers) = reopen(&dir, &store);
    let whole = |n| (n, 3, vec!["a".to_owned(), "b/c".into(), "\u{10ffff}\u{10ffff}\u{10ffff}".into()]);
    let changed = (7, 4, vec!["b/c".to_owned(), "d".into(), "\u{10ffff}\u{10ffff}\u{10ffff}".into()]);
    assert_eq!(paths(&peers), [whole(0), changed, whole(0xff)]);
    assert_eq!(peers[1].partial, [parts(2)]);
    assert_eq!(peers[1].entries[0], entry("b/c"));
    assert!(peers.iter().all(|peer| peer.intact));
    // What builds on something else changes nothing.
    assert_eq!(put(&store, change(7, Builds::On(3), 9, &["x"], &[])), Err(WriteError::Misfit));
    assert_eq!(put(&store, change(9, Builds::On(3), 9, &["x"], &[])), Err(WriteError::Misfit));
    for n in [7, 0xff] {
        put(&store, change(n, Builds::Anew, 11, &["e"], &[])).unwrap();
    }
    put(&store, change(7, Builds::RecordOnly, 99, &[], &[])).unwrap();
    put(&store, Change { partial: vec![parts(0)], ..change(0, Builds::On(3), 4, &[], &[]) }).unwrap();
    let write = Write { forget: vec![peer(0)], touch: vec![(peer(9), record(1))], ..Write::default() };
    store.try_place().unwrap().write(write).blocking_recv().unwrap().unwrap();
    let (store, peers) = reopen(&dir, &store);
    assert_eq!(paths(&peers), [(7, 11, vec!["e".to_owned()]), (0xff, 11, vec!["e".into()])]);
    assert!(peers[0].partial.is_empty());
    store.close();
    assert!(store.try_place().is_none());
}

/// F52: refused with a message, and left as it is.
#[test]
fn a_later_format_is_refused() {
    let dir = TempDir::new().unwrap();
    Store::open(dir.path()).unwrap().0.close();
    let file = dir.path().join(FILE_NAME);
    let db = open_file(&file).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(META).unwrap().insert("schema", SCHEMA + 1).unwrap();
    write.commit().unwrap();
    drop(db);
    for _ in 0..2 {
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::TooNew { found, .. } if found == SCHEMA + 1), "{error}");
        let error = error.to_string();
        assert!(error.contains("later version") && error.contains("Upgrade"), "{error}");
    }
}

#[test]
fn says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)) && error.to_string().contains("--data"), "{error}");
    store.close();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "x").unwrap();
    let error = Store::open(&file).unwrap_err();
    assert!(matches!(error, OpenError::Folder { .. }) && error.to_string().contains("--memory"), "{error}");
    std::fs::write(dir.path().join(FILE_NAME), "this is not a store, and long enough to be looked at".repeat(500))
        .unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }) && error.to_string().contains("Move it away"), "{error}");
    assert!(!error.to_string().contains('\n'));
}

/// F49: whatever became of the file, the tracker opens it or says that it is damaged; it never falls over, and what it
/// gives back was written once.
#[test]
fn damaged_files() {
    let good = TempDir::new().unwrap();
    let (store, _) = Store::open(good.path()).unwrap();
    let names: Vec<String> = (0..200).map(|n| format!("folder/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    put(&store, change(1, Builds::Anew, 1, &names, &[])).unwrap();
    store.close();
    let bytes = std::fs::read(good.path().join(FILE_NAME)).unwrap();
    let mut rng = fastrand::Rng::with_seed(49);
    let (mut n_opened, mut n_refused) = (0, 0);
    for round in 0..60 {
        let mut damaged = bytes.clone();
        match round % 3 {
            0 => damaged.truncate(rng.usize(..bytes.len())),
            1 => damaged[rng.usize(..bytes.len().min(65_536))] ^= 1 << rng.u8(..8),
            _ => {
                let at = rng.usize(..bytes.len());
                let end = (at + 512).min(bytes.len());
                damaged[at..end].fill(0);
            }
        }
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), damaged).unwrap();
        match Store::open(dir.path()) {
            Ok((store, stored)) => {
                for peer in stored.peers.iter().filter(|peer| peer.intact) {
                    assert!(peer.entries.iter().all(|e| names.contains(&e.path.as_str())));
                }
                n_opened += 1;
                store.close();
            }
            Err(OpenError::Damaged { .. } | OpenError::Folder { .. }) => n_refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(n_opened > 0 && n_refused > 0, "{n_opened} opened, {n_refused} refused");
}

/// A thousand changes at once take a few transactions, and each is answered.
#[test]
fn writes_that_wait_share_a_commit() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let all = (0..1_000u16).map(|n| {
            let store = &store;
            async move {
                let mut id = [0; 16];
                id[..2].copy_from_slice(&n.to_be_bytes());
                let change = Change { peer_id: PeerId::from_bytes(id), ..change(0, Builds::Anew, 1, &["a"], &[]) };
                let place = store.place().await.unwrap();
                place.write(Write { change: Some(change), ..Write::default() }).await.unwrap().unwrap();
            }
        });
        tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(all)).await.unwrap();
    });
    let (store, peers) = reopen(&dir, &store);
    assert_eq!(peers.len(), 1_000);
    store.close();
}

fn register(path: &str, seq: u64) -> StoredRegister {
    use potluck_common::register::{Dot, Value};
    let mut register = potluck_common::Register::default();
    register.write(Dot { by: peer(1), n: seq }, &[], Value::Folder);
    StoredRegister { path: path.parse().unwrap(), register, seq, brought_by: peer(2) }
}

fn put_index(store: &Store, index: Vec<StoredRegister>) {
    let write = Write { index, ..Write::default() };
    store.try_place().unwrap().write(write).blocking_recv().unwrap().unwrap();
}

/// The index comes back under its numbers; new ones begin above every one that the last start can have given out.
#[test]
fn the_index_is_kept() {
    let dir = TempDir::new().unwrap();
    let (store, first) = Store::open(dir.path()).unwrap();
    let next = first.index.seq + 1;
    put_index(&store, vec![register("b", next), register("a/\u{e9}", next + 1)]);
    put_index(&store, vec![register("b", next + 2)]);
    store.close();
    let (store, second) = Store::open(dir.path()).unwrap();
    assert_eq!(second.index.rows, [register("a/\u{e9}", next + 1), register("b", next + 2)]);
    assert_eq!(second.index.epoch, first.index.epoch);
    assert!(second.index.seq >= first.index.seq + (1 << 32));
    // A start that gave out more numbers than its block has.
    let far = second.index.seq + (3 << 32);
    put_index(&store, vec![register("c", far)]);
    store.close();
    let (store, third) = Store::open(dir.path()).unwrap();
    assert!(third.index.seq > far);
    store.close();
    // A row that cannot be read ends the epoch; the others are still there.
    let db = open_file(&dir.path().join(FILE_NAME)).unwrap();
    let write = db.begin_write().unwrap();
    let table: TableDefinition<&str, (&[u8; 16], u64, &[u8])> = TableDefinition::new("index");
    write.open_table(table).unwrap().insert("../x", (&[0; 16], 1, b"{}".as_slice())).unwrap();
    write.commit().unwrap();
    drop(db);
    let (store, fourth) = Store::open(dir.path()).unwrap();
    assert_ne!(fourth.index.epoch, first.index.epoch);
    assert_eq!(fourth.index.rows.len(), 3);
    store.close();
    // Once: with the next start it goes on.
    let (store, fifth) = Store::open(dir.path()).unwrap();
    assert_eq!((fifth.index.epoch, fifth.index.rows), (fourth.index.epoch, fourth.index.rows));
    store.close();
}

/// F52: a store of before the index existed is opened as it is.
#[test]
fn a_store_without_an_index() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    put(&store, change(1, Builds::Anew, 1, &["a"], &[])).unwrap();
    store.close();
    let db = open_file(&dir.path().join(FILE_NAME)).unwrap();
    let write = db.begin_write().unwrap();
    let table: TableDefinition<&str, (&[u8; 16], u64, &[u8])> = TableDefinition::new("index");
    assert!(write.delete_table(table).unwrap());
    write.open_table(META).unwrap().retain(|key, _| key == "schema").unwrap();
    write.commit().unwrap();
    drop(db);
    let (store, stored) = Store::open(dir.path()).unwrap();
    assert_eq!((stored.peers.len(), stored.index.rows.len()), (1, 0));
    store.close();
}
