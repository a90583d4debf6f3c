//! Peers that were heard of, kept in `.potluck/peers`: whom to ask while no tracker answers.
//!
//! Invariant: at most [`MAX_PEERS`] are kept, those heard of last; one address stands for one peer. What is kept is a
//! hint: addresses are judged again when they are dialled, and whoever answers there is asked who it is.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use potluck_common::PeerId;
use potluck_common::address::Reach;
use potluck_common::net::client::parse_base_url;
use potluck_common::protocol::{PeerInfo, is_valid_name};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::share::state::{StateDir, load, save};

/// Enough to find a swarm again of which most have moved, and little to ask.
pub const MAX_PEERS: usize = 256;
/// The state file.
const NAME: &str = "peers";
/// A peer that does not answer is not asked again for this time, doubled with each failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest such time.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedPeer {
    /// Its id.
    pub peer_id: PeerId,
    /// What people call it.
    pub name: String,
    /// Where it served.
    pub base_url: String,
    /// When it was last heard of, by our clock.
    pub seen_ms: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// The one heard of last first.
    peers: Vec<RememberedPeer>,
    /// How often in a row it did not answer, and until when it is left alone.
    failed: HashMap<PeerId, (u32, Instant)>,
}

/// A handle on all of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Remembered {
    state: Arc<StateDir>,
    inner: Arc<Mutex<Inner>>,
}

