//! The swarm: one registry, its events and its store behind one handle.
//!
//! The only lock of the tracker is in here, held for one call and never across an `.await`; a panic under it
//! does not poison it for the others.
//!
//! Invariant: an announce is answered with success only when what it changed is kept. If it cannot be kept, its peer's
//! revision is unlearned, so that it will be asked for its whole catalogue.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use potluck_common::discovery::TrackerId;
use potluck_common::protocol::{Announce, AnnounceEvent, IndexEntry, RefusedEntry, Stats, SyncPage, SyncQuery};
use potluck_common::{PeerId, SharePath};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::admission::Refusal;
use crate::connect_back::MAX_WAITING;
use crate::endpoint::Endpoint;
use crate::events::{Event, IndexEvent, MAX_EVENT_PATHS, Ring};
use crate::rate::{Rate, RateLimits};
use crate::reachability::Check;
use crate::record::{Stored, StoredIndex};
use crate::registry::{Accepted, Registry, RegistryConfig};
use crate::store::{Store, Write, WriteError};
use crate::sync_index::{Speaker, SyncIndex, Taken};
use crate::tally::Tally;

/// Events kept for those who come back after a pause: some minutes of a lively swarm.
const N_EVENTS: usize = 4_096;

/// Why an announce got no 200.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// The registry refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] WriteError),
}

/// What an accepted announce comes to.
#[derive(Debug)]
pub struct Answer {
    /// What the registry made of it.
    pub accepted: Accepted,
    /// The life of the index.
    pub index_epoch: u64,
    /// What of the synced folder was not taken.
    pub index_refused: Vec<RefusedEntry>,
    /// Whether the peer was found where it says.
    pub reachable: Option<bool>,
}

/// A handle on everything the tracker knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Swarm(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: RwLock<State>,
    /// The number of the next event.
    latest: watch::Sender<u64>,
    /// The number of the latest change of the synced folder.
    latest_sync: watch::Sender<u64>,
    store: Option<Store>,
    store_works: AtomicBool,
    tally: Tally,
    /// Tells one run of the tracker from another.
    boot: u64,
    started: Instant,
    /// Where looks whether peers can be reached are asked for; empty: nobody looks.
    checks: OnceLock<mpsc::Sender<Check>>,
    /// Another tracker has taken over.
    retiring: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    registry: Registry,
    sync: SyncIndex,
    ring: Ring,
    check_rate: Rate,
}

impl State {
    fn push(&mut self, events: impl IntoIterator<Item = Event>) -> u64 {
        events.into_iter().for_each(|event| self.ring.push(event));
        self.ring.next()
    }

    /// Asks for a look whether a peer can be reached, if one is due and there is room for it.
    fn ask_for_check(&mut self, peer_id: PeerId, checks: &mpsc::Sender<Check>, now: std::time::Instant) {
        if let Ok(room) = checks.try_reserve()
            && let Some(check) = self.registry.next_check(peer_id, &mut self.check_rate, now)
        {
            room.send(check);
        }
    }

    /// Takes what a peer whose word was accepted told of the synced folder.
    fn take_index(&mut self, speaker: Speaker, entries: Vec<IndexEntry>) -> Taken {
        let registry = &self.registry;
        let taken = self.sync.take(speaker, entries, |by| registry.told(by));
        self.registry.note_told(speaker.peer_id, taken.told);
        taken
    }
}

