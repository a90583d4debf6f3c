//! SHA-256 of contents and SHA-1 of their pieces, made when somebody asks and kept.
//!
//! One at a time and in the background: they cost a reading of the files and most of a core, and only clients that are no
//! peers want them. Invariant: nothing here makes a request wait longer than it said it would.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use potluck_common::ContentId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::share::cache::{CacheError, HashCache};
use crate::share::folder::ShareFolder;
use crate::share::hashing::HashError;
use crate::share::library::Library;
use crate::share::sha1::{Part, Pieces};
use crate::share::sha256::{Sums, sums_of};

/// What waits for its turn; who asks for more asks again later.
const MAX_QUEUED: usize = 64;

/// What can be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// SHA-256 of one content.
    Sums(ContentId),
    /// SHA-1 of the pieces of several, one after the other.
    Pieces(Arc<[Part]>),
}

/// What has been made.
enum Made {
    Sums(Sums),
    Pieces(Vec<u8>),
}

impl Made {
    fn sums(self) -> Option<Sums> {
        if let Self::Sums(sums) = self { Some(sums) } else { None }
    }

    fn pieces(self) -> Option<Vec<u8>> {
        if let Self::Pieces(pieces) = self { Some(pieces) } else { None }
    }
}

/// A handle on the sums. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Digests(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Arc<HashCache>,
    library: Arc<Library>,
    queue: mpsc::Sender<Wanted>,
    /// What is in the queue or being made.
    pending: Mutex<BTreeSet<Wanted>>,
    /// Moves whenever one has been made, or could not be.
    ended: watch::Sender<()>,
}

/// The end that makes them.
pub struct Digesting {
    queue: mpsc::Receiver<Wanted>,
    digests: Digests,
    folder: Arc<ShareFolder>,
}

/// Both ends.
pub fn digests(cache: Arc<HashCache>, library: Arc<Library>, folder: Arc<ShareFolder>) -> (Digests, Digesting) {
    let (sender, queue) = mpsc::channel(MAX_QUEUED);
    let (pending, ended) = (Mutex::default(), watch::Sender::new(()));
    let digests = Digests(Arc::new(Inner { cache, library, queue: sender, pending, ended }));
    (digests.clone(), Digesting { queue, digests, folder })
}

impl Digests {
    /// The SHA-256 of a content that we share, if it is known; if not, it will be.
    pub async fn ask(&self, id: ContentId) -> Option<Sums> {
        let wanted = Wanted::Sums(id);
        let known = self.known(&wanted).await;
        if known.is_none() {
            self.want(&wanted);
        }
        known?.sums()
    }

    /// The same, waiting so long for it to be made.
    pub async fn wait(&self, id: ContentId, patience: Duration) -> Option<Sums> {
        self.wait_for(Wanted::Sums(id), patience).await?.sums()
    }

    /// SHA-1 of the pieces of contents that we share, 20 bytes each, waiting so long for them to be made.
    pub async fn wait_for_pieces(&self, parts: Arc<[Part]>, patience: Duration) -> Option<Vec<u8>> {
        self.wait_for(Wanted::Pieces(parts), patience).await?.pieces()
    }

    async fn wait_for(&self, wanted: Wanted, patience: Duration) -> Option<Made> {
        let deadline = Instant::now() + patience;
        let mut ended = self.0.ended.subscribe();
        if let Some(known) = self.known(&wanted).await {
            return Some(known);
        }
        self.want(&wanted);
        loop {
            // Looked at first: what ends after this is known.
            let is_pending = self.pending().contains(&wanted);
            if let Some(known) = self.known(&wanted).await {
                return Some(known);
            }
            if !is_pending {
                return None;
            }
            tokio::time::timeout_at(deadline, ended.changed()).await.ok()?.ok()?;
        }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeSet<Wanted>> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn known(&self, wanted: &Wanted) -> Option<Made> {
        let (digests, wanted) = (self.clone(), wanted.clone());
        let known = tokio::task::spawn_blocking(move || digests.kept(&wanted)).await;
        match known.map_err(io::Error::other).and_then(|known| Ok(known?)) {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "kept sums cannot be read");
                None
            }
        }
    }

    fn kept(&self, wanted: &Wanted) -> Result<Option<Made>, CacheError> {
        Ok(match wanted {
            Wanted::Sums(id) => self.0.cache.sums(*id)?.map(Made::Sums),
            Wanted::Pieces(parts) => self.0.cache.pieces(parts)?.map(Made::Pieces),
        })
    }

    fn want(&self, wanted: &Wanted) {
        let library = &self.0.library;
        let is_held = match wanted {
            Wanted::Sums(id) => library.holds(*id),
            Wanted::Pieces(parts) => parts.iter().all(|(id, _)| library.holds(*id)),
        };
        let mut pending = self.pending();
        if is_held && pending.insert(wanted.clone()) && self.0.queue.try_send(wanted.clone()).is_err() {
            pending.remove(wanted);
        }
    }
}

impl Digesting {
    /// Makes what is asked for until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while let Some(Some(wanted)) = shutdown.run_until_cancelled(self.queue.recv()).await {
            let (digests, folder, stop) = (self.digests.clone(), self.folder.clone(), shutdown.clone());
            let making = wanted.clone();
            let made =
                tokio::task::spawn_blocking(move || digests.make(&making, &folder, &|| stop.is_cancelled())).await;
            if let Err(error) = made.map_err(io::Error::other).flatten() {
                tracing::debug!(%error, "sums for other clients could not be made");
            }
            self.digests.pending().remove(&wanted);
            self.digests.0.ended.send_replace(());
        }
    }
}

impl Digests {
    fn make(&self, wanted: &Wanted, folder: &ShareFolder, stop: &dyn Fn() -> bool) -> io::Result<()> {
        if self.kept(wanted)?.is_some() {
            return Ok(());
        }
        match wanted {
            Wanted::Sums(id) => self.make_sums(*id, folder, stop),
            Wanted::Pieces(parts) => self.make_pieces(parts, folder, stop),
        }
    }

    fn make_sums(&self, id: ContentId, folder: &ShareFolder, stop: &dyn Fn() -> bool) -> io::Result<()> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (path, file) in self.0.library.find(id) {
            let opened = folder.open_unchanged(&path, file.identity).map_err(HashError::Io);
            match opened.and_then(|opened| sums_of(&opened, file.identity, id, stop)) {
                Ok(sums) => return Ok(self.0.cache.insert_sums(id, &sums)?),
                Err(HashError::Stopped) => break,
                Err(error) => last = io::Error::other(error),
            }
        }
        Err(last)
    }

    fn make_pieces(&self, parts: &[Part], folder: &ShareFolder, stop: &dyn Fn() -> bool) -> io::Result<()> {
        let mut pieces = Pieces::new(parts.iter().map(|(_, len)| len).sum());
        for (id, len) in parts {
            let places = self.0.library.find(*id).into_iter().filter(|(_, file)| file.identity.len == *len);
            let mut opened = places
                .filter_map(|(path, file)| Some((folder.open_unchanged(&path, file.identity).ok()?, file.identity)));
            let (file, identity) = opened.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            pieces.read(&file, identity, *id, stop).map_err(io::Error::other)?;
        }
        Ok(self.0.cache.insert_pieces(parts, &pieces.finish())?)
    }
}
