//! How a register and a row of the disk table look in the store: compact, and checked when they are read.

use potluck_common::register::{Dot, FileValue, Value, Version, VersionVector};
use potluck_common::{ContentId, PeerId, Register, SharePath};
use serde::{Deserialize, Serialize};

use super::disk_table::{Intent, KeptAt, OnDisk, Row};
use crate::share::folder::FileIdentity;

type RawDot = ([u8; 16], u64);

#[derive(Serialize, Deserialize)]
struct RawFile {
    mtime_ns: i64,
    content_id: [u8; 32],
    len: u64,
    executable: bool,
}

#[derive(Serialize, Deserialize)]
struct RawRegister {
    seen: Vec<RawDot>,
    live: Vec<(RawDot, Option<RawFile>)>,
}

#[derive(Serialize, Deserialize)]
struct RawIdentity {
    inode: (u64, u64),
    len: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

#[derive(Serialize, Deserialize)]
struct RawRow<'a> {
    file: Option<(RawFile, RawIdentity)>,
    copy_of: Option<&'a str>,
    dots: Vec<RawDot>,
}

/// Follows the row, if there is one.
#[derive(Serialize, Deserialize)]
struct RawIntent<'a> {
    /// Whether what comes before is a row; else nothing was known to stand there.
    has_row: bool,
    file: Option<RawFile>,
    copy_of: Option<&'a str>,
    dots: Vec<RawDot>,
}

/// As bytes.
pub fn encode_register(register: &Register) -> Vec<u8> {
    let seen = register.seen().iter().map(|(by, n)| (*by.as_bytes(), n)).collect();
    let live = register.live().iter().map(|version| (raw_dot(version.dot), version.value.file().map(raw_file)));
    encode(&RawRegister { seen, live: live.collect() })
}

/// `None` if these bytes are no register.
pub fn decode_register(bytes: &[u8]) -> Option<Register> {
    let raw: RawRegister = decode(bytes)?;
    let mut seen = VersionVector::default();
    raw.seen.into_iter().for_each(|dot| seen.note(dot_of(dot)));
    let live = raw.live.into_iter().map(|(dot, file)| {
        let value = file.map_or(Value::Folder, |file| Value::File(file_of(&file)));
        Version { dot: dot_of(dot), value }
    });
    Register::from_parts(seen, live.collect()).ok()
}

/// A row of the disk table and what comes with it, as bytes.
pub fn encode_row(kept: &KeptAt) -> Vec<u8> {
    let row = kept.row.as_ref();
    let file = row.and_then(Row::file).map(|(value, identity)| {
        let FileIdentity { inode, len, mtime, ctime } = *identity;
        (raw_file(value), RawIdentity { inode, len, mtime, ctime })
    });
    let copy_of = row.and_then(|row| row.copy_of.as_ref()).map(SharePath::as_str);
    let mut bytes = encode(&RawRow { file, copy_of, dots: raw_dots(row.map_or(&[], |row| &row.dots)) });
    if let Some(intent) = &kept.intent {
        bytes.extend(encode(&RawIntent {
            has_row: row.is_some(),
            file: intent.value.file().map(raw_file),
            copy_of: intent.copy_of.as_ref().map(SharePath::as_str),
            dots: raw_dots(&intent.dots),
        }));
    }
    bytes
}

