//! Folder sync, deciding: one folder on many machines. Pure but for [`FileIdentity`], which can be read from an open file.
//!
//! A crate of its own so that no clock, disk or socket can be reached from here, and so that tests of it are built with
//! optimisation: they run millions of cases.
//!
//! [`machine`] is the state, with what it is told in [`local`] and [`remote`]. Its memory: [`index`], [`disk_table`], [`queue`],
//! [`kept_back`], [`outbox`], [`timers`]. Its judgement: [`reconcile`], [`guard`]; [`obscured`] is for places
//! that nothing can be told of. [`action`] has the words between it and
//! the hands.

pub mod action;
pub mod disk_table;
mod file_identity;
pub mod guard;
pub mod index;
pub mod kept_back;
pub mod local;
pub mod machine;
pub mod obscured;
pub mod outbox;
pub mod queue;
pub mod reconcile;
pub mod remote;
pub mod timers;

pub use file_identity::FileIdentity;
