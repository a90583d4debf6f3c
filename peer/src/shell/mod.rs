//! The interactive shell: lines in, answers out, from a terminal or from a pipe.
//!
//! On a terminal there is an editor, a greeting, and Ctrl-C that stops only what is running. From a pipe lines are run in
//! order without any of this, and the exit code is that of the first that failed. The shell holds no state but the
//! peer it talks to.

pub mod complete;
pub mod editor;
pub mod help;
pub mod reach;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::command::{Command, parse};
use crate::render::table::NO_TRACKER;
use crate::render::{Ending, FAINT, Format, Look, Out, Renderer, STRONG, count, escape, failure, follow};
use crate::sums;
use crate::verb::{Event, Failed, FailureKind, Status, Verb};
use complete::{Completer, Wanted};
use editor::{Editor, Typed};
use reach::Reached;

/// What Tab waits for names, at most; nothing else happens meanwhile.
const COMPLETION_PATIENCE: Duration = Duration::from_millis(700);
/// Names that are asked for at one Tab.
const COMPLETION_LIMIT: usize = 200;
/// What the greeting waits for, at most.
const GREETING_PATIENCE: Duration = Duration::from_secs(3);
/// The exit code after Ctrl-C, as shells give it.
pub const EXIT_INTERRUPTED: u8 = 130;

/// What follows a line.
enum Next {
    /// The next line; with the exit code if this one failed.
    Line(Option<u8>),
    /// Nothing: the shell ends.
    Leave,
}

/// Runs the shell until its end; gives the exit code. `shutdown` ends it from outside.
///
/// # Errors
/// If standard input cannot be read or standard output not written.
pub async fn run(
    reached: &Arc<Reached>,
    format: Format,
    share: &Path,
    out: &mut Out,
    shutdown: &CancellationToken,
) -> io::Result<u8> {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let is_interactive = io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb;
    let mut shell = Shell { reached: Arc::clone(reached), format, out, shutdown };
    if is_interactive { shell.interactive(share).await } else { shell.lines().await }
}

struct Shell<'a> {
    reached: Arc<Reached>,
    format: Format,
    out: &'a mut Out,
    shutdown: &'a CancellationToken,
}

impl Shell<'_> {
    async fn interactive(&mut self, share: &Path) -> io::Result<u8> {
        let look = Look::of_process();
        let name = match self.reached.ask(Verb::Status, GREETING_PATIENCE).await {
            Some(Event::Status(status)) => {
                self.out.result(&greeting(&status, matches!(*self.reached, Reached::Own(..)), &look))?;
                status.name
            }
            Some(Event::Failed(failed)) => {
                self.out.remark(&failure(&failed, &look));
                "potluck".to_owned()
            }
            _ => "potluck".to_owned(),
        };
        let completer = Completer::new(source(Arc::clone(&self.reached)));
        let mut editor = Editor::new(&name, share, completer, look.colour);
        while !self.shutdown.is_cancelled() {
            match editor.read(self.shutdown).await? {
                Typed::End => break,
                Typed::Nothing => {}
                Typed::Line(line) => {
                    if let Next::Leave = self.execute(&line).await? {
                        break;
                    }
                }
            }
        }
        Ok(0)
    }

    async fn lines(&mut self) -> io::Result<u8> {
        let mut input = BufReader::new(tokio::io::stdin());
        let mut first_failure = None;
        loop {
            let mut bytes = Vec::new();
            let read = tokio::select! {
                read = input.read_until(b'\n', &mut bytes) => read?,
                () = self.shutdown.cancelled() => return Ok(EXIT_INTERRUPTED),
            };
            if read == 0 {
                break;
            }
            let next = match String::from_utf8(bytes) {
                Ok(line) => self.execute(&line).await?,
                Err(_) => self.refuse(&Failed::new(FailureKind::Usage, "the line is not UTF-8", ""))?,
            };
            match next {
                Next::Line(Some(EXIT_INTERRUPTED)) => return Ok(EXIT_INTERRUPTED),
                Next::Line(failure) => first_failure = first_failure.or(failure),
                Next::Leave => break,
            }
        }
        Ok(first_failure.unwrap_or(0))
    }

    /// Runs one line to its end, or until Ctrl-C.
    async fn execute(&mut self, line: &str) -> io::Result<Next> {
        let mut verb = match parse(line) {
            Ok(Command::Nothing) => return Ok(Next::Line(None)),
            Ok(Command::Exit) => return Ok(Next::Leave),
            Ok(Command::Hash(files)) => {
                let code = tokio::task::block_in_place(|| sums::hash(&files, self.format, self.out))?;
                return Ok(Next::Line((code != 0).then_some(code)));
            }
            Ok(Command::Help(verb)) => {
                self.out.result(&help::help(verb, &Look::of_process()))?;
                return Ok(Next::Line(None));
            }
            Ok(Command::Verb(verb)) => verb,
            Err(failed) => return self.refuse(&failed),
        };
        if let Verb::Download(download) = &mut verb
            && let Some(output) = &mut download.output
        {
            *output = std::env::current_dir()?.join(&output);
        }
        // A new listener for each verb: Ctrl-C at the prompt is none of its business.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.shutdown;
        let cancelled = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                () = shutdown.cancelled() => {}
            }
        };
        let events = self.reached.run(verb.clone());
        let mut renderer = Renderer::new(&verb, self.format, Look::of_process(), self.out);
        Ok(match follow(events, &mut renderer, cancelled).await? {
            Ending::Done if verb == Verb::Stop => Next::Leave,
            Ending::Done => Next::Line(None),
            Ending::Failed(kind) => Next::Line(Some(kind.exit_code())),
            Ending::Cancelled => Next::Line(Some(EXIT_INTERRUPTED)),
        })
    }

    /// A line that makes no sense.
    fn refuse(&mut self, failed: &Failed) -> io::Result<Next> {
        show_failure(failed, self.format, self.out)?;
        Ok(Next::Line(Some(failed.kind.exit_code())))
    }
}

