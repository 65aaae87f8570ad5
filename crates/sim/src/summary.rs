//! Several runs of one scenario with different seeds: medians and ranges of their figures.

use core::fmt;

use serde_json::{Map, Value, json};

use crate::report::{Figure, Report, quantile};

/// Reports of the same scenario.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// One for each seed.
    pub reports: Vec<Report>,
}

/// A figure over all runs in which there was something to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// In the middle.
    pub median: f64,
    /// Smallest.
    pub least: f64,
    /// Largest.
    pub most: f64,
}

impl Summary {
    /// A figure of all runs, if any has it.
    #[must_use]
    pub fn spread(&self, key: &str) -> Option<Spread> {
        let values = self.reports.iter().filter_map(|report| report.value(key));
        let mut values: Vec<_> = values.filter(|value| !value.is_nan()).collect();
        let [least, median, most] = [0.0, 0.5, 1.0].map(|share| quantile(&mut values, share));
        (!values.is_empty()).then_some(Spread { median, least, most })
    }

    fn figures(&self) -> &[Figure] {
        self.reports.first().map_or(&[], |report| &report.figures)
    }

    /// A figure of the first run.
    #[must_use]
    pub fn figure(&self, key: &str) -> Option<&Figure> {
        self.figures().iter().find(|figure| figure.key == key)
    }

    /// A figure as people read it: the median, and the range if there is one.
    #[must_use]
    pub fn show(&self, key: &str) -> String {
        let (Some(figure), Some(spread)) = (self.figure(key), self.spread(key)) else {
            return "-".into();
        };
        let median = figure.show(spread.median);
        if spread.least == spread.most {
            return median;
        }
        format!("{median} ({} to {})", figure.show(spread.least), figure.show(spread.most))
    }

    /// Whether every run meets every target.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.reports.iter().all(Report::is_met)
    }

    /// As one object: each run's, and the spread of each figure.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let number = |value: f64| if value.is_finite() { json!(value) } else { Value::Null };
        let spreads: Map<_, _> = self
            .figures()
            .iter()
            .filter_map(|figure| {
                let Spread { median, least, most } = self.spread(figure.key)?;
                let [median, least, most] = [median, least, most].map(number);
                Some((figure.key.into(), json!({"median": median, "least": least, "most": most})))
            })
            .collect();
        let runs: Vec<_> = self.reports.iter().map(Report::to_json).collect();
        json!({"runs": runs, "figures": spreads, "met": self.is_met()})
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.reports.first() else { return Ok(()) };
        let (runs, Report { scenario, nodes, policy, .. }) = (self.reports.len(), first);
        writeln!(f, "{scenario}: nodes {nodes}, policy {policy}, {runs} seeds: median (range)\n")?;
        let widths = self.figures().iter().map(|figure| figure.name.chars().count());
        let width = widths.max().unwrap_or_default();
        for figure in self.figures() {
            writeln!(f, "  {:width$}  {}", figure.name, self.show(figure.key))?;
        }
        writeln!(f)?;
        self.reports
            .iter()
            .try_for_each(|report| writeln!(f, "seed {}: trace {}", report.seed, report.trace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_median_and_the_range() {
        let report = |value| {
            let mut report = Report::default();
            report.figure("healed", "healed", value, "s", None);
            report
        };
        let summary = |values: &[f64]| Summary {
            reports: values.iter().map(|value| report(*value)).collect(),
        };
        assert_eq!(summary(&[3.0, f64::INFINITY, 2.0]).show("healed"), "3 s (2 s to never)");
        assert_eq!(summary(&[2.0, f64::NAN, 2.0]).show("healed"), "2 s");
        assert_eq!(summary(&[f64::NAN]).show("healed"), "-");
        let json = summary(&[1.0, 5.0]).to_json();
        assert_eq!(json["figures"]["healed"], json!({"median": 5.0, "least": 1.0, "most": 5.0}));
    }
}
