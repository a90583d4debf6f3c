//! What `doctor` prints: a line for each finding, what to do below it, and how it is in all.

use serde::Serialize;

use super::look::{BAD, FAINT, GOOD, Look, ODD};
use super::units::count;
use super::{escape, units};
use crate::doctor::{Finding, Verdict, verdict};

/// As text.
pub fn findings(findings: &[Finding], look: &Look) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let (word, style) = match finding.verdict {
            Verdict::Ok => ("ok", GOOD),
            Verdict::Warn => ("warn", ODD),
            Verdict::Fail => ("fail", BAD),
        };
        let (word, check) = (look.paint(style, &units::fit(word, 4)), units::fit(finding.check, 8));
        lines.push(format!("{word}  {check}  {}", escape(&finding.message)));
        if !finding.hint.is_empty() {
            lines.push(format!("                {} {}", look.paint(FAINT, "→"), escape(&finding.hint)));
        }
    }
    let n = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count() as u64;
    let (n_failed, n_warned) = (n(Verdict::Fail), n(Verdict::Warn));
    let warned = count(n_warned, "warning", "warnings");
    lines.push(match (n_failed, n_warned) {
        (0, 0) => "All is well.".into(),
        (0, _) => format!("It works, with {warned}."),
        (_, 0) => format!("{} to mend.", count(n_failed, "thing", "things")),
        _ => format!("{} to mend, and {warned}.", count(n_failed, "thing", "things")),
    });
    lines.join("\n")
}

/// As one JSON object.
pub fn findings_json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        verdict: Verdict,
        findings: &'a [Finding],
    }
    super::json::line(&Report { verdict: verdict(findings), findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        let finding = |check, verdict, message: &str, hint: &str| Finding {
            check,
            verdict,
            message: message.into(),
            hint: hint.into(),
        };
        let all = [
            finding("share", Verdict::Ok, "/share can be written", ""),
            finding("inotify", Verdict::Warn, "9000 folders to watch, 8192 may be", "sysctl more"),
            finding("tracker", Verdict::Fail, "http://t\u{9b}:7700 does not answer", "Start it."),
        ];
        insta::assert_snapshot!("doctor", findings(&all, &Look::PLAIN));
        insta::assert_snapshot!("doctor_json", findings_json(&all));
        assert!(findings(&all[..1], &Look::PLAIN).ends_with("\nAll is well."));
        assert!(findings(&all[..2], &Look::PLAIN).ends_with("\nIt works, with 1 warning."));
        assert!(findings(&all[2..], &Look::PLAIN).ends_with("\n1 thing to mend."));
    }
}
