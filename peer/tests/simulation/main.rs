//! Simulation: real schedulers, no sockets, virtual time.
//!
//! What is real: the scheduler of each leecher, with its default configuration, driven as `download/large` drives it.
//! What is modelled: links as fluids (`links`), round trips, have streams of at most 40 neighbours and the 50 ms
//! between their lines, the tracker's handouts of 50 and when they are asked for, announces, seats and the wait that a
//! refusal names. Peers may come late, leave half-way or once complete, and come back with what they held; owners may
//! be slow, silent, vanish, freeze, disconnect or send bad chunks.
//! What is not: TCP (a flow has its share at once, and loses nothing), headers, the bytes of streams, announces and
//! claims, the time that proving a claim, verifying, writing and syncing take, a processor that cannot keep up.
//!
//! The bound is the fluid one of Kumar and Ross: `max(F/u_s, F/d, N·F/(u_s + ΣU))`.
//!
//! Nothing here depends on the machine: the same seed gives the same history.

// The lint configuration excuses only functions that are tests themselves, and here the whole crate is one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod events;
mod links;
mod look;
mod peers;
mod sim;
mod tracker;
mod transfer;
mod visits;

mod churn;
mod one_leecher;
mod swarm;
mod table;

const MIB: u64 = 1 << 20;
