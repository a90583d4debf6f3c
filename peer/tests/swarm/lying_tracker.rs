//! A tracker that lies: about names, addresses, lengths, and in answers that are none. The names in front are those of the
//! threat list (THREATS.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use potluck_common::{ContentId, SharePath};
use potluck_peer::verb::{Event, FailureKind, Verb};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Node, eventually, noise, quick, root_with, skipped};
use crate::hostile::{canary, download, given_by};
use crate::hostile_owner::{CHUNK, Content, HostileOwner};
use crate::hostile_tracker::{HostileTracker, owner};

/// What such a tracker says of the one file that it lists, `file`.
fn about_file(asked: &str, id: ContentId, len: u64, owners: &[Value]) -> Option<Value> {
    if asked == "/v1/files/file" {
        let contents = json!([{ "content_id": id, "len": len, "since_ms": 0, "owners": owners }]);
        return Some(json!({ "path": "file", "contents": contents }));
    }
    asked.starts_with("/v1/content/").then(
        || json!({ "content_id": id, "len": len, "n_owners": 1, "n_partial": 0, "names": ["file"], "owners": owners }),
    )
}

/// Names that no share folder may have (P01 to P09), beside good ones.
const BAD_NAMES: [&str; 22] = [
    "../../.ssh/authorized_keys",
    "/etc/cron.d/x",
    "C:\\x",
    "C:x",
    "\\\\srv\\s\\x",
    "\\\\?\\C:\\x",
    "//x",
    "..\\..\\x",
    "a\u{0}b",
    "a\nb",
    "\u{1b}[2J",
    "",
    ".",
    "..",
    "a/../../b",
    "a//b",
    "a/",
    ".potluck/identity.0",
    ".POTLUCK/control.sock",
    "x/.potluck/partial/y",
    ".potluck-tmp-1",
    "../canary.txt",
];

/// P01 to P09 from a hostile tracker: bad names are left out and counted, the good ones are listed and fetched.
#[tokio::test(flavor = "multi_thread")]
async fn p01_p09_a_tracker_that_lists_hostile_names() {
    let content = Content::new("good/file", noise(1000, 1));
    let serving = HostileOwner::serve("owner", &content, Content::honest).await;
    let (id, url) = (content.id, serving.base_url.clone());
    let long = ["x".repeat(256), "x/".repeat(2_500), vec!["d"; 300].join("/")];
    let names: Vec<String> = BAD_NAMES.iter().map(|name| (*name).to_owned()).chain(long).collect();
    assert!(names.iter().all(|name| name.parse::<SharePath>().is_err()));
    let n_bad = names.len();
    let tracker = HostileTracker::start(move |path| {
        let contents = json!([{ "content_id": id, "len": 1000, "n_owners": 1, "n_partial": 0, "since_ms": 0 }]);
        let one = |name: &str| json!({ "path": name, "contents": contents });
        let mut files: Vec<Value> = names.iter().map(|name| one(name)).collect();
        files.insert(7, one("good/file"));
        files.push(json!({ "path": "good/odd", "contents": [{ "content_id": "zz", "len": -1 }] }));
        files.push(json!(17));
        let named = json!({ "path": "../canary.txt",
            "contents": [{ "content_id": id, "len": 1000, "since_ms": 0, "owners": [owner("owner", &url)] }] });
        match path {
            "/v1/files" => Some(json!({ "files": files, "next": null })),
            "/v1/peers" => Some(json!({ "peers": [] })),
            path if path == format!("/v1/content/{id}") => Some(json!({ "content_id": id, "len": 1000, "n_owners": 1,
                "n_partial": 0, "names": ["../canary.txt", "/etc/x"], "owners": [owner("owner", &url)] })),
            // The answer is about another name than the one that was asked for.
            "/v1/files/trap" => Some(named),
            _ => None,
        }
    })
    .await;
    let newcomer = Node::start_on(root_with(&[]), |share| quick(share, &tracker.url, "newcomer")).await.unwrap();
    let (events, outcome) = newcomer.run(Verb::Show { pattern: None }).await;
    outcome.unwrap();
    let notice = events.iter().find_map(|event| match event {
        Event::Notice { message } => Some(message.clone()),
        _ => None,
    });
    assert!(notice.is_some_and(|notice| notice.contains(&format!("{} names", n_bad + 2))), "{events:?}");
    let shown: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Files { files } => Some(files.iter().map(|file| file.path.to_string()).collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(shown, ["good/file"]);
    for everything in ["/", "*"] {
        newcomer.download(everything).await.unwrap();
        assert!(newcomer.read("good/file").unwrap() == content.data);
        newcomer.is_well().await;
    }
    // By id the bad names are passed over, too.
    let (_, outcome) = newcomer.run(download(&id.to_string())).await;
    outcome.unwrap();
    assert!(newcomer.read(&id.to_string()).unwrap() == content.data, "without a good name it goes under its id");
    let (_, outcome) = newcomer.run(download("trap")).await;
    outcome.unwrap_err();
    let mut there: Vec<_> = std::fs::read_dir(newcomer.share())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    let mut want = [".potluck".to_owned(), id.to_string(), "good".to_owned()];
    want.sort();
    assert_eq!(there, want);
    newcomer.is_well().await;
}

/// A tracker that answers about another name than it was asked for: nothing is fetched to a place nobody named.
#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_answers_about_another_name() {
    let content = Content::new("x", noise(1000, 4));
    let serving = HostileOwner::serve("owner", &content, Content::honest).await;
    let (id, url) = (content.id, serving.base_url.clone());
    let tracker = HostileTracker::start(move |path| {
        (path == "/v1/files/wanted").then(|| {
            json!({ "path": "other/.bashrc", "contents":
                [{ "content_id": id, "len": 1000, "since_ms": 0, "owners": [owner("owner", &url)] }] })
        })
    })
    .await;
    let newcomer = Node::start_on(root_with(&[]), |share| quick(share, &tracker.url, "newcomer")).await.unwrap();
    let outcome = newcomer.download("wanted").await;
    assert_eq!(newcomer.read("other/.bashrc"), None, "a file landed where nobody asked for it: {outcome:?}");
    newcomer.is_well().await;
}

