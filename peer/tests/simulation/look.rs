//! What a driver does when something happened: it hears, tells its scheduler, and asks for what that decides.

use potluck_peer::scheduler::Holds;

use crate::events::Event;
use crate::peers::{Word, id_of, peer_of};
use crate::sim::Sim;

/// A scheduler is told of bytes that are no whole chunk yet so often, in seconds: as often as it measures rates.
const TELL_EVERY: f64 = 0.05;

impl Sim {
    pub(crate) fn look(&mut self, peer: usize) {
        self.peers[peer].look_at = f64::INFINITY;
        if self.peers[peer].scheduler.is_none() {
            return;
        }
        let next_word = self.hear(peer);
        if self.time >= self.peers[peer].told_at + TELL_EVERY {
            self.peers[peer].told_at = self.time;
            (0..self.peers[peer].fetches.len()).for_each(|fetch| self.tell_bytes(peer, fetch));
        }
        self.ask(peer);
        let deadline = self.peers[peer].scheduler.as_ref().and_then(potluck_peer::scheduler::Scheduler::next_deadline);
        let deadline = deadline.map_or(f64::INFINITY, |at| self.time_of(at));
        let next = next_word.min(deadline);
        if next.is_finite() {
            self.wake(peer, next);
        }
    }

    /// Hears what has come; when the next word will.
    fn hear(&mut self, peer: usize) -> f64 {
        let now = self.now();
        let mut next = f64::INFINITY;
        let mut inbox = std::mem::take(&mut self.peers[peer].inbox);
        for (at, word) in &inbox {
            if *at <= self.time {
                self.hear_word(peer, *word, now);
            } else {
                next = next.min(*at);
            }
        }
        inbox.retain(|(at, _)| *at > self.time);
        self.peers[peer].inbox = inbox;
        next
    }

    fn hear_word(&mut self, peer: usize, word: Word, now: std::time::Instant) {
        let state = if let Word::State(owner) = word { self.state_of(owner) } else { None };
        let it = &mut self.peers[peer];
        let Some(scheduler) = &mut it.scheduler else { return };
        match word {
            Word::State(owner) => match state {
                Some(have) if have.is_complete() => scheduler.on_owner(id_of(owner), Holds::All, now),
                Some(have) => scheduler.on_owner(id_of(owner), Holds::Some(have), now),
                None => it.hears.retain(|other| *other != owner),
            },
            Word::Have(owner, chunk) => scheduler.on_have(id_of(owner), chunk),
            Word::Coming(chunk) => scheduler.on_coming(chunk),
            Word::Complete(owner) => scheduler.on_owner(id_of(owner), Holds::All, now),
            Word::Ended(owner) => {
                it.hears.retain(|other| *other != owner);
                scheduler.on_owner_gone(id_of(owner));
            }
            Word::Failed(request, failure) => scheduler.on_failed(request, failure, now),
        }
    }

    /// Asks for what the scheduler wants, and ends what it no longer wants.
    fn ask(&mut self, peer: usize) {
        let now = self.now();
        let Some(scheduler) = &mut self.peers[peer].scheduler else { return };
        scheduler.on_tick(now);
        let cancels: Vec<_> = std::iter::from_fn(|| scheduler.next_cancel()).collect();
        let requests: Vec<_> = std::iter::from_fn(|| scheduler.next_request(now)).collect();
        for cancel in cancels {
            let fetches = &mut self.peers[peer].fetches;
            if let Some(at) = fetches.iter().position(|fetch| fetch.request.id == cancel) {
                let fetch = fetches.remove(at);
                self.drop_flow(fetch.flow, fetch.from, peer);
            }
        }
        for request in requests {
            let at = self.time + self.round_trip(peer, peer_of(request.owner));
            self.events.push(at, Event::Answer(peer, self.peers[peer].n_visits, request));
        }
    }
}
