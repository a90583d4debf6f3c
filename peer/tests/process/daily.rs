//! For daily use: programs that are run for what has come, a file of settings, `doctor`, verbs that need no folder.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Share, eventually, get, peers, tracker, wait_for_owners};

/// Names that a shell, or a program that looks for options, would take for more than names.
const NAMES: [&str; 7] =
    ["-rf", "--help", "$(touch pwned)", "`touch pwned`", "a; touch pwned", "quote ' and \"", "dir/two words"];

/// A script that runs in `sh`.
fn script(share: &Share, name: &str, body: &str) -> PathBuf {
    let path = share.dir().parent().unwrap().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// A script that writes what it was called with into a folder, a file for each call.
fn recorder(share: &Share) -> (PathBuf, PathBuf) {
    let calls = share.dir().parent().unwrap().join("calls");
    std::fs::create_dir(&calls).unwrap();
    let body = format!(
        "echo said by the program\nprintf '%s\\0' \"$#\" \"$@\" \"$POTLUCK_PATH\" \"$POTLUCK_CONTENT_ID\" \"$POTLUCK_LEN\" \
         > '{0}/.'$$ && mv '{0}/.'$$ '{0}/'$$",
        calls.display()
    );
    (script(share, "record.sh", &body), calls)
}

/// What the recorder was called with, all calls sorted.
fn called(calls: &Path) -> Vec<Vec<String>> {
    let files = std::fs::read_dir(calls).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|file| !file.file_name().to_string_lossy().starts_with('.'));
    let mut all: Vec<Vec<String>> = files
        .map(|file| {
            let text = std::fs::read_to_string(file.path()).unwrap();
            text.split_terminator('\0').map(str::to_owned).collect()
        })
        .collect();
    all.sort();
    all
}

fn wanted(share: &Share, files: &[&str]) -> Vec<Vec<String>> {
    let mut all: Vec<_> = files
        .iter()
        .map(|name| {
            let path = share.dir().canonicalize().unwrap().join(name).display().to_string();
            let (id, len) = (blake3::hash(name.as_bytes()).to_string(), name.len().to_string());
            ["3", &path, &id, &len, &path, &id, &len].map(str::to_owned).to_vec()
        })
        .collect();
    all.sort();
    all
}

fn exists_anywhere(folder: &Path, name: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path.file_name().is_some_and(|is| is == name) || (path.is_dir() && exists_anywhere(&path, name))
    })
}

