//! Starts the real programs with temporary folders on free ports, reads what they print, and ends them with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

const POTLUCK: &str = env!("CARGO_BIN_EXE_potluck");

/// The tracker's program, which lies beside the peer's; built if it was not.
fn tracker_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(POTLUCK).with_file_name("potluck-tracker");
        if !program.exists() {
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            build.args(["build", "--quiet", "-p", "potluck-tracker", "--target-dir"]);
            build.arg(Path::new(POTLUCK).parent().and_then(Path::parent).unwrap());
            if POTLUCK.contains("/release/") {
                build.arg("--release");
            }
            let built = build.status();
            assert!(
                built.is_ok_and(|status| status.success()) && program.exists(),
                "{} is missing: run `cargo build -p potluck-tracker` first",
                program.display()
            );
        }
        program
    })
}

/// A command that the environment of the test does not change.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // Nor does a file of settings.
    command.env("POTLUCK_CONFIG", "");
    command
}

/// A running program; killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) ready: String,
    pub(crate) address: SocketAddr,
    pub(crate) stderr: Arc<Mutex<String>>,
}

impl Program {
    /// Starts it and waits for its ready line.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Arc::<Mutex<String>>::default();
        let (sink, pipe) = (stderr.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut text = sink.lock().unwrap();
                *text += &line;
                text.push('\n');
            }
        });
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        let address = ready.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next());
        let Some(address) = address else {
            let _ = child.wait();
            panic!("no ready line but {ready:?}; {}", stderr.lock().unwrap());
        };
        let address = address.parse().unwrap();
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self { child, ready: ready.trim_end().to_owned(), address, stderr }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code; `None` if a signal ended it.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<i32> {
        wait(&mut self.child, limit)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn logged(&self, text: &str) -> usize {
        self.stderr.lock().unwrap().matches(text).count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child's end.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            panic!("it still runs after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A tracker on a port, 0 for any.
pub(crate) fn tracker(port: u16) -> Program {
    Program::start(tracker_command(port))
}

pub(crate) fn tracker_command(port: u16) -> Command {
    let mut command = clean(tracker_program());
    command.args([
        "--no-lan",
        "--memory",
        "--heartbeat",
        "300ms",
        "--lease",
        "3s",
        "--listen",
        &format!("127.0.0.1:{port}"),
    ]);
    command
}

/// A share folder, and what is said to every `potluck` that works on it.
pub(crate) struct Share {
    root: TempDir,
    dir: PathBuf,
    tracker: String,
    pub(crate) name: String,
    pub(crate) flags: Vec<String>,
}

impl Share {
    pub(crate) fn new(tracker: &Program, name: &str) -> Self {
        Self::at(&format!("http://{}", tracker.address), name)
    }

    pub(crate) fn at(tracker: &str, name: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("share");
        std::fs::create_dir(&dir).unwrap();
        Self { root, dir, tracker: tracker.into(), name: name.into(), flags: Vec::new() }
    }

    /// The same with another folder.
    pub(crate) fn in_folder(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = self.root.path().join(dir);
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn write(&self, name: &str, data: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }

    /// A `potluck` on this folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = clean(Path::new(POTLUCK));
        // From the environment, as flags would be warned of where a peer runs already.
        command.env("POTLUCK_TRACKER", &self.tracker).env("POTLUCK_NAME", &self.name);
        command.env("POTLUCK_LISTEN", "127.0.0.1:0").arg("--share").arg(&self.dir);
        command.args(&self.flags).args(args).current_dir(self.root.path());
        command.stdin(Stdio::null());
        command
    }

    /// The running peer.
    pub(crate) fn up(&self) -> Program {
        Program::start(self.command(&["up"]))
    }

    /// Runs one verb to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        let mut command = self.command(args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        ended(child)
    }

    /// Runs one verb that succeeds with JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ended = self.run(&[&["--json"], args].concat());
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap()
    }
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Waits for a child whose output is piped.
pub(crate) fn ended(child: Child) -> Ended {
    ended_within(DEADLINE, child)
}

/// The same for one that may take longer, or less long. One that leads a process group ends with the whole of it, as who is left
/// of it would hold the pipes.
pub(crate) fn ended_within(limit: Duration, mut child: Child) -> Ended {
    let pid = Pid::from_child(&child);
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    drop(child.stdin.take());
    // A program that hangs must not hang the test.
    let watchdog = std::thread::spawn(move || {
        if receiver.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process_group(pid, Signal::KILL).or_else(|_no_leader| kill_process(pid, Signal::KILL));
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    drop(sender);
    watchdog.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ended = Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) };
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

/// GET, as JSON.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_slice(&body(address, path)?).ok()
}

/// The bytes that GET is answered with, if all is well.
pub(crate) fn body(address: SocketAddr, path: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let body = answer.split_off(end + 4);
    String::from_utf8(answer).ok()?.contains(" 200 ").then_some(body)
}

/// The names of the peers that a tracker lists.
pub(crate) fn peers(tracker: &Program) -> Vec<String> {
    let peers = get(tracker.address, "/v1/peers").unwrap();
    peers["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a tracker lists so many owners of a name.
pub(crate) fn wait_for_owners(tracker: &Program, name: &str, n: usize) {
    eventually(&format!("{n} owners of {name}"), || {
        let info = get(tracker.address, &format!("/v1/files/{name}"));
        info.is_some_and(|info| info["contents"][0]["owners"].as_array().is_some_and(|owners| owners.len() == n))
    });
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    eventually_within(DEADLINE, what, condition);
}

/// The same for one that may take longer.
pub(crate) fn eventually_within(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Says that something is not tested here. Not by a macro: what those print is kept back while a test passes.
pub(crate) fn skipped(what: impl std::fmt::Display) {
    use std::io::Write as _;
    let _nobody_reads = writeln!(std::io::stderr(), "SKIPPED {what}");
}

/// Bytes that look like nothing else.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut data);
    data
}
