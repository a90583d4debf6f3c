//! Numbers and names as people read them on a terminal: see [`potluck_common::units`]; names cut to a width.
//!
//! Nothing here is read back by a program; `--json` gives bytes and milliseconds.

use console::{measure_text_width, truncate_str};
pub use potluck_common::units::*;

/// `text` in exactly `width` columns: filled with spaces, or with its middle cut out, since both the start and the
/// ending of a name tell.
pub fn fit(text: &str, width: usize) -> String {
    let wide = measure_text_width(text);
    if wide <= width {
        return format!("{text}{}", " ".repeat(width - wide));
    }
    if width < 5 {
        return truncate_str(text, width, "").into_owned();
    }
    let tail_width = (width - 1) / 2;
    let mut from = text.len();
    for (at, _) in text.char_indices().rev() {
        if measure_text_width(&text[at..]) > tail_width {
            break;
        }
        from = at;
    }
    let tail = &text[from..];
    let head = truncate_str(text, width - 1 - measure_text_width(tail), "");
    let cut = format!("{head}…{tail}");
    let missing = width.saturating_sub(measure_text_width(&cut));
    format!("{cut}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cut_in_the_middle() {
        let check = |text: &str, width: usize, want: &str| {
            assert_eq!(fit(text, width), want);
            assert_eq!(measure_text_width(&fit(text, width)), width, "{text}");
        };
        check("short", 8, "short   ");
        check("exactly8", 8, "exactly8");
        check("a long name with an ending.mkv", 13, "a long…ng.mkv");
        check("日本語のファイル名.txt", 12, "日本語….txt ");
        check("abcdef", 3, "abc");
    }
}
