//! potluck's peer.

pub mod buffers;
pub mod config;
pub mod range;
pub mod share;
pub mod traffic;
pub mod verb;
pub mod wire;
pub mod scheduler {
    #![allow(missing_docs)]
    #[derive(Debug, Clone, Default)]
    pub struct SchedulerConfig;
}
