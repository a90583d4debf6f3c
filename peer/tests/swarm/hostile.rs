//! Owners that lie, stall, break off, or send what nobody asked for. The names in front are those of
//! the threat and fault lists (THREATS.md, FAULTS.md).

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Response, header};
use futures::StreamExt;
use potluck_common::ContentId;
use potluck_peer::verb::{Download, Event, FailureKind, Finished, From, Verb};
use tokio::net::TcpListener;

use crate::harness::{Node, Tracker, eventually, noise};
use crate::hostile_owner::{
    Ask, CHUNK, Content, HostileOwner, answer, bare, bundle_answer, cut, endless, in_pieces, map_answer, range_answer,
    then_silence, trickle,
};

/// Chunks of an ordinary content: enough that every owner is asked for a few runs at once, before anybody has given all.
const N: usize = 24;
/// What can be in flight at one owner when it turns out to be bad: two runs of the first length, a third where the round trip
/// is long (as on a busy machine), and a chunk on its own.
const MAX_WASTE: u64 = (3 * 1024 + 256) << 10;

/// A tracker, a content, and one honest owner of it.
struct Scene {
    tracker: Tracker,
    content: Content,
    honest: Node,
}

impl Scene {
    async fn new(len: usize) -> Self {
        let content = Content::new("dir/file.bin", noise(len, len as u64));
        let tracker = Tracker::start().await;
        let honest = Node::start(&tracker, "honest", &[(&content.path, &content.data)]).await;
        tracker.wait_for_owners(content.id, 1).await;
        Self { tracker, content, honest }
    }

    async fn with(&self, manners: impl Fn(&Content, &Ask) -> Response<Body> + Send + Sync + 'static) -> HostileOwner {
        HostileOwner::start(&self.tracker, "bad", &self.content, manners).await
    }

    /// A newcomer downloads it; whatever the bad owners do, it gets the right bytes and everybody is well.
    async fn download(&self) -> Finished {
        let newcomer = Node::start(&self.tracker, "newcomer", &[]).await;
        let finished = newcomer.download(&self.content.path).await.unwrap();
        self.check(&newcomer, &finished).await;
        finished
    }

    async fn check(&self, newcomer: &Node, finished: &Finished) {
        let Content { path, id, data, .. } = &self.content;
        assert_eq!((finished.content_id, finished.len), (*id, data.len() as u64));
        assert!(newcomer.read(path).unwrap() == *data, "the bytes differ");
        assert_eq!(newcomer.n_partial(), 0, "nothing unfinished stays");
        let given: u64 = finished.from.iter().map(|from| from.n_bytes).sum();
        assert_eq!(given, data.len() as u64, "every byte is counted once: {:?}", finished.from);
        newcomer.is_well().await;
        self.honest.is_well().await;
        let again = newcomer.get(&format!("/v1/content/{id}")).await.bytes().await.unwrap();
        assert!(again == data, "what was fetched is served on");
    }
}

pub(crate) fn download(name: &str) -> Verb {
    Verb::Download(Download { names: vec![name.into()], from: From::All, output: None, origin: None })
}

pub(crate) fn given_by(finished: &Finished, name: &str) -> u64 {
    finished.from.iter().filter(|from| from.name == name).map(|from| from.n_bytes).sum()
}

/// C01: the chunk is fetched elsewhere, the chunks before it stay, and its sender is not asked again.
#[tokio::test(flavor = "multi_thread")]
async fn c01_one_flipped_bit_in_a_run() {
    let scene = Scene::new(N * CHUNK + 17).await;
    let bad = scene
        .with(|content, ask| {
            content.with_bytes(ask, |_, bytes| {
                if bytes.len() > CHUNK {
                    bytes[CHUNK + 5] ^= 4;
                }
            })
        })
        .await;
    let finished = scene.download().await;
    let given = given_by(&finished, "bad");
    assert!(given >= CHUNK as u64 && given < MAX_WASTE, "{:?}", finished.from);
    assert!(given_by(&finished, "honest") > given, "the honest owner is asked to the end");
    assert!(bad.n_ranges() <= 4, "it was asked on: {:?}", bad.asked());
    assert!(bad.n_sent() < MAX_WASTE + 1024);
}

