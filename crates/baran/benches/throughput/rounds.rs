//! Measurements in turns.
//!
//! The speed of a machine drifts within seconds, so that things measured one after the other say
//! little about each other. Criterion takes all samples of one benchmark before it turns to the
//! next. Here a sample that it asks for is taken out of a round, in which every kind had a turn;
//! ratios are medians over the rounds.

use std::time::Duration;

use crate::host::Outcome;
use crate::measure::Kind;

/// Samples of all kinds, taken in turns.
pub(crate) struct Rounds<S> {
    measure: fn(Kind, usize) -> Outcome<S>,
    size: usize,
    samples: [Vec<S>; 3],
    given: [usize; 3],
}

impl<S> Rounds<S> {
    pub(crate) fn new(measure: fn(Kind, usize) -> Outcome<S>, size: usize) -> Self {
        Self { measure, size, samples: Default::default(), given: [0; 3] }
    }

    /// Time of the next `count` samples of one kind.
    pub(crate) fn next(&mut self, kind: Kind, count: u64, time_s: fn(&S) -> f64) -> Duration {
        (0..count).map(|_| Duration::from_secs_f64(time_s(self.next_one(kind)))).sum()
    }

    fn next_one(&mut self, kind: Kind) -> &S {
        let this = kind as usize;
        if self.given[this] == self.samples[this].len() {
            self.round();
        }
        self.given[this] += 1;
        &self.samples[this][self.given[this] - 1]
    }

    /// Whoever began in one round goes last in the next.
    fn round(&mut self) {
        let (round, kinds) = (self.samples[0].len(), Kind::ALL.len());
        for turn in 0..kinds {
            let kind = Kind::ALL[(round + turn) % kinds];
            let sample = (self.measure)(kind, self.size);
            let sample = sample.unwrap_or_else(|e| panic!("{} failed: {e}", kind.name()));
            self.samples[kind as usize].push(sample);
        }
    }

    /// Gives the samples taken so far once more.
    pub(crate) fn rewind(&mut self) {
        self.given = [0; 3];
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.samples[0].is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.samples[0].len()
    }

    /// Median of what `of` sees in the samples of one kind.
    pub(crate) fn median(&self, kind: Kind, of: impl Fn(&S) -> f64) -> f64 {
        median(self.samples[kind as usize].iter().map(of).collect())
    }

    /// Median over the rounds of what `of` sees in one kind for each of another.
    pub(crate) fn ratio(&self, this: Kind, base: Kind, of: impl Fn(&S) -> f64) -> f64 {
        let pairs = self.samples[this as usize].iter().zip(&self.samples[base as usize]);
        median(pairs.map(|(this, base)| of(this) / of(base)).collect())
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
