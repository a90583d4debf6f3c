//! Questions to the registry. Nothing here changes it.
//!
//! Invariant: only peers whose lease runs are named, and every answer is bounded, whatever is asked.

use std::cmp::Reverse;
use std::ops::Bound;

use potluck_common::protocol::{
    ContentInfo, ContentOwners, ContentSummary, FileInfo, FileSummary, Flow, MatrixPeer, Owner, Parts, PeerInfo, Peers,
    Rates, Sifted, Stats,
};
use potluck_common::{ContentId, Geometry, PeerId, SharePath};

use crate::handout::{DEFAULT_HANDOUT, choose};
use crate::index::{ContentRow, Listed, PeerIx};
use crate::registry::{Peer, Presence, Registry};

/// Contents shown under one name, those with most owners first.
pub const MAX_CONTENTS_PER_NAME: usize = 100;
/// Names shown of one content.
pub const MAX_NAMES_PER_CONTENT: usize = 100;

/// Which files.
#[derive(Debug, Clone, Default)]
pub struct FilesQuery {
    /// Only names that contain this, in any letter case.
    pub contains: String,
    /// Only names that start with this.
    pub prefix: String,
    /// How many owners to give with each content, chosen at random by the seed.
    pub n_owners: usize,
    /// Seed of that choice.
    pub seed: u64,
}

impl FilesQuery {
    fn matches(&self, path: &str) -> bool {
        self.contains.is_empty() || contains_folded(path, &self.contains)
    }
}

/// A part of the list of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The files, in order.
    pub files: Vec<FileSummary>,
    /// Where to go on; `None`: there are no more names.
    pub next: Option<SharePath>,
}

/// Where a list of peers by name goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCursor {
    /// After those of this name,
    pub name: String,
    /// of which these are yet to come: all whose id is greater, or all.
    pub id: Option<PeerId>,
}

/// Bytes on their way from one peer to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// Who sends.
    pub from: End,
    /// Who receives.
    pub to: End,
    /// A name of the content, if it is listed.
    pub name: Option<SharePath>,
    /// Bytes a second.
    pub rate: u64,
}

/// One end of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its id.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
}

impl Registry {
    /// Everyone present, by name.
    pub fn peers(&self) -> Peers {
        let mut peers: Vec<PeerInfo> = self.leases.iter().filter_map(|&(_, ix)| info(self.peers.get(ix))).collect();
        peers.sort_by(|a, b| (&a.name, a.peer_id).cmp(&(&b.name, b.peer_id)));
        Peers { peers }
    }

    /// At most `max` of those present, chosen at random.
    pub fn some_peers(&self, max: usize, seed: u64) -> Peers {
        let chosen = fastrand::Rng::with_seed(seed).choose_multiple(self.leases.iter(), max);
        Peers { peers: chosen.into_iter().filter_map(|&(_, ix)| info(self.peers.get(ix))).collect() }
    }

    /// One peer, if it is present.
    pub fn peer(&self, id: PeerId) -> Option<PeerInfo> {
        self.by_id.get(&id).and_then(|&ix| info(self.peers.get(ix)))
    }

    /// Those who send and receive most, at most `max` of them, by name.
    pub fn busiest(&self, max: usize) -> Vec<PeerInfo> {
        let mut all: Vec<&Peer> = self.leases.iter().map(|&(_, ix)| self.peers.get(ix)).collect();
        let moved = |peer: &Peer| Reverse(peer.rates.up.saturating_add(peer.rates.down));
        if all.len() > max {
            all.select_nth_unstable_by_key(max, |peer| (moved(peer), peer.id));
            all.truncate(max);
        }
        all.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        all.into_iter().filter_map(info).collect()
    }

    /// Those present with `contains` in their name, by name, at most `limit` of them; and whether there are more. Time grows with
    /// those present, memory that is kept with `limit`.
    pub fn peers_named(&self, contains: &str, after: Option<&PeerCursor>, limit: usize) -> (Vec<PeerInfo>, bool) {
        let is_wanted = |peer: &&Peer| {
            let is_after = |after: &PeerCursor| (peer.name.as_str(), Some(peer.id)) > (after.name.as_str(), after.id);
            after.is_none_or(is_after) && (contains.is_empty() || contains_folded(&peer.name, contains))
        };
        let mut found: Vec<&Peer> = self.leases.iter().map(|&(_, ix)| self.peers.get(ix)).filter(is_wanted).collect();
        let by_name = |a: &&Peer, b: &&Peer| (&a.name, a.id).cmp(&(&b.name, b.id));
        let has_more = found.len() > limit;
        if has_more {
            found.select_nth_unstable_by(limit, by_name);
            found.truncate(limit);
        }
        found.sort_by(by_name);
        (found.into_iter().filter_map(info).collect(), has_more)
    }

