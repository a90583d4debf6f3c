//! What a peer's routes answer over a real socket, to clients of every kind.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use potluck_common::ContentId;
use potluck_peer::config::Config;
use potluck_peer::wire::crowd::MAX_SENDING;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Node, Tracker, eventually, http, noise, quick, root_with};

/// A request as it goes over the wire: clients tidy up what these tests are about.
async fn raw(node: &Node, head: &str) -> (u16, HeaderMap, Vec<u8>) {
    let address: SocketAddr = node.peer.listen_url().strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    read.expect("answered in time").unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap())
    });
    (status, headers.collect(), answer[end + 4..].to_vec())
}

async fn one_file(data: &[u8]) -> (Tracker, Node, ContentId) {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "server", &[("dir/a b.html", data)]).await;
    let id = ContentId::of(data);
    tracker.wait_for_owners(id, 1).await;
    (tracker, node, id)
}

fn is_problem(what: &str, status: u16, headers: &HeaderMap, body: &[u8]) {
    assert_eq!(headers["content-type"], "application/problem+json", "{what}: {}", String::from_utf8_lossy(body));
    let problem: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(problem["status"], status, "{what}");
    assert!(problem["type"].as_str().unwrap().starts_with("urn:potluck:problem:"), "{what}: {problem}");
    assert_eq!(headers["x-content-type-options"], "nosniff", "{what}");
}

/// H01.
#[tokio::test(flavor = "multi_thread")]
async fn h01_ranges_of_every_kind() {
    let data = noise(600_000, 1);
    let (_tracker, node, id) = one_file(&data).await;
    let many = format!("bytes={}", vec!["0-1"; 2_000].join(","));
    let table: [(&str, Option<std::ops::Range<usize>>); 20] = [
        ("bytes=0-0", Some(0..1)),
        ("bytes=0-", Some(0..600_000)),
        ("bytes=262143-262145", Some(262_143..262_146)),
        ("bytes=599999-", Some(599_999..600_000)),
        ("bytes=-1", Some(599_999..600_000)),
        ("bytes=-999999999", Some(0..600_000)),
        ("bytes=0-18446744073709551615", Some(0..600_000)),
        ("bytes=5-99999999999999999999999999999", Some(5..600_000)),
        ("bytes=600000-", Some(0..0)),
        ("bytes=18446744073709551615-", Some(0..0)),
        ("bytes=-0", Some(0..0)),
        ("bytes=5-2", None),
        ("bytes=a-b", None),
        ("bytes=", None),
        ("bytes", None),
        ("lines=0-1", None),
        ("bytes=0-1,5-6", None),
        ("bytes=+0-1", None),
        ("\u{e9}", None),
        (&many, None),
    ];
    for path in [format!("/v1/content/{id}"), "/f/dir/a%20b.html".into()] {
        for (range, want) in &table {
            let (status, headers, body) =
                raw(&node, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nrange: {range}")).await;
            let shown = &range[..range.len().min(40)];
            match want {
                None => assert!((status, &body) == (200, &data), "{shown}: {status}"),
                Some(want) if want.is_empty() => {
                    assert_eq!(
                        (status, headers["content-range"].to_str().unwrap()),
                        (416, "bytes */600000"),
                        "{shown}"
                    );
                    is_problem(shown, status, &headers, &body);
                }
                Some(want) => {
                    let content_range = format!("bytes {}-{}/600000", want.start, want.end - 1);
                    assert_eq!(
                        (status, headers["content-range"].to_str().unwrap()),
                        (206, &content_range[..]),
                        "{shown}"
                    );
                    assert!(body == data[want.clone()], "{shown}");
                }
            }
        }
    }
    let path = format!("/v1/content/{id}");
    let twice = format!("GET {path} HTTP/1.1\r\nhost: x\r\nrange: bytes=0-1\r\nrange: bytes=2-3");
    assert_eq!(raw(&node, &twice).await.0, 200, "two headers are no range");
    node.is_well().await;
}

/// ETag, If-None-Match, If-Range, HEAD: what caches and download managers rely on.
#[tokio::test(flavor = "multi_thread")]
async fn etags_and_head() {
    let data = noise(300_000, 2);
    let (_tracker, node, id) = one_file(&data).await;
    let etag = format!("\"b3:{id}\"");
    for path in [format!("/v1/content/{id}"), "/f/dir/a%20b.html".into()] {
        let get = async |extra: &str| raw(&node, &format!("GET {path} HTTP/1.1\r\nhost: x{extra}")).await;
        let (status, headers, body) = get("").await;
        assert_eq!((status, headers["etag"].to_str().unwrap(), body == data), (200, &etag[..], true));
        assert_eq!(headers["accept-ranges"], "bytes");
        assert_eq!(headers["content-length"], "300000");
        for (extra, want) in [
            (format!("\r\nif-none-match: {etag}"), 304),
            (format!("\r\nif-none-match: W/{etag}"), 304),
            (format!("\r\nif-none-match: \"x\", {etag}"), 304),
            ("\r\nif-none-match: *".into(), 304),
            ("\r\nif-none-match: \"b3:0\"".into(), 200),
            (format!("\r\nrange: bytes=0-9\r\nif-range: {etag}"), 206),
            ("\r\nrange: bytes=0-9\r\nif-range: \"b3:0\"".into(), 200),
            ("\r\nrange: bytes=0-9\r\nif-range: Wed, 21 Oct 2015 07:28:00 GMT".into(), 200),
            (format!("\r\nrange: bytes=0-9\r\nif-range: W/{etag}"), 200),
        ] {
            let (status, headers, body) = get(&extra).await;
            assert_eq!(status, want, "{extra}");
            let len = if want == 304 {
                0
            } else if want == 206 {
                10
            } else {
                data.len()
            };
            assert_eq!(body.len(), len, "{extra}");
            assert_eq!(headers["etag"].to_str().unwrap(), etag, "{extra}");
        }
        let (status, headers, body) = raw(&node, &format!("HEAD {path} HTTP/1.1\r\nhost: x")).await;
        assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (200, "300000", 0));
        let (status, headers, body) = raw(&node, &format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nrange: bytes=5-9")).await;
        assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (206, "5", 0));
    }
    let (status, _, body) = raw(&node, "GET /f/dir/missing HTTP/1.1\r\nhost: x").await;
    assert_eq!(status, 404, "{body:?}");
}

