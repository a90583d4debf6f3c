//! What a user may do at the worst moment, for each operation (F16, F17, P15, P16, P21), and a full disk (F06).

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::share::state::{PARTIAL_DIR, StateDir};
use crate::sync::mounted::Mounted;
use crate::sync::replace::{MAX_EXCHANGES, Old};

type Act = Box<dyn FnMut(u32) + Send>;

/// Runs what a test gave it, with the how-manieth pause it is.
#[derive(Default)]
pub(in crate::sync) struct Pause(Mutex<(u32, Option<Act>)>, AtomicBool);

impl std::fmt::Debug for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pause")
    }
}

impl Pause {
    pub(in crate::sync) fn here(&self) {
        let (n, act) = &mut *self.0.lock().unwrap();
        *n += 1;
        if let Some(act) = act {
            act(*n);
        }
    }

    /// Whether the file system is one that cannot exchange names.
    pub(in crate::sync) fn cannot_exchange(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }

    fn set(&self, act: impl FnMut(u32) + Send + 'static) {
        *self.0.lock().unwrap() = (0, Some(Box::new(act)));
    }
}

struct World {
    temp: tempfile::TempDir,
    hands: Hands,
    state: StateDir,
    _mounted: Option<Mounted>,
}

/// What may be odd about the file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// The share folder's is not that of the trash, as below a mount point inside the share folder.
    Apart,
    /// It cannot exchange names.
    Old,
    ApartAndOld,
}

const KINDS: [Kind; 4] = [Kind::Plain, Kind::Apart, Kind::Old, Kind::ApartAndOld];

impl World {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(temp: tempfile::TempDir) -> Self {
        Self::of(Kind::Plain, temp).unwrap()
    }

    /// `None`, and a line that says so, where this cannot be had.
    fn of(kind: Kind, temp: tempfile::TempDir) -> Option<Self> {
        std::fs::create_dir(temp.path().join("share")).unwrap();
        let state = temp.path().join("share/.potluck");
        let mounted = match kind {
            Kind::Apart | Kind::ApartAndOld => {
                std::fs::create_dir(&state).unwrap();
                Some(Mounted::at(&state, "size=16m")?)
            }
            Kind::Plain | Kind::Old => None,
        };
        std::fs::create_dir(temp.path().join("outside")).unwrap();
        std::fs::write(temp.path().join("outside/canary"), "canary").unwrap();
        let folder = Arc::new(ShareFolder::open(&temp.path().join("share")).unwrap());
        let state = StateDir::open(&folder).unwrap();
        let trash = Arc::new(Trash::open(state.dir()).unwrap());
        let hands = Hands::new(folder, state.dir().open_dir(PARTIAL_DIR).unwrap(), trash);
        hands.pause.1.store(matches!(kind, Kind::Old | Kind::ApartAndOld), Ordering::Relaxed);
        Some(Self { temp, hands, state, _mounted: mounted })
    }

    /// As a killed process leaves it, and the next one finds it.
    fn killed(self) -> Self {
        let Self { temp, hands, state, _mounted } = self;
        let trash = Arc::new(Trash::open(state.dir()).unwrap());
        let next = Hands::new(hands.folder.clone(), state.dir().open_dir(PARTIAL_DIR).unwrap(), trash);
        next.recover().unwrap();
        Self { temp, hands: next, state, _mounted }
    }

    fn share(&self, name: &str) -> std::path::PathBuf {
        self.temp.path().join("share").join(name)
    }

    fn user_writes(&self, name: &str, text: &str) -> FileIdentity {
        std::fs::write(self.share(name), text).unwrap();
        self.identity(name)
    }

    fn identity(&self, name: &str) -> FileIdentity {
        FileIdentity::at(self.hands.folder.dir(), name).unwrap()
    }

    fn stage(&self, text: &str) {
        std::fs::write(self.share(".potluck/partial/new"), text).unwrap();
    }

    fn is_staged(&self) -> bool {
        self.share(".potluck/partial/new").exists()
    }

