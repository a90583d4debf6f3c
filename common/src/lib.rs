//! The words of potluck: values that tracker and peers share, and nothing that acts.
//!
//! Everything outside `net` and `settings` is pure: no async, no I/O, no clock. Types carry their preconditions:
//! a [`SharePath`] cannot leave the share folder, a [`ChunkIndex`] exists only for a chunk that the
//! [`Geometry`] has, a [`ChunkMap`] has been folded to its content id.
//!
//! Reading order: [`id`], [`chunk`], [`tree`], [`have`], [`share_path`], [`address`], [`identity`],
//! [`register`], [`occupancy`], [`conflict_name`], [`projection`], [`protocol`], [`discovery`], [`units`].

pub mod address;
pub mod chunk;
pub mod conflict_name;
pub mod discovery;
pub mod have;
pub mod id;
pub mod identity;
pub mod occupancy;
pub mod percent;
pub mod projection;
pub mod protocol;
pub mod register;
pub mod share_path;
pub mod tree;
pub mod units;

#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "openapi")]
pub mod openapi;
#[cfg(feature = "settings")]
pub mod settings;

pub use chunk::{ChunkIndex, Geometry};
pub use have::HaveSet;
pub use id::{ContentId, PeerId};
pub use register::Register;
pub use share_path::SharePath;
pub use tree::ChunkMap;
