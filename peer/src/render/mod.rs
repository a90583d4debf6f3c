//! From events to what a person or a program reads: the only place that decides how an answer looks.
//!
//! [`follow`] takes the events of one verb as they come and hands them to a [`Renderer`]. It does not know where they
//! come from; nothing here asks the peer anything.

pub mod bars;
pub mod doctor;
pub mod echo;
pub mod escape;
pub mod json;
pub mod look;
pub mod out;
#[cfg(test)]
pub(crate) mod sample;
pub mod sheet;
pub mod table;
pub mod tally;
pub mod text;
pub mod units;

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use escape::escape;
pub use look::{BAD, FAINT, GOOD, Look, ODD, STRONG};
pub use out::Out;
pub use text::failure;
pub use units::{count, size};

use crate::on_complete::{Completed, Completions};
use crate::verb::{Event, Failed, FailureKind, Finished, Verb};

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Well.
    Done,
    /// Badly.
    Failed(FailureKind),
    /// The person wanted it to end.
    Cancelled,
}

/// Shows the answer to one verb.
pub struct Renderer<'a> {
    out: &'a mut Out,
    look: Look,
    is_download: bool,
    is_stop: bool,
    format: Shown,
}

enum Shown {
    Text(Box<text::Text>),
    Json(json::Json),
}

impl<'a> Renderer<'a> {
    /// For the answer to `verb`.
    pub fn new(verb: &Verb, format: Format, look: Look, out: &'a mut Out) -> Self {
        let format = match format {
            Format::Text => Shown::Text(Box::new(text::Text::new(verb, look))),
            Format::Json => Shown::Json(json::Json::new(verb)),
        };
        let (is_download, is_stop) = (matches!(verb, Verb::Download(_)), matches!(verb, Verb::Stop));
        Self { out, look, is_download, is_stop, format }
    }

    /// Shows one event; `elapsed` since the verb was given.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn on_event(&mut self, event: &Event, elapsed: Duration) -> io::Result<()> {
        match &mut self.format {
            Shown::Json(json) => json.on_event(event, self.out),
            Shown::Text(text) => {
                text.on_event(event, elapsed, self.out)?;
                if self.is_stop && *event == Event::Done { self.out.result("the peer has stopped") } else { Ok(()) }
            }
        }
    }

    /// The person wanted it to end.
    pub fn on_cancelled(&mut self) {
        if let Shown::Text(text) = &mut self.format {
            text.clear();
            if self.is_download {
                self.out.remark("stopped; what has come in is kept");
                let hint = self.look.paint(FAINT, "hint:");
                self.out.remark(&format!("{hint} Give the same download again to go on from there."));
            }
        }
    }
}

/// Gives events on, and tells of the files that have come with them.
pub async fn told_of(mut events: mpsc::Receiver<Event>, on: mpsc::Sender<Event>, completions: Completions) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = on.closed() => None,
        };
        let Some(event) = event else { return };
        if let Event::Finished(Finished { path, content_id, len, .. }) = &event {
            completions.tell(Completed { path: path.clone(), content_id: *content_id, len: *len }).await;
        }
        // Whoever hangs up cancels the verb.
        if on.send(event).await.is_err() {
            return;
        }
    }
}

/// Shows events until the last one, or until `cancelled` ends, which cancels the verb.
///
/// # Errors
/// If standard output cannot be written; the verb is cancelled then too.
pub async fn follow(
    mut events: mpsc::Receiver<Event>,
    renderer: &mut Renderer<'_>,
    cancelled: impl Future<Output = ()>,
) -> io::Result<Ending> {
    let started = Instant::now();
    tokio::pin!(cancelled);
    loop {
        let event = tokio::select! {
            biased;
            () = &mut cancelled => {
                renderer.on_cancelled();
                return Ok(Ending::Cancelled);
            }
            event = events.recv() => event,
        };
        let event = event.unwrap_or_else(|| {
            let hint = "See its log, and start it again with `potluck up`.";
            Event::Failed(Failed::new(FailureKind::Failed, "the peer ended before it had answered", hint))
        });
        renderer.on_event(&event, started.elapsed())?;
        match event {
            Event::Done => return Ok(Ending::Done),
            Event::Failed(failed) => return Ok(Ending::Failed(failed.kind)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
