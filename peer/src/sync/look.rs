//! Looking: what stands at a real path, and below it, without following a single link.
//!
//! A link is neither a file nor a folder of the synced folder: whoever made it on one machine did not mean the others. Where
//! one stands in the place of a file or a folder, what was there is [obscured](Look::Obscured): not told, and not taken for deleted
//! either. The same goes for what cannot be read, and for what lay on a file system that is not mounted any more.
//! It tells states, not contents; those the library knows.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;

use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, MetadataExt};
use potluck_common::SharePath;
use potluck_common::share_path::STATE_DIR;
use rustix::io::Errno;

use super::mounts::{Mounts, is_mount_point};
use crate::share::folder::{FileIdentity, ShareFolder};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A file in this state.
    File {
        /// Its state.
        identity: FileIdentity,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A folder.
    Folder,
    /// Nothing.
    Nothing,
    /// What stood there, and below, cannot be told.
    Obscured(Veil),
}

/// Why it cannot be told what stands at a path and below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Veil {
    /// A link stands there.
    Link,
    /// A pipe, a socket or a device stands there.
    Special,
    /// A file system was mounted there, and is not now.
    Unmounted,
    /// It cannot be read.
    Unreadable(Errno),
}

impl fmt::Display for Veil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("a link stands there, which is not followed; others keep what they have"),
            Self::Special => f.write_str("a pipe, socket or device stands there; others keep what they have"),
            Self::Unmounted => f.write_str(
                "what was mounted there is not any more; mount it again, or say sync confirm or sync restore",
            ),
            Self::Unreadable(errno) => {
                write!(f, "cannot be read ({}); others keep what they have", io::Error::from(*errno))
            }
        }
    }
}

/// The bit of a file's mode that says that its owner may execute it.
const OWNER_MAY_EXECUTE: u32 = 0o100;

/// Tells what stands at `start` (which is told even if it is nothing), and everything below it; with `None`, in the whole
/// folder. Ends early when `found` returns `false`. Mount points that it meets it notes in `mounts`.
///
/// # Errors
/// If the folder itself cannot be listed, or there is no memory or descriptor for it: then nothing follows from what was not told.
pub fn look(
    folder: &ShareFolder,
    start: Option<&SharePath>,
    mounts: &Mounts,
    found: &mut dyn FnMut(SharePath, Look) -> bool,
) -> io::Result<()> {
    let mut walk = Walk { mounts, found, going: true, met: BTreeSet::new() };
    match start {
        None => walk.list(None, folder.dir(), names_in(folder.dir())?)?,
        Some(path) => walk.start(folder, path)?,
    }
    // Last, since what is told of a folder above is told of all that is below.
    for point in mounts.below(start) {
        if walk.going && !walk.met.contains(&point) {
            walk.start(folder, &point)?;
        }
    }
    Ok(())
}

/// Nothing is there, or it is behind a link or a file.
fn is_none_of_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// What an error says of the place, unless it says something of us only.
fn veil(error: io::Error) -> io::Result<Look> {
    match Errno::from_io_error(&error) {
        None | Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Err(error),
        Some(errno) => Ok(Look::Obscured(Veil::Unreadable(errno))),
    }
}

fn names_in(dir: &Dir) -> io::Result<Vec<OsString>> {
    dir.entries()?.map(|entry| Ok(entry?.file_name())).collect()
}

struct Walk<'a> {
    mounts: &'a Mounts,
    found: &'a mut dyn FnMut(SharePath, Look) -> bool,
    going: bool,
    /// Mount points that were told of.
    met: BTreeSet<SharePath>,
}

