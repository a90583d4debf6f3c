//! Fetching an origin whose chunk map nobody has: all of it in order, in one piece, hashed when it is whole.
//!
//! Invariant: what gets a name is one state of the origin's file as far as the origin tells states apart, has the length that
//! the origin said, and is the content that was asked for, if one was.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use potluck_common::{ChunkMap, ContentId, SharePath};
use reqwest::Response;
use tokio::sync::mpsc;

use super::claim::next_piece;
use super::job::{Downloads, Outcome, tell};
use super::moving::{Moving, OnlyHere};
use super::origin::{explain_origin, target_of};
use super::partial::Target;
use super::place::{PlaceError, disk_failed, is_taken, path_of, place, taken};
use super::spool::{Spool, SpoolRecord};
use crate::origin::url::OriginUrl;
use crate::share::folder::FileIdentity;
use crate::share::hashing::hash_file;
use crate::verb::{Contribution, Download, Event, Failed, FailureKind};
use crate::wire::origin_client::{Facts, Origin, OriginError};

/// Bytes that are written at once.
const WRITE_LEN: usize = 1 << 20;
/// Tries in a row that bring nothing new.
const MAX_TRIES: u32 = 6;
/// The same before it has answered at all: then it is more likely that the address is wrong.
const MAX_FIRST_TRIES: u32 = 3;
/// Threads that hash what came.
const HASHERS: u32 = 2;

/// What is to be fetched.
pub(super) struct Unheld<'a> {
    /// As it was asked for.
    pub(super) request: &'a Download,
    /// From where.
    pub(super) url: &'a OriginUrl,
    /// What it is called.
    pub(super) path: &'a SharePath,
    /// What bids for it stand under.
    pub(super) bid: ContentId,
    /// What its content id has to start with.
    pub(super) wanted: Option<&'a str>,
    /// While this is held nobody else here fetches the same.
    pub(super) only_here: &'a OnlyHere,
}

/// How far it is.
struct Fetching<'a> {
    downloads: &'a Downloads,
    what: &'a Unheld<'a>,
    target: &'a Target,
    moving: &'a Moving,
    spool: Arc<Spool>,
    /// What the origin says of the state that comes.
    facts: Facts,
    /// Bytes that are written.
    n_bytes: u64,
    n_recorded: u64,
    recorded_at: Instant,
    /// Bytes that came just now, over all tries.
    n_came: u64,
}

impl Downloads {
    /// Fetches it, and tells how it goes.
    pub(super) async fn fetch_unheld(&self, what: &Unheld<'_>, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
        let started = Instant::now();
        let target = target_of(what.path, what.request)?;
        let listed = self.moving.enter(what.path.to_string(), None, 0);
        let fetching = self.fetch_whole_origin(what, &target, &listed.moving, events);
        let outcome = Self::watched(&listed.moving, events, fetching).await;
        drop(listed);
        self.conclude(what.path.to_string(), &target, started, outcome, events, true).await
    }

    async fn fetch_whole_origin(
        &self,
        what: &Unheld<'_>,
        target: &Target,
        moving: &Moving,
        events: &mpsc::Sender<Event>,
    ) -> Result<(ContentId, Outcome), Failed> {
        if is_taken(&self.folder, target) {
            return Err(taken(&self.folder, target));
        }
        let origin = self.ask_origin(what.url).await?;
        tell(events, Event::Planned { n_files: 1, n_bytes: origin.facts.len.unwrap_or(0) }).await;
        let (bid, only_here) = (what.bid, what.only_here.clone());
        let dir =
            self.partials.dir().try_clone().map_err(|error| disk_failed(&path_of(&self.folder, target), &error))?;
        let opened = on_disk(move || Spool::open(&dir, bid, only_here)).await;
        let (spool, record) = opened.map_err(|error| disk_failed(&path_of(&self.folder, target), &error))?;
        let n_bytes = record.as_ref().map_or(0, |record| record.n_bytes);
        self.check_free(origin.facts.len.unwrap_or(0).saturating_sub(n_bytes))?;
        let mut fetching = Fetching {
            downloads: self,
            what,
            target,
            moving,
            spool,
            facts: record.as_ref().map_or_else(|| origin.facts.clone(), SpoolRecord::facts),
            n_bytes,
            n_recorded: n_bytes,
            recorded_at: Instant::now(),
            n_came: 0,
        };
        // Where all of it is recorded as here and it is still the same, there is nothing left to ask for.
        if n_bytes == 0 || fetching.facts.len != Some(n_bytes) || fetching.facts.validator != origin.facts.validator {
            fetching.fetch_rest(&origin).await?;
        }
        fetching.finish().await
    }

