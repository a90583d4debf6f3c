//! A tracker and peers on port 0 with temporary share folders. Everything ends when it is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use potluck_common::ContentId;
use potluck_peer::config::Config;
use potluck_peer::scheduler::SchedulerConfig;
use potluck_peer::verb::{Download, Event, Failed, FailureKind, Finished, From, Status, Verb};
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
    ends: DropGuard,
    running: tokio::task::JoinHandle<()>,
}

impl Tracker {
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap()).await
    }

    /// On an address, for one that comes later or comes back.
    pub(crate) async fn start_on(address: SocketAddr) -> Self {
        Self::start_with(address, potluck_tracker::Quotas::default()).await
    }

    /// One that takes only so much.
    pub(crate) async fn start_with(address: SocketAddr, quotas: potluck_tracker::Quotas) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        // Peers learn quickly that a tracker forgot them; owners that only announce themselves once stay listed.
        let config = potluck_tracker::Config {
            heartbeat: Duration::from_millis(300),
            lease: Duration::from_secs(120),
            quotas,
            ..potluck_tracker::Config::default()
        };
        let serving = potluck_tracker::run(listener, config, shutdown.clone());
        let running = tokio::spawn(async move { serving.await.unwrap() });
        Self { url, http: http(), ends: shutdown.drop_guard(), running }
    }

    /// Ends it and waits until its address is free again.
    pub(crate) async fn stop(self) -> SocketAddr {
        let address = self.url.strip_prefix("http://").unwrap().parse().unwrap();
        self.ends.disarm().cancel();
        self.running.await.unwrap();
        address
    }

    /// What a route answers.
    pub(crate) async fn get(&self, path: &str) -> Option<serde_json::Value> {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }

    /// Waits until a content has so many complete owners.
    pub(crate) async fn wait_for_owners(&self, id: ContentId, n: u64) {
        eventually(&format!("{n} owners of {id}"), async || match self.get(&format!("/v1/content/{id}")).await {
            Some(info) => info["n_owners"] == n,
            None => n == 0,
        })
        .await;
    }

    /// Every name that is listed.
    pub(crate) async fn names(&self) -> Vec<String> {
        let files = self.get("/v1/files?limit=10000").await.unwrap_or_default();
        let files = files["files"].as_array().cloned().unwrap_or_default();
        files.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
    }
}

/// Says that something is not tested here. Not by a macro: what those print is kept back while a test passes.
pub(crate) fn skipped(what: impl std::fmt::Display) {
    use std::io::Write as _;
    let _nobody_reads = writeln!(std::io::stderr(), "SKIPPED {what}");
}

/// A client that gives up.
pub(crate) fn http() -> reqwest::Client {
    let builder = potluck_common::net::client::plain().redirect(reqwest::redirect::Policy::none());
    builder.timeout(Duration::from_secs(30)).build().unwrap()
}

/// A peer with a share folder of its own, and beside that folder a tree that nothing may touch.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    root: TempDir,
    canary: Vec<Seen>,
    ends: DropGuard,
}

/// What stands somewhere.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    bytes: Option<Vec<u8>>,
    modified: SystemTime,
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
        remember_after: Duration::from_millis(50),
        owner_timeout: Duration::from_secs(2),
        owners_refresh: Duration::from_millis(200),
        owners_patience: Duration::from_secs(2),
        record_interval: Duration::from_millis(100),
        scheduler: SchedulerConfig {
            silent_after: Duration::from_millis(800),
            slow_after: Duration::from_millis(1_000),
            slow_pause: Duration::from_millis(500),
            back_off: Duration::from_millis(50),
            max_back_off: Duration::from_millis(400),
            give_up_pause: Duration::from_millis(500),
            ..SchedulerConfig::default()
        },
        ..Config::default()
    }
}

/// A temporary folder with a share folder of these files in it, and the canary.
pub(crate) fn root_with(files: &[(&str, &[u8])]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("share")).unwrap();
    write(root.path(), "canary/deep/song", b"tweet");
    write(root.path(), "canary.txt", b"tweet");
    for (path, data) in files {
        write(&root.path().join("share"), path, data);
    }
    root
}

impl Node {
    pub(crate) async fn start(tracker: &Tracker, name: &str, files: &[(&str, &[u8])]) -> Self {
        Self::start_on(root_with(files), |share| quick(share, &tracker.url, name)).await.unwrap()
    }

    /// On a folder of [`root_with`].
    pub(crate) async fn start_on(root: TempDir, config: impl Fn(&Path) -> Config) -> Result<Self, Failed> {
        Self::start_at("127.0.0.1:0", root, config).await
    }

    /// The same, listening at an address.
    pub(crate) async fn start_at(
        address: &str,
        root: TempDir,
        config: impl Fn(&Path) -> Config,
    ) -> Result<Self, Failed> {
        let listener = TcpListener::bind(address).await.unwrap();
        let shutdown = CancellationToken::new();
        let config = config(&root.path().join("share"));
        let peer = Peer::start(listener, config, Lifetime::Running, shutdown.clone()).await?;
        let canary = canary(root.path());
        Ok(Self { peer, root, canary, ends: shutdown.drop_guard() })
    }

    /// Ends it in good order, and leaves its folder.
    pub(crate) async fn stop(self) -> TempDir {
        self.ends.disarm().cancel();
        tokio::time::timeout(DEADLINE, self.peer.wait()).await.expect("the peer ends");
        self.root
    }

    /// The share folder.
    pub(crate) fn share(&self) -> PathBuf {
        self.root.path().join("share")
    }

    /// A place beside the share folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
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
        let (events, outcome) =
            self.run(Verb::Download(Download { names: vec![name.into()], from, output, origin: None })).await;
        outcome?;
        let finished = events.into_iter().find_map(|event| match event {
            Event::Finished(finished) => Some(finished),
            _ => None,
        });
        Ok(finished.expect("a download that is done has finished"))
    }

    /// Downloads what fails, and says how.
    pub(crate) async fn cannot_download(&self, name: &str) -> (FailureKind, String) {
        let failed = self.download(name).await.expect_err("this cannot be downloaded");
        (failed.kind, failed.message)
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

    /// Where it serves.
    pub(crate) fn base(&self) -> &str {
        self.peer.listen_url()
    }

    /// Asks it over HTTP.
    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        http().get(format!("{}{path}", self.peer.listen_url())).send().await.unwrap()
    }

    /// What stands in the share folder under a name.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.share().join(path)).ok()
    }

    /// What is kept of unfinished downloads.
    pub(crate) fn n_partial(&self) -> usize {
        std::fs::read_dir(self.share().join(".potluck/partial")).unwrap().count()
    }

    /// Nothing beside the share folder changed, and the peer still answers.
    pub(crate) async fn is_well(&self) {
        assert_eq!(canary(self.root.path()), self.canary, "something beside the share folder changed");
        let answer = tokio::time::timeout(Duration::from_secs(5), self.get("/healthz")).await;
        assert_eq!(answer.expect("a peer answers at once").status(), 200);
        assert_eq!(self.status().await.downloads, [], "nothing still runs");
    }
}

/// Everything below a folder but the share folder in it.
fn canary(root: &Path) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path == root.join("share") || path.starts_with(root.join("out")) {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let bytes = metadata.is_file().then(|| std::fs::read(&path).unwrap());
            if metadata.is_dir() {
                left.push(path.clone());
            }
            all.push(Seen { path, bytes, modified: metadata.modified().unwrap() });
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
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
