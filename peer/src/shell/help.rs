//! What `help` says in the shell: a screenful to begin with, and a page for each verb with lines to type.

use crate::command::VERBS;
use crate::render::{FAINT, Look, STRONG};

struct Page {
    verb: &'static str,
    usage: &'static str,
    about: &'static str,
    details: &'static str,
    examples: &'static [(&'static str, &'static str)],
}

const PAGES: [Page; VERBS.len()] = [
    Page {
        verb: "show",
        usage: "show [PATTERN]",
        about: "list files: who has them, do we",
        details: "Lists what all peers share together: name, size, how many owners, whether we hold it, and the first\n\
                  digits of its content id. One name may stand for several contents; each has its own row.\n\
                  HELD: ✓ all of it is here, part: some of it, -: nothing.",
        examples: &[
            ("show", "everything"),
            ("show film", "names with \"film\" in them"),
            ("show *.iso", "a glob"),
            ("show docs/", "a folder"),
        ],
    },
    Page {
        verb: "download",
        usage: "download NAME… [--single | --from PEER | --origin URL] [-o PATH]",
        about: "fetch files from all owners at once",
        details: "Fetches pieces of each file from every owner at the same time and verifies each one before it is\n\
                  written. Ctrl-C stops it and keeps what has come in: the same line again goes on from there.",
        examples: &[
            ("download film.mkv", "by name; Tab completes it"),
            ("download 'two words.txt'", "quotes keep a name together"),
            ("download photos/*.jpg docs/", "globs, and whole folders"),
            ("download notes.txt@3f2a9c41", "one of several contents under a name"),
            ("download --from node2 film.mkv", "from that one peer only"),
            ("download --single film.mkv", "from one owner, whichever"),
            ("download --origin https://example.org/film.mkv", "fetched once, then spread by peers"),
            ("download -o /tmp/ film.mkv", "put it elsewhere"),
            ("download -- --option", "a name that looks like a flag"),
        ],
    },
    Page {
        verb: "getip",
        usage: "getip [PEER or NAME]",
        about: "addresses: ours, a peer's, a file's owners'",
        details: "Prints where peers can be reached.",
        examples: &[
            ("getip", "our own address"),
            ("getip node2", "that peer's"),
            ("getip film.mkv", "those of everybody who has it"),
        ],
    },
    Page {
        verb: "peers",
        usage: "peers",
        about: "who is there",
        details: "Lists every peer: its address, what it shares, what it sends and receives.",
        examples: &[("peers", "")],
    },
    Page {
        verb: "status",
        usage: "status",
        about: "what this peer is doing",
        details: "Shows this peer: address, trackers and whether they answer, what it shares, transfers with rates.",
        examples: &[("status", "")],
    },
    Page {
        verb: "sync",
        usage: "sync [both|send|receive|off|confirm|restore]",
        about: "how folder sync stands; switch it",
        details: "Peers that sync have the same folder: what is made, changed, renamed or deleted on one travels to all.\n\
                  What sync overwrites or deletes here is in the trash for 30 days. If a quarter of the files vanishes at\n\
                  once, their deletes are held back until you confirm them.",
        examples: &[
            ("sync", "how it stands, and what each peer lacks"),
            ("sync both", "give changes and take those of others"),
            ("sync send", "only give; sync receive only takes"),
            ("sync off", "stop; the files stay"),
            ("sync confirm", "the deletes that were held back are meant"),
            ("sync restore", "they are not: bring those files back"),
        ],
    },
    Page {
        verb: "conflicts",
        usage: "conflicts [PATTERN]",
        about: "names under which several versions stand",
        details: "Two people changed one file before they heard of each other: one version keeps the name, the other lies\n\
                  beside it as NAME.conflict-ID. Keep what you want and delete or rename the rest; that travels too.",
        examples: &[("conflicts", "all of them"), ("conflicts docs/", "in a folder")],
    },
    Page {
        verb: "trash",
        usage: "trash [PATTERN] | trash restore NAME…",
        about: "what sync deleted or overwrote here",
        details: "Lists what sync took out of the folder, and brings it back to where it stood. Nothing that stands there\n\
                  now is replaced.",
        examples: &[
            ("trash", "all of it, the latest first"),
            ("trash *.txt", "what matches"),
            ("trash restore notes.txt", "bring it back"),
        ],
    },
    Page {
        verb: "wait",
        usage: "wait [--all] [PATTERN]",
        about: "until everything is here, or everywhere",
        details: "Returns when this peer holds all files of the synced folder; with --all, when every peer that syncs does.",
        examples: &[("wait", "until we have everything"), ("wait --all docs/", "until everybody has that folder")],
    },
    Page {
        verb: "limit",
        usage: "limit [up|down RATE]",
        about: "show or change what is sent and received at most",
        details: "A rate is a number with K, M, G or T (KiB, MiB, … a second), or off. @FROM-UNTIL after it makes it hold at\n\
                  those hours only, local time; several go with commas, and one without hours is for the rest of the day.\n\
                  It holds until the peer ends; --limit-up and --limit-down say what it starts with.",
        examples: &[
            ("limit", "what holds now"),
            ("limit up 10M", "send at most 10 MiB a second"),
            ("limit down 200M@08-18", "receive at most 200 MiB a second by day"),
            ("limit up 10M,off@22-06:30", "10 MiB a second, without limit by night"),
            ("limit up off", "without limit again"),
        ],
    },
    Page {
        verb: "manifest",
        usage: "manifest [--everybody] [PATTERN]",
        about: "content ids, for b3sum --check",
        details: "Prints a line for each file that we share, or with --everybody that the tracker lists: its content id and\n\
                  its name, as b3sum prints them.",
        examples: &[
            ("manifest", "what we share"),
            ("manifest docs/", "a folder of it"),
            ("manifest --everybody *.iso", "what others share"),
        ],
    },
    Page {
        verb: "hash",
        usage: "hash FILE…",
        about: "content ids of any files here",
        details: "Prints the content id of files on this machine, wherever they are, as b3sum does.",
        examples: &[("hash /tmp/film.mkv", "is it the one that others have?")],
    },
    Page {
        verb: "verify",
        usage: "verify [PATTERN]",
        about: "hash again what we share",
        details: "Reads our files again and compares them with what we announced. Damaged ones can be downloaded again.",
        examples: &[("verify", "all of them"), ("verify docs/", "a folder")],
    },
    Page {
        verb: "stop",
        usage: "stop",
        about: "end this peer, for everybody",
        details: "Ends the peer itself, wherever it runs; others no longer reach our files. To leave only the shell: exit.",
        examples: &[("stop", "")],
    },
    Page {
        verb: "help",
        usage: "help [VERB]",
        about: "this, or a page about a verb",
        details: "Ctrl-C clears the line or stops a download, Ctrl-R searches in what was typed before.",
        examples: &[("help download", "flags and examples")],
    },
    Page {
        verb: "exit",
        usage: "exit",
        about: "leave the shell",
        details: "The same as quit or Ctrl-D. A peer that was running before the shell goes on running.",
        examples: &[("exit", "")],
    },
];

