//! Uplinks and downlinks as fluids: how fast each running response goes, and when it has the next chunk whole.
//!
//! Every link is shared max-min fairly among its flows, computed link by link and only when something on that link
//! changes: a link gives each flow what the other end can use, as that end said when it was last computed, and shares
//! what is left over equally. So a change reaches the far ends with a delay of one event, and bandwidth may lie idle
//! meanwhile. It is never given twice: invariant: what the flows of a link get is at most its rate.
//!
//! It knows no scheduler and no chunk, only marks: counts of bytes at which somebody wants to be told.

use std::collections::VecDeque;

/// Which flow; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowId {
    index: u32,
    generation: u32,
}

/// One response under way.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) n_sent: f64,
    /// Where it stops next to tell, in bytes from its start, ascending; the last one is its end.
    pub(crate) marks: VecDeque<f64>,
    len: f64,
    rate: f64,
    since: f64,
    /// When it last moved.
    pub(crate) moved_at: f64,
    /// What each end gives it.
    shares: [f64; 2],
    /// When the next look at it is due.
    due: f64,
}

/// The two ends of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Up = 0,
    Down = 1,
}

#[derive(Debug, Default)]
struct Link {
    rate: f64,
    /// What a flow gets here that takes all it can get.
    level: f64,
    flows: Vec<FlowId>,
    is_stale: bool,
}

/// All links, and what flows over them.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: [Vec<Link>; 2],
    flows: Vec<(u32, Option<Flow>)>,
    free: Vec<u32>,
    stale: Vec<(End, usize)>,
}

impl Links {
    /// One more node, with so many bytes a second up and down.
    pub(crate) fn add_node(&mut self, up: f64, down: f64) {
        for (links, rate) in self.links.iter_mut().zip([up, down]) {
            links.push(Link { rate, level: rate, ..Link::default() });
        }
    }

    pub(crate) fn up(&self, node: usize) -> f64 {
        self.links[End::Up as usize][node].rate
    }

    pub(crate) fn set_up(&mut self, node: usize, rate: f64) {
        self.links[End::Up as usize][node].rate = rate;
        self.touch(End::Up, node);
    }

    /// Responses that a node sends now.
    pub(crate) fn uploads(&self, node: usize) -> &[FlowId] {
        &self.links[End::Up as usize][node].flows
    }

    pub(crate) fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(id.index as usize).filter(|(generation, _)| *generation == id.generation)?.1.as_ref()
    }

    fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(id.index as usize).filter(|(generation, _)| *generation == id.generation)?.1.as_mut()
    }

    pub(crate) fn add(&mut self, from: usize, to: usize, marks: VecDeque<f64>, now: f64) -> FlowId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.flows.push((0, None));
            self.flows.len() as u32 - 1
        });
        let len = marks.back().copied().unwrap_or(0.0);
        let (generation, place) = &mut self.flows[index as usize];
        *place = Some(Flow {
            len,
            from,
            to,
            n_sent: 0.0,
            marks,
            rate: 0.0,
            since: now,
            moved_at: now,
            shares: [0.0; 2],
            due: f64::INFINITY,
        });
        let id = FlowId { index, generation: *generation };
        for (end, node) in [(End::Up, from), (End::Down, to)] {
            self.links[end as usize][node].flows.push(id);
            self.touch(end, node);
        }
        id
    }

    pub(crate) fn remove(&mut self, id: FlowId) {
        if self.get(id).is_none() {
            return;
        }
        let (generation, flow) = &mut self.flows[id.index as usize];
        *generation += 1;
        let Some(flow) = flow.take() else { return };
        self.free.push(id.index);
        for (end, node) in [(End::Up, flow.from), (End::Down, flow.to)] {
            let flows = &mut self.links[end as usize][node].flows;
            if let Some(at) = flows.iter().position(|other| *other == id) {
                flows.swap_remove(at);
            }
            self.touch(end, node);
        }
    }

    /// Brings what a flow has sent up to date; the flow.
    pub(crate) fn settle(&mut self, id: FlowId, now: f64) -> Option<&mut Flow> {
        let flow = self.get_mut(id)?;
        flow.settle(now);
        Some(flow)
    }

    /// A look at a flow is due. `None` if it is gone or another time was set since; otherwise brought up to date.
    pub(crate) fn on_due(&mut self, id: FlowId, due: f64) -> Option<&mut Flow> {
        let flow = self.get_mut(id)?;
        if flow.due.to_bits() != due.to_bits() {
            return None;
        }
        flow.due = f64::INFINITY;
        flow.settle(due);
        Some(flow)
    }

    /// When the next look at a flow is due, if that is news.
    pub(crate) fn next_due(&mut self, id: FlowId, now: f64) -> Option<f64> {
        self.get_mut(id)?.next_due(now)
    }

    fn touch(&mut self, end: End, node: usize) {
        let link = &mut self.links[end as usize][node];
        if !link.is_stale {
            link.is_stale = true;
            self.stale.push((end, node));
        }
    }

    /// Shares the links on which something changed; which flows are due when.
    pub(crate) fn share(&mut self, now: f64, due: &mut Vec<(f64, FlowId)>) {
        for (end, node) in std::mem::take(&mut self.stale) {
            self.share_one(end, node, now, due);
        }
    }

    fn share_one(&mut self, end: End, node: usize, now: f64, due: &mut Vec<(f64, FlowId)>) {
        let mut ids = std::mem::take(&mut self.links[end as usize][node].flows);
        let rate = self.links[end as usize][node].rate;
        let caps: Vec<f64> = ids
            .iter()
            .map(|id| {
                let flow = self.get(*id).expect("a link lists only flows that exist");
                match end {
                    End::Up => self.links[End::Down as usize][flow.to].level,
                    End::Down => self.links[End::Up as usize][flow.from].level,
                }
            })
            .collect();
        let (level, spare) = level_of(rate, &caps);
        for (id, cap) in ids.iter().zip(caps) {
            let flow = self.get_mut(*id).expect("a link lists only flows that exist");
            flow.settle(now);
            flow.shares[end as usize] = cap.min(level) + spare;
            flow.rate = flow.shares[0].min(flow.shares[1]);
            due.extend(flow.next_due(now).map(|at| (at, *id)));
        }
        let link = &mut self.links[end as usize][node];
        link.flows = std::mem::take(&mut ids);
        link.level = level;
        link.is_stale = false;
    }
}

