//! A deterministic internet for the nodes of [`baran_proto`], and what happens in it.
//!
//! A *world* ([`world`]) is hosts with NATs and places ([`net`]), a population that comes and goes
//! ([`population`]), and one queue of events ([`engine`]). Each host runs the very
//! [`Node`](baran_proto::node::Node) of the real program; nothing of a protocol is written twice.
//! A *scenario* ([`scenario`]) puts such a world through something and measures: [`run`].
//!
//! Everything is drawn from one seed. Two runs of one scenario with the same flags have the same
//! [trace]: a digest of every event and message in its order.

pub mod args;
pub mod cache;
pub mod draw;
pub mod engine;
pub mod jobs;
pub mod net;
pub mod plot;
pub mod policy;
pub mod population;
pub mod progress;
pub mod report;
pub mod scenario;
pub mod study;
pub mod summary;
pub mod trace;
mod verify;
pub mod world;

use std::io::Write;

use anyhow::{Context, Result};

pub use self::args::Args;
use self::progress::Progress;
use self::study::StudyArgs;
use self::summary::Summary;

/// A deterministic network of many nodes in virtual time.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Sim {
    /// What is run many times over.
    #[command(subcommand)]
    pub command: Option<SimCommand>,
    /// What is run once, or with several seeds.
    #[command(flatten)]
    pub args: Option<Args>,
}

/// More than one scenario.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum SimCommand {
    /// Run all scenarios under all policies and write one page with plots
    Report(StudyArgs),
}

impl Sim {
    /// Does what was asked for; tells whether all targets are met.
    ///
    /// # Errors
    ///
    /// If the output, the page or a plot cannot be written.
    pub fn run(&self, json: bool, out: &mut dyn Write) -> Result<bool> {
        match (&self.command, &self.args) {
            (Some(SimCommand::Report(args)), _) => study::run(args),
            (None, Some(args)) => run(args, json, out),
            (None, None) => Ok(true),
        }
    }
}

/// Runs the scenario, writes its table (or with `json` one object) to `out` and its plot to a
/// file; tells whether all targets are met.
///
/// # Errors
///
/// If the output or the plot cannot be written.
pub fn run(args: &Args, json: bool, out: &mut dyn Write) -> Result<bool> {
    if let Some(seeds) = args.seeds {
        let all: Vec<_> = (seeds.first..=seeds.last).collect();
        let one = |seed: &u64| {
            let args = Args { seed: *seed, ..args.clone() };
            scenario::run(&args, Progress::of(args.jobs, format!("seed {seed}: ")))
        };
        let summary = Summary { reports: jobs::run_all(args.jobs, &all, one) };
        if json {
            writeln!(out, "{}", summary.to_json()).context("write the report")?;
        } else {
            write!(out, "{summary}").context("write the report")?;
        }
        return Ok(summary.is_met());
    }
    let report = scenario::run(args, Progress::default());
    if let Some(path) = &args.plot {
        report.plot(path).with_context(|| format!("plot to {}", path.display()))?;
    }
    if args.trace_hash {
        writeln!(out, "{}", report.trace).context("write the digest")?;
    } else if json {
        writeln!(out, "{}", report.to_json()).context("write the report")?;
    } else {
        write!(out, "{report}").context("write the report")?;
    }
    Ok(report.is_met())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        sim: Sim,
    }

    #[test]
    fn a_scenario_or_a_report_is_asked_for_but_not_both() {
        Cli::command().debug_assert();
        let parse = |words: &str| Cli::try_parse_from(words.split(' ')).map(|cli| cli.sim);
        let one = parse("sim lose-30 --policy quit-on-overload --seeds 1..5").unwrap();
        assert!(one.command.is_none() && one.args.is_some_and(|args| args.seeds.is_some()));
        let report = parse("sim report --nodes 100,200 --scenarios lose-30,sybil").unwrap();
        let Some(SimCommand::Report(study)) = report.command else { panic!("no report") };
        assert_eq!((study.nodes, study.scenarios.len()), (vec![100, 200], 2));
        for wrong in ["sim", "sim lose-30 report", "sim --nodes 100", "sim report --seed 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
