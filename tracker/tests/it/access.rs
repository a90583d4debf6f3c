//! Who may do what: every route with every method, asked by nobody in particular, by a peer for itself, and by another in
//! that peer's name. There are no tokens in this build, so the table has no column for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, header};
use potluck_common::ContentId;
use potluck_common::identity::SIGNATURE_HEADER;
use potluck_common::protocol::{Announce, AnnounceEvent};
use potluck_tracker::{Config, RateLimits};
use tower::ServiceExt;

use crate::openapi::routes;
use crate::support::{OWN, TestPeer, TestTracker};

/// What is answered to nobody, to the peer itself, and to another in its name.
type Answers = [u16; 3];

const READ: Answers = [200; 3];
/// To an owner, who has the bytes.
const SENT_ON: Answers = [307; 3];
const NO_SUCH_METHOD: Answers = [405; 3];

/// Each route, and what it answers to GET and to POST. HEAD is answered as GET, and any other method by no route.
const TABLE: [(&str, Answers, Answers); 24] = [
    ("/", READ, NO_SUCH_METHOD),
    ("/assets/{name}", READ, NO_SUCH_METHOD),
    ("/docs", READ, NO_SUCH_METHOD),
    ("/docs/style.css", READ, NO_SUCH_METHOD),
    ("/docs/try.js", READ, NO_SUCH_METHOD),
    ("/f/{path}", SENT_ON, NO_SUCH_METHOD),
    ("/files/{path}", READ, NO_SUCH_METHOD),
    ("/healthz", READ, NO_SUCH_METHOD),
    ("/metrics", READ, NO_SUCH_METHOD),
    ("/openapi.json", READ, NO_SUCH_METHOD),
    ("/peers", READ, NO_SUCH_METHOD),
    ("/readyz", READ, NO_SUCH_METHOD),
    ("/v1/announce", NO_SUCH_METHOD, [403, 200, 403]),
    ("/v1/content/{id}", READ, NO_SUCH_METHOD),
    ("/v1/events", READ, NO_SUCH_METHOD),
    ("/v1/files", READ, NO_SUCH_METHOD),
    ("/v1/files/{path}", READ, NO_SUCH_METHOD),
    ("/v1/folders/{path}", READ, NO_SUCH_METHOD),
    ("/v1/matrix", READ, NO_SUCH_METHOD),
    ("/v1/peers", READ, NO_SUCH_METHOD),
    ("/v1/peers/{id}", READ, NO_SUCH_METHOD),
    ("/v1/stats", READ, NO_SUCH_METHOD),
    ("/v1/sync", READ, NO_SUCH_METHOD),
    ("/v1/tracker", READ, NO_SUCH_METHOD),
];

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// T23: the table above is what is answered, a route without a row in it fails, and nothing changed but by the peer's own
/// word.
#[tokio::test]
async fn t23_every_route_and_every_identity() {
    let rate = RateLimits { per_second: 1e6, burst: 1e6, ..RateLimits::default() };
    let test = TestTracker::with(Config { rate, ..Config::default() }).await;
    let (mut ann, eve) = (TestPeer::new(1), TestPeer::new(2));
    test.announce(ann.add(&["dir/a"])).await;
    let mut answered = Vec::new();
    for path in routes(&test.router) {
        let id = if path.starts_with("/v1/peers") {
            ann.message.peer_id.to_string()
        } else {
            ContentId::of(b"dir/a").to_string()
        };
        let name = if path.starts_with("/v1/folders") { "dir" } else { "dir/a" };
        let uri = path.replace("{id}", &id).replace("{path}", name).replace("{name}", "potluck.css");
        let mut of = BTreeMap::new();
        for method in METHODS {
            let mut answers = [0; 3];
            for (who, answer) in answers.iter_mut().enumerate() {
                // In its own name it says that it is still there; others would have it gone.
                let event = if who == 1 { AnnounceEvent::Heartbeat } else { AnnounceEvent::Stopped };
                ann.message.seq += 1;
                ann.message.base = ann.message.revision;
                let said = Announce { event, added: vec![], ..ann.message.clone() };
                let body = serde_json::to_string(&said).unwrap();
                let signature = match who {
                    0 => None,
                    1 => Some(ann.identity.sign(body.as_bytes())),
                    _ => Some(eve.identity.sign(body.as_bytes())),
                };
                let mut request = Request::builder().method(&method).uri(&uri).header(header::HOST, OWN);
                request = request.header(header::CONTENT_TYPE, "application/json");
                if let Some(signature) = signature {
                    request = request.header(SIGNATURE_HEADER, signature);
                }
                let mut request = request.body(Body::from(body)).unwrap();
                request.extensions_mut().insert(ConnectInfo::<SocketAddr>(([10, 0, 0, 7], 50_000).into()));
                // Only the head: some answers have no end.
                *answer = test.router.clone().oneshot(request).await.unwrap().status().as_u16();
                let there = test.get(&format!("/v1/peers/{}", ann.message.peer_id)).await;
                assert_eq!(there.json["n_files"], 1, "{method} {uri} by {who}: {there:?}");
                assert_eq!(test.get("/v1/stats").await.json["n_peers"], 1, "{method} {uri} by {who}");
            }
            of.insert(method.to_string(), answers);
        }
        let (get, post) = (of["GET"], of["POST"]);
        assert_eq!(of["HEAD"], get, "HEAD {path}");
        for other in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
            assert_eq!(of[other], NO_SUCH_METHOD, "{other} {path}");
        }
        answered.push((path, get, post));
    }
    let table: Vec<_> = TABLE.iter().map(|(path, get, post)| ((*path).to_owned(), *get, *post)).collect();
    assert_eq!(answered, table, "what is answered, and the table");
}
