//! Who can give a content: the tracker's handout, less ourselves and whoever was not asked for.

use std::collections::BTreeMap;

use potluck_common::protocol::{ContentInfo, Owner};
use potluck_common::{ContentId, PeerId};
use reqwest::Url;

use super::job::Downloads;
use crate::verb::{Failed, FailureKind, From};
use crate::wire::tracker_client::AskError;

/// Owners asked of the tracker for one content: enough to fill every link we could have, and a bound on what a large
/// swarm costs us.
const MAX_OWNERS: usize = 50;

/// A tracker that asks to wait is asked again so often before the next one is.
const MAX_WAITS: u32 = 10;

/// An owner that may be dialled.
#[derive(Debug, Clone)]
pub struct Source {
    /// What the tracker says of it.
    pub owner: Owner,
    /// Where to ask.
    pub base: Url,
}

/// Owners by id.
pub type Sources = BTreeMap<PeerId, Source>;

impl Downloads {
    /// Asks the first tracker that answers.
    pub(crate) async fn ask<T, F>(
        &self,
        ask: impl Fn(crate::wire::tracker_client::TrackerClient) -> F,
    ) -> Result<T, AskError>
    where
        F: Future<Output = Result<T, AskError>>,
    {
        let mut last = AskError::Unreachable("no tracker is configured".into());
        for tracker in self.trackers.iter() {
            let mut n_waits = 0;
            loop {
                match ask(tracker.clone()).await {
                    Err(AskError::Wait(wait)) if n_waits < MAX_WAITS => {
                        n_waits += 1;
                        tokio::time::sleep(wait).await;
                    }
                    Err(error @ (AskError::Unreachable(_) | AskError::Wait(_))) => {
                        last = error;
                        break;
                    }
                    answer => return answer,
                }
            }
        }
        Err(last)
    }

    /// What the trackers know of a content.
    pub(super) async fn content_info(&self, id: ContentId) -> Result<ContentInfo, AskError> {
        self.ask(|tracker| async move { tracker.content(id, MAX_OWNERS).await }).await
    }

    /// The owners of a handout that may be asked; partial ones only where everybody is.
    pub(super) fn sources(&self, owners: &[Owner], from: &From) -> Sources {
        let me = self.who.peer_id();
        let wanted = |owner: &Owner| match from {
            From::Peer(peer) => owner.name == *peer || owner.peer_id.to_string() == *peer,
            From::All | From::Single => true,
        };
        let usable = owners
            .iter()
            .filter(|owner| (owner.complete || *from == From::All) && owner.peer_id != me && wanted(owner));
        usable
            .filter_map(|owner| {
                Some((owner.peer_id, Source { owner: owner.clone(), base: self.peers.base_of(owner)? }))
            })
            .collect()
    }
}

/// A tracker's refusal in words for a person.
pub fn explain(error: &AskError, what: &str) -> Failed {
    match error {
        AskError::NotFound => {
            Failed::new(FailureKind::NotFound, format!("nobody shares {what}"), "show lists what is there.")
        }
        AskError::Unreachable(why) => Failed::new(
            FailureKind::Unreachable,
            format!("the tracker does not answer: {why}"),
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