/// C03, C04, C20: claims that are no claims, each alone first and then beside an honest owner.
#[tokio::test(flavor = "multi_thread")]
async fn c03_c04_c20_lies_about_map_and_length() {
    type Lie = fn(&Content) -> (u64, Vec<u8>);
    fn len_of(content: &Content) -> u64 {
        content.data.len() as u64
    }
    let lies: [(&str, Lie); 15] = [
        ("foreign map", |c| (len_of(c), Content::new("x", noise(c.data.len(), 99)).map)),
        ("too short", |c| (len_of(c), c.map[32..].to_vec())),
        ("too long", |c| (len_of(c), [&c.map[..], &c.map[..32]].concat())),
        ("not whole", |c| (len_of(c), c.map[..c.map.len() - 1].to_vec())),
        ("empty", |c| (len_of(c), Vec::new())),
        ("reordered", |c| (len_of(c), [&c.map[32..64], &c.map[..32], &c.map[64..]].concat())),
        ("duplicated", |c| (len_of(c), [&c.map[..32], &c.map[..32], &c.map[64..]].concat())),
        ("one byte more", |c| (len_of(c) + 1, c.map.clone())),
        ("one byte less", |c| (len_of(c) - 1, c.map.clone())),
        ("no bytes", |c| (0, c.map.clone())),
        ("no bytes, and the root", |c| (0, c.id.as_bytes().to_vec())),
        ("one chunk, and the root", |c| (CHUNK as u64, c.id.as_bytes().to_vec())),
        ("2^64-1", |c| (u64::MAX, c.map.clone())),
        ("16 TiB", |c| (16 << 40, c.map.clone())),
        ("half, with parents for chunks", |c| {
            let (pairs, _) = c.map.as_chunks::<64>();
            let parents = pairs.iter().map(|pair| {
                let (left, right) = (pair[..32].try_into().unwrap(), pair[32..].try_into().unwrap());
                blake3::hazmat::merge_subtrees_non_root(left, right, blake3::hazmat::Mode::Hash)
            });
            ((c.data.len() / 2) as u64, parents.collect::<Vec<_>>().concat())
        }),
    ];
    let content = Content::new("dir/file.bin", noise(8 * CHUNK, 3));
    let tracker = Tracker::start().await;
    let now = Arc::new(AtomicUsize::new(0));
    let turn = now.clone();
    let bad = HostileOwner::start(&tracker, "bad", &content, move |content, ask| {
        let (len, map) = lies[turn.load(Ordering::Relaxed)].1(content);
        match ask {
            Ask::Map => map_answer(content, len, map),
            // What it says it has it also sends, as far as there are bytes.
            Ask::Range(range) if range.end > content.data.len() => {
                let mut bytes = content.data[range.start.min(content.data.len())..].to_vec();
                bytes.resize(range.len(), 7);
                range_answer(content, range.clone(), bytes)
            }
            ask => content.honest(ask),
        }
    })
    .await;
    let newcomer = Node::start(&tracker, "newcomer", &[]).await;
    for (n, (lie, _)) in lies.iter().enumerate() {
        now.store(n, Ordering::Relaxed);
        let before = bad.n_sent();
        let (kind, message) = newcomer.cannot_download(&content.path).await;
        assert!(matches!(kind, FailureKind::Unverified | FailureKind::Unreachable), "{lie}: {kind:?} {message}");
        assert!(bad.n_sent() - before <= 2 * CHUNK as u64, "{lie}: {} bytes were read", bad.n_sent() - before);
        assert_eq!(newcomer.read(&content.path), None, "{lie}");
        assert_eq!(newcomer.n_partial(), 0, "{lie}: nothing is reserved before the length is proven");
        newcomer.is_well().await;
    }
    let honest = Node::start(&tracker, "honest", &[(&content.path, &content.data)]).await;
    tracker.wait_for_owners(content.id, 2).await;
    let scene = Scene { tracker, content, honest };
    for (n, (lie, _)) in lies.iter().enumerate() {
        now.store(n, Ordering::Relaxed);
        let newcomer = Node::start(&scene.tracker, lie, &[]).await;
        let finished = newcomer.download(&scene.content.path).await.unwrap();
        scene.check(&newcomer, &finished).await;
        let id = scene.content.id;
        drop(newcomer.stop().await);
        scene.tracker.wait_for_owners(id, 2).await;
    }
}

/// C04: only the last chunk is spoiled, the one that proves the length; small, and as large as a chunk can be.
#[tokio::test(flavor = "multi_thread")]
async fn c04_only_the_last_chunk_is_spoiled() {
    for len in [N * CHUNK, N * CHUNK + 1] {
        let scene = Scene::new(len).await;
        let last = (len - 1) / CHUNK * CHUNK;
        let bad = scene
            .with(move |content, ask| {
                content.with_bytes(ask, |start, bytes| {
                    if start + bytes.len() > last {
                        bytes[last - start] ^= 1;
                    }
                })
            })
            .await;
        // Whoever is asked first is left to chance.
        for _ in 0..3 {
            scene.download().await;
        }
        assert!(bad.n_sent() < 3 * (MAX_WASTE + len as u64));
    }
}

/// C04: two owners that are listed with different lengths of one content. The liar may come first or second, and claim
/// more or less, also so that it would be a content of one chunk.
#[tokio::test(flavor = "multi_thread")]
async fn c04_owners_disagree_on_the_length() {
    let scene = Scene::new(4 * CHUNK).await;
    for claim in [CHUNK as u64, 4 * CHUNK as u64 - 1, 5 * CHUNK as u64] {
        let bad = HostileOwner::serve("bad", &scene.content, move |content, ask| match ask {
            Ask::Map => map_answer(content, claim, content.map.clone()),
            ask => content.honest(ask),
        })
        .await;
        bad.announce(&scene.tracker, claim).await;
        // Its entries go with its lease; here it takes them back by having no catalogue any more.
        let newcomer = Node::start(&scene.tracker, "newcomer", &[]).await;
        let by_name = newcomer.download(&scene.content.path).await;
        let finished = match by_name {
            Ok(finished) => finished,
            Err(failed) => panic!("a false length of {claim} keeps everybody from the file: {failed}"),
        };
        scene.check(&newcomer, &finished).await;
        // The same where the name is found in a list.
        let lister = Node::start(&scene.tracker, "lister", &[]).await;
        let (_, outcome) = lister.run(download("dir/")).await;
        outcome.unwrap_or_else(|failed| panic!("a false length of {claim} keeps everybody from the folder: {failed}"));
        assert!(lister.read(&scene.content.path).unwrap() == scene.content.data);
    }
}

