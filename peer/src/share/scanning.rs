//! A full scan that runs beside the sharing task, which takes its files in batches as one kind of event among others: so
//! the first files are hashed while later ones are still being listed.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use potluck_common::SharePath;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::folder::{FileIdentity, ShareFolder};
use super::ignore::IgnoreRules;
use super::scan::{ScanReport, scan};

/// Files that a scan hands over at once: large enough to amortise a look-up in the cache, small enough that the first
/// files that the cache knows are announced while later ones are still being listed.
const SCAN_BATCH: usize = 512;
/// Batches that a scan may be ahead.
const SCAN_AHEAD: usize = 4;

/// Files as they were found.
pub type Batch = Vec<(SharePath, FileIdentity)>;

/// A scan that runs.
#[derive(Debug)]
pub struct Scanning {
    batches: mpsc::Receiver<Batch>,
    report: JoinHandle<io::Result<ScanReport>>,
    /// When it began.
    pub started: Instant,
    /// What it has found so far.
    pub seen: BTreeSet<SharePath>,
    /// Told when it is over and was complete.
    pub told: Vec<oneshot::Sender<()>>,
}

/// What comes next of a scan.
#[derive(Debug)]
pub enum Step {
    /// Files.
    Found(Batch),
    /// It is over.
    Over(Result<io::Result<ScanReport>, JoinError>),
}

impl Scanning {
    /// Starts a scan of the whole folder, which stops early when `ending` is cancelled; these have asked for it.
    pub fn start(
        folder: Arc<ShareFolder>,
        rules: Arc<IgnoreRules>,
        told: Vec<oneshot::Sender<()>>,
        ending: CancellationToken,
    ) -> Self {
        let (sender, batches) = mpsc::channel::<Batch>(SCAN_AHEAD);
        let report = tokio::task::spawn_blocking(move || {
            let mut batch = Vec::with_capacity(SCAN_BATCH);
            let report = scan(&folder, None, &rules, &mut |path, identity| {
                batch.push((path, identity));
                let goes_on = !ending.is_cancelled();
                goes_on && (batch.len() < SCAN_BATCH || sender.blocking_send(std::mem::take(&mut batch)).is_ok())
            });
            let _closed = sender.blocking_send(batch);
            report
        });
        Self { batches, report, started: Instant::now(), seen: BTreeSet::new(), told }
    }

    /// The next step. It may be given up and asked for again; after [`Step::Over`] there is none.
    pub async fn next(&mut self) -> Step {
        match self.batches.recv().await {
            Some(batch) => {
                self.seen.extend(batch.iter().map(|(path, _)| path.clone()));
                Step::Found(batch)
            }
            None => Step::Over((&mut self.report).await),
        }
    }
}
