//! Numbers as people read them: sizes in binary units, rates, durations, counts.
//!
//! Pure. Nothing here is read back by a program: those get bytes and milliseconds.

use std::time::Duration;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A length: `0 B`, `1023 B`, `1.5 KiB`, `43 MiB`; two digits that matter below ten, whole numbers above.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().expect("there are units");
    // What would be rounded to 1024 of a unit is 1.0 of the next.
    while value >= 1023.5 {
        let Some(next) = units.next() else { break };
        unit = next;
        value /= 1024.0;
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Bytes a second.
pub fn rate(bytes: u64) -> String {
    format!("{}/s", size(bytes))
}

/// The mean rate of `bytes` over a time; of no time at all, none.
pub fn mean_rate(bytes: u64, elapsed: Duration) -> Option<String> {
    let seconds = elapsed.as_secs_f64();
    (seconds >= 0.001 && bytes > 0).then(|| rate((bytes as f64 / seconds) as u64))
}

/// How long something took or will take: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    }
}

/// How long `n_bytes` take at a rate; nothing sensible while nothing moves or there is nothing left.
pub fn time_left(n_bytes: u64, rate: u64) -> Option<String> {
    /// Beyond this an estimate says nothing.
    const LONGEST: u64 = 99 * 86_400;
    let seconds = n_bytes.checked_div(rate)?;
    (n_bytes > 0 && seconds < LONGEST).then(|| duration(Duration::from_secs_f64(n_bytes as f64 / rate as f64)))
}

/// How long ago, roughly: `just now`, `12 s`, `5 min`, `2 h`, `3 d`.
pub fn age(ms: u64) -> String {
    match ms / 1_000 {
        0 => "just now".to_owned(),
        s @ 1..60 => format!("{s} s"),
        s @ 60..3_600 => format!("{} min", s / 60),
        s @ 3_600..86_400 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

/// Whole percents, rounded down so that 100 means all of it.
pub fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 100;
    }
    u64::try_from(u128::from(part.min(whole)) * 100 / u128::from(whole)).unwrap_or(100)
}

/// A number of things, with the right ending.
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A large number with its thousands set apart by thin spaces: `12 345`.
///
/// ```
/// use potluck_common::units::number;
/// assert_eq!(number(12_345), "12\u{202f}345");
/// assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
/// assert_eq!(number(999), "999");
/// ```
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |bytes: u64, want: &str| assert_eq!(size(bytes), want);
        check(0, "0 B");
        check(1, "1 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(1536, "1.5 KiB");
        check(10 * 1024, "10 KiB");
        check(1024 * 1024 - 1, "1.0 MiB");
        check(43 << 20, "43 MiB");
        check(4 << 30, "4.0 GiB");
        check(u64::MAX, "16 EiB");
    }

    #[test]
    fn times() {
        let check = |ms: u64, want: &str| assert_eq!(duration(Duration::from_millis(ms)), want);
        check(0, "0.0 s");
        check(400, "0.4 s");
        check(9_940, "9.9 s");
        check(9_960, "10 s");
        check(59_600, "1 min");
        check(200_000, "3 min 20 s");
        check(7_500_000, "2 h 5 min");
        check(273_600_000, "3 d 4 h");
        assert_eq!(age(999), "just now");
        assert_eq!(age(3_599_000), "59 min");
        assert_eq!(age(90_000_000), "1 d");
        assert_eq!(mean_rate(1 << 20, Duration::from_secs(2)).as_deref(), Some("512 KiB/s"));
        assert_eq!(mean_rate(1 << 20, Duration::ZERO), None);
    }

    #[test]
    fn parts() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
        assert_eq!(percent(5, 3), 100);
    }
}
