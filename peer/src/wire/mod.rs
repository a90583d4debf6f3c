//! The peer on the wire: what it serves, whom it asks, and what it announces.

pub mod announce;
pub mod body;
pub mod bundle;
pub mod bundles;
pub mod crowd;
pub mod digests;
pub mod exports;
pub mod feed;
pub mod follow;
pub mod handed;
pub mod have;
pub mod metalink;
pub mod mirrors;
pub mod neighbours;
pub mod origin_client;
pub mod page_cache;
pub mod pages;
pub mod peer_client;
pub mod people;
pub mod push;
pub mod respond;
pub mod serve;
pub mod torrent;
pub mod tracker_client;
pub mod trackers;
