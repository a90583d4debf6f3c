//! Peers come, meet and go: arrivals, handouts and have streams, as `download/large` does it.

use potluck_common::have::HaveSet;
use potluck_peer::scheduler::{Holds, Scheduler};

use crate::events::Event;
use crate::peers::{Fault, Leaves, Role, Word, id_of};
use crate::sim::Sim;
use crate::tracker::Handout;

/// Have streams that one download listens to, at most.
const MAX_NEIGHBOURS: usize = 40;
/// Seconds in which a swarm gathers.
const GATHERING: f64 = 5.0;
/// Changes of a catalogue are gathered for so long before they are announced.
const ANNOUNCE_GATHER: f64 = 0.02;

impl Sim {
    /// A leecher begins, or goes on with what it holds.
    pub(crate) fn arrive(&mut self, peer: usize) {
        let seed = self.rng.u64(..);
        let it = &mut self.peers[peer];
        it.is_present = true;
        it.n_visits += 1;
        it.scheduler = Some(Scheduler::new(self.geometry, it.have.clone(), self.config.clone(), seed));
        it.arrived_at = self.time;
        it.is_announced = false;
        it.named.clear();
        if it.have.n_held() > 0 || self.habits.is_listed_early {
            self.announce(peer);
        }
        self.refresh(peer);
    }

    /// A handout comes, and the next one after a pause.
    pub(crate) fn refresh(&mut self, peer: usize) {
        if self.peers[peer].scheduler.is_none() {
            return;
        }
        let handout = self.tracker.handout(&mut self.rng);
        self.on_owners(peer, &handout);
        let it = &mut self.peers[peer];
        let is_gathering = self.time < it.arrived_at + GATHERING && it.hears.len() < MAX_NEIGHBOURS;
        let pause = if is_gathering { self.habits.first_refresh } else { self.habits.max_refresh };
        self.events.push(self.time + pause, Event::Refresh(peer, it.n_visits));
        self.look(peer);
    }

    fn on_owners(&mut self, peer: usize, handout: &Handout) {
        let now = self.now();
        let it = &mut self.peers[peer];
        let Some(scheduler) = &mut it.scheduler else { return };
        if handout.is_all {
            let is_listed = |owner: &usize| handout.complete.contains(owner) || handout.partial.contains(owner);
            for owner in it.named.iter().filter(|owner| !is_listed(owner) && !it.hears.contains(owner)) {
                scheduler.on_owner_gone(id_of(*owner));
            }
        }
        let others = |list: &[usize]| list.iter().copied().filter(|owner| *owner != peer).collect::<Vec<_>>();
        let (complete, partial) = (others(&handout.complete), others(&handout.partial));
        for owner in &complete {
            scheduler.on_owner(id_of(*owner), Holds::All, now);
        }
        it.named.extend(complete.iter().chain(&partial));
        if !partial.is_empty() {
            let mut order = [complete, partial].concat();
            self.rng.shuffle(&mut order);
            order.into_iter().for_each(|owner| self.listen(peer, owner));
        }
    }

    fn listen(&mut self, peer: usize, owner: usize) {
        let it = &self.peers[peer];
        if it.hears.len() >= MAX_NEIGHBOURS || it.hears.contains(&owner) {
            return;
        }
        let visit = it.n_visits;
        self.peers[peer].hears.push(owner);
        self.peers[owner].followers.push((peer, visit));
        self.say(peer, self.round_trip(peer, owner), Word::State(owner));
    }

    /// Something reaches a peer after a while.
    pub(crate) fn say(&mut self, peer: usize, delay: f64, word: Word) {
        let gather = self.habits.gather;
        let at = ((self.time + delay) / gather).ceil() * gather;
        self.peers[peer].inbox.push((at, word));
        self.wake(peer, at);
    }

    /// A peer wants to look around at that time, or earlier.
    pub(crate) fn wake(&mut self, peer: usize, at: f64) {
        let at = at.max(self.time);
        if at < self.peers[peer].look_at {
            self.peers[peer].look_at = at;
            self.events.push(at, Event::Look(peer));
        }
    }

