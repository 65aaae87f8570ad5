//! Figures that several scenarios have.

use core::time::Duration;
use std::collections::BTreeMap;

use baran_proto::time::Instant;

use super::WARM;
use super::queries::{Outcome, Queries, Sought};
use crate::net::account::Traffic;
use crate::net::kind::Kind;
use crate::report::{FOUND, Report, Target, mean, quantile};
use crate::world::World;

/// What was sent until a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    at: Instant,
    /// Of all hosts together.
    online: Duration,
    traffic: Traffic,
    /// Links made, and deadlines of nodes that came.
    links: u64,
    wakes: u64,
    /// Look-ups and connections of users that are over.
    queries: usize,
}

impl Cost {
    pub(super) fn now(world: &World, queries: &Queries) -> Self {
        Self {
            at: world.now(),
            online: world.time_online(),
            traffic: world.traffic(),
            links: world.totals().links,
            wakes: world.totals().timeouts,
            queries: queries.outcomes.len(),
        }
    }

    /// Adds what nodes sent since `before`.
    pub(super) fn report(&self, before: &Self, report: &mut Report) {
        let node_hours = (self.online - before.online).as_secs_f64() / 3600.0;
        let from = (before.at - Instant::ZERO).as_secs_f64() / 60.0;
        report.figure("cost_from_min", "the following from minute", from.round(), "", None);
        let rate =
            |of: fn(&Traffic) -> u64| (of(&self.traffic) - of(&before.traffic)) as f64 / node_hours;
        let kb = 1e-3;
        let asked = (self.queries - before.queries) as f64 / node_hours;
        let name = "look-ups and connections, per node and hour";
        report.figure("queries_per_node_hour", name, asked, "", None);
        let control = rate(Traffic::control_bytes);
        // A start is not what it costs to be there.
        let most = (before.at >= Instant::ZERO + WARM).then_some(Target::AtMost(20_000.0));
        let name = "control messages sent, per node and hour";
        report.figure("control_bytes_per_node_hour", name, control, "B", most);
        let mut add = |key, name: &str, of| {
            let name = format!("{name}, per node and hour");
            report.figure(key, &name, rate(of) * kb, "KB", None);
        };
        add("handshake_kb_per_node_hour", "handshakes", |traffic| traffic.handshake_bytes);
        add("dial_kb_per_node_hour", "dials that came to nothing", |traffic| traffic.dial_bytes);
        add("keep_alive_kb_per_node_hour", "keep-alives", |traffic| traffic.keep_alive_bytes);
        let mut count = |key, name: &str, now: u64, then: u64| {
            let name = format!("{name}, per node and hour");
            report.figure(key, &name, (now - then) as f64 / node_hours, "", None);
        };
        count("links_per_node_hour", "links made", self.links, before.links);
        count("wakes_per_node_hour", "deadlines", self.wakes, before.wakes);
        for kind in Kind::ALL {
            let [now, then] = [self, before].map(|cost| cost.traffic.control[kind as usize]);
            let (key, name) = kind.names();
            let name = format!("  of control messages: {name}");
            report.figure(key, &name, (now - then) as f64 / node_hours, "B", None);
        }
    }
}

fn is_value(outcome: &&Outcome) -> bool {
    matches!(outcome.sought, Sought::Value(_))
}

/// The share of outcomes that found what was sought.
pub(super) fn share<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> f64 {
    let found: Vec<_> =
        outcomes.into_iter().map(|one| f64::from(u8::from(one.found.is_some()))).collect();
    mean(&found)
}

/// Adds how look-ups of values went.
pub(super) fn lookups(queries: &Queries, target: f64, report: &mut Report) {
    let values = || queries.outcomes.iter().filter(is_value);
    report.figure("lookups", "look-ups of values", values().count() as f64, "", None);
    let found = share(values());
    let least = Some(Target::AtLeast(target));
    report.figure("lookups_found", "of these found the value", found, "%", least);
    let mut times: Vec<_> = values().filter_map(|one| one.found).map(as_ms).collect();
    report.figure(
        "first_answer_ms_p50",
        "first answer, median",
        quantile(&mut times, 0.5),
        "ms",
        None,
    );
    report.figure(
        "first_answer_ms_p99",
        "first answer, p99",
        quantile(&mut times, 0.99),
        "ms",
        None,
    );
    let costs = || values().filter_map(|one| one.cost);
    let rounds: Vec<_> = costs().map(|cost| f64::from(cost.rounds)).collect();
    let most = Some(Target::AtMost(3.5));
    report.figure("rounds", "rounds of a look-up, mean", mean(&rounds), "", most);
    let requests: Vec<_> = costs().map(|cost| cost.requests as f64).collect();
    report.figure("requests", "requests of a look-up, mean", mean(&requests), "", None);
}

