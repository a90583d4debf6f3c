//! How much the registry takes from whom, so that no peer and no address can fill it for the others.

/// What is granted. Every limit is far above honest use and keeps memory below a gigabyte or two at its worst.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// Peers known, present or not. Absent ones make place, those first that were not heard of for longest.
    pub max_peers: usize,
    /// Of these, from one source address: containers behind one NAT count as one address.
    pub max_peers_per_ip: usize,
    /// Files of one peer.
    pub max_files_per_peer: usize,
    /// Contents that one peer holds in part.
    pub max_partial_per_peer: usize,
    /// Different names in all.
    pub max_names: usize,
    /// Their lengths in all, in bytes.
    pub max_name_bytes: usize,
    /// Catalogue entries of all peers together.
    pub max_entries: usize,
    /// Of these, from peers at one source address.
    pub max_entries_per_ip: usize,
    /// Paths of the synced folder, those of deleted files too: nothing that was ever in it is forgotten.
    pub max_index_paths: usize,
    /// What they take in memory, about, in bytes.
    pub max_index_bytes: usize,
    /// Paths that one peer is the first to tell of. Not fewer than a folder may have, since after the tracker lost its
    /// index one peer may bring all of it back; so there is none by address either.
    pub max_index_paths_per_peer: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            max_peers: 16_384,
            max_peers_per_ip: 4_096,
            max_files_per_peer: 500_000,
            max_partial_per_peer: 100_000,
            max_names: 2_000_000,
            max_name_bytes: 256 << 20,
            max_entries: 12_000_000,
            max_entries_per_ip: 8_000_000,
            max_index_paths: 1_500_000,
            max_index_bytes: 1 << 30,
            max_index_paths_per_peer: 1_000_000,
        }
    }
}

/// Which limit an announce would cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// Too many peers.
    #[error("the tracker knows {0} peers already and every one of them is present")]
    Peers(usize),
    /// Too many peers at one address.
    #[error("{0} peers are announced from this address already")]
    PeersPerIp(usize),
    /// Too many files.
    #[error("one peer may announce {0} files")]
    FilesPerPeer(usize),
    /// Too many partial contents.
    #[error("one peer may announce {0} contents held in part")]
    PartialPerPeer(usize),
    /// Too many names.
    #[error("the tracker takes {0} different names")]
    Names(usize),
    /// Names too long in all.
    #[error("the tracker takes {0} bytes of names")]
    NameBytes(usize),
    /// Too many entries.
    #[error("the tracker takes {0} catalogue entries in all")]
    Entries(usize),
    /// Too many entries from one address.
    #[error("the tracker takes {0} catalogue entries from one address")]
    EntriesPerIp(usize),
}
