//! The tracker of a simulated swarm: the real one's routes, called without a socket, under a clock that only the test moves.
//!
//! It keeps nothing on disk, so killed and started again it knows nobody and has another index: as if its store were wiped.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use potluck_common::identity::SIGNATURE_HEADER;
use potluck_common::protocol::{AnnounceReply, Problem, SyncPage, SyncQuery};
use potluck_tracker::{CancellationToken, Config, RateLimits};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

/// Where it is said to listen.
const OWN: ([u8; 4], u16) = ([10, 0, 0, 1], 7700);

/// What it says to an announce.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// It took the peer's word.
    Taken(AnnounceReply),
    /// A later start of the same identity has spoken.
    IdentityConflict,
    /// It took nothing, for another reason.
    Refused,
}

/// See the module's text.
pub(crate) struct Tracker {
    /// Nothing where there never was one.
    process: Option<Process>,
    /// The part of the network it is in.
    pub(crate) part: u8,
    pub(crate) is_up: bool,
}

struct Process {
    runtime: Runtime,
    tracker: potluck_tracker::Tracker,
    router: Router,
}

fn open(runtime: &Runtime) -> (potluck_tracker::Tracker, Router) {
    // What one address may ask is for a test of its own.
    let rate = RateLimits { burst: 1e9, ..RateLimits::default() };
    let tracker = runtime.block_on(potluck_tracker::Tracker::open(Config { rate, ..Config::default() })).unwrap();
    let router = tracker.router(OWN.into(), CancellationToken::new());
    (tracker, router)
}

impl Tracker {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (tracker, router) = open(&runtime);
        Self { process: Some(Process { runtime, tracker, router }), part: 0, is_up: true }
    }

    /// Of a swarm that has none: nothing is there, and nothing starts.
    pub(crate) const fn absent() -> Self {
        Self { process: None, part: 0, is_up: false }
    }

    /// Starts it again; it knows nothing.
    pub(crate) fn start(&mut self) {
        let Some(process) = &mut self.process else { return };
        (process.tracker, process.router) = open(&process.runtime);
        self.is_up = true;
    }

    pub(crate) fn now(&self) -> Instant {
        let Some(process) = &self.process else { return Instant::now() };
        process.runtime.block_on(async { tokio::time::Instant::now() }).into_std()
    }

    /// Lets time pass; leases that run out end.
    pub(crate) fn advance(&mut self, time: Duration) {
        let Some(Process { runtime, tracker, .. }) = &self.process else { return };
        runtime.block_on(async {
            tokio::time::advance(time).await;
            tracker.swarm().expire();
        });
    }

    /// `POST /v1/announce`, from the address of a peer.
    pub(crate) fn announce(&self, peer: usize, body: Bytes, signature: &str) -> Answer {
        let request = Request::post("/v1/announce")
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE_HEADER, signature)
            .body(body.into());
        let (status, body) = self.ask(peer, request.unwrap());
        if status == StatusCode::OK {
            return Answer::Taken(serde_json::from_slice(&body).unwrap());
        }
        assert!(status.is_client_error(), "{status}: {}", String::from_utf8_lossy(&body));
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        if problem.slug() == "identity-conflict" { Answer::IdentityConflict } else { Answer::Refused }
    }

    /// `GET /v1/sync`, as bytes.
    pub(crate) fn page(&self, peer: usize, query: &SyncQuery) -> Bytes {
        let SyncQuery { epoch, after, limit, .. } = query;
        let limit = limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
        let request = Request::get(format!("/v1/sync?epoch={epoch}&after={after}{limit}")).body(Body::empty());
        let (status, body) = self.ask(peer, request.unwrap());
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        body
    }

    /// All that it gives to who asks for the first time.
    pub(crate) fn whole_index(&self) -> SyncPage {
        serde_json::from_slice(&self.page(0, &SyncQuery::default())).unwrap()
    }

    fn ask(&self, peer: usize, mut request: Request<Body>) -> (StatusCode, Bytes) {
        let from = SocketAddr::from(([10, 0, 1, u8::try_from(peer).unwrap()], 50_000));
        request.headers_mut().insert(header::HOST, "10.0.0.1:7700".parse().unwrap());
        request.extensions_mut().insert(ConnectInfo(from));
        let Process { runtime, router, .. } = self.process.as_ref().unwrap();
        let router = router.clone();
        runtime.block_on(async {
            let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
            (parts.status, body.collect().await.unwrap().to_bytes())
        })
    }
}
