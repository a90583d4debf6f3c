//! Small contents that wait to be fetched, and which of them the next bundle of an owner is made of. Pure: the time is an
//! argument.
//!
//! Each content is asked of one owner at a time. What an owner leaves out, gives wrongly or cannot give now is asked of another
//! of its owners, and of each of them once; what none gives this way is given back to whoever wants it, who asks each
//! owner for it alone. An owner that is late keeps its requests, and others are asked for the same besides.
//!
//! Invariant: a content that is wanted is in flight, in the queue of an owner that may be asked for it, or given back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use potluck_common::{ContentId, PeerId};

use crate::wire::bundle::{MAX_BUNDLE_LEN, MAX_CONTENTS};

/// Requests that run at one owner: while it sends one bundle it prepares the next.
const EACH_OWNER: usize = 2;
/// Requests that run in all.
const ALL_TOGETHER: usize = 32;
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
/// How long an owner that could not be reached is not asked for anything.
const REST: Duration = Duration::from_secs(1);

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
    /// With nothing, or an answer that is of no further use.
    Broken,
    /// The owner cannot be asked for a while.
    Away(Duration),
}

impl Ending {
    /// There is no connection, or it broke.
    pub const UNREACHABLE: Self = Self::Away(REST);
}

/// All contents that are wanted.
#[derive(Debug, Default)]
pub struct Waiting {
    wanted: HashMap<ContentId, Wanted>,
    owners: BTreeMap<PeerId, Asked>,
    running: BTreeMap<BundleId, Running>,
    last: u64,
}

#[derive(Debug)]
struct Wanted {
    len: u64,
    /// Who has not been asked.
    owners: Vec<PeerId>,
    /// Requests that it is part of.
    in_flight: Vec<BundleId>,
}

/// An owner.
#[derive(Debug)]
struct Asked {
    /// In order of arrival; some have come meanwhile, or are in flight elsewhere.
    queue: VecDeque<ContentId>,
    n_running: usize,
    /// Bytes of its next bundle.
    len: u64,
    rests_until: Option<Instant>,
    /// When it was asked last, as a number that grows.
    asked_at: u64,
}

#[derive(Debug)]
struct Running {
    owner: PeerId,
    /// What has not come.
    missing: Vec<ContentId>,
    since: Instant,
    is_late: bool,
}

impl Waiting {
    /// A content is wanted, of at most `len` bytes, and these have it. Whether anybody will be asked: if not, it is not taken.
    pub fn want(&mut self, id: ContentId, len: u64, owners: impl IntoIterator<Item = PeerId>, now: Instant) -> bool {
        if self.wanted.contains_key(&id) {
            return true;
        }
        let may_be_asked = |owner: &PeerId| {
            self.owners.get(owner).and_then(|owner| owner.rests_until).is_none_or(|until| until <= now)
        };
        let owners: Vec<_> = owners.into_iter().filter(may_be_asked).collect();
        if owners.is_empty() {
            return false;
        }
        self.wanted.insert(id, Wanted { len, owners, in_flight: Vec::new() });
        self.queue(id);
        true
    }

    /// It is here, or nobody wants it any more.
    pub fn done(&mut self, id: ContentId) {
        for bundle in self.wanted.remove(&id).into_iter().flat_map(|wanted| wanted.in_flight) {
            if let Some(running) = self.running.get_mut(&bundle) {
                running.missing.retain(|missing| *missing != id);
            }
        }
    }

