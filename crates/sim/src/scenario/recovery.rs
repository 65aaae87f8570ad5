//! How well look-ups work from a moment on, second by second.

use core::time::Duration;

use baran_proto::time::Instant;

use super::queries::{Outcome, Sought};
use crate::report::{Report, Target};

/// Seconds of which the look-ups are taken together.
const WINDOW: usize = 10;

/// The share of look-ups that has to work for the network to be there.
const ENOUGH: f64 = 0.99;

/// Look-ups of values of each second, by the moment at which they began.
#[derive(Debug)]
pub(super) struct Seconds {
    /// All, and those that found the value.
    counts: Vec<[u32; 2]>,
}

impl Seconds {
    pub(super) fn since(outcomes: &[Outcome], since: Instant) -> Self {
        let mut counts = Vec::new();
        for one in outcomes {
            if one.began < since || !matches!(one.sought, Sought::Value(_)) {
                continue;
            }
            let second = usize::try_from((one.began - since).as_secs()).unwrap_or(usize::MAX);
            if counts.len() <= second {
                counts.resize(second + 1, [0; 2]);
            }
            counts[second][0] += 1;
            counts[second][1] += u32::from(one.found.is_some());
        }
        Self { counts }
    }

    /// The share that succeeded of each window, by its first second; not a number if there were
    /// none.
    fn windows(&self) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator + '_ {
        self.counts.windows(WINDOW.min(self.counts.len()).max(1)).map(share)
    }

    /// Seconds after which no window is bad: without end if the last one is, not a number if
    /// nobody looked anything up.
    pub(super) fn recovered(&self) -> f64 {
        let windows = self.windows();
        let len = windows.len();
        match windows.rev().position(|share| share < ENOUGH) {
            None if len == 0 => f64::NAN,
            None => 0.0,
            Some(0) => f64::INFINITY,
            Some(good) => (len - good) as f64,
        }
    }

    fn least(&self) -> f64 {
        self.windows().fold(f64::NAN, f64::min)
    }

    fn mean(&self) -> f64 {
        share(&self.counts)
    }

    /// Adds how well look-ups work; `within` and `least` are targets.
    pub(super) fn report(&self, targets: Targets, report: &mut Report) {
        let Targets { recovered_s, least } = targets;
        let most = recovered_s.map(Target::AtMost);
        let name = "seconds until 99 % of look-ups work, for good";
        report.figure("recovered_99_s", name, self.recovered(), "s", most);
        let least = least.map(Target::AtLeast);
        let name = "look-ups that find the value, worst ten seconds";
        report.figure("lookup_success_min", name, self.least(), "%", least);
        report.figure("lookup_success_mean", "the same, mean", self.mean(), "%", None);
    }
}

/// What look-ups should do in a scenario.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Targets {
    /// They work again after so many seconds.
    pub(super) recovered_s: Option<f64>,
    /// The worst ten seconds.
    pub(super) least: Option<f64>,
}

fn share(counts: &[[u32; 2]]) -> f64 {
    let [all, found] =
        counts.iter().fold([0, 0], |[all, found], one| [all + one[0], found + one[1]]);
    f64::from(found) / f64::from(all)
}

/// The step of the plot's points: a hundredth of a run, five seconds at least.
pub(super) fn step(duration: Duration) -> Duration {
    Duration::from_secs((duration.as_secs() / 200).max(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(shares: &[(u32, u32)]) -> Seconds {
        Seconds { counts: shares.iter().map(|(all, found)| [*all, *found]).collect() }
    }

    #[test]
    fn it_has_recovered_when_no_window_is_bad_any_more() {
        assert!(seconds(&[]).recovered().is_nan());
        let good = [(10, 10); 30];
        assert_eq!(seconds(&good).recovered(), 0.0);
        let mut bad = good;
        bad[12] = (10, 8);
        let bad = seconds(&bad);
        // The first window without second 12 begins at 13.
        assert_eq!((bad.recovered(), bad.least()), (13.0, 0.98));
        let mut never = good;
        never[29] = (10, 0);
        assert_eq!(seconds(&never).recovered(), f64::INFINITY);
        // Seconds without look-ups say nothing.
        let mut sparse = good;
        sparse[3] = (0, 0);
        assert_eq!(seconds(&sparse).recovered(), 0.0);
    }
}
