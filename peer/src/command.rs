//! What is typed in the shell, as values: text in, [`Command`] or a [`Failed`] with a hint out.
//!
//! Words are split as a POSIX shell splits them (single and double quotes, backslash), and that is all: no variables,
//! no globs (the peer expands those against the tracker's names), no comments, no redirection; `#1.txt` is a name.
//! One thing is added: outside single quotes `\u{202e}` is that character. Names that cannot be shown as they are, are
//! shown in this form (`render::escape`), and so what is shown can be typed. A share path never has a backslash of
//! its own.
//!
//! Pure: paths are not resolved here and nothing is looked up.

use std::ops::Range;
use std::path::PathBuf;

use crate::limit::schedule::Limit;
use crate::origin::url::OriginUrl;
use potluck_common::protocol::SyncMode;

use crate::verb::{Direction, Download, Failed, FailureKind, From, LimitChange, SyncChange, Verb};

/// The verbs of the shell, in the order in which help lists them.
pub const VERBS: [&str; 16] = [
    "show",
    "download",
    "getip",
    "peers",
    "status",
    "sync",
    "conflicts",
    "trash",
    "wait",
    "limit",
    "manifest",
    "hash",
    "verify",
    "stop",
    "help",
    "exit",
];
/// What `sync` takes.
pub const SYNC_WORDS: [&str; 6] = ["both", "send", "receive", "off", "confirm", "restore"];
/// The directions of `limit`.
pub const DIRECTIONS: [&str; 2] = ["up", "down"];
/// The flags of `download`.
pub const DOWNLOAD_FLAGS: [&str; 4] = ["--single", "--from", "--origin", "-o"];
/// What people type for our verbs elsewhere.
const ALIASES: [(&str, &str); 18] = [
    ("quit", "exit"),
    ("q", "exit"),
    ("ls", "show"),
    ("list", "show"),
    ("files", "show"),
    ("get", "download"),
    ("fetch", "download"),
    ("who", "peers"),
    ("ip", "getip"),
    ("check", "verify"),
    ("b3sum", "hash"),
    ("sums", "manifest"),
    ("bwlimit", "limit"),
    ("throttle", "limit"),
    ("speed", "limit"),
    ("undelete", "trash"),
    ("mirror", "sync"),
    ("?", "help"),
];
/// What `potluck` takes on the command line only.
const ELSEWHERE: [&str; 5] = ["up", "doctor", "config", "completions", "man"];
/// Words less alike than this are not offered as what was meant.
const ALIKE: f64 = 0.75;

/// One line of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing was typed.
    Nothing,
    /// Something for the peer.
    Verb(Verb),
    /// Content ids of files on this machine, for which no peer is needed.
    Hash(Vec<PathBuf>),
    /// Help, about a verb or all.
    Help(Option<&'static str>),
    /// Leave the shell.
    Exit,
}

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word without quotes.
    pub text: String,
    /// Where it stands in the line, quotes included, in bytes.
    pub span: Range<usize>,
    /// The quote that is still open at the end of the line.
    pub open_quote: Option<char>,
}

/// Splits a line into words. A quote that is not closed runs to the end, and its word says so.
pub fn split(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let current = word.get_or_insert_with(|| Word { text: String::new(), span: at..at, open_quote: None });
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None | Some('"'), '\\') => match (parse_unicode(&line[at..]), chars.peek().copied()) {
                (Some((decoded, len)), _) => {
                    current.text.push(decoded);
                    while chars.next_if(|(next, _)| *next < at + len).is_some() {}
                }
                (None, Some((_, next))) if quote.is_none() || matches!(next, '"' | '\\' | '$' | '`') => {
                    current.text.push(next);
                    chars.next();
                }
                (None, _) => current.text.push('\\'),
            },
            _ => current.text.push(c),
        }
        current.span.end = chars.peek().map_or(line.len(), |(next, _)| *next);
        current.open_quote = quote;
    }
    words.extend(word);
    words
}

