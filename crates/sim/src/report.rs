//! What came out: a table for people, an object for programs, a plot.

use core::fmt;
use std::path::Path;

use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};

use crate::plot::{self, Panel, Series};

/// What the panel of look-ups shows.
pub const FOUND: &str = "share of look-ups that succeed";

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    /// Whether a value is what it should be.
    #[must_use]
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// A figure.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its name in the table.
    pub name: String,
    /// The figure; not a number if there was nothing to measure.
    pub value: f64,
    /// Its unit; `%` shows a share in hundredths.
    pub unit: &'static str,
    /// What it should be.
    pub target: Option<Target>,
}

/// The outcome of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The scenario's name.
    pub scenario: &'static str,
    /// Nodes that are on at a time.
    pub nodes: u32,
    /// What everything was drawn from.
    pub seed: u64,
    /// By what rule nodes served.
    pub policy: &'static str,
    /// All that it was run with.
    pub parameters: Vec<(&'static str, String)>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// Its course.
    pub panels: Vec<Panel>,
    /// The digest of the run.
    pub trace: String,
}

impl Figure {
    /// Whether it is what it should be.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.target.is_none_or(|target| target.is_met(self.value))
    }

    /// A value of this figure's, with its unit.
    #[must_use]
    pub fn show(&self, value: f64) -> String {
        match self.unit {
            _ if value == f64::INFINITY => "never".into(),
            _ if !value.is_finite() => "-".into(),
            "%" => format!("{:.2} %", value * 100.0),
            unit if value.fract() == 0.0 || value.abs() >= 1e4 => {
                format!("{} {unit}", thousands(value))
            }
            unit => format!("{value:.2} {unit}"),
        }
        .trim_end()
        .to_owned()
    }
}

/// An integer with its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

impl Report {
    /// Adds a figure.
    pub fn figure(
        &mut self,
        key: &'static str,
        name: &str,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
    ) {
        self.figures.push(Figure { key, name: name.to_owned(), value, unit, target });
    }

    /// Adds a line over virtual minutes to the panel that shows `up`.
    pub fn line(&mut self, up: &'static str, name: &str, points: Vec<(f64, f64)>) {
        let series = Series { name: name.to_owned(), points };
        match self.panels.iter_mut().find(|panel| panel.up == up) {
            Some(panel) => panel.series.push(series),
            None => {
                self.panels.push(Panel { across: "virtual minutes", up, series: vec![series] });
            }
        }
    }