/// Adds how connections by id went.
pub(super) fn connects(queries: &Queries, target: f64, report: &mut Report) {
    let all = || queries.outcomes.iter().filter(|one| !is_value(one));
    report.figure("connects", "connections by id", all().count() as f64, "", None);
    let least = Some(Target::AtLeast(target));
    report.figure("connects_up", "of these came up", share(all()), "%", least);
    let mut times: Vec<_> = all().filter_map(|one| one.found).map(as_ms).collect();
    report.figure(
        "connect_ms_p50",
        "connection by id, median",
        quantile(&mut times, 0.5),
        "ms",
        None,
    );
    report.figure(
        "connect_ms_p99",
        "connection by id, p99",
        quantile(&mut times, 0.99),
        "ms",
        None,
    );
}

/// Adds how publishing went.
pub(super) fn publishing(queries: &Queries, report: &mut Report) {
    let kept: Vec<_> =
        queries.published.iter().filter_map(|one| one.kept).map(|(kept, _)| kept as f64).collect();
    let (all, void) =
        (queries.published.len(), queries.published.iter().filter(|one| one.is_void).count());
    report.figure("published", "values published", all as f64, "", None);
    let name = "of these whose publisher was gone before it heard of a copy";
    report.figure("publish_void", name, void as f64, "", None);
    let stored = kept.iter().filter(|kept| **kept > 0.0).count() as f64 / (all - void) as f64;
    report.figure("publish_stored", "of the others stored somewhere", stored, "%", None);
    report.figure("copies", "copies of a value at first, mean", mean(&kept), "", None);
}

/// The course of the share of look-ups of values that succeed, in `step`s.
pub(super) fn course(queries: &Queries, step: Duration, report: &mut Report) {
    let mut steps: BTreeMap<u64, Vec<&Outcome>> = BTreeMap::new();
    for outcome in queries.outcomes.iter().filter(is_value) {
        let at = (outcome.began - Instant::ZERO).as_secs() / step.as_secs().max(1);
        steps.entry(at).or_default().push(outcome);
    }
    let minutes = |at: u64| at as f64 * step.as_secs_f64() / 60.0;
    let points =
        steps.into_iter().map(|(at, all)| (minutes(at), share(all.iter().copied()))).collect();
    report.line(FOUND, "look-ups of values", points);
}

/// Adds what the nodes hold.
pub(super) fn holdings(world: &World, report: &mut Report) {
    let on = || world.hosts.iter().filter(|host| !host.is_adversary).filter_map(|h| h.node());
    let of = |figure: fn(&baran_proto::node::Node) -> f64| -> f64 {
        mean(&on().map(figure).collect::<Vec<_>>())
    };
    let joined = of(|node| f64::from(u8::from(node.is_joined())));
    report.figure("joined", "nodes that are joined", joined, "%", None);
    report.figure(
        "table",
        "entries of a table, mean",
        of(|n| n.index_stats().table as f64),
        "",
        None,
    );
    report.figure("warm", "warm connections, mean", of(|n| n.index_stats().warm as f64), "", None);
    let records = of(|n| n.index_stats().records as f64);
    report.figure("records", "records that a node keeps, mean", records, "", None);
    let links = world.conns_len() as f64 * 2.0 / world.online().max(1) as f64;
    report.figure("links", "links of a node, mean", links, "", None);
    let mut nodes: Vec<_> = on().filter_map(|node| node.index_stats().nodes).collect();
    let estimate = quantile(&mut nodes, 0.5);
    report.figure("nodes_estimate", "nodes by their own estimate, median", estimate, "", None);
}

pub(super) fn as_ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
