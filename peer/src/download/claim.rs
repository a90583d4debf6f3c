//! Proving a content's length and chunk map before anything is built on them.
//!
//! A chunk map that folds to the content id proves neither length nor depth; a last chunk that verifies against it proves
//! both (trust rules 4 and 5 in the threat list). So an owner's claim is its map *and* its last chunk: both come from
//! the same owner, and one that contradicts itself is dropped. Nobody else is ever blamed for it, and no owner is asked
//! twice, so no mixture of liars can make a download go in circles.
//!
//! A few owners are asked, the next one when the last has been silent for a while or has failed.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use potluck_common::{ChunkMap, ContentId, Geometry, PeerId};

use super::owners::{Source, Sources};
use crate::wire::peer_client::{FetchError, PeerClient};

/// How long an owner may be silent before the next one is asked as well.
pub(super) const HEAD_START: Duration = Duration::from_millis(750);
/// Choked owners are asked again this often before the others decide.
const MAX_CHOKES: u32 = 20;

/// A length and chunk map that are proven, with the last chunk that proved them.
#[derive(Debug)]
pub struct Proven {
    /// The map, with its geometry.
    pub map: ChunkMap,
    /// The bytes of the last chunk.
    pub last_chunk: Vec<u8>,
    /// Who gave them.
    pub from: PeerId,
    /// Owners that contradicted themselves on the way.
    pub liars: Vec<PeerId>,
}

/// Why nothing was proven.
#[derive(Debug)]
pub struct Unproven {
    /// Owners that contradicted themselves.
    pub liars: Vec<PeerId>,
    /// The last reason of an owner that did not.
    pub unreachable: Option<FetchError>,
}

/// Why one owner's claim is none.
enum Refusal {
    Lie(&'static str),
    Fetch(FetchError),
}

/// Asks owners until one proves what it says.
///
/// # Errors
/// If none does.
pub async fn prove(peers: &PeerClient, id: ContentId, sources: &Sources) -> Result<Proven, Unproven> {
    let mut left: Vec<&Source> = sources.values().collect();
    fastrand::shuffle(&mut left);
    let mut asking = FuturesUnordered::new();
    let (mut liars, mut unreachable) = (Vec::new(), None);
    loop {
        if let Some(source) = left.pop() {
            asking.push(async move { (source, claim_of(peers, id, source).await) });
        } else if asking.is_empty() {
            return Err(Unproven { liars, unreachable });
        }
        let head_start = if left.is_empty() { Duration::MAX } else { HEAD_START };
        let Ok(Some((source, claim))) = tokio::time::timeout(head_start, asking.next()).await else { continue };
        match claim {
            Ok((map, last_chunk)) => return Ok(Proven { map, last_chunk, from: source.owner.peer_id, liars }),
            Err(Refusal::Lie(lie)) => {
                tracing::warn!(owner = ?source.owner.name, content_id = %id, lie, "an owner contradicts itself and is dropped");
                liars.push(source.owner.peer_id);
            }
            Err(Refusal::Fetch(error)) => {
                tracing::debug!(owner = ?source.owner.name, content_id = %id, %error, "no chunk map from an owner");
                unreachable = Some(error);
            }
        }
    }
}

async fn claim_of(peers: &PeerClient, id: ContentId, source: &Source) -> Result<(ChunkMap, Vec<u8>), Refusal> {
    let claim = patient(|| peers.chunk_map(&source.base, id)).await.map_err(Refusal::Fetch)?;
    let geometry = Geometry::new(claim.len).map_err(|_| Refusal::Lie("a length over the limit"))?;
    let map = ChunkMap::from_wire(id, geometry, &claim.map).map_err(|_| Refusal::Lie("its chunk map does not fold"))?;
    let bytes = geometry.bytes_of(geometry.last());
    if bytes.is_empty() {
        // Any content's root folds as the map of no bytes, too: only the hash of nothing proves them.
        return match map.verifies(geometry.last(), &[]) {
            true => Ok((map, Vec::new())),
            false => Err(Refusal::Lie("it claims that there are no bytes")),
        };
    }
    let read = || async {
        let mut response = peers.range(&source.base, id, bytes.clone()).await?;
        let mut chunk = Vec::new();
        while let Some(piece) = next_piece(&mut response).await? {
            let room = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX) - chunk.len();
            if piece.len() > room {
                return Err(FetchError::Wrong("a body that is too long"));
            }
            chunk.extend_from_slice(&piece);
        }
        Ok(chunk)
    };
    let last_chunk = match patient(read).await {
        // It denies the very bytes that its map says it has.
        Err(FetchError::NotHeld) => return Err(Refusal::Lie("it lacks its own last chunk")),
        read => read.map_err(Refusal::Fetch)?,
    };
    if (last_chunk.len() as u64) < bytes.end - bytes.start {
        return Err(Refusal::Fetch(FetchError::Wrong("a body that is too short")));
    }
    if !map.verifies(geometry.last(), &last_chunk) {
        return Err(Refusal::Lie("its last chunk does not fit its chunk map"));
    }
    Ok((map, last_chunk))
}

/// The next piece of a body.
///
/// # Errors
/// If the connection ends or goes silent.
pub async fn next_piece(response: &mut reqwest::Response) -> Result<Option<Bytes>, FetchError> {
    let piece = response.chunk().await;
    piece.map_err(|error| FetchError::Unreachable(crate::wire::tracker_client::root_cause(&error)))
}

/// Asks again while the owner is only busy.
async fn patient<T, F: Future<Output = Result<T, FetchError>>>(ask: impl Fn() -> F) -> Result<T, FetchError> {
    let mut chokes = 0;
    loop {
        match ask().await {
            Err(FetchError::Choked(wait)) if chokes < MAX_CHOKES => {
                chokes += 1;
                tokio::time::sleep(wait).await;
            }
            answer => return answer,
        }
    }
}
