//! potluck's peer.

pub mod verb;
