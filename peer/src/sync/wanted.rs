//! Which files a peer that only receives wants to have.

use potluck_common::SharePath;

use crate::download::pattern::{Glob, PatternError, parse_glob};

/// Globs over share paths: wanted is what fits one of `include` (everything, if there is none) and none of `exclude`.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

impl Wanted {
    /// From what was typed.
    ///
    /// # Errors
    /// If a glob is none.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        let globs = |texts: &[String]| texts.iter().map(|text| parse_glob(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self { include: globs(include)?, exclude: globs(exclude)? })
    }

    /// Whether it is wanted.
    pub fn has(&self, path: &SharePath) -> bool {
        let fits = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(path));
        (self.include.is_empty() || fits(&self.include)) && !fits(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(include: &[&str], exclude: &[&str], path: &str, want: bool) {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let wanted = Wanted::new(&owned(include), &owned(exclude)).unwrap();
        assert_eq!(wanted.has(&path.parse().unwrap()), want, "{include:?} {exclude:?} {path}");
    }

    #[test]
    fn globs() {
        check(&[], &[], "a/b", true);
        check(&["*.iso"], &[], "a/b.iso", true);
        check(&["*.iso", "docs/*"], &[], "docs/x/y", true);
        check(&["*.iso"], &[], "a/b", false);
        check(&["*.iso"], &["old/*"], "old/b.iso", false);
        check(&[], &["*.tmp"], "x.tmp", false);
        assert!(Wanted::new(&["[".into()], &[]).is_err());
    }
}
