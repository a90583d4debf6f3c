//! potluck's peer.

pub mod cli;
pub mod command;
pub mod render;
pub mod shell;
pub mod verb;
