//! The projection: which real paths the versions of a share path take.
//!
//! A function of the index alone, so peers with equal indices lay out equal folders. At a path with live versions the
//! greatest of them by the order of [`Value`] has the name; versions with one content count as one, with the greatest
//! value. Where a folder is wanted (as a version, or because something lives below) it has the name. Every other
//! content stands beside it under its conflict name, the first that is free: no other content of the path shares the
//! digits, and nothing lives at or below that name. Conflict copies have no registers of their own.
//!
//! Nothing here goes through the index: one path costs a few look-ups, a copy [`Step::COUNT`] at most, and [`affected`] names the few paths whose places
//! a change can have altered.
//!
//! Invariant: no two places have one real path, and what lies above a place is a folder.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::conflict_name::{Original, Step, conflict_name, is_conflict_name_of, mark_of, original};
use crate::id::ContentId;
use crate::register::{Dot, FileValue, Register, Value};
use crate::share_path::{MAX_COMPONENT_LEN, MAX_PATH_LEN, SharePath};

/// The longest path that is synced: there is room for each name to become a conflict name.
pub const MAX_SYNCED_LEN: usize = MAX_PATH_LEN - MAX_COMPONENT_LEN - 1;

/// An index, as far as the projection asks it.
pub trait Registers {
    /// What is known of a path.
    fn register(&self, path: &SharePath) -> Option<&Register>;
    /// Whether anything lives below it.
    fn is_above_life(&self, path: &SharePath) -> bool;
    /// The known path in this folder whose name has this mark in shortened conflict names
    /// ([`mark_of`]).
    fn marked(&self, folder: Option<&SharePath>, mark: &str) -> Option<SharePath>;

    /// Whether a live version stands at this path, or anything lives below it.
    fn is_occupied(&self, path: &SharePath) -> bool {
        self.register(path).is_some_and(|register| !register.is_tombstone()) || self.is_above_life(path)
    }
}

/// A plain map: for tests and small indices, since it looks for life below a path, and for marks, one by one.
impl Registers for BTreeMap<SharePath, Register> {
    fn register(&self, path: &SharePath) -> Option<&Register> {
        self.get(path)
    }

    fn is_above_life(&self, path: &SharePath) -> bool {
        let below = format!("{path}/");
        self.range::<str, _>((Bound::Excluded(below.as_str()), Bound::Unbounded))
            .take_while(|(path, _)| path.as_str().starts_with(&below))
            .any(|(_, register)| !register.is_tombstone())
    }

    fn marked(&self, folder: Option<&SharePath>, mark: &str) -> Option<SharePath> {
        let is_it = |path: &&SharePath| {
            path.parent().as_ref() == folder && mark_of(path.file_name()).is_some_and(|other| other == mark)
        };
        self.keys().find(is_it).cloned()
    }
}

/// What is to stand at a real path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub real: SharePath,
    /// What.
    pub value: Value,
    /// The path whose register wants it there: `real`, or what `real` is a conflict name of.
    pub origin: SharePath,
    /// The live versions that it stands for, in order.
    pub dots: Vec<Dot>,
}

