//! The synced folder on the wire: pushing to a tracker, following its feed or those of peers, serving one's own. What the
//! entries do to a folder is not of interest here; the index behind the wire is a test's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use potluck_common::address::Reach;
use potluck_common::identity::Identity;
use potluck_common::net::host::HostPolicy;
use potluck_common::net::server;
use potluck_common::protocol::{GENERATION_SHIFT, IndexEntry, SyncMode, SyncPage};
use potluck_common::register::{Dot, Register, Value};
use potluck_common::{PeerId, SharePath};
use potluck_peer::buffers::BufferPool;
use potluck_peer::config::Config;
use potluck_peer::execute_sync::Sync;
use potluck_peer::limit::Throttle;
use potluck_peer::metrics::{Parts, PeerMetrics};
use potluck_peer::share::cache::HashCache;
use potluck_peer::share::folder::ShareFolder;
use potluck_peer::share::sharing::looks;
use potluck_peer::share::state::StateDir;
use potluck_peer::sync::trash::Trash;
use potluck_peer::wire::announce::{Announcer, Standing, Who};
use potluck_peer::wire::crowd::Crowd;
use potluck_peer::wire::digests::digests;
use potluck_peer::wire::feed::{FeedSource, Latest, SyncFeed, sync_feed};
use potluck_peer::wire::follow::{Feed, Follower, MAX_PULLED, Pulled, Source};
use potluck_peer::wire::mirrors::Mirrors;
use potluck_peer::wire::neighbours::Neighbours;
use potluck_peer::wire::pages::Pages;
use potluck_peer::wire::peer_client::PeerClient;
use potluck_peer::wire::people::People;
use potluck_peer::wire::push::PushQueue;
use potluck_peer::wire::serve::{Serve, router};
use potluck_peer::wire::tracker_client::TrackerClient;
use potluck_peer::wire::trackers::Announcing;
use reqwest::Url;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::{DEADLINE, Node, Tracker, eventually, quick};
use crate::hostile_tracker::HostileTracker;

fn entry(path: &str, by: PeerId, n: u64) -> IndexEntry {
    let mut register = Register::default();
    register.write(Dot { by, n: (1 << GENERATION_SHIFT) + n }, &[], Value::Folder);
    IndexEntry { path: path.parse().unwrap(), register }
}

fn paths(pulled: &Pulled) -> Vec<&str> {
    pulled.entries.iter().map(|entry| entry.path.as_str()).collect()
}

async fn next(pulled: &mut mpsc::Receiver<Pulled>) -> Pulled {
    tokio::time::timeout(DEADLINE, pulled.recv()).await.expect("a page comes").expect("the follower runs")
}

/// A tracker's client with short patience.
fn client(url: &str) -> TrackerClient {
    TrackerClient::new(url.parse().unwrap(), Duration::from_secs(5)).unwrap()
}

fn peer_client() -> PeerClient {
    PeerClient::new(Duration::from_secs(5), || Reach::SameHost).unwrap()
}

fn follower(feed: Feed) -> (Follower, mpsc::Receiver<Pulled>, watch::Receiver<Option<bool>>) {
    let (pages, pulled) = mpsc::channel(MAX_PULLED);
    let (answers, answering) = watch::channel(None);
    let follower =
        Follower { feed, pages, answers, retry_min: Duration::from_millis(20), retry_max: Duration::from_millis(200) };
    (follower, pulled, answering)
}

/// Announces and follows, as a peer that syncs does.
struct Wired {
    id: PeerId,
    push: Arc<PushQueue>,
    pulled: mpsc::Receiver<Pulled>,
    answers: watch::Receiver<Option<bool>>,
    _ends: DropGuard,
    _share: TempDir,
}

