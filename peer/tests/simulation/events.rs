//! What happens next: events in the order of their times, and of their making where times are equal.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use potluck_peer::scheduler::Request;

use crate::links::FlowId;

/// What happens to whom. Events of a visit that is over are void, which is what the number of the visit is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Arrives(usize),
    Leaves(usize, u32),
    /// Its owner's answer to a request begins to reach this peer.
    Answer(usize, u32, Request),
    /// A request of this peer has waited for a slot for long enough.
    Refuse(usize, u32, Request),
    /// A flow has perhaps reached a mark.
    Flow(FlowId),
    /// This peer has heard something or wants to be told the time.
    Look(usize),
    /// It asks the tracker again who is there.
    Refresh(usize, u32),
    /// Its announce has reached the tracker.
    Announced(usize, u32),
    Fault(usize),
}

#[derive(Debug)]
struct Entry {
    at: f64,
    number: u64,
    event: Event,
}

/// Events to come.
#[derive(Debug, Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Reverse<Entry>>,
    n_made: u64,
}

impl Events {
    pub(crate) fn push(&mut self, at: f64, event: Event) {
        self.n_made += 1;
        self.heap.push(Reverse(Entry { at, number: self.n_made, event }));
    }

    pub(crate) fn pop(&mut self) -> Option<(f64, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}
