//! The tracker from outside: its routes, its sockets, its process.

#![allow(clippy::unwrap_used)] // Also in helpers, which clippy does not take for tests.

mod access;
mod fetch;
mod found;
mod metrics;
mod openapi;
mod pages;
mod process;
mod reachability;
mod routes;
mod sockets;
mod support;
mod sync;
mod times;
