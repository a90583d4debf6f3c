//! Text as it stands in a URL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but what RFC 3986 calls unreserved.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const RESERVED_IN_PATH: AsciiSet = RESERVED.remove(b'/');

/// One part of a URL: a component of its path, or a value in its query.
///
/// ```
/// use potluck_common::percent::{part, path};
/// assert_eq!(part("a/b c?"), "a%2Fb%20c%3F");
/// assert_eq!(path("100%/brûlée #1"), "100%25/br%C3%BBl%C3%A9e%20%231");
/// ```
pub fn part(text: &str) -> String {
    utf8_percent_encode(text, &RESERVED).to_string()
}

/// Several components of a path, with the slashes between them.
pub fn path(text: &str) -> String {
    utf8_percent_encode(text, &RESERVED_IN_PATH).to_string()
}
