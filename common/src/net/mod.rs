//! What both programs need to stand on a network: accept loop, HTTP client, finding each other on the LAN, logging, shutdown.
//!
//! The only part of this crate that does I/O. It knows nothing of share folders and of what peers say to trackers.

pub mod answering;
pub mod asking;
pub mod client;
pub mod dns_sd;
pub mod docs;
pub mod host;
pub mod lan;
pub mod log;
pub mod metrics;
pub mod page;
pub mod per_address;
pub mod problem;
pub mod request_id;
pub mod sendfile;
pub mod server;
pub mod shutdown;
pub mod supervisor;
