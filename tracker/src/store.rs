//! The store: catalogues and identities on disk, in one redb file.
//!
//! One thread owns the file. Whoever wants something kept hands it over and waits; what waits at the same time goes
//! into one transaction, so that a thousand announces at once cost a few syncs and not a thousand.
//!
//! Invariants: what was reported as kept survives a kill and a power cut; a change that does not fit the stored
//! catalogue is refused, so the stored one is always one that its peer really had; after a failed commit nothing is
//! believed until the file was opened again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use potluck_common::protocol::PartialEntry;
use potluck_common::{ContentId, Geometry, PeerId};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use crate::record::{Builds, Change, PeerRecord, Stored, StoredEntry, StoredPeer, StoredRegister};
use crate::store_index;

/// Name of the file in the data folder.
pub const FILE_NAME: &str = "tracker.redb";
/// What the tables below mean; a tracker refuses a higher one.
const SCHEMA: u64 = 1;
/// Writes that wait for the thread. Further announces wait at the channel, holding only themselves.
const MAX_WAITING: usize = 256;
/// Writes in one transaction: enough to share the cost of a sync.
const MAX_BATCH: usize = 256;
/// Catalogue entries in one transaction, which bounds how long the others in it wait.
const MAX_BATCH_ENTRIES: usize = 100_000;
/// Pages kept in memory.
const CACHE_LEN: usize = 64 << 20;

pub(crate) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Peer id → [`PeerRecord`] as JSON.
const PEERS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("peers");
/// Peer id and path.
type EntryKey = (&'static [u8; 16], &'static str);
/// Content id, length, first seen.
type EntryValue = (&'static [u8; 32], u64, u64);
const ENTRIES: TableDefinition<EntryKey, EntryValue> = TableDefinition::new("entries");
/// Peer id, content id, length → chunks held.
const PARTIAL: TableDefinition<(&[u8; 16], &[u8; 32], u64), u32> = TableDefinition::new("partial");

/// Why the store cannot be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or written.
    #[error(
        "cannot write in the data folder {dir}: {error}. Make it writable for this user, name another one with --data, or keep nothing with --memory"
    )]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// Another tracker has it open.
    #[error("another tracker uses the data folder {0}. Stop it first, or name another folder with --data")]
    InUse(PathBuf),
    /// The file is not what it should be.
    #[error("the store {file} is damaged ({cause}). Move it away and start again: peers announce what they have anew")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A later version made it.
    #[error(
        "the store {file} was made by a later version of potluck (its format is {found}, this one reads {SCHEMA}). Upgrade, or name another folder with --data"
    )]
    TooNew {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u64,
    },
}

/// A write did not happen; nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The change builds on another revision than the stored one.
    #[error("the change does not fit what is stored")]
    Misfit,
    /// Disk full, failed sync, or the like.
    #[error("cannot write the store: {0}")]
    Disk(String),
    /// The tracker ends.
    #[error("the store is closed")]
    Closed,
}

impl<E: Into<redb::Error>> From<E> for WriteError {
    fn from(error: E) -> Self {
        Self::Disk(error.into().to_string())
    }
}

/// What is written in one piece.
#[derive(Debug, Default)]
pub(crate) struct Write {
    /// Peers of whom nothing stays.
    pub(crate) forget: Vec<PeerId>,
    /// What an announce changed.
    pub(crate) change: Option<Change>,
    /// Records of peers that were heard of.
    pub(crate) touch: Vec<(PeerId, PeerRecord)>,
    /// Paths of the synced folder.
    pub(crate) index: Vec<StoredRegister>,
}

#[derive(Debug)]
struct Job {
    write: Write,
    done: oneshot::Sender<Result<(), WriteError>>,
}

/// A place in the queue: taking it first keeps writes in the order in which the registry made them.
pub(crate) struct Place(mpsc::OwnedPermit<Job>);

impl Place {
    /// Hands the write over; the receiver tells when it is kept.
    pub(crate) fn write(self, write: Write) -> oneshot::Receiver<Result<(), WriteError>> {
        let (done, kept) = oneshot::channel();
        self.0.send(Job { write, done });
        kept
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Store {
    /// Taken when it is closed.
    open: Mutex<Option<(mpsc::Sender<Job>, JoinHandle<()>)>>,
}

impl Store {
    /// Opens or makes the store in `dir` and reads all of it. Blocks.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Stored), OpenError> {
        let folder = |error| OpenError::Folder { dir: dir.to_owned(), error };
        std::fs::create_dir_all(dir).map_err(folder)?;
        let file = dir.join(FILE_NAME);
        // redb's own answer to a folder without write permission names neither file nor folder.
        std::fs::OpenOptions::new().create(true).append(true).open(&file).map_err(folder)?;
        let opened = std::panic::catch_unwind(|| {
            let db = open_file(&file).map_err(|error| unreadable(error, dir, &file))?;
            let stored = load(&db, &file)?;
            Ok((db, stored))
        });
        let (db, stored) = opened
            .unwrap_or_else(|_| Err(OpenError::Damaged { file: file.clone(), cause: "it cannot be read".into() }))?;
        let (jobs, queue) = mpsc::channel(MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || Writer { db: Some(db), file }.run(queue))
            .map_err(folder)?;
        Ok((Self { open: Mutex::new(Some((jobs, thread))) }, stored))
    }

    fn jobs(&self) -> Result<mpsc::Sender<Job>, WriteError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(|(jobs, _)| jobs.clone()).ok_or(WriteError::Closed)
    }

