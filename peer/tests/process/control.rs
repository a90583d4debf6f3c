//! The control socket under whatever is written to it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::{Share, eventually, tracker};

/// F35, H05: nonsense of every kind on the socket; the peer answers or closes, lives on, and takes the next verb.
#[test]
fn nonsense_on_the_control_socket() {
    let tracker = tracker(0);
    let share = Share::new(&tracker, "a");
    let peer = share.up();
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(share.path(".potluck/control.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // It may close before everything is written, which is its right.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    for line in [
        "\n",
        "{}\n",
        "nonsense\n",
        "{\"verb\":\"nonsense\"}\n",
        "{\"verb\":\"download\"}\n",
        "{\"verb\":\"show\",\"pattern\":7}\n",
        "[[[[[[[[[[\n",
        "{\"verb\":\"names\",\"prefix\":\"\",\"limit\":-1}\n",
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let answer = say(line.as_bytes());
        assert!(answer.contains("\"failed\""), "{line:?}: {answer:?}");
    }
    say(b"");
    say(b"{\"verb\":\"status\"");
    say(b"\xff\xfe\x00\n");
    say("[".repeat(100_000).as_bytes());
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    let before = memory();
    for _ in 0..3 {
        say(&vec![b'x'; 100 << 20]);
        say(&[b"{\"verb\":\"show\",\"pattern\":\"", &vec![b'x'; 100 << 20][..], b"\"}\n"].concat());
    }
    assert!(memory() < before + 64, "{before} MiB before, {} MiB after", memory());
    // Those who connect and say nothing do not keep others out, and hanging up cancels.
    let silent: Vec<_> = (0..50).map(|_| UnixStream::connect(share.path(".potluck/control.sock")).unwrap()).collect();
    assert_eq!(share.run(&["status"]).code, Some(0));
    drop(silent);
    assert_eq!(share.json(&["status"])["name"], "a");
    assert_eq!(peer.logged("panicked"), 0);
    eventually("it still announces itself", || crate::harness::peers(&tracker) == ["a"]);
}
