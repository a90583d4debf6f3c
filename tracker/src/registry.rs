//! The registry: who is there, and what each peer said it holds. A pure state machine.
//!
//! It has no clock and does no I/O: `now` comes in with every call, what must be kept goes out as a
//! [`Change`] and what happened as [`Event`]s. Whether a message is really from whom it names is settled before it
//! gets here (the signature covers bytes, which the registry never sees).
//!
//! Invariants: an owner is indexed if and only if its lease runs; `(generation, seq)` of a peer only grows; a refused
//! message changes nothing; a content that a peer holds completely is not also in its partial entries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use potluck_common::PeerId;
use potluck_common::protocol::{Activity, Announce, AnnounceEvent, GENERATION_SHIFT, Rates, SyncMode};

use crate::admission::Refusal;
use crate::catalogue::{Catalogue, Changes, Delta, Report, Start};
use crate::endpoint::Endpoint;
use crate::events::{Event, PeerEvent};
use crate::index::{Index, PeerIx, Slab};
use crate::quota::Quotas;
use crate::rate::Rate;
use crate::reachability::{Check, Reachability};
use crate::record::{Builds, Change, PeerRecord, StoredPeer};
use crate::room::SourceUse;

/// Times and limits of a registry.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Without a message for this time a peer is no longer listed.
    pub lease: Duration,
    /// Without a message for this time its catalogue is forgotten too.
    pub forget_after: Duration,
    /// How much it takes.
    pub quotas: Quotas,
}

/// What an accepted announce did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The revision known now.
    pub revision: u64,
    /// Nothing of the catalogue was applied: the peer shall send all of it.
    pub resync: bool,
    /// Where the peer is said to be.
    pub endpoint: Endpoint,
    /// The peer was not there before.
    pub joined: bool,
    /// Another present peer has the same name.
    pub name_taken: bool,
    /// What happened.
    pub events: Vec<Event>,
    /// What must be kept before the peer is answered.
    pub change: Option<Change>,
    /// Absent peers that made place; the store forgets them too.
    pub forgotten: Vec<PeerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Present { until: Instant, since_ms: u64 },
    Absent { forget_at: Instant },
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) presence: Presence,
    pub(crate) seen_ms: u64,
    pub(crate) rates: Rates,
    pub(crate) activity: Activity,
    pub(crate) sync: Option<SyncMode>,
    pub(crate) catalogue: Catalogue,
    pub(crate) source: IpAddr,
    pub(crate) reachability: Reachability,
    generation: u64,
    /// `None`: known from the store only; the first to speak is the one.
    instance: Option<u64>,
    seq: u64,
    /// The highest write in the synced folder that it told of itself since the tracker knows it.
    told: u64,
    /// Whether entries of the synced folder had to be refused since the tracker knows it.
    was_refused: bool,
    /// `None`: what is stored is not what is known here, so only a whole catalogue is taken.
    revision: Option<u64>,
}

impl Peer {
    pub(crate) fn is_present(&self) -> bool {
        matches!(self.presence, Presence::Present { .. })
    }

    fn event(&self) -> PeerEvent {
        PeerEvent { peer_id: self.id, name: self.name.clone(), base_url: self.endpoint.base_url(), sync: self.sync }
    }

