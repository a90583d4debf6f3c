//! Which trackers of the LAN to be with, and when to host one.
//!
//! Pure: facts come in with the time, decisions go out, chance comes from a seed. It opens no socket and knows no
//! address but as a name to join.
//!
//! The rule is the same on every peer. Trackers that somebody started are all joined, the lowest ids first. Only if there is
//! none, one that a peer hosts is joined: the one with the lowest id. Who hosts another one joins it too and
//! *retires*: its tracker is no longer to be found, tells its peers to look again, and ends after a grace.
//! Who hears of no tracker for the time of a look and a random back-off hosts one. So two that were started at once, or two halves of a
//! network that was cut, end with one tracker.
//!
//! Invariant: nothing is left before something better has answered, and at most `MAX_KNOWN` trackers are kept in mind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use potluck_common::discovery::TrackerId;

/// Trackers kept in mind: far more than one LAN has, far fewer than somebody can invent.
const MAX_KNOWN: usize = 16;
/// Trackers joined at once, where people started several.
const MAX_JOINED: usize = 4;
/// The longest time that a tracker which takes no announce is not tried again.
const MAX_SHUNNED: Duration = Duration::from_secs(60);

/// Durations of looking and hosting.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How long is looked before nobody is there.
    pub look: Duration,
    /// Between two questions while looking.
    pub ask_every: Duration,
    /// Who is to host waits up to this long, in case another one does.
    pub back_off: Duration,
    /// A host looks for other trackers at this interval.
    pub host_look_every: Duration,
    /// Whoever has a tracker looks for better ones at this interval.
    pub idle_look_every: Duration,
    /// A tracker that retires goes on for this long: some heartbeats.
    pub grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(1),
            ask_every: Duration::from_millis(250),
            back_off: Duration::from_millis(750),
            host_look_every: Duration::from_secs(3),
            idle_look_every: Duration::from_secs(60),
            grace: Duration::from_secs(6),
        }
    }
}

/// A tracker that answered when it was asked what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which run of which tracker.
    pub id: TrackerId,
    /// Where it serves: `http://HOST:PORT`.
    pub base: String,
    /// Whether a peer hosts it.
    pub hosted: bool,
    /// Whether the address means another machine to everybody else.
    pub on_loopback: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ask the LAN for trackers.
    Ask,
    /// The look found nobody: whoever waits for a tracker need not wait longer.
    NobodyThere,
    /// Start a tracker, and say how that went with [`Election::on_hosting`] or [`Election::on_cannot_host`].
    Host,
    /// Our tracker is no longer to be found, and tells its peers to look.
    Retire,
    /// Our tracker ends.
    End,
    /// Announce to this one.
    Join(Seen),
    /// No longer announce to the one at this address.
    Leave(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It has not yet answered an announce.
    Untried,
    Answers,
    /// It answered no announce; is not tried again before then.
    Silent {
        until: Instant,
    },
}

#[derive(Debug, Clone)]
struct Known {
    seen: Seen,
    word: Word,
    n_silent: u32,
    retiring: bool,
    joined: bool,
}

impl Known {
    fn is_usable(&self) -> bool {
        !self.retiring && !matches!(self.word, Word::Silent { .. })
    }
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Looking { since: Instant, told: bool, host_at: Option<Instant> },
    Settled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    None,
    Starting,
    Serving(TrackerId),
    Retiring(TrackerId, Instant),
}

/// The state of one peer.
#[derive(Debug)]
pub struct Election {
    timing: Timing,
    may_host: bool,
    known: BTreeMap<TrackerId, Known>,
    own: Own,
    phase: Phase,
    next_ask: Instant,
    /// Left before anything else is decided.
    leaving: Vec<String>,
    rng: fastrand::Rng,
}