    /// What moves between those present, the fastest first, at most `max`: by the word of who receives.
    pub fn flows(&self, max: usize) -> Vec<Moving> {
        let present = |id: &PeerId| self.by_id.get(id).map(|&ix| self.peers.get(ix)).filter(|peer| peer.is_present());
        let receivers = self.leases.iter().map(|&(_, ix)| self.peers.get(ix));
        let flows = receivers.flat_map(|to| to.activity.flows.items.iter().map(move |flow| (to, flow)));
        let mut flows: Vec<_> =
            flows.filter(|(to, flow)| flow.rate > 0 && flow.from != to.id && present(&flow.from).is_some()).collect();
        flows.sort_by_key(|(to, flow)| (Reverse(flow.rate), to.id, flow.from));
        flows.truncate(max);
        let end = |peer: &Peer| End { peer_id: peer.id, name: peer.name.clone() };
        let moving = |(to, flow): (&Peer, &Flow)| {
            let from = end(present(&flow.from)?);
            let content = self.index.claims(flow.content_id).next();
            let name = content.and_then(|(ix, _)| self.index.names_of(ix).next().cloned());
            Some(Moving { from, to: end(to), name, rate: flow.rate })
        };
        flows.into_iter().filter_map(moving).collect()
    }

    /// Which parts of a content a peer holds that is fetching it, as it says.
    pub fn parts(&self, peer: PeerId, id: ContentId) -> Option<Parts> {
        let peer = self.by_id.get(&peer).map(|&ix| self.peers.get(ix))?;
        let progress = peer.activity.progress.items.iter().find(|progress| progress.content_id == id)?;
        Some(progress.parts.clone())
    }

    /// Everyone present that syncs, by name.
    pub fn syncing(&self) -> Vec<MatrixPeer> {
        let here = self.leases.iter().map(|&(_, ix)| self.peers.get(ix));
        let mut peers: Vec<_> = here
            .filter_map(|peer| Some(MatrixPeer { peer_id: peer.id, name: peer.name.clone(), sync: peer.sync? }))
            .collect();
        peers.sort_by(|a, b| (&a.name, a.peer_id).cmp(&(&b.name, b.peer_id)));
        peers
    }

    /// Whether a peer is present and has this content under this name.
    pub fn holds(&self, peer: PeerId, path: &SharePath, id: ContentId) -> bool {
        let peer = self.by_id.get(&peer).map(|&ix| self.peers.get(ix)).filter(|peer| peer.is_present());
        let Some((peer, name)) = peer.zip(self.index.find_name(path.as_str())) else { return false };
        peer.catalogue.content_at(name).is_some_and(|content| self.index.content(content).id == id)
    }

    /// Files after the name `after`, at most `limit` of them, looking at no more than `budget` names.
    pub fn files(&self, query: &FilesQuery, after: Option<&str>, limit: usize, budget: usize) -> Part {
        let prefix = query.prefix.as_str();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut files = Vec::new();
        let names = self.index.names_from(from).take_while(|(path, ..)| path.as_str().starts_with(prefix));
        for (n_seen, (path, name, is_listed)) in names.enumerate() {
            if is_listed && query.matches(path.as_str()) {
                let contents =
                    most_owned(self.index.under(name)).iter().map(|listed| self.summary(listed, query)).collect();
                files.push(FileSummary { path: path.clone(), contents });
            }
            if files.len() >= limit || n_seen + 1 >= budget {
                return Part { files, next: Some(path.clone()) };
            }
        }
        Part { files, next: None }
    }

    /// One name.
    pub fn file(&self, path: &str, seed: u64) -> Option<FileInfo> {
        let name = self.index.find_name(path)?;
        let contents: Vec<ContentOwners> = most_owned(self.index.under(name))
            .iter()
            .map(|listed| ContentOwners {
                content_id: listed.content.id,
                len: listed.content.len,
                since_ms: listed.since_ms,
                owners: self.owners(listed.content, DEFAULT_HANDOUT, seed),
            })
            .collect();
        (!contents.is_empty()).then(|| FileInfo { path: self.index.path(name).clone(), contents })
    }

    /// One content. Where peers claim different lengths for one id, the length that most of them claim is given, and owners of
    /// every claim in turn: who is right is for the downloader to find out, and many liars must not hide one honest owner.
    pub fn content(&self, id: ContentId, max: usize, seed: u64) -> Option<ContentInfo> {
        let mut claims: Vec<_> = self.index.claims(id).collect();
        claims.sort_by_key(|(_, row)| Reverse((row.complete.len(), row.partial.len(), Reverse(row.len))));
        let (content, row) = *claims.first()?;
        let names: Vec<SharePath> = self.index.names_of(content).take(MAX_NAMES_PER_CONTENT).cloned().collect();
        let mut handouts: Vec<_> = claims.iter().map(|(_, row)| self.owners(row, max, seed).into_iter()).collect();
        let mut owners = Vec::new();
        while owners.len() < max {
            let before = owners.len();
            owners.extend(handouts.iter_mut().filter_map(Iterator::next).take(max - before));
            if owners.len() == before {
                break;
            }
        }
        Some(ContentInfo {
            content_id: id,
            len: row.len,
            names: Sifted::from(names),
            n_owners: claims.iter().map(|(_, row)| row.complete.len() as u64).sum(),
            n_partial: claims.iter().map(|(_, row)| row.partial.len() as u64).sum(),
            owners,
        })
    }