/// C06: it claims everything and has only the even chunks.
#[tokio::test(flavor = "multi_thread")]
async fn c06_claims_all_and_lacks_some() {
    for status in [404, 416] {
        let scene = Scene::new(N * CHUNK).await;
        let bad = scene
            .with(move |content, ask| match ask {
                Ask::Range(range) if range.start / CHUNK % 4 < 2 && range.end < content.data.len() => bare(status),
                ask => content.honest(ask),
            })
            .await;
        let finished = scene.download().await;
        assert!(given_by(&finished, "honest") > 0, "{:?}", finished.from);
        let mut asked = bad.asked();
        asked.sort_by_key(|ask| format!("{ask:?}"));
        assert!(asked.len() <= 2 * N, "asked again and again: {asked:?}");
    }
}

/// C08, C09, C10, C14, C15 and others: answers of every wrong form. Each is met by a download from one honest owner and
/// one that answers so, and costs at most what was under way.
#[tokio::test(flavor = "multi_thread")]
async fn c08_c09_c10_c14_answers_of_a_wrong_form() {
    type Form = fn(&Content, &Ask, usize) -> Response<Body>;
    // The last number is how many bytes may go out in vain; an endless body fills the buffers of a socket.
    let forms: [(&str, u64, Form); 12] = [
        ("the whole for a range", MAX_WASTE, |c, _, _| answer(200).body(in_pieces(&c.data)).unwrap()),
        ("another range", MAX_WASTE, |c, _, at| range_answer(c, at + 1..at + 1 + CHUNK, vec![0; CHUNK])),
        ("no Content-Range", MAX_WASTE, |c, _, _| answer(206).body(in_pieces(&c.data)).unwrap()),
        ("a body that is too long", MAX_WASTE, |c, ask, at| {
            let Ask::Range(range) = ask else { return bare(500) };
            let long = [&c.data[range.clone()], &[0; 1][..]].concat();
            range_answer(c, at..range.end, long)
        }),
        ("a body without end", 64 << 20, |c, ask, at| {
            let Ask::Range(range) = ask else { return bare(500) };
            range_answer(c, at..range.end, endless())
        }),
        ("a short body", MAX_WASTE, |c, ask, at| {
            let Ask::Range(range) = ask else { return bare(500) };
            range_answer(c, at..range.end, c.data.slice(at..range.end - 1))
        }),
        ("an empty body", MAX_WASTE, |c, ask, at| {
            let Ask::Range(range) = ask else { return bare(500) };
            range_answer(c, at..range.end, Body::empty())
        }),
        ("cut in the middle", MAX_WASTE, |c, ask, at| {
            let Ask::Range(range) = ask else { return bare(500) };
            range_answer(c, at..range.end, cut(c.data.slice(at..at + range.len() * 2 / 3)))
        }),
        ("a wrong Content-Length", MAX_WASTE, |c, ask, at| {
            let Ask::Range(range) = ask else { return bare(500) };
            let mut response = range_answer(c, at..range.end, cut(c.data.slice(range.clone())));
            let len = range.len() + 1_000_000;
            response.headers_mut().insert(header::CONTENT_LENGTH, len.to_string().parse().unwrap());
            response
        }),
        ("a server error", MAX_WASTE, |_, _, _| bare(500)),
        ("no content", MAX_WASTE, |_, _, _| bare(204)),
        ("a status of its own", MAX_WASTE, |_, _, _| bare(299)),
    ];
    let scene = Scene::new(N * CHUNK).await;
    for (form, max_sent, respond) in forms {
        // The map and the last chunk are right: it is a trusted owner when it begins to misbehave.
        let bad = scene
            .with(move |content, ask| match ask {
                Ask::Range(range) if range.end < content.data.len() => respond(content, ask, range.start),
                ask => content.honest(ask),
            })
            .await;
        let newcomer = Node::start(&scene.tracker, form, &[]).await;
        let from = Download { names: vec![scene.content.path.clone()], from: From::All, output: None, origin: None };
        let (events, outcome) = newcomer.run(Verb::Download(from)).await;
        outcome.unwrap_or_else(|failed| panic!("{form}: {failed}"));
        let finished = events.into_iter().find_map(|event| match event {
            Event::Finished(finished) => Some(finished),
            _ => None,
        });
        let finished = finished.unwrap();
        assert!(given_by(&finished, "honest") > 0, "{form}");
        assert!(bad.n_ranges() >= 1, "{form}: it was asked");
        // Three failures in a row and a few second chances, each with what a run is.
        assert!(bad.n_sent() <= 8 * max_sent, "{form}: {} bytes went out in vain", bad.n_sent());
        scene.check(&newcomer, &finished).await;
        drop(newcomer.stop().await);
        drop(bad);
    }
}

/// C11, F30, and an owner that does not even answer: the chunks come from somebody else within seconds.
#[tokio::test(flavor = "multi_thread")]
async fn c11_f30_slow_and_silent_owners() {
    type Form = fn(&Content, &Ask) -> Response<Body>;
    let forms: [(&str, Form); 3] = [
        ("one byte at a time", |c, ask| {
            let Ask::Range(range) = ask else { return c.honest(ask) };
            range_answer(c, range.clone(), trickle(c.data.slice(range.clone()), Duration::from_millis(100)))
        }),
        ("silent after the head", |c, ask| {
            let Ask::Range(range) = ask else { return c.honest(ask) };
            range_answer(c, range.clone(), then_silence(Bytes::new()))
        }),
        ("silent in the middle of a chunk", |c, ask| {
            let Ask::Range(range) = ask else { return c.honest(ask) };
            range_answer(c, range.clone(), then_silence(c.data.slice(range.start..range.start + range.len() / 2)))
        }),
    ];
    let scene = Scene::new(N * CHUNK).await;
    for (form, respond) in forms {
        let bad = scene.with(respond).await;
        let newcomer = Node::start(&scene.tracker, form, &[]).await;
        let started = Instant::now();
        let finished = newcomer.download(&scene.content.path).await.unwrap_or_else(|failed| panic!("{form}: {failed}"));
        assert!(started.elapsed() < Duration::from_secs(10), "{form} took {:?}", started.elapsed());
        assert!(bad.n_ranges() >= 1, "{form}: it was asked");
        scene.check(&newcomer, &finished).await;
        drop(newcomer.stop().await);
    }
}