impl Wired {
    fn to(tracker: &str, name: &str) -> Self {
        let share = TempDir::new().unwrap();
        let config = quick(share.path(), tracker, name);
        let folder = Arc::new(ShareFolder::open(share.path()).unwrap());
        let state = Arc::new(StateDir::open(&folder).unwrap());
        let who = Arc::new(Who::new(Identity::from_secret(blake3::hash(name.as_bytes()).as_bytes()), 1, name.into()));
        let push = Arc::<PushQueue>::default();
        push.set_mode(Some(SyncMode::Both));
        let (id, shutdown) = (who.peer_id(), CancellationToken::new());
        let announcer = Announcer {
            tracker: client(tracker),
            who,
            library: Arc::default(),
            traffic: Arc::default(),
            live: Arc::default(),
            port: 7799,
            state,
            folder,
            standing: watch::Sender::new(Standing::default()),
            push: push.clone(),
            config,
        };
        tokio::spawn(announcer.run(shutdown.clone()));
        let (follower, pulled, answers) = follower(Feed::Tracker(client(tracker)));
        tokio::spawn(follower.run(shutdown.clone()));
        Self { id, push, pulled, answers, _ends: shutdown.drop_guard(), _share: share }
    }
}

/// An edit reaches a follower; a tracker that comes back with nothing gets it again, from whoever has it.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_reaches_a_follower() {
    let tracker = Tracker::start().await;
    let (ann, mut ben) = (Wired::to(&tracker.url, "ann"), Wired::to(&tracker.url, "ben"));
    let first = next(&mut ben.pulled).await;
    assert!(first.anew && first.is_all && first.entries.is_empty());
    let mut slowest = Duration::ZERO;
    for n in 1..=20 {
        let began = Instant::now();
        ann.push.push([entry(&format!("f{n}"), ann.id, n)]);
        let pulled = next(&mut ben.pulled).await;
        slowest = slowest.max(began.elapsed());
        assert_eq!(paths(&pulled), [format!("f{n}")]);
        assert!(!pulled.anew && pulled.is_all);
    }
    eprintln!("slowest of 20 edits: {slowest:?}");
    let peers = tracker.get("/v1/peers").await.unwrap();
    assert_eq!(peers["peers"][0]["sync"], "both");

    let mut life = ann.push.life();
    let before = *life.borrow_and_update();
    let address = tracker.stop().await;
    ben.answers.wait_for(|answers| *answers == Some(false)).await.unwrap();
    ann.push.push([entry("written while it was away", ann.id, 21)]);
    let tracker = Tracker::start_on(address).await;
    tokio::time::timeout(DEADLINE, life.wait_for(|life| *life != 0 && *life != before)).await.unwrap().unwrap();
    ann.push.push([entry("f1", ann.id, 1)]);
    let mut seen = Vec::new();
    let mut began_anew = false;
    while seen.len() < 2 {
        let pulled = next(&mut ben.pulled).await;
        began_anew |= pulled.anew;
        seen.extend(pulled.entries.into_iter().map(|entry| entry.path.to_string()));
    }
    seen.sort();
    assert_eq!(seen, ["f1", "written while it was away"]);
    assert!(began_anew && *ben.answers.borrow() == Some(true));
    drop(tracker);
}

/// 25,000 entries go out in several announces and come in in several pages, all of them once.
#[tokio::test(flavor = "multi_thread")]
async fn many_entries_go_in_pages() {
    let tracker = Tracker::start().await;
    let (ann, mut ben) = (Wired::to(&tracker.url, "ann"), Wired::to(&tracker.url, "ben"));
    ann.push.push((0..25_000).map(|n| entry(&format!("folder/{n:05}"), ann.id, n + 1)));
    tokio::time::timeout(DEADLINE, ann.push.room()).await.unwrap();
    let mut seen = BTreeMap::new();
    while seen.len() < 25_000 {
        for IndexEntry { path, register } in next(&mut ben.pulled).await.entries {
            assert_eq!(seen.insert(path, register), None);
        }
    }
}

fn page(epoch: u64, seq: u64, more: bool, entries: serde_json::Value) -> Option<serde_json::Value> {
    Some(json!({ "epoch": epoch, "seq": seq, "more": more, "entries": entries }))
}

