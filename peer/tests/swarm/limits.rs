//! Limits of rates. How long something takes at least is what they promise; a busy machine may always take longer.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use potluck_common::ContentId;
use potluck_peer::config::Config;
use potluck_peer::limit::schedule::Limit;
use potluck_peer::verb::{Direction, Download, Event, From, LimitChange, Verb};

use crate::harness::{Node, Tracker, eventually, http, noise, quick, root_with};

/// What a bucket saves up while idle, as the limits' own text says.
const BURST: Duration = Duration::from_millis(100);

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

async fn start(tracker: &Tracker, name: &str, up: &str, down: &str, files: &[(&str, &[u8])]) -> Node {
    let config = |share: &std::path::Path| Config {
        limit_up: limit(up),
        limit_down: limit(down),
        ..quick(share, &tracker.url, name)
    };
    Node::start_on(root_with(files), config).await.unwrap()
}

async fn change(node: &Node, direction: Direction, text: &str) {
    let change = Some(LimitChange { direction, limit: limit(text) });
    let (events, outcome) = node.run(Verb::Limit { change }).await;
    outcome.unwrap();
    let Some(Event::Limits(limits)) = events.into_iter().next() else { panic!("no limits") };
    let now = match direction {
        Direction::Up => limits.up,
        Direction::Down => limits.down,
    };
    assert_eq!(now.limit, limit(text));
}

/// The least time that `n_bytes` take at a rate, less what may have been saved up.
fn least(n_bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(n_bytes as f64 / rate as f64) - BURST
}

/// From a lone owner at so low a limit that the client's reads lie further apart than an owner may be silent here (0.8 s):
/// if it were blamed for that, nobody would be left to ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_limited_download_takes_its_time_and_blames_nobody() {
    let tracker = Tracker::start().await;
    let data = noise(512 << 10, 1);
    let _owner = Node::start(&tracker, "owner", &[("file.bin", &data)]).await;
    tracker.wait_for_owners(ContentId::of(&data), 1).await;
    let leecher = start(&tracker, "leecher", "off", "128K", &[]).await;
    let began = Instant::now();
    let finished = leecher.download("file.bin").await.unwrap();
    assert!(began.elapsed() >= least(512 << 10, 128 << 10), "{:?}", began.elapsed());
    assert_eq!(finished.from.len(), 1, "{:?}", finished.from);
    assert_eq!(leecher.read("file.bin"), Some(data));
}

#[tokio::test(flavor = "multi_thread")]
async fn from_several_owners_at_once() {
    let tracker = Tracker::start().await;
    let data = noise(3 << 20, 2);
    let mut owners = Vec::new();
    for name in ["a", "b", "c"] {
        owners.push(Node::start(&tracker, name, &[("file.bin", &data)]).await);
    }
    tracker.wait_for_owners(ContentId::of(&data), 3).await;
    let leecher = start(&tracker, "leecher", "off", "1M", &[]).await;
    let began = Instant::now();
    leecher.download("file.bin").await.unwrap();
    assert!(began.elapsed() >= least(3 << 20, 1 << 20), "{:?}", began.elapsed());
    assert_eq!(leecher.read("file.bin"), Some(data));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files() {
    let tracker = Tracker::start().await;
    let files: Vec<_> = (0..40).map(|n| (format!("dir/{n}"), noise(50_000, n))).collect();
    let listed: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), &data[..])).collect();
    let _owner = Node::start(&tracker, "owner", &listed).await;
    eventually("all are listed", async || tracker.names().await.len() == files.len()).await;
    let leecher = start(&tracker, "leecher", "off", "1M", &[]).await;
    let names = vec!["dir/".to_owned()];
    let began = Instant::now();
    leecher.run(Verb::Download(Download { names, from: From::All, output: None, origin: None })).await.1.unwrap();
    assert!(began.elapsed() >= least(40 * 50_000, 1 << 20), "{:?}", began.elapsed());
    for (name, data) in &files {
        assert_eq!(leecher.read(name).as_ref(), Some(data));
    }
}

/// At this rate it would take nine minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_fast_once_its_limit_is_off() {
    let tracker = Tracker::start().await;
    let data = noise(8 << 20, 3);
    let _owner = Node::start(&tracker, "owner", &[("file.bin", &data)]).await;
    tracker.wait_for_owners(ContentId::of(&data), 1).await;
    let leecher = start(&tracker, "leecher", "off", "16K", &[]).await;
    let off = async {
        eventually("it has begun", async || leecher.status().await.rates.down > 0).await;
        assert_eq!(leecher.read("file.bin"), None);
        change(&leecher, Direction::Down, "off").await;
    };
    let (finished, ()) = tokio::join!(leecher.download("file.bin"), off);
    finished.unwrap();
    assert_eq!(leecher.read("file.bin"), Some(data));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_share_one_limit() {
    const N: u64 = 16;
    let tracker = Tracker::start().await;
    let data = noise(128 << 10, 4);
    let owner = start(&tracker, "owner", "1M", "off", &[("file.bin", &data)]).await;
    tracker.wait_for_owners(ContentId::of(&data), 1).await;
    let url = format!("{}/f/file.bin", owner.peer.listen_url());
    let began = Instant::now();
    let bodies = (0..N).map(|_| async { http().get(&url).send().await.unwrap().bytes().await.unwrap() });
    for body in futures::future::join_all(bodies).await {
        assert_eq!(body, data);
    }
    assert!(began.elapsed() >= least(N * (128 << 10), 1 << 20), "{:?}", began.elapsed());
    let status = owner.status().await;
    assert_eq!(status.limits.up.rate.map(std::num::NonZeroU64::get), Some(1 << 20));
}

/// At 16 KiB a second one upload is all that keeps its reader from taking us for slow; who comes second is told to come
/// back, and served when the limit is off.
#[tokio::test(flavor = "multi_thread")]
async fn few_uploads_at_once_under_a_low_limit() {
    let tracker = Tracker::start().await;
    let data = noise(4 << 20, 5);
    let owner = Node::start(&tracker, "owner", &[("file.bin", &data)]).await;
    tracker.wait_for_owners(ContentId::of(&data), 1).await;
    change(&owner, Direction::Up, "16K").await;
    let first = owner.get("/f/file.bin").await;
    assert_eq!(first.status(), StatusCode::OK);
    let second = owner.get("/f/file.bin").await;
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(second.headers().contains_key("retry-after"));
    change(&owner, Direction::Up, "off").await;
    assert_eq!(owner.get("/f/file.bin").await.status(), StatusCode::OK);
    assert_eq!(first.bytes().await.unwrap(), data);
}
