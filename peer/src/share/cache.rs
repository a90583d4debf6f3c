//! The hash cache: what each state of a file hashed to, the chunk maps of large contents, and sums for other clients where
//! they were asked for.
//!
//! It is only a cache: damaged, too new or lost, it is made anew and files are hashed again. An entry is found by the
//! file's whole identity (device, inode, length, mtime, ctime), so a stale one is never used. Chunk maps of
//! contents of one chunk are not stored: they are the content id.

use std::io;
use std::sync::{Mutex, PoisonError};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use potluck_common::{ChunkMap, ContentId, Geometry};
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};

use super::folder::FileIdentity;
use super::sha1::{self, Part};
use super::sha256::Sums;

const HASHES: TableDefinition<&[u8; 56], &[u8; 32]> = TableDefinition::new("hashes");
const CHUNK_MAPS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("chunk_maps");
/// SHA-256 of contents, for clients that are no peers.
const SUMS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("sha256");
/// Contents whose SHA-256 is kept: 64 MiB at most.
const MAX_SUMS: u64 = 1_024;
/// SHA-1 of pieces of contents, for BitTorrent clients.
const PIECES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("sha1");
/// Torrents whose SHA-1 sums are kept: 20 MiB at most, unless somebody shares many files of hundreds of gigabytes.
const MAX_PIECES_KEPT: u64 = 256;
const FILE_NAME: &str = "cache.redb";
/// Memory for the store's pages: enough for the index of some hundred thousand files.
const PAGE_CACHE_LEN: usize = 8 << 20;

