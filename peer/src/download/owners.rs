//! Who can give a content: the tracker's handout, less ourselves and whoever was not asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use potluck_common::protocol::{ContentInfo, Owner};
use potluck_common::{ContentId, PeerId};
use reqwest::Url;

use super::job::Downloads;
use super::plan::Item;
use crate::verb::{Failed, FailureKind, From};
use crate::wire::tracker_client::AskError;

/// Owners asked of the tracker for one content: enough to fill every link we could have, and a bound on what a large
/// swarm costs us.
const MAX_OWNERS: usize = 50;

/// An owner that may be dialled.
#[derive(Debug, Clone)]
pub struct Source {
    /// What the tracker says of it.
    pub owner: Owner,
    /// Where to ask.
    pub base: Url,
}

/// Owners by id.
pub type Sources = BTreeMap<PeerId, Arc<Source>>;

/// How long the owners of one content are taken for those of the next one.
const RECENT: Duration = Duration::from_secs(1);

/// The owners of the small content that was asked for last. Whoever has one file of a folder most likely has the next one
/// too, so that of thousands only few are looked up. A wrong guess costs a request.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Option<(Instant, Sources)>>);

impl Recent {
    pub(super) fn set(&self, sources: &Sources, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, sources.clone()));
    }

    pub(super) fn get(&self, now: Instant) -> Option<Sources> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(since, _)| now.duration_since(*since) < RECENT).map(|(_, sources)| sources.clone())
    }
}

impl Downloads {
    /// What the trackers know of a content.
    pub(super) async fn content_info(&self, id: ContentId) -> Result<ContentInfo, AskError> {
        self.directory.content(id, MAX_OWNERS).await
    }

    /// The owners of what is to be fetched that may be asked, at least one.
    pub(super) async fn sources_of(&self, item: &Item, from: &From) -> Result<Sources, Failed> {
        let owners = match &item.owners {
            Some(owners) => owners.clone(),
            None => {
                let info = self.content_info(item.content_id).await.map_err(|error| explain(&error, "it"))?;
                info.owners.into_iter().map(Arc::new).collect()
            }
        };
        let sources = self.sources(owners.iter().map(|owner| &**owner), from);
        if !sources.is_empty() {
            return Ok(sources);
        }
        Err(match from {
            From::Peer(peer) => Failed::new(
                FailureKind::NotFound,
                format!("the peer {peer:?} does not have it"),
                "Leave --from away to take it from whoever has it.",
            ),
            From::All | From::Single => self.nobody_to_ask(&owners),
        })
    }

    /// Why none of the owners can be asked.
    fn nobody_to_ask(&self, owners: &[Arc<Owner>]) -> Failed {
        let me = self.who.peer_id();
        match owners.iter().find(|owner| owner.peer_id != me && self.peers.base_of(owner).is_none()) {
            Some(owner) => Failed::new(
                FailureKind::Unreachable,
                format!("{} has it, but is listed at {}, which means another machine here", owner.name, owner.base_url),
                "Start that peer with --advertise HOST, or with the tracker's address in the network instead of a loopback one.",
            ),
            None => explain(&AskError::NotFound, "it at the moment"),
        }
    }

    /// The owners of a handout that may be asked; partial ones only where everybody is.
    pub(super) fn sources<'a>(&self, owners: impl IntoIterator<Item = &'a Owner>, from: &From) -> Sources {
        let me = self.who.peer_id();
        let wanted = |owner: &Owner| match from {
            From::Peer(peer) => owner.name == *peer || owner.peer_id.to_string() == *peer,
            From::All | From::Single => true,
        };
        let usable = owners
            .into_iter()
            .filter(|owner| (owner.complete || *from == From::All) && owner.peer_id != me && wanted(owner));
        usable
            .filter_map(|owner| {
                Some((owner.peer_id, Arc::new(Source { owner: owner.clone(), base: self.peers.base_of(owner)? })))
            })
            .collect()
    }
}

/// Whom to ask together: everybody, or one after another.
pub(super) fn attempts(sources: Sources, from: &From) -> Vec<Sources> {
    if *from != From::Single {
        return vec![sources];
    }
    let mut order: Vec<_> = sources.into_iter().map(|source| Sources::from([source])).collect();
    fastrand::shuffle(&mut order);
    order
}

/// A tracker's refusal in words for a person.
pub fn explain(error: &AskError, what: &str) -> Failed {
    match error {
        AskError::NotFound => {
            Failed::new(FailureKind::NotFound, format!("nobody shares {what}"), "show lists what is there.")
        }
        AskError::NoTracker => Failed::new(
            FailureKind::Unreachable,
            "no tracker was found on this network",
            "Start a peer that stays (potluck up) here or on another machine, or name a tracker with --tracker (or POTLUCK_TRACKER).",
        ),
        AskError::Unreachable(why) => Failed::new(
            FailureKind::Unreachable,
            format!("no tracker answers ({why})"),
            "Check that it runs, and the address given with --tracker (or POTLUCK_TRACKER).",
        ),
        AskError::Wait(_) => {
            Failed::new(FailureKind::Unreachable, "the tracker is too busy to answer", "Try again in a moment.")
        }
        AskError::Refused(problem) => {
            Failed::new(FailureKind::Failed, format!("the tracker refuses: {}", problem.title), problem.detail.clone())
        }
    }
}