/// `None` if these bytes are nothing of the kind.
pub fn decode_row(bytes: &[u8]) -> Option<KeptAt> {
    let (raw, rest): (RawRow<'_>, _) = postcard::take_from_bytes(bytes).ok()?;
    let on_disk = match raw.file {
        Some((value, RawIdentity { inode, len, mtime, ctime })) => {
            OnDisk::File { value: file_of(&value), identity: FileIdentity { inode, len, mtime, ctime } }
        }
        None => OnDisk::Folder,
    };
    let path = |text: Option<&str>| text.map(str::parse).transpose().ok();
    let row = Row { on_disk, copy_of: path(raw.copy_of)?, dots: raw.dots.into_iter().map(dot_of).collect() };
    if rest.is_empty() {
        return Some(row.into());
    }
    let raw: RawIntent<'_> = decode(rest)?;
    let value = raw.file.map_or(Value::Folder, |file| Value::File(file_of(&file)));
    let dots = raw.dots.into_iter().map(dot_of).collect();
    let intent = Intent { value, copy_of: path(raw.copy_of)?, dots };
    Some(KeptAt { row: raw.has_row.then_some(row), intent: Some(intent) })
}

fn raw_dots(dots: &[Dot]) -> Vec<RawDot> {
    dots.iter().copied().map(raw_dot).collect()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("numbers and texts in memory can always be written to memory")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

fn raw_dot(dot: Dot) -> RawDot {
    (*dot.by.as_bytes(), dot.n)
}

fn dot_of((by, n): RawDot) -> Dot {
    Dot { by: PeerId::from_bytes(by), n }
}

fn raw_file(file: &FileValue) -> RawFile {
    let FileValue { mtime_ns, content_id, len, executable } = *file;
    RawFile { mtime_ns, content_id: *content_id.as_bytes(), len, executable }
}

fn file_of(raw: &RawFile) -> FileValue {
    let RawFile { mtime_ns, content_id, len, executable } = *raw;
    FileValue { mtime_ns, content_id: ContentId::from_bytes(content_id), len, executable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rng: &mut fastrand::Rng) -> FileValue {
        let content_id = ContentId::of(&[rng.u8(..)]);
        FileValue { mtime_ns: rng.i64(..), content_id, len: rng.u64(..), executable: rng.bool() }
    }

    fn dot(rng: &mut fastrand::Rng) -> Dot {
        Dot { by: PeerId::from_bytes([rng.u8(..5); 16]), n: rng.u64(1..=1 << 52) }
    }

    /// What is written is read again; bytes that are something else never become a value that could not be made.
    #[test]
    fn there_and_back_and_never_a_panic() {
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut register = Register::default();
            for n in 1..rng.u64(1..6) {
                let replaces: Vec<_> = register.live().iter().map(|version| version.dot).take(rng.usize(..2)).collect();
                let value = if rng.bool() { Value::File(file(&mut rng)) } else { Value::Folder };
                register.write(Dot { n: n << 40, ..dot(&mut rng) }, &replaces, value);
            }
            let identity = FileIdentity {
                inode: (rng.u64(..), rng.u64(..)),
                len: rng.u64(..),
                mtime: (rng.i64(..), rng.i64(..)),
                ctime: (rng.i64(..), rng.i64(..)),
            };
            let on_disk = if rng.bool() { OnDisk::File { value: file(&mut rng), identity } } else { OnDisk::Folder };
            let copy_of = rng.bool().then(|| "a/b".parse().unwrap());
            let row = Row { on_disk, copy_of, dots: (0..rng.u8(..3)).map(|_| dot(&mut rng)).collect() };
            let intent = rng.bool().then(|| Intent {
                value: if rng.bool() { Value::File(file(&mut rng)) } else { Value::Folder },
                copy_of: rng.bool().then(|| "c".parse().unwrap()),
                dots: (0..rng.u8(..3)).map(|_| dot(&mut rng)).collect(),
            });
            let row = (intent.is_none() || rng.bool()).then_some(row);
            let row = KeptAt { row, intent };

            let (of_register, of_row) = (encode_register(&register), encode_row(&row));
            assert_eq!(decode_register(&of_register), Some(register), "seed {seed}");
            assert_eq!(decode_row(&of_row), Some(row), "seed {seed}");
            for bytes in [of_register, of_row] {
                for at in 0..bytes.len() {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << rng.u8(..8);
                    if let Some(register) = decode_register(&flipped) {
                        let text = serde_json::to_string(&register).unwrap();
                        assert!(serde_json::from_str::<Register>(&text).is_ok(), "seed {seed}, byte {at}");
                    }
                    let _any = decode_row(&flipped);
                    assert!(decode_register(&bytes[..at]).is_none_or(|it| encode_register(&it) != bytes));
                }
            }
        }
    }

    #[test]
    fn small() {
        let mut register = Register::default();
        let value = FileValue {
            mtime_ns: 1_700_000_000_000_000_000,
            content_id: ContentId::of(b""),
            len: 1 << 30,
            executable: false,
        };
        register.write(Dot { by: PeerId::from_bytes([7; 16]), n: 5 << 32 }, &[], Value::File(value));
        assert!(encode_register(&register).len() < 100);
    }
}
