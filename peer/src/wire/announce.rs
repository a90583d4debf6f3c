//! The announcing task: tells one tracker that we are there and what changed.
//!
//! It owns what that tracker has acknowledged. A change of the library, or of what the tracker lacks of the synced folder, is
//! announced within milliseconds, in pages that fit; without one a heartbeat goes out at the interval the tracker gave. A tracker that does not answer is said so
//! once and asked again after growing pauses with jitter. At the end it says `stopped`, for two seconds at most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use potluck_common::PeerId;
use potluck_common::identity::Identity;
use potluck_common::protocol::{
    Activity, Announce, AnnounceEvent, AnnounceReply, Flow, IndexEntry, MAX_ANNOUNCE_ENTRIES, MAX_ANNOUNCE_LEN,
    MAX_FLOWS, PROTOCOL_VERSION,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::push::PushQueue;
use super::tracker_client::{AskError, TrackerClient};
use crate::config::Config;
use crate::download::live::Live;
use crate::share::folder::ShareFolder;
use crate::share::library::{Delta, Library};
use crate::share::state::StateDir;
use crate::traffic::Traffic;

/// How long saying `stopped` may take.
const STOPPED_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is told what goes on while something does: what people look at should move.
const ACTIVITY_EVERY: Duration = Duration::from_secs(2);
/// Room in an announce for everything but its entries.
const ENVELOPE_LEN: usize = 8 << 10;

/// What a peer can do that others cannot reach.
pub const MEND_REACH: &str = "open the port in the firewall (--listen ADDR:PORT keeps it the same), or give the address that others reach with --advertise HOST[:PORT]";

/// Who we are. It changes only when another process turns out to speak with our identity.
#[derive(Debug)]
pub struct Who {
    current: Mutex<Arc<Speaker>>,
    name: String,
}

/// An identity as it speaks since this start.
#[derive(Debug)]
pub struct Speaker {
    /// The key.
    pub identity: Identity,
    /// Number of this start.
    pub generation: u64,
    /// Drawn at this start.
    instance: u64,
    /// Number of the last message, to whichever tracker: one that is left and joined again must not take the first for a replay.
    seq: AtomicU64,
}

impl Speaker {
    fn new((identity, generation): (Identity, u64)) -> Arc<Self> {
        Arc::new(Self { identity, generation, instance: fastrand::u64(..), seq: AtomicU64::new(0) })
    }
}

impl Who {
    /// With the identity and the number of this start.
    pub fn new(identity: Identity, generation: u64, name: String) -> Self {
        Self { current: Mutex::new(Speaker::new((identity, generation))), name }
    }

    /// Who speaks now.
    pub fn get(&self) -> Arc<Speaker> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Our id.
    pub fn peer_id(&self) -> PeerId {
        self.get().identity.peer_id()
    }

    /// Our name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes a new identity, unless somebody else has already done so since `old` was read.
    pub(crate) fn renew(&self, old: &Arc<Speaker>, state: &StateDir, folder: &ShareFolder) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, old) {
            return;
        }
        if let Err(error) = state.forget_identity() {
            tracing::error!(%error, "cannot forget the old identity");
        }
        match state.identity(folder, SystemTime::now()) {
            Ok(made) => *current = Speaker::new(made),
            Err(error) => tracing::error!(%error, "cannot make a new identity"),
        }
    }
}

/// How a tracker stands to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its last answer; `None` until the first, and while it does not answer.
    pub reply: Option<AnnounceReply>,
    /// Whether it was asked at all.
    pub tried: bool,
}

impl Standing {
    /// Whether it took no announce when it was last tried.
    pub fn is_silent(&self) -> bool {
        self.tried && self.reply.is_none()
    }
}

