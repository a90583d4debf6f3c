//! DNS-SD (RFC 6763) over multicast DNS: how trackers are listed and found where the network carries multicast.
//!
//! Invariant: what is given as found is the address of somebody near that may be dialled; records outlive the
//! programs that made them, so whether a tracker serves there is for the caller to ask. Who floods us with
//! invented services ends our looking this way, and not our memory.

use std::net::SocketAddr;
use std::time::Duration;

use mdns_sd::{Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::Instant;

use super::lan::is_near;
use crate::address::{Reach, judge};
use crate::discovery::{SERVICE, SwarmName, TrackerId};

/// More events a minute than this are nobody's real network.
const MAX_EVENTS: u32 = 1_000;
/// Addresses taken from one service.
const MAX_ADDRESSES: usize = 8;
/// How long taking ourselves off the list may last.
const END_TIMEOUT: Duration = Duration::from_millis(300);

/// The responder of this process. Cheap to clone.
#[derive(Clone)]
pub struct DnsSd {
    daemon: ServiceDaemon,
}

impl DnsSd {
    /// Starts it; `None` where that does not work.
    pub fn start() -> Option<Self> {
        let daemon = ServiceDaemon::new();
        match daemon {
            Ok(daemon) => {
                let kept = [mdns_sd::IfKind::LoopbackV4, mdns_sd::IfKind::LoopbackV6];
                let _not_there = daemon.disable_interface(kept.to_vec());
                Some(Self { daemon })
            }
            Err(error) => {
                tracing::debug!(%error, "no DNS-SD here");
                None
            }
        }
    }

    /// Lists a tracker.
    pub(super) fn list(&self, swarm: &SwarmName, id: TrackerId, listen: SocketAddr) -> Option<Listed> {
        let host = format!("potluck-{id}.local.");
        let properties = [("swarm", swarm.as_str()), ("v", "1")];
        let ip = if listen.ip().is_unspecified() { String::new() } else { listen.ip().to_string() };
        let info =
            ServiceInfo::new(SERVICE, &format!("potluck {id}"), &host, ip.as_str(), listen.port(), &properties[..]);
        let registered = info.and_then(|info| {
            let info = if ip.is_empty() { info.enable_addr_auto() } else { info };
            let name = info.get_fullname().to_owned();
            self.daemon.register(info)?;
            Ok(name)
        });
        match registered {
            Ok(name) => Some(Listed { daemon: self.daemon.clone(), name }),
            Err(error) => {
                tracing::debug!(%error, "not listed in DNS-SD");
                None
            }
        }
    }

    /// Starts to look for trackers of a swarm.
    pub fn browse(&self, swarm: SwarmName) -> Option<Browsing> {
        let events = self.daemon.browse(SERVICE).inspect_err(|error| tracing::debug!(%error, "cannot browse DNS-SD"));
        Some(Browsing { daemon: self.daemon.clone(), events: events.ok()?, swarm, since: Instant::now(), n_events: 0 })
    }

    /// Ends it.
    pub async fn end(self) {
        if let Ok(ended) = self.daemon.shutdown() {
            let _late = tokio::time::timeout(END_TIMEOUT, ended.recv_async()).await;
        }
    }
}

/// A tracker's place in the list.
pub(super) struct Listed {
    daemon: ServiceDaemon,
    name: String,
}

impl Listed {
    /// Takes it off.
    pub(super) async fn end(self) {
        if let Ok(ended) = self.daemon.unregister(&self.name) {
            let _late = tokio::time::timeout(END_TIMEOUT, ended.recv_async()).await;
        }
    }
}

/// One who looks.
pub struct Browsing {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    swarm: SwarmName,
    since: Instant,
    n_events: u32,
}

impl Browsing {
    /// Where the next tracker that is listed may serve, IPv4 first; `None` when there is nothing more to come.
    pub async fn found(&mut self) -> Option<Vec<SocketAddr>> {
        loop {
            let event = self.events.recv_async().await.ok()?;
            if self.since.elapsed() > Duration::from_secs(60) {
                (self.since, self.n_events) = (Instant::now(), 0);
            }
            self.n_events += 1;
            if self.n_events > MAX_EVENTS {
                tracing::warn!(
                    "somebody floods the network with DNS-SD services; trackers are found by broadcast only"
                );
                let _it_ends = self.daemon.stop_browse(SERVICE);
                let _with_all_it_keeps = self.daemon.shutdown();
                return None;
            }
            let ServiceEvent::ServiceResolved(service) = event else { continue };
            if service.txt_properties.get_property_val_str("swarm") != Some(self.swarm.as_str()) {
                continue;
            }
            let addresses = service.addresses.iter().map(|ip| SocketAddr::new(ip.to_ip_addr(), service.port));
            let mut near: Vec<_> = addresses
                .filter(|address| judge(*address, Reach::Network).is_ok() && is_near(address.ip()))
                .take(MAX_ADDRESSES)
                .collect();
            near.sort_unstable();
            if !near.is_empty() {
                return Some(near);
            }
        }
    }
}
