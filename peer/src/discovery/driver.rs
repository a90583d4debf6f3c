//! The task that owns the election: hears, asks what was heard what it is, and does what is decided.
//!
//! Invariant: whatever was heard is a hint. It counts once a tracker of our swarm answered at an address that may be
//! dialled, and at most `MAX_PROBES` such questions are under way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use potluck_common::address::Reach;
use potluck_common::discovery::TrackerId;
use potluck_common::net::asking::Asking;
use potluck_common::net::dns_sd::{Browsing, DnsSd};
use potluck_common::net::lan::Scope;
use reqwest::Url;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::DiscoveryConfig;
use super::election::{Decision, Election, Seen};
use super::host::Hosted;
use crate::wire::announce::Standing;
use crate::wire::tracker_client::TrackerClient;
use crate::wire::trackers::Announcing;

/// Trackers asked at once what they are.
const MAX_PROBES: usize = 8;
/// An address is not asked again before.
const PROBE_PAUSE: Duration = Duration::from_millis(200);
/// Addresses remembered for that.
const MAX_PROBED: usize = 256;
/// How long one may take to say what it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Words of joined trackers that wait: one of each is enough.
const MAX_FACTS: usize = 16;

/// Everything that looking for trackers works with.
pub struct Discovery {
    config: Arc<DiscoveryConfig>,
    scope: Scope,
    election: Election,
    announcing: Announcing,
    asking: Asking,
    dns_sd: Option<DnsSd>,
    hosted: Option<Hosted>,
    probes: JoinSet<Option<Seen>>,
    probed: HashMap<SocketAddr, Instant>,
    /// Forwards the words of joined trackers.
    listening: JoinSet<()>,
    facts: (mpsc::Sender<Fact>, mpsc::Receiver<Fact>),
}

/// What a joined tracker said to an announce.
struct Fact {
    id: TrackerId,
    /// Whether it retires; `None`: nothing.
    answer: Option<bool>,
}

impl Discovery {
    /// For a peer that listens where `scope` says.
    ///
    /// # Errors
    /// If there is no socket to ask with.
    pub fn new(config: DiscoveryConfig, scope: Scope, may_host: bool, announcing: Announcing) -> std::io::Result<Self> {
        let asking = Asking::open(config.swarm.clone(), scope, config.port)?;
        let dns_sd = (scope == Scope::Network).then(DnsSd::start).flatten();
        let election = Election::new(config.timing.clone(), may_host, fastrand::u64(..), Instant::now());
        Ok(Self {
            config: Arc::new(config),
            scope,
            election,
            announcing,
            asking,
            dns_sd,
            hosted: None,
            probes: JoinSet::new(),
            probed: HashMap::new(),
            listening: JoinSet::new(),
            facts: mpsc::channel(MAX_FACTS),
        })
    }

    /// Runs until `shutdown`; then says `stopped` everywhere and ends the tracker that we host.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut browsing = self.dns_sd.as_ref().and_then(|dns_sd| dns_sd.browse(self.config.swarm.clone()));
        loop {
            while let Some(decision) = self.election.next_decision(Instant::now()) {
                self.carry_out(decision).await;
            }
            let deadline = tokio::time::Instant::from_std(self.election.next_deadline());
            tokio::select! {
                () = shutdown.cancelled() => break,
                heard = self.asking.heard() => self.probe(vec![heard]),
                listed = listed(&mut browsing) => match listed {
                    Some(addresses) => self.probe(addresses),
                    None => browsing = None,
                },
                Some(probed) = self.probes.join_next() => {
                    if let Ok(Some(seen)) = probed {
                        self.election.on_seen(seen, Instant::now());
                    }
                }
                Some(Fact { id, answer }) = self.facts.1.recv() => match answer {
                    Some(retiring) => self.election.on_answered(id, retiring),
                    None => self.election.on_silent(id, Instant::now()),
                },
                () = failed(&mut self.hosted) => {
                    self.hosted = None;
                    self.election.on_cannot_host(Instant::now());
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        self.announcing.ended().await;
        if let Some(hosted) = self.hosted {
            hosted.end().await;
        }
        if let Some(dns_sd) = self.dns_sd {
            dns_sd.end().await;
        }
    }

    async fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Ask => {
                self.note_own_address();
                self.asking.ask().await;
            }
            Decision::NobodyThere => self.announcing.nobody_there(),
            Decision::Host => match Hosted::start(&self.config, self.scope).await {
                Ok(hosted) => {
                    let seen = hosted.seen();
                    tracing::info!(tracker = seen.base, swarm = %self.config.swarm, "no tracker was found, so we host one");
                    if self.scope == Scope::Network {
                        tracing::warn!(
                            "the swarm is open: whoever is on this network can join it and see what is shared"
                        );
                    }
                    self.election.on_hosting(seen, Instant::now());
                    self.hosted = Some(hosted);
                }
                Err(error) => {
                    tracing::warn!(%error, "no tracker was found, and we cannot host one; looking on");
                    self.election.on_cannot_host(Instant::now());
                }
            },
            Decision::Retire => {
                tracing::info!("another tracker takes over from the one that we host");
                self.hosted.iter().for_each(Hosted::retire);
            }
            Decision::End => {
                if let Some(hosted) = self.hosted.take() {
                    hosted.end().await;
                }
            }
            Decision::Join(seen) => self.join(seen),
            Decision::Leave(base) => self.announcing.leave(&base),
        }
    }