/// C11, F30: also where the chunk map is what does not come.
#[tokio::test(flavor = "multi_thread")]
async fn c11_f30_slow_and_silent_chunk_maps() {
    let scene = Scene::new(N * CHUNK).await;
    let _silent = scene
        .with(|c, _| answer(200).header("potluck-content-len", c.data.len()).body(then_silence(Bytes::new())).unwrap())
        .await;
    let slow = scene
        .with(|c, _| {
            let body = trickle(c.map.clone().into(), Duration::from_millis(500));
            answer(200).header("potluck-content-len", c.data.len()).body(body).unwrap()
        })
        .await;
    for _ in 0..3 {
        let started = Instant::now();
        scene.download().await;
        assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
    }
    assert!(slow.n_sent() < 1_000);
}

/// A listener that nobody may ever dial.
pub(crate) async fn canary() -> (std::net::SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, dialled) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let flag = dialled.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    });
    (address, dialled)
}

/// C14: redirects are answers of a wrong form, wherever they lead.
#[tokio::test(flavor = "multi_thread")]
async fn c14_redirects_are_not_followed() {
    let (address, dialled) = canary().await;
    for len in [N * CHUNK, 1000] {
        let scene = Scene::new(len).await;
        let n = AtomicUsize::new(0);
        let _bad = scene
            .with(move |content, _| {
                let rest = format!("/v1/content/{}", content.id);
                let places = [
                    format!("http://{address}{rest}"),
                    "http://169.254.169.254/latest/meta-data".into(),
                    "file:///etc/passwd".into(),
                    format!("https://{address}{rest}"),
                ];
                let n = n.fetch_add(1, Ordering::Relaxed);
                let status = [301, 302, 303, 307, 308][n % 5];
                answer(status).header(header::LOCATION, &places[n % 4]).body(Body::empty()).unwrap()
            })
            .await;
        for _ in 0..3 {
            scene.download().await;
        }
    }
    assert!(!dialled.load(Ordering::Relaxed), "a redirect was followed");
}

/// C15: only bytes count.
#[tokio::test(flavor = "multi_thread")]
async fn c15_content_types_mean_nothing() {
    let content = Content::new("page.html", noise(6 * CHUNK, 15));
    let tracker = Tracker::start().await;
    let n = AtomicUsize::new(0);
    let _odd = HostileOwner::start(&tracker, "odd", &content, move |content, ask| {
        let mut response = content.honest(ask);
        let kinds = ["text/html", "application/json", "text/event-stream", "multipart/byteranges; boundary=x", "\t"];
        let kind = kinds[n.fetch_add(1, Ordering::Relaxed) % kinds.len()];
        response.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        response
    })
    .await;
    let newcomer = Node::start(&tracker, "newcomer", &[]).await;
    newcomer.download("page.html").await.unwrap();
    assert!(newcomer.read("page.html").unwrap() == content.data);
}

/// C16, F14: the file of an honest owner is rewritten in place while it is served, length and mtime kept. The receiver
/// ends with the old content or with none, and the owner announces what it has now.
#[tokio::test(flavor = "multi_thread")]
async fn c16_an_owners_file_changes_under_the_transfer() {
    let scene = Scene::new(N * CHUNK).await;
    let path = scene.honest.share().join(&scene.content.path);
    let mtime = path.metadata().unwrap().modified().unwrap();
    // It is slow to give the first chunk, so that the rewrite comes in between.
    let asked = Arc::new(tokio::sync::Notify::new());
    let (asking, go) = (asked.clone(), Arc::new(tokio::sync::Notify::new()));
    let gate = go.clone();
    let _slow = scene
        .with(move |content, ask| match ask {
            Ask::Range(range) if range.end < content.data.len() => {
                asking.notify_one();
                let (gate, bytes) = (gate.clone(), content.data.slice(range.clone()));
                let body = futures::stream::once(async move {
                    gate.notified().await;
                    Ok::<_, std::io::Error>(bytes)
                });
                range_answer(content, range.clone(), Body::from_stream(body))
            }
            ask => content.honest(ask),
        })
        .await;
    let newcomer = Node::start(&scene.tracker, "newcomer", &[]).await;
    let rewriting = async {
        asked.notified().await;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let other = noise(N * CHUNK, 1616);
        file.write_all_at(&other, 0).unwrap();
        file.set_modified(mtime).unwrap();
        go.notify_one();
        other
    };
    let (outcome, other) = tokio::join!(newcomer.download(&scene.content.path), rewriting);
    match outcome {
        Ok(finished) => assert_eq!(finished.content_id, scene.content.id),
        Err(failed) => assert!(matches!(failed.kind, FailureKind::Unverified | FailureKind::Unreachable), "{failed:?}"),
    }
    if let Some(bytes) = newcomer.read(&scene.content.path) {
        assert!(bytes == scene.content.data, "a mixture of two states was accepted");
    }
    eventually("the new content is announced", async || {
        scene.tracker.get(&format!("/v1/content/{}", ContentId::of(&other))).await.is_some()
    })
    .await;
    newcomer.is_well().await;
}

