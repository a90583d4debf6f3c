//! From the share folder to the tracker, and from there to somebody else's: what users do with files and names.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use potluck_common::ContentId;
use potluck_common::protocol::SyncMode;
use potluck_peer::config::Config;
use potluck_peer::verb::{Download, Event, FailureKind, From, Held, Verb};
use tokio::net::TcpListener;

use crate::harness::{Node, Tracker, eventually, noise, quick, root_with, write};
use crate::metrics::Shown;

fn download(names: &[&str], output: Option<&Path>) -> Verb {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Verb::Download(Download { names, from: From::All, output: output.map(Path::to_owned), origin: None })
}

/// What users do in the folder is what the tracker lists, within moments.
#[tokio::test(flavor = "multi_thread")]
async fn changes_in_the_folder_reach_the_tracker() {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "a", &[]).await;
    let at = |name: &str| node.share().join(name);
    let lists = async |names: &[&str]| {
        eventually(&format!("the tracker lists {names:?}"), async || tracker.names().await == names).await;
    };
    write(&node.share(), "one", b"1");
    lists(&["one"]).await;
    write(&node.share(), "deep/er/two", b"2");
    lists(&["deep/er/two", "one"]).await;
    std::fs::write(at("one"), b"1, changed").unwrap();
    tracker.wait_for_owners(ContentId::of(b"1, changed"), 1).await;
    tracker.wait_for_owners(ContentId::of(b"1"), 0).await;
    std::fs::rename(at("one"), at("deep/uno")).unwrap();
    lists(&["deep/er/two", "deep/uno"]).await;
    std::fs::rename(at("deep"), at("shallow")).unwrap();
    lists(&["shallow/er/two", "shallow/uno"]).await;
    // Into and out of the folder from outside.
    std::fs::rename(at("shallow/er"), node.beside("out")).unwrap();
    lists(&["shallow/uno"]).await;
    std::fs::rename(node.beside("out"), at("back")).unwrap();
    lists(&["back/two", "shallow/uno"]).await;
    std::fs::remove_dir_all(at("shallow")).unwrap();
    lists(&["back/two"]).await;
    write(&node.share(), ".potluck/secret", b"x");
    write(&node.share(), "empty", b"");
    lists(&["back/two", "empty"]).await;
    assert_eq!(node.status().await.n_files, 2);
    node.stop().await;
    assert_eq!(tracker.names().await, Vec::<String>::new(), "who stops is not listed");
}

/// Ignore rules hold from the moment their file is written, and no longer than it is there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_ignored_is_not_shared() {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "a", &[]).await;
    let lists = async |names: &[&str]| {
        eventually(&format!("the tracker lists {names:?}"), async || tracker.names().await == names).await;
    };
    for name in ["a", "a.tmp", "build/x", "d/b.tmp", "d/keep.tmp"] {
        write(&node.share(), name, name.as_bytes());
    }
    lists(&["a", "a.tmp", "build/x", "d/b.tmp", "d/keep.tmp"]).await;
    write(&node.share(), ".potluckignore", b"*.tmp\nbuild/\n");
    lists(&[".potluckignore", "a"]).await;
    write(&node.share(), "d/.potluckignore", b"!keep.tmp\n");
    lists(&[".potluckignore", "a", "d/.potluckignore", "d/keep.tmp"]).await;
    // Made while the rules hold.
    write(&node.share(), "build/y/z", b"z");
    write(&node.share(), "c.tmp", b"c");
    write(&node.share(), "c", b"c");
    lists(&[".potluckignore", "a", "c", "d/.potluckignore", "d/keep.tmp"]).await;
    std::fs::remove_file(node.share().join("d/.potluckignore")).unwrap();
    lists(&[".potluckignore", "a", "c"]).await;
    write(&node.share(), ".potluckignore", b"/build/y\n");
    lists(&[".potluckignore", "a", "a.tmp", "build/x", "c", "c.tmp", "d/b.tmp", "d/keep.tmp"]).await;
}

