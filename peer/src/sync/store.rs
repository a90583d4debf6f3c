//! The memory of folder sync on disk: the index and the disk table (`.potluck/sync.redb`).
//!
//! A batch is one transaction. When the store is opened, redb checks the whole file, and besides a sum over all rows is
//! compared that is kept in the same transaction: a flipped bit anywhere, or a row too many or too few, makes the store
//! *lost* and never a wrong register. A lost store is set aside, and the peer begins with an empty one: then
//! the next scan is a merge, which deletes nothing. So does one that was made for another folder (a copied or restored one).
//!
//! Invariants: what [`Store::save`] reported is there after a kill or a power cut, all of a batch or nothing; after a
//! failed commit nothing is believed until the file was opened again.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use potluck_common::SharePath;
use potluck_common::protocol::IndexEntry;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::encoding::{decode_register, decode_row, encode_register, encode_row};
use super::machine::{Stored, Unsaved};

/// Name of the file in the state folder.
pub const FILE_NAME: &str = "sync.redb";
/// Where a lost one is put, over an earlier one.
pub const LOST_NAME: &str = "sync.redb.lost";
/// What the tables mean; a peer refuses a higher one, since it would forget what a later version knows.
const FORMAT: u64 = 1;
/// Memory for the store's pages.
const PAGE_CACHE_LEN: usize = 8 << 20;

/// `format`, `root`, a `check` over these two, and the two halves of the sum over the rows below.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const REGISTERS: Rows = TableDefinition::new("registers");
const DISK: Rows = TableDefinition::new("disk");
type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

/// What came of opening the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// It goes on where it was.
    Continued,
    /// There was none.
    New,
    /// There was one, and it is of no use. A new identity is to be taken, as after a copied one.
    Lost {
        /// Why, for people.
        why: String,
    },
}

/// Why the store cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later version made it.
    #[error(
        "the state of folder sync was made by a later version of potluck (its format is {0}, this one reads {FORMAT}). Upgrade, or remove .potluck/{FILE_NAME}: then the next scan merges, and deletes made meanwhile are forgotten"
    )]
    TooNew(u64),
    /// The disk.
    #[error("cannot open the state of folder sync: {0}")]
    Disk(#[from] io::Error),
}

