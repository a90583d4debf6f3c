//! Whether a tracker that was away lists everybody again, so that nobody is forgotten who has yet to come back to it.
//!
//! Pure: told who is listed, and when.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use potluck_common::PeerId;

/// Who was listed before the tracker went away, if it did.
#[derive(Debug)]
pub struct RollCall {
    patience: Duration,
    listed: BTreeSet<PeerId>,
    was_away: bool,
    back_since: Option<Instant>,
}

impl RollCall {
    /// Whoever has not come back `patience` after the tracker has left.
    pub const fn new(patience: Duration) -> Self {
        Self { patience, listed: BTreeSet::new(), was_away: false, back_since: None }
    }

    /// No tracker answers.
    pub const fn on_silence(&mut self) {
        (self.was_away, self.back_since) = (true, None);
    }

    /// The tracker lists these peers; whether they are all that there are to be expected.
    pub fn is_full(&mut self, listed: BTreeSet<PeerId>, now: Instant) -> bool {
        if self.was_away {
            let back_since = *self.back_since.get_or_insert(now);
            // Without a list of before nobody knows who is missing.
            let are_all_back = !self.listed.is_empty() && self.listed.is_subset(&listed);
            if !are_all_back && now.saturating_duration_since(back_since) < self.patience {
                return false;
            }
            self.was_away = false;
        }
        self.listed = listed;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_expected() {
        let peers = |numbers: &[u8]| numbers.iter().map(|number| PeerId::from_bytes([*number; 16])).collect();
        let (start, patience) = (Instant::now(), Duration::from_secs(60));
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut call = RollCall::new(patience);
        assert!(call.is_full(peers(&[1, 2, 3]), after(0)));
        assert!(call.is_full(peers(&[1, 2]), after(1)), "one left, and the tracker saw it");
        call.on_silence();
        assert!(!call.is_full(peers(&[1]), after(5)));
        assert!(call.is_full(peers(&[1, 2, 4]), after(6)));
        call.on_silence();
        assert!(!call.is_full(peers(&[1, 2]), after(10)));
        call.on_silence();
        assert!(!call.is_full(peers(&[1, 2]), after(69)), "it went away again");
        assert!(!call.is_full(peers(&[1, 2]), after(128)));
        assert!(call.is_full(peers(&[1, 2]), after(129)), "one left meanwhile");
        assert!(call.is_full(peers(&[1]), after(130)));
        // Nobody was ever listed.
        let mut call = RollCall::new(patience);
        call.on_silence();
        assert!(!call.is_full(peers(&[1, 2]), after(0)));
        assert!(call.is_full(peers(&[1, 2]), after(60)));
    }
}
