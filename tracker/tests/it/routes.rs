//! Every route, and everything that can be wrong with what is sent to it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use futures::StreamExt;
use http_body_util::BodyExt;
use potluck_common::ContentId;
use potluck_common::identity::SIGNATURE_HEADER;
use potluck_common::protocol::{Announce, AnnounceEvent, MAX_ANNOUNCE_LEN, PartialEntry};
use potluck_tracker::{Config, RateLimits};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{TestPeer, TestTracker, get, post};

#[tokio::test]
async fn what_is_announced_is_found() {
    let tracker = TestTracker::new().await;
    let (mut ann, mut ben) = (TestPeer::new(1), TestPeer::new(2));
    let reply = tracker.announce(ann.add(&["music/a.ogg", "notes"])).await;
    assert_eq!(
        reply,
        json!({"heartbeat_ms": 5000, "lease_ms": 15000, "seen": "10.0.0.7", "base_url": "http://10.0.0.7:7701",
            "revision": 1, "resync": false, "index_epoch": reply["index_epoch"]})
    );
    tracker.announce(ben.add(&["notes"])).await;
    let id = ContentId::of(b"music/a.ogg");
    ben.message.partial = vec![PartialEntry { content_id: id, len: 11, n_chunks: 1 }];
    ben.message.seq += 1;
    (ben.message.base, ben.message.revision) = (1, 2);
    ben.message.added.clear();
    tracker.announce(ben.request(ben.body())).await;

    let some = async |max: u32| {
        let some = tracker.get(&format!("/v1/peers?max={max}")).await;
        some.json["peers"].as_array().unwrap().len()
    };
    assert_eq!((some(0).await, some(1).await, some(9).await), (0, 1, 2));
    let peers = tracker.get("/v1/peers").await;
    let peer = &peers.json["peers"][0];
    for (key, want) in [
        ("peer_id", json!(ann.message.peer_id)),
        ("name", json!("node1")),
        ("base_url", json!("http://10.0.0.7:7701")),
        ("address", json!("10.0.0.7")),
        ("port", json!(7701)),
        ("n_files", json!(2)),
        ("n_bytes", json!(16)),
    ] {
        assert_eq!(peer[key], want, "{key}");
    }
    assert!(peer["since_ms"].as_u64().unwrap() > 1_700_000_000_000 && peer["seen_ms"].is_u64());
    assert_eq!(tracker.get(&format!("/v1/peers/{}", ann.message.peer_id)).await.json, *peer);

    let files = tracker.get("/v1/files").await.json;
    assert_eq!(files["files"][0]["path"], "music/a.ogg");
    let content = &files["files"][0]["contents"][0];
    assert_eq!((&content["n_owners"], &content["n_partial"], &content["len"]), (&json!(1), &json!(1), &json!(11)));
    assert_eq!(files["files"][1]["contents"][0]["n_owners"], 2);
    assert_eq!(files["next"], Value::Null);
    let file = tracker.get("/v1/files/music/a.ogg").await.json;
    assert_eq!(file["contents"][0]["owners"].as_array().unwrap().len(), 2);
    let content = tracker.get(&format!("/v1/content/{id}")).await.json;
    assert_eq!((&content["names"], &content["len"]), (&json!(["music/a.ogg"]), &json!(11)));
    let owner = &content["owners"][0];
    assert_eq!(
        *owner,
        json!({"peer_id": ann.message.peer_id, "name": "node1", "base_url": "http://10.0.0.7:7701",
            "complete": true, "n_chunks": 1})
    );
    assert_eq!(content["owners"][1]["complete"], false);
    let stats = tracker.get("/v1/stats").await.json;
    assert_eq!((&stats["n_peers"], &stats["n_files"], &stats["n_bytes"]), (&json!(2), &json!(2), &json!(16)));
    assert_eq!(tracker.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(tracker.get("/readyz").await.status, StatusCode::OK);

    tracker.announce(ann.say(AnnounceEvent::Stopped)).await;
    assert_eq!(tracker.get("/v1/files/music/a.ogg").await.slug(), "not-found");
    assert_eq!(tracker.get("/v1/files").await.json["files"].as_array().unwrap().len(), 1);
    assert_eq!(tracker.get(&format!("/v1/content/{id}")).await.json["n_partial"], 1);
}

#[tokio::test]
async fn names_with_odd_characters_are_found() {
    let tracker = TestTracker::new().await;
    let mut peer = TestPeer::new(1);
    tracker.announce(peer.add(&["a b/é?#%", "100%", "<script>"])).await;
    for (uri, want) in [
        ("/v1/files/a%20b/%C3%A9%3F%23%25", "a b/é?#%"),
        ("/v1/files/a%20b%2F%C3%A9%3F%23%25", "a b/é?#%"),
        ("/v1/files/100%25", "100%"),
        ("/v1/files/%3Cscript%3E", "<script>"),
    ] {
        assert_eq!(tracker.get(uri).await.json["path"], want, "{uri}");
    }
    for uri in ["/v1/files/%FF", "/v1/files/%00", "/v1/files/..%2f..%2fetc", "/v1/files/", "/v1/files/a%20b"] {
        assert_eq!(tracker.get(uri).await.slug(), "not-found", "{uri}");
    }
}

#[tokio::test]
async fn pages_and_tags() {
    let tracker = TestTracker::new().await;
    let mut peer = TestPeer::new(1);
    let names: Vec<String> = (0..25).map(|n| format!("f{n:02}")).collect();
    tracker.announce(peer.add(&names.iter().map(String::as_str).collect::<Vec<_>>())).await;
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = tracker.get(&format!("/v1/files?limit=5&after={after}")).await.json;
        found.extend(page["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
        assert!(found.len() < 100);
    }
    assert_eq!(found, names);
    let page = tracker.get("/v1/files?q=F1&prefix=f&limit=99999999999").await.json;
    assert_eq!(page["files"].as_array().unwrap().len(), 10);

    let tag = tracker.get("/v1/files").await.headers[header::ETAG].to_str().unwrap().to_owned();
    let ask = |given: String| {
        let mut request = get("/v1/files");
        request.headers_mut().insert(header::IF_NONE_MATCH, given.parse().unwrap());
        tracker.send(request)
    };
    for given in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
        let answer = ask(given).await;
        assert_eq!((answer.status, answer.headers[header::ETAG].to_str().unwrap()), (StatusCode::NOT_MODIFIED, &*tag));
    }
    assert_eq!(ask("\"x\"".into()).await.status, StatusCode::OK);
    tracker.announce(peer.add(&["g"])).await;
    assert_eq!(ask(tag).await.status, StatusCode::OK);
}

/// T19 and bad query strings.
#[tokio::test]
async fn queries_of_every_kind() {
    let tracker = TestTracker::new().await;
    let mut peer = TestPeer::new(1);
    tracker.announce(peer.add(&["a"])).await;
    let id = ContentId::of(b"a");
    for max in ["", "?max=0", "?max=-1", "?max=18446744073709551616", "?max=7&max_=x", "?other=1"] {
        let answer = tracker.get(&format!("/v1/content/{id}{max}")).await;
        assert_eq!(answer.json["owners"].as_array().unwrap().len(), 1, "{max}");
    }
    for uri in [
        format!("/v1/content/{id}?max=x"),
        format!("/v1/content/{id}?max=1&max=2"),
        "/v1/files?limit=0".into(),
        "/v1/files?limit=-1".into(),
        "/v1/files?limit=x".into(),
        "/v1/files?limit=99999999999999999999999".into(),
        "/v1/files?q=a&q=b".into(),
    ] {
        let answer = tracker.get(&uri).await;
        assert_eq!((answer.status, answer.slug().as_str()), (StatusCode::BAD_REQUEST, "bad-query"), "{uri}");
    }
    for uri in
        ["/v1/content/xyz", "/v1/content/00", "/v1/peers/00", "/v1/peers/%FF", "/v1/content/%FF", "/v2", "/v1/peers/"]
    {
        assert_eq!(tracker.get(uri).await.slug(), "not-found", "{uri}");
    }
    let absent = "00".repeat(32);
    assert_eq!(tracker.get(&format!("/v1/content/{absent}")).await.slug(), "not-found");
    assert_eq!(tracker.get(&format!("/v1/peers/{}", &absent[..32])).await.slug(), "not-found");
}

/// T12, H05.
#[tokio::test]
async fn methods_and_content_types() {
    let tracker = TestTracker::new().await;
    let peer = TestPeer::new(1);
    for (uri, allow) in [
        ("/v1/announce", "POST"),
        ("/v1/peers", "GET,HEAD"),
        ("/v1/files/x", "GET,HEAD"),
        ("/v1/content/x", "GET,HEAD"),
        ("/v1/events", "GET,HEAD"),
        ("/v1/stats", "GET,HEAD"),
        ("/v1/tracker", "GET,HEAD"),
        ("/healthz", "GET,HEAD"),
        ("/readyz", "GET,HEAD"),
    ] {
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let mut request = get(uri);
            *request.method_mut() = method;
            let answer = tracker.send(request).await;
            assert_eq!((answer.status, answer.slug().as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"));
            assert_eq!(answer.headers[header::ALLOW], allow);
            assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        }
    }
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"] {
        let signature = peer.identity.sign(peer.body().as_bytes());
        let answer = tracker.send(post(peer.body(), &[("content-type", kind), (SIGNATURE_HEADER, &signature)])).await;
        assert_eq!((answer.status, answer.slug().as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json"), "{kind}");
    }
    let mut request = peer.request(peer.body());
    request.headers_mut().insert("content-type", "Application/JSON; charset=utf-8".parse().unwrap());
    assert_eq!(tracker.send(request).await.status, StatusCode::OK);
}

/// H04.
#[tokio::test]
async fn foreign_hosts() {
    let tracker = TestTracker::with(Config { hosts: vec!["share.example.org".into()], ..Config::default() }).await;
    for (host, want) in [
        ("evil.example", 421),
        ("evil.example:7700", 421),
        ("share.example.org", 200),
        ("tracker:7700", 200),
        ("127.0.0.1:7700", 200),
        ("[::1]:7700", 200),
    ] {
        let mut request = get("/v1/peers");
        request.headers_mut().insert(header::HOST, host.parse().unwrap());
        let answer = tracker.send(request).await;
        assert_eq!(answer.status, want, "{host}");
        if want == 421 {
            assert_eq!(answer.slug(), "foreign-host");
        }
    }
}

#[tokio::test]
async fn malformed_json() {
    let tracker = TestTracker::new().await;
    let peer = TestPeer::new(1);
    let check = async |body: Vec<u8>, status: u16, slug: &str| {
        let signature = peer.identity.sign(&body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let request = post(body, &[("content-type", "application/json"), (SIGNATURE_HEADER, &signature)]);
        let answer = tracker.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (status, slug), "{shown}");
        answer.json["detail"].as_str().unwrap_or("").to_owned()
    };
    let good = peer.body();
    for body in ["", " ", "{", "[]", "null", "7", "\"x\"", "{}", "{\"protocol\":1}", "\u{feff}{}", "{\"a\":1}x"] {
        check(body.into(), 400, "bad-json").await;
    }
    for end in [1, good.len() / 2, good.len() - 1] {
        let detail = check(good.as_bytes()[..end].to_vec(), 400, "bad-json").await;
        assert!(detail.contains("line 1 column"), "{detail}");
    }
    check(format!("{good}{good}").into(), 400, "bad-json").await;
    check(b"\xff\xfe{}".to_vec(), 400, "bad-json").await;
    check("[".repeat(1_000_000).into(), 400, "bad-json").await;
    check(format!("{{\"added\":{}", "[".repeat(200_000)).into(), 400, "bad-json").await;
    let with = |key: &str, value: Value| {
        let mut message = serde_json::to_value(&peer.message).unwrap();
        message[key] = value;
        message.to_string().into_bytes()
    };
    for (key, value) in [
        ("port", json!(65536)),
        ("port", json!(-1)),
        ("port", json!(1.5)),
        ("port", json!("7701")),
        ("seq", json!(-1)),
        ("seq", json!(1e30)),
        ("event", json!("paused")),
        ("peer_id", json!("00")),
        ("peer_id", json!(7)),
        ("public_key", json!("zz")),
        ("name", json!(null)),
        ("added", json!({"path": "a"})),
        ("added", json!([{"path": "a"}])),
        ("added", json!([{"path": "a", "content_id": "00", "len": 1}])),
        ("added", json!([{"path": "a", "content_id": ContentId::of(b""), "len": -1}])),
        ("added", json!([{"path": 7, "content_id": ContentId::of(b""), "len": 1}])),
        ("removed", json!([7])),
        ("rates", json!([])),
    ] {
        check(with(key, value), 400, "bad-json").await;
    }
    for version in [json!(0), json!(2), json!(4_000_000_000_u64)] {
        check(with("protocol", version.clone()), 426, "other-protocol").await;
        check(format!("{{\"protocol\":{version},\"all\":\"new\",\"added\":7}}").into(), 426, "other-protocol").await;
    }
    for name in ["", "a/b", "a\nb", " a", &"x".repeat(65)] {
        check(with("name", json!(name)), 422, "bad-name").await;
    }
    check(with("advertise", json!("http://x/")), 422, "bad-address").await;
    // Unknown fields are of a later version and ignored.
    let body = String::from_utf8(with("from_a_later_version", json!({"x": [1]}))).unwrap();
    assert_eq!(tracker.send(peer.request(body)).await.status, StatusCode::OK);
}

/// P01, P02, P04, P06, P07, P09 at the tracker.
#[tokio::test]
async fn bad_names() {
    let tracker = TestTracker::new().await;
    let mut peer = TestPeer::new(1);
    tracker.announce(peer.add(&["good"])).await;
    let deep = "x/".repeat(300);
    let long = "x".repeat(256);
    for name in [
        "../../.ssh/authorized_keys",
        "/etc/cron.d/x",
        "C:\\x",
        "C:x",
        "\\\\srv\\s\\x",
        "//x",
        "..\\..\\x",
        "a\0b",
        "\x1b[2J",
        "a\nb",
        "",
        ".",
        "a/../b",
        ".potluck/identity",
        ".POTLUCK/control.sock",
        deep.as_str(),
        long.as_str(),
    ] {
        for key in ["added", "removed", "index"] {
            let mut next = Announce { base: 1, revision: 2, seq: peer.message.seq + 1, ..peer.message.clone() };
            next.added.clear();
            let mut message = serde_json::to_value(&next).unwrap();
            message[key] = match key {
                "added" => json!([{"path": "fine", "content_id": ContentId::of(b""), "len": 0},
                    {"path": name, "content_id": ContentId::of(b""), "len": 0}]),
                "removed" => json!([name]),
                _ => json!([{"path": "fine", "register": {"seen": {}}}, {"path": name, "register": {"seen": {}}}]),
            };
            let answer = tracker.send(peer.request(message.to_string())).await;
            assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (422, "bad-name"), "{name:?}");
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(!detail.contains(['\0', '\x1b', '\n']) && detail.len() < 1_000, "{detail}");
            let escaped = format!("{name:?}");
            assert!(detail.contains(&escaped[..escaped.len().min(100)]), "{detail} names {name:?}");
        }
    }
    let files = tracker.get("/v1/files").await.json;
    assert_eq!(files["files"].as_array().unwrap().len(), 1, "nothing of a refused message is taken");
}

/// T01, T02, T03, S06.
#[tokio::test]
async fn nobody_speaks_for_another() {
    let tracker = TestTracker::new().await;
    let (mut ann, eve) = (TestPeer::new(1), TestPeer::new(2));
    let first = ann.add_body(&["a"]);
    tracker.announce(ann.request(first.clone())).await;
    for event in [AnnounceEvent::Started, AnnounceEvent::Heartbeat, AnnounceEvent::Stopped] {
        let forged = Announce { event, seq: 50, base: 0, revision: 9, added: vec![], ..ann.message.clone() };
        let body = serde_json::to_string(&forged).unwrap();
        let answer = tracker.send(eve.request(body.clone())).await;
        assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (403, "not-yours"));
        let unsigned = post(body, &[("content-type", "application/json")]);
        assert_eq!(tracker.send(unsigned).await.slug(), "not-yours");
        let own_key = Announce { public_key: eve.message.public_key, ..forged };
        let answer = tracker.send(eve.request(serde_json::to_string(&own_key).unwrap())).await;
        assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (409, "identity-conflict"));
    }
    let changed = first.replace("\"revision\":1", "\"revision\":2");
    let signature = ann.identity.sign(first.as_bytes());
    let tampered = post(changed, &[("content-type", "application/json"), (SIGNATURE_HEADER, &signature)]);
    assert_eq!(tracker.send(tampered).await.slug(), "not-yours");
    // A replay has no effect.
    let second = ann.add(&["b"]);
    tracker.announce(second).await;
    assert_eq!(tracker.announce(ann.request(first)).await["resync"], true);
    assert_eq!(tracker.get("/v1/files").await.json["files"].as_array().unwrap().len(), 2);
    // A later start takes over, and the earlier one is told.
    ann.message.generation = 2;
    tracker.announce(ann.say(AnnounceEvent::Started)).await;
    ann.message.generation = 1;
    let answer = tracker.send(ann.say(AnnounceEvent::Stopped)).await;
    assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (409, "identity-conflict"));
    assert_eq!(tracker.get("/v1/peers").await.json["peers"].as_array().unwrap().len(), 1);
}

