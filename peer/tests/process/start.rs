//! Starting, refusing to start, and ending.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Share, eventually, noise, peers, tracker, wait_for_owners};
use crate::proxy::Proxy;

/// The lines that scripts wait for.
#[test]
fn ready_lines() {
    let tracker = tracker(0);
    assert_eq!(tracker.ready, format!("tracker ready on http://{}", tracker.address));
    let share = Share::new(&tracker, "Ann's node");
    let peer = share.up();
    let dir = share.dir().canonicalize().unwrap();
    assert_eq!(peer.ready, format!("peer Ann's node ready on http://{} sharing {}", peer.address, dir.display()));
}

/// F46: asked to end in the middle of transfers, both ways, a peer does so in good order and in time.
#[test]
fn f46_sigterm_during_transfers() {
    let tracker = tracker(0);
    let data = noise(32 << 20, 46);
    let mut owner = Share::new(&tracker, "owner");
    owner.write("big", &data);
    let proxy = Proxy::start(2 << 20);
    owner.flags = vec!["--advertise".into(), proxy.address.to_string()];
    let mut serving = owner.up();
    proxy.leads_to(serving.address);
    wait_for_owners(&tracker, "big", 1);
    let taker = Share::new(&tracker, "taker");
    let mut taking = taker.up();
    let client = taker.command(&["download", "big"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it is under way", || proxy.n_bytes() > 10 << 20);
    for (peer, name) in [(&mut taking, "taker"), (&mut serving, "owner")] {
        peer.signal(Signal::TERM);
        assert_eq!(peer.wait(Duration::from_secs(5)), Some(0), "{name}: {}", peer.stderr.lock().unwrap());
        assert!(!peers(&tracker).contains(&name.to_owned()), "{name} is still listed");
    }
    let client = crate::harness::ended(client);
    assert_eq!(client.code, Some(1), "{client:?}");
    assert!(client.stderr.contains("has ended"), "{client:?}");
    assert!(!taker.path("big").exists());
    // What was unfinished goes on, and only with what is missing.
    let serving = owner.up();
    proxy.leads_to(serving.address);
    let before = proxy.n_bytes();
    let _taking = taker.up();
    eventually("it goes on by itself", || taker.path("big").exists());
    assert!(std::fs::read(taker.path("big")).unwrap() == data);
    assert!(proxy.n_bytes() - before < data.len() as u64, "everything was fetched again");
}

/// F35: a second peer on one folder is refused; verbs go to the first; what a killed one left behind is no obstacle.
#[test]
fn f35_one_peer_a_folder() {
    let tracker = tracker(0);
    let share = Share::new(&tracker, "first");
    share.write("file", b"x");
    let first = share.up();
    wait_for_owners(&tracker, "file", 1);
    let second = share.run(&["up"]);
    assert_eq!((second.code, second.stdout.as_str()), (Some(1), ""), "{second:?}");
    assert!(second.stderr.contains("already running") && second.stderr.contains("potluck stop"), "{second:?}");
    let status = share.json(&["status"]);
    assert_eq!(status["base_url"], format!("http://{}", first.address));
    assert_eq!(peers(&tracker), ["first"], "no other peer was started for it");
    let socket = share.path(".potluck/control.sock");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&share.path(".potluck"))), (0o600, 0o700));
    assert_eq!(mode(&share.path(".potluck/partial")), 0o700);
    first.kill();
    assert!(socket.exists(), "a killed peer leaves its socket");
    assert_eq!(share.run(&["getip"]).code, Some(0), "a verb starts a peer of its own");
    let mut again = share.up();
    assert_eq!(share.json(&["status"])["peer_id"], status["peer_id"], "its identity is for life");
    let stop = share.run(&["stop"]);
    assert_eq!((stop.code, again.wait(Duration::from_secs(5))), (Some(0), Some(0)), "{stop:?}");
    eventually("nobody is listed", || peers(&tracker).is_empty());
}

/// What cannot be shared or listened on is said, with what to do.
#[test]
fn refusals_say_what_to_do() {
    let tracker = tracker(0);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let check = |share: &Share, args: &[&str], code: i32, parts: &[&str]| {
        let ended = share.run(args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{args:?}: {ended:?}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{args:?}: {ended:?}");
    };
    let missing = Share::new(&tracker, "a").in_folder("missing");
    check(&missing, &["up"], 1, &["missing", "mkdir -p"]);
    check(&missing, &["download", "x"], 1, &["missing", "mkdir -p"]);
    let file = Share::new(&tracker, "a").in_folder("file");
    std::fs::write(file.dir(), "x").unwrap();
    check(&file, &["up"], 1, &["file", "--share"]);
    let share = Share::new(&tracker, "a");
    check(&share, &["up", "--tracker", "https://x"], 2, &["http"]);
    check(&share, &["download"], 2, &["NAME"]);
    check(&share, &["nonsense"], 2, &["nonsense"]);
    let mut taken_port = Share::new(&tracker, "a");
    taken_port.flags = Vec::new();
    let ended = {
        let mut command = taken_port.command(&[]);
        command.args(["up"]);
        // The later flag would be a repetition, so this one goes by the environment.
        let mut fresh = std::process::Command::new(command.get_program());
        fresh.env_clear().args(["--share"]).arg(taken_port.dir()).args(["--name", "a", "--listen", &port, "up"]);
        crate::harness::ended(
            fresh.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap(),
        )
    };
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&port) && ended.stderr.contains("--listen"), "{ended:?}");
}

/// A folder whose path does not fit a Unix socket's address.
#[test]
fn a_path_too_long_for_a_socket() {
    let tracker = tracker(0);
    let long = ["a-folder-with-a-rather-long-name-of-its-own"; 6].join("/");
    let share = Share::new(&tracker, "deep").in_folder(&long);
    std::fs::create_dir_all(share.dir()).unwrap();
    assert!(share.path(".potluck/control.sock").as_os_str().len() > 200);
    share.write("file", b"x");
    let peer = share.up();
    wait_for_owners(&tracker, "file", 1);
    assert_eq!(share.json(&["status"])["base_url"], format!("http://{}", peer.address));
    assert_eq!(share.run(&["stop"]).code, Some(0));
}

/// A tracker that is not there yet: said once, and joined when it comes; the same when it goes and comes back.
#[test]
fn a_tracker_that_comes_later() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = reserved.local_addr().unwrap().port();
    drop(reserved);
    let share = Share::at(&format!("http://127.0.0.1:{port}"), "patient");
    share.write("file", b"x");
    let peer = share.up();
    let said = "does not take our announce";
    eventually("it says so", || peer.logged(said) > 0);
    assert_eq!(share.json(&["status"])["trackers"][0]["reachable"], false);
    let show = share.run(&["show"]);
    assert_eq!(show.code, Some(4), "{show:?}");
    assert!(show.stderr.contains(&format!("127.0.0.1:{port}")) || show.stderr.contains("--tracker"), "{show:?}");
    let first = tracker(port);
    wait_for_owners(&first, "file", 1);
    assert_eq!(peer.logged(said), 1, "once");
    first.kill();
    eventually("it notices", || peer.logged(said) == 2);
    let second = tracker(port);
    wait_for_owners(&second, "file", 1);
    assert_eq!(peer.logged(said), 2, "once each time");
    assert_eq!(peer.logged("joined"), 2);
}
