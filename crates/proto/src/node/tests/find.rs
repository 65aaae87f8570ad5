//! Towns of nodes that find each other by the index, through real gates, relays and NATs.

use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;

use super::world::{IDLE, Nat, World, config, id};
use super::*;
use crate::bootstrap::How;
use crate::index::{self, Command, IndexConfig, QueryId};
use crate::key::Key;
use crate::wire::index::RecordKind;

const KEPT: QueryId = QueryId(1);
const FOUND: QueryId = QueryId(2);

fn indexed() -> NodeConfig {
    let index = IndexConfig { replicas: 6, ..IndexConfig::default() };
    NodeConfig { index, ..config() }
}

impl World {
    /// What the index of a host said.
    fn said(&self, n: usize) -> impl Iterator<Item = &index::Event> {
        self.hosts[n].events().filter_map(|(_, event)| match event {
            Event::Index(event) => Some(event),
            _ => None,
        })
    }

    fn boot(&mut self, n: usize, from: &[usize]) {
        let peer = |m: &usize| PeerAddr { addrs: vec![self.outside(*m, n)], ..id(*m).into() };
        let cached = from.iter().map(peer).collect();
        self.input(n, Input::Boot(cached));
    }

    fn newcomer(&mut self, nat: Nat, from: &[usize]) -> usize {
        let site = 100 + u8::try_from(self.hosts.len()).unwrap();
        let n = self.add_with(nat, site, indexed());
        self.boot(n, from);
        n
    }

    fn publish(&mut self, n: usize, name: &str, value: &'static str) -> Option<(usize, usize)> {
        let (name, value) = (name.to_owned(), Bytes::from_static(value.as_bytes()));
        self.input(n, Input::Index(Command::Publish { query: KEPT, name, value }));
        self.run(secs(10));
        let kept = self.said(n).filter_map(|event| match event {
            index::Event::Kept { query: KEPT, kept, wanted, .. } => Some((*kept, *wanted)),
            _ => None,
        });
        kept.last()
    }

    /// The value that a host finds, the last one named.
    fn get(&mut self, n: usize, author: usize, name: &str) -> Option<Bytes> {
        self.hosts[n].log.clear();
        let key = Key::of_value(id(author), name);
        let find = Command::Find { query: FOUND, key, kind: RecordKind::Value, limit: 1 };
        self.input(n, Input::Index(find));
        self.run(secs(10));
        let is_done =
            |event: &index::Event| matches!(event, index::Event::Done { query: FOUND, .. });
        assert_eq!(self.said(n).filter(|event| is_done(event)).count(), 1, "the look-up ends");
        let values = self.said(n).filter_map(|event| match event {
            index::Event::Record { query: FOUND, record } => match record.content() {
                crate::record::Content::Value { value, .. } => Some(value.clone()),
                _ => None,
            },
            _ => None,
        });
        values.last()
    }

    /// Hosts that are alive and have a value on disk.
    fn holders(&self, author: usize, name: &str) -> Vec<usize> {
        let key = Key::of_value(id(author), name);
        let holds = |host: &world::Host| host.disk.records.keys().any(|slot| slot.key == key);
        let alive = self.hosts.iter().enumerate().filter(|(_, host)| host.is_alive);
        alive.filter(|(_, host)| holds(host)).map(|(n, _)| n).collect()
    }
}

/// A town that knows one public node: host 0. All others are behind NATs.
fn town(size: usize) -> World {
    town_with(size, None)
}

fn town_with(size: usize, trace: Option<DefaultHasher>) -> World {
    let mut world = World::new();
    world.trace = trace;
    world.is_busy = false;
    world.newcomer(Nat::None, &[]);
    for _ in 1..size {
        world.newcomer(Nat::Easy, &[0]);
        world.run(Duration::from_millis(200));
    }
    world.run(secs(60));
    world
}

#[test]
fn everybody_joins_through_one_public_node_and_gets_warm_connections() {
    let world = town(14);
    let mut estimates = Vec::new();
    for n in 0..14 {
        let host = &world.hosts[n];
        let stats = host.node.index_stats();
        assert!(host.node.is_joined());
        assert_eq!(stats.warm, 8, "{n}: {stats:?}");
        assert!(stats.table >= stats.warm, "{n}: {stats:?}");
        estimates.push(stats.nodes.expect("a look-up was made"));
        // Seconds are cut, so they may differ by one.
        assert!(stats.clock_skew_s.is_some_and(|skew| skew.abs() <= 1), "{n}: {stats:?}");
        let how = if n == 0 { How::Incoming } else { How::Cache };
        assert!(host.has_seen(&Event::Joined { how, peers: 1 }), "{n}");
        assert_eq!(host.node.is_open(), n == 0, "{n}");
        assert!(!host.node.our_homes().is_empty() || n == 0, "{n} has homes");
        // Its homes are those that it keeps.
        for home in host.node.our_homes() {
            assert!(host.node.is_kept(home.id));
        }
    }
    // Who looked up when there were few is off until its next look-up.
    let good = estimates.iter().filter(|nodes| (5.0..42.0).contains(*nodes)).count();
    assert!(good >= 10, "{estimates:?}");
}

#[test]
fn a_bare_id_behind_a_nat_is_reached_after_the_public_node_died() {
    let mut world = town(12);
    world.kill(0);
    world.run(IDLE + secs(60));
    let pairs: Vec<_> = (1..12).flat_map(|a| (1..a).map(move |b| (a, b))).collect();
    let far = |world: &World, (a, b): (usize, usize)| world.links(a, b).is_empty();
    let unlinked: Vec<_> = pairs.into_iter().filter(|pair| far(&world, *pair)).take(3).collect();
    assert!(unlinked.len() == 3, "not everybody is linked to everybody");
    for (a, b) in unlinked {
        world.want(a, b, false, false);
        world.run(secs(4));
        assert_eq!(world.route(a, b), Some(Route::Direct), "{a} to {b}");
    }
}

