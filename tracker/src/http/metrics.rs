//! `GET /metrics`: what Prometheus reads.

use axum::extract::State;
use axum::response::Response;
use potluck_common::net::metrics::{Metrics, Reading};

use potluck_common::openapi::AnyProblem;

use super::App;
use crate::registry::Registry;
use crate::swarm::Swarm;
use crate::tally::{PREFIX, Tally};

/// For Prometheus.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "The text format, version 0.0.4.", body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"),
    AnyProblem))]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    app.0.metrics.answer()
}

/// The metrics of a tracker; `n_streams` says how many event streams are open.
pub(crate) fn of_swarm(swarm: &Swarm, n_streams: impl Fn() -> usize + Send + Sync + 'static) -> Metrics {
    let metrics = Metrics::new(PREFIX, env!("CARGO_PKG_VERSION"));
    let Tally { announces, expired, forgotten, store_errors } = swarm.tally().clone();
    metrics.register(announces);
    metrics.register(expired);
    metrics.register(forgotten);
    metrics.register(store_errors);
    let of = swarm.clone();
    let readings = [
        Reading::gauge("peers", "Peers whose lease runs."),
        Reading::gauge("syncing_peers", "Of these, peers that sync their folder."),
        Reading::gauge("files", "Names that are listed."),
        Reading::gauge("contents", "Contents that are listed."),
        Reading::gauge("content_bytes", "Lengths of all listed contents, each counted once."),
        Reading::gauge("owners", "Owners over all contents, by how much they hold.").with("holds", "all"),
        Reading::gauge("owners", "Owners over all contents, by how much they hold.").with("holds", "part"),
        Reading::gauge("sending_bytes_per_second", "What all peers say they send."),
        Reading::gauge("receiving_bytes_per_second", "What all peers say they receive."),
        Reading::gauge("sync_paths", "Paths in the index of the synced folder, those of deleted files too."),
        Reading::counter(
            "sync_entries_refused_total",
            "Entries of that index that peers sent and that were not taken.",
        ),
    ];
    metrics.observe(readings, move || {
        let (stats, (n_complete, n_partial)) = (of.stats(), of.ask(Registry::n_owners));
        [
            stats.n_peers,
            stats.n_syncing,
            stats.n_files,
            stats.n_contents,
            stats.n_bytes,
            n_complete,
            n_partial,
            stats.rates.up,
            stats.rates.down,
            stats.n_index,
            stats.n_index_refused,
        ]
        .map(|n| n as f64)
    });
    let of = swarm.clone();
    let readings = [
        Reading::gauge("event_subscribers", "Event streams that are open."),
        Reading::gauge("store_ready", "1 if the last write to the store succeeded, or nothing is stored."),
    ];
    metrics.observe(readings, move || [n_streams() as f64, f64::from(u8::from(of.is_ready()))]);
    metrics
}
