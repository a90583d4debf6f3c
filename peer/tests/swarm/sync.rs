//! Folder sync with whole peers: the folders become one, and what is done on one of them is done on all.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use potluck_common::protocol::SyncMode;
use potluck_peer::config::Config;
use potluck_peer::verb::{Event, FailureKind, SyncChange, SyncStatus, Verb};

use crate::disk::Disk;
use crate::harness::{DEADLINE, Node, Tracker, eventually, noise, quick, root_with};

/// What stands in a folder: bytes, modification time and executable bit of files; folders.
type Tree = BTreeMap<String, Option<(Vec<u8>, SystemTime, bool)>>;

fn tree(share: &Path) -> Tree {
    fn walk(root: &Path, dir: &Path, tree: &mut Tree) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if name == ".potluck" {
                continue;
            }
            // Gone while it is looked at: then it is not there.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                tree.insert(name, None);
                walk(root, &path, tree);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let executable = metadata.permissions().mode() & 0o100 != 0;
                tree.insert(name, Some((bytes, metadata.modified().unwrap(), executable)));
            }
        }
    }
    let mut tree = Tree::new();
    walk(share, share, &mut tree);
    tree
}

async fn start(tracker: &Tracker, name: &str, mode: SyncMode, files: &[(&str, &[u8])]) -> Node {
    let config = |share: &Path| Config { sync: Some(mode), ..quick(share, &tracker.url, name) };
    Node::start_on(root_with(files), config).await.unwrap()
}

/// Waits until all folders are alike and as wanted, and everybody is at rest.
async fn settled(nodes: &[&Node], what: &str, wanted: impl Fn(&Tree) -> bool) {
    eventually(what, async || {
        let first = tree(nodes[0].peer.share());
        let alike = wanted(&first) && nodes.iter().all(|node| tree(node.peer.share()) == first);
        if !alike {
            return false;
        }
        for node in nodes {
            if status(node, None).await.n_to_do != 0 {
                return false;
            }
        }
        true
    })
    .await;
}

async fn status(node: &Node, change: Option<SyncChange>) -> SyncStatus {
    let (events, outcome) = node.run(Verb::Sync { change }).await;
    outcome.unwrap();
    events.into_iter().find_map(|event| if let Event::Sync(status) = event { Some(status) } else { None }).unwrap()
}

fn text<'a>(tree: &'a Tree, path: &str) -> Option<&'a [u8]> {
    tree.get(path)?.as_ref().map(|(bytes, _, _)| bytes.as_slice())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_folder_on_three_peers() {
    let tracker = Tracker::start().await;
    let big = noise(1_000_000, 1);
    let a = start(&tracker, "a", SyncMode::Both, &[("docs/one.txt", b"1"), ("same", b"same"), ("big", &big)]).await;
    let b = start(&tracker, "b", SyncMode::Both, &[("docs/deep/two.txt", b"2"), ("same", b"same")]).await;
    std::fs::create_dir(a.peer.share().join("empty")).unwrap();
    let c = start(&tracker, "c", SyncMode::Both, &[]).await;
    let nodes = [&a, &b, &c];
    let share = |node: &Node| node.peer.share().to_owned();
    settled(&nodes, "the union", |tree| {
        tree.len() == 7 && text(tree, "big") == Some(&big[..]) && tree.get("empty") == Some(&None)
    })
    .await;
    // The same content on both sides is no conflict.
    assert_eq!(status(&a, None).await.n_conflicts, 0);

    std::fs::write(share(&c).join("docs/one.txt"), "1, edited").unwrap();
    settled(&nodes, "an edit", |tree| text(tree, "docs/one.txt") == Some(b"1, edited")).await;

    std::fs::rename(share(&b).join("docs"), share(&b).join("papers")).unwrap();
    settled(&nodes, "a folder renamed", |tree| {
        !tree.contains_key("docs") && text(tree, "papers/deep/two.txt") == Some(b"2")
    })
    .await;

    std::fs::set_permissions(share(&a).join("same"), std::fs::Permissions::from_mode(0o755)).unwrap();
    settled(&nodes, "an executable", |tree| tree["same"].as_ref().is_some_and(|(_, _, executable)| *executable)).await;

    std::fs::remove_file(share(&a).join("big")).unwrap();
    settled(&nodes, "a delete", |tree| !tree.contains_key("big")).await;
    let (events, outcome) = c.run(Verb::Restore { items: vec!["big".into()] }).await;
    outcome.unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::Restored { path, .. } if path.as_str() == "big")));
    settled(&nodes, "it is back from the trash", |tree| text(tree, "big") == Some(&big[..])).await;

    let (_, outcome) = b.run(Verb::Wait { pattern: None, all: true }).await;
    outcome.unwrap();
    for node in [a, b, c] {
        node.stop().await;
    }
}

