//! What a peer tells of itself to trackers and owners, byte by byte.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use potluck_common::discovery::Packet;
use potluck_common::identity::{Identity, SIGNATURE_HEADER};
use potluck_common::net::request_id::is_request_id;
use potluck_common::protocol::{Announce, AnnounceEvent, SyncMode};
use potluck_common::{ContentId, PeerId};
use potluck_peer::Config;
use potluck_peer::discovery::DiscoveryConfig;
use potluck_peer::verb::Verb;
use potluck_peer::wire::serve::FRESH_HEADER;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::harness::{Node, Tracker, noise, quick, root_with, write};
use crate::link::Link;

/// The secret of a peer, from its state folder: the 32 bytes there whose key has its id.
pub(crate) fn secret_of(node: &Node, peer_id: PeerId) -> [u8; 32] {
    let state = std::fs::read_dir(node.share().join(".potluck")).unwrap().map(|entry| entry.unwrap().path());
    let kept = state.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("identity"));
    let kept: Vec<Vec<u8>> = kept.map(|path| std::fs::read(path).unwrap()).collect();
    let parts = kept.iter().flat_map(|bytes| bytes.windows(32)).map(|part| <[u8; 32]>::try_from(part).unwrap());
    parts.into_iter().find(|part| Identity::from_secret(part).peer_id() == peer_id).expect("its identity is kept")
}

/// Nine bytes of the secret in a row, in any form that programs give bytes.
#[track_caller]
fn tells_nothing(what: &str, bytes: &[u8], secret: &[u8; 32]) {
    let folded = bytes.to_ascii_lowercase();
    for part in secret.windows(9) {
        let numbers = part.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        // Wherever base64 of the whole begins, some of these nine bytes begin at one of its groups.
        let forms = [hex::encode(part), numbers];
        let as_is = [part.to_vec(), STANDARD_NO_PAD.encode(part).into(), URL_SAFE_NO_PAD.encode(part).into()];
        let found = |bytes: &[u8], form: &[u8]| bytes.windows(form.len()).any(|window| window == form);
        assert!(!forms.iter().any(|form| found(&folded, form.as_bytes())), "{what} holds the secret");
        assert!(!as_is.iter().any(|form| found(bytes, form)), "{what} holds the secret");
    }
}

/// Checks that requests are what the protocol names and nothing else: no header, no value and no body that it does not know. What
/// was announced in them.
#[track_caller]
fn check_requests(mut sent: &[u8], host: &str, who: &Identity) -> Vec<AnnounceEvent> {
    let mut announced = Vec::new();
    while !sent.is_empty() {
        let end = sent.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&sent[..end]).unwrap();
        sent = &sent[end + 4..];
        let mut lines = head.split("\r\n");
        let [method, uri, version] = lines.next().unwrap().split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        assert_eq!(version, "HTTP/1.1", "{head}");
        let headers: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").unwrap()).collect();
        let header = |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let (body, rest) = sent.split_at(header("content-length").map_or(0, |len| len.parse().unwrap()));
        sent = rest;
        for (name, value) in &headers {
            let is_known = match *name {
                "host" => *value == host,
                "accept" => *value == "*/*",
                "user-agent" => *value == concat!("potluck/", env!("CARGO_PKG_VERSION")),
                "content-type" => *value == "application/json" && method == "POST",
                "content-length" => method == "POST",
                // This is the tracker, which looks whether the owner is there.
                "connection" => (uri, *value) == ("/healthz", "close"),
                "range" => value
                    .strip_prefix("bytes=")
                    .is_some_and(|range| range.bytes().all(|b| b == b'-' || b.is_ascii_digit())),
                "x-request-id" => is_request_id(value.as_bytes()),
                FRESH_HEADER => ["0", "1"].contains(value),
                SIGNATURE_HEADER => method == "POST" && who.public_key().verifies(body, value),
                _ => false,
            };
            assert!(is_known, "{name} is not known in\n{head}");
        }
        match (method, uri) {
            ("POST", "/v1/announce") => {
                let announce: Announce = serde_json::from_slice(body).unwrap();
                assert_eq!(announce.public_key, who.public_key());
                assert_eq!(serde_json::to_vec(&announce).unwrap(), body, "nothing but the message");
                assert!(header(SIGNATURE_HEADER).is_some());
                announced.push(announce.event);
            }
            ("GET", uri) => {
                assert!((uri.starts_with("/v1/") || uri == "/healthz") && body.is_empty(), "{head}");
            }
            _ => panic!("{head}"),
        }
    }
    announced
}

