//! Every system call on the share folder fails once, one after another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Ended, Program, Share, ended, noise, tracker, wait_for_owners};
use crate::traced::{can_trace, traced};

/// What is made to fail, by the names of Linux: each thread's first, second, … call of a name.
const KINDS: [&str; 6] =
    ["openat,openat2", "write,pwrite64,pwritev", "fsync,fdatasync", "renameat,renameat2", "mkdirat", "unlinkat"];
/// Runs side by side: mostly they wait, for strace and for the disk.
const N_AT_ONCE: usize = 4;

/// Of one chunk, of several, of none, and in a folder that has to be made.
fn files() -> [(&'static str, Vec<u8>); 4] {
    [
        ("tree/large", noise(700 << 10, 53)),
        ("tree/small", noise(5_000, 54)),
        ("tree/empty", Vec::new()),
        ("tree/deep/er", noise(100, 55)),
    ]
}

fn taker(tracker: &Program) -> Share {
    let share = Share::new(tracker, "taker");
    std::fs::write(share.path("../canary"), "tweet").unwrap();
    share
}

fn download(share: &Share, log: &Path, options: &[&str]) -> Ended {
    let mut command = share.command(&["download", "tree/"]);
    // Calls are counted by thread: the fewer threads, the more of them are met.
    command.env("TOKIO_WORKER_THREADS", "1");
    ended(traced(log, options, &command).spawn().unwrap())
}

/// For each kind how many calls one thread makes on the share folder, and the paths that they are made on.
fn count(log: &str, dir: &str) -> (Vec<usize>, BTreeSet<String>) {
    let (mut counts, mut paths) = (vec![BTreeMap::<(&str, &str), usize>::new(); KINDS.len()], BTreeSet::new());
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        let Some(kind) = KINDS.iter().position(|kind| kind.split(',').any(|of_kind| of_kind == name)) else { continue };
        let Some((_, rest)) = arguments.split_once(&format!("<{dir}")) else { continue };
        let Some((below, _)) = rest.split_once('>') else { continue };
        paths.insert(below.to_owned());
        *counts[kind].entry((thread, name)).or_default() += 1;
    }
    (counts.iter().map(|counts| counts.values().copied().max().unwrap_or(0)).collect(), paths)
}

/// F53 for a download, with I1 and I5: whichever call fails, the command ends, what has its final name has its bytes, nothing
/// beside the share folder is touched, and the same command without faults brings the rest and leaves nothing half-done.
#[test]
fn f53_each_call_of_a_download_fails() {
    if !can_trace("F53") {
        return;
    }
    let tracker = tracker(0);
    let (owner, files) = (Share::new(&tracker, "owner"), files());
    for (name, data) in &files {
        owner.write(name, data);
    }
    let _serving = owner.up();
    for (name, _) in &files {
        wait_for_owners(&tracker, name, 1);
    }
    let share = taker(&tracker);
    let log = share.path("../log");
    let all = format!("trace={}", KINDS.join(","));
    let undisturbed = download(&share, &log, &["-y", "-e", &all]);
    assert_eq!(undisturbed.code, Some(0), "{undisturbed:?}");
    let (counts, paths) = count(&std::fs::read_to_string(log).unwrap(), share.dir().to_str().unwrap());
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    let rounds: Vec<_> = counts.iter().zip(KINDS).flat_map(|(n, kind)| (1..=*n).map(move |at| (kind, at))).collect();
    let next = AtomicUsize::new(0);
    let n_failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..N_AT_ONCE {
            scope.spawn(|| {
                while let Some((kind, at)) = rounds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let share = taker(&tracker);
                    let paths: Vec<_> = paths.iter().map(|below| format!("{}{below}", share.dir().display())).collect();
                    let (trace, inject) = (format!("trace={kind}"), format!("inject={kind}:error=EIO:when={at}"));
                    let mut options: Vec<_> = paths.iter().flat_map(|path| ["-P", path]).collect();
                    options.extend(["-e", &trace, "-e", &inject]);
                    let what = format!("call {at} of {kind}");
                    let log = share.path("../log");
                    let disturbed = download(&share, &log, &options);
                    let n = std::fs::read_to_string(log).unwrap().matches("(INJECTED)").count();
                    // How threads share the calls differs from run to run, but every kind has a first one.
                    assert!(*at > 1 || n > 0, "{what}: none failed, {disturbed:?}");
                    n_failed.fetch_add(n, Ordering::Relaxed);
                    assert!(disturbed.code.is_some(), "{what}: {disturbed:?}");
                    for (name, data) in &files {
                        match std::fs::read(share.path(name)) {
                            Ok(bytes) => assert!(bytes == *data, "{what}: {name} has other bytes"),
                            Err(_) => assert_ne!(disturbed.code, Some(0), "{what}: {name} is missing, {disturbed:?}"),
                        }
                    }
                    let again = share.run(&["download", "tree/"]);
                    assert_eq!(again.code, Some(0), "{what}: {again:?} after {disturbed:?}");
                    for (name, data) in &files {
                        assert!(std::fs::read(share.path(name)).unwrap() == *data, "{what}: {name}");
                    }
                    let left = std::fs::read_dir(share.path(".potluck/partial")).unwrap().count();
                    assert_eq!(left, 0, "{what}: something half-done stays");
                    assert_eq!(std::fs::read(share.path("../canary")).unwrap(), b"tweet", "{what}");
                }
            });
        }
    });
    // Calls that more threads share fail several in a round, and in fewer rounds.
    let n_failed = n_failed.into_inner();
    assert!(n_failed > rounds.len() / 2, "only {n_failed} calls failed in {} rounds: {counts:?}", rounds.len());
}
