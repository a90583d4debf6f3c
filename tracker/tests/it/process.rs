//! The real program: how it starts, refuses to start, is killed, and ends.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use potluck_common::protocol::AnnounceEvent;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{TestPeer, get, send_to};

const PROGRAM: &str = env!("CARGO_BIN_EXE_potluck-tracker");

/// A running program, killed when the test ends.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["--listen", "127.0.0.1:0", "--no-lan"]).args(args);
        Self::wait_until_ready(command)
    }

    fn wait_until_ready(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("tracker ready on http://").expect("the ready line").trim_end();
        Self { address: address.parse().unwrap(), child }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn wait(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the program still runs");
            std::thread::yield_now();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program to its end.
fn output(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Checks that it ends with `code` and one line on standard error that contains every one of `parts`.
#[track_caller]
fn refuses(args: &[&str], code: i32, parts: &[&str]) {
    let output = output(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{args:?}: {text}");
    if code == 1 {
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    }
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn refuses_to_start_and_says_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(&["--memory", "--listen", &address], 1, &[&address, "--listen", "in use"]);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    refuses(&["--listen", "127.0.0.1:0", "--data", file], 1, &[file, "--data", "--memory"]);
    refuses(&["--listen", "127.0.0.1:0", "--memory", "--log-dir", file], 1, &["--log-dir"]);
    let memory = ["--listen", "127.0.0.1:0", "--memory"];
    refuses(&[&memory[..], &["--lease", "3s"]].concat(), 1, &["--lease", "--heartbeat", "3s", "5s"]);
    refuses(&[&memory[..], &["--heartbeat", "0s"]].concat(), 1, &["--heartbeat"]);
    refuses(&["--listen", "nonsense"], 2, &["--listen"]);
    refuses(&["--heartbeat", "soon"], 2, &["--heartbeat"]);
    refuses(&["--nonsense"], 2, &["--nonsense"]);
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let _first = Program::start(&["--data", data]);
    refuses(&["--listen", "127.0.0.1:0", "--data", data], 1, &["another tracker", data]);
}

/// F46.
#[test]
fn starts_is_well_and_ends() {
    let dir = TempDir::new().unwrap();
    let logs = dir.path().join("logs");
    let data = dir.path().join("data");
    let mut program =
        Program::start(&["--data", data.to_str().unwrap(), "--log-dir", logs.to_str().unwrap(), "--heartbeat", "1s"]);
    let address = program.address.to_string();
    assert_eq!(output(&["--health", "--listen", &address]).status.code(), Some(0));
    let everywhere = format!("0.0.0.0:{}", program.address.port());
    assert_eq!(output(&["--health", "--listen", &everywhere]).status.code(), Some(0));
    // An open event stream does not hold it up.
    let mut stream = std::net::TcpStream::connect(program.address).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 16]).unwrap();
    kill_process(program.pid(), Signal::TERM).unwrap();
    assert_eq!(program.wait(Duration::from_secs(5)), Some(0));
    assert_eq!(output(&["--health", "--listen", &address]).status.code(), Some(1));
    assert!(std::fs::read_dir(&logs).unwrap().next().is_some());
}

async fn list(address: SocketAddr) -> Vec<String> {
    let (status, files) = send_to(address, get("/v1/files?limit=10000")).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    files["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

/// What a peer was told, and what it does not know about.
struct Sender {
    peer: TestPeer,
    acknowledged: Vec<String>,
    revision: u64,
}

/// F18: kill the tracker under load, start it again: every acknowledged announce is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().to_str().unwrap();
    let mut rng = fastrand::Rng::with_seed(18);
    let mut senders: Vec<Sender> =
        (0..8).map(|n| Sender { peer: TestPeer::new(n), acknowledged: vec![], revision: 0 }).collect();
    for round in 0..4 {
        let mut program = Program::start(&["--data", data]);
        let address = program.address;
        // After a restart everybody goes on where it was, or is asked for all when an answer was lost.
        for sender in &mut senders {
            let Sender { peer, acknowledged, revision } = sender;
            peer.message.revision = *revision;
            let (status, reply) = send_to(address, peer.say(AnnounceEvent::Heartbeat)).await.unwrap();
            assert_eq!(status, StatusCode::OK, "{reply}");
            let known = reply["revision"].as_u64().unwrap();
            assert!(known == *revision || known == *revision + 1, "knows {known}, acknowledged was {revision}");
            assert_eq!(reply["resync"], known != *revision);
            *revision = known;
            let listed = list(address).await;
            assert!(acknowledged.iter().all(|path| listed.contains(path)), "round {round}: something is lost");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let working = senders.into_iter().enumerate().map(|(n, mut sender)| {
            let stop = stop.clone();
            tokio::spawn(async move {
                sender.peer.message.revision = sender.revision;
                for k in 0.. {
                    let path = format!("{n}/{round}/{k}");
                    let answer = send_to(address, sender.peer.add(&[&path])).await;
                    match answer {
                        Ok((StatusCode::OK, reply)) => {
                            assert_eq!(reply["resync"], false, "{reply}");
                            sender.revision = reply["revision"].as_u64().unwrap();
                            sender.acknowledged.push(path);
                        }
                        _ if stop.load(Ordering::Relaxed) => break,
                        other => panic!("{other:?}"),
                    }
                }
                sender
            })
        });
        let working: Vec<_> = working.collect();
        let delay = Duration::from_millis(rng.u64(50..600));
        tokio::time::sleep(delay).await; // The moment of the kill is the test's input, not something waited for.
        stop.store(true, Ordering::Relaxed);
        program.child.kill().unwrap();
        program.child.wait().unwrap();
        senders = Vec::new();
        for sender in working {
            senders.push(sender.await.unwrap());
        }
    }
    assert!(senders.iter().all(|sender| !sender.acknowledged.is_empty()));
}

/// A full disk: the tracker says that it cannot keep what comes, keeps leases, and goes on when there is space.
#[tokio::test]
async fn full_disk() {
    let dir = TempDir::new().unwrap();
    // A limit on the length of files fails like a full disk, without a disk to fill.
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 2048; exec \"$0\" \"$@\"", PROGRAM]);
    command.args(["--listen", "127.0.0.1:0", "--no-lan", "--data"]).arg(dir.path());
    let program = Program::wait_until_ready(command);
    let address = program.address;
    let mut peer = TestPeer::new(1);
    let mut acknowledged = Vec::new();
    let mut refused = None;
    for page in 0..40 {
        let before = peer.message.revision;
        let paths: Vec<String> = (0..500).map(|n| format!("{page:03}/{n:04}/{}", "x".repeat(200))).collect();
        let request = peer.add(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let (status, json) = send_to(address, request).await.unwrap();
        if status == StatusCode::OK {
            acknowledged.extend(paths);
            continue;
        }
        assert_eq!((status.as_u16(), &json["type"]), (503, &Value::from("urn:potluck:problem:not-kept")));
        peer.message.revision = before;
        refused = Some(paths);
        break;
    }
    let refused = refused.expect("the disk was full at some time");
    assert_eq!(send_to(address, get("/readyz")).await.unwrap().0, 503);
    assert_eq!(send_to(address, get("/healthz")).await.unwrap().0, 200);
    let (status, reply) = send_to(address, peer.say(AnnounceEvent::Heartbeat)).await.unwrap();
    assert_eq!((status, &reply["resync"]), (StatusCode::OK, &Value::Bool(true)), "the lease goes on");
    // Nothing that was not acknowledged comes back, and everything that was does.
    prlimit(Some(program.pid()), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    peer.message.revision = 0;
    let some: Vec<&str> = refused.iter().map(String::as_str).collect();
    let (status, reply) = send_to(address, peer.add(&some)).await.unwrap();
    assert_eq!((status, &reply["resync"]), (StatusCode::OK, &Value::Bool(false)), "{reply}");
    assert_eq!(send_to(address, get("/readyz")).await.unwrap().0, 200);
    assert_eq!(list(address).await.len(), 500);
    drop(program);
    let program = Program::start(&["--data", dir.path().to_str().unwrap()]);
    let (_, reply) = send_to(program.address, peer.say(AnnounceEvent::Heartbeat)).await.unwrap();
    assert_eq!(reply["resync"], false, "{reply}");
    assert_eq!(list(program.address).await, refused);
    assert!(!acknowledged.is_empty());
}

/// F09: strangers hold all descriptors that the tracker may have. It waits without spinning, and goes on when they let go.
#[tokio::test]
async fn out_of_descriptors() {
    let program = Program::start(&["--memory"]);
    let (address, pid) = (program.address, program.pid());
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let held: Vec<_> = (0..120).map(|_| TcpStream::connect(address).unwrap()).collect();
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::fs::read_dir(process.join("fd")).unwrap().count() < 64 {
        assert!(Instant::now() < deadline, "it has descriptors left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // User and system time, in hundredths of a second.
    let used = || -> u64 {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    let before = used();
    tokio::time::sleep(Duration::from_secs(1)).await; // Over which the processor's time is measured.
    assert!(used() - before < 30, "it spins: {} of 100 ticks", used() - before);
    drop(held);
    let (status, _) = send_to(address, get("/healthz")).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let mut peer = TestPeer::new(1);
    assert_eq!(send_to(address, peer.add(&["a"])).await.unwrap().0, StatusCode::OK);
}

/// `--memory`, here by its variable, leaves nothing behind.
#[test]
fn memory_leaves_no_folder() {
    let dir = TempDir::new().unwrap();
    let mut command = Command::new(PROGRAM);
    command.current_dir(dir.path()).args(["--listen", "127.0.0.1:0", "--no-lan"]).env("POTLUCK_MEMORY", "1");
    let program = Program::wait_until_ready(command);
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    drop(program);
}