/// H03: no method but GET and HEAD, on any route; nothing that arrives changes the peer.
#[tokio::test(flavor = "multi_thread")]
async fn h03_only_reading() {
    let (_tracker, node, id) = one_file(b"hello").await;
    let routes = [
        format!("/v1/content/{id}"),
        format!("/v1/content/{id}/chunks"),
        "/f/dir/a%20b.html".into(),
        "/v1/index".into(),
        "/healthz".into(),
    ];
    for route in &routes {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            let url = format!("{}{route}", node.peer.listen_url());
            let request =
                http().request(Method::from_bytes(method.as_bytes()).unwrap(), url).body("{\"verb\":\"stop\"}");
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {route}");
            is_problem(route, 405, &headers, &answer.bytes().await.unwrap());
        }
    }
    // Control verbs are not to be had over TCP (H05).
    for route in ["/stop", "/control", "/v1/announce", "/.potluck/control.sock", "/f/.potluck/identity.0", "/f/"] {
        for method in [Method::GET, Method::POST] {
            let url = format!("{}{route}", node.peer.listen_url());
            let answer = http().request(method, url).body("{\"verb\":\"stop\"}").send().await.unwrap();
            assert!([404, 405].contains(&answer.status().as_u16()), "{route}: {}", answer.status());
        }
    }
    node.is_well().await;
    assert_eq!(node.read("dir/a b.html").unwrap(), b"hello");
}

/// H04: a page whose name was rebound to our address does not read the share.
#[tokio::test(flavor = "multi_thread")]
async fn h04_foreign_hosts() {
    let tracker = Tracker::start().await;
    let advertise = |share: &Path| Config {
        advertise: Some("share.example.org".parse().unwrap()),
        trackers: vec![],
        ..quick(share, &tracker.url, "server")
    };
    let node = Node::start_on(root_with(&[("file", b"x")]), advertise).await.unwrap();
    for (host, want) in [
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("node1:7701", 200),
        ("nas.local", 200),
        ("share.example.org", 200),
        ("evil.example", 421),
        ("evil.example:7701", 421),
        ("127.0.0.1.evil.example", 421),
    ] {
        for path in ["/healthz", "/v1/index", "/nothing"] {
            let (status, headers, body) = raw(&node, &format!("GET {path} HTTP/1.1\r\nhost: {host}")).await;
            assert_eq!(status, if want == 200 && path == "/nothing" { 404 } else { want }, "{host} {path}");
            if want == 421 {
                is_problem(host, 421, &headers, &body);
            }
        }
    }
    let (status, ..) = raw(&node, "GET http://evil.example/v1/index HTTP/1.1\r\nhost: 127.0.0.1").await;
    assert_eq!(status, 421, "the target's own authority counts");
}

