//! The prompt on a terminal: reedline with our history, completion and colours.
//!
//! The editor blocks its thread, so each line is read on the blocking pool; the editor travels there and back. Ctrl-C is
//! a key while it reads and a signal while a verb runs.

use std::borrow::Cow;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use potluck_common::share_path::STATE_DIR;
use reedline::{
    Color, ColumnarMenu, DefaultHinter, Emacs, FileBackedHistory, Highlighter, KeyCode, KeyModifiers, MenuBuilder,
    Prompt, PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal, StyledText,
    default_emacs_keybindings,
};
use tokio_util::sync::CancellationToken;

use super::complete::Completer;
use crate::command::{VERBS, split};
use crate::render::escape;

/// Lines that are remembered.
const HISTORY_LEN: usize = 1_000;
const MENU: &str = "completion_menu";

/// What came from the prompt.
pub enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-C: the line was thrown away.
    Nothing,
    /// Ctrl-D, or the shell is to end.
    End,
}

/// The line editor.
pub struct Editor {
    /// Absent only while a line is being read.
    reedline: Option<Reedline>,
    name: String,
    interrupt: Arc<AtomicBool>,
}

impl Editor {
    /// With the prompt `NAME> `.
    pub fn new(name: &str, share: &Path, completer: Completer, colour: bool) -> Self {
        let mut keys = default_emacs_keybindings();
        let tab = vec![ReedlineEvent::Menu(MENU.into()), ReedlineEvent::MenuNext];
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, ReedlineEvent::UntilFound(tab));
        keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
        let interrupt = Arc::new(AtomicBool::new(false));
        let mut reedline = Reedline::create()
            .with_ansi_colors(colour)
            .with_completer(Box::new(completer))
            .with_quick_completions(true)
            .with_partial_completions(true)
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(
                ColumnarMenu::default().with_name(MENU).with_marker("> "),
            )))
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_hinter(Box::new(DefaultHinter::default().with_style(Color::DarkGray.normal())))
            .with_highlighter(Box::new(VerbsInBold))
            .with_break_signal(Arc::clone(&interrupt));
        match history(share) {
            Ok(Some(history)) => reedline = reedline.with_history(Box::new(history)),
            Ok(None) => {}
            // What was typed is forgotten at the end; no reason not to open the shell.
            Err(error) => tracing::debug!(%error, "no history"),
        }
        Self { reedline: Some(reedline), name: escape(name).into_owned(), interrupt }
    }

    /// Reads one line; ends early when `shutdown` is cancelled.
    ///
    /// # Errors
    /// If the terminal cannot be read.
    pub async fn read(&mut self, shutdown: &CancellationToken) -> io::Result<Typed> {
        let mut reedline = self.reedline.take().expect("it is put back after each line");
        let prompt = NamePrompt(self.name.clone());
        let mut reading = tokio::task::spawn_blocking(move || {
            let read = reedline.read_line(&prompt);
            (reedline, read)
        });
        let done = tokio::select! {
            done = &mut reading => done,
            () = shutdown.cancelled() => {
                self.interrupt.store(true, Ordering::Relaxed);
                reading.await
            }
        };
        let (mut reedline, read) = done.map_err(io::Error::other)?;
        // A failed write of the history is no reason to lose the line.
        let _ = reedline.sync_history();
        self.reedline = Some(reedline);
        Ok(match read.map_err(io::Error::other)? {
            Signal::Success(line) => Typed::Line(line),
            Signal::CtrlC => Typed::Nothing,
            _ => Typed::End,
        })
    }
}

/// The history in the share folder's state folder, if there is one: only its owner reads it.
fn history(share: &Path) -> io::Result<Option<FileBackedHistory>> {
    let state = share.join(STATE_DIR);
    if !state.is_dir() {
        return Ok(None);
    }
    let path = state.join("history");
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    FileBackedHistory::with_file(HISTORY_LEN, path).map(Some).map_err(io::Error::other)
}

struct NamePrompt(String);

impl Prompt for NamePrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.0)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("… ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!(" (search: {}) ", escape(&search.term)))
    }
}

/// A verb that exists is bold: one sees a slip before Enter.
struct VerbsInBold;

impl Highlighter for VerbsInBold {
    fn highlight(&self, line: &str, _: usize) -> StyledText {
        let verb = split(line).into_iter().next().filter(|word| VERBS.contains(&word.text.as_str()));
        let (verb, rest) = line.split_at(verb.map_or(0, |word| word.span.end));
        let mut styled = StyledText::new();
        styled.push((Color::Default.bold(), verb.to_owned()));
        styled.push((Color::Default.normal(), rest.to_owned()));
        styled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_private_and_only_where_there_is_a_state_folder() {
        let share = tempfile::tempdir().unwrap();
        assert!(history(share.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(share.path()).unwrap().count(), 0);
        let state = share.path().join(STATE_DIR);
        std::fs::create_dir(&state).unwrap();
        std::fs::write(state.join("history"), "show\n").unwrap();
        assert!(history(share.path()).unwrap().is_some());
        let mode = std::fs::metadata(state.join("history")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn highlighting_keeps_the_line() {
        for line in ["", "show", "show 'a b", " peers ", "é", "\"show\" x"] {
            assert_eq!(VerbsInBold.highlight(line, 0).raw_string(), line);
        }
    }
}
