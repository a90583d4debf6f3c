//! The tracker from outside: its routes, its sockets, its process.

#![allow(clippy::unwrap_used)] // Also in helpers, which clippy does not take for tests.

mod process;
mod routes;
mod sockets;
mod support;