/// Ignored files stay where they are, on each peer its own; a rule that comes from elsewhere deletes nothing, and one that goes
/// lets the files travel.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_ignored_is_not_synced() {
    let tracker = Tracker::start().await;
    let start = async |name: &str, files: &[(&str, &[u8])]| {
        let config = |share: &Path| Config { sync: Some(SyncMode::Both), ..quick(share, &tracker.url, name) };
        Node::start_on(root_with(files), config).await.unwrap()
    };
    let a =
        start("a", &[("one", b"1"), ("a.tmp", b"a"), ("build/x", b"x"), (".potluckignore", b"a.tmp\nbuild/\n")]).await;
    let b = start("b", &[("two", b"2"), ("b.tmp", b"b")]).await;
    let text = |node: &Node, name: &str| std::fs::read_to_string(node.share().join(name)).ok();
    let has = async |node: &Node, name: &str, want: &str| {
        let what = format!("{name} says {want:?}");
        eventually(&what, async || text(node, name).as_deref() == Some(want)).await;
    };
    has(&b, "one", "1").await;
    has(&b, ".potluckignore", "a.tmp\nbuild/\n").await;
    has(&a, "two", "2").await;
    has(&a, "b.tmp", "b").await;
    // Everything that is to come from `a` has come when what is made last is there.
    std::fs::write(a.share().join("build/y"), "y").unwrap();
    std::fs::write(a.share().join("last"), "last").unwrap();
    has(&b, "last", "last").await;
    assert!(text(&b, "a.tmp").is_none() && !b.share().join("build").exists());

    // The rule comes to `a` by sync, which has the files under it too.
    std::fs::write(b.share().join(".potluckignore"), "*.tmp\nbuild/\n").unwrap();
    has(&a, ".potluckignore", "*.tmp\nbuild/\n").await;
    eventually("the rule holds at a", async || !tracker.names().await.iter().any(|name| name.ends_with(".tmp"))).await;
    std::fs::remove_file(b.share().join("b.tmp")).unwrap();
    std::fs::write(b.share().join("later"), "later").unwrap();
    has(&a, "later", "later").await;
    assert_eq!(text(&a, "b.tmp").as_deref(), Some("b"), "what is ignored is not deleted elsewhere");

    std::fs::remove_file(a.share().join(".potluckignore")).unwrap();
    has(&b, "build/x", "x").await;
    has(&b, "build/y", "y").await;
    has(&b, "a.tmp", "a").await;
    eventually("the rule is gone everywhere", async || text(&b, ".potluckignore").is_none()).await;
    a.stop().await;
    b.stop().await;
}

/// F13: a file that is being written is not announced half, or only for a moment; in the end it is what was written.
#[tokio::test(flavor = "multi_thread")]
async fn f13_a_file_that_grows() {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "a", &[]).await;
    let data = noise(8 << 20, 3);
    let file = std::fs::File::create(node.share().join("growing")).unwrap();
    for (n, piece) in data.chunks(1 << 20).enumerate() {
        file.write_all_at(piece, (n << 20) as u64).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await; // The pace of the writer is the test's input.
    }
    tracker.wait_for_owners(ContentId::of(&data), 1).await;
    eventually("nothing else is listed", async || {
        let info = tracker.get("/v1/files/growing").await;
        info.is_some_and(|info| info["contents"].as_array().unwrap().len() == 1)
    })
    .await;
}

