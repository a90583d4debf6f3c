//! What happens when nothing happens: silent and slow requests lose their run, pauses end.
//!
//! It reads no clock: `on_tick` is told the time, and `next_deadline` says when it wants to be told next.
//! Invariant: right after `on_tick(now)` the next deadline is later than `now`, so a driver that waits
//! for it does not spin.

use std::time::Instant;

use super::{RequestId, Running, Scheduler};

/// What is wrong with a request.
enum Trouble {
    Silent,
    Slow,
}

impl Scheduler {
    /// Time has passed. Call it at the latest at [`Scheduler::next_deadline`].
    pub fn on_tick(&mut self, now: Instant) {
        self.notice(now);
        for owner in self.owners.values_mut() {
            owner.wake(now);
        }
        let ids: Vec<RequestId> = self.requests.keys().copied().collect();
        for id in ids {
            match self.trouble(id, now) {
                None => {}
                Some(Trouble::Silent) => {
                    let Some(running) = self.finish(id, now) else { continue };
                    self.cancels.push_back(id);
                    self.blame(running.owner, running.issued, now);
                }
                Some(Trouble::Slow) => {
                    let Some(running) = self.finish(id, now) else { continue };
                    self.cancels.push_back(id);
                    if let Some(owner) = self.owners.get_mut(&running.owner) {
                        owner.slow(now, &self.config, &mut self.rng);
                    }
                }
            }
        }
    }

    /// When to call [`Scheduler::on_tick`] (and then ask for requests) at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let config = &self.config;
        let of_requests = self.requests.values().filter(|running| self.is_waiting(running));
        let of_requests = of_requests
            .map(|running| (running.heard + config.silent_after).min(running.window_start + config.slow_after));
        let pauses = self.owners.values().filter(|owner| owner.is_usable()).filter_map(|owner| owner.pause);
        // In the endgame a request becomes stuck without any event.
        let is_endgame = self.chunks.missing().is_empty() && !self.requests.is_empty();
        let endgame =
            self.latest.filter(|_| is_endgame).map(|latest| latest + config.stalled_after.min(config.stuck_after));
        of_requests.chain(pauses.map(|(_, until)| until)).chain(endgame).min()
    }

    fn trouble(&mut self, id: RequestId, now: Instant) -> Option<Trouble> {
        let running = self.requests.get(&id).filter(|running| self.is_waiting(running))?;
        if now.saturating_duration_since(running.heard) >= self.config.silent_after {
            return Some(Trouble::Silent);
        }
        let elapsed = now.saturating_duration_since(running.window_start);
        if elapsed < self.config.slow_after {
            return None;
        }
        let is_slow = (running.n_window_bytes as f64) < self.config.slow_rate as f64 * elapsed.as_secs_f64();
        // Slow is better than nothing: it loses its run only to somebody.
        let first = running.owed.front().map_or(0, |chunk| chunk.get());
        if is_slow && self.has_another_source(running.owner, first, now) {
            return Some(Trouble::Slow);
        }
        if let Some(running) = self.requests.get_mut(&id) {
            (running.window_start, running.n_window_bytes) = (now, 0);
        }
        None
    }

    /// Whether bytes are still to come. Otherwise we are the ones who are busy, verifying and writing.
    fn is_waiting(&self, running: &Running) -> bool {
        let bytes = self.geometry.bytes_of_run(running.run);
        running.n_received < bytes.end - bytes.start || running.n_received == 0
    }
}
