//! BitTorrent clients with torrents that have nothing but web seeds: aria2c, libtorrent, Transmission.

use std::path::Path;

use reqwest::StatusCode;

use crate::harness::{DEADLINE, Node, Tracker, eventually, noise};
use crate::tools::{owners_of, run, run_python, sent, start};

const MIB: usize = 1 << 20;

/// Adds a torrent to a session of its own, waits until all of it is there and verified, and prints the info hash.
const LIBTORRENT: &str = "
import libtorrent, sys, time
quiet = dict.fromkeys(['enable_dht', 'enable_lsd', 'enable_upnp', 'enable_natpmp'], False)
session = libtorrent.session({'listen_interfaces': '127.0.0.1:0', **quiet})
torrent = libtorrent.torrent_info(sys.argv[1])
handle = session.add_torrent({'ti': torrent, 'save_path': sys.argv[2]})
while not handle.status().is_seeding:
    assert not handle.status().errc.value(), handle.status().errc.message()
    time.sleep(0.02)
print(torrent.info_hash(), len(torrent.web_seeds()))
";

/// Follows redirects, and asks again while the answer is being made.
async fn torrent(url: &str) -> Vec<u8> {
    let http = potluck_common::net::client::plain().build().unwrap();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let response = http.get(url).send().await.unwrap();
        if response.status() == StatusCode::OK {
            assert_eq!(response.headers()["content-type"], "application/x-bittorrent");
            return response.bytes().await.unwrap().to_vec();
        }
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{url}");
        assert!(response.headers().contains_key("retry-after") && tokio::time::Instant::now() < deadline, "{url}");
    }
}

/// What the info hash is taken of.
fn info(torrent: &[u8]) -> &[u8] {
    let at = |part: &[u8]| torrent.windows(part.len()).position(|window| window == part).unwrap();
    &torrent[at(b"4:info")..at(b"8:url-list")]
}

/// Whether a client has put these files there.
fn are_there(folder: &Path, files: &[(&str, &[u8])]) -> bool {
    files.iter().all(|(path, data)| std::fs::read(folder.join(path)).is_ok_and(|there| there == *data))
}

/// Every client fetches the torrent's files, from all owners.
async fn every_client_fetches(tracker: &Tracker, nodes: &[Node], path: &str, files: &[(&str, &[u8])]) {
    let url = format!("{}/f/{path}.torrent", tracker.url);
    let bytes = torrent(&url).await;
    for node in nodes {
        let own = torrent(&format!("{}/f/{path}.torrent", node.base())).await;
        assert_eq!(info(&own), info(&bytes), "every owner makes the same torrent");
        for other in nodes {
            let base = other.base().as_bytes();
            assert!(own.windows(base.len()).any(|window| window == base), "it names {}", other.base());
        }
    }
    let len: usize = files.iter().map(|(_, data)| data.len()).sum();
    let gave_all = |client: &str, before: &[u64]| {
        let gave: Vec<_> = sent(nodes).iter().zip(before).map(|(after, before)| after - before).collect();
        eprintln!("{client}: {gave:?} of {len} bytes");
        assert!(gave.iter().all(|n| *n >= MIB as u64), "{client}: each owner gave its part: {gave:?}");
    };

    let (folder, before) = (tempfile::tempdir().unwrap(), sent(nodes));
    let quiet = ["--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--seed-time=0", "-k1M"];
    if let Some(output) = run("aria2c", folder.path(), &[&quiet[..], &[&url]].concat()).await {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(are_there(folder.path(), files), "aria2c");
        gave_all("aria2c", &before);
    }

    let (folder, before) = (tempfile::tempdir().unwrap(), sent(nodes));
    std::fs::write(folder.path().join("x.torrent"), &bytes).unwrap();
    if let Some(output) = run_python("libtorrent", LIBTORRENT, folder.path(), &["x.torrent", "."]).await {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.trim_end().ends_with(&format!(" {}", nodes.len())), "{said}");
        assert!(are_there(folder.path(), files), "libtorrent");
        gave_all("libtorrent", &before);
    }

    let (folder, before) = (tempfile::tempdir().unwrap(), sent(nodes));
    std::fs::write(folder.path().join("x.torrent"), &bytes).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let args = ["--no-portmap", "--port", &port, "--config-dir", "config", "--download-dir", "there", "x.torrent"];
    std::fs::create_dir(folder.path().join("there")).unwrap();
    if let Some(_running) = start("transmission-cli", folder.path(), &args) {
        // It makes no empty files.
        let files: Vec<_> = files.iter().filter(|(_, data)| !data.is_empty()).copied().collect();
        eventually("Transmission has it", async || are_there(&folder.path().join("there"), &files)).await;
        gave_all("Transmission", &before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file() {
    let data = noise(24 * MIB + 77, 1);
    let files = [("brûlée #1 & 100%.bin", &data[..])];
    let (tracker, nodes) = owners_of(3, &[("dir/brûlée #1 & 100%.bin", &data)]).await;
    every_client_fetches(&tracker, &nodes, "dir/br%C3%BBl%C3%A9e%20%231%20%26%20100%25.bin", &files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_folder() {
    let (large, medium, small) = (noise(20 * MIB + 5, 2), noise(3 * MIB, 3), noise(1_000, 4));
    let below: [(&str, &[u8]); 5] =
        [("a b/large.bin", &large), ("a b/ä#%25.bin", &medium), ("empty", b""), ("small", &small), ("twice", &small)];
    let shared: Vec<_> = below.iter().map(|(path, data)| (format!("x/the set/{path}"), *data)).collect();
    let shared: Vec<_> = shared.iter().map(|(path, data)| (path.as_str(), *data)).collect();
    let (tracker, nodes) = owners_of(2, &[&shared[..], &[("x/the set.txt", b"beside it")]].concat()).await;
    let wanted: Vec<_> = below.iter().map(|(path, data)| (format!("the set/{path}"), *data)).collect();
    let wanted: Vec<_> = wanted.iter().map(|(path, data)| (path.as_str(), *data)).collect();
    every_client_fetches(&tracker, &nodes, "x/the%20set", &wanted).await;
    // Whoever has more or less below the folder is no seed of it.
    let more = nodes[1].share().join("x/the set/more");
    std::fs::write(more, "one more").unwrap();
    let of_first = async || torrent(&format!("{}/f/x/the%20set.torrent", nodes[0].base())).await;
    let base = nodes[1].base().as_bytes().to_vec();
    eventually("the other one is not named", async || {
        !of_first().await.windows(base.len()).any(|window| window == base)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_nothing() {
    let (tracker, nodes) = owners_of(1, &[("empty", b""), ("d/empty", b"")]).await;
    for path in ["/f/empty.torrent", "/f/d.torrent"] {
        let response = nodes[0].get(path).await;
        assert_eq!(response.status(), StatusCode::CONFLICT, "{path}");
    }
    for path in ["/f/nope.torrent", "/v1/content/x/torrent", "/f/.torrent"] {
        assert_eq!(nodes[0].get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    tracker.stop().await;
}
