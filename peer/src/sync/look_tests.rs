use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use crate::share::state::StateDir;
use crate::sync::mounted::Mounted;

struct World {
    temp: tempfile::TempDir,
    folder: ShareFolder,
    state: Arc<StateDir>,
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let folder = ShareFolder::open(temp.path()).unwrap();
        let state = Arc::new(StateDir::open(&folder).unwrap());
        Self { temp, folder, state }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn mounts(&self) -> Mounts {
        Mounts::open(self.state.clone())
    }

    fn look(&self, start: Option<&str>) -> Vec<(String, Look)> {
        let mut looks = Vec::new();
        let start = start.map(|start| start.parse().unwrap());
        look(&self.folder, start.as_ref(), &self.mounts(), &mut |path, look| {
            looks.push((path.to_string(), look));
            true
        })
        .unwrap();
        looks
    }

    fn sorted(&self, start: Option<&str>) -> Vec<(String, Look)> {
        let mut looks = self.look(start);
        looks.sort_by(|a, b| a.0.cmp(&b.0));
        looks
    }

    fn file(&self, name: &str, executable: bool) -> Look {
        Look::File { identity: self.folder.open_file(&name.parse().unwrap()).unwrap().1, executable }
    }
}

const LINK: Look = Look::Obscured(Veil::Link);

/// No link is followed, neither to a folder of ours nor on the way (P15).
#[test]
fn links_are_told_as_such_and_not_followed() {
    let world = World::new();
    let at = |name: &str| world.at(name);
    std::fs::create_dir_all(at("a/b")).unwrap();
    for name in ["top", "a/one", "a/b/two"] {
        std::fs::write(at(name), name).unwrap();
    }
    std::fs::set_permissions(at("top"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a", at("link")).unwrap();
    symlink("top", at("a/link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let want = [
        ("a".to_owned(), Look::Folder),
        ("a/b".to_owned(), Look::Folder),
        ("a/b/two".to_owned(), world.file("a/b/two", false)),
        ("a/link".to_owned(), LINK),
        ("a/one".to_owned(), world.file("a/one", false)),
        ("link".to_owned(), LINK),
        ("socket".to_owned(), Look::Obscured(Veil::Special)),
        ("top".to_owned(), world.file("top", true)),
    ];
    assert_eq!(world.sorted(None), want);
    assert_eq!(world.sorted(Some("a/b")), want[1..3]);
    for nothing in ["x", "x/y", "top/x"] {
        assert_eq!(world.look(Some(nothing)), [(nothing.to_owned(), Look::Nothing)]);
    }
    for behind in ["link/one", "link/b/two", "link", "socket/x"] {
        let look = if behind.starts_with('l') { LINK } else { Look::Obscured(Veil::Special) };
        assert_eq!(world.look(Some(behind)), [(behind.to_owned(), look)]);
    }
}

/// Runs it without the rights of root to read everything. Whoever is not root has none to begin with.
fn as_anybody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let all = capabilities(None).unwrap();
                let without = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
                set_capabilities(None, CapabilitySets { effective: all.effective - without, ..all }).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// One folder that cannot be read says nothing of itself, and the rest is told as ever.
#[test]
fn what_cannot_be_read_hides_nothing_else() {
    let world = World::new();
    for name in ["a/one", "locked/two", "locked/deep/three", "blind/four", "z"] {
        std::fs::create_dir_all(world.at(name).parent().unwrap()).unwrap();
        std::fs::write(world.at(name), name).unwrap();
    }
    let chmod = |name: &str, mode| {
        std::fs::set_permissions(world.at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod("locked", 0);
    // What is in it can be listed, and not looked at.
    chmod("blind", 0o600);
    let (all, inside) = as_anybody(|| (world.sorted(None), world.look(Some("locked/deep/three"))));
    chmod("locked", 0o755);
    chmod("blind", 0o755);
    let unreadable = Look::Obscured(Veil::Unreadable(Errno::ACCESS));
    let want = [
        ("a".to_owned(), Look::Folder),
        ("a/one".to_owned(), world.file("a/one", false)),
        ("blind".to_owned(), unreadable),
        ("locked".to_owned(), unreadable),
        ("z".to_owned(), world.file("z", false)),
    ];
    assert_eq!(all, want);
    assert_eq!(inside, [("locked/deep/three".to_owned(), unreadable)]);
}

/// F12 inside the share folder: a disk that is not there any more, with and without the folder that it was mounted on.
#[test]
fn f12_a_disk_that_is_unplugged() {
    let world = World::new();
    std::fs::create_dir_all(world.at("a/disk")).unwrap();
    let Some(mounted) = Mounted::at(&world.at("a/disk"), "size=16m") else { return };
    std::fs::create_dir(world.at("a/disk/d")).unwrap();
    std::fs::write(world.at("a/disk/d/x"), "x").unwrap();
    // Met by a look at anything below.
    assert_eq!(world.look(Some("a/disk/d/x"))[0].1, world.file("a/disk/d/x", false));
    assert_eq!(world.look(None).len(), 4);
    drop(mounted);
    let unmounted = ("a/disk".to_owned(), Look::Obscured(Veil::Unmounted));
    let a = ("a".to_owned(), Look::Folder);
    assert_eq!(world.look(None), [a.clone(), unmounted.clone()]);
    assert_eq!(world.look(Some("a/disk")), std::slice::from_ref(&unmounted));
    assert_eq!(world.look(Some("a/disk/d/x")), [("a/disk/d/x".to_owned(), Look::Obscured(Veil::Unmounted))]);
    std::fs::remove_dir(world.at("a/disk")).unwrap();
    assert_eq!(world.look(None), [a, unmounted.clone()]);
    assert_eq!(world.look(Some("a/disk/d")), [("a/disk/d".to_owned(), Look::Obscured(Veil::Unmounted))]);
    std::fs::remove_dir(world.at("a")).unwrap();
    assert_eq!(world.look(None), std::slice::from_ref(&unmounted));
    // The folder above is gone, and what is said of the disk comes after that.
    assert_eq!(world.look(Some("a")), [("a".to_owned(), Look::Nothing), unmounted]);
    world.mounts().forget(&"a/disk".parse().unwrap());
    assert_eq!(world.look(Some("a/disk/d")), [("a/disk/d".to_owned(), Look::Nothing)]);
    assert_eq!(world.look(None), []);
}