/// Answers questions by broadcast with a tracker on this machine, and keeps them. The port at which it hears.
async fn answer_broadcasts(port: u16, heard: Arc<Mutex<Vec<u8>>>, ending: CancellationToken) -> u16 {
    let hearing = UdpSocket::bind("127.255.255.255:0").await.unwrap();
    let answering = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = hearing.local_addr().unwrap().port();
    let answers = async move {
        let mut bytes = [0; 2_048];
        while let Ok((n, from)) = hearing.recv_from(&mut bytes).await {
            heard.lock().unwrap().extend_from_slice(&bytes[..n]);
            let Some(Packet::Ask { nonce, swarm }) = Packet::parse(&bytes[..n]) else { continue };
            answering.send_to(&Packet::Here { nonce, swarm, port }.encode(), from).await.unwrap();
        }
    };
    tokio::spawn(async move { ending.run_until_cancelled(answers).await });
    at
}

/// H08: a tracker, given or found by broadcast, and an owner where somebody forged its address keep all that they are sent.
/// What proves who a peer is, is its public key and its signature of each announce; its secret is in nothing that leaves it, and
/// what leaves it is what the protocol names, to the last byte.
#[tokio::test(flavor = "multi_thread")]
async fn h08_strangers_keep_what_they_are_sent() {
    for is_found in [false, true] {
        let ending = CancellationToken::new();
        let _ends = ending.clone().drop_guard();
        let (to_tracker, to_owner) = (Link::cut().await, Link::cut().await);
        let tracker = Tracker::start().await;
        to_tracker.leads_to(&tracker.url);
        let big = noise(3 << 20, 8);
        let files: [(&str, &[u8]); 3] = [("big", &big), ("small/one", b"1"), ("small/two", b"2")];
        let owner = Node::start_on(root_with(&files), |share| Config {
            advertise: Some(to_owner.address.to_string().parse().unwrap()),
            ..quick(share, &tracker.url, "owner")
        });
        let owner = owner.await.unwrap();
        to_owner.leads_to(owner.base());
        tracker.wait_for_owners(ContentId::of(&big), 1).await;
        let asked = Arc::<Mutex<Vec<u8>>>::default();
        let port = answer_broadcasts(to_tracker.address.port(), asked.clone(), ending.clone()).await;
        let node = Node::start_on(root_with(&[("own", b"mine")]), |share| {
            let config = Config { sync: Some(SyncMode::Both), ..quick(share, &to_tracker.url(), "node") };
            match is_found {
                false => config,
                true => Config {
                    trackers: vec![],
                    discovery: Some(DiscoveryConfig { port, ..DiscoveryConfig::default() }),
                    ..config
                },
            }
        });
        let node = node.await.unwrap();
        let peer_id = node.status().await.peer_id;
        let secret = secret_of(&node, peer_id);
        tracker.wait_for_owners(ContentId::of(b"mine"), 1).await;
        node.download("big").await.unwrap();
        node.run(crate::hostile::download("small/")).await.1.unwrap();
        for verb in [Verb::Show { pattern: None }, Verb::Peers, Verb::Getip { target: Some("big".into()) }] {
            node.run(verb).await.1.unwrap();
        }
        write(&node.share(), "later", b"more");
        tracker.wait_for_owners(ContentId::of(b"more"), 1).await;
        // What it answers by itself, to the tracker that connects back and to whoever comes.
        let document: serde_json::Value = node.get("/openapi.json").await.json().await.unwrap();
        for path in document["paths"].as_object().unwrap().keys() {
            let path = path.replace("{id}", &ContentId::of(b"mine").to_string()).replace("{path}", "own");
            let answer = node.get(&path).await;
            let head = format!("{:?}", answer.headers());
            if !path.ends_with("/have") {
                tells_nothing(&path, &answer.bytes().await.unwrap(), &secret);
            }
            tells_nothing(&path, head.as_bytes(), &secret);
        }
        let share = node.share();
        drop(node.stop().await);

        let asked = asked.lock().unwrap().clone();
        assert_eq!(!asked.is_empty(), is_found, "it asks only where no tracker was given");
        let who = Identity::from_secret(&secret);
        let mut announced = Vec::new();
        for (link, name) in [(&to_tracker, "the tracker"), (&to_owner, "the owner")] {
            let sent: Vec<Vec<u8>> = link.sent();
            let all = sent.concat();
            assert!(all.len() > 500, "{name} was sent {} bytes", all.len());
            tells_nothing(name, &all, &secret);
            let folder = share.to_str().unwrap().as_bytes();
            assert!(!all.windows(folder.len()).any(|bytes| bytes == folder), "{name} was told where the folder is");
            for connection in sent {
                announced.extend(check_requests(&connection, &link.address.to_string(), &who));
            }
        }
        tells_nothing("a question by broadcast", &asked, &secret);
        for event in [AnnounceEvent::Started, AnnounceEvent::Heartbeat, AnnounceEvent::Stopped] {
            assert!(announced.contains(&event), "{event:?} is missing among {announced:?}");
        }
    }
}
