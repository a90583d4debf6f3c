//! Whom to ask next, and for which run.
//!
//! Owners that wait are served first, the fastest of them before the others. What an owner is asked for:
//! while all owners are complete, the chunks after its own last run, or the middle of the largest gap, so
//! that every owner has a region of its own and runs stay long; in a swarm the rarest chunks it holds. It only takes Missing chunks: what is left
//! when there are none is the work of [`super::steal`].

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Instant;

use potluck_common::PeerId;
use potluck_common::chunk::{ChunkIndex, Run};

use super::owners::Owner;
use super::{Request, RequestId, Running, Scheduler};

/// What all usable owners are together.
#[derive(Debug, Default)]
struct Survey {
    n_usable: u32,
    n_partial: u32,
    /// Sum of the known rates, bytes a second.
    rate: f64,
    /// The two least times that an owner needs for one more chunk, and whose the first is.
    best: Option<(f64, PeerId)>,
    second_best: Option<f64>,
}

/// An owner that could be asked now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) owner: PeerId,
    pub(super) n_requests: u32,
    pub(super) rate: Option<f64>,
}

impl Scheduler {
    /// The next request to send; call until `None`.
    pub fn next_request(&mut self, now: Instant) -> Option<Request> {
        self.notice(now);
        if self.requests.len() >= self.config.max_requests || self.is_complete() {
            return None;
        }
        let survey = self.survey(now);
        let ready = self.ready(&survey, now);
        if ready.is_empty() {
            return None;
        }
        if !self.chunks.missing().is_empty() {
            for one in &ready {
                if let Some(run) = self.pick(one, &survey, now) {
                    return Some(self.issue(one.owner, run, now));
                }
            }
        }
        self.steal(&ready, now)
    }

    fn survey(&mut self, now: Instant) -> Survey {
        let mut survey = Survey::default();
        let chunk_len = self.geometry.chunk_len() as f64;
        for (id, owner) in &mut self.owners {
            owner.wake(now);
            if !owner.is_usable() {
                continue;
            }
            survey.n_usable += 1;
            survey.n_partial += u32::from(owner.is_partial());
            let Some(rate) = owner.meter.rate(now) else { continue };
            survey.rate += rate;
            let time = time_for_one_more(chunk_len, owner.n_requests, rate);
            if survey.best.is_none_or(|(best, _)| time < best) {
                survey.second_best = survey.best.map(|(best, _)| best);
                survey.best = Some((time, *id));
            } else if survey.second_best.is_none_or(|second| time < second) {
                survey.second_best = Some(time);
            }
        }
        survey
    }

    /// The owners that may be asked now: idle ones first, then unknown and fast ones.
    fn ready(&self, survey: &Survey, now: Instant) -> Vec<Ready> {
        let per_owner = if survey.n_partial > 0 { self.config.per_owner_in_swarm } else { self.config.per_owner };
        let mut ready: Vec<Ready> = self
            .owners
            .iter()
            .filter(|(_, owner)| owner.is_usable() && !owner.is_pausing(now))
            .map(|(id, owner)| (id, owner, owner.meter.rate(now)))
            // One request until something has come: of a crowd that starts together each would otherwise wait for several
            // chunks of a lone seeder before it has the first one to hand on.
            .filter(|(_, owner, rate)| owner.n_requests < rate.map_or(1, |_| per_owner + owner.n_extra))
            .map(|(id, owner, rate)| Ready { owner: *id, n_requests: owner.n_requests, rate })
            .collect();
        ready.sort_by_key(|one| (one.n_requests, one.rate.is_some(), one.rate.map(|rate| Reverse(rate as u64))));
        ready
    }

    /// The run of Missing chunks that this owner should bring, if any.
    fn pick(&mut self, one: &Ready, survey: &Survey, now: Instant) -> Option<Run> {
        let owner = &self.owners[&one.owner];
        if owner.barren_in == Some(self.chunks.epoch) {
            return None;
        }
        let in_swarm = survey.n_partial > 0 || !self.chunks.all_alike();
        let picked = if in_swarm {
            self.chunks.rarest(owner.holds.as_ref(), &mut self.rng)
        } else {
            self.in_own_region(one.owner)
        };
        let Some((rank, first)) = picked else {
            let epoch = self.chunks.epoch;
            self.owners.get_mut(&one.owner)?.barren_in = Some(epoch);
            return None;
        };
        if self.would_hold_up(one, first, survey, now) {
            return None;
        }
        let owner = &self.owners[&one.owner];
        let n_wanted = self.run_len(owner, survey, now) / self.geometry.chunk_len();
        let is_next = |chunk: &u32| self.chunks.missing_with_rank(*chunk, rank) && owner.has(*chunk);
        let n = (first..self.geometry.n_chunks()).take(n_wanted.max(1) as usize).take_while(is_next).count();
        Some(self.geometry.run(self.geometry.index(first)?, n as u32))
    }

