//! The task that syncs the folder: it owns the machine, waits for one thing at a time, and hands what the machine wants to
//! those who do it.
//!
//! Facts come as hints of places that changed, pages of other replicas' entries, outcomes of actions, and what people ask.
//! After each fact it saves what is unsaved, begins what is to be done, and offers trackers what they lack. Decisions are
//! the machine's.
//!
//! Invariant: the machine is told of a path only by looks that began when no action was in flight there
//! ([`Looking`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use potluck_common::SharePath;
use potluck_common::projection::places;
use potluck_common::protocol::{SyncMode, SyncPage};
use potluck_common::register::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::action::{Action, Outcome, Seen, Source};
use super::carry::Carrier;
use super::look::{Look, Veil};
use super::looking::{Looked, Looking};
use super::machine::{Machine, Outside, Stored};
use super::mounts::{Mounts, lies_below};
use super::remote::Heard;
use super::sources::Sources;
use super::store::{History, SaveError, Store};
use super::wanted::Wanted;
use crate::deadline::sleep_until;
use crate::share::dirt::{Dirt, Dirty};
use crate::share::ignore::IgnoreRules;
use crate::share::state::StateDir;
use crate::verb::{Conflict, ConflictVersion, Failed, FailureKind, SyncChange, SyncStatus, SyncTrouble};
use crate::wire::announce::Who;
use crate::wire::feed::{FeedSource, Latest};
use crate::wire::follow::{self, Feed, Follower, MAX_PULLED, Pulled};
use crate::wire::neighbours::{Neighbours, Remembered};
use crate::wire::trackers::{Member, Trackers};

/// Actions at once: enough to keep owners and the disk busy with small files, few enough that a delete does not wait long.
const MAX_ACTIONS: usize = 256;
/// Entries offered to a tracker at once.
const PUSH_PAGE: usize = 1_000;
/// Troubles that are named.
const MAX_TROUBLES: usize = 10;
/// A folder that is lost is looked for again at this interval.
const FOLDER_AGAIN: Duration = Duration::from_secs(1);
/// The store is tried again after so long when it failed.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// Questions of people that wait.
pub const MAX_ASKED: usize = 16;

/// What people ask of the task.
#[derive(Debug)]
pub enum Ask {
    /// How sync stands.
    Status(oneshot::Sender<SyncStatus>),
    /// Something is to be another; answered when it is.
    Change(SyncChange, oneshot::Sender<()>),
    /// Names under which several versions stand.
    Conflicts(oneshot::Sender<Vec<Conflict>>),
    /// Everything in the folder is to be looked at anew; answered at once, and from then on it is not at rest before that is over.
    Look(oneshot::Sender<()>),
    /// Whether each tracker that takes our announces, and one at least, has acknowledged all that we know of a folder at rest.
    IsTold(oneshot::Sender<bool>),
}

/// Everything the task works with.
pub struct Driver {
    /// Carries out actions.
    pub carrier: Carrier,
    /// Who we are.
    pub who: Arc<Who>,
    /// Where the machine's memory is kept, and would be a new identity.
    pub state: Arc<StateDir>,
    /// Mount points in the folder.
    pub mounts: Arc<Mounts>,
    /// What may have changed in the folder.
    pub changes: Arc<Dirt>,
    /// Questions of other peers.
    pub feed: FeedSource,
    /// Questions of people.
    pub asks: mpsc::Receiver<Ask>,
    /// The trackers.
    pub trackers: Trackers,
    /// Peers to follow while no tracker answers.
    pub remembered: Remembered,
    /// What to take if we only receive.
    pub wanted: Wanted,
    /// How to sync at first.
    pub mode: Option<SyncMode>,
}

