//! Honest swarms.

use potluck_common::ContentId;

use potluck_peer::config::Config;
use potluck_peer::verb::{Download, Event, FailureKind, From, Verb};
use std::path::Path;
use std::time::Duration;

use crate::harness::{Node, Tracker, eventually, noise, quick, root_with};

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
    // Slow enough that the leechers surely overlap: on loopback the first could be done before the last has begun.
    let slow = |share: &Path| Config { limit_up: "12M".parse().unwrap(), ..quick(share, &tracker.url, "seeder") };
    let seeder = Node::start_on(root_with(&[("file.bin", &data)]), slow).await.unwrap();
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
    let everything = (N_LEECHERS * data.len()) as u64;
    assert!(from_each_other > everything / 4, "{from_each_other} of {everything} came from leechers");
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
            let mut events =
                leecher.peer.run(Verb::Download(Download { names, from: From::All, output: None, origin: None }));
            let _given_up = tokio::time::timeout(Duration::from_millis(rng.u64(1..40)), async {
                while events.recv().await.is_some() {}
            })
            .await;
        }
        leecher.download("file.bin").await.unwrap();
        assert!(leecher.read("file.bin").unwrap() == data, "seed {seed}");
    }
}

/// Thousands of small files in one download: nested, empty ones, many of one content, odd names, and one whose name is taken
/// by something else, which fails alone.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_small_files() {
    const N: usize = 3_000;
    let tracker = Tracker::start().await;
    let files: Vec<_> = (0..N)
        .map(|n| {
            let name = match n % 100 {
                0 => format!("tree/{}/\u{e9}t\u{e9} {n} #%?&.txt", n / 700),
                1 => format!("tree/{}/e\u{301} {n}", n / 700),
                2 => format!("tree/{}/CON.{n}.", n / 700),
                3 => format!("tree/{}/'{n}\"ab:c", n / 700),
                _ => format!("tree/{}/{}/{n}", n / 700, n % 13),
            };
            let data = match n % 10 {
                5 => Vec::new(),
                6 => b"the same in many places".to_vec(),
                _ => noise(1 + n % 3_000, n as u64),
            };
            (name, data)
        })
        .collect();
    let given: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let _owner = Node::start(&tracker, "owner", &given).await;
    let taken = &files[17].0;
    let leecher = Node::start(&tracker, "leecher", &[(taken, b"mine")]).await;
    eventually("everything is listed", async || tracker.names().await.len() == N).await;
    tracker.wait_for_owners(ContentId::of(b"mine"), 1).await;
    let request =
        Download { names: vec!["tree/".into()], from: From::Peer("owner".into()), output: None, origin: None };
    // The name that is taken has two contents in the swarm, so the folder does not say which is meant.
    let (events, outcome) = leecher.run(Verb::Download(request)).await;
    assert_eq!(outcome.unwrap_err().kind, FailureKind::Usage);
    let n_finished = events.iter().filter(|event| matches!(event, Event::Finished(_))).count();
    assert_eq!(n_finished, N - 1);
    for (name, data) in files.iter().filter(|(name, _)| name != taken) {
        assert!(leecher.read(name).as_ref() == Some(data), "{name}");
    }
    let by_id = format!("{taken}@{}", ContentId::of(&files[17].1).short());
    leecher.download(&by_id).await.expect_err("something else stands there");
    assert_eq!(leecher.read(taken).as_deref(), Some(&b"mine"[..]));
    assert_eq!(leecher.n_partial(), 0);
    eventually("it shares what it got", async || leecher.status().await.n_files == N as u64).await;
    leecher.is_well().await;
}
