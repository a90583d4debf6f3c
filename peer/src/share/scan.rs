//! Listing the share folder: which files are there, in which state, and what cannot be shared.
//!
//! Symlinks are resolved inside the folder only: a link to a file here is shared as that file, a link to a folder here
//! is walked (one such link deep, and never into a folder that contains it), a link that leads outside does not
//! exist. Special files, names that no share path can express, and potluck's own folder are left out and
//! counted. What the ignore rules name is left out too; the rules are read on the way.

use std::io;

use cap_std::fs::{Dir, FileType, MetadataExt};
use potluck_common::share_path::STATE_DIR;
use potluck_common::{SharePath, share_path::SharePathError};

use super::folder::{FileIdentity, ShareFolder};
use super::ignore::{IgnoreRules, Kind, read_ignore_file};

/// Something in the folder that is not shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Where, as well as it can be written.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What a scan met besides the files it gave out.
#[derive(Debug, Default)]
pub struct ScanReport {
    /// Files given out.
    pub n_files: u64,
    /// Entries left out; the first [`MAX_SKIPPED_NAMED`] with their reasons.
    pub n_skipped: u64,
    /// The first of them.
    pub skipped: Vec<Skipped>,
    /// The ignore rules as they are now: those that were known before, and what was read on the way in their place.
    pub rules: IgnoreRules,
}

/// So many left-out entries are named in a report.
pub const MAX_SKIPPED_NAMED: usize = 20;

/// Gives every file at or below `start` (everything, if `None`) to `found`, until that returns `false`; `rules` are the ignore
/// rules as far as they are known.
///
/// # Errors
/// If the start itself cannot be listed, but for one that does not exist: nothing is found there.
pub fn scan(
    folder: &ShareFolder,
    start: Option<&SharePath>,
    rules: &IgnoreRules,
    found: &mut dyn FnMut(SharePath, FileIdentity) -> bool,
) -> io::Result<ScanReport> {
    let mut report = ScanReport { rules: rules.clone(), ..ScanReport::default() };
    report.rules.forget_below(start);
    let mut walk = Walk { folder, found, before: rules, report, going: true, above: Vec::new() };
    match start {
        None => {
            let dir = folder.dir().try_clone()?;
            walk.list(None, &dir, 0)?;
        }
        Some(path) if path.parent().is_some_and(|above| rules.is_ignored(&above, Kind::Folder)) => {}
        Some(path) => match folder.dir().symlink_metadata(path.as_str()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
            Ok(metadata) => {
                let (parent, name) = (path.parent(), path.file_name());
                let dir = match &parent {
                    Some(parent) => folder.dir().open_dir(parent.as_str())?,
                    None => folder.dir().try_clone()?,
                };
                walk.visit(parent.as_ref(), &dir, name.as_ref(), metadata.file_type(), 0);
            }
        },
    }
    Ok(walk.report)
}

