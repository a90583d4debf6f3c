//! Whole peers and a real tracker in one process, over real sockets: downloads from honest and hostile owners.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod access;
mod disk;
mod downloads;
mod feeds;
mod harness;
mod hostile;
mod hostile_owner;
mod hostile_tracker;
mod limits;
mod link;
mod lying_tracker;
mod metrics;
mod openapi;
mod origins;
mod reachability;
mod secrets;
mod serving;
mod sharing;
mod sync;
mod without_tracker;