/// C18: when every owner is corrupt the download fails and names the chunk; later an honest owner makes it succeed.
#[tokio::test(flavor = "multi_thread")]
async fn c18_every_owner_is_corrupt() {
    let content = Content::new("dir/file.bin", noise(N * CHUNK + 3, 18));
    let tracker = Tracker::start().await;
    let mut bad = Vec::new();
    for n in 0..3 {
        let spoil = |content: &Content, ask: &Ask| {
            content.with_bytes(ask, |start, bytes| {
                let at = 5 * CHUNK;
                if (start..start + bytes.len()).contains(&at) {
                    bytes[at - start] ^= 0x80;
                }
            })
        };
        bad.push(HostileOwner::start(&tracker, &format!("bad{n}"), &content, spoil).await);
    }
    let newcomer = Node::start(&tracker, "newcomer", &[]).await;
    let (kind, message) = newcomer.cannot_download(&content.path).await;
    assert_eq!(kind, FailureKind::Unverified, "{message}");
    assert!(message.contains("chunk 5"), "{message}");
    assert_eq!(newcomer.read(&content.path), None);
    assert_eq!(
        std::fs::read_dir(newcomer.share()).unwrap().count(),
        1,
        "only our own folder: no name, no half-made tree"
    );
    let before: u64 = bad.iter().map(HostileOwner::n_sent).sum();
    let honest = Node::start(&tracker, "honest", &[(&content.path, &content.data)]).await;
    tracker.wait_for_owners(content.id, 4).await;
    let finished = newcomer.download(&content.path).await.unwrap();
    assert!(newcomer.read(&content.path).unwrap() == content.data);
    assert!(given_by(&finished, "honest") < content.data.len() as u64, "what was right is kept");
    assert!(before <= 4 * (content.data.len() as u64 + MAX_WASTE), "{before} bytes were sent in vain");
    newcomer.is_well().await;
    honest.is_well().await;
}

/// C19: nine owners agree on the same bad chunk; each is found out once.
#[tokio::test(flavor = "multi_thread")]
async fn c19_nine_liars_agree() {
    let scene = Scene::new(2 * N * CHUNK).await;
    let mut bad = Vec::new();
    for n in 0..9 {
        let spoil = |content: &Content, ask: &Ask| {
            content.with_bytes(ask, |start, bytes| {
                for at in (0..content.data.len() - CHUNK).step_by(3 * CHUNK) {
                    if (start..start + bytes.len()).contains(&at) {
                        bytes[at - start] = !bytes[at - start];
                    }
                }
            })
        };
        bad.push(HostileOwner::start(&scene.tracker, &format!("bad{n}"), &scene.content, spoil).await);
    }
    scene.tracker.wait_for_owners(scene.content.id, 10).await;
    let finished = scene.download().await;
    assert!(given_by(&finished, "honest") >= (2 * N / 3 * CHUNK) as u64);
    for liar in bad {
        assert!(liar.n_sent() <= given_by(&finished, &liar.name) + MAX_WASTE, "{} sent {}", liar.name, liar.n_sent());
    }
}

/// F31: half of the owners send bad chunks or break off.
#[tokio::test(flavor = "multi_thread")]
async fn f31_half_of_sixteen_owners_are_bad() {
    let scene = Scene::new(4 * N * CHUNK).await;
    let mut all = Vec::new();
    for n in 0..15_u64 {
        let asked = AtomicUsize::new(0);
        let manners = move |content: &Content, ask: &Ask| {
            let asked = asked.fetch_add(1, Ordering::Relaxed);
            match ask {
                Ask::Range(range) if n < 4 && asked % 10 == 3 => range_answer(
                    content,
                    range.clone(),
                    cut(content.data.slice(range.start..range.start + range.len() / 2)),
                ),
                Ask::Range(_) if (4..8).contains(&n) => content.with_bytes(ask, |start, bytes| {
                    if start / CHUNK % 10 == n as usize {
                        bytes[0] ^= 1;
                    }
                }),
                ask => content.honest(ask),
            }
        };
        all.push(HostileOwner::start(&scene.tracker, &format!("owner{n}"), &scene.content, manners).await);
    }
    scene.tracker.wait_for_owners(scene.content.id, 16).await;
    let finished = scene.download().await;
    assert!(finished.from.len() >= 8, "{:?}", finished.from);
    let sent: u64 = all.iter().map(HostileOwner::n_sent).sum::<u64>() + given_by(&finished, "honest");
    let waste = sent - scene.content.data.len() as u64;
    assert!(waste <= scene.content.data.len() as u64 * 30 / 100, "{waste} bytes were fetched in vain");
}

/// F21: an honest owner goes away in the middle; what it still owed comes from the other.
#[tokio::test(flavor = "multi_thread")]
async fn f21_an_owner_goes_away_in_the_middle() {
    let scene = Scene::new(N * CHUNK).await;
    let gone = Arc::new(AtomicBool::new(false));
    let flag = gone.clone();
    let _leaving = scene
        .with(move |content, ask| match ask {
            Ask::Range(range) if range.end < content.data.len() => {
                flag.store(true, Ordering::Relaxed);
                range_answer(content, range.clone(), cut(content.data.slice(range.start..range.start + CHUNK + 99)))
            }
            _ if flag.load(Ordering::Relaxed) => answer(200).body(cut(Bytes::new())).unwrap(),
            ask => content.honest(ask),
        })
        .await;
    let finished = scene.download().await;
    assert!(gone.load(Ordering::Relaxed));
    assert!(given_by(&finished, "bad") >= CHUNK as u64, "the chunk that came whole stays: {:?}", finished.from);
}

