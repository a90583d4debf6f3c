//! Unfinished contents on disk: the bytes in `.potluck/partial/<content id>`, and beside them what is known of them.
//!
//! Invariant: a bit in the recorded have-set was written only after the data it vouches for was synced. So after a kill
//! or a power cut whatever is recorded is there, and nothing has to be sampled or hashed again.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_std::fs::{Dir, MetadataExt, OpenOptions, OpenOptionsExt};
use potluck_common::have::HaveText;
use potluck_common::tree::ChunkHasher;
use potluck_common::{ChunkIndex, ChunkMap, ContentId, Geometry, HaveSet, SharePath};
use serde::{Deserialize, Serialize};

use super::moving::OnlyHere;
use crate::share::state;

/// Where a content will go when it is complete.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Into the share folder.
    Share(SharePath),
    /// To a file anywhere, as the user asked: an absolute path.
    Elsewhere(PathBuf),
}

/// Who goes on with an unfinished content after a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoesOn {
    /// The peer: a person wants it.
    #[default]
    ByItself,
    /// Whoever asks for it again; nobody for too long, and it is given up.
    WhenAsked,
}

/// What nobody has asked for again is kept for so long: longer than a peer is away over a holiday.
const MAX_UNASKED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What is recorded of an unfinished content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The content.
    pub content_id: ContentId,
    /// Its proven length in bytes.
    pub len: u64,
    /// Where it will go.
    pub target: Target,
    #[serde(default)]
    goes_on: GoesOn,
    /// What was synced.
    have: HaveText,
}

/// The folder of unfinished contents.
#[derive(Debug)]
pub struct PartialStore {
    dir: Dir,
}

/// One unfinished content, open.
#[derive(Debug)]
pub struct PartialFile {
    file: Arc<File>,
    map: ChunkMap,
    target: Target,
    goes_on: GoesOn,
    _only_here: OnlyHere,
}

impl PartialStore {
    /// Of this folder.
    pub const fn new(dir: Dir) -> Self {
        Self { dir }
    }

    /// The handle, for moving what is complete.
    pub const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What was recorded and goes on by itself after a restart, at `now`. Files without a record are small ones that were being
    /// fetched in one piece: they are removed.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn records(&self, now: SystemTime) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in self.dir.entries()? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.parse::<ContentId>().is_ok() {
                match self.record(name) {
                    Some(record) if record.goes_on == GoesOn::ByItself => records.push(record),
                    Some(record) if self.is_given_up(name, now) => self.forget(record.content_id)?,
                    Some(_) => {}
                    None => self.dir.remove_file(name)?,
                }
            } else if let Some((stem, _)) = name.split_once('.')
                && !self.dir.exists(stem)
                // Its record may just have been forgotten with it.
                && self.dir.exists(name)
            {
                self.dir.remove_file(name)?;
            }
        }
        Ok(records)
    }

    /// Whether nothing was written to it for too long.
    fn is_given_up(&self, name: &str, now: SystemTime) -> bool {
        let written_s = self.dir.metadata(name).ok().and_then(|metadata| u64::try_from(metadata.mtime()).ok());
        let written = written_s.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        written.is_some_and(|written| now.duration_since(written).is_ok_and(|age| age > MAX_UNASKED))
    }

    fn record(&self, name: &str) -> Option<Record> {
        let record: Record = serde_json::from_slice(&state::load(&self.dir, &record_name(name))?).ok()?;
        (record.content_id.to_string() == name).then_some(record)
    }

    /// What is recorded as held of a content, and its geometry.
    pub fn held(&self, id: ContentId) -> Option<HaveSet> {
        let record = self.record(&id.to_string())?;
        record.have.parse(Geometry::new(record.len).ok()?).ok()
    }

    /// Opens the unfinished content with what was recorded of it, or starts it.
    ///
    /// # Errors
    /// As the file operations.
    pub fn open(
        &self,
        map: ChunkMap,
        target: Target,
        goes_on: GoesOn,
        only_here: OnlyHere,
    ) -> io::Result<(PartialFile, HaveSet)> {
        let geometry = map.geometry();
        let name = map.content_id().to_string();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o644);
        let file = self.dir.open_with(&name, &options)?.into_std();
        let whole = file.metadata()?.len() == geometry.len();
        let recorded = self.record(&name).filter(|record| whole && record.len == geometry.len());
        let have = recorded.and_then(|record| record.have.parse(geometry).ok());
        let have = have.unwrap_or_else(|| HaveSet::empty(geometry));
        if have.n_held() == 0 {
            // Without blocks reserved the disk may fill up later, and that is seen then; reserving them would write
            // every page of a memory file system twice.
            // Whatever was recorded of bytes that are gone must be gone before them.
            state::remove(&self.dir, &record_name(&name))?;
            file.set_len(0)?;
            file.set_len(geometry.len())?;
        }
        let partial = PartialFile { file: Arc::new(file), map, target, goes_on, _only_here: only_here };
        self.save(&partial, &have)?;
        Ok((partial, have))
    }

    /// Records what is held. The caller has synced the data.
    ///
    /// # Errors
    /// As the file operations; what was recorded before stays.
    pub fn save(&self, partial: &PartialFile, have: &HaveSet) -> io::Result<()> {
        let (content_id, len) = (partial.map.content_id(), partial.map.geometry().len());
        let PartialFile { target, goes_on, .. } = partial;
        let record = Record { content_id, len, target: target.clone(), goes_on: *goes_on, have: have.into() };
        let bytes = serde_json::to_vec(&record).map_err(io::Error::other)?;
        state::save(&self.dir, &record_name(&content_id.to_string()), &bytes)
    }

    /// Forgets the record of a content whose bytes have their final name, or are not wanted any more.
    ///
    /// # Errors
    /// As `unlink`.
    pub fn forget(&self, id: ContentId) -> io::Result<()> {
        match self.dir.remove_file(id.to_string()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        state::remove(&self.dir, &record_name(&id.to_string()))
    }
}