impl Flow {
    fn settle(&mut self, now: f64) {
        self.n_sent = (self.n_sent + self.rate * (now - self.since)).min(self.len);
        if self.rate > 0.0 {
            self.moved_at = now;
        }
        self.since = now;
    }

    fn next_due(&mut self, now: f64) -> Option<f64> {
        let wait = (self.marks.front()? - self.n_sent).max(0.0) / self.rate;
        // A little late costs less than another look.
        let is_news = now + wait * 1.002 < self.due;
        is_news.then(|| {
            self.due = now + wait;
            self.due
        })
    }
}

/// The level up to which every flow gets what it can use, and what is left over then for each.
fn level_of(rate: f64, caps: &[f64]) -> (f64, f64) {
    let n = caps.len() as f64;
    if caps.is_empty() {
        return (rate, 0.0);
    }
    let mut level = rate / n;
    // The level only rises, so that whenever this ends nothing is given twice.
    for _ in 0..8 {
        let (n_below, below) =
            caps.iter().filter(|cap| **cap < level).fold((0.0, 0.0), |(n, sum), cap| (n + 1.0, sum + cap));
        if n_below == n {
            let most = caps.iter().copied().fold(0.0, f64::max);
            return (most + rate - below, (rate - below) / n);
        }
        let higher = (rate - below) / (n - n_below);
        if higher <= level * 1.000_001 {
            break;
        }
        level = higher;
    }
    (level, 0.0)
}

#[test]
fn levels() {
    let check = |rate, caps: &[f64], want: (f64, f64)| assert_eq!(level_of(rate, caps), want, "{rate} {caps:?}");
    check(100.0, &[], (100.0, 0.0));
    check(100.0, &[1_000.0], (100.0, 0.0));
    check(100.0, &[1_000.0; 4], (25.0, 0.0));
    check(100.0, &[10.0, 1_000.0, 1_000.0], (45.0, 0.0));
    check(100.0, &[10.0, 40.0, 1_000.0], (50.0, 0.0));
    check(100.0, &[10.0, 30.0], (90.0, 30.0));
    check(0.0, &[10.0, 30.0], (0.0, 0.0));
}

/// Two flows meet on one uplink, one of them slowed by its downlink: the other gets the rest, and all of it once
/// the first has ended.
#[test]
fn what_one_flow_cannot_use_the_other_gets() {
    let mut links = Links::default();
    links.add_node(100.0, 0.0);
    links.add_node(0.0, 20.0);
    links.add_node(0.0, 1_000.0);
    let mut due = Vec::new();
    let slow = links.add(0, 1, VecDeque::from([200.0]), 0.0);
    let fast = links.add(0, 2, VecDeque::from([800.0, 1_800.0]), 0.0);
    // The far ends are heard of with the second look.
    links.share(0.0, &mut due);
    links.touch(End::Up, 0);
    links.share(0.0, &mut due);
    assert_eq!(due.iter().rev().find(|(_, id)| *id == slow).unwrap().0, 10.0);
    assert_eq!(due.iter().rev().find(|(_, id)| *id == fast).unwrap().0, 10.0);
    links.remove(slow);
    assert!(links.get(slow).is_none() && links.on_due(slow, 10.0).is_none());
    links.on_due(fast, 10.0).unwrap().marks.pop_front();
    due.clear();
    links.share(10.0, &mut due);
    assert_eq!(due, [(20.0, fast)]);
}