    async fn ask_origin(&self, url: &OriginUrl) -> Result<Origin, Failed> {
        let mut n_tries = 0;
        loop {
            match Origin::ask(url, self.config.origin_timeout).await {
                Ok(origin) => return Ok(origin),
                Err(OriginError::Unreachable(why)) if n_tries + 1 < MAX_FIRST_TRIES => {
                    tracing::debug!(%url, why, "an origin does not answer");
                    n_tries += 1;
                    tokio::time::sleep(self.origin_pause(n_tries)).await;
                }
                Err(error) => return Err(explain_origin(url, &error)),
            }
        }
    }

    fn origin_pause(&self, n_tries: u32) -> Duration {
        self.config.origin_pause * (1 << n_tries.min(5))
    }
}

impl Fetching<'_> {
    /// Asks for what is missing until all is here.
    async fn fetch_rest(&mut self, origin: &Origin) -> Result<(), Failed> {
        let mut n_tries = 0;
        loop {
            let before = self.n_bytes;
            let why = match origin.rest(self.n_bytes, &self.facts).await {
                Ok(rest) => {
                    if rest.offset < self.n_bytes {
                        tracing::info!(url = %self.what.url, "the origin has another state, or gives no ranges: begun anew");
                        self.begin_anew().await?;
                    }
                    self.facts = rest.facts;
                    match self.take(rest.response).await? {
                        None => return Ok(()),
                        Some(why) => why,
                    }
                }
                Err(OriginError::Unreachable(why)) => why,
                Err(error) => return Err(explain_origin(self.what.url, &error)),
            };
            tracing::debug!(url = %self.what.url, why, n_bytes = self.n_bytes, "an origin broke off");
            n_tries = if self.n_bytes > before { 1 } else { n_tries + 1 };
            if n_tries >= MAX_TRIES {
                self.record().await?;
                return Err(explain_origin(self.what.url, &OriginError::Unreachable(why)));
            }
            tokio::time::sleep(self.downloads.origin_pause(n_tries)).await;
        }
    }

    /// Reads one answer to its end; why it ended early, if it did.
    async fn take(&mut self, mut response: Response) -> Result<Option<String>, Failed> {
        let (mut pieces, mut n_waiting) = (Vec::new(), 0);
        loop {
            let piece = next_piece(&mut response).await;
            let ended = !matches!(piece, Ok(Some(_)));
            if let Ok(Some(piece)) = &piece {
                self.count(piece.len() as u64).await;
                n_waiting += piece.len();
                pieces.push(piece.clone());
            }
            if n_waiting >= WRITE_LEN || ended {
                self.write(std::mem::take(&mut pieces), n_waiting as u64).await?;
                n_waiting = 0;
            }
            match piece {
                Ok(Some(_)) => {}
                Ok(None) if self.facts.len.is_none_or(|len| len == self.n_bytes) => return Ok(None),
                Ok(None) => return Ok(Some(format!("it ended after {} bytes", self.n_bytes))),
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
    }

    /// As fast as the limit lets us.
    async fn count(&mut self, n_bytes: u64) {
        let mut left = n_bytes;
        while left > 0 {
            let n_granted = self.downloads.limit.take_piece(left).await;
            left -= n_granted;
            self.downloads.traffic.down.fetch_add(n_granted, Ordering::Relaxed);
        }
        self.n_came += n_bytes;
    }

    async fn write(&mut self, pieces: Vec<Bytes>, n_bytes: u64) -> Result<(), Failed> {
        if self.facts.len.is_none() {
            self.downloads.check_free(n_bytes)?;
        }
        let (spool, offset) = (self.spool.clone(), self.n_bytes);
        self.disk(move || spool.write(&pieces, offset)).await?;
        self.n_bytes += n_bytes;
        self.moving.on_progress(self.facts.len.unwrap_or(0), self.n_bytes, 1, None);
        let config = &self.downloads.config;
        if self.n_bytes - self.n_recorded >= config.record_bytes || self.recorded_at.elapsed() >= config.record_interval
        {
            self.record().await?;
        }
        Ok(())
    }

    async fn record(&mut self) -> Result<(), Failed> {
        // Without a word on its state it could not be gone on with.
        if self.facts.validator.is_some() {
            let record = SpoolRecord {
                request: self.what.request.clone(),
                n_bytes: self.n_bytes,
                len: self.facts.len,
                validator: self.facts.validator.clone(),
            };
            let spool = self.spool.clone();
            self.disk(move || spool.record(&record)).await?;
        }
        (self.n_recorded, self.recorded_at) = (self.n_bytes, Instant::now());
        Ok(())
    }

    async fn begin_anew(&mut self) -> Result<(), Failed> {
        let spool = self.spool.clone();
        self.disk(move || spool.clear()).await?;
        (self.n_bytes, self.n_recorded) = (0, 0);
        Ok(())
    }

    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failed> {
        let done = on_disk(work).await;
        done.map_err(|error| disk_failed(&path_of(&self.downloads.folder, self.target), &error))
    }

    /// Finds out what it is, and gives it its name.
    async fn finish(self) -> Result<(ContentId, Outcome), Failed> {
        let Self { downloads, what, target, spool, n_bytes, n_came, .. } = self;
        let kept = spool.clone();
        let hashed = on_disk(move || {
            kept.end_at(n_bytes)?;
            hash_file(kept.file(), FileIdentity::of(kept.file())?, HASHERS).map_err(io::Error::other)
        });
        let path = path_of(&downloads.folder, target);
        let map: ChunkMap = hashed.await.map_err(|error| disk_failed(&path, &error))?;
        let id = map.content_id();
        if let Some(wanted) = what.wanted.filter(|wanted| !id.to_string().starts_with(wanted)) {
            let forgotten = on_disk(move || spool.forget()).await;
            forgotten.map_err(|error| disk_failed(&path, &error))?;
            return Err(Failed::new(
                FailureKind::Unverified,
                format!("what {} gives is not {wanted} but {id}", what.url),
                "Nothing of it is kept. Check the address, or name that content if it is the one you want.",
            ));
        }
        let (folder, partials, goal) = (downloads.folder.clone(), downloads.partials.clone(), target.clone());
        let placed = tokio::task::spawn_blocking(move || {
            place(&folder, partials.dir(), spool.name(), spool.file(), &goal)?;
            spool.forget()?;
            Ok(FileIdentity::of(spool.file())?)
        });
        match placed.await.map_err(|error| PlaceError::Io(io::Error::other(error))).flatten() {
            Ok(identity) => {
                downloads.on_placed(map, identity, target);
                let from = (n_came > 0).then(|| Contribution { name: what.url.host(), n_bytes: n_came.min(n_bytes) });
                Ok((id, Outcome { len: n_bytes, from: from.into_iter().collect(), dressed: None }))
            }
            Err(PlaceError::Taken) => Err(taken(&downloads.folder, target)),
            Err(PlaceError::Io(error)) => Err(disk_failed(&path, &error)),
        }
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}
