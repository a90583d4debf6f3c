//! What a peer does at the moment, in its announces: for people to look at.
//!
//! Each announce says all of it anew, and nothing is decided by it: a tracker keeps it as long as the lease, shows it on its
//! pages, and forgets it. It is bounded ([`MAX_FLOWS`], [`MAX_PROGRESS`], [`MAX_PARTS`]); what is beyond that is dropped, and an
//! item that is none is left out, so that a peer is never refused for it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Sifted;
use crate::have::HaveSet;
use crate::id::{ContentId, PeerId};

/// Most flows that a tracker keeps of one peer.
pub const MAX_FLOWS: usize = 16;
/// Most contents whose parts a tracker keeps of one peer.
pub const MAX_PROGRESS: usize = 8;
/// Most stretches that a content is shown in.
pub const MAX_PARTS: usize = 128;
/// Of a stretch in [`Parts`]: all of it.
pub const WHOLE: u8 = 15;

/// What a peer does right now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Activity {
    /// From whom it receives, the fastest first.
    #[serde(default, skip_serializing_if = "Sifted::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Flow>))]
    pub flows: Sifted<Flow>,
    /// How far it is with what it is fetching.
    #[serde(default, skip_serializing_if = "Sifted::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Progress>))]
    pub progress: Sifted<Progress>,
}

impl Activity {
    /// Whether nothing goes on.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.progress.is_empty()
    }

    /// The same within its bounds.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.flows.items.truncate(MAX_FLOWS);
        self.progress.items.truncate(MAX_PROGRESS);
        self
    }
}

/// What comes from one other peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Flow {
    /// From whom.
    pub from: PeerId,
    /// Of which content the last bytes were.
    pub content_id: ContentId,
    /// Bytes a second.
    pub rate: u64,
}

/// Which parts of a content a peer holds that is fetching it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// Which content.
    pub content_id: ContentId,
    /// Its parts.
    pub parts: Parts,
}

/// A content in at most [`MAX_PARTS`] stretches of as many chunks each as can be, and how much of each is held: 0 is nothing,
/// [`WHOLE`] is all of it. In JSON one hexadecimal digit a stretch.
///
/// ```
/// use potluck_common::{Geometry, HaveSet, protocol::Parts};
/// let geometry = Geometry::new(3 << 18).unwrap();
/// let mut have = HaveSet::empty(geometry);
/// have.insert(geometry.last());
/// assert_eq!(Parts::of(&have, geometry).values(), [0, 0, 15]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts(Box<[u8]>);

impl Parts {
    /// Of what is held.
    pub fn of(have: &HaveSet, geometry: crate::Geometry) -> Self {
        let n_chunks = geometry.n_chunks();
        let n_parts = n_chunks.min(MAX_PARTS as u32);
        let mut counts = vec![(0, 0); n_parts as usize];
        for chunk in geometry.indices() {
            let at = u64::from(chunk.get()) * u64::from(n_parts) / u64::from(n_chunks);
            let (n_held, n_all) = &mut counts[usize::try_from(at).expect("below the number of parts")];
            *n_all += 1;
            *n_held += u32::from(have.contains(chunk));
        }
        Self(counts.into_iter().map(|(n_held, n_all)| share_of(n_held, n_all)).collect())
    }

    /// How much of each stretch is held.
    pub fn values(&self) -> &[u8] {
        &self.0
    }
}

/// Nothing only if none is held, all only if every one is.
fn share_of(n_held: u32, n_chunks: u32) -> u8 {
    match n_held {
        0 => 0,
        n if n >= n_chunks => WHOLE,
        n => u8::try_from(n * u32::from(WHOLE) / n_chunks).map_or(1, |share| share.clamp(1, WHOLE - 1)),
    }
}

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().filter_map(|share| char::from_digit(u32::from(*share), 16)).collect();
        digits.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        let digit = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let shares: Option<Box<[u8]>> = text.chars().take(MAX_PARTS + 1).map(digit).collect();
        shares
            .filter(|shares| (1..=MAX_PARTS).contains(&shares.len()))
            .map(Self)
            .ok_or_else(|| D::Error::custom("one to 128 hexadecimal digits are parts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Geometry;

    #[test]
    fn parts_of_many_chunks() {
        let check = |n_chunks: u64, held: &[u32], want: &str| {
            let geometry = Geometry::new(n_chunks << 18).unwrap();
            let mut have = HaveSet::empty(geometry);
            held.iter().for_each(|chunk| assert!(have.insert(geometry.index(*chunk).unwrap())));
            let text = serde_json::to_string(&Parts::of(&have, geometry)).unwrap();
            assert_eq!(text.trim_matches('"').trim_end_matches('0'), want, "{n_chunks} {held:?}");
        };
        check(1, &[], "");
        check(1, &[0], "f");
        check(5, &[0, 3], "f00f");
        check(256, &[0, 1, 2], "f7");
        check(384, &[0, 3, 4, 5], "5f");
        check(129, &[0, 1], "f");
        let geometry = Geometry::new(1 << 40).unwrap();
        assert_eq!(Parts::of(&HaveSet::full(geometry), geometry).values(), [WHOLE; MAX_PARTS]);
    }

    /// T16 in spirit: what is no activity is left out, never refused, and never more than the bounds is kept.
    #[test]
    fn from_strangers() {
        let (peer, content) = ("0".repeat(32), "0".repeat(64));
        let flow = format!(r#"{{"from":"{peer}","content_id":"{content}","rate":7}}"#);
        let progress = |parts: &str| format!(r#"{{"content_id":"{content}","parts":"{parts}"}}"#);
        let flows = [&flow, "7", "{}", &flow.replace('7', "-1")].join(",");
        let many = vec![progress("0f"); 20].join(",");
        let bad = [progress(""), progress("0g"), progress(&"0".repeat(129))].join(",");
        let text = format!(r#"{{"flows":[{flows}],"progress":[{bad},{many}]}}"#);
        let activity: Activity = serde_json::from_str(&text).unwrap();
        assert_eq!((activity.flows.items.len(), activity.flows.n_refused), (1, 3));
        assert_eq!((activity.progress.items.len(), activity.progress.n_refused), (20, 3));
        let bounded = activity.bounded();
        assert_eq!(bounded.progress.items.len(), MAX_PROGRESS);
        assert_eq!(bounded.progress.items[0].parts.values(), [0, WHOLE]);
        assert_eq!(serde_json::from_str::<Activity>("{}").unwrap(), Activity::default());
    }
}