/// `\u{HEX}` at the start of `text`: the character and how many bytes it took.
fn parse_unicode(text: &str) -> Option<(char, usize)> {
    let rest = text.strip_prefix("\\u{")?;
    let (digits, _) = rest.split_once('}')?;
    let is_hex = (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let code = is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()?;
    Some((char::from_u32(code)?, "\\u{}".len() + digits.len()))
}

/// The way to type `name` so that it is one word: as it is, or quoted.
pub fn quote(name: &str) -> String {
    let shown = crate::render::escape(name);
    if *shown != *name {
        // Only outside single quotes is `\u{…}` a character.
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("\"{}\"", crate::render::escape(&quoted));
    }
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '\'' | '"' | '\\');
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

/// What a line asks for.
///
/// # Errors
/// Of kind [`FailureKind::Usage`], with a hint at what would be right.
pub fn parse(line: &str) -> Result<Command, Failed> {
    let words = split(line);
    if let Some(open) = words.last().and_then(|word| word.open_quote) {
        return usage(
            format!("the quote {open} is not closed"),
            format!("Close it, or type \\{open} for the character."),
        );
    }
    let mut words = words.into_iter().map(|word| word.text);
    let Some(first) = words.next() else { return Ok(Command::Nothing) };
    let rest: Vec<String> = words.collect();
    let verb = match first.as_str() {
        "show" => Verb::Show { pattern: at_most_one("show", "[PATTERN]", rest)? },
        "download" => Verb::Download(parse_download(rest)?),
        "getip" => Verb::Getip { target: at_most_one("getip", "[PEER or NAME]", rest)? },
        "peers" => no_more("peers", &rest, Verb::Peers)?,
        "status" => no_more("status", &rest, Verb::Status)?,
        "limit" => Verb::Limit { change: parse_limit(&rest)? },
        "sync" => Verb::Sync { change: parse_sync(rest)? },
        "conflicts" => Verb::Conflicts { pattern: at_most_one("conflicts", "[PATTERN]", rest)? },
        "trash" => parse_trash(rest)?,
        "wait" => parse_wait(rest)?,
        "manifest" => parse_manifest(rest)?,
        "hash" => return parse_hash(rest),
        "verify" => Verb::Verify { pattern: at_most_one("verify", "[PATTERN]", rest)? },
        "stop" => no_more("stop", &rest, Verb::Stop)?,
        "exit" | "quit" => return no_more("exit", &rest, Command::Exit),
        "help" => {
            let Some(topic) = at_most_one("help", "[VERB]", rest)? else { return Ok(Command::Help(None)) };
            return match VERBS.iter().find(|verb| **verb == topic || (topic == "quit" && **verb == "exit")) {
                Some(verb) => Ok(Command::Help(Some(verb))),
                None => Err(unknown(&topic)),
            };
        }
        other => return Err(unknown(other)),
    };
    Ok(Command::Verb(verb))
}

fn parse_download(words: Vec<String>) -> Result<Download, Failed> {
    let mut download = Download::default();
    let mut single = false;
    let mut peer = None;
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (flag, attached) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        match flag {
            "--" => download.names.extend(words.by_ref()),
            "--single" if attached.is_none() => single = true,
            "--from" => match attached.or_else(|| words.next()) {
                Some(name) if !name.is_empty() => peer = Some(name),
                _ => {
                    return usage(
                        "--from needs a peer",
                        "For example: download --from node2 NAME. `peers` lists them.",
                    );
                }
            },
            "--origin" => match attached.or_else(|| words.next()).map(|url| url.parse::<OriginUrl>()) {
                Some(Ok(url)) => download.origin = Some(url),
                Some(Err(error)) => {
                    return usage(error.to_string(), "For example: download --origin https://example.org/film.mkv.");
                }
                None => {
                    return usage(
                        "--origin needs a URL",
                        "For example: download --origin https://example.org/film.mkv.",
                    );
                }
            },
            "-o" | "--output" => match attached.or_else(|| words.next()) {
                Some(path) if !path.is_empty() => download.output = Some(PathBuf::from(path)),
                _ => return usage("-o needs a path", "For example: download -o /tmp/copy NAME."),
            },
            _ if word.starts_with('-') && word != "-" => {
                let hint = match nearest(flag, DOWNLOAD_FLAGS) {
                    Some(meant) => format!("Did you mean {meant}? If it is a name: download -- {}", quote(&word)),
                    None => format!(
                        "Flags are --single, --from PEER, --origin URL, -o PATH. If it is a name: download -- {}",
                        quote(&word)
                    ),
                };
                return usage(format!("download has no flag {}", quote(&word)), hint);
            }
            _ => download.names.push(word),
        }
    }
    download.from = match (single, peer) {
        (true, Some(_)) => return usage("--single and --from exclude each other", "--from PEER is one owner already."),
        (true, None) => From::Single,
        (false, Some(name)) => From::Peer(name),
        (false, None) => From::All,
    };
    if download.origin.is_some() && download.from != From::All {
        return usage("--origin is one owner besides all others", "Leave --single and --from away.");
    }
    if download.names.is_empty() && download.origin.is_none() {
        return usage("download needs a name", "`show` lists what there is; Tab completes names.");
    }
    if download.names.iter().any(String::is_empty) {
        return usage("a name is empty", "`show` lists what there is.");
    }
    Ok(download)
}

