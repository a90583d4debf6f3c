//! The real programs under strace, which lets system calls fail. Where it is missing, or may trace nothing, these tests say so.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Program, clean, ended_within, skipped};

fn strace(options: &[&str]) -> Command {
    let mut strace = clean(Path::new("strace"));
    strace.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    strace
}

/// Whether strace can be used here; says that `what` is skipped if not.
pub(crate) fn can_trace(what: &str) -> bool {
    let can = strace(&["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "true"]).status();
    let can = can.is_ok_and(|status| status.success());
    if !can {
        skipped(format_args!("{what}: strace is missing, or may trace nothing here"));
    }
    can
}

/// A command under strace with these options, both in a process group of their own. What strace has to say goes to `log`.
pub(crate) fn traced(log: &Path, options: &[&str], command: &Command) -> Command {
    let mut strace = strace(&["-f", "-qq", "--seccomp-bpf"]);
    strace.arg("-o").arg(log).args(options).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        strace.env(name, value.unwrap_or_default());
    }
    if let Some(dir) = command.get_current_dir() {
        strace.current_dir(dir);
    }
    strace.process_group(0);
    strace
}

/// A running program whose system calls fail as told; let go when it is dropped.
pub(crate) struct Failing(Child);

impl Failing {
    /// From when this returns until it is dropped.
    pub(crate) fn attach(program: &Program, options: &[&str]) -> Self {
        let mut strace = strace(&["-f", "-o", "/dev/null"]);
        strace.args(options).args(["-p", &program.pid().to_string()]);
        let mut child = strace.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self(child)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // Killed, it would leave the program stopped.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Killed alone, strace left behind who held its pipes, and the test waited for ever.
#[test]
fn a_traced_program_that_hangs_ends_with_strace() {
    if !can_trace("that a hanging program ends with strace") {
        return;
    }
    let mut hangs = clean(Path::new("sleep"));
    hangs.arg("60");
    let began = Instant::now();
    let ended = ended_within(Duration::from_millis(300), traced(Path::new("/dev/null"), &[], &hangs).spawn().unwrap());
    assert_eq!(ended.code, None, "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}
