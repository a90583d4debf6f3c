//! A limit as it is written: a rate, by time of day if wanted; text to value and back, and which rate holds when.
//!
//! ```text
//! 10M                    ten MiB a second
//! 200M@08-18             from 8 to 18 o'clock; outside of it without limit
//! 50M@08-18,200M@18-22   several windows, none overlapping
//! 10M,200M@22-06:30      a rate without hours is for the rest of the day; a window may go past midnight
//! 10M,off@22-06          a window may be without limit too
//! off                    no limit at all, as is 0
//! ```
//!
//! Units are those in which the program shows rates: `K`, `M`, `G`, `T` are KiB, MiB, GiB, TiB a second (as in rclone
//! and aria2), and a bare number is bytes.
//!
//! Pure: no clock is read and no time zone known; who asks says what time of day it is.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes a second; `None` is without limit.
pub type Rate = Option<NonZeroU64>;

/// A unit: its letter, and how many bytes.
const UNITS: [(char, u64); 4] = [('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];
/// Below the least of these a chunk would take longer to move than owners and readers have patience; above the most
/// nothing is limited.
const RATES: RangeInclusive<u64> = (16 << 10)..=(1 << 40);
/// Minutes in a day.
const DAY: u16 = 24 * 60;
/// Windows in one limit: more than anybody types.
const MAX_WINDOWS: usize = 48;

/// A time of day: minutes since midnight, below those of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// From hour and minute; what is beyond midnight begins anew.
    pub const fn new(hour: u16, minute: u16) -> Self {
        Self((hour % 24 * 60 + minute % 60) % DAY)
    }
}

/// A rate between two times of day, the second one not included; from a later to an earlier one it goes past midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: TimeOfDay,
    until: TimeOfDay,
    rate: Rate,
}

/// How fast may be sent or received, by time of day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Limit {
    windows: Vec<Window>,
    /// Outside of all windows.
    rest: Rate,
}

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not a rate.
    #[error("{0:?} is not a rate; a rate is off, or a number with K, M, G or T (KiB, MiB, … a second), such as 10M")]
    Rate(String),
    /// A rate out of bounds.
    #[error("{0:?} is out of bounds: from 16K to 1T a second, or off; units are K, M, G and T (KiB, MiB, … a second)")]
    Bounds(String),
    /// Not hours.
    #[error("{0:?} are not hours; they go FROM-UNTIL, as in 200M@08-18 or 200M@22:30-06")]
    Hours(String),
    /// Two rates hold at one time.
    #[error("{0:?} overlaps with what stands before it")]
    Overlap(String),
    /// Two rates without hours.
    #[error("two rates have no hours; only one can be that of the rest of the day")]
    TwoRests,
    /// A list nobody types.
    #[error("more than {MAX_WINDOWS} windows")]
    TooMany,
}

impl Limit {
    /// No limit at any time.
    pub const OFF: Self = Self { windows: Vec::new(), rest: None };

    /// The rate at a time of day.
    pub fn rate_at(&self, time: TimeOfDay) -> Rate {
        self.windows.iter().find(|window| window.contains(time)).map_or(self.rest, |window| window.rate)
    }

    /// Whether the rate is another at other times.
    pub fn has_hours(&self) -> bool {
        !self.windows.is_empty()
    }
}

impl Window {
    fn contains(&self, time: TimeOfDay) -> bool {
        match self.from < self.until {
            true => (self.from..self.until).contains(&time),
            false => time >= self.from || time < self.until,
        }
    }

    /// Whether there is a time in both. Two arcs of a circle meet only if one contains the other's beginning.
    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.from) || other.contains(self.from)
    }
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let mut limit = Self::OFF;
        let mut has_rest = false;
        for part in text.split(',').map(str::trim) {
            let Some((rate, hours)) = part.split_once('@') else {
                if has_rest {
                    return Err(LimitError::TwoRests);
                }
                (limit.rest, has_rest) = (parse_rate(part)?, true);
                continue;
            };
            let (from, until) = parse_hours(hours).ok_or_else(|| LimitError::Hours(hours.to_owned()))?;
            let window = Window { from, until, rate: parse_rate(rate)? };
            if limit.windows.iter().any(|other| other.overlaps(&window)) {
                return Err(LimitError::Overlap(part.to_owned()));
            }
            limit.windows.push(window);
            if limit.windows.len() > MAX_WINDOWS {
                return Err(LimitError::TooMany);
            }
        }
        Ok(limit)
    }
}