fn parse_limit(words: &[String]) -> Result<Option<LimitChange>, Failed> {
    const HINT: &str = "For example: limit up 10M, limit down 200M@08-18, limit up off.";
    let Some((direction, rate)) = words.split_first() else { return Ok(None) };
    let direction = match direction.as_str() {
        "up" => Direction::Up,
        "down" => Direction::Down,
        other => return usage(format!("limit takes up or down, not {}", quote(other)), HINT),
    };
    if rate.is_empty() {
        return usage(format!("limit {} needs a rate", words.join(" ")), HINT);
    }
    // A list may have spaces after its commas.
    match rate.join(" ").parse::<Limit>() {
        Ok(limit) => Ok(Some(LimitChange { direction, limit })),
        Err(error) => usage(error.to_string(), HINT),
    }
}

fn parse_sync(words: Vec<String>) -> Result<Option<SyncChange>, Failed> {
    let Some(word) = at_most_one("sync", "[both|send|receive|off|confirm|restore]", words)? else { return Ok(None) };
    Ok(Some(match word.as_str() {
        "both" => SyncChange::Mode(SyncMode::Both),
        "send" => SyncChange::Mode(SyncMode::Send),
        "receive" => SyncChange::Mode(SyncMode::Receive),
        "off" => SyncChange::Off,
        "confirm" => SyncChange::Confirm,
        "restore" => SyncChange::Restore,
        other => {
            let hint = match nearest(other, SYNC_WORDS) {
                Some(meant) => format!("Did you mean: sync {meant}?"),
                None => {
                    "sync takes both, send, receive, off, confirm or restore; alone it shows how sync stands.".into()
                }
            };
            return usage(format!("sync does not know {}", quote(other)), hint);
        }
    }))
}

fn parse_trash(mut words: Vec<String>) -> Result<Verb, Failed> {
    if words.first().is_none_or(|word| word != "restore") {
        return Ok(Verb::Trash { pattern: at_most_one("trash", "[PATTERN]", words)? });
    }
    words.remove(0);
    take_separator("trash restore", &mut words)?;
    if words.is_empty() {
        return usage("trash restore needs a name", "`trash` lists what there is: trash restore NAME…");
    }
    Ok(Verb::Restore { items: words })
}

fn parse_wait(mut words: Vec<String>) -> Result<Verb, Failed> {
    let all = take_flag("--all", &mut words);
    Ok(Verb::Wait { pattern: at_most_one("wait", "[--all] [PATTERN]", words)?, all })
}