/// For scripts: what was written just before `wait --all`, in new folders too, is everywhere when that returns. (It used to count
/// only what had been noticed, and so returned at once.)
#[tokio::test(flavor = "multi_thread")]
async fn wait_counts_what_nobody_has_noticed_yet() {
    let tracker = Tracker::start().await;
    // As slow to notice as outside tests.
    let unhurried = |share: &Path, name: &str| {
        let Config { settle, watch_coalesce, announce_coalesce, .. } = Config::default();
        let quick = quick(share, &tracker.url, name);
        Config { sync: Some(SyncMode::Both), settle, watch_coalesce, announce_coalesce, ..quick }
    };
    let a = Node::start_on(root_with(&[]), |share| unhurried(share, "a")).await.unwrap();
    let b = Node::start_on(root_with(&[]), |share| unhurried(share, "b")).await.unwrap();
    settled(&[&a, &b], "both are there", Tree::is_empty).await;
    for round in 0..5 {
        for n in 0..20 {
            let data = format!("{round} {n}");
            crate::harness::write(a.peer.share(), &format!("new {round}/{}/{n}", n % 3), data.as_bytes());
            // Edited each time, too.
            crate::harness::write(a.peer.share(), &n.to_string(), data.as_bytes());
        }
        let (_, outcome) = a.run(Verb::Wait { pattern: None, all: true }).await;
        outcome.unwrap();
        let (here, there) = (tree(a.peer.share()), tree(b.peer.share()));
        // With what came back.
        assert_eq!(here.values().flatten().count(), 20 * (round + 2) + usize::from(round > 0));
        assert!(here == there, "round {round}: {} of {} are there", there.len(), here.len());
        std::fs::write(b.peer.share().join("back"), round.to_string()).unwrap();
        let (_, outcome) = b.run(Verb::Wait { pattern: Some("back".into()), all: true }).await;
        outcome.unwrap();
        assert_eq!(text(&tree(a.peer.share()), "back"), Some(round.to_string().as_bytes()));
    }
}

/// Renamed by another peer while it was on its way here, and then this peer ended: the download went on by itself at the old name,
/// and from there the file was everybody's again under both.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_does_not_come_under_its_old_name() {
    let tracker = Tracker::start().await;
    let big = noise(12 << 20, 3);
    let slow = |share: &Path| Config {
        sync: Some(SyncMode::Both),
        limit_up: "4M".parse().unwrap(),
        ..quick(share, &tracker.url, "a")
    };
    let a = Node::start_on(root_with(&[("big", &big)]), slow).await.unwrap();
    let b = start(&tracker, "b", SyncMode::Both, &[]).await;
    eventually("some of it is there", async || {
        b.status().await.downloads.first().is_some_and(|transfer| transfer.n_bytes > 1 << 20)
    })
    .await;
    std::fs::rename(a.peer.share().join("big"), a.peer.share().join("moved")).unwrap();
    eventually("it hears of the new name", async || {
        b.get("/v1/sync").await.text().await.is_ok_and(|page| page.contains("\"moved\""))
    })
    .await;
    let root = b.stop().await;
    let is_there = |name: &str| root.path().join("share").join(name).exists();
    assert!(!is_there("big") && !is_there("moved"), "all of it takes three seconds");
    // What it was still doing on the disk may hold the folder for a moment longer.
    let lock = std::fs::File::open(root.path().join("share/.potluck/lock")).unwrap();
    eventually("it lets go of the folder", async || lock.try_lock().is_ok()).await;
    drop(lock);
    let config = |share: &Path| Config { sync: Some(SyncMode::Both), ..quick(share, &tracker.url, "b") };
    let b = Node::start_on(root, config).await.unwrap();
    let is_moved = |tree: &Tree| text(tree, "moved") == Some(&big[..]) && !tree.contains_key("big");
    settled(&[&a, &b], "it is here under its new name", is_moved).await;
    // Whatever else was begun at the start is over by then.
    std::fs::write(b.peer.share().join("later"), "x").unwrap();
    settled(&[&a, &b], "and only there", |tree| is_moved(tree) && text(tree, "later") == Some(b"x")).await;
    assert_eq!(b.n_partial(), 0);
    for node in [a, b] {
        node.stop().await;
    }
}

