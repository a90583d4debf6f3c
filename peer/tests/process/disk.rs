//! Disks that are full or cannot be written, as small memory file systems. Only root may mount those.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use potluck_common::ContentId;

use crate::harness::{Share, body, ended, eventually, get, noise, skipped, tracker, wait_for_owners};
use crate::kill::owner;
use crate::proxy::Proxy;
use crate::traced::{Failing, can_trace, traced};

/// A memory file system that goes with the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None`, and a line that says so, where this is not allowed.
    fn mount(at: &Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        skipped("a full disk: tmpfs cannot be mounted here (it takes root)");
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(done.success(), "{options}");
    }

    fn n_used(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A folder that cannot be written is refused with what to do.
#[test]
fn a_read_only_folder() {
    let tracker = tracker(0);
    let share = Share::new(&tracker, "a");
    let Some(_mounted) = Tmpfs::mount(share.dir(), "size=1m,ro") else { return };
    for args in [&["up"][..], &["show"], &["download", "x"]] {
        let ended = share.run(args);
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(".potluck") && ended.stderr.contains("writable"), "{args:?}: {ended:?}");
    }
}

/// F06 at the start: no room for our own state.
#[test]
fn a_folder_without_any_space() {
    let tracker = tracker(0);
    let share = Share::new(&tracker, "a");
    let Some(_mounted) = Tmpfs::mount(share.dir(), "size=64k") else { return };
    let filled = std::fs::write(share.path("filler"), vec![1; 1 << 20]);
    assert!(filled.is_err());
    for args in [&["up"][..], &["show"]] {
        let ended = share.run(args);
        assert_eq!(ended.code, Some(6), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("space"), "{args:?}: {ended:?}");
    }
}

