//! Files of origins on their way, of which no chunk map is known: the bytes in `.potluck/partial/origin-<bid id>`, in order from the
//! first, and beside them what is known of them.
//!
//! Invariant: what the record says is there was synced before the record was written, and is of the state of the file that it
//! names. So a download goes on after a kill or a power cut where it was recorded last.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use potluck_common::ContentId;
use serde::{Deserialize, Serialize};

use super::moving::OnlyHere;
use super::partial::write_all_pieces_at;
use crate::share::state;
use crate::verb::Download;
use crate::wire::origin_client::{Facts, Validator};

const PREFIX: &str = "origin-";
const RECORD: &str = ".record";

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolRecord {
    /// What was asked for, so that it can be asked for again.
    pub request: Download,
    /// Bytes that were synced.
    pub n_bytes: u64,
    /// The length of the whole, if it is known.
    pub len: Option<u64>,
    /// Which state of the file they are of.
    pub validator: Option<Validator>,
}

impl SpoolRecord {
    /// What the origin said of the file.
    pub fn facts(&self) -> Facts {
        Facts { len: self.len, gives_ranges: true, validator: self.validator.clone() }
    }
}

/// One file on its way. Its methods are for the blocking pool; only one call is made at a time.
#[derive(Debug)]
pub struct Spool {
    dir: Dir,
    name: String,
    file: File,
    _only_here: OnlyHere,
}

impl Spool {
    /// Opens the file of that bid with what was recorded of it, or begins it.
    ///
    /// # Errors
    /// As the file operations.
    pub fn open(dir: &Dir, bid: ContentId, only_here: OnlyHere) -> io::Result<(Arc<Self>, Option<SpoolRecord>)> {
        let name = format!("{PREFIX}{bid}");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o644);
        let file = dir.open_with(&name, &options)?.into_std();
        let record: Option<SpoolRecord> =
            state::load(dir, &record_name(&name)).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let len = file.metadata()?.len();
        let record = record.filter(|record| record.n_bytes <= len && record.validator.is_some());
        Ok((Arc::new(Self { dir: dir.try_clone()?, name, file, _only_here: only_here }), record))
    }

    /// Writes pieces at a place.
    ///
    /// # Errors
    /// As `pwritev`.
    pub fn write(&self, pieces: &[Bytes], offset: u64) -> io::Result<()> {
        write_all_pieces_at(&self.file, pieces, offset)
    }

    /// Makes what was written durable, and then the record.
    ///
    /// # Errors
    /// As the file operations; what was recorded before stays.
    pub fn record(&self, record: &SpoolRecord) -> io::Result<()> {
        self.file.sync_data()?;
        state::save(&self.dir, &record_name(&self.name), &serde_json::to_vec(record).map_err(io::Error::other)?)
    }

    /// Begins anew: another state of the file comes.
    ///
    /// # Errors
    /// As the file operations.
    pub fn clear(&self) -> io::Result<()> {
        // The record vouches for bytes that are about to go.
        state::remove(&self.dir, &record_name(&self.name))?;
        self.file.set_len(0)
    }

    /// Cuts off what came after `len` bytes, which is all of it.
    ///
    /// # Errors
    /// As the file operations.
    pub fn end_at(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.sync_all()
    }

    /// The open file.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// What it is called in its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Forgets it: it has its final name, or is of no use.
    ///
    /// # Errors
    /// As `unlink`.
    pub fn forget(&self) -> io::Result<()> {
        match self.dir.remove_file(&self.name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        state::remove(&self.dir, &record_name(&self.name))
    }
}

/// What was asked for and is recorded as unfinished; a file without a record is removed, for it could not be gone on with.
///
/// # Errors
/// If the folder cannot be listed.
pub fn unfinished(dir: &Dir) -> io::Result<Vec<Download>> {
    let mut requests = Vec::new();
    for entry in dir.entries()? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.strip_prefix(PREFIX).is_none_or(|bid| bid.parse::<ContentId>().is_err()) {
            continue;
        }
        let record = state::load(dir, &record_name(name)).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match record {
            Some(SpoolRecord { request, .. }) => requests.push(request),
            None => dir.remove_file(name)?,
        }
    }
    Ok(requests)
}

fn record_name(name: &str) -> String {
    format!("{name}{RECORD}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only_here() -> OnlyHere {
        Arc::new(Arc::new(tokio::sync::Mutex::new(())).try_lock_owned().unwrap())
    }

    #[test]
    fn goes_on_from_what_was_recorded_and_only_from_that() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap();
        let bid = ContentId::of(b"bid");
        let open = || Spool::open(&dir, bid, only_here()).unwrap();
        let validator: Validator = serde_json::from_str("\"x\"").unwrap();
        let request = Download { origin: Some("http://h/x".parse().unwrap()), ..Download::default() };
        let record = SpoolRecord { request: request.clone(), n_bytes: 5, len: None, validator: Some(validator) };
        {
            let (spool, known) = open();
            assert_eq!(known, None);
            spool.write(&[Bytes::from_static(b"abc"), Bytes::from_static(b"de")], 0).unwrap();
            spool.record(&record).unwrap();
            spool.write(&[Bytes::from_static(b"unrecorded")], 5).unwrap();
        }
        let (spool, known) = open();
        assert_eq!(known.as_ref(), Some(&record));
        assert_eq!(unfinished(&dir).unwrap(), [request]);
        // Of a file whose state has no name nobody could say that the rest belongs to it.
        spool.record(&SpoolRecord { validator: None, ..record.clone() }).unwrap();
        assert_eq!(open().1, None);
        spool.record(&record).unwrap();
        spool.file().set_len(4).unwrap();
        assert_eq!(open().1, None, "what is recorded is not there");
        spool.clear().unwrap();
        assert_eq!((open().1, spool.file().metadata().unwrap().len()), (None, 0));
        assert_eq!(unfinished(&dir).unwrap(), []);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "nothing that cannot be gone on with");
    }
}
