//! Who has what: the trackers in their order, and while none of them answers, peers that are remembered.
//!
//! Remembered peers are asked for what they share, some of them at once, and their answers are put together and kept for a few
//! seconds. Invariant: as long as a tracker answers, no peer is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use potluck_common::protocol::{ContentInfo, Entry, FileInfo, Files, Owner, PeerInfo, Peers, Rates};
use potluck_common::{ContentId, SharePath};
use reqwest::Url;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::gathered::{FilesQuery, Gathered};
use super::remembered::{Remembered, RememberedPeer};
use crate::share::library::Library;
use crate::wire::announce::Who;
use crate::wire::peer_client::PeerClient;
use crate::wire::tracker_client::{AskError, TrackerClient};
use crate::wire::trackers::Trackers;

/// A tracker that asks to wait is asked again so often before the next one is.
const MAX_WAITS: u32 = 10;
/// For a tracker that took no announce lately, where peers can be asked instead.
const SILENT_PATIENCE: Duration = Duration::from_secs(1);
/// Peers asked for what they share.
const MAX_ASKED: usize = 64;
/// Of these at once.
const MAX_AT_ONCE: usize = 16;
/// For one peer to say all of it.
const PEER_PATIENCE: Duration = Duration::from_secs(5);
/// Entries taken of one peer.
const MAX_ENTRIES_EACH: usize = 100_000;
/// How long answers that were put together count.
const FRESH: Duration = Duration::from_secs(3);
/// Peers asked whether they hold a part of a content.
const MAX_ASKED_FOR_PARTS: usize = 32;

/// See the module's text. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    /// Asked first.
    pub trackers: Trackers,
    /// Asked while no tracker answers.
    pub remembered: Remembered,
    /// For asking them.
    pub peers: PeerClient,
    /// Who we are.
    pub who: Arc<Who>,
    /// What we share, which a tracker would list too.
    pub library: Arc<Library>,
    /// Where we serve, as far as we know.
    pub listen_url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    gathered: Mutex<Option<(Instant, Arc<Gathered>)>>,
    /// How many peers the last answer came from; 0: from a tracker.
    n_peers: AtomicUsize,
}

impl Directory {
    /// Asks these.
    pub fn new(
        trackers: Trackers,
        remembered: Remembered,
        peers: PeerClient,
        who: Arc<Who>,
        library: Arc<Library>,
        listen_url: String,
    ) -> Self {
        Self { trackers, remembered, peers, who, library, listen_url, state: Arc::default() }
    }

    /// What to tell a person of where answers come from at the moment, if it is not a tracker.
    pub fn notice(&self) -> Option<String> {
        match self.state.n_peers.load(Ordering::Relaxed) {
            0 => None,
            1 => Some("no tracker answers; from 1 remembered peer".into()),
            n => Some(format!("no tracker answers; from {n} remembered peers")),
        }
    }

