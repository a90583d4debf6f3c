//! The trash: what sync took out of the share folder, kept in `.potluck/trash/` for a while.
//!
//! An item is the file itself under a name of its own (the time and a random number) and beside it a small record of
//! where it stood, what it was and why it is here. The record is written before the file comes, so at worst a crash
//! leaves a record without a file, which is swept away, or, if the disk lost the record, a file without one, which is
//! listed as unknown. An item is believed to be what its record says only while inode, length and mtime agree: a
//! program that had the file open may have gone on writing.
//!
//! Invariant: sync takes no byte of a user's out of the share folder that is not here afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, MetadataExt, OpenOptions, OpenOptionsExt};
use potluck_common::{ContentId, PeerId, SharePath};
use serde::{Deserialize, Serialize};

use super::copying::{TEMPORARY, copy_file, temporary_name};
use crate::share::folder::{FileIdentity, ShareFolder, rename_noreplace, sync_dir};

const TRASH_DIR: &str = "trash";
/// No record is longer than this: the longest path, escaped, and some numbers.
const MAX_RECORD_LEN: u64 = 64 << 10;
/// Records that wait to be synced one by one; more of them are synced with everything else on the file system.
const MAX_SINGLE_SYNCS: usize = 64;
/// The quota takes nothing younger than this, in milliseconds: whatever went wrong, there is a day to notice it.
const MIN_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// The first of January 2020: a clock that said less had not been set yet, as on a board without a battery, and how old an
/// item of that time is nobody knows.
const CLOCK_SET_MS: u64 = 1_577_836_800_000;

/// Why something is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was deleted elsewhere.
    Deleted,
    /// A newer version took its name.
    Overwritten,
    /// Somebody put it there while we worked at that name, and something newer stands there now.
    SetAside,
}

/// What is recorded of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it stood.
    pub path: SharePath,
    /// What its bytes were, if that was known.
    pub content_id: Option<ContentId>,
    /// Why it is here.
    pub why: Why,
    /// Who deleted or overwrote it.
    pub by: Option<PeerId>,
    /// When it came, by our wall clock, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Its length in bytes.
    pub len: u64,
    inode: (u64, u64),
    mtime: (i64, i64),
    /// Whether a crash may have left it beside its name, and not here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) beside: bool,
}

impl Record {
    /// Of a file at `path` in the state `identity`.
    pub fn new(path: SharePath, identity: FileIdentity, why: Why, since_ms: u64) -> Self {
        let FileIdentity { inode, len, mtime, .. } = identity;
        Self { path, content_id: None, why, by: None, since_ms, len, inode, mtime, beside: false }
    }

    /// It is in this state now.
    pub(super) fn is_now(&mut self, identity: FileIdentity) {
        (self.inode, self.len, self.mtime) = (identity.inode, identity.len, identity.mtime);
    }

    pub(super) fn is_of(&self, identity: &FileIdentity) -> bool {
        (self.inode, self.len, self.mtime) == (identity.inode, identity.len, identity.mtime)
    }
}

/// One thing in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is called here.
    pub name: String,
    /// When it came, if that is known.
    pub since_ms: Option<u64>,
    /// Its length in bytes; of a folder, 0.
    pub len: u64,
    /// What is recorded of it.
    pub record: Option<Record>,
    /// Whether it is still what the record says.
    pub is_intact: bool,
}

/// What was given up for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Items.
    pub n_items: u64,
    /// Their lengths in all.
    pub n_bytes: u64,
}

/// Why an item does not come back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no such item.
    #[error("nothing of that name is in the trash")]
    Missing,
    /// Its record is lost, so a path has to be given.
    #[error("it is not known where it stood")]
    NoPath,
    /// Something stands there.
    #[error("something of that name is already there")]
    Taken,
    /// The disk, or what stands in the way.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The trash of one share folder.
#[derive(Debug)]
pub struct Trash {
    dir: Dir,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<String, Record>,
    /// Records that are not durable yet.
    unsynced: BTreeSet<String>,
    /// Records of an earlier run whose files may lie beside their names.
    leftovers: Vec<(String, Record)>,
}

