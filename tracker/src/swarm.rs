//! The swarm: one registry, its events and its store behind one handle.
//!
//! The only lock of the tracker is in here, held for one call and never across an `.await`; a panic under it
//! does not poison it for the others.
//!
//! Invariant: an announce is answered with success only when what it changed is kept. If it cannot be kept, its peer's
//! revision is unlearned, so that it will be asked for its whole catalogue.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use potluck_common::protocol::{Announce, AnnounceEvent, Stats};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission::Refusal;
use crate::endpoint::Endpoint;
use crate::events::{Event, Ring};
use crate::record::StoredPeer;
use crate::registry::{Accepted, Registry, RegistryConfig};
use crate::store::{Store, Write, WriteError};

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

/// A handle on everything the tracker knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Swarm(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: RwLock<State>,
    /// The number of the next event.
    latest: watch::Sender<u64>,
    store: Option<Store>,
    store_works: AtomicBool,
    /// Tells one run of the tracker from another.
    boot: u64,
    started: Instant,
}

#[derive(Debug)]
struct State {
    registry: Registry,
    ring: Ring,
}

impl State {
    fn push(&mut self, events: impl IntoIterator<Item = Event>) -> u64 {
        events.into_iter().for_each(|event| self.ring.push(event));
        self.ring.next()
    }
}

impl Swarm {
    /// With what the store kept, if there is one.
    pub(crate) fn new(config: RegistryConfig, store: Option<(Store, Vec<StoredPeer>)>) -> Self {
        let mut registry = Registry::new(config);
        let now = Instant::now();
        let store = store.map(|(store, peers)| {
            for peer in peers {
                registry.restore(peer, now.into_std(), now_ms());
            }
            store
        });
        Self(Arc::new(Inner {
            state: RwLock::new(State { registry, ring: Ring::new(N_EVENTS) }),
            latest: watch::Sender::new(0),
            store,
            store_works: AtomicBool::new(true),
            boot: fastrand::u64(..),
            started: now,
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
    ) -> Result<Accepted, AnnounceError> {
        // A heartbeat without changes has nothing to keep, so it does not wait for a slow disk: leases go on.
        let may_change = message.base != message.revision || message.event == AnnounceEvent::Started;
        let place = match &self.0.store {
            Some(store) if may_change => Some(store.place().await.inspect_err(|_| self.store_works(false))?),
            Some(store) => store.try_place(),
            None => None,
        };
        let peer_id = message.peer_id;
        let (mut accepted, kept) = {
            let mut state = self.write();
            let now = Instant::now().into_std();
            let mut accepted = state.registry.announce(message, endpoint, source, now, now_ms())?;
            let latest = state.push(accepted.events.drain(..));
            self.0.latest.send_replace(latest);
            let write = Write {
                forget: std::mem::take(&mut accepted.forgotten),
                change: accepted.change.take(),
                touch: Vec::new(),
            };
            let is_nothing = write.forget.is_empty() && write.change.is_none();
            let kept = (self.0.store.is_some() && !is_nothing).then(|| place.map(|place| place.write(write)));
            (accepted, kept)
        };
        accepted.events.clear();
        let Some(kept) = kept else { return Ok(accepted) };
        let result = match kept {
            Some(kept) => kept.await.unwrap_or(Err(WriteError::Closed)),
            None => Err(WriteError::Disk("too much waits to be written".into())),
        };
        self.store_works(!matches!(result, Err(WriteError::Disk(_) | WriteError::Closed)));
        if let Err(error) = result {
            self.write().registry.unlearn(peer_id);
            return Err(error.into());
        }
        Ok(accepted)
    }

    fn store_works(&self, works: bool) {
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

    /// A bug, for tests.
    #[cfg(test)]
    pub(crate) fn panic_while_changing(&self) {
        let _locked = self.write();
        panic!("a test");
    }

    /// Totals.
    pub fn stats(&self) -> Stats {
        let uptime_ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Stats { uptime_ms, ..self.ask(Registry::stats) }
    }

    /// Whether the last write to the store succeeded.
    pub fn is_ready(&self) -> bool {
        self.0.store_works.load(Ordering::Relaxed)
    }

    /// A number that is this run's alone.
    pub fn boot(&self) -> u64 {
        self.0.boot
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

/// The wall clock, for people to read.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
