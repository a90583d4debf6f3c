//! The index: which present peer owns which content under which name.
//!
//! Names and contents are kept once and called by small numbers, so that one more owner of a file costs a few
//! bytes and not another copy of its path. Whoever calls it says who is present; the index only counts.
//!
//! Lengths are claims (a content id proves bytes, not their number), so a content here is an id *with* a length:
//! whoever lies about the length of a content makes another one and spoils nobody's.
//!
//! Invariant: a name or content is kept while some catalogue refers to it, and listed while a present peer does.
//! Trees, no hash tables: foreign data cannot be chosen to collide.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use potluck_common::{ContentId, SharePath};

/// A peer's number in the registry.
pub(crate) type PeerIx = u32;
/// A name's number in the index.
pub(crate) type NameIx = u32;
/// A content's number in the index.
pub(crate) type ContentIx = u32;

/// Rows called by small numbers that are used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    rows: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, row: T) -> u32 {
        if let Some(ix) = self.free.pop() {
            self.rows[ix as usize] = Some(row);
            return ix;
        }
        self.rows.push(Some(row));
        u32::try_from(self.rows.len() - 1).expect("quotas keep far fewer than 2^32 rows")
    }

    pub(crate) fn remove(&mut self, ix: u32) -> T {
        self.free.push(ix);
        self.rows[ix as usize].take().expect("a number is given back once")
    }

    pub(crate) fn get(&self, ix: u32) -> &T {
        self.rows[ix as usize].as_ref().expect("a number in use has a row")
    }

    pub(crate) fn get_mut(&mut self, ix: u32) -> &mut T {
        self.rows[ix as usize].as_mut().expect("a number in use has a row")
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }
}

/// A share path that a tree can be asked for with plain text; both have the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name(SharePath);

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

#[derive(Debug)]
struct NameRow {
    path: SharePath,
    n_links: u32,
    n_listed_links: u32,
}

/// A content and its present owners.
#[derive(Debug)]
pub(crate) struct ContentRow {
    pub(crate) id: ContentId,
    pub(crate) len: u64,
    /// Catalogue entries that refer to it, complete and partial, of present and absent peers.
    n_refs: u32,
    /// Present peers that hold all of it, in order, with the number of names each has it under.
    pub(crate) complete: Vec<(PeerIx, u32)>,
    /// Present peers that hold some of it, in order, with their number of chunks.
    pub(crate) partial: Vec<(PeerIx, u32)>,
}

impl ContentRow {
    fn is_listed(&self) -> bool {
        !(self.complete.is_empty() && self.partial.is_empty())
    }
}

/// One content under one name.
#[derive(Debug, Clone, Copy)]
struct Link {
    since_ms: u64,
    n_known: u32,
    n_listed: u32,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: Slab<NameRow>,
    by_name: BTreeMap<Name, NameIx>,
    contents: Slab<ContentRow>,
    by_content: BTreeMap<(ContentId, u64), ContentIx>,
    links: BTreeMap<(NameIx, ContentIx), Link>,
    names_of: BTreeSet<(ContentIx, NameIx)>,
    n_name_bytes: usize,
    n_listed_names: u64,
    n_listed_contents: u64,
    n_listed_bytes: u128,
    n_complete_owners: u64,
    n_partial_owners: u64,
    version: u64,
}

/// One content under a name as it is listed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub(crate) content: &'a ContentRow,
    pub(crate) since_ms: u64,
}

