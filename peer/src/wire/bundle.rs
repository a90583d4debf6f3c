//! The form of a bundle: several small contents in one answer, each behind its id and length.
//!
//! `GET /v1/contents?ids=ID,ID,…` is answered with parts of 32 bytes (the id), 4 bytes (the length, big-endian) and the
//! content. What the owner does not hold, or has no room for in this answer, is left out. Pure.
//!
//! Invariant: a reader keeps no more than the lengths it asked for, whatever comes.

use std::collections::HashMap;

use bytes::Bytes;
use potluck_common::ContentId;
use potluck_common::chunk::MIN_CHUNK_LEN;

/// Most contents in one bundle: their ids fit into the head of any request.
pub const MAX_CONTENTS: usize = 64;
/// Bytes of contents after which an owner adds no more: what two slices of any other upload hold in memory.
pub const MAX_BUNDLE_LEN: u64 = 2 * MIN_CHUNK_LEN;
/// Id and length.
const HEAD_LEN: usize = 32 + 4;

/// Why a list of ids is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdsError {
    /// One of them is no content id.
    #[error("a content id has 64 hexadecimal digits, and commas stand between them")]
    NotIds,
    /// Too many for one answer.
    #[error("at most {MAX_CONTENTS} contents are given at once")]
    TooMany,
}

/// Writes ids as they are asked for.
pub fn write_ids(ids: impl IntoIterator<Item = ContentId>) -> String {
    let texts: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    texts.join(",")
}

