//! What the system grants: open files and watched folders.

use std::path::Path;

use ignore::WalkBuilder;

use super::Finding;

/// Open files with which a peer serves as many as it can.
const ENOUGH_FILES: u64 = 4_096;
/// Where Linux says how many folders one user may watch.
const MAX_WATCHES: &str = "/proc/sys/fs/inotify/max_user_watches";
/// Folders that are counted at most.
const MAX_COUNTED: u64 = 5_000_000;

/// Looks at both.
pub(super) fn examine(share: &Path) -> Vec<Finding> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let max_watches = std::fs::read_to_string(MAX_WATCHES).ok().and_then(|text| text.trim().parse().ok());
    vec![open_files(limit.maximum), watches(n_folders(share), max_watches)]
}

/// `hard` is what a peer raises its own limit to; `None`: there is none.
fn open_files(hard: Option<u64>) -> Finding {
    match hard {
        Some(hard) if hard < ENOUGH_FILES => Finding::warn(
            "limits",
            format!("{hard} files and connections may be open at once: few can be served together"),
            format!("Raise it to {ENOUGH_FILES} or more: ulimit -Hn, LimitNOFILE= in systemd, --ulimit in Docker."),
        ),
        Some(hard) => Finding::ok("limits", format!("{hard} files and connections may be open at once")),
        None => Finding::ok("limits", "any number of files and connections may be open at once"),
    }
}

/// Every folder of the share takes one watch, and all programs of a user share them.
fn watches(n_folders: u64, max: Option<u64>) -> Finding {
    let Some(max) = max else {
        let message = "this system does not say how many folders may be watched";
        return Finding::warn("inotify", message, "Without inotify, changes are found by looking once a minute.");
    };
    let message = format!("{n_folders} folders to watch, {max} may be");
    if n_folders.saturating_mul(5) <= max.saturating_mul(4) {
        return Finding::ok("inotify", message);
    }
    let wanted = (n_folders * 2).max(65_536);
    let hint = format!(
        "sysctl fs.inotify.max_user_watches={wanted} (and a line in /etc/sysctl.d/ to keep it). \
         Until then changes are found by looking once a minute."
    );
    Finding::warn("inotify", message, hint)
}

fn n_folders(share: &Path) -> u64 {
    let walk = WalkBuilder::new(share).standard_filters(false).follow_links(false).build();
    let folders = walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_some_and(|kind| kind.is_dir()));
    folders.zip(0..MAX_COUNTED).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn limits() {
        let check = |finding: Finding, verdict| assert_eq!(finding.verdict, verdict, "{finding:?}");
        check(open_files(Some(1_024)), Verdict::Warn);
        check(open_files(Some(4_096)), Verdict::Ok);
        check(open_files(None), Verdict::Ok);
        check(watches(800, Some(1_000)), Verdict::Ok);
        check(watches(801, Some(1_000)), Verdict::Warn);
        check(watches(u64::MAX / 4, Some(1)), Verdict::Warn);
        check(watches(1, None), Verdict::Warn);
        assert!(watches(100_000, Some(8_192)).hint.contains("max_user_watches=200000"));
    }

    #[test]
    fn folders_are_counted() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/.hidden/c")).unwrap();
        std::fs::write(temp.path().join("a/file"), "x").unwrap();
        std::os::unix::fs::symlink("/", temp.path().join("link")).unwrap();
        assert_eq!(n_folders(temp.path()), 4);
    }
}
