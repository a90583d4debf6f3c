//! The real programs: how they start, refuse to start, are killed, go on, and end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod control;
mod daily;
mod disk;
mod failing_download;
mod failing_hands;
mod harness;
mod kill;
mod lan;
mod logs;
mod origins;
mod proxy;
mod sizes;
mod start;
mod sums;
mod supervisor;
mod traced;
mod verbs;
