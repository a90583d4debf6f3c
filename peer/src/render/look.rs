//! How output looks: for a terminal or not, in colour or not, how wide, and what time it is for ages.
//!
//! Found out once for each verb, so that everything below it is a function of values.

use std::io::IsTerminal as _;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::builder::styling::{AnsiColor, Style};
use console::Term;

/// Green, for what went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Red and bold, for what did not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Yellow, for what waits or is worth a look.
pub const ODD: Style = AnsiColor::Yellow.on_default();
/// For headings and verbs.
pub const STRONG: Style = Style::new().bold();
/// For what matters less.
pub const FAINT: Style = Style::new().dimmed();

/// What the output goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether results go to somebody's terminal.
    pub terminal: bool,
    /// Whether progress and remarks do; bars need that.
    pub bars: bool,
    /// Whether colours are wanted.
    pub colour: bool,
    /// Columns of the terminal; without one, nothing is cut or wrapped.
    pub width: Option<u16>,
    /// The time by our clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

impl Look {
    /// Plain text of any width, as a pipe gets it.
    pub const PLAIN: Self = Self { terminal: false, bars: false, colour: false, width: None, now_ms: 0 };

    /// As standard output, standard error and the environment (`NO_COLOR`, `TERM`) have it now.
    pub fn of_process() -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = std::io::stdout().is_terminal();
        let bars = std::io::stderr().is_terminal() && !is_dumb;
        let width = Term::stdout().size_checked().map(|(_, columns)| columns).filter(|columns| *columns > 0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            terminal,
            bars,
            colour: terminal && !no_colour && !is_dumb,
            width: width.filter(|_| terminal),
            now_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// `text` in a style, or as it is.
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}
