//! Whether others can reach a peer: the tracker tries, and the peer says so; and what those do who cannot.

use std::net::TcpListener;
use std::time::Instant;

use potluck_common::ContentId;
use potluck_peer::Config;

use crate::harness::{Node, Tracker, eventually, noise, quick, root_with};
use crate::hostile::given_by;
use crate::link::Link;
use crate::metrics::Shown;

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

/// How many requests for bytes came to nothing for that reason.
async fn n_failed(node: &Node, reason: &str) -> f64 {
    Shown::of(node.base()).await.get(&format!("potluck_peer_fetches_failed_total{{reason=\"{reason}\"}}"))
}

/// F25: two peers that both reach the tracker, and a third, and not each other, each with what the other wants. Each is tried by
/// the other now and then, and never taken for corrupt: as soon as the link is whole, what is left comes over it, in the same
/// download, which never asks again who once was.
#[tokio::test(flavor = "multi_thread")]
async fn f25_two_that_cannot_reach_each_other() {
    const LEN: usize = 6 << 20;
    let tracker = Tracker::start().await;
    let (of_a, of_b) = (noise(LEN, 251), noise(LEN, 252));
    let (to_a, to_b) = (Link::cut().await, Link::cut().await);
    let behind = async |link: &Link, name: &str, path: &str, data: &[u8]| {
        let advertise = link.address.to_string();
        let config = |share: &std::path::Path| Config {
            advertise: Some(advertise.parse().unwrap()),
            ..quick(share, &tracker.url, name)
        };
        Node::start_on(root_with(&[(path, data)]), config).await.unwrap()
    };
    let a = behind(&to_a, "a", "of a", &of_a).await;
    let b = behind(&to_b, "b", "of b", &of_b).await;
    // So slow that there is much left when the link is healed.
    let config =
        |share: &std::path::Path| Config { limit_up: "2M".parse().unwrap(), ..quick(share, &tracker.url, "c") };
    let _c = Node::start_on(root_with(&[("of a", &of_a), ("of b", &of_b)]), config).await.unwrap();
    for data in [&of_a, &of_b] {
        tracker.wait_for_owners(ContentId::of(data), 2).await;
    }
    let began = Instant::now();
    let downloads = async { tokio::join!(a.download("of b"), b.download("of a")) };
    let healing = async {
        let so_far = async |node: &Node| node.status().await.downloads.first().map_or(0, |download| download.n_bytes);
        eventually("some of both has come", async || so_far(&a).await.min(so_far(&b).await) > 1 << 20).await;
        for (node, to) in [(&a, &to_b), (&b, &to_a)] {
            let n_failed = n_failed(node, "unreachable").await;
            let (n_tried, elapsed) = (to.n_tried(), began.elapsed());
            // A few until it is given up, and then some each second; who never pauses makes hundreds.
            let at_most = 20.0 + 10.0 * elapsed.as_secs_f64();
            assert!(n_failed > 0.0 && n_failed <= at_most, "{n_failed} requests went to it in {elapsed:?}");
            // The tracker tries it as well.
            assert!(n_tried as f64 <= 2.0 * at_most, "it was tried {n_tried} times in {elapsed:?}");
        }
        to_a.leads_to(a.base());
        to_b.leads_to(b.base());
    };
    let ((got_a, got_b), ()) = tokio::join!(downloads, healing);
    for (node, finished, from, path, data) in [(&a, got_a, "b", "of b", &of_b), (&b, got_b, "a", "of a", &of_a)] {
        let finished = finished.unwrap();
        assert!(given_by(&finished, from) > 0, "it is not asked again: {:?}", finished.from);
        assert!(given_by(&finished, "c") > 1 << 20, "{:?}", finished.from);
        assert!(node.read(path).unwrap() == *data);
        assert_eq!(n_failed(node, "corrupt").await, 0.0);
        node.is_well().await;
    }
}
