//! What a run can be asked for.

use core::str::FromStr;
use core::time::Duration;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::policy::Policy;

/// Minute by which a network has settled that needs no votes.
const SETTLED: u32 = 4;

/// Minute by which the leaves of a network that starts are spread over its seats.
const SPREAD: u32 = 10;

/// Minute by which all seats are of elections that took place here: for those of the second epoch
/// that a network sees, nodes stand in the first.
const ELECTED: u32 = 130;

/// Minutes for which it is seen who those elections favour.
const ELECTIONS: u32 = 30;

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
    /// Several seeds, one run after another; medians and ranges of the figures
    #[arg(long, value_name = "FIRST..LAST", conflicts_with_all = ["seed", "plot", "trace_hash"])]
    pub seeds: Option<Seeds>,
    /// Runs at a time, with several seeds
    #[arg(long, value_name = "N", default_value = "1", requires = "seeds")]
    pub jobs: NonZeroUsize,
    /// By what rule nodes serve others
    #[arg(long, value_enum, default_value_t = Policy::Mandate)]
    pub policy: Policy,
    /// Virtual time [default: six minutes from the event on; partition: sixteen; sybil: thirty;
    /// fairness: a day]
    #[arg(long, value_name = "M")]
    #[arg(value_parser = clap::value_parser!(u32).range(4..=100_000))]
    pub minutes: Option<u32>,
    /// Minute in which it happens, in scenarios in which something does [default: 4; 10 where
    /// something happens to seats; sybil: 70, when all were elected; 4 if there is less time]
    #[arg(long, value_name = "M")]
    #[arg(value_parser = clap::value_parser!(u32).range(3..=100_000))]
    pub event: Option<u32>,
    /// Seconds in which all nodes start again (mass-restart)
    #[arg(long, value_name = "S", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub within: u32,
    /// Look-ups a second, where they are made at a rate [default: 20, and more above 10,000
    /// nodes; fairness: a tenth of that]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Writes the run's course to this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Writes nothing but the digest of all events: two runs of one seed have the same
    #[arg(long)]
    pub trace_hash: bool,
    /// Look-ups made in the whole run, where they are not made at a rate
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub lookups: u32,
    /// Values published, each by another node
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub values: u32,
    /// Share of the nodes that leaves in an hour [default: 0; churn and adversaries: 0.5; fairness:
    /// 0.3]
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
    /// Share of nodes that work against the others (adversaries and sybil)
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    pub adversaries: f64,
    /// Nodes that crowd a key (scenario eclipse)
    #[arg(long, value_name = "N", default_value_t = 45)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=200))]
    pub sybils: u32,
    /// Messages that members say in the whole run (scenario topic)
    #[arg(long, value_name = "N", default_value_t = 300)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub messages: u32,
    /// Sybils for each honest member of the topic, of all the nodes: they pass on nothing and flood
    /// their neighbours with forged entries (scenario topic)
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=20))]
    pub flooders: u32,
    /// Cuts the network in two for a minute while they talk (scenario topic)
    #[arg(long)]
    pub cut: bool,
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
    /// All nodes start for the first time, each knowing eight others
    ColdStart,
    /// All nodes stop at once and start again, with the network's servers among them
    MassRestart,
    /// All that hold a seat vanish and never return
    AllSeatsLost,
    /// 30 % of those that hold a seat vanish and never return
    #[value(name = "lose-30")]
    Lose30,
    /// As many nodes again come within a minute, and everybody wants the same value
    FlashCrowd,
    /// A share of all nodes wants seats, and serves nobody
    Sybil,
    /// The network is cut in two for ten minutes
    Partition,
    /// A day: who serves how much
    Fairness,
    /// All nodes share a topic and talk: who hears what, when, and at what cost
    Topic,
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
            Self::ColdStart => "cold-start",
            Self::MassRestart => "mass-restart",
            Self::AllSeatsLost => "all-seats-lost",
            Self::Lose30 => "lose-30",
            Self::FlashCrowd => "flash-crowd",
            Self::Sybil => "sybil",
            Self::Partition => "partition",
            Self::Fairness => "fairness",
            Self::Topic => "topic",
        }
    }

    /// Whether hosts answer no faster than their uplinks carry: where servers are what it is about.
    #[must_use]
    pub fn is_limited(self) -> bool {
        !matches!(
            self,
            Self::Lookup | Self::Restart | Self::Eclipse | Self::Adversaries | Self::Topic
        )
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
            seeds: None,
            jobs: NonZeroUsize::MIN,
            policy: Policy::Mandate,
            minutes: None,
            event: None,
            within: 10,
            rate: None,
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
            messages: 300,
            flooders: 0,
            cut: false,
        }
    }

    /// How long the run lasts.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let minutes = self.minutes.unwrap_or_else(|| match self.scenario {
            Scenario::Partition => self.event().saturating_add(16),
            Scenario::Sybil => self.event().saturating_add(ELECTIONS),
            Scenario::Fairness => 24 * 60,
            _ => self.event().saturating_add(6),
        });
        Duration::from_secs(u64::from(minutes) * 60)
    }

    /// When it happens.
    #[must_use]
    pub fn event_at(&self) -> Duration {
        Duration::from_secs(u64::from(self.event()) * 60)
    }

    /// When the seats of adversaries begin to count: when it happens where a share of all nodes
    /// wants seats, else at once.
    #[must_use]
    pub fn elected_at(&self) -> Duration {
        if self.scenario == Scenario::Sybil { self.event_at() } else { Duration::ZERO }
    }

    fn event(&self) -> u32 {
        let usual = match self.scenario {
            _ if !self.policy.has_floor() => SETTLED,
            Scenario::MassRestart | Scenario::AllSeatsLost | Scenario::Lose30 => SPREAD,
            Scenario::Sybil => ELECTED,
            _ => SETTLED,
        };
        let has_time = self.minutes.is_none_or(|minutes| minutes > usual);
        self.event.unwrap_or(if has_time { usual } else { SETTLED })
    }

    /// Look-ups a second.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        // So many that one that fails by chance is not a hundredth of ten seconds.
        let usual = (f64::from(self.nodes) / 500.0).max(20.0);
        let share = if self.scenario == Scenario::Fairness { 0.1 } else { 1.0 };
        self.rate.unwrap_or(usual * share)
    }

    /// The share of the nodes that leaves in an hour.
    #[must_use]
    pub fn churn_per_h(&self) -> f64 {
        self.churn.unwrap_or(match self.scenario {
            Scenario::Churn | Scenario::Adversaries => 0.5,
            Scenario::Fairness => 0.3,
            _ => 0.0,
        })
    }
}