    /// A page of names.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn files(&self, query: &FilesQuery) -> Result<Files, AskError> {
        let pairs = query.pairs();
        let pairs: &Vec<_> = &pairs.iter().map(|(key, text)| (*key, text.as_str())).collect();
        match self.ask(|tracker| async move { tracker.files(pairs).await }).await {
            Err(error) => Ok(self.instead(error).await?.files(query)),
            answer => answer,
        }
    }

    /// One name.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn file(&self, path: &SharePath) -> Result<FileInfo, AskError> {
        match self.ask(|tracker| async move { tracker.file(path).await }).await {
            Err(error) => self.instead(error).await?.file(path).ok_or(AskError::NotFound),
            answer => answer,
        }
    }

    /// The owners of a content, at most `max`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn content(&self, id: ContentId, max: usize) -> Result<ContentInfo, AskError> {
        match self.ask(|tracker| async move { tracker.content(id, max).await }).await {
            Err(error) => {
                let mut info = self.instead(error).await?.content(id, max).ok_or(AskError::NotFound)?;
                let parts = self.partial_owners(&info, max.saturating_sub(info.owners.len())).await;
                info.n_partial = parts.len() as u64;
                info.owners.extend(parts);
                Ok(info)
            }
            answer => answer,
        }
    }

    /// Everybody who is there.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn everybody(&self) -> Result<Peers, AskError> {
        match self.ask(|tracker| async move { tracker.peers().await }).await {
            Err(error) => Ok(self.instead(error).await?.peers()),
            answer => answer,
        }
    }

    /// Asks the first tracker that answers.
    pub(crate) async fn ask<T, F>(&self, ask: impl Fn(TrackerClient) -> F) -> Result<T, AskError>
    where
        F: Future<Output = Result<T, AskError>>,
    {
        let has_others = !self.remembered.peers().is_empty();
        let (mut last, mut silent) = (AskError::NoTracker, Vec::new());
        for member in self.trackers.found().await.iter() {
            let mut n_waits = 0;
            loop {
                let answer = if member.is_silent() && has_others {
                    let late = || AskError::Unreachable("it does not answer in time".into());
                    timeout(SILENT_PATIENCE, ask(member.tracker.clone())).await.unwrap_or_else(|_| Err(late()))
                } else {
                    ask(member.tracker.clone()).await
                };
                match answer {
                    Err(AskError::Wait(wait)) if n_waits < MAX_WAITS => {
                        n_waits += 1;
                        tokio::time::sleep(wait).await;
                    }
                    Err(error @ (AskError::Unreachable(_) | AskError::Wait(_))) => {
                        if let AskError::Unreachable(why) = &error {
                            silent.push(format!("{}: {why}", member.tracker.name()));
                        }
                        last = error;
                        break;
                    }
                    answer => {
                        self.state.n_peers.store(0, Ordering::Relaxed);
                        return answer;
                    }
                }
            }
        }
        Err(match last {
            AskError::Unreachable(_) => AskError::Unreachable(silent.join("; ")),
            last => last,
        })
    }

    /// What remembered peers say, if that error means that no tracker answers, and any of them does.
    async fn instead(&self, error: AskError) -> Result<Arc<Gathered>, AskError> {
        if !matches!(error, AskError::Unreachable(_) | AskError::NoTracker) {
            return Err(error);
        }
        // Whoever comes meanwhile waits for the same answers.
        let mut kept = self.state.gathered.lock().await;
        if let Some((at, gathered)) = &*kept
            && at.elapsed() < FRESH
        {
            return Ok(gathered.clone());
        }
        *kept = None;
        let (gathered, n_peers) = self.gather().await;
        self.state.n_peers.store(n_peers, Ordering::Relaxed);
        if n_peers == 0 {
            return Err(error);
        }
        tracing::info!(%error, n_peers, "no tracker answers; going on from remembered peers");
        let gathered = Arc::new(gathered);
        *kept = Some((Instant::now(), gathered.clone()));
        Ok(gathered)
    }

    async fn gather(&self) -> (Gathered, usize) {
        let mut to_ask = self.remembered.to_ask(self.trackers.reach(), Instant::now());
        to_ask.truncate(MAX_ASKED);
        let asking = to_ask.into_iter().map(|(peer, base)| async move {
            let told = timeout(PEER_PATIENCE, self.shared_by(&peer, &base)).await.ok().flatten();
            self.remembered.on_asked(peer.peer_id, told.is_some(), Instant::now());
            Some((info(peer.peer_id, peer.name, peer.base_url, peer.seen_ms), told?))
        });
        let mut gathered = Gathered::default();
        let own = self.library.page(None, MAX_ENTRIES_EACH).into_iter();
        let own = own.map(|(path, file)| Entry { path, content_id: file.content_id, len: file.identity.len });
        let me = info(self.who.peer_id(), self.who.name().to_owned(), self.listen_url.clone(), 0);
        gathered.add(me, own);
        let mut n_peers = 0;
        let mut asking = futures::stream::iter(asking).buffer_unordered(MAX_AT_ONCE);
        while let Some(told) = asking.next().await {
            if let Some((peer, entries)) = told {
                n_peers += 1;
                gathered.add(peer, entries);
            }
        }
        (gathered, n_peers)
    }

    /// Everything that a peer shares; `None` if it does not answer, or is another one.
    async fn shared_by(&self, peer: &RememberedPeer, base: &Url) -> Option<Vec<Entry>> {
        let (mut entries, mut after) = (Vec::new(), None::<SharePath>);
        loop {
            let page = self.peers.index(base, after.as_ref()).await;
            let page =
                page.inspect_err(|error| tracing::debug!(name = peer.name, %error, "a remembered peer is silent"));
            let page = page.ok()?;
            if page.peer_id != peer.peer_id {
                return None;
            }
            entries.extend(page.files.items);
            let next = page.next.and_then(|next| next.parse::<SharePath>().ok());
            match next.filter(|next| after.as_ref().is_none_or(|after| next > after)) {
                Some(next) if entries.len() < MAX_ENTRIES_EACH => after = Some(next),
                _ => break,
            }
        }
        entries.truncate(MAX_ENTRIES_EACH);
        Some(entries)
    }

    /// Remembered peers that hold a part of a content.
    async fn partial_owners(&self, info: &ContentInfo, max: usize) -> Vec<Owner> {
        let id = info.content_id;
        let is_owner = |peer: &RememberedPeer| info.owners.iter().any(|owner| owner.peer_id == peer.peer_id);
        let mut to_ask = self.remembered.to_ask(self.trackers.reach(), Instant::now());
        to_ask.retain(|(peer, _)| !is_owner(peer));
        to_ask.truncate(MAX_ASKED_FOR_PARTS);
        let asking = to_ask.into_iter().map(|(peer, base)| async move {
            let holds = timeout(PEER_PATIENCE, self.peers.have(&base, id)).await.is_ok_and(|answer| answer.is_ok());
            // How many chunks it has it will say itself.
            let RememberedPeer { peer_id, name, base_url, .. } = peer;
            holds.then_some(Owner { peer_id, name, base_url, complete: false, n_chunks: 1 })
        });
        let found = futures::stream::iter(asking).buffer_unordered(MAX_AT_ONCE);
        found.filter_map(|owner| async move { owner }).take(max).collect().await
    }
}

fn info(peer_id: potluck_common::PeerId, name: String, base_url: String, seen_ms: u64) -> PeerInfo {
    let url = Url::parse(&base_url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.as_ref().and_then(Url::port_or_known_default).unwrap_or_default();
    let (n_files, n_bytes) = (0, 0);
    PeerInfo {
        peer_id,
        name,
        base_url,
        address,
        port,
        since_ms: seen_ms,
        seen_ms,
        n_files,
        n_bytes,
        rates: Rates::default(),
        sync: None,
        reachable: None,
    }
}
