//! potluck's tracker: it knows who is there and who holds what, and never sees a byte of a file.
//!
//! Reading order: [`endpoint`], [`rate`], [`handout`], [`events`] (words and small machines), [`admission`],
//! `index`, `catalogue`, [`reachability`], [`registry`], `room`, [`lookup`] (the state machine of who holds what), [`folder`], [`sync_index`] (that of the
//! synced folder), [`matrix`] (a question to both), [`store`], [`swarm`] (all behind one handle), [`connect_back`], [`http`], and [`run`] here.

pub mod admission;
mod catalogue;
pub mod connect_back;
pub mod console;
mod dispatch;
pub mod endpoint;
pub mod events;
pub mod folder;
pub mod handout;
pub mod http;
mod index;
pub mod lookup;
pub mod matrix;
pub mod quota;
pub mod rate;
pub mod reachability;
pub mod record;
pub mod registry;
mod room;
pub mod store;
mod store_index;
pub mod swarm;
pub mod sync_index;
mod tally;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use potluck_common::discovery::SwarmName;
use potluck_common::net::answering::{self, Found};
use potluck_common::net::dns_sd::DnsSd;
use potluck_common::net::lan::Scope;
use potluck_common::net::server;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

pub use connect_back::ConnectBack;
pub use potluck_common::net::server::Limits;
pub use quota::Quotas;
pub use rate::RateLimits;
pub use swarm::Swarm;
pub use tokio_util::sync::CancellationToken;

use http::{App, HttpConfig};
use registry::RegistryConfig;
use store::{OpenError, Store};

/// How long the end of the tracker waits for its store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Everything that can be set. The default keeps nothing on disk.
#[derive(Debug, Clone)]
pub struct Config {
    /// The swarm that this tracker is for.
    pub swarm: SwarmName,
    /// Whether a peer hosts it because it found no tracker.
    pub hosted: bool,
    /// The UDP port at which peers that look for a tracker are answered; `None`: it is not to be found.
    pub found_at: Option<u16>,
    /// The folder of the store; `None`: keep nothing.
    pub data: Option<PathBuf>,
    /// How often peers announce themselves.
    pub heartbeat: Duration,
    /// How long they are listed without.
    pub lease: Duration,
    /// How often leases are looked at: a peer that is gone is listed for a lease and this time at most.
    pub sweep: Duration,
    /// How long the catalogue of a peer that is not there is kept.
    pub forget_after: Duration,
    /// How often the store is told who was heard of without a change.
    pub keep_interval: Duration,
    /// Names this host is known by, besides addresses, names of one label and `.local`.
    pub hosts: Vec<String>,
    /// How much is taken from whom.
    pub quotas: Quotas,
    /// Connections and their times.
    pub limits: Limits,
    /// Requests granted to one address.
    pub rate: RateLimits,
    /// From the first to the last byte of a body.
    pub body_timeout: Duration,
    /// Event streams open at once.
    pub max_streams: usize,
    /// How the tracker looks whether peers can be reached; `None`: not at all.
    pub connect_back: Option<ConnectBack>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            swarm: SwarmName::default(),
            hosted: false,
            found_at: None,
            data: None,
            heartbeat: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            sweep: Duration::from_millis(500),
            forget_after: Duration::from_secs(7 * 24 * 60 * 60),
            keep_interval: Duration::from_secs(30),
            hosts: Vec::new(),
            quotas: Quotas::default(),
            limits: Limits::default(),
            rate: RateLimits::default(),
            body_timeout: Duration::from_secs(15),
            max_streams: 512,
            connect_back: Some(ConnectBack::default()),
        }
    }
}

/// Why the tracker does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The lease is too short to be renewed.
    #[error(
        "a lease of {} runs out between two heartbeats of {}. Make --lease at least twice as long as --heartbeat",
        humantime::format_duration(*lease),
        humantime::format_duration(*heartbeat)
    )]
    Lease {
        /// The lease.
        lease: Duration,
        /// The heartbeat.
        heartbeat: Duration,
    },
    /// The heartbeat is no time at all.
    #[error("a heartbeat of {} is too short. Make --heartbeat at least 10ms", humantime::format_duration(*.0))]
    Heartbeat(Duration),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The listener.
    #[error("the listening socket does not work: {0}. Start the tracker again")]
    Listener(#[from] std::io::Error),
}

/// Peers cannot usefully announce themselves more often than this.
const MIN_HEARTBEAT: Duration = Duration::from_millis(10);

