//! What a run can be asked for.

use core::time::Duration;
use std::path::PathBuf;

use clap::ValueEnum;

/// A deterministic network of many nodes in virtual time.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What happens
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Nodes that are on at a time
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=4_000_000))]
    pub nodes: u32,
    /// Everything is drawn from it: the same seed, the same run
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Virtual time
    #[arg(long, value_name = "M", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(4..=100_000))]
    pub minutes: u32,
    /// Writes the run's course to this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Writes nothing but the digest of all events: two runs of one seed have the same
    #[arg(long)]
    pub trace_hash: bool,
    /// Look-ups made in the whole run
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub lookups: u32,
    /// Values published, each by another node
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub values: u32,
    /// Share of the nodes that leaves in an hour [default: 0; churn and adversaries: 0.5]
    #[arg(long, value_name = "SHARE", value_parser = share_or_more)]
    pub churn: Option<f64>,
    /// Share of hosts with a public address
    #[arg(long, value_name = "SHARE", default_value_t = 0.25, value_parser = share)]
    pub open: f64,
    /// Share of hosts behind a NAT with address-dependent mapping
    #[arg(long, value_name = "SHARE", default_value_t = 0.15, value_parser = share)]
    pub symmetric: f64,
    /// Share of packets that are lost
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub loss: f64,
    /// Share of the peers in a starting node's cache that are gone
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    pub stale: f64,
    /// Share of nodes that work against the others (scenario adversaries)
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    pub adversaries: f64,
    /// Nodes that crowd a key (scenario eclipse)
    #[arg(long, value_name = "N", default_value_t = 45)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=200))]
    pub sybils: u32,
}

/// What happens to a network that has stood for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Nodes look up values and reach each other by id: rounds, time, messages
    Lookup,
    /// Nodes come and go; do values outlive their publishers?
    Churn,
    /// All nodes stop at once and start again within ten seconds
    Restart,
    /// Sybils crowd the key of a value
    Eclipse,
    /// A share of all nodes names only its like, and keeps nothing
    Adversaries,
}

impl Scenario {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Churn => "churn",
            Self::Restart => "restart",
            Self::Eclipse => "eclipse",
            Self::Adversaries => "adversaries",
        }
    }
}

impl Args {
    /// The flags' defaults for a scenario.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            nodes: 1_000,
            seed: 1,
            minutes: 10,
            plot: None,
            trace_hash: false,
            lookups: 2_000,
            values: 200,
            churn: None,
            open: 0.25,
            symmetric: 0.15,
            loss: 0.01,
            stale: 0.2,
            adversaries: 0.2,
            sybils: 45,
        }
    }

    /// How long the run lasts.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.minutes) * 60)
    }

    /// The share of the nodes that leaves in an hour.
    #[must_use]
    pub fn churn_per_h(&self) -> f64 {
        self.churn.unwrap_or(match self.scenario {
            Scenario::Churn | Scenario::Adversaries => 0.5,
            Scenario::Lookup | Scenario::Restart | Scenario::Eclipse => 0.0,
        })
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is 0 to 1".into()) }
}

fn share_or_more(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    let is_sane = (0.0..=60.0).contains(&share);
    if is_sane { Ok(share) } else { Err("0 to 60 of the nodes leave in an hour".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn defaults_are_those_of_the_flags() {
        let cli = Cli::try_parse_from(["sim", "churn"]).unwrap();
        assert_eq!(format!("{:?}", cli.args), format!("{:?}", Args::new(Scenario::Churn)));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [["--open", "1.5"], ["--churn", "nan"], ["--nodes", "3"], ["--minutes", "0"]] {
            assert!(Cli::try_parse_from(["sim", "churn"].iter().chain(&wrong)).is_err());
        }
    }
}
