//! Random draws: one seeded generator, and the distributions that the world is made of.
//!
//! The formulas are the textbook ones (Devroye, *Non-Uniform Random Variate Generation*, 1986;
//! Marsaglia and Tsang 2000 for the gamma distribution); a library of distributions would be one
//! more thing that may change a seed's world from version to version.

use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A generator of its own for each purpose, so that drawing more of one thing changes no other.
#[derive(Debug, Clone)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The generator for `purpose` in the world of `seed`.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&purpose.to_le_bytes());
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 bytes, for a key or another generator.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Uniform in 0 (included) to 1 (excluded).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform among `0..n`; zero if `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = u128::from(self.bits()) * n as u128;
        usize::try_from(wide >> 64).unwrap_or_default()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let n = self.below(items.len());
        items.get(n)
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (core::f64::consts::TAU * self.uniform()).cos()
    }

    /// Log-normal with this median; `sigma` is the deviation of the logarithm.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    /// Weibull.
    pub fn weibull(&mut self, scale: f64, shape: f64) -> f64 {
        scale * (-(1.0 - self.uniform()).ln()).powf(1.0 / shape)
    }

    /// Gamma with scale 1 and a shape of at least 1.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape.max(1.0) - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.uniform();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// A share of a duration.
    pub fn part_of(&mut self, whole: Duration) -> Duration {
        whole.mul_f64(self.uniform())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_median(mut next: impl FnMut() -> f64) -> (f64, f64) {
        let mut all: Vec<_> = (0..20_000).map(|_| next()).collect();
        all.sort_by(f64::total_cmp);
        (all.iter().sum::<f64>() / all.len() as f64, all[all.len() / 2])
    }

    #[test]
    fn distributions_have_their_means_and_medians() {
        let mut draw = Draw::new(1, 2);
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.05;
        assert!(near(mean_and_median(|| draw.uniform()).0, 0.5));
        assert!(near(mean_and_median(|| draw.exponential(3.0)).0, 3.0));
        assert!(near(mean_and_median(|| draw.log_normal(7.0, 0.8)).1, 7.0));
        assert!(near(mean_and_median(|| draw.gamma(1.8)).0, 1.8));
        let (_, median) = mean_and_median(|| draw.weibull(2.0, 0.55));
        assert!(near(median, 2.0 * 2f64.ln().powf(1.0 / 0.55)));
    }

    #[test]
    fn below_stays_below() {
        let mut draw = Draw::new(1, 3);
        assert_eq!(draw.below(0), 0);
        assert!((0..1000).all(|_| draw.below(7) < 7));
        assert_eq!(draw.pick::<u8>(&[]), None);
    }
}
