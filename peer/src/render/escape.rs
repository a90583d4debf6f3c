//! Text from elsewhere, made fit for a terminal: the one place for it.
//!
//! File names, peer names, and messages that quote them come from strangers. A control character would let them
//! move the cursor, set the window's title or forge lines; a bidirectional or other format character would let a name
//! look like another (`gpj.exe` for `exe.jpg`). Whatever cannot be seen as itself is written `\u{…}`, which the
//! shell reads back as that character (`command::split`).
//!
//! Which characters those are is the standard library's judgement, the one behind `{:?}`: control, format,
//! private, unassigned, surrogate, line and paragraph separators, and every space but the ordinary one.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with every character that a terminal would not show as itself written `\u{…}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_shown_as_itself) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_shown_as_itself(c) {
            escaped.push(c);
        } else {
            // Writing to a string does not fail.
            let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal shows this character, and shows it where it stands.
pub(super) fn is_shown_as_itself(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // After another character, so that a combining accent counts as shown: alone it would be escaped.
    let mut buffer = *b"a\0\0\0\0";
    let len = c.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..=len]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P06, P24.
    #[test]
    fn table() {
        let check = |text: &str, want: &str| assert_eq!(escape(text), want, "{text:?}");
        for plain in [
            "",
            "a b.txt",
            "it's \"quoted\" back\\slash",
            "日本語/ファイル",
            "é",
            "e\u{301}",
            "Ελληνικά",
            "עברית",
            "🍲.png",
            "<img onerror=x>",
            "$(id)",
        ] {
            check(plain, plain);
        }
        check("\x1b[2J", "\\u{1b}[2J");
        check("a\nb\r\tc\0", "a\\u{a}b\\u{d}\\u{9}c\\u{0}");
        check("\u{7f}\u{85}\u{9b}31m", "\\u{7f}\\u{85}\\u{9b}31m");
        check("photo\u{202e}gpj.exe", "photo\\u{202e}gpj.exe");
        check("\u{2066}a\u{2069}\u{200f}\u{61c}", "\\u{2066}a\\u{2069}\\u{200f}\\u{61c}");
        check("a\u{200b}b\u{feff}c\u{ad}d\u{200d}e", "a\\u{200b}b\\u{feff}c\\u{ad}d\\u{200d}e");
        check("a\u{2028}b\u{2029}c", "a\\u{2028}b\\u{2029}c");
        check("a\u{a0}b\u{3000}c", "a\\u{a0}b\\u{3000}c");
        check("\u{e000}\u{fffff}\u{e0041}", "\\u{e000}\\u{fffff}\\u{e0041}");
    }
}