    /// Tells whoever listens to a peer's have stream.
    pub(crate) fn tell(&mut self, peer: usize, word: Word) {
        let mut followers = std::mem::take(&mut self.peers[peer].followers);
        followers.retain(|(to, visit)| self.is_visit(*to, *visit) && self.peers[*to].scheduler.is_some());
        for (to, _) in &followers {
            self.say(*to, self.round_trip(peer, *to) / 2.0, word);
        }
        self.peers[peer].followers = followers;
    }

    /// The tracker hears of what a peer holds.
    pub(crate) fn announce(&mut self, peer: usize) {
        let it = &mut self.peers[peer];
        it.is_announced = true;
        self.events.push(self.time + ANNOUNCE_GATHER + it.spec.latency, Event::Announced(peer, it.n_visits));
    }

    /// A leecher holds everything: from now on it is a complete owner.
    pub(crate) fn complete(&mut self, peer: usize) {
        let it = &mut self.peers[peer];
        it.scheduler = None;
        it.done_at = Some(self.time);
        self.stop_fetching(peer);
        self.announce(peer);
        self.tell(peer, Word::Complete(peer));
        let it = &self.peers[peer];
        self.n_awaited -= usize::from(it.spec.is_awaited());
        if let Leaves::Complete { after } = it.spec.leaves {
            self.events.push(self.time + after, Event::Leaves(peer, it.n_visits));
        }
    }

    fn stop_fetching(&mut self, peer: usize) {
        for fetch in std::mem::take(&mut self.peers[peer].fetches) {
            self.drop_flow(fetch.flow, fetch.from, peer);
        }
        let it = &mut self.peers[peer];
        it.hears = Vec::new();
        it.inbox = Vec::new();
        it.look_at = f64::INFINITY;
    }

    /// A peer says goodbye to the tracker and is gone, at once.
    pub(crate) fn leave(&mut self, peer: usize) {
        self.tracker.list(peer, None);
        self.cut_off(peer);
        self.peers[peer].scheduler = None;
        self.stop_fetching(peer);
        if let Leaves::HalfWay { back_after: Some(after), .. } = self.peers[peer].spec.leaves
            && self.peers[peer].n_visits == 1
        {
            self.events.push(self.time + after, Event::Arrives(peer));
        }
    }

    /// Whoever receives from a peer or listens to it notices that it is gone.
    fn cut_off(&mut self, peer: usize) {
        self.peers[peer].is_present = false;
        self.break_uploads(peer);
        self.tell(peer, Word::Ended(peer));
        self.peers[peer].followers.clear();
    }

    pub(crate) fn fail(&mut self, peer: usize) {
        match self.peers[peer].spec.fault {
            Fault::Vanishes(_) => self.cut_off(peer),
            Fault::Freezes(_) => self.links.set_up(peer, 0.0),
            Fault::None | Fault::Silent | Fault::Bad { .. } => {}
        }
    }

    /// Whether it is time for a peer to go, after it gained or sent something.
    pub(crate) fn perhaps_leave(&mut self, peer: usize) {
        let it = &self.peers[peer];
        let goes = match it.spec.leaves {
            Leaves::Never | Leaves::Complete { .. } => false,
            Leaves::HalfWay { part, .. } => {
                it.spec.role == Role::Leecher
                    && it.n_visits == 1
                    && f64::from(it.have.n_held()) >= part * f64::from(it.have.n_chunks())
            }
            Leaves::Sent { n_copies } => it.n_sent >= n_copies * self.geometry.len() as f64 && self.safe.is_complete(),
        };
        if goes && it.is_present {
            let visit = it.n_visits;
            self.events.push(self.time, Event::Leaves(peer, visit));
        }
    }

    /// What the first line of a have stream says.
    pub(crate) fn state_of(&self, owner: usize) -> Option<HaveSet> {
        let it = &self.peers[owner];
        (it.is_present && (it.have.n_held() > 0 || it.scheduler.is_some())).then(|| it.have.clone())
    }
}
