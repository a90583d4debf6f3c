//! What systemd is told of a program (`sd_notify`): that it is ready, well, about to end. Without systemd, nothing.
//!
//! A watchdog is fed from the runtime, so it notices a process whose runtime no longer gets on, and no less.

use std::convert::Infallible;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// The ready line is printed.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// Says that all is well for as long as somebody wants to hear it, and that the end is near once `stop` is cancelled.
pub async fn run(stop: CancellationToken) -> Infallible {
    if let Some(patience) = sd_notify::watchdog_enabled() {
        let fed = stop.run_until_cancelled(async {
            let mut ticks = tokio::time::interval(patience / 2);
            loop {
                ticks.tick().await;
                tell(NotifyState::Watchdog);
            }
        });
        let _stopped: Option<Infallible> = fed.await;
    }
    stop.cancelled().await;
    tell(NotifyState::Stopping);
    std::future::pending().await
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