/// The store failed; nothing was cached.
#[derive(Debug, thiserror::Error)]
#[error("the hash cache failed: {0}")]
pub struct CacheError(#[source] Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for CacheError {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

/// The cache of one share folder.
#[derive(Debug)]
pub struct HashCache {
    database: Database,
    /// Hashed, and not written yet: written in batches, since each write is a sync.
    unwritten: Mutex<Vec<(FileIdentity, ChunkMap)>>,
}

impl HashCache {
    /// Opens it in the state folder, or starts an empty one.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn open(state: &Dir) -> Result<Self, CacheError> {
        let database = match Self::open_database(state) {
            Ok(database) => database,
            Err(error) => {
                tracing::warn!(%error, "the hash cache is unusable and is made anew; files are hashed again");
                state.remove_file(FILE_NAME).map_err(redb::Error::Io)?;
                Self::open_database(state)?
            }
        };
        Ok(Self { database, unwritten: Mutex::default() })
    }

    fn open_database(state: &Dir) -> Result<Database, CacheError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = state.open_with(FILE_NAME, &options).map_err(redb::Error::Io)?.into_std();
        let database = redb::Builder::new().set_cache_size(PAGE_CACHE_LEN).create_file(file)?;
        let write = database.begin_write()?;
        write.open_table(HASHES)?;
        write.open_table(CHUNK_MAPS)?;
        write.open_table(SUMS)?;
        write.open_table(PIECES)?;
        write.commit()?;
        Ok(database)
    }

    /// What these states of files hashed to, in the same order.
    ///
    /// # Errors
    /// If the store fails.
    pub fn lookup(
        &self,
        identities: impl IntoIterator<Item = FileIdentity>,
    ) -> Result<Vec<Option<ContentId>>, CacheError> {
        let read = self.database.begin_read()?;
        let (hashes, chunk_maps) = (read.open_table(HASHES)?, read.open_table(CHUNK_MAPS)?);
        let mut found = Vec::new();
        for identity in identities {
            let id = hashes.get(&identity.to_bytes())?.map(|id| *id.value());
            // Without its chunk map a large content cannot be offered.
            let usable = match (id, Geometry::new(identity.len)) {
                (Some(id), Ok(geometry)) if geometry.n_chunks() == 1 || chunk_maps.get(&id)?.is_some() => Some(id),
                _ => None,
            };
            found.push(usable.map(ContentId::from_bytes));
        }
        Ok(found)
    }

    /// Remembers what a file hashed to; durable after the next [`HashCache::flush`].
    pub fn insert(&self, identity: FileIdentity, map: ChunkMap) {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).push((identity, map));
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// If the store fails; what was to be written stays in memory for the next try.
    pub fn flush(&self) -> Result<(), CacheError> {
        let batch: Vec<_> = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if batch.is_empty() {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        {
            let (mut hashes, mut chunk_maps) = (write.open_table(HASHES)?, write.open_table(CHUNK_MAPS)?);
            for (identity, map) in &batch {
                hashes.insert(&identity.to_bytes(), map.content_id().as_bytes())?;
                if map.geometry().n_chunks() > 1 {
                    chunk_maps.insert(map.content_id().as_bytes(), map.as_wire())?;
                }
            }
        }
        write.commit()?;
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).drain(..batch.len());
        Ok(())
    }

    /// The chunk map of a content that was hashed here, as sent on the wire.
    ///
    /// # Errors
    /// If the store fails.
    pub fn chunk_map(&self, content_id: ContentId, len: u64) -> Result<Option<Vec<u8>>, CacheError> {
        if Geometry::new(len).is_ok_and(|geometry| geometry.n_chunks() == 1) {
            return Ok(Some(content_id.as_bytes().to_vec()));
        }
        {
            let unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, map)) = unwritten.iter().find(|(_, map)| map.content_id() == content_id) {
                return Ok(Some(map.as_wire().to_vec()));
            }
        }
        let read = self.database.begin_read()?;
        Ok(read.open_table(CHUNK_MAPS)?.get(content_id.as_bytes())?.map(|bytes| bytes.value().to_vec()))
    }

    /// Forgets a state of a file, so that it is hashed again.
    ///
    /// # Errors
    /// If the store fails.
    pub fn remove(&self, identity: FileIdentity) -> Result<(), CacheError> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| *known != identity);
        let write = self.database.begin_write()?;
        write.open_table(HASHES)?.remove(&identity.to_bytes())?;
        Ok(write.commit()?)
    }

    /// A file in this state has a content whose chunk map is here, as after a rename; whether it is.
    ///
    /// # Errors
    /// If the store fails.
    pub fn know_as(&self, content_id: ContentId, identity: FileIdentity) -> Result<bool, CacheError> {
        let map = self.chunk_map(content_id, identity.len)?;
        let geometry = Geometry::new(identity.len).ok();
        let map = map.zip(geometry).and_then(|(map, geometry)| ChunkMap::from_wire(content_id, geometry, &map).ok());
        let is_known = map.is_some();
        if let Some(map) = map {
            self.insert(identity, map);
        }
        Ok(is_known)
    }

    /// Drops entries of files that are no longer there, once they outnumber those that are.
    ///
    /// # Errors
    /// If the store fails.
    pub fn prune(&self, live: &[(FileIdentity, ContentId)]) -> Result<(), CacheError> {
        let n_cached = {
            let read = self.database.begin_read()?;
            read.open_table(HASHES)?.len()?
        };
        if n_cached <= 2 * live.len() as u64 + 1_000 {
            return Ok(());
        }
        let identities: std::collections::HashSet<_> = live.iter().map(|(identity, _)| identity.to_bytes()).collect();
        let ids: std::collections::HashSet<_> = live.iter().map(|(_, id)| *id.as_bytes()).collect();
        let write = self.database.begin_write()?;
        write.open_table(HASHES)?.retain(|identity, _| identities.contains(identity))?;
        write.open_table(CHUNK_MAPS)?.retain(|id, _| ids.contains(id))?;
        write.open_table(SUMS)?.retain(|id, _| ids.contains(id))?;
        Ok(write.commit()?)
    }

    /// The SHA-256 of a content, if it was made and is kept.
    ///
    /// # Errors
    /// If the store fails.
    pub fn sums(&self, content_id: ContentId) -> Result<Option<Sums>, CacheError> {
        let read = self.database.begin_read()?;
        let kept = read.open_table(SUMS)?.get(content_id.as_bytes())?;
        Ok(kept.and_then(|bytes| Sums::from_bytes(bytes.value())))
    }

    /// Keeps the SHA-256 of a content; of too many, any other goes.
    ///
    /// # Errors
    /// If the store fails.
    pub fn insert_sums(&self, content_id: ContentId, sums: &Sums) -> Result<(), CacheError> {
        self.insert_bounded(SUMS, MAX_SUMS, content_id.as_bytes(), &sums.to_bytes())
    }

    /// The SHA-1 of the pieces of these contents, if they were taken and are kept.
    ///
    /// # Errors
    /// If the store fails.
    pub fn pieces(&self, parts: &[Part]) -> Result<Option<Vec<u8>>, CacheError> {
        let read = self.database.begin_read()?;
        Ok(read.open_table(PIECES)?.get(&sha1::key_of(parts))?.map(|bytes| bytes.value().to_vec()))
    }

    /// Keeps them; of too many, any others go.
    ///
    /// # Errors
    /// If the store fails.
    pub fn insert_pieces(&self, parts: &[Part], pieces: &[u8]) -> Result<(), CacheError> {
        self.insert_bounded(PIECES, MAX_PIECES_KEPT, &sha1::key_of(parts), pieces)
    }

    fn insert_bounded(
        &self,
        table: TableDefinition<'_, &[u8; 32], &[u8]>,
        max: u64,
        key: &[u8; 32],
        bytes: &[u8],
    ) -> Result<(), CacheError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(table)?;
            while table.len()? >= max {
                table.pop_first()?;
            }
            table.insert(key, bytes)?;
        }
        Ok(write.commit()?)
    }
}

