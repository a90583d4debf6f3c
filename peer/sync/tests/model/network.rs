//! What travels between machines: pages of each other's feeds, and over the tracker announces and its feed. The network
//! loses, doubles, delays, reorders, damages and cuts short.
//!
//! Here stands also what the announcer and the follower of a peer do: one announce and one question at a time, given up
//! after a while, after which nobody heeds a late answer.

use std::collections::BTreeSet;
use std::ops::Range;

use axum::body::Bytes;
use potluck_common::SharePath;
use potluck_common::protocol::{
    Activity, Announce, AnnounceEvent, AnnounceReply, IndexEntry, PROTOCOL_VERSION, Rates, RefusedBecause, Sifted,
    SyncMode, SyncPage, SyncQuery,
};
use potluck_sync::action::Source;
use potluck_sync::remote::Heard;

use crate::tracker::Answer;
use crate::world::World;

/// The tracker among the sources of a machine; peers are numbered from 0.
const TRACKER: Source = Source(1_000);
/// Entries in one announce when nothing goes wrong.
const MANY: usize = 1_000;

/// How a peer stands with the tracker; gone with the process.
#[derive(Debug, Default)]
pub(crate) struct Link {
    instance: u64,
    seq: u64,
    has_joined: bool,
    epoch: u64,
    after: u64,
    /// The tracker has told all it knows: what it has not told of it lacks.
    has_told_all: bool,
    announced: Option<(u64, Vec<IndexEntry>)>,
    asked: Option<u64>,
}

impl Link {
    /// Of a process that has just started; `instance` tells it from a copy of itself.
    pub(crate) fn new(instance: u64) -> Self {
        Self { instance, ..Self::default() }
    }

    /// After a new identity.
    pub(crate) fn leave(&mut self) {
        self.has_joined = false;
        self.announced = None;
    }
}

/// Something on its way.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// A page of another peer's feed.
    Entries { from: usize, to: usize, entries: Vec<IndexEntry> },
    /// To the tracker.
    Announce { from: usize, number: u64, body: Bytes, signature: String },
    /// Its answer.
    Reply { to: usize, number: u64, answer: Answer },
    /// To the tracker: what is new?
    Question { from: usize, number: u64, query: SyncQuery },
    /// Its answer.
    Page { to: usize, number: u64, body: Bytes },
}

impl World {
    fn reaches_tracker(&self, n: usize) -> bool {
        self.tracker.is_up && self.tracker.part == self.peers[n].part
    }

    /// A peer says or asks something.
    pub(crate) fn send(&mut self, from: usize) {
        let message = if self.reaches_tracker(from) && self.rng.u8(..4) > 0 {
            let waits = match self.rng.bool() {
                true => self.peers[from].link.announced.is_some(),
                false => self.peers[from].link.asked.is_some(),
            };
            if waits && self.rng.u8(..4) > 0 {
                return;
            }
            let limit = self.rng.usize(1..20);
            if self.rng.bool() { self.announce(from, limit) } else { self.ask(from, Some(limit as u64)) }
        } else {
            let to = self.rng.usize(..self.peers.len());
            if to == from || self.peers[to].part != self.peers[from].part {
                return;
            }
            let latest = self.peers[from].machine.index().saved_seq();
            let after = if latest == 0 { 0 } else { self.rng.u64(..=latest) };
            let (_, mut entries) = self.peers[from].machine.changes_since(after, self.rng.usize(1..20));
            self.rng.shuffle(&mut entries);
            entries.retain(|_| self.rng.u8(..8) != 0);
            if entries.is_empty() {
                return;
            }
            Message::Entries { from, to, entries }
        };
        self.wire.push(message);
    }

