//! A world of nodes with static tables, in which whole look-ups are made.
//!
//! Nodes answer out of real tables after a round trip of their own (and one or two more if they
//! must be dialled or signalled first); the dead stay silent and are still in everybody's tables;
//! adversaries name nobody but each other, and claim to be linked to them and that they hold seats.
//! If there are seats, each has all records and knows the others, and everybody is linked to three.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::index::size::SizeEstimate;
use crate::index::table::{Table, TableConfig};
use crate::wire::index::{RecordKind, SEATS_NAMED_MAX};
use crate::wire::node::Home;

const K: usize = 20;
const WARM: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Honest,
    Dead,
    Adversary,
    Sybil,
}

struct Node {
    key: Key,
    peer: PeerAddr,
    kind: Kind,
    rtt: Duration,
}

struct World {
    /// In the order of their keys.
    nodes: Vec<Node>,
    by_id: BTreeMap<NodeId, usize>,
    tables: BTreeMap<usize, Table>,
    /// Who holds a seat.
    seats: Vec<usize>,
    seed: u64,
}

struct Outcome {
    lookup: Lookup,
    elapsed: Duration,
    /// Who was asked, in order.
    trace: Vec<NodeId>,
}

fn random_id(rng: &mut ChaCha8Rng) -> NodeId {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    NodeId::from_bytes(bytes)
}

fn random_key(rng: &mut ChaCha8Rng) -> Key {
    Key::of_node(random_id(rng))
}

impl World {
    /// `size` nodes of which these percentages are dead and adversaries.
    fn new(size: usize, dead: u32, adversaries: u32, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = Self {
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            tables: BTreeMap::new(),
            seats: Vec::new(),
            seed,
        };
        for _ in 0..size {
            let draw = rng.next_u32() % 100;
            let kind = match draw {
                draw if draw < dead => Kind::Dead,
                draw if draw < dead + adversaries => Kind::Adversary,
                _ => Kind::Honest,
            };
            let id = random_id(&mut rng);
            world.add(id, kind, &mut rng);
        }
        world.sort();
        world
    }

    /// A node in a /24 of its own; three of five can only be signalled, through two open nodes.
    fn add(&mut self, id: NodeId, kind: Kind, rng: &mut ChaCha8Rng) {
        let number = u32::try_from(self.nodes.len()).unwrap();
        let addr = SocketAddr::from((Ipv4Addr::from_bits((20 << 24) + (number << 8) + 1), 4433));
        let mut peer = PeerAddr { id, addrs: vec![addr], homes: Vec::new() };
        if kind != Kind::Sybil && self.nodes.len() > 10 && rng.next_u32() % 5 < 3 {
            let at = rng.next_u32() as usize % self.nodes.len();
            let open =
                self.nodes[at..].iter().chain(&self.nodes).filter(|n| n.peer.homes.is_empty());
            let home = |node: &Node| Home { id: node.peer.id, addrs: node.peer.addrs.clone() };
            peer.homes = open.take(2).map(home).collect();
        }
        let rtt = Duration::from_millis(u64::from(20 + rng.next_u32() % 180));
        self.nodes.push(Node { key: Key::of_node(id), peer, kind, rtt });
    }

    fn sort(&mut self) {
        self.nodes.sort_by_key(|node| node.key);
        self.by_id = self.nodes.iter().enumerate().map(|(at, node)| (node.peer.id, at)).collect();
    }

    /// Puts nodes nearer to `target` than any other, each in a network of its own.
    fn crowd(&mut self, target: &Key, sybils: usize, rng: &mut ChaCha8Rng) {
        let nearest = self.nodes.iter().map(|node| node.key.distance(target)).min().unwrap();
        let wanted = self.nodes.len() + sybils;
        while self.nodes.len() < wanted {
            let id = random_id(rng);
            if Key::of_node(id).distance(target) < nearest {
                self.add(id, Kind::Sybil, rng);
            }
        }
        self.sort();
    }