/// P12 and others: what cannot be shared is counted, and the rest is shared.
#[tokio::test(flavor = "multi_thread")]
async fn p12_what_cannot_be_shared_is_counted() {
    let tracker = Tracker::start().await;
    let root = root_with(&[("good", b"g")]);
    let share = root.path().join("share");
    std::fs::write(share.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff\xfe")), b"x").unwrap();
    std::fs::write(share.join("new\nline"), b"x").unwrap();
    std::fs::write(share.join("back\\slash"), b"x").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", share.join("escape")).unwrap();
    let node = Node::start_on(root, |share| quick(share, &tracker.url, "a")).await.unwrap();
    tracker.wait_for_owners(ContentId::of(b"g"), 1).await;
    eventually("they are counted", async || node.status().await.n_skipped == 4).await;
    assert_eq!(tracker.names().await, ["good"]);
    assert_eq!(node.status().await.n_files, 1);
    node.is_well().await;
}

/// A tracker that is not there yet is waited for, and joined when it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_comes_later() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let url = format!("http://{address}");
    let node = Node::start_on(root_with(&[("file", b"early")]), |share| quick(share, &url, "a")).await.unwrap();
    eventually("it shares without a tracker", async || node.status().await.n_files == 1).await;
    assert!(!node.status().await.trackers[0].reachable);
    let (kind, _) = node.cannot_download("x").await;
    assert_eq!(kind, FailureKind::Unreachable);
    assert_eq!(node.get("/f/file").await.text().await.unwrap(), "early");
    let tracker = Tracker::start_on(address).await;
    tracker.wait_for_owners(ContentId::of(b"early"), 1).await;
    eventually("the answer has come back too", async || node.status().await.trackers[0].reachable).await;
}