impl Swarm {
    /// With what the store kept, if there is one.
    pub(crate) fn new(config: RegistryConfig, store: Option<(Store, Stored)>) -> Self {
        let quotas = config.quotas.clone();
        let mut registry = Registry::new(config);
        let now = Instant::now();
        let (store, index) = match store {
            None => (None, StoredIndex::empty()),
            Some((store, Stored { peers, index })) => {
                for peer in peers {
                    registry.restore(peer, now.into_std(), now_ms());
                }
                (Some(store), index)
            }
        };
        let mut sync = SyncIndex::new(index.epoch, index.seq, quotas);
        index.rows.into_iter().for_each(|row| sync.restore(row));
        Self(Arc::new(Inner {
            latest_sync: watch::Sender::new(sync.seq()),
            state: RwLock::new(State {
                registry,
                sync,
                ring: Ring::new(N_EVENTS),
                check_rate: Rate::new(RateLimits::default()),
            }),
            latest: watch::Sender::new(0),
            store,
            store_works: AtomicBool::new(true),
            tally: Tally::new(),
            boot: fastrand::u64(..),
            started: now,
            checks: OnceLock::new(),
            retiring: watch::Sender::new(false),
        }))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a peer's word, whose signature and address were judged, and returns when its effect is kept.
    ///
    /// # Errors
    /// If it was refused or could not be kept.
    pub async fn announce(
        &self,
        message: Announce,
        endpoint: Endpoint,
        source: IpAddr,
    ) -> Result<Answer, AnnounceError> {
        let event = match message.event {
            AnnounceEvent::Started => "started",
            AnnounceEvent::Heartbeat => "heartbeat",
            AnnounceEvent::Stopped => "stopped",
        };
        let answer = self.take(message, endpoint, source).await;
        let result = match &answer {
            Ok(_) => "accepted",
            Err(AnnounceError::Refused(_)) => "refused",
            Err(AnnounceError::Store(_)) => "not_kept",
        };
        self.0.tally.announces.with_label_values(&[event, result]).inc();
        answer
    }

    async fn take(&self, mut message: Announce, endpoint: Endpoint, source: IpAddr) -> Result<Answer, AnnounceError> {
        let entries = std::mem::take(&mut message.index).items;
        // A heartbeat without changes has nothing to keep, so it does not wait for a slow disk: leases go on.
        let may_change =
            message.base != message.revision || message.event == AnnounceEvent::Started || !entries.is_empty();
        let place = match &self.0.store {
            Some(store) if may_change => Some(store.place().await.inspect_err(|_| self.store_works(false))?),
            Some(store) => store.try_place(),
            None => None,
        };
        let speaker = Speaker { peer_id: message.peer_id, generation: message.generation };
        let (mut answer, rows, kept) = {
            let mut state = self.write();
            let now = Instant::now().into_std();
            let mut accepted = state.registry.announce(message, endpoint, source, now, now_ms())?;
            let taken = state.take_index(speaker, entries);
            if let Some(checks) = self.0.checks.get() {
                state.ask_for_check(speaker.peer_id, checks, now);
            }
            let reachable = state.registry.is_reachable(speaker.peer_id);
            let seq = state.sync.seq();
            let changed = (!taken.changed.is_empty()).then(|| index_event(seq, &taken.changed));
            let latest = state.push(accepted.events.drain(..).chain(changed));
            self.0.latest.send_replace(latest);
            self.0.latest_sync.send_if_modified(|latest| std::mem::replace(latest, seq) != seq);
            let rows: Vec<(SharePath, u64)> = taken.keep.iter().map(|row| (row.path.clone(), row.seq)).collect();
            let write = Write {
                forget: std::mem::take(&mut accepted.forgotten),
                change: accepted.change.take(),
                touch: Vec::new(),
                index: taken.keep,
            };
            if self.0.store.is_none() {
                state.sync.kept(&rows);
            }
            let is_nothing = write.forget.is_empty() && write.change.is_none() && write.index.is_empty();
            let kept = (self.0.store.is_some() && !is_nothing).then(|| place.map(|place| place.write(write)));
            let answer = Answer { accepted, index_epoch: state.sync.epoch(), index_refused: taken.refused, reachable };
            (answer, rows, kept)
        };
        answer.accepted.events.clear();
        let Some(kept) = kept else { return Ok(answer) };
        let result = match kept {
            Some(kept) => kept.await.unwrap_or(Err(WriteError::Closed)),
            None => Err(WriteError::Disk("too much waits to be written".into())),
        };
        self.store_works(!matches!(result, Err(WriteError::Disk(_) | WriteError::Closed)));
        if let Err(error) = result {
            self.write().registry.unlearn(speaker.peer_id);
            return Err(error.into());
        }
        if !rows.is_empty() {
            self.write().sync.kept(&rows);
        }
        Ok(answer)
    }

    /// From now on it is looked whether peers can be reached: where they say, one look each, at most at this rate for each
    /// address that announces.
    pub(crate) fn begin_checks(&self, rate: RateLimits) -> mpsc::Receiver<Check> {
        let (sender, checks) = mpsc::channel(MAX_WAITING);
        self.write().check_rate = Rate::new(rate);
        // A second call is left without any looks.
        let _first = self.0.checks.set(sender);
        checks
    }

    /// What came of a look.
    pub(crate) fn on_checked(&self, check: &Check, found: bool) {
        self.write().registry.on_checked(check, found, Instant::now().into_std());
    }

    fn store_works(&self, works: bool) {
        self.0.tally.store_errors.inc_by(u64::from(!works));
        self.0.store_works.store(works, Ordering::Relaxed);
    }

    /// Ends leases that have run out and forgets who was long unseen. Returns the names of those who left.
    pub fn expire(&self) -> Vec<String> {
        let place = self.0.store.as_ref().and_then(Store::try_place);
        let mut state = self.write();
        let (events, forget) = state.registry.expire(Instant::now().into_std());
        let left = events.iter().filter_map(|event| match event {
            Event::PeerLeft(peer) => Some(peer.name.clone()),
            _ => None,
        });
        let left = left.collect();
        self.0.tally.expired.inc_by(events.len() as u64);
        self.0.tally.forgotten.inc_by(forget.len() as u64);
        if !events.is_empty() {
            let latest = state.push(events);
            self.0.latest.send_replace(latest);
        }
        if let (Some(place), false) = (place, forget.is_empty()) {
            // Should this fail, they come back with the next start and are forgotten then.
            drop(place.write(Write { forget, ..Write::default() }));
        }
        left
    }

    /// Lets the store know who was heard of lately, so that old messages stay old after a restart.
    pub async fn keep_touched(&self) {
        let Some(store) = &self.0.store else { return };
        let Ok(place) = store.place().await else { return };
        let kept = {
            let touch = self.write().registry.take_touched();
            (!touch.is_empty()).then(|| place.write(Write { touch, ..Write::default() }))
        };
        if let Some(kept) = kept {
            self.store_works(!matches!(kept.await, Ok(Err(WriteError::Disk(_)))));
        }
    }

    /// Writes what is not written yet and closes the store. Blocks.
    pub(crate) fn close(&self) {
        if let Some(store) = &self.0.store {
            store.close();
        }
    }

    /// Asks the registry.
    pub fn ask<T>(&self, question: impl FnOnce(&Registry) -> T) -> T {
        question(&self.read().registry)
    }

    /// Asks the registry and the index of the synced folder.
    pub fn ask_both<T>(&self, question: impl FnOnce(&Registry, &SyncIndex) -> T) -> T {
        let state = self.read();
        question(&state.registry, &state.sync)
    }

    /// A bug, for tests.
    #[cfg(test)]
    pub(crate) fn panic_while_changing(&self) {
        let _locked = self.write();
        panic!("a test");
    }

    /// Totals.
    pub fn stats(&self) -> Stats {
        let uptime_ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let state = self.read();
        let (n_index, n_index_refused) = (state.sync.n_paths() as u64, state.sync.n_refused());
        Stats { n_index, n_index_refused, uptime_ms, ..state.registry.stats() }
    }

    /// Whether the last write to the store succeeded.
    pub fn is_ready(&self) -> bool {
        self.0.store_works.load(Ordering::Relaxed)
    }

    /// What is counted.
    pub(crate) fn tally(&self) -> &Tally {
        &self.0.tally
    }

    /// A number that is this run's alone.
    pub fn boot(&self) -> u64 {
        self.0.boot
    }

    /// Which tracker this is among those of a LAN.
    pub fn tracker_id(&self) -> TrackerId {
        TrackerId(self.0.boot)
    }

    /// From now on peers are told to look for the tracker that has taken over.
    pub fn retire(&self) {
        self.0.retiring.send_replace(true);
    }

    /// Waits until another tracker has taken over.
    pub(crate) async fn retired(&self) {
        // The sender lives as long as we do.
        let mut retiring = self.0.retiring.subscribe();
        let _kept = retiring.wait_for(|retiring| *retiring).await;
    }

    /// Whether another tracker has taken over.
    pub fn is_retiring(&self) -> bool {
        *self.0.retiring.borrow()
    }

    /// A page of what changed in the synced folder.
    pub fn sync_page(&self, query: &SyncQuery) -> SyncPage {
        self.read().sync.page(query)
    }

    /// Whether there is such a page now.
    pub fn has_sync_news(&self, query: &SyncQuery) -> bool {
        self.read().sync.has_news(query)
    }

    /// Takes note that entries of a peer were refused, `n_unreadable` of them because they were no entries; whether that is
    /// the first time.
    pub fn note_refused(&self, peer_id: PeerId, n_unreadable: usize) -> bool {
        let mut state = self.write();
        state.sync.note_refused(n_unreadable);
        state.registry.note_refused(peer_id)
    }

    /// Wakes whoever waits for changes of the synced folder; the value is the number of the latest. It is set while the swarm
    /// is locked, so nobody may ask the swarm while they hold it.
    pub fn subscribe_sync(&self) -> watch::Receiver<u64> {
        self.0.latest_sync.subscribe()
    }

    /// Wakes whoever waits for events; the value is the number of the next one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.latest.subscribe()
    }

    /// The event with that number, if it is still kept.
    pub fn event(&self, number: u64) -> Option<Arc<Event>> {
        self.read().ring.get(number)
    }
}

fn index_event(seq: u64, changed: &[SharePath]) -> Event {
    let paths = changed.iter().take(MAX_EVENT_PATHS).cloned().collect();
    Event::Index(IndexEvent { seq, paths, n_changed: changed.len() as u64 })
}

/// The wall clock, for people to read.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
