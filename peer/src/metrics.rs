//! What a peer shows of itself to Prometheus: read from the parts that count it anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use potluck_common::net::metrics::{Metrics, Reading};
use potluck_common::openapi::AnyProblem;
use tokio::sync::{Semaphore, oneshot};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::download::moving::AllMoving;
use crate::execute_sync::Sync;
use crate::share::library::Library;
use crate::share::sharing::SharingState;
use crate::sync::driver::Ask;
use crate::traffic::{Reason, Traffic};
use crate::verb::SyncStatus;
use crate::wire::trackers::{Member, Trackers};

/// What the metrics of a peer begin with.
pub const PREFIX: &str = "potluck_peer";

/// How sync stands is asked of its task this often at most, however often strangers ask us.
const SYNC_FRESH: Duration = Duration::from_secs(1);
/// How long its answer is waited for; then the last one is shown.
const SYNC_PATIENCE: Duration = Duration::from_millis(500);

const FAILED: Reading = Reading::counter("fetches_failed_total", "Requests for bytes that came to nothing, by reason.");
const TRACKERS: Reading = Reading::gauge("trackers", "Trackers that this peer is with, by whether they answer.");

/// The parts that are read.
pub struct Parts {
    /// What is shared.
    pub library: Arc<Library>,
    /// How far hashing is.
    pub sharing: Arc<SharingState>,
    /// What is sent and received.
    pub traffic: Arc<Traffic>,
    /// Free upload slots.
    pub slots: Arc<Semaphore>,
    /// How many there are in all.
    pub n_slots: usize,
    /// What is being fetched.
    pub moving: Arc<AllMoving>,
    /// The trackers.
    pub trackers: Trackers,
    /// Folder sync.
    pub sync: Sync,
}

/// The metrics of one peer. Cheap to clone.
#[derive(Clone)]
pub struct PeerMetrics {
    /// All of them.
    pub metrics: Metrics,
    sync: Arc<SyncSeen>,
}

impl PeerMetrics {
    /// Of these parts.
    pub fn new(parts: Parts) -> Self {
        let metrics = Metrics::new(PREFIX, env!("CARGO_PKG_VERSION"));
        let Parts { library, sharing, traffic, slots, n_slots, moving, trackers, sync } = parts;
        observe_sharing(&metrics, library, sharing);
        observe_traffic(&metrics, traffic);
        let readings = [
            Reading::gauge("upload_slots", "Uploads that may run at once."),
            Reading::gauge("upload_slots_in_use", "Upload slots that are taken."),
            Reading::gauge("downloads_running", "Contents that are being fetched."),
            TRACKERS.with("state", "answering"),
            TRACKERS.with("state", "silent"),
        ];
        metrics.observe(readings, move || {
            let members = trackers.list();
            let n_answering = members.iter().filter(|member| Member::answers(member)).count();
            let n_in_use = n_slots - slots.available_permits();
            [n_slots, n_in_use, moving.n_moving(), n_answering, members.len() - n_answering].map(|n| n as f64)
        });
        let sync =
            Arc::new(SyncSeen { sync, asked: tokio::sync::Mutex::default(), status: Mutex::new(SyncStatus::off()) });
        observe_sync(&metrics, sync.clone());
        Self { metrics, sync }
    }
}

/// The route to them.
pub fn router<S: Clone + Send + std::marker::Sync + 'static>(metrics: PeerMetrics) -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(show)).with_state(metrics)
}

/// For Prometheus.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "The text format, version 0.0.4.", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8"),
    AnyProblem))]
async fn show(State(metrics): State<PeerMetrics>) -> Response {
    metrics.sync.refresh().await;
    metrics.metrics.answer()
}

fn observe_sharing(metrics: &Metrics, library: Arc<Library>, sharing: Arc<SharingState>) {
    let readings = [
        Reading::gauge("shared_files", "Files that are shared."),
        Reading::gauge("shared_bytes", "Their lengths in all."),
        Reading::gauge("hash_queue_files", "Files that are still to be hashed."),
        Reading::gauge("skipped_entries", "Entries of the share folder that cannot be shared."),
        Reading::counter("hashed_bytes_total", "Bytes of files that were hashed to be shared."),
    ];
    metrics.observe(readings, move || {
        let (n_files, n_bytes) = library.totals();
        [n_files, n_bytes, now(&sharing.n_hashing), now(&sharing.n_skipped), now(&sharing.n_hashed_bytes)]
            .map(|n| n as f64)
    });
}

fn observe_traffic(metrics: &Metrics, traffic: Arc<Traffic>) {
    let of = traffic.clone();
    let readings = [
        Reading::counter("sent_bytes_total", "Bytes of contents sent."),
        Reading::counter("received_bytes_total", "Bytes of contents received, verified or not."),
        Reading::gauge("uploads_running", "Uploads that run."),
        Reading::counter("uploads_refused_total", "Requests answered with 503 because all upload slots were taken."),
        Reading::counter("chunks_verified_total", "Chunks that were fetched and are right."),
    ];
    metrics.observe(readings, move || {
        [&of.up, &of.down, &of.n_uploads, &of.n_refused, &of.n_verified].map(|count| now(count) as f64)
    });
    let readings = Reason::ALL.map(|reason| FAILED.with("reason", reason.name()));
    metrics.observe(readings, move || Reason::ALL.map(|reason| traffic.n_failed(reason) as f64));
}

fn observe_sync(metrics: &Metrics, seen: Arc<SyncSeen>) {
    let readings = [
        Reading::gauge("sync_enabled", "1 if the share folder is synced."),
        Reading::gauge("sync_files", "Files of the synced folder that are here."),
        Reading::gauge("sync_pending", "Things that sync still has to do here, as far as it knows them."),
        Reading::gauge("sync_held_deletes", "Deletes that are held back until somebody confirms them."),
        Reading::gauge("sync_conflicts", "Names under which several versions stand."),
        Reading::gauge("trash_items", "What sync deleted or overwrote and can bring back."),
    ];
    metrics.observe(readings, move || {
        let status = seen.status.lock().unwrap_or_else(PoisonError::into_inner);
        let is_on = u64::from(status.mode.is_some());
        let n_trash = seen.sync.trash.n_records() as u64;
        [is_on, status.n_files, status.n_to_do, status.n_held, status.n_conflicts, n_trash].map(|n| n as f64)
    });
}

/// How sync stood when it was last asked.
struct SyncSeen {
    sync: Sync,
    /// When that was.
    asked: tokio::sync::Mutex<Option<Instant>>,
    status: Mutex<SyncStatus>,
}

impl SyncSeen {
    async fn refresh(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < SYNC_FRESH) {
            return;
        }
        let (answer, answered) = oneshot::channel();
        if self.sync.asks.try_send(Ask::Status(answer)).is_ok()
            && let Ok(Ok(status)) = tokio::time::timeout(SYNC_PATIENCE, answered).await
        {
            *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        }
        *asked = Some(Instant::now());
    }
}

fn now(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
