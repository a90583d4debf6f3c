//! Honest swarms.

use potluck_common::ContentId;

use potluck_peer::config::Config;
use potluck_peer::verb::{Download, From, Verb};
use std::path::Path;
use std::time::Duration;

use crate::harness::{Node, Tracker, noise, quick, root_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_from_two_owners_at_once() {
    let tracker = Tracker::start().await;
    let data = noise(20 << 20, 1);
    let id = ContentId::of(&data);
    let _a = Node::start(&tracker, "a", &[("big/file.bin", &data)]).await;
    let _b = Node::start(&tracker, "b", &[("big/file.bin", &data)]).await;
    let c = Node::start(&tracker, "c", &[]).await;
    tracker.wait_for_owners(id, 2).await;
    let finished = c.download("big/file.bin").await.unwrap();
    assert_eq!(finished.content_id, id);
    assert_eq!(c.read("big/file.bin"), Some(data));
    let names: Vec<_> = finished.from.iter().map(|share| share.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{:?}", finished.from);
    tracker.wait_for_owners(id, 3).await;
}

/// A crowd: leechers that start together get most of a file from each other, and the seeder gives little more than one copy.
#[tokio::test(flavor = "multi_thread")]
async fn leechers_feed_leechers() {
    const N_LEECHERS: usize = 4;
    let tracker = Tracker::start().await;
    let data = noise(24 << 20, 3);
    let id = ContentId::of(&data);
    let seeder = Node::start(&tracker, "seeder", &[("file.bin", &data)]).await;
    tracker.wait_for_owners(id, 1).await;
    let mut leechers = Vec::new();
    for n in 0..N_LEECHERS {
        leechers.push(Node::start(&tracker, &format!("leecher{n}"), &[]).await);
    }
    let finished = futures::future::join_all(leechers.iter().map(|leecher| leecher.download("file.bin"))).await;
    let mut from_each_other = 0;
    for (leecher, finished) in leechers.iter().zip(finished) {
        let finished = finished.unwrap();
        assert_eq!(leecher.read("file.bin").as_deref(), Some(&data[..]));
        from_each_other +=
            finished.from.iter().filter(|share| share.name != "seeder").map(|share| share.n_bytes).sum::<u64>();
    }
    assert!(from_each_other > 0, "somebody got something from another leecher");
    tracker.wait_for_owners(id, 1 + N_LEECHERS as u64).await;
    let info = tracker.get(&format!("/v1/content/{id}")).await.unwrap();
    assert_eq!(info["n_partial"], 0, "{info}");
    drop(seeder);
}

/// A download that is given up and asked for again at once, over and over: what the first one still writes and records on the
/// blocking pool must not vouch for bytes that the second one has cut off. A record that lies ends in a wrong file, since
/// what is recorded is not hashed again.
#[tokio::test(flavor = "multi_thread")]
async fn given_up_and_asked_again_at_once() {
    let tracker = Tracker::start().await;
    let data = noise(12 << 20, 11);
    let id = ContentId::of(&data);
    let _owner = Node::start(&tracker, "owner", &[("file.bin", &data)]).await;
    tracker.wait_for_owners(id, 1).await;
    let config =
        |share: &Path| Config { record_interval: Duration::from_millis(1), ..quick(share, &tracker.url, "leecher") };
    for seed in 0..6 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let leecher = Node::start_on(root_with(&[]), config).await.unwrap();
        for _ in 0..15 {
            let names = vec!["file.bin".to_owned()];
            let mut events = leecher.peer.run(Verb::Download(Download { names, from: From::All, output: None }));
            let _given_up = tokio::time::timeout(Duration::from_millis(rng.u64(1..40)), async {
                while events.recv().await.is_some() {}
            })
            .await;
        }
        leecher.download("file.bin").await.unwrap();
        assert!(leecher.read("file.bin").unwrap() == data, "seed {seed}");
    }
}