/// H07: what a browser is given is never run.
#[tokio::test(flavor = "multi_thread")]
async fn h07_what_a_browser_is_given() {
    let tracker = Tracker::start().await;
    let odd = "<script>alert(1)\"; x.html";
    let node =
        Node::start(&tracker, "server", &[("page.html", b"<script>"), (odd, b"odd"), ("日本 é.svg", b"<svg>")]).await;
    tracker.wait_for_owners(ContentId::of(b"<svg>"), 1).await;
    tracker.wait_for_owners(ContentId::of(b"<script>"), 1).await;
    tracker.wait_for_owners(ContentId::of(b"odd"), 1).await;
    for (path, name) in [
        ("/f/page.html", "page.html"),
        ("/f/%3Cscript%3Ealert(1)%22;%20x.html", "%3Cscript%3Ealert%281%29%22%3B%20x.html"),
        ("/f/%E6%97%A5%E6%9C%AC%20%C3%A9.svg", "%E6%97%A5%E6%9C%AC%20%C3%A9.svg"),
    ] {
        let (status, headers, _) = raw(&node, &format!("GET {path} HTTP/1.1\r\nhost: x")).await;
        assert_eq!(status, 200, "{path}");
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-disposition"), format!("attachment; filename*=UTF-8''{name}"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("content-type"), "application/octet-stream");
        assert!(header("content-security-policy").contains("sandbox"));
        assert!(header("content-security-policy").contains("default-src 'none'"));
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}

/// P14, P17: links that lead outside, and files that were swapped for a link or a FIFO after they were hashed.
#[tokio::test(flavor = "multi_thread")]
async fn p14_p17_links_and_fifos() {
    let tracker = Tracker::start().await;
    let secret = b"outside";
    let root = root_with(&[("a", b"aaaa"), ("b", b"bbbb"), ("c", b"cccc")]);
    std::fs::write(root.path().join("secret"), secret).unwrap();
    std::os::unix::fs::symlink(root.path().join("secret"), root.path().join("share/link")).unwrap();
    std::os::unix::fs::symlink(root.path(), root.path().join("share/up")).unwrap();
    let node = Node::start_on(root, |share| quick(share, &tracker.url, "server")).await.unwrap();
    for data in [b"aaaa", b"bbbb", b"cccc"] {
        tracker.wait_for_owners(ContentId::of(data), 1).await;
    }
    assert_eq!(tracker.names().await, ["a", "b", "c"]);
    let outside = format!("/v1/content/{}", ContentId::of(secret));
    for path in ["/f/link", "/f/up/secret", "/f/up/canary.txt", &outside] {
        assert_eq!(node.get(path).await.status(), 404, "{path}");
    }
    let at = |name: &str| node.share().join(name);
    std::fs::remove_file(at("a")).unwrap();
    std::os::unix::fs::symlink(node.beside("secret"), at("a")).unwrap();
    std::fs::remove_file(at("b")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, at("b"), fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    std::fs::remove_file(at("c")).unwrap();
    std::fs::create_dir(at("c")).unwrap();
    for (name, data) in [("a", b"aaaa"), ("b", b"bbbb"), ("c", b"cccc")] {
        for path in [format!("/f/{name}"), format!("/v1/content/{}", ContentId::of(data))] {
            let answer =
                tokio::time::timeout(Duration::from_secs(5), node.get(&path)).await.expect("a FIFO does not block");
            assert_eq!(answer.status(), 404, "{path}");
        }
    }
    eventually("the tracker lists nothing of it", async || tracker.names().await.is_empty()).await;
    node.is_well().await;
}

/// F13, F14: a file that changed is not served under its old id, and is announced under its new one.
#[tokio::test(flavor = "multi_thread")]
async fn f13_f14_a_file_that_changed() {
    let (tracker, node, old) = one_file(b"one").await;
    let path = node.share().join("dir/a b.html");
    let mut last = old;
    for round in 0..20 {
        let text = format!("two {round}");
        std::fs::write(&path, &text).unwrap();
        // At once, whether the change was noticed or not.
        let answer = node.get(&format!("/v1/content/{last}")).await;
        assert_eq!(answer.status(), 404, "round {round}");
        let by_name = node.get("/f/dir/a%20b.html").await;
        if by_name.status() == 200 {
            assert_eq!(by_name.text().await.unwrap(), text);
        }
        last = ContentId::of(text.as_bytes());
        tracker.wait_for_owners(last, 1).await;
        assert_eq!(node.get(&format!("/v1/content/{last}")).await.text().await.unwrap(), text);
    }
    tracker.wait_for_owners(old, 0).await;
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2).unwrap();
    assert_eq!(node.get(&format!("/v1/content/{last}")).await.status(), 404, "truncated");
    tracker.wait_for_owners(ContentId::of(b"tw"), 1).await;
    std::fs::remove_file(&path).unwrap();
    assert_eq!(node.get(&format!("/v1/content/{}", ContentId::of(b"tw"))).await.status(), 404, "unlinked");
    eventually("the tracker forgets it", async || tracker.names().await.is_empty()).await;
}

/// F14: to who reads plainly no byte of the new state goes out; who verifies may get some, but the body breaks off for both.
#[tokio::test(flavor = "multi_thread")]
async fn f14_a_file_that_changes_while_it_is_sent() {
    let tracker = Tracker::start().await;
    // More than all buffers on the way hold.
    let data = noise(64 << 20, 14);
    let id = ContentId::of(&data);
    for verifies in [false, true] {
        let node = Node::start(&tracker, "seeder", &[("big", &data)]).await;
        tracker.wait_for_owners(id, 1).await;
        let request = potluck_common::net::client::plain().build().unwrap();
        let request = request.get(format!("{}/v1/content/{id}", node.peer.listen_url()));
        let request = if verifies { request.header("potluck-fresh", "0") } else { request };
        let mut answer = request.send().await.unwrap();
        let mut got = answer.chunk().await.unwrap().unwrap().to_vec();
        let file = std::fs::OpenOptions::new().write(true).open(node.share().join("big")).unwrap();
        file.write_all_at(&vec![0; data.len()], 0).unwrap();
        let ended = loop {
            match answer.chunk().await {
                Ok(Some(piece)) => got.extend_from_slice(&piece),
                ended => break ended,
            }
        };
        assert!(ended.is_err() && got.len() < data.len(), "{} of {} bytes came", got.len(), data.len());
        assert!(verifies || got == data[..got.len()], "a mixture");
        node.stop().await;
        tracker.wait_for_owners(id, 0).await;
    }
}

/// A chunk that has just gone to one address is refused to another that asks for it as fresh, and given to whoever insists.
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_chunk_goes_out_once() {
    let tracker = Tracker::start().await;
    let data = noise(2 << 20, 17);
    let id = ContentId::of(&data);
    let node = Node::start(&tracker, "seeder", &[("big", &data)]).await;
    tracker.wait_for_owners(id, 1).await;
    let client = |last: u8| {
        let client = potluck_common::net::client::plain().local_address(std::net::IpAddr::from([127, 0, 0, last]));
        client.build().unwrap()
    };
    // Who only asks for the headers is given nothing.
    let looked = client(4).head(format!("{}/v1/content/{id}", node.peer.listen_url())).send().await.unwrap();
    assert_eq!(looked.status(), 200);
    let ask = async |last: u8, range: &'static str, is_fresh: bool| {
        let request = client(last).get(format!("{}/v1/content/{id}", node.peer.listen_url())).header("range", range);
        let request = if is_fresh { request.header("potluck-fresh", "1") } else { request };
        request.send().await.unwrap()
    };
    assert_eq!(ask(2, "bytes=262144-786431", true).await.status(), 206);
    let refused = ask(3, "bytes=0-524287", true).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["potluck-coming"]), (412, &"1".parse().unwrap()));
    is_problem("not fresh", 412, &refused.headers().clone(), &refused.bytes().await.unwrap());
    assert_eq!(ask(3, "bytes=0-262143", true).await.status(), 206, "nobody was given chunk 0");
    let insisting = ask(3, "bytes=262144-524287", false).await;
    assert_eq!(insisting.status(), 206);
    assert!(insisting.bytes().await.unwrap() == data[262_144..524_288]);
}

