//! Proving a content's length and chunk map before anything is built on them.
//!
//! A chunk map that folds to the content id proves neither length nor depth (trust rule 4 in the threat list). So an owner's
//! claim is its map *and* the proof of its length ([`LengthProof`]): both come in one answer of one owner, and one that
//! contradicts itself is dropped. Nobody else is ever blamed for it, and no owner is asked twice, so no mixture of liars
//! can make a download go in circles.
//!
//! A few owners are asked, the next one when the last has been silent for a while or has failed.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use potluck_common::tree::LengthProof;
use potluck_common::{ChunkMap, ContentId, Geometry, PeerId};

use super::owners::{Source, Sources};
use crate::wire::peer_client::{FetchError, PeerClient};

/// How long an owner may be silent before the next one is asked as well.
pub(super) const HEAD_START: Duration = Duration::from_millis(750);
/// Choked owners are asked again this often before the others decide.
const MAX_CHOKES: u32 = 20;

/// What a content is made of, proven.
#[derive(Debug)]
pub enum Proven {
    /// Several chunks: the map with its geometry, and what proves the length.
    Several(ChunkMap, LengthProof),
    /// One chunk, which proves itself: its bytes, and the name of the owner that gave them.
    One(Vec<u8>, String),
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
/// With it come the owners that contradicted themselves on the way.
///
/// # Errors
/// If none does.
pub async fn prove(peers: &PeerClient, id: ContentId, sources: &Sources) -> Result<(Proven, Vec<PeerId>), Unproven> {
    let mut left: Vec<&Source> = sources.values().map(|source| &**source).collect();
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
            Ok(proven) => return Ok((proven, liars)),
            Err(Refusal::Lie(lie)) => {
                tracing::warn!(owner = source.owner.name, content_id = %id, lie, "an owner contradicts itself and is dropped");
                liars.push(source.owner.peer_id);
            }
            Err(Refusal::Fetch(error)) => {
                tracing::debug!(owner = source.owner.name, content_id = %id, %error, "no chunk map from an owner");
                unreachable = Some(error);
            }
        }
    }
}

async fn claim_of(peers: &PeerClient, id: ContentId, source: &Source) -> Result<Proven, Refusal> {
    let claim = patient(|| peers.chunk_map(&source.base, id)).await.map_err(Refusal::Fetch)?;
    let geometry = Geometry::new(claim.len).map_err(|_| Refusal::Lie("a length over the limit"))?;
    let map = ChunkMap::from_wire(id, geometry, &claim.map).map_err(|_| Refusal::Lie("its chunk map does not fold"))?;
    if geometry.n_chunks() == 1 {
        let request_id = format!("{:08x}-0", fastrand::u32(..));
        let bytes =
            patient(|| peers.bytes(&source.base, id, 0..claim.len, &request_id)).await.map_err(Refusal::Fetch)?;
        return match ContentId::of(&bytes) == id {
            true => Ok(Proven::One(bytes, source.owner.name.clone())),
            false => Err(Refusal::Lie("its bytes are not those of the content")),
        };
    }
    match claim.proof {
        Some(proof) if proof.proves(&map) => Ok(Proven::Several(map, proof)),
        Some(_) => Err(Refusal::Lie("its length is not that of the content")),
        None => Err(Refusal::Lie("it does not prove its length")),
    }
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