    /// Among complete owners: the chunk after its last run, else a place in the largest gap.
    fn in_own_region(&mut self, id: PeerId) -> Option<(usize, u32)> {
        let owner = &self.owners[&id];
        let at_cursor = owner.cursor.filter(|at| self.chunks.missing().contains(*at));
        if let Some(chunk) = at_cursor {
            return Some((usize::MAX, chunk));
        }
        let (start, len) = self.chunks.missing().longest_gap()?;
        let ahead_of_another = |(other, owner): (&PeerId, &Owner)| *other != id && owner.cursor == Some(start);
        let chunk = if self.requests.is_empty() {
            // Leechers that start together must not all start at the same chunk.
            start + self.rng.u32(..len)
        } else if owner.cursor.is_none() || self.owners.iter().any(ahead_of_another) {
            start + len / 4 + self.rng.u32(..=len / 2)
        } else {
            start
        };
        Some((usize::MAX, chunk.min(start + len - 1)))
    }

    /// Whether a slow owner would need longer for one chunk than the others for everything, so that in
    /// the end all would wait for it. A chunk that nobody else could bring sooner is asked of it all the same: of several
    /// slow owners of one chunk each would otherwise be spared for the sake of the others.
    fn would_hold_up(&self, one: &Ready, chunk: u32, survey: &Survey, now: Instant) -> bool {
        let (Some(rate), Some((best, whose))) = (one.rate, survey.best) else { return false };
        let others_rate = survey.rate - rate;
        let best_other = if whose == one.owner { survey.second_best } else { Some(best) };
        let Some(best_other) = best_other.filter(|_| others_rate > 0.0) else { return false };
        let n_left = self.geometry.len() - self.chunks.n_held_bytes();
        let chunk_len = self.geometry.chunk_len() as f64;
        let own_time = time_for_one_more(chunk_len, one.n_requests, rate);
        let too_slow = own_time > (n_left as f64 / others_rate).max(2.0 * best_other);
        let is_sooner = |(id, owner): (&PeerId, &Owner)| {
            let time = owner.meter.rate(now).map(|rate| time_for_one_more(chunk_len, owner.n_requests, rate));
            let may_bring = *id != one.owner && owner.is_usable() && !owner.is_pausing(now) && owner.has(chunk);
            may_bring && time.is_none_or(|time| time < own_time)
        };
        too_slow && self.owners.iter().any(is_sooner)
    }

    /// Whether somebody else, who is not slow, could bring the chunk soon.
    pub(super) fn has_another_source(&self, than: PeerId, chunk: u32, now: Instant) -> bool {
        self.owners.iter().any(|(id, owner)| {
            let is_slow = owner.meter.rate(now).is_some_and(|rate| rate < self.config.slow_rate as f64);
            *id != than && owner.is_usable() && !owner.is_pausing(now) && owner.has(chunk) && !is_slow
        })
    }

    /// How many bytes the next run of this owner should have.
    fn run_len(&self, owner: &Owner, survey: &Survey, now: Instant) -> u64 {
        let config = &self.config;
        let rate = owner.meter.rate(now);
        let mut len = owner.run_len.min(config.max_run_len);
        if let Some(rate) = rate {
            len = len.min((rate * config.run_time.as_secs_f64()) as u64);
        }
        // Near the end each gets half of its share of what is left, so that all finish together.
        let n_missing = self.chunks.n_missing_bytes() as f64;
        let share = match rate {
            Some(rate) if survey.rate > 0.0 => rate / survey.rate,
            _ => 1.0 / f64::from(survey.n_usable.max(1)),
        };
        len = len.min((n_missing * share / 2.0) as u64);
        if survey.n_partial > 0 {
            // Short runs keep what the leechers hold different: leechers times runs must stay far below the
            // number of chunks, or they meet on the same ones.
            len = len.min((n_missing / f64::from(32 * survey.n_usable)) as u64);
        }
        len
    }

    fn issue(&mut self, owner: PeerId, run: Run, now: Instant) -> Request {
        let id = self.mint();
        let is_fresh = run.indices().all(|chunk| self.chunks.is_fresh(chunk));
        for chunk in run.indices() {
            self.chunks.take(chunk, id);
        }
        Request { is_fresh, ..self.start(id, owner, run, now) }
    }

    pub(super) fn mint(&mut self) -> RequestId {
        self.n_minted += 1;
        RequestId(self.n_minted)
    }

    /// Records a request whose chunks name it as their carrier already.
    pub(super) fn start(&mut self, id: RequestId, owner: PeerId, run: Run, now: Instant) -> Request {
        let owed: VecDeque<ChunkIndex> = run.indices().collect();
        let running = Running {
            owner,
            run,
            owed,
            n_brought: 0,
            n_received: 0,
            issued: now,
            heard: now,
            window_start: now,
            n_window_bytes: 0,
            held_back: None,
        };
        self.requests.insert(id, running);
        if let Some(known) = self.owners.get_mut(&owner) {
            known.n_requests += 1;
            known.cursor = Some(run.last().get() + 1);
        }
        Request { id, owner, run, is_fresh: false }
    }
}

/// Seconds until an owner that already has so many requests has brought one more chunk.
fn time_for_one_more(chunk_len: f64, n_requests: u32, rate: f64) -> f64 {
    chunk_len * f64::from(n_requests + 1) / rate.max(1.0)
}