    /// The texts of all files in the folder and in the trash.
    fn texts(&self) -> BTreeSet<String> {
        fn walk(dir: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let kind = path.symlink_metadata().unwrap().file_type();
                if kind.is_dir() {
                    walk(&path, found);
                } else if kind.is_file()
                    && path.extension().is_none_or(|extension| extension != "json")
                    && path.metadata().unwrap().len() > 0
                {
                    found.insert(String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&self.temp.path().join("share"), &mut found);
        found
    }

    fn check_canary(&self) {
        let outside: Vec<_> = std::fs::read_dir(self.temp.path().join("outside")).unwrap().collect();
        assert_eq!(outside.len(), 1);
        assert_eq!(std::fs::read_to_string(self.temp.path().join("outside/canary")).unwrap(), "canary");
    }
}

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

const NEW: Supply<'static> = Supply::Staged("new");

#[test]
fn placed_with_its_time_and_bit_and_never_over_or_through_anything() {
    let world = World::new();
    world.stage("new");
    let identity = world.hands.place(NEW, &path("a/b/c"), &value("new")).unwrap();
    assert_eq!(identity, world.identity("a/b/c"));
    assert_eq!(identity.mtime, (1_600_000_000, 123_456_789));
    let mode = std::fs::metadata(world.share("a/b/c")).unwrap().mode();
    assert_eq!(mode & 0o111, (mode & 0o444) >> 2);
    assert_ne!(mode & 0o100, 0);

    world.user_writes("file", "file");
    std::fs::create_dir(world.share("folder")).unwrap();
    symlink("nowhere", world.share("dangling")).unwrap();
    symlink(world.temp.path().join("outside"), world.share("out")).unwrap();
    symlink("a", world.share("in")).unwrap();
    world.stage("new");
    for name in ["file", "folder", "dangling", "file/x", "out/x", "in/x", "out"] {
        let placed = world.hands.place(NEW, &path(name), &value("new"));
        assert!(matches!(placed, Err(ApplyError::Taken)), "{name}: {placed:?}");
        let made = world.hands.make_folder(&path(name));
        assert_eq!(made.is_ok(), name == "folder", "{name}: {made:?}");
    }
    assert!(world.is_staged());
    world.hands.make_folder(&path("x/y/z")).unwrap();
    world.hands.make_folder(&path("x/y/z")).unwrap();
    world.hands.sync().unwrap();
    world.check_canary();
}

#[test]
fn folders_go_only_when_empty() {
    let world = World::new();
    world.hands.make_folder(&path("d/e")).unwrap();
    assert!(matches!(world.hands.remove_folder(&path("d")), Err(ApplyError::NotEmpty)));
    world.hands.remove_folder(&path("d/e")).unwrap();
    world.hands.remove_folder(&path("d")).unwrap();
    world.hands.remove_folder(&path("d")).unwrap();
    world.user_writes("f", "f");
    symlink(world.temp.path().join("outside"), world.share("out")).unwrap();
    for name in ["f", "out", "out/x", "f/x"] {
        assert!(matches!(world.hands.remove_folder(&path(name)), Err(ApplyError::Changed)), "{name}");
    }
    world.check_canary();
}

#[test]
fn what_is_replaced_or_removed_is_in_the_trash() {
    let world = World::new();
    let old = world.user_writes("a", "old");
    std::fs::set_permissions(world.share("a"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(world.hands.remove(&path("a"), old, leaving("old")), Err(ApplyError::Changed)), "chmod counts");
    world.stage("new");
    let new = world
        .hands
        .replace(NEW, &path("a"), &value("new"), world.identity("a"), Old::Trash(leaving("old")))
        .unwrap()
        .identity;
    assert_eq!(new, world.identity("a"));
    assert_eq!(std::fs::metadata(world.share("a")).unwrap().mode() & 0o777, 0o700, "still nobody else's");
    assert!(!world.is_staged());
    let items = world.hands.trash.list().unwrap();
    let [item] = items.as_slice() else { panic!("{items:?}") };
    let record = item.record.as_ref().unwrap();
    assert!(item.is_intact && item.len == 3);
    assert_eq!((record.path.as_str(), record.why), ("a", Why::Overwritten));
    world.hands.remove(&path("a"), new, leaving("new")).unwrap();
    world.hands.sync().unwrap();
    let whys: Vec<_> = world.hands.trash.list().unwrap().into_iter().map(|item| item.record.unwrap().why).collect();
    assert!(whys.len() == 2 && whys.contains(&Why::Deleted));
    assert!(!world.share("a").exists());
    assert_eq!(world.texts(), ["old".into(), "new".into()].into());
}

/// A rename elsewhere is a delete and a new name, in either order: no bytes move here.
#[test]
fn known_bytes_move() {
    let world = World::new();
    let old = world.user_writes("a", "text");
    let moved = world.hands.move_file(&path("a"), old, &path("d/b")).unwrap();
    assert_eq!((moved, moved.inode, moved.mtime), (world.identity("d/b"), old.inode, old.mtime));

    world.hands.remove(&path("d/b"), moved, leaving("text")).unwrap();
    let [item] = world.hands.trash.find(ContentId::of(b"text")).try_into().unwrap();
    let back = world.hands.place(Supply::Trashed(&item), &path("c"), &value("text")).unwrap();
    assert_eq!((back, back.inode), (world.identity("c"), old.inode));
    assert_eq!(world.hands.trash.list().unwrap(), []);

    world.hands.remove(&path("c"), back, leaving("text")).unwrap();
    let [item] = world.hands.trash.find(ContentId::of(b"text")).try_into().unwrap();
    let other = world.user_writes("e", "other");
    let supply = Supply::Trashed(&item);
    world.hands.replace(supply, &path("e"), &value("text"), other, Old::Trash(leaving("other"))).unwrap();
    assert_eq!(std::fs::read_to_string(world.share("e")).unwrap(), "text");
    assert!(world.hands.trash.find(ContentId::of(b"text")).is_empty());
    let [item] = world.hands.trash.find(ContentId::of(b"other")).try_into().unwrap();

    // A program that still had it open wrote on.
    std::fs::write(world.share(".potluck/trash").join(&item), "grown and grown").unwrap();
    assert!(world.hands.trash.find(ContentId::of(b"other")).is_empty());
    let placed = world.hands.place(Supply::Trashed(&item), &path("f"), &value("other"));
    assert!(matches!(placed, Err(ApplyError::Changed)), "{placed:?}");
    assert_eq!(world.texts(), ["text".into(), "grown and grown".into()].into());
}

#[test]
fn only_time_and_bit() {
    let world = World::new();
    let old = world.user_writes("a", "text");
    let set = world.hands.set_meta(&path("a"), &value("text"), old).unwrap();
    assert_eq!((set, set.inode, set.mtime.0), (world.identity("a"), old.inode, 1_600_000_000));
    assert!(matches!(world.hands.set_meta(&path("a"), &value("text"), old), Err(ApplyError::Changed)));
}

#[test]
fn what_is_replaced_stays_under_another_name() {
    let world = World::new();
    for (name, is_kept) in [("d/a.conflict", true), ("taken", false)] {
        world.user_writes("taken", "taken");
        let expect = world.user_writes("a", "old");
        world.stage("new");
        let old = Old::Keep(&path(name));
        let done = world.hands.replace(NEW, &path("a"), &value("new"), expect, old).unwrap();
        assert_eq!(done.identity, world.identity("a"));
        assert_eq!(done.kept, is_kept.then(|| world.identity(name)));
        assert!(done.kept.is_none_or(|kept| kept.is_but_for_ctime(&expect)));
        assert_eq!(world.hands.trash.list().unwrap().len(), usize::from(!is_kept));
        assert!(world.texts().is_superset(&["old".into(), "new".into(), "taken".into()].into()));
    }
}

/// What a user may do to the file `a` while we work on it. The text that must then be found at the name.
const ACTS: [&str; 7] = ["edit", "save", "delete", "folder", "link", "pipe", "parent"];

fn act(kind: &str, root: &Path, text: &str) {
    let (at, outside) = (root.join("share/d/a"), root.join("outside"));
    let clear = || drop(std::fs::remove_file(&at));
    match kind {
        "edit" => std::fs::write(&at, text).unwrap(),
        "save" => {
            std::fs::write(root.join("share/d/save"), text).unwrap();
            std::fs::rename(root.join("share/d/save"), &at).unwrap();
        }
        "delete" => clear(),
        "folder" => {
            clear();
            std::fs::create_dir(&at).unwrap();
            std::fs::write(at.join("inner"), text).unwrap();
        }
        "link" => {
            clear();
            symlink(outside.join("canary"), &at).unwrap();
        }
        "pipe" => {
            clear();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }
        "parent" => {
            std::fs::rename(root.join("share/d"), root.join("share/was")).unwrap();
            symlink(&outside, root.join("share/d")).unwrap();
        }
        _ => unreachable!(),
    }
}

fn check_act(world: &World, kind: &str, what: &str) {
    let at = world.share("d/a");
    let metadata = at.symlink_metadata();
    match kind {
        "edit" | "save" => assert_eq!(std::fs::read_to_string(&at).unwrap(), "user", "{what}"),
        "delete" => assert!(metadata.is_err(), "{what}"),
        "folder" => assert_eq!(std::fs::read_to_string(at.join("inner")).unwrap(), "user", "{what}"),
        "link" => assert!(metadata.unwrap().is_symlink(), "{what}"),
        "pipe" => assert!(!metadata.unwrap().is_file(), "{what}"),
        "parent" => assert!(world.share("d").is_symlink(), "{what}"),
        _ => unreachable!(),
    }
    world.check_canary();
}

/// F16, F17: the user is quicker, before the call and at the last moment.
#[test]
fn whatever_the_user_does_meanwhile_stays() {
    for (system, operation) in
        KINDS.iter().flat_map(|kind| ["replace", "remove", "move", "set_meta"].map(|operation| (*kind, operation)))
    {
        for kind in ACTS {
            for last_moment in [false, true] {
                // Nothing is between the look and the call there, see `Hands::set_meta`.
                if operation == "set_meta" && last_moment {
                    continue;
                }
                let what = format!("{operation}, {kind}, last moment: {last_moment}, {system:?}");
                let Some(world) = World::of(system, tempfile::tempdir().unwrap()) else { continue };
                std::fs::create_dir(world.share("d")).unwrap();
                let expect = world.user_writes("d/a", "old");
                world.stage("new");
                let root = world.temp.path().to_owned();
                if last_moment {
                    world.hands.pause.set(move |n| {
                        if n == 1 {
                            act(kind, &root, "user");
                        }
                    });
                } else {
                    act(kind, &root, "user");
                }
                let hands = &world.hands;
                let done = match operation {
                    "replace" => {
                        hands.replace(NEW, &path("d/a"), &value("new"), expect, Old::Trash(leaving("old"))).map(drop)
                    }
                    "remove" => hands.remove(&path("d/a"), expect, leaving("old")),
                    "move" => hands.move_file(&path("d/a"), expect, &path("to")).map(drop),
                    _ => hands.set_meta(&path("d/a"), &value("old"), expect).map(drop),
                };
                if kind == "parent" && last_moment {
                    // The file that was meant was still the one that was expected, in the folder under its other name.
                    done.unwrap();
                } else {
                    assert!(matches!(done, Err(ApplyError::Changed)), "{what}: {done:?}");
                    assert!(world.is_staged(), "{what}");
                    assert_eq!(world.hands.trash.list().unwrap(), [], "{what}");
                    assert!(!world.share("to").exists(), "{what}");
                }
                check_act(&world, kind, &what);
            }
        }
    }
}

/// Somebody saves again and again while the name is being given back: the newest stays there, and nothing of what we took
/// from the name is lost.
#[test]
fn saved_again_while_it_is_given_back() {
    for operation in ["replace", "remove"] {
        for n_acts in 1..=20 {
            for again in ["save", "delete"] {
                let what = format!("{operation}, {n_acts}, {again}");
                let world = World::new();
                std::fs::create_dir(world.share("d")).unwrap();
                let expect = world.user_writes("d/a", "old");
                world.stage("new");
                let root = world.temp.path().to_owned();
                world.hands.pause.set(move |n| match n {
                    1 => act("save", &root, "user 1"),
                    _ if n <= n_acts => act(again, &root, &format!("user {n}")),
                    _ => {}
                });
                let done = match operation {
                    "replace" => world
                        .hands
                        .replace(NEW, &path("d/a"), &value("new"), expect, Old::Trash(leaving("old")))
                        .map(drop),
                    _ => world.hands.remove(&path("d/a"), expect, leaving("old")),
                };
                assert!(matches!(done, Err(ApplyError::Changed)), "{what}: {done:?}");
                let texts = world.texts();
                let n_saved = match (again, operation) {
                    ("save", "replace") => n_acts.min(MAX_EXCHANGES + 1),
                    ("save", _) => n_acts.min(2),
                    _ => 1,
                };
                // The newest and what it came upon; what one save of theirs put in the place of another is theirs.
                assert!(texts.contains(&format!("user {n_saved}")), "{what}: {texts:?}");
                if again == "delete" || operation == "remove" {
                    assert!(texts.contains("user 1"), "{what}: {texts:?}");
                }
                if n_acts <= MAX_EXCHANGES && again == "save" {
                    let there = std::fs::read_to_string(world.share("d/a")).unwrap();
                    assert_eq!(there, format!("user {n_saved}"), "{what}");
                }
            }
        }
    }
}

/// Ends the other thread also when an assertion fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// P15, P16: a folder is swapped for a link to outside, and back, all the time.
#[test]
fn nothing_gets_outside_however_folders_are_swapped() {
    const ROUNDS: u32 = 1_500;
    let world = World::new();
    std::fs::create_dir(world.share("d")).unwrap();
    std::fs::create_dir(world.temp.path().join("outside/d")).unwrap();
    std::fs::write(world.temp.path().join("outside/a"), "canary").unwrap();
    symlink(world.temp.path().join("outside"), world.share("link")).unwrap();
    let ended = AtomicBool::new(false);
    let n_done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let [real, link] = ["d", "link"].map(|name| world.share(name));
            while !ended.load(Ordering::Relaxed) {
                let _raced = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &real,
                    rustix::fs::CWD,
                    &link,
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        let _ends = Ends(&ended);
        let mut n_done = [0u32; 6];
        for _ in 0..ROUNDS {
            world.stage("new");
            let a = path("d/a");
            let expect = FileIdentity::at(world.hands.folder.dir(), "d/a");
            let done = [
                world.hands.place(NEW, &a, &value("new")).is_ok(),
                expect.is_ok_and(|old| {
                    world.hands.replace(NEW, &a, &value("new"), old, Old::Trash(leaving("new"))).is_ok()
                }),
                FileIdentity::at(world.hands.folder.dir(), "d/a")
                    .is_ok_and(|old| world.hands.move_file(&a, old, &path("d/b")).is_ok()),
                FileIdentity::at(world.hands.folder.dir(), "d/b")
                    .is_ok_and(|old| world.hands.remove(&path("d/b"), old, leaving("new")).is_ok()),
                world.hands.make_folder(&path("d/d/e")).is_ok(),
                world.hands.remove_folder(&path("d/d")).is_ok() || world.hands.remove_folder(&path("d/d/e")).is_ok(),
            ];
            for (count, done) in n_done.iter_mut().zip(done) {
                *count += u32::from(done);
            }
        }
        world.hands.sync().unwrap();
        n_done
    });
    // Otherwise nothing was tested.
    assert!([n_done[0], n_done[4], n_done[5]].iter().all(|count| *count > ROUNDS / 100), "{n_done:?}");
    let outside = world.temp.path().join("outside");
    let mut names: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "canary", "d"]);
    assert_eq!(std::fs::read_dir(outside.join("d")).unwrap().count(), 0);
    for name in ["a", "canary"] {
        assert_eq!(std::fs::read_to_string(outside.join(name)).unwrap(), "canary");
        assert_eq!(std::fs::metadata(outside.join(name)).unwrap().mode() & 0o111, 0);
    }
}

