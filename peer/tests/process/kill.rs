//! Killed and interrupted in the middle of a download, and going on.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Program, Share, ended, eventually, noise, tracker, wait_for_owners};
use crate::proxy::Proxy;

/// An owner behind a counting proxy.
pub(crate) fn owner(tracker: &Program, data: &[u8], rate: u64) -> (Share, Program, Proxy) {
    let mut owner = Share::new(tracker, "owner");
    owner.write("big", data);
    let proxy = Proxy::start(rate);
    owner.flags = vec!["--advertise".into(), proxy.address.to_string()];
    let serving = owner.up();
    proxy.leads_to(serving.address);
    wait_for_owners(tracker, "big", 1);
    (owner, serving, proxy)
}

/// F01, F02, I1, I9: kill -9 at ten moments. What is fetched twice is at most what was not yet durable each time.
#[test]
fn f02_killed_at_ten_moments() {
    const SEED: u64 = 2;
    /// Of both connections together, a second.
    const RATE: u64 = 32 << 20;
    let tracker = tracker(0);
    let data = noise(128 << 20, SEED);
    let (_owner, _serving, proxy) = owner(&tracker, &data, RATE / 2);
    let share = Share::new(&tracker, "killed");
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut n_kills = 0;
    for round in 0..10 {
        // Both ways to go on: by the same command, and by itself in a running peer.
        let args: &[&str] = if round % 2 == 0 { &["download", "big"] } else { &["up"] };
        let mut child = share.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.u64(100..900))); // The moment is the test's input.
        child.kill().unwrap();
        n_kills += u64::from(child.wait().unwrap().code().is_none());
        if share.path("big").exists() {
            break;
        }
    }
    assert!(n_kills >= 5, "the download was over after {n_kills} kills");
    let last = share.run(&["download", "big"]);
    assert_eq!(last.code, Some(0), "seed {SEED}: {last:?}");
    assert!(std::fs::read(share.path("big")).unwrap() == data, "seed {SEED}: the bytes differ");
    assert_eq!(std::fs::read_dir(share.path(".potluck/partial")).unwrap().count(), 0);
    // A kill costs what came since the last record (a second), and what was under way in sockets and buffers.
    let per_kill = RATE * 3 / 2 + (8 << 20);
    let twice = proxy.n_bytes() - data.len() as u64;
    assert!(per_kill <= 64 << 20 && twice <= n_kills * per_kill, "seed {SEED}: {twice} bytes twice, {n_kills} kills");
}

/// A peer that lives longer than a second between kills loses little each time: most of what came is kept.
#[test]
fn f02_what_was_recorded_is_not_fetched_again() {
    let tracker = tracker(0);
    let data = noise(24 << 20, 22);
    let (_owner, _serving, proxy) = owner(&tracker, &data, 3 << 20);
    let share = Share::new(&tracker, "killed");
    let mut child = share.command(&["download", "big"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("half of it came", || proxy.n_bytes() > 16 << 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let ended = share.run(&["download", "big"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(std::fs::read(share.path("big")).unwrap() == data);
    let twice = proxy.n_bytes() - data.len() as u64;
    assert!(twice < 14 << 20, "{twice} bytes were fetched twice");
}

/// Ctrl-C: 130, and the same command goes on from there.
#[test]
fn interrupted() {
    let tracker = tracker(0);
    let data = noise(16 << 20, 130);
    let (_owner, _serving, proxy) = owner(&tracker, &data, 4 << 20);
    let share = Share::new(&tracker, "interrupted");
    let child = share.command(&["download", "big"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    eventually("some of it came", || proxy.n_bytes() > 10 << 20);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let first = ended(child);
    assert_eq!(first.code, Some(130), "{first:?}");
    assert!(!share.path("big").exists());
    let before = proxy.n_bytes();
    let again = share.run(&["download", "big"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(std::fs::read(share.path("big")).unwrap() == data);
    assert!(proxy.n_bytes() - before < 14 << 20, "nothing was kept: {} bytes came again", proxy.n_bytes() - before);
}

/// F21: one of two owners is killed in the middle; the other brings the rest.
#[test]
fn f21_an_owner_is_killed() {
    let tracker = tracker(0);
    let data = noise(24 << 20, 21);
    let (_one, one, first) = owner(&tracker, &data, 4 << 20);
    let (_two, _serving, second) = {
        let mut owner = Share::new(&tracker, "second");
        owner.write("big", &data);
        let proxy = Proxy::start(4 << 20);
        owner.flags = vec!["--advertise".into(), proxy.address.to_string()];
        let serving = owner.up();
        proxy.leads_to(serving.address);
        (owner, serving, proxy)
    };
    wait_for_owners(&tracker, "big", 2);
    let share = Share::new(&tracker, "taker");
    let child =
        share.command(&["--json", "download", "big"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("both give", || first.n_bytes() > 2 << 20 && second.n_bytes() > 2 << 20);
    one.kill();
    let ended = ended(child);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(std::fs::read(share.path("big")).unwrap() == data);
    eventually("its lease runs out (I7)", || !crate::harness::peers(&tracker).contains(&"owner".to_owned()));
    assert!(first.n_bytes() + second.n_bytes() < data.len() as u64 + (8 << 20));
}

/// F01, F03: killed while many small files get their names. Whatever has its final name has all of its bytes, and the next
/// download brings the others and leaves nothing half-done behind.
#[test]
fn f03_killed_among_many_small_files() {
    const N: usize = 3_000;
    let tracker = tracker(0);
    let mut owner = Share::new(&tracker, "owner");
    let data = |n: usize| noise(1_000 + n % 9_000, n as u64);
    for n in 0..N {
        owner.write(&format!("tree/{}/{n}", n % 40), &data(n));
    }
    let proxy = Proxy::start(128 << 10);
    owner.flags = vec!["--advertise".into(), proxy.address.to_string()];
    let serving = owner.up();
    proxy.leads_to(serving.address);
    wait_for_owners(&tracker, &format!("tree/{}/{}", (N - 1) % 40, N - 1), 1);
    eventually("all are listed", || {
        let peers = crate::harness::get(tracker.address, "/v1/peers");
        peers.is_some_and(|peers| peers["peers"][0]["n_files"] == N)
    });
    let share = Share::new(&tracker, "killed");
    let here = || (0..N).filter(|n| share.path(&format!("tree/{}/{n}", n % 40)).exists()).count();
    let mut n_before = 0;
    for round in 1..=4 {
        let mut child =
            share.command(&["download", "tree/"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("more are there", || here() > n_before + 100 * round);
        child.kill().unwrap();
        child.wait().unwrap();
        n_before = here();
        assert!(n_before < N, "it was over before it was killed");
        for n in 0..N {
            if let Ok(bytes) = std::fs::read(share.path(&format!("tree/{}/{n}", n % 40))) {
                assert!(bytes == data(n), "file {n} in round {round}");
            }
        }
    }
    let last = share.run(&["download", "tree/"]);
    assert_eq!(last.code, Some(0), "{last:?}");
    assert!((0..N).all(|n| std::fs::read(share.path(&format!("tree/{}/{n}", n % 40))).unwrap() == data(n)));
    assert_eq!(std::fs::read_dir(share.path(".potluck/partial")).unwrap().count(), 0);
}
