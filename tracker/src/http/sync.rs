//! `GET /v1/sync`: the feed of the synced folder, as pages that can be waited for.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use potluck_common::openapi::{AnyProblem, BadQuery};
use potluck_common::protocol::{MAX_SYNC_WAIT_MS, SyncPage, SyncQuery};

use super::failure::Failure;
use super::{App, Source};

/// Answers held back at once; each holds a connection, of which there are more.
pub(crate) const MAX_WAITING: usize = 4_096;
/// Of these, for one address.
pub(crate) const MAX_WAITING_PER_IP: usize = 2_048;

/// What changed in the synced folder, in pages that can be waited for.
#[utoipa::path(get, path = "/v1/sync", params(SyncQuery),
    responses((status = 200, description = "Paths that changed after that number, each once.", body = SyncPage), BadQuery, AnyProblem))]
pub(crate) async fn sync(
    State(app): State<App>,
    Source(source): Source,
    query: Result<Query<SyncQuery>, QueryRejection>,
) -> Result<Json<SyncPage>, Failure> {
    let Query(query) = query.map_err(|error| Failure::bad_query(error.body_text()))?;
    if query.wait_ms > 0 && !app.swarm().has_sync_news(&query) {
        let waiting = app.0.waiting.take(source, MAX_WAITING, MAX_WAITING_PER_IP);
        let _waiting = waiting.ok_or_else(Failure::busy)?;
        let mut latest = app.swarm().subscribe_sync();
        // Only the number is looked at: this runs under the channel's lock, which an announce takes inside of the swarm's. Whoever
        // asked the swarm from in here would wait for the announce, and the announce for them.
        let news = latest.wait_for(|seq| *seq != query.after);
        let wait = Duration::from_millis(query.wait_ms.min(MAX_SYNC_WAIT_MS));
        tokio::select! {
            () = app.0.shutdown.cancelled() => {}
            // Nothing came, or it did: the page says which.
            _ = tokio::time::timeout(wait, news) => {}
        }
    }
    Ok(Json(app.swarm().sync_page(&query)))
}
