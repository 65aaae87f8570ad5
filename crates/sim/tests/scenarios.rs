//! Small runs of every scenario: they come to an end, and the same way twice.

use baran_sim::Args;
use baran_sim::args::Scenario;
use baran_sim::policy::Policy;

fn small(scenario: Scenario, seed: u64) -> Args {
    Args {
        seed,
        nodes: 12,
        minutes: Some(4),
        lookups: 12,
        values: 4,
        sybils: 3,
        ..Args::new(scenario)
    }
}

fn json(args: &Args) -> serde_json::Value {
    let mut out = Vec::new();
    baran_sim::run(args, true, &mut out).expect("writing to memory");
    serde_json::from_slice(&out).expect("JSON")
}

#[test]
fn one_seed_is_one_run() {
    let args = small(Scenario::Churn, 7);
    let first = json(&args);
    assert_eq!(first, json(&args));
    let mut hash = Vec::new();
    let args = Args { trace_hash: true, ..args };
    baran_sim::run(&args, false, &mut hash).expect("writing to memory");
    assert_eq!(first["trace_hash"].as_str(), String::from_utf8_lossy(&hash).strip_suffix('\n'));
    let other = json(&small(Scenario::Churn, 8));
    assert_ne!(first["trace_hash"], other["trace_hash"]);
}

#[test]
fn every_scenario_reports() {
    for scenario in [Scenario::Lookup, Scenario::Restart, Scenario::Eclipse, Scenario::Adversaries]
    {
        let report = json(&small(scenario, 1));
        assert_eq!(report["scenario"], scenario.name());
        assert!(report["figures"]["joined"]["value"].as_f64() > Some(0.9), "{report}");
    }
}

#[test]
fn a_value_whose_key_sybils_crowd_is_found_without_seats() {
    let args = Args {
        nodes: 300,
        minutes: Some(5),
        lookups: 60,
        sybils: 45,
        policy: Policy::Floor,
        ..Args::new(Scenario::Eclipse)
    };
    let figures = &json(&args)["figures"];
    assert_eq!(figures["sybils_nearest"]["value"].as_f64(), Some(20.0));
    assert!(figures["honest_copies"]["value"].as_f64() >= Some(8.0), "{figures}");
    assert!(figures["lookups_found"]["value"].as_f64() >= Some(0.99), "{figures}");
}

#[test]
fn a_table_and_a_plot_are_written() {
    let path = std::env::temp_dir().join(format!("baran-sim-{}.svg", std::process::id()));
    let args = Args { plot: Some(path.clone()), ..small(Scenario::Lookup, 1) };
    let mut out = Vec::new();
    baran_sim::run(&args, false, &mut out).expect("a plot");
    let table = String::from_utf8(out).expect("text");
    assert!(table.contains("of these found the value") && table.contains("trace "), "{table}");
    let svg = std::fs::read_to_string(&path).expect("the plot");
    std::fs::remove_file(&path).expect("the plot");
    assert!(svg.contains("</svg>"));
}