/// F06: a disk without a byte left. Whatever does not work changes nothing.
#[test]
fn a_full_disk() {
    let temp = tempfile::tempdir().unwrap();
    let Some(unmount) = Mounted::at(temp.path(), "size=256k,nr_inodes=64") else { return };
    let inner = temp.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let world = World::at(tempfile::tempdir_in(&inner).unwrap());
    let expect = world.user_writes("a", "old");
    world.stage("new");
    let mut filler = File::create(temp.path().join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[1; 512]).is_ok() {}
    let n = (0..).find(|n| File::create(temp.path().join(format!("filler{n}"))).is_err()).unwrap();
    let full = |done: Result<(), ApplyError>| match done {
        Err(ApplyError::Io(error)) => assert!(crate::download::place::is_no_space(&error), "{error}"),
        other => panic!("{other:?}"),
    };
    full(world.hands.remove(&path("a"), expect, leaving("old")));
    full(world.hands.replace(NEW, &path("a"), &value("new"), expect, Old::Trash(leaving("old"))).map(drop));
    full(world.hands.make_folder(&path("d")));
    assert_eq!(std::fs::read_to_string(world.share("a")).unwrap(), "old");
    assert!(world.is_staged());
    assert_eq!(world.hands.trash.list().unwrap(), []);
    // With room again the same calls go through.
    for n in 0..n {
        std::fs::remove_file(temp.path().join(format!("filler{n}"))).unwrap();
    }
    std::fs::remove_file(temp.path().join("filler")).unwrap();
    drop(filler);
    let new = world.hands.replace(NEW, &path("a"), &value("new"), expect, Old::Trash(leaving("old"))).unwrap().identity;
    world.hands.remove(&path("a"), new, leaving("new")).unwrap();
    drop(world);
    drop(unmount);
}

