//! Origins: one more owner of what is known, and what nobody holds yet, fetched once and spread.
//!
//! The origin is a real HTTP server in the test that counts what it sends and misbehaves as it is told.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use potluck_common::ContentId;
use potluck_peer::config::Config;
use potluck_peer::range::{Wanted, parse_range};
use potluck_peer::verb::{Download, Event, Failed, FailureKind, Finished, Verb};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::{Node, Tracker, eventually, noise, quick, root_with};

/// What an origin does.
#[derive(Clone, Default)]
struct Manners {
    /// It knows nothing of ranges.
    no_ranges: bool,
    /// It does not say how long the file is.
    no_len: bool,
    /// It sends so many bytes of each answer, and breaks off.
    breaks_off_after: Option<usize>,
    /// A byte of each answer's first piece is another.
    lies: bool,
    /// It answers with this status.
    status: Option<StatusCode>,
    /// It sends elsewhere.
    location: Option<String>,
    /// A pause between two pieces of 64 KiB.
    pause: Duration,
}

struct Inner {
    data: Mutex<(Arc<Vec<u8>>, u64)>,
    manners: Mutex<Manners>,
    n_sent: AtomicU64,
    n_asked: AtomicU64,
    /// Nothing more is sent while this is set.
    holds: AtomicBool,
}

struct Origin {
    base: String,
    inner: Arc<Inner>,
    _serving: AbortOnDropHandle<()>,
}

const PIECE: usize = 64 << 10;

impl Origin {
    async fn start(data: Vec<u8>, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            data: Mutex::new((Arc::new(data), 1)),
            manners: Mutex::new(manners),
            n_sent: AtomicU64::new(0),
            n_asked: AtomicU64::new(0),
            holds: AtomicBool::new(false),
        });
        let app = axum::Router::new().fallback(serve).with_state(inner.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { base, inner, _serving: AbortOnDropHandle::new(serving) }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn n_sent(&self) -> u64 {
        self.inner.n_sent.load(Ordering::Relaxed)
    }

    fn hold(&self, holds: bool) {
        self.inner.holds.store(holds, Ordering::Relaxed);
    }

    fn behave(&self, manners: Manners) {
        *self.inner.manners.lock().unwrap() = manners;
    }

    fn change(&self, data: Vec<u8>) {
        let mut state = self.inner.data.lock().unwrap();
        *state = (Arc::new(data), state.1 + 1);
    }
}

