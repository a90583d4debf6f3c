//! Signals as a token: the first SIGINT or SIGTERM asks everything to end, the second ends the process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after a second signal, as shells give for SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Waits for signals for as long as the process lives; cancels `shutdown` at the first.
///
/// # Errors
/// If the handlers cannot be installed.
pub async fn on_signals(shutdown: CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if shutdown.is_cancelled() {
            std::process::exit(EXIT_INTERRUPTED);
        }
        shutdown.cancel();
    }
}
