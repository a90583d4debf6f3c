//! Conflict names: where a file stands whose name another one has won.
//!
//! `a/report.txt` with a content that begins `0a1b2c3d` gets `a/report.conflict-0a1b2c3d.txt`, on every peer. Digits are
//! taken in eights until the name is free ([`Step`]). A name that would be too long loses the end of its stem and gets
//! a mark made of the whole name, so that two long names never share their copies' names.
//!
//! Invariant: two paths have no conflict name in common, whatever the contents. That is why an extension is bounded: a
//! dot followed by `conflict-` and digits could otherwise be read in two ways.

use crate::id::ContentId;
use crate::share_path::{IGNORE_FILE, MAX_COMPONENT_LEN, SharePath};

const SEPARATOR: &str = ".conflict-";
/// Longer than the longest `conflict-…` that a name can end with, and short enough to leave room for a stem.
const MAX_EXTENSION_LEN: usize = 100;
/// Digits of the mark in a shortened name: 128 bits, so that nobody makes two names share it.
const MARK_DIGITS: usize = 32;
const MARK: char = '~';
/// Names that begin like potluck's own are refused, so the ignore rules' copies cannot begin like the original.
const IGNORE_FILE_STEM: &str = "_.potluckignore";
const DIGITS_A_STEP: usize = 8;

/// No conflict name that was shortened is shorter: at most the bytes of one character but one are cut off with it.
const MIN_SHORTENED_LEN: usize = MAX_COMPONENT_LEN - 3;
/// No name that is shortened in its conflict name is shorter: with the separator, all digits and the longest number a shorter
/// one has room.
const MIN_LONG_LEN: usize = MAX_COMPONENT_LEN - SEPARATOR.len() - 2 * ContentId::LEN - "-4294967295".len();

/// How many digits a conflict name has: eight at first, eight more whenever the name is taken. After all 64, a number, and
/// soon an end: only who wants to hold everybody up takes so many names of one copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step(u32);

impl Step {
    const ALL_DIGITS: u32 = 7;
    /// How many there are.
    pub const COUNT: u32 = 32;

    /// The next one to try; none after the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        if self.0 + 1 < Self::COUNT { Some(Self(self.0 + 1)) } else { None }
    }

    /// How many digits of the content id it shows.
    pub const fn n_digits(self) -> usize {
        let steps = if self.0 < Self::ALL_DIGITS { self.0 } else { Self::ALL_DIGITS };
        DIGITS_A_STEP * (steps as usize + 1)
    }

    fn digits(self, content_id: &ContentId) -> String {
        let mut digits = content_id.to_string();
        digits.truncate(self.n_digits());
        if self.0 > Self::ALL_DIGITS {
            digits.push_str(&format!("-{}", self.0 - Self::ALL_DIGITS + 1));
        }
        digits
    }
}

/// The name of a copy of `origin` with this content. `None` only if the path would be too long in all.
pub fn conflict_name(origin: &SharePath, content_id: &ContentId, step: Step) -> Option<SharePath> {
    let name = name_with(origin.file_name(), &step.digits(content_id));
    SharePath::join(origin.parent().as_ref(), name.as_ref()).ok()
}

/// What a path is the conflict name of, as far as it can be read from the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Original {
    /// This path.
    Path(SharePath),
    /// The path in the same folder whose name has this mark ([`mark_of`]), if [`is_conflict_name_of`] says so too.
    Marked(String),
}

/// The mark in the shortened conflict names of a name; `None` if it is not so long that any is shortened.
pub fn mark_of(name: &str) -> Option<String> {
    (name.len() >= MIN_LONG_LEN).then(|| mark(name))
}