/// H13: over its slots a peer says when to come back, and a slot is free again when its reader is done or gone.
#[tokio::test(flavor = "multi_thread")]
async fn h13_upload_slots() {
    let tracker = Tracker::start().await;
    // More than the buffers of a socket hold.
    let data = noise(32 << 20, 13);
    let id = ContentId::of(&data);
    let config = |share: &Path| Config { upload_slots: 1, ..quick(share, &tracker.url, "server") };
    let node = Node::start_on(root_with(&[("big", &data)]), config).await.unwrap();
    tracker.wait_for_owners(id, 1).await;
    let path = format!("/v1/content/{id}");
    let reader = node.get(&path).await;
    assert_eq!(reader.status(), 200);
    for path in [path.as_str(), "/f/big", &format!("/v1/contents?ids={id}")] {
        let answer = node.get(path).await;
        assert_eq!(answer.status(), 503, "{path}");
        assert_eq!(answer.headers()["retry-after"], "1");
        is_problem(path, 503, &answer.headers().clone(), &answer.bytes().await.unwrap());
    }
    for path in ["/healthz", "/v1/index", &format!("{path}/chunks")] {
        assert_eq!(node.get(path).await.status(), 200, "{path} needs no slot");
    }
    assert_eq!(node.status().await.n_uploads, 1);
    drop(reader);
    eventually("the slot of a reader that left is free", async || node.get(&path).await.status() == 200).await;
    // Several at once get their turn.
    let others = (0..4).map(|n| {
        let url = &tracker.url;
        async move { Node::start_on(root_with(&[]), |share| quick(share, url, &format!("reader{n}"))).await.unwrap() }
    });
    let others = futures::future::join_all(others).await;
    let downloads = futures::future::join_all(others.iter().map(|other| other.download("big"))).await;
    assert!(
        downloads.iter().all(|finished| finished.as_ref().is_ok_and(|finished| finished.content_id == id)),
        "{downloads:?}"
    );
}