/// What lies in the folder and in the trash besides what is known, temporary names among it.
fn left_over(world: &World) -> Vec<String> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.starts_with(".potluck-tmp")).collect()
    };
    [names(&world.share("")), names(&world.share("d")), names(&world.share(".potluck/trash"))].concat()
}

/// Replacing, removing and moving where the trash lies on another file system, and where names cannot be exchanged.
#[test]
fn across_file_systems() {
    for kind in KINDS {
        let Some(world) = World::of(kind, tempfile::tempdir().unwrap()) else { continue };
        std::fs::create_dir(world.share("d")).unwrap();
        let hands = &world.hands;
        let old = world.user_writes("d/a", "old");
        world.stage("new");
        let done = hands.replace(NEW, &path("d/a"), &value("new"), old, Old::Trash(leaving("old"))).unwrap();
        assert_eq!((done.identity, done.kept), (world.identity("d/a"), None), "{kind:?}");
        assert_eq!((done.identity.mtime, world.is_staged()), ((1_600_000_000, 123_456_789), false), "{kind:?}");
        assert_eq!(std::fs::read_to_string(world.share("d/a")).unwrap(), "new", "{kind:?}");
        assert_eq!(hands.trash.find(ContentId::of(b"old")).len(), 1, "{kind:?}");

        world.stage("newer");
        let kept = hands.replace(NEW, &path("d/a"), &value("newer"), done.identity, Old::Keep(&path("d/b"))).unwrap();
        assert_eq!(kept.kept, Some(world.identity("d/b")), "{kind:?}");
        assert_eq!(hands.trash.list().unwrap().len(), 1, "{kind:?}");

        hands.remove(&path("d/b"), kept.kept.unwrap(), leaving("new")).unwrap();
        let [item] = hands.trash.find(ContentId::of(b"new")).try_into().unwrap();
        let back = hands.place(Supply::Trashed(&item), &path("d/c"), &value("new")).unwrap();
        assert_eq!(back, world.identity("d/c"), "{kind:?}");
        let [item] = hands.trash.find(ContentId::of(b"old")).try_into().unwrap();
        let again = Old::Trash(leaving("new"));
        hands.replace(Supply::Trashed(&item), &path("d/c"), &value("old"), back, again).unwrap();
        assert_eq!(std::fs::read_to_string(world.share("d/c")).unwrap(), "old", "{kind:?}");
        let [item] = hands.trash.find(ContentId::of(b"new")).try_into().unwrap();
        assert_eq!(hands.trash.restore(&hands.folder, &item, Some(&path("d/e"))).unwrap().as_str(), "d/e");
        assert_eq!(hands.trash.list().unwrap(), [], "{kind:?}");
        assert_eq!(world.texts(), ["old".into(), "new".into(), "newer".into()].into(), "{kind:?}");
        assert_eq!(left_over(&world), Vec::<String>::new(), "{kind:?}");
        hands.sync().unwrap();
    }
}