/// Reads a conflict name back; nothing for an ordinary name.
pub fn original(path: &SharePath) -> Option<Original> {
    let name = path.file_name();
    let (stem, extension) = split(name);
    let (rest, extension) = match split_digits(stem) {
        Some(rest) => (rest, extension),
        None => (split_digits(name)?, None),
    };
    let folder = path.as_str().strip_suffix(name).expect("a path ends with its name");
    if let Some(mark) = split_mark(rest).filter(|_| name.len() >= MIN_SHORTENED_LEN) {
        return Some(Original::Marked(mark.to_owned()));
    }
    let original = match extension {
        None if rest == IGNORE_FILE_STEM => IGNORE_FILE.to_owned(),
        None => rest.to_owned(),
        Some(extension) => format!("{rest}.{extension}"),
    };
    let original: SharePath = format!("{folder}{original}").parse().ok()?;
    is_conflict_name_of(path, &original).then_some(Original::Path(original))
}

/// Whether `path` is a name that a copy of `origin` could have.
pub fn is_conflict_name_of(path: &SharePath, origin: &SharePath) -> bool {
    let name = path.file_name();
    let folder = |path: &SharePath| path.as_str().len() - path.file_name().len();
    let same_folder = path.as_str()[..folder(path)] == origin.as_str()[..folder(origin)];
    let stem = split(name).0;
    let digits = |text: &str| split_digits(text).map(|rest| text[rest.len() + SEPARATOR.len()..].to_owned());
    same_folder
        && [stem, name].into_iter().filter_map(digits).any(|digits| name_with(origin.file_name(), &digits) == name)
}

fn name_with(name: &str, digits: &str) -> String {
    let (stem, extension) = if name == IGNORE_FILE { (IGNORE_FILE_STEM, None) } else { split(name) };
    let tail = match extension {
        Some(extension) => format!("{SEPARATOR}{digits}.{extension}"),
        None => format!("{SEPARATOR}{digits}"),
    };
    let len = stem.len() + tail.len();
    // One that ends like a mark gets its own, or it could have the conflict names of the name that the mark is of.
    let looks_shortened = len >= MIN_SHORTENED_LEN && split_mark(stem).is_some();
    if len <= MAX_COMPONENT_LEN && !looks_shortened {
        return format!("{stem}{tail}");
    }
    let mark = mark(name);
    let room = MAX_COMPONENT_LEN - tail.len() - mark.len() - MARK.len_utf8();
    format!("{}{MARK}{mark}{tail}", &stem[..stem.floor_char_boundary(room)])
}

fn mark(name: &str) -> String {
    let mut mark = blake3::hash(name.as_bytes()).to_hex().to_string();
    mark.truncate(MARK_DIGITS);
    mark
}

/// Stem and extension: what follows the last dot, unless that is the first character or too much follows.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && extension.len() <= MAX_EXTENSION_LEN => (stem, Some(extension)),
        _ => (name, None),
    }
}

/// What stands before `.conflict-` and digits at the end.
fn split_digits(text: &str) -> Option<&str> {
    let (rest, digits) = text.rsplit_once(SEPARATOR)?;
    let (digits, number) = digits.split_once('-').map_or((digits, None), |(digits, number)| (digits, Some(number)));
    let is_full = digits.len() == 2 * ContentId::LEN;
    let is_digits = !digits.is_empty()
        && digits.len() % DIGITS_A_STEP == 0
        && digits.len() <= 2 * ContentId::LEN
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_number = number.is_none_or(|number| is_full && number.parse::<u32>().is_ok_and(|n| n > 1));
    (!rest.is_empty() && is_digits && is_number).then_some(rest)
}

