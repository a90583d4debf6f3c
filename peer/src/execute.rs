//! Carrying out verbs: each takes what was asked and tells events until it is done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use potluck_common::SharePath;
use potluck_common::protocol::{FileSummary, Files, PeerInfo};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::download::job::{Downloads, tell};
use crate::download::owners::explain;
use crate::download::pattern::{Filter, parse_filter};
use crate::share::hashing::{HashError, hash_file};
use crate::share::sharing::LookAgain;
use crate::verb::{Address, Event, Failed, FailureKind, Held, ShownContent, ShownFile, Status, TrackerStatus, Verb};
use crate::wire::announce::Standing;
use crate::wire::tracker_client::AskError;

/// Names in one page of a list.
const PAGE: usize = 1_000;
/// How long `status` waits for the first answer of trackers.
const TRACKERS_PATIENCE: Duration = Duration::from_secs(2);
/// Most names given for completion.
const MAX_NAMES: usize = 1_000;

/// What verbs act on.
#[derive(Clone)]
pub struct Executor {
    /// Fetching, and everything it works with.
    pub downloads: Downloads,
    /// How each tracker stands to us, in the order of the configuration.
    pub standings: Arc<[watch::Receiver<Standing>]>,
    /// Our own address while no tracker has told us how it sees us.
    pub listen_url: String,
    /// Told of files that are not what they were.
    pub look_again: LookAgain,
    /// Ends the peer.
    pub shutdown: CancellationToken,
}

impl Executor {
    /// Carries out a verb to its last event. Dropping the receiver of `events` cancels it.
    pub async fn run(&self, verb: Verb, events: mpsc::Sender<Event>) {
        let ends_us = verb == Verb::Stop;
        let outcome = tokio::select! {
            outcome = self.execute(verb, &events) => outcome,
            () = events.closed() => return,
            () = self.shutdown.cancelled(), if !ends_us => return,
        };
        tell(&events, outcome.map_or_else(Event::Failed, |()| Event::Done)).await;
    }

    async fn execute(&self, verb: Verb, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        match verb {
            Verb::Show { pattern } => self.show(pattern.as_deref(), events).await,
            Verb::Download(request) => self.downloads.run(&request, events).await,
            Verb::Getip { target } => self.getip(target.as_deref(), events).await,
            Verb::Peers => {
                tell(events, Event::Peers { peers: self.peers().await? }).await;
                Ok(())
            }
            Verb::Status => {
                self.wait_for_trackers().await;
                tell(events, Event::Status(self.status())).await;
                Ok(())
            }
            Verb::Verify { pattern } => self.verify(pattern.as_deref(), events).await,
            Verb::Names { prefix, limit } => {
                let limit = limit.clamp(1, MAX_NAMES);
                let files = self.page(&[("prefix", &prefix), ("limit", &limit.to_string())]).await?;
                let names = files.files.items.iter().map(|file| file.path.to_string()).collect();
                tell(events, Event::Names { names }).await;
                Ok(())
            }
            Verb::Stop => {
                self.shutdown.cancel();
                Ok(())
            }
        }
    }

    async fn page(&self, query: &[(&str, &str)]) -> Result<Files, Failed> {
        let files = self.downloads.ask(|tracker| async move { tracker.files(query).await }).await;
        files.map_err(|error| explain(&error, "that"))
    }

