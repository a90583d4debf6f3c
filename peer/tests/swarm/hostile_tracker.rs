//! A tracker that says what a test wants it to say.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, header};
use potluck_common::identity::Identity;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// It takes every announce and answers questions from a closure: `None` is a 404.
pub(crate) struct HostileTracker {
    pub(crate) url: String,
    _ends: DropGuard,
}

impl HostileTracker {
    pub(crate) async fn start(answers: impl Fn(&str) -> Option<Value> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::new(answers);
        let router = axum::Router::new().fallback(move |request: Request| {
            let answers = answers.clone();
            async move {
                let value = match request.uri().path() {
                    "/v1/announce" => Some(json!({ "heartbeat_ms": 60_000, "lease_ms": 120_000, "seen": "127.0.0.1",
                        "base_url": "http://127.0.0.1:1", "revision": u64::MAX, "resync": false })),
                    path => answers(path),
                };
                let status = if value.is_some() { 200 } else { 404 };
                let body = value.unwrap_or_default().to_string();
                let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
                answer.body(Body::from(body)).unwrap()
            }
        });
        let shutdown = CancellationToken::new();
        let ending = shutdown.clone();
        tokio::spawn(async move { ending.run_until_cancelled(axum::serve(listener, router).into_future()).await });
        Self { url, _ends: shutdown.drop_guard() }
    }
}

/// An owner in the tracker's words.
pub(crate) fn owner(name: &str, base_url: &str) -> Value {
    let identity = Identity::from_secret(blake3::hash(name.as_bytes()).as_bytes());
    json!({ "peer_id": identity.peer_id(), "name": name, "base_url": base_url, "complete": true, "n_chunks": 1 })
}