fn parse_rate(text: &str) -> Result<Rate, LimitError> {
    if text.eq_ignore_ascii_case("off") || text == "0" {
        return Ok(None);
    }
    let wrong = || LimitError::Rate(text.to_owned());
    let bounds = || LimitError::Bounds(text.to_owned());
    // What the program prints can be typed: `10 MiB/s`. `MB` and `Mbit` would be other units, and are no rates.
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.trim().to_ascii_uppercase();
    let unit = unit.strip_suffix("/S").unwrap_or(&unit);
    let factor = match unit {
        "" | "B" => 1,
        _ => {
            let is_this = |letter: char| unit.strip_prefix(letter).is_some_and(|rest| matches!(rest, "" | "IB"));
            UNITS.into_iter().find(|(letter, _)| is_this(*letter)).ok_or_else(wrong)?.1
        }
    };
    let is_number = number.starts_with(|c: char| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    let value: f64 = is_number.then(|| number.parse().ok()).flatten().ok_or_else(wrong)?;
    // A float that is too large for the integer becomes the largest one, which is out of bounds too.
    let rate = (value * factor as f64).round() as u64;
    if !RATES.contains(&rate) {
        return Err(bounds());
    }
    Ok(NonZeroU64::new(rate))
}

fn parse_hours(text: &str) -> Option<(TimeOfDay, TimeOfDay)> {
    let (from, until) = text.split_once('-')?;
    let (from, until) = (parse_time(from, 23)?, parse_time(until, 24)?);
    // The whole day is a rate without hours, and nothing at all is a mistake.
    (from != until).then_some((from, until))
}

/// `8`, `08` or `08:30`; `24` is midnight where a window may end.
fn parse_time(text: &str, max_hour: u16) -> Option<TimeOfDay> {
    let text = text.trim();
    let (hour, minute) = text.split_once(':').unwrap_or((text, "00"));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !(1..=2).contains(&hour.len()) || minute.len() != 2 || !is_digits(hour) || !is_digits(minute) {
        return None;
    }
    let (hour, minute) = (hour.parse().ok()?, minute.parse().ok()?);
    let is_time = hour <= max_hour && minute < 60 && (hour < 24 || minute == 0);
    is_time.then(|| TimeOfDay::new(hour, minute))
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Outside of windows, no limit goes without saying.
        let mut separator = "";
        if self.rest.is_some() || self.windows.is_empty() {
            write_rate(self.rest, f)?;
            separator = ",";
        }
        for window in &self.windows {
            f.write_str(separator)?;
            write_rate(window.rate, f)?;
            write!(f, "@{}-{}", window.from, window.until)?;
            separator = ",";
        }
        Ok(())
    }
}

fn write_rate(rate: Rate, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(rate) = rate.map(NonZeroU64::get) else { return f.write_str("off") };
    match UNITS.into_iter().find(|(_, factor)| rate.is_multiple_of(*factor)) {
        Some((letter, factor)) => write!(f, "{}{letter}", rate / factor),
        None => write!(f, "{rate}"),
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 60, self.0 % 60) {
            (hour, 0) => write!(f, "{hour:02}"),
            (hour, minute) => write!(f, "{hour:02}:{minute:02}"),
        }
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> Self {
        limit.to_string()
    }
}

impl TryFrom<String> for Limit {
    type Error = LimitError;

    fn try_from(text: String) -> Result<Self, LimitError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts() {
        let check = |text: &str, want: &str| {
            let limit: Limit = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(limit.to_string(), want, "{text}");
            assert_eq!(want.parse(), Ok(limit), "{want}");
        };
        check("off", "off");
        check("OFF", "off");
        check("0", "off");
        check("10M", "10M");
        check("10m", "10M");
        check("10 MiB/s", "10M");
        check("10240K", "10M");
        check("1.5M", "1536K");
        check("10485760", "10M");
        check("100000", "100000");
        check("16KiB", "16K");
        check("1T", "1T");
        check("200M@08-18", "200M@08-18");
        check("200M@8-18", "200M@08-18");
        check("200M@08:30-18:05", "200M@08:30-18:05");
        check("200M@18-24", "200M@18-00");
        check("50M@08-18, 200M@18-22", "50M@08-18,200M@18-22");
        check("200M@22-06,10M", "10M,200M@22-06");
        check("10M,off@22-06", "10M,off@22-06");
        check("off,10M@22-06", "10M@22-06");
    }