    /// What a node knows: of each bucket up to twenty, at random.
    fn table(&mut self, at: usize) -> &Table {
        let (nodes, seed) = (&self.nodes, self.seed);
        self.tables.entry(at).or_insert_with(|| {
            let own = &nodes[at];
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ at as u64);
            let mut table = Table::new(own.peer.id, TableConfig::default());
            let mut run = &nodes[..];
            for bit in 0.. {
                let is_one = |key: &Key| key.as_bytes()[bit / 8] & (0x80 >> (bit % 8)) != 0;
                let (zeros, ones) = run.split_at(run.partition_point(|node| !is_one(&node.key)));
                let (bucket, rest) = if is_one(&own.key) { (zeros, ones) } else { (ones, zeros) };
                // Neighbours in a run that begins anywhere are as good as any.
                let from = rng.next_u32() as usize % bucket.len().max(1);
                let step = (bucket.len() / K).max(1);
                for node in bucket.iter().cycle().skip(from).step_by(step).take(K.min(bucket.len()))
                {
                    table.insert(Instant::ZERO, &node.peer, None);
                }
                if rest.len() <= 1 {
                    break;
                }
                run = rest;
            }
            table
        })
    }

    /// Lends seats to some honest nodes, anywhere.
    fn elect(&mut self, seats: usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        while self.seats.len() < seats {
            let at = self.honest(&mut rng);
            if !self.seats.contains(&at) {
                self.seats.push(at);
            }
        }
    }

    /// Some of the seats without one, in turns.
    fn draw_seats(&self, but: usize, n: usize) -> impl Iterator<Item = &Node> {
        let seats = self.seats.iter().filter(move |seat| **seat != but);
        seats.cycle().skip(but).take(n.min(self.seats.len())).map(|seat| &self.nodes[*seat])
    }

    /// Contacts that a node names, which of them it is linked to, those warm to it, and which are
    /// seats.
    fn answer(&mut self, at: usize, target: &Key) -> (Vec<PeerAddr>, u32, u32) {
        let kind = self.nodes[at].kind;
        if kind == Kind::Honest {
            let own = self.nodes[at].key;
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ at as u64);
            let table = self.table(at);
            let warm: Vec<_> = table.nearest(&own, WARM).iter().map(|entry| entry.id()).collect();
            let near = table.answer(target, CONTACTS_MAX, &mut rng);
            let near: Vec<_> = near.into_iter().cloned().collect();
            if self.seats.contains(&at) {
                let seats = self.draw_seats(at, SEATS_NAMED_MAX).map(|node| node.peer.clone());
                let near = near.iter().take(CONTACTS_MAX - SEATS_NAMED_MAX);
                return (seats.chain(near.map(|entry| entry.peer())).collect(), 0, 0b1111);
            }
            let bit = |(bit, id): (usize, NodeId)| u32::from(warm.contains(&id)) << bit;
            let linked = near.iter().map(|entry| entry.id()).enumerate().map(bit).sum();
            return (near.iter().map(|entry| entry.peer()).collect(), linked, 0);
        }
        // Everybody who is in on it, in turns of twelve.
        let mut own: Vec<_> = self.nodes.iter().filter(|node| node.kind == kind).collect();
        own.sort_by_key(|node| node.key.distance(target));
        let skip = if kind == Kind::Sybil { at * CONTACTS_MAX % own.len() } else { 0 };
        let named = own.iter().cycle().skip(skip).take(CONTACTS_MAX.min(own.len()));
        (named.map(|node| node.peer.clone()).collect(), u32::MAX, u32::MAX)
    }

    /// What a node begins with: its warm links, four near and four anywhere, and its table.
    fn start(&mut self, at: usize, target: &Key) -> Vec<Candidate> {
        let (own, seed) = (self.nodes[at].key, self.seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let dead: Vec<_> =
            self.nodes.iter().filter(|n| n.kind == Kind::Dead).map(|n| n.peer.id).collect();
        let table = self.table(at);
        let is_up = |entry: &crate::index::table::Entry| dead.binary_search(&entry.id()).is_err();
        let mut warm = table.nearest_where(&own, WARM, is_up);
        warm.extend(table.random(&mut rng, WARM, is_up));
        let linked = warm.into_iter().map(|entry| Candidate {
            is_linked: true,
            rtt: Some(Duration::from_millis(80)),
            ..entry.candidate()
        });
        let linked: Vec<_> = linked.collect();
        let near: Vec<_> =
            table.nearest(target, K).into_iter().map(|entry| entry.candidate()).collect();
        let home = |node: &Node| Candidate {
            peer: node.peer.clone(),
            is_linked: true,
            rtt: Some(node.rtt),
            vias: Vec::new(),
            is_stale: false,
            seat: Some(Seat::Elsewhere),
        };
        self.draw_seats(at, 3).map(home).chain(linked).chain(near).collect()
    }

    /// Makes a look-up by the node `at`; honest nodes within `holders` of the key have records.
    fn run(
        &mut self,
        at: usize,
        target: Key,
        purpose: Purpose,
        config: LookupConfig,
        holders: Option<Distance>,
    ) -> Outcome {
        let start = self.start(at, &target);
        let mut lookup = Lookup::new(target, self.nodes[at].peer.id, purpose, config, start);
        let mut now = Instant::ZERO;
        let mut answers = BTreeMap::new();
        let mut trace = Vec::new();
        loop {
            while let Some(ask) = lookup.poll(now) {
                let asked = self.by_id[&ask.peer.id];
                trace.push(ask.peer.id);
                let node = &self.nodes[asked];
                let legs =
                    if ask.is_linked { 0 } else { 1 + u32::from(!ask.peer.homes.is_empty()) };
                if node.kind != Kind::Dead {
                    answers.insert((now + node.rtt * (1 + legs), trace.len()), (asked, ask.target));
                }
            }
            if lookup.is_done() {
                break;
            }
            let timeout = lookup.poll_timeout().expect("somebody is waited for");
            match answers.first_key_value() {
                Some((&(at, number), &(from, asked_for))) if at <= timeout => {
                    now = at;
                    answers.remove(&(at, number));
                    let node = &self.nodes[from];
                    let is_near =
                        holders.is_some_and(|radius| node.key.distance(&target) <= radius);
                    let is_seat = holders.is_some() && self.seats.contains(&from);
                    let has_records = (is_near || is_seat) && node.kind == Kind::Honest;
                    let id = node.peer.id;
                    let (contacts, linked, seats) = self.answer(from, &asked_for);
                    lookup.answered(now, id, &contacts, linked, has_records);
                    for (_, seat) in (0..).zip(&contacts).filter(|(bit, _)| seats >> bit & 1 == 1) {
                        lookup.set_seat(seat.id);
                    }
                }
                _ => {
                    now = timeout;
                    lookup.handle_timeout(now);
                    assert!(lookup.poll_timeout().is_none_or(|next| next > now));
                }
            }
        }
        Outcome { lookup, elapsed: now - Instant::ZERO, trace }
    }

    /// The nodes nearest to a key that answer, without those of the asker.
    fn truth(&self, target: &Key, n: usize, kinds: &[Kind], without: usize) -> Vec<NodeId> {
        let nodes = self.nodes.iter().enumerate();
        let is_meant = |(at, node): &(usize, &Node)| *at != without && kinds.contains(&node.kind);
        let mut near: Vec<_> = nodes
            .filter(is_meant)
            .map(|(_, node)| (node.key.distance(target), node.peer.id))
            .collect();
        near.sort_unstable();
        near.into_iter().take(n).map(|(_, id)| id).collect()
    }

    fn honest(&self, rng: &mut ChaCha8Rng) -> usize {
        loop {
            let at = rng.next_u32() as usize % self.nodes.len();
            if self.nodes[at].kind == Kind::Honest {
                return at;
            }
        }
    }
}

