//! Torrent files (BEP 3) with web seeds (BEP 19): what BitTorrent clients need to fetch from owners over HTTP. Pure.
//!
//! Invariant: what is hashed to the info hash depends on the name and the contents alone, so every owner makes the same
//! torrent and only the list of owners differs.

use std::collections::BTreeMap;

use potluck_common::SharePath;

/// Their media type.
pub const CONTENT_TYPE: &str = "application/x-bittorrent";
/// Their ending.
pub const SUFFIX: &str = ".torrent";

/// What a torrent is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// One file, and its length in bytes.
    File(u64),
    /// A folder: the files' paths below it and their lengths in bytes.
    Folder(&'a [(SharePath, u64)]),
}

/// The text of a torrent. `pieces` are SHA-1 sums, 20 bytes each, of pieces of `piece_len` bytes of all files one after the other.
/// `seeds` are URLs: of the file itself, or of what the folder lies in, with a slash at the end.
pub fn torrent(name: &str, subject: Subject<'_>, piece_len: u64, pieces: &[u8], seeds: &[String]) -> Vec<u8> {
    let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
    let mut info = BTreeMap::from([
        ("name", text(name)),
        ("piece length", Value::Int(piece_len)),
        ("pieces", Value::Bytes(pieces.to_vec())),
        // Clients that find each other through public services would tell strangers what is shared here.
        ("private", Value::Int(1)),
    ]);
    match subject {
        Subject::File(len) => drop(info.insert("length", Value::Int(len))),
        Subject::Folder(files) => {
            let files = files.iter().map(|(path, len)| {
                let path = Value::List(path.components().map(text).collect());
                Value::Dict(BTreeMap::from([("length", Value::Int(*len)), ("path", path)]))
            });
            info.insert("files", Value::List(files.collect()));
        }
    }
    let torrent = Value::Dict(BTreeMap::from([
        ("created by", text(concat!("potluck/", env!("CARGO_PKG_VERSION")))),
        ("info", Value::Dict(info)),
        ("url-list", Value::List(seeds.iter().map(|seed| text(seed)).collect())),
    ]));
    let mut bytes = Vec::new();
    torrent.write(&mut bytes);
    bytes
}

/// What bencoding can say. Keys of a dictionary stand in the order of their bytes.
enum Value {
    Int(u64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Dict(BTreeMap<&'static str, Value>),
}

impl Value {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Int(n) => to.extend(format!("i{n}e").bytes()),
            Self::Bytes(bytes) => write_bytes(bytes, to),
            Self::List(items) => {
                to.push(b'l');
                items.iter().for_each(|item| item.write(to));
                to.push(b'e');
            }
            Self::Dict(entries) => {
                to.push(b'd');
                for (key, value) in entries {
                    write_bytes(key.as_bytes(), to);
                    value.write(to);
                }
                to.push(b'e');
            }
        }
    }
}

fn write_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    to.extend(format!("{}:", bytes.len()).bytes());
    to.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED_BY: &str = concat!("10:created by13:potluck/", env!("CARGO_PKG_VERSION"));

    #[test]
    fn of_a_file() {
        let seeds = ["http://10.0.0.1:7701/a".to_owned(), "http://10.0.0.2:7701/b".to_owned()];
        let bytes = torrent("brûlée", Subject::File(3), 1 << 20, b"01234567890123456789", &seeds);
        let want = format!(
            "d{CREATED_BY}4:infod6:lengthi3e4:name8:brûlée12:piece lengthi1048576e6:pieces20:01234567890123456789\
             7:privatei1ee8:url-listl22:http://10.0.0.1:7701/a22:http://10.0.0.2:7701/bee"
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), want);
    }

    #[test]
    fn of_a_folder() {
        let files = [("a", 0), ("b/c d", 7)].map(|(path, len)| (path.parse().unwrap(), len));
        let bytes = torrent("docs", Subject::Folder(&files), 1 << 20, b"01234567890123456789", &[]);
        let want = format!(
            "d{CREATED_BY}4:infod5:filesld6:lengthi0e4:pathl1:aeed6:lengthi7e4:pathl1:b3:c deee4:name4:docs\
             12:piece lengthi1048576e6:pieces20:012345678901234567897:privatei1ee8:url-listlee"
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), want);
    }
}
