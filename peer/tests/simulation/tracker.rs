//! The tracker of a simulation: who is listed, and the handout. The choice is the tracker's own (its `handout.rs`):
//! at most fifty owners, a quarter of them kept for partial ones.

/// Owners named in a handout, as peers ask for.
const MAX_OWNERS: usize = 50;
/// The share of it that is kept for partial owners.
const PARTIAL_SHARE: usize = 4;

/// What one peer is listed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    Complete = 0,
    Partial = 1,
}

/// A choice of owners.
#[derive(Debug)]
pub(crate) struct Handout {
    pub(crate) complete: Vec<usize>,
    pub(crate) partial: Vec<usize>,
    /// Whether that is everybody.
    pub(crate) is_all: bool,
}

/// Who is listed.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    lists: [Vec<usize>; 2],
    /// Where in which list a peer stands.
    places: Vec<Option<(Listed, usize)>>,
}

impl Tracker {
    /// Lists a peer, or no longer.
    pub(crate) fn list(&mut self, peer: usize, listed: Option<Listed>) {
        if self.places.len() <= peer {
            self.places.resize(peer + 1, None);
        }
        if let Some((list, at)) = self.places[peer].take() {
            let list = &mut self.lists[list as usize];
            list.swap_remove(at);
            if let Some(moved) = list.get(at)
                && let Some((_, place)) = &mut self.places[*moved]
            {
                *place = at;
            }
        }
        if let Some(listed) = listed {
            self.places[peer] = Some((listed, self.lists[listed as usize].len()));
            self.lists[listed as usize].push(peer);
        }
    }

    pub(crate) fn handout(&self, rng: &mut fastrand::Rng) -> Handout {
        let [complete, partial] = &self.lists;
        let for_partial =
            partial.len().min((MAX_OWNERS / PARTIAL_SHARE).max(MAX_OWNERS.saturating_sub(complete.len())));
        let for_complete = complete.len().min(MAX_OWNERS - for_partial);
        Handout {
            is_all: for_complete == complete.len() && for_partial == partial.len(),
            complete: sample(complete, for_complete, rng),
            partial: sample(partial, for_partial, rng),
        }
    }
}

/// `k` different ones of these (Floyd's algorithm).
fn sample(list: &[usize], k: usize, rng: &mut fastrand::Rng) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(k);
    for top in list.len() - k..list.len() {
        let one = list[rng.usize(..=top)];
        chosen.push(if chosen.contains(&one) { list[top] } else { one });
    }
    chosen
}
