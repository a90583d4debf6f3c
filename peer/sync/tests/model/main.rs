//! The deciding part of folder sync in whole swarms, without disk, sockets or clock.
//!
//! [`history`] runs machines over simulated folders, with the real routes of the tracker and a bad network between them,
//! judged by [`oracle`].
//!
//! `POTLUCK_SEEDS` sets how many histories are run, `POTLUCK_SEED` runs one and tells it, `POTLUCK_WATCH` a
//! path to watch in it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on may panic, and tells a seed on demand"
)]

mod absence;
mod failing;
mod folder;
mod found;
mod history;
mod interleavings;
mod names;
mod network;
mod oracle;
mod partition;
mod tracker;
mod twins;
mod users;
mod world;
