//! The bundling task: owns what is [`Waiting`] and asks owners for bundles of it.
//!
//! It waits for nobody: what is wanted while requests run is part of the next ones. So a content that is wanted alone is asked
//! for at once, and the more are wanted, the more of them share a request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use potluck_common::{ContentId, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::claim::next_piece;
use super::fetch::{failure, reason};
use super::owners::{Source, Sources};
use super::small::{Fetched, verified};
use super::waiting::{BundleId, Ending, Waiting};
use crate::deadline::sleep_until;
use crate::traffic::{Reason, Traffic};
use crate::wire::bundle::Unbundler;
use crate::wire::peer_client::{FetchError, PeerClient};

/// Wishes that wait to be heard, and contents that have come.
const MAX_TOLD: usize = 256;

/// A content that has come, and with which request.
type Come = (BundleId, ContentId, Fetched);

/// A content that is wanted.
#[derive(Debug)]
struct Wish {
    id: ContentId,
    len: u64,
    sources: Sources,
    answer: oneshot::Sender<Fetched>,
}

/// Tells the bundling task what is wanted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bundler(mpsc::Sender<Wish>);

impl Bundler {
    /// A content of at most `len` bytes, verified; `None` if nobody gives it in a bundle. Dropping it withdraws the wish.
    pub async fn fetch(&self, id: ContentId, len: u64, sources: Sources) -> Option<Fetched> {
        let (answer, fetched) = oneshot::channel();
        self.0.send(Wish { id, len, sources, answer }).await.ok()?;
        fetched.await.ok()
    }
}

/// The task's end of it, and what it works with.
pub struct Bundling {
    wishes: mpsc::Receiver<Wish>,
    waiting: Waiting,
    /// Who waits for what; those who are dropped are told that nobody gave it.
    waiters: HashMap<ContentId, Vec<oneshot::Sender<Fetched>>>,
    /// Where owners are of which something is wanted.
    sources: HashMap<PeerId, Arc<Source>>,
    asking: JoinSet<Ending>,
    running: HashMap<Id, (BundleId, AbortHandle)>,
    asker: Asker,
}

/// What a request works with.
#[derive(Clone)]
struct Asker {
    peers: PeerClient,
    traffic: Arc<Traffic>,
    /// An owner may be silent for so long…
    owner_timeout: Duration,
    /// …and needs to give so many bytes a second.
    slow_rate: u64,
}

/// Makes a pair.
pub fn bundler(
    peers: PeerClient,
    traffic: Arc<Traffic>,
    owner_timeout: Duration,
    slow_rate: u64,
) -> (Bundler, Bundling) {
    let (sender, wishes) = mpsc::channel(MAX_TOLD);
    let bundling = Bundling {
        wishes,
        waiting: Waiting::default(),
        waiters: HashMap::new(),
        sources: HashMap::new(),
        asking: JoinSet::new(),
        running: HashMap::new(),
        asker: Asker { peers, traffic, owner_timeout, slow_rate: slow_rate.max(1) },
    };
    (Bundler(sender), bundling)
}

