//! Carrying out verbs: each takes what was asked and tells events until it is done.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use potluck_common::SharePath;
use potluck_common::protocol::{Entry, FileSummary, Files, PeerInfo};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::discovery::gathered::FilesQuery;
use crate::download::job::{Downloads, tell};
use crate::download::owners::explain;
use crate::download::pattern::{Filter, parse_filter};
use crate::execute_sync::Sync;
use crate::limit::{Limits, Throttle};
use crate::share::hashing::{HashError, hash_file};
use crate::share::sharing::LookAgain;
use crate::verb::{
    Address, Direction, Event, Failed, FailureKind, Held, LimitStatus, LimitsStatus, RefusedPaths, ShownContent,
    ShownFile, Status, TrackerStatus, Verb,
};
use crate::wire::push::Refusals;
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
    /// Told of files that are not what they were.
    pub look_again: LookAgain,
    /// Folder sync.
    pub sync: Sync,
    /// What is sent and received at most.
    pub limits: Limits,
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
                let peers = self.peers().await?;
                self.say_from_whom(events).await;
                tell(events, Event::Peers { peers }).await;
                Ok(())
            }
            Verb::Status => {
                self.wait_for_trackers().await;
                tell(events, Event::Status(self.status())).await;
                Ok(())
            }
            Verb::Manifest { pattern, swarm: false } => self.manifest(pattern.as_deref(), events).await,
            Verb::Manifest { pattern, swarm: true } => self.swarm_manifest(pattern.as_deref(), events).await,
            Verb::Verify { pattern } => self.verify(pattern.as_deref(), events).await,
            Verb::Names { prefix, limit } => {
                let limit = limit.clamp(1, MAX_NAMES);
                let files = self.page(&FilesQuery { prefix, limit, ..FilesQuery::default() }).await?;
                let names = files.files.items.iter().map(|file| file.path.to_string()).collect();
                tell(events, Event::Names { names }).await;
                Ok(())
            }
            Verb::Limit { change } => {
                if let Some(change) = change {
                    let throttle = match change.direction {
                        Direction::Up => &self.limits.up,
                        Direction::Down => &self.limits.down,
                    };
                    tracing::info!(direction = %change.direction, limit = %change.limit, "another limit");
                    throttle.set(change.limit);
                }
                tell(events, Event::Limits(self.limits())).await;
                Ok(())
            }
            Verb::Sync { change } => self.sync(change, events).await,
            Verb::Conflicts { pattern } => self.conflicts(pattern.as_deref(), events).await,
            Verb::Trash { pattern } => self.trash(pattern.as_deref(), events).await,
            Verb::Restore { items } => self.restore(items, events).await,
            Verb::Wait { pattern, all } => self.wait_for_sync(pattern.as_deref(), all, events).await,
            Verb::Stop => {
                self.shutdown.cancel();
                Ok(())
            }
        }
    }

    async fn page(&self, query: &FilesQuery) -> Result<Files, Failed> {
        let files = self.downloads.directory.files(query).await;
        files.map_err(|error| explain(&error, "that"))
    }

    async fn show(&self, pattern: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let filter = filter("show", pattern)?;
        self.downloads.wait_for_scan().await;
        let mut next = Some(String::new());
        while let Some(after) = next {
            let files;
            (files, next) = self.listed(&filter, &after, events).await?;
            let files = files.into_iter().map(|file| self.shown(file)).collect();
            tell(events, Event::Files { files }).await;
        }
        Ok(())
    }

    /// A page of the files after the name `after` that the tracker lists and that match, and where the next one begins.
    async fn listed(
        &self,
        filter: &Filter,
        after: &str,
        events: &mpsc::Sender<Event>,
    ) -> Result<(Vec<FileSummary>, Option<String>), Failed> {
        let (contains, prefix) = match filter {
            Filter::All => Default::default(),
            Filter::Contains(text) => (text.clone(), String::new()),
            Filter::Prefix(text) => (String::new(), text.clone()),
            Filter::Glob(glob) => (String::new(), glob.prefix().to_owned()),
        };
        let query = FilesQuery { contains, prefix, limit: PAGE, after: after.to_owned(), ..FilesQuery::default() };
        let page = self.page(&query).await?;
        if after.is_empty() {
            self.say_from_whom(events).await;
        }
        if page.files.n_refused > 0 {
            let message = format!("{} names that no share folder can have are left out", page.files.n_refused);
            tell(events, Event::Notice { message }).await;
        }
        let wanted = page.files.items.into_iter().filter(|file| match filter {
            Filter::Glob(glob) => glob.matches(&file.path),
            _ => true,
        });
        // Also a tracker that turns in circles comes to an end.
        Ok((wanted.collect(), page.next.filter(|next| next.as_str() > after)))
    }

    /// What we share.
    async fn manifest(&self, pattern: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let filter = filter("manifest", pattern)?;
        self.downloads.wait_for_scan().await;
        let n_hashing = self.downloads.sharing.n_hashing.load(Ordering::Relaxed);
        if n_hashing > 0 {
            let message = format!("{n_hashing} files are not hashed yet and so left out");
            tell(events, Event::Notice { message }).await;
        }
        let (mut after, mut n_matching) = (None, 0);
        loop {
            let page = self.downloads.library.page(after.as_ref(), PAGE);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let wanted = page.into_iter().filter(|(path, _)| filter.is_met(path));
            let entries: Vec<_> = wanted
                .map(|(path, file)| Entry { path, content_id: file.content_id, len: file.identity.len })
                .collect();
            n_matching += entries.len();
            tell(events, Event::Entries { entries }).await;
        }
        found_any(n_matching, pattern)
    }

    /// What the tracker lists. A name that stands for several contents would make `b3sum --check` fail whatever is there.
    async fn swarm_manifest(&self, pattern: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let filter = filter("manifest", pattern)?;
        let (mut n_matching, mut n_ambiguous, mut next) = (0, 0, Some(String::new()));
        while let Some(after) = next {
            let files;
            (files, next) = self.listed(&filter, &after, events).await?;
            n_matching += files.len();
            let mut entries = Vec::new();
            for FileSummary { path, contents } in files {
                if let [content] = contents.as_slice() {
                    entries.push(Entry { path, content_id: content.content_id, len: content.len });
                } else {
                    n_ambiguous += 1;
                    let message = format!("{path} stands for {} contents and is left out", contents.len());
                    tell(events, Event::Notice { message }).await;
                }
            }
            tell(events, Event::Entries { entries }).await;
        }
        if n_ambiguous > 0 {
            let message = format!("{n_ambiguous} of {n_matching} names stand for several contents");
            return Err(Failed::new(FailureKind::Usage, message, "show NAME lists their content ids."));
        }
        found_any(n_matching, pattern)
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
        let peers = self.downloads.directory.everybody().await;
        Ok(peers.map_err(|error| explain(&error, "peers"))?.peers)
    }

    async fn getip(&self, target: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let addresses = match target {
            None => vec![self.own_address()],
            Some(target) => {
                let addresses = self.addresses_of(target).await?;
                self.say_from_whom(events).await;
                addresses
            }
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
        let info = self.downloads.directory.file(&path).await;
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

    /// Says so if it was not a tracker that answered.
    async fn say_from_whom(&self, events: &mpsc::Sender<Event>) {
        if let Some(message) = self.downloads.directory.notice() {
            tell(events, Event::Notice { message }).await;
        }
    }

    fn own_address(&self) -> Address {
        let who = &self.downloads.who;
        let (address, port) = split_base_url(&self.base_url()).unwrap_or_default();
        Address { name: who.name().to_owned(), peer_id: who.peer_id(), address, port }
    }

    /// Where we serve: as a tracker hands it out, or as we listen while none has answered.
    pub fn base_url(&self) -> String {
        let trackers = self.downloads.directory.trackers.list();
        let told = trackers.iter().find_map(|member| Some(member.standing.borrow().reply.as_ref()?.base_url.clone()));
        told.unwrap_or_else(|| self.downloads.directory.listen_url.clone())
    }

    /// A peer that has only just started does not know yet whether its trackers answer.
    async fn wait_for_trackers(&self) {
        let trackers = self.downloads.directory.trackers.found().await;
        let asked = trackers.iter().map(|member| {
            let mut standing = member.standing.clone();
            async move {
                let _peer_ends = standing.wait_for(|standing| standing.tried).await;
            }
        });
        let _late = tokio::time::timeout(TRACKERS_PATIENCE, futures::future::join_all(asked)).await;
    }

    fn limits(&self) -> LimitsStatus {
        let of = |throttle: &Throttle| LimitStatus { limit: throttle.limit(), rate: throttle.rate() };
        LimitsStatus { up: of(&self.limits.up), down: of(&self.limits.down) }
    }

    fn status(&self) -> Status {
        let (n_files, n_bytes) = self.downloads.library.totals();
        let trackers = self.downloads.directory.trackers.list();
        let trackers = trackers.iter().map(|member| {
            let standing = member.standing.borrow();
            let reply = standing.reply.as_ref();
            TrackerStatus {
                url: member.tracker.name(),
                reachable: reply.is_some(),
                reaches_us: reply.and_then(|reply| reply.reachable),
                refuses: member.push.refusals(Instant::now(), |_| true).map(|Refusals { n_paths, first }| {
                    RefusedPaths { n_paths: n_paths as u64, path: first.path, why: first.why.explain().into() }
                }),
            }
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
            limits: self.limits(),
            downloads: self.downloads.moving.transfers(),
            n_uploads: self.downloads.traffic.n_uploads.load(Ordering::Relaxed),
        }
    }

    async fn verify(&self, pattern: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let filter = filter("verify", pattern)?;
        self.downloads.wait_for_scan().await;
        let files = self.downloads.library.page(None, usize::MAX);
        let files: Vec<_> = files.into_iter().filter(|(path, _)| filter.is_met(path)).collect();
        found_any(files.len(), pattern)?;
        let (mut n_bad, mut n_all) = (0, 0);
        for (path, file) in files {
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
                    self.look_again.distrust(path.clone(), file.identity).await;
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
}

/// Reads a pattern, which every verb that lists takes alike.
pub(crate) fn filter(verb: &str, pattern: Option<&str>) -> Result<Filter, Failed> {
    parse_filter(pattern).map_err(|error| {
        let hint = format!("{verb} takes a part of a name, a glob, or a folder/.");
        Failed::new(FailureKind::Usage, error.to_string(), hint)
    })
}

/// That there is nothing is right for an empty folder, and a mistake for a pattern.
fn found_any(n_matching: usize, pattern: Option<&str>) -> Result<(), Failed> {
    match pattern {
        Some(pattern) if n_matching == 0 => {
            Err(Failed::new(FailureKind::NotFound, format!("no file matches {pattern}"), "show lists what is there."))
        }
        _ => Ok(()),
    }
}

fn split_base_url(base_url: &str) -> Option<(String, u16)> {
    let (host, port) = base_url.strip_prefix("http://")?.trim_end_matches('/').rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.parse().ok()?))
}
