//! `/metrics` of a tracker and of peers: the format, the names, what is counted, and how few series there are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use potluck_common::ContentId;
use potluck_common::protocol::SyncMode;

use crate::harness::{Node, Tracker, eventually, http, noise, quick, root_with, skipped};

/// Every label there is: all take their values from fixed lists.
const LABELS: [&str; 9] = ["event", "holds", "le", "reason", "result", "route", "state", "status", "version"];
/// Series of one program, with every route asked once: some hundred, whatever is shared.
const MAX_SERIES: usize = 600;

/// What a program shows: values by name and labels as they stand, and the kind of each family.
pub(crate) struct Shown {
    samples: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
    text: String,
}

impl Shown {
    pub(crate) async fn of(base: &str) -> Self {
        let answer = http().get(format!("{}/metrics", base.trim_end_matches('/'))).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        Self::parse(answer.text().await.unwrap())
    }

    /// Reads the text format, as strictly as it is described.
    fn parse(text: String) -> Self {
        let (mut samples, mut kinds, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(words.ends_with('.') && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(helped.contains(name) && kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
            }
        }
        Self { samples, kinds, text }
    }

    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }

    /// Checks names, labels and their number.
    #[track_caller]
    fn is_well_formed(&self, prefix: &str) {
        for (name, kind) in &self.kinds {
            assert!(name.starts_with(prefix), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()), "{name} is a {kind}");
        }
        for series in self.samples.keys() {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            assert!(self.kinds.contains_key(family.unwrap_or(name)) || self.kinds.contains_key(name), "{series}");
            for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
                let (label, _) = label.split_once("=\"").unwrap();
                assert!(LABELS.contains(&label), "{series}");
            }
        }
        assert!(self.samples.len() < MAX_SERIES, "{} series", self.samples.len());
        lint(&self.text);
    }
}

/// What Prometheus' own tool says of it.
fn lint(text: &str) {
    let piped = |stream: Command| {
        let mut command = stream;
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let Ok(mut promtool) = piped(Command::new("promtool")) else {
        return skipped("promtool check metrics: not installed (apt-get install prometheus)");
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success(), "{}\n{text}", String::from_utf8_lossy(&said.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_swarm_does_is_counted() {
    let tracker = Tracker::start().await;
    let (large, small) = (noise(3 << 20, 1), noise(1_000, 2));
    let owner = Node::start(&tracker, "owner", &[("large \"x\".bin", &large), ("small", &small)]).await;
    let config = |share: &std::path::Path| potluck_peer::Config {
        sync: Some(SyncMode::Send),
        ..quick(share, &tracker.url, "leecher")
    };
    let leecher = Node::start_on(root_with(&[("mine", b"m")]), config).await.unwrap();
    tracker.wait_for_owners(ContentId::of(&large), 1).await;
    tracker.wait_for_owners(ContentId::of(&small), 1).await;
    leecher.download("large \"x\".bin").await.unwrap();
    leecher.download("small").await.unwrap();
    tracker.wait_for_owners(ContentId::of(&small), 2).await;
    for n in 0..50 {
        assert_eq!(owner.get(&format!("/f/nothing-{n}")).await.status(), 404);
        assert_eq!(http().get(format!("{}/v1/files/nothing-{n}", tracker.url)).send().await.unwrap().status(), 404);
    }
    let _stream = http().get(format!("{}/v1/events", tracker.url)).send().await.unwrap();

    let n_bytes = (large.len() + small.len()) as f64;
    let shown = Shown::of(owner.base()).await;
    shown.is_well_formed("potluck_peer_");
    assert_eq!(shown.get("potluck_peer_shared_files"), 2.0);
    assert_eq!(shown.get("potluck_peer_shared_bytes"), n_bytes);
    assert_eq!(shown.get("potluck_peer_hashed_bytes_total"), n_bytes);
    assert!(shown.get("potluck_peer_sent_bytes_total") >= n_bytes);
    assert_eq!(shown.get("potluck_peer_upload_slots"), 256.0);
    assert_eq!(shown.get(r#"potluck_peer_http_requests_total{route="/f/{*path}",status="4xx"}"#), 50.0);
    assert_eq!(shown.get(r#"potluck_peer_trackers{state="answering"}"#), 1.0);
    assert_eq!(shown.get("potluck_peer_sync_enabled"), 0.0);

    let shown = Shown::of(leecher.base()).await;
    shown.is_well_formed("potluck_peer_");
    assert!(shown.get("potluck_peer_received_bytes_total") >= n_bytes);
    assert_eq!(shown.get("potluck_peer_chunks_verified_total"), 12.0 + 1.0);
    assert_eq!(shown.get(r#"potluck_peer_fetches_failed_total{reason="corrupt"}"#), 0.0);
    assert_eq!(shown.get("potluck_peer_downloads_running"), 0.0);
    eventually("the synced files are counted", async || {
        let shown = Shown::of(leecher.base()).await;
        shown.get("potluck_peer_sync_enabled") == 1.0 && shown.get("potluck_peer_sync_files") == 3.0
    })
    .await;

    let shown = Shown::of(&tracker.url).await;
    shown.is_well_formed("potluck_tracker_");
    assert_eq!(shown.get("potluck_tracker_peers"), 2.0);
    assert_eq!(shown.get("potluck_tracker_files"), 3.0);
    assert_eq!(shown.get("potluck_tracker_contents"), 3.0);
    assert_eq!(shown.get("potluck_tracker_content_bytes"), n_bytes + 1.0);
    assert_eq!(shown.get(r#"potluck_tracker_owners{holds="all"}"#), 5.0);
    assert_eq!(shown.get(r#"potluck_tracker_owners{holds="part"}"#), 0.0);
    assert_eq!(shown.get("potluck_tracker_event_subscribers"), 1.0);
    assert!(shown.get(r#"potluck_tracker_announces_total{event="started",result="accepted"}"#) >= 2.0);
    assert_eq!(shown.get(r#"potluck_tracker_http_requests_total{route="/v1/files/{*path}",status="4xx"}"#), 50.0);
    leecher.stop().await;
    eventually("the leecher is gone", async || Shown::of(&tracker.url).await.get("potluck_tracker_peers") == 1.0).await;
    let shown = Shown::of(&tracker.url).await;
    assert_eq!(shown.get(r#"potluck_tracker_owners{holds="all"}"#), 2.0);
    assert_eq!(shown.get(r#"potluck_tracker_announces_total{event="stopped",result="accepted"}"#), 1.0);
}

/// What the dashboard of the compose profile `observe` asks for is there.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_for_what_is_there() {
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "node", &[("file", b"x")]).await;
    tracker.wait_for_owners(ContentId::of(b"x"), 1).await;
    let (of_tracker, of_peer) = (Shown::of(&tracker.url).await, Shown::of(node.base()).await);
    let known: BTreeSet<&str> = of_tracker.kinds.keys().chain(of_peer.kinds.keys()).map(String::as_str).collect();
    let dashboard = include_str!("../../../docker/observe/grafana/dashboards/potluck.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
    let mut n_asked = 0;
    for expression in targets.flatten().map(|target| target["expr"].as_str().unwrap()) {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("potluck_")) {
            assert!(known.contains(name.strip_suffix("_bucket").unwrap_or(name)), "{name} in {expression}");
            n_asked += 1;
        }
    }
    assert!(n_asked > 20, "only {n_asked} metrics are asked for");
}
