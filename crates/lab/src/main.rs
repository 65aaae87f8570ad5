//! The lab as a program: runs the experiments and prints their tables.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use baran_lab::failover::Death;
use baran_lab::find::{self, Report, Scene};
use baran_lab::harness;
use baran_lab::matrix::{self, Case, Outcome};
use baran_lab::table::{Table, ms, quantile};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

/// Starts the real baran behind real kernels' NATs and prints what happens.
///
/// The binary is `baran` beside this program, or `BARAN_BIN`. Data and logs of the
/// nodes are kept below `BARAN_LAB_KEEP`, if that is set.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    experiment: Experiment,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum Experiment {
    /// Every pair of NATs: direct or relayed, and how fast.
    Matrix {
        /// Run only cases whose name contains this text.
        #[arg(long)]
        only: Option<String>,
        /// Hold every host's packets this long on their way out, in
        /// milliseconds; a round trip takes twice that.
        #[arg(long, default_value_t = 0)]
        lag: u64,
    },
    /// The relaying peer is itself behind a port-restricted NAT.
    NattedRelay,
    /// A path, a relay or the introducer dies under a stream.
    Failover {
        /// Runs of each death.
        #[arg(long, default_value_t = 20)]
        runs: u32,
        /// Run only deaths whose name contains this text.
        #[arg(long)]
        only: Option<String>,
    },
    /// The introducer dies, everybody restarts at once, there is no internet: who is found?
    Find {
        /// Play only scenes whose name contains this text: warm, reborn, lan, lonely, clocks,
        /// records, seats.
        #[arg(long)]
        only: Option<String>,
    },
}

#[derive(Args)]
struct Output {
    /// Print one JSON object a line, not a table.
    #[arg(long, global = true)]
    json: bool,
    /// Write the Markdown table to this file as well.
    #[arg(long, global = true, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    harness::become_root()?;
    harness::run(async {
        let all_well = match &cli.experiment {
            Experiment::Matrix { only, lag } => {
                let mut cases = Case::all();
                cases.retain(|case| is_wanted(&case.name(), only.as_deref()));
                run_matrix(&cases, Duration::from_millis(*lag), &cli.output).await?
            }
            Experiment::NattedRelay => {
                run_matrix(&[Case::NattedRelay], Duration::ZERO, &cli.output).await?
            }
            Experiment::Failover { runs, only } => {
                run_failover(*runs, only.as_deref(), &cli.output).await?
            }
            Experiment::Find { only } => run_find(only.as_deref(), &cli.output).await?,
        };
        if all_well { Ok(()) } else { bail!("not every outcome is the expected one") }
    })
}

fn is_wanted(name: &str, only: Option<&str>) -> bool {
    only.is_none_or(|only| name.contains(only))
}

async fn run_matrix(cases: &[Case], lag: Duration, output: &Output) -> Result<bool> {
    let mut outcomes: Vec<(Case, Result<Outcome>)> = Vec::new();
    for case in cases {
        let outcome = case.run(lag).await;
        let line = match &outcome {
            Ok(outcome) => outcome.json(),
            Err(error) => json!({ "case": case.name(), "error": format!("{error:#}") }),
        };
        progress(&line, &case.name(), output)?;
        outcomes.push((*case, outcome));
    }
    finish(&matrix::table(&outcomes), output)?;
    Ok(outcomes.iter().all(|(_, outcome)| outcome.as_ref().is_ok_and(Outcome::is_expected)))
}

async fn run_failover(runs: u32, only: Option<&str>, output: &Output) -> Result<bool> {
    let mut table = Table::new(&["death", "runs", "survived", "p50 (ms)", "p99 (ms)", "max (ms)"]);
    let mut failures = 0;
    for death in Death::ALL.into_iter().filter(|death| is_wanted(death.name(), only)) {
        let mut silences = Vec::new();
        for run in 0..runs {
            let silence = death.run().await;
            let line = match &silence {
                Ok(silence) => json!({ "death": death.name(), "run": run, "silence_ms": silence }),
                Err(error) => {
                    json!({ "death": death.name(), "run": run, "error": format!("{error:#}") })
                }
            };
            progress(&line, death.name(), output)?;
            silences.extend(silence.ok());
        }
        let survived = u32::try_from(silences.len())?;
        failures += runs - survived;
        table.row(vec![
            death.name().to_owned(),
            runs.to_string(),
            survived.to_string(),
            ms(quantile(&silences, 0.5)),
            ms(quantile(&silences, 0.99)),
            ms(quantile(&silences, 1.0)),
        ]);
    }
    finish(&table, output)?;
    Ok(failures == 0)
}

async fn run_find(only: Option<&str>, output: &Output) -> Result<bool> {
    let mut reports: Vec<(Scene, Result<Report>)> = Vec::new();
    for scene in Scene::ALL.into_iter().filter(|scene| is_wanted(scene.name(), only)) {
        let report = scene.run().await;
        let line = match &report {
            Ok(report) => report.json(scene),
            Err(error) => json!({ "scene": scene.name(), "error": format!("{error:#}") }),
        };
        progress(&line, scene.name(), output)?;
        reports.push((scene, report));
    }
    finish(&find::table(&reports), output)?;
    Ok(reports.iter().all(|(_, report)| report.as_ref().is_ok_and(Report::is_well)))
}

/// Reports one run: as JSON, or as text where a person watches.
fn progress(line: &Value, name: &str, output: &Output) -> Result<()> {
    if output.json {
        writeln!(io::stdout(), "{line}")?;
    } else if let Some(error) = line["error"].as_str() {
        writeln!(io::stderr(), "{name}: {error}")?;
    } else {
        writeln!(io::stderr(), "{name}: done")?;
    }
    Ok(())
}

fn finish(table: &Table, output: &Output) -> Result<()> {
    let text = table.markdown();
    if !output.json {
        write!(io::stdout(), "{text}")?;
    }
    if let Some(file) = &output.out {
        fs::write(file, &text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