/// Two edits before either was heard of: both stay, under the same names on both sides; whoever deletes the copy decides.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_edits_are_both_kept() {
    let tracker = Tracker::start().await;
    let a = start(&tracker, "a", SyncMode::Both, &[("notes.txt", b"a's")]).await;
    let b = start(&tracker, "b", SyncMode::Both, &[("notes.txt", b"b's")]).await;
    let nodes = [&a, &b];
    settled(&nodes, "both versions", |tree| {
        let mut versions: Vec<_> = tree.values().flatten().map(|(bytes, _, _)| bytes.as_slice()).collect();
        versions.sort_unstable();
        versions == [b"a's", b"b's"] && tree.contains_key("notes.txt")
    })
    .await;
    let (events, outcome) = b.run(Verb::Conflicts { pattern: None }).await;
    outcome.unwrap();
    let Some(Event::Conflicts { conflicts }) = events.into_iter().next() else { panic!("no conflicts") };
    let [conflict] = conflicts.as_slice() else { panic!("{conflicts:?}") };
    let [winner, copy] = conflict.versions.as_slice() else { panic!("{conflict:?}") };
    assert_eq!(winner.path.as_str(), "notes.txt");
    assert!(copy.path.as_str().starts_with("notes.conflict-") && copy.path.as_str().ends_with(".txt"), "{copy:?}");
    std::fs::remove_file(a.peer.share().join(copy.path.as_str())).unwrap();
    settled(&nodes, "one version", |tree| tree.len() == 1 && tree.contains_key("notes.txt")).await;
    assert_eq!(status(&b, None).await.n_conflicts, 0);
}

/// Brings files back from a peer's trash, as they last stood there.
async fn restore(node: &Node, names: &[String]) {
    let (events, outcome) = node.run(Verb::Restore { items: names.to_vec() }).await;
    outcome.unwrap();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Restored { .. })).count(), names.len());
}