impl Election {
    /// One that begins to look.
    pub fn new(timing: Timing, may_host: bool, seed: u64, now: Instant) -> Self {
        Self {
            timing,
            may_host,
            known: BTreeMap::new(),
            own: Own::None,
            phase: Phase::Looking { since: now, told: false, host_at: None },
            next_ask: now,
            leaving: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// A tracker was heard, and said itself what it is.
    pub fn on_seen(&mut self, seen: Seen, now: Instant) {
        if self.own_id() == Some(seen.id) {
            return;
        }
        // The same address with another id: that tracker was started again.
        let gone = self.known.iter().find(|(id, known)| known.seen.base == seen.base && **id != seen.id);
        if let Some(gone) = gone.map(|(id, _)| *id) {
            self.forget(gone);
        }
        match self.known.get_mut(&seen.id) {
            Some(known) => {
                let was_silent = matches!(known.word, Word::Silent { until } if until <= now);
                let is_better = known.seen.on_loopback && !seen.on_loopback;
                if was_silent || is_better {
                    if known.joined {
                        self.leaving.push(known.seen.base.clone());
                    }
                    known.joined = false;
                    known.word = Word::Untried;
                    known.seen = seen;
                }
                // Else nothing is new: it retires no less for being heard, and what is silent is not tried yet.
            }
            None => {
                if self.known.len() >= MAX_KNOWN {
                    let unused = self.known.iter().rev().find(|(_, known)| !known.joined).map(|(id, _)| *id);
                    match unused {
                        Some(unused) if unused > seen.id => self.forget(unused),
                        _ => return,
                    }
                }
                let known = Known { seen, word: Word::Untried, n_silent: 0, retiring: false, joined: false };
                self.known.insert(known.seen.id, known);
            }
        }
    }

    /// A tracker that we joined took an announce, and says whether it retires.
    pub fn on_answered(&mut self, id: TrackerId, retiring: bool) {
        if let Some(known) = self.known.get_mut(&id) {
            (known.word, known.n_silent) = (Word::Answers, 0);
            known.retiring |= retiring;
        }
    }

    /// A tracker that we joined took no announce.
    pub fn on_silent(&mut self, id: TrackerId, now: Instant) {
        if let Some(known) = self.known.get_mut(&id)
            && !matches!(known.word, Word::Silent { .. })
        {
            known.n_silent += 1;
            let shunned = Duration::from_secs(1).saturating_mul(1 << known.n_silent.min(6)).min(MAX_SHUNNED);
            known.word = Word::Silent { until: now + shunned };
        }
    }

    /// Our tracker serves.
    pub fn on_hosting(&mut self, own: Seen, now: Instant) {
        // It may serve already, and be known by another address now.
        self.forget(own.id);
        self.own = Own::Serving(own.id);
        // Who was at this address is gone, or we could not serve there. Left before ours is joined, which has the same name.
        let gone: Vec<_> =
            self.known.iter().filter(|(_, known)| known.seen.base == own.base).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.forget(id));
        let known = Known { seen: own, word: Word::Untried, n_silent: 0, retiring: false, joined: false };
        self.known.insert(known.seen.id, known);
        // Who was started when we were may have done the same.
        self.next_ask = now + self.timing.ask_every;
    }

    /// Where our tracker is said to serve, if it does.
    pub fn own_base(&self) -> Option<&str> {
        self.own_id().and_then(|id| Some(self.known.get(&id)?.seen.base.as_str()))
    }

    /// Our tracker could not be started, or has ended by itself.
    pub fn on_cannot_host(&mut self, now: Instant) {
        if let Some(id) = self.own_id() {
            self.forget(id);
        }
        self.own = Own::None;
        self.phase = Phase::Looking { since: now + self.timing.host_look_every, told: true, host_at: None };
    }

    /// What is to be done now; asked again until there is nothing.
    pub fn next_decision(&mut self, now: Instant) -> Option<Decision> {
        if let Some(base) = self.leaving.pop() {
            return Some(Decision::Leave(base));
        }
        if let Own::Retiring(id, since) = self.own
            && now >= since + self.timing.grace
        {
            self.own = Own::None;
            self.forget(id);
            return Some(self.leaving.pop().map_or(Decision::End, |base| {
                // The end comes right after.
                self.own = Own::Retiring(id, since);
                Decision::Leave(base)
            }));
        }
        let wanted = self.wanted();
        for id in &wanted {
            if let Some(known) = self.known.get_mut(id)
                && !known.joined
            {
                known.joined = true;
                return Some(Decision::Join(known.seen.clone()));
            }
        }
        let answered = wanted.iter().any(|id| self.known.get(id).is_some_and(|known| known.word == Word::Answers));
        if answered {
            if let Own::Serving(id) = self.own
                && !wanted.contains(&id)
            {
                self.own = Own::Retiring(id, now);
                if let Some(known) = self.known.get_mut(&id) {
                    known.retiring = true;
                }
                return Some(Decision::Retire);
            }
            let worse = self.known.iter().find(|(id, known)| known.joined && !wanted.contains(id));
            if let Some(id) = worse.map(|(id, _)| *id) {
                self.forget(id);
                return self.leaving.pop().map(Decision::Leave);
            }
        }
        self.look(!wanted.is_empty(), now)
    }

    /// When to ask [`Election::next_decision`] again if nothing happens.
    pub fn next_deadline(&self) -> Instant {
        let mut next = self.next_ask;
        if let Phase::Looking { since, told, host_at } = self.phase {
            if !told || (self.may_host && host_at.is_none()) {
                next = next.min(since + self.timing.look);
            }
            if let (Some(host_at), Own::None) = (host_at, self.own) {
                next = next.min(host_at);
            }
        }
        if let Own::Retiring(_, since) = self.own {
            next = next.min(since + self.timing.grace);
        }
        next
    }

    fn look(&mut self, has_tracker: bool, now: Instant) -> Option<Decision> {
        match (self.phase, has_tracker) {
            (Phase::Looking { .. }, true) => {
                self.phase = Phase::Settled;
                let pause = self.idle_pause();
                self.next_ask = if self.hosts() { self.next_ask } else { now + pause };
            }
            (Phase::Settled, false) => {
                self.phase = Phase::Looking { since: now, told: false, host_at: None };
                self.next_ask = now;
            }
            _ => {}
        }
        if now >= self.next_ask {
            let pause = match self.phase {
                Phase::Settled => self.idle_pause(),
                // Who may not host asks on, ever more seldom.
                Phase::Looking { since, .. } => {
                    let asked_for = now.saturating_duration_since(since + self.timing.look + self.timing.back_off);
                    (self.timing.ask_every + asked_for / 2).min(self.timing.idle_look_every)
                }
            };
            self.next_ask = now + pause;
            return Some(Decision::Ask);
        }
        let Phase::Looking { since, told, host_at } = &mut self.phase else { return None };
        if now < *since + self.timing.look {
            return None;
        }
        if !*told {
            *told = true;
            return Some(Decision::NobodyThere);
        }
        match *host_at {
            None if self.may_host => *host_at = Some(now + self.timing.back_off.mul_f64(self.rng.f64())),
            Some(at) if now >= at && self.own == Own::None => {
                self.own = Own::Starting;
                return Some(Decision::Host);
            }
            _ => {}
        }
        None
    }

    fn wanted(&self) -> Vec<TrackerId> {
        let usable = || self.known.iter().filter(|(_, known)| known.is_usable());
        let started: Vec<_> =
            usable().filter(|(_, known)| !known.seen.hosted).map(|(id, _)| *id).take(MAX_JOINED).collect();
        if started.is_empty() { usable().map(|(id, _)| *id).take(1).collect() } else { started }
    }

    fn forget(&mut self, id: TrackerId) {
        if let Some(known) = self.known.remove(&id)
            && known.joined
        {
            self.leaving.push(known.seen.base);
        }
    }

    fn own_id(&self) -> Option<TrackerId> {
        match self.own {
            Own::Serving(id) | Own::Retiring(id, _) => Some(id),
            Own::None | Own::Starting => None,
        }
    }

    const fn hosts(&self) -> bool {
        matches!(self.own, Own::Serving(_))
    }

    /// With jitter, so that peers started together do not ask together for ever.
    fn idle_pause(&mut self) -> Duration {
        let pause = if self.hosts() { self.timing.host_look_every } else { self.timing.idle_look_every };
        pause.mul_f64(0.75 + 0.5 * self.rng.f64())
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