/// P23, S01, S07 at the peer: whatever a tracker answers, good entries come through, the bad ones do not, and the follower lives.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_trackers() {
    let id = PeerId::from_bytes([1; 16]);
    let good = serde_json::to_value(entry("good", id, 1)).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let asked_anew = Arc::<Mutex<Vec<Instant>>>::default();
    let times = asked_anew.clone();
    let tracker = HostileTracker::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Some(json!("no page")),
        1 => Some(json!({ "epoch": -1, "seq": 1, "more": false, "entries": [] })),
        2 => page(0, 1, false, json!([good])),
        3 => page(5, 1, false, json!(vec![good.clone(); 10_001])),
        4 => None,
        5 => page(5, 0, true, json!([])),
        6 => page(5, 0, true, json!([])),
        7 => page(
            5,
            u64::MAX,
            true,
            json!([{ "path": "../x", "register": good["register"] }, 7, null, good,
            { "path": "huge", "register": { "seen": { id.to_string(): u64::MAX } } },
            { "path": ".potluck/identity", "register": good["register"] }]),
        ),
        // From here on its index begins anew with every answer.
        n => {
            times.lock().unwrap().push(Instant::now());
            page(n as u64, 1, false, json!([good]))
        }
    })
    .await;
    let (follower, mut pulled, answers) = follower(Feed::Tracker(client(&tracker.url)));
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(follower.run(shutdown.clone()));
    let first = next(&mut pulled).await;
    assert_eq!((paths(&first), first.anew, first.is_all), (vec![], true, false));
    let pulled_good = next(&mut pulled).await;
    assert_eq!((paths(&pulled_good), pulled_good.is_all), (vec!["good"], false));
    for _ in 0..5 {
        let again = next(&mut pulled).await;
        assert!(again.anew && paths(&again) == ["good"]);
    }
    // Each pause is twice the one before, less the jitter: 20, 40, 80, 160 ms. By the tracker's clock: our own may look late.
    let times = asked_anew.lock().unwrap().clone();
    assert!(times[4] - times[0] > Duration::from_millis(200), "{times:?}");
    assert_eq!(*answers.borrow(), Some(true));
    shutdown.cancel();
    tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap();
}

/// A peer that answers nonsense is left alone after a few tries, one that does not sync at once.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_peers() {
    for (answer, n_tries) in [(Some(json!([])), 3), (None, 1), (page(0, 0, true, json!([])), 3)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let hostile = HostileTracker::start(move |path| {
            assert_eq!(path, "/v1/sync");
            count.fetch_add(1, Ordering::SeqCst);
            answer.clone()
        })
        .await;
        let base: Url = hostile.url.parse().unwrap();
        let (follower, mut pulled, _) = follower(Feed::Peer(peer_client(), PeerId::from_bytes([2; 16]), base));
        tokio::time::timeout(DEADLINE, follower.run(CancellationToken::new())).await.unwrap();
        assert_eq!((asked.load(Ordering::SeqCst), pulled.recv().await), (n_tries, None));
    }
}

/// An index for tests: it answers what a feed asks.
fn keep(mut source: FeedSource, epoch: u64) -> mpsc::Sender<IndexEntry> {
    let (writes, mut written) = mpsc::channel::<IndexEntry>(8);
    tokio::spawn(async move {
        let mut log = Vec::<IndexEntry>::new();
        source.latest.send_replace(Some(Latest { epoch, seq: 0 }));
        loop {
            tokio::select! {
                entry = written.recv() => {
                    let Some(entry) = entry else { return };
                    log.push(entry);
                    source.latest.send_replace(Some(Latest { epoch, seq: log.len() as u64 }));
                }
                Some(ask) = source.asked.recv() => {
                    let from = usize::try_from(ask.after).unwrap();
                    let entries: Vec<_> = log[from..].iter().take(ask.limit).cloned().collect();
                    let seq = (from + entries.len()) as u64;
                    let more = seq < log.len() as u64;
                    let _ = ask.answer.send(SyncPage { epoch, seq, more, entries: entries.into() });
                }
            }
        }
    });
    writes
}

