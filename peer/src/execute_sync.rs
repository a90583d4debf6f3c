//! Carrying out the verbs of folder sync: what they ask of its task, of the trash, and of a tracker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use potluck_common::protocol::{Matrix, MatrixPeer};
use tokio::sync::{mpsc, oneshot};

use crate::download::job::tell;
use crate::download::owners::explain;
use crate::download::pattern::Filter;
use crate::execute::{Executor, filter};
use crate::roll_call::RollCall;
use crate::sync::driver::Ask;
use crate::sync::trash::{Item, RestoreError, Trash, Why};
use crate::verb::{Event, Failed, FailureKind, SyncChange, SyncPeer, SyncStatus, TrashItem};
use crate::wire::push::Refusals;

/// Files in one page of the tracker's matrix.
const PAGE: &str = "2000";
/// Between two looks at what is still lacking.
const WAIT_AGAIN: Duration = Duration::from_millis(200);
/// While it waits, `wait` says for what this often at most.
const SAY_EVERY: u32 = 10;
/// How long `wait` goes on without a tracker, which may be starting again.
const TRACKER_PATIENCE: Duration = Duration::from_secs(30);

/// What these verbs act on.
#[derive(Clone)]
pub struct Sync {
    /// Questions to the task that syncs.
    pub asks: mpsc::Sender<Ask>,
    /// What it took out of the folder.
    pub trash: Arc<Trash>,
}

/// What a peer lacks.
#[derive(Debug, Default, Clone, Copy)]
struct Lack {
    n_files: u64,
    n_bytes: u64,
}

impl Executor {
    pub(crate) async fn sync(&self, change: Option<SyncChange>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        if let Some(change) = change {
            if matches!(change, SyncChange::Confirm | SyncChange::Restore) && self.sync_status().await?.n_held == 0 {
                let hint = "sync shows how it stands.";
                return Err(Failed::new(FailureKind::Usage, "no deletes are held back", hint));
            }
            tracing::info!(%change, "sync");
            self.ask_sync(|answer| Ask::Change(change, answer)).await?;
        }
        let mut status = self.sync_status().await?;
        if status.mode.is_some()
            && let Ok(lacks) = self.lacks(&Filter::All).await
        {
            let peer = |(peer, lack): (MatrixPeer, Lack)| SyncPeer {
                peer_id: peer.peer_id,
                name: peer.name,
                mode: peer.sync,
                n_lacking: lack.n_files,
                n_bytes_lacking: lack.n_bytes,
            };
            status.peers = lacks.into_iter().map(peer).collect();
        }
        tell(events, Event::Sync(status)).await;
        Ok(())
    }

    async fn sync_status(&self) -> Result<SyncStatus, Failed> {
        self.ask_sync(Ask::Status).await
    }