/// H13 from the other side: an owner without a free slot is waited for, and not for longer than it asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_choking_owner_is_waited_for() {
    for len in [6 * CHUNK, 1000] {
        let content = Content::new("file", noise(len, 503));
        let tracker = Tracker::start().await;
        let asked = AtomicUsize::new(0);
        let choking = HostileOwner::start(&tracker, "choking", &content, move |content, ask| {
            match asked.fetch_add(1, Ordering::Relaxed) % 3 {
                0 => answer(503).header(header::RETRY_AFTER, "1").body(Body::empty()).unwrap(),
                _ => content.honest(ask),
            }
        })
        .await;
        let newcomer = Node::start(&tracker, "newcomer", &[]).await;
        newcomer.download("file").await.unwrap();
        assert!(newcomer.read("file").unwrap() == content.data);
        assert!(choking.asked().len() <= 24, "{:?}", choking.asked());
    }
}

/// A content of one chunk from owners that send something else, each with an honest one beside it.
#[tokio::test(flavor = "multi_thread")]
async fn contents_of_one_chunk_from_hostile_owners() {
    type Form = fn(&Content, &Ask) -> Response<Body>;
    let forms: [(&str, Form); 15] = [
        ("other bytes", |c, ask| c.with_bytes(ask, |_, bytes| bytes[0] ^= 1)),
        (
            "nothing in its bundles",
            |c, ask| if matches!(ask, Ask::Bundle(_)) { bundle_answer(&[]) } else { c.honest(ask) },
        ),
        ("a bundle of something else", |c, ask| match ask {
            Ask::Bundle(_) => bundle_answer(&[(ContentId::of(b"x"), b"x"), (c.id, &c.data)]),
            _ => c.honest(ask),
        }),
        ("a bundle with the same twice", |c, _| bundle_answer(&[(c.id, &c.data), (c.id, &c.data)])),
        ("a bundle with more", |c, _| bundle_answer(&[(c.id, &[&c.data[..], b"!"].concat())])),
        ("a bundle that ends in a head", |c, _| answer(200).body(c.data.slice(..20).into()).unwrap()),
        ("a bundle that goes silent", |c, ask| match ask {
            Ask::Bundle(_) => answer(200).body(then_silence(c.id.as_bytes().to_vec().into())).unwrap(),
            _ => c.honest(ask),
        }),
        ("one byte more", |c, _| answer(200).body([&c.data[..], b"!"].concat().into()).unwrap()),
        ("one byte less", |c, _| answer(200).body(c.data.slice(1..).into()).unwrap()),
        ("without end", |_, _| answer(200).body(endless()).unwrap()),
        ("cut", |c, _| answer(200).body(cut(c.data.slice(..500))).unwrap()),
        ("404", |_, _| bare(404)),
        ("206", |c, _| range_answer(c, 0..c.data.len(), c.data.clone())),
        ("silent", |_, _| answer(200).body(then_silence(Bytes::new())).unwrap()),
        ("one byte at a time", |c, _| answer(200).body(trickle(c.data.clone(), Duration::from_millis(500))).unwrap()),
    ];
    let scene = Scene::new(1000).await;
    for (form, respond) in forms {
        let bad = scene.with(respond).await;
        // Whoever is asked first is left to chance.
        for n in 0..4 {
            let newcomer = Node::start(&scene.tracker, &format!("{form} {n}"), &[]).await;
            let started = Instant::now();
            let finished = tokio::time::timeout(Duration::from_secs(20), newcomer.download(&scene.content.path)).await;
            let finished = finished.unwrap_or_else(|_| panic!("{form}: it hangs on the bad owner"));
            let finished = finished.unwrap_or_else(|failed| panic!("{form}: {failed}"));
            assert!(started.elapsed() < Duration::from_secs(10), "{form} took {:?}", started.elapsed());
            assert!(bad.n_sent() < 64 << 20, "{form}: {}", bad.n_sent());
            scene.check(&newcomer, &finished).await;
            drop(newcomer.stop().await);
        }
    }
}

/// Of many small contents in one bundle one is spoiled, left out or too long: that one is fetched elsewhere, and nothing else is lost.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_content_in_a_bundle() {
    let contents: Vec<_> = (0..40).map(|n| Content::new(&format!("many/{n}"), noise(700 + n, n as u64))).collect();
    let files: Vec<(&str, &[u8])> = contents.iter().map(|content| (&*content.path, &*content.data)).collect();
    type Part = fn(&Content, &Content) -> Option<(ContentId, Bytes)>;
    let spoiled: [(&str, Part); 3] = [
        ("other bytes", |c, other| Some((c.id, other.data.clone()))),
        ("nothing", |_, _| None),
        ("longer", |c, _| Some((c.id, [&c.data[..], b"!"].concat().into()))),
    ];
    for (form, part) in spoiled {
        let tracker = Tracker::start().await;
        let all = contents.clone();
        let bad = HostileOwner::serve("bad", &contents[2], move |content, ask| {
            let Ask::Bundle(ids) = ask else { return bare(404) };
            let parts = ids.iter().filter_map(|id| match all.iter().find(|content| content.id == *id)? {
                asked if asked.id == content.id => part(asked, &all[0]),
                asked => Some((asked.id, asked.data.clone())),
            });
            let parts: Vec<_> = parts.collect();
            bundle_answer(&parts.iter().map(|(id, bytes)| (*id, &**bytes)).collect::<Vec<_>>())
        })
        .await;
        bad.announce_all(&tracker, &contents).await;
        let honest = Node::start(&tracker, "honest", &files[2..3]).await;
        tracker.wait_for_owners(contents[2].id, 2).await;
        for n in 0..4 {
            let newcomer = Node::start(&tracker, &format!("newcomer {n}"), &[]).await;
            let (events, outcome) = newcomer.run(download("many/")).await;
            outcome.unwrap_or_else(|failed| panic!("{form}: {failed}"));
            assert!(contents.iter().all(|content| newcomer.read(&content.path).unwrap() == content.data), "{form}");
            let givers = events.iter().filter_map(|event| match event {
                Event::Finished(finished) => Some((finished.content_id, &finished.from[0].name)),
                _ => None,
            });
            // Whoever is asked first for it: what is wrong is never taken.
            for (id, giver) in givers {
                assert_eq!(giver, if id == contents[2].id { "honest" } else { "bad" }, "{form}");
            }
            assert!(bad.asked().iter().any(|ask| matches!(ask, Ask::Bundle(ids) if ids.len() > 1)), "{form}");
            newcomer.is_well().await;
            drop(newcomer.stop().await);
        }
        honest.is_well().await;
    }
}

