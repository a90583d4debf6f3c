//! What several peers say that they share, put together: answers the questions that a tracker would.
//!
//! Pure. Invariant: at most [`MAX_ENTRIES`] entries are kept, whoever they come from.

use std::collections::BTreeMap;
use std::ops::Bound;

use potluck_common::protocol::{
    ContentInfo, ContentOwners, ContentSummary, Entry, FileInfo, FileSummary, Files, Owner, PeerInfo, Peers, Sifted,
};
use potluck_common::{ContentId, Geometry, SharePath};

/// Entries of all peers together: about 100 MiB at the worst, which a LAN does not come near.
pub const MAX_ENTRIES: usize = 500_000;
/// Names given with a content.
const MAX_NAMES: usize = 10;

/// Which names are wanted: what `/v1/files` takes.
#[derive(Debug, Clone, Default)]
pub struct FilesQuery {
    /// A part of the name, in any letter case.
    pub contains: String,
    /// What it starts with.
    pub prefix: String,
    /// Only names after this one.
    pub after: String,
    /// So many at most.
    pub limit: usize,
    /// So many owners with each content.
    pub n_owners: usize,
}

impl FilesQuery {
    /// As it stands in a URL.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let texts = [("q", &self.contains), ("prefix", &self.prefix), ("after", &self.after)];
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key, text.clone()));
        let owners = (self.n_owners > 0).then(|| ("owners", self.n_owners.to_string()));
        texts.chain([("limit", self.limit.to_string())]).chain(owners).collect()
    }
}

#[derive(Debug, Default)]
struct Content {
    len: u64,
    /// Positions of its owners.
    owners: Vec<usize>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Gathered {
    peers: Vec<PeerInfo>,
    files: BTreeMap<SharePath, BTreeMap<ContentId, Content>>,
    n_entries: usize,
}

impl Gathered {
    /// A peer says that it shares this.
    pub fn add(&mut self, mut peer: PeerInfo, entries: impl IntoIterator<Item = Entry>) {
        let place = self.peers.len();
        (peer.n_files, peer.n_bytes) = (0, 0);
        for entry in entries {
            if self.n_entries >= MAX_ENTRIES {
                break;
            }
            self.n_entries += 1;
            peer.n_files += 1;
            peer.n_bytes = peer.n_bytes.saturating_add(entry.len);
            let content = self.files.entry(entry.path).or_default().entry(entry.content_id).or_default();
            // Of several lengths one is true; which one is proven when it is fetched.
            content.len = content.len.max(entry.len);
            if content.owners.last() != Some(&place) {
                content.owners.push(place);
            }
        }
        self.peers.push(peer);
    }

    /// Who was asked and answered.
    pub fn peers(&self) -> Peers {
        let mut peers = self.peers.clone();
        peers.sort_by(|a, b| (&a.name, a.peer_id).cmp(&(&b.name, b.peer_id)));
        Peers { peers }
    }

    /// Names, in order.
    pub fn files(&self, query: &FilesQuery) -> Files {
        let contains = query.contains.to_lowercase();
        let from = match query.after.parse::<SharePath>() {
            Ok(after) => Bound::Excluded(after),
            Err(_) => Bound::Unbounded,
        };
        let wanted = |path: &SharePath| {
            path.as_str().starts_with(&query.prefix)
                && (contains.is_empty() || path.as_str().to_lowercase().contains(&contains))
        };
        let limit = query.limit.max(1);
        let mut found = self.files.range((from, Bound::Unbounded)).filter(|(path, _)| wanted(path));
        let files: Vec<_> = found
            .by_ref()
            .take(limit)
            .map(|(path, contents)| {
                let summaries = contents.iter().map(|(id, content)| ContentSummary {
                    content_id: *id,
                    len: content.len,
                    n_owners: content.owners.len() as u64,
                    n_partial: 0,
                    since_ms: 0,
                    owners: self.owners(content, query.n_owners),
                });
                let mut contents: Vec<_> = summaries.collect();
                contents.sort_by_key(|content| std::cmp::Reverse(content.n_owners));
                FileSummary { path: path.clone(), contents }
            })
            .collect();
        let more = found.next().is_some();
        let next = files.last().filter(|_| more).map(|file| file.path.to_string());
        Files { files: files.into(), next }
    }

    /// One name.
    pub fn file(&self, path: &SharePath) -> Option<FileInfo> {
        let contents = self.files.get(path)?.iter().map(|(id, content)| ContentOwners {
            content_id: *id,
            len: content.len,
            since_ms: 0,
            owners: self.owners(content, usize::MAX),
        });
        let mut contents: Vec<_> = contents.collect();
        contents.sort_by_key(|content| std::cmp::Reverse(content.owners.len()));
        Some(FileInfo { path: path.clone(), contents })
    }

