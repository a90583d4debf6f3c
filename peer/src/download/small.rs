//! Contents of one chunk: fetched whole in one request, from one owner after another until one gives the right bytes.
//!
//! The length that the tracker lists is a claim: where an owner has more bytes than one chunk, the content is not one
//! of these, and is fetched as a large one, whose length gets proven.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use cap_std::fs::{OpenOptions, OpenOptionsExt};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use potluck_common::chunk::MIN_CHUNK_LEN;
use potluck_common::{ContentId, Geometry};

use super::claim::HEAD_START;
use super::job::{Downloads, Outcome};
use super::moving::OnlyHere;
use super::owners::Sources;
use super::partial::{PartialStore, Target};
use super::place::{PlaceError, disk_failed, path_of, place, taken};
use crate::share::folder::FileIdentity;
use crate::verb::{Contribution, Failed, FailureKind};
use crate::wire::peer_client::{FetchError, TOO_LONG};

/// Rounds over all owners while some are only busy.
const MAX_ROUNDS: u32 = 30;

/// What came from whom.
struct Fetched {
    bytes: Vec<u8>,
    from: String,
}

impl Downloads {
    /// Fetches a content of at most one chunk and gives it its name; the name is durable after the next sync of folders.
    /// `None` if nobody has such a content and somebody has a longer one.
    pub(super) async fn fetch_small(
        &self,
        id: ContentId,
        sources: &Sources,
        target: &Target,
        only_here: &OnlyHere,
    ) -> Result<Option<Outcome>, Failed> {
        let permit = self.budget.take(MIN_CHUNK_LEN).await;
        let Some(Fetched { bytes, from }) = self.fetch_whole(id, sources).await? else { return Ok(None) };
        let outcome = self.keep_small(id, bytes, from, target, only_here).await?;
        drop(permit);
        Ok(Some(outcome))
    }

    /// Gives verified bytes of at most one chunk their name.
    pub(super) async fn keep_small(
        &self,
        id: ContentId,
        bytes: Vec<u8>,
        from: String,
        target: &Target,
        only_here: &OnlyHere,
    ) -> Result<Outcome, Failed> {
        let len = bytes.len() as u64;
        let (folder, partials, goal) = (self.folder.clone(), self.partials.clone(), target.clone());
        let until_done = only_here.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _until_done = until_done;
            write_and_place(&folder, &partials, id, &bytes, &goal)
        });
        match written.await.map_err(|error| PlaceError::Io(io::Error::other(error))).flatten() {
            Ok(identity) => {
                let geometry = Geometry::new(len).expect("it is at most one chunk");
                let map = potluck_common::ChunkMap::from_values(geometry, vec![*id.as_bytes()]);
                self.on_placed(map, identity, target);
                Ok(Outcome { len, from: vec![Contribution { name: from, n_bytes: len }] })
            }
            Err(PlaceError::Taken) => Err(taken(&self.folder, target)),
            Err(PlaceError::Io(error)) => Err(disk_failed(&path_of(&self.folder, target), &error)),
        }
    }

    async fn fetch_whole(&self, id: ContentId, sources: &Sources) -> Result<Option<Fetched>, Failed> {
        let mut left: Vec<_> = sources.values().filter(|source| source.owner.complete).collect();
        fastrand::shuffle(&mut left);
        // Slower than this is too slow (C11), and an owner that is slow or silent does not keep the next one waiting.
        let slow_rate = self.config.scheduler.slow_rate.max(1);
        let patience = self.config.owner_timeout + Duration::from_secs(MIN_CHUNK_LEN / slow_rate);
        let mut is_longer = false;
        let (mut bad, mut why) = (0, String::from("nobody who has it answers"));
        for _ in 0..MAX_ROUNDS {
            let mut busy = Vec::new();
            let mut wait = None;
            let mut asking = FuturesUnordered::new();
            loop {
                if let Some(source) = left.pop() {
                    let whole = tokio::time::timeout(patience, self.peers.whole(&source.base, id, MIN_CHUNK_LEN));
                    asking.push(async move {
                        let slow = |_| Err(FetchError::Unreachable("it is too slow".into()));
                        (source, whole.await.unwrap_or_else(slow))
                    });
                } else if asking.is_empty() {
                    break;
                }
                let head_start = if left.is_empty() { Duration::MAX } else { HEAD_START };
                let Ok(Some((source, answer))) = tokio::time::timeout(head_start, asking.next()).await else {
                    continue;
                };
                match answer {
                    Ok(bytes) if ContentId::of(&bytes) == id => {
                        self.traffic.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        return Ok(Some(Fetched { bytes, from: source.owner.name.clone() }));
                    }
                    Ok(_) => {
                        tracing::warn!(owner = ?source.owner.name, content_id = %id, "an owner sent other bytes than it is listed for");
                        bad += 1;
                    }
                    Err(FetchError::Choked(retry_after)) => {
                        wait = Some(retry_after);
                        busy.push(source);
                    }
                    Err(FetchError::Wrong(TOO_LONG)) => is_longer = true,
                    Err(error) => why = format!("{} does not give it: {error}", source.owner.name),
                }
            }
            let Some(wait) = wait else { break };
            left = busy;
            tokio::time::sleep(wait).await;
        }
        if is_longer {
            return Ok(None);
        }
        if bad > 0 {
            let message = "no owner gave bytes that verify (chunk 0 has no valid source)";
            return Err(Failed::new(FailureKind::Unverified, message, "Try again later, or ask its owners to verify."));
        }
        Err(Failed::new(FailureKind::Unreachable, why, "Check that a peer which has it is running; peers lists them."))
    }
}

fn write_and_place(
    folder: &crate::share::folder::ShareFolder,
    partials: &PartialStore,
    id: ContentId,
    bytes: &[u8],
    target: &Target,
) -> Result<FileIdentity, PlaceError> {
    let name = id.to_string();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let mut file: File = partials.dir().open_with(&name, &options)?.into_std();
    let placed = (|| {
        file.write_all(bytes)?;
        file.sync_data()?;
        place(folder, partials.dir(), &name, &file, target)
    })();
    if let Err(error) = placed {
        let _also_gone = partials.dir().remove_file(&name);
        return Err(error);
    }
    Ok(FileIdentity::of(&file)?)
}
