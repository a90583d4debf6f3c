//! The end of a download: an owner that has nothing left to do takes over what slower ones still owe.
//!
//! While a request has chunks that have not begun to arrive, an idle owner takes a part of them, in
//! proportion to the rates, and the victim's request ends earlier than it was sent for. When only begun
//! chunks are left and nothing is Missing (the endgame), such a chunk is asked a second time if that
//! clearly ends sooner, or if its owner has gone silent in the middle. Invariant: a chunk never has more
//! than two carriers, and at most `max_doubled` chunks have two.

use std::time::{Duration, Instant};

use potluck_common::chunk::{ChunkIndex, Run};

use super::owners::Owner;
use super::picker::Ready;
use super::{Request, RequestId, Running, Scheduler};

/// A request that somebody else could finish sooner.
struct Victim {
    id: RequestId,
    /// Seconds until its owner has brought everything it still owes.
    time: f64,
    /// Bytes that its owner still has to send, over all its requests.
    n_left: f64,
    rate: f64,
}

impl Scheduler {
    /// The best that the owners without any request can do for the others.
    pub(super) fn steal(&mut self, ready: &[Ready], now: Instant) -> Option<Request> {
        if self.requests.is_empty() {
            return None;
        }
        let mut thieves: Vec<_> = ready.iter().filter(|one| one.n_requests == 0).collect();
        if thieves.is_empty() {
            return None;
        }
        // A chunk has two carriers at most: the second one is to be somebody who has shown that it gives anything.
        thieves.sort_by_key(|thief| thief.rate.is_none());
        // A thief has no request, so the victims are the same for all: this is asked after every fact.
        let mut victims = self.victims(now);
        victims.sort_by(|a, b| b.time.total_cmp(&a.time).then(a.id.cmp(&b.id)));
        if victims.is_empty() {
            return None;
        }
        thieves.into_iter().find_map(|thief| {
            let stolen = victims.iter().find_map(|victim| self.steal_tail(thief, victim, now));
            stolen.or_else(|| victims.iter().find_map(|victim| self.double(thief, victim, now)))
        })
    }

    fn victims(&self, now: Instant) -> Vec<Victim> {
        // A chunk that was begun is asked again only in the endgame; before, there has to be another one to take.
        let n_owed_least = if self.chunks.missing().is_empty() { 1 } else { 2 };
        let victim = |(id, running): (&RequestId, &Running)| {
            let held_back = running.held_back.map(|at| now.saturating_duration_since(at));
            if running.owed.len() < n_owed_least || held_back.is_some_and(|ago| ago < self.config.held_back_for) {
                return None;
            }
            let owner = self.owners.get(&running.owner)?;
            let quiet = now.saturating_duration_since(running.heard);
            let is_stuck = quiet >= self.patience(running, owner) && self.n_to_come(running) > 0;
            let n_left = self.n_to_come(running) as f64;
            let n_left_of_owner = n_left * f64::from(owner.n_requests);
            let (rate, time) = match owner.meter.rate(now) {
                _ if is_stuck => (0.0, f64::INFINITY),
                Some(rate) => (rate, n_left_of_owner / rate.max(1.0)),
                // Nothing is known of it yet; it has until it counts as stuck to show itself.
                None => return None,
            };
            (time >= self.config.steal_min.as_secs_f64()).then_some(Victim {
                id: *id,
                time,
                n_left: n_left_of_owner,
                rate,
            })
        };
        self.requests.iter().filter_map(victim).collect()
    }

    /// After how long without a byte a request counts as stuck.
    fn patience(&self, running: &Running, owner: &Owner) -> Duration {
        let is_endgame = self.chunks.missing().is_empty();
        match owner.round_trip {
            Some(round_trip) if is_endgame && running.n_received > 0 => {
                self.config.stalled_after.max(4 * round_trip).min(self.config.stuck_after)
            }
            _ => self.config.stuck_after,
        }
    }

    /// Bytes of a request that have not arrived and are still owed.
    fn n_to_come(&self, running: &Running) -> u64 {
        let end = running.owed.back().map_or(0, |last| self.geometry.bytes_of(*last).end);
        end.saturating_sub(self.position(running))
    }

    /// The offset in the content of the next byte of a response.
    fn position(&self, running: &Running) -> u64 {
        self.geometry.bytes_of_run(running.run).start + running.n_received
    }

    /// Takes the end of the victim's run, as much as makes both finish together.
    fn steal_tail(&mut self, thief: &Ready, victim: &Victim, now: Instant) -> Option<Request> {
        let running = &self.requests[&victim.id];
        let position = self.position(running);
        let owner = &self.owners[&thief.owner];
        let rate = thief.rate.unwrap_or(victim.rate).max(1.0);
        let n_to_take = (victim.n_left * rate / (rate + victim.rate) / self.geometry.chunk_len() as f64) as usize;
        let chunk_time = self.geometry.chunk_len() as f64 / rate;
        if n_to_take == 0 && chunk_time > victim.time * self.config.double_gain {
            return None;
        }
        let mut first = None;
        for (n_taken, chunk) in running.owed.iter().skip(1).rev().enumerate() {
            let is_neighbour = first.is_none_or(|first: u32| first == chunk.get() + 1);
            let is_begun = self.geometry.bytes_of(*chunk).start < position;
            let is_doubled = self.chunks.carriers(*chunk).is_some_and(|carriers| carriers.second.is_some());
            if n_taken >= n_to_take.max(1) || is_begun || is_doubled || !is_neighbour || !owner.has(chunk.get()) {
                break;
            }
            first = Some(chunk.get());
        }
        let first = self.geometry.index(first?)?;
        let last = *running.owed.back()?;
        let run = self.geometry.run(first, last.get() - first.get() + 1);
        let id = self.mint();
        self.requests.get_mut(&victim.id)?.owed.retain(|chunk| *chunk < first);
        for chunk in run.indices() {
            self.chunks.hand_over(chunk, victim.id, id);
        }
        Some(self.start(id, thief.owner, run, now))
    }

    /// Asks a chunk of the victim's a second time.
    fn double(&mut self, thief: &Ready, victim: &Victim, now: Instant) -> Option<Request> {
        if !self.chunks.missing().is_empty() || self.chunks.n_doubled() >= self.config.max_doubled {
            return None;
        }
        let owner = &self.owners[&thief.owner];
        let may_double = |chunk: &&ChunkIndex| {
            owner.has(chunk.get()) && self.chunks.carriers(**chunk).is_some_and(|carriers| carriers.second.is_none())
        };
        let chunk = *self.requests[&victim.id].owed.iter().rev().find(may_double)?;
        let time = match thief.rate {
            Some(rate) => self.geometry.len_of(chunk) as f64 / rate.max(1.0),
            None if victim.rate == 0.0 => 0.0,
            None => return None,
        };
        if time > victim.time * self.config.double_gain {
            return None;
        }
        let run: Run = self.geometry.run(chunk, 1);
        let id = self.mint();
        self.chunks.double(chunk, id);
        Some(self.start(id, thief.owner, run, now))
    }
}
