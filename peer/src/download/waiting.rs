//! Small contents that wait to be fetched, and which of them the next bundle of an owner is made of. Pure: the time is an
//! argument.
//!
//! Each content is asked of one owner at a time. What an owner leaves out, gives wrongly or cannot give now is asked of another
//! of its owners, and of each of them once, unless it was only busy; what none gives this way is given back to whoever wants it,
//! who asks each owner for it alone. An owner that is late keeps its requests, and others are asked for the same besides.
//!
//! Invariant: a content that is wanted is in flight, or in the queue of each owner that may be asked for it, or given back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use potluck_common::{ContentId, PeerId};

use crate::wire::bundle::{MAX_BUNDLE_LEN, MAX_CONTENTS};

/// Requests that run at one owner: while it sends one bundle it prepares the next.
const EACH_OWNER: usize = 2;
/// Requests that run in all and are not late.
const ALL_TOGETHER: usize = 32;
/// Requests that run in all.
const MAX_RUNNING: usize = 64;
/// Owners that are remembered while nothing is asked of them.
const MAX_IDLE: usize = 128;
/// Fewer than this are not spread over several owners: the request would cost more than the contents.
const FEW: usize = 4;
/// The first bundle of an owner.
const FIRST_LEN: u64 = 128 << 10;
/// The smallest bundle of a slow owner, unless one content is longer.
const LEAST_LEN: u64 = 16 << 10;
/// A bundle that took less than this may be twice as long the next time.
const QUICK: Duration = Duration::from_millis(100);
/// One that took longer is to be half as long.
const SLOW: Duration = Duration::from_millis(400);
/// A bundle that takes longer is late: others are asked besides.
const LATE: Duration = Duration::from_millis(750);
/// How long an owner that could not be reached, or took far too long, is not asked for anything.
const REST: Duration = Duration::from_secs(1);
/// So often in a row an owner may be busy before it counts as away.
const MAX_BUSY: u32 = 30;

/// Which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId(u64);

/// What is asked of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Which request it is.
    pub id: BundleId,
    /// Who is asked.
    pub owner: PeerId,
    /// For which contents, of at most these lengths.
    pub contents: Vec<(ContentId, u64)>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an answer to its end, whatever was in it.
    Whole,
    /// With an answer that is of no use from some place on.
    Broken,
    /// The owner has no place for it now, and says when to ask again.
    Busy(Duration),
    /// It took so long that it was given up.
    TooSlow,
    /// There is no connection, or it broke.
    Unreachable,
    /// We ended it.
    Cancelled,
}

/// All contents that are wanted.
#[derive(Debug, Default)]
pub struct Waiting {
    wanted: HashMap<ContentId, Wanted>,
    owners: BTreeMap<PeerId, Known>,
    running: BTreeMap<BundleId, Running>,
    cancels: VecDeque<BundleId>,
    n_made: u64,
}

#[derive(Debug)]
struct Wanted {
    len: u64,
    /// Who may be asked, as it was said.
    listed: Vec<PeerId>,
    /// Who of them has not been asked.
    owners: Vec<PeerId>,
    /// Requests that it is part of.
    in_flight: Vec<BundleId>,
}

/// What is known of an owner.
#[derive(Debug)]
struct Known {
    /// In order of arrival; some have come meanwhile, or are in flight elsewhere.
    queue: VecDeque<ContentId>,
    n_running: usize,
    n_late: usize,
    /// Bytes of its next bundle.
    len: u64,
    /// It is not asked before.
    rests_until: Option<Instant>,
    /// Nothing is to wait for it before.
    away_until: Option<Instant>,
    /// How often in a row it was busy.
    n_busy: u32,
    /// When it was asked last, as a number that grows.
    asked_at: u64,
}

#[derive(Debug)]
struct Running {
    owner: PeerId,
    n_asked: usize,
    n_bytes: u64,
    /// What has not come.
    missing: Vec<ContentId>,
    since: Instant,
    is_late: bool,
}

