//! The share folder: what lies in it, what it hashes to, and what we tell others of it.
//!
//! [`folder`] opens and places files, [`state`] keeps `.potluck/`, [`scan`] lists ([`scanning`] in the background), [`hashing`] and [`cache`] turn
//! files into content ids, [`sha256`] is for clients of other kinds, [`library`] is the catalogue, [`ignore`] says what is left
//! out, [`watch`] notices changes, and [`sharing`] drives them all.

pub mod cache;
pub mod dirt;
pub mod folder;
pub mod hashing;
pub mod ignore;
pub mod library;
pub mod queue;
pub mod scan;
pub mod scanning;
pub mod sha1;
pub mod sha256;
pub mod sharing;
pub mod state;
pub mod watch;