/// The answer to `help` or `help VERB`.
pub fn help(verb: Option<&str>, look: &Look) -> String {
    match verb.and_then(|verb| PAGES.iter().find(|page| page.verb == verb)) {
        Some(page) => about(page, look),
        None => first_screen(look),
    }
}

fn first_screen(look: &Look) -> String {
    let mut lines = vec![
        "Three things to try first:".to_owned(),
        example("show", "what everybody has", look),
        example("download NAME", "fetch it from all its owners at once (Tab completes names)", look),
        example("peers", "who is there", look),
        String::new(),
        "All verbs:".to_owned(),
    ];
    lines.extend(PAGES.iter().map(|page| example(page.verb, page.about, look)));
    lines.push(look.paint(FAINT, "`help download` and the like explain one, with examples."));
    lines.join("\n")
}

fn about(page: &Page, look: &Look) -> String {
    let mut lines = vec![look.paint(STRONG, page.usage), String::new(), page.details.to_owned(), String::new()];
    lines.extend(page.examples.iter().map(|(line, means)| example(line, means, look)));
    lines.join("\n")
}

fn example(line: &str, means: &str, look: &Look) -> String {
    let width = if line.len() < 15 { 17 } else { 33 };
    let gap = " ".repeat(width.max(line.len() + 2) - line.len());
    format!("  {}{gap}{means}", look.paint(STRONG, line)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, parse};

    #[test]
    fn pages() {
        assert_eq!(PAGES.map(|page| page.verb), VERBS);
        insta::assert_snapshot!("help", help(None, &Look::PLAIN));
        insta::assert_snapshot!("help_download", help(Some("download"), &Look::PLAIN));
        for verb in VERBS {
            let page = help(Some(verb), &Look::PLAIN);
            assert!(page.lines().all(|line| line.chars().count() <= 110), "{page}");
        }
        assert!(help(None, &Look::PLAIN).lines().count() < 24, "more than a screenful");
    }

    /// Help that teaches lines that do not work is worse than none.
    #[test]
    fn examples_parse_as_their_verb() {
        for page in &PAGES {
            for (line, _) in page.examples {
                let is_right = match parse(line).unwrap() {
                    // Two words that are one verb to the peer.
                    Command::Verb(crate::verb::Verb::Restore { .. }) => page.verb == "trash",
                    Command::Verb(verb) => serde_json::to_value(&verb).unwrap()["verb"] == page.verb,
                    Command::Help(_) => page.verb == "help",
                    Command::Hash(_) => page.verb == "hash",
                    Command::Exit => page.verb == "exit",
                    Command::Nothing => false,
                };
                assert!(is_right, "{line}");
            }
        }
    }
}