    /// What to ask for next, if there is anything and somebody to ask.
    pub fn next_bundle(&mut self, now: Instant) -> Option<Bundle> {
        if self.running.len() >= ALL_TOGETHER {
            return None;
        }
        loop {
            let mut free: Vec<_> = Vec::new();
            for (id, owner) in &mut self.owners {
                let is_asked_for = |content: &_| is_asked_for(&self.wanted, &self.running, content, *id);
                // What is in flight elsewhere comes back if that fails.
                while owner.queue.front().is_some_and(|content: &ContentId| !is_asked_for(content)) {
                    owner.queue.pop_front();
                }
                if !owner.queue.is_empty() && owner.n_running < EACH_OWNER {
                    free.push((owner.n_running, owner.asked_at, *id));
                }
            }
            let &(.., id) = free.iter().min()?;
            let n_places: usize = free.iter().map(|(n_running, ..)| EACH_OWNER - n_running).sum();
            let bundle = self.take(id, n_places, now);
            if bundle.is_some() {
                return bundle;
            }
        }
    }

    /// A bundle of this owner, which leaves their share to the other places there are.
    fn take(&mut self, id: PeerId, n_places: usize, now: Instant) -> Option<Bundle> {
        let owner = self.owners.get_mut(&id)?;
        let bundle = BundleId(self.last + 1);
        let n = owner.queue.len().div_ceil(n_places).clamp(FEW, MAX_CONTENTS);
        let mut left = owner.len;
        let mut contents = Vec::new();
        while contents.len() < n
            && let Some(content) = owner.queue.pop_front()
        {
            if !is_asked_for(&self.wanted, &self.running, &content, id) {
                continue;
            }
            let Some(wanted) = self.wanted.get_mut(&content) else { continue };
            if wanted.len > left && !contents.is_empty() {
                owner.queue.push_front(content);
                break;
            }
            left = left.saturating_sub(wanted.len);
            wanted.owners.retain(|owner| *owner != id);
            wanted.in_flight.push(bundle);
            contents.push((content, wanted.len));
        }
        if contents.is_empty() {
            return None;
        }
        self.last += 1;
        owner.n_running += 1;
        owner.asked_at = self.last;
        let missing = contents.iter().map(|(content, _)| *content).collect();
        self.running.insert(bundle, Running { owner: id, missing, since: now, is_late: false });
        Some(Bundle { id: bundle, owner: id, contents })
    }

    /// A request has ended; which contents are given back.
    pub fn on_ended(&mut self, bundle: BundleId, ending: Ending, now: Instant) -> Vec<ContentId> {
        let Some(running) = self.running.remove(&bundle) else { return Vec::new() };
        let mut loose = running.missing;
        if let Some(owner) = self.owners.get_mut(&running.owner) {
            owner.n_running -= 1;
            match ending {
                Ending::Whole => owner.adapt(now.saturating_duration_since(running.since)),
                Ending::Broken => owner.len = FIRST_LEN.min(owner.len),
                Ending::Away(rest) => {
                    owner.rests_until = Some(now + rest);
                    owner.len = FIRST_LEN.min(owner.len);
                }
            }
        }
        for content in &loose {
            if let Some(wanted) = self.wanted.get_mut(content) {
                wanted.in_flight.retain(|in_flight| *in_flight != bundle);
            }
        }
        if let Ending::Away(_) = ending {
            loose.extend(self.send_away(running.owner));
        }
        loose.retain(|content| self.is_given_back(*content));
        self.forget(now);
        loose
    }