impl From<CacheError> for io::Error {
    fn from(error: CacheError) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::hashing::hash_file;

    fn hashed(len: usize) -> (FileIdentity, ChunkMap) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len as u64).unwrap();
        let identity = FileIdentity::of(&file).unwrap();
        (identity, hash_file(&file, identity, 1).unwrap())
    }

    #[test]
    fn sums_are_bounded() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap();
        let cache = HashCache::open(&dir).unwrap();
        let sums = Sums { whole: [1; 32], pieces: vec![[2; 32], [3; 32]] };
        {
            let write = cache.database.begin_write().unwrap();
            let mut table = write.open_table(SUMS).unwrap();
            for n in 0..u32::try_from(MAX_SUMS).unwrap() {
                table.insert(ContentId::of(&n.to_le_bytes()).as_bytes(), [9; 32].as_slice()).unwrap();
            }
            drop(table);
            write.commit().unwrap();
        }
        let id = ContentId::of(b"one more");
        assert_eq!(cache.sums(id).unwrap(), None);
        cache.insert_sums(id, &sums).unwrap();
        assert_eq!(cache.sums(id).unwrap(), Some(sums));
        let read = cache.database.begin_read().unwrap();
        assert_eq!(read.open_table(SUMS).unwrap().len().unwrap(), MAX_SUMS);
    }

    #[test]
    fn remembers_across_openings_and_survives_damage() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap();
        let (small, large) = (hashed(10), hashed(1 << 20));
        {
            let cache = HashCache::open(&dir).unwrap();
            cache.insert(small.0, small.1.clone());
            cache.insert(large.0, large.1.clone());
            let map = |entry: &(FileIdentity, ChunkMap)| cache.chunk_map(entry.1.content_id(), entry.0.len).unwrap();
            assert_eq!(map(&large).as_deref(), Some(large.1.as_wire()), "also before it is written");
            cache.flush().unwrap();
            assert_eq!(map(&small).as_deref(), Some(small.1.as_wire()));
            assert_eq!(map(&large).as_deref(), Some(large.1.as_wire()));
        }
        {
            let cache = HashCache::open(&dir).unwrap();
            let other = FileIdentity { len: 11, ..small.0 };
            let found = cache.lookup([small.0, large.0, other]).unwrap();
            assert_eq!(found, vec![Some(small.1.content_id()), Some(large.1.content_id()), None]);
            cache.remove(small.0).unwrap();
            assert_eq!(cache.lookup([small.0]).unwrap(), vec![None]);
        }
        std::fs::write(temp.path().join(FILE_NAME), vec![7; 5_000]).unwrap();
        let cache = HashCache::open(&dir).unwrap();
        assert_eq!(cache.lookup([large.0]).unwrap(), vec![None]);
    }
}
