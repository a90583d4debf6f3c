//! The placing task: gathers small contents that are here and verified, and gives them their names in batches.
//!
//! It waits for nobody: what came while the last batch was being placed is the next one, so a file that comes alone goes
//! at once, and the faster files come, the more of them share a sync.

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::batch::{Small, place_all};
use super::partial::PartialStore;
use super::place::PlaceError;
use crate::share::folder::{FileIdentity, ShareFolder};

/// Contents in one batch: enough that the syncs of journal and folders are divided by many, few enough that progress is
/// seen and the open files are no burden.
const MAX_BATCH: usize = 256;

/// A content that is to be placed, and who waits for that.
type Arrived = (Small, oneshot::Sender<Result<FileIdentity, PlaceError>>);

/// Gives contents to the placing task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Placer(mpsc::Sender<Arrived>);

/// The task's end of it.
#[derive(Debug)]
pub struct Placing(mpsc::Receiver<Arrived>);

/// Makes a pair.
pub fn placer() -> (Placer, Placing) {
    // One batch may wait while another is placed; their bytes are bounded by the budget of all downloads.
    let (sender, receiver) = mpsc::channel(MAX_BATCH);
    (Placer(sender), Placing(receiver))
}

impl Placer {
    /// Waits until the content has its name and that is durable.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub async fn place(&self, small: Small) -> Result<FileIdentity, PlaceError> {
        let ends = || io::Error::other("the peer ends");
        let (done, placed) = oneshot::channel();
        self.0.send((small, done)).await.map_err(|_| ends())?;
        placed.await.map_err(|_| ends())?
    }
}

impl Placing {
    /// Runs until `shutdown`; a batch that has begun is brought to its end.
    pub async fn run(mut self, share: Arc<ShareFolder>, partials: Arc<PartialStore>, shutdown: CancellationToken) {
        let mut arrived = Vec::with_capacity(MAX_BATCH);
        while let Some(1..) = shutdown.run_until_cancelled(self.0.recv_many(&mut arrived, MAX_BATCH)).await {
            // What nobody waits for any more was given up.
            let (batch, waiting): (Vec<_>, Vec<_>) = arrived.drain(..).filter(|(_, done)| !done.is_closed()).unzip();
            let (share, partials) = (share.clone(), partials.clone());
            let placing = tokio::task::spawn_blocking(move || place_all(&share, partials.dir(), &batch));
            match placing.await {
                Ok(placed) => {
                    for (done, placed) in waiting.into_iter().zip(placed) {
                        let _given_up = done.send(placed);
                    }
                }
                // Whoever waits is told so by the end of its channel.
                Err(error) => tracing::error!(%error, "placing failed"),
            }
        }
    }
}
