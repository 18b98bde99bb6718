//! Random choices that a seed repeats (SplitMix64).

use std::collections::BTreeMap;

/// A source of choices.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The choices of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(limit.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these, if there is any.
    pub fn of<'a, T>(&mut self, all: impl IntoIterator<Item = &'a T>) -> Option<&'a T> {
        let all: Vec<&T> = all.into_iter().collect();
        let index = self.below(all.len());
        all.into_iter().nth(index)
    }

    /// A copy of one entry.
    pub fn entry<K: Clone, V: Clone>(&mut self, all: &BTreeMap<K, V>) -> Option<(K, V)> {
        let index = self.below(all.len());
        all.iter().nth(index).map(|(key, value)| (key.clone(), value.clone()))
    }

    /// Bytes that nobody else has.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.number().to_le_bytes()).take(length).collect()
    }
}