impl Waiting {
    /// A content is wanted, of at most `len` bytes, and these have it. Whether anybody will be asked: not if all of them are
    /// away, and not while the same content is wanted of other owners, or with another length.
    pub fn on_wanted(
        &mut self,
        id: ContentId,
        len: u64,
        owners: impl IntoIterator<Item = PeerId>,
        now: Instant,
    ) -> bool {
        let listed: Vec<_> = owners.into_iter().collect();
        if let Some(wanted) = self.wanted.get(&id) {
            return wanted.len == len && wanted.listed == listed;
        }
        let is_away = |owner: &PeerId| self.owners.get(owner).is_some_and(|owner| owner.is_away(now));
        let owners: Vec<_> = listed.iter().copied().filter(|owner| !is_away(owner)).collect();
        if owners.is_empty() {
            return false;
        }
        self.wanted.insert(id, Wanted { len, listed, owners, in_flight: Vec::new() });
        self.queue(id);
        true
    }

    /// It has come with this request.
    pub fn on_come(&mut self, bundle: BundleId, id: ContentId) {
        if let Some(running) = self.running.get_mut(&bundle) {
            running.missing.retain(|missing| *missing != id);
        }
        self.on_withdrawn(id);
    }

    /// Nobody wants it any more. Requests that are for nothing else end.
    pub fn on_withdrawn(&mut self, id: ContentId) {
        for bundle in self.wanted.remove(&id).into_iter().flat_map(|wanted| wanted.in_flight) {
            let Some(running) = self.running.get_mut(&bundle) else { continue };
            let n_missing = running.missing.len();
            running.missing.retain(|missing| *missing != id);
            // What has just come whole ends by itself, and its connection is used again.
            if running.missing.is_empty() && n_missing > 0 {
                self.cancels.push_back(bundle);
            }
        }
    }

    /// A request to end now; call until `None`. That it has ended is to be told all the same.
    pub fn next_cancel(&mut self) -> Option<BundleId> {
        self.cancels.pop_front()
    }

    /// What to ask for next, if there is anything and somebody to ask.
    pub fn next_bundle(&mut self, now: Instant) -> Option<Bundle> {
        let in_time = || self.running.values().filter(|running| !running.is_late);
        let n_may_run = ALL_TOGETHER.saturating_sub(in_time().count());
        if n_may_run == 0 || self.running.len() >= MAX_RUNNING {
            return None;
        }
        let n_in_time: usize = in_time().map(|running| running.missing.len()).sum();
        loop {
            let mut free: Vec<_> = Vec::new();
            for (id, owner) in &mut self.owners {
                let is_asked_for = |content: &_| is_asked_for(&self.wanted, &self.running, content, *id);
                // What is in flight elsewhere comes back if that fails.
                while owner.queue.front().is_some_and(|content: &ContentId| !is_asked_for(content)) {
                    owner.queue.pop_front();
                }
                // One that is late has shown that it cannot do more.
                let n_places = if owner.n_late > 0 { 0 } else { EACH_OWNER - owner.n_running };
                if !owner.queue.is_empty() && !owner.is_resting(now) && n_places > 0 {
                    free.push((owner.n_running, owner.asked_at, *id));
                }
            }
            let &(.., id) = free.iter().min()?;
            let n_places: usize = free.iter().map(|(n_running, ..)| EACH_OWNER - n_running).sum();
            let n_left = self.wanted.len().saturating_sub(n_in_time);
            // Each place gets its share.
            let bundle = self.take(id, n_left.div_ceil(n_places.min(n_may_run)).clamp(FEW, MAX_CONTENTS), now);
            if bundle.is_some() {
                return bundle;
            }
        }
    }

