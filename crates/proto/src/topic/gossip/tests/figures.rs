//! How well and at what cost entries spread.

use super::super::*;
use super::world::{World, ms};
use crate::topic::id::ShortId;

const WARM_UP: usize = 20;

#[derive(Debug, Default)]
struct Figures {
    /// Pairs of an entry and a member that was there when it was said and stayed.
    wanted: usize,
    delivered: usize,
    within_3_s: usize,
    copies: f64,
    p50_ms: u64,
    p99_ms: u64,
    grafts: u64,
    haves: u64,
}

struct Scenario {
    name: &'static str,
    members: usize,
    messages: usize,
    pause_ms: u64,
    loss_percent: u64,
    /// Members that are replaced per minute, per hundred.
    churn_percent: usize,
    len: usize,
}

fn measure(seed: u64, scenario: &Scenario) -> (Figures, World) {
    let mut world = World::new(seed, scenario.members);
    world.run(ms(10_000));
    world.loss_percent = scenario.loss_percent;
    let mut said: Vec<(ShortId, Instant)> = Vec::new();
    let mut replaced_by = 0;
    let mut warm = (0, Instant::ZERO);
    for n in 0..scenario.messages {
        if n == WARM_UP {
            world.run(ms(2_000));
            warm = (world.copies, world.now);
            world.counts.clear();
        }
        let from = world.random();
        let id = world.publish(from, scenario.len);
        said.push((id, world.now));
        world.run(ms(scenario.pause_ms));
        let per_minute = scenario.members * scenario.churn_percent / 100;
        let elapsed_ms = usize::try_from(world.now.as_micros() / 1_000).unwrap() - 10_000;
        while replaced_by < per_minute * elapsed_ms / 60_000 {
            replaced_by += 1;
            let gone = world.random();
            world.leave(gone);
            world.join();
        }
    }
    world.run(ms(10_000));
    let figures = evaluate(&world, scenario, &said, warm);
    println!(
        "{:<22} {:>7} of {:>7}, {:>7} in 3 s, p50 {:>4} ms, p99 {:>4} ms, {:.3} copies, \
         {:>5.2} haves and {:>6.4} grafts per delivery",
        scenario.name,
        figures.delivered,
        figures.wanted,
        figures.within_3_s,
        figures.p50_ms,
        figures.p99_ms,
        figures.copies,
        figures.haves as f64 / figures.wanted as f64,
        figures.grafts as f64 / figures.wanted as f64,
    );
    (figures, world)
}

fn evaluate(
    world: &World,
    scenario: &Scenario,
    said: &[(ShortId, Instant)],
    (copies_before, warm_at): (u64, Instant),
) -> Figures {
    let mut figures = Figures::default();
    let mut delays = Vec::new();
    for (id, at) in said {
        // Who has just come has no neighbours yet, and learns of it by repair.
        let there = world.members.values().filter(|m| m.joined + ms(5_000) <= *at);
        for member in there {
            figures.wanted += 1;
            if let Some(got) = member.held.get(id) {
                figures.delivered += 1;
                delays.push(*got - *at);
            }
        }
    }
    delays.sort_unstable();
    figures.within_3_s = delays.partition_point(|delay| *delay <= ms(3_000));
    let of = |percent: usize| delays[(delays.len() - 1) * percent / 100].as_millis();
    figures.p50_ms = u64::try_from(of(50)).unwrap();
    figures.p99_ms = u64::try_from(of(99)).unwrap();
    let after = said.iter().filter(|(_, at)| *at >= warm_at).count();
    let deliveries = after * (scenario.members - 1);
    figures.copies = (world.copies - copies_before) as f64 / deliveries as f64;
    figures.grafts = world.counts.get("graft").copied().unwrap_or(0);
    figures.haves = world.counts.get("have").copied().unwrap_or(0);
    figures
}

fn share(part: usize, of: usize) -> f64 {
    part as f64 / of as f64
}

const PLAIN: Scenario = Scenario {
    name: "300 members",
    members: 300,
    messages: 200,
    pause_ms: 200,
    loss_percent: 0,
    churn_percent: 0,
    len: 500,
};

#[test]
fn all_members_get_all_entries_about_once() {
    let (figures, world) = measure(1, &PLAIN);
    assert_eq!(figures.delivered, figures.wanted);
    assert!(figures.copies <= 1.3, "{figures:?}");
    assert!(share(figures.within_3_s, figures.wanted) >= 0.999, "{figures:?}");
    for member in world.members.values() {
        let neighbors = member.gossip.neighbors().count();
        assert!((4..=8).contains(&neighbors), "{neighbors}");
    }
}

#[test]
fn what_is_lost_is_grafted() {
    let (figures, _) =
        measure(2, &Scenario { name: "10 % lost", loss_percent: 10, messages: 80, ..PLAIN });
    assert!(share(figures.delivered, figures.wanted) >= 0.999, "{figures:?}");
}

#[test]
fn members_that_come_and_go_do_not_cut_it() {
    let churn = Scenario {
        name: "10 % replaced a minute",
        churn_percent: 10,
        pause_ms: 1_000,
        messages: 60,
        ..PLAIN
    };
    let (figures, world) = measure(3, &churn);
    assert!(world.is_connected());
    assert!(share(figures.delivered, figures.wanted) >= 0.999, "{figures:?}");
}

#[test]
fn large_entries_are_announced_rather_than_copied() {
    let large = Scenario { name: "16 KiB", len: 16 << 10, messages: 40, ..PLAIN };
    let (figures, _) = measure(4, &large);
    assert_eq!(figures.delivered, figures.wanted);
    assert!(figures.copies <= 1.4, "{figures:?}");
}

#[test]
fn entries_in_quick_succession_share_announcements() {
    // Ten of them at a time are on their way, so the tree takes longer to become one.
    let quick =
        Scenario { name: "20 a second", pause_ms: 50, messages: 120, members: 100, ..PLAIN };
    let (figures, _) = measure(7, &quick);
    assert_eq!(figures.delivered, figures.wanted);
    assert!(figures.copies <= 1.5, "{figures:?}");
    assert!((figures.haves as f64) < 3.0 * figures.wanted as f64, "{figures:?}");
}

#[test]
fn two_halves_merge_once_the_index_knows_both() {
    let mut world = World::new(8, 0);
    world.is_halved = true;
    for _ in 0..60 {
        world.join();
    }
    world.run(ms(60_000));
    assert!(!world.is_connected());
    world.is_halved = false;
    world.run(ms(900_000));
    assert!(world.is_connected());
    let from = world.random();
    let id = world.publish(from, 100);
    world.run(ms(5_000));
    assert!(world.members.values().all(|member| member.held.contains_key(&id)));
    // What it costs to do nothing: messages of a member in a minute.
    world.counts.clear();
    world.run(ms(300_000));
    let messages: u64 = world.counts.values().sum();
    let of_each = messages as f64 / 60.0 / 5.0;
    println!("at rest: {of_each:.1} actions of a member in a minute: {:?}", world.counts);
    assert!(of_each < 15.0, "{of_each}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let small = Scenario {
        name: "30 members, twice",
        members: 30,
        messages: 30,
        loss_percent: 5,
        churn_percent: 50,
        ..PLAIN
    };
    let (one, two, other) = (measure(5, &small), measure(5, &small), measure(6, &small));
    assert_eq!(one.1.trace, two.1.trace);
    assert_ne!(one.1.trace, other.1.trace);
}
