//! Ignore rules: what in the share folder is not shared, as `.potluckignore` files say.
//!
//! The syntax is that of `.gitignore`. Each folder may have such a file; a pattern holds from the file's own folder down, the
//! file in the deeper folder decides first, and in one file the last pattern that fits. What lies in an ignored folder is
//! ignored; no `!` brings it back. The ignore files themselves are shared, whatever they say, unless their folder is ignored.
//!
//! Matching is by share path and touches no disk. The files come from other peers too, so they are bounded in length and
//! number.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use potluck_common::SharePath;
use potluck_common::share_path::IGNORE_FILE;

use super::folder::ShareFolder;

/// Longer ignore files are not read: their patterns are compiled, and everything in the folder is matched with them.
const MAX_FILE_LEN: u64 = 64 << 10;
/// Patterns of one file beyond so many are passed over.
const MAX_PATTERNS: usize = 2_000;
/// Further ignore files of one share folder are passed over.
const MAX_FILES: usize = 1_000;

/// What a path stands for, since some patterns are for folders only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
}

/// A pattern that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern {
    /// Its line, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

/// One ignore file.
#[derive(Debug)]
struct IgnoreFile {
    text: String,
    matcher: Gitignore,
    bad: Vec<BadPattern>,
}

/// The rules of a whole share folder. Clones are cheap.
#[derive(Debug, Clone, Default)]
pub struct IgnoreRules {
    files: BTreeMap<Option<SharePath>, Arc<IgnoreFile>>,
}

impl PartialEq for IgnoreRules {
    fn eq(&self, other: &Self) -> bool {
        let texts =
            |rules: &Self| rules.files.iter().map(|(at, file)| (at.clone(), file.text.clone())).collect::<Vec<_>>();
        self.files.len() == other.files.len() && texts(self) == texts(other)
    }
}

impl IgnoreRules {
    /// Whether a path, or a folder above it, is ignored.
    pub fn is_ignored(&self, path: &SharePath, kind: Kind) -> bool {
        if self.files.is_empty() {
            return false;
        }
        // From the top: below an ignored folder nothing else counts.
        let mut folders = Vec::new();
        let mut above = path.parent();
        while let Some(folder) = above {
            above = folder.parent();
            folders.push(folder);
        }
        folders.iter().rev().any(|folder| self.matches(folder, Kind::Folder)) || self.matches(path, kind)
    }

    /// The same where it is not known what stands there.
    pub fn is_ignored_as_either(&self, path: &SharePath) -> bool {
        self.is_ignored(path, Kind::Folder) || self.is_ignored(path, Kind::File)
    }

    /// Whether a path in a folder that is not ignored is.
    pub fn matches(&self, path: &SharePath, kind: Kind) -> bool {
        if self.files.is_empty() || path.file_name() == IGNORE_FILE {
            return false;
        }
        let text = path.as_str();
        let mut folder = path.parent();
        loop {
            if let Some(file) = self.files.get(&folder) {
                let below = folder.as_ref().map_or(text, |folder| &text[folder.as_str().len() + 1..]);
                match file.matcher.matched(below, kind == Kind::Folder) {
                    Match::Ignore(_) => return true,
                    Match::Whitelist(_) => return false,
                    Match::None => {}
                }
            }
            match folder {
                None => return false,
                Some(deeper) => folder = deeper.parent(),
            }
        }
    }