/// T04.
#[tokio::test]
async fn addresses() {
    let tracker = TestTracker::new().await;
    let check = async |from: &str, port: u16, advertise: Option<&str>, want: &str| {
        let mut peer = TestPeer::new(1);
        peer.message.port = port;
        let mut message = serde_json::to_value(&peer.message).unwrap();
        if let Some(advertise) = advertise {
            message["advertise"] = advertise.into();
        }
        let answer = tracker.send_from(from, peer.request(message.to_string())).await;
        if want == "bad-address" {
            assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (422, want), "{from} {port} {advertise:?}");
            assert!(!answer.json["detail"].as_str().unwrap().is_empty());
        } else {
            assert_eq!(answer.status, StatusCode::OK, "{from} {port} {advertise:?} {:?}", answer.json);
        }
    };
    for bad in [
        "127.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "2130706433",
        "localhost",
        "10.0.0.8:0",
        "10.0.0.8:22",
        "10.0.0.8:25",
        "a b",
        "a/b",
        "user@host",
    ] {
        check("10.0.0.7", 7701, Some(bad), "bad-address").await;
    }
    for port in [0, 22, 25] {
        check("10.0.0.7", port, None, "bad-address").await;
    }
    check("127.0.0.1", 7700, None, "bad-address").await;
    check("127.0.0.1", 7701, Some("127.0.0.1:7700"), "bad-address").await;
}

