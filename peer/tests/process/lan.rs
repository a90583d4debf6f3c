//! Machines that were told nothing, each in a network namespace of its own on one bridge. Needs root and `ip`; without
//! them these tests say so and pass.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Ended, Program, clean, ended, eventually, noise, skipped};

/// A bridge and machines on it; all of it is gone when it is dropped.
struct Lan {
    prefix: String,
    names: Vec<String>,
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {args}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Lan {
    /// `None` where namespaces cannot be made.
    fn new() -> Option<Self> {
        static N: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("potluck-test-{}-{}", std::process::id(), N.fetch_add(1, Ordering::Relaxed));
        let bridge = format!("{prefix}-bridge");
        let made = Command::new("ip").args(["netns", "add", &bridge]).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            skipped("machines that were told nothing: network namespaces need root and the command ip");
            return None;
        }
        let lan = Self { prefix, names: vec![bridge.clone()] };
        ip(&format!("-n {bridge} link add bridge0 type bridge forward_delay 0"));
        ip(&format!("-n {bridge} link set bridge0 up"));
        Some(lan)
    }

    /// One more machine, with a share folder of these files.
    fn machine(&mut self, files: &[(&str, &[u8])]) -> Machine {
        let n = self.names.len();
        let (bridge, name) = (self.names[0].clone(), format!("{}-{n}", self.prefix));
        ip(&format!("netns add {name}"));
        self.names.push(name.clone());
        ip(&format!("-n {bridge} link add port{n} type veth peer name eth0 netns {name}"));
        ip(&format!("-n {name} addr add 10.9.8.{n}/24 brd + dev eth0"));
        for link in [format!("-n {bridge} link set port{n} master bridge0 up"), format!("-n {name} link set eth0 up")] {
            ip(&link);
        }
        ip(&format!("-n {name} link set lo up"));
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("share")).unwrap();
        for (path, data) in files {
            std::fs::write(root.path().join("share").join(path), data).unwrap();
        }
        Machine { namespace: name, name: format!("m{n}"), root }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

struct Machine {
    namespace: String,
    name: String,
    root: TempDir,
}

impl Machine {
    fn share(&self) -> PathBuf {
        self.root.path().join("share")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = clean(Path::new("ip"));
        command.args(["netns", "exec", &self.namespace, env!("CARGO_BIN_EXE_potluck"), "--name", &self.name]);
        command.arg("--share").arg(self.share()).args(args).stdin(Stdio::null());
        command
    }

    fn up(&self, flags: &[&str]) -> Program {
        Program::start(self.command(&[flags, &["up"]].concat()))
    }

    fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn json(&self, verb: &str) -> Option<Value> {
        let ended = self.run(&["--json", verb]);
        serde_json::from_str(ended.stdout.lines().last()?).ok()
    }

    /// Who is listed, by name.
    fn sees(&self) -> Vec<String> {
        let peers = self.json("peers").unwrap_or_default();
        let peers = peers["peers"].as_array().cloned().unwrap_or_default();
        peers.iter().filter_map(|peer| Some(peer["name"].as_str()?.to_owned())).collect()
    }