    /// One content, at most `max` of its owners.
    pub fn content(&self, id: ContentId, max: usize) -> Option<ContentInfo> {
        let (mut names, mut owners, mut len) = (Vec::new(), Vec::new(), None::<u64>);
        for (path, contents) in &self.files {
            let Some(content) = contents.get(&id) else { continue };
            if names.len() < MAX_NAMES {
                names.push(path.clone());
            }
            len = len.max(Some(content.len));
            owners.extend(&content.owners);
        }
        owners.sort_unstable();
        owners.dedup();
        let content = Content { len: len?, owners };
        let n_owners = content.owners.len() as u64;
        let owners = self.owners(&content, max);
        Some(ContentInfo {
            content_id: id,
            len: content.len,
            names: Sifted::from(names),
            n_owners,
            n_partial: 0,
            owners,
        })
    }

    fn owners(&self, content: &Content, max: usize) -> Vec<Owner> {
        let n_chunks = Geometry::new(content.len).map_or(0, |geometry| geometry.n_chunks());
        let owners = content.owners.iter().take(max).map(|place| &self.peers[*place]);
        owners
            .map(|peer| Owner {
                peer_id: peer.peer_id,
                name: peer.name.clone(),
                base_url: peer.base_url.clone(),
                complete: true,
                n_chunks,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_common::identity::Identity;
    use potluck_common::protocol::Rates;

    fn peer(n: u8) -> PeerInfo {
        PeerInfo {
            peer_id: Identity::from_secret(&[n; 32]).peer_id(),
            name: format!("peer{n}"),
            base_url: format!("http://10.0.0.{n}:7701"),
            address: format!("10.0.0.{n}"),
            port: 7701,
            since_ms: 0,
            seen_ms: 0,
            n_files: 9,
            n_bytes: 9,
            rates: Rates::default(),
            sync: None,
            reachable: None,
        }
    }

    fn entry(path: &str, data: &[u8]) -> Entry {
        Entry { path: path.parse().unwrap(), content_id: ContentId::of(data), len: data.len() as u64 }
    }

    fn gathered() -> Gathered {
        let mut gathered = Gathered::default();
        gathered.add(peer(2), [entry("b/Song", b"la"), entry("b/text", b"x"), entry("z", b"la")]);
        gathered.add(peer(1), [entry("a", b"one"), entry("b/text", b"x"), entry("b/Song", b"la la")]);
        gathered.add(peer(3), [entry("b/text", b"y")]);
        gathered
    }

    #[test]
    fn names() {
        let check = |query: FilesQuery, want: &[&str], more: bool| {
            let files = gathered().files(&FilesQuery { limit: query.limit.max(2), ..query.clone() });
            let names: Vec<_> = files.files.items.iter().map(|file| file.path.to_string()).collect();
            assert_eq!((names.as_slice(), files.next.is_some()), (want.map_to_strings().as_slice(), more), "{query:?}");
        };
        let of = |contains: &str, prefix: &str, after: &str| FilesQuery {
            contains: contains.into(),
            prefix: prefix.into(),
            after: after.into(),
            ..FilesQuery::default()
        };
        check(of("", "", ""), &["a", "b/Song"], true);
        check(of("", "", "b/Song"), &["b/text", "z"], false);
        check(of("sONG", "", ""), &["b/Song"], false);
        check(of("", "b/", ""), &["b/Song", "b/text"], false);
        check(of("x", "b/", "b/Song"), &["b/text"], false);
        check(of("nothing", "", ""), &[], false);
    }

    trait MapToStrings {
        fn map_to_strings(&self) -> Vec<String>;
    }

    impl MapToStrings for &[&str] {
        fn map_to_strings(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_owned()).collect()
        }
    }

    #[test]
    fn contents_and_peers() {
        let all = gathered();
        let text = all.file(&"b/text".parse().unwrap()).unwrap();
        let owners = |at: usize| text.contents[at].owners.iter().map(|owner| owner.name.as_str()).collect::<Vec<_>>();
        assert_eq!((owners(0), owners(1)), (vec!["peer2", "peer1"], vec!["peer3"]));
        assert_eq!(all.file(&"b".parse().unwrap()), None);
        let la = all.content(ContentId::of(b"la"), 50).unwrap();
        assert_eq!((la.n_owners, la.len, la.names.items.len(), la.owners[0].n_chunks), (1, 2, 2, 1));
        assert_eq!(all.content(ContentId::of(b"nobody's"), 50), None);
        let peers = all.peers().peers;
        let peers: Vec<_> = peers.iter().map(|peer| (peer.name.as_str(), peer.n_files, peer.n_bytes)).collect();
        assert_eq!(peers, [("peer1", 3, 9), ("peer2", 3, 5), ("peer3", 1, 1)]);
    }
}
