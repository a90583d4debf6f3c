//! What both programs need to stand on a network: accept loop, HTTP client, logging, shutdown.
//!
//! The only part of this crate that does I/O. It knows nothing of files, swarms or trackers.

pub mod client;
pub mod host;
pub mod log;
pub mod problem;
pub mod server;
pub mod shutdown;
