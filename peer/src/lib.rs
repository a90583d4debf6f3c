//! potluck's peer: shares a folder, and downloads from every owner at once.
//!
//! [`Peer::start`] puts the parts together and is all that a program needs; [`session::Session`] reaches a peer that
//! already runs. The caller binds the listener, so tests use port 0.
//!
//! Floors, a file using only those below its own: deciding ([`scheduler`], [`range`], [`download::pattern`]), touching
//! ([`share::folder`], [`share::cache`], [`download::partial`], [`wire::tracker_client`], [`wire::peer_client`]), driving
//! ([`share::sharing`], [`wire::serve`], [`wire::announce`], [`download::large`]), assembling (this file, [`control`],
//! [`execute`], [`session`]).

pub mod buffers;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod download;
pub mod execute;
pub mod range;
pub mod render;
pub mod scheduler;
pub mod session;
pub mod share;
pub mod shell;
pub mod traffic;
pub mod verb;
pub mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use potluck_common::address::Reach;
use potluck_common::net::host::HostPolicy;
use potluck_common::net::server;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::Config;
use download::job::{Downloads, large_slots, open_partials};
use download::live::Live;
use download::moving::AllMoving;
use execute::Executor;
use share::cache::HashCache;
use share::folder::ShareFolder;
use share::library::Library;
use share::sharing::{Sharing, SharingState, looks};
use share::state::StateDir;
use traffic::Traffic;
use verb::{Event, Failed, FailureKind, Verb};
use wire::announce::{Announcer, Standing, Who};
use wire::peer_client::PeerClient;
use wire::serve::{Serve, router};
use wire::tracker_client::TrackerClient;

/// How long the parts of a peer may take to end.
const END_DEADLINE: Duration = Duration::from_secs(4);
/// Chunk maps given out at once, each with up to one chunk in memory to prove its length.
const MAX_CLAIMS: usize = 4;
/// Buffers kept for uploads while none runs.
const KEPT_BUFFERS: usize = 32;

/// How a peer lives: for as long as it is wanted, or for one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// `up`: downloads that were unfinished go on, and a full disk is waited out.
    Running,
    /// One command: only what it asks for is done, and what cannot be done now is an error.
    Command,
}

/// A running peer. Its tasks end when `shutdown` is cancelled; [`Peer::wait`] waits for them.
pub struct Peer {
    executor: Executor,
    tasks: JoinSet<()>,
    verbs: TaskTracker,
    shutdown: CancellationToken,
}

impl Peer {
    /// Starts a peer that serves on `listener` and shares the folder of `config`.
    ///
    /// # Errors
    /// If the share folder is missing, taken or unusable, or the configuration makes no sense.
    pub async fn start(
        listener: TcpListener,
        config: Config,
        lifetime: Lifetime,
        shutdown: CancellationToken,
    ) -> Result<Self, Failed> {
        let shutdown = shutdown.child_token();
        let address = listener.local_addr().map_err(|error| cannot("use the listener", &error))?;
        let folder = Arc::new(ShareFolder::open(&config.share)?);
        let state = Arc::new(StateDir::open(&folder)?);
        let (identity, generation) = state.identity(&folder)?;
        let who = Arc::new(Who::new(identity, generation, config.name.clone()));
        let cache = Arc::new(HashCache::open(state.dir()).map_err(|error| cannot("open the hash cache", &error))?);
        let control = control::listen(state.dir()).map_err(|error| cannot("open the control socket", &error))?;
        let library = Arc::<Library>::default();
        let traffic = Arc::<Traffic>::default();
        let sharing = Arc::<SharingState>::default();
        let live = Arc::<Live>::default();
        let (look_again, looks) = looks();
        let trackers = trackers(&config)?;
        let reach = reach_of(&trackers);
        let limits = config.limits.clone().within_descriptors(server::raise_descriptor_limit());
        let peers = PeerClient::new(config.owner_timeout, reach).map_err(|error| cannot("make a client", &error))?;
        let config = Arc::new(config);
        let (standings, seen): (Vec<_>, Vec<_>) = trackers.iter().map(|_| watch::channel(Standing::default())).unzip();

        let mut tasks = JoinSet::new();
        for (tracker, standing) in trackers.iter().zip(standings) {
            let announcer = Announcer {
                tracker: tracker.clone(),
                who: who.clone(),
                library: library.clone(),
                traffic: traffic.clone(),
                port: address.port(),
                state: state.clone(),
                folder: folder.clone(),
                standing,
                config: (*config).clone(),
            };
            tasks.spawn(announcer.run(shutdown.clone()));
        }
        let serve = Serve {
            folder: folder.clone(),
            library: library.clone(),
            cache: cache.clone(),
            live: live.clone(),
            slots: Arc::new(Semaphore::new(config.upload_slots)),
            claims: Arc::new(Semaphore::new(MAX_CLAIMS)),
            retry_after_s: config.upload_retry_after.as_secs().max(1),
            pool: buffers::BufferPool::new(wire::body::SLICE_LEN, KEPT_BUFFERS),
            traffic: traffic.clone(),
            look_again: look_again.clone(),
            who: {
                let who = who.clone();
                Arc::new(move || (who.peer_id(), who.name().to_owned()))
            },
        };
        let hosts = HostPolicy::new(config.advertise.iter().map(|advertise| advertise.host().to_owned()));
        tasks.spawn(server::run(listener, router(serve, hosts), limits, shutdown.clone()));
        let sharer = Sharing {
            folder: folder.clone(),
            cache: cache.clone(),
            library: library.clone(),
            state: sharing.clone(),
            looks,
            config: (*config).clone(),
        };
        tasks.spawn(sharer.run(shutdown.clone()));
        let (sampled, sampling) = (traffic.clone(), shutdown.clone());
        tasks.spawn(async move {
            sampling.run_until_cancelled(sampled.run()).await;
        });
        let partials = open_partials(state.dir(), folder.path())?;
        // Before any verb can begin a download.
        let unfinished = partials.records().map_err(|error| cannot("look for unfinished downloads", &error))?;
        let downloads = Downloads {
            partials: Arc::new(partials),
            folder,
            library,
            cache,
            sharing,
            trackers: trackers.into(),
            peers,
            who,
            traffic,
            budget: Arc::new(buffers::Budget::new(config.max_buffered)),
            large: large_slots(),
            live,
            moving: Arc::<AllMoving>::default(),
            unsynced: Arc::default(),
            patient: lifetime == Lifetime::Running,
            config,
        };
        if lifetime == Lifetime::Running {
            let (resuming, ending) = (downloads.clone(), shutdown.clone());
            tasks.spawn(async move {
                ending.run_until_cancelled(resuming.resume(unfinished)).await;
            });
        }
        let executor = Executor {
            downloads,
            standings: seen.into(),
            listen_url: format!("http://{}", reachable(address)),
            look_again,
            shutdown: shutdown.clone(),
        };
        tasks.spawn(control::run(control, executor.clone(), shutdown.clone()));
        Ok(Self { executor, tasks, verbs: TaskTracker::new(), shutdown })
    }