    async fn show(&self, pattern: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let filter = parse_filter(pattern).map_err(|error| {
            Failed::new(FailureKind::Usage, error.to_string(), "show takes a part of a name, a glob, or a folder/.")
        })?;
        let narrow = match &filter {
            Filter::All => None,
            Filter::Contains(text) => Some(("q", text.as_str())),
            Filter::Prefix(text) => Some(("prefix", text.as_str())),
            Filter::Glob(glob) => Some(("prefix", glob.prefix())),
        };
        self.downloads.wait_for_scan().await;
        let (limit, mut after) = (PAGE.to_string(), String::new());
        loop {
            let mut query = vec![("limit", limit.as_str())];
            query.extend(narrow);
            if !after.is_empty() {
                query.push(("after", &after));
            }
            let page = self.page(&query).await?;
            if page.files.n_refused > 0 {
                let message = format!("{} names that no share folder can have are left out", page.files.n_refused);
                tell(events, Event::Notice { message }).await;
            }
            let wanted = page.files.items.into_iter().filter(|file| match &filter {
                Filter::Glob(glob) => glob.matches(&file.path),
                _ => true,
            });
            let files = wanted.map(|file| self.shown(file)).collect();
            tell(events, Event::Files { files }).await;
            match page.next {
                Some(next) if next > after => after = next,
                _ => return Ok(()),
            }
        }
    }