/// F08: what cannot fit is refused before its first byte.
#[test]
fn f08_refused_before_the_first_byte() {
    let tracker = tracker(0);
    let mut owner = Share::new(&tracker, "owner");
    owner.write("big", &noise(8 << 20, 8));
    let proxy = Proxy::start(1 << 30);
    owner.flags = vec!["--advertise".into(), proxy.address.to_string()];
    let serving = owner.up();
    proxy.leads_to(serving.address);
    wait_for_owners(&tracker, "big", 1);
    let share = Share::new(&tracker, "a");
    let Some(_mounted) = Tmpfs::mount(share.dir(), "size=64m") else { return };
    let ended = share.run(&["download", "big"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.stderr.contains("free"), "{ended:?}");
    assert!(proxy.n_bytes() < 1 << 20, "{} bytes were fetched", proxy.n_bytes());
    assert_eq!(std::fs::read_dir(share.path(".potluck/partial")).unwrap().count(), 0);
}

/// F06: the disk fills up in the middle. A running peer waits for space and goes on; one command ends with 6 and keeps
/// what it has.
#[test]
fn f06_the_disk_fills_up() {
    let tracker = tracker(0);
    let data = noise(32 << 20, 6);
    let mut owner = Share::new(&tracker, "owner");
    owner.write("big", &data);
    let proxy = Proxy::start(4 << 20);
    owner.flags = vec!["--advertise".into(), proxy.address.to_string()];
    let serving = owner.up();
    proxy.leads_to(serving.address);
    wait_for_owners(&tracker, "big", 1);
    for command_only in [true, false] {
        let share = Share::new(&tracker, "a");
        let Some(mounted) = Tmpfs::mount(share.dir(), "size=600m") else { return };
        let peer = (!command_only).then(|| share.up());
        let began = proxy.n_bytes();
        let child = share.command(&["download", "big"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("some of it came", || mounted.n_used() > 14 << 20);
        mounted.remount(&format!("size={}", mounted.n_used() + (2 << 20)));
        if let Some(peer) = &peer {
            eventually("it waits for space", || {
                share.json(&["status"])["downloads"][0]["waiting"] == "no space" && peer.logged("no space") > 0
            });
            let held = || share.json(&["status"])["downloads"][0]["n_bytes"].as_u64().unwrap();
            assert!(held() > 8 << 20, "what came is kept: {}", held());
            mounted.remount("size=600m");
        }
        let ended = ended(child);
        assert_eq!(ended.code, Some(if command_only { 6 } else { 0 }), "{ended:?}");
        if command_only {
            assert!(!share.path("big").exists());
            mounted.remount("size=600m");
            let again = share.run(&["download", "big"]);
            assert_eq!(again.code, Some(0), "{again:?}");
        }
        assert!(std::fs::read(share.path("big")).unwrap() == data);
        let twice = proxy.n_bytes() - began - data.len() as u64;
        assert!(twice < 24 << 20, "{twice} bytes were fetched twice");
        if let Some(mut peer) = peer {
            peer.signal(rustix::process::Signal::TERM);
            assert_eq!(peer.wait(Duration::from_secs(5)), Some(0));
        }
    }
}

/// F05: making durable what was written fails, the first time in each thread. What that concerns is fetched again, and nothing is complete before.
#[test]
fn f05_fdatasync_fails() {
    if !can_trace("F05") {
        return;
    }
    let tracker = tracker(0);
    let data = noise(16 << 20, 5);
    let (_owner, _serving, proxy) = owner(&tracker, &data, 4 << 20);
    let share = Share::new(&tracker, "a");
    let fails = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"];
    let mut command = traced(Path::new("/dev/null"), &fails, &share.command(&["download", "big"]));
    let ended = ended(command.spawn().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(std::fs::read(share.path("big")).unwrap() == data);
    // Else nothing was tested: at this rate there is something to make durable long before the end.
    let twice = proxy.n_bytes() - data.len() as u64;
    assert!(twice > 256 << 10, "{twice} bytes were fetched twice");
    assert_eq!(std::fs::read_dir(share.path(".potluck/partial")).unwrap().count(), 0);
}

/// F11: the disk of one of two owners fails to give a shared file. Its ranges break off, the other owner gives all of them, and
/// soon the file is no longer offered, neither to the tracker nor to who asks. Once it can be read it is offered again.
#[test]
fn f11_a_shared_file_cannot_be_read() {
    if !can_trace("F11") {
        return;
    }
    let tracker = tracker(0);
    let data = noise(8 << 20, 11);
    let (bad, good) = (Share::new(&tracker, "bad"), Share::new(&tracker, "good"));
    for share in [&bad, &good] {
        share.write("big", &data);
    }
    let failing = bad.up();
    bad.write("small", b"another");
    wait_for_owners(&tracker, "small", 1);
    let (_serving, taker) = (good.up(), Share::new(&tracker, "taker"));
    wait_for_owners(&tracker, "big", 2);
    let place = |name: &str| bad.path(name).to_str().unwrap().to_owned();
    let (big, small) = (place("big"), place("small"));
    // To a leecher the kernel sends by itself; whoever else asks gets what was read.
    let options = ["-P", &big, "-P", &small, "-e", "trace=pread64,sendfile", "-e", "inject=pread64,sendfile:error=EIO"];
    let disk = Failing::attach(&failing, &options);
    let ended = taker.run(&["--json", "download", "big"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(std::fs::read(taker.path("big")).unwrap() == data);
    assert!(!ended.stdout.contains("\"name\":\"bad\""), "nothing came of it: {ended:?}");
    let n_told = |name: &str| failing.logged(&format!("hashed again path=\"{name}\""));
    eventually("it is told", || n_told("big") > 0);
    // And one that is asked for in a bundle, which then is empty.
    let bundle = format!("/v1/contents?ids={}", ContentId::of(b"another"));
    assert_eq!(body(failing.address, &bundle), Some(Vec::new()));
    eventually("it is told too", || n_told("small") > 0);
    eventually("the tracker lists the files no more", || {
        let owners = |name: &str| get(tracker.address, &format!("/v1/files/{name}"));
        let owners =
            |name: &str| owners(name).map_or(0, |info| info["contents"][0]["owners"].as_array().unwrap().len());
        owners("big") == 1 && owners("small") == 0
    });
    let shared = get(failing.address, "/v1/index").unwrap();
    assert_eq!(shared["files"], serde_json::json!([]), "nor does its own index");
    assert_eq!((n_told("big"), n_told("small")), (1, 1), "each is told once");
    drop(disk);
    // Both are looked at anew when something happens to them; otherwise at the next full scan.
    bad.write("small", b"another");
    bad.write("big", &data);
    wait_for_owners(&tracker, "small", 1);
    wait_for_owners(&tracker, "big", 2);
}
