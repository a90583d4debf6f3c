//! Origins that are other programs: Python's web server behind TLS, and a peer of another swarm.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use potluck_common::ContentId;

use crate::harness::{Program, Share, clean, ended, eventually, noise, tracker, wait_for_owners};

const SERVER: &str = "
import functools, http.server, ssl
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory='files')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
# Without the s, since that is how the harness finds the address.
print('ready on http://127.0.0.1:%d' % server.server_address[1], flush=True)
server.serve_forever()
";

/// Python's web server with a certificate that it made for itself; nothing and a word where there is no python3 or openssl.
fn python_with_tls(folder: &Path) -> Option<Program> {
    let with = |program: &str, args: &[&str]| -> Command {
        let mut command = clean(Path::new(program));
        command.args(args).current_dir(folder);
        command
    };
    let certificate = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 2 \
        -subj /CN=origin -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    let made = with("openssl", &certificate.split_whitespace().collect::<Vec<_>>()).output();
    let has_python = with("python3", &["-c", "import ssl"]).output();
    for (program, output) in [("openssl", made), ("python3", has_python)] {
        if !output.as_ref().is_ok_and(|output| output.status.success()) {
            crate::harness::skipped(format_args!("{program}: {output:?}"));
            return None;
        }
    }
    Some(Program::start(with("python3", &["-c", SERVER])))
}

/// Over https from a server without ranges: only if its certificate is trusted. A login in the URL is not shown.
#[test]
fn python_behind_tls() {
    let temp = tempfile::tempdir().unwrap();
    let data = noise(3_000_000, 1);
    std::fs::create_dir(temp.path().join("files")).unwrap();
    std::fs::write(temp.path().join("files/a file.bin"), &data).unwrap();
    let Some(origin) = python_with_tls(temp.path()) else { return };
    let tracker = tracker(0);
    let share = Share::new(&tracker, "node");
    let url = format!("https://me:word@{}/a%20file.bin", origin.address);
    let download = |certificates: Option<&Path>, url: &str| {
        let mut command = share.command(&["--json", "download", "--origin", url]);
        command.envs(certificates.map(|file| ("SSL_CERT_FILE", file)));
        ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    let certificates = temp.path().join("cert.pem");
    let refused = download(None, &url);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stdout.contains("certificate") && !refused.stdout.contains("word"), "{refused:?}");
    let fetched = download(Some(&certificates), &url);
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    let last = fetched.stdout.lines().find(|line| line.contains("\"finished\"")).unwrap();
    assert!(last.contains(&ContentId::of(&data).to_string()) && !fetched.stdout.contains("word"), "{fetched:?}");
    assert!(std::fs::read(share.path("a file.bin")).unwrap() == data);
    let missing = download(Some(&certificates), &format!("https://{}/nothing", origin.address));
    assert_eq!(missing.code, Some(3), "{missing:?}");
}

/// kill -9 in the middle: the peer goes on from there when it is started again. The origin is a peer of another swarm, which is
/// an HTTP server like any other.
#[test]
fn kill_and_go_on() {
    let (there, here) = (tracker(0), tracker(0));
    let data = noise(24 << 20, 2);
    let mut far = Share::new(&there, "far");
    far.flags = vec!["--limit-up".into(), "6M".into()];
    far.write("file.bin", &data);
    let origin = far.up();
    wait_for_owners(&there, "file.bin", 1);
    let url = format!("http://{}/f/file.bin", origin.address);
    let share = Share::new(&here, "near");
    let peer = share.up();
    let mut command = share.command(&["--json", "download", "--origin", &url]);
    let mut asking = command.stdout(Stdio::null()).spawn().unwrap();
    let n_bytes = || share.json(&["status"])["downloads"][0]["n_bytes"].as_u64().unwrap_or(0);
    eventually("a third of it is here", || n_bytes() > 8 << 20);
    peer.kill();
    asking.wait().unwrap();
    let before = n_sent_by(&origin);
    let _peer = share.up();
    eventually("it is there", || share.path("file.bin").exists());
    assert!(std::fs::read(share.path("file.bin")).unwrap() == data);
    let n_sent = n_sent_by(&origin) - before;
    assert!(n_sent < 20 << 20, "{n_sent} bytes came again");
    eventually("nothing is left over", || std::fs::read_dir(share.path(".potluck/partial")).unwrap().count() == 0);
    wait_for_owners(&here, "file.bin", 1);
}

/// Bytes that a peer has sent, as its metrics say.
fn n_sent_by(peer: &Program) -> u64 {
    let mut stream = TcpStream::connect(peer.address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line =
        text.lines().find(|line| line.starts_with("potluck_peer_sent_bytes_total")).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}