/// T08, T10.
#[tokio::test]
async fn bodies_are_bounded() {
    let config = Config { body_timeout: Duration::from_millis(300), ..Config::default() };
    let tracker = TestTracker::with(config).await;
    let json = [("content-type", "application/json")];
    let answer = tracker.send(post(vec![b' '; MAX_ANNOUNCE_LEN + 1], &json)).await;
    assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (413, "too-large"));
    let huge = post("x", &[json[0], ("content-length", "1000000000")]);
    assert_eq!(tracker.send(huge).await.slug(), "too-large");
    let chunk = bytes::Bytes::from(vec![b' '; 64 << 10]);
    let endless = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
    let answer = tracker.send(post(Body::from_stream(endless), &json)).await;
    assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (413, "too-large"));
    let stalled = futures::stream::once(async { Ok::<_, std::io::Error>("{") }).chain(futures::stream::pending());
    let answer = tracker.send(post(Body::from_stream(stalled), &json)).await;
    assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (408, "too-slow"));
    let broken = futures::stream::once(async { Err::<&str, _>(std::io::Error::other("reset")) });
    assert_eq!(tracker.send(post(Body::from_stream(broken), &json)).await.slug(), "broken-body");

    let mut peer = TestPeer::new(1);
    let names: Vec<String> = (0..10_001).map(|n| n.to_string()).collect();
    let request = peer.add(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let answer = tracker.send(request).await;
    assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (413, "too-many-entries"));
}

