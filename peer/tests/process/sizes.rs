//! Files of unusual lengths, names and depths.

use std::os::unix::fs::FileExt;

use crate::harness::{Share, eventually, get, skipped, tracker};
use crate::sums::run;

/// No longer fits in 32 bits with a sign.
const SPARSE_LEN: u64 = (2 << 30) + 1;

/// F45 as far as it fits in seconds: empty files, names of 255 bytes, a path of a hundred folders, and a sparse file of two
/// gibibytes. Content ids are what b3sum prints, and all of them arrive, the empty ones too.
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
    let sparse = std::fs::File::create(owner.path("all/sparse")).unwrap();
    sparse.set_len(SPARSE_LEN).unwrap();
    sparse.write_all_at(b"somewhere", SPARSE_LEN / 3).unwrap();
    sparse.write_all_at(b"!", SPARSE_LEN - 1).unwrap();
    let _serving = owner.up();
    eventually("all are listed", || {
        get(tracker.address, "/v1/stats").is_some_and(|stats| stats["n_files"] == names.len() + 1)
    });
    let ended = taker.run(&["download", "all/"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for name in &names {
        assert_eq!(std::fs::read(taker.path(name)).unwrap(), data(name), "{name}");
    }
    assert_eq!(std::fs::metadata(taker.path("all/sparse")).unwrap().len(), SPARSE_LEN);
    // The ids as the owner announced them, against the bytes as they arrived.
    let manifest = taker.run(&["manifest", "--everybody"]);
    assert_eq!((manifest.code, manifest.stdout.lines().count()), (Some(0), names.len() + 1), "{manifest:?}");
    std::fs::write(taker.path("../SUMS"), &manifest.stdout).unwrap();
    match run(taker.dir(), "b3sum", &["--check", "--quiet", "../SUMS"]) {
        Some(checked) => assert!(checked.status.success(), "{checked:?}"),
        None => skipped("F45: that the ids are those of b3sum"),
    }
}