fn record_name(id: &str) -> String {
    format!("{id}.record")
}

impl PartialFile {
    /// Verifies chunks, whose bytes are given in pieces, and writes them up to the first that is not right; how many that are. Call
    /// it on the blocking pool.
    ///
    /// # Errors
    /// As `pwritev`; some may be written then.
    pub fn keep(&self, chunks: &[(ChunkIndex, &[Bytes])]) -> io::Result<usize> {
        let geometry = self.map.geometry();
        let is_right = |chunk: ChunkIndex, pieces: &[Bytes]| {
            let mut hasher = ChunkHasher::new(geometry, chunk);
            let mut len = 0;
            for piece in pieces {
                hasher.update(piece);
                len += piece.len() as u64;
            }
            len == geometry.len_of(chunk) && hasher.finish() == *self.map.value(chunk)
        };
        let n_right = chunks.iter().take_while(|(chunk, pieces)| is_right(*chunk, pieces)).count();
        // Neighbours go in one system call.
        for run in chunks[..n_right].chunk_by(|(a, _), (b, _)| a.get() + 1 == b.get()) {
            let pieces = run.iter().flat_map(|(_, pieces)| *pieces);
            write_all_pieces_at(&self.file, pieces, geometry.bytes_of(run[0].0).start)?;
        }
        Ok(n_right)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// As `fdatasync`; after an error nothing that was written since the last success can be relied on.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The map that chunks are verified with.
    pub const fn map(&self) -> &ChunkMap {
        &self.map
    }

    /// The open file.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }
}

/// Pieces in one write: a chunk comes in a few of them, and the kernel takes 1,024 at most.
const MAX_PIECES: usize = 256;

/// One system call for many pieces: what a chunk came in costs no more to write than a chunk in one piece.
pub(super) fn write_all_pieces_at<'a>(
    file: &File,
    pieces: impl IntoIterator<Item = &'a Bytes>,
    mut offset: u64,
) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        pieces.into_iter().filter(|piece| !piece.is_empty()).map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        match rustix::io::pwritev(file, &left[..left.len().min(MAX_PIECES)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n_written) => {
                IoSlice::advance_slices(&mut left, n_written);
                offset += n_written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use potluck_common::chunk::MIN_CHUNK_LEN;
    use potluck_common::tree::chunk_value;

    fn content(len: u64) -> (Vec<u8>, ChunkMap) {
        let mut data = vec![0; usize::try_from(len).unwrap()];
        fastrand::Rng::with_seed(len).fill(&mut data);
        let geometry = Geometry::new(len).unwrap();
        let values = geometry.indices().map(|chunk| {
            let bytes = geometry.bytes_of(chunk);
            chunk_value(geometry, chunk, &data[bytes.start as usize..bytes.end as usize])
        });
        let map = ChunkMap::from_values(geometry, values.collect());
        (data, map)
    }

    fn only_here() -> OnlyHere {
        Arc::new(Arc::new(tokio::sync::Mutex::new(())).try_lock_owned().unwrap())
    }

    #[test]
    fn pieces_are_written_in_order_however_many() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * MAX_PIECES + 7).collect();
        let mut pieces: Vec<Bytes> = bytes.chunks(1).map(Bytes::copy_from_slice).collect();
        pieces.insert(1, Bytes::new());
        write_all_pieces_at(&file, &pieces, 5).unwrap();
        let mut got = vec![0; bytes.len()];
        file.read_exact_at(&mut got, 5).unwrap();
        assert_eq!(got, bytes);
        assert_eq!(file.metadata().unwrap().len(), 5 + bytes.len() as u64);
        write_all_pieces_at(&file, &[Bytes::new()], 0).unwrap();
    }

    #[test]
    fn of_several_chunks_those_before_a_bad_one_are_kept() {
        let temp = tempfile::tempdir().unwrap();
        let store = PartialStore::new(Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap());
        let (data, map) = content(5 * MIN_CHUNK_LEN);
        let geometry = map.geometry();
        let target = Target::Share("a".parse().unwrap());
        let (file, _) = store.open(map, target, GoesOn::ByItself, only_here()).unwrap();
        let part = |n: u32| {
            let bytes = geometry.bytes_of(geometry.index(n).unwrap());
            bytes.start as usize..bytes.end as usize
        };
        // The second of two halves belongs to it as well; chunk 4 is not its neighbour; chunk 3 gets the bytes of chunk 2.
        let pieces: Vec<(u32, Vec<Bytes>)> = [(1, 1), (2, 2), (4, 4), (3, 2), (0, 0)]
            .map(|(chunk, of)| {
                let whole = Bytes::copy_from_slice(&data[part(of)]);
                (chunk, vec![whole.slice(..1000), whole.slice(1000..)])
            })
            .into();
        let chunks: Vec<_> = pieces.iter().map(|(n, pieces)| (geometry.index(*n).unwrap(), &**pieces)).collect();
        assert_eq!(file.keep(&chunks).unwrap(), 3);
        let mut written = vec![0; data.len()];
        file.file().read_exact_at(&mut written, 0).unwrap();
        for n in 0..5 {
            let expected = if [1, 2, 4].contains(&n) { &data[part(n)] } else { &vec![0; MIN_CHUNK_LEN as usize] };
            assert!(&written[part(n)] == expected, "chunk {n}");
        }
        assert_eq!(file.keep(&[]).unwrap(), 0);
    }

    #[test]
    fn goes_on_from_what_was_recorded_and_only_from_that() {
        let temp = tempfile::tempdir().unwrap();
        let dir = || Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap();
        let (data, map) = content(4 * MIN_CHUNK_LEN + 5);
        let (geometry, id) = (map.geometry(), map.content_id());
        let target = Target::Share("a/b".parse().unwrap());
        let piece = |n: u32| {
            let bytes = geometry.bytes_of(geometry.index(n).unwrap());
            Bytes::copy_from_slice(&data[bytes.start as usize..bytes.end as usize])
        };
        {
            let store = PartialStore::new(dir());
            let (file, mut have) = store.open(map.clone(), target.clone(), GoesOn::ByItself, only_here()).unwrap();
            for n in [0, 4] {
                let chunk = geometry.index(n).unwrap();
                let whole = piece(n);
                let halves = [whole.slice(..whole.len() / 2), whole.slice(whole.len() / 2..)];
                assert_eq!(file.keep(&[(chunk, &halves)]).unwrap(), 1);
                have.insert(chunk);
            }
            assert_eq!(file.keep(&[(geometry.index(1).unwrap(), &[piece(2)])]).unwrap(), 0);
            assert_eq!(file.keep(&[(geometry.last(), &[piece(0)])]).unwrap(), 0);
            file.sync().unwrap();
            store.save(&file, &have).unwrap();
            let _unrecorded = file.keep(&[(geometry.index(2).unwrap(), &[piece(2)])]).unwrap();
        }
        let store = PartialStore::new(dir());
        std::fs::write(temp.path().join(ContentId::of(b"small").to_string()), "orphan").unwrap();
        let records = store.records(SystemTime::now()).unwrap();
        assert_eq!(
            records.iter().map(|record| (record.content_id, &record.target)).collect::<Vec<_>>(),
            [(id, &target)]
        );
        let (_, have) = store.open(map.clone(), target.clone(), GoesOn::ByItself, only_here()).unwrap();
        assert_eq!(have.held(geometry).map(potluck_common::ChunkIndex::get).collect::<Vec<_>>(), [0, 4]);
        std::fs::OpenOptions::new().write(true).open(temp.path().join(id.to_string())).unwrap().set_len(7).unwrap();
        let (_, have) = store.open(map, target, GoesOn::ByItself, only_here()).unwrap();
        assert_eq!(have.n_held(), 0, "a file of another length is not what was recorded");
        store.forget(id).unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_sync_wanted_waits_until_it_asks_again_and_not_for_ever() {
        let temp = tempfile::tempdir().unwrap();
        let store = PartialStore::new(Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap());
        let (data, map) = content(2 * MIN_CHUNK_LEN);
        let first = map.geometry().index(0).unwrap();
        let target = Target::Share("a".parse().unwrap());
        let open = || store.open(map.clone(), target.clone(), GoesOn::WhenAsked, only_here()).unwrap();
        let (file, mut have) = open();
        let bytes = Bytes::copy_from_slice(&data[..MIN_CHUNK_LEN as usize]);
        assert_eq!(file.keep(&[(first, &[bytes])]).unwrap(), 1);
        have.insert(first);
        store.save(&file, &have).unwrap();
        drop(file);
        let now = SystemTime::now();
        assert_eq!(store.records(now).unwrap(), []);
        assert_eq!(open().1.n_held(), 1, "what came is not fetched again");
        assert_eq!(store.records(now + MAX_UNASKED - Duration::from_secs(60)).unwrap(), []);
        assert!(store.held(map.content_id()).is_some());
        assert_eq!(store.records(now + MAX_UNASKED + Duration::from_secs(60)).unwrap(), []);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
