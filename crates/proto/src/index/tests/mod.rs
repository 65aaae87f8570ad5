//! Tests of the index as a machine of its own: alone among peers that say whatever the test likes,
//! and in a network of indices without NATs.

mod alone;
pub(crate) mod disk;
pub(crate) mod inputs;
mod net;
mod seats;

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;

use self::net::Net;
use super::*;
use crate::key::TOPIC_EPOCH_S;
use crate::record::{CLOCK_SKEW, Content, Record, ttl_max};
use crate::wire::index::{RecordKind, StoreOutcome};

const NETWORK: &str = "test";
const HOUR: Duration = Duration::from_secs(3600);
/// Six in the morning.
const START: UnixTime = UnixTime::from_secs(20_000 * TOPIC_EPOCH_S + 6 * 3600);
const START_KEY: Key = Key::from_bytes([0x5A; 32]);
const QUERY: QueryId = QueryId(1);

fn secret(n: usize) -> SecretKey {
    let mut bytes = [1; 32];
    bytes[..2].copy_from_slice(&u16::try_from(n).unwrap().to_be_bytes());
    SecretKey::from_bytes(bytes)
}

/// Remembered, for it takes longer than most of what a node does.
fn id(n: usize) -> NodeId {
    thread_local!(static IDS: RefCell<BTreeMap<usize, NodeId>> = RefCell::default());
    IDS.with_borrow_mut(|ids| *ids.entry(n).or_insert_with(|| secret(n).id()))
}

/// Where a node is, each in a network of its own.
fn addr(n: usize) -> PeerAddr {
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    let addr = std::net::SocketAddr::from(([5, high, low, 1], 4000));
    PeerAddr { addrs: vec![addr], ..id(n).into() }
}

fn publish(name: &str) -> Command {
    let (name, value) = (name.to_owned(), Bytes::from_static(b"value"));
    Command::Publish { query: QUERY, name, value }
}

/// Looks for the value `name` of node `author`.
fn find_value(author: usize) -> Command {
    let key = Key::of_value(id(author), "name");
    Command::Find { query: QUERY, key, kind: RecordKind::Value, limit: 1 }
}

fn small() -> IndexConfig {
    IndexConfig { replicas: 6, warm_near: 3, warm_random: 2, ..IndexConfig::default() }
}

#[test]
fn a_value_is_found_by_all_and_the_newest_wins() {
    let mut net = Net::new(30, &small());
    net.settle();
    let kept = net.publish(3, "name", "one");
    assert!(kept.0 >= 6 && kept.0 >= kept.1, "{kept:?}");
    for reader in [7, 19, 29] {
        assert_eq!(net.get(reader, 3, "name"), Some("one".into()));
    }
    net.publish(3, "name", "two");
    for reader in [8, 20, 28] {
        assert_eq!(net.get(reader, 3, "name"), Some("two".into()));
    }
    assert_eq!(net.get(9, 3, "another"), None);
    assert_eq!(net.get(9, 4, "name"), None, "another author's");
}

#[test]
fn everybody_fills_the_table_and_knows_how_many_there_are() {
    let mut net = Net::new(40, &IndexConfig { replicas: 10, ..small() });
    net.settle();
    for peer in &net.peers {
        let stats = peer.index.stats();
        assert!(stats.table >= 15, "{stats:?}");
        assert_eq!(stats.warm, 5, "{stats:?}");
        assert!(stats.nodes.is_some_and(|nodes| (15.0..110.0).contains(&nodes)), "{stats:?}");
        assert!(peer.index.jobs.is_empty() && peer.index.waiting.is_empty());
    }
}

#[test]
fn the_first_newcomer_to_whom_nobody_comes_finds_the_later_ones() {
    let mut net = Net::new(1, &small());
    let first = net.add(IndexConfig { serves: false, ..small() });
    net.link(first, 0);
    net.run(Duration::from_secs(1));
    for _ in 0..20 {
        let newcomer = net.add(small());
        net.link(newcomer, 0);
    }
    net.settle();
    let stats = net.peers[first].index.stats();
    assert!(stats.warm == 5 && stats.table >= 8, "{stats:?}");
}

#[test]
fn values_outlive_all_who_kept_them_at_first() {
    let mut net = Net::new(16, &small());
    net.settle();
    net.publish(3, "name", "lasts");
    net.kill(3);
    let first = net.holders(3, "name");
    assert!(first.len() >= 6);
    for holder in first.iter().copied() {
        let newcomer = net.add(small());
        net.link(newcomer, (0..newcomer).find(|n| net.peers[*n].is_alive && *n != holder).unwrap());
        net.run(Duration::from_secs(60));
        net.kill(holder);
    }
    net.run(Duration::from_secs(60));
    let holders = net.holders(3, "name");
    assert!(holders.len() >= 3 && holders.iter().all(|n| !first.contains(n)), "{holders:?}");
    let reader = net.add(small());
    net.link(reader, net.alive());
    net.run(Duration::from_secs(20));
    assert_eq!(net.get(reader, 3, "name"), Some("lasts".into()));
}