/// A batch was not kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the state of folder sync: {0}")]
pub struct SaveError(#[source] Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for SaveError {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

/// See the module's text. All of it blocks.
#[derive(Debug)]
pub struct Store {
    state: Dir,
    /// `None` after a failure: it is opened again for the next batch.
    database: Mutex<Option<Database>>,
}

/// Why what is there cannot be gone on with.
enum Unusable {
    TooNew(u64),
    Lost(String),
    Disk(io::Error),
}

impl<E: Into<redb::Error>> From<E> for Unusable {
    fn from(error: E) -> Self {
        let says_damaged = |kind| matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        match error.into() {
            // Out of space, no permission, a failing disk: what is there may be whole.
            redb::Error::Io(error) if !says_damaged(error.kind()) => Self::Disk(error),
            error @ redb::Error::DatabaseAlreadyOpen => Self::Disk(io::Error::other(error)),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl Store {
    /// Opens or makes the store of the folder whose root has the inode number `root`, and reads all of it.
    ///
    /// # Errors
    /// See [`OpenError`]; a damaged store is no error but [`History::Lost`].
    pub fn open(state: &Dir, root: u64) -> Result<(Self, Stored, History), OpenError> {
        let state = state.try_clone()?;
        let is_new = !state.try_exists(FILE_NAME)?;
        // redb may panic over a file that is not what it should be.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut database = open_database(&state)?;
            if is_new {
                return Ok((make(&database, root)?, database));
            }
            // Pages that hold no row of ours may be damaged too, and a later write would fall over them. What redb would mend
            // it mends by an earlier state.
            if !database.check_integrity()? {
                return Err(Unusable::Lost("it is damaged".into()));
            }
            Ok((load(&database, root)?, database))
        }));
        let why = match opened {
            Ok(Ok((kept, database))) => {
                let history = if is_new { History::New } else { History::Continued };
                return Ok((Self { state, database: Mutex::new(Some(database)) }, kept, history));
            }
            Ok(Err(Unusable::TooNew(format))) => return Err(OpenError::TooNew(format)),
            Ok(Err(Unusable::Disk(error))) => return Err(error.into()),
            Ok(Err(Unusable::Lost(why))) => why,
            Err(_) => "it is damaged".into(),
        };
        tracing::warn!(%why, "the state of folder sync is lost and kept as {LOST_NAME}; the next scan merges and deletes nothing");
        state.rename(FILE_NAME, &state, LOST_NAME)?;
        let opened = open_database(&state).and_then(|database| make(&database, root).map(|_| database));
        match opened {
            Ok(database) => {
                Ok((Self { state, database: Mutex::new(Some(database)) }, Stored::default(), History::Lost { why }))
            }
            Err(Unusable::Disk(error)) => Err(error.into()),
            Err(Unusable::TooNew(_)) => Err(io::Error::other("a new store has a format").into()),
            Err(Unusable::Lost(why)) => Err(io::Error::other(why).into()),
        }
    }

    /// Keeps a batch durably.
    ///
    /// # Errors
    /// See [`SaveError`]; nothing of the batch is kept then.
    pub fn save(&self, unsaved: &Unsaved) -> Result<(), SaveError> {
        let mut open = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match open.take() {
            Some(database) => database,
            None => open_database(&self.state).map_err(|unusable| match unusable {
                Unusable::Disk(error) => SaveError::from(redb::Error::Io(error)),
                Unusable::Lost(why) => redb::Error::Corrupted(why).into(),
                Unusable::TooNew(_) => redb::Error::Corrupted("of a later version".into()).into(),
            })?,
        };
        // Only after a success is it kept open: what failed once is opened anew.
        let written = catch_unwind(AssertUnwindSafe(|| write(&database, unsaved).map(|()| database)));
        match written {
            Ok(written) => *open = Some(written?),
            Err(_) => return Err(redb::Error::Corrupted("writing panicked".into()).into()),
        }
        Ok(())
    }
}

fn open_database(state: &Dir) -> Result<Database, Unusable> {
    let options = OpenOptions::new().read(true).write(true).create(true).mode(0o600).clone();
    let file = state.open_with(FILE_NAME, &options).map_err(Unusable::Disk)?.into_std();
    Ok(redb::Builder::new().set_cache_size(PAGE_CACHE_LEN).create_file(file)?)
}

fn make(database: &Database, root: u64) -> Result<Stored, Unusable> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("root", root)?;
        meta.insert("check", check(FORMAT, root))?;
        Sum::default().store(&mut meta)?;
        for table in [REGISTERS, DISK] {
            write.open_table(table)?;
        }
    }
    write.commit()?;
    Ok(Stored::default())
}

fn load(database: &Database, root: u64) -> Result<Stored, Unusable> {
    let lost = |why: &str| Unusable::Lost(why.into());
    let read = database.begin_read()?;
    let meta = read.open_table(META)?;
    let number = |key: &str| -> Result<Option<u64>, Unusable> { Ok(meta.get(key)?.map(|value| value.value())) };
    let (Some(format), Some(stored_root)) = (number("format")?, number("root")?) else {
        return Err(lost("it has no format"));
    };
    if number("check")? != Some(check(format, stored_root)) {
        return Err(lost("it is damaged"));
    }
    // Later versions keep these three as they are.
    if format > FORMAT {
        return Err(Unusable::TooNew(format));
    }
    if stored_root != root {
        return Err(lost("it was made for another folder: this one is a copy, or was restored"));
    }
    let (Some(low), Some(high)) = (number("sum_low")?, number("sum_high")?) else {
        return Err(lost("it has no sum"));
    };
    let mut sum = Sum::default();
    let (mut kept, mut is_whole) = (Stored::default(), true);
    for_each(&read.open_table(REGISTERS)?, &mut sum, Which::Registers, |path, bytes| {
        match (path.parse(), decode_register(bytes)) {
            (Ok(path), Some(register)) => kept.entries.push(IndexEntry { path, register }),
            _ => is_whole = false,
        }
    })?;
    for_each(&read.open_table(DISK)?, &mut sum, Which::Disk, |path, bytes| {
        match (path.parse::<SharePath>(), decode_row(bytes)) {
            (Ok(path), Some(row)) => kept.rows.push((path, row)),
            _ => is_whole = false,
        }
    })?;
    if !is_whole || sum.halves() != (low, high) {
        return Err(lost("it is damaged"));
    }
    Ok(kept)
}