/// Shows a failure that came before any verb was given.
///
/// # Errors
/// If standard output cannot be written.
pub fn show_failure(failed: &Failed, format: Format, out: &mut Out) -> io::Result<()> {
    // No verb: the shape of an answer in JSON does not matter to a failure.
    Renderer::new(&Verb::Status, format, Look::of_process(), out)
        .on_event(&Event::Failed(failed.clone()), Duration::ZERO)
}

fn greeting(status: &Status, is_own: bool, look: &Look) -> String {
    let how = if is_own { "started for this shell" } else { "running" };
    let mut trackers: Vec<_> = status
        .trackers
        .iter()
        .map(|tracker| format!("{}{}", escape(&tracker.url), if tracker.reachable { "" } else { " (does not answer)" }))
        .collect();
    if trackers.is_empty() {
        trackers.push(NO_TRACKER.into());
    }
    let files = count(status.n_files, "file", "files");
    format!(
        "peer {} at {}, {how}\nsharing {} ({files}), tracker {}\n{}",
        look.paint(STRONG, &escape(&status.name)),
        escape(&status.base_url),
        escape(&status.share.display().to_string()),
        trackers.join(", "),
        look.paint(FAINT, "`help` shows what to type, Tab completes, Ctrl-D leaves."),
    )
}

/// Names for completion, from the peer. Called on the editor's own thread, which may wait.
fn source(reached: Arc<Reached>) -> complete::Source {
    let runtime = tokio::runtime::Handle::current();
    Box::new(move |wanted| {
        let verb = match wanted {
            Wanted::Files(prefix) => Verb::Names { prefix, limit: COMPLETION_LIMIT },
            Wanted::Peers => Verb::Peers,
        };
        match runtime.block_on(reached.ask(verb, COMPLETION_PATIENCE)) {
            Some(Event::Names { names }) => names,
            Some(Event::Peers { peers }) => peers.into_iter().map(|peer| peer.name).collect(),
            _ => Vec::new(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::TrackerStatus;

    #[test]
    fn greetings() {
        let mut status = crate::render::sample::status();
        insta::assert_snapshot!("greeting", greeting(&status, false, &Look::PLAIN));
        let url = "http://tracker:7700".into();
        status.trackers = vec![TrackerStatus { url, reachable: true, reaches_us: Some(true), refuses: None }];
        insta::assert_snapshot!("greeting_own", greeting(&status, true, &Look::PLAIN));
        status.trackers.clear();
        assert!(greeting(&status, true, &Look::PLAIN).contains(", tracker none found yet on this network\n"));
    }
}
