//! A tracker and peers on port 0 with temporary share folders. Everything ends when it is dropped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use potluck_common::ContentId;
use potluck_peer::config::Config;
use potluck_peer::verb::{Download, Event, Failed, Finished, From, Status, Verb};
use potluck_peer::{Lifetime, Peer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A tracker.
pub(crate) struct Tracker {
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    _ends: DropGuard,
}

impl Tracker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(potluck_tracker::run(listener, potluck_tracker::Config::default(), shutdown.clone()));
        Self { url, http: reqwest::Client::new(), _ends: shutdown.drop_guard() }
    }

    /// What a route answers.
    pub(crate) async fn get(&self, path: &str) -> Option<serde_json::Value> {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }

    /// Waits until a content has so many complete owners.
    pub(crate) async fn wait_for_owners(&self, id: ContentId, n: u64) {
        eventually(&format!("{n} owners of {id}"), async || {
            self.get(&format!("/v1/content/{id}")).await.is_some_and(|info| info["n_owners"] == n)
        })
        .await;
    }
}

/// A peer with a share folder of its own.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) share: TempDir,
    _ends: DropGuard,
}

/// Durations that let tests be quick.
pub(crate) fn quick(share: &Path, tracker: &str, name: &str) -> Config {
    Config {
        share: share.to_owned(),
        trackers: vec![tracker.to_owned()],
        name: name.into(),
        settle: Duration::from_millis(10),
        watch_coalesce: Duration::from_millis(10),
        announce_coalesce: Duration::from_millis(5),
        tracker_retry_min: Duration::from_millis(20),
        tracker_retry_max: Duration::from_millis(200),
        owners_refresh: Duration::from_millis(200),
        owners_patience: Duration::from_secs(2),
        record_interval: Duration::from_millis(100),
        ..Config::default()
    }
}

impl Node {
    pub(crate) async fn start(tracker: &Tracker, name: &str, files: &[(&str, &[u8])]) -> Self {
        let share = tempfile::tempdir().unwrap();
        for (path, data) in files {
            write(share.path(), path, data);
        }
        Self::start_on(share, |share| quick(share, &tracker.url, name)).await.unwrap()
    }

    pub(crate) async fn start_on(share: TempDir, config: impl Fn(&Path) -> Config) -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = CancellationToken::new();
        let config = config(share.path());
        let peer = Peer::start(listener, config, Lifetime::Running, shutdown.clone()).await?;
        Ok(Self { peer, share, _ends: shutdown.drop_guard() })
    }

    /// Runs a verb to its end.
    pub(crate) async fn run(&self, verb: Verb) -> (Vec<Event>, Result<(), Failed>) {
        let mut receiver = self.peer.run(verb);
        let mut events = Vec::new();
        let all = async {
            while let Some(event) = receiver.recv().await {
                match event {
                    Event::Done => return Ok(()),
                    Event::Failed(failed) => return Err(failed),
                    event => events.push(event),
                }
            }
            panic!("the last event is missing");
        };
        let outcome = tokio::time::timeout(DEADLINE, all).await.expect("the verb ends in time");
        (events, outcome)
    }

    /// Downloads one name from everybody.
    pub(crate) async fn download(&self, name: &str) -> Result<Finished, Failed> {
        self.download_with(name, From::All, None).await
    }

    pub(crate) async fn download_with(
        &self,
        name: &str,
        from: From,
        output: Option<PathBuf>,
    ) -> Result<Finished, Failed> {
        let (events, outcome) = self.run(Verb::Download(Download { names: vec![name.into()], from, output })).await;
        outcome?;
        let finished = events.into_iter().find_map(|event| match event {
            Event::Finished(finished) => Some(finished),
            _ => None,
        });
        Ok(finished.expect("a download that is done has finished"))
    }

    pub(crate) async fn status(&self) -> Status {
        match self.run(Verb::Status).await {
            (events, Ok(())) => match events.into_iter().next() {
                Some(Event::Status(status)) => status,
                other => panic!("no status: {other:?}"),
            },
            (_, Err(failed)) => panic!("{failed:?}"),
        }
    }

    /// What stands in the share folder under a name.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.share.path().join(path)).ok()
    }
}

pub(crate) fn write(share: &Path, path: &str, data: &[u8]) {
    let path = share.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, data).unwrap();
}

/// Bytes that look like nothing else.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut data);
    data
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
