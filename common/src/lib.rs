//! The words of potluck: values that tracker and peers share, and nothing that acts.
//!
//! Everything outside [`net`] is pure: no async, no I/O, no clock. Types carry their preconditions:
//! a [`SharePath`] cannot leave the share folder, a [`ChunkIndex`] exists only for a chunk that the
//! [`Geometry`] has, a [`ChunkMap`] has been folded to its content id.
//!
//! Reading order: [`id`], [`chunk`], [`tree`], [`have`], [`share_path`], [`address`], [`identity`],
//! [`protocol`].

pub mod address;
pub mod chunk;
pub mod have;
pub mod id;
pub mod identity;
pub mod protocol;
pub mod share_path;
pub mod tree;

#[cfg(feature = "net")]
pub mod net;

pub use chunk::{ChunkIndex, Geometry};
pub use have::HaveSet;
pub use id::{ContentId, PeerId};
pub use share_path::SharePath;
pub use tree::ChunkMap;