    /// A bundle of at most `n` contents of this owner.
    fn take(&mut self, id: PeerId, n: usize, now: Instant) -> Option<Bundle> {
        let owner = self.owners.get_mut(&id)?;
        let bundle = BundleId(self.n_made + 1);
        let (mut n_bytes, mut contents) = (0, Vec::new());
        while contents.len() < n
            && let Some(content) = owner.queue.pop_front()
        {
            if !is_asked_for(&self.wanted, &self.running, &content, id) {
                continue;
            }
            let Some(wanted) = self.wanted.get_mut(&content) else { continue };
            if n_bytes + wanted.len > owner.len && !contents.is_empty() {
                owner.queue.push_front(content);
                break;
            }
            n_bytes += wanted.len;
            wanted.owners.retain(|owner| *owner != id);
            wanted.in_flight.push(bundle);
            contents.push((content, wanted.len));
        }
        if contents.is_empty() {
            return None;
        }
        self.n_made += 1;
        owner.n_running += 1;
        owner.asked_at = self.n_made;
        let missing = contents.iter().map(|(content, _)| *content).collect();
        let running = Running { owner: id, n_asked: contents.len(), n_bytes, missing, since: now, is_late: false };
        self.running.insert(bundle, running);
        Some(Bundle { id: bundle, owner: id, contents })
    }

    /// A request has ended; which contents are given back.
    pub fn on_ended(&mut self, bundle: BundleId, ending: Ending, now: Instant) -> Vec<ContentId> {
        let Some(running) = self.running.remove(&bundle) else { return Vec::new() };
        let mut loose = running.missing.clone();
        let mut is_away = false;
        if let Some(owner) = self.owners.get_mut(&running.owner) {
            owner.n_running -= 1;
            owner.n_late -= usize::from(running.is_late);
            is_away = owner.on_ended(ending, &running, now);
        }
        for content in &loose {
            if let Some(wanted) = self.wanted.get_mut(content) {
                wanted.in_flight.retain(|in_flight| *in_flight != bundle);
                if matches!(ending, Ending::Busy(_)) {
                    wanted.owners.push(running.owner);
                }
            }
        }
        if is_away {
            loose.extend(self.send_away(running.owner));
        }
        loose.retain(|content| self.queue_or_give_back(*content));
        self.forget(now);
        loose
    }

    /// When [`Waiting::on_tick`] is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let late = self.running.values().filter(|running| !running.is_late).map(|running| running.since + LATE);
        let rested = self.owners.values().filter(|owner| !owner.queue.is_empty());
        late.chain(rested.filter_map(|owner| owner.rests_until)).min()
    }

    /// Lets others be asked for what is late, and those who have rested.
    pub fn on_tick(&mut self, now: Instant) {
        let mut late = Vec::new();
        for running in self.running.values_mut() {
            if !running.is_late && now >= running.since + LATE {
                running.is_late = true;
                late.extend_from_slice(&running.missing);
                if let Some(owner) = self.owners.get_mut(&running.owner) {
                    owner.n_late += 1;
                }
            }
        }
        late.into_iter().for_each(|content| self.queue(content));
        for owner in self.owners.values_mut() {
            owner.rests_until = owner.rests_until.filter(|until| *until > now);
        }
    }

    /// Puts it into the queues of all who may be asked.
    fn queue(&mut self, id: ContentId) {
        for owner in self.wanted.get(&id).into_iter().flat_map(|wanted| &wanted.owners) {
            self.owners.entry(*owner).or_default().queue.push_back(id);
        }
    }

    /// Nothing that is wanted now is asked of it any more; what may have lost its last owner by that.
    fn send_away(&mut self, owner: PeerId) -> Vec<ContentId> {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.queue.clear();
        }
        let mut lost = Vec::new();
        for (id, wanted) in &mut self.wanted {
            let n_owners = wanted.owners.len();
            wanted.owners.retain(|other| *other != owner);
            if wanted.owners.is_empty() && n_owners > 0 {
                lost.push(*id);
            }
        }
        lost
    }

    /// Queues what has come loose anew, or takes it out because nobody is left to be asked and nothing is in flight; whether
    /// that is so.
    fn queue_or_give_back(&mut self, id: ContentId) -> bool {
        let Some(wanted) = self.wanted.get(&id) else { return false };
        if wanted.owners.is_empty() && wanted.in_flight.is_empty() {
            self.wanted.remove(&id);
            return true;
        }
        self.queue(id);
        false
    }

    /// Forgets owners of which nothing is known but that they were asked once, if there are many.
    fn forget(&mut self, now: Instant) {
        if self.owners.len() > MAX_IDLE {
            self.owners.retain(|_, owner| owner.n_running > 0 || !owner.queue.is_empty() || owner.is_resting(now));
        }
    }
}