    /// Waits for a place in the queue.
    pub(crate) async fn place(&self) -> Result<Place, WriteError> {
        self.jobs()?.reserve_owned().await.map(Place).map_err(|_| WriteError::Closed)
    }

    /// A place in the queue if one is free.
    pub(crate) fn try_place(&self) -> Option<Place> {
        self.jobs().ok()?.try_reserve_owned().ok().map(Place)
    }

    /// Lets what waits be written, then closes the file. Blocks.
    pub(crate) fn close(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((jobs, thread)) = open else { return };
        drop(jobs);
        if thread.join().is_err() {
            tracing::error!("the store's thread ended in a panic");
        }
    }
}

fn open_file(file: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_LEN).create(file)
}

fn unreadable(error: DatabaseError, dir: &Path, file: &Path) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(dir.to_owned()),
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Folder { dir: dir.to_owned(), error }
        }
        other => OpenError::Damaged { file: file.to_owned(), cause: other.to_string() },
    }
}

/// Reads everything, and makes the tables of a new store.
fn load(db: &Database, file: &Path) -> Result<Stored, OpenError> {
    let damaged = |error: redb::Error| OpenError::Damaged { file: file.to_owned(), cause: error.to_string() };
    if let Some(found) = prepare(db).map_err(damaged)? {
        return Err(OpenError::TooNew { file: file.to_owned(), found });
    }
    let peers = read_all(db).map_err(damaged)?;
    Ok(Stored { peers, index: store_index::load(db).map_err(damaged)? })
}

/// Checks the schema; gives the one found if it is too new.
fn prepare(db: &Database) -> Result<Option<u64>, redb::Error> {
    let write = db.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        let found = meta.get("schema")?.map(|found| found.value());
        match found {
            Some(found) if found > SCHEMA => return Ok(Some(found)),
            Some(_) => return Ok(None),
            None => drop(meta.insert("schema", SCHEMA)?),
        }
        write.open_table(PEERS)?;
        write.open_table(ENTRIES)?;
        write.open_table(PARTIAL)?;
    }
    write.commit()?;
    Ok(None)
}

fn read_all(db: &Database) -> Result<Vec<StoredPeer>, redb::Error> {
    let read = db.begin_read()?;
    let (peers, entries, partial) = (read.open_table(PEERS)?, read.open_table(ENTRIES)?, read.open_table(PARTIAL)?);
    let mut all = Vec::new();
    for row in peers.iter()? {
        let (id, record) = row?;
        let peer_id = PeerId::from_bytes(*id.value());
        let Ok(record) = serde_json::from_slice::<PeerRecord>(record.value()) else {
            tracing::warn!(%peer_id, "a stored peer cannot be read; it will be asked for everything again");
            continue;
        };
        let mut peer = StoredPeer { peer_id, record, entries: Vec::new(), partial: Vec::new(), intact: true };
        let bytes = peer_id.as_bytes();
        for row in entries.range((bytes, "")..)? {
            let (key, value) = row?;
            let ((owner, path), (content_id, len, since_ms)) = (key.value(), value.value());
            if owner != bytes {
                break;
            }
            match path.parse() {
                Ok(path) if Geometry::new(len).is_ok() => {
                    let content_id = ContentId::from_bytes(*content_id);
                    peer.entries.push(StoredEntry { path, content_id, len, since_ms });
                }
                _ => peer.intact = false,
            }
        }
        for row in partial.range((bytes, &[0; 32], 0)..=(bytes, &[0xff; 32], u64::MAX))? {
            let (key, value) = row?;
            let (_, content_id, len) = key.value();
            if Geometry::new(len).is_ok() {
                let content_id = ContentId::from_bytes(*content_id);
                peer.partial.push(PartialEntry { content_id, len, n_chunks: value.value() });
            } else {
                peer.intact = false;
            }
        }
        if !peer.intact {
            tracing::warn!(%peer_id, "some of a stored catalogue cannot be read; its peer will be asked for it again");
        }
        all.push(peer);
    }
    Ok(all)
}

