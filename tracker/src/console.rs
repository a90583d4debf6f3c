//! The console of a tracker that runs on a terminal: `peers`, `show`, `help`, `exit`.
//!
//! It only asks the registry. Invariant: no text from a peer reaches the terminal without being escaped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use potluck_common::protocol::PeerInfo;
use reedline::{DefaultPrompt, DefaultPromptSegment, Reedline, Signal};
use tokio_util::sync::CancellationToken;

use crate::lookup::FilesQuery;
use crate::registry::Registry;
use crate::swarm::Swarm;

/// Files shown at most; a screen can do with fewer.
const MAX_SHOWN: usize = 200;
/// Names looked at for `show`.
const MAX_SCANNED: usize = 200_000;

const HELP: &str = "\
peers           who is here: name, address, files, bytes
show [TEXT]     files that are shared, or those with TEXT in their name
help            this
exit            end the tracker";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    Nothing,
    Peers,
    Show(&'a str),
    Help,
    Exit,
    Unknown(&'a str),
}

fn parse(line: &str) -> Command<'_> {
    let line = line.trim();
    let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match (verb, rest.trim()) {
        ("", _) => Command::Nothing,
        ("peers", "") => Command::Peers,
        ("show", pattern) => Command::Show(pattern),
        ("help" | "?", _) => Command::Help,
        ("exit" | "quit", "") => Command::Exit,
        _ => Command::Unknown(line),
    }
}

fn answer(command: &Command<'_>, registry: &Registry) -> String {
    match command {
        Command::Nothing | Command::Exit => String::new(),
        Command::Help => HELP.into(),
        Command::Unknown(line) => format!("{} is no command here. help lists them.", escape(line)),
        Command::Peers => peers(&registry.peers().peers),
        Command::Show(text) => show(text, registry),
    }
}

fn peers(peers: &[PeerInfo]) -> String {
    if peers.is_empty() {
        return "Nobody is here yet. A peer joins with: potluck --tracker http://THIS-HOST:PORT up".into();
    }
    let mut table = table(&["name", "address", "files", "bytes", "id"]);
    for peer in peers {
        table.add_row([
            escape(&peer.name),
            escape(peer.base_url.trim_start_matches("http://")),
            peer.n_files.to_string(),
            peer.n_bytes.to_string(),
            peer.peer_id.short(),
        ]);
    }
    align_right(&mut table, &[2, 3]);
    table.to_string()
}

fn show(text: &str, registry: &Registry) -> String {
    let query = FilesQuery { contains: text.into(), ..FilesQuery::default() };
    let part = registry.files(&query, None, MAX_SHOWN, MAX_SCANNED);
    if part.files.is_empty() {
        return if text.is_empty() {
            "Nothing is shared yet.".into()
        } else {
            format!("No shared file has {} in its name.", escape(text))
        };
    }
    let mut table = table(&["name", "bytes", "owners", "partial", "id"]);
    for file in &part.files {
        for content in &file.contents {
            table.add_row([
                escape(file.path.as_str()),
                content.len.to_string(),
                content.n_owners.to_string(),
                content.n_partial.to_string(),
                content.content_id.short(),
            ]);
        }
    }
    align_right(&mut table, &[1, 2, 3]);
    let more = if part.next.is_some() { "\n… and perhaps more: show TEXT narrows it down." } else { "" };
    format!("{table}{more}")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for &at in columns {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Text that a terminal shows as it is: no control characters, nothing that changes direction or hides.
fn escape(text: &str) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().flat_map(|c| if hides(c) { c.escape_unicode().collect() } else { vec![c] }).collect()
}

/// Reads and answers lines until `exit`, the end of input, or `stop`; ends the tracker with itself. Blocks.
pub fn run(swarm: &Swarm, stop: &CancellationToken, stopped: Arc<AtomicBool>) {
    let _ends_the_tracker = stop.clone().drop_guard();
    let mut editor = Reedline::create().with_break_signal(stopped.clone());
    let prompt = DefaultPrompt::new(DefaultPromptSegment::Basic("tracker".into()), DefaultPromptSegment::Empty);
    #[allow(clippy::print_stdout)]
    {
        println!("help lists the commands");
    }
    while !stopped.load(Ordering::Relaxed) {
        let line = match editor.read_line(&prompt) {
            Ok(Signal::Success(line)) => line,
            Ok(Signal::CtrlC | Signal::CtrlD | Signal::ExternalBreak(_)) => return,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "the console cannot read the terminal and ends");
                return;
            }
        };
        let command = parse(&line);
        if command == Command::Exit {
            return;
        }
        let text = swarm.ask(|registry| answer(&command, registry));
        if !text.is_empty() {
            #[allow(clippy::print_stdout)]
            {
                println!("{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let check = |line: &str, want: Command<'_>| assert_eq!(parse(line), want, "{line:?}");
        check("", Command::Nothing);
        check("  peers ", Command::Peers);
        check("show", Command::Show(""));
        check("show  a b ", Command::Show("a b"));
        check("help me", Command::Help);
        check("exit", Command::Exit);
        check("exit now", Command::Unknown("exit now"));
        check("Peers", Command::Unknown("Peers"));
    }

    /// P06, P24.
    #[test]
    fn nothing_moves_the_cursor() {
        let check = |text: &str, want: &str| assert_eq!(escape(text), want);
        check("a\x1b[2J\r\n", "a\\u{1b}[2J\\u{d}\\u{a}");
        check("exe.\u{202e}gpj", "exe.\\u{202e}gpj");
        check("crème brûlée 日本", "crème brûlée 日本");
    }
}