    #[test]
    fn mistakes() {
        let check = |text: &str, want: LimitError| assert_eq!(text.parse::<Limit>(), Err(want), "{text}");
        let rate = |text: &str| LimitError::Rate(text.into());
        let bounds = |text: &str| LimitError::Bounds(text.into());
        let hours = |text: &str| LimitError::Hours(text.into());
        for text in ["", "M", "ten", "-5M", "1.5.5M", ".", "10MB", "10Mbit", "10X", "1e9", "inf", "NaN", "10 M M", "∞"]
        {
            check(text, rate(text));
        }
        for text in ["1", "10", "8K", "0K", "0.1K", "2T", "99999999999999999999999M"] {
            check(text, bounds(text));
        }
        for text in [
            "", "8", "8-", "-8", "08-08", "0-24", "8-25", "24-8", "8:60-9", "8:5-9", "24:30-25", "8-24:01", "+8-9",
            "8.5-9",
        ] {
            check(&format!("10M@{text}"), hours(text));
        }
        check("10M@08-18,", rate(""));
        check("10M@08-18,20M@17-19", LimitError::Overlap("20M@17-19".into()));
        check("10M@22-06,20M@05-08", LimitError::Overlap("20M@05-08".into()));
        check("10M@09-10,20M@08-18", LimitError::Overlap("20M@08-18".into()));
        check("10M@08-18,20M@08-18", LimitError::Overlap("20M@08-18".into()));
        check("10M,20M", LimitError::TwoRests);
        check("off,20M", LimitError::TwoRests);
        let many: Vec<_> =
            (0..49).map(|n| format!("1M@{:02}:{:02}-{:02}:{:02}", n / 4, n % 4 * 2, n / 4, n % 4 * 2 + 1)).collect();
        check(&many.join(","), LimitError::TooMany);
    }

    #[test]
    fn rates_by_time_of_day() {
        let check = |text: &str, hour: u16, minute: u16, want: &str| {
            let limit: Limit = text.parse().unwrap();
            let want: Limit = want.parse().unwrap();
            assert_eq!(limit.rate_at(TimeOfDay::new(hour, minute)), want.rest, "{text} at {hour}:{minute}");
        };
        check("10M", 3, 0, "10M");
        check("off", 3, 0, "off");
        check("200M@08-18", 7, 59, "off");
        check("200M@08-18", 8, 0, "200M");
        check("200M@08-18", 17, 59, "200M");
        check("200M@08-18", 18, 0, "off");
        check("50M@08-18,200M@18-22", 18, 0, "200M");
        check("50M@08-18,200M@18-22", 22, 0, "off");
        for (hour, minute, want) in
            [(21, 59, "10M"), (22, 0, "200M"), (23, 59, "200M"), (0, 0, "200M"), (5, 59, "200M"), (6, 0, "10M")]
        {
            check("10M,200M@22-06", hour, minute, want);
        }
        check("10M@18-24", 23, 59, "10M");
        check("10M@18-24", 0, 0, "off");
        check("10M@08:30-08:31", 8, 30, "10M");
        check("10M@08:30-08:31", 8, 31, "off");
        check("1M,off@22-06", 23, 0, "off");
    }

    #[test]
    fn says_what_would_be_right() {
        let check = |text: &str, want: &str| assert_eq!(text.parse::<Limit>().unwrap_err().to_string(), want);
        check(
            "10",
            "\"10\" is out of bounds: from 16K to 1T a second, or off; units are K, M, G and T (KiB, MiB, … a second)",
        );
        check(
            "10MB",
            "\"10MB\" is not a rate; a rate is off, or a number with K, M, G or T (KiB, MiB, … a second), such as 10M",
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9a-zA-Z@,:. -]{0,30}") {
            if let Ok(limit) = text.parse::<Limit>() {
                prop_assert_eq!(limit.to_string().parse(), Ok(limit));
            }
        }

        /// Every time of day has the rate of the window that it is in, counted minute by minute.
        #[test]
        fn windows_are_what_they_say(from in 0..DAY, len in 1..DAY) {
            let until = TimeOfDay((from + len) % DAY);
            let limit: Limit = format!("1M,2M@{}-{until}", TimeOfDay(from)).parse().unwrap();
            let n_inside = (0..DAY).filter(|minute| limit.rate_at(TimeOfDay(*minute)) == NonZeroU64::new(2 << 20)).count();
            prop_assert_eq!(n_inside, usize::from(len));
            prop_assert_eq!(limit.rate_at(TimeOfDay(from)), NonZeroU64::new(2 << 20));
            prop_assert_eq!(limit.rate_at(until), NonZeroU64::new(1 << 20));
        }
    }
}
