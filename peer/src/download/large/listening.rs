//! Owners as they come, go and gain: from the tracker's handouts and from neighbours' streams into the scheduler, and what we
//! hold back to the tracker.

use std::time::{Duration, Instant};

use potluck_common::protocol::ContentInfo;

use super::Driver;
use crate::download::neighbours::Heard;
use crate::download::owners::Sources;
use crate::scheduler::Holds;
use crate::verb::From;

/// How often the tracker is told how many chunks we hold: for people to look at, since neighbours hear it from us.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);

impl Driver<'_> {
    pub(super) fn on_owners(&mut self, info: &ContentInfo) {
        let mut sources = self.downloads.sources(&info.owners, self.from);
        if *self.from == From::Single {
            sources.retain(|owner, _| self.sources.contains_key(owner));
        }
        // A handout names only some of a large swarm: who is not in it is gone only if everybody was named, and not if
        // we hear from it.
        let all_named = info.owners.len() as u64 >= info.n_owners + info.n_partial;
        let unnamed = self.sources.keys().filter(|owner| !sources.contains_key(owner));
        for owner in unnamed.filter(|owner| all_named && !self.neighbours.hears(**owner)) {
            self.scheduler.on_owner_gone(*owner);
        }
        self.on_sources(sources);
    }

    pub(super) fn on_sources(&mut self, mut sources: Sources) {
        let now = Instant::now();
        sources.retain(|owner, _| !self.liars.contains(owner));
        for source in sources.values().filter(|source| source.owner.complete) {
            self.scheduler.on_owner(source.owner.peer_id, Holds::All, now);
        }
        if sources.values().any(|source| !source.owner.complete) {
            self.neighbours.listen(&sources, &mut self.tasks);
        }
        self.sources.extend(sources);
    }

    /// What a neighbour holds and gains. What it claims costs it nothing and us a request: the bytes are verified anyway.
    pub(super) fn on_heard(&mut self, heard: Heard) {
        let geometry = self.partial.map().geometry();
        let now = Instant::now();
        let (owner, line) = match heard {
            Heard::Line(owner, line) => (owner, line),
            Heard::Ended(owner) => {
                tracing::debug!(owner = self.name_of(owner), "a neighbour's stream ended");
                self.neighbours.on_ended(owner);
                if self.sources.get(&owner).is_some_and(|source| !source.owner.complete) {
                    self.scheduler.on_owner_gone(owner);
                }
                return;
            }
        };
        if line.complete {
            self.scheduler.on_owner(owner, Holds::All, now);
        } else if let Some(have) = line.have.and_then(|have| have.parse(geometry).ok()) {
            self.scheduler.on_owner(owner, Holds::Some(have), now);
        }
        for chunk in line.gained.into_iter().filter_map(|chunk| geometry.index(chunk)) {
            self.scheduler.on_have(owner, chunk);
        }
        for chunk in line.coming.into_iter().filter_map(|chunk| geometry.index(chunk)) {
            self.scheduler.on_coming(chunk);
        }
    }

    /// Tells the tracker at the start that we are an owner too, and then once in a while how far we are.
    ///
    /// Before there is a chunk to hand on: then others listen already when the first one comes, and choose their neighbours
    /// among all who fetch, not among the few who are first.
    pub(super) fn announce(&mut self, now: Instant) {
        if self.announced.is_none_or(|at| now >= at + ANNOUNCE_EVERY) {
            self.announced = Some(now);
            let map = self.partial.map();
            self.downloads.library.set_partial(map.content_id(), map.geometry().len(), self.have.n_held().max(1));
        }
    }
}
