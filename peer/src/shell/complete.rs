//! What Tab offers: verbs, flags, names of files and of peers, quoted where the shell needs it.
//!
//! Where names come from is the caller's: [`Completer`] is given a [`Source`], which must answer fast or not at all.

use reedline::{CompletionResult, Span, Suggestion};

use crate::command::{DIRECTIONS, DOWNLOAD_FLAGS, SYNC_WORDS, VERBS, Word, quote, split};

/// What is asked for while somebody waits at the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// File names that start so.
    Files(String),
    /// All peers' names.
    Peers,
}

/// Gives names, or none if that takes too long.
pub type Source = Box<dyn FnMut(Wanted) -> Vec<String> + Send>;

/// Completes a line of the shell.
pub struct Completer {
    source: Source,
}

impl Completer {
    /// With names from there.
    pub fn new(source: Source) -> Self {
        Self { source }
    }

    /// The words that could stand where the cursor (at byte `pos`) is.
    fn candidates(&mut self, before: &[Word], typed: &str) -> Vec<String> {
        let mut words = before.iter().map(|word| word.text.as_str());
        let starting = |known: &[&str]| -> Vec<String> {
            known.iter().filter(|known| known.starts_with(typed)).map(|known| (*known).to_owned()).collect()
        };
        match words.next() {
            None => starting(&VERBS),
            Some("help") if before.len() == 1 => starting(&VERBS),
            Some("show" | "verify") if before.len() == 1 => self.files(typed),
            Some("manifest") if before.len() == 1 && typed.starts_with('-') => starting(&["--everybody"]),
            Some("manifest") => self.files(typed),
            Some("sync") if before.len() == 1 => starting(&SYNC_WORDS),
            Some("trash") if before.len() == 1 => starting(&["restore"]),
            Some("wait") if before.len() == 1 && typed.starts_with('-') => starting(&["--all"]),
            Some("wait" | "conflicts") => self.files(typed),
            Some("limit") if before.len() == 1 => starting(&DIRECTIONS),
            Some("limit") if before.len() == 2 => starting(&["off"]),
            Some("getip") if before.len() == 1 => {
                let mut both = self.peers(typed);
                both.extend(self.files(typed));
                both
            }
            Some("download") => match (words.clone().any(|word| word == "--"), words.next_back()) {
                (true, _) => self.files(typed),
                (false, Some("--from")) => self.peers(typed),
                // A path on this machine or a URL, of which the peer knows nothing.
                (false, Some("-o" | "--output" | "--origin")) => Vec::new(),
                (false, _) if typed.starts_with('-') => starting(&DOWNLOAD_FLAGS),
                (false, _) => self.files(typed),
            },
            _ => Vec::new(),
        }
    }

    fn files(&mut self, typed: &str) -> Vec<String> {
        let mut names = (self.source)(Wanted::Files(typed.to_owned()));
        names.retain(|name| name.starts_with(typed));
        names
    }

    fn peers(&mut self, typed: &str) -> Vec<String> {
        let mut names = (self.source)(Wanted::Peers);
        names.retain(|name| name.starts_with(typed));
        names
    }
}

impl reedline::Completer for Completer {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let typed_so_far = line.get(..pos).unwrap_or(line);
        let mut before = split(typed_so_far);
        // The word at the cursor: the last one if the cursor touches it, else a new one.
        let (span, typed) = match before.last() {
            Some(word) if word.span.end == pos => {
                let at = (word.span.clone(), word.text.clone());
                before.pop();
                at
            }
            _ => (pos..pos, String::new()),
        };
        let suggestions: Vec<Suggestion> = self
            .candidates(&before, &typed)
            .into_iter()
            .map(|name| Suggestion {
                value: quote(&name),
                span: Span::new(span.start, span.end),
                // After a folder one goes on typing.
                append_whitespace: !name.ends_with('/'),
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedline::Completer as _;

    fn completer() -> Completer {
        Completer::new(Box::new(|wanted| {
            let all: &[&str] = match wanted {
                Wanted::Files(_) => &["a.txt", "a two.txt", "docs/x", "it's", "-dash", "rtl\u{202e}fdp"],
                Wanted::Peers => &["node1", "node2", "Ann's laptop"],
            };
            all.iter().map(|name| (*name).to_owned()).collect()
        }))
    }

    #[test]
    fn table() {
        let check = |line: &str, want: &[&str]| {
            let result = completer().complete(line, line.len());
            // The line as it becomes with each.
            let lines: Vec<_> = result
                .suggestions()
                .iter()
                .map(|s| format!("{}{}{}", &line[..s.span.start], s.value, &line[s.span.end..]))
                .collect();
            assert_eq!(lines, want, "{line:?}");
        };
        check("", &VERBS);
        check("s", &["show", "status", "sync", "stop"]);
        check("  dow", &["  download"]);
        check("help pe", &["help peers"]);
        check("show a", &["show a.txt", "show 'a two.txt'"]);
        check("show 'a t", &["show 'a two.txt'"]);
        check("show a\\ t", &["show 'a two.txt'"]);
        check("show a b", &[]);
        check("download i", &[r"download 'it'\''s'"]);
        check("download a.txt doc", &["download a.txt docs/x"]);
        check("download r", &["download \"rtl\\u{202e}fdp\""]);
        check("download -", &["download --single", "download --from", "download --origin", "download -o"]);
        check("download --fr", &["download --from"]);
        check(
            "download --from ",
            &["download --from node1", "download --from node2", r"download --from 'Ann'\''s laptop'"],
        );
        check("download -o /tm", &[]);
        check("download -- -", &["download -- -dash"]);
        check("getip no", &["getip node1", "getip node2"]);
        check("sync re", &["sync receive", "sync restore"]);
        check("trash r", &["trash restore"]);
        check("wait -", &["wait --all"]);
        check("limit ", &["limit up", "limit down"]);
        check("limit up ", &["limit up off"]);
        check("limit up 1M ", &[]);
        check("peers ", &[]);
        check("nonsense ", &[]);
    }

    #[test]
    fn in_the_middle_of_a_line() {
        let result = completer().complete("show a --json", 6);
        let spans: Vec<_> = result.suggestions().iter().map(|s| (s.span.start, s.span.end)).collect();
        assert_eq!(spans, [(5, 6), (5, 6)]);
        // A cursor within a character, which no editor gives, is no reason to fall over.
        let _ = completer().complete("é", 1);
    }
}
