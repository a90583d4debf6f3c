//! The `Range` header (RFC 9110, section 14): which bytes of a content a request wants. Pure.
//!
//! One range is served as such. What is malformed, in another unit, or many ranges at once is ignored, as the RFC
//! allows, and the whole is served: the answer never needs more memory than one range.

use std::ops::Range;

/// What a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Everything: status 200.
    Whole,
    /// These bytes, never empty: status 206.
    Bytes(Range<u64>),
    /// Bytes that do not exist: status 416.
    Unsatisfiable,
}

/// Reads all `Range` headers of a request for a content of `len` bytes.
///
/// ```
/// use potluck_peer::range::{Wanted, parse_range};
/// assert_eq!(parse_range(["bytes=0-9"], 100), Wanted::Bytes(0..10));
/// assert_eq!(parse_range(["bytes=-10"], 100), Wanted::Bytes(90..100));
/// assert_eq!(parse_range(["bytes=100-"], 100), Wanted::Unsatisfiable);
/// ```
pub fn parse_range<'a>(headers: impl IntoIterator<Item = &'a str>, len: u64) -> Wanted {
    let mut headers = headers.into_iter();
    let (Some(header), None) = (headers.next(), headers.next()) else { return Wanted::Whole };
    let Some((unit, spec)) = header.split_once('=') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    match (parse_number(first), parse_number(last)) {
        (Number::None, Number::Some(n)) if n == 0 || len == 0 => Wanted::Unsatisfiable,
        (Number::None, Number::Some(n)) => Wanted::Bytes(len.saturating_sub(n)..len),
        (Number::Some(first), Number::Some(last)) if last < first => Wanted::Whole,
        (Number::Some(first), Number::Some(_) | Number::None) if first >= len => Wanted::Unsatisfiable,
        (Number::Some(first), Number::Some(last)) => Wanted::Bytes(first..last.saturating_add(1).min(len)),
        (Number::Some(first), Number::None) => Wanted::Bytes(first..len),
        _ => Wanted::Whole,
    }
}

enum Number {
    None,
    Some(u64),
    Bad,
}

/// Digits of any length; what does not fit is as good as the largest number.
fn parse_number(text: &str) -> Number {
    match text.trim() {
        "" => Number::None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Number::Some(digits.parse().unwrap_or(u64::MAX)),
        _ => Number::Bad,
    }
}

/// Reads the `Content-Range` of a 206: the bytes that follow, if it is well-formed.
pub fn parse_content_range(header: &str) -> Option<Range<u64>> {
    let (range, _total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then(|| first..last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Wanted::*;

    /// H01.
    #[test]
    fn table() {
        let check = |headers: &[&str], len: u64, want: Wanted| {
            assert_eq!(parse_range(headers.iter().copied(), len), want, "{headers:?} of {len}");
        };
        check(&[], 10, Whole);
        check(&["bytes=0-0"], 10, Bytes(0..1));
        check(&["bytes=0-9"], 10, Bytes(0..10));
        check(&["Bytes = 2-5 "], 10, Bytes(2..6));
        check(&["bytes=9-"], 10, Bytes(9..10));
        check(&["bytes=0-18446744073709551615"], 10, Bytes(0..10));
        check(&["bytes=0-99999999999999999999999999"], 10, Bytes(0..10));
        check(&["bytes=18446744073709551615-"], 10, Unsatisfiable);
        check(&["bytes=10-"], 10, Unsatisfiable);
        check(&["bytes=-1"], 10, Bytes(9..10));
        check(&["bytes=-100"], 10, Bytes(0..10));
        check(&["bytes=-0"], 10, Unsatisfiable);
        check(&["bytes=-5"], 0, Unsatisfiable);
        check(&["bytes=0-"], 0, Unsatisfiable);
        check(&["bytes=5-2"], 10, Whole);
        for malformed in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=--1",
            "bytes=1",
            "bytes=+1-2",
            "chunks=0-1",
            "bytes=0-1,3-4",
        ] {
            check(&[malformed], 10, Whole);
        }
        check(&["bytes=0-1", "bytes=2-3"], 10, Whole);
        let many = format!("bytes={}", vec!["0-1"; 10_000].join(","));
        check(&[&many], 10, Whole);
    }

    #[test]
    fn content_range() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some(0..10));
        assert_eq!(parse_content_range("bytes 5-5/*"), Some(5..6));
        for bad in ["", "bytes */100", "bytes 9-0/1", "bytes a-b/c", "0-9/100", "bytes 0-9"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_outside(header in "(bytes=)?[0-9,\\- ]{0,30}", len: u64) {
            if let Bytes(range) = parse_range([header.as_str()], len) {
                proptest::prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }
}
