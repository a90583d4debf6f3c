//! Room in the registry: who takes how much of it, and who goes when it is full.
//!
//! Invariants: the counts are those of the catalogues; a peer whose lease runs never makes place for another.

use std::net::IpAddr;
use std::time::Instant;

use potluck_common::PeerId;
use potluck_common::protocol::Announce;

use crate::catalogue::Catalogue;
use crate::index::PeerIx;
use crate::quota::{QuotaError, Quotas};
use crate::registry::Registry;

/// What comes from one source address.
#[derive(Debug, Default)]
pub(crate) struct SourceUse {
    pub(crate) n_peers: usize,
    pub(crate) n_entries: usize,
}

impl Registry {
    pub(crate) fn count(&mut self, source_before: IpAddr, source: IpAddr, n_before: usize, n_after: usize) {
        self.n_entries = self.n_entries - n_before + n_after;
        self.leave_source(source_before, n_before);
        let joined = self.sources.entry(source).or_default();
        joined.n_peers += 1;
        joined.n_entries += n_after;
    }

    pub(crate) fn leave_source(&mut self, source: IpAddr, n_entries: usize) {
        let left = self.sources.get_mut(&source).expect("every known peer is counted at its source");
        left.n_peers -= 1;
        left.n_entries -= n_entries;
        if left.n_peers == 0 {
            self.sources.remove(&source);
        }
    }

    /// Makes room for a message, at the cost of absent peers. Nothing is forgotten for a message that is refused
    /// for what it asks of its own peer or address.
    pub(crate) fn make_room(
        &mut self,
        known: Option<PeerIx>,
        source: IpAddr,
        message: Option<&Announce>,
    ) -> Result<Vec<PeerId>, QuotaError> {
        let Quotas {
            max_peers,
            max_peers_per_ip,
            max_files_per_peer,
            max_partial_per_peer,
            max_names,
            max_name_bytes,
            max_entries,
            max_entries_per_ip,
            ..
        } = self.config.quotas;
        let (n_files, n_partial) = match message {
            None => (0, 0),
            Some(message) => {
                let empty = Catalogue::default();
                let catalogue = known.map_or(&empty, |ix| &self.peers.get(ix).catalogue);
                catalogue.n_after(&self.index, message)
            }
        };
        if n_files > max_files_per_peer {
            return Err(QuotaError::FilesPerPeer(max_files_per_peer));
        }
        if n_partial > max_partial_per_peer {
            return Err(QuotaError::PartialPerPeer(max_partial_per_peer));
        }
        let n_before = known.map_or(0, |ix| self.peers.get(ix).catalogue.n_entries());
        let growth = (n_files + n_partial).saturating_sub(n_before);
        let (n_new_names, n_new_bytes) = match message {
            Some(message) if growth > 0 => message
                .added
                .iter()
                .filter(|entry| self.index.find_name(entry.path.as_str()).is_none())
                .fold((0, 0), |(n, bytes), entry| (n + 1, bytes + entry.path.as_str().len())),
            _ => (0, 0),
        };
        let arrives = known.is_none_or(|ix| self.peers.get(ix).source != source);
        let mut forgotten = Vec::new();
        loop {
            let here = self.sources.get(&source);
            let (n_peers_here, n_entries_here) = here.map_or((0, 0), |here| (here.n_peers, here.n_entries));
            let over = if arrives && n_peers_here >= max_peers_per_ip {
                Some((QuotaError::PeersPerIp(max_peers_per_ip), Some(source)))
            } else if growth > 0 && n_entries_here + growth > max_entries_per_ip {
                Some((QuotaError::EntriesPerIp(max_entries_per_ip), Some(source)))
            } else if known.is_none() && self.peers.len() >= max_peers {
                Some((QuotaError::Peers(max_peers), None))
            } else if growth > 0 && self.n_entries + growth > max_entries {
                Some((QuotaError::Entries(max_entries), None))
            } else if n_new_names > 0 && self.index.n_names() + n_new_names > max_names {
                Some((QuotaError::Names(max_names), None))
            } else if n_new_names > 0 && self.index.n_name_bytes() + n_new_bytes > max_name_bytes {
                Some((QuotaError::NameBytes(max_name_bytes), None))
            } else {
                None
            };
            let Some((error, at)) = over else { return Ok(forgotten) };
            let candidate = |&&(_, ix): &&(Instant, PeerIx)| {
                Some(ix) != known && at.is_none_or(|at| self.peers.get(ix).source == at)
            };
            let Some(&(_, ix)) = self.absent.iter().find(candidate) else { return Err(error) };
            forgotten.push(self.forget(ix));
        }
    }
}
