//! One-shot verbs, exit codes, the shell on a pipe, and pipes that close.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Program, Share, ended, eventually, noise, tracker, wait_for_owners};

/// A tracker and owner in one that answers every request by its path, until the test ends.
fn liar(answers: impl Fn(&str, &str) -> Option<(String, Vec<u8>)> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let own = url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
            let Some(line) = head.next() else { continue };
            let lines: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
            let range =
                lines.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
            let (extra, mut body) = answers(&path, &own).unwrap_or_default();
            let mut status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
            let mut content_range = String::new();
            if let Some(range) = range.filter(|_| !body.is_empty()) {
                let (first, last) = range.split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                content_range = format!("content-range: bytes {range}/{}\r\n", body.len());
                body = body[first..=last].to_vec();
                status = "206 Partial Content";
            }
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{extra}{content_range}connection: close\r\n\r\n",
                body.len()
            );
            let _ = (&stream).write_all(head.as_bytes());
            let _ = (&stream).write_all(&body);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = (&stream).take(1 << 20).read_to_end(&mut Vec::new());
        }
    });
    url
}

/// Every kind of failure that a user can meet without a full disk (that is in `disk`), by its exit code.
#[test]
fn exit_codes() {
    let tracker = tracker(0);
    let owner = Share::new(&tracker, "owner");
    owner.write("file", b"theirs");
    let _serving = owner.up();
    wait_for_owners(&tracker, "file", 1);
    let share = Share::new(&tracker, "taker");
    let check = |share: &Share, args: &[&str], code: i32| {
        let ended = share.run(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        let json = share.run(&[&["--json"], args].concat());
        assert_eq!(json.code, Some(code), "--json {args:?}: {json:?}");
        if code > 2 || (code == 1) {
            let last: Value = serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
            assert_eq!(last["event"], "failed", "{json:?}");
            assert!(ended.stderr.contains(last["message"].as_str().unwrap()), "{ended:?} {json:?}");
        }
    };
    for verb in ["show", "peers", "status", "getip", "verify"] {
        check(&share, &[verb], 0);
    }
    check(&share, &["download", "missing"], 3);
    check(&share, &["download", "missing/"], 3);
    check(&share, &["download", "--from", "nobody", "file"], 3);
    check(&share, &["getip", "nobody"], 3);
    check(&share, &["stop"], 3);
    check(&share, &["download", "../x"], 2);
    check(&share, &["download", "[x"], 2);
    share.write("file", b"ours");
    check(&share, &["download", "file"], 1);
    assert_eq!(std::fs::read(share.path("file")).unwrap(), b"ours");
    std::fs::remove_file(share.path("file")).unwrap();
    check(&share, &["download", "file"], 0);
    assert_eq!(std::fs::read(share.path("file")).unwrap(), b"theirs");
    let alone = Share::at("http://127.0.0.1:1", "alone");
    for args in [&["show"][..], &["peers"], &["download", "x"], &["getip", "x"]] {
        check(&alone, args, 4);
    }
    // No owner gives the right bytes.
    let id = "ab".repeat(32);
    let wrong = Share::at(
        &liar(move |path, own| {
            let owners =
                json!([{ "peer_id": "11".repeat(16), "name": "x", "base_url": own, "complete": true, "n_chunks": 1 }]);
            let contents = json!([{ "content_id": id, "len": 5, "since_ms": 0, "owners": owners }]);
            match path {
                "/v1/files/file" => {
                    Some((String::new(), json!({ "path": "file", "contents": contents }).to_string().into()))
                }
                path if path == format!("/v1/content/{id}") => Some((String::new(), b"wrong".to_vec())),
                _ => None,
            }
        }),
        "wrong",
    );
    check(&wrong, &["download", "file"], 5);
    assert!(!wrong.path("file").exists());
}

/// Lines on standard input are run in order; the exit code is that of the first that failed.
#[test]
fn the_shell_on_a_pipe() {
    let tracker = tracker(0);
    let owner = Share::new(&tracker, "owner");
    owner.write("dir/file one", b"1");
    owner.write("two", b"2");
    let _serving = owner.up();
    wait_for_owners(&tracker, "two", 1);
    wait_for_owners(&tracker, "dir/file%20one", 1);
    let share = Share::new(&tracker, "taker");
    let shell = |lines: &[u8]| {
        let mut command = share.command(&["shell"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines).unwrap();
        ended(child)
    };
    let all = shell(b"show\n\ndownload 'dir/file one'\ndownload two\nstatus\nexit\nnonsense\n");
    assert_eq!(all.code, Some(0), "{all:?}");
    assert!(all.stdout.contains("dir/file one") && all.stdout.contains("taker"), "{all:?}");
    assert_eq!(std::fs::read(share.path("dir/file one")).unwrap(), b"1");
    assert_eq!(std::fs::read(share.path("two")).unwrap(), b"2");
    let failing = shell(b"download missing\nnonsense\nshow");
    assert_eq!(failing.code, Some(3), "{failing:?}");
    assert!(failing.stdout.contains("two"), "the lines after it are run, also one without an end: {failing:?}");
    let odd = shell(b"show '\n\xff\xfe\n\0\ndownload\nhelp\n");
    assert_eq!(odd.code, Some(2), "{odd:?}");
    assert!(odd.stdout.contains("download"), "{odd:?}");
    assert_eq!(shell(b"").code, Some(0));
}

/// `show | head -1`: whoever reads no further is no failure and no panic.
#[test]
fn readers_that_leave() {
    let tracker = tracker(0);
    let share = Share::new(&tracker, "owner");
    for n in 0..3_000 {
        share.write(&format!("a-file-with-a-name-that-fills-pipes-{n:05}"), b"x");
    }
    let _serving = share.up();
    eventually("all are shared", || share.json(&["status"])["n_files"] == 3_000);
    for args in [&["show"][..], &["--json", "show"], &["--json", "verify"], &["--help"]] {
        let mut child = share.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 1];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let ended = ended(child);
        assert!(ended.code == Some(0), "{args:?}: {ended:?}");
        assert_eq!(ended.stderr, "", "{args:?}");
    }
}

/// Progress and results as a program reads them: one event a line, the last one says how it ended.
#[test]
fn json_events() {
    let tracker = tracker(0);
    let owner = Share::new(&tracker, "owner");
    let data = noise(3 << 20, 3);
    owner.write("dir/big", &data);
    owner.write("dir/small", b"s");
    let serving = owner.up();
    wait_for_owners(&tracker, "dir/big", 1);
    wait_for_owners(&tracker, "dir/small", 1);
    let share = Share::new(&tracker, "taker");
    let ended = share.run(&["--json", "download", "dir/"]);
    let events: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("planned", "done"), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "finished").count(), 2);
    let show = share.json(&["show", "dir/"]);
    assert_eq!(show["files"].as_array().unwrap().len(), 2);
    assert!(show["files"].as_array().unwrap().iter().all(|file| file["contents"][0]["held"] == "complete"), "{show}");
    let mut stream = TcpStream::connect(serving.address).unwrap();
    let id = show["files"][0]["contents"][0]["content_id"].as_str().unwrap().to_owned();
    write!(stream, "GET /v1/content/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&data), "the id that show prints is what peers serve");
}

