//! Finding a tracker where none was named, and going on where none answers.
//!
//! Reading order: [`election`] decides which trackers to join and whether to host one, [`host`] is that one, [`driver`]
//! carries out what is decided. [`remembered`] is whom we heard of, which [`remembering`] asks for; [`directory`] asks trackers
//! or them who has what, and [`gathered`] is what they say.

pub mod directory;
pub mod driver;
pub mod election;
pub mod gathered;
pub mod host;
pub mod remembered;
pub mod remembering;

use std::time::Duration;

use potluck_common::discovery::{PORT, SwarmName};

use election::Timing;

/// How trackers are looked for.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// Of which swarm.
    pub swarm: SwarmName,
    /// The UDP port at which trackers answer.
    pub port: u16,
    /// When to look, and when to host.
    pub timing: Timing,
    /// How often peers announce themselves to a tracker that we host: it may go as it came, so they should soon notice.
    pub hosted_heartbeat: Duration,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            swarm: SwarmName::default(),
            port: PORT,
            timing: Timing::default(),
            hosted_heartbeat: Duration::from_secs(2),
        }
    }
}