#[tokio::test]
async fn too_many_requests_and_quotas() {
    let mut config =
        Config { rate: RateLimits { per_second: 0.001, burst: 3.0, ..RateLimits::default() }, ..Config::default() };
    config.quotas.max_files_per_peer = 1;
    let tracker = TestTracker::with(config).await;
    let mut peer = TestPeer::new(1);
    let answer = tracker.send(peer.add(&["a", "b"])).await;
    assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (429, "quota"));
    assert_eq!(answer.headers[header::RETRY_AFTER], "60");
    tracker.get("/v1/peers").await;
    tracker.get("/v1/peers").await;
    let answer = tracker.get("/v1/peers").await;
    assert_eq!((answer.status.as_u16(), answer.slug().as_str()), (429, "too-many-requests"));
    assert!(answer.headers[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(tracker.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(tracker.send_from("10.0.0.8", get("/v1/peers")).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn leases_run_on_the_monotonic_clock() {
    let tracker = TestTracker::new().await;
    let mut peer = TestPeer::new(1);
    tracker.announce(peer.add(&["a"])).await;
    tokio::time::advance(Duration::from_millis(14_999)).await;
    assert!(tracker.tracker.swarm().expire().is_empty());
    tracker.announce(peer.say(AnnounceEvent::Heartbeat)).await;
    tokio::time::advance(Duration::from_millis(14_999)).await;
    assert!(tracker.tracker.swarm().expire().is_empty());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(tracker.tracker.swarm().expire(), ["node1"]);
    assert_eq!(tracker.get("/v1/files").await.json["files"], json!([]));
    // It goes on with the revision it had.
    let reply = tracker.announce(peer.say(AnnounceEvent::Heartbeat)).await;
    assert_eq!((&reply["resync"], &reply["revision"]), (&json!(false), &json!(1)));
    assert_eq!(tracker.get("/v1/files").await.json["files"].as_array().unwrap().len(), 1);
}

/// Reads events until `n` of them came.
async fn events(tracker: &TestTracker, last: Option<&str>, n: usize) -> Vec<(String, String, Value)> {
    let mut request = get("/v1/events");
    if let Some(last) = last {
        request.headers_mut().insert("last-event-id", last.parse().unwrap());
    }
    let from: std::net::SocketAddr = "10.0.0.7:50000".parse().unwrap();
    request.extensions_mut().insert(axum::extract::ConnectInfo(from));
    let response = tracker.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body();
    let mut text = String::new();
    while text.matches("\n\n").count() < n {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("an event in time");
        text += std::str::from_utf8(&frame.unwrap().unwrap().into_data().unwrap()).unwrap();
    }
    let field = |event: &str, name: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
            .unwrap_or_default()
    };
    text.split_terminator("\n\n")
        .map(|event| (field(event, "id"), field(event, "event"), serde_json::from_str(&field(event, "data")).unwrap()))
        .collect()
}

#[tokio::test]
async fn events_can_be_resumed() {
    let tracker = TestTracker::new().await;
    let hello = events(&tracker, None, 1).await.remove(0);
    assert_eq!(hello.1, "hello");
    let mut peer = TestPeer::new(1);
    tracker.announce(peer.add(&["a"])).await;
    tracker.announce(peer.add(&["b"])).await;
    tracker.announce(peer.say(AnnounceEvent::Heartbeat)).await;
    tracker.announce(peer.say(AnnounceEvent::Stopped)).await;
    let all = events(&tracker, Some(&hello.0), 4).await;
    let names: Vec<_> = all.iter().map(|event| event.1.as_str()).collect();
    assert_eq!(names, ["peer", "files", "files", "peer_left"]);
    assert_eq!(all[0].2["name"], "node1");
    assert_eq!((&all[2].2["added"], &all[2].2["n_removed"]), (&json!(["b"]), &json!(0)));
    let rest = events(&tracker, Some(&all[1].0), 2).await;
    assert_eq!(rest, all[2..]);
    for gone in
        ["", "x", "0000000000000000-0", "-", &hello.0.replace("-0", "-99"), &format!("{}9999999999999", hello.0)]
    {
        assert_eq!(events(&tracker, Some(gone), 1).await[0].1, "reload", "{gone:?}");
    }
    for n in 0..2_100 {
        let mut peer = TestPeer::new(n);
        peer.message.generation = 2;
        let config = peer.add(&["x"]);
        tracker.announce(config).await;
    }
    assert_eq!(events(&tracker, Some(&hello.0), 1).await[0].1, "reload", "the ring is bounded");
}

#[tokio::test]
async fn event_streams_end_with_the_tracker() {
    let tracker = TestTracker::with(Config { max_streams: 1, ..Config::default() }).await;
    let mut request = get("/v1/events");
    let from: std::net::SocketAddr = "10.0.0.7:50000".parse().unwrap();
    request.extensions_mut().insert(axum::extract::ConnectInfo(from));
    let open = tracker.router.clone().oneshot(request).await.unwrap();
    assert_eq!(tracker.get("/v1/events").await.slug(), "busy");
    tracker.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), open.into_body().collect()).await.expect("ends").unwrap();
    assert_eq!(tracker.get("/readyz").await.slug(), "not-ready");
}
