//! The synced folder at the tracker: what is announced comes out of the feed, and what is hostile does not.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures::FutureExt;
use potluck_common::PeerId;
use potluck_common::protocol::{GENERATION_SHIFT, IndexEntry, SyncMode, SyncPage};
use potluck_common::register::{Dot, Register, Value};
use potluck_tracker::{Config, RateLimits};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{TestPeer, TestTracker};

impl TestPeer {
    fn dot(&self, n: u64) -> Dot {
        Dot { by: self.message.peer_id, n: (self.message.generation << GENERATION_SHIFT) + n }
    }

    /// The next message: tells of writes of its own, or of others.
    fn tell(&mut self, entries: Vec<IndexEntry>) -> axum::http::Request<axum::body::Body> {
        self.message.sync = Some(SyncMode::Both);
        self.message.index = entries.into();
        let request = self.add(&[]);
        self.message.index = Vec::new().into();
        request
    }
}

fn entry(path: &str, dot: Dot) -> IndexEntry {
    let mut register = Register::default();
    register.write(dot, &[], Value::Folder);
    IndexEntry { path: path.parse().unwrap(), register }
}

impl TestTracker {
    async fn page(&self, query: &str) -> SyncPage {
        let answer = self.get(&format!("/v1/sync?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        serde_json::from_value(answer.json).unwrap()
    }

    /// Ends it as a program ends, its store closed.
    async fn end(self) {
        self.shutdown.cancel();
        drop(self.router);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.tracker.serve(listener, self.shutdown).await.unwrap();
    }
}

fn paths(page: &SyncPage) -> Vec<&str> {
    page.entries.items.iter().map(|entry| entry.path.as_str()).collect()
}

fn with_data(dir: &TempDir) -> Config {
    Config { data: Some(dir.path().to_owned()), ..Config::default() }
}

#[tokio::test]
async fn what_is_told_comes_out_of_the_feed() {
    let tracker = TestTracker::new().await;
    let (mut ann, mut ben) = (TestPeer::new(1), TestPeer::new(2));
    let (a, b) = (entry("a", ann.dot(1)), entry("b/c", ann.dot(2)));
    let reply = tracker.announce(ann.tell(vec![a.clone(), b.clone()])).await;
    let page = tracker.page("").await;
    assert_eq!((paths(&page), page.more), (vec!["a", "b/c"], false));
    assert_eq!(reply["index_epoch"], page.epoch);
    let first = tracker.page("limit=1").await;
    assert_eq!((paths(&first), first.more), (vec!["a"], true));
    let rest = tracker.page(&format!("epoch={}&after={}", page.epoch, first.seq)).await;
    assert_eq!((paths(&rest), rest.more, rest.seq), (vec!["b/c"], false, page.seq));
    // Each path once, at its latest change; what is known already makes no news.
    let mut edited = a.clone();
    edited.register.write(ben.dot(1), &[ann.dot(1)], Value::Folder);
    tracker.announce(ben.tell(vec![edited.clone(), b])).await;
    tracker.announce(ann.tell(vec![a])).await;
    let news = tracker.page(&format!("epoch={}&after={}", page.epoch, page.seq)).await;
    assert_eq!(news.entries.items, [edited]);
    assert_eq!(paths(&tracker.page("").await), ["b/c", "a"]);
    let after_restart = tracker.page(&format!("epoch={}&after={}", page.epoch + 1, news.seq)).await;
    assert_eq!(paths(&after_restart), ["b/c", "a"]);

    let peers = tracker.get("/v1/peers").await.json;
    assert_eq!((&peers["peers"][0]["sync"], &peers["peers"][1]["sync"]), (&json!("both"), &json!("both")));
    let stats = tracker.get("/v1/stats").await.json;
    assert_eq!((&stats["n_syncing"], &stats["n_index"], &stats["n_index_refused"]), (&json!(2), &json!(2), &json!(0)));
    for bad in ["epoch=-1", "after=x", "limit=-1", "wait_ms=1.5", "after=1&after=2", "after=99999999999999999999999"] {
        assert_eq!(tracker.get(&format!("/v1/sync?{bad}")).await.slug(), "bad-query", "{bad}");
    }
}

/// An answer is held back until there is news, or its time is over, or the tracker ends.
#[tokio::test]
async fn answers_can_be_waited_for() {
    let tracker = TestTracker::new().await;
    let (mut ann, mut ben) = (TestPeer::new(1), TestPeer::new(2));
    tracker.announce(ann.tell(vec![entry("a", ann.dot(1))])).await;
    let page = tracker.page("wait_ms=30000").await;
    assert_eq!(paths(&page), ["a"]);
    let at = format!("epoch={}&after={}", page.epoch, page.seq);
    let empty = tracker.page(&format!("{at}&wait_ms=1")).await;
    assert_eq!((paths(&empty), empty.seq), (vec![], page.seq));
    let query = format!("{at}&wait_ms=30000");
    let mut waiting = Box::pin(tracker.page(&query));
    assert!(matches!(futures::poll!(waiting.as_mut()), Poll::Pending));
    // A message without news wakes nobody.
    tracker.announce(ben.tell(vec![])).await;
    assert!(matches!(futures::poll!(waiting.as_mut()), Poll::Pending));
    tracker.announce(ben.tell(vec![entry("b", ben.dot(1))])).await;
    assert_eq!(paths(&waiting.await), ["b"]);
    let page = tracker.page("").await;
    let query = format!("epoch={}&after={}&wait_ms=30000", page.epoch, page.seq);
    let mut waiting = Box::pin(tracker.page(&query));
    assert!(matches!(futures::poll!(waiting.as_mut()), Poll::Pending));
    tracker.shutdown.cancel();
    let at_the_end = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
    assert!(at_the_end.entries.is_empty());
}

/// Once a waiting answer looked at the swarm under the lock of what it waited on, and an announce took the two locks the other
/// way round: sooner or later the tracker stood still for good. On a thread of its own, since then no timer ran either.
#[test]
fn those_who_wait_do_not_stop_those_who_tell() {
    const N_TELLING: u64 = 4;
    const N_WRITES: u64 = 300;
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        runtime.block_on(async {
            let rate = RateLimits { burst: 1e9, ..RateLimits::default() };
            let tracker = Arc::new(TestTracker::with(Config { rate, ..Config::default() }).await);
            let mut tasks = JoinSet::new();
            for _ in 0..64 {
                let tracker = tracker.clone();
                tasks.spawn(async move {
                    let (mut at, mut n_over) = (String::new(), 0);
                    while n_over < N_TELLING {
                        let page = tracker.page(&format!("{at}wait_ms=30000")).await;
                        n_over += paths(&page).iter().filter(|path| path.starts_with("over")).count() as u64;
                        at = format!("epoch={}&after={}&", page.epoch, page.seq);
                    }
                });
            }
            for by in 1..=N_TELLING {
                let tracker = tracker.clone();
                tasks.spawn(async move {
                    let mut peer = TestPeer::new(by);
                    for n in 1..=N_WRITES {
                        let path = if n == N_WRITES { format!("over{by}") } else { format!("f{by}") };
                        tracker.announce(peer.tell(vec![entry(&path, peer.dot(n))])).await;
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("everybody got everything");
}

/// Who keeps all waiting places of an address busy keeps nobody from asking without waiting.
#[tokio::test]
async fn waiting_is_bounded() {
    let rate = RateLimits { burst: 1e9, ..RateLimits::default() };
    let tracker = TestTracker::with(Config { rate, ..Config::default() }).await;
    let page = tracker.page("").await;
    let query = format!("/v1/sync?epoch={}&after={}&wait_ms=30000", page.epoch, page.seq);
    let mut waiting: Vec<_> = (0..2_048).map(|_| Box::pin(tracker.get(&query))).collect();
    for one in &mut waiting {
        assert!(one.as_mut().now_or_never().is_none());
    }
    let refused = tracker.get(&query).await;
    assert_eq!((refused.slug().as_str(), refused.status), ("busy", StatusCode::SERVICE_UNAVAILABLE));
    assert!(refused.headers.contains_key("retry-after"));
    assert!(tracker.page("").await.entries.is_empty());
    let elsewhere = tracker.send_from("10.0.0.8", crate::support::get(&query));
    assert!(Box::pin(elsewhere).now_or_never().is_none());
    drop(waiting);
    assert!(Box::pin(tracker.get(&query)).now_or_never().is_none());
}

/// F18: acknowledged means kept, under the same numbers; F23: without a store another epoch begins, from nothing.
#[tokio::test]
async fn a_restart_keeps_the_index() {
    let dir = TempDir::new().unwrap();
    let tracker = TestTracker::with(with_data(&dir)).await;
    let mut ann = TestPeer::new(1);
    tracker.announce(ann.tell(vec![entry("a", ann.dot(1)), entry("b", ann.dot(2))])).await;
    let before = tracker.page("").await;
    tracker.end().await;

    let tracker = TestTracker::with(with_data(&dir)).await;
    let after = tracker.page("").await;
    assert_eq!((after.epoch, &after.entries), (before.epoch, &before.entries));
    assert!(after.seq > before.seq);
    // Who follows goes on where it was, and hears of the next change.
    let at = format!("epoch={}&after={}", before.epoch, before.seq);
    assert_eq!(paths(&tracker.page(&at).await), Vec::<&str>::new());
    tracker.announce(ann.tell(vec![entry("c", ann.dot(3))])).await;
    assert_eq!(paths(&tracker.page(&at).await), ["c"]);
    tracker.end().await;

    let other = TestTracker::new().await;
    let page = other.page(&at).await;
    assert!(page.entries.is_empty() && page.epoch != before.epoch && page.epoch != 0);
}

/// P01, S01: bad names refuse the message; registers that are none are named, counted, and hide nothing.
#[tokio::test]
async fn hostile_entries() {
    let tracker = TestTracker::new().await;
    let (mut ann, mut eve) = (TestPeer::new(1), TestPeer::new(2));
    tracker.announce(ann.tell(vec![entry("a", ann.dot(1))])).await;
    let stolen = Dot { n: ann.dot(1).n + 7, ..ann.dot(1) };
    let mut body: Json = serde_json::from_slice(
        &http_body_util::BodyExt::collect(
            eve.tell(vec![entry("good", eve.dot(1)), entry("a", stolen), entry("bad", eve.dot(2))]).into_body(),
        )
        .await
        .unwrap()
        .to_bytes(),
    )
    .unwrap();
    let id = eve.message.peer_id;
    body["index"][2]["register"] = json!({"seen": {id.to_string(): u64::MAX}});
    let reply = tracker.announce(eve.request(body.to_string())).await;
    assert_eq!(reply["index_refused"], json!([{"path": "a", "why": "ahead"}, {"path": "bad", "why": "unreadable"}]));
    assert_eq!(paths(&tracker.page("").await), ["a", "good"]);
    assert_eq!(tracker.get("/v1/stats").await.json["n_index_refused"], 2);
    for bad in [json!([7]), json!([{}]), json!([{"path": "x"}]), json!([{"register": {"seen": {}}}]), json!({})] {
        body["index"] = bad.clone();
        body["seq"] = (body["seq"].as_u64().unwrap() + 1).into();
        let answer = tracker.send(eve.request(body.to_string())).await;
        assert!(matches!(answer.status.as_u16(), 200 | 400 | 422), "{bad}: {answer:?}");
    }
    // Nobody else's word is changed by what eve said of ann, and ann goes on.
    tracker.announce(ann.tell(vec![entry("a2", ann.dot(2))])).await;
    assert_eq!(paths(&tracker.page("").await), ["a", "good", "a2"]);
    // Too many at once are too many, whatever kind they are.
    let many: Vec<_> = (0..10_001).map(|n| entry(&format!("m{n}"), ann.dot(3))).collect();
    assert_eq!(tracker.send(ann.tell(many)).await.slug(), "too-many-entries");
}

/// 100,000 entries in and out, in pages.
#[tokio::test]
async fn a_large_folder() {
    let tracker = TestTracker::new().await;
    let mut ann = TestPeer::new(1);
    let began = Instant::now();
    for page in 0..10_u64 {
        let entries = (0..10_000).map(|n| {
            let n = page * 10_000 + n;
            entry(&format!("folder{:03}/a file of some name {n:06}.txt", n % 500), ann.dot(n + 1))
        });
        let entries = entries.collect();
        tracker.announce(ann.tell(entries)).await;
    }
    let told = began.elapsed();
    let (mut at, mut n, mut n_pages) = (String::new(), 0, 0);
    loop {
        let page = tracker.page(&at).await;
        at = format!("epoch={}&after={}", page.epoch, page.seq);
        n += page.entries.items.len();
        n_pages += 1;
        if !page.more {
            break;
        }
    }
    eprintln!("told in {told:?}, all in {:?}, {n_pages} pages", began.elapsed());
    assert_eq!(n, 100_000);
    assert!((10..=20).contains(&n_pages), "{n_pages}");
    let absent = PeerId::from_bytes([9; 16]);
    tracker.announce(ann.tell(vec![entry("z", Dot { by: absent, n: 1 })])).await;
    assert_eq!(paths(&tracker.page(&at).await), ["z"]);
}

/// Who lacks what, with conflict copies under the names where they lie; a peer that only sends lacks nothing.
#[tokio::test]
async fn the_matrix() {
    use potluck_common::ContentId;
    use potluck_common::register::FileValue;
    let tracker = TestTracker::new().await;
    let (mut ann, mut ben, mut cat) = (TestPeer::new(1), TestPeer::new(2), TestPeer::new(3));
    let file = |content: &[u8], mtime_ns| {
        let content_id = ContentId::of(content);
        Value::File(FileValue { mtime_ns, content_id, len: content.len() as u64, executable: false })
    };
    let mut both = Register::default();
    both.write(ann.dot(1), &[], file(b"old", 1));
    both.write(ann.dot(2), &[], file(b"notes", 2));
    let mut gone = Register::default();
    gone.write(ann.dot(3), &[], file(b"gone", 3));
    gone.remove(&[ann.dot(3)]);
    let mut song = Register::default();
    song.write(ann.dot(4), &[], file(b"music/a", 4));
    let entries = [("notes", both), ("gone", gone), ("music/a", song)];
    let entries = entries.map(|(path, register)| IndexEntry { path: path.parse().unwrap(), register });
    tracker.announce(ann.tell(entries.into())).await;
    ben.message.sync = Some(SyncMode::Receive);
    cat.message.sync = Some(SyncMode::Send);
    tracker.announce(ann.add(&["notes", "music/a"])).await;
    tracker.announce(ben.add(&["notes"])).await;
    tracker.announce(cat.add(&[])).await;
    tracker.announce(TestPeer::new(4).add(&["notes"])).await;

    let matrix = tracker.get("/v1/matrix").await.json;
    let names: Vec<_> = matrix["peers"].as_array().unwrap().iter().map(|peer| &peer["name"]).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    let copy = format!("notes.conflict-{}", &ContentId::of(b"old").to_string()[..8]);
    let id = |content: &str| ContentId::of(content.as_bytes());
    let song = json!({"path": "music/a", "content_id": id("music/a"), "len": 7, "n_held": 1, "lacking": [1]});
    let notes = json!({"path": "notes", "content_id": id("notes"), "len": 5, "n_held": 2});
    let old = json!({"path": copy, "content_id": id("old"), "len": 3, "n_held": 0, "lacking": [0, 1]});
    assert_eq!((&matrix["files"], &matrix["next"]), (&json!([song, notes, old]), &json!(null)));

    for (query, want) in [
        ("prefix=music/", json!([song])),
        ("prefix=mu", json!([song])),
        ("prefix=notes.conf", json!([old])),
        ("prefix=x", json!([])),
        ("after=music/a", json!([notes, old])),
        ("limit=99999999999", json!([song, notes, old])),
    ] {
        assert_eq!(tracker.get(&format!("/v1/matrix?{query}")).await.json["files"], want, "{query}");
    }
    let first = tracker.get("/v1/matrix?limit=1").await.json;
    assert_eq!((&first["files"], &first["next"]), (&json!([song]), &json!("music/a")));
    for bad in ["limit=x", "limit=-1", "prefix=a&prefix=b"] {
        assert_eq!(tracker.get(&format!("/v1/matrix?{bad}")).await.slug(), "bad-query", "{bad}");
    }
    // Who leaves is no longer asked of.
    tracker.announce(ben.say(potluck_common::protocol::AnnounceEvent::Stopped)).await;
    let matrix = tracker.get("/v1/matrix?prefix=music").await.json;
    assert_eq!((matrix["peers"].as_array().unwrap().len(), &matrix["files"][0]["lacking"]), (2, &Json::Null));
}
