//! The index of the synced folder in the store's file.
//!
//! A row is a path with its register, and the number and epoch are those that peers were told, so that they go on where they
//! were after a restart. Each start takes a block of numbers of its own: what the last one gave out and lost in a crash is never
//! given to something else. Should a row be unreadable, it goes, the epoch ends, and
//! peers bring again what they have.

use potluck_common::PeerId;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::record::{StoredIndex, StoredRegister};
use crate::store::META;

/// Path → who brought it, number, register as JSON.
const INDEX: TableDefinition<&str, (&[u8; 16], u64, &[u8])> = TableDefinition::new("index");
const EPOCH: &str = "index_epoch";
const STARTS: &str = "index_starts";
/// Bits of a number that count within one start of the tracker.
const START_SHIFT: u32 = 32;

/// Reads all of it and begins another block of numbers.
pub(crate) fn load(db: &Database) -> Result<StoredIndex, redb::Error> {
    let write = db.begin_write()?;
    let starts = {
        write.open_table(INDEX)?;
        let mut meta = write.open_table(META)?;
        let starts = meta.get(STARTS)?.map_or(0, |starts| starts.value()) + 1;
        meta.insert(STARTS, starts)?;
        starts
    };
    write.commit()?;
    let (rows, unreadable) = read_all(db)?;
    let stored = db.begin_read()?.open_table(META)?.get(EPOCH)?.map(|epoch| epoch.value());
    let epoch = match stored.filter(|_| unreadable.is_empty()) {
        Some(epoch) => epoch,
        None => {
            let epoch = StoredIndex::new_epoch();
            let write = db.begin_write()?;
            write.open_table(META)?.insert(EPOCH, epoch)?;
            // Nobody can bring a path that is none, so it would end the epoch at every start.
            for path in &unreadable {
                write.open_table(INDEX)?.remove(path.as_str())?;
            }
            write.commit()?;
            epoch
        }
    };
    // A start that made more changes than a block has numbers went on into the next one.
    let last = rows.iter().map(|row| row.seq).max().unwrap_or(0);
    let block = starts.max((last >> START_SHIFT) + 1);
    Ok(StoredIndex { epoch, seq: block << START_SHIFT, rows })
}

/// The rows, and the keys of those that are none.
fn read_all(db: &Database) -> Result<(Vec<StoredRegister>, Vec<String>), redb::Error> {
    let table = db.begin_read()?.open_table(INDEX)?;
    let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
    for row in table.iter()? {
        let (path, value) = row?;
        let (brought_by, seq, register) = value.value();
        match (path.value().parse(), serde_json::from_slice(register)) {
            (Ok(path), Ok(register)) => {
                let brought_by = PeerId::from_bytes(*brought_by);
                rows.push(StoredRegister { path, register, seq, brought_by });
            }
            _ => unreadable.push(path.value().to_owned()),
        }
    }
    if !unreadable.is_empty() {
        let n_bad = unreadable.len();
        tracing::warn!(n_bad, "some of the stored index cannot be read; peers will bring it again");
    }
    Ok((rows, unreadable))
}

/// Keeps the states of some paths.
pub(crate) fn put(transaction: &WriteTransaction, rows: &[StoredRegister]) -> Result<(), redb::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(INDEX)?;
    for StoredRegister { path, register, seq, brought_by } in rows {
        let json = serde_json::to_vec(register).expect("a register is plain text and numbers");
        table.insert(path.as_str(), (brought_by.as_bytes(), *seq, json.as_slice()))?;
    }
    Ok(())
}