fn split_mark(rest: &str) -> Option<&str> {
    let (_, mark) = rest.rsplit_once(MARK)?;
    (mark.len() == MARK_DIGITS && mark.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> SharePath {
        text.parse().unwrap()
    }

    fn content() -> ContentId {
        ContentId::from_bytes([0xab; 32])
    }

    fn check(origin: &str, want: &str) {
        let name = conflict_name(&path(origin), &content(), Step::default()).unwrap();
        assert_eq!(name.as_str(), want);
        assert_eq!(original(&name), Some(Original::Path(path(origin))));
    }

    #[test]
    fn there_and_back() {
        check("report.txt", "report.conflict-abababab.txt");
        check("a/b/report.txt", "a/b/report.conflict-abababab.txt");
        check("Makefile", "Makefile.conflict-abababab");
        check(".bashrc", ".bashrc.conflict-abababab");
        check(".bashrc.old", ".bashrc.conflict-abababab.old");
        check("x.tar.gz", "x.tar.conflict-abababab.gz");
        check("x.", "x.conflict-abababab.");
        check("..x", "..conflict-abababab.x");
        check(".potluckignore", "_.potluckignore.conflict-abababab");
        check("_.potluckignore", "_.conflict-abababab.potluckignore");
        check("a.conflict-00000000.txt", "a.conflict-00000000.conflict-abababab.txt");
        check("a.conflict-00000000", "a.conflict-abababab.conflict-00000000");
        for ordinary in ["a.txt", "a.conflict-xyz.txt", "a.conflict-1234567.txt", ".conflict-12345678", "a.conflict-"] {
            assert_eq!(original(&path(ordinary)), None, "{ordinary}");
        }
    }

    #[test]
    fn more_digits_and_then_numbers() {
        let mut step = Step::default();
        for n in 1..=8 {
            let name = conflict_name(&path("a.b"), &content(), step).unwrap();
            assert_eq!(name.as_str(), format!("a.conflict-{}.b", "abababab".repeat(n)));
            assert_eq!(original(&name), Some(Original::Path(path("a.b"))));
            step = step.next().unwrap();
        }
        let name = conflict_name(&path("a.b"), &content(), step).unwrap();
        assert_eq!(name.as_str(), format!("a.conflict-{}-2.b", "ab".repeat(32)));
        assert_eq!(original(&name), Some(Original::Path(path("a.b"))));
    }

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        let a = path(&format!("d/{}1.txt", "é".repeat(124)));
        let b = path(&format!("d/{}2.txt", "é".repeat(124)));
        let names = [&a, &b].map(|origin| conflict_name(origin, &content(), Step::default()).unwrap());
        assert_ne!(names[0], names[1]);
        for (name, origin, other) in [(&names[0], &a, &b), (&names[1], &b, &a)] {
            assert!(name.file_name().len() <= MAX_COMPONENT_LEN);
            assert!(is_conflict_name_of(name, origin) && !is_conflict_name_of(name, other));
            assert_eq!(original(name), Some(Original::Marked(mark_of(origin.file_name()).unwrap())));
        }
    }

    /// A name made to be what a long one is shortened to shares no conflict name with it; what is too short to have been
    /// shortened is not looked for by its mark.
    #[test]
    fn names_that_look_shortened() {
        let mark = "0123456789abcdef".repeat(2);
        check(&format!("d/~{mark}"), &format!("d/~{mark}.conflict-abababab"));
        for character in ["x", "é", "\u{1f372}"] {
            let long = path(&format!("d/{}.txt", character.repeat(250 / character.len())));
            let name = conflict_name(&long, &content(), Step::default()).unwrap();
            let made = path(&name.as_str().replace(".conflict-abababab", ""));
            assert!(is_conflict_name_of(&name, &long) && !is_conflict_name_of(&name, &made), "{name}");
            let other = conflict_name(&made, &content(), Step::default()).unwrap();
            assert_ne!(name, other);
            assert_eq!(original(&other), Some(Original::Marked(mark_of(made.file_name()).unwrap())));
        }
    }

    proptest! {
        /// Whatever the name: there is a conflict name, it is read back, and no other path has it.
        #[test]
        fn read_back(stem in "[a.~-]{0,4}(conflict-)?[0a]{0,8}", rest in "[a.é]{0,250}(~[0a]{32})?", step in 0..Step::COUNT) {
            let text = format!("{stem}{rest}");
            if let Ok(origin) = text.parse::<SharePath>() {
                let name = conflict_name(&origin, &content(), Step(step)).unwrap();
                prop_assert!(is_conflict_name_of(&name, &origin));
                match original(&name).unwrap() {
                    Original::Path(read) => prop_assert_eq!(read, origin),
                    Original::Marked(mark) => prop_assert_eq!(mark_of(origin.file_name()), Some(mark)),
                }
            }
        }
    }
}