/// Sums over many look-ups.
#[derive(Debug, Default)]
struct Tally {
    lookups: usize,
    /// Of the nodes that were to be found, how many were.
    found: usize,
    wanted: usize,
    /// Look-ups that found fewer than nine of ten.
    bad: usize,
    rounds: Vec<u32>,
    steps: Vec<u32>,
    asked: Vec<usize>,
    elapsed: Vec<Duration>,
    nodes: Option<f64>,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome, found: usize, wanted: usize) {
        self.lookups += 1;
        self.found += found;
        self.wanted += wanted;
        self.bad += usize::from(found * 10 < wanted * 9);
        self.rounds.push(outcome.lookup.rounds());
        self.steps.push(outcome.lookup.steps());
        self.asked.push(outcome.lookup.asked());
        self.elapsed.push(outcome.elapsed);
    }

    fn share(&self) -> f64 {
        self.found as f64 / self.wanted as f64
    }

    fn mean_rounds(&self) -> f64 {
        f64::from(self.rounds.iter().sum::<u32>()) / self.lookups as f64
    }

    fn mean_asked(&self) -> f64 {
        self.asked.iter().sum::<usize>() as f64 / self.lookups as f64
    }

    fn report(&mut self, name: &str) {
        self.rounds.sort_unstable();
        self.asked.sort_unstable();
        self.elapsed.sort_unstable();
        println!(
            "{name}: {} look-ups, found {:.4}, bad {}, rounds {:.2} (max {}, steps {:.2}), \
             requests {:.1} (max {}), time {:?} (p99 {:?}), estimate {:.0}",
            self.lookups,
            self.share(),
            self.bad,
            self.mean_rounds(),
            self.rounds[self.lookups - 1],
            f64::from(self.steps.iter().sum::<u32>()) / self.lookups as f64,
            self.mean_asked(),
            self.asked[self.lookups - 1],
            self.elapsed[self.lookups / 2],
            self.elapsed[self.lookups * 99 / 100],
            self.nodes.unwrap_or_default(),
        );
    }
}

