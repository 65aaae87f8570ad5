//! All scenarios under all policies, on one page.

use core::fmt::Write;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::args::{Args, Scenario};
use crate::jobs::{processor_s, run_all};
use crate::plot::{self, Panel, Series};
use crate::policy::Policy;
use crate::progress::Progress;
use crate::report::{Report, Target};
use crate::scenario;
use crate::summary::Summary;

/// What is run unless something else is asked for.
const SCENARIOS: [Scenario; 9] = [
    Scenario::ColdStart,
    Scenario::MassRestart,
    Scenario::AllSeatsLost,
    Scenario::Lose30,
    Scenario::Churn,
    Scenario::FlashCrowd,
    Scenario::Sybil,
    Scenario::Partition,
    Scenario::Fairness,
];

/// What our own policy should do (design §11): in which scenario, by which figure.
const TARGETS: [(&str, Scenario, &str, Target); 11] = [
    (
        "all nodes restart within 10 s: 99 % of look-ups work after",
        Scenario::MassRestart,
        "recovered_99_s",
        Target::AtMost(45.0),
    ),
    (
        "all seats are gone for good: 99 % of look-ups work after",
        Scenario::AllSeatsLost,
        "recovered_99_s",
        Target::AtMost(75.0),
    ),
    (
        "30 % of the seats are lost: look-ups, worst ten seconds",
        Scenario::Lose30,
        "lookup_success_min",
        Target::AtLeast(0.99),
    ),
    ("50 %/h churn: look-ups", Scenario::Churn, "lookups_found", Target::AtLeast(0.995)),
    (
        "50 %/h churn: values alive without their publisher",
        Scenario::Churn,
        "orphans_alive",
        Target::AtLeast(0.999),
    ),
    ("20 % Sybils: their seats", Scenario::Sybil, "sybil_seat_share", Target::AtMost(0.25)),
    ("20 % Sybils: look-ups", Scenario::Sybil, "lookup_success_mean", Target::AtLeast(0.99)),
    (
        "control traffic per node and hour, over a day with 30 %/h churn",
        Scenario::Fairness,
        "control_bytes_per_node_hour",
        Target::AtMost(20_000.0),
    ),
    ("Jain's index among seats, a day", Scenario::Fairness, "jain_seats", Target::AtLeast(0.95)),
    (
        "Jain's index among eligible nodes, a day",
        Scenario::Fairness,
        "jain_eligible_24h",
        Target::AtLeast(0.8),
    ),
    (
        "served above an owner's limit, a day",
        Scenario::Fairness,
        "bytes_over_owner_limit",
        Target::AtMost(0.0),
    ),
];

/// Columns of the table of our own policy.
const FIGURES: [(&str, &str); 8] = [
    ("seats_recovered_s", "half of the seats back"),
    ("control_bytes_per_node_hour", "control traffic per node and hour"),
    ("jain_seats", "Jain, seats"),
    ("jain_eligible_24h", "Jain, eligible"),
    ("bytes_over_owner_limit", "over an owner's limit"),
    ("sybil_seat_share", "Sybils' seats"),
    ("seat_turnover_per_hour", "seats that change hands in an hour"),
    ("regions", "regions"),
];

/// Runs all scenarios under all policies and writes one page.
#[derive(Debug, Clone, clap::Args)]
pub struct StudyArgs {
    /// Sizes of the network
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=4_000_000))]
    pub nodes: Vec<u32>,
    /// Runs of each, with seeds from 1 on
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// These scenarios alone
    #[arg(long, value_enum, value_name = "SCENARIO,...", value_delimiter = ',')]
    pub scenarios: Vec<Scenario>,
    /// These policies alone
    #[arg(long, value_enum, value_name = "POLICY,...", value_delimiter = ',')]
    pub policies: Vec<Policy>,
    /// Runs at a time
    #[arg(long, value_name = "N", default_value = "1")]
    pub jobs: NonZeroUsize,
    /// Virtual time of each run [default: as for each scenario]
    #[arg(long, value_name = "M")]
    #[arg(value_parser = clap::value_parser!(u32).range(4..=100_000))]
    pub minutes: Option<u32>,
    /// The page; its plots lie in plots/ beside it
    #[arg(long, value_name = "FILE", default_value = "docs/report.md")]
    pub out: PathBuf,
}

/// One scenario under all policies, at one size.
struct Comparison {
    scenario: Scenario,
    of: Vec<(Policy, Summary)>,
}

