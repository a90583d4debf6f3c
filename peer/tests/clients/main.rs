//! Clients that are no peers, the real ones, against whole peers and a tracker. One that is not installed is named and skipped.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![expect(clippy::print_stderr, reason = "what was measured is said")]

#[path = "../swarm/harness.rs"]
#[expect(dead_code, reason = "it is shared with other tests")]
mod harness;
mod tools;
mod torrents;
mod urls;
