//! Many small contents to their final names in one go, so that a disk is waited for once and not once for each.
//!
//! All are written as temporary files in the folder of unfinished contents and the kernel is told to begin with them; then
//! they are synced, several at once, so that the file system's journal is written once for many; then each is renamed;
//! then each folder with new names is synced.
//!
//! Invariant: no name before its data is durable, and nothing that stands somewhere is replaced. What goes wrong with one
//! content is that one's failure; only folders that cannot be synced fail all that were placed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use potluck_common::register::FileValue;
use potluck_common::{ContentId, SharePath};
use rustix::fs::{Advice, fadvise};

use super::partial::Target;
use super::place::{PlaceError, UnsyncedFolders, at_once, move_into, name_of, open_parent};
use crate::share::folder::{FileIdentity, ShareFolder, sync_dir};
use crate::sync::meta::dress;

/// A verified content of at most one chunk.
#[derive(Debug)]
pub struct Small {
    /// Its id.
    pub content_id: ContentId,
    /// All of its bytes.
    pub bytes: Bytes,
    /// Where it goes.
    pub target: Target,
    /// What it gets besides, durable with its data.
    pub dress: Option<FileValue>,
}

/// A folder that files of a batch go to.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Place {
    Share(Option<SharePath>),
    Elsewhere(Option<PathBuf>),
}

/// One temporary name is never used twice while we run: the same content may be on its way to several places.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Gives each content its name, and says in the same order what became of it. `partial` is the folder for temporary files,
/// which is emptied of them at the next start if this is cut short.
pub fn place_all(share: &ShareFolder, partial: &Dir, batch: &[Small]) -> Vec<Result<FileIdentity, PlaceError>> {
    let names: Vec<_> =
        batch.iter().map(|small| format!("{}.{}", small.content_id, NEXT.fetch_add(1, Ordering::Relaxed))).collect();
    let is_alone = batch.len() == 1;
    let written = batch.iter().zip(&names).map(|(small, name)| {
        let file = write(partial, name, small)?;
        if !is_alone {
            // The kernel begins to write when it is told that nobody will read this soon; pages that are being written
            // stay in memory. Only a hint: what counts is the sync.
            let _hint = fadvise(&file, 0, None, Advice::DontNeed);
        }
        Ok(file)
    });
    let written: Vec<io::Result<File>> = written.collect();
    let synced = at_once(&written, |file| file.as_ref().map_or(Ok(()), File::sync_data));
    let mut parents = HashMap::new();
    let mut placed = Vec::with_capacity(batch.len());
    for (((small, name), file), synced) in batch.iter().zip(&names).zip(written).zip(synced) {
        let one = || -> Result<FileIdentity, PlaceError> {
            let file = file?;
            synced?;
            let dir = match parents.entry(place_of(&small.target)) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => new.insert(open_parent(share, &small.target)?),
            };
            move_into(partial, name, &file, dir, name_of(&small.target)?)?;
            identity_of(file, dir, small)
        };
        let one = one();
        if one.is_err() {
            let _also_gone = partial.remove_file(name);
        }
        placed.push(one);
    }
    if let Err(error) = sync_folders(share, &parents, batch, &placed) {
        for one in placed.iter_mut().filter(|one| one.is_ok()) {
            *one = Err(io::Error::new(error.kind(), error.to_string()).into());
        }
    }
    placed
}

fn write(partial: &Dir, name: &str, small: &Small) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let mut file = partial.open_with(name, &options)?.into_std();
    let written = file.write_all(&small.bytes);
    match written.and_then(|()| small.dress.as_ref().map_or(Ok(()), |value| dress(&file, value))) {
        Ok(()) => Ok(file),
        Err(error) => {
            let _also_gone = partial.remove_file(name);
            Err(error)
        }
    }
}

fn place_of(target: &Target) -> Place {
    match target {
        Target::Share(path) => Place::Share(path.parent()),
        Target::Elsewhere(path) => Place::Elsewhere(path.parent().map(ToOwned::to_owned)),
    }
}

