//! The clock, against that of a tracker. Pure.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::Finding;

/// Nobody minds less: an HTTP date has whole seconds, and the answer takes its time.
const TOLERANCE_S: i64 = 10;

/// What the `Date` header of a tracker says of our clock.
pub(super) fn examine(date: Option<&str>, now: Timestamp) -> Finding {
    let Some(theirs) = date.and_then(|date| rfc2822::parse(date).ok()) else {
        return Finding::warn("clock", "the tracker does not say what time it is", "Compare the clocks by hand.");
    };
    let ahead_s = now.as_second() - theirs.timestamp().as_second();
    let by = format!("{} s", ahead_s.abs());
    let hint = "Let both set their clocks by the network (timedatectl set-ntp true). \
        Times that peers show, and which of two conflicting versions is the later one, come from clocks.";
    match ahead_s {
        0.. if ahead_s > TOLERANCE_S => Finding::warn("clock", format!("ahead of the tracker's by {by}"), hint),
        ..0 if ahead_s < -TOLERANCE_S => Finding::warn("clock", format!("behind the tracker's by {by}"), hint),
        _ => Finding::ok("clock", "the same as the tracker's"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn compared() {
        let now: Timestamp = "2026-11-21T08:32:22Z".parse().unwrap();
        let check = |date: Option<&str>, verdict: Verdict, says: &str| {
            let finding = examine(date, now);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(says), "{finding:?}");
        };
        check(Some("Sat, 21 Nov 2026 08:32:22 GMT"), Verdict::Ok, "the same");
        check(Some("Sat, 21 Nov 2026 08:32:13 GMT"), Verdict::Ok, "the same");
        check(Some("Sat, 21 Nov 2026 08:32:00 GMT"), Verdict::Warn, "ahead of the tracker's by 22 s");
        check(Some("Sat, 21 Nov 2026 09:32:22 GMT"), Verdict::Warn, "behind the tracker's by 3600 s");
        check(Some("Thu, 01 Jan 1970 00:00:00 GMT"), Verdict::Warn, "ahead");
        for unreadable in [None, Some(""), Some("yesterday"), Some("2026-11-21T08:32:22Z")] {
            check(unreadable, Verdict::Warn, "does not say");
        }
    }
}
