//! How many leechers are given chunks of one content at the same time.
//!
//! An uplink that is shared by hundreds brings nobody a chunk that could be handed on for as long as all of them need
//! together. A few get theirs soon, and the others find it there, or come back when they are told to. Only for those who
//! ask for chunks and know of other owners: whoever fetches a file with any HTTP client gets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use potluck_common::ContentId;

/// Leechers' requests that are answered at the same time, of each content. Of 16 to 256 it did best over simulated swarms of
/// 8 to 1,000 leechers: fewer cost crowds of about that size something, more cost larger ones.
pub const MAX_SENDING: usize = 32;

/// The seats at each content.
#[derive(Debug, Clone, Default)]
pub struct Crowd {
    taken: Arc<Mutex<HashMap<ContentId, usize>>>,
}

/// The right to be sent chunks of a content, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    crowd: Crowd,
    id: ContentId,
}

impl Crowd {
    /// A seat, if one is free.
    pub fn enter(&self, id: ContentId) -> Option<Seat> {
        let mut taken = self.lock();
        let n_taken = taken.entry(id).or_default();
        if *n_taken >= MAX_SENDING {
            return None;
        }
        *n_taken += 1;
        Some(Seat { crowd: self.clone(), id })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.crowd.lock();
        if let Some(n_taken) = taken.get_mut(&self.id) {
            *n_taken -= 1;
            if *n_taken == 0 {
                taken.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_content_has_places_of_its_own() {
        let crowd = Crowd::default();
        let [a, b] = [b"a", b"b"].map(|bytes| ContentId::of(bytes));
        let mut seats: Vec<Seat> = (0..MAX_SENDING).map(|_| crowd.enter(a).expect("there is room")).collect();
        assert!(crowd.enter(a).is_none());
        let other = crowd.enter(b).expect("another content");
        seats.pop();
        let again = crowd.enter(a).expect("one has gone");
        assert!(crowd.enter(a).is_none());
        drop((seats, again, other));
        assert!(crowd.lock().is_empty(), "nothing is kept of what nobody fetches");
    }
}