    /// The value of a figure.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.key == key).map(|figure| figure.value)
    }

    /// Whether every target is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.figures.iter().all(Figure::is_met)
    }

    /// As one object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let number = |value: f64| if value.is_finite() { json!(value) } else { Value::Null };
        let parameters: Map<_, _> =
            self.parameters.iter().map(|(key, value)| ((*key).into(), json!(value))).collect();
        let figures: Map<_, _> = self
            .figures
            .iter()
            .map(|figure| {
                let mut one = Map::from_iter([("value".to_owned(), number(figure.value))]);
                match figure.target {
                    None => {}
                    Some(Target::AtLeast(least)) => {
                        one.insert("at_least".into(), json!(least));
                    }
                    Some(Target::AtMost(most)) => {
                        one.insert("at_most".into(), json!(most));
                    }
                }
                one.insert("unit".into(), json!(figure.unit));
                one.insert("met".into(), json!(figure.is_met()));
                (figure.key.to_owned(), Value::Object(one))
            })
            .collect();
        let mut all = Map::new();
        // What programs ask for most lies on top; how it was meant lies in `figures`.
        let plain = self.figures.iter().map(|figure| (figure.key, number(figure.value)));
        all.extend(plain.map(|(key, value)| (key.to_owned(), value)));
        all.insert("scenario".into(), json!(self.scenario));
        all.insert("nodes".into(), json!(self.nodes));
        all.insert("seed".into(), json!(self.seed));
        all.insert("policy".into(), json!(self.policy));
        all.insert("parameters".into(), Value::Object(parameters));
        all.insert("figures".into(), Value::Object(figures));
        all.insert("met".into(), json!(self.is_met()));
        all.insert("trace_hash".into(), json!(self.trace));
        Value::Object(all)
    }

    /// Draws the series as SVG.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or is to be another kind of picture.
    pub fn plot(&self, path: &Path) -> Result<()> {
        if path.extension().is_none_or(|kind| !kind.eq_ignore_ascii_case("svg")) {
            return Err(anyhow!("plots are SVG: give the file a name that ends in .svg"));
        }
        std::fs::write(path, plot::draw(&self.caption(), &self.panels)?)?;
        Ok(())
    }

    fn caption(&self) -> String {
        let shown = |key: &&(&str, String)| {
            ["nodes", "minutes", "seed", "churn", "policy"].contains(&key.0)
        };
        let words: Vec<_> = self
            .parameters
            .iter()
            .filter(shown)
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
        format!("{}: {}", self.scenario, words.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<_> =
            self.parameters.iter().map(|(key, value)| format!("{key} {value}")).collect();
        writeln!(f, "{}: {}", self.scenario, parameters.join(", "))?;
        writeln!(f)?;
        let width = |of: &dyn Fn(&Figure) -> usize| self.figures.iter().map(of).max().unwrap_or(0);
        let names = width(&|figure| figure.name.chars().count());
        let values = width(&|figure| figure.show(figure.value).chars().count());
        for figure in &self.figures {
            let value = figure.show(figure.value);
            write!(f, "  {:names$}  {value:>values$}", figure.name)?;
            let mark = if figure.is_met() { "met" } else { "MISSED" };
            match figure.target {
                None => writeln!(f)?,
                Some(Target::AtLeast(least)) => {
                    writeln!(f, "   target ≥ {}: {mark}", figure.show(least))?;
                }
                Some(Target::AtMost(most)) => {
                    writeln!(f, "   target ≤ {}: {mark}", figure.show(most))?;
                }
            }
        }
        writeln!(f)?;
        writeln!(f, "trace {}", self.trace)
    }
}

/// The value below which a share of all lies; not a number if there are none.
#[must_use]
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let at = ((values.len() - 1) as f64 * share.clamp(0.0, 1.0)).round() as usize;
    values[at]
}

/// How evenly something is shared (Jain, Chiu and Hawe 1984): 1 if all have the same, 1/n if one
/// has it all; not a number if there is nothing.
#[must_use]
pub fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(a, b), x| (a + x, b + x * x));
    sum * sum / (values.len() as f64 * squares)
}

/// The mean; not a number if there are none.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report { scenario: "lookup", ..Report::default() };
        report.parameters.push(("nodes", "10".into()));
        report.figure("found", "found", 0.996, "%", Some(Target::AtLeast(0.995)));
        report.figure("bytes", "bytes", 12_345.6, "B", Some(Target::AtMost(10_000.0)));
        report.figure("none", "nothing", f64::NAN, "ms", None);
        report.line(FOUND, "found", vec![(0.0, 0.5), (2.0, 1.0)]);
        report
    }

    #[test]
    fn the_table_says_what_is_met() {
        let text = report().to_string();
        assert!(text.contains("99.60 %   target ≥ 99.50 %: met"), "{text}");
        assert!(text.contains("12,346 B   target ≤ 10,000 B: MISSED"), "{text}");
        assert!(text.contains("nothing"), "{text}");
        assert!(!report().is_met());
    }

    #[test]
    fn json_takes_what_is_not_a_number_and_plots_are_svg() {
        let json = report().to_json();
        assert_eq!((&json["found"], &json["none"]), (&json!(0.996), &Value::Null));
        assert_eq!(json["figures"]["none"]["value"], Value::Null);
        assert_eq!(json["met"], json!(false));
        assert!(report().plot(Path::new("x.gif")).is_err());
    }

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let mut values = vec![3.0, 1.0, 2.0];
        assert_eq!([quantile(&mut values, 0.0), quantile(&mut values, 0.5)], [1.0, 2.0]);
        assert!(quantile(&mut [], 0.5).is_nan() && mean(&[]).is_nan());
        assert!((jain(&[1.0, 1.0, 0.0, 0.0]) - 0.5).abs() < 1e-9 && jain(&[0.0]).is_nan());
    }
}