/// The places of a path's versions: what has the name first, then the copies.
pub fn places(index: &impl Registers, origin: &SharePath) -> Vec<Place> {
    let live = index.register(origin).map_or(&[][..], Register::live);
    let mut files = BTreeMap::<ContentId, (FileValue, Vec<Dot>)>::new();
    let mut folders = Vec::new();
    for version in live {
        match version.value {
            Value::Folder => folders.push(version.dot),
            Value::File(file) => {
                let (greatest, dots) = files.entry(file.content_id).or_insert_with(|| (file, Vec::new()));
                *greatest = file.max(*greatest);
                dots.push(version.dot);
            }
        }
    }
    let place = |real: SharePath, value, dots| Place { real, value, origin: origin.clone(), dots };
    let mut places = Vec::with_capacity(files.len() + 1);
    if !folders.is_empty() || index.is_above_life(origin) {
        places.push(place(origin.clone(), Value::Folder, folders));
    } else if let Some(winner) = files.iter().max_by_key(|(_, (file, _))| *file).map(|(id, _)| *id) {
        let (file, dots) = &files[&winner];
        places.push(place(origin.clone(), Value::File(*file), dots.clone()));
        if files.len() == 1 {
            return places;
        }
    }
    let has_name = places.first().and_then(|place| place.value.file()).map(|file| file.content_id);
    let ids: Vec<_> = files.keys().copied().collect();
    for (at, (id, (file, dots))) in files.into_iter().enumerate() {
        if Some(id) == has_name {
            continue;
        }
        // In order, so none is more alike than a neighbour.
        let neighbours = [at.checked_sub(1), Some(at + 1)].into_iter().flatten().filter_map(|at| ids.get(at));
        let n_alike = neighbours.map(|other| n_alike(&id, other)).max().unwrap_or(0);
        if let Some(real) = free_name(index, origin, &id, n_alike) {
            places.push(place(real, Value::File(file), dots));
        }
    }
    places
}

/// How many bytes two ids begin with alike.
fn n_alike(a: &ContentId, b: &ContentId) -> usize {
    a.as_bytes().iter().zip(b.as_bytes()).take_while(|(a, b)| a == b).count()
}

/// The conflict name of a content that shares its first `n_alike` bytes with another one of the path. `None` if all are taken,
/// which only happens to who is meant harm: the version is known on, and has its place once a name is free.
fn free_name(index: &impl Registers, origin: &SharePath, id: &ContentId, n_alike: usize) -> Option<SharePath> {
    let mut step = Some(Step::default());
    while let Some(now) = step {
        if now.n_digits() / 2 > n_alike {
            let name = conflict_name(origin, id, now)?;
            if !index.is_occupied(&name) {
                return Some(name);
            }
        }
        step = now.next();
    }
    None
}

/// The known path that a path is a conflict name of: one at most.
pub fn originals(index: &impl Registers, path: &SharePath) -> Vec<SharePath> {
    match original(path) {
        None => Vec::new(),
        Some(Original::Path(origin)) => {
            if index.register(&origin).is_some() {
                vec![origin]
            } else {
                Vec::new()
            }
        }
        Some(Original::Marked(mark)) => {
            let marked = index.marked(path.parent().as_ref(), &mark);
            marked.into_iter().filter(|origin| is_conflict_name_of(path, origin)).collect()
        }
    }
}

