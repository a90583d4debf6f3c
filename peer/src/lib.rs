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
pub mod deadline;
pub mod discovery;
pub mod doctor;
pub mod download;
pub mod execute;
pub mod execute_sync;
pub mod limit;
pub mod manuals;
pub mod metrics;
pub mod on_complete;
pub mod origin;
pub mod range;
pub mod render;
pub mod roll_call;
pub mod scheduler;
pub mod session;
pub mod share;
pub mod shell;
pub mod sums;
pub mod sync;
pub mod traffic;
pub mod verb;
pub mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use potluck_common::address::Reach;
use potluck_common::net::host::HostPolicy;
use potluck_common::net::lan::{self, Scope};
use potluck_common::net::server;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::Config;
use discovery::directory::Directory;
use discovery::driver::Discovery;
use discovery::remembered::Remembered;
use discovery::remembering;
use download::bundling::bundler;
use download::job::{Downloads, large_slots, open_partials};
use download::live::Live;
use download::moving::AllMoving;
use download::placing::placer;
use download::spool;
use execute::Executor;
use execute_sync::Sync;
use limit::{Limits, Throttle};
use metrics::{Parts, PeerMetrics};
use on_complete::Completions;
use share::cache::HashCache;
use share::dirt::Dirt;
use share::folder::ShareFolder;
use share::library::Library;
use share::sharing::{Sharing, SharingState, looks};
use share::state::{PARTIAL_DIR, StateDir};
use sync::apply::Hands;
use sync::carry::Carrier;
use sync::driver::{self, Driver};
use sync::mounts::Mounts;
use sync::trash::Trash;
use sync::wanted::Wanted;
use traffic::Traffic;
use verb::{Event, Failed, FailureKind, Verb};
use wire::announce::{Announcer, Who};
use wire::crowd::Crowd;
use wire::digests::digests;
use wire::feed::sync_feed;
use wire::mirrors::Mirrors;
use wire::pages::Pages;
use wire::peer_client::PeerClient;
use wire::people::People;
use wire::serve::{Serve, router};
use wire::trackers::Announcing;

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
        let (identity, generation) = state.identity(&folder, SystemTime::now())?;
        let who = Arc::new(Who::new(identity, generation, config.name.clone()));
        let cache = Arc::new(HashCache::open(state.dir()).map_err(|error| cannot("open the hash cache", &error))?);
        let control = control::listen(state.dir()).map_err(|error| cannot("open the control socket", &error))?;
        let library = Arc::<Library>::default();
        let traffic = Arc::<Traffic>::default();
        let sharing = Arc::<SharingState>::default();
        let live = Arc::<Live>::default();
        let (look_again, looks) = looks();
        let trackers = trackers(&config)?;
        let scope = Scope::of(address.ip());
        let limits = config.limits.clone().within_descriptors(server::raise_descriptor_limit());
        let throttles =
            Limits { up: Throttle::new(config.limit_up.clone()), down: Throttle::new(config.limit_down.clone()) };
        let config = Arc::new(config);
        let (sync_feed, feed) = sync_feed();
        let changes = Arc::<Dirt>::default();
        let make = {
            let (who, library, traffic) = (who.clone(), library.clone(), traffic.clone());
            let (state, folder, config, live) = (state.clone(), folder.clone(), config.clone(), live.clone());
            move |tracker, standing, push| Announcer {
                live: live.clone(),
                tracker,
                who: who.clone(),
                library: library.clone(),
                traffic: traffic.clone(),
                port: address.port(),
                state: state.clone(),
                folder: folder.clone(),
                standing,
                push,
                config: (*config).clone(),
            }
        };
        let looks_for_trackers = config.discovery.clone().filter(|_| trackers.is_empty());
        // Without any network, this machine is the whole swarm.
        let alone = scope == Scope::Loopback || lan::own_address().is_none();
        let reach = if looks_for_trackers.is_some() && alone { Reach::SameHost } else { Reach::Network };
        let looking = looks_for_trackers.is_some();
        let mut announcing = Announcing::new(looking, reach, config.tracker_timeout, make, shutdown.clone());
        for tracker in trackers {
            announcing.join(tracker).map_err(|error| cannot("make a client", &error))?;
        }
        let trackers = announcing.trackers();
        let reach = trackers.clone();
        let peers = PeerClient::new(config.owner_timeout, move || reach.reach());
        let peers = peers.map_err(|error| cannot("make a client", &error))?;
        let remembered = Remembered::load(state.clone());
        let listen_url = format!("http://{}", reachable(address));
        let directory = Directory::new(
            trackers.clone(),
            remembered.clone(),
            peers.clone(),
            who.clone(),
            library.clone(),
            listen_url,
        );
        let mut tasks = JoinSet::new();
        let (speaker, ending, first) = (who.clone(), shutdown.clone(), config.remember_after);
        tasks.spawn(async move {
            let remembering = remembering::run(trackers, remembered, move || speaker.peer_id(), first);
            ending.run_until_cancelled(remembering).await;
        });
        match looks_for_trackers {
            Some(discovery) => {
                let discovery = Discovery::new(discovery, scope, lifetime == Lifetime::Running, announcing);
                let discovery = discovery.map_err(|error| cannot("look for trackers", &error))?;
                tasks.spawn(discovery.run(shutdown.clone()));
            }
            None => {
                tasks.spawn(async move { announcing.ended().await });
            }
        }
        let trash = Arc::new(Trash::open(state.dir()).map_err(|error| cannot("open the trash", &error))?);
        let (asks, asked) = mpsc::channel(driver::MAX_ASKED);
        let sync = Sync { asks, trash: trash.clone() };
        let moving = Arc::<AllMoving>::default();
        let slots = Arc::new(Semaphore::new(config.upload_slots));
        let metrics = PeerMetrics::new(Parts {
            library: library.clone(),
            sharing: sharing.clone(),
            traffic: traffic.clone(),
            slots: slots.clone(),
            n_slots: config.upload_slots,
            moving: moving.clone(),
            trackers: directory.trackers.clone(),
            sync: sync.clone(),
        });
        buffers::keep_what_is_freed();
        let serve = Serve {
            folder: folder.clone(),
            library: library.clone(),
            cache: cache.clone(),
            live: live.clone(),
            slots,
            n_slots: config.upload_slots,
            slot_turn: Arc::default(),
            limit: throttles.up.clone(),
            crowd: Crowd::default(),
            handed: Arc::default(),
            claims: Arc::new(Semaphore::new(MAX_CLAIMS)),
            retry_after_s: config.upload_retry_after.as_secs().max(1),
            pool: buffers::BufferPool::new(wire::body::SLICE_LEN, KEPT_BUFFERS),
            traffic: traffic.clone(),
            look_again: look_again.clone(),
            who: {
                let who = who.clone();
                Arc::new(move || (who.peer_id(), who.name().to_owned()))
            },
            sync: Some(sync_feed),
        };
        let (digests, digesting) = digests(cache.clone(), library.clone(), folder.clone());
        tasks.spawn(digesting.run(shutdown.clone()));
        let mirrors = Mirrors::new(directory.trackers.clone(), who.peer_id());
        let people = People { mirrors, digests, library: library.clone() };
        let hosts = HostPolicy::new(config.advertise.iter().map(|advertise| advertise.host().to_owned()));
        let pages = Pages {
            who: who.clone(),
            trackers: directory.trackers.clone(),
            library: library.clone(),
            sharing: sharing.clone(),
            live: live.clone(),
            moving: moving.clone(),
            traffic: traffic.clone(),
        };
        tasks.spawn(server::run(listener, router(serve, people, pages, metrics, hosts), limits, shutdown.clone()));
        let sharer = Sharing {
            folder: folder.clone(),
            cache: cache.clone(),
            library: library.clone(),
            state: sharing.clone(),
            looks,
            changes: changes.clone(),
            config: (*config).clone(),
        };
        tasks.spawn(sharer.run(shutdown.clone()));
        let (sampled, sampling) = (traffic.clone(), shutdown.clone());
        tasks.spawn(async move {
            sampling.run_until_cancelled(sampled.run()).await;
        });
        let (following, ending) = (throttles.clone(), shutdown.clone());
        tasks.spawn(async move {
            ending.run_until_cancelled(following.run()).await;
        });
        let partials = open_partials(state.dir(), folder.path())?;
        // Before any verb can begin a download.
        let unfinished =
            partials.records(SystemTime::now()).map_err(|error| cannot("look for unfinished downloads", &error))?;
        let unheld =
            spool::unfinished(partials.dir()).map_err(|error| cannot("look for unfinished downloads", &error))?;
        let partials = Arc::new(partials);
        let (placer, placing) = placer();
        tasks.spawn(placing.run(folder.clone(), partials.clone(), shutdown.clone()));
        let slow_rate = config.scheduler.slow_rate;
        let (bundler, bundling) = bundler(peers.clone(), traffic.clone(), config.owner_timeout, slow_rate);
        tasks.spawn(bundling.run(shutdown.clone()));
        let mut completions = Completions::default();
        if let Some(program) = config.on_complete.clone().filter(|_| lifetime == Lifetime::Running) {
            let (told, running) = program.start(|failure| tracing::warn!("{failure}"));
            completions = told;
            let ending = shutdown.clone();
            tasks.spawn(async move {
                // Programs that still run then are left to end by themselves.
                ending.run_until_cancelled(running).await;
            });
        }
        let downloads = Downloads {
            completions,
            partials,
            folder,
            library,
            cache,
            sharing,
            directory,
            peers,
            who,
            traffic,
            limit: throttles.down.clone(),
            budget: Arc::new(buffers::Budget::new(config.max_buffered)),
            large: large_slots(),
            bundler,
            small: Arc::default(),
            recent: Arc::default(),
            placer,
            live,
            moving,
            patient: lifetime == Lifetime::Running,
            config,
        };
        if lifetime == Lifetime::Running {
            let (resuming, ending) = (downloads.clone(), shutdown.clone());
            tasks.spawn(async move {
                ending.run_until_cancelled(resuming.resume(unfinished, unheld)).await;
            });
        }
        let wanted = Wanted::new(&downloads.config.include, &downloads.config.exclude).map_err(|error| {
            Failed::new(FailureKind::Usage, error.to_string(), "Mend the glob of --include or --exclude.")
        })?;
        let partial = state.dir().open_dir(PARTIAL_DIR).map_err(|error| cannot("open .potluck/partial", &error))?;
        if lifetime == Lifetime::Running {
            tasks.spawn(sync::pruning::run(trash.clone(), downloads.config.trash_keep, shutdown.clone()));
        }
        let syncer = Driver {
            carrier: Carrier {
                hands: Arc::new(Hands::new(downloads.folder.clone(), partial, trash.clone())),
                downloads: downloads.clone(),
                trash,
                syncing: Arc::default(),
                troubles: Arc::default(),
            },
            who: downloads.who.clone(),
            mounts: Arc::new(Mounts::open(state.clone())),
            state,
            changes,
            feed,
            asks: asked,
            trackers: downloads.directory.trackers.clone(),
            remembered: {
                let directory = downloads.directory.clone();
                Arc::new(move || {
                    let to_ask = directory.remembered.to_ask(directory.trackers.reach(), std::time::Instant::now());
                    to_ask.into_iter().map(|(peer, base)| (peer.peer_id, base)).collect()
                })
            },
            wanted,
            mode: downloads.config.sync.filter(|_| lifetime == Lifetime::Running),
        };
        tasks.spawn(syncer.run(shutdown.clone()));
        let executor = Executor { sync, downloads, look_again, limits: throttles, shutdown: shutdown.clone() };
        tasks.spawn(control::run(control, executor.clone(), shutdown.clone()));
        Ok(Self { executor, tasks, verbs: TaskTracker::new(), shutdown })
    }

    /// Where it serves: as a tracker hands it out, or as it listens while none has answered.
    pub fn base_url(&self) -> String {
        self.executor.base_url()
    }

    /// Where it serves, as this machine reaches it.
    pub fn listen_url(&self) -> &str {
        &self.executor.downloads.directory.listen_url
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        self.executor.downloads.who.name()
    }

    /// Its share folder.
    pub fn share(&self) -> &Path {
        self.executor.downloads.folder.path()
    }

    /// What it has sent and received.
    pub fn traffic(&self) -> &Traffic {
        &self.executor.downloads.traffic
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

fn trackers(config: &Config) -> Result<Vec<Url>, Failed> {
    let urls = config.trackers.iter().map(|text| {
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host());
        url.ok_or_else(|| {
            let message = format!("{text:?} is not the address of a tracker");
            Failed::new(FailureKind::Usage, message, "Give it as --tracker http://HOST:PORT.")
        })
    });
    urls.collect()
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