impl Bundling {
    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.bundle()).await;
    }

    async fn bundle(&mut self) {
        let (sender, mut come) = mpsc::channel(MAX_TOLD);
        let mut told = Vec::new();
        loop {
            self.ask(&sender);
            let due = self.waiting.next_deadline();
            tokio::select! {
                n = self.wishes.recv_many(&mut told, MAX_TOLD) => {
                    if n == 0 {
                        return;
                    }
                    told.drain(..).for_each(|wish| self.on_wish(wish));
                }
                Some(came) = come.recv() => self.on_come(came),
                Some(ended) = self.asking.join_next_with_id() => {
                    // It told of all that came before it ended.
                    while let Ok(came) = come.try_recv() {
                        self.on_come(came);
                    }
                    match ended {
                        Ok((task, ending)) => self.on_ended(task, ending),
                        Err(error) if error.is_cancelled() => self.on_ended(error.id(), Ending::Cancelled),
                        Err(error) => {
                            tracing::error!(%error, "a request for a bundle failed");
                            self.on_ended(error.id(), Ending::Broken);
                        }
                    }
                }
                () = sleep_until(due) => {
                    // What takes its time may have been given up.
                    let ids: Vec<_> = self.waiters.keys().copied().collect();
                    ids.into_iter().for_each(|id| _ = self.forget_if_unwanted(id));
                    self.waiting.on_tick(Instant::now());
                }
            }
        }
    }

    fn on_wish(&mut self, wish: Wish) {
        let now = Instant::now();
        self.forget_if_unwanted(wish.id);
        if self.waiting.on_wanted(wish.id, wish.len, wish.sources.keys().copied(), now) {
            self.waiters.entry(wish.id).or_default().push(wish.answer);
            self.sources.extend(wish.sources);
        }
    }

    /// Asks for what there is to be asked for, and ends what nobody waits for any more.
    fn ask(&mut self, come: &mpsc::Sender<Come>) {
        while let Some(mut bundle) = self.waiting.next_bundle(Instant::now()) {
            bundle.contents.retain(|(id, _)| !self.forget_if_unwanted(*id));
            let asked = match self.sources.get(&bundle.owner) {
                Some(source) if !bundle.contents.is_empty() => {
                    self.asker.clone().ask(source.clone(), bundle.id, bundle.contents, come.clone())
                }
                _ => {
                    self.give_back(bundle.id, Ending::Cancelled);
                    continue;
                }
            };
            let asking = self.asking.spawn(asked);
            self.running.insert(asking.id(), (bundle.id, asking));
        }
        while let Some(cancel) = self.waiting.next_cancel() {
            let running = self.running.values().find(|(bundle, _)| *bundle == cancel);
            running.into_iter().for_each(|(_, asking)| asking.abort());
        }
    }

    /// Forgets what nobody waits for any more; whether that is so.
    fn forget_if_unwanted(&mut self, id: ContentId) -> bool {
        let is_wanted = self.waiters.get(&id).is_some_and(|waiters| waiters.iter().any(|waiter| !waiter.is_closed()));
        if !is_wanted {
            self.waiters.remove(&id);
            self.waiting.on_withdrawn(id);
        }
        !is_wanted
    }

    fn on_come(&mut self, (bundle, id, fetched): Come) {
        self.waiting.on_come(bundle, id);
        for waiter in self.waiters.remove(&id).into_iter().flatten() {
            let _gone = waiter.send(fetched.clone());
        }
    }

    fn on_ended(&mut self, task: Id, ending: Ending) {
        if let Some((bundle, _)) = self.running.remove(&task) {
            self.give_back(bundle, ending);
        }
    }

    /// A request is over; whoever waits for what nobody else is to be asked for is told so.
    fn give_back(&mut self, bundle: BundleId, ending: Ending) {
        for given_back in self.waiting.on_ended(bundle, ending, Instant::now()) {
            self.waiters.remove(&given_back);
        }
        if self.waiters.is_empty() {
            self.sources.clear();
        }
    }
}

impl Asker {
    /// Asks for one bundle, and tells of each content as it comes.
    async fn ask(
        self,
        source: Arc<Source>,
        bundle: BundleId,
        contents: Vec<(ContentId, u64)>,
        come: mpsc::Sender<Come>,
    ) -> Ending {
        let len: u64 = contents.iter().map(|(_, len)| len).sum();
        // Slower than this is too slow (C11).
        let patience = self.owner_timeout + Duration::from_secs(len / self.slow_rate);
        let read = tokio::time::timeout(patience, self.read(&source, bundle, &contents, &come));
        let ending = match read.await {
            Ok(Ok(())) => Ending::Whole,
            Ok(Err(Useless { reason, ending })) => {
                self.traffic.on_failed(reason);
                ending
            }
            Err(_) => {
                self.traffic.on_failed(Reason::Stalled);
                Ending::TooSlow
            }
        };
        tracing::debug!(owner = source.owner.name, n = contents.len(), ?ending, "asked for a bundle");
        ending
    }

    async fn read(
        &self,
        source: &Source,
        bundle: BundleId,
        contents: &[(ContentId, u64)],
        come: &mpsc::Sender<Come>,
    ) -> Result<(), Useless> {
        let request_id = format!("{:08x}-0", fastrand::u32(..));
        let ids = contents.iter().map(|(id, _)| *id);
        let mut response = self.peers.bundle(&source.base, ids, &request_id).await?;
        let mut unbundler = Unbundler::new(contents.iter().copied());
        let mut parts = Vec::new();
        while let Some(piece) = next_piece(&mut response).await? {
            let fed = unbundler.feed(&piece, &mut parts);
            for (id, bytes) in parts.drain(..) {
                // The others may be right: of a rotten disk most files are.
                let Some(fetched) = verified(id, bytes, source, &self.traffic) else { continue };
                // The task that reads this outlives its requests, or ends them.
                let _ends = come.send((bundle, id, fetched)).await;
            }
            fed.map_err(|_| Useless::BROKEN)?;
        }
        if unbundler.is_whole() { Ok(()) } else { Err(Useless::BROKEN) }
    }
}

/// An answer that is of no further use.
struct Useless {
    reason: Reason,
    ending: Ending,
}

impl Useless {
    const BROKEN: Self = Self { reason: Reason::Short, ending: Ending::Broken };
}

impl From<FetchError> for Useless {
    fn from(error: FetchError) -> Self {
        let ending = match error {
            FetchError::Unreachable(_) => Ending::Unreachable,
            FetchError::Choked(retry_after) => Ending::Busy(retry_after),
            _ => Ending::Broken,
        };
        Self { reason: reason(failure(&error)), ending }
    }
}