#[test]
fn a_program_is_run_for_what_was_downloaded() {
    let tracker = tracker(0);
    let owner = Share::new(&tracker, "owner");
    NAMES.iter().for_each(|name| owner.write(name, name.as_bytes()));
    let _serving = owner.up();
    wait_for_owners(&tracker, "dir/two%20words", 1);
    eventually("all are listed", || {
        get(tracker.address, "/v1/stats").is_some_and(|stats| stats["n_files"] == NAMES.len())
    });
    let taker = Share::new(&tracker, "taker");
    let (program, calls) = recorder(&taker);
    let program = program.to_str().unwrap();
    let ended = taker.run(&["--json", "download", "--on-complete", program, "./"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(called(&calls), wanted(&taker, &NAMES));
    // Results are JSON to the last line; what programs say is elsewhere.
    assert!(ended.stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{ended:?}");
    assert_eq!(ended.stderr.matches("said by the program").count(), NAMES.len(), "{ended:?}");
    assert!(!exists_anywhere(taker.dir().parent().unwrap(), "pwned"), "no shell has read a name");
    // A program that fails is reported for each file, and the exit code says so.
    let failing = script(&taker, "failing.sh", "exit 3");
    let ended = taker.run(&["download", "--on-complete", failing.to_str().unwrap(), "--", "-rf"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("error: --on-complete: ") && ended.stderr.contains("/-rf: exit status: 3"),
        "{ended:?}"
    );
    // One that cannot be run is said before anything comes.
    let other = Share::new(&tracker, "other");
    let plain = other.dir().parent().unwrap().join("plain");
    std::fs::write(&plain, "x").unwrap();
    for bad in [plain.to_str().unwrap(), "/nonexistent/x", "no-such-program-anywhere", "true --with arguments"] {
        let ended = other.run(&["download", "--on-complete", bad, "./"]);
        assert_eq!((ended.code, other.path("-rf").exists()), (Some(2), false), "{ended:?}");
        assert!(ended.stderr.contains("chmod +x"), "{ended:?}");
    }
}

#[test]
fn a_running_peer_runs_it_for_everything_that_comes() {
    let tracker = tracker(0);
    let owner = Share::new(&tracker, "owner");
    owner.write("one", b"one");
    let _serving = owner.up();
    wait_for_owners(&tracker, "one", 1);
    let mut taker = Share::new(&tracker, "taker");
    let (program, calls) = recorder(&taker);
    taker.write("its own", b"not downloaded");
    let up = {
        let mut command = taker.command(&["up", "--sync", "receive", "--on-complete"]);
        command.arg(&program);
        crate::harness::Program::start(command)
    };
    taker.flags.clear();
    assert_eq!(taker.run(&["download", "one"]).code, Some(0));
    eventually("it was run for a download", || called(&calls) == wanted(&taker, &["one"]));
    // And for what folder sync brings.
    let sender = Share::new(&tracker, "sender");
    sender.write("synced", b"synced");
    let _sending = crate::harness::Program::start(sender.command(&["up", "--sync", "both"]));
    eventually("it was run for a synced file", || called(&calls) == wanted(&taker, &["one", "synced"]));
    drop(up);
}

#[test]
fn settings_come_from_a_file() {
    let tracker = tracker(0);
    let share = Share::new(&tracker, "x");
    let folder = share.dir().parent().unwrap();
    let file = folder.join("settings.toml");
    let run = |text: &str, env: &[(&str, &str)], args: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut command = share.command(args);
        command.env_remove("POTLUCK_TRACKER").env_remove("POTLUCK_NAME").env("POTLUCK_CONFIG", &file);
        command.envs(env.iter().copied());
        crate::harness::ended(
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap(),
        )
    };
    let text =
        format!("[peer]\ntracker = ['http://{}']\nname = 'from the file'\non-complete = 'true'\n", tracker.address);
    // It is really used: nobody else told this verb of the tracker.
    let ended = run(&text, &[], &["--json", "status"]);
    let status: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&status["name"], &status["trackers"][0]["reachable"]),
        (&json!("from the file"), &json!(true)),
        "{ended:?}"
    );
    let shown = run(&text, &[("POTLUCK_LIMIT_UP", "5M")], &["config", "--name", "typed"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let holds = |line: &str, from: &str| {
        let found = shown.stdout.lines().find(|shown| shown.starts_with(line));
        assert!(found.is_some_and(|found| found.ends_with(from)), "{line} from {from}: {}", shown.stdout);
    };
    holds("name = \"typed\" ", "# --name");
    holds("limit-up = \"5M\" ", "# POTLUCK_LIMIT_UP");
    holds(&format!("tracker = [\"http://{}\"] ", tracker.address), "# line 2");
    holds("on-complete = \"true\" ", "# line 4");
    holds("limit-down = \"off\" ", "# default");
    holds("# advertise", "is not set");
    // What is shown is a file of settings.
    let again = run(&shown.stdout, &[], &["config"]);
    assert!(again.code == Some(0) && again.stdout.contains("name = \"typed\" "), "{again:?}");
    let json = run(&text, &[], &["--json", "config"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    let name = json["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == "name").unwrap();
    assert_eq!((&name["values"], &name["source"]), (&json!(["from the file"]), &json!({ "file": { "line": 3 } })));
    // A mistake ends every verb, with its line.
    let ended = run("[peer]\nlimit_up = '1M'\n", &[], &["show"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("settings.toml:2: ") && ended.stderr.contains("did you mean limit-up?"), "{ended:?}");
    let ended = run("[peer]\nlimit-up = '1MB'\n", &[], &["show"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("settings.toml:2: limit-up cannot be \"1MB\": "), "{ended:?}");
}

#[test]
fn a_doctor_says_what_to_mend_and_leaves_nothing() {
    let tracker = tracker(0);
    let share = Share::new(&tracker, "patient");
    let finding = |report: &Value, check: &str| {
        let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("nothing about {check}: {report}")).clone()
    };
    let report = share.json(&["doctor"]);
    for check in ["share", "tracker", "clock", "ports", "reach"] {
        assert_eq!(finding(&report, check)["verdict"], "ok", "{report}");
    }
    // How much a machine grants is its own affair.
    for check in ["disk", "limits", "inotify"] {
        assert_ne!(finding(&report, check)["message"], "", "{report}");
    }
    assert!(peers(&tracker).is_empty() && std::fs::read_dir(share.dir()).unwrap().count() == 0, "nothing is left");
    // With a peer running, that one is asked.
    let up = share.up();
    eventually("it is listed", || peers(&tracker) == ["patient"]);
    eventually("the peer knows", || finding(&share.json(&["doctor"]), "peer")["verdict"] == "ok");
    drop(up);
    let ill = Share::at("http://127.0.0.1:1", "ill").in_folder("missing");
    let ended = ill.run(&["doctor"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for says in ["fail  share", "mkdir -p", "fail  tracker", "does not answer", "2 things to mend"] {
        assert!(ended.stdout.contains(says), "{says}: {ended:?}");
    }
}

/// Who has just unpacked potluck has no `./share`, and only wants to look.
#[test]
fn looking_needs_no_share_folder_and_shows_no_log() {
    let tracker = tracker(0);
    let owner = Share::new(&tracker, "owner");
    owner.write("Music/song.OGG", b"la");
    let _serving = owner.up();
    wait_for_owners(&tracker, "Music/song.OGG", 1);
    let newcomer = Share::new(&tracker, "newcomer").in_folder("not/there");
    for (args, says) in [
        (&["show"][..], "song.OGG"),
        (&["peers"], "owner"),
        (&["getip", "owner"], "owner"),
        (&["manifest", "--everybody"], "song.OGG"),
    ] {
        let ended = newcomer.run(args);
        assert!(ended.code == Some(0) && ended.stdout.contains(says), "{args:?}: {ended:?}");
        assert_eq!(ended.stderr, "", "{args:?}");
    }
    assert!(!newcomer.dir().exists());
    assert_eq!(newcomer.run(&["download", "Music/song.OGG"]).code, Some(1), "what comes needs a place");
    // What narrows a list does it alike everywhere.
    for verb in ["show", "verify", "manifest"] {
        let ended = owner.run(&[verb, "SONG"]);
        assert!(ended.code == Some(0) && ended.stdout.contains("song.OGG"), "{verb}: {ended:?}");
    }
    let lost = Share::at("http://127.0.0.1:1", "lost");
    let ended = lost.run(&["show"]);
    assert!(ended.code == Some(4) && !ended.stderr.contains("WARN"), "{ended:?}");
}
