//! A bitmap over chunk numbers that can be scanned a word at a time.
//!
//! It is not the have-set of the wire: no text form, no geometry. Invariant: bits beyond the number of
//! chunks are never set, and `n_set` is the number of set bits.

use potluck_common::have::HaveSet;

/// A set of chunk numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    n_chunks: u32,
    n_set: u32,
}

impl Bits {
    pub(super) fn empty(n_chunks: u32) -> Self {
        Self { words: vec![0; n_chunks.div_ceil(64) as usize], n_chunks, n_set: 0 }
    }

    pub(super) fn full(n_chunks: u32) -> Self {
        let mut bits = Self { words: vec![u64::MAX; n_chunks.div_ceil(64) as usize], n_chunks, n_set: n_chunks };
        if let (Some(last), used @ 1..) = (bits.words.last_mut(), n_chunks % 64) {
            *last = (1 << used) - 1;
        }
        bits
    }

    /// The have-set's chunks; what lies beyond `n_chunks` (a have-set of another content) is left out.
    pub(super) fn of(have: &HaveSet, n_chunks: u32) -> Self {
        let mut bits = Self::empty(n_chunks);
        for (word, bytes) in bits.words.iter_mut().zip(have.to_bytes().chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(eight);
        }
        if let (Some(last), used @ 1..) = (bits.words.last_mut(), n_chunks % 64) {
            *last &= (1 << used) - 1;
        }
        bits.n_set = bits.words.iter().map(|word| word.count_ones()).sum();
        bits
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_set == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.n_set == self.n_chunks
    }

    pub(super) fn contains(&self, chunk: u32) -> bool {
        self.words.get(chunk as usize / 64).is_some_and(|word| word >> (chunk % 64) & 1 == 1)
    }

    /// Whether it is news.
    pub(super) fn insert(&mut self, chunk: u32) -> bool {
        let news = !self.contains(chunk) && chunk < self.n_chunks;
        if news {
            self.words[chunk as usize / 64] |= 1 << (chunk % 64);
            self.n_set += 1;
        }
        news
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, chunk: u32) -> bool {
        let was = self.contains(chunk);
        if was {
            self.words[chunk as usize / 64] &= !(1 << (chunk % 64));
            self.n_set -= 1;
        }
        was
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().zip(0u32..).flat_map(|(&word, number)| ones(word).map(move |bit| number * 64 + bit))
    }

    /// One of the chunks that are in both sets, chosen by `lot`, which is given their number and answers
    /// with a smaller one. No `other` stands for the set of all chunks.
    pub(super) fn one_of_both(&self, other: Option<&Self>, lot: impl FnOnce(u32) -> u32) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let word_at = |index: usize| self.words[index] & other.map_or(u64::MAX, |other| other.words[index]);
        let n_both: u32 = (0..self.words.len()).map(|index| word_at(index).count_ones()).sum();
        if n_both == 0 {
            return None;
        }
        let mut n_before = lot(n_both);
        for (index, number) in (0..self.words.len()).zip(0u32..) {
            let word = word_at(index);
            if let Some(bit) = ones(word).nth(n_before as usize) {
                return Some(number * 64 + bit);
            }
            n_before -= word.count_ones();
        }
        None
    }

    /// The longest stretch of neighbouring chunks, as start and length; the first of equals.
    pub(super) fn longest_gap(&self) -> Option<(u32, u32)> {
        let (mut best, mut start) = (None, None);
        let mut close = |start: &mut Option<u32>, end: u32| {
            if let Some(first) = start.take()
                && best.is_none_or(|(_, len)| end - first > len)
            {
                best = Some((first, end - first));
            }
        };
        for (&word, number) in self.words.iter().zip(0u32..) {
            match word {
                0 => close(&mut start, number * 64),
                u64::MAX => _ = start.get_or_insert(number * 64),
                _ => {
                    for bit in 0..64 {
                        if word >> bit & 1 == 1 {
                            start.get_or_insert(number * 64 + bit);
                        } else {
                            close(&mut start, number * 64 + bit);
                        }
                    }
                }
            }
        }
        close(&mut start, self.n_chunks);
        best
    }
}

fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            bit
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain list of booleans.
    #[test]
    fn model() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let n_chunks = rng.u32(1..300);
            let density = rng.u32(1..100);
            let (mut bits, mut other) = (Bits::empty(n_chunks), Bits::full(n_chunks));
            for chunk in 0..n_chunks {
                if rng.u32(..100) < density {
                    bits.insert(chunk);
                }
                if rng.bool() {
                    other.remove(chunk);
                }
            }
            let both: Vec<u32> = bits.iter().filter(|chunk| other.contains(*chunk)).collect();
            for (number, chunk) in both.iter().enumerate() {
                assert_eq!(bits.one_of_both(Some(&other), |_| number as u32), Some(*chunk), "seed {seed}");
            }
            assert_eq!(bits.one_of_both(Some(&other), |n| n - 1), both.last().copied(), "seed {seed}");
            assert_eq!(bits.iter().count(), (0..n_chunks).filter(|chunk| bits.contains(*chunk)).count());
            let mut best = (0, 0);
            for first in 0..n_chunks {
                let len = (first..n_chunks).take_while(|chunk| bits.contains(*chunk)).count() as u32;
                if len > best.1 {
                    best = (first, len);
                }
            }
            assert_eq!(bits.longest_gap(), (best.1 > 0).then_some(best), "seed {seed}");
        }
        assert!(Bits::full(64).is_full() && Bits::full(65).iter().count() == 65);
    }
}
