//! Registers: what a swarm that syncs a folder knows of one path.
//!
//! Every write of a path is a [`Version`] under a [`Dot`]: who wrote it, and the how-manieth write of theirs it is. A
//! [`Register`] keeps the versions that nobody has replaced (`live`) and a version vector of all writes that it has heard of
//! (`seen`). A write replaces the versions that its writer saw; a delete only takes them out. So a dot in `seen` without a
//! version in `live` has been replaced or deleted, and a register without live versions is a tombstone.
//!
//! [`Register::join`] is commutative, associative and idempotent: peers that heard the same facts, in any order and
//! however often, have equal registers. No clock is compared. This is the observed-remove set with dotted version
//! vectors (Bieniusa et al. 2012, "An optimized conflict-free replicated set"; Preguiça et al. 2010, "Dotted version
//! vectors").
//!
//! Invariants: each live dot is in `seen`; no dot is live twice; live versions are in order of their dots. A register that
//! breaks this, or has more than [`MAX_WRITERS`] or [`MAX_LIVE`], cannot be deserialised.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{ContentId, PeerId};

/// Most writers of one path: far more than the machines of a room, few enough that a register stays small.
pub const MAX_WRITERS: usize = 1_024;
/// Most versions of one path that nobody has replaced.
pub const MAX_LIVE: usize = 256;
/// The largest number of a write: what a JSON number holds exactly. No peer writes so often; whoever claims so wants to
/// outrun the writer.
pub const MAX_WRITE: u64 = (1 << 53) - 1;

/// One write: the `n`-th of `by`. Numbers of one writer only grow, and may leave gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Dot {
    /// Who wrote.
    pub by: PeerId,
    /// The number of the write.
    pub n: u64,
}

/// For each writer the number of its latest write that is known.
///
/// In order of writers, in a list: nearly every path has one writer or a few, and an index keeps a vector for each path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionVector(Vec<(PeerId, u64)>);

impl VersionVector {
    /// Whether this write is known.
    pub fn contains(&self, dot: Dot) -> bool {
        self.latest(dot.by) >= dot.n
    }

    /// The number of a writer's latest known write; 0 if there is none.
    pub fn latest(&self, by: PeerId) -> u64 {
        self.find(by).map_or(0, |at| self.0[at].1)
    }

    fn find(&self, by: PeerId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&by, |(by, _)| *by)
    }

    /// Takes note of a write and all earlier ones of that writer.
    pub fn note(&mut self, dot: Dot) {
        match self.find(dot.by) {
            Ok(at) => self.0[at].1 = dot.n.max(self.0[at].1),
            Err(at) => {
                // Exactly: a list that grows by itself takes room for four.
                self.0.reserve_exact(1);
                self.0.insert(at, (dot.by, dot.n));
            }
        }
    }

    /// Takes note of everything that `other` knows.
    pub fn join(&mut self, other: &Self) {
        let mut all: Vec<_> = self.iter().chain(other.iter()).collect();
        all.sort_unstable();
        all.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                earlier.1 = later.1;
            }
            is_same
        });
        all.shrink_to_fit();
        self.0 = all;
    }

    /// Whether this knows all that `other` knows.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(by, n)| self.contains(Dot { by, n }))
    }

    /// Writers and their latest writes, in order of writers.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, u64)> {
        self.0.iter().copied()
    }

    /// Number of writers.
    pub fn n_writers(&self) -> usize {
        self.0.len()
    }
}

impl Serialize for VersionVector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for VersionVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let latest = BTreeMap::<PeerId, u64>::deserialize(deserializer)?;
        Ok(Self(latest.into_iter().collect()))
    }
}

/// What stands at a path.
///
/// The order is the one by which concurrent versions are ranked: a folder before files (what lies below needs it), then
/// the later modification time, then the content id. Times decide nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A file.
    File(FileValue),
    /// A folder.
    Folder,
}

/// A file's bytes and what else of it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileValue {
    /// Modification time in nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// Its bytes.
    pub content_id: ContentId,
    /// Their number.
    pub len: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

impl Value {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&FileValue> {
        match self {
            Self::File(file) => Some(file),
            Self::Folder => None,
        }
    }
}