/// Rule 9, S02: most of the files gone at once is not passed on before somebody says so, and can be taken back. What is passed on in the
/// end (the brake is where the files vanish: a member who lies about that is believed) is in the trash of whoever did as told, and
/// comes back from there byte for byte, for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_mass_delete_is_held() {
    let tracker = Tracker::start().await;
    let names: Vec<_> = (0..40).map(|n| format!("d/{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let a = start(&tracker, "a", SyncMode::Both, &files).await;
    let b = start(&tracker, "b", SyncMode::Both, &[]).await;
    let nodes = [&a, &b];
    settled(&nodes, "the union", |tree| tree.len() == 41).await;
    let wipe = || std::fs::remove_dir_all(a.peer.share().join("d")).unwrap();
    wipe();
    eventually("deletes are held", async || status(&a, None).await.n_held > 0).await;
    assert!(tree(b.peer.share()).len() >= 30, "a quarter at most may be gone");
    status(&a, Some(SyncChange::Restore)).await;
    settled(&nodes, "they are back", |tree| tree.len() >= 30).await;
    let n_back = tree(a.peer.share()).len();
    wipe();
    eventually("deletes are held again", async || status(&a, None).await.n_held > 0).await;
    assert!(tree(b.peer.share()).len() > n_back / 2);
    status(&a, Some(SyncChange::Confirm)).await;
    settled(&nodes, "they are gone", |tree| tree.values().flatten().next().is_none()).await;
    restore(&b, &names).await;
    settled(&nodes, "all are back", |tree| {
        tree.values().flatten().count() == 40 && names.iter().all(|name| text(tree, name) == Some(name.as_bytes()))
    })
    .await;
}

/// S08: other bytes in every file of one member, under the same names, as ransomware leaves them. The others take them as they take any
/// edit, for no brake looks at how much is rewritten (that part of S08 is not built); but each earlier version is in the trash
/// of each of them, and comes back byte for byte, for all, as soon as its name is free.
#[tokio::test(flavor = "multi_thread")]
async fn s08_what_is_rewritten_is_kept() {
    let tracker = Tracker::start().await;
    let names: Vec<_> = (0..40).map(|n| format!("d/{n}")).collect();
    let earlier: Vec<_> = (0..40).map(|n| noise(1_000 + n, n as u64)).collect();
    let files: Vec<_> = names.iter().zip(&earlier).map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let a = start(&tracker, "a", SyncMode::Both, &files).await;
    let b = start(&tracker, "b", SyncMode::Both, &[]).await;
    let c = start(&tracker, "c", SyncMode::Both, &[]).await;
    let nodes = [&a, &b, &c];
    settled(&nodes, "the union", |tree| tree.len() == 41).await;
    let spoiled: Vec<_> = earlier.iter().map(|data| data.iter().map(|byte| !byte).collect::<Vec<u8>>()).collect();
    // Written beside and renamed: to truncate and write is two changes, and an empty version may travel between them.
    let beside = a.peer.share().with_file_name("spoiled");
    for (name, data) in names.iter().zip(&spoiled) {
        std::fs::write(&beside, data).unwrap();
        std::fs::rename(&beside, a.peer.share().join(name)).unwrap();
    }
    let all_are = |tree: &Tree, folder: &str, data: &[Vec<u8>]| {
        (0..40).all(|n| text(tree, &format!("{folder}/{n}")) == Some(data[n].as_slice()))
    };
    settled(&nodes, "all are spoiled", |tree| all_are(tree, "d", &spoiled)).await;
    for node in [&b, &c] {
        let (events, outcome) = node.run(Verb::Trash { pattern: None }).await;
        outcome.unwrap();
        let Some(Event::Trash { items }) = events.into_iter().next() else { panic!("no trash") };
        assert_eq!(items.len(), 40);
    }
    std::fs::rename(b.peer.share().join("d"), b.peer.share().join("spoiled")).unwrap();
    settled(&nodes, "the names are free", |tree| all_are(tree, "spoiled", &spoiled) && !tree.contains_key("d/0")).await;
    restore(&b, &names).await;
    settled(&nodes, "the earlier versions", |tree| {
        all_are(tree, "d", &earlier) && all_are(tree, "spoiled", &spoiled) && tree.values().flatten().count() == 80
    })
    .await;
}

/// S08, where the rewritten files get other names besides: then the earlier ones are missing, and the brake of rule 9 holds that.
#[tokio::test(flavor = "multi_thread")]
async fn s08_what_is_rewritten_under_other_names_is_held() {
    let tracker = Tracker::start().await;
    let names: Vec<_> = (0..40).map(|n| format!("d/{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let a = start(&tracker, "a", SyncMode::Both, &files).await;
    let b = start(&tracker, "b", SyncMode::Both, &[]).await;
    settled(&[&a, &b], "the union", |tree| tree.len() == 41).await;
    for name in &names {
        std::fs::write(a.peer.share().join(format!("{name}.locked")), format!("{name}, spoiled")).unwrap();
        std::fs::remove_file(a.peer.share().join(name)).unwrap();
    }
    eventually("deletes are held", async || status(&a, None).await.n_held > 0).await;
    let n_left = || {
        let tree = tree(b.peer.share());
        names.iter().filter(|name| text(&tree, name) == Some(name.as_bytes())).count()
    };
    assert!(n_left() >= 20, "{} are left", n_left());
    status(&a, Some(SyncChange::Restore)).await;
    settled(&[&a, &b], "they are back", |tree| {
        tree.values().flatten().count() >= 60 && text(tree, "d/39.locked").is_some()
    })
    .await;
}

/// The tracker ends for good in the middle and another one comes: nothing is lost, and sync goes on. What is edited meanwhile
/// arrives when they meet again.
#[tokio::test(flavor = "multi_thread")]
async fn edits_while_the_tracker_is_away() {
    let tracker = Tracker::start().await;
    let a = start(&tracker, "a", SyncMode::Both, &[("f", b"1")]).await;
    let b = start(&tracker, "b", SyncMode::Both, &[]).await;
    let nodes = [&a, &b];
    settled(&nodes, "the union", |tree| text(tree, "f") == Some(b"1")).await;
    let address = tracker.stop().await;
    std::fs::write(a.peer.share().join("f"), "a's").unwrap();
    std::fs::write(b.peer.share().join("g"), "b's").unwrap();
    let _tracker = Tracker::start_on(address).await;
    settled(&nodes, "both edits", |tree| text(tree, "f") == Some(b"a's") && text(tree, "g") == Some(b"b's")).await;
}

/// Rule 8: a peer that lost its state merges; what it alone has and what it lacks are not deletes.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_a_merge() {
    let tracker = Tracker::start().await;
    let a = start(&tracker, "a", SyncMode::Both, &[("f", b"1"), ("g", b"2")]).await;
    let b = start(&tracker, "b", SyncMode::Both, &[]).await;
    settled(&[&a, &b], "the union", |tree| tree.len() == 2).await;
    let root = b.stop().await;
    let share = root.path().join("share");
    std::fs::remove_dir_all(share.join(".potluck")).unwrap();
    std::fs::remove_file(share.join("g")).unwrap();
    std::fs::write(share.join("h"), "3").unwrap();
    let config = |share: &Path| Config { sync: Some(SyncMode::Both), ..quick(share, &tracker.url, "b") };
    let b = Node::start_on(root, config).await.unwrap();
    settled(&[&a, &b], "the merge", |tree| tree.len() == 3 && text(tree, "g") == Some(b"2")).await;
}

/// One gives, one takes, and neither does the other.
#[tokio::test(flavor = "multi_thread")]
async fn send_and_receive() {
    let tracker = Tracker::start().await;
    let sender = start(&tracker, "sender", SyncMode::Send, &[("f", b"1")]).await;
    let receiver = start(&tracker, "receiver", SyncMode::Receive, &[("mine", b"mine")]).await;
    let both = start(&tracker, "both", SyncMode::Both, &[("g", b"2")]).await;
    let has = |node: &Node, path: &str| text(&tree(node.peer.share()), path).map(<[u8]>::to_vec);
    eventually("the receiver has all", async || has(&receiver, "f").is_some() && has(&receiver, "g").is_some()).await;
    eventually("so has the other", async || has(&both, "f").is_some()).await;
    std::fs::write(sender.peer.share().join("f"), "1, edited").unwrap();
    eventually("an edit of the sender's", async || {
        has(&receiver, "f").as_deref() == Some(b"1, edited") && has(&both, "f").as_deref() == Some(b"1, edited")
    })
    .await;
    assert_eq!(has(&sender, "g"), None, "who only sends takes nothing");
    assert_eq!(has(&both, "mine"), None, "who only receives gives nothing");
    assert_eq!(has(&receiver, "mine").as_deref(), Some(&b"mine"[..]));
}

/// A link, a pipe or another link where a file or a folder was: for the others nothing is deleted, what they do does not
/// touch it, and everything else goes on. When it is gone, so is the standstill.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_something_is_no_delete() {
    let tracker = Tracker::start().await;
    let files: &[(&str, &[u8])] = &[("f", b"f"), ("p", b"p"), ("d/x", b"x"), ("d/e/y", b"y"), ("other", b"1")];
    let a = start(&tracker, "a", SyncMode::Both, files).await;
    let b = start(&tracker, "b", SyncMode::Both, &[]).await;
    settled(&[&a, &b], "the union", |tree| tree.len() == 7).await;
    let (share, others) = (a.peer.share().to_owned(), b.peer.share().to_owned());
    let link = |to: &str, name: &str| {
        std::fs::rename(share.join(name), a.beside(&name.replace('/', "-"))).unwrap();
        std::os::unix::fs::symlink(to, share.join(name)).unwrap();
    };
    link("other", "f");
    link("elsewhere", "d");
    std::fs::remove_file(share.join("p")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        share.join("p"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    eventually("it is said", async || {
        let status = status(&a, None).await;
        let paths: Vec<_> = status.troubles.iter().map(|trouble| trouble.path.as_str()).collect();
        paths == ["d", "f", "p"] && status.n_to_do == 0 && status.n_held == 0
    })
    .await;
    for (path, data) in [("f", "f, edited"), ("d/new", "new"), ("d/x", "x, edited"), ("other", "2")] {
        std::fs::write(others.join(path), data).unwrap();
    }
    std::fs::remove_file(others.join("d/e/y")).unwrap();
    std::fs::write(share.join("last"), "last").unwrap();
    eventually("everything else goes on", async || {
        text(&tree(&others), "last").is_some() && std::fs::read(share.join("other")).unwrap() == b"2"
    })
    .await;
    assert_eq!(text(&tree(&others), "p"), Some(&b"p"[..]));
    assert!(share.join("f").is_symlink() && share.join("d").is_symlink() && !share.join("elsewhere").exists());
    for (name, real) in [("f", "f"), ("d", "d")] {
        std::fs::remove_file(share.join(name)).unwrap();
        std::fs::rename(a.beside(name), share.join(real)).unwrap();
    }
    std::fs::remove_file(share.join("p")).unwrap();
    settled(&[&a, &b], "one folder again", |tree| {
        text(tree, "f") == Some(b"f, edited")
            && text(tree, "d/x") == Some(b"x, edited")
            && text(tree, "d/new") == Some(b"new")
            && !tree.contains_key("d/e/y")
            && !tree.contains_key("p")
    })
    .await;
    assert_eq!(status(&a, None).await.troubles, []);
}

/// F12: a disk mounted inside the share folder is unplugged and comes back; nothing that lies on it is deleted, nothing is
/// written in its place, until somebody says so.
#[tokio::test(flavor = "multi_thread")]
async fn f12_a_disk_inside_the_share_folder() {
    let tracker = Tracker::start().await;
    let root = root_with(&[("f", b"1"), ("disk/.keep", b"")]);
    let at = root.path().join("share/disk");
    let image = root.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    if !Disk::make(&image) {
        return;
    }
    let Some(disk) = Disk::mount(&image, &at) else { return };
    std::fs::remove_dir(at.join("lost+found")).unwrap();
    for n in 0..9 {
        std::fs::write(at.join(n.to_string()), n.to_string()).unwrap();
    }
    let quickly = |share: &Path| Config {
        sync: Some(SyncMode::Both),
        rescan_interval: std::time::Duration::from_millis(200),
        ..quick(share, &tracker.url, "a")
    };
    let a = Node::start_on(root, quickly).await.unwrap();
    let b = start(&tracker, "b", SyncMode::Both, &[]).await;
    settled(&[&a, &b], "the union", |tree| tree.len() == 11).await;
    disk.unmount();
    eventually("it is noticed", async || status(&a, None).await.n_held == 9).await;
    std::fs::write(b.peer.share().join("disk/new"), "new").unwrap();
    std::fs::write(b.peer.share().join("f"), "2").unwrap();
    eventually("everything else goes on", async || text(&tree(a.peer.share()), "f") == Some(b"2")).await;
    assert_eq!(tree(b.peer.share()).len(), 12);
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1, "nothing is written beneath it");
    // Also by a peer that was not there when it went.
    let a = Node::start_on(a.stop().await, quickly).await.unwrap();
    eventually("it is known still", async || status(&a, None).await.n_held == 9).await;
    assert_eq!(tree(b.peer.share()).len(), 12);
    let disk = Disk::mount(&image, &at).unwrap();
    settled(&[&a, &b], "it is back", |tree| tree.len() == 12 && text(tree, "disk/new") == Some(b"new")).await;
    disk.unmount();
    eventually("it is noticed again", async || status(&a, None).await.n_held == 10).await;
    status(&a, Some(SyncChange::Confirm)).await;
    settled(&[&a, &b], "it is meant", |tree| tree.len() == 3 && tree.contains_key("disk/.keep")).await;
}

/// A full index is no silent one: the peer says what does not go on, and why.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_tracker_does_not_take_is_said() {
    let quotas = potluck_tracker::Quotas { max_index_paths: 1, ..potluck_tracker::Quotas::default() };
    let tracker = Tracker::start_with("127.0.0.1:0".parse().unwrap(), quotas).await;
    let a = start(&tracker, "a", SyncMode::Both, &[("one", b"1"), ("three", b"3"), ("two", b"2")]).await;
    eventually("two of three are refused, and status says why", async || {
        let told = a.status().await.trackers[0].refuses.clone();
        told.is_some_and(|refused| refused.n_paths == 2 && refused.why.contains("index is full"))
    })
    .await;
    // Nobody will learn of those two: that is no success of a script that waits for all.
    let wait =
        async |pattern: Option<&str>, all| a.run(Verb::Wait { pattern: pattern.map(str::to_owned), all }).await.1;
    let failed = wait(None, true).await.unwrap_err();
    assert_eq!(failed.kind, FailureKind::Failed);
    assert!(
        failed.message.contains("does not take 2 of these paths") && failed.hint.contains("index is full"),
        "{failed:?}"
    );
    wait(None, false).await.unwrap();
    let taken = &tracker.get("/v1/sync").await.unwrap()["entries"][0]["path"];
    wait(taken.as_str(), true).await.unwrap();
}

/// A tracker that starts again is waited for, and that is said; then those who come back to it later are still waited for.
#[tokio::test(flavor = "multi_thread")]
async fn wait_outlives_a_tracker() {
    let tracker = Tracker::start().await;
    let big = noise(6 << 20, 7);
    let slowly = |share: &Path, name: &str| {
        let pause = Duration::from_secs(2);
        let quick = Config { sync: Some(SyncMode::Both), ..quick(share, &tracker.url, name) };
        match name {
            "a" => Config { limit_up: "2M".parse().unwrap(), tracker_retry_max: pause, ..quick },
            _ => Config { tracker_retry_min: pause, tracker_retry_max: pause, ..quick },
        }
    };
    let a = Node::start_on(root_with(&[("big", &big)]), |share| slowly(share, "a")).await.unwrap();
    let b = Node::start_on(root_with(&[]), |share| slowly(share, "b")).await.unwrap();
    let mut events = a.peer.run(Verb::Wait { pattern: None, all: true });
    let mut next = async || tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    let said = next().await;
    assert!(matches!(&said, Event::Lacking { peers, .. } if peers == &["b"]), "{said:?}");
    let address = tracker.stop().await;
    loop {
        match next().await {
            Event::Notice { message } if message.contains("no tracker answers") => break,
            event => assert!(matches!(event, Event::Lacking { .. }), "{event:?}"),
        }
    }
    let _tracker = Tracker::start_on(address).await;
    let last = loop {
        match next().await {
            event if event.is_last() => break event,
            _ => {}
        }
    };
    assert_eq!(last, Event::Done);
    assert!(b.read("big").is_some_and(|bytes| bytes == big), "b has it");
}
