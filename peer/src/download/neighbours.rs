//! Listening to neighbours: what other owners of a content hold and gain, from their have streams.
//!
//! Only in a swarm, that is while somebody else is fetching too: among complete owners there is no news. Each stream is a
//! task that turns lines into facts for the driver and decides nothing.

use std::collections::BTreeMap;

use potluck_common::protocol::HaveLine;
use potluck_common::{ContentId, PeerId};
use reqwest::Url;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::claim::next_piece;
use super::owners::Sources;
use crate::wire::peer_client::PeerClient;

/// Owners listened to at once. Forty random neighbours keep a swarm of any size connected and offer more rare chunks than
/// one link can take, while what they say stays a small part of the traffic: a line for a few chunks from each.
pub const MAX_NEIGHBOURS: usize = 40;
/// Longest line that is read in bytes: a have-set of the longest content, and room.
const MAX_LINE_LEN: usize = 256 << 10;

/// What a neighbour said.
#[derive(Debug)]
pub enum Heard {
    /// A line of its stream.
    Line(PeerId, HaveLine),
    /// Its stream has ended, or never began.
    Ended(PeerId),
}

/// The streams of one download.
#[derive(Debug)]
pub struct Neighbours {
    peers: PeerClient,
    id: ContentId,
    heard: mpsc::Sender<Heard>,
    streams: BTreeMap<PeerId, AbortHandle>,
}

impl Neighbours {
    /// None yet; what they say will come from the other end of `heard`.
    pub const fn new(peers: PeerClient, id: ContentId, heard: mpsc::Sender<Heard>) -> Self {
        Self { peers, id, heard, streams: BTreeMap::new() }
    }

    /// Listens to those of `sources` that are not listened to yet, as long as there is room.
    pub fn listen(&mut self, sources: &Sources, tasks: &mut JoinSet<()>) {
        let mut order: Vec<_> = sources.iter().collect();
        fastrand::shuffle(&mut order);
        for (owner, source) in order {
            if self.streams.len() >= MAX_NEIGHBOURS {
                return;
            }
            self.streams.entry(*owner).or_insert_with(|| {
                let (peers, id, heard, owner) = (self.peers.clone(), self.id, self.heard.clone(), *owner);
                let base = source.base.clone();
                tasks.spawn(async move {
                    read_lines(&peers, &base, id, owner, &heard).await;
                    let _driver_gone = heard.send(Heard::Ended(owner)).await;
                })
            });
        }
    }

    /// Whether more of them would be listened to.
    pub fn has_room(&self) -> bool {
        self.streams.len() < MAX_NEIGHBOURS
    }

    /// Whether an owner's stream is being listened to.
    pub fn hears(&self, owner: PeerId) -> bool {
        self.streams.contains_key(&owner)
    }

    /// A stream has ended.
    pub fn on_ended(&mut self, owner: PeerId) {
        self.streams.remove(&owner);
    }
}

async fn read_lines(peers: &PeerClient, base: &Url, id: ContentId, owner: PeerId, heard: &mpsc::Sender<Heard>) {
    let Ok(mut response) = peers.have(base, id).await else { return };
    let mut rest = Vec::new();
    while let Ok(Some(piece)) = next_piece(&mut response).await {
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Ok(line) = serde_json::from_slice(&line) else { return };
            if heard.send(Heard::Line(owner, line)).await.is_err() {
                return;
            }
        }
        if rest.len() > MAX_LINE_LEN {
            return;
        }
    }
}
