//! A peer of a simulation: what it is like, and its state.

use std::collections::{BTreeSet, VecDeque};

use potluck_common::PeerId;
use potluck_common::chunk::{ChunkIndex, Geometry};
use potluck_common::have::HaveSet;
use potluck_peer::scheduler::{Failure, Request, RequestId, Scheduler};
use potluck_peer::wire::handed::Handed;

use crate::links::FlowId;

/// Bytes a second of a link of so many Mbit/s.
pub(crate) fn mbit(rate: f64) -> f64 {
    rate * 1e6 / 8.0
}

/// What is wrong with an owner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Accepts requests and sends nothing.
    Silent,
    /// Each chunk is bad, and each chunk is the last before a reset, with these probabilities.
    Bad {
        corrupt: f64,
        disconnect: f64,
    },
    /// From this second on every connection is refused, and the tracker does not notice.
    Vanishes(f64),
    /// From this second on nothing more arrives, and nothing says so.
    Freezes(f64),
}

/// What a peer is there for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Role {
    Seeder,
    Leecher,
    /// Holds these chunks and fetches no others.
    Holder(HaveSet),
}

/// When a peer leaves the swarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Leaves {
    Never,
    /// Once it holds this part of the chunks; it comes back after so many seconds, or never.
    HalfWay {
        part: f64,
        back_after: Option<f64>,
    },
    /// So many seconds after it was complete.
    Complete {
        after: f64,
    },
    /// Once it has sent so many copies, and each chunk is held by somebody who stays.
    Sent {
        n_copies: f64,
    },
}

/// What a peer is like.
#[derive(Debug, Clone)]
pub(crate) struct PeerSpec {
    /// Bytes a second.
    pub(crate) up: f64,
    pub(crate) down: f64,
    /// Its part of every round trip, in seconds.
    pub(crate) latency: f64,
    /// Responses that it sends at the same time; further requests are choked.
    pub(crate) slots: usize,
    pub(crate) role: Role,
    pub(crate) fault: Fault,
    pub(crate) arrives: f64,
    pub(crate) leaves: Leaves,
}

impl PeerSpec {
    pub(crate) fn seeder(up: f64) -> Self {
        Self {
            up,
            down: 0.0,
            latency: 0.000_5,
            slots: usize::MAX,
            role: Role::Seeder,
            fault: Fault::None,
            arrives: 0.0,
            leaves: Leaves::Never,
        }
    }

    pub(crate) fn leecher(up: f64, down: f64) -> Self {
        Self { down, role: Role::Leecher, ..Self::seeder(up) }
    }

    pub(crate) fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    /// Whether it stays until it is complete, so that it has to become so.
    pub(crate) fn is_awaited(&self) -> bool {
        self.role == Role::Leecher && !matches!(self.leaves, Leaves::HalfWay { back_after: None, .. })
    }

    /// Whether what it holds stays with the swarm.
    pub(crate) fn stays(&self) -> bool {
        self.leaves == Leaves::Never && self.fault == Fault::None
    }
}

/// A response that a peer is receiving.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) flow: FlowId,
    pub(crate) from: usize,
    pub(crate) request: Request,
    pub(crate) n_told: u64,
    pub(crate) n_chunks: u32,
}

/// What reaches a peer by and by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Word {
    /// The first line of a neighbour's have stream.
    State(usize),
    Have(usize, ChunkIndex),
    Coming(ChunkIndex),
    Complete(usize),
    /// A neighbour's stream has ended.
    Ended(usize),
    Failed(RequestId, Failure),
}

/// The state of a peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) spec: PeerSpec,
    pub(crate) is_present: bool,
    /// How often it has come.
    pub(crate) n_visits: u32,
    pub(crate) have: HaveSet,
    /// While it is fetching.
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) fetches: Vec<Fetch>,
    /// Who waits for an upload slot, on which visit and for what.
    pub(crate) waiting: VecDeque<(usize, u32, Request)>,
    /// Who listens to its have stream, and on which visit.
    pub(crate) followers: Vec<(usize, u32)>,
    /// Whose have streams it listens to.
    pub(crate) hears: Vec<usize>,
    /// Who was ever named to it on this visit.
    pub(crate) named: BTreeSet<usize>,
    pub(crate) inbox: Vec<(f64, Word)>,
    pub(crate) look_at: f64,
    /// When its scheduler was last told of all bytes.
    pub(crate) told_at: f64,
    /// When it came on this visit.
    pub(crate) arrived_at: f64,
    /// What it has just begun to send.
    pub(crate) handed: Handed,
    pub(crate) is_announced: bool,
    pub(crate) done_at: Option<f64>,
    pub(crate) n_received: f64,
    pub(crate) n_sent: f64,
}

impl Peer {
    pub(crate) fn new(spec: PeerSpec, geometry: Geometry) -> Self {
        let have = match &spec.role {
            Role::Seeder => HaveSet::full(geometry),
            Role::Leecher => HaveSet::empty(geometry),
            Role::Holder(have) => have.clone(),
        };
        Self {
            spec,
            is_present: false,
            n_visits: 0,
            have,
            scheduler: None,
            fetches: Vec::new(),
            waiting: VecDeque::new(),
            followers: Vec::new(),
            hears: Vec::new(),
            named: BTreeSet::new(),
            inbox: Vec::new(),
            look_at: f64::INFINITY,
            told_at: 0.0,
            arrived_at: 0.0,
            handed: Handed::default(),
            is_announced: false,
            done_at: None,
            n_received: 0.0,
            n_sent: 0.0,
        }
    }
}

pub(crate) fn id_of(peer: usize) -> PeerId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&(peer as u64).to_be_bytes());
    PeerId::from_bytes(bytes)
}

pub(crate) fn peer_of(id: PeerId) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.as_bytes()[8..]);
    u64::from_be_bytes(bytes) as usize
}