async fn serve(State(origin): State<Arc<Inner>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    origin.n_asked.fetch_add(1, Ordering::Relaxed);
    let manners = origin.manners.lock().unwrap().clone();
    let (data, version) = origin.data.lock().unwrap().clone();
    let mut response = Response::builder();
    if let Some(location) = manners.location.filter(|_| uri.path() != "/there") {
        return response.status(302).header(header::LOCATION, location).body(Body::empty()).unwrap();
    }
    if let Some(status) = manners.status {
        return response.status(status).body(Body::from("no")).unwrap();
    }
    let tag = format!("\"{version}\"");
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_same = text(header::IF_RANGE).is_none_or(|known| known == tag);
    let len = data.len() as u64;
    let range = match parse_range(text(header::RANGE), len) {
        Wanted::Bytes(range) if is_same && !manners.no_ranges => {
            response = response.status(206);
            let value = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            response = response.header(header::CONTENT_RANGE, value);
            range
        }
        Wanted::Unsatisfiable if is_same && !manners.no_ranges => {
            let value = format!("bytes */{len}");
            return response.status(416).header(header::CONTENT_RANGE, value).body(Body::empty()).unwrap();
        }
        _ => 0..len,
    };
    response = response.header(header::ETAG, tag);
    if !manners.no_len {
        response = response.header(header::CONTENT_LENGTH, range.end - range.start);
    }
    let (mut at, end) = (range.start as usize, range.end as usize);
    let until = manners.breaks_off_after.map_or(end, |n| (at + n).min(end));
    let mut lies = manners.lies;
    let body = async_pieces(move |sent| {
        let (origin, data) = (origin.clone(), data.clone());
        if sent > 0 {
            origin.n_sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
        let from = at;
        at = (at + PIECE).min(until);
        let mut piece = data[from..at].to_vec();
        if let Some(first) = piece.first_mut().filter(|_| std::mem::take(&mut lies)) {
            *first ^= 1;
        }
        async move {
            while origin.holds.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(manners.pause).await;
            match piece.len() {
                0 if from < end => Some(Err(std::io::Error::other("breaks off"))),
                0 => None,
                _ => Some(Ok(Bytes::from(piece))),
            }
        }
    });
    response.body(body).unwrap()
}

/// A body of pieces, each made when the one before has been taken, and told how long that was.
fn async_pieces<F>(mut next: impl FnMut(usize) -> F + Send + 'static) -> Body
where
    F: Future<Output = Option<std::io::Result<Bytes>>> + Send + 'static,
{
    let first = next(0);
    Body::from_stream(futures::stream::unfold((Some(first), next), |(piece, mut next)| async move {
        let piece = piece?.await?;
        let sent = piece.as_ref().map_or(0, Bytes::len);
        let after = piece.is_ok().then(|| next(sent));
        Some((piece, (after, next)))
    }))
}

fn ask(names: &[&str], url: &str) -> Download {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Download { names, origin: Some(url.parse().unwrap()), ..Download::default() }
}

async fn fetch(node: &Node, request: Download) -> (Vec<Event>, Result<Finished, Failed>) {
    let (events, outcome) = node.run(Verb::Download(request)).await;
    let finished = events.iter().find_map(|event| match event {
        Event::Finished(finished) => Some(finished.clone()),
        _ => None,
    });
    let outcome = outcome.map(|()| finished.expect("what is done has finished"));
    (events, outcome)
}

fn notices(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Notice { message } => Some(message.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// Retries come quickly.
fn patient(share: &Path, tracker: &str, name: &str) -> Config {
    let (origin_timeout, origin_pause) = (Duration::from_secs(2), Duration::from_millis(20));
    Config { origin_timeout, origin_pause, ..quick(share, tracker, name) }
}

async fn start(tracker: &Tracker, name: &str) -> Node {
    Node::start_on(root_with(&[]), |share| patient(share, &tracker.url, name)).await.unwrap()
}

/// Four peers ask for the same at once: the origin sends one copy, of a small file and of a large one.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_holds_is_fetched_once() {
    for len in [1_000, 6 << 20] {
        let tracker = Tracker::start().await;
        let data = noise(len, 1);
        let origin = Origin::start(data.clone(), Manners::default()).await;
        let mut nodes = Vec::new();
        for n in 0..4 {
            nodes.push(start(&tracker, &format!("node{n}")).await);
        }
        let request = ask(&[], &origin.url("a/file.bin?x=1"));
        let outcomes = futures::future::join_all(nodes.iter().map(|node| fetch(node, request.clone()))).await;
        let mut n_from_origin = 0;
        for (node, (_, finished)) in nodes.iter().zip(outcomes) {
            let finished = finished.unwrap();
            assert_eq!((finished.content_id, finished.len), (ContentId::of(&data), len as u64));
            assert!(node.read("file.bin").unwrap() == data);
            n_from_origin += u32::from(finished.from.iter().any(|share| origin.base.ends_with(&share.name)));
            node.is_well().await;
        }
        assert_eq!(n_from_origin, 1);
        // What says that ranges are given is one byte.
        let n_sent = origin.n_sent();
        assert!((len as u64..len as u64 + 4).contains(&n_sent), "{n_sent} of {len}");
        tracker.wait_for_owners(ContentId::of(&data), 4).await;
    }
}

/// The one that fetches ends: another one takes over.
#[tokio::test(flavor = "multi_thread")]
async fn another_one_takes_over() {
    let tracker = Tracker::start().await;
    let data = noise(3 << 20, 2);
    let origin = Origin::start(data.clone(), Manners::default()).await;
    let (a, b) = (start(&tracker, "a").await, start(&tracker, "b").await);
    let request = ask(&[], &origin.url("file.bin"));
    origin.hold(true);
    let first = a.peer.run(Verb::Download(request.clone()));
    eventually("the first one asks", async || !a.status().await.downloads.is_empty()).await;
    let second = tokio::spawn(async move { (fetch(&b, request).await.1, b) });
    let (url, bids) = (origin.url("file.bin").parse::<potluck_peer::origin::url::OriginUrl>().unwrap(), "file.bin");
    let bids = format!("/v1/content/{}", url.bid_id(&bids.parse().unwrap()));
    eventually("both bid", async || tracker.get(&bids).await.is_some_and(|info| info["n_partial"] == 2)).await;
    drop(first);
    origin.hold(false);
    let (finished, b) = second.await.unwrap();
    assert_eq!(finished.unwrap().content_id, ContentId::of(&data));
    assert!(b.read("file.bin").unwrap() == data && a.read("file.bin").is_none());
    eventually("nobody bids any more", async || tracker.get(&bids).await.is_none()).await;
}

/// One more owner of what is known: bytes come from both, and wrong ones of the origin are found out.
#[tokio::test(flavor = "multi_thread")]
async fn one_more_owner() {
    let tracker = Tracker::start().await;
    let data = noise(16 << 20, 3);
    let id = ContentId::of(&data);
    // Slow enough for the origin to be needed.
    let slow = |share: &Path| Config { limit_up: "8M".parse().unwrap(), ..quick(share, &tracker.url, "owner") };
    let _owner = Node::start_on(root_with(&[("file.bin", &data)]), slow).await.unwrap();
    tracker.wait_for_owners(id, 1).await;
    let origin = Origin::start(data.clone(), Manners::default()).await;
    let honest = start(&tracker, "honest").await;
    let finished = fetch(&honest, ask(&["file.bin"], &origin.url("other-name"))).await.1.unwrap();
    assert!(honest.read("file.bin").unwrap() == data);
    assert_eq!(finished.from.len(), 2, "{:?}", finished.from);
    drop(honest.stop().await);
    origin.behave(Manners { lies: true, ..Manners::default() });
    let deceived = start(&tracker, "deceived").await;
    let finished = fetch(&deceived, ask(&[&id.to_string()], &origin.url("x"))).await.1.unwrap();
    assert!(deceived.read("file.bin").unwrap() == data);
    assert_eq!(finished.content_id, id);
    origin.change(noise(5, 4));
    let told = start(&tracker, "told").await;
    let (events, finished) = fetch(&told, ask(&["file.bin"], &origin.url("x"))).await;
    assert!(told.read("file.bin").unwrap() == data && finished.unwrap().from.iter().any(|share| share.name == "owner"));
    assert!(notices(&events).contains("it is not asked"), "{events:?}");
    // Only the URL was named, and what the swarm calls so is something else.
    let unsure = start(&tracker, "unsure").await;
    let failed = fetch(&unsure, ask(&[], &origin.url("file.bin"))).await.1.unwrap_err();
    assert_eq!(failed.kind, FailureKind::Usage, "{failed:?}");
}

/// A content id that nobody holds: what the origin gives is compared with it before it gets a name.
#[tokio::test(flavor = "multi_thread")]
async fn by_content_id_alone() {
    let tracker = Tracker::start().await;
    let data = noise(700_000, 5);
    let id = ContentId::of(&data);
    let origin = Origin::start(data.clone(), Manners { lies: true, ..Manners::default() }).await;
    let node = start(&tracker, "node").await;
    for name in [id.to_string(), format!("file.bin@{}", id.short())] {
        origin.behave(Manners { lies: true, ..Manners::default() });
        let failed = fetch(&node, ask(&[&name], &origin.url("file.bin"))).await.1.unwrap_err();
        assert_eq!(failed.kind, FailureKind::Unverified, "{failed:?}");
        assert_eq!((node.read("file.bin"), node.n_partial()), (None, 0));
        origin.behave(Manners::default());
        assert_eq!(fetch(&node, ask(&[&name], &origin.url("file.bin"))).await.1.unwrap().content_id, id);
        assert!(node.read("file.bin").unwrap() == data);
        std::fs::remove_file(node.share().join("file.bin")).unwrap();
        tracker.wait_for_owners(id, 0).await;
    }
    node.is_well().await;
}

/// Origins as they are: without ranges, without a length, that break off, that redirect, with an empty file.
#[tokio::test(flavor = "multi_thread")]
async fn origins_of_all_kinds() {
    let tracker = Tracker::start().await;
    let data = noise(900_000, 6);
    let node = start(&tracker, "node").await;
    let origin = Origin::start(data.clone(), Manners::default()).await;
    let there = || Some("/there".to_owned());
    let kinds = [
        ("plain", Manners::default()),
        ("no-ranges", Manners { no_ranges: true, ..Manners::default() }),
        ("no-len", Manners { no_len: true, ..Manners::default() }),
        ("neither", Manners { no_len: true, no_ranges: true, ..Manners::default() }),
        ("breaks-off", Manners { breaks_off_after: Some(200_000), ..Manners::default() }),
        ("redirects", Manners { location: there(), ..Manners::default() }),
    ];
    for (name, manners) in kinds {
        origin.behave(manners);
        let (events, finished) = fetch(&node, ask(&[name], &origin.url("x"))).await;
        assert_eq!(finished.unwrap().len, data.len() as u64, "{name} {events:?}");
        assert!(node.read(name).unwrap() == data, "{name}");
    }
    origin.behave(Manners::default());
    origin.change(Vec::new());
    assert_eq!(fetch(&node, ask(&["empty"], &origin.url("x"))).await.1.unwrap().len, 0);
    assert_eq!((node.read("empty"), node.n_partial()), (Some(Vec::new()), 0));
}

/// What cannot be had is said with what to do; nothing is left over.
#[tokio::test(flavor = "multi_thread")]
async fn origins_that_give_nothing() {
    let tracker = Tracker::start().await;
    let node = start(&tracker, "node").await;
    let origin = Origin::start(noise(10, 7), Manners::default()).await;
    let kinds = [
        (Manners { status: Some(StatusCode::NOT_FOUND), ..Manners::default() }, FailureKind::NotFound),
        (Manners { status: Some(StatusCode::UNAUTHORIZED), ..Manners::default() }, FailureKind::Failed),
        (Manners { status: Some(StatusCode::BAD_GATEWAY), ..Manners::default() }, FailureKind::Unreachable),
        (Manners { location: Some("file:///etc/passwd".into()), ..Manners::default() }, FailureKind::Failed),
        (Manners { location: Some("/circle".into()), ..Manners::default() }, FailureKind::Failed),
        (Manners { breaks_off_after: Some(0), ..Manners::default() }, FailureKind::Unreachable),
    ];
    for (manners, want) in kinds {
        origin.behave(manners);
        let failed = fetch(&node, ask(&["x"], &origin.url("x"))).await.1.unwrap_err();
        assert!(failed.kind == want && !failed.hint.is_empty(), "{failed:?}");
        assert_eq!(node.read("x"), None);
    }
    origin.behave(Manners::default());
    for bad in ["", "a/", "%2e%2e%2fx", ".potluck"] {
        let failed = fetch(&node, ask(&[], &origin.url(bad))).await.1.unwrap_err();
        assert_eq!(failed.kind, FailureKind::Usage, "{bad} {failed:?}");
    }
    let gone = origin.url("x");
    drop(origin);
    assert_eq!(fetch(&node, ask(&["x"], &gone)).await.1.unwrap_err().kind, FailureKind::Unreachable);
    node.is_well().await;
}

/// A download that is cut goes on where it was, and begins anew if the file is another one by then.
#[tokio::test(flavor = "multi_thread")]
async fn goes_on_and_notices_a_change() {
    let tracker = Tracker::start().await;
    let (old, new) = (noise(4 << 20, 8), noise(4 << 20, 9));
    let origin = Origin::start(old.clone(), Manners::default()).await;
    for is_changed in [false, true] {
        let pause = Duration::from_millis(20);
        origin.behave(Manners { pause, ..Manners::default() });
        let root = root_with(&[]);
        let config = |share: &Path| patient(share, &tracker.url, "node");
        let node = Node::start_on(root, config).await.unwrap();
        let request = ask(&["file.bin"], &origin.url("x"));
        let running = node.peer.run(Verb::Download(request.clone()));
        eventually("half of it is here", async || {
            node.status().await.downloads.first().is_some_and(|transfer| transfer.n_bytes >= 2 << 20)
        })
        .await;
        drop(running);
        eventually("it is given up", async || node.status().await.downloads.is_empty()).await;
        origin.behave(Manners::default());
        let before = origin.n_sent();
        if is_changed {
            origin.change(new.clone());
        }
        // A peer that starts again goes on by itself.
        let node = Node::start_on(node.stop().await, config).await.unwrap();
        let want = if is_changed { &new } else { &old };
        eventually("it is there", async || node.read("file.bin").is_some()).await;
        assert!(node.read("file.bin").as_ref() == Some(want), "changed: {is_changed}");
        eventually("nothing is left over", async || node.n_partial() == 0).await;
        let n_sent = origin.n_sent() - before;
        assert_eq!(n_sent >= 4 << 20, is_changed, "{n_sent}");
        drop(node.stop().await);
        eventually("it is not listed", async || tracker.names().await.is_empty()).await;
    }
}

/// To another place, where it is of no use to others; and at most so fast.
#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_and_slowly() {
    let tracker = Tracker::start().await;
    let data = noise(1 << 20, 10);
    let origin = Origin::start(data.clone(), Manners::default()).await;
    let limited =
        |share: &Path| Config { limit_down: "1M".parse().unwrap(), ..patient(share, &tracker.url, "limited") };
    let node = Node::start_on(root_with(&[]), limited).await.unwrap();
    let output = Some(node.beside("out"));
    let started = std::time::Instant::now();
    let finished = fetch(&node, Download { output, ..ask(&[], &origin.url("file.bin")) }).await.1.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(finished.path, node.beside("out"));
    assert!(std::fs::read(node.beside("out")).unwrap() == data);
    assert_eq!((node.read("file.bin"), tracker.names().await), (None, Vec::new()));
    assert_eq!(node.n_partial(), 0);
}
