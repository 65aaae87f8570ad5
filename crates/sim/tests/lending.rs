//! Small runs of what puts the lending of roles to the test, under every policy.

use baran_sim::Args;
use baran_sim::args::Scenario;
use baran_sim::policy::Policy;
use clap::ValueEnum;

/// What every one of them tells.
const KEYS: [&str; 16] = [
    "nodes",
    "seed",
    "policy",
    "recovered_99_s",
    "lookup_success_min",
    "lookup_success_mean",
    "control_bytes_per_node_hour",
    "jain_seats",
    "jain_eligible_24h",
    "bytes_over_owner_limit",
    "sybil_seat_share",
    "seat_turnover_per_hour",
    "trace_hash",
    "seats_recovered_s",
    "seats",
    "regions",
];

fn small(scenario: Scenario, policy: Policy, nodes: u32) -> Args {
    Args {
        nodes,
        minutes: Some(4),
        event: Some(3),
        rate: Some(0.5),
        values: 10,
        policy,
        ..Args::new(scenario)
    }
}

fn json(args: &Args) -> serde_json::Value {
    let mut out = Vec::new();
    baran_sim::run(args, true, &mut out).expect("writing to memory");
    serde_json::from_slice(&out).expect("JSON")
}

/// One seed is one run of it, and the report has all keys.
fn check(scenarios: &[Scenario]) {
    for scenario in scenarios {
        let args = small(*scenario, Policy::Mandate, 24);
        let report = json(&args);
        for key in KEYS {
            assert!(report.get(key).is_some(), "{key} of {scenario:?}");
        }
        assert!(report["lookup_success_mean"].as_f64() > Some(0.9), "{report}");
        assert_eq!(report["trace_hash"], json(&args)["trace_hash"], "{scenario:?}");
    }
}

#[test]
fn what_happens_to_all_is_one_run_and_tells_what_programs_ask_for() {
    check(&[Scenario::ColdStart, Scenario::MassRestart, Scenario::FlashCrowd, Scenario::Fairness]);
}

#[test]
fn what_happens_to_some_is_one_run_and_tells_what_programs_ask_for() {
    check(&[Scenario::AllSeatsLost, Scenario::Lose30, Scenario::Sybil, Scenario::Partition]);
}

#[test]
fn the_servers_of_every_policy_serve() {
    let others = Policy::value_variants().iter().filter(|policy| !policy.has_floor());
    for policy in others {
        let args = small(Scenario::Lose30, *policy, 100);
        let report = json(&args);
        assert_eq!(report["policy"], policy.name());
        assert!(report["publish_stored"].as_f64() > Some(0.9), "{report}");
        if *policy == Policy::Sg1 {
            assert_eq!(report["trace_hash"], json(&args)["trace_hash"]);
        }
    }
}

#[test]
fn servers_that_are_lost_are_missed() {
    let report = json(&small(Scenario::AllSeatsLost, Policy::Fixed, 100));
    assert!(report["seats"].as_f64() > Some(0.0) && report["recovered_99_s"].is_null(), "{report}");
    assert!(report["lookup_success_mean"].as_f64() < Some(0.1), "{report}");
}

#[test]
fn a_network_that_has_stood_works_with_its_seats() {
    let report = json(&Args { event: Some(3), ..small(Scenario::Lose30, Policy::Mandate, 100) });
    let (seats, planned) = (report["seats"].as_f64(), report["seats_planned"].as_f64());
    assert!(seats >= planned, "{report}");
    assert_eq!(report["lookup_success_mean"].as_f64(), Some(1.0), "{report}");
}