fn for_each(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    sum: &mut Sum,
    which: Which,
    mut row: impl FnMut(&str, &[u8]),
) -> Result<(), Unusable> {
    for entry in table.iter()? {
        let (key, value) = entry?;
        sum.add(which, key.value(), value.value());
        row(key.value(), value.value());
    }
    Ok(())
}

fn write(database: &Database, unsaved: &Unsaved) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        let mut sum = Sum::load(&meta)?;
        let mut table = write.open_table(REGISTERS)?;
        for entry in &unsaved.entries {
            let value = encode_register(&entry.register);
            put(&mut table, &mut sum, Which::Registers, entry.path.as_str(), Some(&value))?;
        }
        let mut table = write.open_table(DISK)?;
        for (path, row) in &unsaved.rows {
            put(&mut table, &mut sum, Which::Disk, path.as_str(), row.as_ref().map(encode_row).as_deref())?;
        }
        sum.store(&mut meta)?;
    }
    Ok(write.commit()?)
}

fn put(
    table: &mut Table<'_, &'static str, &'static [u8]>,
    sum: &mut Sum,
    which: Which,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), redb::Error> {
    let before = match value {
        Some(value) => {
            sum.add(which, key, value);
            table.insert(key, value)?
        }
        None => table.remove(key)?,
    };
    if let Some(before) = before {
        sum.take(which, key, before.value());
    }
    Ok(())
}

/// Which table a row is of, in the sum.
#[derive(Debug, Clone, Copy)]
enum Which {
    Registers = 0,
    Disk = 1,
}

/// A sum over rows in any order: of 128 bits of the hash of each. It is there against accidents, not against attackers, who
/// could write the file as they like.
#[derive(Debug, Clone, Copy, Default)]
struct Sum(u128);

impl Sum {
    fn add(&mut self, which: Which, key: &str, value: &[u8]) {
        self.0 = self.0.wrapping_add(term(which, key, value));
    }

    fn take(&mut self, which: Which, key: &str, value: &[u8]) {
        self.0 = self.0.wrapping_sub(term(which, key, value));
    }

    fn halves(self) -> (u64, u64) {
        let [low, high] = [self.0, self.0 >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)));
        (low.expect("64 bits"), high.expect("64 bits"))
    }

    fn load(meta: &impl ReadableTable<&'static str, u64>) -> Result<Self, redb::Error> {
        let half = |key| Ok::<_, redb::Error>(meta.get(key)?.map_or(0, |half| u128::from(half.value())));
        Ok(Self(half("sum_low")? | half("sum_high")? << 64))
    }

    fn store(self, meta: &mut Table<'_, &'static str, u64>) -> Result<(), redb::Error> {
        let (low, high) = self.halves();
        meta.insert("sum_low", low)?;
        meta.insert("sum_high", high)?;
        Ok(())
    }
}

fn term(which: Which, key: &str, value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[which as u8]).update(&(key.len() as u64).to_le_bytes()).update(key.as_bytes()).update(value);
    let hash = hasher.finalize();
    let (term, _) = hash.as_bytes().split_first_chunk().expect("32 bytes");
    u128::from_le_bytes(*term)
}

