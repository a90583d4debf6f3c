//! What only a real socket shows: slow and malformed requests, floods, many peers at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use potluck_common::protocol::{AnnounceEvent, MAX_ANNOUNCE_LEN};
use potluck_tracker::{CancellationToken, Config, Limits, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{TestPeer, get, send_to};

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(config: Config) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { run(listener, config, stop).await.unwrap() });
    Running { address, shutdown, task }
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("ends in time").unwrap();
    }

    /// Alive: a fresh legitimate request succeeds within a second. On a machine that does other things too one of a few must.
    async fn assert_alive(&self) {
        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            let asked = Instant::now();
            let (status, _) = send_to(self.address, get("/v1/peers")).await.unwrap();
            assert_eq!(status, 200);
            quickest = quickest.min(asked.elapsed());
            if quickest < Duration::from_secs(1) {
                return;
            }
        }
        panic!("{quickest:?} at best");
    }
}

/// Sends bytes, and reads what comes back until the connection ends.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A reset by the other side is an answer too.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("it ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// T08: memory stays flat because nothing is read beyond the limit.
#[tokio::test]
async fn huge_bodies() {
    let tracker = start(Config::default()).await;
    let head = |length: &str| {
        format!("POST /v1/announce HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\r\n")
    };
    let mut just_over = head(&format!("content-length: {}", MAX_ANNOUNCE_LEN + 1)).into_bytes();
    just_over.resize(just_over.len() + MAX_ANNOUNCE_LEN + 1, b' ');
    let request = [just_over, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec()].concat();
    assert!(raw(tracker.address, &request).await.starts_with("HTTP/1.1 413"));
    assert!(raw(tracker.address, head("content-length: 1000000000").as_bytes()).await.starts_with("HTTP/1.1 413"));
    let mut stream = TcpStream::connect(tracker.address).await.unwrap();
    stream.write_all(head("transfer-encoding: chunked").as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let mut n_sent = 0;
    while stream.write_all(chunk.as_bytes()).await.is_ok() {
        n_sent += 0x10000;
        assert!(n_sent < 100 << 20, "an endless body is cut");
    }
    tracker.assert_alive().await;
    tracker.stop().await;
}

/// T13: no message has two readings.
#[tokio::test]
async fn ambiguous_heads() {
    let limits = Limits { head_timeout: Duration::from_millis(500), ..Limits::default() };
    let tracker = start(Config { limits, ..Config::default() }).await;
    let post = "POST /v1/announce HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for head in [
        "content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
        "content-length: 2, 3\r\n\r\n{}x",
        "content-length: +2\r\n\r\n{}",
        "content-length: -2\r\n\r\n{}",
        "content-length: 0x2\r\n\r\n{}",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "content-length : 2\r\n\r\n{}",
        "x: a\r\n b: c\r\ncontent-length: 2\r\n\r\n{}",
        "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    ] {
        let answer = raw(tracker.address, format!("{post}{head}").as_bytes()).await;
        // Ours would be a problem of the JSON: then the body was read, and somehow.
        let refused = answer.starts_with("HTTP/1.1 400") && !answer.contains("bad-json");
        assert!(refused, "{head:?} gave {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?} gave {answer:?}");
    }
    // RFC 9112, 6.3: transfer-encoding overrides, and the connection may then be closed.
    let both = format!("{post}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    let answer = raw(tracker.address, both.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.matches("HTTP/1.1 ").count() == 1, "{answer:?}");
    let not_http = raw(tracker.address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n").await;
    assert!(not_http.is_empty() || not_http.starts_with("HTTP/1.1 400"), "{not_http:?}");
    tracker.assert_alive().await;
    tracker.stop().await;
}

/// T14, with shorter times.
#[tokio::test]
async fn slow_heads() {
    let limits = Limits { head_timeout: Duration::from_secs(2), ..Limits::default() };
    let tracker = start(Config { limits, ..Config::default() }).await;
    let mut slow = JoinSet::new();
    for _ in 0..300 {
        let address = tracker.address;
        slow.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let since = Instant::now();
            for byte in b"GET /v1/peers HTTP/1.1\r\n".iter().cycle() {
                let mut end = [0; 64];
                let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut end)).await;
                if read.is_ok() || stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            since.elapsed()
        });
    }
    tracker.assert_alive().await;
    while let Some(held) = slow.join_next().await {
        let held = held.unwrap();
        assert!(held < Duration::from_secs(8), "held for {held:?}");
    }
    tracker.assert_alive().await;
    tracker.stop().await;
}

/// A thousand peers from one address, all at once, with a store: nobody is turned away.
#[tokio::test]
async fn a_thousand_peers() {
    let dir = tempfile::TempDir::new().unwrap();
    let tracker = start(Config { data: Some(dir.path().into()), ..Config::default() }).await;
    let client = potluck_common::net::client::plain().build().unwrap();
    let mut peers = JoinSet::new();
    for n in 0..1_000 {
        let (address, client) = (tracker.address, client.clone());
        peers.spawn(async move {
            let mut peer = TestPeer::new(n);
            let own = format!("own/{n}");
            for step in 0..3 {
                let body = if step == 0 { peer.add_body(&["shared", &own]) } else { peer.add_body(&[]) };
                peer.message.event = AnnounceEvent::Heartbeat;
                let signature = peer.identity.sign(body.as_bytes());
                let request = client.post(format!("http://{address}/v1/announce"));
                let request = request.header("content-type", "application/json");
                let request = request.header(potluck_common::identity::SIGNATURE_HEADER, signature);
                let response = request.body(body).send().await.unwrap();
                assert_eq!(response.status(), 200);
                assert!(response.text().await.unwrap().contains("\"resync\":false"));
            }
        });
    }
    while let Some(done) = tokio::time::timeout(Duration::from_secs(120), peers.join_next()).await.expect("in time") {
        done.unwrap();
    }
    let (_, stats) = send_to(tracker.address, get("/v1/stats")).await.unwrap();
    assert_eq!((&stats["n_files"], &stats["n_contents"]), (&1_001.into(), &1_001.into()));
    tracker.stop().await;
}