/// The paths whose places may have altered when the register of `path` changed: it, the folders `turned` of which it
/// alone decides whether something lives below ([`Occupancy::turn`](crate::occupancy::Occupancy::turn)), and whatever
/// has one of these as a conflict name.
pub fn affected(index: &impl Registers, path: &SharePath, turned: &[SharePath]) -> Vec<SharePath> {
    let mut affected = vec![path.clone()];
    affected.extend(turned.iter().cloned());
    for n in 0..affected.len() {
        let originals = originals(index, &affected[n]);
        affected.extend(originals);
    }
    affected
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::id::PeerId;
    use crate::occupancy::Occupancy;

    type Index = BTreeMap<SharePath, Register>;

    fn path(text: &str) -> SharePath {
        text.parse().unwrap()
    }

    fn file(content: u8, mtime_ns: i64) -> Value {
        let content_id = ContentId::from_bytes([content; 32]);
        Value::File(FileValue { mtime_ns, content_id, len: 1, executable: false })
    }

    fn dot(n: u64) -> Dot {
        Dot { by: PeerId::from_bytes([1; 16]), n }
    }

    fn index(versions: &[(&str, Value)]) -> Index {
        let mut index = Index::new();
        for (n, (at, value)) in (1..).zip(versions) {
            index.entry(path(at)).or_default().write(dot(n), &[], *value);
        }
        index
    }

    fn check(versions: &[(&str, Value)], at: &str, want: &[(&str, Value)]) {
        let places = places(&index(versions), &path(at));
        let got: Vec<_> = places.iter().map(|place| (place.real.as_str(), place.value)).collect();
        assert_eq!(got, want, "{versions:?}");
    }

    #[test]
    fn who_gets_which_name() {
        check(&[], "a", &[]);
        check(&[("a", file(1, 1))], "a", &[("a", file(1, 1))]);
        check(&[("a", Value::Folder)], "a", &[("a", Value::Folder)]);
        // The later one wins; of one content the greatest value.
        let two = [("a.x", file(1, 5)), ("a.x", file(2, 6)), ("a.x", file(1, 3))];
        check(&two, "a.x", &[("a.x", file(2, 6)), ("a.conflict-01010101.x", file(1, 5))]);
        // A folder has the name, and so has one that is only there for what lives below.
        let folder = [("a", file(1, 5)), ("a", Value::Folder)];
        check(&folder, "a", &[("a", Value::Folder), ("a.conflict-01010101", file(1, 5))]);
        let below = [("a", file(1, 5)), ("a/b", file(2, 1))];
        check(&below, "a", &[("a", Value::Folder), ("a.conflict-01010101", file(1, 5))]);
        check(&[("a/b", file(2, 1))], "a", &[("a", Value::Folder)]);
    }

    #[test]
    fn taken_names_get_more_digits() {
        let sixteen = "a.conflict-0101010101010101";
        let two = [("a", file(1, 5)), ("a", file(2, 6))];
        for other in ["a.conflict-01010101", "a.conflict-01010101/x"] {
            let mut versions = two.to_vec();
            versions.push((other, file(3, 1)));
            check(&versions, "a", &[("a", file(2, 6)), (sixteen, file(1, 5))]);
        }
        // Contents made to begin alike: both get more digits, so neither name depends on the other's value.
        let alike = |last: u8| {
            let mut bytes = [1; 32];
            bytes[31] = last;
            let content_id = ContentId::from_bytes(bytes);
            Value::File(FileValue { mtime_ns: 0, content_id, len: 1, executable: false })
        };
        let versions = [("a", file(2, 6)), ("a", alike(7)), ("a", alike(8))];
        let places = places(&index(&versions), &path("a"));
        let names: BTreeSet<_> = places.iter().map(|place| place.real.file_name().len()).collect();
        assert_eq!(names, BTreeSet::from([1, "a.conflict-".len() + 64]));
    }

    #[test]
    fn dots_of_a_place_are_those_of_its_content() {
        let index = index(&[("a", file(1, 5)), ("a", file(2, 6)), ("a", file(1, 7))]);
        let places = places(&index, &path("a"));
        assert_eq!(places[0].dots, [dot(1), dot(3)]);
        assert_eq!(places[1].dots, [dot(2)]);
    }

    /// An index that counts what it is asked.
    struct Counting(Index, Cell<u32>);

    impl Registers for Counting {
        fn register(&self, path: &SharePath) -> Option<&Register> {
            self.1.set(self.1.get() + 1);
            self.0.register(path)
        }

        fn is_above_life(&self, path: &SharePath) -> bool {
            self.1.set(self.1.get() + 1);
            self.0.is_above_life(path)
        }

        fn marked(&self, folder: Option<&SharePath>, mark: &str) -> Option<SharePath> {
            self.1.set(self.1.get() + 1);
            self.0.marked(folder, mark)
        }
    }

    /// S01: somebody who takes name after name of a copy keeps nobody busy for longer and longer. Without an end this asked
    /// once for each name taken, and with each change of each.
    #[test]
    fn whoever_takes_many_names_makes_no_work() {
        let content_id = ContentId::from_bytes([1; 32]);
        let mut index = index(&[("a", file(1, 5)), ("a", file(2, 6))]);
        let mut last = None;
        for step in std::iter::successors(Some(Step::default()), |step| step.next()) {
            let name = conflict_name(&path("a"), &content_id, step).unwrap();
            index.entry(name.clone()).or_default().write(dot(1), &[], file(3, 1));
            last = Some(name);
        }
        for n in Step::COUNT..1_000 {
            let name = path(&format!("a.conflict-{content_id}-{n}"));
            index.entry(name).or_default().write(dot(1), &[], file(3, 1));
        }
        let mut index = Counting(index, Cell::new(0));
        let reals =
            |index: &Counting| places(index, &path("a")).into_iter().map(|place| place.real).collect::<Vec<_>>();
        assert_eq!(reals(&index), [path("a")]);
        assert!(index.1.get() <= 2 * Step::COUNT + 4, "{} looks", index.1.get());
        // It has its place again as soon as there is one.
        let last = last.unwrap();
        index.0.get_mut(&last).unwrap().remove(&[dot(1)]);
        assert_eq!(affected(&index, &last, &[]), [last.clone(), path("a")]);
        assert_eq!(reals(&index), [path("a"), last]);
    }

    /// A name that looks like a shortened one, beside many others.
    #[test]
    fn an_original_is_not_looked_for_one_by_one() {
        let long = |n: u32| format!("d/{}{n:04}", "x".repeat(246));
        let mut index = Index::new();
        for n in 0..300 {
            index.entry(path(&long(n))).or_default().write(dot(1), &[], file(3, 1));
        }
        let origin = path(&long(7));
        let name = conflict_name(&origin, &ContentId::from_bytes([1; 32]), Step::default()).unwrap();
        let index = Counting(index, Cell::new(0));
        assert_eq!(originals(&index, &name), [origin]);
        assert_eq!(originals(&index, &path(&format!("d/~{}.conflict-01010101", "0".repeat(32)))), []);
        assert!(index.1.get() <= 4, "{} looks", index.1.get());
    }

    /// No real path twice, folders above everything, and only `affected` paths move: over random changes.
    #[test]
    fn random_changes() {
        const NAMES: [&str; 7] =
            ["a", "b", "a/b", "a/b/a", "a.conflict-01010101", "a.conflict-01010101/b", "a/b.conflict-02020202"];
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut index = Index::new();
            let mut occupancy = Occupancy::default();
            let all = |index: &Index| -> BTreeMap<SharePath, Vec<Place>> {
                let mut paths: BTreeSet<_> = index.keys().cloned().collect();
                paths.extend(NAMES.iter().map(|name| path(name)));
                paths.into_iter().map(|path| (path.clone(), places(index, &path))).collect()
            };
            for n in 1..12 {
                let before = all(&index);
                let at = path(NAMES[rng.usize(..NAMES.len())]);
                let register = index.entry(at.clone()).or_default();
                let lived = !register.is_tombstone();
                let live: Vec<_> = register.live().iter().map(|version| version.dot).collect();
                match rng.u8(..6) {
                    0 => register.write(dot(n), &[], Value::Folder),
                    1 => register.remove(&live),
                    2 => register.remove(&live[..live.len().min(1)]),
                    _ => register.write(dot(n), &[], file(rng.u8(1..4), rng.i64(..3))),
                }
                let lives = !register.is_tombstone();
                let mut turned = Vec::new();
                if lives != lived {
                    turned = occupancy.turn(&at, lives, |path| !index.get(path).is_none_or(Register::is_tombstone));
                }
                let affected = affected(&index, &at, &turned);
                let after = all(&index);
                for (path, places) in &after {
                    assert_eq!(index.is_above_life(path), occupancy.is_above_life(path), "seed {seed}");
                    assert!(affected.contains(path) || before.get(path) == Some(places), "seed {seed}: {path}");
                }
                let mut real = BTreeMap::new();
                for place in after.values().flatten() {
                    assert_eq!(real.insert(place.real.clone(), place.value), None, "seed {seed}: {}", place.real);
                }
                for path in real.keys() {
                    let above = path.parent().map(|parent| real.get(&parent));
                    assert!(above.is_none_or(|value| value == Some(&Value::Folder)), "seed {seed}: {path}");
                }
            }
        }
    }
}
