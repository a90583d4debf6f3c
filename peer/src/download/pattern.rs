//! What somebody typed to name files: a name, a glob, a folder, a content id, or one content under a name. Pure.

use globset::{GlobBuilder, GlobMatcher};
use potluck_common::share_path::SharePathError;
use potluck_common::{ContentId, SharePath};

/// What is meant.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// A content, whatever it is called.
    Content(ContentId),
    /// A file of just that name; if there is none, and the text reads so, one content under a name.
    Name {
        /// The whole text as a name.
        name: SharePath,
        /// `NAME@ID-PREFIX`: the name before the last `@` and the digits after it.
        version: Option<(SharePath, String)>,
        /// The text as a glob, if it has a wildcard and no file has it as its name.
        glob: Option<Glob>,
    },
    /// Everything below a folder (`dir/`), or everything (`None`).
    Folder(Option<SharePath>),
}

/// A glob: `*` stands for any characters, also `/`; `?` for one; `[ab]` and `{a,b}` for a choice.
#[derive(Debug, Clone)]
pub struct Glob {
    matcher: GlobMatcher,
    prefix: String,
}

impl Glob {
    /// Whether a name fits.
    pub fn matches(&self, path: &SharePath) -> bool {
        self.matcher.is_match(path.as_str())
    }

    /// What every name that fits starts with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// Why text names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It can be no name in a share folder.
    #[error(transparent)]
    Name(#[from] SharePathError),
    /// It has wildcards that make no pattern.
    #[error("this is no pattern: {0}")]
    Glob(String),
}

const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];
/// Fewer digits would be met by accident.
const MIN_ID_PREFIX: usize = 4;

/// Reads a pattern.
///
/// # Errors
/// See [`PatternError`].
pub fn parse_pattern(text: &str) -> Result<Pattern, PatternError> {
    if let Ok(id) = text.parse() {
        return Ok(Pattern::Content(id));
    }
    if matches!(text, "." | "./" | "/") {
        return Ok(Pattern::Folder(None));
    }
    let text = text.strip_prefix("./").unwrap_or(text);
    if let Some(folder) = text.strip_suffix('/') {
        return Ok(Pattern::Folder(Some(folder.parse()?)));
    }
    let name: SharePath = text.parse()?;
    let version = text.rsplit_once('@').and_then(|(name, digits)| {
        let is_prefix = (MIN_ID_PREFIX..=64).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        is_prefix.then(|| Some((name.parse().ok()?, digits.to_ascii_lowercase()))).flatten()
    });
    let glob = text.contains(WILDCARDS).then(|| parse_glob(text)).transpose()?;
    Ok(Pattern::Name { name, version, glob })
}

/// Reads a glob, with or without wildcards.
///
/// # Errors
/// See [`PatternError::Glob`].
pub fn parse_glob(text: &str) -> Result<Glob, PatternError> {
    let glob = GlobBuilder::new(text).literal_separator(false).build();
    let glob = glob.map_err(|error| PatternError::Glob(error.kind().to_string()))?;
    let prefix = text.split(WILDCARDS).next().unwrap_or_default();
    // A backslash quotes the wildcard after it.
    let prefix = prefix.split('\\').next().unwrap_or_default();
    Ok(Glob { matcher: glob.compile_matcher(), prefix: prefix.to_owned() })
}

/// What `show` takes: like [`parse_pattern`], but plain text is looked for anywhere in a name.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Everything.
    All,
    /// Names that contain it, in any letter case, as trackers look for it.
    Contains(String),
    /// Names that start with it.
    Prefix(String),
    /// Names that fit.
    Glob(Glob),
}

impl Filter {
    /// Whether a name is among those that are meant.
    pub fn is_met(&self, path: &SharePath) -> bool {
        match self {
            Self::All => true,
            Self::Contains(text) => path.as_str().to_lowercase().contains(&text.to_lowercase()),
            Self::Prefix(text) => path.as_str().starts_with(text),
            Self::Glob(glob) => glob.matches(path),
        }
    }
}

/// Reads a filter.
///
/// # Errors
/// See [`PatternError::Glob`].
pub fn parse_filter(text: Option<&str>) -> Result<Filter, PatternError> {
    let Some(text) = text.map(|text| text.strip_prefix("./").unwrap_or(text)) else { return Ok(Filter::All) };
    match text {
        "" | "." | "/" | "*" => Ok(Filter::All),
        text if text.contains(WILDCARDS) => Ok(Filter::Glob(parse_glob(text)?)),
        text if text.ends_with('/') => Ok(Filter::Prefix(text.to_owned())),
        text => Ok(Filter::Contains(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let got = match parse_pattern(text) {
            Ok(Pattern::Content(id)) => format!("content {}", id.short()),
            Ok(Pattern::Folder(folder)) => format!("folder {}", folder.map(|f| f.to_string()).unwrap_or_default()),
            Ok(Pattern::Name { name, version, glob }) => {
                let version = version.map(|(name, digits)| format!(" or {name} at {digits}")).unwrap_or_default();
                let glob = glob.map(|glob| format!(" or glob from {:?}", glob.prefix())).unwrap_or_default();
                format!("name {name}{version}{glob}")
            }
            Err(error) => format!("error {error}"),
        };
        assert_eq!(got, want, "{text:?}");
    }

    #[test]
    fn patterns() {
        check("a/b.txt", "name a/b.txt");
        check("./a", "name a");
        check(&"ab".repeat(32), "content abababab");
        check("dir/", "folder dir");
        check("./", "folder ");
        check("/", "folder ");
        check(".", "folder ");
        check("a@12AB", "name a@12AB or a at 12ab");
        check("a@12", "name a@12");
        check("me@home.org", "name me@home.org");
        check("d/*.txt", "name d/*.txt or glob from \"d/\"");
        check("--option", "name --option");
        for hostile in ["../x", "/etc/passwd", "a\nb", ".potluck/identity", "", "../"] {
            assert!(matches!(parse_pattern(hostile), Err(PatternError::Name(_))), "{hostile:?}");
        }
        assert!(matches!(parse_pattern("a[b"), Err(PatternError::Glob(_))));
    }

    #[test]
    fn globs() {
        let check = |glob: &str, name: &str, want: bool| {
            assert_eq!(parse_glob(glob).unwrap().matches(&name.parse().unwrap()), want, "{glob} on {name}");
        };
        check("*.txt", "a.txt", true);
        check("*.txt", "d/e/a.txt", true);
        check("d/*", "d/e/f", true);
        check("d/?", "d/e", true);
        check("*.{txt,md}", "x.md", true);
        check("*.txt", "a.txt.gz", false);
    }
}