/// The same without anybody honest: it ends, says so, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_of_one_chunk_that_nobody_has() {
    let content = Content::new("dir/file", noise(1000, 8));
    let tracker = Tracker::start().await;
    let bad =
        HostileOwner::start(&tracker, "bad", &content, |c, ask| c.with_bytes(ask, |_, bytes| bytes[9] ^= 1)).await;
    let newcomer = Node::start(&tracker, "newcomer", &[]).await;
    let (kind, message) = newcomer.cannot_download("dir/file").await;
    assert_eq!(kind, FailureKind::Unverified, "{message}");
    assert!(message.contains("chunk 0"), "{message}");
    assert_eq!(std::fs::read_dir(newcomer.share()).unwrap().count(), 1, "no half-made tree");
    assert_eq!(newcomer.n_partial(), 0);
    drop(bad);
    let honest = Node::start(&tracker, "honest", &[("dir/file", &content.data)]).await;
    tracker.wait_for_owners(content.id, 2).await;
    newcomer.download("dir/file").await.unwrap();
    assert!(newcomer.read("dir/file").unwrap() == content.data);
    honest.is_well().await;
    newcomer.is_well().await;
}

/// P15, C22: what stands at the receiver's target stays: a link out of the share, a folder, an older and longer file.
#[tokio::test(flavor = "multi_thread")]
async fn p15_c22_what_stands_at_the_target_stays() {
    let scene = Scene::new(N * CHUNK).await;
    let newcomer = Node::start(&scene.tracker, "newcomer", &[]).await;
    let (outside, target) = (newcomer.beside("canary"), newcomer.share().join("dir"));
    std::os::unix::fs::symlink(&outside, &target).unwrap();
    let (kind, message) = newcomer.cannot_download(&scene.content.path).await;
    assert_eq!(kind, FailureKind::Failed, "{message}");
    newcomer.is_well().await;
    std::fs::remove_file(&target).unwrap();
    std::fs::write(&target, "a file where a folder should be").unwrap();
    let (kind, message) = newcomer.cannot_download(&scene.content.path).await;
    assert_eq!(kind, FailureKind::Failed, "{message}");
    std::fs::remove_file(&target).unwrap();
    std::fs::create_dir(&target).unwrap();
    // What stands there is shared itself as soon as it is hashed: from then on the name stands for two contents.
    let asked = format!("{}@{}", scene.content.path, scene.content.id.short());
    let older = vec![7; N * CHUNK + 5];
    std::fs::write(target.join("file.bin"), &older).unwrap();
    let (kind, message) = newcomer.cannot_download(&asked).await;
    assert_eq!(kind, FailureKind::Failed, "{message}");
    assert!(newcomer.read("dir/file.bin").unwrap() == older, "an older file is left alone");
    std::fs::remove_file(target.join("file.bin")).unwrap();
    std::fs::create_dir(target.join("file.bin")).unwrap();
    let (kind, message) = newcomer.cannot_download(&asked).await;
    assert_eq!(kind, FailureKind::Failed, "{message}");
    std::fs::remove_dir(target.join("file.bin")).unwrap();
    let finished = newcomer.download(&asked).await.unwrap();
    assert_eq!(finished.len, scene.content.data.len() as u64);
    assert!(newcomer.read("dir/file.bin").unwrap() == scene.content.data);
    newcomer.is_well().await;
}

/// Standard mode: one owner at a time, the next one when it fails.
#[tokio::test(flavor = "multi_thread")]
async fn single_goes_on_to_the_next_owner() {
    let scene = Scene::new(N * CHUNK).await;
    let _bad = scene
        .with(|content, ask| {
            content.with_bytes(ask, |start, bytes| {
                if start < CHUNK {
                    bytes[1] ^= 1;
                }
            })
        })
        .await;
    for n in 0..3 {
        let newcomer = Node::start(&scene.tracker, &format!("single{n}"), &[]).await;
        let finished = newcomer.download_with(&scene.content.path, From::Single, None).await.unwrap();
        assert!(newcomer.read(&scene.content.path).unwrap() == scene.content.data);
        assert!(given_by(&finished, "honest") > 0);
        drop(newcomer.stop().await);
    }
    let newcomer = Node::start(&scene.tracker, "from", &[]).await;
    let failed = newcomer.download_with(&scene.content.path, From::Peer("nobody".into()), None).await.unwrap_err();
    assert_eq!(failed.kind, FailureKind::NotFound);
    let failed = newcomer.download_with(&scene.content.path, From::Peer("bad".into()), None).await.unwrap_err();
    assert_eq!(failed.kind, FailureKind::Unverified, "{failed}");
    let finished = newcomer.download_with(&scene.content.path, From::Peer("honest".into()), None).await.unwrap();
    assert_eq!(finished.from.iter().map(|from| from.name.as_str()).collect::<Vec<_>>(), ["honest"]);
}