    /// The trackers that answer it.
    fn trackers(&self) -> Vec<SocketAddr> {
        let status = self.json("status").unwrap_or_default();
        let trackers = status["trackers"].as_array().cloned().unwrap_or_default();
        let answering = trackers.iter().filter(|tracker| tracker["reachable"] == true);
        answering.filter_map(|tracker| tracker["url"].as_str()?.strip_prefix("http://")?.parse().ok()).collect()
    }
}

/// Waits until these, and nobody else, are listed on each other's one tracker.
fn assert_together(machines: &[&Machine]) {
    let names: Vec<_> = machines.iter().map(|machine| machine.name.clone()).collect();
    eventually(&format!("{names:?} see each other"), || {
        let trackers = machines[0].trackers();
        trackers.len() == 1 && machines.iter().all(|machine| machine.trackers() == trackers && machine.sees() == names)
    });
}

#[test]
fn two_that_were_told_nothing() {
    let Some(mut lan) = Lan::new() else { return };
    let data = noise(3 << 20, 1);
    let (a, b) = (lan.machine(&[("song", &data)]), lan.machine(&[]));
    let _running = (a.up(&[]), b.up(&[]));
    assert_together(&[&a, &b]);
    eventually("the song arrives", || b.run(&["download", "song"]).code == Some(0));
    assert_eq!(std::fs::read(b.share().join("song")).unwrap(), data);
    // A verb of its own finds the tracker as well, and never hosts one.
    let c = lan.machine(&[]);
    let ended = c.run(&["download", "song"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Started at once, each with a folder of its own: both folders are the union soon after.
#[test]
fn two_that_were_told_nothing_sync() {
    let Some(mut lan) = Lan::new() else { return };
    let data = noise(300_000, 3);
    let (a, b) = (lan.machine(&[("song", &data), ("list", b"one\n")]), lan.machine(&[("other", b"two\n")]));
    let up = |machine: &Machine| Program::start(machine.command(&["up", "--sync", "both"]));
    let _running = (up(&a), up(&b));
    let holds = |machine: &Machine, path: &str, data: &[u8]| {
        std::fs::read(machine.share().join(path)).is_ok_and(|there| there == data)
    };
    let have_all = |want: &[(&str, &[u8])]| {
        [&a, &b].iter().all(|machine| want.iter().all(|(path, data)| holds(machine, path, data)))
    };
    eventually("both have everything", || have_all(&[("song", &data), ("list", b"one\n"), ("other", b"two\n")]));
    std::fs::write(b.share().join("list"), "edited\n").unwrap();
    std::fs::remove_file(a.share().join("other")).unwrap();
    eventually("an edit and a delete arrive", || {
        have_all(&[("song", &data), ("list", b"edited\n")]) && !b.share().join("other").exists()
    });
}

#[test]
fn the_machine_with_the_tracker_dies() {
    let Some(mut lan) = Lan::new() else { return };
    let data = noise(1 << 20, 2);
    let machines: Vec<_> = (0..4).map(|_| lan.machine(&[("song", &data)])).collect();
    let mut running: Vec<_> = machines.iter().map(|machine| Some(machine.up(&[]))).collect();
    assert_together(&machines.iter().collect::<Vec<_>>());
    let tracker = machines[0].trackers()[0].ip().to_string();
    let host: usize = tracker.rsplit('.').next().unwrap().parse::<usize>().unwrap() - 1;
    running[host].take().unwrap().kill();
    let left: Vec<_> = machines.iter().enumerate().filter(|(at, _)| *at != host).map(|(_, machine)| machine).collect();
    assert_together(&left);
    let late = lan.machine(&[]);
    let _running = late.up(&[]);
    eventually("the song arrives", || late.run(&["download", "song"]).code == Some(0));
    assert_eq!(std::fs::read(late.share().join("song")).unwrap(), data);
    // And the one that died comes back.
    running[host] = Some(machines[host].up(&[]));
    let mut all: Vec<_> = machines.iter().collect();
    all.push(&late);
    assert_together(&all);
}

#[test]
fn two_swarms_on_one_bridge() {
    let Some(mut lan) = Lan::new() else { return };
    let machines: Vec<_> = (0..4).map(|_| lan.machine(&[])).collect();
    let swarm = |at: usize| if at.is_multiple_of(2) { "kitchen" } else { "hall" };
    let _running: Vec<_> =
        machines.iter().enumerate().map(|(at, machine)| machine.up(&["--swarm", swarm(at)])).collect();
    assert_together(&[&machines[0], &machines[2]]);
    assert_together(&[&machines[1], &machines[3]]);
    assert_ne!(machines[0].trackers(), machines[1].trackers());
}

#[test]
fn a_verb_where_nobody_is() {
    let Some(mut lan) = Lan::new() else { return };
    let alone = lan.machine(&[]);
    let ended = alone.run(&["show"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("no tracker was found") && ended.stderr.contains("potluck up"), "{ended:?}");
}