#[test]
fn a_value_is_found_by_all_and_outlives_its_author() {
    let mut world = town(10);
    let kept = world.publish(3, "greeting", "one");
    assert!(kept.is_some_and(|(kept, wanted)| kept >= 6 && kept >= wanted), "{kept:?}");
    assert_eq!(world.get(5, 3, "greeting"), Some("one".into()));
    world.publish(3, "greeting", "two");
    assert_eq!(world.get(6, 3, "greeting"), Some("two".into()), "the newer one");
    world.kill(3);
    world.run(IDLE);
    for reader in [1, 7, 9] {
        assert_eq!(world.get(reader, 3, "greeting"), Some("two".into()));
    }
    assert_eq!(world.get(1, 3, "another"), None);
}

#[test]
fn holders_die_one_by_one_and_newcomers_take_over() {
    let mut world = town(8);
    world.publish(2, "greeting", "lasts");
    world.kill(2);
    let first = world.holders(2, "greeting");
    for holder in first.iter().copied() {
        world.newcomer(Nat::Easy, &[0]);
        world.run(secs(40));
        if holder != 0 {
            world.kill(holder);
        }
    }
    world.run(IDLE + secs(30));
    let reader = world.newcomer(Nat::Easy, &[0]);
    world.run(secs(5));
    world.kill(0);
    world.run(IDLE);
    let holders = world.holders(2, "greeting");
    assert!(!holders.is_empty() && holders.iter().all(|n| !first.contains(n)), "{holders:?}");
    assert_eq!(world.get(reader, 2, "greeting"), Some("lasts".into()));
}

#[test]
fn who_has_joined_nobody_is_told_at_once() {
    let mut world = World::new();
    let n = world.add_with(Nat::Easy, 100, indexed());
    world.boot(n, &[]);
    let find = Command::Find {
        query: FOUND,
        key: Key::of_value(id(1), "x"),
        kind: RecordKind::Value,
        limit: 1,
    };
    world.input(n, Input::Index(find));
    assert!(world.hosts[n].has_seen(&Event::Index(index::Event::NotJoined(FOUND))));
    world.want(n, 1, false, false);
    assert!(world.hosts[n].has_seen(&Event::Unreachable(id(1))), "there is nobody to ask");
    world.run(secs(30));
    assert!(world.hosts[n].has_seen(&Event::Alone));
    assert!(!world.hosts[n].events().any(|(_, event)| matches!(event, Event::Joined { .. })));
    assert!(!world.hosts[n].node.is_joined());
}

#[test]
fn a_node_that_restarts_finds_its_peers_and_republishes() {
    let mut world = town(8);
    world.publish(3, "greeting", "again");
    let peers: Vec<_> = (0..8).filter(|n| *n != 3 && !world.links(3, *n).is_empty()).collect();
    world.restart(3, indexed());
    world.run(secs(1));
    world.boot(3, &peers);
    world.run(secs(30));
    assert!(world.hosts[3].node.is_joined());
    let stores = world.hosts[3].log.iter().filter(|(_, output)| {
        matches!(
            output,
            Output::Send { message: NodeMessage::Index(crate::wire::IndexMessage::Store(_)), .. }
        )
    });
    assert!(stores.count() >= 6, "its value, and where it is");
    // Everybody else forgets it; only what the author has on disk brings it back.
    for host in &mut world.hosts {
        host.disk.records.clear();
    }
    for n in (0..8).filter(|n| *n != 3) {
        world.restart(n, indexed());
        world.boot(n, &[3, 0]);
    }
    world.run(secs(60));
    assert_eq!(world.get(6, 3, "greeting"), Some("again".into()));
}

#[test]
fn links_that_nobody_keeps_are_closed_and_quiet_nodes_sleep() {
    let mut world = town(10);
    world.publish(3, "greeting", "one");
    world.get(9, 3, "greeting");
    world.run(secs(150));
    for a in 0..10 {
        for b in 0..10 {
            let keeps = |a: usize, b: usize| world.hosts[a].node.is_kept(id(b));
            let are_kept = a == b || keeps(a, b) || keeps(b, a);
            assert!(are_kept || world.links(a, b).is_empty(), "{a} and {b} keep a useless link");
        }
    }
    // Nor does one that does not need it keep a relayed path.
    for a in 0..10 {
        for link in world.hosts[a].links.keys() {
            let paths = world.hosts[a].node.paths(*link);
            assert!(paths.iter().all(|path| path.remote.is_direct()), "{a}: {paths:?}");
        }
    }
    let before: Vec<_> = world.hosts.iter().map(|host| host.fired).collect();
    world.run(secs(1800));
    for (host, before) in world.hosts.iter().zip(before) {
        let fired = host.fired - before;
        assert!(fired < 1500, "{fired} time-outs in half an hour of nothing");
    }
}

fn eventful_town() -> Option<u64> {
    let mut world = town_with(8, Some(DefaultHasher::new()));
    world.publish(3, "greeting", "one");
    world.kill(0);
    world.want(2, 5, false, false);
    world.get(4, 3, "greeting");
    world.trace.map(|trace| trace.finish())
}

#[test]
fn the_same_town_twice_leaves_the_same_trace() {
    assert_eq!(eventful_town(), eventful_town());
}