/// As it is under its new name: a rename changes the time that an identity holds, and on another file system it is a copy.
fn identity_of(file: File, dir: &Dir, small: &Small) -> Result<FileIdentity, PlaceError> {
    match small.target {
        Target::Share(_) => Ok(FileIdentity::of(&file)?),
        Target::Elsewhere(_) => Ok(FileIdentity::of(dir.open(name_of(&small.target)?)?)?),
    }
}

fn sync_folders(
    share: &ShareFolder,
    parents: &HashMap<Place, Dir>,
    batch: &[Small],
    placed: &[Result<FileIdentity, PlaceError>],
) -> io::Result<()> {
    let mut folders = UnsyncedFolders::default();
    for (small, _) in batch.iter().zip(placed).filter(|(_, placed)| placed.is_ok()) {
        if let Target::Share(path) = &small.target {
            folders.note(path);
        }
    }
    folders.sync(share)?;
    let mut elsewhere = parents.iter().filter(|(place, _)| matches!(place, Place::Elsewhere(_)));
    elsewhere.try_for_each(|(_, dir)| sync_dir(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(target: Target, bytes: &[u8]) -> Small {
        Small { content_id: ContentId::of(bytes), bytes: Bytes::copy_from_slice(bytes), target, dress: None }
    }

    /// Each failure is one file's: what stands somewhere, a file where a folder should be, a name no file system takes.
    #[test]
    fn what_fails_fails_alone() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let (share, partial) = (at("share"), at("partial"));
        std::fs::create_dir_all(share.join("d")).unwrap();
        std::fs::create_dir(&partial).unwrap();
        std::fs::create_dir(at("out")).unwrap();
        std::fs::write(share.join("d/old"), "old and longer").unwrap();
        let folder = ShareFolder::open(&share).unwrap();
        let partials = Dir::open_ambient_dir(&partial, cap_std::ambient_authority()).unwrap();
        let inside = |path: &str| Target::Share(path.parse().unwrap());
        let mut batch: Vec<_> =
            (0..20).map(|n| small(inside(&format!("many/{}/{n}", n % 3)), format!("number {n}").as_bytes())).collect();
        batch.extend([
            small(inside("d/old"), b"new"),
            small(inside("d/old/below"), b"below a file"),
            small(Target::Elsewhere(at("out/").join("x".repeat(300))), b"too long a name"),
            small(Target::Elsewhere(at("nowhere/x")), b"no such folder"),
            small(Target::Elsewhere(at("out/y")), b"elsewhere"),
            small(inside("empty"), b""),
            small(inside("d/empty"), b""),
            small(inside("d/empty"), b""),
        ]);
        let placed = place_all(&folder, &partials, &batch);
        let failed: Vec<_> = placed.iter().enumerate().filter(|(_, placed)| placed.is_err()).map(|(n, _)| n).collect();
        assert_eq!(failed, [20, 21, 22, 23, 27], "{placed:?}");
        assert!(matches!(placed[20], Err(PlaceError::Taken)) && matches!(placed[27], Err(PlaceError::Taken)));
        for (small, placed) in batch.iter().zip(&placed) {
            let Ok(identity) = placed else { continue };
            let path = super::super::place::path_of(&folder, &small.target);
            assert_eq!(std::fs::read(&path).unwrap(), small.bytes);
            assert_eq!(FileIdentity::of(File::open(path).unwrap()).unwrap(), *identity);
        }
        assert_eq!(std::fs::read_to_string(share.join("d/old")).unwrap(), "old and longer");
        assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0, "nothing is left over");
    }

    /// Without a place for temporary files nothing gets a name.
    #[test]
    fn nowhere_to_write() {
        let temp = tempfile::tempdir().unwrap();
        let folder = ShareFolder::open(temp.path()).unwrap();
        std::fs::create_dir(temp.path().join("gone")).unwrap();
        let partials = folder.dir().open_dir("gone").unwrap();
        std::fs::remove_dir(temp.path().join("gone")).unwrap();
        let batch = ["a", "b"].map(|name| small(Target::Share(name.parse().unwrap()), name.as_bytes()));
        assert!(place_all(&folder, &partials, &batch).iter().all(Result::is_err));
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