struct Walk<'a> {
    folder: &'a ShareFolder,
    found: &'a mut dyn FnMut(SharePath, FileIdentity) -> bool,
    before: &'a IgnoreRules,
    report: ScanReport,
    going: bool,
    /// Device and inode of the folders we are inside of.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    fn list(&mut self, path: Option<&SharePath>, dir: &Dir, n_links: u32) -> io::Result<()> {
        let metadata = dir.dir_metadata()?;
        let inode = (metadata.dev(), metadata.ino());
        if self.above.contains(&inode) {
            return Ok(());
        }
        self.above.push(inode);
        self.report.rules.put(path.cloned(), read_ignore_file(self.folder, path), self.before);
        for entry in dir.entries()? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.skip(path, "?".as_ref(), &error.to_string());
                    continue;
                }
            };
            match entry.file_type() {
                Ok(kind) => self.visit(path, dir, &entry.file_name(), kind, n_links),
                Err(error) => self.skip(path, &entry.file_name(), &error.to_string()),
            }
            if !self.going {
                break;
            }
        }
        self.above.pop();
        Ok(())
    }

    fn visit(&mut self, parent: Option<&SharePath>, dir: &Dir, name: &std::ffi::OsStr, kind: FileType, n_links: u32) {
        if parent.is_none() && name == STATE_DIR {
            return;
        }
        let path = match SharePath::join(parent, name) {
            Ok(path) => path,
            Err(error @ SharePathError::Reserved) => return self.skip(parent, name, &error.to_string()),
            Err(error) => return self.skip(parent, name, &error.to_string()),
        };
        let outcome = if kind.is_file() {
            self.file(path)
        } else if kind.is_dir() {
            if self.report.rules.matches(&path, Kind::Folder) {
                return;
            }
            dir.open_dir(name).and_then(|dir| self.list(Some(&path), &dir, n_links))
        } else if kind.is_symlink() {
            match self.folder.dir().metadata(path.as_str()) {
                Ok(target) if target.is_file() => self.file(path),
                Ok(target) if target.is_dir() && n_links == 0 => {
                    if self.report.rules.matches(&path, Kind::Folder) {
                        return;
                    }
                    self.folder.dir().open_dir(path.as_str()).and_then(|dir| self.list(Some(&path), &dir, n_links + 1))
                }
                Ok(_) => return self.skip(parent, name, "a link to something that is not shared"),
                Err(_) => return self.skip(parent, name, "a link that leads nowhere or out of the share folder"),
            }
        } else {
            return self.skip(parent, name, "not a regular file");
        };
        match outcome {
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.skip(parent, name, &error.to_string()),
            Ok(()) => {}
        }
    }

    fn file(&mut self, path: SharePath) -> io::Result<()> {
        if self.report.rules.matches(&path, Kind::File) {
            return Ok(());
        }
        let (_, identity) = self.folder.open_file(&path)?;
        self.report.n_files += 1;
        self.going = (self.found)(path, identity);
        Ok(())
    }

    fn skip(&mut self, parent: Option<&SharePath>, name: &std::ffi::OsStr, reason: &str) {
        self.report.n_skipped += 1;
        if self.report.skipped.len() < MAX_SKIPPED_NAMED {
            let parent = parent.map(|parent| format!("{parent}/")).unwrap_or_default();
            let name = format!("{parent}{}", name.to_string_lossy());
            self.report.skipped.push(Skipped { name, reason: reason.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    fn names(folder: &ShareFolder, start: Option<&str>) -> (Vec<String>, ScanReport) {
        let mut names = Vec::new();
        let start = start.map(|start| start.parse().unwrap());
        let report = scan(folder, start.as_ref(), &IgnoreRules::default(), &mut |path, _| {
            names.push(path.to_string());
            true
        })
        .unwrap();
        names.sort();
        (names, report)
    }

    /// P12, P14 and the policy on links.
    #[test]
    fn what_is_shared_and_what_is_not() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at(".potluck/partial")).unwrap();
        for name in ["top", "a/one", "a/b/two", ".potluck/identity.0", ".potluckignore"] {
            std::fs::write(at(name), name).unwrap();
        }
        std::fs::write(temp.path().join(std::ffi::OsStr::from_bytes(b"bad\xff")), "x").unwrap();
        std::fs::write(at("new\nline"), "x").unwrap();
        symlink("a/one", at("to-file")).unwrap();
        symlink("a", at("to-dir")).unwrap();
        symlink("..", at("a/b/cycle")).unwrap();
        symlink(outside.path().join("secret"), at("escape")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let folder = ShareFolder::open(temp.path()).unwrap();
        let (all, report) = names(&folder, None);
        assert_eq!(all, [".potluckignore", "a/b/two", "a/one", "to-dir/b/two", "to-dir/one", "to-file", "top"]);
        assert_eq!(report.n_files, 7);
        let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
        for name in ["escape", "dangling", "socket", "new\nline", "bad\u{fffd}"] {
            assert!(skipped.contains(&name), "{name}: {skipped:?}");
        }
        assert_eq!(names(&folder, Some("a")).0, ["a/b/two", "a/one"]);
        assert_eq!(names(&folder, Some("a/one")).0, ["a/one"]);
        assert_eq!(names(&folder, Some("a/missing/x")).0, Vec::<String>::new());
        assert_eq!(names(&folder, Some("top/x")).0, Vec::<String>::new());
    }

    #[test]
    fn what_is_ignored_is_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("build/deep")).unwrap();
        std::fs::create_dir_all(at("d/out")).unwrap();
        for name in ["a", "a.tmp", "build/x", "build/deep/y", "d/keep.tmp", "d/x.tmp", "d/out/z"] {
            std::fs::write(at(name), name).unwrap();
        }
        symlink("build", at("link")).unwrap();
        std::fs::write(at(".potluckignore"), "*.tmp\nbuild/\nlink\n").unwrap();
        std::fs::write(at("d/.potluckignore"), "!keep.tmp\n/out/\n").unwrap();
        let folder = ShareFolder::open(temp.path()).unwrap();
        let (all, report) = names(&folder, None);
        assert_eq!(all, [".potluckignore", "a", "d/.potluckignore", "d/keep.tmp"]);
        assert_eq!(report.n_skipped, 0);
        let from = |start: &str| {
            let mut names = Vec::new();
            let start = start.parse().unwrap();
            scan(&folder, Some(&start), &report.rules, &mut |path, _| {
                names.push(path.to_string());
                true
            })
            .unwrap();
            names
        };
        // Wherever a look begins.
        for ignored in ["build", "build/deep", "build/deep/y", "a.tmp", "d/x.tmp", "d/out", "d/out/z", "link/x"] {
            assert_eq!(from(ignored), Vec::<String>::new(), "{ignored}");
        }
        assert_eq!(from("d").len(), 2);
        assert_eq!(from("d/keep.tmp"), ["d/keep.tmp"]);
        // Rules that are gone are forgotten where they were looked for.
        std::fs::remove_file(at("d/.potluckignore")).unwrap();
        assert_eq!(from("d"), ["d/out/z"]);
    }
}
