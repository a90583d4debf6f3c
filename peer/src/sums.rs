//! Content ids of files as `b3sum` prints them and `b3sum --check` reads them; no peer is needed for it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use potluck_common::ContentId;
use serde::Serialize;

use crate::render::{Format, Look, Out, failure};
use crate::share::folder::FileIdentity;
use crate::share::hashing::{HashError, hash_file};
use crate::verb::{Failed, FailureKind};

/// Read at once where a file has no length to begin with.
const READ_LEN: usize = 256 << 10;
/// The name of standard input.
const STDIN: &str = "-";

/// One line of `b3sum`: the id, two spaces, the name. What would break the line is escaped, and a backslash in front says so.
pub fn line(id: ContentId, name: &str) -> String {
    if name.contains(['\\', '\n']) {
        return format!("\\{id}  {}", name.replace('\\', "\\\\").replace('\n', "\\n"));
    }
    format!("{id}  {name}")
}

/// One file, for programs.
#[derive(Serialize)]
struct Hashed<'a> {
    path: &'a str,
    content_id: ContentId,
    len: u64,
}

/// Prints the id of each file, and says which cannot be read; the exit code is that of the first failure.
///
/// # Errors
/// If standard output cannot be written.
pub fn hash(files: &[impl AsRef<Path>], format: Format, out: &mut Out) -> io::Result<u8> {
    let mut code = 0;
    for path in files.iter().map(AsRef::as_ref) {
        let name = path.to_string_lossy();
        match id_of(path) {
            Ok((id, len)) => out.result(&match format {
                Format::Text => line(id, &name),
                Format::Json => serde_json::to_string(&Hashed { path: &name, content_id: id, len })?,
            })?,
            Err(error) => {
                let kind = match error.kind() {
                    io::ErrorKind::NotFound => FailureKind::NotFound,
                    _ => FailureKind::Failed,
                };
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => {
                        "Say where the file is; of what others share, `manifest --everybody` tells the ids."
                    }
                    io::ErrorKind::IsADirectory => "hash takes files, for example all of a folder: hash FOLDER/*",
                    _ => "Name a file that this user can read.",
                };
                let failed = Failed::new(kind, format!("cannot hash {name}: {error}"), hint);
                out.remark(&failure(&failed, &Look::of_process()));
                code = if code == 0 { kind.exit_code() } else { code };
            }
        }
    }
    Ok(code)
}

fn id_of(path: &Path) -> io::Result<(ContentId, u64)> {
    if path == Path::new(STDIN) {
        return id_of_stream(io::stdin().lock());
    }
    let file = File::open(path)?;
    // Of a pipe, and of files of /proc, which have bytes but no length.
    let Some(identity) = FileIdentity::of(&file).ok().filter(|identity| identity.len > 0) else {
        return id_of_stream(file);
    };
    let n_threads = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    match hash_file(&file, identity, n_threads) {
        Ok(map) => Ok((map.content_id(), identity.len)),
        // Too long to be shared, not to be hashed.
        Err(HashError::TooLong(_)) => id_of_stream(file),
        Err(HashError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn id_of_stream(mut stream: impl Read) -> io::Result<(ContentId, u64)> {
    let (mut hasher, mut buffer, mut len) = (blake3::Hasher::new(), vec![0; READ_LEN], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((ContentId::from_bytes(hasher.finalize().into()), len)),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                len += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