/// Runs it all and writes the page. Tells whether our own policy meets all targets.
///
/// # Errors
///
/// If the page or a plot cannot be written.
pub fn run(args: &StudyArgs) -> Result<bool> {
    let folder = args.out.parent().unwrap_or_else(|| Path::new("")).join("plots");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let (mut page, mut is_met) = (preface(args), true);
    for nodes in &args.nodes {
        let mut all = Vec::new();
        for scenario in args.scenarios() {
            let one = compare(args, *nodes, *scenario);
            let path = folder.join(one.plot_name(*nodes));
            fs::write(&path, plot::draw(&one.title(*nodes), &one.panels())?)
                .with_context(|| format!("write {}", path.display()))?;
            is_met &= one.ours().is_none_or(Summary::is_met);
            all.push(one);
            // What there is so far, for the set of a large network takes hours.
            let so_far = format!("{page}{}", section(args, *nodes, &all));
            fs::write(&args.out, so_far)
                .with_context(|| format!("write {}", args.out.display()))?;
        }
        page.push_str(&section(args, *nodes, &all));
    }
    if let Some(seconds) = processor_s() {
        page.push_str(&format!("All runs together took {seconds:.0} s of processor time.\n"));
        fs::write(&args.out, &page).with_context(|| format!("write {}", args.out.display()))?;
    }
    Ok(is_met)
}

impl StudyArgs {
    fn scenarios(&self) -> &[Scenario] {
        if self.scenarios.is_empty() { &SCENARIOS } else { &self.scenarios }
    }

    fn policies(&self) -> &[Policy] {
        if self.policies.is_empty() { Policy::value_variants() } else { &self.policies }
    }
}

fn compare(args: &StudyArgs, nodes: u32, scenario: Scenario) -> Comparison {
    let policies = args.policies();
    let runs: Vec<_> =
        policies.iter().flat_map(|policy| (1..=args.seeds).map(|seed| (*policy, seed))).collect();
    let jobs = args.jobs;
    let mut reports = run_all(jobs, &runs, |(policy, seed)| {
        let (policy, seed) = (*policy, *seed);
        let label = format!("{nodes} {} {} {seed}: ", scenario.name(), policy.name());
        let args = Args { nodes, seed, policy, minutes: args.minutes, ..Args::new(scenario) };
        (policy, scenario::run(&args, Progress::of(jobs, label)))
    });
    let of = policies.iter().map(|policy| {
        let is_of = |(other, _): &mut (Policy, Report)| other == policy;
        let reports = reports.extract_if(.., is_of).map(|(_, report)| report).collect();
        (*policy, Summary { reports })
    });
    Comparison { scenario, of: of.collect() }
}

fn preface(args: &StudyArgs) -> String {
    let sizes: Vec<_> = args.nodes.iter().map(u32::to_string).collect();
    let scenarios: Vec<_> = args.scenarios.iter().map(|scenario| scenario.name()).collect();
    let policies: Vec<_> = args.policies.iter().map(|policy| policy.name()).collect();
    let minutes: Vec<_> = args.minutes.iter().map(u32::to_string).collect();
    let options = [
        ("scenarios", scenarios.join(",")),
        ("policies", policies.join(",")),
        ("minutes", minutes.join("")),
    ];
    let given = options.iter().filter(|(_, value)| !value.is_empty());
    let given: String = given.map(|(name, value)| format!(" --{name} {value}")).collect();
    format!(
        "# How the network heals\n\n\
         Written by `baran sim report --nodes {} --seeds {}{given}`. What the model is, what the \
         policies are and what is left out: [sim.md](sim.md). With several seeds, figures are the \
         median and the range; a target is met if every seed meets it. Control traffic of runs \
         shorter than an hour is that of a start, and has no target.\n\n",
        sizes.join(","),
        args.seeds
    )
}

fn section(args: &StudyArgs, nodes: u32, all: &[Comparison]) -> String {
    let mut page = format!("## {nodes} nodes\n\n");
    page.push_str(&targets(all));
    let policies: Vec<_> = args.policies().iter().map(|policy| policy.name()).collect();
    page.push_str(
        "Seconds until 99 % of look-ups work for good, and the share that works in the worst ten \
         seconds:\n\n",
    );
    heading(&mut page, &policies);
    for one in all {
        let cells = one.of.iter().map(|(_, runs)| {
            format!("{}; {}", runs.show("recovered_99_s"), runs.show("lookup_success_min"))
        });
        row(&mut page, one.scenario.name(), cells);
    }
    page.push_str("\nOur own policy, `mandate`:\n\n");
    let names: Vec<_> = FIGURES.iter().map(|(_, name)| *name).collect();
    heading(&mut page, &names);
    for one in all {
        if let Some(runs) = one.ours() {
            let cells = FIGURES.iter().map(|(key, _)| runs.show(key));
            row(&mut page, one.scenario.name(), cells);
        }
    }
    page.push_str(&missed(all));
    for one in all {
        page.push_str(&format!("![{}](plots/{})\n\n", one.title(nodes), one.plot_name(nodes)));
    }
    page
}

