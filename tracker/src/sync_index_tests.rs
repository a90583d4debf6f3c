//! The index against a naive one under random announces, and everything that hostile entries may not do to it.

use potluck_common::ContentId;
use potluck_common::register::{Dot, FileValue, MAX_WRITE, Value};

use super::*;

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 16])
}

fn dot(by: u8, n: u64) -> Dot {
    Dot { by: peer(by), n: (1 << GENERATION_SHIFT) + n }
}

fn file(n: u64) -> Value {
    let content_id = ContentId::of(&n.to_le_bytes());
    Value::File(FileValue { mtime_ns: 0, content_id, len: 8, executable: false })
}

fn entry(path: &str, dots: &[Dot]) -> IndexEntry {
    let mut register = Register::default();
    dots.iter().for_each(|dot| register.write(*dot, &[], file(dot.n)));
    IndexEntry { path: path.parse().unwrap(), register }
}

fn speaker(n: u8) -> Speaker {
    Speaker { peer_id: peer(n), generation: 1 }
}

fn absent(_: PeerId) -> Option<u64> {
    None
}

fn index(quotas: Quotas) -> SyncIndex {
    SyncIndex::new(7, 0, quotas)
}

/// Reads the feed from a number on, in pages of `limit`.
fn pull(index: &SyncIndex, mut after: u64, limit: u64) -> (u64, Vec<IndexEntry>) {
    let mut entries = Vec::new();
    loop {
        let page = index.page(&SyncQuery { epoch: 7, after, limit: Some(limit), wait_ms: 0 });
        assert!(page.entries.items.len() as u64 <= limit && page.seq >= after && page.epoch == 7);
        entries.extend(page.entries.items);
        after = page.seq;
        if !page.more {
            return (after, entries);
        }
    }
}

#[track_caller]
fn refused(taken: &Taken) -> Vec<(&str, RefusedBecause)> {
    taken.refused.iter().map(|refused| (refused.path.as_str(), refused.why)).collect()
}

/// Random announces by several peers, some lost, some repeated: registers, numbers, pages and what is to be kept are those of
/// a model that knows nothing of numbers; a follower that goes on from where it was has the same registers (S07: pages
/// that come twice or late change nothing).
#[test]
fn like_a_naive_index() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut index = index(Quotas::default());
        let mut model = BTreeMap::<SharePath, Register>::new();
        let mut stored = BTreeMap::<SharePath, StoredRegister>::new();
        let (mut follower, mut at) = (BTreeMap::<SharePath, Register>::new(), 0);
        let mut said: Vec<(u8, Vec<IndexEntry>)> = Vec::new();
        let mut old_pages: Vec<Vec<IndexEntry>> = Vec::new();
        for step in 1..rng.u64(5..40) {
            let by = rng.u8(1..5);
            let entries: Vec<_> = (0..rng.usize(1..4))
                .map(|n| {
                    let path: SharePath = format!("p{}", rng.u8(..6)).parse().unwrap();
                    let mut register = model.get(&path).filter(|_| rng.u8(..3) > 0).cloned().unwrap_or_default();
                    let live: Vec<_> = register.live().iter().map(|version| version.dot).collect();
                    match rng.u8(..4) {
                        0 => register.remove(&live),
                        _ => register.write(dot(by, step * 10 + n as u64), &live, file(rng.u64(..5))),
                    }
                    IndexEntry { path, register }
                })
                .collect();
            if said.is_empty() || rng.u8(..4) > 0 {
                said.push((by, entries));
            } else {
                // The new one is lost on its way, and an old one comes again.
                let again = rng.choice(&said).unwrap().clone();
                said.push(again);
            }
            let (by, entries) = said.last().unwrap();
            let before = index.seq();
            let taken = index.take(speaker(*by), entries.clone(), absent);
            assert_eq!(taken.refused, [], "seed {seed}");
            let mut n_changed = 0;
            for IndexEntry { path, register } in entries {
                n_changed += u64::from(model.entry(path.clone()).or_default().join(register));
            }
            // A path may stand in one announce twice, and an empty register of a new path is a change too.
            assert!(index.seq() - before >= n_changed, "seed {seed}");
            let fails = rng.u8(..5) == 0;
            if !fails {
                let rows: Vec<_> = taken.keep.iter().map(|row| (row.path.clone(), row.seq)).collect();
                stored.extend(taken.keep.into_iter().map(|row| (row.path.clone(), row)));
                index.kept(&rows);
                for IndexEntry { path, register } in entries {
                    assert!(stored[path].register.covers(register), "seed {seed}: acknowledged and not stored");
                }
            }
            let (seq, all) = pull(&index, 0, rng.u64(1..5));
            let got: BTreeMap<_, _> = all.iter().map(|entry| (entry.path.clone(), entry.register.clone())).collect();
            assert_eq!((got, all.len(), seq), (model.clone(), model.len(), index.seq()), "seed {seed}");
            if rng.bool() {
                let (seq, news) = pull(&index, at, rng.u64(1..5));
                at = seq;
                old_pages.push(news);
                for _ in 0..rng.usize(1..3) {
                    let page = if rng.bool() { old_pages.last() } else { rng.choice(&old_pages) };
                    for entry in page.unwrap().iter().chain(old_pages.last().unwrap()) {
                        follower.entry(entry.path.clone()).or_default().join(&entry.register);
                    }
                }
                assert_eq!(follower, model, "seed {seed}");
            }
        }
        // After a restart: what was acknowledged, under the same numbers, and new ones above all that were given out.
        let mut restarted = SyncIndex::new(7, index.seq() + 100, Quotas::default());
        stored.into_values().for_each(|row| restarted.restore(row));
        let (_, all) = pull(&restarted, 0, 3);
        for entry in all {
            assert!(model[&entry.path].covers(&entry.register), "seed {seed}");
        }
        said.into_iter().for_each(|(by, entries)| drop(restarted.take(speaker(by), entries, absent)));
        let (_, all) = pull(&restarted, 0, 1_000);
        assert_eq!(all.into_iter().map(|entry| (entry.path, entry.register)).collect::<BTreeMap<_, _>>(), model);
    }
}

