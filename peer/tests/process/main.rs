//! The real programs: how they start, refuse to start, are killed, go on, and end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![expect(clippy::print_stdout, reason = "what is skipped is said")]

mod control;
mod disk;
mod harness;
mod kill;
mod proxy;
mod start;
mod verbs;