/// One write and what it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Version {
    /// The write.
    #[serde(flatten)]
    pub dot: Dot,
    /// What it wrote.
    pub value: Value,
}

/// What is known of one path. See the module's text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Register {
    /// Writers, and the number of the latest write of each that is known.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u64>))]
    seen: VersionVector,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    /// The versions that nobody has replaced.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    live: Vec<Version>,
}

impl Register {
    /// All writes that are known, replaced ones too.
    pub fn seen(&self) -> &VersionVector {
        &self.seen
    }

    /// The versions that nobody has replaced, in order of their dots.
    pub fn live(&self) -> &[Version] {
        &self.live
    }

    /// Whether nothing is left at this path.
    pub fn is_tombstone(&self) -> bool {
        self.live.is_empty()
    }

    /// A write: puts `value` in the place of the versions `replaces`.
    ///
    /// The number of `dot` must be above every one that its writer has used; `seen` answers which those are here.
    pub fn write(&mut self, dot: Dot, replaces: &[Dot], value: Value) {
        debug_assert!(!self.seen.contains(dot), "a number is used once");
        self.remove(replaces);
        self.seen.note(dot);
        let place = self.live.partition_point(|version| version.dot < dot);
        self.live.reserve_exact(1);
        self.live.insert(place, Version { dot, value });
    }

    /// A delete: takes out the versions that were seen. Others stay: edit beats delete.
    pub fn remove(&mut self, dots: &[Dot]) {
        self.live.retain(|version| !dots.contains(&version.dot));
    }

    /// Takes in what another replica knows; whether anything was new.
    ///
    /// Of two versions under one dot, which only a writer that lost its memory or lies can make, the higher value stays.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = (!self.covers(other)).then(|| self.clone());
        let Some(before) = before else { return false };
        let mut live = BTreeMap::<Dot, Value>::new();
        let stays = |version: &Version, there: &Self| {
            !there.seen.contains(version.dot) || there.live.iter().any(|other| other.dot == version.dot)
        };
        let ours = before.live.iter().filter(|version| stays(version, other));
        let theirs = other.live.iter().filter(|version| stays(version, &before));
        for version in ours.chain(theirs) {
            let value = live.entry(version.dot).or_insert(version.value);
            *value = version.value.max(*value);
        }
        self.live = live.into_iter().map(|(dot, value)| Version { dot, value }).collect();
        self.seen.join(&other.seen);
        *self != before
    }

    /// Whether a join with `other` would bring nothing new.
    pub fn covers(&self, other: &Self) -> bool {
        self.seen.covers(&other.seen)
            && self.live.iter().all(|ours| {
                !other.seen.contains(ours.dot)
                    || other.live.iter().any(|theirs| theirs.dot == ours.dot && theirs.value <= ours.value)
            })
    }
}

/// Why numbers are not a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Over [`MAX_WRITERS`], [`MAX_LIVE`] or [`MAX_WRITE`].
    #[error("more writers, versions or writes than a path can have")]
    TooMany,
    /// A live version's write is not in `seen`, or is there twice.
    #[error("a version without its write, or one that is there twice")]
    Inconsistent,
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            seen: VersionVector,
            #[serde(default)]
            live: Vec<Version>,
        }
        let Raw { seen, mut live } = Raw::deserialize(deserializer)?;
        live.shrink_to_fit();
        Self::from_parts(seen, live).map_err(serde::de::Error::custom)
    }
}