/// An owner may take long to say the first word; a stream of such must not keep anybody from ending.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_in_the_middle_of_a_download() {
    let content = Content::new("file", noise(N * CHUNK, 9));
    let tracker = Tracker::start().await;
    let bad = HostileOwner::start(&tracker, "bad", &content, |c, ask| match ask {
        Ask::Range(range) if range.end < c.data.len() => {
            let body = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            range_answer(c, range.clone(), Body::from_stream(body.boxed()))
        }
        ask => c.honest(ask),
    })
    .await;
    let newcomer = Node::start(&tracker, "newcomer", &[]).await;
    let events = newcomer.peer.run(download("file"));
    eventually("it is asked", async || bad.n_ranges() > 1).await;
    drop(events);
    eventually("the download ends with its listener", async || newcomer.status().await.downloads.is_empty()).await;
    assert_eq!(newcomer.read("file"), None);
    let started = Instant::now();
    drop(newcomer.stop().await);
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// F30: the only owner proves what it has, and then says nothing, or that it has nothing, for as long as it is listed.
/// The download ends when patience does; it is not started anew by each chance the owner gets.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_owner_stops_giving() {
    type Form = fn() -> Response<Body>;
    let forms: [(&str, Form); 3] = [
        ("silent", || Response::new(then_silence(Bytes::new()))),
        ("has nothing", || bare(404)),
        ("breaks off", || answer(206).body(cut(Bytes::new())).unwrap()),
    ];
    for (form, respond) in forms {
        let content = Content::new("file", noise(N * CHUNK, 30));
        let tracker = Tracker::start().await;
        let _bad = HostileOwner::start(&tracker, "bad", &content, move |c, ask| match ask {
            Ask::Range(range) if range.end < c.data.len() => respond(),
            ask => c.honest(ask),
        })
        .await;
        let newcomer = Node::start(&tracker, "newcomer", &[]).await;
        let started = Instant::now();
        let (kind, message) = newcomer.cannot_download("file").await;
        assert_eq!(kind, FailureKind::Unreachable, "{form}: {message}");
        assert!(started.elapsed() < Duration::from_secs(20), "{form}: {:?}", started.elapsed());
        newcomer.is_well().await;
    }
}

/// C06 and others, in a swarm: partial owners whose have stream is a lie, a flood, or nonsense.
#[tokio::test(flavor = "multi_thread")]
async fn c06_partial_owners_that_lie_about_what_they_have() {
    type Stream = fn() -> Body;
    fn lines(text: &'static str) -> Body {
        let line = move || Ok::<_, std::io::Error>(Bytes::from_static(text.as_bytes()));
        Body::from_stream(futures::stream::repeat_with(line))
    }
    let streams: [(&str, Stream); 8] = [
        ("it has everything", || "{\"complete\":true}\n".into()),
        ("it gains all chunks for ever", || lines("{\"gained\":[0,1,2,3,4,5,6,7,8,9]}\n")),
        ("it gains chunks that do not exist", || lines("{\"gained\":[4294967295,1000000,24]}\n")),
        ("everything is coming", || lines("{\"coming\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}\n")),
        ("have-sets of another length", || "{\"have\":\"ff\"}\n{\"have\":\"\"}\n{\"have\":\"zz\"}\n".into()),
        ("a line without end", || lines("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[")),
        ("empty lines for ever", || lines("{}\n")),
        ("silence", || then_silence(Bytes::new())),
    ];
    let scene = Scene::new(2 * N * CHUNK).await;
    for (form, stream) in streams {
        let bad = HostileOwner::serve("bad", &scene.content, move |content, ask| match ask {
            Ask::Have => answer(200).body(stream()).unwrap(),
            Ask::Range(_) => bare(404),
            ask => content.honest(ask),
        })
        .await;
        bad.announce_partial(&scene.tracker, 7).await;
        let newcomer = Node::start(&scene.tracker, form, &[]).await;
        let started = Instant::now();
        let finished = newcomer.download(&scene.content.path).await.unwrap_or_else(|failed| panic!("{form}: {failed}"));
        assert!(started.elapsed() < Duration::from_secs(10), "{form} took {:?}", started.elapsed());
        assert!(bad.asked().contains(&Ask::Have), "{form}: nobody listened");
        assert!(bad.n_ranges() < 3 * N, "{form}: asked {} times", bad.n_ranges());
        scene.check(&newcomer, &finished).await;
        drop(newcomer.stop().await);
    }
}

/// C11: a chunk map that trickles from the only owner ends the download at some time.
#[tokio::test(flavor = "multi_thread")]
async fn c11_the_only_chunk_map_trickles() {
    let content = Content::new("file", noise(N * CHUNK, 11));
    let tracker = Tracker::start().await;
    let _slow = HostileOwner::start(&tracker, "slow", &content, |c, _| {
        let body = trickle(c.map.clone().into(), Duration::from_millis(500));
        answer(200).header("potluck-content-len", c.data.len()).body(body).unwrap()
    })
    .await;
    let newcomer = Node::start(&tracker, "newcomer", &[]).await;
    let (kind, message) = newcomer.cannot_download("file").await;
    assert_eq!(kind, FailureKind::Unreachable, "{message}");
}