impl Trash {
    /// Opens it in the state folder, made if missing, and reads the records.
    ///
    /// # Errors
    /// If the folder cannot be made or listed.
    pub fn open(state: &Dir) -> io::Result<Self> {
        let mut private = DirBuilder::new();
        private.mode(0o700).recursive(true);
        state.create_dir_with(TRASH_DIR, &private)?;
        let dir = state.open_dir(TRASH_DIR)?;
        let (mut records, mut leftovers) = (BTreeMap::new(), Vec::new());
        for entry in dir.entries()? {
            let file_name = entry?.file_name();
            if file_name.to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
                dir.remove_file(&file_name)?;
                continue;
            }
            let Some(name) = file_name.to_str().and_then(|name| name.strip_suffix(RECORD_SUFFIX)) else { continue };
            let (record, is_here) = (read_record(&dir, name), dir.symlink_metadata(name).is_ok());
            if let Some(record) = record.as_ref().filter(|record| record.beside) {
                leftovers.push((name.to_owned(), record.clone()));
            } else if !is_here {
                dir.remove_file(&file_name)?;
                continue;
            }
            if let Some(record) = record {
                records.insert(name.to_owned(), record);
            }
        }
        Ok(Self { dir, inner: Mutex::new(Inner { records, unsynced: BTreeSet::new(), leftovers }) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle, for moving things in and out.
    pub(super) const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Writes the record of something that is about to come, and gives the name it is to have here.
    pub(super) fn expect(&self, record: Record) -> io::Result<String> {
        let name = format!("{:012x}-{:08x}", record.since_ms, fastrand::u32(..));
        self.write_record(&name, &record, OpenOptions::new().write(true).create_new(true))?;
        self.lock().records.insert(name.clone(), record);
        Ok(name)
    }

    /// What is recorded of an item.
    pub(super) fn record(&self, name: &str) -> Option<Record> {
        self.lock().records.get(name).cloned()
    }

    /// What an earlier run may have left beside its name; told once.
    pub(super) fn take_leftovers(&self) -> Vec<(String, Record)> {
        std::mem::take(&mut self.lock().leftovers)
    }

    /// Something else came than was expected.
    pub(super) fn amend(&self, name: &str, record: Record) -> io::Result<()> {
        self.lock().records.insert(name.to_owned(), record.clone());
        self.write_record(name, &record, OpenOptions::new().write(true).create(true).truncate(true))
    }

    fn write_record(&self, name: &str, record: &Record, options: &mut OpenOptions) -> io::Result<()> {
        let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
        let file_name = record_name(name);
        let written = self.dir.open_with(&file_name, options.mode(0o600)).and_then(|mut file| file.write_all(&bytes));
        if let Err(error) = written {
            let _useless = self.dir.remove_file(&file_name);
            return Err(error);
        }
        self.lock().unsynced.insert(name.to_owned());
        Ok(())
    }

    /// Nothing came, or it has left.
    pub(super) fn forget(&self, name: &str) {
        {
            let mut inner = self.lock();
            inner.records.remove(name);
            inner.unsynced.remove(name);
        }
        if let Err(error) = self.dir.remove_file(record_name(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            // It is swept away at the next start.
            tracing::debug!(name, %error, "a record in the trash stays");
        }
    }

    /// Whether there is nothing to make durable.
    pub(super) fn is_synced(&self) -> bool {
        self.lock().unsynced.is_empty()
    }

    /// Makes everything that came durable.
    ///
    /// # Errors
    /// As `fsync`; a failed sync is to be repeated and proves nothing.
    pub fn sync(&self) -> io::Result<()> {
        let names = self.lock().unsynced.clone();
        if names.is_empty() {
            return Ok(());
        }
        if names.len() > MAX_SINGLE_SYNCS {
            rustix::fs::syncfs(self.dir.open(".")?)?;
        } else {
            for name in &names {
                match self.dir.open(record_name(name)) {
                    Ok(record) => record.sync_all()?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            sync_dir(&self.dir)?;
        }
        self.lock().unsynced.retain(|name| !names.contains(name));
        Ok(())
    }

    /// Everything in it, oldest first.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn list(&self) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        for entry in self.dir.entries()? {
            if let Some(name) = entry?.file_name().to_str()
                && !name.ends_with(RECORD_SUFFIX)
                && !name.starts_with(TEMPORARY)
                && let Some(item) = self.item(name)
            {
                items.push(item);
            }
        }
        items.sort_by(|a, b| (a.since_ms, &a.name).cmp(&(b.since_ms, &b.name)));
        Ok(items)
    }

    fn item(&self, name: &str) -> Option<Item> {
        let metadata = self.dir.symlink_metadata(name).ok()?;
        let identity = FileIdentity::at(&self.dir, name).ok();
        let record = self.lock().records.get(name).cloned();
        let is_intact = record.as_ref().zip(identity).is_some_and(|(record, identity)| record.is_of(&identity));
        let since_ms = record.as_ref().map(|record| record.since_ms).or_else(|| time_in(name));
        let len = if metadata.is_file() { metadata.size() } else { 0 };
        Some(Item { name: name.to_owned(), since_ms, len, record, is_intact })
    }

    /// How many items have a record.
    pub fn n_records(&self) -> usize {
        self.lock().records.len()
    }

    /// The items that hold a content and are still what their records say.
    pub fn find(&self, content_id: ContentId) -> Vec<String> {
        let inner = self.lock();
        let found = inner.records.iter().filter(|(_, record)| record.content_id == Some(content_id));
        found
            .filter(|(name, record)| FileIdentity::at(&self.dir, name).is_ok_and(|identity| record.is_of(&identity)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What an item holds, if it is still what its record says.
    pub(super) fn content_of(&self, name: &str) -> Option<(ContentId, FileIdentity)> {
        let record = self.lock().records.get(name).cloned()?;
        let identity = FileIdentity::at(&self.dir, name).ok()?;
        record.content_id.filter(|_| record.is_of(&identity)).map(|content_id| (content_id, identity))
    }

    /// Puts an item back where it stood, or at `to`; never over anything. Where it is now.
    ///
    /// # Errors
    /// See [`RestoreError`]; the item stays then.
    pub fn restore(&self, folder: &ShareFolder, name: &str, to: Option<&SharePath>) -> Result<SharePath, RestoreError> {
        // The name comes from a person: it must be that of an item, not a way to somewhere else.
        let is_name = !name.contains('/') && !name.starts_with('.') && !name.ends_with(RECORD_SUFFIX);
        let item = is_name.then(|| self.item(name)).flatten().ok_or(RestoreError::Missing)?;
        let path = to.cloned().or(item.record.map(|record| record.path)).ok_or(RestoreError::NoPath)?;
        let mut made = Ok(());
        let dir = folder.make_parent_without_links(&path, &mut |above| {
            if let Err(error) = sync_dir(above) {
                made = Err(error);
            }
        })?;
        made?;
        match rename_noreplace(&self.dir, name, &dir, path.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(RestoreError::Taken),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let temporary = temporary_name();
                copy_file(&self.dir, name, &dir, &temporary)?;
                if let Err(error) = rename_noreplace(&dir, &temporary, &dir, path.file_name()) {
                    let _also_gone = dir.remove_file(&temporary);
                    let is_taken = error.kind() == io::ErrorKind::AlreadyExists;
                    return Err(if is_taken { RestoreError::Taken } else { error.into() });
                }
                sync_dir(&dir)?;
                self.dir.remove_file(name)?;
            }
            moved => moved?,
        }
        sync_dir(&dir)?;
        self.forget(name);
        Ok(path)
    }

    /// The size of the file system that it lies on, in bytes.
    ///
    /// # Errors
    /// As `fstatvfs`.
    pub fn disk_size(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.dir)?;
        Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
    }

    /// Gives up for good what is older than `keep_ms` and, oldest first, what is over `max_bytes` and at least a day old.
    ///
    /// # Errors
    /// If it cannot be listed, or an item does not go; the others go all the same.
    pub fn prune(&self, now_ms: u64, keep_ms: u64, max_bytes: u64) -> io::Result<Pruned> {
        let items = self.list()?;
        let mut n_left: u64 = items.iter().map(|item| item.len).sum();
        let (mut pruned, mut stuck) = (Pruned::default(), Ok(()));
        for item in items {
            // What we did not put here is not ours to remove.
            let Some(since_ms) = item.since_ms else { continue };
            let age = now_ms.saturating_sub(since_ms);
            let is_old = age > keep_ms && since_ms >= CLOCK_SET_MS;
            if !is_old && (n_left <= max_bytes || age < MIN_KEPT_MS) {
                continue;
            }
            let removed = self.dir.symlink_metadata(&item.name).and_then(|metadata| {
                if metadata.is_dir() { self.dir.remove_dir_all(&item.name) } else { self.dir.remove_file(&item.name) }
            });
            match removed {
                // It has been brought back meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    stuck = Err(error);
                    continue;
                }
                Ok(()) => self.forget(&item.name),
            }
            n_left -= item.len;
            pruned.n_items += 1;
            pruned.n_bytes += item.len;
        }
        if pruned.n_items > 0 {
            tracing::info!(n = pruned.n_items, bytes = pruned.n_bytes, "given up from the trash for good");
        }
        stuck.map(|()| pruned)
    }
}

const RECORD_SUFFIX: &str = ".json";

fn record_name(name: &str) -> String {
    format!("{name}{RECORD_SUFFIX}")
}

/// When an item came, from a name of our making.
fn time_in(name: &str) -> Option<u64> {
    let (time, random) = name.split_once('-')?;
    let is_ours = time.len() == 12 && random.len() == 8 && u32::from_str_radix(random, 16).is_ok();
    is_ours.then(|| u64::from_str_radix(time, 16).ok()).flatten()
}

fn read_record(dir: &Dir, name: &str) -> Option<Record> {
    let mut bytes = Vec::new();
    dir.open(record_name(name)).ok()?.take(MAX_RECORD_LEN).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::state::StateDir;

    struct World {
        temp: tempfile::TempDir,
        folder: ShareFolder,
        state: StateDir,
    }

    impl World {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let folder = ShareFolder::open(temp.path()).unwrap();
            let state = StateDir::open(&folder).unwrap();
            Self { temp, folder, state }
        }

        fn trash(&self) -> Trash {
            Trash::open(self.state.dir()).unwrap()
        }

        fn trashed(&self, trash: &Trash, path: &str, text: &str, since_ms: u64) -> String {
            let path: SharePath = path.parse().unwrap();
            let dir = self.folder.make_parent(&path).unwrap();
            dir.write(path.file_name(), text).unwrap();
            let identity = FileIdentity::at(&dir, path.file_name()).unwrap();
            let mut record = Record::new(path.clone(), identity, Why::Deleted, since_ms);
            record.content_id = Some(ContentId::of(text.as_bytes()));
            let name = trash.expect(record).unwrap();
            rename_noreplace(&dir, path.file_name(), trash.dir(), &name).unwrap();
            trash.sync().unwrap();
            name
        }

        fn text(&self, path: &str) -> String {
            std::fs::read_to_string(self.temp.path().join(path)).unwrap()
        }
    }

    /// Also names of 255 bytes and the longest path: what an item is called here does not depend on them.
    #[test]
    fn there_and_back_again() {
        let world = World::new();
        let long = format!("{}/{}", "d".repeat(255), "é".repeat(127));
        let deep = vec!["x".repeat(200); 15].join("/");
        for path in ["a", "b/c d", &long, &deep, "-n", "<img onerror=x>.json"] {
            let trash = world.trash();
            let name = world.trashed(&trash, path, path, 1_000);
            drop(trash);
            let trash = world.trash();
            let items = trash.list().unwrap();
            let [item] = items.as_slice() else { panic!("{items:?}") };
            assert!(item.is_intact && item.name == name && item.since_ms == Some(1_000), "{item:?}");
            assert_eq!(trash.find(ContentId::of(path.as_bytes())), vec![name.clone()]);
            let restored = trash.restore(&world.folder, &name, None).unwrap();
            assert_eq!((restored.as_str(), world.text(path).as_str()), (path, path));
            assert_eq!(trash.list().unwrap(), []);
            assert_eq!(trash.dir().entries().unwrap().count(), 0);
        }
    }

    #[test]
    fn back_never_over_anything_and_never_from_elsewhere() {
        let world = World::new();
        let trash = world.trash();
        let name = world.trashed(&trash, "d/a", "old", 1_000);
        let restore = |name: &str, to: Option<&str>| {
            trash.restore(&world.folder, name, to.map(|to| to.parse().unwrap()).as_ref())
        };
        std::fs::write(world.temp.path().join("d/a"), "newer").unwrap();
        assert!(matches!(restore(&name, None), Err(RestoreError::Taken)));
        std::fs::write(world.temp.path().join(".potluck/secret"), "s").unwrap();
        for bad in ["", ".", "..", "../secret", "nothing", &record_name(&name), "/etc/passwd"] {
            assert!(matches!(restore(bad, Some("x")), Err(RestoreError::Missing)), "{bad}");
        }
        std::os::unix::fs::symlink("/tmp", world.temp.path().join("out")).unwrap();
        assert!(matches!(restore(&name, Some("out/x")), Err(RestoreError::Io(_))));
        assert_eq!(restore(&name, Some("d/b")).unwrap().as_str(), "d/b");
        assert_eq!((world.text("d/a").as_str(), world.text("d/b").as_str()), ("newer", "old"));
    }

    /// After a power cut: a record without its file, a file without its record, half a record.
    #[test]
    fn what_a_crash_leaves() {
        let world = World::new();
        let trash = world.trash();
        let names = ["a", "b", "c"].map(|path| world.trashed(&trash, path, path, 5_000));
        drop(trash);
        let at = |name: &str| world.temp.path().join(".potluck/trash").join(name);
        std::fs::remove_file(at(&names[0])).unwrap();
        std::fs::remove_file(at(&record_name(&names[1]))).unwrap();
        let record = std::fs::read(at(&record_name(&names[2]))).unwrap();
        std::fs::write(at(&record_name(&names[2])), &record[..record.len() / 2]).unwrap();
        let trash = world.trash();
        assert!(!at(&record_name(&names[0])).exists());
        assert_eq!(trash.n_records(), 0, "neither the one whose file is gone nor the half one counts");
        let items = trash.list().unwrap();
        assert_eq!(items.len(), 2);
        for item in &items {
            assert!(item.record.is_none() && !item.is_intact && item.since_ms == Some(5_000), "{item:?}");
            assert!(matches!(trash.restore(&world.folder, &item.name, None), Err(RestoreError::NoPath)));
        }
        trash.restore(&world.folder, &names[1], Some(&"back".parse().unwrap())).unwrap();
        assert_eq!(world.text("back"), "b");
        trash.restore(&world.folder, &names[2], Some(&"back2".parse().unwrap())).unwrap();
        assert_eq!(trash.dir().entries().unwrap().count(), 0);
    }

    #[test]
    fn given_up_when_old_or_too_much_and_never_within_a_day() {
        const DAY: u64 = MIN_KEPT_MS;
        let check = |now_days: u64, max_bytes: u64, want_left: &[&str]| {
            let world = World::new();
            let trash = world.trash();
            for (path, text, day) in [("a", "1", 0), ("b", "22", 10), ("c", "333", 20), ("d", "4444", 39)] {
                world.trashed(&trash, path, text, CLOCK_SET_MS + day * DAY + 1);
            }
            std::fs::write(world.temp.path().join(".potluck/trash/not-ours"), "stays").unwrap();
            let pruned = trash.prune(CLOCK_SET_MS + now_days * DAY, 30 * DAY, max_bytes).unwrap();
            let left: Vec<_> = trash.list().unwrap().into_iter().filter_map(|item| item.record).collect();
            let left: Vec<_> = left.iter().map(|record| record.path.as_str()).collect();
            assert_eq!(left, want_left, "day {now_days}, {max_bytes} bytes");
            assert_eq!(pruned.n_items as usize, 4 - left.len());
            assert_eq!(trash.dir().entries().unwrap().count(), 2 * left.len() + 1);
        };
        check(20, 100, &["a", "b", "c", "d"]);
        check(31, 100, &["b", "c", "d"]);
        check(40, 100, &["b", "c", "d"]);
        check(40, 13, &["c", "d"]);
        check(40, 0, &["d"]);
        check(1_000, 100, &[]);
        check(0, 0, &["a", "b", "c", "d"]);
    }

    /// F40: what came before the clock was set, or after a time that it has not reached yet, has no age.
    #[test]
    fn f40_a_clock_that_jumps() {
        let world = World::new();
        let trash = world.trash();
        world.trashed(&trash, "unset", "1", 60_000);
        world.trashed(&trash, "ahead", "22", CLOCK_SET_MS + 400 * MIN_KEPT_MS);
        world.trashed(&trash, "old", "333", CLOCK_SET_MS + MIN_KEPT_MS);
        let pruned = trash.prune(CLOCK_SET_MS + 100 * MIN_KEPT_MS, 30 * MIN_KEPT_MS, 100).unwrap();
        assert_eq!(pruned, Pruned { n_items: 1, n_bytes: 3 });
        let left: Vec<_> = trash.list().unwrap().into_iter().filter_map(|item| item.record).collect();
        assert_eq!(left.iter().map(|record| record.path.as_str()).collect::<Vec<_>>(), ["unset", "ahead"]);
        // The quota takes it all the same.
        assert_eq!(trash.prune(CLOCK_SET_MS, 0, 2).unwrap().n_items, 1);
    }
}
