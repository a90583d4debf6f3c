//! The pages: what they say, that they say it without scripts, and that no name gets out of its place.

use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use potluck_common::net::page::POLICY;
use potluck_common::protocol::{Activity, AnnounceEvent, Flow, PartialEntry, Rates};
use potluck_common::{ContentId, Geometry, HaveSet, protocol};
use tower::ServiceExt;

use crate::support::{TestPeer, TestTracker, get};

/// What a page answers, after a look at what every page has.
async fn page(tracker: &TestTracker, uri: &str) -> (StatusCode, String) {
    let mut request: Request<_> = get(uri);
    let from: std::net::SocketAddr = "10.0.0.7:50000".parse().unwrap();
    request.extensions_mut().insert(axum::extract::ConnectInfo(from));
    let response = tracker.router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    assert_eq!(parts.headers[header::CONTENT_TYPE], "text/html; charset=utf-8", "{uri}");
    assert_eq!(parts.headers[header::CONTENT_SECURITY_POLICY], POLICY);
    assert_eq!(parts.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(parts.headers[header::REFERRER_POLICY], "no-referrer");
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    for inline in ["<script>", " style=\"", "<style", " onclick=\"", "=\"javascript:"] {
        assert!(!text.contains(inline), "{inline} in {text}");
    }
    (parts.status, text)
}

async fn dashboard(tracker: &TestTracker, query: &str) -> String {
    let (status, text) = page(tracker, &format!("/{query}")).await;
    assert_eq!(status, StatusCode::OK);
    text
}

#[tokio::test]
async fn an_empty_swarm_says_what_to_do() {
    let tracker = TestTracker::new().await;
    let text = dashboard(&tracker, "").await;
    assert!(
        text.contains("Nobody is here yet") && text.contains("potluck --tracker http://127.0.0.1:7700 up"),
        "{text}"
    );
    assert!(text.contains("No files yet") && text.contains("potluck up"), "{text}");
}

#[tokio::test]
async fn totals_files_search_and_pages() {
    let tracker = TestTracker::new().await;
    let names: Vec<_> = (0..120).map(|n| format!("dir/file-{n:03}.txt")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    tracker.announce(TestPeer::new(1).add(&names)).await;
    tracker.announce(TestPeer::new(2).add(&["menü.pdf"])).await;
    let text = dashboard(&tracker, "").await;
    assert!(text.contains("<dd>121</dd>") && text.contains("node1") && text.contains("node2"), "{text}");
    assert!(text.contains("/files/dir/file-000.txt") && !text.contains("file-050.txt"), "{text}");
    let next = "/?q=&amp;after=dir%2Ffile-049.txt#files";
    assert!(text.contains(next), "{text}");
    let text = dashboard(&tracker, "?q=&after=dir%2Ffile-049.txt").await;
    assert!(text.contains("file-050.txt") && !text.contains("file-049.txt"), "{text}");
    let text = dashboard(&tracker, "?q=MEN%C3%9C").await;
    assert!(text.contains("/files/men%C3%BC.pdf") && !text.contains("file-0"), "{text}");
    let text = dashboard(&tracker, "?q=%3Cb%3E").await;
    assert!(text.contains("&lt;b&gt;") && text.contains("Show all files"), "{text}");
}

/// However many there are: the pages lead to each peer once, also where several have one name, and each page is bounded.
#[tokio::test]
async fn all_peers_page_by_page() {
    let tracker = TestTracker::new().await;
    for n in 0..250 {
        let mut peer = TestPeer::new(n);
        peer.message.name = if n < 150 { "one & the same".into() } else { format!("other{n}") };
        tracker.announce(peer.add(&[])).await;
    }
    let text = dashboard(&tracker, "").await;
    assert!(text.contains("and 226 peers that move less") && text.contains("href=\"/peers\""), "{text}");
    let (mut uri, mut seen) = ("/peers".to_owned(), Vec::new());
    for n_on_page in [100, 100, 50] {
        let (status, text) = page(&tracker, &uri).await;
        assert_eq!(status, StatusCode::OK);
        let keys: Vec<_> = text.split("<li data-key=\"").skip(1).map(|row| row[..32].to_owned()).collect();
        assert_eq!(keys.len(), n_on_page, "{uri}");
        assert!(text.contains("250 peers"), "{text}");
        seen.extend(keys);
        let next = text.split_once("rel=\"next\" href=\"").map(|(_, rest)| rest.split_once('"').unwrap().0);
        uri = next.map(|next| next.replace("&amp;", "&")).unwrap_or_default();
    }
    assert_eq!(uri, "", "there are no more");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 250);
    let (_, text) = page(&tracker, "/peers?q=OTHER17").await;
    assert!(text.matches("<li data-key").count() == 10 && text.contains("other179"), "{text}");
    let (_, text) = page(&tracker, "/peers?q=%3Cb%3E").await;
    assert!(text.contains("&lt;b&gt;") && text.contains("Show all peers"), "{text}");
    let (_, text) = page(&tracker, "/peers?q=&after=zzz").await;
    assert!(text.contains("From the start"), "{text}");
    let (_, text) = page(&tracker, "/peers").await;
    assert!(text.contains("one &amp; the same"), "{text}");
}

/// P24, H07: names of files and peers, in text, attributes and addresses.
#[tokio::test]
async fn names_stay_where_they_are() {
    let tracker = TestTracker::new().await;
    let nasty = ["<script>alert(1)<|script>", "\"><img src=x onerror=alert(1)>", "a' onclick='x", "exe.\u{202e}gpj"];
    let nasty = nasty.map(|name| name.replace('|', "\u{2215}"));
    let names: Vec<_> = nasty.iter().map(String::as_str).collect();
    let mut peer = TestPeer::new(1);
    peer.message.name = "<img src=x>\"'&".into();
    tracker.announce(peer.add(&names)).await;
    let mut pages = vec![dashboard(&tracker, "").await, dashboard(&tracker, "?q=%22%3E%3Cscript%3E").await];
    for name in &names {
        let (status, text) = page(&tracker, &format!("/files/{}", potluck_common::percent::path(name))).await;
        assert_eq!(status, StatusCode::OK, "{name}");
        pages.push(text);
    }
    for text in pages {
        for raw in ["<script>alert", "<img src=x", "\u{202e}"] {
            assert!(!text.contains(raw), "{raw:?} in {text}");
        }
    }
}

#[tokio::test]
async fn a_file_and_who_holds_which_part() {
    let tracker = TestTracker::new().await;
    let len = 300 << 18;
    let geometry = Geometry::new(len).unwrap();
    let id = ContentId::of(b"feast");
    let mut owner = TestPeer::new(1);
    owner.add_body(&["big/feast one.bin"]);
    (owner.message.added[0].content_id, owner.message.added[0].len) = (id, len);
    tracker.announce(owner.request(owner.body())).await;
    let mut have = HaveSet::empty(geometry);
    (0..150).for_each(|chunk| assert!(have.insert(geometry.index(chunk).unwrap())));
    let mut leecher = TestPeer::new(2);
    leecher.add_body(&[]);
    leecher.message.revision = 1;
    leecher.message.partial = vec![PartialEntry { content_id: id, len, n_chunks: 150 }];
    leecher.message.rates = Rates { up: 0, down: 5 << 20 };
    let flow = Flow { from: owner.message.peer_id, content_id: id, rate: 5 << 20 };
    let progress = protocol::Progress { content_id: id, parts: protocol::Parts::of(&have, geometry) };
    leecher.message.activity = Activity { flows: vec![flow].into(), progress: vec![progress].into() };
    tracker.announce(leecher.request(leecher.body())).await;
    let (status, text) = page(&tracker, "/files/big/feast%20one.bin").await;
    assert_eq!(status, StatusCode::OK);
    for said in [
        "75 MiB",
        "300 × 256 KiB",
        "1 complete, 1 fetching",
        &id.to_string(),
        "href=\"/f/big/feast%20one.bin\"",
        "href=\"/f/big/feast%20one.bin.meta4\"",
        "href=\"/f/big/feast%20one.bin.torrent\"",
        "potluck download 'big/feast one.bin'",
        "curl -LOJ 'http://127.0.0.1:7700/f/big/feast%20one.bin'",
        "50 %",
        // The first half of 128 stretches, whole.
        r#"<rect x="0" y="0" width="64" height="1" fill-opacity="1.00">"#,
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    let text = dashboard(&tracker, "").await;
    assert!(text.contains("node1 → node2, 5.0 MiB/s"), "{text}");
    // What the receiver no longer tells of is over, and so is what comes from nobody.
    tracker.announce(owner.say(AnnounceEvent::Stopped)).await;
    assert!(!dashboard(&tracker, "").await.contains("node1 →"));
    leecher.message.activity = Activity::default();
    leecher.message.partial = vec![];
    tracker.announce(leecher.say(AnnounceEvent::Heartbeat)).await;
    let (_, text) = page(&tracker, "/files/big/feast%20one.bin").await;
    assert!(text.contains("Nobody who is here shares"), "{text}");
}

#[tokio::test]
async fn several_versions_are_told_apart() {
    let tracker = TestTracker::new().await;
    for (n, bytes) in [(1, b"one"), (2, b"two")] {
        let mut peer = TestPeer::new(n);
        peer.add_body(&["notes"]);
        peer.message.added[0].content_id = ContentId::of(bytes);
        tracker.announce(peer.request(peer.body())).await;
    }
    let (_, text) = page(&tracker, "/files/notes").await;
    for bytes in [b"one", b"two"] {
        let id = ContentId::of(bytes);
        assert!(text.contains(&format!("/f/notes?content={id}")), "{text}");
        assert!(text.contains(&format!("potluck download {id}")), "{text}");
    }
}

#[tokio::test]
async fn what_is_not_there() {
    let tracker = TestTracker::new().await;
    for uri in ["/files/nope", "/files/%3Cscript%3E", "/files/%ff", "/files/..%2f"] {
        let (status, text) = page(&tracker, uri).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{uri}");
        assert!(text.contains("Not here"), "{text}");
    }
    let mut post = get("/");
    *post.method_mut() = axum::http::Method::POST;
    assert_eq!(tracker.send(post).await.slug(), "method-not-allowed");
    let answer = tracker.get("/assets/potluck.css").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/css; charset=utf-8");
    let mut again = get("/assets/potluck.css");
    again.headers_mut().insert(header::IF_NONE_MATCH, answer.headers[header::ETAG].clone());
    assert_eq!(tracker.send(again).await.status, StatusCode::NOT_MODIFIED);
}