    /// Where it serves: as a tracker hands it out, or as it listens while none has answered.
    pub fn base_url(&self) -> String {
        self.executor.base_url()
    }

    /// Where it serves, as this machine reaches it.
    pub fn listen_url(&self) -> &str {
        &self.executor.listen_url
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        self.executor.downloads.who.name()
    }

    /// Its share folder.
    pub fn share(&self) -> &Path {
        self.executor.downloads.folder.path()
    }

    /// Asks for a verb; the last event is `Done` or `Failed`. Dropping the receiver cancels it.
    pub fn run(&self, verb: Verb) -> mpsc::Receiver<Event> {
        let (events, receiver) = mpsc::channel(control::MAX_EVENTS);
        let executor = self.executor.clone();
        self.verbs.spawn(async move { executor.run(verb, events).await });
        receiver
    }

    /// Waits until it has ended; once it was told to, for a few seconds at most.
    pub async fn wait(self) {
        let Self { mut tasks, verbs, shutdown, .. } = self;
        let ended = async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a part of the peer failed; the peer ends");
                    shutdown.cancel();
                }
            }
            verbs.close();
            verbs.wait().await;
        };
        let late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(END_DEADLINE).await;
        };
        tokio::select! {
            () = ended => {}
            () = late => tracing::warn!("something does not end; it is left behind"),
        }
    }
}

fn trackers(config: &Config) -> Result<Vec<TrackerClient>, Failed> {
    let clients = config.trackers.iter().map(|text| {
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host());
        let url = url.ok_or_else(|| {
            let message = format!("{text:?} is not the address of a tracker");
            Failed::new(FailureKind::Usage, message, "Give it as --tracker http://HOST:PORT.")
        })?;
        TrackerClient::new(url, config.tracker_timeout).map_err(|error| cannot("make a client", &error))
    });
    clients.collect()
}

/// Loopback addresses are dialled only if the swarm talks over loopback: if a tracker is there.
fn reach_of(trackers: &[TrackerClient]) -> Reach {
    let on_loopback = trackers.iter().any(|tracker| match tracker.base().host_str() {
        Some("localhost") => true,
        Some(host) => {
            let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            ip.is_ok_and(|ip| Reach::of(ip) == Reach::SameHost)
        }
        None => false,
    });
    if on_loopback { Reach::SameHost } else { Reach::Network }
}

/// An address to connect to, for a listener that takes any.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn cannot(what: &str, error: &dyn std::error::Error) -> Failed {
    Failed::new(FailureKind::Failed, format!("cannot {what}: {error}"), "The log may say more.")
}