/// S01: nobody tells of writes of a peer that is there and has not told of them; own writes are of this start at most.
#[test]
fn writers_speak_for_themselves() {
    let mut index = index(Quotas::default());
    let first = index.take(speaker(1), vec![entry("a", &[dot(1, 5)])], absent);
    assert_eq!((first.told, first.changed.len()), (dot(1, 5).n, 1));
    let told = |by| (by == peer(1)).then_some(dot(1, 5).n);
    let offered = vec![
        entry("a", &[dot(1, 5), dot(2, 1)]),
        entry("b", &[dot(1, 6)]),
        entry("c", &[Dot { by: peer(1), n: MAX_WRITE }]),
        entry("d", &[dot(1, 4)]),
        entry("e", &[dot(3, 9)]),
        entry("f", &[Dot { by: peer(2), n: 2 << GENERATION_SHIFT }]),
    ];
    let taken = index.take(speaker(2), offered.clone(), told);
    use RefusedBecause::{Ahead, NotYetWritten};
    assert_eq!(refused(&taken), [("b", Ahead), ("c", Ahead), ("f", NotYetWritten)]);
    assert_eq!((taken.told, taken.changed.len(), index.n_refused()), (dot(2, 1).n, 3, 3));
    // Once the writer has told of it, or has left, the same is taken.
    index.take(speaker(1), vec![entry("b", &[dot(1, 6)])], told);
    assert_eq!(refused(&index.take(speaker(2), offered[..2].to_vec(), told)), []);
    assert_eq!(refused(&index.take(speaker(2), offered[2..3].to_vec(), absent)), []);
}

/// Two have written one path, one after the other, and both tell of both writes to a tracker that knows nothing. (Found by the
/// simulation: the tracker waited with each for the other, for ever.)
#[test]
fn writers_of_one_path_do_not_wait_for_each_other() {
    let mut index = index(Quotas::default());
    let both = || vec![entry("a", &[dot(1, 5), dot(2, 7)])];
    let present = |n: u64| move |_| Some(n);
    let nothing = dot(0, 0).n;
    let first = index.take(speaker(1), both(), present(nothing));
    assert_eq!((refused(&first), first.told), (vec![("a", RefusedBecause::Ahead)], dot(1, 5).n));
    let second = index.take(speaker(2), both(), present(first.told));
    assert_eq!((refused(&second), second.changed.len()), (vec![], 1));
    // What it cannot have written it has not told of.
    let later = Dot { by: peer(1), n: 2 << GENERATION_SHIFT };
    let beyond = index.take(speaker(1), vec![entry("b", &[dot(0, 9), later])], present(nothing));
    assert_eq!((refused(&beyond), beyond.told), (vec![("b", RefusedBecause::Ahead)], 0));
}