/// The routes of a peer that syncs.
pub(crate) fn routes(feed: SyncFeed, shutdown: CancellationToken) -> (axum::Router, TempDir) {
    let share = TempDir::new().unwrap();
    let folder = Arc::new(ShareFolder::open(share.path()).unwrap());
    let state = StateDir::open(&folder).unwrap();
    let serve = Serve {
        cache: Arc::new(HashCache::open(state.dir()).unwrap()),
        folder,
        library: Arc::default(),
        live: Arc::default(),
        crowd: Crowd::default(),
        handed: Arc::default(),
        slots: Arc::new(Semaphore::new(1)),
        n_slots: 1,
        slot_turn: Arc::default(),
        limit: Throttle::new(Config::default().limit_up),
        claims: Arc::new(Semaphore::new(1)),
        retry_after_s: 1,
        pool: BufferPool::new(1 << 10, 1),
        traffic: Arc::default(),
        look_again: looks().0,
        who: Arc::new(|| (PeerId::from_bytes([3; 16]), "served".into())),
        sync: Some(feed),
    };
    let (digests, _) = digests(serve.cache.clone(), serve.library.clone(), serve.folder.clone());
    let make = |_, _, _| unreachable!("it is with no tracker");
    let nobody = Announcing::new(false, Reach::SameHost, Duration::from_secs(1), make, shutdown.clone());
    let mirrors = Mirrors::new(nobody.trackers(), PeerId::from_bytes([3; 16]));
    let people = People { mirrors, digests, library: serve.library.clone() };
    let pages = Pages {
        who: Arc::new(Who::new(Identity::from_secret(&[3; 32]), 1, "served".into())),
        trackers: nobody.trackers(),
        library: serve.library.clone(),
        sharing: Arc::default(),
        live: serve.live.clone(),
        moving: Arc::default(),
        traffic: serve.traffic.clone(),
    };
    let sync = Sync { asks: mpsc::channel(1).0, trash: Arc::new(Trash::open(state.dir()).unwrap()) };
    let metrics = PeerMetrics::new(Parts {
        library: serve.library.clone(),
        sharing: Arc::default(),
        traffic: serve.traffic.clone(),
        slots: serve.slots.clone(),
        n_slots: serve.n_slots,
        moving: Arc::default(),
        trackers: nobody.trackers(),
        sync,
    });
    (router(serve, people, pages, metrics, HostPolicy::new(Vec::<String>::new())), share)
}

/// The same over a real socket.
async fn serve(feed: SyncFeed, shutdown: CancellationToken) -> (Url, TempDir) {
    let (router, share) = routes(feed, shutdown.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(server::run(listener, router, server::Limits::default(), shutdown));
    (base, share)
}

/// A peer's feed: pages, waiting, what cannot be asked, and the end of syncing.
#[tokio::test(flavor = "multi_thread")]
async fn a_peers_own_feed() {
    let (feed, source) = sync_feed();
    let shutdown = CancellationToken::new();
    let (base, _share) = serve(feed, shutdown.clone()).await;
    let ask = |query: String| {
        let url = format!("{base}v1/sync?{query}");
        async move {
            let response = crate::harness::http().get(url).send().await.unwrap();
            (response.status().as_u16(), response.json::<serde_json::Value>().await.unwrap())
        }
    };
    assert_eq!(ask(String::new()).await.0, 404, "nobody keeps an index yet");
    let writes = keep(source, 7);
    let id = PeerId::from_bytes([3; 16]);
    for n in 1..=3 {
        writes.send(entry(&format!("f{n}"), id, n)).await.unwrap();
    }
    eventually("three entries", async || ask(String::new()).await.1["seq"] == 3).await;
    let (_, first) = ask("limit=2".into()).await;
    assert_eq!(
        (&first["seq"], &first["more"], first["entries"].as_array().unwrap().len()),
        (&json!(2), &json!(true), 2)
    );
    let (_, rest) = ask("epoch=7&after=2".into()).await;
    assert_eq!((&rest["more"], &rest["entries"][0]["path"]), (&json!(false), &json!("f3")));
    for from_the_start in ["epoch=8&after=3&wait_ms=30000", "epoch=7&after=99", "limit=99999999999&epoch=7"] {
        assert_eq!(ask(from_the_start.into()).await.1["entries"].as_array().unwrap().len(), 3, "{from_the_start}");
    }
    assert_eq!(ask("epoch=7&after=3&wait_ms=1".into()).await.1["entries"], json!([]));
    for bad in ["epoch=x", "after=-1", "wait_ms=1e3", "after=1&after=2"] {
        let (status, problem) = ask(bad.into()).await;
        assert_eq!((status, &problem["type"]), (400, &json!("urn:potluck:problem:bad-query")), "{bad}");
    }
    // Held back until there is news, and at the end of the index answered at once.
    let waiting = tokio::spawn(ask("epoch=7&after=3&wait_ms=30000".into()));
    writes.send(entry("f4", id, 4)).await.unwrap();
    assert_eq!(tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap().1["entries"][0]["path"], "f4");
    let waiting = tokio::spawn(ask("epoch=7&after=4&wait_ms=30000".into()));
    drop(writes);
    tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap();
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_sync_has_no_feed() {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "plain", &[]).await;
    let response = crate::harness::http().get(format!("{}/v1/sync?wait_ms=30000", node.peer.listen_url()));
    let response = response.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 404);
}

