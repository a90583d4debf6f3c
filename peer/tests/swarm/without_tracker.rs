//! F20: no tracker answers. Peers remember each other and go on.

use std::time::Duration;

use potluck_common::ContentId;
use potluck_peer::verb::{Download, Event, From, Verb};

use crate::harness::{Node, Tracker, eventually, noise, quick, root_with, write};

/// What a verb says of where its answer comes from, and the names in it.
async fn answer(node: &Node, verb: Verb) -> Option<(Vec<String>, Vec<String>)> {
    let (events, outcome) = node.run(verb).await;
    outcome.ok()?;
    let (mut notices, mut names) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Notice { message } => notices.push(message),
            Event::Files { files } => names.extend(files.iter().map(|file| file.path.to_string())),
            Event::Peers { peers } => names.extend(peers.into_iter().map(|peer| peer.name)),
            Event::Addresses { addresses } => names.extend(addresses.into_iter().map(|address| address.name)),
            other => panic!("{other:?}"),
        }
    }
    Some((notices, names))
}

fn show() -> Verb {
    Verb::Show { pattern: None }
}

fn remembers(node: &Node, names: &[&str]) -> bool {
    let kept: Vec<_> =
        (0..2).filter_map(|n| std::fs::read(node.share().join(format!(".potluck/peers.{n}"))).ok()).collect();
    kept.iter().any(|file| names.iter().all(|name| file.windows(name.len()).any(|text| text == name.as_bytes())))
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_go_on_from_remembered_peers() {
    let tracker = Tracker::start().await;
    let (url, song) = (tracker.url.clone(), noise(3 << 20, 1));
    let ann = Node::start(&tracker, "ann", &[("song", &song), ("ann's", b"1")]).await;
    let ben = Node::start(&tracker, "ben", &[("song", &song), ("bens", b"22")]).await;
    let cat = Node::start(&tracker, "cat", &[("cats", b"333")]).await;
    eventually("cat remembers both", async || remembers(&cat, &["ann", "ben"])).await;
    tracker.wait_for_owners(ContentId::of(&song), 2).await;
    let address = tracker.stop().await;

    let notice = vec!["no tracker answers; from 2 remembered peers".to_owned()];
    let names = ["ann's", "bens", "cats", "song"].map(str::to_owned).to_vec();
    // Each file is shared as soon as it is hashed.
    let everything = Some((notice.clone(), names));
    eventually("everything is listed", async || answer(&cat, show()).await == everything).await;
    let names_of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(answer(&cat, Verb::Peers).await, Some((notice.clone(), names_of(&["ann", "ben", "cat"]))));
    let getip = |target: &str| Verb::Getip { target: Some(target.into()) };
    assert_eq!(answer(&cat, getip("ben")).await, Some((notice.clone(), names_of(&["ben"]))));
    assert_eq!(answer(&cat, getip("song")).await, Some((notice.clone(), names_of(&["ann", "ben"]))));
    let finished = cat.download("song").await.unwrap();
    assert_eq!(cat.read("song").unwrap(), song);
    assert!(!finished.from.is_empty());
    let (kind, message) = cat.cannot_download("nothing").await;
    assert_eq!((kind.exit_code(), message.contains("nobody shares")), (3, true), "{message}");

    // What is remembered outlives the peer; who left since is skipped.
    let root = cat.stop().await;
    drop(ben.stop().await);
    let cat = Node::start_on(root, |share| quick(share, &url, "cat")).await.unwrap();
    let notice = vec!["no tracker answers; from 1 remembered peer".to_owned()];
    assert_eq!(answer(&cat, show()).await, Some((notice, names_of(&["ann's", "cats", "song"]))));
    cat.download("ann's").await.unwrap();

    // As soon as a tracker answers, it is the one that is asked.
    let tracker = Tracker::start_on(address).await;
    tracker.wait_for_owners(ContentId::of(&song), 2).await;
    eventually("the tracker is asked", async || {
        answer(&cat, Verb::Peers).await == Some((vec![], names_of(&["ann", "cat"])))
    })
    .await;
    ann.is_well().await;
    cat.is_well().await;
}

/// A download that runs finds owners that came after the tracker went.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_download_finds_owners() {
    let tracker = Tracker::start().await;
    let (url, song) = (tracker.url.clone(), noise(4 << 20, 2));
    let slow = |share: &std::path::Path| potluck_peer::Config {
        limit_up: "256K".parse().unwrap(),
        ..quick(share, &url, "ann")
    };
    let ann = Node::start_on(root_with(&[("song", &song)]), slow).await.unwrap();
    let ben = Node::start(&tracker, "ben", &[]).await;
    let cat = Node::start(&tracker, "cat", &[]).await;
    tracker.wait_for_owners(ContentId::of(&song), 1).await;
    eventually("cat remembers both", async || remembers(&cat, &["ann", "ben"])).await;
    let request = Download { names: vec!["song".into()], from: From::All, output: None, origin: None };
    let running = cat.run(Verb::Download(request));
    let meanwhile = async {
        eventually("it runs", async || cat.status().await.downloads.iter().any(|file| file.n_bytes > 0)).await;
        tracker.stop().await;
        write(&ben.share(), "a copy", &song);
        eventually("ben shares it", async || ben.status().await.n_files == 1).await;
        drop(ann.stop().await);
    };
    let ((events, outcome), ()) =
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(running, meanwhile) })
            .await
            .expect("the download ends");
    outcome.unwrap();
    let gave = events.iter().find_map(|event| match event {
        Event::Finished(finished) => Some(finished.from.iter().map(|owner| owner.name.clone()).collect::<Vec<_>>()),
        _ => None,
    });
    assert!(gave.is_some_and(|gave| gave.contains(&"ben".to_owned())), "{events:?}");
    assert_eq!(cat.read("song").unwrap(), song);
}
