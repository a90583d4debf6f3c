//! What the tests share: peers that announce, and requests without a port.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use potluck_common::ContentId;
use potluck_common::identity::{Identity, SIGNATURE_HEADER};
use potluck_common::protocol::{Activity, Announce, AnnounceEvent, Entry, PROTOCOL_VERSION, Rates, Sifted};
use potluck_tracker::{CancellationToken, Config, Tracker};
use serde_json::Value;
use tower::ServiceExt;

/// Where the tracker under test is said to listen.
pub(crate) const OWN: &str = "127.0.0.1:7700";

/// A peer that knows how to announce itself.
pub(crate) struct TestPeer {
    pub(crate) identity: Identity,
    pub(crate) message: Announce,
}

impl TestPeer {
    pub(crate) fn new(n: u64) -> Self {
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&n.to_le_bytes());
        let identity = Identity::from_secret(&secret);
        let message = Announce {
            protocol: PROTOCOL_VERSION,
            event: AnnounceEvent::Started,
            peer_id: identity.peer_id(),
            public_key: identity.public_key(),
            name: format!("node{n}"),
            port: 7701,
            advertise: None,
            generation: 1,
            instance: 0,
            seq: 0,
            base: 0,
            revision: 0,
            added: vec![],
            removed: vec![],
            partial: vec![],
            sync: None,
            index: Sifted::default(),
            rates: Rates::default(),
            activity: Activity::default(),
        };
        Self { identity, message }
    }

    /// The next message: adds files to what was announced.
    pub(crate) fn add(&mut self, paths: &[&str]) -> Request<Body> {
        let body = self.add_body(paths);
        self.request(body)
    }

    /// Its body.
    pub(crate) fn add_body(&mut self, paths: &[&str]) -> String {
        self.message.seq += 1;
        self.message.base = self.message.revision;
        self.message.revision += u64::from(!paths.is_empty());
        self.message.added = paths.iter().map(|path| entry(path)).collect();
        self.body()
    }

    /// The next message, with nothing new in it.
    pub(crate) fn say(&mut self, event: AnnounceEvent) -> Request<Body> {
        self.message.event = event;
        self.add(&[])
    }

    pub(crate) fn body(&self) -> String {
        serde_json::to_string(&self.message).unwrap()
    }

    pub(crate) fn request(&self, body: String) -> Request<Body> {
        let signature = self.identity.sign(body.as_bytes());
        post(body, &[("content-type", "application/json"), (SIGNATURE_HEADER, &signature)])
    }
}

/// A file whose content is its own name.
pub(crate) fn entry(path: &str) -> Entry {
    Entry { path: path.parse().unwrap(), content_id: ContentId::of(path.as_bytes()), len: path.len() as u64 }
}

pub(crate) fn post(body: impl Into<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post("/v1/announce").header(header::HOST, "127.0.0.1:7700");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

pub(crate) fn get(uri: &str) -> Request<Body> {
    Request::get(uri).header(header::HOST, "127.0.0.1:7700").body(Body::empty()).unwrap()
}

/// The same over a real connection.
pub(crate) async fn send_to(address: SocketAddr, request: Request<Body>) -> reqwest::Result<(StatusCode, Value)> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let url = format!("http://{address}{}", parts.uri);
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let client = potluck_common::net::client::plain().timeout(Duration::from_secs(30)).build()?;
    let response = client.request(parts.method, url).headers(headers).body(body).send().await?;
    let status = response.status();
    let text = response.bytes().await?;
    Ok((status, serde_json::from_slice(&text).unwrap_or(Value::Null)))
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Answer {
    /// Checks what every error has, and gives its slug.
    #[track_caller]
    pub(crate) fn slug(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{self:?}");
        assert_eq!(self.headers["x-content-type-options"], "nosniff");
        assert_eq!(self.json["status"], self.status.as_u16());
        assert!(!self.json["title"].as_str().unwrap().is_empty());
        self.json["type"].as_str().unwrap().strip_prefix("urn:potluck:problem:").unwrap().to_owned()
    }
}

/// A tracker without a socket.
pub(crate) struct TestTracker {
    pub(crate) router: axum::Router,
    pub(crate) tracker: Tracker,
    pub(crate) shutdown: CancellationToken,
}

impl TestTracker {
    pub(crate) async fn with(config: Config) -> Self {
        let tracker = Tracker::open(config).await.unwrap();
        let shutdown = CancellationToken::new();
        let router = tracker.router(OWN.parse().unwrap(), shutdown.clone());
        Self { router, tracker, shutdown }
    }

    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn send_from(&self, from: &str, mut request: Request<Body>) -> Answer {
        let from: SocketAddr = format!("{from}:50000").parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(from));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, json }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from("10.0.0.7", request).await
    }

    /// The status and the content type, for answers that do not end.
    pub(crate) async fn head(&self, mut request: Request<Body>) -> (StatusCode, String) {
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(([10, 0, 0, 7], 50_000).into()));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (response.status(), kind)
    }

    /// The body as it came.
    pub(crate) async fn text(&self, mut request: Request<Body>) -> String {
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(([10, 0, 0, 7], 50_000).into()));
        let response = self.router.clone().oneshot(request).await.unwrap();
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.send(get(uri)).await
    }

    /// Announces and expects success.
    pub(crate) async fn announce(&self, request: Request<Body>) -> Value {
        let answer = self.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json
    }
}
