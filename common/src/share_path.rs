//! Share paths: the only way a name from outside becomes a place in the share folder.
//!
//! Hash verification does not protect a path, so every way in (announce, tracker reply, index,
//! argument, state file) makes a [`SharePath`] here or drops the entry. The policy is the portable one
//! and does not depend on the system it runs on:
//!
//! - refused: empty, absolute, `.` and `..`, empty components, backslashes, a drive prefix (`C:`), control
//!   characters, components over 255 bytes, paths over 4,000 bytes or deeper than 255 folders, and
//!   potluck's own names (`.potluck/` and temporary names, in any letter case);
//! - accepted but not portable ([`SharePath::is_portable`]): what Windows cannot store, such as `ab:c`, `CON`,
//!   or a trailing dot. Unix trees are full of such names and they are never silently renamed.
//!
//! Invariant: a `SharePath` that exists has passed this; it is relative, `/`-separated UTF-8.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest share path in bytes; leaves room below Linux's `PATH_MAX` of 4,096.
pub const MAX_PATH_LEN: usize = 4_000;
/// The longest component in bytes, the limit of nearly every file system.
pub const MAX_COMPONENT_LEN: usize = 255;
/// The deepest nesting, in components.
pub const MAX_DEPTH: usize = 255;
/// The folder in which a peer keeps its own state, inside the share folder.
pub const STATE_DIR: &str = ".potluck";
/// The ignore rules of a share folder: the one name of ours that is an ordinary shared file.
pub const IGNORE_FILE: &str = ".potluckignore";

/// Why text is not a share path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharePathError {
    /// No text at all.
    #[error("the name is empty")]
    Empty,
    /// Over [`MAX_PATH_LEN`], [`MAX_COMPONENT_LEN`] or [`MAX_DEPTH`].
    #[error("the name is too long or too deep")]
    TooLong,
    /// It starts at a root or a drive.
    #[error("the name is absolute; names are relative to the share folder")]
    Absolute,
    /// A component is empty, `.` or `..`.
    #[error("the name has an empty, '.' or '..' component")]
    Traversal,
    /// A backslash or a control character.
    #[error("the name has a backslash or a control character")]
    ForbiddenCharacter,
    /// A name that potluck keeps for itself.
    #[error("the name is reserved for potluck itself")]
    Reserved,
    /// The bytes are not UTF-8.
    #[error("the name is not UTF-8")]
    NotUtf8,
}

/// A safe path of a file, relative to the share folder.
///
/// ```
/// use potluck_common::SharePath;
/// assert!("music/a.ogg".parse::<SharePath>().is_ok());
/// assert!("../.ssh/authorized_keys".parse::<SharePath>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SharePath(Arc<str>);

impl SharePath {
    /// The text, `/`-separated.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.components().next_back().expect("a share path has at least one component")
    }

    /// The folder part, if the path has one.
    pub fn parent(&self) -> Option<SharePath> {
        self.0.rsplit_once('/').map(|(folder, _)| Self(folder.into()))
    }

    /// The path of `name` inside the folder `parent`, or at the top.
    pub fn join(parent: Option<&SharePath>, name: &std::ffi::OsStr) -> Result<Self, SharePathError> {
        let name = name.to_str().ok_or(SharePathError::NotUtf8)?;
        match parent {
            Some(parent) => format!("{parent}/{name}").parse(),
            None => name.parse(),
        }
    }

    /// Whether Windows could store every component under its own name.
    pub fn is_portable(&self) -> bool {
        self.components().all(component_is_portable)
    }
}

/// Paths compare and hash as their text does.
impl Borrow<str> for SharePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for SharePath {
    type Err = SharePathError;

    fn from_str(text: &str) -> Result<Self, SharePathError> {
        if text.is_empty() {
            return Err(SharePathError::Empty);
        }
        if text.len() > MAX_PATH_LEN {
            return Err(SharePathError::TooLong);
        }
        if text.chars().any(|c| c == '\\' || c.is_control()) {
            return Err(SharePathError::ForbiddenCharacter);
        }
        let bytes = text.as_bytes();
        if bytes[0] == b'/' || (bytes[0].is_ascii_alphabetic() && bytes.get(1) == Some(&b':')) {
            return Err(SharePathError::Absolute);
        }
        let mut depth = 0;
        for component in text.split('/') {
            depth += 1;
            if matches!(component, "" | "." | "..") {
                return Err(SharePathError::Traversal);
            }
            if component.len() > MAX_COMPONENT_LEN || depth > MAX_DEPTH {
                return Err(SharePathError::TooLong);
            }
            if is_reserved(component) {
                return Err(SharePathError::Reserved);
            }
        }
        Ok(Self(text.into()))
    }
}

