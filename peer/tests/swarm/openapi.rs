//! The description of a peer's routes: every route is in it, and each question is answered as it says.

use std::collections::BTreeSet;

use potluck_common::ContentId;
use potluck_common::protocol::SyncMode;
use potluck_peer::wire::feed::sync_feed;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::feeds::routes;
use crate::harness::{Node, Tracker, eventually, noise, quick, root_with};

/// What is there for people: pages, and what they load.
fn is_for_people(path: &str) -> bool {
    path == "/" || ["/docs", "/openapi.json", "/files/", "/assets/"].iter().any(|start| path.starts_with(start))
}

/// The paths of a peer's router, as it shows them of itself.
pub(crate) fn paths() -> BTreeSet<String> {
    let (router, _share) = routes(sync_feed().0, CancellationToken::new());
    let shown = format!("{router:?}");
    let paths = shown.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/') && !text.contains("__private"));
    paths.map(|path| path.replace("{*", "{")).collect()
}

async fn document(node: &Node) -> Value {
    node.get("/openapi.json").await.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_a_peer_is_described() {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "node", &[]).await;
    let document = document(&node).await;
    let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let paths: BTreeSet<String> = paths().into_iter().filter(|path| !is_for_people(path)).collect();
    assert!(paths.len() > 5, "the router no longer shows its paths: {paths:?}");
    assert_eq!(described, paths);
    let page = node.get("/docs").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.text().await.unwrap().contains("/v1/index"));
    let policy = node.get("/healthz").await.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("sandbox"), "{policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_answers_as_described() {
    let tracker = Tracker::start().await;
    let data = noise(600 << 10, 1);
    let id = ContentId::of(&data);
    let config = |share: &std::path::Path| potluck_peer::Config {
        sync: Some(SyncMode::Both),
        ..quick(share, &tracker.url, "n")
    };
    let node = Node::start_on(root_with(&[("a b/c", &data)]), config).await.unwrap();
    tracker.wait_for_owners(id, 1).await;
    eventually("it gives out its index", async || node.get("/v1/sync").await.status() == 200).await;
    let document = document(&node).await;
    let mut n_json = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let good = path.replace("{id}", &id.to_string()).replace("{path}", "a%20b/c");
        let bad = path.replace("{id}", "0").replace("{path}", "nobody-has-it");
        for uri in [good.clone(), bad, format!("{good}?limit=x&wait_ms=x")] {
            let answer = node.get(&uri).await;
            let status = answer.status().as_u16().to_string();
            let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
            let content = &item["get"]["responses"][&status]["content"][&kind];
            assert!(content.is_object(), "GET {uri} answers {status} with {kind}, which is not described");
            if !kind.ends_with("json") {
                continue;
            }
            let mut schema = content["schema"].clone();
            schema["components"] = document["components"].clone();
            for (name, shape) in schema["components"]["schemas"].as_object_mut().unwrap() {
                if shape["properties"].is_object() && name != "Dot" {
                    shape["additionalProperties"] = json!(false);
                }
            }
            let body: Value = answer.json().await.unwrap();
            let validator = jsonschema::validator_for(&schema).unwrap();
            let errors: Vec<_> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "GET {uri}: {errors:?}\n{body:#}");
            n_json += 1;
        }
    }
    assert!(n_json > 8, "only {n_json} answers were looked at");
}