/// F18: a tracker without a memory that starts again knows everything again by itself; deltas go on after it.
#[tokio::test(flavor = "multi_thread")]
async fn f18_a_tracker_that_forgot_everything() {
    let tracker = Tracker::start().await;
    let names: Vec<String> = (0..50).map(|n| format!("file{n:02}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let a = Node::start(&tracker, "a", &files).await;
    let b = Node::start(&tracker, "b", &[]).await;
    eventually("all are listed", async || tracker.names().await == names).await;
    let address = tracker.stop().await;
    std::fs::remove_file(a.share().join("file00")).unwrap();
    write(&a.share(), "while-away", b"new");
    eventually("it is noticed", async || !a.status().await.trackers[0].reachable).await;
    let tracker = Tracker::start_on(address).await;
    let mut want = names[1..].to_vec();
    want.push("while-away".into());
    eventually("all are listed again", async || tracker.names().await == want).await;
    b.run(download(&["file*", "while-away"], None)).await.1.unwrap();
    assert_eq!(b.read("while-away").unwrap(), b"new");
    tracker.wait_for_owners(ContentId::of(b"file49"), 2).await;
}

/// Two peers may have one name; ids tell them apart.
#[tokio::test(flavor = "multi_thread")]
async fn two_peers_of_one_name() {
    let tracker = Tracker::start().await;
    let a = Node::start(&tracker, "twin", &[("a", b"aa"), ("both", b"both")]).await;
    let b = Node::start(&tracker, "twin", &[("b", b"bb"), ("both", b"both")]).await;
    let c = Node::start(&tracker, "c", &[]).await;
    tracker.wait_for_owners(ContentId::of(b"both"), 2).await;
    let (events, outcome) = c.run(Verb::Getip { target: Some("twin".into()) }).await;
    outcome.unwrap();
    let [Event::Addresses { addresses }] = &events[..] else { panic!("{events:?}") };
    let mut ports: Vec<_> = addresses.iter().map(|address| format!("http://127.0.0.1:{}", address.port)).collect();
    ports.sort();
    let mut want = [a.peer.listen_url().to_owned(), b.peer.listen_url().to_owned()];
    want.sort();
    assert_eq!(ports, want);
    c.download("a").await.unwrap();
    c.download("b").await.unwrap();
    let id = b.status().await.peer_id.to_string();
    let finished = c.download_with("both", From::Peer(id), None).await.unwrap();
    assert_eq!(finished.from.len(), 1);
    assert_eq!(
        (c.read("a"), c.read("b"), c.read("both")),
        (Some(b"aa".into()), Some(b"bb".into()), Some(b"both".into()))
    );
}

/// getip: our own address, a peer's, the owners' of a file.
#[tokio::test(flavor = "multi_thread")]
async fn getip() {
    let tracker = Tracker::start().await;
    let a = Node::start(&tracker, "a", &[("dir/file", b"x")]).await;
    let b = Node::start(&tracker, "b", &[("dir/file", b"x")]).await;
    tracker.wait_for_owners(ContentId::of(b"x"), 2).await;
    let ask = async |target: Option<&str>| {
        let (events, outcome) = b.run(Verb::Getip { target: target.map(str::to_owned) }).await;
        outcome.map(|()| match &events[..] {
            [Event::Addresses { addresses }] => addresses
                .iter()
                .map(|address| format!("{} http://{}:{}", address.name, address.address, address.port))
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        })
    };
    let (of_a, of_b) = (format!("a {}", a.peer.listen_url()), format!("b {}", b.peer.listen_url()));
    assert_eq!(ask(None).await.unwrap(), std::slice::from_ref(&of_b));
    assert_eq!(ask(Some("a")).await.unwrap(), std::slice::from_ref(&of_a));
    let id = a.status().await.peer_id.to_string();
    assert_eq!(ask(Some(&id)).await.unwrap(), std::slice::from_ref(&of_a));
    assert_eq!(ask(Some("dir/file")).await.unwrap(), [of_a, of_b]);
    for nobody in ["nobody", "../x", "", "dir/"] {
        assert_eq!(ask(Some(nobody)).await.unwrap_err().kind, FailureKind::NotFound, "{nobody:?}");
    }
}

/// One name, two contents: the candidates are listed, and `NAME@ID-PREFIX` takes one of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_name() {
    let tracker = Tracker::start().await;
    let _a = Node::start(&tracker, "a", &[("notes", b"one"), ("n@dead", b"odd")]).await;
    let _b = Node::start(&tracker, "b", &[("notes", b"two"), ("other", b"x")]).await;
    let c = Node::start(&tracker, "c", &[]).await;
    let (one, two) = (ContentId::of(b"one"), ContentId::of(b"two"));
    for id in [one, two, ContentId::of(b"odd"), ContentId::of(b"x")] {
        tracker.wait_for_owners(id, 1).await;
    }
    let (events, outcome) = c.run(download(&["notes"], None)).await;
    let failed = outcome.unwrap_err();
    assert_eq!(failed.kind, FailureKind::Usage);
    let candidates = events.iter().find_map(|event| match event {
        Event::Ambiguous { name, candidates } if name == "notes" => Some(candidates),
        _ => None,
    });
    let mut candidates: Vec<_> = candidates.unwrap().iter().collect();
    candidates.sort_by_key(|candidate| candidate.owners[0].name.clone());
    assert_eq!(candidates.iter().map(|candidate| candidate.content_id).collect::<Vec<_>>(), [one, two]);
    assert!(candidates.iter().all(|candidate| candidate.len == 3 && candidate.owners.len() == 1));
    assert_eq!(c.read("notes"), None);
    c.download(&candidates[1].ask_for).await.unwrap();
    assert_eq!(c.read("notes").unwrap(), b"two");
    let (kind, _) = c.cannot_download("notes@00000000").await;
    assert_eq!(kind, FailureKind::NotFound);
    // A file that is really called so is meant first.
    c.download("n@dead").await.unwrap();
    assert_eq!(c.read("n@dead").unwrap(), b"odd");
    // In a folder the others are fetched all the same, and the exit says that not all were.
    let d = Node::start(&tracker, "d", &[]).await;
    let (events, outcome) = d.run(download(&["*"], None)).await;
    assert_eq!(outcome.unwrap_err().kind, FailureKind::Usage);
    assert!(events.iter().any(|event| matches!(event, Event::Unfinished { name, .. } if name == "notes")));
    assert_eq!((d.read("other"), d.read("n@dead"), d.read("notes")), (Some(b"x".into()), Some(b"odd".into()), None));
}

/// Folders, globs, ids, `-o`: where files go.
#[tokio::test(flavor = "multi_thread")]
async fn folders_globs_and_other_places() {
    let tracker = Tracker::start().await;
    let files: [(&str, &[u8]); 5] =
        [("docs/a.txt", b"a"), ("docs/sub/b.txt", b"b"), ("docs2/c.txt", b"c"), ("d.md", b"d"), ("empty", b"")];
    let _a = Node::start(&tracker, "a", &files).await;
    for (_, data) in files {
        tracker.wait_for_owners(ContentId::of(data), 1).await;
    }
    let c = Node::start(&tracker, "c", &[]).await;
    c.run(download(&["docs/"], None)).await.1.unwrap();
    assert_eq!((c.read("docs/a.txt"), c.read("docs/sub/b.txt")), (Some(b"a".into()), Some(b"b".into())));
    assert_eq!(c.read("docs2/c.txt"), None, "a folder's name is no prefix");
    c.run(download(&["*.md", "empty"], None)).await.1.unwrap();
    assert_eq!((c.read("d.md"), c.read("empty")), (Some(b"d".into()), Some(vec![])));
    let out = c.beside("out");
    std::fs::create_dir(&out).unwrap();
    c.run(download(&["*.txt"], Some(&out))).await.1.unwrap();
    for (name, data) in [("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")] {
        assert_eq!(std::fs::read(out.join(name)).unwrap(), data, "{name}");
    }
    c.run(download(&["d.md"], Some(&out.join("other-name")))).await.1.unwrap();
    assert_eq!(std::fs::read(out.join("other-name")).unwrap(), b"d");
    let id = ContentId::of(b"c").to_string();
    c.run(download(&[&id], None)).await.1.unwrap();
    assert_eq!(c.read("docs2/c.txt").unwrap(), b"c");
    for (names, output, kind) in [
        (vec!["*.txt"], Some(out.join("no-folder")), FailureKind::Usage),
        (vec!["d.md"], Some(out.join("no/folder/d")), FailureKind::Failed),
        (vec!["missing"], None, FailureKind::NotFound),
        (vec!["missing/"], None, FailureKind::NotFound),
        (vec!["*.missing"], None, FailureKind::NotFound),
        (vec!["../x"], None, FailureKind::Usage),
        (vec!["/etc/passwd"], None, FailureKind::Usage),
        (vec![".potluck/identity"], None, FailureKind::Usage),
        (vec!["a\nb"], None, FailureKind::Usage),
        (vec!["[a"], None, FailureKind::Usage),
        (vec![""], None, FailureKind::Usage),
        (vec![], None, FailureKind::Usage),
    ] {
        let (_, outcome) = c.run(download(&names, output.as_deref())).await;
        assert_eq!(outcome.unwrap_err().kind, kind, "{names:?}");
    }
    c.is_well().await;
}

/// What stands there is left alone, and what is there already is not fetched again; our own copy saves the transfer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already() {
    let tracker = Tracker::start().await;
    let data = noise(3 << 20, 5);
    let a = Node::start(&tracker, "a", &[("file", &data), ("taken", b"theirs")]).await;
    let c = Node::start(&tracker, "c", &[("mine/copy", &data), ("taken", b"ours")]).await;
    let id = ContentId::of(&data);
    tracker.wait_for_owners(id, 2).await;
    tracker.wait_for_owners(ContentId::of(b"ours"), 1).await;
    tracker.wait_for_owners(ContentId::of(b"theirs"), 1).await;
    let theirs = format!("taken@{}", ContentId::of(b"theirs").short());
    let (kind, message) = c.cannot_download(&theirs).await;
    assert_eq!(kind, FailureKind::Failed, "{message}");
    assert_eq!(c.read("taken").unwrap(), b"ours");
    let finished = c.download("file").await.unwrap();
    assert_eq!(finished.from, [], "it was copied here and not fetched");
    assert!(c.read("file").unwrap() == data && c.read("mine/copy").unwrap() == data);
    tracker.wait_for_owners(id, 2).await;
    assert_eq!(c.download("file").await.unwrap().from, [], "it is there");
    assert_eq!(c.n_partial(), 0);
    // The same where the owner is gone: it is there all the same, once the tracker knows the new name as ours.
    eventually("the newcomer is listed with its third file", async || {
        let peers = tracker.get("/v1/peers").await;
        peers.is_some_and(|all| {
            all["peers"]
                .as_array()
                .is_some_and(|all| all.iter().any(|peer| peer["name"] == "c" && peer["n_files"] == 3))
        })
    })
    .await;
    drop(a.stop().await);
    tracker.wait_for_owners(id, 1).await;
    assert_eq!(c.download("file").await.unwrap().from, []);
    c.is_well().await;
}