/// Several small contents in one answer, what is not here as it was hashed is left out.
#[tokio::test(flavor = "multi_thread")]
async fn bundles() {
    let tracker = Tracker::start().await;
    let config = |share: &Path| Config { upload_slots: 1, ..quick(share, &tracker.url, "server") };
    let (small, large, big) = (noise(1_000, 1), noise(256 << 10, 2), noise((256 << 10) + 1, 3));
    let more = noise(256 << 10, 4);
    let changed = noise(500, 5);
    let files: [(&str, &[u8]); 6] =
        [("small", &small), ("d/large", &large), ("big", &big), ("more", &more), ("empty", b""), ("changed", &changed)];
    let node = Node::start_on(root_with(&files), config).await.unwrap();
    tracker.wait_for_owners(ContentId::of(&changed), 1).await;
    eventually("all are shared", async || node.status().await.n_files == 6).await;
    let part = |data: &[u8]| [ContentId::of(data).as_bytes(), &(data.len() as u32).to_be_bytes()[..], data].concat();
    let ask = async |contents: &[&[u8]]| {
        let ids: Vec<_> = contents.iter().map(|data| ContentId::of(data).to_string()).collect();
        node.get(&format!("/v1/contents?ids={}", ids.join(","))).await
    };
    // Written over without a look at the folder in between: the very next request must notice.
    std::fs::write(node.share().join("changed"), noise(500, 6)).unwrap();
    let answer = ask(&[b"nobody has this", &small, &changed, b"", &small, &big, &large]).await;
    assert_eq!(answer.status(), 200);
    let body = answer.bytes().await.unwrap();
    assert!(body == [part(&small), part(b""), part(&large)].concat(), "{} bytes", body.len());
    let body = ask(&[&large, &small, &more]).await.bytes().await.unwrap();
    assert!(body == [part(&large), part(&small)].concat(), "there is room for 512 KiB: {} bytes", body.len());
    assert_eq!(ask(&[b"nobody has this"]).await.bytes().await.unwrap().len(), 0);

    let id = ContentId::of(&small).to_string();
    for bad in ["", "?ids=", "?ids=x", &format!("?ids={id},"), &format!("?ids={}", vec![&*id; 65].join(",")), "?id=1"] {
        let path = format!("/v1/contents{bad}");
        let answer = node.get(&path).await;
        assert_eq!(answer.status(), 400, "{path}");
        is_problem(&path, 400, &answer.headers().clone(), &answer.bytes().await.unwrap());
    }
    let (status, headers, body) = raw(&node, &format!("HEAD /v1/contents?ids={id} HTTP/1.1\r\nhost: 127.0.0.1")).await;
    assert_eq!((status, &headers["content-length"], body.len()), (200, &"1036".parse().unwrap(), 0));
}

