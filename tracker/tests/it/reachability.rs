//! The tracker connects back: who answers as the announcing peer is reachable, nobody else is, and it is no tool against others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use potluck_common::protocol::AnnounceEvent;
use potluck_tracker::{CancellationToken, Config, ConnectBack, RateLimits, run};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{TestPeer, get, send_to};

/// Where nobody is to be found.
const PATIENCE: Duration = Duration::from_millis(400);
/// Where somebody is: a busy machine must not make a peer unreachable.
const LONG_PATIENCE: Duration = Duration::from_secs(4);

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(burst: f64, patience: Duration) -> Running {
    let rate = RateLimits { per_second: 0.01, burst, max_addresses: 16 };
    let connect_back = Some(ConnectBack { patience, rate, ..ConnectBack::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = run(listener, Config { connect_back, ..Config::default() }, shutdown.clone());
    Running { address, shutdown, task: tokio::spawn(async move { serving.await.unwrap() }) }
}

impl Running {
    async fn announce(&self, peer: &mut TestPeer, event: AnnounceEvent) -> Value {
        let (status, answer) = send_to(self.address, peer.say(event)).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Announces until it is known whether the peer can be reached.
    async fn verdict(&self, peer: &mut TestPeer) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < deadline, "nothing is said");
            match self.announce(peer, AnnounceEvent::Heartbeat).await["reachable"].as_bool() {
                Some(verdict) => return verdict,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn listed(&self, peer: &TestPeer) -> Value {
        let uri = format!("/v1/peers/{}", peer.message.peer_id);
        send_to(self.address, get(&uri)).await.unwrap().1
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("ends in time").unwrap();
    }
}

/// What stands at the address that a peer announces.
struct There {
    port: u16,
    n_asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for There {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl There {
    /// Gives `answer` to every request, and nothing after it; `None`: is silent.
    async fn answers(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let n_asked = Arc::<AtomicUsize>::default();
        let count = n_asked.clone();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut head = vec![0; 4096];
                let n = stream.read(&mut head).await.unwrap_or(0);
                assert!(n == 0 || head.starts_with(b"GET /healthz HTTP/1.1\r\n"), "only this is ever asked");
                if let Some(answer) = &answer {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                open.push(stream);
            }
        });
        Self { port, n_asked, task }
    }

    fn n_asked(&self) -> usize {
        self.n_asked.load(Ordering::Relaxed)
    }
}

fn http(status: &str, headers: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()))
}

fn health(peer: &TestPeer) -> String {
    json!({ "status": "ok", "peer_id": peer.message.peer_id }).to_string()
}

#[tokio::test]
async fn a_peer_that_answers_is_reachable() {
    let tracker = start(64.0, LONG_PATIENCE).await;
    let mut peer = TestPeer::new(1);
    let there = There::answers(http("200 OK", "", &health(&peer))).await;
    peer.message.port = there.port;
    let first = tracker.announce(&mut peer, AnnounceEvent::Started).await;
    assert_eq!(first["reachable"], Value::Null, "nothing is claimed before it is known");
    assert!(tracker.verdict(&mut peer).await);
    assert_eq!(tracker.listed(&peer).await["reachable"], true);
    for _ in 0..20 {
        tracker.announce(&mut peer, AnnounceEvent::Heartbeat).await;
    }
    assert_eq!(there.n_asked(), 1, "heartbeats cause no further looks");
    // Elsewhere it is another question; back again, another one too.
    let nobody = There::answers(None).await;
    peer.message.port = nobody.port;
    assert_eq!(tracker.announce(&mut peer, AnnounceEvent::Heartbeat).await["reachable"], Value::Null);
    assert!(!tracker.verdict(&mut peer).await);
    assert_eq!(tracker.listed(&peer).await["reachable"], false);
    peer.message.port = there.port;
    assert!(tracker.verdict(&mut peer).await);
    assert_eq!((there.n_asked(), nobody.n_asked()), (2, 1));
    tracker.stop().await;
}

/// T04: whatever stands there but the peer itself, all that is told is no, and always equally late.
#[tokio::test]
async fn nothing_is_learned_of_what_else_is_there() {
    let tracker = start(64.0, PATIENCE).await;
    let other = TestPeer::new(99);
    let elsewhere = There::answers(http("200 OK", "", &health(&other))).await;
    let mut cases = Vec::new();
    for (n, what) in ["closed", "silent", "another peer", "redirect", "too long", "no JSON", "an error", "never ends"]
        .into_iter()
        .enumerate()
    {
        let peer = TestPeer::new(n as u64);
        let own = health(&peer);
        let answer = match what {
            "another peer" => http("200 OK", "", &health(&other)),
            "redirect" => {
                let to = format!("location: http://127.0.0.1:{}/healthz\r\n", elsewhere.port);
                http("307 Temporary Redirect", &to, &own)
            }
            "too long" => http("200 OK", "", &format!("{own}{}", " ".repeat(5_000))),
            "no JSON" => http("200 OK", "", "SSH-2.0"),
            "an error" => http("500 Internal Server Error", "", &own),
            "never ends" => Some(format!("HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n{own}")),
            _ => None,
        };
        let there = There::answers(answer).await;
        if what == "closed" {
            there.task.abort();
        }
        cases.push((what, peer, there));
    }
    let looks = cases.iter_mut().map(|(what, peer, there)| {
        let tracker = &tracker;
        async move {
            peer.message.port = there.port;
            let began = Instant::now();
            tracker.announce(peer, AnnounceEvent::Started).await;
            assert!(!tracker.verdict(peer).await, "{what}");
            assert!(began.elapsed() >= PATIENCE, "{what} is told at once");
        }
    });
    futures::future::join_all(looks).await;
    assert_eq!(elsewhere.n_asked(), 0, "no redirect is followed");
    tracker.stop().await;
}

/// Somebody who lets many peers announce one address of somebody else.
#[tokio::test]
async fn one_address_cannot_make_the_tracker_hammer_another() {
    let tracker = start(5.0, PATIENCE).await;
    let victim = There::answers(None).await;
    for n in 0..40 {
        let mut peer = TestPeer::new(n);
        peer.message.port = victim.port;
        for event in [AnnounceEvent::Started, AnnounceEvent::Heartbeat] {
            tracker.announce(&mut peer, event).await;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while victim.n_asked() < 5 {
        assert!(Instant::now() < deadline, "those that are granted are made");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Whoever was granted none goes on without an answer, and is served as everybody.
    let mut late = TestPeer::new(77);
    late.message.port = victim.port;
    assert_eq!(tracker.announce(&mut late, AnnounceEvent::Started).await["reachable"], Value::Null);
    assert_eq!(tracker.listed(&late).await["name"], "node77");
    assert_eq!(victim.n_asked(), 5);
    tracker.stop().await;
}
