//! Occupancy: below which paths something lives, without looking at what lies there.
//!
//! For each folder it counts the names in it that are occupied: live themselves, or with something live below. A path that
//! comes to life or dies costs a walk up that ends at the first folder for which nothing changes.
//!
//! Invariant: a path is listed if and only if at least one name in it is occupied.

use std::collections::BTreeMap;

use crate::share_path::SharePath;

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Occupancy(BTreeMap<SharePath, u32>);

impl Occupancy {
    /// Whether something lives below this path.
    pub fn is_above_life(&self, path: &SharePath) -> bool {
        self.0.contains_key(path)
    }

    /// The path itself came to life, or died; `is_live` answers for the folders above it. Returns the paths for which
    /// "something lives below" has changed.
    pub fn turn(&mut self, path: &SharePath, lives: bool, is_live: impl Fn(&SharePath) -> bool) -> Vec<SharePath> {
        let mut turned = Vec::new();
        if self.is_above_life(path) {
            return turned;
        }
        let mut above = path.parent();
        while let Some(folder) = above {
            let n = self.0.get(&folder).copied().unwrap_or(0);
            let now = if lives { n + 1 } else { n.saturating_sub(1) };
            if now == 0 {
                self.0.remove(&folder);
            } else {
                self.0.insert(folder.clone(), now);
            }
            if n != 0 && now != 0 {
                break;
            }
            let goes_on = !is_live(&folder);
            above = folder.parent();
            turned.push(folder);
            if !goes_on {
                break;
            }
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Against the plain question, over random paths that come and go.
    #[test]
    fn as_if_counted_afresh() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut live = BTreeSet::<SharePath>::new();
            let mut occupancy = Occupancy::default();
            for _ in 0..60 {
                let depth = rng.usize(1..5);
                let path: SharePath =
                    (0..depth).map(|_| rng.char('a'..='b').to_string()).collect::<Vec<_>>().join("/").parse().unwrap();
                let above = |live: &BTreeSet<SharePath>| -> BTreeSet<String> {
                    live.iter()
                        .flat_map(|path| path.as_str().match_indices('/').map(|(at, _)| path.as_str()[..at].to_owned()))
                        .collect()
                };
                let before = above(&live);
                let lives = !live.contains(&path);
                if lives {
                    live.insert(path.clone());
                } else {
                    live.remove(&path);
                }
                let turned = occupancy.turn(&path, lives, |folder| live.contains(folder));
                let after = above(&live);
                let want: BTreeSet<_> = before.symmetric_difference(&after).cloned().collect();
                assert_eq!(turned.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), want, "seed {seed}");
                assert_eq!(occupancy.0.keys().map(ToString::to_string).collect::<BTreeSet<_>>(), after, "seed {seed}");
            }
        }
    }
}