impl Driver {
    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let syncing = async {
            loop {
                match self.mode {
                    None => self.rest().await,
                    Some(mode) => self.sync(mode).await,
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = syncing => {}
        }
    }

    /// Waits until sync is switched on.
    async fn rest(&mut self) {
        while self.mode.is_none() {
            tokio::select! {
                () = self.changes.changed() => drop(self.changes.take()),
                Some(ask) = self.asks.recv() => match ask {
                    Ask::Status(answer) => drop(answer.send(SyncStatus::off())),
                    Ask::Conflicts(answer) => drop(answer.send(Vec::new())),
                    Ask::Look(answer) => {
                        let _gone = answer.send(());
                    }
                    Ask::IsTold(answer) => drop(answer.send(false)),
                    Ask::Change(change, answer) => {
                        if let SyncChange::Mode(mode) = change {
                            self.mode = Some(mode);
                        }
                        let _gone = answer.send(());
                    }
                },
            }
        }
    }

    /// Syncs until it is switched off.
    async fn sync(&mut self, mode: SyncMode) {
        let (store, stored) = match self.remember().await {
            Ok(remembered) => remembered,
            Err(failed) => {
                tracing::error!(%failed, hint = failed.hint, "the folder is not synced");
                self.mode = None;
                return;
            }
        };
        let who = self.who.get();
        let mut machine = Machine::new(who.identity.peer_id(), who.generation, mode, stored);
        // The sharing task knows them when its first scan is over, and before that nothing is looked at.
        let mut ignored = self.carrier.downloads.sharing.ignored.subscribe();
        machine.set_outside(self.outside(mode, &ignored.borrow_and_update()));
        let (pages, pulled) = mpsc::channel(MAX_PULLED);
        let members = self.trackers.list();
        let following = self.follow(&members, &pages);
        let looking = Looking::new(self.carrier.downloads.folder.clone(), self.mounts.clone());
        let mut syncing = Syncing {
            driver: self,
            machine,
            store: Arc::new(store),
            members,
            following,
            pages,
            epoch: fastrand::u64(1..),
            looking,
            obscured: BTreeMap::new(),
            ignored,
            doing: JoinSet::new(),
            saving: None,
            save_after: None,
            sources: Sources::default(),
            told_all: BTreeSet::new(),
            is_over: false,
        };
        syncing.run(pulled).await;
        for member in syncing.members.iter() {
            member.push.set_mode(None);
        }
        drop(syncing);
        self.feed.latest.send_replace(None);
    }

    /// What is none of ours: what is ignored, and in a folder that only receives what is not wanted.
    fn outside(&self, mode: SyncMode, ignored: &Arc<IgnoreRules>) -> Outside {
        let (ignored, wanted) = (ignored.clone(), (mode == SyncMode::Receive).then(|| self.wanted.clone()));
        Box::new(move |path| {
            ignored.is_ignored_as_either(path) || wanted.as_ref().is_some_and(|wanted| !wanted.has(path))
        })
    }

    /// What the machine knew when it last ran. A memory that is lost makes us somebody else, who merges and deletes nothing.
    async fn remember(&self) -> Result<(Store, Stored), Failed> {
        let (state, folder, who) = (self.state.clone(), self.carrier.downloads.folder.clone(), self.who.clone());
        let hands = self.carrier.hands.clone();
        let opened = tokio::task::spawn_blocking(move || {
            // Before anything is looked at: a file that a crash left without its name is not deleted.
            hands.recover()?;
            let root = folder.inode()?;
            // A process that was killed may have put files here whose names are not durable. The disk table will rest on
            // them, and a name that a power cut takes back would look like a delete.
            rustix::fs::syncfs(folder.dir().open(".")?)?;
            let (store, stored, history) = Store::open(state.dir(), root).map_err(std::io::Error::other)?;
            if let History::Lost { why } = &history {
                tracing::error!(%why, "what was known of the synced folder is lost; it is merged, and nothing is deleted");
                who.renew(&who.get(), &state, &folder);
            }
            Ok((store, stored))
        });
        opened.await.map_err(std::io::Error::other).flatten().map_err(|error| {
            Failed::new(FailureKind::Failed, error.to_string(), "Mend that, then switch sync on again: sync both.")
        })
    }

    /// Reads the trackers' indices, and those of peers while none answers. Dropping the set ends it.
    fn follow(&self, members: &[Member], pages: &mpsc::Sender<Pulled>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let config = &self.carrier.downloads.config;
        let (retry_min, retry_max) = (config.tracker_retry_min, config.tracker_retry_max);
        let mut answering = Vec::new();
        for member in members {
            let (answers, seen) = watch::channel(None);
            answering.push(seen);
            // It reads from the beginning: what a tracker has is compared with what we have, at each start.
            let follower = Follower {
                feed: Feed::Tracker(member.tracker.clone()),
                pages: pages.clone(),
                answers,
                retry_min,
                retry_max,
            };
            tasks.spawn(follower.run(CancellationToken::new()));
        }
        let neighbours = Neighbours {
            trackers: answering,
            standings: members.iter().map(|member| member.standing.clone()).collect(),
            remembered: self.remembered.clone(),
            client: self.carrier.downloads.peers.clone(),
            pages: pages.clone(),
            retry_min,
            retry_max,
        };
        tasks.spawn(neighbours.run(CancellationToken::new()));
        tasks
    }
}

/// Sync while it is on.
struct Syncing<'a> {
    driver: &'a mut Driver,
    machine: Machine,
    store: Arc<Store>,
    members: Arc<[Member]>,
    following: JoinSet<()>,
    pages: mpsc::Sender<Pulled>,
    epoch: u64,
    looking: Looking,
    /// Where it cannot be told what stands, and why.
    obscured: BTreeMap<SharePath, Veil>,
    ignored: watch::Receiver<Arc<IgnoreRules>>,
    doing: JoinSet<(Action, Outcome)>,
    saving: Option<JoinHandle<Result<(), SaveError>>>,
    /// The store failed: nothing is saved before.
    save_after: Option<Instant>,
    sources: Sources,
    /// Trackers that have told all they know: what they have not told of they lack.
    told_all: BTreeSet<Source>,
    is_over: bool,
}

