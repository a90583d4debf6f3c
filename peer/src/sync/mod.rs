//! Folder sync: one folder on many machines.
//!
//! Deciding, without clock, disk or sockets, is a crate of its own, `potluck-sync` (`peer/sync/`); its modules are
//! re-exported here.
//!
//! Touching the disk: [`apply`] changes the share folder ([`replace`] is the hardest of it, [`beside`] does it across file systems by copies of [`copying`], [`meta`] what belongs to a file
//! besides its bytes), [`trash`] keeps what it takes out, [`look`] sees what stands
//! there ([`mounts`] is which disks belong there), [`store`] is the machine's memory on disk ([`encoding`]). [`wanted`] narrows what is received.
//!
//! Driving: [`driver`] owns the machine, [`sources`] numbers whom it hears, [`looking`] runs its looks, [`carry`] does what it
//! wants done, [`pruning`] empties the trash of what is old.

pub mod apply;
pub mod beside;
pub mod carry;
pub mod copying;
pub mod driver;
pub mod encoding;
pub mod look;
pub mod looking;
pub mod meta;
#[cfg(test)]
mod mounted;
pub mod mounts;
pub mod pruning;
pub mod replace;
pub mod sources;
pub mod store;
pub mod trash;
pub mod wanted;

pub use potluck_sync::{
    action, disk_table, guard, index, kept_back, local, machine, outbox, queue, reconcile, remote, timers,
};