/// Reads what [`write_ids`] wrote; an id that is named twice counts once.
///
/// # Errors
/// See [`IdsError`].
pub fn parse_ids(text: &str) -> Result<Vec<ContentId>, IdsError> {
    let mut ids = Vec::new();
    for (n, text) in text.split(',').enumerate() {
        if n == MAX_CONTENTS {
            return Err(IdsError::TooMany);
        }
        let id = text.parse().map_err(|_| IdsError::NotIds)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// How long a bundle of so many parts with so many bytes in all is.
pub fn bundle_len(n_parts: usize, n_bytes: u64) -> usize {
    n_parts * HEAD_LEN + usize::try_from(n_bytes).unwrap_or(0)
}

/// Puts one part at the end of a bundle: its head, and `content` what writes just `len` bytes behind it. If that fails, the
/// bundle is as before.
///
/// # Errors
/// What `content` says.
pub fn push_part<E>(
    bundle: &mut Vec<u8>,
    id: ContentId,
    len: u32,
    content: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let before = bundle.len();
    bundle.extend_from_slice(id.as_bytes());
    bundle.extend_from_slice(&len.to_be_bytes());
    let start = bundle.len();
    bundle.resize(start + len as usize, 0);
    let written = content(&mut bundle[start..]);
    if written.is_err() {
        bundle.truncate(before);
    }
    written
}

/// Reads a bundle as it comes.
#[derive(Debug)]
pub struct Unbundler {
    /// What has not come yet, with the length that it may have at most.
    wanted: HashMap<ContentId, u64>,
    head: Vec<u8>,
    part: Option<Part>,
}

#[derive(Debug)]
struct Part {
    id: ContentId,
    n_left: usize,
    /// `None` for what is passed over.
    bytes: Option<Vec<u8>>,
}

/// It is no bundle of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no bundle of what it was asked for")]
pub struct NoBundle;

impl Unbundler {
    /// For an answer with these contents, each of that length at most.
    pub fn new(wanted: impl IntoIterator<Item = (ContentId, u64)>) -> Self {
        Self { wanted: wanted.into_iter().collect(), head: Vec::with_capacity(HEAD_LEN), part: None }
    }

    /// Takes the next bytes and adds to `come` what they complete. That it is what its id says is for the caller to find out.
    /// What is longer than was asked for is passed over: the length that was asked with may be the wrong one.
    ///
    /// # Errors
    /// If a part was not asked for, came already, or is too long for any bundle; what came before it counts.
    pub fn feed(&mut self, mut bytes: &[u8], come: &mut Vec<(ContentId, Bytes)>) -> Result<(), NoBundle> {
        loop {
            let part = match &mut self.part {
                Some(part) => part,
                None => match self.read_head(&mut bytes)? {
                    Some(part) => self.part.insert(part),
                    None => return Ok(()),
                },
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(part.n_left));
            part.n_left -= taken.len();
            bytes = rest;
            if let Some(kept) = &mut part.bytes {
                kept.extend_from_slice(taken);
            }
            if part.n_left > 0 {
                return Ok(());
            }
            let part = self.part.take();
            come.extend(part.and_then(|part| Some((part.id, part.bytes?.into()))));
        }
    }

    /// Whether it may end here.
    pub fn is_whole(&self) -> bool {
        self.part.is_none() && self.head.is_empty()
    }

    /// Completes a head; `None` while it is not here.
    fn read_head(&mut self, bytes: &mut &[u8]) -> Result<Option<Part>, NoBundle> {
        let (taken, rest) = bytes.split_at(bytes.len().min(HEAD_LEN - self.head.len()));
        self.head.extend_from_slice(taken);
        *bytes = rest;
        let Some((id, len)) = self.head.split_first_chunk::<32>() else { return Ok(None) };
        let Ok(len) = <[u8; 4]>::try_from(len) else { return Ok(None) };
        let (id, len) = (ContentId::from_bytes(*id), u32::from_be_bytes(len));
        let longest = self.wanted.remove(&id).ok_or(NoBundle)?;
        if u64::from(len) > MIN_CHUNK_LEN {
            return Err(NoBundle);
        }
        self.head.clear();
        let n_left = len as usize;
        let bytes = (u64::from(len) <= longest).then(|| Vec::with_capacity(n_left));
        Ok(Some(Part { id, n_left, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ContentId {
        ContentId::of(&n.to_be_bytes())
    }

    fn bundle_of(parts: &[(ContentId, &[u8])]) -> Vec<u8> {
        let mut bundle = Vec::new();
        for (id, content) in parts {
            let write = |into: &mut [u8]| {
                into.copy_from_slice(content);
                Ok::<_, NoBundle>(())
            };
            push_part(&mut bundle, *id, content.len() as u32, write).unwrap();
        }
        bundle
    }

    #[test]
    fn ids_there_and_back() {
        let ids: Vec<_> = (0..MAX_CONTENTS).map(id).collect();
        let text = write_ids(ids.clone());
        assert_eq!(parse_ids(&text), Ok(ids));
        assert_eq!(parse_ids(&format!("{},{}", id(1), id(1))), Ok(vec![id(1)]));
        assert_eq!(parse_ids(&format!("{text},{}", id(99))), Err(IdsError::TooMany));
        for bad in ["", ",", "x", &format!("{},", id(1)), &format!("{} {}", id(1), id(2))] {
            assert_eq!(parse_ids(bad), Err(IdsError::NotIds), "{bad}");
        }
    }

    /// However it is cut, the same comes out.
    #[test]
    fn read_in_pieces_of_any_length() {
        let contents: [&[u8]; 4] = [b"one", b"", &[7; 5_000], b"four"];
        let parts: Vec<_> = contents.iter().enumerate().map(|(n, content)| (id(n), *content)).collect();
        let bundle = bundle_of(&parts);
        for step in [1, 2, 35, 36, 37, 1_000, bundle.len()] {
            let mut unbundler = Unbundler::new((0..9).map(|n| (id(n), 5_000)));
            let mut come = Vec::new();
            for piece in bundle.chunks(step) {
                unbundler.feed(piece, &mut come).unwrap();
            }
            assert!(unbundler.is_whole());
            let come: Vec<_> = come.iter().map(|(id, bytes)| (*id, &**bytes)).collect();
            assert_eq!(come, parts, "in steps of {step}");
        }
    }

    /// What came before it counts, and nothing after it.
    #[test]
    fn what_was_not_asked_for_is_refused() {
        let too_long = vec![0; MIN_CHUNK_LEN as usize + 1];
        let refused: [&[(ContentId, &[u8])]; 3] = [&[(id(3), b"")], &[(id(1), b"two")], &[(id(2), &too_long)]];
        for parts in refused {
            let mut come = Vec::new();
            let bundle = bundle_of(&[&[(id(1), &b"one"[..])], parts, &[(id(2), b"two")]].concat());
            assert_eq!(Unbundler::new([(id(1), 3), (id(2), 3)]).feed(&bundle, &mut come), Err(NoBundle));
            assert_eq!(come, [(id(1), Bytes::from_static(b"one"))]);
        }
    }

    /// The length that was asked with may be a lie of whoever listed it: the others come all the same.
    #[test]
    fn what_is_longer_than_was_asked_for_is_passed_over() {
        let bundle = bundle_of(&[(id(1), b"one"), (id(2), b"longer"), (id(3), b"three")]);
        for step in [1, 7, bundle.len()] {
            let (mut unbundler, mut come) = (Unbundler::new([(id(1), 3), (id(2), 1), (id(3), 5)]), Vec::new());
            bundle.chunks(step).for_each(|piece| unbundler.feed(piece, &mut come).unwrap());
            assert_eq!(come.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(1), id(3)]);
            assert!(unbundler.is_whole());
        }
    }

    #[test]
    fn a_bundle_that_ends_early() {
        let (mut unbundler, mut come) = (Unbundler::new([(id(1), 3)]), Vec::new());
        let bundle = bundle_of(&[(id(1), b"one")]);
        for (piece, is_whole) in [(&bundle[..20], false), (&bundle[20..38], false), (&bundle[38..], true)] {
            assert!(come.is_empty());
            unbundler.feed(piece, &mut come).unwrap();
            assert_eq!(unbundler.is_whole(), is_whole);
        }
        assert_eq!(come, [(id(1), Bytes::from_static(b"one"))]);
    }

    #[test]
    fn a_part_that_fails_leaves_nothing() {
        let mut bundle = bundle_of(&[(id(1), b"one")]);
        let before = bundle.clone();
        assert_eq!(push_part(&mut bundle, id(2), 9, |_| Err(NoBundle)), Err(NoBundle));
        assert_eq!(bundle, before);
    }
}
