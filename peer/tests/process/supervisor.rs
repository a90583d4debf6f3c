//! What systemd hears of both programs, from a socket that stands in for it.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::{DEADLINE, Program, Share, tracker, tracker_command};

/// Starts a program that has a supervisor, ends it, and gives what the supervisor heard.
fn heard(mut command: Command) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut program = Program::start(command);
    let mut heard = Vec::new();
    let mut ended = false;
    while heard.last().is_none_or(|last| last != "STOPPING=1") {
        let mut bytes = [0; 256];
        let n = socket.recv(&mut bytes).unwrap();
        heard.push(String::from_utf8_lossy(&bytes[..n]).trim_end().to_owned());
        let is_watched = heard.iter().filter(|word| *word == "WATCHDOG=1").count() >= 3;
        if is_watched && heard.contains(&"READY=1".to_owned()) && !std::mem::replace(&mut ended, true) {
            program.signal(Signal::TERM);
        }
    }
    assert_eq!(program.wait(DEADLINE), Some(0));
    heard
}

#[test]
fn a_supervisor_hears_of_both_programs() {
    let running = tracker(0);
    for command in [tracker_command(0), Share::new(&running, "x").command(&["up"])] {
        let heard = heard(command);
        assert_eq!(heard.iter().filter(|word| *word == "READY=1").count(), 1, "{heard:?}");
        let others = heard.iter().filter(|word| !["READY=1", "WATCHDOG=1", "STOPPING=1"].contains(&word.as_str()));
        assert_eq!(others.count(), 0, "{heard:?}");
    }
}