    fn record(&self) -> PeerRecord {
        PeerRecord {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            source: self.source,
            generation: self.generation,
            seq: self.seq,
            revision: self.revision.unwrap_or(0),
            seen_ms: self.seen_ms,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Registry {
    pub(crate) config: RegistryConfig,
    pub(crate) index: Index,
    pub(crate) peers: Slab<Peer>,
    pub(crate) by_id: BTreeMap<PeerId, PeerIx>,
    pub(crate) leases: BTreeSet<(Instant, PeerIx)>,
    pub(crate) absent: BTreeSet<(Instant, PeerIx)>,
    pub(crate) sources: BTreeMap<IpAddr, SourceUse>,
    pub(crate) n_entries: usize,
    /// Peers heard of since the store last knew of it.
    touched: BTreeSet<PeerIx>,
}

impl Registry {
    /// An empty one.
    pub fn new(config: RegistryConfig) -> Self {
        Self {
            config,
            index: Index::default(),
            peers: Slab::default(),
            by_id: BTreeMap::new(),
            leases: BTreeSet::new(),
            absent: BTreeSet::new(),
            sources: BTreeMap::new(),
            n_entries: 0,
            touched: BTreeSet::new(),
        }
    }

    /// Takes back what the store kept of a peer. It is absent until it announces itself.
    pub fn restore(&mut self, stored: StoredPeer, now: Instant, now_ms: u64) {
        let StoredPeer { peer_id, record, entries, partial, intact } = stored;
        if self.by_id.contains_key(&peer_id) {
            return;
        }
        // A wall clock that jumped back must not keep a peer for ever, nor one that jumped ahead forget all at once
        // while the tracker runs; so it is read here only, and what is left runs on the monotonic clock.
        let unseen = Duration::from_millis(now_ms.saturating_sub(record.seen_ms));
        let forget_at = now + self.config.forget_after.saturating_sub(unseen);
        let mut catalogue = Catalogue::default();
        catalogue.restore(&mut self.index, entries, &partial);
        let n_entries = catalogue.n_entries();
        let ix = self.peers.insert(Peer {
            id: peer_id,
            name: record.name,
            endpoint: record.endpoint,
            presence: Presence::Absent { forget_at },
            seen_ms: record.seen_ms,
            rates: Rates::default(),
            activity: Activity::default(),
            sync: None,
            catalogue,
            source: record.source,
            reachability: Reachability::Unknown,
            generation: record.generation,
            instance: None,
            seq: record.seq,
            told: 0,
            was_refused: false,
            revision: intact.then_some(record.revision),
        });
        self.by_id.insert(peer_id, ix);
        self.absent.insert((forget_at, ix));
        let source = self.sources.entry(record.source).or_default();
        source.n_peers += 1;
        source.n_entries += n_entries;
        self.n_entries += n_entries;
    }

    /// Takes a peer's word; see [`potluck_common::protocol`] for what it means. `endpoint` is from [`crate::admission::examine`].
    ///
    /// # Errors
    /// A refused message changed nothing.
    pub fn announce(
        &mut self,
        message: Announce,
        endpoint: Endpoint,
        source: IpAddr,
        now: Instant,
        now_ms: u64,
    ) -> Result<Accepted, Refusal> {
        let source = source.to_canonical();
        let known = self.by_id.get(&message.peer_id).copied();
        if let Some(ix) = known {
            let peer = self.peers.get(ix);
            let is_copy = message.generation == peer.generation
                && peer.instance.is_some_and(|instance| instance != message.instance);
            if message.generation < peer.generation || is_copy {
                return Err(Refusal::Superseded { known: peer.generation, got: message.generation });
            }
            if message.generation == peer.generation && message.seq <= peer.seq {
                return Ok(accepted(peer, true));
            }
        }
        let was_present = known.is_some_and(|ix| self.peers.get(ix).is_present());
        if message.event == AnnounceEvent::Stopped && !was_present {
            return Ok(self.stop_absent(known, &message, endpoint));
        }
        let applies = message.base == 0 || known.is_some_and(|ix| self.peers.get(ix).revision == Some(message.base));
        let forgotten = self.make_room(known, source, applies.then_some(&message))?;
        let ix = known.unwrap_or_else(|| self.admit(&message, endpoint.clone(), source, now));
        Ok(Accepted { forgotten, ..self.take(ix, known.is_none(), applies, message, endpoint, source, now, now_ms) })
    }

    /// A `stopped` of a peer that is not there ends nothing, but it is that peer's last word.
    fn stop_absent(&mut self, known: Option<PeerIx>, message: &Announce, endpoint: Endpoint) -> Accepted {
        let Some(ix) = known else {
            return Accepted {
                revision: 0,
                resync: message.revision != 0,
                endpoint,
                joined: false,
                name_taken: false,
                events: Vec::new(),
                change: None,
                forgotten: Vec::new(),
            };
        };
        let peer = self.peers.get_mut(ix);
        (peer.generation, peer.instance, peer.seq) = (message.generation, Some(message.instance), message.seq);
        self.touched.insert(ix);
        accepted(peer, peer.revision != Some(message.revision))
    }

    fn admit(&mut self, message: &Announce, endpoint: Endpoint, source: IpAddr, now: Instant) -> PeerIx {
        let ix = self.peers.insert(Peer {
            id: message.peer_id,
            name: message.name.clone(),
            endpoint,
            presence: Presence::Absent { forget_at: now },
            seen_ms: 0,
            rates: Rates::default(),
            activity: Activity::default(),
            sync: None,
            catalogue: Catalogue::default(),
            source,
            reachability: Reachability::Unknown,
            generation: message.generation,
            instance: Some(message.instance),
            seq: message.seq,
            told: 0,
            was_refused: false,
            revision: Some(0),
        });
        self.by_id.insert(message.peer_id, ix);
        self.absent.insert((now, ix));
        self.sources.entry(source).or_default().n_peers += 1;
        ix
    }

    /// Applies a message that nothing speaks against.
    #[allow(clippy::too_many_arguments)]
    fn take(
        &mut self,
        ix: PeerIx,
        is_new: bool,
        applies: bool,
        message: Announce,
        endpoint: Endpoint,
        source: IpAddr,
        now: Instant,
        now_ms: u64,
    ) -> Accepted {
        let mut events = Vec::new();
        let until = now + self.config.lease;
        let peer = self.peers.get_mut(ix);
        let elsewhere = peer.endpoint != endpoint;
        let moved = elsewhere || peer.name != message.name;
        let switched = peer.sync != message.sync;
        let restarted = peer.generation != message.generation;
        let n_before = peer.catalogue.n_entries();
        let source_before = std::mem::replace(&mut peer.source, source);
        peer.name = message.name;
        peer.endpoint = endpoint;
        peer.rates = message.rates;
        peer.activity = message.activity.bounded();
        peer.sync = message.sync;
        peer.seen_ms = now_ms;
        (peer.generation, peer.instance, peer.seq) = (message.generation, Some(message.instance), message.seq);
        let joined = match peer.presence {
            Presence::Present { until: old, since_ms } => {
                self.leases.remove(&(old, ix));
                peer.presence = Presence::Present { until, since_ms };
                false
            }
            Presence::Absent { forget_at } => {
                self.absent.remove(&(forget_at, ix));
                peer.presence = Presence::Present { until, since_ms: now_ms };
                peer.catalogue.list(ix, &mut self.index);
                true
            }
        };
        if joined || restarted || elsewhere {
            peer.reachability = Reachability::Unknown;
        }
        self.leases.insert((until, ix));
        if joined || moved || switched {
            events.push(Event::Peer(peer.event()));
        }
        let known_revision = peer.revision;
        let (mut delta, mut builds) = (Delta::default(), Builds::RecordOnly);
        if applies {
            builds = known_revision.filter(|_| !is_new).map_or(Builds::Anew, Builds::On);
            let from = if message.base == 0 { Start::Nothing } else { Start::Known };
            let report = if builds == Builds::Anew { Report::Everything } else { Report::Differences };
            let changes = Changes { added: message.added, removed: message.removed, partial: message.partial };
            delta = peer.catalogue.apply(ix, &mut self.index, changes, (from, report), now_ms);
            peer.revision = Some(message.revision);
        }
        events.extend(delta.event(peer.id).map(Event::Files));
        let keep =
            is_new || restarted || moved || !delta.is_empty() || (applies && known_revision != Some(message.revision));
        let change = keep.then(|| Change {
            peer_id: peer.id,
            record: peer.record(),
            builds,
            removed: delta.removed,
            added: delta.added,
            partial: delta.partial,
        });
        if change.is_none() {
            self.touched.insert(ix);
        } else {
            self.touched.remove(&ix);
        }
        let n_after = peer.catalogue.n_entries();
        let mut accepted = Accepted { joined, events, change, ..accepted(peer, !applies) };
        self.count(source_before, source, n_before, n_after);
        accepted.name_taken = (joined || moved) && self.has_namesake(ix);
        if message.event == AnnounceEvent::Stopped {
            accepted.events.push(self.end_lease(ix, now));
        }
        accepted
    }

    fn has_namesake(&self, ix: PeerIx) -> bool {
        let name = &self.peers.get(ix).name;
        self.leases.iter().any(|&(_, other)| other != ix && self.peers.get(other).name == *name)
    }

    /// Ends leases and forgets absent peers whose time is over: what happened, and whom the store shall forget.
    pub fn expire(&mut self, now: Instant) -> (Vec<Event>, Vec<PeerId>) {
        let (mut events, mut forgotten) = (Vec::new(), Vec::new());
        while let Some(&(until, ix)) = self.leases.first().filter(|(until, _)| *until <= now) {
            debug_assert!(until <= now);
            events.push(self.end_lease(ix, now));
        }
        while let Some(&(_, ix)) = self.absent.first().filter(|(forget_at, _)| *forget_at <= now) {
            forgotten.push(self.forget(ix));
        }
        (events, forgotten)
    }

    /// When [`Registry::expire`] has something to do next. The sweep does not ask: it comes at fixed times.
    #[cfg(test)]
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let lease = self.leases.first().map(|(until, _)| *until);
        let absent = self.absent.first().map(|(forget_at, _)| *forget_at);
        lease.into_iter().chain(absent).min()
    }

    fn end_lease(&mut self, ix: PeerIx, now: Instant) -> Event {
        let peer = self.peers.get_mut(ix);
        let Presence::Present { until, .. } = peer.presence else { unreachable!("only a running lease ends") };
        peer.catalogue.unlist(ix, &mut self.index);
        peer.rates = Rates::default();
        peer.activity = Activity::default();
        let forget_at = now + self.config.forget_after;
        peer.presence = Presence::Absent { forget_at };
        self.leases.remove(&(until, ix));
        self.absent.insert((forget_at, ix));
        Event::PeerLeft(peer.event())
    }

    /// An absent peer is known no more.
    pub(crate) fn forget(&mut self, ix: PeerIx) -> PeerId {
        let mut peer = self.peers.remove(ix);
        let Presence::Absent { forget_at } = peer.presence else { unreachable!("only absent peers are forgotten") };
        let n_entries = peer.catalogue.n_entries();
        peer.catalogue.forget(&mut self.index);
        self.absent.remove(&(forget_at, ix));
        self.by_id.remove(&peer.id);
        self.touched.remove(&ix);
        self.n_entries -= n_entries;
        self.leave_source(peer.source, n_entries);
        peer.id
    }

    /// The highest write of a peer in the synced folder that others may tell of: all, `None`, unless it is present and
    /// syncs. Then it is what it told of itself, and what it can have written before this start.
    pub fn told(&self, peer_id: PeerId) -> Option<u64> {
        let peer = self.by_id.get(&peer_id).map(|&ix| self.peers.get(ix))?;
        let speaks = peer.is_present() && peer.sync.is_some();
        speaks.then(|| peer.told.max(peer.generation.saturating_mul(1 << GENERATION_SHIFT)))
    }

    /// Entries of a peer were refused; whether that is the first time.
    pub fn note_refused(&mut self, peer_id: PeerId) -> bool {
        let peer = self.by_id.get(&peer_id).map(|&ix| self.peers.get_mut(ix));
        peer.is_some_and(|peer| !std::mem::replace(&mut peer.was_refused, true))
    }

    /// A peer told of this write of its own.
    pub fn note_told(&mut self, peer_id: PeerId, n: u64) {
        if let Some(&ix) = self.by_id.get(&peer_id) {
            let peer = self.peers.get_mut(ix);
            peer.told = peer.told.max(n);
        }
    }

    /// Whether to look if a present peer can be reached, and where; `rate` is what the announces of one address may cause.
    pub fn next_check(&mut self, peer_id: PeerId, rate: &mut Rate, now: Instant) -> Option<Check> {
        let peer = self.by_id.get(&peer_id).map(|&ix| self.peers.get_mut(ix))?;
        if !peer.is_present() || !peer.reachability.is_due(now) || rate.take(peer.source, now).is_err() {
            return None;
        }
        peer.reachability = Reachability::Asking { since: now };
        Some(Check { peer_id, endpoint: peer.endpoint.clone(), source: peer.source, since: now })
    }

    /// What came of it.
    pub fn on_checked(&mut self, check: &Check, found: bool, now: Instant) {
        if let Some(&ix) = self.by_id.get(&check.peer_id) {
            self.peers.get_mut(ix).reachability.on_checked(check.since, found, now);
        }
    }

    /// Whether a peer was found where it says; `None` while that is not known.
    pub fn is_reachable(&self, peer_id: PeerId) -> Option<bool> {
        self.by_id.get(&peer_id).and_then(|&ix| self.peers.get(ix).reachability.told())
    }

    /// What was acknowledged of this peer's catalogue is not what is stored: it will be asked for all of it.
    pub fn unlearn(&mut self, peer_id: PeerId) {
        if let Some(&ix) = self.by_id.get(&peer_id) {
            self.peers.get_mut(ix).revision = None;
        }
    }

    /// The records of peers that were heard of without anything to store since the last call.
    pub fn take_touched(&mut self) -> Vec<(PeerId, PeerRecord)> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().map(|ix| self.peers.get(ix)).map(|peer| (peer.id, peer.record())).collect()
    }
}

fn accepted(peer: &Peer, resync: bool) -> Accepted {
    Accepted {
        revision: peer.revision.unwrap_or(0),
        resync,
        endpoint: peer.endpoint.clone(),
        joined: false,
        name_taken: false,
        events: Vec::new(),
        change: None,
        forgotten: Vec::new(),
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