/// Whether the owner is to be asked for it now: it has it, was not asked, and nobody is asked who is not late.
fn is_asked_for(
    wanted: &HashMap<ContentId, Wanted>,
    running: &BTreeMap<BundleId, Running>,
    content: &ContentId,
    owner: PeerId,
) -> bool {
    let is_late = |bundle: &BundleId| running.get(bundle).is_none_or(|running| running.is_late);
    wanted.get(content).is_some_and(|wanted| wanted.owners.contains(&owner) && wanted.in_flight.iter().all(is_late))
}

impl Default for Known {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            n_running: 0,
            n_late: 0,
            len: FIRST_LEN,
            rests_until: None,
            away_until: None,
            n_busy: 0,
            asked_at: 0,
        }
    }
}

impl Known {
    fn is_resting(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// What one of its requests says does not shorten what another said.
    fn rest(&mut self, until: Instant) {
        self.rests_until = self.rests_until.max(Some(until));
    }

    fn is_away(&self, now: Instant) -> bool {
        self.away_until.is_some_and(|until| until > now)
    }

    /// One of its requests has ended; whether nothing more is to be asked of it for now.
    fn on_ended(&mut self, ending: Ending, running: &Running, now: Instant) -> bool {
        match ending {
            Ending::Cancelled => return false,
            Ending::Busy(rest) if self.n_busy < MAX_BUSY => {
                self.n_busy += 1;
                self.rest(now + rest);
                return false;
            }
            Ending::Busy(_) | Ending::Unreachable | Ending::TooSlow => {
                self.n_busy = 0;
                self.len = (self.len / 2).clamp(LEAST_LEN, FIRST_LEN);
                self.away_until = Some(now + REST);
                self.rest(now + REST);
                return true;
            }
            Ending::Whole => self.adapt(now.saturating_duration_since(running.since), running),
            Ending::Broken => self.len = self.len.min(FIRST_LEN),
        }
        self.n_busy = 0;
        false
    }

    /// Lengthens or shortens its bundles by how long this one took; a short one says nothing of its rate.
    fn adapt(&mut self, took: Duration, running: &Running) {
        let has_come = 2 * running.missing.len() < running.n_asked;
        if took < QUICK && has_come && 2 * running.n_bytes >= self.len {
            self.len = (2 * self.len).min(MAX_BUNDLE_LEN);
        } else if took > SLOW {
            self.len = (self.len / 2).max(LEAST_LEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn id(n: usize) -> ContentId {
        ContentId::of(&n.to_be_bytes())
    }

    fn owner(n: u8) -> PeerId {
        PeerId::from_bytes([n; 16])
    }

    fn all_bundles(waiting: &mut Waiting, now: Instant) -> Vec<Bundle> {
        std::iter::from_fn(|| waiting.next_bundle(now)).collect()
    }

    /// All of it comes.
    fn come(waiting: &mut Waiting, bundle: &Bundle, now: Instant) {
        bundle.contents.iter().for_each(|(content, _)| waiting.on_come(bundle.id, *content));
        assert_eq!(waiting.on_ended(bundle.id, Ending::Whole, now), []);
        assert_eq!(waiting.next_cancel(), None, "it ends by itself");
    }

    /// What waits is spread over all owners and both requests of each, and nothing twice.
    #[test]
    fn spread_over_all_owners() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..256 {
            assert!(waiting.on_wanted(id(n), 1_000, (0..4).map(owner), now));
        }
        let bundles = all_bundles(&mut waiting, now);
        assert_eq!(bundles.len(), 8);
        for bundle in &bundles {
            assert!((FEW..=MAX_CONTENTS).contains(&bundle.contents.len()), "{}", bundle.contents.len());
        }
        let asked: HashSet<_> = bundles.iter().flat_map(|bundle| &bundle.contents).map(|(id, _)| id).collect();
        assert_eq!(asked.len(), bundles.iter().map(|bundle| bundle.contents.len()).sum::<usize>());
        assert!(asked.len() > 200, "{}", asked.len());
    }

    /// Many owners are no reason for tiny bundles.
    #[test]
    fn fifty_owners() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..512 {
            waiting.on_wanted(id(n), 1_000, (0..6).map(|k| owner((n * 7 + k * 11) as u8 % 50)), now);
        }
        let bundles = all_bundles(&mut waiting, now);
        assert_eq!(bundles.len(), ALL_TOGETHER);
        let n_asked: usize = bundles.iter().map(|bundle| bundle.contents.len()).sum();
        assert!(n_asked >= 400, "{n_asked}");
    }

    /// A few contents cost one request; large ones are bounded by their bytes, which follow how fast the last ones came.
    #[test]
    fn the_size_of_a_bundle() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..3 {
            waiting.on_wanted(id(n), 10, (0..4).map(owner), now);
        }
        assert_eq!(all_bundles(&mut waiting, now).len(), 1);
        let mut waiting = Waiting::default();
        let mut sizes = Vec::new();
        for (round, took) in [QUICK / 2, QUICK / 2, QUICK / 2, SLOW * 2, SLOW * 2, SLOW * 2].into_iter().enumerate() {
            (0..64).for_each(|n| _ = waiting.on_wanted(id(1_000 * round + n), 60 << 10, [owner(1)], now));
            let bundle = waiting.next_bundle(now).unwrap();
            sizes.push(bundle.contents.len());
            come(&mut waiting, &bundle, now + took);
        }
        assert_eq!(sizes, [2, 4, 8, 8, 4, 2], "{FIRST_LEN} bytes, twice that, … and {MAX_BUNDLE_LEN} at most");
        // Tiny ones say nothing of the rate.
        let mut waiting = Waiting::default();
        for n in 0..20 {
            waiting.on_wanted(id(n), 10, [owner(1)], now);
            let bundle = waiting.next_bundle(now).unwrap();
            come(&mut waiting, &bundle, now);
        }
        assert_eq!(waiting.owners[&owner(1)].len, FIRST_LEN);
    }

    /// What an owner leaves out is asked of the others, each once, and then given back.
    #[test]
    fn each_owner_once_and_then_given_back() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.on_wanted(id(1), 10, [owner(1), owner(2)], now);
        let first = waiting.next_bundle(now).unwrap();
        assert_eq!(waiting.next_bundle(now), None, "nobody else is asked meanwhile");
        assert_eq!(waiting.on_ended(first.id, Ending::Whole, now), []);
        let second = waiting.next_bundle(now).unwrap();
        assert_ne!(second.owner, first.owner);
        assert_eq!(waiting.on_ended(second.id, Ending::Broken, now), [id(1)]);
        assert_eq!(waiting.next_bundle(now), None);
        assert!(waiting.on_wanted(id(1), 10, [owner(1)], now), "it may be wanted again");
        assert!(waiting.next_bundle(now).is_some());
    }

