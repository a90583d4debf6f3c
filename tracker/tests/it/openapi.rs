//! The description of the routes: every route is in it, and each question is answered as it says.

use std::collections::BTreeSet;

use axum::http::{Request, StatusCode, header};
use potluck_common::ContentId;
use serde_json::{Value, json};

use crate::support::{OWN, TestPeer, TestTracker, get};

/// What is there for people: pages, and what they load.
fn is_for_people(path: &str) -> bool {
    ["/", "/peers"].contains(&path)
        || ["/docs", "/openapi.json", "/files/", "/assets/"].iter().any(|start| path.starts_with(start))
}

/// The paths of a router, as it shows them of itself.
pub(crate) fn routes(router: &axum::Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let quoted =
        shown.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/') && !text.contains("__private"));
    quoted.map(|path| path.replace("{*", "{")).collect()
}

#[tokio::test]
async fn every_route_is_described() {
    let test = TestTracker::new().await;
    let document = test.get("/openapi.json").await.json;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let routes: BTreeSet<String> = routes(&test.router).into_iter().filter(|path| !is_for_people(path)).collect();
    assert!(routes.len() > 10, "the router no longer shows its paths: {routes:?}");
    assert_eq!(described, routes);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(!operation["summary"].as_str().unwrap_or("").is_empty(), "{method} {path} says nothing of itself");
        }
    }
}

/// A validator for a schema of the document. What a shape does not name is an error, so that nothing is left undescribed.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let mut shapes = document["components"].clone();
    for (name, shape) in shapes["schemas"].as_object_mut().unwrap() {
        // Its fields stand among those of what it is a part of.
        if shape["properties"].is_object() && name != "Dot" {
            shape["additionalProperties"] = json!(false);
        }
    }
    let mut schema = schema.clone();
    schema["components"] = shapes;
    jsonschema::validator_for(&schema).unwrap()
}

#[tokio::test]
async fn each_question_is_answered_as_described() {
    let test = TestTracker::new().await;
    let document = test.get("/openapi.json").await.json;
    let mut peer = TestPeer::new(1);
    peer.message.sync = Some(potluck_common::protocol::SyncMode::Both);
    peer.message.index = vec![register("a b/c", &peer)].into();
    test.announce(peer.add(&["a b/c", "d"])).await;
    let (peer_id, content_id) = (peer.message.peer_id.to_string(), ContentId::of(b"d").to_string());
    let mut n_json = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(operation) = item.get("get") else { continue };
        let good = match path.as_str() {
            "/v1/peers/{id}" => path.replace("{id}", &peer_id),
            "/v1/content/{id}" => path.replace("{id}", &content_id),
            "/v1/folders/{path}" => path.replace("{path}", "a%20b"),
            _ => path.replace("{path}", "a%20b/c"),
        };
        let bad = path.replace("{id}", "0").replace("{path}", "nobody-has-it");
        let bad_query = format!("{good}?limit=x&max=x&wait_ms=x&content=x");
        for uri in [good, bad, bad_query] {
            let request = Request::get(&uri).header(header::HOST, OWN).body(axum::body::Body::empty()).unwrap();
            if path == "/v1/events" {
                let (status, kind) = test.head(request).await;
                assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/event-stream"));
                continue;
            }
            let answer = test.send(request).await;
            let status = answer.status.as_u16().to_string();
            let described = &operation["responses"][&status];
            assert!(described.is_object(), "GET {uri} answers {status}, which is not described");
            let Some(kind) = answer.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap()) else {
                assert!(described["content"].is_null(), "GET {uri} has no body");
                continue;
            };
            let content = &described["content"][kind];
            assert!(content.is_object(), "GET {uri} answers with {kind}, which is not described");
            if kind.contains("json") {
                let errors: Vec<_> = validator(&document, &content["schema"])
                    .iter_errors(&answer.json)
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                assert!(errors.is_empty(), "GET {uri}: {errors:?}\n{:#}", answer.json);
                n_json += 1;
            }
        }
    }
    assert!(n_json > 20, "only {n_json} answers were looked at");
}

fn register(path: &str, peer: &TestPeer) -> potluck_common::protocol::IndexEntry {
    use potluck_common::protocol::GENERATION_SHIFT;
    use potluck_common::register::{Dot, FileValue, Register, Value};
    let mut register = Register::default();
    let content_id = ContentId::of(path.as_bytes());
    let file = FileValue { mtime_ns: 1, content_id, len: path.len() as u64, executable: false };
    register.write(Dot { by: peer.message.peer_id, n: 1 << GENERATION_SHIFT }, &[], Value::File(file));
    potluck_common::protocol::IndexEntry { path: path.parse().unwrap(), register }
}

/// What is announced can be read by the description too.
#[tokio::test]
async fn announces_are_described() {
    let test = TestTracker::new().await;
    let document = test.get("/openapi.json").await.json;
    let operation = &document["paths"]["/v1/announce"]["post"];
    let mut peer = TestPeer::new(1);
    let body: Value = serde_json::from_str(&peer.add_body(&["a"])).unwrap();
    let asked = validator(&document, &operation["requestBody"]["content"]["application/json"]["schema"]);
    assert!(asked.is_valid(&body), "{:?}", asked.iter_errors(&body).map(|error| error.to_string()).collect::<Vec<_>>());
    let answer = test.announce(peer.say(potluck_common::protocol::AnnounceEvent::Heartbeat)).await;
    let answered = validator(&document, &operation["responses"]["200"]["content"]["application/json"]["schema"]);
    assert!(answered.is_valid(&answer), "{answer}");
}

/// The page needs nothing from elsewhere, and only what came with it may run.
#[tokio::test]
async fn the_page_stands_alone() {
    let test = TestTracker::new().await;
    let answer = test.get("/docs").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http"));
    let html = test.text(get("/docs")).await;
    assert!(html.contains("/v1/announce") && html.contains("curl -N"), "{html}");
    assert!(!html.contains("style=\"") && !html.contains("onclick"), "the policy forbids it");
    for part in html.split(['"', ' ']).filter(|part| part.starts_with("/docs/")) {
        assert_eq!(test.get(part).await.status, StatusCode::OK, "{part}");
    }
}