fn parse_manifest(mut words: Vec<String>) -> Result<Verb, Failed> {
    let swarm = take_flag("--everybody", &mut words);
    Ok(Verb::Manifest { pattern: at_most_one("manifest", "[--everybody] [PATTERN]", words)?, swarm })
}

fn parse_hash(mut words: Vec<String>) -> Result<Command, Failed> {
    take_separator("hash", &mut words)?;
    // In the shell, standard input is the commands themselves.
    if words.is_empty() || words.iter().any(|word| word.is_empty() || word == "-") {
        return usage("hash needs a file", "For example: hash /tmp/film.mkv. `manifest` is for what we share.");
    }
    Ok(Command::Hash(words.into_iter().map(PathBuf::from).collect()))
}

/// Takes the flag out, wherever it stands before a `--`; says whether it was there.
fn take_flag(flag: &str, words: &mut Vec<String>) -> bool {
    let at = words.iter().take_while(|word| *word != "--").position(|word| word == flag);
    at.map(|at| words.remove(at)).is_some()
}

/// Takes out the `--` before words that may begin with a dash; before it, such a word would be a flag.
fn take_separator(verb: &str, words: &mut Vec<String>) -> Result<(), Failed> {
    let Some(at) = words.iter().position(|word| word.starts_with('-') && word != "-") else { return Ok(()) };
    if words[at] == "--" {
        words.remove(at);
        return Ok(());
    }
    let flag = quote(&words[at]);
    let hint = match words[at].as_str() {
        "--json" => "For all answers: potluck --json shell".to_owned(),
        _ => format!("If it is a name: {verb} -- {flag}"),
    };
    usage(format!("{verb} has no flag {flag}"), hint)
}

fn at_most_one(verb: &str, takes: &str, mut words: Vec<String>) -> Result<Option<String>, Failed> {
    take_separator(verb, &mut words)?;
    match words.len() {
        0 | 1 => Ok(words.pop()),
        _ => {
            let quoted = quote(&words.join(" "));
            usage(
                format!("{verb} takes one argument at most: {verb} {takes}"),
                format!("Quote a name with spaces: {verb} {quoted}"),
            )
        }
    }
}

fn no_more<T>(verb: &str, words: &[String], value: T) -> Result<T, Failed> {
    match words {
        [] => Ok(value),
        [first, ..] => usage(format!("{verb} takes no argument, not {}", quote(first)), format!("Type just: {verb}")),
    }
}

/// The verb for a word that means one elsewhere.
pub fn alias(word: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(alias, _)| *alias == word).map(|(_, verb)| *verb)
}

fn unknown(word: &str) -> Failed {
    if let Some(verb) = ELSEWHERE.iter().find(|verb| **verb == word) {
        let hint = format!("Outside of this shell: potluck {verb}");
        return Failed::new(FailureKind::Usage, format!("{verb} is for the command line"), hint);
    }
    let hint = match alias(word).or_else(|| nearest(&word.to_lowercase(), VERBS)) {
        Some(verb) => format!("Did you mean {verb}? `help` lists the verbs."),
        None => "`help` lists the verbs.".to_owned(),
    };
    Failed::new(FailureKind::Usage, format!("there is no verb {}", quote(word)), hint)
}