/// F20: while no tracker answers, peers are followed; when one does, they are left alone.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_tracker_peers_are_followed() {
    let shutdown = CancellationToken::new();
    let _ends = shutdown.clone().drop_guard();
    let mut served = Vec::new();
    for n in 1..=3_u8 {
        let (feed, source) = sync_feed();
        let writes = keep(source, u64::from(n));
        let id = PeerId::from_bytes([n; 16]);
        writes.send(entry(&format!("of {n}"), id, 1)).await.unwrap();
        served.push((id, serve(feed, shutdown.clone()).await, writes));
    }
    let nobody = PeerId::from_bytes([9; 16]);
    let mut remembered: Vec<_> = served.iter().map(|(id, (base, _), _)| (*id, base.clone())).collect();
    remembered.push((nobody, "http://127.0.0.1:1".parse().unwrap()));
    let (pages, mut pulled) = mpsc::channel(MAX_PULLED);
    let (tracker, answers) = watch::channel(None);
    let (announces, standing) = watch::channel(Standing::default());
    let neighbours = Neighbours {
        trackers: vec![answers],
        standings: vec![standing],
        remembered: Arc::new(move || remembered.clone()),
        client: peer_client(),
        pages,
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(200),
    };
    let running = tokio::spawn(neighbours.run(shutdown.clone()));
    tracker.send_replace(Some(false));
    let mut seen = BTreeMap::<SharePath, Source>::new();
    while seen.len() < 3 {
        let Pulled { source, entries, .. } = next(&mut pulled).await;
        seen.extend(entries.into_iter().map(|entry| (entry.path, source.clone())));
    }
    assert!(seen.values().all(|source| *source != Source::Peer(nobody)));
    let (id, _, writes) = &served[0];
    writes.send(entry("news", *id, 2)).await.unwrap();
    assert_eq!(paths(&next(&mut pulled).await), ["news"]);
    // Whoever follows holds a sender of pages: when the two of whoever seeks peers are left, nobody is followed any more.
    tracker.send_replace(Some(true));
    eventually("peers are left alone", async || pulled.sender_strong_count() == 2).await;
    // A cut network: the feed is silent, as it is when there is no news, but the tracker takes no announce.
    announces.send_replace(Standing { reply: None, tried: true });
    assert_ne!(paths(&next(&mut pulled).await), [""; 0]);
    announces.send_replace(Standing::default());
    eventually("peers are left alone again", async || pulled.sender_strong_count() == 2).await;
    shutdown.cancel();
    tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap();
}
