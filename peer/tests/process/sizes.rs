//! Files of unusual lengths, names and depths.

use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::time::Duration;

use potluck_peer::download::job::reserve;

use crate::harness::{Program, Share, ended_within, eventually_within, get, skipped, tracker};
use crate::sums::run;

/// No longer fits in 32 bits with a sign.
const SPARSE_LEN: u64 = (2 << 30) + 1;
/// Two gibibytes are read, written, made durable and read once more: on a busy machine that takes more than a minute.
const LONG: Duration = Duration::from_secs(300);

/// Whatever the owner has below `all` arrives, and content ids are what b3sum prints.
fn all_arrive(tracker: &Program, owner: &Share, taker: &Share, n_files: usize) {
    let _serving = owner.up();
    eventually_within(LONG, "all are listed", || {
        get(tracker.address, "/v1/stats").is_some_and(|stats| stats["n_files"] == n_files)
    });
    let mut download = taker.command(&["download", "all/"]);
    let ended = ended_within(LONG, download.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // The ids as the owner announced them, against the bytes as they arrived.
    let manifest = taker.run(&["manifest", "--everybody"]);
    assert_eq!((manifest.code, manifest.stdout.lines().count()), (Some(0), n_files), "{manifest:?}");
    std::fs::write(taker.path("../SUMS"), &manifest.stdout).unwrap();
    match run(taker.dir(), "b3sum", &["--check", "--quiet", "../SUMS"]) {
        Some(checked) => assert!(checked.status.success(), "{checked:?}"),
        None => skipped("F45: that the ids are those of b3sum"),
    }
}

/// F45 as far as it fits in seconds: empty files, names of 255 bytes, and a path of a hundred folders. All of them arrive, the empty
/// ones too.
#[test]
fn f45_unusual_files() {
    let tracker = tracker(0);
    let (owner, taker) = (Share::new(&tracker, "owner"), Share::new(&tracker, "taker"));
    let deep = format!("all/{}bottom", "d/".repeat(98));
    let mut names = vec!["all/empty".to_owned(), deep, format!("all/{}", "n".repeat(255))];
    names.push(format!("all/{}x", "\u{e9}".repeat(127)));
    names.push(format!("all/{}/empty too", "f".repeat(255)));
    names.extend((0..300).map(|n| format!("all/many/{n}")));
    let data =
        |name: &str| if name.contains("empty") { Vec::new() } else { name.as_bytes()[..name.len() % 100].to_vec() };
    for name in &names {
        owner.write(name, &data(name));
    }
    all_arrive(&tracker, &owner, &taker, names.len());
    for name in &names {
        assert_eq!(std::fs::read(taker.path(name)).unwrap(), data(name), "{name}");
    }
}

/// F45, a sparse file of two gibibytes instead of a hundred.
#[test]
fn f45_a_sparse_file() {
    let tracker = tracker(0);
    let (owner, taker) = (Share::new(&tracker, "owner"), Share::new(&tracker, "taker"));
    let disk = rustix::fs::statvfs(taker.dir()).unwrap();
    let (free, total) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    if free < SPARSE_LEN + reserve(total) {
        skipped(format_args!("F45: a sparse file: {free} bytes are free here"));
        return;
    }
    std::fs::create_dir(owner.path("all")).unwrap();
    let sparse = std::fs::File::create(owner.path("all/sparse")).unwrap();
    sparse.set_len(SPARSE_LEN).unwrap();
    sparse.write_all_at(b"somewhere", SPARSE_LEN / 3).unwrap();
    sparse.write_all_at(b"!", SPARSE_LEN - 1).unwrap();
    all_arrive(&tracker, &owner, &taker, 1);
    assert_eq!(std::fs::metadata(taker.path("all/sparse")).unwrap().len(), SPARSE_LEN);
}
