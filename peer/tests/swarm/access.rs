//! Who may do what at a peer: every route with every method, asked by nobody in particular, by the peer itself, and by another
//! in its name. There are no tokens in this build, so the table has no column for them.

use axum::http::{Method, header};
use potluck_common::ContentId;
use potluck_common::identity::{Identity, SIGNATURE_HEADER};
use potluck_common::protocol::SyncMode;
use potluck_peer::Config;
use serde_json::json;

use crate::harness::{Node, Tracker, eventually, http, quick, root_with};
use crate::openapi::paths;
use crate::secrets::secret_of;

/// Each route, and what it answers to GET. HEAD is answered as GET, and any other method by no route. Who signs is not in it,
/// since no route of a peer knows an identity: all three are answered alike.
const TABLE: [(&str, u16); 17] = [
    ("/", 200),
    ("/assets/{name}", 200),
    ("/docs", 200),
    ("/docs/style.css", 200),
    ("/docs/try.js", 200),
    ("/f/{path}", 200),
    ("/healthz", 200),
    ("/metrics", 200),
    ("/openapi.json", 200),
    ("/v1/content/{id}", 200),
    ("/v1/content/{id}/chunks", 200),
    ("/v1/content/{id}/have", 200),
    ("/v1/content/{id}/metalink", 200),
    ("/v1/content/{id}/torrent", 200),
    ("/v1/contents?ids={id}", 200),
    ("/v1/index", 200),
    ("/v1/sync", 200),
];

const OTHERS: [Method; 5] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// T23: the table above is what is answered, a route without a row in it fails, and nothing is changed by anybody.
#[tokio::test(flavor = "multi_thread")]
async fn t23_every_route_and_every_identity() {
    let rows: Vec<&str> = TABLE.iter().map(|(path, _)| path.split('?').next().unwrap()).collect();
    let shown = paths();
    assert!(shown.iter().map(String::as_str).eq(rows.iter().copied()), "the rows are {rows:#?}\nthe routes {shown:#?}");
    let tracker = Tracker::start().await;
    let node = Node::start_on(root_with(&[("dir/a", b"hello")]), |share| Config {
        sync: Some(SyncMode::Both),
        ..quick(share, &tracker.url, "node")
    });
    let node = node.await.unwrap();
    let id = ContentId::of(b"hello");
    tracker.wait_for_owners(id, 1).await;
    eventually("it gives out its index", async || node.get("/v1/sync").await.status() == 200).await;
    let peer_id = node.status().await.peer_id;
    let (own, foreign) = (Identity::from_secret(&secret_of(&node, peer_id)), Identity::from_secret(&[23; 32]));
    let body =
        json!({ "verb": "stop", "event": "stopped", "peer_id": peer_id, "public_key": own.public_key() }).to_string();
    let client = http();
    for (path, get) in TABLE {
        let url = format!("{}{path}", node.base()).replace("{id}", &id.to_string()).replace("{path}", "dir/a");
        let url = url.replace("{name}", "potluck.css");
        let methods = [(Method::GET, get), (Method::HEAD, get)];
        for (method, want) in methods.into_iter().chain(OTHERS.map(|method| (method, 405))) {
            for signature in [None, Some(own.sign(body.as_bytes())), Some(foreign.sign(body.as_bytes()))] {
                let mut request = client.request(method.clone(), &url).header(header::CONTENT_TYPE, "application/json");
                if let Some(signature) = &signature {
                    request = request.header(SIGNATURE_HEADER, signature);
                }
                let answer = request.body(body.clone()).send().await.unwrap();
                assert_eq!(answer.status(), want, "{method} {path}, signed: {signature:?}");
            }
        }
    }
    node.is_well().await;
    let status = node.status().await;
    assert_eq!((status.n_files, node.read("dir/a").unwrap()), (1, b"hello".to_vec()));
    assert_eq!(tracker.names().await, ["dir/a"]);
}