/// A file that gets a name on another file system.
#[test]
fn moved_to_another_file_system() {
    let world = World::new();
    std::fs::create_dir(world.share("d")).unwrap();
    let Some(_mounted) = Mounted::at(&world.share("d"), "size=1m") else { return };
    let old = world.user_writes("a", "text");
    world.user_writes("d/taken", "taken");
    let moved = |from: &str, expect, to: &str| world.hands.move_file(&path(from), expect, &path(to));
    assert!(matches!(moved("a", old, "d/taken"), Err(ApplyError::Taken)));
    assert_eq!(world.identity("a"), old);
    let there = moved("a", old, "d/b").unwrap();
    assert_eq!((there, there.mtime), (world.identity("d/b"), old.mtime));
    assert!(!world.share("a").exists());
    let back = moved("d/b", there, "a").unwrap();
    assert_eq!((back, back.mtime), (world.identity("a"), old.mtime));
    assert_eq!(std::fs::read_to_string(world.share("a")).unwrap(), "text");
    assert!(!world.share("d/b").exists());
    assert_eq!(left_over(&world), Vec::<String>::new());
}

/// Killed at each moment at which a user may act: both contents are there afterwards, and the file that stood at the name
/// stands there, or has been replaced.
#[test]
fn f01_killed_between_the_steps() {
    for kind in KINDS {
        for operation in ["replace", "remove"] {
            for n_killed in 1..=6 {
                let what = format!("{operation}, {kind:?}, {n_killed}");
                let Some(world) = World::of(kind, tempfile::tempdir().unwrap()) else { continue };
                std::fs::create_dir(world.share("d")).unwrap();
                let expect = world.user_writes("d/a", "old");
                world.stage("new");
                world.hands.pause.set(move |n| {
                    if n == n_killed {
                        std::panic::resume_unwind(Box::new("killed"));
                    }
                });
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match operation {
                    "replace" => {
                        let old = Old::Trash(leaving("old"));
                        world.hands.replace(NEW, &path("d/a"), &value("new"), expect, old).map(drop)
                    }
                    _ => world.hands.remove(&path("d/a"), expect, leaving("old")),
                }));
                let world = world.killed();
                assert!(world.texts().contains("old"), "{what}: {:?}", world.texts());
                assert_eq!(left_over(&world), Vec::<String>::new(), "{what}");
                match ended {
                    Ok(done) => assert!(done.is_ok(), "{what}: {done:?}"),
                    Err(_killed) => {
                        let there = std::fs::read_to_string(world.share("d/a")).unwrap();
                        assert!(there == "old" || there == "new", "{what}: {there}");
                    }
                }
            }
        }
    }
}