impl Index {
    /// Takes one catalogue entry into the count, whether its owner is present or not.
    pub(crate) fn know(&mut self, path: SharePath, id: ContentId, len: u64, since_ms: u64) -> (NameIx, ContentIx) {
        let name = match self.by_name.get(path.as_str()) {
            Some(&name) => name,
            None => {
                self.n_name_bytes += path.as_str().len();
                let name = self.names.insert(NameRow { path: path.clone(), n_links: 0, n_listed_links: 0 });
                self.by_name.insert(Name(path), name);
                name
            }
        };
        let content = self.know_content(id, len);
        let link = self.links.entry((name, content)).or_insert_with(|| {
            self.names.get_mut(name).n_links += 1;
            self.names_of.insert((content, name));
            Link { since_ms, n_known: 0, n_listed: 0 }
        });
        link.n_known += 1;
        link.since_ms = link.since_ms.min(since_ms);
        (name, content)
    }

    /// Takes one partial catalogue entry into the count.
    pub(crate) fn know_content(&mut self, id: ContentId, len: u64) -> ContentIx {
        let content = *self.by_content.entry((id, len)).or_insert_with(|| {
            self.contents.insert(ContentRow { id, len, n_refs: 0, complete: Vec::new(), partial: Vec::new() })
        });
        self.contents.get_mut(content).n_refs += 1;
        content
    }

    /// The reverse of [`Index::know`]; the entry is unlisted already.
    pub(crate) fn forget(&mut self, name: NameIx, content: ContentIx) {
        let link = self.links.get_mut(&(name, content)).expect("a known entry has a link");
        link.n_known -= 1;
        if link.n_known == 0 {
            self.links.remove(&(name, content));
            self.names_of.remove(&(content, name));
            let row = self.names.get_mut(name);
            row.n_links -= 1;
            if row.n_links == 0 {
                let row = self.names.remove(name);
                self.n_name_bytes -= row.path.as_str().len();
                self.by_name.remove(row.path.as_str());
            }
        }
        self.forget_content(content);
    }

    /// The reverse of [`Index::know_content`].
    pub(crate) fn forget_content(&mut self, content: ContentIx) {
        let row = self.contents.get_mut(content);
        row.n_refs -= 1;
        if row.n_refs == 0 {
            let row = self.contents.remove(content);
            self.by_content.remove(&(row.id, row.len));
        }
    }

    /// A present peer owns the content under the name.
    pub(crate) fn list(&mut self, peer: PeerIx, name: NameIx, content: ContentIx) {
        self.version += 1;
        let link = self.links.get_mut(&(name, content)).expect("listed after it is known");
        link.n_listed += 1;
        if link.n_listed == 1 {
            let row = self.names.get_mut(name);
            row.n_listed_links += 1;
            self.n_listed_names += u64::from(row.n_listed_links == 1);
        }
        self.change_content(content, |row| match row.complete.binary_search_by_key(&peer, |owner| owner.0) {
            Ok(at) => row.complete[at].1 += 1,
            Err(at) => row.complete.insert(at, (peer, 1)),
        });
    }

    /// The reverse of [`Index::list`].
    pub(crate) fn unlist(&mut self, peer: PeerIx, name: NameIx, content: ContentIx) {
        self.version += 1;
        let link = self.links.get_mut(&(name, content)).expect("unlisted while it is known");
        link.n_listed -= 1;
        if link.n_listed == 0 {
            let row = self.names.get_mut(name);
            row.n_listed_links -= 1;
            self.n_listed_names -= u64::from(row.n_listed_links == 0);
        }
        self.change_content(content, |row| {
            let at = row.complete.binary_search_by_key(&peer, |owner| owner.0).expect("unlisted after it is listed");
            row.complete[at].1 -= 1;
            if row.complete[at].1 == 0 {
                row.complete.remove(at);
            }
        });
    }

    /// A present peer holds so many chunks of the content; 0: it is no partial owner.
    pub(crate) fn list_partial(&mut self, peer: PeerIx, content: ContentIx, n_chunks: u32) {
        self.version += 1;
        self.change_content(content, |row| match row.partial.binary_search_by_key(&peer, |owner| owner.0) {
            Ok(at) if n_chunks == 0 => drop(row.partial.remove(at)),
            Ok(at) => row.partial[at].1 = n_chunks,
            Err(_) if n_chunks == 0 => {}
            Err(at) => row.partial.insert(at, (peer, n_chunks)),
        });
    }