/// verify: a byte that changed with length and mtime kept is found by the change time alone; nothing is announced under
/// an id that is no longer true.
#[tokio::test(flavor = "multi_thread")]
async fn verify() {
    let tracker = Tracker::start().await;
    let data = noise(2 << 20, 6);
    let a = Node::start(&tracker, "a", &[("file", &data), ("other", b"o")]).await;
    let id = ContentId::of(&data);
    tracker.wait_for_owners(id, 1).await;
    tracker.wait_for_owners(ContentId::of(b"o"), 1).await;
    let (events, outcome) = a.run(Verb::Verify { pattern: None }).await;
    outcome.unwrap();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| matches!(event, Event::Verified { intact: true, .. })), "{events:?}");
    let path = a.share().join("file");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mtime = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[!data[1_000_000]], 1_000_000).unwrap();
    file.set_modified(mtime).unwrap();
    drop(file);
    let mut changed = data.clone();
    changed[1_000_000] = !changed[1_000_000];
    tracker.wait_for_owners(ContentId::of(&changed), 1).await;
    tracker.wait_for_owners(id, 0).await;
    let (events, outcome) = a.run(Verb::Verify { pattern: Some("fi".into()) }).await;
    outcome.unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    a.is_well().await;
}

/// Many small files as one folder: every one arrives, and none is asked for by itself.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_small_files() {
    let tracker = Tracker::start().await;
    let root = root_with(&[]);
    let name = |n: usize| format!("many/{:02}/{n:04}", n % 40);
    for n in 0..2_000 {
        write(&root.path().join("share"), &name(n), format!("file {n}").as_bytes());
    }
    let a = Node::start_on(root, |share| quick(share, &tracker.url, "a")).await.unwrap();
    eventually("all are listed", async || tracker.names().await.len() == 2_000).await;
    let c = Node::start(&tracker, "c", &[]).await;
    let (events, outcome) = c.run(download(&["many/"], None)).await;
    outcome.unwrap();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Finished(_))).count(), 2_000);
    for n in 0..2_000 {
        assert_eq!(c.read(&name(n)).unwrap(), format!("file {n}").as_bytes());
    }
    assert_eq!(c.n_partial(), 0);
    // One by itself, so that there is something to count.
    assert_eq!(a.get(&format!("/v1/content/{}", ContentId::of(b"file 7"))).await.status(), 200);
    let metrics = Shown::of(a.base()).await;
    let n_answers =
        |route: &str| metrics.get(&format!("potluck_peer_http_requests_total{{route=\"{route}\",status=\"2xx\"}}"));
    let (n_bundles, n_alone) = (n_answers("/v1/contents"), n_answers("/v1/content/{id}"));
    assert!(
        (f64::from(2_000 / 64)..1_000.0).contains(&n_bundles) && n_alone == 1.0,
        "{n_bundles} bundles, {n_alone} by themselves"
    );
    eventually("the newcomer shares them", async || c.status().await.n_files == 2_000).await;
    tracker.wait_for_owners(ContentId::of(b"file 1999"), 2).await;
    let (events, outcome) = c.run(Verb::Show { pattern: Some("many/07/".into()) }).await;
    outcome.unwrap();
    let shown = events.iter().filter_map(|event| match event {
        Event::Files { files } => Some(files),
        _ => None,
    });
    let shown: Vec<_> = shown.flatten().collect();
    assert_eq!(shown.len(), 50);
    assert!(shown.iter().all(|file| file.contents[0].held == Held::Complete && file.contents[0].summary.n_owners == 2));
    a.is_well().await;
    c.is_well().await;
}