/// The thread that owns the file.
struct Writer {
    /// `None` after a failed commit, until it could be opened again.
    db: Option<Database>,
    file: PathBuf,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut n_entries = n_entries(&first.write);
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH && n_entries < MAX_BATCH_ENTRIES {
                let Ok(job) = queue.try_recv() else { break };
                n_entries += self::n_entries(&job.write);
                batch.push(job);
            }
            let results = self.commit(batch.iter().map(|job| &job.write));
            for (at, job) in batch.into_iter().enumerate() {
                let result = match &results {
                    Ok(results) => results[at].clone(),
                    Err(error) => Err(error.clone()),
                };
                // Whoever asked may have gone; the write stands all the same.
                let _ = job.done.send(result);
            }
        }
    }

    /// One transaction: every write in it, but for those that do not fit.
    fn commit<'a>(
        &mut self,
        writes: impl Iterator<Item = &'a Write>,
    ) -> Result<Vec<Result<(), WriteError>>, WriteError> {
        let mut db = match self.db.take() {
            Some(db) => db,
            None => {
                let db = open_file(&self.file)?;
                tracing::info!("the store could be opened again");
                db
            }
        };
        let result = commit(&mut db, writes);
        match &result {
            Ok(_) => self.db = Some(db),
            Err(error) => tracing::error!(%error, "nothing was stored; the file is opened again for the next write"),
        }
        result
    }
}

fn n_entries(write: &Write) -> usize {
    let of_change = |change: &Change| change.added.len() + change.removed.len() + change.partial.len();
    write.change.as_ref().map_or(0, of_change) + write.index.len()
}

fn commit<'a>(
    db: &mut Database,
    writes: impl Iterator<Item = &'a Write>,
) -> Result<Vec<Result<(), WriteError>>, WriteError> {
    let transaction = db.begin_write()?;
    let mut results = Vec::new();
    for write in writes {
        results.push(match apply(&transaction, write) {
            Err(WriteError::Disk(cause)) => return Err(WriteError::Disk(cause)),
            other => other,
        });
    }
    transaction.commit()?;
    Ok(results)
}

fn apply(transaction: &WriteTransaction, write: &Write) -> Result<(), WriteError> {
    for peer_id in &write.forget {
        transaction.open_table(PEERS)?.remove(peer_id.as_bytes())?;
        clear(transaction, peer_id)?;
    }
    if let Some(change) = &write.change {
        apply_change(transaction, change)?;
    }
    for (peer_id, record) in &write.touch {
        if let Some(revision) = stored_revision(transaction, peer_id)? {
            put(transaction, peer_id, PeerRecord { revision, ..record.clone() })?;
        }
    }
    store_index::put(transaction, &write.index)?;
    Ok(())
}

fn apply_change(transaction: &WriteTransaction, change: &Change) -> Result<(), WriteError> {
    let Change { peer_id, record, builds, removed, added, partial } = change;
    let stored = stored_revision(transaction, peer_id)?;
    let revision = match builds {
        Builds::On(base) if stored != Some(*base) => return Err(WriteError::Misfit),
        Builds::On(_) => record.revision,
        Builds::Anew => {
            clear(transaction, peer_id)?;
            record.revision
        }
        Builds::RecordOnly => stored.unwrap_or(0),
    };
    put(transaction, peer_id, PeerRecord { revision, ..record.clone() })?;
    let id = peer_id.as_bytes();
    let mut entries = transaction.open_table(ENTRIES)?;
    for path in removed {
        entries.remove((id, path.as_str()))?;
    }
    for StoredEntry { path, content_id, len, since_ms } in added {
        entries.insert((id, path.as_str()), (content_id.as_bytes(), *len, *since_ms))?;
    }
    let mut parts = transaction.open_table(PARTIAL)?;
    for PartialEntry { content_id, len, n_chunks } in partial {
        let key = (id, content_id.as_bytes(), *len);
        if *n_chunks == 0 { drop(parts.remove(key)?) } else { drop(parts.insert(key, n_chunks)?) }
    }
    Ok(())
}

fn stored_revision(transaction: &WriteTransaction, peer_id: &PeerId) -> Result<Option<u64>, WriteError> {
    let peers = transaction.open_table(PEERS)?;
    let stored = peers.get(peer_id.as_bytes())?;
    Ok(stored.and_then(|stored| serde_json::from_slice::<PeerRecord>(stored.value()).ok()).map(|peer| peer.revision))
}

fn put(transaction: &WriteTransaction, peer_id: &PeerId, record: PeerRecord) -> Result<(), WriteError> {
    let json = serde_json::to_vec(&record).expect("a record is plain text and numbers");
    transaction.open_table(PEERS)?.insert(peer_id.as_bytes(), json.as_slice())?;
    Ok(())
}

/// Removes a peer's catalogue.
fn clear(transaction: &WriteTransaction, peer_id: &PeerId) -> Result<(), WriteError> {
    let id = peer_id.as_bytes();
    let mut entries = transaction.open_table(ENTRIES)?;
    match u128::from_be_bytes(*id).checked_add(1).map(u128::to_be_bytes) {
        Some(next) => entries.retain_in((id, "")..(&next, ""), |_, _| false)?,
        None => entries.retain_in((id, "").., |_, _| false)?,
    }
    let mut parts = transaction.open_table(PARTIAL)?;
    parts.retain_in((id, &[0; 32], 0)..=(id, &[0xff; 32], u64::MAX), |_, _| false)?;
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