/// Looks random keys up from random nodes and counts how many of the nearest honest nodes of the
/// twenty nearest that answer were found.
fn survey(world: &mut World, lookups: usize, config: LookupConfig) -> Tally {
    let mut rng = ChaCha8Rng::seed_from_u64(world.seed + 1);
    let mut tally = Tally::default();
    let mut size = SizeEstimate::new();
    for _ in 0..lookups {
        let (at, target) = (world.honest(&mut rng), random_key(&mut rng));
        let config = LookupConfig { region: size.region(K), ..config };
        let outcome = world.run(at, target, Purpose::Nodes, config, None);
        size.observe(&target, &outcome.lookup.distances());
        let alive = [Kind::Honest, Kind::Adversary, Kind::Sybil];
        let near = world.truth(&target, K, &alive, at);
        let honest = world.truth(&target, K, &[Kind::Honest], at);
        let wanted: Vec<_> = near.into_iter().filter(|id| honest.contains(id)).collect();
        let answered = outcome.lookup.nearest_found();
        let is_found = |id: &&NodeId| answered.iter().any(|peer| peer.id == **id);
        tally.add(&outcome, wanted.iter().filter(is_found).count(), wanted.len());
    }
    tally.nodes = size.nodes();
    tally
}

#[test]
fn finds_the_nearest_in_few_rounds() {
    let mut tally = survey(&mut World::new(2_000, 0, 0, 1), 20, LookupConfig::default());
    tally.report("quiet");
    assert_eq!(tally.found, tally.wanted);
    assert!(tally.mean_rounds() <= 3.5 && *tally.rounds.last().unwrap() <= 5);
    assert!(tally.mean_asked() <= 50.0);
    assert!((1_500.0..2_600.0).contains(&tally.nodes.unwrap()));
}

#[test]
fn the_dead_cost_little() {
    let mut tally = survey(&mut World::new(2_000, 30, 0, 2), 15, LookupConfig::default());
    tally.report("30 % dead");
    assert!(tally.share() >= 0.99 && tally.bad == 0);
}

#[test]
fn adversaries_hide_nobody() {
    let mut tally = survey(&mut World::new(2_000, 0, 20, 3), 15, LookupConfig::default());
    tally.report("20 % adversaries");
    assert!(tally.share() >= 0.99 && tally.bad == 0);
}