    /// Something arrives, or does not, or twice, or damaged.
    pub(crate) fn deliver(&mut self) {
        if self.wire.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.wire.len());
        let message = match self.rng.u8(..8) {
            0 => return drop(self.wire.swap_remove(at)),
            1 => self.wire[at].clone(),
            _ => self.wire.swap_remove(at),
        };
        let reply = if self.rng.u8(..12) == 0 { self.arrive_damaged(message) } else { self.arrive(message) };
        self.wire.extend(reply);
    }

    /// What comes of a message, and the answer to it.
    fn arrive(&mut self, message: Message) -> Option<Message> {
        match message {
            Message::Entries { from, to, entries } => self.hear(from, to, entries),
            Message::Announce { from, number, body, signature } if self.reaches_tracker(from) => {
                let answer = self.tracker.announce(from, body, &signature);
                self.tell(|| format!("  {from}: is answered {answer:?}"));
                return Some(Message::Reply { to: from, number, answer });
            }
            Message::Question { from, number, query } if self.reaches_tracker(from) => {
                return Some(Message::Page { to: from, number, body: self.tracker.page(from, &query) });
            }
            Message::Reply { to, number, answer } if self.reaches_tracker(to) => {
                match self.peers[to].link.announced.take_if(|(announced, _)| *announced == number) {
                    Some((_, offered)) => self.on_answer(to, answer, offered),
                    None => self.tell(|| format!("  {to}: has given up that answer")),
                }
            }
            Message::Page { to, number, body }
                if self.reaches_tracker(to)
                    && self.peers[to].link.asked.take_if(|asked| *asked == number).is_some() =>
            {
                self.on_page(to, &body);
            }
            // There is no connection, or the question was given up.
            _ => {}
        }
        None
    }

    /// The tracker takes nothing that is not what its peer signed, and a page that was cut short is none.
    fn arrive_damaged(&mut self, message: Message) -> Option<Message> {
        let cut_short = |body: &Bytes, len: usize| body.slice(..len);
        match message {
            Message::Announce { from, number, body, signature } => {
                let mut bytes = body.to_vec();
                if self.rng.bool() {
                    let at = self.rng.usize(..bytes.len());
                    bytes[at] ^= 1 << self.rng.u8(..8);
                } else {
                    bytes.truncate(self.rng.usize(..bytes.len()));
                }
                let reply = self.arrive(Message::Announce { from, number, body: bytes.into(), signature });
                assert!(
                    !matches!(reply, Some(Message::Reply { answer: Answer::Taken(_), .. })),
                    "a damaged announce was taken"
                );
                reply
            }
            Message::Page { to, number, body } => {
                let body = cut_short(&body, self.rng.usize(..body.len()));
                self.arrive(Message::Page { to, number, body })
            }
            other => self.arrive(other),
        }
    }

    fn next_number(&mut self) -> u64 {
        self.n_messages += 1;
        self.n_messages
    }

    fn announce(&mut self, from: usize, limit: usize) -> Message {
        let number = self.next_number();
        let peer = &mut self.peers[from];
        let link = &mut peer.link;
        let offered = if link.has_told_all { peer.machine.next_push(TRACKER, limit) } else { Vec::new() };
        link.seq += 1;
        let message = Announce {
            protocol: PROTOCOL_VERSION,
            event: if link.has_joined { AnnounceEvent::Heartbeat } else { AnnounceEvent::Started },
            peer_id: peer.identity.peer_id(),
            public_key: peer.identity.public_key(),
            name: format!("node{from}"),
            port: 7701,
            advertise: None,
            generation: peer.store.generation,
            instance: link.instance,
            seq: link.seq,
            base: 0,
            revision: 0,
            added: Vec::new(),
            removed: Vec::new(),
            partial: Vec::new(),
            sync: Some(SyncMode::Both),
            index: offered.clone().into(),
            rates: Rates::default(),
            activity: Activity::default(),
        };
        link.announced = Some((number, offered));
        let body = serde_json::to_vec(&message).unwrap();
        let signature = peer.identity.sign(&body);
        Message::Announce { from, number, body: body.into(), signature }
    }

    fn ask(&mut self, from: usize, limit: Option<u64>) -> Message {
        let number = self.next_number();
        let link = &mut self.peers[from].link;
        link.asked = Some(number);
        let query = SyncQuery { epoch: link.epoch, after: link.after, limit, wait_ms: 0 };
        Message::Question { from, number, query }
    }

    fn on_answer(&mut self, n: usize, answer: Answer, offered: Vec<IndexEntry>) {
        match answer {
            Answer::Taken(AnnounceReply { index_refused: Sifted { items, .. }, .. }) => {
                let peer = &mut self.peers[n];
                peer.link.has_joined = true;
                // What is refused for now is offered again; the rest no more.
                let ahead = items.into_iter().filter(|refused| refused.why == RefusedBecause::Ahead);
                let ahead: BTreeSet<SharePath> = ahead.map(|refused| refused.path).collect();
                let settled: Vec<_> = offered.into_iter().filter(|entry| !ahead.contains(&entry.path)).collect();
                peer.machine.on_pushed(TRACKER, &settled);
            }
            Answer::IdentityConflict => self.take_identity(n),
            Answer::Refused => {}
        }
    }

    fn on_page(&mut self, n: usize, body: &[u8]) {
        let Ok(SyncPage { epoch, seq, more, entries }) = serde_json::from_slice(body) else { return };
        assert_eq!(entries.n_refused, 0, "the tracker gives what nobody can read");
        let Link { epoch: known, after, has_told_all, .. } = &mut self.peers[n].link;
        if epoch != *known || seq < *after {
            *has_told_all = false;
            self.peers[n].machine.open_source(TRACKER);
        }
        let link = &mut self.peers[n].link;
        (link.epoch, link.after) = (epoch, seq);
        link.has_told_all |= !more;
        self.on_entries(n, "the tracker", entries.items, TRACKER);
    }

    fn hear(&mut self, from: usize, to: usize, entries: Vec<IndexEntry>) {
        let source = Source(u32::try_from(from).unwrap());
        self.on_entries(to, &from.to_string(), entries, source);
    }

    fn on_entries(&mut self, n: usize, from: &str, entries: Vec<IndexEntry>, source: Source) {
        self.tell(|| {
            let paths: Vec<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
            format!("  {n}: hears from {from}: {paths:?}")
        });
        if self.peers[n].machine.on_remote(entries, source) == Heard::TakeNewIdentity {
            self.take_identity(n);
        }
    }

    /// These tell all that they know: over the tracker, or each other where there is none.
    pub(crate) fn exchange(&mut self, all: Range<usize>) {
        for n in all.clone() {
            if !self.reaches_tracker(n) {
                self.tell_neighbours(n);
            }
        }
        if !self.tracker.is_up {
            return;
        }
        // All are there before anybody tells of the writes of others.
        for n in all.clone().chain(all.clone()) {
            let heartbeat = self.announce(n, 0);
            self.follow_through(heartbeat);
        }
        for n in all.clone().chain(all) {
            let question = self.ask(n, None);
            self.follow_through(question);
            let offer = self.announce(n, MANY);
            self.follow_through(offer);
        }
    }

    /// A peer tells all others in its part of the network all that it knows.
    pub(crate) fn tell_neighbours(&mut self, from: usize) {
        let (_, entries) = self.peers[from].machine.changes_since(0, usize::MAX);
        for to in 0..self.peers.len() {
            if to != from && self.peers[to].part == self.peers[from].part {
                self.hear(from, to, entries.clone());
            }
        }
    }

    /// A heartbeat of everybody's: all say what they have, and hear what is new.
    pub(crate) fn beat(&mut self) {
        for n in 0..self.peers.len() {
            if self.reaches_tracker(n) {
                let offer = self.announce(n, MANY);
                self.follow_through(offer);
            } else {
                self.tell_neighbours(n);
            }
        }
        for n in 0..self.peers.len() {
            if self.reaches_tracker(n) {
                let question = self.ask(n, None);
                self.follow_through(question);
            }
        }
    }

    fn follow_through(&mut self, message: Message) {
        let mut next = Some(message);
        while let Some(message) = next {
            next = self.arrive(message);
        }
    }
}