    fn shown(&self, file: FileSummary) -> ShownFile {
        let contents = file.contents.into_iter().map(|summary| {
            let id = summary.content_id;
            let held = if self.downloads.library.holds(id) {
                Held::Complete
            } else if self.downloads.partials.held(id).is_some_and(|have| have.n_held() > 0) {
                Held::Partial
            } else {
                Held::None
            };
            ShownContent { summary, held }
        });
        ShownFile { contents: contents.collect(), path: file.path }
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>, Failed> {
        let peers = self.downloads.ask(|tracker| async move { tracker.peers().await }).await;
        Ok(peers.map_err(|error| explain(&error, "peers"))?.peers)
    }

    async fn getip(&self, target: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let addresses = match target {
            None => vec![self.own_address()],
            Some(target) => self.addresses_of(target).await?,
        };
        tell(events, Event::Addresses { addresses }).await;
        Ok(())
    }

    async fn addresses_of(&self, target: &str) -> Result<Vec<Address>, Failed> {
        let peers = self.peers().await?;
        let named: Vec<_> = peers
            .iter()
            .filter(|peer| peer.name == target || peer.peer_id.to_string() == target)
            .map(|peer| Address {
                name: peer.name.clone(),
                peer_id: peer.peer_id,
                address: peer.address.clone(),
                port: peer.port,
            })
            .collect();
        if !named.is_empty() {
            return Ok(named);
        }
        let nobody = || {
            let message = format!("there is no peer and no file called {target:?}");
            Failed::new(FailureKind::NotFound, message, "peers lists peers, show lists files.")
        };
        let path: SharePath = target.parse().map_err(|_| nobody())?;
        let path = &path;
        let info = self.downloads.ask(|tracker| async move { tracker.file(path).await }).await;
        let info =
            info.map_err(|error| if matches!(error, AskError::NotFound) { nobody() } else { explain(&error, target) })?;
        let owners = info.contents.into_iter().flat_map(|content| content.owners);
        let mut addresses: Vec<_> = owners
            .filter_map(|owner| {
                let (address, port) = split_base_url(&owner.base_url)?;
                Some(Address { name: owner.name, peer_id: owner.peer_id, address, port })
            })
            .collect();
        addresses.sort_by(|a, b| a.name.cmp(&b.name));
        addresses.dedup();
        Ok(addresses)
    }

    fn own_address(&self) -> Address {
        let who = &self.downloads.who;
        let (address, port) = split_base_url(&self.base_url()).unwrap_or_default();
        Address { name: who.name().to_owned(), peer_id: who.peer_id(), address, port }
    }

    /// Where we serve: as a tracker hands it out, or as we listen while none has answered.
    pub fn base_url(&self) -> String {
        let told = self.standings.iter().find_map(|standing| Some(standing.borrow().reply.as_ref()?.base_url.clone()));
        told.unwrap_or_else(|| self.listen_url.clone())
    }

    /// A peer that has only just started does not know yet whether its trackers answer.
    async fn wait_for_trackers(&self) {
        let asked = self.standings.iter().map(|standing| {
            let mut standing = standing.clone();
            async move {
                let _peer_ends = standing.wait_for(|standing| standing.tried).await;
            }
        });
        let _late = tokio::time::timeout(TRACKERS_PATIENCE, futures::future::join_all(asked)).await;
    }

    fn status(&self) -> Status {
        let (n_files, n_bytes) = self.downloads.library.totals();
        let trackers = self.downloads.trackers.iter().zip(&*self.standings).map(|(tracker, standing)| TrackerStatus {
            url: tracker.base().as_str().trim_end_matches('/').to_owned(),
            reachable: standing.borrow().reply.is_some(),
        });
        Status {
            peer_id: self.downloads.who.peer_id(),
            name: self.downloads.who.name().to_owned(),
            base_url: self.base_url(),
            share: self.downloads.folder.path().to_owned(),
            trackers: trackers.collect(),
            n_files,
            n_bytes,
            n_hashing: self.downloads.sharing.n_hashing.load(Ordering::Relaxed),
            n_skipped: self.downloads.sharing.n_skipped.load(Ordering::Relaxed),
            rates: self.downloads.traffic.rates(),
            downloads: self.downloads.moving.transfers(),
            n_uploads: self.downloads.traffic.n_uploads.load(Ordering::Relaxed),
        }
    }

    async fn verify(&self, pattern: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let filter = parse_filter(pattern)
            .map_err(|error| Failed::new(FailureKind::Usage, error.to_string(), "verify takes what show takes."))?;
        let wanted = |path: &SharePath| match &filter {
            Filter::All => true,
            Filter::Contains(text) => path.as_str().contains(text),
            Filter::Prefix(text) => path.as_str().starts_with(text),
            Filter::Glob(glob) => glob.matches(path),
        };
        self.downloads.wait_for_scan().await;
        let files = self.downloads.library.page(None, usize::MAX);
        let (mut n_bad, mut n_all) = (0, 0);
        for (path, file) in files.into_iter().filter(|(path, _)| wanted(path)) {
            let (folder, place) = (self.downloads.folder.clone(), path.clone());
            let n_threads = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
            let checked = tokio::task::spawn_blocking(move || {
                let opened = folder.open_unchanged(&place, file.identity).map_err(|_| HashError::Changed)?;
                Ok(hash_file(&opened, file.identity, n_threads)?.content_id() == file.content_id)
            });
            match checked.await.unwrap_or_else(|error| Err(HashError::Io(std::io::Error::other(error)))) {
                Ok(true) => {
                    n_all += 1;
                    tell(events, Event::Verified { path, intact: true }).await;
                }
                Err(HashError::Changed | HashError::Stopped | HashError::TooLong(_)) => {
                    let message = format!("{path} changed meanwhile and is hashed again");
                    tell(events, Event::Notice { message }).await;
                    self.look_again.at(path);
                }
                damaged => {
                    n_all += 1;
                    n_bad += 1;
                    if let Err(error) = damaged {
                        let message = format!("{path} cannot be read: {error}");
                        tell(events, Event::Notice { message }).await;
                    }
                    self.forget(&path, file).await;
                    tell(events, Event::Verified { path, intact: false }).await;
                }
            }
        }
        if n_bad == 0 {
            return Ok(());
        }
        Err(Failed::new(
            FailureKind::Unverified,
            format!("{n_bad} of {n_all} files are damaged on disk; their old ids are no longer announced"),
            "Check the disk. An intact copy can be downloaded by its content id from another owner, after moving the bad file away.",
        ))
    }

    /// A file whose bytes changed behind its identity is not offered under the old id any more.
    async fn forget(&self, path: &SharePath, file: crate::share::library::SharedFile) {
        self.downloads.library.remove(path);
        let cache = self.downloads.cache.clone();
        let removed = tokio::task::spawn_blocking(move || cache.remove(file.identity)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(?path, %error, "the old hash stays cached");
        }
        self.look_again.at(path.clone());
    }
}

fn split_base_url(base_url: &str) -> Option<(String, u16)> {
    let (host, port) = base_url.strip_prefix("http://")?.trim_end_matches('/').rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.parse().ok()?))
}