#[test]
fn sybils_around_a_key_do_not_displace_the_honest() {
    let mut tally = Tally::default();
    for seed in 0..2 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(1_000, 0, 0, 100 + seed);
        let target = random_key(&mut rng);
        world.crowd(&target, 45, &mut rng);
        for _ in 0..3 {
            let at = world.honest(&mut rng);
            let config =
                LookupConfig { region: Distance::of_fraction(0.02), ..LookupConfig::default() };
            let outcome = world.run(at, target, Purpose::Nodes, config, None);
            let answered = outcome.lookup.nearest_found();
            let honest = world.truth(&target, K, &[Kind::Honest], at);
            let honest = honest.iter().filter(|id| answered.iter().any(|peer| peer.id == **id));
            let honest = honest.count();
            assert!(honest >= 15, "{honest} honest nodes of {}", answered.len());
            tally.add(&outcome, honest, K);
        }
    }
    tally.report("45 Sybils");
}

#[test]
fn a_peer_is_found_by_its_id() {
    let mut world = World::new(2_000, 0, 0, 4);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut tally = Tally::default();
    for _ in 0..50 {
        let (at, wanted) = (world.honest(&mut rng), world.honest(&mut rng));
        let peer = world.nodes[wanted].peer.clone();
        let config = LookupConfig { region: Distance::of_fraction(0.01), ..Default::default() };
        let outcome = world.run(at, Key::of_node(peer.id), Purpose::Peer(peer.id), config, None);
        assert!(!outcome.trace.contains(&peer.id));
        let contact = outcome.lookup.contact(peer.id);
        tally.add(&outcome, usize::from(at == wanted || contact.is_some_and(|c| c.0 == peer)), 1);
    }
    tally.report("one peer");
    assert_eq!(tally.found, tally.wanted);
    assert!(tally.mean_rounds() <= 3.0);
}

/// Look-ups of records that all near the key have, and whether four answers ended each.
fn find_records(world: &mut World, name: &str) -> Tally {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut tally = Tally::default();
    let region = Distance::of_fraction(0.01);
    for _ in 0..30 {
        let (at, target) = (world.honest(&mut rng), random_key(&mut rng));
        let config = LookupConfig { region, enough: 4, ..LookupConfig::default() };
        let purpose = Purpose::Records(RecordKind::Value);
        let outcome = world.run(at, target, purpose, config, Some(region));
        let has_records =
            |known: &&Known| matches!(known.state, State::Answered { has_records: true, .. });
        let answers = outcome.lookup.known.values().filter(has_records).count();
        tally.add(&outcome, usize::from(answers == 4), 1);
    }
    tally.report(name);
    assert_eq!(tally.bad, 0);
    tally
}

#[test]
fn records_end_a_look_up_early_but_not_the_first_of_them() {
    find_records(&mut World::new(2_000, 10, 10, 5), "records");
}

#[test]
fn seats_have_it_after_two_round_trips() {
    let mut world = World::new(2_000, 10, 0, 5);
    world.elect(12);
    let tally = find_records(&mut world, "seats");
    assert!(tally.mean_rounds() <= 2.0 && tally.mean_asked() <= 8.0);
}

#[test]
fn who_only_claims_to_hold_a_seat_is_a_nuisance_and_no_more() {
    let quiet = find_records(&mut World::new(2_000, 10, 20, 7), "liars and no seats");
    assert!(quiet.mean_asked() <= 40.0);
    let mut world = World::new(2_000, 10, 20, 7);
    world.elect(12);
    let tally = find_records(&mut world, "liars and seats");
    assert!(tally.mean_asked() <= 12.0);
}

#[test]
fn the_same_world_gives_the_same_trace() {
    let run = || {
        let mut world = World::new(500, 20, 20, 6);
        let target = Key::topic_secret("a");
        let at = world.honest(&mut ChaCha8Rng::seed_from_u64(6));
        world.run(at, target, Purpose::Nodes, LookupConfig::default(), None).trace
    };
    assert_eq!(run(), run());
}