    /// The same content from other owners, or of another length, is another wish.
    #[test]
    fn wishes_that_differ() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        assert!(waiting.on_wanted(id(1), 10, [owner(1), owner(2)], now));
        assert!(waiting.on_wanted(id(1), 10, [owner(1), owner(2)], now));
        assert!(!waiting.on_wanted(id(1), 10, [owner(1)], now));
        assert!(!waiting.on_wanted(id(1), 11, [owner(1), owner(2)], now));
        waiting.on_withdrawn(id(1));
        assert!(waiting.on_wanted(id(1), 10, [owner(1)], now));
    }

    /// An owner that is away loses all that waits for it, and is asked for nothing for a while.
    #[test]
    fn an_owner_that_is_away() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..200 {
            waiting.on_wanted(id(n), 10, [owner(1)], now);
        }
        waiting.on_wanted(id(999), 10, [owner(1), owner(2)], now);
        let bundles = all_bundles(&mut waiting, now);
        let bundle = bundles.iter().find(|bundle| bundle.owner == owner(1)).unwrap();
        let given_back = waiting.on_ended(bundle.id, Ending::Unreachable, now);
        assert!(given_back.len() >= 100 && !given_back.contains(&id(999)), "{}", given_back.len());
        assert!(!waiting.on_wanted(id(300), 10, [owner(1)], now));
        assert!(all_bundles(&mut waiting, now).iter().all(|bundle| bundle.owner != owner(1)));
        assert!(waiting.on_wanted(id(300), 10, [owner(1)], now + REST));
    }

    /// A busy owner keeps what waits for it, and is asked again when it said; but not for ever.
    #[test]
    fn a_busy_owner() {
        let (mut waiting, mut now) = (Waiting::default(), Instant::now());
        waiting.on_wanted(id(1), 10, [owner(1)], now);
        let rest = Duration::from_secs(2);
        for _ in 0..MAX_BUSY {
            let bundle = waiting.next_bundle(now).unwrap();
            assert_eq!(waiting.on_ended(bundle.id, Ending::Busy(rest), now), []);
            assert_eq!(waiting.next_bundle(now + rest / 2), None, "too early");
            assert_eq!(waiting.next_deadline(), Some(now + rest));
            assert!(waiting.on_wanted(id(1), 10, [owner(1)], now), "others may wait with it");
            now += rest;
            waiting.on_tick(now);
            assert_eq!(waiting.next_deadline(), None);
        }
        let bundle = waiting.next_bundle(now).unwrap();
        assert_eq!(waiting.on_ended(bundle.id, Ending::Busy(rest), now), [id(1)]);
    }

    /// One place was free and one was not: it is busy and not away.
    #[test]
    fn busy_and_giving() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..10 {
            waiting.on_wanted(id(n), 10, [owner(1)], now);
        }
        let (giving, busy) = (waiting.next_bundle(now).unwrap(), waiting.next_bundle(now).unwrap());
        assert_eq!(waiting.on_ended(busy.id, Ending::Busy(LATE), now), []);
        come(&mut waiting, &giving, now);
        assert!(waiting.on_wanted(id(99), 10, [owner(1)], now));
        assert_eq!(waiting.next_bundle(now), None);
        waiting.on_tick(now + LATE);
        assert!(waiting.next_bundle(now + LATE).is_some());
    }

    /// Who is late keeps what it was asked for and gets no more, and another is asked besides; what comes first ends the other.
    #[test]
    fn a_late_owner() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.on_wanted(id(1), 10, [owner(1), owner(2)], now);
        let first = waiting.next_bundle(now).unwrap();
        assert_eq!(waiting.next_deadline(), Some(now + LATE));
        waiting.on_tick(now + LATE / 2);
        assert_eq!(waiting.next_bundle(now), None);
        let now = now + LATE;
        waiting.on_tick(now);
        assert_eq!(waiting.next_deadline(), None);
        let second = waiting.next_bundle(now).unwrap();
        assert_ne!(second.owner, first.owner);
        waiting.on_wanted(id(2), 10, [first.owner], now);
        assert_eq!(waiting.next_bundle(now), None, "it is late");
        waiting.on_come(second.id, id(1));
        assert_eq!((waiting.next_cancel(), waiting.next_cancel()), (Some(first.id), None));
        // It is wanted anew while both still run.
        assert!(waiting.on_wanted(id(1), 10, [owner(3)], now));
        let third = waiting.next_bundle(now).unwrap();
        assert_eq!(waiting.on_ended(first.id, Ending::Cancelled, now), []);
        assert_eq!(waiting.next_bundle(now).unwrap().owner, first.owner, "it is asked again");
        assert_eq!(waiting.on_ended(second.id, Ending::Whole, now), []);
        assert_eq!(waiting.on_ended(third.id, Ending::Whole, now), [id(1)]);
    }

    /// Any number of owners that never answer leaves places for those who do.
    #[test]
    fn late_owners_do_not_fill_all_places() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..ALL_TOGETHER {
            waiting.on_wanted(id(n), 10, [owner(n as u8)], now);
        }
        assert_eq!(all_bundles(&mut waiting, now).len(), ALL_TOGETHER);
        waiting.on_wanted(id(999), 10, [owner(99)], now);
        assert_eq!(waiting.next_bundle(now), None);
        waiting.on_tick(now + LATE);
        assert_eq!(waiting.next_bundle(now + LATE).unwrap().owner, owner(99));
    }

    proptest! {
        /// Whatever happens, each content comes, is withdrawn or is given back; nobody is asked for one twice without having
        /// said that it was busy, or while it is away; and bundles keep their bounds.
        #[test]
        fn nothing_is_forgotten(
            wants in proptest::collection::vec((0u64..300_000, proptest::collection::vec(0u8..6, 1..5)), 1..200),
            steps in proptest::collection::vec((0usize..40, 0u8..8, 0u64..900), 0..400),
        ) {
            let (mut waiting, mut now) = (Waiting::default(), Instant::now());
            let (mut running, mut asked) = (Vec::<Bundle>::new(), HashSet::new());
            let (mut open, mut away) = (HashSet::new(), HashMap::new());
            let (mut wants, mut steps) = (wants.into_iter().enumerate(), steps.into_iter());
            for round in 0.. {
                prop_assert!(round < 100_000);
                for (n, (len, owners)) in wants.by_ref().take(7) {
                    if waiting.on_wanted(id(n), len, owners.into_iter().map(owner), now) {
                        open.insert(id(n));
                    }
                }
                while let Some(bundle) = waiting.next_bundle(now) {
                    let len: u64 = bundle.contents.iter().map(|(_, len)| len).sum();
                    prop_assert!(bundle.contents.len() <= MAX_CONTENTS && !bundle.contents.is_empty());
                    prop_assert!(len <= MAX_BUNDLE_LEN || bundle.contents.len() == 1);
                    prop_assert!(away.get(&bundle.owner).is_none_or(|until| *until <= now), "it is away");
                    for (content, _) in &bundle.contents {
                        prop_assert!(open.contains(content), "nobody wants it");
                        prop_assert!(asked.insert((*content, bundle.owner)), "asked twice");
                    }
                    running.push(bundle);
                }
                prop_assert!(running.len() <= MAX_RUNNING);
                let (which, what, ms) = steps.next().unwrap_or((0, 0, 1));
                let least = waiting.next_deadline().filter(|_| running.is_empty()).unwrap_or(now);
                now = (now + Duration::from_millis(ms)).max(least);
                waiting.on_tick(now);
                if running.is_empty() {
                    if open.is_empty() && wants.len() == 0 {
                        break;
                    }
                    continue;
                }
                let bundle = running.swap_remove(which % running.len());
                let ending = match what {
                    0 => Ending::Unreachable,
                    1 => Ending::TooSlow,
                    2 => Ending::Busy(Duration::from_millis(ms)),
                    3 => Ending::Broken,
                    _ => Ending::Whole,
                };
                for (content, _) in bundle.contents.iter().take(usize::from(what) * 4) {
                    if open.remove(content) {
                        if what == 5 { waiting.on_withdrawn(*content) } else { waiting.on_come(bundle.id, *content) }
                    }
                }
                for given_back in waiting.on_ended(bundle.id, ending, now) {
                    prop_assert!(open.remove(&given_back), "given back and not open");
                }
                match ending {
                    Ending::Unreachable | Ending::TooSlow => _ = away.insert(bundle.owner, now + REST),
                    Ending::Busy(_) => {
                        bundle.contents.iter().for_each(|(content, _)| _ = asked.remove(&(*content, bundle.owner)));
                    }
                    _ => {}
                }
                while let Some(cancel) = waiting.next_cancel() {
                    if let Some(at) = running.iter().position(|bundle| bundle.id == cancel) {
                        running.swap_remove(at);
                        prop_assert_eq!(waiting.on_ended(cancel, Ending::Cancelled, now), []);
                    }
                }
            }
            prop_assert!(waiting.wanted.is_empty(), "{} are forgotten", waiting.wanted.len());
        }
    }
}
