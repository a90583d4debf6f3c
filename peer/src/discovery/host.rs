//! A tracker in our own process, for a LAN that has none.
//!
//! It keeps nothing on disk: every peer announces its whole catalogue to a tracker that does not know it, within a heartbeat, and a
//! tracker that moves from peer to peer must not find an old swarm in the folder of one of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use potluck_common::discovery::PORT;
use potluck_common::net::lan::{Scope, own_address};
use potluck_tracker::{Config, RunError, Swarm, Tracker};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::DiscoveryConfig;
use super::election::Seen;

/// A tracker that runs here.
pub struct Hosted {
    swarm: Swarm,
    port: u16,
    scope: Scope,
    ends: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

impl Hosted {
    /// Starts one at the usual port, or at any if that is taken.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(config: &DiscoveryConfig, scope: Scope) -> io::Result<Self> {
        let ip = match scope {
            Scope::Loopback => Ipv4Addr::LOCALHOST,
            Scope::Network => Ipv4Addr::UNSPECIFIED,
        };
        let listener = match TcpListener::bind((ip, PORT)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((ip, 0)).await?,
        };
        let port = listener.local_addr()?.port();
        let tracker = Tracker::open(Config {
            swarm: config.swarm.clone(),
            hosted: true,
            found_at: Some(config.port),
            heartbeat: config.hosted_heartbeat,
            lease: config.hosted_heartbeat * 3,
            ..Config::default()
        });
        let tracker = tracker.await.map_err(io::Error::other)?;
        let (swarm, ends) = (tracker.swarm().clone(), CancellationToken::new());
        let running = tokio::spawn(tracker.serve(listener, ends.clone()));
        Ok(Self { swarm, port, scope, ends, running })
    }

    /// What it is to the election. We join it by the address that others know us by, or they were handed a loopback address.
    pub fn seen(&self) -> Seen {
        let near = match self.scope {
            Scope::Loopback => None,
            Scope::Network => own_address(),
        };
        let ip = near.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let base = format!("http://{}", SocketAddr::new(ip, self.port));
        Seen { id: self.swarm.tracker_id(), base, hosted: true, on_loopback: ip.is_loopback() }
    }

    /// Tells its peers to look for another one, and is no longer to be found.
    pub fn retire(&self) {
        self.swarm.retire();
    }

    /// Waits until it has ended by itself, which it does not.
    pub async fn failed(&mut self) {
        let error = match (&mut self.running).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        tracing::error!(error, "the tracker that we host has ended");
    }

    /// Ends it.
    pub async fn end(self) {
        self.ends.cancel();
        if let Err(error) = self.running.await {
            tracing::error!(%error, "the tracker that we hosted failed");
        }
    }
}
