//! Finding with no fixed server: worlds in which a network has to do without the node that
//! introduced its members, without any third party, without the internet, without anybody.
//!
//! The nodes are real daemons, asked through their commands as a user asks. A scene goes on after
//! a fault where it can, so that one run tells all that is wrong with it.

mod clocks;
mod fleet;
mod lan;
mod lonely;
mod pairs;
mod reborn;
mod records;
mod seats;
mod topics;
mod warm;

use std::fmt::Display;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::harness::Scratch;
use crate::table::Table;

/// Something that a network must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// The only public node is killed; eleven behind NATs go on finding each other.
    Warm,
    /// Twelve behind port-restricted NATs restart at once, with no third party.
    Reborn,
    /// A link that leads nowhere.
    Lan,
    /// Nobody else is there.
    Lonely,
    /// Two machines whose calendars differ by a day.
    Clocks,
    /// A record outlives its author and its holders, one after the other.
    Records,
    /// Two dozen vote seats in, and lose all of them at once.
    Seats,
    /// Five talk in a topic, one misses much, the network is cut in two, the founder goes.
    Topics,
}

impl Scene {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Warm,
        Self::Reborn,
        Self::Lan,
        Self::Lonely,
        Self::Clocks,
        Self::Records,
        Self::Seats,
        Self::Topics,
    ];

    /// The name in tables and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Reborn => "reborn",
            Self::Lan => "lan",
            Self::Lonely => "lonely",
            Self::Clocks => "clocks",
            Self::Records => "records",
            Self::Seats => "seats",
            Self::Topics => "topics",
        }
    }

    /// Plays it once.
    ///
    /// # Errors
    ///
    /// If it cannot be played to its end. What a node does wrong on the way is a fault of the
    /// report.
    pub async fn run(self) -> Result<Report> {
        let dir = Scratch::new(&format!("find {}", self.name()))?;
        let mut report = Report::default();
        let played = self.play(dir.path(), &mut report).await;
        played.with_context(|| format!("{}; until then {report:?}", self.name()))?;
        Ok(report)
    }

    async fn play(self, dir: &Path, report: &mut Report) -> Result<()> {
        match self {
            Self::Warm => Box::pin(warm::play(dir, report)).await,
            Self::Reborn => Box::pin(reborn::play(dir, report)).await,
            Self::Lan => Box::pin(lan::play(dir, report)).await,
            Self::Lonely => Box::pin(lonely::play(dir, report)).await,
            Self::Clocks => Box::pin(clocks::play(dir, report)).await,
            Self::Records => Box::pin(records::play(dir, report)).await,
            Self::Seats => Box::pin(seats::play(dir, report)).await,
            Self::Topics => Box::pin(topics::play(dir, report)).await,
        }
    }
}

/// What a scene showed.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    faults: Vec<String>,
}

/// Something measured.
#[derive(Debug)]
struct Figure {
    what: String,
    value: Value,
    unit: &'static str,
}

impl Report {
    /// Notes something measured; `unit` may be empty.
    pub(crate) fn figure(
        &mut self,
        what: impl Into<String>,
        value: impl Display,
        unit: &'static str,
    ) {
        // Numbers stay numbers in JSON, rounded as they are in the table.
        let text = value.to_string();
        let value =
            text.parse::<f64>().map_or_else(|_| json!(text), |n| json!((n * 1e3).round() / 1e3));
        self.figures.push(Figure { what: what.into(), value, unit });
    }

    /// Notes a fault unless it `is_well`.
    pub(crate) fn check(&mut self, is_well: bool, fault: impl FnOnce() -> String) {
        if !is_well {
            self.faults.push(fault());
        }
    }

    /// Whether all was as it should be.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.faults.is_empty()
    }

    /// What was wrong.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The report as a line of JSON.
    #[must_use]
    pub fn json(&self, scene: Scene) -> Value {
        let figures = self.figures.iter().map(|Figure { what, value, unit }| {
            let key = if unit.is_empty() { what.clone() } else { format!("{what} ({unit})") };
            (key, value.clone())
        });
        let figures: Map<_, _> = figures.collect();
        json!({ "scene": scene.name(), "figures": figures, "faults": self.faults })
    }
}

/// The table of several scenes.
#[must_use]
pub fn table(reports: &[(Scene, Result<Report>)]) -> Table {
    let mut table = Table::new(&["scene", "what", "figure"]);
    for (scene, report) in reports {
        let mut row = |what: &str, cell: String| {
            table.row(vec![scene.name().to_owned(), what.to_owned(), cell]);
        };
        match report {
            Ok(report) => {
                for Figure { what, value, unit } in &report.figures {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    row(what, format!("{value} {unit}").trim().to_owned());
                }
                for fault in &report.faults {
                    row("fault", fault.replace('\n', " "));
                }
            }
            Err(error) => row("failed", format!("{error:#}").replace('\n', " ")),
        }
    }
    table
}