    async fn ask_sync<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Failed> {
        let (answer, answered) = oneshot::channel();
        let gone =
            || Failed::new(FailureKind::Failed, "folder sync has ended", "The log says why; start the peer again.");
        self.sync.asks.send(ask(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    pub(crate) async fn conflicts(&self, pattern: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let filter = filter("conflicts", pattern)?;
        let mut conflicts = self.ask_sync(Ask::Conflicts).await?;
        conflicts.retain(|conflict| filter.is_met(&conflict.path));
        tell(events, Event::Conflicts { conflicts }).await;
        Ok(())
    }

    pub(crate) async fn trash(&self, pattern: Option<&str>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let filter = filter("trash", pattern)?;
        let mut items = self.trashed().await?;
        items.retain(|item| match &item.record {
            Some(record) => filter.is_met(&record.path),
            None => matches!(filter, Filter::All),
        });
        let items = items.into_iter().rev().map(|item| TrashItem {
            len: item.len,
            since_ms: item.since_ms,
            path: item.record.as_ref().map(|record| record.path.clone()),
            why: item.record.map(|record| why(record.why).to_owned()),
            item: item.name,
        });
        tell(events, Event::Trash { items: items.collect() }).await;
        Ok(())
    }

    async fn trashed(&self) -> Result<Vec<Item>, Failed> {
        let trash = self.sync.trash.clone();
        let listed = tokio::task::spawn_blocking(move || trash.list()).await;
        listed.map_err(std::io::Error::other).flatten().map_err(|error| {
            let message = format!("cannot list the trash: {error}");
            Failed::new(FailureKind::Failed, message, "It is .potluck/trash in the share folder.")
        })
    }

    pub(crate) async fn restore(&self, names: Vec<String>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        for name in names {
            let items = self.trashed().await?;
            let stood_there = |item: &&Item| item.record.as_ref().is_some_and(|record| record.path.as_str() == name);
            let item = items.iter().find(|item| item.name == name).or_else(|| items.iter().rev().find(stood_there));
            let Some(item) = item.map(|item| item.name.clone()) else {
                let message = format!("{name:?} is not in the trash");
                return Err(Failed::new(FailureKind::NotFound, message, "trash lists what is there."));
            };
            let (trash, folder, taken) = (self.sync.trash.clone(), self.downloads.folder.clone(), item.clone());
            let restored = tokio::task::spawn_blocking(move || trash.restore(&folder, &taken, None)).await;
            match restored.map_err(|error| RestoreError::Io(std::io::Error::other(error))).flatten() {
                Ok(path) => {
                    self.look_again.at(path.clone());
                    tell(events, Event::Restored { item, path }).await;
                }
                Err(error) => {
                    let hint = match error {
                        RestoreError::Taken => "Move what stands there away first, then run the same command again.",
                        _ => "It is a file in .potluck/trash in the share folder, from where it can be copied.",
                    };
                    return Err(Failed::new(FailureKind::Failed, format!("{name}: {error}"), hint));
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn wait_for_sync(
        &self,
        pattern: Option<&str>,
        all: bool,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Failed> {
        let filter = filter("wait", pattern)?;
        self.syncing_status().await?;
        self.look_everywhere().await?;
        // As long as peers that could not reach a tracker pause before they try again.
        let config = &self.downloads.config;
        let mut call = RollCall::new(config.tracker_retry_max + config.tracker_timeout);
        let mut n_looks = 0u32;
        loop {
            let status = self.syncing_status().await?;
            // In this order: at rest, it has given out all that it has seen; that told, the tracker's answer counts it.
            let is_told = status.n_to_do == 0 && status.n_held == 0 && self.ask_sync(Ask::IsTold).await?;
            let mut lacks = self.lacks_when_answered(&filter, &mut call, events).await?;
            let me = self.downloads.who.peer_id();
            let listed: BTreeSet<_> = lacks.iter().map(|(peer, _)| peer.peer_id).collect();
            // A tracker that began anew just now, or another than the one that was told, may not know of us yet.
            let knows_us = listed.contains(&me);
            let knows_all = call.is_full(listed, Instant::now());
            lacks.retain(|(peer, lack)| lack.n_files > 0 && (all || peer.peer_id == me));
            if lacks.is_empty() && is_told && knows_us && (knows_all || !all) {
                return if all { self.nothing_refused(&filter) } else { Ok(()) };
            }
            if !lacks.is_empty() && n_looks.is_multiple_of(SAY_EVERY) {
                let most = lacks.iter().map(|(_, lack)| *lack).max_by_key(|lack| lack.n_files).unwrap_or_default();
                let peers = lacks.into_iter().map(|(peer, _)| peer.name).collect();
                tell(events, Event::Lacking { n_files: most.n_files, n_bytes: most.n_bytes, peers }).await;
            }
            n_looks = n_looks.wrapping_add(1);
            tokio::time::sleep(WAIT_AGAIN).await;
        }
    }

    /// What each peer lacks, from a tracker that may have to start again first.
    async fn lacks_when_answered(
        &self,
        filter: &Filter,
        call: &mut RollCall,
        events: &mpsc::Sender<Event>,
    ) -> Result<Vec<(MatrixPeer, Lack)>, Failed> {
        let mut silent_since = None;
        loop {
            let failed = match self.lacks(filter).await {
                Err(failed) if failed.kind == FailureKind::Unreachable => failed,
                answer => return answer,
            };
            call.on_silence();
            if silent_since.is_none() {
                let message = format!("{}; waiting for one", failed.message);
                tell(events, Event::Notice { message }).await;
            }
            if silent_since.get_or_insert_with(Instant::now).elapsed() >= TRACKER_PATIENCE {
                return Err(failed);
            }
            tokio::time::sleep(WAIT_AGAIN).await;
        }
    }

    /// What a tracker does not take nobody learns from it, so others may never have it.
    fn nothing_refused(&self, filter: &Filter) -> Result<(), Failed> {
        let now = Instant::now();
        let trackers = self.downloads.directory.trackers.list();
        let refused = trackers.iter().filter(|member| member.answers()).find_map(|member| {
            let refusals = member.push.refusals(now, |path| filter.is_met(path));
            refusals.map(|refusals| (member.tracker.name(), refusals))
        });
        match refused {
            None => Ok(()),
            Some((tracker, Refusals { n_paths, first })) => {
                let what = format!("{tracker} does not take {n_paths} of these paths, as {}", first.path);
                Err(Failed::new(FailureKind::Failed, what, first.why.explain()))
            }
        }
    }

    /// The status of a peer that syncs.
    async fn syncing_status(&self) -> Result<SyncStatus, Failed> {
        let status = self.sync_status().await?;
        if status.mode.is_none() {
            let hint = "Switch it on with sync both; what was asked for with download is here when download returns.";
            return Err(Failed::new(FailureKind::Usage, "this peer does not sync", hint));
        }
        Ok(status)
    }

    /// Has all of the folder looked at, so that what was written before this is waited for, noticed or not: first a scan, after
    /// which every file is hashed or waits for it, then a look of the task that syncs, which is not at rest before all that it sees
    /// has been hashed.
    async fn look_everywhere(&self) -> Result<(), Failed> {
        if !self.look_again.everywhere().await {
            let hint = "The log says why; then run the same command again.";
            return Err(Failed::new(FailureKind::Failed, "the share folder cannot be looked at", hint));
        }
        self.ask_sync(Ask::Look).await
    }

    /// What each peer that syncs lacks, as the tracker knows it.
    async fn lacks(&self, filter: &Filter) -> Result<Vec<(MatrixPeer, Lack)>, Failed> {
        let prefix = match filter {
            Filter::Prefix(prefix) => prefix.as_str(),
            Filter::Glob(glob) => glob.prefix(),
            Filter::All | Filter::Contains(_) => "",
        };
        let mut lacks = BTreeMap::<String, (MatrixPeer, Lack)>::new();
        let mut after = String::new();
        loop {
            let query = [("prefix", prefix), ("after", after.as_str()), ("limit", PAGE)];
            let query = &query;
            let page = self.downloads.directory.ask(|tracker| async move { tracker.matrix(query).await }).await;
            let Matrix { peers, files, next } = page.map_err(|error| explain(&error, "who lacks what"))?;
            for peer in &peers {
                lacks.entry(peer.peer_id.to_string()).or_insert_with(|| (peer.clone(), Lack::default()));
            }
            for file in files.items.iter().filter(|file| filter.is_met(&file.path)) {
                for peer in file.lacking.iter().filter_map(|index| peers.get(usize::try_from(*index).ok()?)) {
                    if let Some((_, lack)) = lacks.get_mut(&peer.peer_id.to_string()) {
                        lack.n_files += 1;
                        lack.n_bytes = lack.n_bytes.saturating_add(file.len);
                    }
                }
            }
            match next {
                Some(next) if next > after => after = next,
                _ => return Ok(lacks.into_values().collect()),
            }
        }
    }
}

const fn why(why: Why) -> &'static str {
    match why {
        Why::Deleted => "deleted",
        Why::Overwritten => "overwritten",
        Why::SetAside => "set_aside",
    }
}