/// A tracker that has opened its store and serves nobody yet.
pub struct Tracker {
    swarm: Swarm,
    config: Config,
}

impl Tracker {
    /// Checks the configuration and opens the store.
    ///
    /// # Errors
    /// If the configuration contradicts itself or the store cannot be opened.
    pub async fn open(config: Config) -> Result<Self, RunError> {
        let Config { heartbeat, lease, .. } = config;
        if heartbeat < MIN_HEARTBEAT {
            return Err(RunError::Heartbeat(heartbeat));
        }
        if lease < 2 * heartbeat {
            return Err(RunError::Lease { lease, heartbeat });
        }
        let store = match config.data.clone() {
            None => None,
            Some(dir) => {
                let opened = tokio::task::spawn_blocking(move || Store::open(&dir)).await;
                Some(opened.map_err(std::io::Error::other)??)
            }
        };
        let registry = RegistryConfig { lease, forget_after: config.forget_after, quotas: config.quotas.clone() };
        Ok(Self { swarm: Swarm::new(registry, store), config })
    }

    /// What the tracker knows.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// The routes, for whoever wants to serve them otherwise. `own` is where the tracker is said to listen.
    pub fn router(&self, own: SocketAddr, shutdown: CancellationToken) -> axum::Router {
        let config = HttpConfig {
            heartbeat: self.config.heartbeat,
            lease: self.config.lease,
            body_timeout: self.config.body_timeout,
            rate: self.config.rate.clone(),
            max_streams: self.config.max_streams,
            hosts: self.config.hosts.clone(),
            swarm: self.config.swarm.clone(),
            hosted: self.config.hosted,
        };
        http::router(App::new(self.swarm.clone(), config, own, shutdown))
    }

    /// Serves until `shutdown`; what was acknowledged is on disk when it returns.
    ///
    /// # Errors
    /// If the listener has no address.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), RunError> {
        let own = listener.local_addr()?;
        let router = self.router(own, shutdown.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(sweep(self.swarm.clone(), self.config.sweep));
        tasks.spawn(keep(self.swarm.clone(), self.config.keep_interval));
        if let Some(config) = self.config.connect_back.clone() {
            let checks = self.swarm.begin_checks(config.rate.clone());
            tasks.spawn(connect_back::run(self.swarm.clone(), checks, config));
        }
        let answering = self.config.found_at.map(|port| {
            let (swarm, tracker_id) = (self.config.swarm.clone(), self.swarm.tracker_id());
            Found { swarm, tracker_id, listen: own, port }
        });
        let mut answered = JoinSet::new();
        if let Some(found) = answering {
            answered.spawn(be_found(found, self.swarm.clone(), shutdown.clone()));
        }
        server::run(listener, router, self.config.limits, shutdown).await;
        tasks.shutdown().await;
        answered.join_all().await;
        let swarm = self.swarm;
        let closed = timeout(CLOSE_TIMEOUT, async {
            swarm.keep_touched().await;
            tokio::task::spawn_blocking(move || swarm.close()).await
        });
        if !matches!(closed.await, Ok(Ok(()))) {
            tracing::error!("the store could not be closed in time; what was acknowledged is in it all the same");
        }
        Ok(())
    }
}

/// Opens and serves a tracker: the whole of it, for tests and other programs.
///
/// # Errors
/// If it cannot start.
pub async fn run(listener: TcpListener, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    Tracker::open(config).await?.serve(listener, shutdown).await
}

/// Answers who looks for a tracker, until there is another one to be found.
async fn be_found(found: Found, swarm: Swarm, shutdown: CancellationToken) {
    let dns_sd = (Scope::of(found.listen.ip()) == Scope::Network).then(DnsSd::start).flatten();
    let until = shutdown.child_token();
    let retired = async {
        swarm.retired().await;
        until.cancel();
    };
    tokio::join!(answering::answer(found, dns_sd.clone(), until.clone()), until.run_until_cancelled(retired));
    if let Some(dns_sd) = dns_sd {
        dns_sd.end().await;
    }
}

/// Ends leases in time. A panic in one sweep is logged, and the next one comes.
async fn sweep(swarm: Swarm, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match catch_unwind(AssertUnwindSafe(|| swarm.expire())) {
            Ok(left) => left.iter().for_each(|name| tracing::info!(name, "peer left: its lease ran out")),
            Err(_) => tracing::error!("a sweep over the leases panicked"),
        }
    }
}

/// Keeps the store informed of who is there.
async fn keep(swarm: Swarm, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        swarm.keep_touched().await;
    }
}
