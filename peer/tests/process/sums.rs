//! `hash` and `manifest` against the real b3sum; completions and man pages in the real bash, zsh, fish and man.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{Share, noise, skipped, tracker, wait_for_owners};

/// Runs a program in a folder; `None` and a word if this machine does not have it.
pub(crate) fn run(folder: &Path, program: &str, args: &[&str]) -> Option<Output> {
    let output = Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).output();
    output.inspect_err(|error| skipped(format_args!("{program}: {error}"))).ok()
}

#[test]
fn hash_prints_what_b3sum_prints() {
    // No peer and no tracker: neither is needed.
    let share = Share::at("http://127.0.0.1:9", "x");
    let folder = share.dir().parent().unwrap();
    let files = ["empty", "two words", "crème\u{202e}", "back\\slash", "new\nline", "-dash", "large"];
    for (n, name) in files.iter().enumerate() {
        let len = if *name == "large" { 3 << 20 } else { n * 1_000 };
        std::fs::write(folder.join(name), noise(len, n as u64)).unwrap();
    }
    let ours = share.run(&[&["hash", "--"], &files[..]].concat());
    assert_eq!(ours.code, Some(0), "{ours:?}");
    if let Some(theirs) = run(folder, "b3sum", &[&["--"], &files[..]].concat()) {
        assert_eq!(ours.stdout, String::from_utf8(theirs.stdout).unwrap());
    }
    let json = share.json(&["hash", "two words"]);
    assert_eq!((json["path"].as_str(), json["len"].as_u64()), (Some("two words"), Some(1_000)));
    let stdin = share.run(&["hash", "-"]);
    assert!(
        stdin.stdout.starts_with("af1349b9f5f9a1a6a0404dea36dcc949") && stdin.stdout.ends_with("  -\n"),
        "{stdin:?}"
    );
    // What can be read is, and the exit code says that not all was.
    let ended = share.run(&["hash", "nope", "empty"]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(3), 1), "{ended:?}");
    assert!(ended.stderr.contains("nope"), "{ended:?}");
    assert_eq!(share.run(&["hash", "share"]).code, Some(1), "a folder has no hash");
    assert!(!share.path(".potluck").exists(), "and nothing was made");
}

#[test]
fn b3sum_checks_a_manifest() {
    let tracker = tracker(0);
    let (one, two) = (Share::new(&tracker, "one"), Share::new(&tracker, "two"));
    for name in ["a", "docs/two words", "docs/crème brûlée.md"] {
        one.write(name, &noise(5_000, name.len() as u64));
    }
    one.write("notes", b"mine");
    two.write("notes", b"theirs");
    two.write("only/two", b"b");
    let _up = [one.up(), two.up()];
    wait_for_owners(&tracker, "a", 1);
    wait_for_owners(&tracker, "only/two", 1);
    let check = |folder: &Path, manifest: &str| {
        std::fs::write(folder.join("../SUMS"), manifest).unwrap();
        run(folder, "b3sum", &["--check", "../SUMS"]).map(|output| output.status.success())
    };
    let ours = one.run(&["manifest"]);
    assert_eq!((ours.code, ours.stdout.lines().count()), (Some(0), 4), "{ours:?}");
    assert!(check(one.dir(), &ours.stdout) != Some(false), "{ours:?}");
    one.write("docs/two words", b"changed");
    assert!(check(one.dir(), &ours.stdout) != Some(true), "b3sum sees what changed");
    let docs = one.run(&["manifest", "docs/"]);
    assert!(docs.stdout.lines().all(|line| line.contains("  docs/")) && docs.code == Some(0), "{docs:?}");
    assert_eq!(one.run(&["manifest", "nope"]).code, Some(3));

    let theirs = one.run(&["manifest", "--everybody", "only/"]);
    assert_eq!(theirs.code, Some(0), "{theirs:?}");
    assert!(check(two.dir(), &theirs.stdout) != Some(false), "{theirs:?}");
    let all = one.run(&["manifest", "--everybody"]);
    assert_eq!(all.code, Some(2), "a name that stands for two contents is no line: {all:?}");
    assert!(!all.stdout.contains("  notes\n") && all.stdout.contains("  only/two\n"), "{all:?}");
    assert!(all.stderr.contains("notes stands for 2 contents"), "{all:?}");
}

#[test]
fn completions_and_man_pages() {
    let share = Share::at("http://127.0.0.1:9", "x");
    let folder = share.dir().parent().unwrap();
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef potluck"), ("fish", "complete -c potluck")] {
        let script = share.run(&["completions", shell]);
        assert_eq!(script.code, Some(0));
        assert!(script.stdout.contains(word) && script.stdout.contains("manifest"), "{shell}");
        std::fs::write(folder.join(shell), &script.stdout).unwrap();
    }
    assert_eq!(share.run(&["completions", "tcsh"]).code, Some(2));
    completes(folder);

    assert_eq!(share.run(&["man", "pages/man1"]).code, Some(0));
    for page in ["potluck.1", "potluck-download.1", "potluck-manifest.1"] {
        let Some(output) = run(folder, "man", &["--warnings", "-l", &format!("pages/man1/{page}")]) else { break };
        assert!(output.status.success() && output.stderr.is_empty(), "{page}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("--share"), "{page}");
    }
    share.write("taken", b"");
    let taken = share.path("taken");
    assert_eq!(share.run(&["man", taken.to_str().unwrap()]).code, Some(1));
}

/// Each shell that is here completes a verb and a flag with the script of its name in `folder`.
fn completes(folder: &Path) {
    let script = "source ./bash; COMP_WORDS=(potluck downl) COMP_CWORD=1; \
        $(complete -p potluck | grep -o '_[a-z_]*potluck') potluck downl potluck; echo \"${COMPREPLY[@]}\"";
    if let Some(output) = run(folder, "bash", &["--norc", "-c", script]) {
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "download", "{output:?}");
    }
    let script = "source ./fish; complete -C 'potluck downl'; complete -C 'potluck download --on'";
    if let Some(output) = run(folder, "fish", &["--no-config", "-c", script]) {
        let said = String::from_utf8_lossy(&output.stdout);
        let words: Vec<_> = said.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, ["download", "--on-complete"], "{output:?}");
    }
    // zsh completes only at a terminal, so one zsh sits at the terminal of another.
    std::fs::rename(folder.join("zsh"), folder.join("_potluck")).unwrap();
    let script = r#"zmodload zsh/zpty
        zpty shell TERM=dumb zsh -f -i
        zpty -w shell 'PS1=; fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; echo re""ady'
        zpty -r -m shell seen '*ready*'
        zpty -n -w shell $'potluck downl\t--on\t'
        zpty -r -m shell seen '*oad*--on-complete*'
        print completed"#;
    if run(folder, "zsh", &["-f", "-c", ""]).is_some() {
        let output = run(folder, "timeout", &["30", "zsh", "-f", "-c", script]).expect("every Linux has timeout");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "completed", "{output:?}");
    }
}