impl Walk<'_> {
    /// Goes down to `path`; whatever is in the way there is told of it.
    fn start(&mut self, folder: &ShareFolder, path: &SharePath) -> io::Result<()> {
        let mut dir = folder.dir().try_clone()?;
        let mut above: Option<SharePath> = None;
        let mut folders = path.components();
        folders.next_back();
        for name in folders {
            let here = SharePath::join(above.as_ref(), name.as_ref()).map_err(io::Error::other)?;
            let look = match self.open(&here, &dir, name.as_ref()) {
                Ok(Ok(below)) => {
                    (dir, above) = (below, Some(here));
                    continue;
                }
                Ok(Err(look)) => look,
                Err(error) => return Err(error),
            };
            let look = match look {
                Look::Obscured(_) => look,
                _ if self.mounts.cover(path) => Look::Obscured(Veil::Unmounted),
                _ => Look::Nothing,
            };
            self.met.insert(path.clone());
            self.going = (self.found)(path.clone(), look);
            return Ok(());
        }
        self.visit(path.clone(), &dir, path.file_name().as_ref())
    }

    /// Opens the folder that stands there, or says what stands there instead.
    fn open(&self, path: &SharePath, dir: &Dir, name: &OsStr) -> io::Result<Result<Dir, Look>> {
        let look = match dir.open_dir_nofollow(name) {
            Ok(opened) => match (is_mount_point(&opened), self.mounts.has(path)) {
                (false, true) => Look::Obscured(Veil::Unmounted),
                (is_mount, is_known) => {
                    if is_mount && !is_known {
                        self.mounts.note(path.clone());
                    }
                    return Ok(Ok(opened));
                }
            },
            Err(error) if is_none_of_ours(&error) => look_at(dir, name)?,
            Err(error) => veil(error)?,
        };
        let is_gone_mount = matches!(look, Look::Nothing | Look::Folder) && self.mounts.has(path);
        Ok(Err(if is_gone_mount { Look::Obscured(Veil::Unmounted) } else { look }))
    }

    fn list(&mut self, path: Option<&SharePath>, dir: &Dir, names: Vec<OsString>) -> io::Result<()> {
        for name in names {
            if !self.going {
                break;
            }
            if path.is_none() && name == STATE_DIR {
                continue;
            }
            // What no share path can express is not ours.
            if let Ok(path) = SharePath::join(path, &name) {
                self.visit(path, dir, &name)?;
            }
        }
        Ok(())
    }

    fn visit(&mut self, path: SharePath, dir: &Dir, name: &OsStr) -> io::Result<()> {
        let mut look = look_at(dir, name)?;
        let mut below = None;
        // A folder is told only once it could be listed: until then it is not known whether anything is missing in it.
        if look == Look::Folder || (look == Look::Nothing && self.mounts.has(&path)) {
            match self.open(&path, dir, name)? {
                Ok(opened) => match names_in(&opened) {
                    Ok(names) => below = Some((opened, names)),
                    Err(error) => look = veil(error)?,
                },
                // Else it is gone since it was looked at; whoever watches hears of it.
                Err(other) => look = other,
            }
        }
        if self.mounts.has(&path) {
            self.met.insert(path.clone());
        }
        self.going = (self.found)(path.clone(), look);
        match below {
            Some((opened, names)) if self.going => self.list(Some(&path), &opened, names),
            _ => Ok(()),
        }
    }
}

fn look_at(dir: &Dir, name: &OsStr) -> io::Result<Look> {
    let metadata = match dir.symlink_metadata(name) {
        Err(error) if is_none_of_ours(&error) => return Ok(Look::Nothing),
        Err(error) => return veil(error),
        Ok(metadata) => metadata,
    };
    if metadata.is_dir() {
        return Ok(Look::Folder);
    }
    if !metadata.is_file() {
        return Ok(Look::Obscured(if metadata.is_symlink() { Veil::Link } else { Veil::Special }));
    }
    let identity = FileIdentity {
        inode: (metadata.dev(), metadata.ino()),
        len: metadata.size(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        ctime: (metadata.ctime(), metadata.ctime_nsec()),
    };
    Ok(Look::File { identity, executable: metadata.mode() & OWNER_MAY_EXECUTE != 0 })
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