/// Everything the task works with.
pub struct Announcer {
    /// The tracker.
    pub tracker: TrackerClient,
    /// Who we are.
    pub who: Arc<Who>,
    /// What we share.
    pub library: Arc<Library>,
    /// Our rates.
    pub traffic: Arc<Traffic>,
    /// How far our downloads are.
    pub live: Arc<Live>,
    /// The port we serve on.
    pub port: u16,
    /// Where a new identity would be kept.
    pub state: Arc<StateDir>,
    /// Likewise.
    pub folder: Arc<ShareFolder>,
    /// Where we show how the tracker stands.
    pub standing: watch::Sender<Standing>,
    /// What the tracker lacks of the synced folder.
    pub push: Arc<PushQueue>,
    /// Durations, and the address to advertise.
    pub config: Config,
}

/// What the tracker has of us.
struct Acked {
    revision: u64,
    joined: bool,
    max_entries: usize,
}

impl Announcer {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut acked = Acked { revision: 0, joined: false, max_entries: MAX_ANNOUNCE_ENTRIES };
        let mut revision = self.library.revision();
        let mut push = self.push.news();
        let mut pause = self.config.tracker_retry_min;
        let mut silent = false;
        loop {
            let event = if acked.joined { AnnounceEvent::Heartbeat } else { AnnounceEvent::Started };
            revision.mark_unchanged();
            push.mark_unchanged();
            let who = self.who.get();
            let announce = self.compose(event, &acked, &who);
            let answer = tokio::select! {
                () = shutdown.cancelled() => break,
                answer = self.tracker.announce(&announce, &who.identity) => answer,
            };
            let mut told_to_wait = false;
            if answer.is_err() {
                self.push.give_back();
            }
            let wait = match answer {
                Ok(reply) => {
                    self.push.settle(&reply, Instant::now());
                    // Asked to say everything again, it has joined only with that.
                    if !reply.resync && (silent || !acked.joined) {
                        tracing::info!(tracker = %self.tracker.base(), "joined");
                    }
                    self.say_whether_reachable(&reply);
                    (silent, pause) = (false, self.config.tracker_retry_min);
                    acked.joined = !reply.resync;
                    acked.revision = if reply.resync { 0 } else { announce.revision };
                    let heartbeat = Duration::from_millis(reply.heartbeat_ms.clamp(50, 3_600_000));
                    let more =
                        reply.resync || acked.revision != *revision.borrow() || self.push.has_more(Instant::now());
                    self.standing.send_replace(Standing { reply: Some(reply), tried: true });
                    match (more, announce.activity.is_empty()) {
                        (true, _) => Duration::ZERO,
                        (false, true) => heartbeat,
                        (false, false) => heartbeat.min(ACTIVITY_EVERY),
                    }
                }
                Err(AskError::Wait(wait)) => {
                    told_to_wait = true;
                    wait
                }
                Err(AskError::Refused(problem)) if problem.slug() == "identity-conflict" => {
                    tracing::error!(
                        "another process speaks with our identity, as after copying .potluck/; taking a new one"
                    );
                    self.who.renew(&who, &self.state, &self.folder);
                    (acked.revision, acked.joined) = (0, false);
                    next_pause(&mut pause, self.config.tracker_retry_max)
                }
                Err(AskError::Refused(problem)) if problem.status == 413 && acked.max_entries > 1 => {
                    acked.max_entries /= 2;
                    Duration::ZERO
                }
                Err(error) => {
                    if !silent {
                        tracing::warn!(tracker = %self.tracker.base(), %error, "the tracker does not take our announce; trying on");
                    }
                    silent = true;
                    self.standing.send_replace(Standing { reply: None, tried: true });
                    next_pause(&mut pause, self.config.tracker_retry_max)
                }
            };
            let changed = async {
                // While the tracker is away or wants to be left alone, changes wait for it.
                if silent || told_to_wait {
                    std::future::pending::<()>().await;
                }
                let changed = tokio::select! {
                    changed = revision.changed() => changed,
                    changed = push.changed() => changed,
                };
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(self.config.announce_coalesce).await;
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = changed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        if acked.joined && !silent {
            // What was on its way when we were told to end.
            self.push.give_back();
            let who = self.who.get();
            let announce = self.compose(AnnounceEvent::Stopped, &acked, &who);
            let stopped = tokio::time::timeout(STOPPED_TIMEOUT, self.tracker.announce(&announce, &who.identity)).await;
            if !matches!(stopped, Ok(Ok(_))) {
                tracing::debug!(tracker = %self.tracker.base(), "could not say that we stop");
            }
        }
    }

    /// A peer that nobody reaches serves nobody, and would not know.
    fn say_whether_reachable(&self, reply: &AnnounceReply) {
        let before = self.standing.borrow().reply.as_ref().and_then(|before| before.reachable);
        let (tracker, base_url) = (self.tracker.base(), &reply.base_url);
        match (before, reply.reachable) {
            (None | Some(true), Some(false)) => {
                tracing::warn!(%tracker, base_url, "the tracker cannot reach us at this address, so others hardly can: {MEND_REACH}");
            }
            (Some(false), Some(true)) => tracing::info!(%tracker, base_url, "the tracker reaches us now"),
            _ => {}
        }
    }

    fn compose(&self, event: AnnounceEvent, acked: &Acked, who: &Speaker) -> Announce {
        // Half of the room, so that neither the catalogue nor the synced folder keeps the other waiting.
        let max_index = (acked.max_entries / 2).max(1);
        let index = self.push.next_page(max_index, MAX_ANNOUNCE_LEN / 2, Instant::now());
        let index_len = index.iter().map(IndexEntry::json_len_bound).sum();
        let delta = if event == AnnounceEvent::Stopped {
            Delta {
                base: acked.revision,
                revision: acked.revision,
                added: Vec::new(),
                removed: Vec::new(),
                partial: Vec::new(),
            }
        } else {
            self.fitting_delta(acked.revision, acked.max_entries.saturating_sub(index.len()).max(1), index_len)
        };
        let activity = match event {
            AnnounceEvent::Stopped => Activity::default(),
            _ => self.activity(),
        };
        Announce {
            protocol: PROTOCOL_VERSION,
            event,
            peer_id: who.identity.peer_id(),
            public_key: who.identity.public_key(),
            name: self.who.name().to_owned(),
            port: self.port,
            advertise: self.config.advertise.clone(),
            generation: who.generation,
            instance: who.instance,
            seq: who.seq.fetch_add(1, Ordering::Relaxed) + 1,
            base: delta.base,
            revision: delta.revision,
            added: delta.added,
            removed: delta.removed,
            partial: delta.partial,
            sync: self.push.mode(),
            index: index.into(),
            rates: self.traffic.rates(),
            activity,
        }
    }

    fn activity(&self) -> Activity {
        let flows: Vec<_> = self.traffic.givers().into_iter().take(MAX_FLOWS).map(Flow::from).collect();
        Activity { flows: flows.into(), progress: self.live.progress().into() }
    }

    /// The next page of changes after a revision, small enough for one body beside the index.
    fn fitting_delta(&self, acked: u64, mut limit: usize, index_len: usize) -> Delta {
        loop {
            let delta = self.library.changes_since(acked, limit);
            // A character of a path takes two bytes in JSON at most, since control characters are refused.
            let paths = delta.added.iter().map(|entry| &entry.path).chain(&delta.removed);
            let len = paths.map(|path| 2 * path.as_str().len() + 160).sum::<usize>() + 160 * delta.partial.len();
            if len + index_len + ENVELOPE_LEN <= MAX_ANNOUNCE_LEN || limit <= 1 {
                return delta;
            }
            limit /= 2;
        }
    }
}

/// The pause now, with up to a quarter of jitter so that peers do not come back all at once; the next one is twice as long.
pub(super) fn next_pause(pause: &mut Duration, max: Duration) -> Duration {
    let now = *pause;
    *pause = (now * 2).min(max);
    now.mul_f64(0.75 + 0.25 * fastrand::f64())
}