/// Limits from flags and environment, shown, and changed in a running peer.
#[test]
fn limits() {
    let tracker = tracker(0);
    let mut share = Share::new(&tracker, "node");
    let nobody = share.run(&["limit", "up", "1M"]);
    assert_eq!(nobody.code, Some(3), "{nobody:?}");
    share.flags = vec!["--limit-up".into(), "1536K".into()];
    let mut command = share.command(&["up"]);
    command.env("POTLUCK_LIMIT_DOWN", "10M@00-12,20M@12-24");
    let _running = Program::start(command);
    let limits = share.json(&["limit"]);
    assert_eq!(limits["up"], json!({ "limit": "1536K", "rate": 1536 << 10 }));
    assert_eq!(limits["down"]["limit"], "10M@00-12,20M@12-00");
    assert!([10 << 20, 20 << 20].contains(&limits["down"]["rate"].as_u64().unwrap()), "{limits}");
    let changed = share.json(&["limit", "down", "off"]);
    assert_eq!(changed["down"], json!({ "limit": "off", "rate": null }));
    assert_eq!(share.json(&["status"])["limits"], changed);
    let shown = share.run(&["limit", "up", "2.5M"]);
    assert_eq!(shown.stdout, "up   2.5 MiB/s\ndown no limit\n");
    // A flag that does nothing is not passed over in silence: on this peer it is a verb that changes limits.
    let ignored = share.run(&["--name", "other", "status"]);
    assert_eq!(ignored.code, Some(0), "{ignored:?}");
    let warning = "warning: --name, --limit-up do nothing here: a peer runs on this folder already";
    assert!(ignored.stderr.contains(warning), "{ignored:?}");
    share.flags.clear();
    assert_eq!(share.run(&["status"]).stderr, "");
    let wrong = share.run(&["limit", "up", "10MB"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}
