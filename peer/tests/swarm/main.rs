//! Whole peers and a real tracker in one process, over real sockets: downloads from honest and hostile owners.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod downloads;
mod harness;
mod hostile;
mod hostile_owner;
mod hostile_tracker;
mod serving;
mod sharing;
