//! What happened in the swarm, numbered: the source of `GET /v1/events`.
//!
//! A bounded ring; whoever asks for a number that is no longer in it is told to load everything again.
//! Invariant: numbers have no gaps, and those kept are the last ones.

use std::collections::VecDeque;
use std::sync::Arc;

use potluck_common::protocol::SyncMode;
use potluck_common::{PeerId, SharePath};
use serde::Serialize;

/// Paths named in one event; of more changes only the number is told.
pub const MAX_EVENT_PATHS: usize = 100;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// A peer is there, with all that is known of its catalogue, or has another name, address or way to sync.
    Peer(PeerEvent),
    /// A peer's lease ended: nothing of it is listed any more.
    PeerLeft(PeerEvent),
    /// A present peer's catalogue changed.
    Files(FilesEvent),
    /// The index of the synced folder changed.
    Index(IndexEvent),
}

impl Event {
    /// Its name in the stream.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Peer(_) => "peer",
            Self::PeerLeft(_) => "peer_left",
            Self::Files(_) => "files",
            Self::Index(_) => "index",
        }
    }
}

/// Which peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerEvent {
    /// Its id.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub base_url: String,
    /// How it syncs; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncMode>,
}

/// What changed at one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilesEvent {
    /// Whose.
    pub peer_id: PeerId,
    /// Names that are new or have another content; at most [`MAX_EVENT_PATHS`].
    pub added: Vec<SharePath>,
    /// Names that are gone; at most [`MAX_EVENT_PATHS`].
    pub removed: Vec<SharePath>,
    /// How many were added in all.
    pub n_added: u64,
    /// How many were removed in all.
    pub n_removed: u64,
}

/// What changed in the index of the synced folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexEvent {
    /// The number of the latest of these changes, as in `GET /v1/sync`.
    pub seq: u64,
    /// Paths that changed; at most [`MAX_EVENT_PATHS`].
    pub paths: Vec<SharePath>,
    /// How many changed in all.
    pub n_changed: u64,
}

/// The last events.
#[derive(Debug)]
pub struct Ring {
    capacity: usize,
    next: u64,
    events: VecDeque<Arc<Event>>,
}

impl Ring {
    /// Keeps the last `capacity` events.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), next: 0, events: VecDeque::new() }
    }

    /// Takes one more.
    pub fn push(&mut self, event: Event) {
        if self.events.len() == self.capacity {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(event));
        self.next += 1;
    }

    /// The number of the next event.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The event with that number, or `None` if it is gone or still to come.
    pub fn get(&self, number: u64) -> Option<Arc<Event>> {
        let first = self.next - self.events.len() as u64;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        self.events.get(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last() {
        let event = |n: u8| {
            let peer_id = PeerId::from_bytes([n; 16]);
            Event::PeerLeft(PeerEvent { peer_id, name: "n".into(), base_url: "u".into(), sync: None })
        };
        let mut ring = Ring::new(3);
        assert!(ring.get(0).is_none());
        for n in 0..5 {
            ring.push(event(n));
        }
        assert_eq!(ring.next(), 5);
        assert!(ring.get(1).is_none() && ring.get(5).is_none() && ring.get(u64::MAX).is_none());
        for n in 2..5 {
            assert_eq!(*ring.get(u64::from(n)).unwrap(), event(n));
        }
    }
}
