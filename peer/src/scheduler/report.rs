//! What the scheduler tells about itself: progress, and when there is no hope left.
//!
//! Plain values for people and for the driver's decisions; nothing here changes any state.

use potluck_common::PeerId;
use potluck_common::chunk::ChunkIndex;

use super::owners::{Owner, Standing};
use super::{RequestId, Scheduler};

/// How far the download is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Chunks in all.
    pub n_chunks: u32,
    /// Chunks held.
    pub n_held: u32,
    /// Chunks asked for.
    pub n_in_flight: u32,
    /// Length of the content in bytes.
    pub len: u64,
    /// Bytes held, in whole chunks.
    pub n_held_bytes: u64,
    /// Bytes asked for and not held, in whole chunks.
    pub n_in_flight_bytes: u64,
    /// Requests under way.
    pub n_requests: usize,
    /// Owners that may be asked, now or after a pause.
    pub n_usable: usize,
    /// Every owner that was ever named, in the order of ids.
    pub owners: Vec<OwnerProgress>,
}

/// What one owner brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OwnerProgress {
    /// Who.
    pub owner: PeerId,
    /// Whether it may be asked.
    pub standing: Standing,
    /// Bytes of chunks that it was the first to bring.
    pub n_bytes: u64,
    /// Bytes a second while it was last asked; 0 if unknown.
    pub rate: u64,
    /// Requests under way.
    pub n_requests: u32,
}

/// A Missing chunk that no usable owner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hopeless {
    /// The first such chunk.
    pub chunk: ChunkIndex,
    /// Why nobody can bring it.
    pub cause: HopelessCause,
}

/// Why nobody can bring a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopelessCause {
    /// Every owner that had it was dropped for a bad chunk.
    Corrupt,
    /// Somebody has it, but is given up or no longer listed; it may come back.
    Unreachable,
    /// Nobody known ever had it.
    Absent,
}

impl Scheduler {
    /// How far it is, and what each owner brought.
    pub fn progress(&self) -> Progress {
        let one = |(id, owner): (&PeerId, &Owner)| OwnerProgress {
            owner: *id,
            standing: owner.standing,
            n_bytes: owner.n_bytes,
            rate: owner.meter.last_rate().unwrap_or(0.0) as u64,
            n_requests: owner.n_requests,
        };
        let n_held_bytes = self.chunks.n_held_bytes();
        Progress {
            n_chunks: self.geometry.n_chunks(),
            n_held: self.chunks.held().n_held(),
            n_in_flight: self.chunks.n_in_flight() as u32,
            len: self.geometry.len(),
            n_held_bytes,
            n_in_flight_bytes: self.geometry.len() - n_held_bytes - self.chunks.n_missing_bytes(),
            n_requests: self.requests.len(),
            n_usable: self.owners.values().filter(|owner| owner.is_usable()).count(),
            owners: self.owners.iter().map(one).collect(),
        }
    }

    /// A Missing chunk that no usable owner holds, if there is one. Owners that pause or choke count as
    /// usable. Before the first owner is named everything is hopeless: [`HopelessCause::Absent`].
    pub fn hopeless(&self) -> Option<Hopeless> {
        if self.owners.values().any(|owner| owner.is_usable() && !owner.is_partial()) {
            return None;
        }
        let chunk = self.chunks.first_without_copy()?;
        let mut cause = HopelessCause::Absent;
        for owner in self.owners.values().filter(|owner| owner.has(chunk)) {
            match owner.standing {
                Standing::Dropped if cause == HopelessCause::Absent => cause = HopelessCause::Corrupt,
                Standing::Dropped => {}
                Standing::Usable | Standing::Gone | Standing::GivenUp { .. } => cause = HopelessCause::Unreachable,
            }
        }
        Some(Hopeless { chunk: self.geometry.index(chunk)?, cause })
    }

    /// The owner that a running request was sent to.
    pub fn owner_of(&self, request: RequestId) -> Option<PeerId> {
        self.requests.get(&request).map(|running| running.owner)
    }
}