/// What was unfinished when a peer stopped goes on when it starts again, with what it had.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_download_goes_on_after_a_restart() {
    let tracker = Tracker::start().await;
    let data = noise(24 << 20, 7);
    let id = ContentId::of(&data);
    let config = |share: &Path| Config { upload_slots: 1, ..quick(share, &tracker.url, "a") };
    let a = Node::start_on(root_with(&[("big", &data)]), config).await.unwrap();
    tracker.wait_for_owners(id, 1).await;
    let c = Node::start(&tracker, "c", &[]).await;
    let events = c.peer.run(download(&["big"], None));
    eventually("some of it is there", async || {
        c.status().await.downloads.first().is_some_and(|transfer| transfer.n_bytes > 1 << 20)
    })
    .await;
    let root = c.stop().await;
    drop(events);
    if root.path().join("share/big").exists() {
        return; // It was faster than the stop: nothing is left to go on with.
    }
    assert!(root.path().join("share/.potluck/partial").join(id.to_string()).exists());
    let c = Node::start_on(root, |share| quick(share, &tracker.url, "c")).await.unwrap();
    eventually("it goes on by itself", async || c.read("big").is_some()).await;
    assert!(c.read("big").unwrap() == data);
    tracker.wait_for_owners(id, 2).await;
    assert_eq!(c.n_partial(), 0);
    a.is_well().await;
}

