//! Who fetches an origin that nobody holds yet: one of all that want it, and another one if that one is lost.
//!
//! Each bids at the trackers, as a partial owner of a content that stands for the origin ([`super::url::OriginUrl::bid_id`]): first it
//! waits, and the one of the lowest peer id, as everybody sees the list, says that it begins. It fetches only if it then sees
//! that nobody else has said so; two that do so at once both go back to waiting, and see by then who is first. A bid ends with its
//! peer's lease, so whoever dies makes way.
//!
//! Invariant: a tracker shows what it was told before the question, so of two that begin at least one sees the other. Hence no two
//! fetch at once (of one tracker; several trackers that were split may cost a second copy and nothing else).
//!
//! Pure: what trackers list comes in, what to do goes out.

use potluck_common::PeerId;

/// The first so many bid; the others of a crowd look on, and bid when these are gone.
const MAX_BIDS: usize = 8;

/// How far a bid is. As a partial owner, one chunk or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It would fetch.
    Waits,
    /// It fetches, or is about to.
    Begins,
}

impl Stage {
    /// As trackers are told it.
    pub const fn n_chunks(self) -> u32 {
        match self {
            Self::Waits => 1,
            Self::Begins => 2,
        }
    }

    /// As trackers tell it.
    pub const fn of(n_chunks: u32) -> Self {
        if n_chunks > 1 { Self::Begins } else { Self::Waits }
    }
}

/// One peer's bid, as a tracker lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid {
    /// Whose.
    pub peer: PeerId,
    /// How far.
    pub stage: Stage,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look again in a while.
    Wait,
    /// Tell the trackers this.
    Bid(Stage),
    /// Tell the trackers that there is no bid any more.
    Withdraw,
    /// Ask the origin: nobody else does.
    Fetch,
}

/// What to do, having told the trackers `mine`, where they list `bids`, which are all of them if `all_named`.
pub fn next_step(me: PeerId, mine: Option<Stage>, bids: &[Bid], all_named: bool) -> Step {
    let is_listed = bids.iter().any(|bid| bid.peer == me && Some(bid.stage) == mine);
    let other_begins = begins(me, bids).is_some();
    let n_before = bids.iter().filter(|bid| bid.peer < me).count();
    match mine {
        None if n_before < MAX_BIDS => Step::Bid(Stage::Waits),
        None => Step::Wait,
        Some(Stage::Waits) if n_before >= MAX_BIDS => Step::Withdraw,
        Some(_) if !is_listed || !all_named => Step::Wait,
        Some(Stage::Waits) if other_begins || n_before > 0 => Step::Wait,
        Some(Stage::Waits) => Step::Bid(Stage::Begins),
        Some(Stage::Begins) if other_begins => Step::Bid(Stage::Waits),
        Some(Stage::Begins) => Step::Fetch,
    }
}

/// Somebody else that fetches, or is about to.
pub fn begins(me: PeerId, bids: &[Bid]) -> Option<PeerId> {
    bids.iter().find(|bid| bid.peer != me && bid.stage == Stage::Begins).map(|bid| bid.peer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 16])
    }

    #[test]
    fn steps() {
        use Stage::{Begins, Waits};
        let check = |mine, bids: &[(u8, Stage)], want| {
            let bids: Vec<_> = bids.iter().map(|(n, stage)| Bid { peer: peer(*n), stage: *stage }).collect();
            assert_eq!(next_step(peer(5), mine, &bids, true), want, "{mine:?} {bids:?}");
        };
        check(None, &[], Step::Bid(Waits));
        check(None, &[(1, Begins)], Step::Bid(Waits));
        check(Some(Waits), &[], Step::Wait);
        check(Some(Waits), &[(5, Waits)], Step::Bid(Begins));
        check(Some(Waits), &[(5, Waits), (9, Waits)], Step::Bid(Begins));
        check(Some(Waits), &[(5, Waits), (1, Waits)], Step::Wait);
        check(Some(Waits), &[(5, Waits), (9, Begins)], Step::Wait);
        check(Some(Begins), &[(5, Waits)], Step::Wait);
        check(Some(Begins), &[(5, Begins)], Step::Fetch);
        check(Some(Begins), &[(5, Begins), (1, Waits)], Step::Fetch);
        check(Some(Begins), &[(5, Begins), (9, Begins)], Step::Bid(Waits));
        let crowd: Vec<_> = (10..18).map(|n| Bid { peer: peer(n), stage: Waits }).collect();
        assert_eq!(next_step(peer(20), None, &crowd, true), Step::Wait);
        assert_eq!(next_step(peer(20), Some(Waits), &crowd, true), Step::Withdraw);
        let mine = [Bid { peer: peer(5), stage: Begins }];
        assert_eq!(next_step(peer(5), Some(Begins), &mine, false), Step::Wait, "somebody is not named");
    }

    /// Peers that come, look, tell and die in any order: never two that fetch, and always one in the end.
    #[test]
    fn one_at_a_time_and_always_one() {
        for seed in 0..400 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let n_peers = rng.u8(1..14);
            // What each believes to have told, what is still on its way there in order, and what it last saw.
            let mut told: BTreeMap<u8, Option<Stage>> = (0..n_peers).map(|n| (n, None)).collect();
            let mut on_the_way: BTreeMap<u8, Vec<Option<Stage>>> = BTreeMap::new();
            let mut listed: BTreeMap<u8, Stage> = BTreeMap::new();
            let mut fetching: Option<u8> = None;
            let (mut n_deaths, mut n_fetched) = (n_peers - 1, 0);
            for _ in 0..20_000 {
                let Some(&n) = told.keys().nth(rng.usize(..told.len())) else { break };
                if rng.bool() {
                    // One message of its arrives.
                    let queue = on_the_way.entry(n).or_default();
                    if !queue.is_empty() {
                        match queue.remove(0) {
                            Some(stage) => drop(listed.insert(n, stage)),
                            None => drop(listed.remove(&n)),
                        }
                    }
                    continue;
                }
                if fetching == Some(n) {
                    // It dies, and its lease ends; or it goes on for ever if it is the last.
                    if n_deaths > 0 && rng.u8(..20) == 0 {
                        n_deaths -= 1;
                        told.remove(&n);
                        on_the_way.remove(&n);
                        listed.remove(&n);
                        fetching = None;
                    }
                    continue;
                }
                let bids: Vec<_> = listed.iter().map(|(n, stage)| Bid { peer: peer(*n), stage: *stage }).collect();
                let step = next_step(peer(n), told[&n], &bids, true);
                let mut tell = |stage| {
                    told.insert(n, stage);
                    on_the_way.entry(n).or_default().push(stage);
                };
                match step {
                    Step::Wait => {}
                    Step::Bid(stage) => tell(Some(stage)),
                    Step::Withdraw => tell(None),
                    Step::Fetch => {
                        assert_eq!(fetching, None, "seed {seed}: {n} as well");
                        fetching = Some(n);
                        n_fetched += 1;
                    }
                }
            }
            assert!(fetching.is_some() && n_fetched == n_peers - n_deaths, "seed {seed}: {n_fetched} of {n_peers}");
        }
    }
}