/// Everything that starts with `.potluck` is ours, in any letter case, but for the ignore file. The
/// comparison folds Unicode case too, since some file systems do.
fn is_reserved(component: &str) -> bool {
    let mut folded = component.chars().flat_map(char::to_lowercase).map(|c| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other,
    });
    STATE_DIR.chars().all(|c| folded.next() == Some(c)) && component != IGNORE_FILE
}

fn component_is_portable(component: &str) -> bool {
    const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
    let stem = component.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let is_port = ["com", "lpt"].iter().any(|port| {
        stem.strip_prefix(port).is_some_and(|rest| {
            let mut rest = rest.chars();
            matches!((rest.next(), rest.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
        })
    });
    !(component.ends_with(['.', ' '])
        || component.contains(['<', '>', ':', '"', '|', '?', '*'])
        || DEVICES.contains(&stem.as_str())
        || is_port)
}

impl fmt::Display for SharePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SharePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for SharePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SharePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SharePathError::*;
    use proptest::prelude::*;

    fn check(text: &str, want: Result<(), SharePathError>) {
        assert_eq!(text.parse::<SharePath>().map(drop), want, "{text:?}");
    }

    #[test]
    fn accepted() {
        for text in [
            "a",
            "a/b/c.txt",
            "...",
            "..a",
            "a..",
            ".hidden",
            "man/B::Deparse.3.gz",
            "é",
            "e\u{301}",
            "--option",
            "<img onerror=x>",
            "$(id)",
            "${jndi:x}",
            "CON",
            "nul.txt",
            "a ",
            "a.",
            ".potluckignore",
            "x/.potluckignore",
            "a%2f..",
            "~",
            "~root",
            "日本語/ファイル",
        ] {
            check(text, Ok(()));
        }
        check(&"x".repeat(255), Ok(()));
        check(&vec!["d"; 255].join("/"), Ok(()));
    }

    /// P01, P02, P04, P06, P07, P09.
    #[test]
    fn refused() {
        let table: &[(&str, SharePathError)] = &[
            ("", Empty),
            (".", Traversal),
            ("..", Traversal),
            ("../../.ssh/authorized_keys", Traversal),
            ("a/../b", Traversal),
            ("a/./b", Traversal),
            ("./a", Traversal),
            ("a/", Traversal),
            ("a//b", Traversal),
            ("/etc/cron.d/x", Absolute),
            ("//x", Absolute),
            ("C:x", Absolute),
            ("c:", Absolute),
            ("C:\\x", ForbiddenCharacter),
            ("\\\\srv\\s\\x", ForbiddenCharacter),
            ("\\\\?\\C:\\x", ForbiddenCharacter),
            ("..\\..\\x", ForbiddenCharacter),
            ("a\0b", ForbiddenCharacter),
            ("a\nb", ForbiddenCharacter),
            ("\x1b[2J", ForbiddenCharacter),
            ("a\u{7f}", ForbiddenCharacter),
            ("a\u{85}", ForbiddenCharacter),
            (".potluck", Reserved),
            (".potluck/identity", Reserved),
            (".POTLUCK/control.sock", Reserved),
            ("a/.Potluck/partial/x", Reserved),
            (".potluc\u{212a}/trash/x", Reserved),
            (".potluck-tmp-1", Reserved),
            (".PotluckIgnore", Reserved),
        ];
        for (text, want) in table {
            check(text, Err(*want));
        }
        check(&"x".repeat(256), Err(TooLong));
        check(&"x/".repeat(2_500), Err(TooLong));
        check(&vec!["d"; 300].join("/"), Err(TooLong));
        assert!(serde_json::from_str::<SharePath>("\"../x\"").is_err());
        let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"a\xff");
        assert_eq!(SharePath::join(None, odd), Err(NotUtf8));
    }

    /// P08: one policy, documented: accepted, flagged, never renamed.
    #[test]
    fn portable() {
        for name in ["CON", "nul.txt", "COM1", "COM¹", "LPT0", "a.", "a ", "ab:c", "x/aux.c", "a?b", "con .txt"] {
            assert!(!name.parse::<SharePath>().unwrap().is_portable(), "{name}");
        }
        for name in ["a", "console", "com10", "COM", "nully.txt", "a b", "a.b.c"] {
            assert!(name.parse::<SharePath>().unwrap().is_portable(), "{name}");
        }
    }

    /// P23: thousands of hostile names, at each way in that takes a path (an announce, a tracker's list, the index of the synced
    /// folder, what is typed): one verdict, and nothing that is accepted leads anywhere but down.
    #[test]
    fn a_corpus_of_hostile_names() {
        use crate::protocol::{Entry, FileSummary, IndexEntry, Sifted};
        use serde_json::{Value, json};
        const FORMS: [&str; 32] = [
            "..",
            ".",
            "",
            "/",
            "//",
            "\\",
            "..\\",
            "\\\\?\\C:\\",
            "\\\\s\\x",
            "C:",
            "c:/",
            ".potluck",
            ".POTLUCK",
            ".potluck-tmp-1",
            ".potluc\u{212a}",
            ".potluckignore",
            "\0",
            "\n",
            "\u{1b}[2J",
            "\u{7f}",
            "\u{202e}gpj",
            "e\u{301}",
            "CON",
            "a:b",
            "a.",
            "a ",
            "~",
            "-rf",
            "$(id)",
            "<b>",
            "%2e%2e",
            "..%2f",
        ];
        // Doubled, as overlong UTF-8 would be read, as full-width look-alikes, percent-encoded once more.
        let encodings: [fn(&str) -> String; 5] = [
            str::to_owned,
            |text| format!("{text}{text}"),
            |text| text.replace('.', "\u{c0ae}").replace('/', "\u{c0af}"),
            |text| text.replace('.', "\u{ff0e}").replace('/', "\u{ff0f}"),
            |text| text.replace('%', "%25").replace('.', "%2e"),
        ];
        let places: [fn(&str, &str) -> String; 8] = [
            |form, _| form.to_owned(),
            |form, _| format!("a/{form}"),
            |form, _| format!("{form}/a"),
            |form, _| format!("a/{form}/b"),
            |form, _| format!("a{form}"),
            |form, _| format!("{form}a"),
            |form, other| format!("{form}/{other}"),
            |form, other| format!("{form}{other}"),
        ];
        let id = crate::ContentId::of(b"");
        let (mut n_names, mut n_accepted) = (0, 0);
        for form in FORMS {
            for other in FORMS {
                for encode in encodings {
                    for place in &places[if other == FORMS[0] { 0 } else { 6 }..] {
                        let name = encode(&place(form, other));
                        let typed = name.parse::<SharePath>();
                        let is_read = |good: bool| assert_eq!(good, typed.is_ok(), "{name:?}");
                        let read = |item: &Value| item.to_string();
                        is_read(
                            serde_json::from_value::<Entry>(json!({"path": name, "content_id": id, "len": 0})).is_ok(),
                        );
                        let listed = read(&json!([{"path": name, "contents": []}]));
                        is_read(serde_json::from_str::<Sifted<FileSummary>>(&listed).unwrap().n_refused == 0);
                        let synced = read(&json!({"path": name, "register": {"seen": {}}}));
                        is_read(serde_json::from_str::<IndexEntry>(&synced).is_ok());
                        n_names += 1;
                        let Ok(path) = typed else { continue };
                        n_accepted += 1;
                        let parts = || std::path::Path::new(path.as_str()).components();
                        assert!(parts().all(|part| matches!(part, std::path::Component::Normal(_))), "{name:?}");
                        assert_eq!(parts().count(), path.components().count(), "{name:?}");
                        assert!(!name.contains(['\\', '\0']) && name.len() < 4_096, "{name:?}");
                        assert_eq!(path.as_str(), name);
                    }
                }
            }
        }
        assert!(n_names > 10_000 && n_accepted > 1_000 && n_accepted < n_names / 2, "{n_accepted} of {n_names}");
    }

    proptest! {
        /// Whatever is accepted stays below the folder it is joined to.
        #[test]
        fn never_leaves(text in "[./\\\\a-cC:\u{0}~ ]{0,24}") {
            if let Ok(path) = text.parse::<SharePath>() {
                let mut depth = 0i32;
                for component in std::path::Path::new(path.as_str()).components() {
                    match component {
                        std::path::Component::Normal(_) => depth += 1,
                        other => prop_assert!(false, "{other:?} in {text:?}"),
                    }
                }
                prop_assert!(depth > 0);
            }
        }
    }
}
