//! Making durable what was written, and recording it once it is.

use std::io;
use std::time::Instant;

use potluck_common::ChunkIndex;

use tokio::task::JoinHandle;

use super::Driver;

/// Chunks whose record is being written, and the task that does it.
pub(super) type Recording = (Vec<ChunkIndex>, JoinHandle<io::Result<Recorded>>);

/// What was written is durable.
pub(super) enum Recorded {
    /// And so is the record that says so.
    Yes,
    /// But the record could not be written.
    NotNoted(io::Error),
}

impl Driver<'_> {
    /// Begins to make durable what was written, and to record it once it is.
    pub(super) fn record(&mut self, now: Instant) {
        let chunks = std::mem::take(&mut self.unrecorded);
        (self.n_unrecorded_bytes, self.recorded_at) = (0, now);
        let (partials, partial) = (self.downloads.partials.clone(), self.partial.clone());
        let have = self.have.clone();
        let task = tokio::task::spawn_blocking(move || {
            partial.sync()?;
            let saved = partials.save(&partial, &have);
            Ok(saved.map_or_else(Recorded::NotNoted, |()| Recorded::Yes))
        });
        self.recording = Some((chunks, task));
    }

    /// What could not be synced counts as lost and is fetched again (F05): a later sync that succeeds proves nothing
    /// about it. Where only the record failed, as on a full disk, the data is there and is noted later.
    pub(super) fn on_recorded(&mut self, recorded: (Vec<ChunkIndex>, io::Result<Recorded>)) {
        self.recording = None;
        let (chunks, error) = match recorded {
            (_, Ok(Recorded::Yes)) => return,
            (chunks, Ok(Recorded::NotNoted(error))) => {
                tracing::warn!(%error, "how far the download is cannot be noted for now");
                self.unrecorded.extend(chunks);
                return;
            }
            (chunks, Err(error)) => (chunks, error),
        };
        tracing::warn!(%error, n_chunks = chunks.len(), "what was written is not durable and is fetched again");
        for chunk in chunks.into_iter().chain(std::mem::take(&mut self.unrecorded)) {
            self.have.remove(chunk);
            self.downloads.live.on_lost(self.partial.map().content_id(), chunk);
            self.scheduler.on_lost(chunk);
        }
        self.n_unrecorded_bytes = 0;
    }

    pub(super) async fn record_now(&mut self) {
        if let Some(recorded) = finished_recording(&mut self.recording).await {
            self.on_recorded(recorded);
        }
        self.record(Instant::now());
        if let Some(recorded) = finished_recording(&mut self.recording).await {
            self.on_recorded(recorded);
        }
    }
}

/// Waits for a record that is being written, if there is one.
pub(super) async fn finished_recording(
    recording: &mut Option<Recording>,
) -> Option<(Vec<ChunkIndex>, io::Result<Recorded>)> {
    let (_, task) = recording.as_mut()?;
    let ended = task.await.map_err(io::Error::other).flatten();
    recording.take().map(|(chunks, _)| (chunks, ended))
}