fn check(format: u64, root: u64) -> u64 {
    let hash = blake3::hash(&[format.to_le_bytes(), root.to_le_bytes()].concat());
    let (check, _) = hash.as_bytes().split_first_chunk().expect("32 bytes");
    u64::from_le_bytes(*check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::folder::FileIdentity;
    use crate::sync::disk_table::{KeptAt, OnDisk, Row};
    use potluck_common::register::{Dot, FileValue, Value};
    use potluck_common::{ContentId, PeerId, Register};
    use std::collections::BTreeMap;

    struct World(tempfile::TempDir);

    type Open = Result<(Store, Stored, History), OpenError>;

    impl World {
        fn new() -> Self {
            // In memory where it can be: thousands of syncs.
            let memory = tempfile::tempdir_in("/dev/shm");
            Self(memory.or_else(|_| tempfile::tempdir()).unwrap())
        }

        fn open_as(&self, root: u64) -> Open {
            let dir = Dir::open_ambient_dir(self.0.path(), cap_std::ambient_authority()).unwrap();
            Store::open(&dir, root)
        }

        fn open(&self) -> (Store, Stored, History) {
            self.open_as(7).unwrap()
        }

        fn bytes(&self) -> Vec<u8> {
            std::fs::read(self.0.path().join(FILE_NAME)).unwrap()
        }

        fn put(&self, bytes: &[u8]) {
            std::fs::write(self.0.path().join(FILE_NAME), bytes).unwrap();
        }
    }

    fn path(n: u64) -> SharePath {
        format!("d{}/f{n}", n % 3).parse().unwrap()
    }

    fn entry(n: u64, counter: u64) -> IndexEntry {
        let content_id = ContentId::of(&counter.to_le_bytes());
        let value = FileValue { mtime_ns: 5, content_id, len: counter, executable: n.is_multiple_of(2) };
        let mut register = Register::default();
        register.write(Dot { by: PeerId::from_bytes([3; 16]), n: counter }, &[], Value::File(value));
        IndexEntry { path: path(n), register }
    }

    fn row(n: u64) -> KeptAt {
        let content_id = ContentId::of(&n.to_le_bytes());
        let value = FileValue { mtime_ns: 5, content_id, len: n, executable: false };
        let identity = FileIdentity { inode: (1, n), len: n, mtime: (0, 5), ctime: (9, 9) };
        let copy_of = (n.is_multiple_of(4)).then(|| path(n + 1));
        let on_disk = if n.is_multiple_of(5) { OnDisk::Folder } else { OnDisk::File { value, identity } };
        Row { on_disk, copy_of, dots: [Dot { by: PeerId::from_bytes([3; 16]), n: 1 }].into() }.into()
    }

    type Plain = (BTreeMap<SharePath, Register>, BTreeMap<SharePath, KeptAt>);

    fn plain(kept: &Stored) -> Plain {
        let entries = kept.entries.iter().map(|entry| (entry.path.clone(), entry.register.clone()));
        (entries.collect(), kept.rows.iter().cloned().collect())
    }

    /// Random batches, against maps.
    #[test]
    fn what_is_saved_is_there_again() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let world = World::new();
            let mut model = Plain::default();
            for round in 0..10 {
                let (store, kept, history) = world.open();
                assert_eq!(history, if round == 0 { History::New } else { History::Continued });
                assert_eq!(plain(&kept), model, "seed {seed}");
                for _ in 0..rng.u8(..4) {
                    let mut unsaved = Unsaved::default();
                    for _ in 0..rng.u8(..6) {
                        let (n, counter) = (rng.u64(..10), rng.u64(1..1_000));
                        unsaved.entries.push(entry(n, counter));
                        let row = rng.bool().then(|| row(n));
                        unsaved.rows.push((path(n), row.clone()));
                        model.0.insert(path(n), entry(n, counter).register);
                        match row {
                            Some(row) => drop(model.1.insert(path(n), row)),
                            None => drop(model.1.remove(&path(n))),
                        }
                    }
                    store.save(&unsaved).unwrap();
                }
            }
        }
    }

    fn world_with_rows() -> (World, Plain) {
        let world = World::new();
        let (store, ..) = world.open();
        for batch in 0..4 {
            let numbers = batch * 10..batch * 10 + 10;
            let entries = numbers.clone().map(|n| entry(n, n + 1)).collect();
            let rows = numbers.map(|n| (path(n), Some(row(n)))).collect();
            store.save(&Unsaved { entries, rows }).unwrap();
        }
        drop(store);
        let (_, kept, history) = world.open();
        assert_eq!(history, History::Continued);
        let plain = plain(&kept);
        assert_eq!(plain.0.len(), 40);
        (world, plain)
    }

    /// F49: bytes flipped, the file cut, parts of it zeroed: all that was there, or nothing; no panic gets out.
    #[test]
    fn damage_loses_all_or_nothing() {
        let (world, whole) = world_with_rows();
        let bytes = world.bytes();
        let mut n_lost = 0;
        let mut check = |bytes: &[u8], what: &str| {
            world.put(bytes);
            // Closed again before it is looked at.
            match world.open_as(7).map(|(_, kept, history)| (kept, history)) {
                Ok((kept, History::Continued)) => {
                    assert_eq!(plain(&kept), whole, "{what}");
                    let batch = Unsaved { entries: vec![entry(99, 1)], rows: Vec::new() };
                    world.open().0.save(&batch).unwrap();
                }
                Ok((kept, History::Lost { .. })) => {
                    n_lost += 1;
                    assert_eq!(plain(&kept), Plain::default(), "{what}");
                    assert!(world.0.path().join(LOST_NAME).exists());
                    let (_, _, history) = world.open();
                    assert_eq!(history, History::Continued, "{what}");
                }
                Ok((_, History::New)) => panic!("{what}: it was there"),
                Err(error) => panic!("{what}: {error}"),
            }
        };
        let mut rng = fastrand::Rng::with_seed(1);
        let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let some: Vec<_> = (0..600).map(|_| used[rng.usize(..used.len())]).collect();
        for at in (0..330).chain(some) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << rng.u8(..8);
            check(&flipped, &format!("byte {at} flipped"));
        }
        for _ in 0..60 {
            let (from, len) = (rng.usize(..bytes.len()), 1 << rng.u32(4..14));
            let mut zeroed = bytes.clone();
            let to = (from + len).min(bytes.len());
            zeroed[from..to].fill(0);
            check(&zeroed, &format!("zero from {from} to {to}"));
            check(&bytes[..from], &format!("cut at {from}"));
        }
        check(&[], "empty");
        check(&vec![0; bytes.len()], "zero");
        check(b"something else", "not ours");
        assert!(n_lost > 300, "{n_lost}");
    }

    #[test]
    fn of_a_later_version_or_another_folder() {
        let (world, _) = world_with_rows();
        let bytes = world.bytes();
        let (_, kept, history) = world.open_as(8).unwrap();
        assert!(matches!(history, History::Lost { why } if why.contains("another folder")));
        assert_eq!(plain(&kept), Plain::default());
        world.put(&bytes);
        let (store, ..) = world.open();
        {
            let open = store.database.lock().unwrap();
            let write = open.as_ref().unwrap().begin_write().unwrap();
            let mut meta = write.open_table(META).unwrap();
            meta.insert("format", FORMAT + 1).unwrap();
            meta.insert("check", super::check(FORMAT + 1, 7)).unwrap();
            drop(meta);
            write.commit().unwrap();
        }
        drop(store);
        // Also the second time: it is left as it is.
        for _ in 0..2 {
            let error = world.open_as(7).unwrap_err();
            assert!(matches!(error, OpenError::TooNew(2)), "{error}");
        }
    }

    /// What was saved before is there after a batch that failed, and the next one goes through.
    #[test]
    fn goes_on_after_a_failure() {
        let (world, mut whole) = world_with_rows();
        let (store, ..) = world.open();
        *store.database.lock().unwrap() = None;
        let batch = Unsaved { entries: vec![entry(99, 1)], rows: Vec::new() };
        store.save(&batch).unwrap();
        drop(store);
        whole.0.insert(path(99), entry(99, 1).register);
        let (_, kept, _) = world.open();
        assert_eq!(plain(&kept), whole);
    }
}