    fn change_content(&mut self, content: ContentIx, change: impl FnOnce(&mut ContentRow)) {
        let row = self.contents.get_mut(content);
        let before = row.is_listed();
        self.n_complete_owners -= row.complete.len() as u64;
        self.n_partial_owners -= row.partial.len() as u64;
        change(row);
        self.n_complete_owners += row.complete.len() as u64;
        self.n_partial_owners += row.partial.len() as u64;
        match (before, row.is_listed()) {
            (false, true) => {
                self.n_listed_contents += 1;
                self.n_listed_bytes += u128::from(row.len);
            }
            (true, false) => {
                self.n_listed_contents -= 1;
                self.n_listed_bytes -= u128::from(row.len);
            }
            _ => {}
        }
    }

    /// Whether a present peer holds all of the content.
    pub(crate) fn holds(&self, peer: PeerIx, content: ContentIx) -> bool {
        self.contents.get(content).complete.binary_search_by_key(&peer, |owner| owner.0).is_ok()
    }

    pub(crate) fn content(&self, content: ContentIx) -> &ContentRow {
        self.contents.get(content)
    }

    pub(crate) fn path(&self, name: NameIx) -> &SharePath {
        &self.names.get(name).path
    }

    pub(crate) fn find_name(&self, path: &str) -> Option<NameIx> {
        self.by_name.get(path).copied()
    }

    pub(crate) fn find_content(&self, id: ContentId, len: u64) -> Option<ContentIx> {
        self.by_content.get(&(id, len)).copied()
    }

    /// When the content was first seen under the name.
    pub(crate) fn since_ms(&self, name: NameIx, content: ContentIx) -> Option<u64> {
        self.links.get(&(name, content)).map(|link| link.since_ms)
    }

    /// What is listed under one name.
    pub(crate) fn under(&self, name: NameIx) -> impl Iterator<Item = Listed<'_>> {
        self.links
            .range((name, 0)..=(name, u32::MAX))
            .filter(|(_, link)| link.n_listed > 0)
            .map(|(&(_, content), link)| Listed { content: self.contents.get(content), since_ms: link.since_ms })
    }

    /// Every length under which an id is listed.
    pub(crate) fn claims(&self, id: ContentId) -> impl Iterator<Item = (ContentIx, &ContentRow)> {
        self.by_content
            .range((id, 0)..=(id, u64::MAX))
            .map(|(_, &content)| (content, self.contents.get(content)))
            .filter(|(_, row)| row.is_listed())
    }

    /// The names a content is listed under.
    pub(crate) fn names_of(&self, content: ContentIx) -> impl Iterator<Item = &SharePath> {
        self.names_of
            .range((content, 0)..=(content, u32::MAX))
            .filter(|(content, name)| self.links.get(&(*name, *content)).is_some_and(|link| link.n_listed > 0))
            .map(|(_, name)| self.path(*name))
    }

    /// Names in order from `from` on, each with whether it is listed.
    pub(crate) fn names_from<'a>(&'a self, from: Bound<&str>) -> impl Iterator<Item = (&'a SharePath, NameIx, bool)> {
        self.by_name
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(path, &name)| (&path.0, name, self.names.get(name).n_listed_links > 0))
    }

    pub(crate) fn n_names(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn n_name_bytes(&self) -> usize {
        self.n_name_bytes
    }

    /// Listed names, contents, and their lengths in all.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (self.n_listed_names, self.n_listed_contents, u64::try_from(self.n_listed_bytes).unwrap_or(u64::MAX))
    }

    /// Complete and partial owners over all contents.
    pub(crate) fn n_owners(&self) -> (u64, u64) {
        (self.n_complete_owners, self.n_partial_owners)
    }

    /// Grows with every change of what is listed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }
}