fn nearest<const N: usize>(word: &str, among: [&'static str; N]) -> Option<&'static str> {
    let scored = among.into_iter().map(|known| (strsim::jaro_winkler(word, known), known));
    scored.filter(|(alike, _)| *alike >= ALIKE).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}

fn usage<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Failed> {
    Err(Failed::new(FailureKind::Usage, message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words() {
        let check = |line: &str, want: &[&str]| {
            let words = split(line);
            assert_eq!(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>(), want, "{line:?}");
        };
        check("", &[]);
        check(" \t ", &[]);
        check("show", &["show"]);
        check("  a   b\tc\n", &["a", "b", "c"]);
        check("'a b' \"c d\" e\\ f", &["a b", "c d", "e f"]);
        check("a'b'\"c\"d", &["abcd"]);
        check("'' \"\"", &["", ""]);
        check(r#""a\"b" 'a\b' "a\b" \'"#, &["a\"b", "a\\b", "a\\b", "'"]);
        check("#1.txt $HOME *.ogg ~ `id` $(id)", &["#1.txt", "$HOME", "*.ogg", "~", "`id`", "$(id)"]);
        check(r#"a\u{202e}b "\u{202E}" '\u{202e}'"#, &["a\u{202e}b", "\u{202e}", "\\u{202e}"]);
        check(r"\u{} \u{110000} \u{xyz} \u{1", &["u{}", "u{110000}", "u{xyz}", "u{1"]);
        check("日本 é", &["日本", "é"]);
        check("a\\", &["a\\"]);
        check("'open ended", &["open ended"]);
        assert_eq!(split("x 'a b' c").iter().map(|word| word.span.clone()).collect::<Vec<_>>(), [0..1, 2..7, 8..9]);
        assert_eq!(split("x 'a b").last().unwrap().open_quote, Some('\''));
        assert_eq!(split("x 'a b'").last().unwrap().open_quote, None);
    }

    #[test]
    fn commands() {
        let check = |line: &str, want: Command| assert_eq!(parse(line), Ok(want), "{line:?}");
        let show = |pattern: Option<&str>| Command::Verb(Verb::Show { pattern: pattern.map(Into::into) });
        let download = |names: &[&str], from, output: Option<&str>| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Command::Verb(Verb::Download(Download { names, from, output: output.map(Into::into), origin: None }))
        };
        let with_origin = |names: &[&str]| {
            let (names, origin) = (names.iter().map(|name| (*name).to_owned()).collect(), "https://h/x".parse().ok());
            Command::Verb(Verb::Download(Download { names, origin, ..Download::default() }))
        };
        check("download --origin https://h/x", with_origin(&[]));
        check("download a --origin=https://h/x", with_origin(&["a"]));
        check("", Command::Nothing);
        check("show", show(None));
        check("show *.ogg", show(Some("*.ogg")));
        check("show 'a b'", show(Some("a b")));
        check("show -- --option", show(Some("--option")));
        check("show -", show(Some("-")));
        check("download a", download(&["a"], From::All, None));
        check("download a 'b c' d/", download(&["a", "b c", "d/"], From::All, None));
        check("download --single a", download(&["a"], From::Single, None));
        check("download a --from node2", download(&["a"], From::Peer("node2".into()), None));
        check("download --from=node2 a", download(&["a"], From::Peer("node2".into()), None));
        check("download a -o /tmp/x", download(&["a"], From::All, Some("/tmp/x")));
        check("download -- --single -o", download(&["--single", "-o"], From::All, None));
        check("download a=b", download(&["a=b"], From::All, None));
        check("getip", Command::Verb(Verb::Getip { target: None }));
        check("getip node2", Command::Verb(Verb::Getip { target: Some("node2".into()) }));
        let manifest =
            |pattern: Option<&str>, swarm| Command::Verb(Verb::Manifest { pattern: pattern.map(Into::into), swarm });
        check("manifest", manifest(None, false));
        check("manifest --everybody *.iso", manifest(Some("*.iso"), true));
        check("manifest *.iso --everybody", manifest(Some("*.iso"), true));
        check("hash a 'b c'", Command::Hash(vec!["a".into(), "b c".into()]));
        check("hash -- -x", Command::Hash(vec!["-x".into()]));
        assert!(parse("hash").is_err() && parse("hash -").is_err() && parse("manifest a b").is_err());
        check("peers", Command::Verb(Verb::Peers));
        check("status", Command::Verb(Verb::Status));
        let limit = |direction, limit: &str| {
            Command::Verb(Verb::Limit { change: Some(LimitChange { direction, limit: limit.parse().unwrap() }) })
        };
        check("limit", Command::Verb(Verb::Limit { change: None }));
        check("limit up 10M", limit(Direction::Up, "10M"));
        check("limit down off", limit(Direction::Down, "off"));
        check("limit up 1M, 200M@08-18", limit(Direction::Up, "1M,200M@08-18"));
        let sync = |change| Command::Verb(Verb::Sync { change });
        check("sync", sync(None));
        check("sync both", sync(Some(SyncChange::Mode(SyncMode::Both))));
        check("sync off", sync(Some(SyncChange::Off)));
        check("sync confirm", sync(Some(SyncChange::Confirm)));
        check("conflicts", Command::Verb(Verb::Conflicts { pattern: None }));
        check("trash *.txt", Command::Verb(Verb::Trash { pattern: Some("*.txt".into()) }));
        check("trash restore a 'b c'", Command::Verb(Verb::Restore { items: vec!["a".into(), "b c".into()] }));
        check("trash restore -- restore", Command::Verb(Verb::Restore { items: vec!["restore".into()] }));
        check("wait", Command::Verb(Verb::Wait { pattern: None, all: false }));
        check("wait --all docs/", Command::Verb(Verb::Wait { pattern: Some("docs/".into()), all: true }));
        check("wait docs/ --all", Command::Verb(Verb::Wait { pattern: Some("docs/".into()), all: true }));
        check("wait -- --all", Command::Verb(Verb::Wait { pattern: Some("--all".into()), all: false }));
        check("verify docs/", Command::Verb(Verb::Verify { pattern: Some("docs/".into()) }));
        check("stop", Command::Verb(Verb::Stop));
        check("help", Command::Help(None));
        check("help download", Command::Help(Some("download")));
        check("help quit", Command::Help(Some("exit")));
        check("exit", Command::Exit);
        check("quit", Command::Exit);
    }

    #[test]
    fn mistakes() {
        let mut shown = String::new();
        for line in [
            "shwo",
            "ls",
            "DOWNLOAD x",
            "xyzzy",
            "\u{1b}[2J",
            "'show",
            "show a b",
            "show --json",
            "wait --al",
            "trash restore --all",
            "hash --x",
            "peers now",
            "download",
            "download ''",
            "download --frm node2 a",
            "download --option",
            "download --from",
            "download a -o",
            "download --single --from b a",
            "download --origin",
            "download --origin example.org/a",
            "download a --single --origin http://h/a",
            "help me",
            "getip a b",
            "limit off",
            "limit up",
            "limit up 10MB",
            "limit down 10",
            "limit up 10M@8",
            "throttle",
            "doctor",
        ] {
            let failed = parse(line).unwrap_err();
            assert_eq!(failed.kind, FailureKind::Usage);
            shown += &format!("> {}\n  {}\n  {}\n", line.escape_debug(), failed.message, failed.hint);
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn quoting() {
        let check = |name: &str, want: &str| assert_eq!(quote(name), want);
        check("a.txt", "a.txt");
        check("a b", "'a b'");
        check("it's", r"'it'\''s'");
        check("", "''");
        check("a\u{202e}b", r#""a\u{202e}b""#);
        check("--option", "--option");
    }

    proptest! {
        #[test]
        fn never_panics(line in ".{0,60}") {
            let _ = parse(&line);
            for word in split(&line) {
                prop_assert!(line.get(word.span).is_some());
            }
        }

        #[test]
        fn lines_of_our_own_letters_never_panic(line in "(show|download|help|--from|-o|--|'|\"|\\\\|u\\{|[0-9a-f]|\\}| |=|é){0,12}") {
            let _ = parse(&line);
        }

        #[test]
        fn what_is_quoted_is_one_word(name in "[^\\\\]{0,20}") {
            let quoted = quote(&name);
            let words = split(&quoted);
            prop_assert_eq!(words.len(), 1);
            prop_assert_eq!(&words[0].text, &name);
            prop_assert_eq!(words[0].open_quote, None);
        }
    }
}
