//! Whether others can reach a peer: the tracker tries, and the peer says so.

use std::net::TcpListener;

use potluck_peer::Config;

use crate::harness::{Node, Tracker, eventually, quick, root_with};

async fn reaches_us(node: &Node) -> Option<bool> {
    node.status().await.trackers[0].reaches_us
}

#[tokio::test]
async fn a_peer_knows_whether_it_is_reachable() {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "open", &[]).await;
    // A port that nobody listens at: bound, and never accepted from.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let advertise = format!("127.0.0.1:{}", closed.local_addr().unwrap().port());
    let hidden = Node::start_on(root_with(&[]), |share| Config {
        advertise: Some(advertise.parse().unwrap()),
        ..quick(share, &tracker.url, "hidden")
    });
    let hidden = hidden.await.unwrap();
    eventually("the open one is reached", async || reaches_us(&node).await == Some(true)).await;
    eventually("the hidden one is not", async || reaches_us(&hidden).await == Some(false)).await;
    let listed = tracker.get("/v1/peers").await.unwrap();
    let listed =
        listed["peers"].as_array().unwrap().iter().map(|peer| (peer["name"].as_str(), peer["reachable"].as_bool()));
    assert_eq!(listed.collect::<Vec<_>>(), [(Some("hidden"), Some(false)), (Some("open"), Some(true))]);
}