/// T04 from a hostile tracker: addresses that are not to be dialled are not, and the good owner is.
#[tokio::test(flavor = "multi_thread")]
async fn t04_a_tracker_that_hands_out_forbidden_addresses() {
    for len in [4 * CHUNK, 1000] {
        let content = Content::new("file", noise(len, 4));
        let serving = HostileOwner::serve("owner", &content, Content::honest).await;
        let (canary, dialled) = canary().await;
        let port = canary.port();
        let bases = [
            format!("http://0.0.0.0:{port}"),
            format!("http://[::]:{port}"),
            format!("http://0:{port}"),
            format!("https://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{port}/path"),
            format!("http://127.0.0.1:{port}?query"),
            format!("http://user@127.0.0.1:{port}"),
            format!("http://user:pass@127.0.0.1:{port}"),
            "http://127.0.0.1:22".into(),
            "http://127.0.0.1:0".into(),
            format!("ftp://127.0.0.1:{port}"),
            "file:///etc/passwd".into(),
            "http://169.254.169.254".into(),
            "http://224.0.0.1:7701".into(),
            "http://255.255.255.255:7701".into(),
            format!("http://[::ffff:0.0.0.0]:{port}"),
            format!("//127.0.0.1:{port}"),
            "".into(),
            "http://".into(),
        ];
        let (id, good) = (content.id, serving.base_url.clone());
        let tracker = HostileTracker::start(move |path| {
            let mut owners: Vec<_> = bases.iter().map(|base| owner(base, base)).collect();
            owners.push(owner("owner", &good));
            about_file(path, id, len as u64, &owners)
        })
        .await;
        let newcomer = Node::start_on(root_with(&[]), |share| quick(share, &tracker.url, "newcomer")).await.unwrap();
        let finished = newcomer.download("file").await.unwrap();
        assert_eq!(given_by(&finished, "owner"), len as u64);
        assert!(newcomer.read("file").unwrap() == content.data);
        assert!(!dialled.load(Ordering::Relaxed), "a forbidden address was dialled");
        newcomer.is_well().await;
    }
}