impl Remembered {
    /// Those of the last start. A file that is damaged or foreign counts as none.
    pub fn load(state: Arc<StateDir>) -> Self {
        let stored = load(state.dir(), NAME).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut peers: Vec<RememberedPeer> = stored.unwrap_or_default();
        peers.truncate(MAX_PEERS);
        Self { state, inner: Arc::new(Mutex::new(Inner { peers, ..Inner::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, the one heard of last first.
    pub fn peers(&self) -> Vec<RememberedPeer> {
        self.lock().peers.clone()
    }

    /// Those that may be dialled and did answer when they were last asked, or may be asked again.
    pub fn to_ask(&self, reach: Reach, now: Instant) -> Vec<(RememberedPeer, Url)> {
        let inner = self.lock();
        let rested = |peer: &RememberedPeer| inner.failed.get(&peer.peer_id).is_none_or(|(_, until)| *until <= now);
        let peers = inner.peers.iter().filter(|peer| rested(peer));
        peers.filter_map(|peer| Some((peer.clone(), parse_base_url(&peer.base_url, reach).ok()?))).collect()
    }

    /// A tracker lists these. Returns whether there is anything new to keep.
    pub fn on_listed(&self, listed: &[PeerInfo], me: PeerId, now_ms: u64) -> bool {
        let mut inner = self.lock();
        let before: HashMap<_, _> =
            inner.peers.iter().map(|peer| (peer.peer_id, (peer.name.clone(), peer.base_url.clone()))).collect();
        let good = |peer: &&PeerInfo| peer.peer_id != me && is_valid_name(&peer.name);
        for info in listed.iter().filter(good).take(MAX_PEERS) {
            inner.peers.retain(|peer| peer.peer_id != info.peer_id && peer.base_url != info.base_url);
            let (name, base_url) = (info.name.clone(), info.base_url.clone());
            inner.peers.insert(0, RememberedPeer { peer_id: info.peer_id, name, base_url, seen_ms: now_ms });
        }
        inner.peers.truncate(MAX_PEERS);
        let Inner { peers, failed } = &mut *inner;
        failed.retain(|id, _| peers.iter().any(|peer| peer.peer_id == *id));
        let is_same = |peer: &RememberedPeer| {
            before.get(&peer.peer_id).is_some_and(|(name, base_url)| *name == peer.name && *base_url == peer.base_url)
        };
        peers.len() != before.len() || !peers.iter().all(is_same)
    }

    /// A peer answered, or did not.
    pub fn on_asked(&self, id: PeerId, answered: bool, now: Instant) {
        let mut inner = self.lock();
        if answered {
            inner.failed.remove(&id);
        } else if inner.peers.iter().any(|peer| peer.peer_id == id) {
            let n = inner.failed.get(&id).map_or(0, |(n, _)| *n);
            let pause = PAUSE.saturating_mul(1 << n.min(6)).min(MAX_PAUSE).mul_f64(0.75 + 0.25 * fastrand::f64());
            inner.failed.insert(id, (n + 1, now + pause));
        }
    }

    /// Writes them down; blocks.
    ///
    /// # Errors
    /// As the file operations.
    pub fn save(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.peers())?;
        save(self.state.dir(), NAME, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::folder::ShareFolder;
    use potluck_common::identity::Identity;
    use potluck_common::protocol::Rates;

    fn info(n: u16, port: u16) -> PeerInfo {
        let mut secret = [0; 32];
        secret[..2].copy_from_slice(&n.to_le_bytes());
        PeerInfo {
            peer_id: Identity::from_secret(&secret).peer_id(),
            name: format!("peer{n}"),
            base_url: format!("http://10.0.0.1:{port}"),
            address: "10.0.0.1".into(),
            port,
            since_ms: 0,
            seen_ms: 0,
            n_files: 0,
            n_bytes: 0,
            rates: Rates::default(),
            sync: None,
            reachable: None,
        }
    }

    fn remembered(dir: &std::path::Path) -> Remembered {
        let folder = ShareFolder::open(dir).unwrap();
        Remembered::load(Arc::new(StateDir::open(&folder).unwrap()))
    }

    #[test]
    fn bounded_newest_first_and_kept() {
        let temp = tempfile::tempdir().unwrap();
        let known = remembered(temp.path());
        let me = info(1, 2001);
        for n in 0..400 {
            assert_eq!(known.on_listed(&[info(n, 2000 + n)], me.peer_id, n.into()), n != 1, "{n}");
        }
        let peers = known.peers();
        assert_eq!((peers.len(), peers[0].name.as_str()), (MAX_PEERS, "peer399"));
        assert!(!known.on_listed(&[info(399, 2399)], me.peer_id, 999), "nothing new but the time");
        // F34: the same peer at another address; another peer at an address that somebody had.
        assert!(known.on_listed(&[info(399, 3000)], me.peer_id, 1000));
        assert!(known.on_listed(&[info(500, 3000)], me.peer_id, 1001));
        let at = |port: u16| {
            let url = format!("http://10.0.0.1:{port}");
            known.peers().into_iter().filter(|peer| peer.base_url == url).map(|peer| peer.name).collect::<Vec<_>>()
        };
        assert_eq!((at(2399), at(3000)), (vec![], vec!["peer500".to_owned()]));
        known.save().unwrap();
        let peers = known.peers();
        drop(known);
        assert_eq!(remembered(temp.path()).peers(), peers);
        for slot in 0..2 {
            let _ = std::fs::write(temp.path().join(format!(".potluck/peers.{slot}")), b"potluck1 and nonsense");
        }
        assert_eq!(remembered(temp.path()).peers(), []);
    }

    /// F20: who does not answer is asked ever more seldom; addresses that may not be dialled are not.
    #[test]
    fn who_is_asked() {
        let temp = tempfile::tempdir().unwrap();
        let known = remembered(temp.path());
        let loopback = PeerInfo { base_url: "http://127.0.0.1:2002".into(), ..info(2, 2002) };
        let mail = info(3, 25);
        known.on_listed(&[info(1, 2001), loopback, mail], info(9, 9).peer_id, 0);
        let mut now = Instant::now();
        let asked = |reach, now| known.to_ask(reach, now).into_iter().map(|(peer, _)| peer.name).collect::<Vec<_>>();
        assert_eq!(asked(Reach::Network, now), ["peer1"]);
        assert_eq!(asked(Reach::SameHost, now), ["peer2", "peer1"]);
        let (mut n_asked, end) = (0, now + Duration::from_secs(600));
        while now < end {
            if !asked(Reach::Network, now).is_empty() {
                n_asked += 1;
                known.on_asked(info(1, 2001).peer_id, false, now);
            }
            now += Duration::from_millis(100);
        }
        assert!((10..=20).contains(&n_asked), "{n_asked}");
        known.on_asked(info(1, 2001).peer_id, true, now);
        assert_eq!(asked(Reach::Network, now), ["peer1"]);
    }
}
