//! The share folder: what lies in it, what it hashes to, and what we tell others of it.
//!
//! [`folder`] opens and places files, [`state`] keeps `.potluck/`, [`scan`] lists, [`hashing`] and [`cache`] turn
//! files into content ids, [`library`] is the catalogue, [`watch`] notices changes, and [`sharing`] drives them all.

pub mod cache;
pub mod folder;
pub mod hashing;
pub mod library;
pub mod queue;
pub mod scan;
pub mod sharing;
pub mod state;
pub mod watch;