    /// Notes what the ignore file in a folder says, if there is one; compiled anew only if `before` had another text there.
    pub fn put(&mut self, folder: Option<SharePath>, text: Option<String>, before: &Self) {
        let Some(text) = text else {
            self.files.remove(&folder);
            return;
        };
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&folder) {
            let folder = folder.as_ref().map(SharePath::as_str);
            tracing::warn!(folder, "more than {MAX_FILES} ignore files; this one is passed over");
            return;
        }
        let known = before.files.get(&folder).filter(|file| file.text == text);
        let file = known.cloned().unwrap_or_else(|| Arc::new(IgnoreFile::parse(text)));
        self.files.insert(folder, file);
    }

    /// Forgets the ignore files in and below a folder; with `None`, all.
    pub fn forget_below(&mut self, folder: Option<&SharePath>) {
        let is_below = |path: &SharePath| {
            folder.is_none_or(|folder| {
                path.as_str().strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        self.files.retain(|at, _| match at {
            None => folder.is_some(),
            Some(at) => !is_below(at),
        });
    }

    /// The patterns that were passed over, each with its file's folder.
    pub fn bad(&self) -> impl Iterator<Item = (Option<&SharePath>, &BadPattern)> {
        self.files.iter().flat_map(|(folder, file)| file.bad.iter().map(move |bad| (folder.as_ref(), bad)))
    }
}

impl IgnoreFile {
    fn parse(text: String) -> Self {
        let mut builder = GitignoreBuilder::new("");
        let mut bad = Vec::new();
        let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().enumerate().map(|(n, line)| (n + 1, line));
        let patterns = lines.filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
        for (n, (line, pattern)) in patterns.enumerate() {
            if n >= MAX_PATTERNS {
                bad.push(BadPattern { line, reason: format!("more than {MAX_PATTERNS} patterns in a file") });
                break;
            }
            if let Err(error) = builder.add_line(None, pattern) {
                bad.push(BadPattern { line, reason: error.to_string() });
            }
        }
        let matcher = builder.build().unwrap_or_else(|error| {
            bad.push(BadPattern { line: 1, reason: format!("none of this file's patterns can be used: {error}") });
            Gitignore::empty()
        });
        Self { text, matcher, bad }
    }
}

/// The text of the ignore file in a folder, if there is one that can be read.
pub fn read_ignore_file(share: &ShareFolder, folder: Option<&SharePath>) -> Option<String> {
    let path = SharePath::join(folder, IGNORE_FILE.as_ref()).ok()?;
    let read = share.open_file(&path).and_then(|(file, identity)| {
        if identity.len > MAX_FILE_LEN {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_FILE_LEN} bytes")));
        }
        let mut text = String::new();
        file.take(MAX_FILE_LEN).read_to_string(&mut text)?;
        Ok(text)
    });
    match read {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = path.as_str(), %error, "an ignore file is passed over");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: &[(&str, &str)]) -> IgnoreRules {
        let mut rules = IgnoreRules::default();
        for (folder, text) in files {
            let folder = (!folder.is_empty()).then(|| folder.parse().unwrap());
            rules.put(folder, Some((*text).to_owned()), &IgnoreRules::default());
        }
        rules
    }

    /// `ignored` and `shared`: a trailing `/` says that it is a folder.
    fn check(files: &[(&str, &str)], ignored: &[&str], shared: &[&str]) {
        let rules = rules(files);
        for (names, want) in [(ignored, true), (shared, false)] {
            for name in names {
                let kind = if name.ends_with('/') { Kind::Folder } else { Kind::File };
                let path: SharePath = name.trim_end_matches('/').parse().unwrap();
                assert_eq!(rules.is_ignored(&path, kind), want, "{files:?}: {name}");
            }
        }
    }

    #[test]
    fn as_git_does() {
        check(&[], &[], &["a", "b/c"]);
        check(&[("", "*.tmp\n# a comment\n\n")], &["a.tmp", "d/b.tmp", "x.tmp/y", "x.tmp/"], &["a", "# a comment"]);
        check(&[("", "/a")], &["a", "a/b", "a/"], &["d/a"]);
        check(&[("", "build/")], &["build/", "build/x", "d/build/x"], &["build", "d/build"]);
        check(&[("", "d/*.o")], &["d/x.o"], &["x.o", "e/d/x.o", "d/e/x.o"]);
        check(&[("", "**/x/y")], &["x/y", "a/x/y", "a/b/x/y/z"], &["x", "y"]);
        check(&[("", "a/**/b")], &["a/b", "a/x/b", "a/x/y/b"], &["b", "a/x"]);
        check(&[("", "*.log\n!keep.log")], &["a.log"], &["keep.log", "d/keep.log"]);
        check(&[("", "!keep.log\n*.log")], &["keep.log"], &[]);
        check(&[("", "d/\n!d/keep")], &["d/keep", "d/"], &[]);
        check(&[("", "d/*\n!d/keep")], &["d/x"], &["d/keep", "d/"]);
        check(&[("", "[ab]?c")], &["axc", "bxc"], &["cxc", "ac"]);
        check(&[("", "\\#x\n\\!y\nend\\ ")], &["#x", "!y", "end "], &["x", "y", "end"]);
        check(&[("", "Thumbs.db\r\n*.bak\r\n")], &["Thumbs.db", "a.bak"], &["thumbs.db"]);
        check(&[("", "\u{feff}*.x")], &["a.x"], &[]);
        check(&[("", "<img>\n$(id)\nné")], &["<img>", "$(id)", "d/né"], &[]);
    }

    #[test]
    fn the_deeper_file_decides_first() {
        let files = [("", "*.log\n/top"), ("d", "!*.log\n/a\nx/"), ("d/e", "b.log")];
        check(
            &files,
            &["a.log", "top", "d/a", "d/x/y", "d/e/b.log", "e/c.log"],
            &["d/a.log", "d/e/a.log", "d/top", "a"],
        );
        // A folder that is ignored from above has no say.
        check(&[("", "d/"), ("d", "!*")], &["d/x"], &[]);
    }

    #[test]
    fn ignore_files_are_shared_themselves() {
        check(&[("", "*")], &["a", "d/", "d/.potluckignore"], &[".potluckignore"]);
        check(&[("", ".potluckignore")], &[], &[".potluckignore", "d/.potluckignore"]);
    }

    #[test]
    fn bad_patterns_are_named_and_the_others_hold() {
        let rules = rules(&[("", "*.a\n[z-a]\n*.b"), ("d", "{a\\")]);
        let bad: Vec<_> = rules.bad().map(|(folder, bad)| (folder.map(SharePath::as_str), bad.line)).collect();
        assert_eq!(bad, [(None, 2), (Some("d"), 1)]);
        assert!(rules.is_ignored(&"x.a".parse().unwrap(), Kind::File));
        assert!(rules.is_ignored(&"x.b".parse().unwrap(), Kind::File));
        let many = "x\n".repeat(MAX_PATTERNS + 5);
        let many = self::rules(&[("", &many)]);
        assert_eq!(many.bad().count(), 1);
        assert!(many.is_ignored(&"x".parse().unwrap(), Kind::File));
    }

    #[test]
    fn known_text_is_not_compiled_again_and_others_are_forgotten() {
        let before = rules(&[("", "*.a"), ("d", "*.b"), ("d/e", "*.c"), ("d-e", "*.d")]);
        let mut after = IgnoreRules::default();
        after.put(None, Some("*.a".into()), &before);
        assert!(Arc::ptr_eq(&after.files[&None], &before.files[&None]));
        assert_ne!(after, before);
        let mut left = before.clone();
        assert_eq!(left, before);
        left.forget_below(Some(&"d".parse().unwrap()));
        assert_eq!(left.files.len(), 2);
        left.forget_below(None);
        assert_eq!(left, IgnoreRules::default());
    }

    #[test]
    fn reading_is_bounded_and_stays_inside() {
        let temp = tempfile::tempdir().unwrap();
        let share = ShareFolder::open(temp.path()).unwrap();
        assert_eq!(read_ignore_file(&share, None), None);
        std::fs::write(temp.path().join(IGNORE_FILE), "*.a").unwrap();
        assert_eq!(read_ignore_file(&share, None).as_deref(), Some("*.a"));
        std::fs::create_dir(temp.path().join("d")).unwrap();
        let nested = temp.path().join("d").join(IGNORE_FILE);
        let folder = "d".parse().unwrap();
        std::fs::write(&nested, "x".repeat(70 << 10)).unwrap();
        assert_eq!(read_ignore_file(&share, Some(&folder)), None);
        std::fs::write(&nested, b"\xff\xfe").unwrap();
        assert_eq!(read_ignore_file(&share, Some(&folder)), None);
        std::fs::remove_file(&nested).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &nested).unwrap();
        assert_eq!(read_ignore_file(&share, Some(&folder)), None);
    }
}