#[test]
fn after_a_restart_the_newer_is_kept_and_the_older_refused() {
    let mut net = Net::new(8, &small());
    net.settle();
    net.publish(3, "name", "old");
    let old = net.peers[3].disk.own.values().next().unwrap().clone();
    net.publish(3, "name", "new");
    net.kill(3);
    let holders = net.holders(3, "name");
    for holder in holders.iter().copied() {
        net.restart(holder, small());
    }
    net.settle();
    for holder in holders.iter().copied() {
        assert_eq!(net.store_by_hand(holder, &old), Some(StoreOutcome::Stale), "{holder}");
    }
    assert_eq!(net.get(1, 3, "name"), Some("new".into()));
    // Also when the record itself is gone from disk, and only its sequence is remembered.
    for holder in holders.iter().copied() {
        net.peers[holder].disk.records.clear();
        net.restart(holder, small());
        net.link(holder, net.alive());
        net.run(Duration::from_secs(1));
        let outcome = net.store_by_hand(holder, &old);
        assert_eq!(outcome, Some(StoreOutcome::Stale), "{holder}");
    }
}

#[test]
fn sixty_announcers_are_found_page_by_page() {
    let mut net = Net::new(66, &small());
    net.settle();
    for n in 0..60 {
        let announce = Command::Announce { query: QUERY, secret: START_KEY };
        net.command(n, announce);
    }
    net.run(Duration::from_secs(10));
    let kept = net.peers[..60].iter().filter(|peer| peer.kept().is_some_and(|(kept, _)| kept >= 6));
    assert_eq!(kept.count(), 60);
    // Only those near the key have them, all of them.
    let key = Key::of_topic(&START_KEY, Key::topic_epoch(START));
    let held = |peer: &net::Peer| peer.disk.records.keys().filter(|slot| slot.key == key).count();
    let mut near: Vec<_> = (0..66).collect();
    near.sort_by_key(|n| Key::of_node(id(*n)).distance(&key));
    assert!(near[..4].iter().all(|n| held(&net.peers[*n]) >= 59), "at the nearest");
    assert!(near[40..].iter().all(|n| held(&net.peers[*n]) == 0), "and nowhere far");
    let found = net.lookup(63, 1000);
    assert_eq!(found.len(), 60, "all of them");
    assert_eq!(net.lookup(64, 10).len(), 10, "as many as are wanted");
}

#[test]
fn who_stops_announcing_is_found_no_longer_when_that_has_expired() {
    let mut net = Net::new(16, &small());
    net.settle();
    for n in 0..12 {
        net.command(n, Command::Announce { query: QUERY, secret: START_KEY });
    }
    net.run(HOUR);
    assert_eq!(net.lookup(15, 100).len(), 12);
    for n in 0..6 {
        net.command(n, Command::Cancel(QUERY));
    }
    net.run(HOUR * 3);
    let found = net.lookup(14, 100);
    assert_eq!(found, (6..12).map(id).collect(), "the others go on");
}

#[test]
fn who_does_not_serve_may_ask_and_is_not_asked() {
    let mut net = Net::new(12, &small());
    let client = net.add(IndexConfig { serves: false, warm_near: 0, warm_random: 0, ..small() });
    net.link(client, 0);
    net.settle();
    let kept = net.publish(client, "name", "from a guest");
    assert!(kept.0 >= 6, "{kept:?}");
    assert_eq!(net.get(5, client, "name"), Some("from a guest".into()));
    net.publish(5, "name", "to a guest");
    assert_eq!(net.get(client, 5, "name"), Some("to a guest".into()));
    let peer = &net.peers[client];
    assert_eq!((peer.index.stats().records, peer.index.stats().requests_served), (0, 0));
    assert!(peer.disk.records.is_empty());
}

#[test]
fn a_peer_is_located_with_those_that_can_signal_for_it() {
    let mut net = Net::new(40, &small());
    net.settle();
    net.close_idle();
    let unlinked = (1..40).find(|n| !net.is_linked(0, *n)).expect("not everybody");
    net.search(0, unlinked);
    let located: Vec<_> =
        net.peers[0].located.iter().filter(|(at, _)| at.id == id(unlinked)).collect();
    assert!(!located.is_empty());
    let vias: Vec<_> = located.iter().flat_map(|(_, vias)| vias).collect();
    assert!(!vias.is_empty());
    for via in vias {
        assert!(net.is_linked(net.number(*via).unwrap(), unlinked), "it is linked to it");
    }
    assert_eq!(located[0].0.addrs, addr(unlinked).addrs);
    net.search(0, 999);
    assert!(net.peers[0].searched.contains(&id(999)), "the search for nobody ends");
}

#[test]
fn a_quarter_dead_and_a_broken_disk_are_survived() {
    let mut net = Net::new(32, &small());
    net.settle();
    for n in (0..32).filter(|n| n % 4 == 1) {
        net.kill(n);
    }
    net.peers[2].disk.is_broken = true;
    net.peers[6].disk.is_broken = true;
    let (kept, wanted) = net.publish(3, "name", "one");
    assert!(kept >= 4 && wanted <= 6, "{kept} of {wanted}");
    assert!(!net.holders(3, "name").contains(&2));
    assert_eq!(net.get(12, 3, "name"), Some("one".into()));
    net.command(2, publish("name"));
    net.run(Duration::from_secs(1));
    assert!(matches!(net.peers[2].log.last(), Some(Event::Failed { .. })));
}

/// A network with a bit of everything, and its digest.
fn eventful() -> Option<u64> {
    let mut net = Net::new(16, &small());
    net.trace = Some(DefaultHasher::new());
    net.settle();
    net.publish(3, "name", "one");
    net.kill(5);
    net.get(9, 3, "name");
    net.command(7, Command::Announce { query: QUERY, secret: START_KEY });
    net.run(HOUR);
    net.lookup(2, 10);
    net.trace.map(|trace| trace.finish())
}

#[test]
fn the_same_network_twice_leaves_the_same_trace() {
    assert_eq!(eventful(), eventful());
}
