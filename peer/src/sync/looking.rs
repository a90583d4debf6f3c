//! What is to be looked at in the folder, and the looks that run: one at single places and one at everything.
//!
//! Between the moment something is looked at and the moment it is told, an action may have changed it. So whatever an
//! action has touched since a look began is not told but looked at again.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use potluck_common::SharePath;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::look::{Look, look};
use super::machine::Machine;
use super::mounts::Mounts;
use crate::share::folder::ShareFolder;

/// What a look at everything hands over at once.
const BATCH: usize = 512;
/// Batches that it may be ahead.
const AHEAD: usize = 4;

/// What was found.
#[derive(Debug)]
pub enum Looked {
    /// These things stand there.
    Found(Vec<(SharePath, Look)>),
    /// Everything was told.
    All,
    /// A look at everything could not be finished.
    NotAll,
    /// The share folder is not there any more: what was found says nothing.
    Lost,
}

type Found = Vec<(SharePath, Look)>;

/// A look at everything that runs.
#[derive(Debug)]
struct Walk {
    batches: mpsc::Receiver<Found>,
    ended: JoinHandle<io::Result<()>>,
    touched: BTreeSet<SharePath>,
}

/// A look at some places that runs.
#[derive(Debug)]
struct Visit {
    found: JoinHandle<io::Result<Found>>,
    touched: BTreeSet<SharePath>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Looking {
    folder: Arc<ShareFolder>,
    mounts: Arc<Mounts>,
    wanted: BTreeSet<SharePath>,
    all_wanted: Option<Instant>,
    visit: Option<Visit>,
    walk: Option<Walk>,
}

impl Looking {
    /// Nothing is wanted yet.
    pub fn new(folder: Arc<ShareFolder>, mounts: Arc<Mounts>) -> Self {
        Self { folder, mounts, wanted: BTreeSet::new(), all_wanted: None, visit: None, walk: None }
    }

    /// These places are to be looked at, with what lies below.
    pub fn want(&mut self, places: impl IntoIterator<Item = SharePath>) {
        self.wanted.extend(places);
    }

    /// Everything is.
    pub fn want_all(&mut self) {
        self.want_all_after(Instant::now());
    }

    /// Everything is, but not before then.
    pub fn want_all_after(&mut self, at: Instant) {
        self.all_wanted = Some(self.all_wanted.map_or(at, |wanted| wanted.min(at)));
    }

    /// When [`Looking::begin`] has something to begin, if it waits for a time.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.all_wanted.filter(|_| self.walk.is_none())
    }

    /// Whether nothing is wanted and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.all_wanted.is_none() && self.visit.is_none() && self.walk.is_none()
    }

    /// An action begins or has ended at a path.
    pub fn touched(&mut self, real: &SharePath) {
        if let Some(visit) = &mut self.visit {
            visit.touched.insert(real.clone());
        }
        if let Some(walk) = &mut self.walk {
            walk.touched.insert(real.clone());
        }
    }

    /// Begins what can be begun.
    pub fn begin(&mut self, machine: &mut Machine) {
        if self.walk.is_none() && self.all_wanted.is_some_and(|at| at <= Instant::now()) {
            self.all_wanted = None;
            if machine.is_paused() && self.folder.is_intact() {
                machine.on_folder_back();
            }
            machine.on_scan_began();
            self.walk = Some(self.walk_everything());
        }
        if self.visit.is_none() && !self.wanted.is_empty() {
            let places = std::mem::take(&mut self.wanted);
            let (folder, mounts) = (self.folder.clone(), self.mounts.clone());
            let found = tokio::task::spawn_blocking(move || visit(&folder, &mounts, &places));
            self.visit = Some(Visit { found, touched: BTreeSet::new() });
        }
    }

    fn walk_everything(&self) -> Walk {
        let (sender, batches) = mpsc::channel(AHEAD);
        let (folder, mounts) = (self.folder.clone(), self.mounts.clone());
        let ended = tokio::task::spawn_blocking(move || {
            let mut batch = Vec::with_capacity(BATCH);
            let outcome = look(&folder, None, &mounts, &mut |path, look| {
                batch.push((path, look));
                batch.len() < BATCH || sender.blocking_send(std::mem::take(&mut batch)).is_ok()
            });
            let _closed = sender.blocking_send(batch);
            if folder.is_intact() { outcome } else { Err(lost()) }
        });
        Walk { batches, ended, touched: BTreeSet::new() }
    }

    /// What was found next; never, while nothing runs. May be dropped at any moment: nothing is lost by that.
    pub async fn next(&mut self) -> Looked {
        tokio::select! {
            found = visited(&mut self.visit) => {
                let touched = self.visit.take().map(|visit| visit.touched).unwrap_or_default();
                match found {
                    Ok(found) => Looked::Found(self.untouched(found, &touched)),
                    Err(error) if is_lost(&error) => Looked::Lost,
                    Err(error) => {
                        tracing::error!(%error, "a look at the share folder failed");
                        Looked::Found(Vec::new())
                    }
                }
            }
            step = walked(&mut self.walk) => match step {
                Step::Found(found) => {
                    let touched = self.walk.as_mut().map(|walk| std::mem::take(&mut walk.touched)).unwrap_or_default();
                    let found = self.untouched(found, &touched);
                    if let Some(walk) = &mut self.walk {
                        walk.touched.extend(touched);
                    }
                    Looked::Found(found)
                }
                Step::Ended(ended) => {
                    self.walk = None;
                    match ended {
                        Ok(()) => Looked::All,
                        Err(error) if is_lost(&error) => Looked::Lost,
                        Err(error) => {
                            tracing::warn!(%error, "the share folder cannot be read as a whole; nothing is taken for deleted");
                            Looked::NotAll
                        }
                    }
                }
            },
        }
    }

    /// What no action has touched since it was looked at; the rest is looked at again.
    fn untouched(&mut self, found: Found, touched: &BTreeSet<SharePath>) -> Found {
        let (again, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|(real, _)| touched.contains(real));
        self.wanted.extend(again.into_iter().map(|(real, _)| real));
        found
    }
}

fn visit(folder: &ShareFolder, mounts: &Mounts, places: &BTreeSet<SharePath>) -> io::Result<Found> {
    let mut found = Vec::new();
    for place in places {
        let n_before = found.len();
        let outcome = look(folder, Some(place), mounts, &mut |path, look| {
            found.push((path, look));
            true
        });
        if let Err(error) = outcome {
            // Nothing is known of it then; the next look at everything says more.
            tracing::warn!(place = place.as_str(), %error, "cannot be looked at");
            found.truncate(n_before);
        }
    }
    if folder.is_intact() { Ok(found) } else { Err(lost()) }
}

async fn visited(visit: &mut Option<Visit>) -> io::Result<Found> {
    match visit {
        Some(visit) => (&mut visit.found).await.unwrap_or_else(|error| Err(io::Error::other(error))),
        None => std::future::pending().await,
    }
}

enum Step {
    Found(Found),
    Ended(io::Result<()>),
}

async fn walked(walk: &mut Option<Walk>) -> Step {
    let Some(walk) = walk else { return std::future::pending().await };
    match walk.batches.recv().await {
        Some(found) => Step::Found(found),
        None => Step::Ended((&mut walk.ended).await.unwrap_or_else(|error| Err(io::Error::other(error)))),
    }
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "the share folder is not there any more")
}

fn is_lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StaleNetworkFileHandle
}