/// A crowd of leechers is served a few at a time, and nobody who fetches the file with a client of another kind waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_has_seats() {
    let tracker = Tracker::start().await;
    // More than the buffers of a socket hold.
    let data = noise(32 << 20, 14);
    let id = ContentId::of(&data);
    let node = Node::start(&tracker, "server", &[("big", &data)]).await;
    tracker.wait_for_owners(id, 1).await;
    let url = format!("{}/v1/content/{id}", node.peer.listen_url());
    let ask = async || {
        let client = potluck_common::net::client::plain().build().unwrap();
        client.get(&url).header("potluck-fresh", "0").send().await.unwrap()
    };
    let mut seats = Vec::new();
    for n in 0..MAX_SENDING {
        let answer = ask().await;
        assert_eq!(answer.status(), 200, "seat {n}");
        seats.push(answer);
    }
    let refused = ask().await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(node.get("/f/big").await.status(), 200, "no leecher");
    seats.pop();
    eventually("the seat of a leecher that left is free", async || ask().await.status() == 200).await;
}

/// Requests that cannot be read are answered in the one form that errors have.
#[tokio::test(flavor = "multi_thread")]
async fn errors_have_one_form() {
    let (_tracker, node, id) = one_file(b"hello").await;
    for (path, want) in [
        ("/v1/index?limit=x".to_owned(), 400),
        ("/v1/index?limit=-1".into(), 400),
        ("/v1/index?after=../x".into(), 400),
        ("/v1/index?limit=1&limit=2".into(), 400),
        ("/nothing".into(), 404),
        ("/v1/content/".into(), 404),
        ("/v1/content/zz".into(), 404),
        (format!("/v1/content/{id}0"), 404),
        (format!("/v1/content/{}", "0".repeat(64)), 404),
        (format!("/v1/content/{}/chunks", "0".repeat(64)), 404),
        (format!("/v1/content/{id}/nothing"), 404),
        ("/f/missing".into(), 404),
        ("/f/../secret".into(), 404),
        ("/f/%2e%2e/secret".into(), 404),
        ("/f/..%2fsecret".into(), 404),
        ("/f/%2fetc%2fpasswd".into(), 404),
        ("/f/a%00b".into(), 404),
        ("/f/%ff".into(), 404),
        ("/f/%c3%28".into(), 404),
        ("/f/%".into(), 404),
        ("/f/%zz".into(), 404),
        ("/v1/content/%ff".into(), 404),
        ("/v1/content/%ff/chunks".into(), 404),
        ("/f/dir".into(), 404),
        (format!("/f/{}", "x/".repeat(3_000)), 404),
    ] {
        let (status, headers, body) = raw(&node, &format!("GET {path} HTTP/1.1\r\nhost: x")).await;
        let shown = &path[..path.len().min(60)];
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(status == want || (want == 404 && status == 400), "{shown}: {status} {text}");
        is_problem(shown, status, &headers, &body);
    }
    let index: Value = node.get("/v1/index?limit=99999999").await.json().await.unwrap();
    assert_eq!(index["files"][0]["path"], "dir/a b.html");
    assert_eq!(node.get("/v1/index?limit=0").await.status(), 200);
    node.is_well().await;
}

/// The index is read page by page.
#[tokio::test(flavor = "multi_thread")]
async fn the_index_in_pages() {
    let names: Vec<String> = (0..25).map(|n| format!("dir/{n:02}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "server", &files).await;
    eventually("all are shared", async || node.status().await.n_files == 25).await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = node.get(&format!("/v1/index?limit=10{after}")).await.json().await.unwrap();
        let files = page["files"].as_array().unwrap();
        assert!(files.len() <= 10);
        seen.extend(files.iter().map(|file| file["path"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('/', "%2F")),
            None => break,
        }
    }
    assert_eq!(seen, names);
}