    fn join(&mut self, seen: Seen) {
        let joined = Url::parse(&seen.base).ok().and_then(|base| self.announcing.join(base).ok());
        let Some(standing) = joined else {
            tracing::warn!(tracker = seen.base, "cannot announce there");
            return self.election.on_silent(seen.id, Instant::now());
        };
        tracing::debug!(tracker = seen.base, id = %seen.id, "found a tracker");
        self.listening.spawn(forward(seen.id, standing, self.facts.0.clone()));
        while self.listening.try_join_next().is_some() {}
    }

    /// An interface that comes up later makes us known by another address.
    fn note_own_address(&mut self) {
        if let Some(seen) = self.hosted.as_ref().map(Hosted::seen)
            && self.election.own_base().is_some_and(|base| base != seen.base)
        {
            self.election.on_hosting(seen, Instant::now());
        }
    }

    /// Asks whoever is at these addresses, until one answers, what it is.
    fn probe(&mut self, addresses: Vec<SocketAddr>) {
        let now = Instant::now();
        if self.probed.len() >= MAX_PROBED {
            self.probed.retain(|_, at| now.duration_since(*at) < PROBE_PAUSE);
        }
        let is_own = |address: &SocketAddr| self.election.own_base() == Some(format!("http://{address}").as_str());
        let is_new =
            |address: &SocketAddr| self.probed.get(address).is_none_or(|at| now.duration_since(*at) >= PROBE_PAUSE);
        let addresses: Vec<_> = addresses.into_iter().filter(|address| !is_own(address) && is_new(address)).collect();
        if addresses.is_empty() || self.probes.len() >= MAX_PROBES || self.probed.len() + addresses.len() > MAX_PROBED {
            return;
        }
        self.probed.extend(addresses.iter().map(|address| (*address, now)));
        let config = self.config.clone();
        self.probes.spawn(async move {
            for address in addresses {
                match tokio::time::timeout(PROBE_TIMEOUT, what_is(address, &config)).await {
                    Ok(Some(seen)) => return Some(seen),
                    _ => tracing::debug!(%address, "no tracker of our swarm there"),
                }
            }
            None
        });
    }
}

async fn what_is(address: SocketAddr, config: &DiscoveryConfig) -> Option<Seen> {
    let base = format!("http://{address}");
    let info = TrackerClient::new(Url::parse(&base).ok()?, PROBE_TIMEOUT).ok()?.info().await.ok()?;
    let on_loopback = Reach::of(address.ip()) == Reach::SameHost;
    let fits = info.swarm == config.swarm && !info.retiring;
    fits.then_some(Seen { id: info.tracker_id, base, hosted: info.hosted, on_loopback })
}

/// Until the tracker is left.
async fn forward(id: TrackerId, mut standing: watch::Receiver<Standing>, facts: mpsc::Sender<Fact>) {
    while standing.changed().await.is_ok() {
        let answer = {
            let standing = standing.borrow_and_update();
            standing.tried.then(|| standing.reply.as_ref().map(|reply| reply.retiring))
        };
        if let Some(answer) = answer
            && facts.send(Fact { id, answer }).await.is_err()
        {
            return;
        }
    }
}

async fn listed(browsing: &mut Option<Browsing>) -> Option<Vec<SocketAddr>> {
    match browsing {
        Some(browsing) => browsing.found().await,
        None => std::future::pending().await,
    }
}

async fn failed(hosted: &mut Option<Hosted>) {
    match hosted {
        Some(hosted) => hosted.failed().await,
        None => std::future::pending().await,
    }
}
