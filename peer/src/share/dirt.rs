//! Places that are worth a look, gathered until somebody looks.
//!
//! Whoever notes one never waits, and of many notes of one place one is left. More places than are worth remembering one by
//! one become one: everything.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use potluck_common::SharePath;
use tokio::sync::Notify;

/// More places than this are not remembered one by one: everything is looked at.
const MAX_PLACES: usize = 10_000;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dirty {
    /// These files and folders.
    Places(Vec<SharePath>),
    /// All of it.
    Everything,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Dirt {
    noted: Mutex<Noted>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Noted {
    places: BTreeSet<SharePath>,
    everything: bool,
}

impl Dirt {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These places are worth a look.
    pub fn note(&self, places: impl IntoIterator<Item = SharePath>) {
        let mut noted = self.lock();
        let mut news = false;
        for place in places {
            news = true;
            if noted.places.len() < MAX_PLACES {
                noted.places.insert(place);
            } else {
                noted.everything = true;
            }
        }
        if news {
            self.changed.notify_one();
        }
    }

    /// Everything is.
    pub fn note_everything(&self) {
        self.lock().everything = true;
        self.changed.notify_one();
    }

    /// Waits until something may have been noted since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What has been noted since the last call.
    pub fn take(&self) -> Dirty {
        let noted = std::mem::take(&mut *self.lock());
        if noted.everything { Dirty::Everything } else { Dirty::Places(noted.places.into_iter().collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_places_are_everything() {
        let dirt = Dirt::default();
        let place = |n: usize| format!("f{n}").parse::<SharePath>().unwrap();
        dirt.note([place(1), place(0), place(1)]);
        assert_eq!(dirt.take(), Dirty::Places(vec![place(0), place(1)]));
        assert_eq!(dirt.take(), Dirty::Places(Vec::new()));
        dirt.note((0..MAX_PLACES).map(place));
        assert!(matches!(dirt.take(), Dirty::Places(places) if places.len() == MAX_PLACES));
        dirt.note((0..=MAX_PLACES).map(place));
        assert_eq!(dirt.take(), Dirty::Everything);
        dirt.note_everything();
        assert_eq!(dirt.take(), Dirty::Everything);
    }
}
