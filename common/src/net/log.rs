//! Logging: to standard error, to a daily file in a folder, or both.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
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
}

/// Starts logging for this process. Dropping the guard writes what is still buffered. `POTLUCK_LOG` filters
/// (the syntax of `tracing_subscriber::EnvFilter`; default `info`).
///
/// # Errors
/// If the log folder cannot be made or written.
pub fn init(program: &str, dir: Option<&Path>, stderr: Stderr) -> io::Result<Option<WorkerGuard>> {
    let filter = || EnvFilter::try_from_env("POTLUCK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let to_stderr = match stderr {
        Stderr::Lines => to_stderr.with_filter(filter()),
        Stderr::Warnings => to_stderr.with_filter(EnvFilter::new("warn")),
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
            let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).with_filter(filter());
            (Some(layer), Some(guard))
        }
    };
    tracing_subscriber::registry().with(to_stderr).with(to_file).init();
    Ok(guard)
}
