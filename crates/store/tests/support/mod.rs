//! What the proofs of the store share, tests and examples alike: a workload with a model of it, a
//! disk that fails, and the harnesses on top.

#![allow(dead_code, reason = "every test file and example uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

pub(crate) mod disk;
pub(crate) mod kills;
pub(crate) mod power;
pub(crate) mod work;

/// Xorshift (Marsaglia 2003): the same seed, the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Numbers of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        // No state may be zero, and neighbours shall differ at once.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
}

/// The number after `name` on the command line.
pub(crate) fn argument(name: &str, default: u64) -> u64 {
    let mut words = std::env::args().skip_while(|word| word != name).skip(1);
    words.next().map_or(default, |word| word.parse().unwrap())
}
