//! Logging: to standard error, to a daily file in a folder, or both; as text for people or as JSON for programs.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::str::FromStr;

use tracing::Subscriber;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Days of log files that are kept.
const MAX_LOG_FILES: usize = 7;

/// Where log lines go besides the log folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    /// Standard error gets every line.
    Lines,
    /// Standard error gets warnings and errors only: it is somebody's terminal.
    Warnings,
    /// Standard error gets nothing unless `POTLUCK_LOG` asks for it: whoever gave one command is answered otherwise.
    Nothing,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// A line of text.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `target`, `message`, the event's fields beside them, and in `span` those
    /// of the request that it belongs to.
    Json,
}

/// The text is not the name of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log is written as text or as json")]
pub struct ParseFormatError;

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, ParseFormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ParseFormatError),
        }
    }
}

impl Format {
    /// Lines of this format. In JSON nothing is coloured, and what logs is always named.
    fn layer<S, W>(self, writer: W, ansi: bool, target: bool) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let layer = tracing_subscriber::fmt::layer().with_writer(writer);
        match self {
            Self::Text => layer.with_ansi(ansi).with_target(target).boxed(),
            Self::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        }
    }
}

/// Starts logging for this process. Dropping the guard writes what is still buffered. `POTLUCK_LOG` filters
/// (the syntax of `tracing_subscriber::EnvFilter`; default `info`).
///
/// # Errors
/// If the log folder cannot be made or written.
pub fn init(program: &str, dir: Option<&Path>, stderr: Stderr, format: Format) -> io::Result<Option<WorkerGuard>> {
    let filter = || EnvFilter::try_from_env("POTLUCK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let to_stderr = format.layer(io::stderr, io::stderr().is_terminal(), false);
    let to_stderr = match stderr {
        Stderr::Lines => to_stderr.with_filter(filter()),
        Stderr::Warnings => to_stderr.with_filter(EnvFilter::new("warn")),
        Stderr::Nothing => {
            to_stderr.with_filter(EnvFilter::try_from_env("POTLUCK_LOG").unwrap_or_else(|_| EnvFilter::new("off")))
        }
    };
    let (to_file, guard) = match dir {
        None => (None, None),
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            let file = RollingFileAppender::builder()
                .rotation(Rotation::DAILY)
                .filename_prefix(program)
                .filename_suffix("log")
                .max_log_files(MAX_LOG_FILES)
                .build(dir)
                .map_err(io::Error::other)?;
            let (writer, guard) = tracing_appender::non_blocking(file);
            let layer = format.layer(writer, false, true).with_filter(filter());
            (Some(layer), Some(guard))
        }
    };
    tracing_subscriber::registry().with(to_stderr).with(to_file).init();
    Ok(guard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Whatever is logged, a line is one object, and names of strangers stay text.
    #[test]
    fn json_lines() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = Format::Json.layer(move || writer.clone(), true, false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("request", request_id = "0badcafe-1");
            span.in_scope(|| tracing::info!(path = "a\n\"b\u{1b}[2J", status = 206, "answered"));
            tracing::warn!("no span");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let parsed: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed.len(), 2, "{text}");
        assert_eq!((&parsed[0]["message"], &parsed[0]["level"]), (&"answered".into(), &"INFO".into()));
        assert_eq!((&parsed[0]["path"], &parsed[0]["status"]), (&"a\n\"b\u{1b}[2J".into(), &206.into()));
        assert_eq!(parsed[0]["span"]["request_id"], "0badcafe-1");
        assert!(parsed[1]["timestamp"].is_string() && parsed[1]["span"].is_null(), "{text}");
    }

    #[test]
    fn formats() {
        assert_eq!(("text".parse(), "json".parse()), (Ok(Format::Text), Ok(Format::Json)));
        assert_eq!("JSON".parse::<Format>(), Err(ParseFormatError));
    }
}
