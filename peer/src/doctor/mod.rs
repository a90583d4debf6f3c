//! `doctor`: looks at what a peer needs from this machine and its network, and says what to do about what is not right.
//!
//! It looks from where a peer would stand, with the flags that a peer would get, but changes nothing: what it writes it removes,
//! and where it announces itself, it leaves again. Each look gives [`Finding`]s; none keeps another from being taken.

mod clock;
mod folder;
mod network;
mod system;

use serde::Serialize;

use crate::cli::Global;

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// A peer works, but not as well as it could.
    Warn,
    /// A peer does not work, or nobody gets anything from it.
    Fail,
}

/// What was found at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `share`, `disk`, `limits`, `inotify`, `tracker`, `clock`, `ports`, `reach`.
    pub check: &'static str,
    /// How it looks.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, message: message.into(), hint: String::new() }
    }

    fn warn(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, message: message.into(), hint: hint.into() }
    }

    fn fail(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, message: message.into(), hint: hint.into() }
    }
}

/// The worst of them.
pub fn verdict(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

/// Looks at everything.
pub async fn examine(global: &Global) -> Vec<Finding> {
    let share = global.share.clone();
    let here = tokio::task::spawn_blocking(move || {
        let mut findings = folder::examine(&share);
        findings.extend(system::examine(&share));
        findings
    });
    let (here, network) = tokio::join!(here, network::examine(global));
    let mut findings = here.unwrap_or_else(|error| {
        vec![Finding::fail("share", format!("looking at the folder failed: {error}"), "Please report this.")]
    });
    findings.extend(network);
    findings
}
