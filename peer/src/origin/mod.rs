//! Origins: plain `http(s)` URLs that give a content, and that are no peers of ours.
//!
//! Of an origin nothing is known but its address: no chunk map, no owner who could be blamed. [`url`] says what such an address is
//! and what its file is called; [`bid`] decides which one of several peers asks an origin whose content nobody holds yet.
//! Both are pure. `wire::origin_client` speaks to it, `download::origin` puts them together.
//!
//! Invariant: where a content id is known, nothing of an origin gets a name before it was verified against it. Where none is, the
//! peer that fetched it says what it was: see the README.

pub mod bid;
pub mod url;
