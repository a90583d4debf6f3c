//! potluck's peer.

pub mod command;
pub mod render;
pub mod verb;
