//! Whole peers and a real tracker in one process, over real sockets: downloads from honest and hostile owners.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod downloads;
mod harness;
