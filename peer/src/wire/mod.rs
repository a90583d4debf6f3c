//! The peer on the wire: what it serves, whom it asks, and what it announces.

pub mod announce;
pub mod body;
pub mod have;
pub mod peer_client;
pub mod respond;
pub mod serve;
pub mod tracker_client;
