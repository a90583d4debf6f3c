//! The trackers that this peer is with at the moment: those it was told, or those it found.
//!
//! [`Announcing`] owns the set and one announcing task for each member; [`Trackers`] is what everybody else sees of it.
//! Invariant: a tracker is in the set exactly as long as its announcing task runs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use potluck_common::address::Reach;
use reqwest::Url;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::announce::{Announcer, Standing};
use super::push::PushQueue;
use super::tracker_client::TrackerClient;

/// How long somebody who wants a tracker waits for the first one to be found.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);

/// One tracker and how it stands to us.
#[derive(Debug, Clone)]
pub struct Member {
    /// Where to ask.
    pub tracker: TrackerClient,
    /// Its last word.
    pub standing: watch::Receiver<Standing>,
    /// What it lacks of the synced folder.
    pub push: Arc<PushQueue>,
}

impl Member {
    /// Whether it took the last announce.
    pub fn answers(&self) -> bool {
        self.standing.borrow().reply.is_some()
    }

    /// Whether it took no announce when it was last tried.
    pub fn is_silent(&self) -> bool {
        self.standing.borrow().is_silent()
    }
}

#[derive(Debug, Clone)]
struct Set {
    /// In the order in which they are asked.
    members: Arc<[Member]>,
    /// Whether the first look for trackers goes on.
    looking: bool,
    reach: Reach,
}

/// A handle on the set. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trackers(watch::Receiver<Set>);

impl Trackers {
    /// Everyone at the moment, in the order in which to ask.
    pub fn list(&self) -> Arc<[Member]> {
        self.0.borrow().members.clone()
    }

    /// Everyone, once the first was found or nobody is there.
    pub async fn found(&self) -> Arc<[Member]> {
        let mut set = self.0.clone();
        let there = set.wait_for(|set| !set.members.is_empty() || !set.looking);
        let _nobody_or_late = tokio::time::timeout(FIRST_PATIENCE, there).await;
        self.list()
    }

    /// Waits until the set is another; for whoever has a task for each of them.
    pub async fn changed(&mut self) {
        // Its owner ends last, with the peer.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until some tracker takes our announces.
    pub async fn joined(&self) {
        let mut set = self.0.clone();
        loop {
            let members = set.borrow_and_update().members.clone();
            let mut standings: Vec<_> = members.iter().map(|member| member.standing.clone()).collect();
            if standings.iter_mut().any(|standing| standing.borrow_and_update().reply.is_some()) {
                return;
            }
            let mut others = Self(set.clone());
            tokio::select! {
                () = others.changed() => {}
                () = any_changed(&mut standings) => {}
            }
        }
    }

    /// Whether the swarm talks over loopback: only then loopback addresses may be dialled.
    pub fn reach(&self) -> Reach {
        self.0.borrow().reach
    }
}

/// Waits until one of them has another value; for ever if none of them can have one any more.
pub(super) async fn any_changed<T>(seen: &mut [watch::Receiver<T>]) {
    let mut changes: FuturesUnordered<_> = seen.iter_mut().map(watch::Receiver::changed).collect();
    while let Some(changed) = changes.next().await {
        if changed.is_ok() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Makes the task of a tracker that shows its standing there and is fed with what it lacks of the synced folder.
type Make = dyn Fn(TrackerClient, watch::Sender<Standing>, Arc<PushQueue>) -> Announcer + Send;

/// The owner of the set and of the announcing tasks.
pub struct Announcing {
    set: watch::Sender<Set>,
    make: Box<Make>,
    timeout: Duration,
    tasks: JoinSet<()>,
    ends: HashMap<String, CancellationToken>,
    shutdown: CancellationToken,
}

impl Announcing {
    /// An empty set; `looking` until [`Announcing::nobody_there`] if nobody has joined before. `make` makes the task of a tracker. `reach` holds until one is joined.
    pub fn new(
        looking: bool,
        reach: Reach,
        timeout: Duration,
        make: impl Fn(TrackerClient, watch::Sender<Standing>, Arc<PushQueue>) -> Announcer + Send + 'static,
        shutdown: CancellationToken,
    ) -> Self {
        let set = watch::Sender::new(Set { members: Arc::new([]), looking, reach });
        Self { set, make: Box::new(make), timeout, tasks: JoinSet::new(), ends: HashMap::new(), shutdown }
    }

    /// What everybody else sees.
    pub fn trackers(&self) -> Trackers {
        Trackers(self.set.subscribe())
    }

    /// Begins to announce to the tracker at `base`, after those that are there.
    ///
    /// # Errors
    /// If sockets cannot be set up.
    pub fn join(&mut self, base: Url) -> Result<watch::Receiver<Standing>, reqwest::Error> {
        let tracker = TrackerClient::new(base, self.timeout)?;
        let (standing, seen) = watch::channel(Standing::default());
        let ends = self.shutdown.child_token();
        let name = tracker.name();
        let push = Arc::<PushQueue>::default();
        self.tasks.spawn((self.make)(tracker.clone(), standing, push.clone()).run(ends.clone()));
        if let Some(before) = self.ends.insert(name, ends) {
            before.cancel();
        }
        let member = Member { tracker, standing: seen.clone(), push };
        self.change(|members| members.push(member));
        Ok(seen)
    }

    /// Ends announcing to the tracker at `base`, after saying so there.
    pub fn leave(&mut self, base: &str) {
        if let Some(ends) = self.ends.remove(base) {
            ends.cancel();
        }
        self.change(|members| members.retain(|member| member.tracker.name() != base));
        while let Some(ended) = self.tasks.try_join_next() {
            self.note(ended);
        }
    }

    /// The first look for trackers found none.
    pub fn nobody_there(&self) {
        self.set.send_modify(|set| set.looking = false);
    }

    /// Waits until all have ended, which they do with the peer. One that failed ends the peer.
    pub async fn ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.note(ended);
        }
    }

    fn note(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            tracing::error!(%error, "announcing failed; the peer ends");
            self.shutdown.cancel();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Member>)) {
        self.set.send_modify(|set| {
            let mut members = set.members.to_vec();
            change(&mut members);
            // Without any, what was true of the last ones still is.
            if !members.is_empty() {
                let on_loopback = members.iter().any(|member| is_on_loopback(member.tracker.base()));
                set.reach = if on_loopback { Reach::SameHost } else { Reach::Network };
                set.looking = false;
            }
            set.members = members.into();
        });
    }
}

fn is_on_loopback(base: &Url) -> bool {
    match base.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            ip.is_ok_and(|ip| Reach::of(ip) == Reach::SameHost)
        }
        None => false,
    }
}