    /// When [`Waiting::on_tick`] is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.running.values().filter(|running| !running.is_late).map(|running| running.since + LATE).min()
    }

    /// Lets others be asked for what is late.
    pub fn on_tick(&mut self, now: Instant) {
        let mut late = Vec::new();
        for running in self.running.values_mut() {
            if !running.is_late && now >= running.since + LATE {
                running.is_late = true;
                late.extend_from_slice(&running.missing);
            }
        }
        late.into_iter().for_each(|content| self.queue(content));
    }

    /// Puts it into the queues of all who may be asked.
    fn queue(&mut self, id: ContentId) {
        for owner in self.wanted.get(&id).into_iter().flat_map(|wanted| &wanted.owners) {
            self.owners.entry(*owner).or_default().queue.push_back(id);
        }
    }

    /// Nothing more is asked of it; what it was to be asked for.
    fn send_away(&mut self, owner: PeerId) -> Vec<ContentId> {
        let mut queued: Vec<_> =
            self.owners.get_mut(&owner).map(|owner| owner.queue.drain(..).collect()).unwrap_or_default();
        queued.retain(|content| {
            let Some(wanted) = self.wanted.get_mut(content) else { return false };
            wanted.owners.retain(|other| *other != owner);
            true
        });
        queued
    }

    /// Queues what has come loose anew, or takes it out because nobody is left to be asked and nothing is in flight.
    fn is_given_back(&mut self, id: ContentId) -> bool {
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
            self.owners.retain(|_, owner| {
                owner.n_running > 0 || !owner.queue.is_empty() || owner.rests_until.is_some_and(|until| until > now)
            });
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

impl Default for Asked {
    fn default() -> Self {
        Self { queue: VecDeque::new(), n_running: 0, len: FIRST_LEN, rests_until: None, asked_at: 0 }
    }
}

impl Asked {
    fn adapt(&mut self, took: Duration) {
        if took < QUICK {
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

    /// What waits is spread over all owners and both requests of each, and nothing twice.
    #[test]
    fn spread_over_all_owners() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..256 {
            assert!(waiting.want(id(n), 1_000, (0..4).map(owner), now));
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

    /// A few contents cost one request, large ones are spread by their bytes.
    #[test]
    fn the_size_of_a_bundle() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..3 {
            waiting.want(id(n), 10, (0..4).map(owner), now);
        }
        assert_eq!(all_bundles(&mut waiting, now).len(), 1);
        let mut waiting = Waiting::default();
        for n in 0..64 {
            waiting.want(id(n), 100 << 10, [owner(1)], now);
        }
        let lens = |waiting: &mut Waiting, now| -> Vec<usize> {
            all_bundles(waiting, now).iter().map(|bundle| bundle.contents.len()).collect()
        };
        assert_eq!(lens(&mut waiting, now), [1, 1], "{FIRST_LEN} bytes at first");
        let end_all = |waiting: &mut Waiting, now| {
            for (bundle, running) in
                waiting.running.iter().map(|(id, running)| (*id, running.missing.clone())).collect::<Vec<_>>()
            {
                running.into_iter().for_each(|content| waiting.done(content));
                assert_eq!(waiting.on_ended(bundle, Ending::Whole, now), []);
            }
        };
        end_all(&mut waiting, now + QUICK / 2);
        assert_eq!(lens(&mut waiting, now), [5, 5], "it doubled twice, once for each request");
        end_all(&mut waiting, now + SLOW * 2);
        assert_eq!(lens(&mut waiting, now), [1, 1], "and was halved twice");
    }

    /// What an owner leaves out is asked of the others, each once, and then given back.
    #[test]
    fn each_owner_once_and_then_given_back() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.want(id(1), 10, [owner(1), owner(2)], now);
        let first = waiting.next_bundle(now).unwrap();
        assert_eq!(waiting.next_bundle(now), None, "nobody else is asked meanwhile");
        assert_eq!(waiting.on_ended(first.id, Ending::Whole, now), []);
        let second = waiting.next_bundle(now).unwrap();
        assert_ne!(second.owner, first.owner);
        assert_eq!(waiting.on_ended(second.id, Ending::Broken, now), [id(1)]);
        assert_eq!(waiting.next_bundle(now), None);
        assert!(waiting.want(id(1), 10, [owner(1)], now), "it may be wanted again");
        assert!(waiting.next_bundle(now).is_some());
    }

    /// An owner that is away loses all that waits for it, and is asked for nothing for a while.
    #[test]
    fn an_owner_that_is_away() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..200 {
            waiting.want(id(n), 10, [owner(1)], now);
        }
        waiting.want(id(999), 10, [owner(1), owner(2)], now);
        let bundle = all_bundles(&mut waiting, now).into_iter().find(|bundle| bundle.owner == owner(1)).unwrap();
        let given_back = waiting.on_ended(bundle.id, Ending::UNREACHABLE, now);
        assert!(given_back.len() >= 100 && !given_back.contains(&id(999)), "{}", given_back.len());
        assert!(!waiting.want(id(300), 10, [owner(1)], now));
        assert!(waiting.want(id(300), 10, [owner(1)], now + REST));
    }

    /// Who is late keeps what it was asked for, and another is asked besides; whoever comes first ends it.
    #[test]
    fn a_late_owner() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.want(id(1), 10, [owner(1), owner(2)], now);
        let first = waiting.next_bundle(now).unwrap();
        assert_eq!(waiting.next_deadline(), Some(now + LATE));
        waiting.on_tick(now + LATE / 2);
        assert_eq!(waiting.next_bundle(now), None);
        waiting.on_tick(now + LATE);
        assert_eq!(waiting.next_deadline(), None);
        let second = waiting.next_bundle(now + LATE).unwrap();
        waiting.done(id(1));
        // It is wanted anew while both still run.
        assert!(waiting.want(id(1), 10, [owner(3)], now + LATE));
        let third = waiting.next_bundle(now + LATE).unwrap();
        assert_eq!(waiting.on_ended(first.id, Ending::Broken, now + LATE), []);
        assert_eq!(waiting.on_ended(second.id, Ending::Whole, now + LATE), []);
        assert_eq!(waiting.on_ended(third.id, Ending::Whole, now + LATE), [id(1)]);
    }

    proptest! {
        /// Whatever happens, each content comes or is given back, nobody is asked for one twice, and bundles keep their bounds.
        #[test]
        fn nothing_is_forgotten(
            wants in proptest::collection::vec((0u64..300_000, proptest::collection::vec(0u8..6, 1..5)), 1..200),
            steps in proptest::collection::vec((0usize..40, 0u8..6, 0u64..900), 0..400),
        ) {
            let (mut waiting, mut now) = (Waiting::default(), Instant::now());
            let mut open = HashSet::new();
            for (n, (len, owners)) in wants.iter().enumerate() {
                prop_assert!(waiting.want(id(n), *len, owners.iter().copied().map(owner), now));
                open.insert(id(n));
            }
            let (mut running, mut asked) = (Vec::new(), HashSet::new());
            let mut steps = steps.into_iter();
            for round in 0.. {
                prop_assert!(round < 100_000);
                while let Some(bundle) = waiting.next_bundle(now) {
                    let len: u64 = bundle.contents.iter().map(|(_, len)| len).sum();
                    prop_assert!(bundle.contents.len() <= MAX_CONTENTS && !bundle.contents.is_empty());
                    prop_assert!(len <= MAX_BUNDLE_LEN || bundle.contents.len() == 1);
                    for (content, _) in &bundle.contents {
                        prop_assert!(asked.insert((*content, bundle.owner)), "asked twice");
                    }
                    running.push(bundle);
                }
                prop_assert!(running.len() <= ALL_TOGETHER);
                if running.is_empty() {
                    break;
                }
                let (which, what, ms) = steps.next().unwrap_or((0, 0, 1));
                now += Duration::from_millis(ms);
                waiting.on_tick(now);
                let bundle: Bundle = running.swap_remove(which % running.len());
                for (content, _) in bundle.contents.iter().take(usize::from(what) * 4) {
                    if open.remove(content) {
                        waiting.done(*content);
                    }
                }
                let ending = match what { 0 => Ending::UNREACHABLE, 1 => Ending::Broken, _ => Ending::Whole };
                for content in waiting.on_ended(bundle.id, ending, now) {
                    prop_assert!(open.remove(&content), "given back and not open");
                }
            }
            prop_assert!(open.is_empty(), "{} are forgotten", open.len());
        }
    }
}
