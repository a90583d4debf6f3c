//! Whether a peer is to be found where it says: when the tracker looks, and what is known since. Pure.
//!
//! Invariants: an address is looked at once for each start of a peer, and again only [`AGAIN_AFTER`] a failure; the outcome
//! of a look counts only for the address that was looked at.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use potluck_common::PeerId;

use crate::endpoint::Endpoint;

/// Nobody was found there: how long until the next look, so that who opens the port learns of it.
pub const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// One look: connect to `endpoint` and ask who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Who should be there.
    pub peer_id: PeerId,
    /// Where.
    pub endpoint: Endpoint,
    /// Where its announce came from.
    pub source: IpAddr,
    /// When the look was decided; tells it from others at the same peer.
    pub since: Instant,
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reachability {
    /// Nothing yet.
    #[default]
    Unknown,
    /// A look is under way.
    Asking { since: Instant },
    /// It answered there.
    Found,
    /// It did not.
    NotFound { again_at: Instant },
}

impl Reachability {
    /// Whether a look is due.
    pub(crate) fn is_due(self, now: Instant) -> bool {
        match self {
            Self::Unknown => true,
            Self::NotFound { again_at } => now >= again_at,
            Self::Asking { .. } | Self::Found => false,
        }
    }

    /// A look that began at `since` has ended. Of another one than the last nothing is learned.
    pub(crate) fn on_checked(&mut self, since: Instant, found: bool, now: Instant) {
        if *self == (Self::Asking { since }) {
            *self = if found { Self::Found } else { Self::NotFound { again_at: now + AGAIN_AFTER } };
        }
    }

    /// What the peer is told; nothing while it is not known.
    pub(crate) fn told(self) -> Option<bool> {
        match self {
            Self::Unknown | Self::Asking { .. } => None,
            Self::Found => Some(true),
            Self::NotFound { .. } => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_once_and_again_after_a_failure() {
        let start = Instant::now();
        let mut state = Reachability::default();
        assert_eq!((state.is_due(start), state.told()), (true, None));
        state = Reachability::Asking { since: start };
        assert_eq!((state.is_due(start + 2 * AGAIN_AFTER), state.told()), (false, None));
        // A look at an address that the peer has left meanwhile.
        state.on_checked(start + Duration::from_millis(1), true, start);
        assert_eq!(state, Reachability::Asking { since: start });
        let ended = start + Duration::from_secs(2);
        state.on_checked(start, false, ended);
        assert_eq!(state.told(), Some(false));
        assert!(!state.is_due(ended + AGAIN_AFTER - Duration::from_millis(1)) && state.is_due(ended + AGAIN_AFTER));
        // What comes late changes nothing.
        state.on_checked(start, true, ended);
        assert_eq!(state.told(), Some(false));
        state = Reachability::Asking { since: ended };
        state.on_checked(ended, true, ended);
        assert_eq!((state.told(), state.is_due(ended + 9 * AGAIN_AFTER)), (Some(true), false));
    }
}
