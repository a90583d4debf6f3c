//! Calls to the system that fail, one in each run, under the hands of folder sync. strace makes them fail, in a process of our own:
//! this program once more, told what to do.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use potluck_common::register::FileValue;
use potluck_common::{ContentId, SharePath};
use potluck_peer::share::folder::{FileIdentity, ShareFolder};
use potluck_peer::share::state::{PARTIAL_DIR, StateDir};
use potluck_peer::sync::apply::{Hands, Leaving, Supply};
use potluck_peer::sync::replace::Old;
use potluck_peer::sync::trash::Trash;

use crate::harness::{clean, ended};
use crate::traced::{can_trace, traced};

/// Where the process that is told to do something finds its folders.
const ROOT: &str = "POTLUCK_TEST_ROOT";
/// What it is told to run.
const CHILD: &str = "failing_hands::hands_that_are_traced";
/// Calls that a thread makes before its hands move, of each kind that the start of a program makes too: so that the i-th of
/// those is never one of the start's.
const N_AHEAD: u64 = 64;
/// Kinds of calls, whether a thread is ahead with them, and how they fail: those that take room also for want of it, those that wait
/// for the disk also by a signal.
const CALLS: [(&str, bool, &[&str]); 13] = [
    ("openat2", false, &["EIO", "ENOSPC"]),
    ("openat", true, &["EIO"]),
    ("renameat2", false, &["EIO", "ENOSPC"]),
    ("mkdirat", false, &["EIO", "ENOSPC"]),
    ("unlinkat", false, &["EIO"]),
    ("fsync", false, &["EIO", "ENOSPC", "EINTR"]),
    ("syncfs", false, &["EIO"]),
    ("fchmod", false, &["EIO"]),
    ("utimensat", false, &["EIO"]),
    ("statx", true, &["EIO"]),
    ("newfstatat,fstat", true, &["EIO"]),
    ("read", true, &["EIO", "EINTR"]),
    ("write", true, &["EIO", "ENOSPC", "EINTR"]),
];
/// What the hands do, each in a folder and a thread of its own.
const OPERATIONS: [&str; 9] =
    ["place", "take back", "replace", "keep", "remove", "move", "set meta", "make folder", "remove folder"];

fn path(text: &str) -> SharePath {
    text.parse().unwrap()
}

fn value(text: &str) -> FileValue {
    let content_id = ContentId::of(text.as_bytes());
    FileValue { mtime_ns: 1_600_000_000_123_456_789, content_id, len: text.len() as u64, executable: true }
}

fn leaving(text: &str) -> Leaving {
    Leaving { content_id: Some(ContentId::of(text.as_bytes())), by: None }
}

fn hands(root: &Path) -> Result<(Hands, Arc<Trash>, StateDir), String> {
    let folder = Arc::new(ShareFolder::open(&root.join("share")).map_err(|error| error.to_string())?);
    let state = StateDir::open(&folder).map_err(|error| error.to_string())?;
    let trash = Arc::new(Trash::open(state.dir()).map_err(|error| error.to_string())?);
    let partial = state.dir().open_dir(PARTIAL_DIR).map_err(|error| error.to_string())?;
    Ok((Hands::new(folder, partial, trash.clone()), trash, state))
}

/// A folder with a user's file in it, something in the trash, and something that has been fetched.
fn prepare(root: &Path) {
    std::fs::create_dir_all(root.join("share/d/empty")).unwrap();
    std::fs::create_dir(root.join("outside")).unwrap();
    std::fs::write(root.join("outside/canary"), "canary").unwrap();
    std::fs::write(root.join("share/d/a"), "old").unwrap();
    std::fs::write(root.join("share/gone"), "trashed").unwrap();
    let (hands, _trash, _state) = hands(root).unwrap();
    let gone = identity(root, "gone").unwrap();
    hands.remove(&path("gone"), gone, leaving("trashed")).unwrap();
    hands.sync().unwrap();
    std::fs::write(root.join("share/.potluck/partial/new"), "new").unwrap();
}

fn identity(root: &Path, name: &str) -> std::io::Result<FileIdentity> {
    FileIdentity::at(&Dir::open_ambient_dir(root.join("share"), ambient_authority())?, name)
}

/// Does one thing, and makes it durable.
fn operate(root: &Path, operation: &str) -> Result<(), String> {
    let (hands, trash, _state) = hands(root)?;
    let expect = identity(root, "d/a").map_err(|error| error.to_string());
    let (new, a) = (Supply::Staged("new"), path("d/a"));
    let done = match operation {
        "place" => hands.place(new, &path("e/f/b"), &value("new")).map(drop),
        "take back" => {
            let items = trash.find(ContentId::of(b"trashed"));
            let item = items.first().ok_or("it is not in the trash")?;
            hands.place(Supply::Trashed(item), &path("back"), &value("trashed")).map(drop)
        }
        "replace" => hands.replace(new, &a, &value("new"), expect?, Old::Trash(leaving("old"))).map(drop),
        "keep" => hands.replace(new, &a, &value("new"), expect?, Old::Keep(&path("d/kept"))).map(drop),
        "remove" => hands.remove(&a, expect?, leaving("old")),
        "move" => hands.move_file(&a, expect?, &path("e/b")).map(drop),
        "set meta" => hands.set_meta(&a, &value("old"), expect?).map(drop),
        "make folder" => hands.make_folder(&path("e/f/g")),
        "remove folder" => hands.remove_folder(&path("d/empty")),
        _ => unreachable!(),
    };
    done.map_err(|error| error.to_string())?;
    hands.sync().map_err(|error| error.to_string())
}