/// F35, within one process.
#[tokio::test(flavor = "multi_thread")]
async fn f35_one_peer_a_folder() {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "a", &[("file", b"x")]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = quick(&node.share(), &tracker.url, "b");
    let token = tokio_util::sync::CancellationToken::new();
    let second = potluck_peer::Peer::start(listener, config, potluck_peer::Lifetime::Running, token).await;
    let Err(failed) = second else { panic!("a second peer runs on one share folder") };
    assert!(failed.message.contains("already running"), "{failed}");
    node.is_well().await;
}

/// S06, F36: a copied state folder on a second machine. The tracker hears the one that came first, and the other takes an
/// identity of its own: both are listed, with what each of them has.
#[tokio::test(flavor = "multi_thread")]
async fn s06_f36_a_copied_identity_is_noticed() {
    let tracker = Tracker::start().await;
    let original = Node::start(&tracker, "original", &[("of-original", b"1")]).await;
    let root = original.stop().await;
    let copy = root_with(&[("of-copy", b"2")]);
    let (from, to) = (root.path().join("share/.potluck"), copy.path().join("share/.potluck"));
    std::fs::create_dir_all(&to).unwrap();
    for slot in ["identity.0", "identity.1"] {
        if from.join(slot).exists() {
            std::fs::copy(from.join(slot), to.join(slot)).unwrap();
        }
    }
    let original = Node::start_on(root, |share| quick(share, &tracker.url, "original")).await.unwrap();
    tracker.wait_for_owners(ContentId::of(b"1"), 1).await;
    let copy = Node::start_on(copy, |share| quick(share, &tracker.url, "copy")).await.unwrap();
    tracker.wait_for_owners(ContentId::of(b"2"), 1).await;
    tracker.wait_for_owners(ContentId::of(b"1"), 1).await;
    assert_ne!(original.status().await.peer_id, copy.status().await.peer_id);
    assert_eq!(original.download("of-copy").await.unwrap().from[0].name, "copy");
    copy.is_well().await;
}