/// What our own policy should do and what it does.
fn targets(all: &[Comparison]) -> String {
    let mut page = String::new();
    row(&mut page, "`mandate`", ["target", "measured", ""].map(str::to_owned).into_iter());
    row(&mut page, "---", ["---"; 3].map(str::to_owned).into_iter());
    for (what, scenario, key, target) in TARGETS {
        let ours = all.iter().find(|one| one.scenario == scenario).and_then(Comparison::ours);
        let Some((runs, figure)) = ours.and_then(|runs| Some((runs, runs.figure(key)?))) else {
            continue;
        };
        let (sign, limit) = match target {
            Target::AtLeast(least) => ("≥", least),
            Target::AtMost(most) => ("≤", most),
        };
        let met = runs.reports.iter().filter_map(|one| one.value(key));
        let met = met.filter(|value| target.is_met(*value)).count();
        let verdict = match runs.reports.len() {
            all if met == all => "met".into(),
            1 => "**missed**".into(),
            all => format!("**missed** by {} of {all}", all - met),
        };
        let cells = [format!("{sign} {}", figure.show(limit)), runs.show(key), verdict];
        row(&mut page, what, cells.into_iter());
    }
    page.push('\n');
    page
}

/// Targets that a run under our own policy misses.
fn missed(all: &[Comparison]) -> String {
    let mut lines = String::new();
    for report in all.iter().filter_map(Comparison::ours).flat_map(|runs| &runs.reports) {
        for figure in report.figures.iter().filter(|figure| !figure.is_met()) {
            let Report { scenario, seed, .. } = report;
            let (name, value) = (&figure.name, figure.show(figure.value));
            // Writing to a string does not fail.
            let _ = writeln!(lines, "- {scenario}, seed {seed}: {name}: {value}");
        }
    }
    if lines.is_empty() {
        return "\nNo target that these runs have is missed.\n\n".into();
    }
    format!("\nTargets that are missed:\n\n{lines}\n")
}

fn heading(page: &mut String, names: &[&str]) {
    row(page, "", names.iter().map(|name| (*name).to_owned()));
    row(page, "---", names.iter().map(|_| "---".to_owned()));
}

fn row(page: &mut String, first: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<_> = cells.collect();
    page.push_str(&format!("| {first} | {} |\n", cells.join(" | ")));
}

impl Comparison {
    /// The runs under our own policy.
    fn ours(&self) -> Option<&Summary> {
        self.of.iter().find(|(policy, _)| policy.has_floor()).map(|(_, runs)| runs)
    }

    fn title(&self, nodes: u32) -> String {
        format!("{}, {nodes} nodes, seed 1", self.scenario.name())
    }

    fn plot_name(&self, nodes: u32) -> String {
        format!("report-{nodes}-{}.svg", self.scenario.name())
    }

    /// The first line of each panel, of all policies, one run each.
    fn panels(&self) -> Vec<Panel> {
        let first: Vec<_> = self
            .of
            .iter()
            .filter_map(|(policy, runs)| Some((policy, &runs.reports.first()?.panels)))
            .collect();
        let Some((_, panels)) = first.first() else { return Vec::new() };
        let of = |panel: &Panel| {
            let lines = first.iter().filter_map(|(policy, others)| {
                let same = others.iter().find(|other| other.up == panel.up)?;
                let points = same.series.first()?.points.clone();
                Some(Series { name: policy.name().into(), points })
            });
            Panel { series: lines.collect(), ..panel.clone() }
        };
        panels.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_compares_policies_and_has_plots() {
        let folder = std::env::temp_dir().join(format!("baran-study-{}", std::process::id()));
        let out = folder.join("report.md");
        let args = StudyArgs {
            nodes: vec![20],
            seeds: 1,
            scenarios: vec![Scenario::Lose30],
            policies: vec![Policy::Mandate, Policy::Fixed],
            jobs: NonZeroUsize::new(2).expect("not zero"),
            minutes: Some(4),
            out: out.clone(),
        };
        run(&args).expect("a page");
        let page = fs::read_to_string(&out).expect("the page");
        let svg = fs::read_to_string(folder.join("plots/report-20-lose-30.svg")).expect("the plot");
        fs::remove_dir_all(&folder).expect("the folder");
        assert!(
            page.contains("|  | mandate | fixed |\n| --- | --- | --- |\n| lose-30 |"),
            "{page}"
        );
        assert!(page.contains("worst ten seconds | ≥ 99.00 % | "), "{page}");
        assert!(svg.contains("seats") && svg.contains("fixed"));
    }
}