/// What the traced process does.
#[test]
#[ignore = "a part of f53_the_ith_call_under_the_hands_fails, which runs it"]
fn hands_that_are_traced() {
    let Some(root) = std::env::var_os(ROOT).map(PathBuf::from) else { return };
    for operation in OPERATIONS {
        let root = root.join(operation);
        let result = result_in(&root);
        let thread = std::thread::spawn(move || {
            for _ in 0..N_AHEAD {
                let mut null = File::options().read(true).write(true).open("/dev/null").unwrap();
                rustix::fs::fstat(&null).unwrap();
                rustix::fs::statx(&null, "", rustix::fs::AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::BASIC_STATS)
                    .unwrap();
                null.read_exact(&mut []).unwrap();
                let _nothing = null.read(&mut [0]).unwrap();
                null.write_all(&[0]).unwrap();
            }
            operate(&root, operation)
        });
        // A panic is not a result.
        let done = thread.join().unwrap();
        std::fs::write(result, format!("{done:?}")).unwrap();
    }
}

fn result_in(root: &Path) -> PathBuf {
    root.join("result")
}

/// The texts of all files with their places, but for records.
fn texts(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root.join("share"), &root.join("share"), &mut found);
    found
}

/// What must be so after the next start, whatever failed.
fn check(root: &Path, operation: &str, what: &str) {
    let (hands, _trash, _state) = hands(root).unwrap();
    hands.recover().unwrap();
    let texts = texts(root);
    let at = |name: &str| texts.get(name).map(String::as_str);
    let is_anywhere = |text: &str| texts.values().any(|there| there == text);
    // Nobody's bytes are gone, neither the user's nor what waits in the trash.
    assert!(is_anywhere("old") && is_anywhere("trashed"), "{what}: {texts:#?}");
    let is_one_of =
        |name: &str, wanted: &[&str]| assert!(at(name).is_none_or(|text| wanted.contains(&text)), "{what}: {texts:#?}");
    for (name, wanted) in [
        ("d/a", &["old", "new"][..]),
        ("d/kept", &["old"]),
        ("e/f/b", &["new"]),
        ("e/b", &["old"]),
        ("back", &["trashed"]),
    ] {
        is_one_of(name, wanted);
    }
    let is_temporary = |name: &&String| name.contains(".potluck-tmp");
    assert_eq!(texts.keys().find(is_temporary), None, "{what}");
    assert_eq!(std::fs::read_dir(root.join("outside")).unwrap().count(), 1, "{what}");
    assert_eq!(std::fs::read_to_string(root.join("outside/canary")).unwrap(), "canary", "{what}");
    // What is said to be done is.
    let result = std::fs::read_to_string(result_in(root)).unwrap();
    let is_there = |name: &str| root.join("share").join(name).exists();
    if result == "Ok(())" {
        let is_done = match operation {
            "place" => at("e/f/b") == Some("new"),
            "take back" => at("back") == Some("trashed"),
            "replace" => at("d/a") == Some("new"),
            "keep" => at("d/a") == Some("new"),
            "remove" => !is_there("d/a"),
            "move" => !is_there("d/a") && at("e/b") == Some("old"),
            "set meta" => true,
            "make folder" => is_there("e/f/g"),
            "remove folder" => !is_there("d/empty"),
            _ => unreachable!(),
        };
        assert!(is_done, "{what}: {texts:#?}");
    }
}

/// F53: the i-th call to the system fails under the hands of folder sync, for each kind of call and each i until none is left to
/// fail, in each thing that they do. Whatever failed, no name has other bytes than it should (I1), the user's file and
/// what is in the trash are somewhere (I2), nothing outside is touched (I5), nobody panics (I6), and what is said to be done is.
#[test]
fn f53_the_ith_call_under_the_hands_fails() {
    if !can_trace("F53") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let sweep = |calls: &str, is_ahead: bool, error: &str| {
        let mut n_failed = 0;
        for i in 1.. {
            let what = format!("{calls} {error} {i}");
            let (root, log) = (temp.path().join(&what), temp.path().join(format!("{what}.log")));
            OPERATIONS.iter().for_each(|operation| prepare(&root.join(operation)));
            let at = if is_ahead { N_AHEAD + i } else { i };
            let (trace, inject) = (format!("--trace={calls}"), format!("--inject={calls}:error={error}:when={at}"));
            let mut command = clean(&std::env::current_exe().unwrap());
            command.args(["--exact", CHILD, "--ignored", "--test-threads=1"]).env(ROOT, &root);
            let ended = ended(traced(&log, &[&trace, &inject], &command).spawn().unwrap());
            assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
            for operation in OPERATIONS {
                check(&root.join(operation), operation, &format!("{what}, {operation}"));
            }
            std::fs::remove_dir_all(&root).unwrap();
            let n = std::fs::read_to_string(&log).unwrap().matches("(INJECTED)").count();
            if n == 0 {
                break;
            }
            n_failed += n;
        }
        n_failed
    };
    let sweeps: Vec<_> = CALLS
        .iter()
        .flat_map(|(calls, is_ahead, errors)| errors.iter().map(|error| (*calls, *is_ahead, *error)))
        .collect();
    let n_failed: usize = std::thread::scope(|scope| {
        let (sweeps, sweep) = (&sweeps, &sweep);
        let half = move |first: usize| -> usize {
            sweeps.iter().skip(first).step_by(2).map(|(calls, is_ahead, error)| sweep(calls, *is_ahead, error)).sum()
        };
        let threads = [0, 1].map(|first| scope.spawn(move || half(first)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(n_failed > 100, "{n_failed} calls failed");
}
