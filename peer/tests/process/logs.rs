//! Logs for programs: JSON lines, and one name of a request in the logs of who asks and who answers.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Program, Share, eventually, noise, tracker, wait_for_owners};

/// What has been logged so far, every line as JSON.
fn lines(program: &Program) -> Vec<Value> {
    let text = program.stderr.lock().unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Names of requests in lines with this message, at a place in the line.
fn request_ids(program: &Program, message: &str, place: &str) -> BTreeSet<String> {
    let lines = lines(program);
    let said = lines.iter().filter(|line| line["message"] == message);
    said.filter_map(|line| line.pointer(place)?.as_str().map(str::to_owned)).collect()
}

#[test]
fn a_request_has_one_name_in_both_logs() {
    let tracker = tracker(0);
    let up = |share: &Share| {
        let mut command = share.command(&["up"]);
        command.env("POTLUCK_LOG", "potluck_peer=debug,potluck_common=debug").env("POTLUCK_LOG_FORMAT", "json");
        Program::start(command)
    };
    let owner = Share::new(&tracker, "owner");
    owner.write("large", &noise(3 << 20, 1));
    owner.write("small", &noise(1_000, 2));
    let serving = up(&owner);
    wait_for_owners(&tracker, "large", 1);
    wait_for_owners(&tracker, "small", 1);
    let taker = Share::new(&tracker, "taker");
    let taking = up(&taker);
    let done = taker.command(&["download", "large", "small"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let asked = request_ids(&taking, "asking", "/request_id");
    assert!(asked.len() >= 2, "{asked:?}");
    eventually("all that was asked was answered under its name", || {
        asked.is_subset(&request_ids(&serving, "answered", "/span/request_id"))
    });
    let answered =
        lines(&serving).into_iter().find(|line| asked.contains(line["span"]["request_id"].as_str().unwrap_or("")));
    let answered = answered.expect("it was just there");
    assert_eq!((&answered["span"]["method"], &answered["level"]), (&"GET".into(), &"DEBUG".into()), "{answered}");
    assert!(answered["status"] == 206 || answered["status"] == 200, "{answered}");
    let all = || lines(&serving).into_iter().chain(lines(&taking));
    for line in all() {
        plain(&line);
    }
    let downloaded = all().find(|line| line["message"] == "downloaded").expect("it was downloaded");
    assert!(downloaded["name"] == "large" || downloaded["name"] == "small", "{downloaded}");
}

/// Values stand as they are, not as Rust would write them: once `name` was `"\"large\""`, and a tracker `Tracker(Url { … })`.
fn plain(value: &Value) {
    match value {
        Value::Object(fields) => fields.values().for_each(plain),
        Value::String(text) => {
            assert!(!text.starts_with('"') && !text.contains(" { ") && !text.contains("Some("), "{text}");
        }
        _ => {}
    }
}

/// A format that is none is a usage error that says what there is.
#[test]
fn unknown_formats_are_refused() {
    let share = Share::at("http://127.0.0.1:9", "node");
    let refused = share.command(&["--log-format", "xml", "up"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("text or as json"), "{said}");
}
