//! Waiting for a moment that there may not be: what deciding machines give as their next deadline.

use std::time::Instant;

/// Returns at `due`, or never.
pub async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