/// Seeds of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not two seeds such as 1..5");
        let (first, last) = text.split_once("..").ok_or_else(wrong)?;
        let [first, last] = [first, last].map(str::parse);
        let (Ok(first), Ok(last)) = (first, last) else { return Err(wrong()) };
        if first > last || last - first >= 1000 {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    let is_sane = (0.1..=100_000.0).contains(&rate);
    if is_sane { Ok(rate) } else { Err("0.1 to 100,000 look-ups a second".into()) }
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
    fn what_is_about_seats_waits_until_they_are_there() {
        let minute = |args: Args| args.event_at().as_secs() / 60;
        let lose = || Args::new(Scenario::Lose30);
        assert_eq!(minute(lose()), 10);
        assert_eq!(lose().duration(), Duration::from_secs(16 * 60));
        assert_eq!(minute(Args { policy: Policy::Fixed, ..lose() }), 4);
        assert_eq!(minute(Args { minutes: Some(10), ..lose() }), 4);
        assert_eq!(minute(Args { event: Some(90), ..lose() }), 90);
        assert_eq!(minute(Args::new(Scenario::Partition)), 4);
        assert_eq!(minute(Args::new(Scenario::Sybil)), 130);
        assert_eq!(Args::new(Scenario::Sybil).duration(), Duration::from_secs(160 * 60));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!("3..5".parse(), Ok(Seeds { first: 3, last: 5 }));
        assert!("5..3".parse::<Seeds>().is_err() && "5".parse::<Seeds>().is_err());
        for wrong in [["--open", "1.5"], ["--churn", "nan"], ["--nodes", "3"], ["--minutes", "0"]] {
            assert!(Cli::try_parse_from(["sim", "churn"].iter().chain(&wrong)).is_err());
        }
    }
}