impl Syncing<'_> {
    async fn run(&mut self, mut pulled: mpsc::Receiver<Pulled>) {
        for member in self.members.iter() {
            member.push.set_mode(self.driver.mode);
        }
        if *self.driver.carrier.downloads.sharing.scanned.borrow() {
            self.looking.want_all();
        }
        while !self.is_over {
            self.keep_identity().await;
            // Before anything that was seen under the new rules is told.
            if self.ignored.has_changed().unwrap_or(false) {
                self.on_other_rules();
            }
            self.pump();
            let due = [self.machine.next_deadline(), self.looking.next_deadline(), self.save_after];
            let due = due.into_iter().flatten().min();
            let driver = &mut *self.driver;
            tokio::select! {
                () = driver.trackers.changed() => self.on_other_trackers(),
                () = driver.changes.changed() => match driver.changes.take() {
                    Dirty::Everything => self.looking.want_all(),
                    Dirty::Places(places) => self.looking.want(places),
                },
                Ok(()) = self.ignored.changed() => self.on_other_rules(),
                Some(ended) = self.doing.join_next() => match ended {
                    Ok((action, outcome)) => {
                        action.touches().into_iter().for_each(|real| self.looking.touched(real));
                        self.machine.on_outcome(&action, outcome, Instant::now());
                    }
                    Err(error) => {
                        tracing::error!(%error, "an action of sync failed; sync begins anew");
                        self.is_over = true;
                    }
                },
                looked = self.looking.next() => self.on_looked(looked),
                saved = saved(&mut self.saving) => self.on_saved(saved),
                Some(page) = pulled.recv() => self.on_pulled(page),
                Some(ask) = driver.feed.asked.recv() => {
                    let (seq, entries) = self.machine.changes_since(ask.after, ask.limit);
                    let more = seq < self.machine.index().saved_seq();
                    let _gone = ask.answer.send(SyncPage { epoch: self.epoch, seq, more, entries: entries.into() });
                }
                Some(ask) = driver.asks.recv() => self.on_ask(ask),
                () = sleep_until(due) => self.save_after = self.save_after.filter(|at| *at > Instant::now()),
            }
        }
        self.doing.shutdown().await;
        // Whoever syncs next opens the store anew, and cannot while it is being written.
        if let Some(saving) = self.saving.take() {
            let _kept_or_found_again = saving.await;
        }
    }

    /// Begins what can be begun.
    fn pump(&mut self) {
        while self.doing.len() < MAX_ACTIONS
            && let Some(action) = self.machine.next_action(Instant::now())
        {
            action.touches().into_iter().for_each(|real| self.looking.touched(real));
            self.doing.spawn(self.driver.carrier.clone().carry_out(action));
        }
        // Asking for actions also judges what is missing, and that is to be saved too.
        if self.saving.is_none()
            && self.save_after.is_none()
            && let Some(unsaved) = self.machine.take_unsaved()
        {
            let store = self.store.clone();
            self.saving = Some(tokio::task::spawn_blocking(move || store.save(&unsaved)));
        }
        self.looking.want(self.machine.take_looks());
        self.looking.begin(&mut self.machine);
        self.offer();
    }

    /// Offers each tracker what it lacks, as far as its queue has room.
    fn offer(&mut self) {
        for member in self.members.iter() {
            let Some(source) = self.sources.get(&follow::Source::Tracker(member.tracker.base().clone())) else {
                continue;
            };
            while self.told_all.contains(&source) && member.push.room().now_or_never().is_some() {
                let entries = self.machine.next_push(source, PUSH_PAGE);
                if entries.is_empty() {
                    break;
                }
                self.machine.on_pushed(source, &entries);
                member.push.push(entries);
            }
        }
    }

    /// What is ignored now is forgotten, and not deleted for others; what is not any more is found.
    fn on_other_rules(&mut self) {
        let Some(mode) = self.driver.mode else { return };
        let outside = self.driver.outside(mode, &self.ignored.borrow_and_update());
        self.machine.set_outside(outside);
        self.looking.want_all();
    }

    /// The set of trackers is another one: all of them are read from the beginning.
    fn on_other_trackers(&mut self) {
        self.members = self.driver.trackers.list();
        for member in self.members.iter() {
            member.push.set_mode(self.driver.mode);
        }
        let gone = |source: &follow::Source| match source {
            follow::Source::Tracker(base) => !self.members.iter().any(|member| member.tracker.base() == base),
            follow::Source::Peer(_) => false,
        };
        for source in self.sources.take(gone) {
            self.machine.close_source(source);
            self.told_all.remove(&source);
        }
        self.following = self.driver.follow(&self.members, &self.pages);
    }

    fn on_saved(&mut self, saved: Result<(), SaveError>) {
        self.saving = None;
        match saved {
            Ok(()) => {
                self.machine.on_saved();
                let latest = Latest { epoch: self.epoch, seq: self.machine.index().saved_seq() };
                self.driver.feed.latest.send_if_modified(|known| known.replace(latest) != Some(latest));
            }
            Err(error) => {
                tracing::error!(%error, "the state of sync cannot be kept; nothing goes on before that works");
                self.machine.on_not_saved();
                self.save_after = Some(Instant::now() + SAVE_AGAIN);
            }
        }
    }

    fn on_looked(&mut self, looked: Looked) {
        let now = Instant::now();
        match looked {
            Looked::Found(found) => {
                for (real, look) in found {
                    self.tell(&real, look, now);
                }
            }
            Looked::All => {
                self.machine.on_scan_ended(now);
                self.obscured.retain(|real, _| self.machine.is_frozen(real));
            }
            Looked::NotAll => self.machine.on_scan_failed(),
            Looked::Lost => {
                if !self.machine.is_paused() {
                    tracing::error!("the share folder is gone, or another one; nothing is taken for deleted");
                    self.machine.on_folder_lost();
                }
                self.looking.want_all_after(now + FOLDER_AGAIN);
            }
        }
    }

    fn tell(&mut self, real: &SharePath, look: Look, now: Instant) {
        if let Look::Obscured(veil) = look {
            // Once, and not of each thing behind it.
            if self.machine.on_obscured(real, now)
                && !self.obscured.keys().any(|other| lies_below(real, other))
                && self.obscured.insert(real.clone(), veil) != Some(veil)
            {
                tracing::warn!(path = real.as_str(), %veil, "what was there is not taken for deleted");
            }
            return;
        }
        if self.obscured.remove(real).is_some() {
            tracing::info!(path = real.as_str(), "what stands there can be told again");
            self.looking.want_all();
        }
        let seen = match look {
            Look::Nothing | Look::Obscured(_) => return self.machine.on_gone(real, now),
            Look::Folder => Seen::Folder,
            Look::File { identity, executable } => match self.driver.carrier.downloads.library.get(real) {
                Some(file) if file.identity == identity => {
                    Seen::File { identity, content_id: file.content_id, executable }
                }
                _ => Seen::Unsettled,
            },
        };
        self.machine.on_seen(real, seen, now);
    }

    fn on_pulled(&mut self, pulled: Pulled) {
        let source = self.sources.number_of(&pulled.source);
        let base = |member: &&Member| follow::Source::Tracker(member.tracker.base().clone()) == pulled.source;
        let member = self.members.iter().find(base).cloned();
        if pulled.anew && member.is_some() {
            self.machine.open_source(source);
            self.told_all.remove(&source);
        }
        if let Some(member) = &member {
            for entry in &pulled.entries {
                member.push.covered(&entry.path, &entry.register);
            }
            if pulled.is_all {
                self.told_all.insert(source);
            }
        }
        // What the machine answers is seen to by `keep_identity`.
        let _heard: Heard = self.machine.on_remote(pulled.entries, source);
    }

    /// Takes a new identity when somebody else turns out to write under ours, and follows when the announcer has.
    async fn keep_identity(&mut self) {
        let mut who = self.driver.who.get();
        if self.machine.needs_identity() && who.identity.peer_id() == self.machine.me() {
            tracing::error!(
                "somebody else has written under our identity, as after restoring a copy of .potluck/; taking a new one"
            );
            let (keeper, state, folder) =
                (self.driver.who.clone(), self.driver.state.clone(), self.driver.carrier.downloads.folder.clone());
            let old = who.clone();
            let _logged = tokio::task::spawn_blocking(move || keeper.renew(&old, &state, &folder)).await;
            who = self.driver.who.get();
        }
        if who.identity.peer_id() != self.machine.me() {
            self.machine.take_identity(who.identity.peer_id(), who.generation);
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Status(answer) => drop(answer.send(self.status())),
            Ask::Conflicts(answer) => drop(answer.send(self.conflicts())),
            Ask::Look(answer) => {
                // What was noted is part of everything.
                drop(self.driver.changes.take());
                self.looking.want_all();
                let _gone = answer.send(());
            }
            Ask::IsTold(answer) => drop(answer.send(self.is_told())),
            Ask::Change(change, answer) => {
                match change {
                    SyncChange::Mode(mode) => {
                        self.driver.mode = Some(mode);
                        self.machine.set_mode(mode);
                        for member in self.members.iter() {
                            member.push.set_mode(Some(mode));
                        }
                        self.on_other_rules();
                    }
                    SyncChange::Off => {
                        self.driver.mode = None;
                        self.is_over = true;
                    }
                    SyncChange::Confirm => {
                        self.take_unmounted().iter().for_each(|point| self.machine.let_go(point));
                        self.machine.confirm();
                    }
                    SyncChange::Restore => {
                        self.take_unmounted().iter().for_each(|point| self.machine.bring_back(point));
                        self.machine.restore();
                    }
                }
                let _gone = answer.send(());
            }
        }
    }

    /// Whether each tracker that takes our announces, and one at least, has acknowledged all that we know of the folder.
    /// What waits to be saved is not known yet: this says something of a folder at rest.
    fn is_told(&self) -> bool {
        let is_told = |member: &Member| {
            let source = self.sources.get(&follow::Source::Tracker(member.tracker.base().clone()));
            let has_all = |source| self.told_all.contains(&source) && !self.machine.is_lacking(source);
            source.is_some_and(has_all) && member.push.is_answered()
        };
        let is_there = |member: &&Member| !member.is_silent() && !member.push.is_deaf();
        let there: Vec<_> = self.members.iter().filter(is_there).collect();
        !there.is_empty() && there.into_iter().all(is_told)
    }

    /// Where something was mounted that is not to be mounted any more.
    fn take_unmounted(&mut self) -> Vec<SharePath> {
        let unmounted: Vec<_> =
            self.obscured.extract_if(.., |_, veil| *veil == Veil::Unmounted).map(|(point, _)| point).collect();
        if !unmounted.is_empty() {
            unmounted.iter().for_each(|point| self.driver.mounts.forget(point));
            self.looking.want_all();
        }
        unmounted
    }

    /// Deletes that wait for a person.
    fn n_held(&self) -> u64 {
        let unmounted = self.obscured.iter().filter(|(_, veil)| **veil == Veil::Unmounted);
        let n_unmounted: usize = unmounted.map(|(point, _)| self.machine.n_frozen_files(point)).sum();
        (self.machine.held().count() + n_unmounted) as u64
    }

    fn status(&self) -> SyncStatus {
        let troubles = self.driver.carrier.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let blocked: BTreeSet<_> = self.machine.blocked().collect();
        let obscured =
            self.obscured.iter().map(|(path, veil)| SyncTrouble { path: path.clone(), why: veil.to_string() });
        let troubled = troubles.iter().filter(|(path, _)| blocked.contains(path));
        let troubled = troubled.map(|(path, trouble)| SyncTrouble { path: path.clone(), why: trouble.why.clone() });
        let is_at_rest = self.machine.is_at_rest() && self.doing.is_empty() && self.looking.is_idle();
        let n_known = (self.doing.len() + blocked.len()) as u64;
        SyncStatus {
            mode: self.driver.mode,
            n_files: self.machine.table().n_files() as u64,
            n_to_do: if is_at_rest { 0 } else { n_known.max(1) },
            n_held: self.n_held(),
            n_conflicts: self.machine.copies().map(|(origin, _)| origin).collect::<BTreeSet<_>>().len() as u64,
            paused: self.machine.is_paused().then(|| "the share folder is gone, or another one".into()),
            troubles: obscured.chain(troubled).take(MAX_TROUBLES).collect(),
            peers: Vec::new(),
        }
    }

    fn conflicts(&self) -> Vec<Conflict> {
        let origins: BTreeSet<_> = self.machine.copies().map(|(origin, _)| origin).collect();
        let versions = |origin: &SharePath| {
            places(self.machine.index(), origin).into_iter().map(|place| match place.value {
                Value::Folder => ConflictVersion { path: place.real, content_id: None, len: 0, mtime_ms: 0 },
                Value::File(file) => ConflictVersion {
                    path: place.real,
                    content_id: Some(file.content_id),
                    len: file.len,
                    mtime_ms: file.mtime_ns / 1_000_000,
                },
            })
        };
        origins.into_iter().map(|path| Conflict { versions: versions(path).collect(), path: path.clone() }).collect()
    }
}

/// The end of what is being saved; never, if nothing is.
async fn saved(saving: &mut Option<JoinHandle<Result<(), SaveError>>>) -> Result<(), SaveError> {
    match saving {
        Some(saving) => {
            saving.await.unwrap_or_else(|error| Err(SaveError::from(redb::Error::Io(std::io::Error::other(error)))))
        }
        None => std::future::pending().await,
    }
}
