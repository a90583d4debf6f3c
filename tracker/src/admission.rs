//! What can be said of an announce without knowing anybody: every rule that a message can break by itself.
//!
//! Invariant: a refused message changes nothing, and each refusal names what to change.

use std::net::IpAddr;

use potluck_common::Geometry;
use potluck_common::protocol::{Announce, MAX_ANNOUNCE_ENTRIES, PROTOCOL_VERSION, is_valid_name};

use crate::endpoint::{Endpoint, EndpointError};
use crate::quota::QuotaError;

/// Why an announce was refused. It changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another protocol version.
    #[error("this tracker speaks protocol version {PROTOCOL_VERSION}, the message has version {0}")]
    Protocol(u32),
    /// The public key is not the one the peer id is made from.
    #[error("the public key does not belong to the peer id")]
    ForeignKey,
    /// A later start of the same identity has spoken.
    #[error("another process with this identity was started later (start {known}, this is start {got})")]
    Superseded {
        /// The start that is known.
        known: u64,
        /// The start that spoke.
        got: u64,
    },
    /// The peer's own name.
    #[error("a peer's name has 1 to 64 bytes, no control characters, no slash and no space at an end")]
    PeerName,
    /// A file longer than any content.
    #[error("{path:?} is said to have {len} bytes, more than a content may have")]
    TooLong {
        /// The file.
        path: String,
        /// Its length.
        len: u64,
    },
    /// Changes without a new revision, or a revision that goes back.
    #[error("every change of the catalogue leads to a higher revision (this one: from {base} to {revision})")]
    Revision {
        /// What the message builds on.
        base: u64,
        /// What it leads to.
        revision: u64,
    },
    /// More entries than one message may carry.
    #[error("a message carries at most {MAX_ANNOUNCE_ENTRIES} entries, this one has {0}")]
    TooManyEntries(usize),
    /// The address is not one to hand out.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// A limit.
    #[error(transparent)]
    Quota(#[from] QuotaError),
}

/// Judges everything about a message that needs no registry.
///
/// # Errors
/// The first rule it breaks.
pub fn examine(message: &Announce, source: IpAddr) -> Result<Endpoint, Refusal> {
    if message.protocol != PROTOCOL_VERSION {
        return Err(Refusal::Protocol(message.protocol));
    }
    if message.public_key.peer_id() != message.peer_id {
        return Err(Refusal::ForeignKey);
    }
    if !is_valid_name(&message.name) {
        return Err(Refusal::PeerName);
    }
    let n_entries = message.added.len() + message.removed.len() + message.partial.len() + message.index.items.len();
    if n_entries > MAX_ANNOUNCE_ENTRIES {
        return Err(Refusal::TooManyEntries(n_entries));
    }
    let Announce { base, revision, .. } = *message;
    if revision < base || (revision == base && n_entries > message.index.items.len()) {
        return Err(Refusal::Revision { base, revision });
    }
    for entry in &message.added {
        if Geometry::new(entry.len).is_err() {
            return Err(Refusal::TooLong { path: entry.path.to_string(), len: entry.len });
        }
    }
    for entry in &message.partial {
        if Geometry::new(entry.len).is_err() {
            return Err(Refusal::TooLong { path: entry.content_id.to_string(), len: entry.len });
        }
    }
    Ok(Endpoint::judge(source, message.port, message.advertise.as_ref())?)
}