    /// Totals; the uptime and what is said of the synced folder are filled in by who knows it.
    pub fn stats(&self) -> Stats {
        let (n_files, n_contents, n_bytes) = self.index.totals();
        let rates = self.leases.iter().map(|&(_, ix)| self.peers.get(ix).rates).fold(Rates::default(), |a, b| Rates {
            up: a.up.saturating_add(b.up),
            down: a.down.saturating_add(b.down),
        });
        let n_syncing = self.leases.iter().filter(|&&(_, ix)| self.peers.get(ix).sync.is_some()).count() as u64;
        let n_peers = self.leases.len() as u64;
        Stats { n_peers, n_files, n_contents, n_bytes, n_syncing, rates, ..Stats::default() }
    }

    /// Complete and partial owners over all contents.
    pub fn n_owners(&self) -> (u64, u64) {
        self.index.n_owners()
    }

    /// Grows with every change of what [`Registry::files`] answers.
    pub fn version(&self) -> u64 {
        self.index.version()
    }

    fn owners(&self, row: &ContentRow, max: usize, seed: u64) -> Vec<Owner> {
        let (complete, partial) = choose(row.complete.len(), row.partial.len(), max, seed);
        let n_chunks = Geometry::new(row.len).map_or(0, |geometry| geometry.n_chunks());
        let complete = complete.into_iter().map(|at| self.owner(row.complete[at].0, true, n_chunks));
        let partial = partial.into_iter().map(|at| {
            let (peer, n) = row.partial[at];
            self.owner(peer, false, n.min(n_chunks))
        });
        complete.chain(partial).collect()
    }

    fn summary(&self, listed: &Listed<'_>, query: &FilesQuery) -> ContentSummary {
        let content = listed.content;
        // Each content draws anew, so that many small files are not all fetched from the same few.
        let (seed, _) = content.id.as_bytes().split_first_chunk().expect("an id has 32 bytes");
        let owners = match query.n_owners {
            0 => Vec::new(),
            max => self.owners(content, max, query.seed ^ u64::from_le_bytes(*seed)),
        };
        ContentSummary {
            content_id: content.id,
            len: content.len,
            n_owners: content.complete.len() as u64,
            n_partial: content.partial.len() as u64,
            since_ms: listed.since_ms,
            owners,
        }
    }

    pub(crate) fn owner(&self, ix: PeerIx, complete: bool, n_chunks: u32) -> Owner {
        let peer = self.peers.get(ix);
        Owner { peer_id: peer.id, name: peer.name.clone(), base_url: peer.endpoint.base_url(), complete, n_chunks }
    }
}

fn info(peer: &Peer) -> Option<PeerInfo> {
    let Presence::Present { since_ms, .. } = peer.presence else { return None };
    Some(PeerInfo {
        peer_id: peer.id,
        name: peer.name.clone(),
        base_url: peer.endpoint.base_url(),
        address: peer.endpoint.host().to_owned(),
        port: peer.endpoint.port(),
        since_ms,
        seen_ms: peer.seen_ms,
        n_files: peer.catalogue.n_files(),
        n_bytes: peer.catalogue.n_bytes(),
        sync: peer.sync,
        reachable: peer.reachability.told(),
        rates: peer.rates,
    })
}

pub(crate) fn most_owned<'a>(contents: impl Iterator<Item = Listed<'a>>) -> Vec<Listed<'a>> {
    let mut contents: Vec<_> = contents.collect();
    contents.sort_by_key(|listed| {
        (Reverse(listed.content.complete.len()), listed.since_ms, listed.content.id, listed.content.len)
    });
    contents.truncate(MAX_CONTENTS_PER_NAME);
    contents
}

/// Whether `text` contains `part` in any letter case. ASCII, which most names are, needs no copy.
fn contains_folded(text: &str, part: &str) -> bool {
    if text.is_ascii() && part.is_ascii() {
        return text.as_bytes().windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()));
    }
    text.to_lowercase().contains(&part.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letter_case() {
        let check = |text: &str, part: &str, want: bool| assert_eq!(contains_folded(text, part), want, "{text} {part}");
        check("Music/A.OGG", "a.ogg", true);
        check("Music/A.OGG", "MUSIC", true);
        check("a", "ab", false);
        check("crème/BRÛLÉE.md", "brûlée", true);
        check("creme", "crème", false);
    }
}