/// S04 and the limits of a register: what would make one that nobody can read is refused, and what is there stays.
#[test]
fn registers_stay_readable() {
    let mut index = index(Quotas::default());
    let versions = |by: u8, from: u64, n: usize| (from..).take(n).map(|n| dot(by, n)).collect::<Vec<_>>();
    let half = MAX_LIVE / 2;
    for by in [1, 2] {
        assert_eq!(refused(&index.take(speaker(by), vec![entry("a", &versions(by, 1, half))], absent)), []);
    }
    let offered = vec![entry("b", &[dot(3, 1)]), entry("a", &[dot(3, 2)]), entry("c", &[dot(3, 3)])];
    assert_eq!(refused(&index.take(speaker(3), offered, absent)), [("a", RefusedBecause::TooMany)]);
    let invented = |from: u64| {
        let ids = (from..).take(MAX_WRITERS / 2 + 1).map(|n| {
            let mut id = [9; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            Dot { by: PeerId::from_bytes(id), n: 1 }
        });
        let dots: Vec<_> = ids.collect();
        let mut entry = entry("w", &dots);
        entry.register.remove(&dots);
        entry
    };
    assert_eq!(refused(&index.take(speaker(3), vec![invented(0)], absent)), []);
    assert_eq!(refused(&index.take(speaker(3), vec![invented(10_000)], absent)), [("w", RefusedBecause::TooMany)]);
    let (_, all) = pull(&index, 0, 100);
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Vec<IndexEntry>>(&text).unwrap(), all);
    // And a delete of what is there still comes through.
    let mut deleted = entry("a", &versions(1, 1, half));
    deleted.register.remove(&versions(1, 1, half));
    assert_eq!(refused(&index.take(speaker(1), vec![deleted], absent)), []);
}

#[test]
fn quotas() {
    use RefusedBecause::Quota;
    let quotas = Quotas { max_index_paths: 3, max_index_paths_per_peer: 2, ..Quotas::default() };
    let mut index = index(quotas.clone());
    let paths = |by, paths: &[&str]| paths.iter().map(|path| entry(path, &[dot(by, 1)])).collect::<Vec<_>>();
    assert_eq!(refused(&index.take(speaker(1), paths(1, &["a", "b", "c"]), absent)), [("c", Quota)]);
    assert_eq!(refused(&index.take(speaker(2), paths(2, &["a", "c", "d"]), absent)), [("d", Quota)]);
    // The count comes back after a restart, and what is known can still be changed.
    let mut restarted = SyncIndex::new(7, 0, quotas);
    for row in index.take(speaker(1), paths(1, &["a", "b"]), absent).keep {
        restarted.restore(row);
    }
    assert_eq!(refused(&restarted.take(speaker(1), paths(1, &["e"]), absent)), [("e", Quota)]);
    assert_eq!(refused(&restarted.take(speaker(1), vec![entry("a", &[dot(1, 2)])], absent)), []);
    let mut narrow = SyncIndex::new(7, 0, Quotas { max_index_bytes: 2_000, ..Quotas::default() });
    let many: Vec<_> = (1..=40).map(|n| dot(1, n)).collect();
    let offered = vec![entry("a", &[dot(1, 1)]), entry("b", &many), entry("c", &[dot(1, 2)])];
    assert_eq!(refused(&narrow.take(speaker(1), offered, absent)), [("b", Quota)]);
}

#[test]
fn pages_have_bounds() {
    let mut index = index(Quotas::default());
    let fat: Vec<_> = (1..=200).map(|n| dot(1, n)).collect();
    let entries: Vec<_> = (0..200).map(|n| entry(&format!("f{n:03}"), &fat)).collect();
    index.take(speaker(1), entries, absent);
    let query = SyncQuery { epoch: 7, ..SyncQuery::default() };
    let page = index.page(&query);
    let len = serde_json::to_string(&page).unwrap().len();
    assert!(page.more && len < MAX_SYNC_PAGE_LEN && page.entries.items.len() > 50, "{len}");
    assert_eq!(pull(&index, 0, u64::MAX).1.len(), 200);
    // Another epoch, a number from the future, no limit worth the name.
    for query in [SyncQuery { epoch: 8, after: 199, ..query }, SyncQuery { after: u64::MAX, ..query }] {
        assert!(index.has_news(&query));
        assert_eq!(index.page(&query), page);
    }
    assert_eq!(index.page(&SyncQuery { limit: Some(0), ..query }).entries.items.len(), 1);
    let end = SyncQuery { after: index.seq(), ..query };
    assert!(!index.has_news(&end) && index.page(&end).entries.is_empty());
}