impl Register {
    /// From what [`Register::seen`] and [`Register::live`] gave.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn from_parts(seen: VersionVector, live: Vec<Version>) -> Result<Self, RegisterError> {
        let register = Self { seen, live };
        register.check()?;
        Ok(register)
    }

    fn check(&self) -> Result<(), RegisterError> {
        let in_bounds = |n: u64| (1..=MAX_WRITE).contains(&n);
        if self.seen.n_writers() > MAX_WRITERS
            || self.live.len() > MAX_LIVE
            || !self.seen.iter().all(|(_, n)| in_bounds(n))
        {
            return Err(RegisterError::TooMany);
        }
        let in_order = self.live.windows(2).all(|pair| pair[0].dot < pair[1].dot);
        if !in_order || !self.live.iter().all(|version| version.dot.n > 0 && self.seen.contains(version.dot)) {
            return Err(RegisterError::Inconsistent);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 16])
    }

    fn dot(by: u8, n: u64) -> Dot {
        Dot { by: peer(by), n }
    }

    fn file(n: u8) -> Value {
        Value::File(FileValue { mtime_ns: n.into(), content_id: ContentId::of(&[n]), len: 1, executable: false })
    }

    fn joined(a: &Register, b: &Register) -> Register {
        let mut joined = a.clone();
        assert_eq!(joined.join(b), joined != *a);
        joined
    }

    /// Random histories of three replicas: the laws hold, and `covers` says when a join brings nothing.
    #[test]
    fn joins_form_a_semilattice() {
        for seed in 0..20_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut replicas = [Register::default(), Register::default(), Register::default()];
            for step in 1..rng.u64(2..12) {
                let (at, from) = (rng.usize(..3), rng.usize(..3));
                match rng.u8(..4) {
                    0 | 1 => {
                        let seen: Vec<_> = replicas[at].live.iter().map(|version| version.dot).collect();
                        let by = u8::try_from(at).unwrap();
                        replicas[at].write(dot(by, step), &seen, file(rng.u8(..3)));
                    }
                    2 => {
                        let seen: Vec<_> = replicas[at].live.iter().map(|version| version.dot).collect();
                        replicas[at].remove(&seen);
                    }
                    _ => {
                        let other = replicas[from].clone();
                        replicas[at].join(&other);
                    }
                }
            }
            let [a, b, c] = &replicas;
            assert_eq!(joined(a, b), joined(b, a), "seed {seed}");
            assert_eq!(joined(&joined(a, b), c), joined(a, &joined(b, c)), "seed {seed}");
            assert_eq!(joined(a, a), *a, "seed {seed}");
            assert_eq!(a.covers(b), joined(a, b) == *a, "seed {seed}");
            let text = serde_json::to_string(a).unwrap();
            assert_eq!(serde_json::from_str::<Register>(&text).unwrap(), *a, "seed {seed}");
        }
    }

    #[test]
    fn edit_beats_a_concurrent_delete_and_not_a_later_one() {
        let mut a = Register::default();
        a.write(dot(1, 1), &[], file(1));
        let mut b = a.clone();
        b.remove(&[dot(1, 1)]);
        let deleted = joined(&a, &b);
        assert!(deleted.is_tombstone());
        let mut edited = a.clone();
        edited.write(dot(3, 1), &[dot(1, 1)], file(3));
        assert_eq!(joined(&b, &edited).live().len(), 1);
        let mut later = edited.clone();
        later.remove(&[dot(3, 1)]);
        assert!(joined(&edited, &later).is_tombstone());
    }

    #[test]
    fn on_the_wire() {
        let mut register = Register::default();
        register.write(dot(1, 7), &[], file(1));
        register.write(dot(2, 1), &[], Value::Folder);
        insta::assert_json_snapshot!(register);
    }

    /// S01: numbers that would outrun everybody, versions without writes, doubles.
    #[test]
    fn refused() {
        let id = "01".repeat(16);
        let live = |n: &str| format!(r#"{{"by":"{id}","n":{n},"value":"folder"}}"#);
        let register = |seen: &str, live: &str| format!(r#"{{"seen":{{{seen}}},"live":[{live}]}}"#);
        let ok = register(&format!(r#""{id}":3"#), &live("3"));
        assert!(serde_json::from_str::<Register>(&ok).is_ok(), "{ok}");
        let many: Vec<_> = (0..=MAX_WRITERS).map(|n| format!(r#""{n:032x}":1"#)).collect();
        for bad in [
            register(&format!(r#""{id}":{}"#, u64::MAX), ""),
            register(&format!(r#""{id}":0"#), ""),
            register(&many.join(","), ""),
            register(&format!(r#""{id}":3"#), &live("4")),
            register(&format!(r#""{id}":3"#), &live("0")),
            register(&format!(r#""{id}":3"#), &format!("{},{}", live("3"), live("3"))),
            register("", &live("1")),
        ] {
            assert!(serde_json::from_str::<Register>(&bad).is_err(), "{bad}");
        }
    }
}