/// T04: loopback is dialled only in a swarm that talks over loopback.
#[tokio::test(flavor = "multi_thread")]
async fn t04_loopback_is_for_swarms_on_loopback() {
    let content = Content::new("file", noise(1000, 4));
    let (canary, dialled) = canary().await;
    let id = content.id;
    let base = format!("http://{canary}");
    let named = format!("http://localhost:{}", canary.port());
    let tracker = HostileTracker::start(move |_| {
        let owners = [owner("a", &base), owner("b", &named)];
        Some(
            json!({ "path": "file", "contents": [{ "content_id": id, "len": 1000, "since_ms": 0, "owners": owners }] }),
        )
    })
    .await;
    // The tracker that talks is on loopback, but the configuration says it is not: its name is not `localhost`.
    let port = tracker.url.rsplit_once(':').unwrap().1.to_owned();
    let Some(address) = own_address().await else {
        return skipped("T04 at the peer: this machine has no address but loopback");
    };
    let relay = TcpListener::bind((address, 0)).await.unwrap();
    let relayed = format!("http://{}", relay.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = relay.accept().await {
            let mut far = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let newcomer = Node::start_on(root_with(&[]), |share| quick(share, &relayed, "newcomer")).await.unwrap();
    newcomer.download("file").await.unwrap_err();
    assert!(!dialled.load(Ordering::Relaxed), "loopback was dialled on somebody else's word");
    newcomer.is_well().await;
}

/// An address of this machine that is not loopback.
async fn own_address() -> Option<std::net::IpAddr> {
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.ok()?;
    // Nothing is sent: this only chooses a route.
    socket.connect("192.0.2.1:9").await.ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// C20 and C04 from a hostile tracker: whatever length it says, the answer is right or an error, and it comes.
#[tokio::test(flavor = "multi_thread")]
async fn c20_a_tracker_that_lies_about_the_length() {
    for true_len in [3 * CHUNK, 1000] {
        let content = Content::new("file", noise(true_len, 20));
        let serving = HostileOwner::serve("owner", &content, Content::honest).await;
        let (id, url) = (content.id, serving.base_url.clone());
        let said = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let says = said.clone();
        let tracker = HostileTracker::start(move |path| {
            let (len, owners) = (says.load(Ordering::Relaxed), [owner("owner", &url)]);
            about_file(path, id, len, &owners)
        })
        .await;
        let newcomer = Node::start_on(root_with(&[]), |share| quick(share, &tracker.url, "newcomer")).await.unwrap();
        for len in [0, 1, true_len as u64 - 1, true_len as u64 + 1, 50 * CHUNK as u64, 16 << 40, u64::MAX] {
            said.store(len, Ordering::Relaxed);
            match newcomer.download("file").await {
                Ok(_) => {
                    assert!(newcomer.read("file").unwrap() == content.data, "{len}");
                    std::fs::remove_file(newcomer.share().join("file")).unwrap();
                    eventually("the removed file is noticed", async || newcomer.status().await.n_files == 0).await;
                }
                Err(failed) if len >= 16 << 40 => assert!(failed.message.contains("limit"), "{len}: {failed}"),
                Err(failed) => panic!("the tracker says {len} bytes and the owner could be asked: {failed}"),
            }
            assert_eq!(newcomer.n_partial(), 0, "{len}");
            newcomer.is_well().await;
        }
    }
}

/// A tracker whose answers are no answers: the verb ends with words, and the peer lives on.
#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_talks_nonsense() {
    let answers =
        [json!(null), json!([]), json!({}), json!({ "files": 7 }), json!("x"), json!({ "files": [], "next": 3 })];
    let turn = Arc::new(AtomicUsize::new(0));
    let now = turn.clone();
    let n = answers.len();
    let tracker = HostileTracker::start(move |_| Some(answers[now.load(Ordering::Relaxed)].clone())).await;
    let newcomer =
        Node::start_on(root_with(&[("mine", b"m")]), |share| quick(share, &tracker.url, "newcomer")).await.unwrap();
    for at in 0..n {
        turn.store(at, Ordering::Relaxed);
        for verb in [Verb::Show { pattern: None }, Verb::Peers, download("x"), download("*"), download("x/")] {
            let (_, outcome) = newcomer.run(verb).await;
            let failed = outcome.unwrap_err();
            assert_eq!(failed.kind, FailureKind::Unreachable, "{failed}");
        }
    }
    // A list that never ends, page after page alike, is read once.
    let endless = HostileTracker::start(|_| Some(json!({ "files": [], "next": "a" }))).await;
    let reader = Node::start_on(root_with(&[]), |share| quick(share, &endless.url, "reader")).await.unwrap();
    let (_, outcome) = reader.run(Verb::Show { pattern: None }).await;
    outcome.unwrap();
    newcomer.is_well().await;
}
