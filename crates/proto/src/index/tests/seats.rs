//! Seats, given by hand: what they are for while they are there, and when they are gone.

use super::alone::Alone;
use super::*;
use crate::role::Region;
use crate::wire::index::{Find, Found, Offer, Store};

fn key(author: usize) -> Key {
    Key::of_value(id(author), "name")
}

fn value(author: usize) -> String {
    format!("of {author}")
}

/// Publishes a value of each of some nodes; returns what it costs, bytes of each.
fn publish_all(net: &mut Net, authors: &[usize]) -> usize {
    let before = net.bytes;
    for author in authors {
        let value = Bytes::from(value(*author));
        net.command(*author, Command::Publish { query: QUERY, name: "name".into(), value });
        net.run(Duration::from_secs(5));
        net.close_idle();
    }
    (net.bytes - before) / authors.len()
}

/// Has readers look all values up; returns the cost of each and the bytes of one.
fn read_all(net: &mut Net, authors: &[usize], readers: &[usize]) -> (Vec<LookupCost>, usize) {
    let before = net.bytes;
    let mut costs = Vec::new();
    for (author, reader) in authors.iter().zip(readers.iter().cycle()) {
        assert_eq!(net.get(*reader, *author, "name"), Some(value(*author).into()));
        costs.push(net.cost);
        net.close_idle();
    }
    (costs, (net.bytes - before) / authors.len())
}

fn mean_requests(costs: &[LookupCost]) -> f64 {
    costs.iter().map(|cost| cost.requests).sum::<usize>() as f64 / costs.len() as f64
}

/// Those of some nodes that do not have all of some values on disk.
fn lacking(net: &Net, nodes: &[usize], authors: &[usize]) -> usize {
    let holds = |n: usize, author: usize| {
        net.peers[n].disk.records.keys().any(|slot| slot.key == key(author))
    };
    nodes.iter().filter(|n| !authors.iter().all(|author| holds(**n, *author))).count()
}

#[test]
fn seats_answer_at_once_the_floor_without_them_and_new_ones_take_over() {
    // Who keeps what is the matter here, so signatures are taken for right.
    let config = IndexConfig { verify: |_, _, _| true, ..IndexConfig::default() };
    let mut net = Net::new(200, &config);
    net.settle();
    net.close_idle();
    let (early, late): (Vec<_>, Vec<_>) = ((10..13).collect(), (20..28).collect());
    let readers: Vec<_> = (100..150).collect();
    let floor_store = publish_all(&mut net, &early);
    let (_, floor_read) = read_all(&mut net, &early, &readers);

    // What was stored before there were any seats comes to them too.
    let seats: Vec<_> = (180..188).collect();
    net.elect(Region::ALL, &seats);
    net.run(Duration::from_secs(60));
    assert_eq!(lacking(&net, &seats, &early), 0);
    let store = publish_all(&mut net, &late);
    assert_eq!(lacking(&net, &seats, &late), 0, "three are told, and tell the others at once");
    let (costs, read) = read_all(&mut net, &late, &readers);
    assert!(costs.iter().all(|cost| cost.rounds <= 2), "{costs:?}");
    assert!(mean_requests(&costs) <= 8.0, "{costs:?}");
    assert!(store < floor_store * 3 / 4, "{store} bytes for {floor_store} to store one");
    assert!(read < floor_read * 2 / 3, "{read} bytes for {floor_read} to find one");
    println!("bytes to store: {floor_store}, {store}; to find: {floor_read}, {read}");
    let at_floor = net.holders(late[0], "name").len() - seats.len();
    assert!((8..=13).contains(&at_floor), "{at_floor} others keep it");

    for seat in &seats {
        net.kill(*seat);
    }
    net.elect(Region::ALL, &[]);
    let both = [early, late].concat();
    read_all(&mut net, &both, &readers);

    let seats: Vec<_> = (160..168).collect();
    net.elect(Region::ALL, &seats);
    net.run(Duration::from_secs(60));
    assert_eq!(lacking(&net, &seats, &both), 0);
    let alive = (0..200).filter(|n| net.peers[*n].is_alive);
    let is_node = |slot: &&crate::record::Slot| slot.kind == RecordKind::Node;
    let nodes: BTreeSet<_> = alive
        .flat_map(|n| net.peers[n].disk.records.keys().filter(is_node).map(|slot| slot.key))
        .collect();
    for seat in seats {
        let kept = net.peers[seat].disk.records.keys().filter(is_node).count();
        assert_eq!(kept, nodes.len(), "records of nodes at {seat}");
    }
}

#[test]
fn a_seat_learns_who_holds_those_of_other_regions() {
    let mut net = Net::new(100, &small());
    net.settle();
    let region = |n: usize| Region::of(&Key::of_node(id(n)), 1);
    let regions = [region(0), region((1..).find(|n| region(*n) != region(0)).unwrap())];
    let of = |at: usize| (0..100).filter(move |n| region(*n) == regions[at]);
    let author = (0..100).find(|n| regions[1].contains(&key(*n))).unwrap();
    let not_author = move |n: &usize| *n != author;
    for (at, region) in regions.into_iter().enumerate() {
        let seats: Vec<_> = of(at).filter(not_author).take(4).collect();
        net.elect(region, &seats);
    }
    net.run(Duration::from_secs(20));
    net.close_idle();
    net.publish(author, "name", "far");
    let mut far = |n: usize| {
        net.close_idle();
        assert_eq!(net.get(n, author, "name"), Some("far".into()));
        net.cost
    };
    let readers: Vec<_> = of(0).filter(not_author).skip(10).take(8).collect();
    far(readers[0]);
    for reader in &readers[1..] {
        let cost = far(*reader);
        assert!(cost.rounds <= 2 && cost.requests <= 10, "{cost:?}");
    }
}

/// An index with four homes that hold seats, which looks for a value of node 5's.
fn with_seats() -> (Alone, Vec<(usize, u32)>) {
    let mut alone = Alone::new(IndexConfig { warm_near: 0, warm_random: 0, ..Default::default() });
    for n in 1..=4 {
        alone.up(n);
    }
    alone.run(Duration::from_secs(30));
    let seats: Vec<_> = (1..=4).map(addr).collect();
    alone.index.set_seats(alone.now, Region::ALL, &seats);
    let finds = alone.command(find_value(5)).into_iter().filter_map(|output| match output {
        Output::Send(to, IndexMessage::Find(find)) => {
            Some(((1..=4).find(|n| id(*n) == to)?, find.request))
        }
        _ => None,
    });
    let finds: Vec<_> = finds.collect();
    assert_eq!(finds.len(), 4);
    (alone, finds)
}

/// What is reported if all but the first of the seats give a value of this age.
fn omissions(age: Duration, given: usize) -> Vec<NodeId> {
    let (mut alone, finds) = with_seats();
    let sequence = (START.as_secs() + 30 - age.as_secs()) * 1000;
    let record = alone::value_of(&secret(5), NETWORK, sequence, START + HOUR);
    let mut outputs = Vec::new();
    for (number, (from, request)) in finds.into_iter().enumerate() {
        let is_given = (1..=given).contains(&number);
        let records = is_given.then(|| record.bytes().clone()).into_iter().collect();
        let found =
            Found { request, contacts: Vec::new(), linked: 0, records, more: None, seats: 0 };
        outputs.extend(alone.say(from, IndexMessage::Found(found)));
    }
    outputs.extend(alone.run(Duration::from_secs(10)));
    let omitted = |output: Output| match output {
        Output::Omission { seat, key: at } if at == key(5) => Some(seat),
        _ => None,
    };
    outputs.into_iter().filter_map(omitted).collect()
}

#[test]
fn who_does_not_have_what_two_others_gave_is_reported_unless_it_is_new() {
    assert_eq!(omissions(HOUR, 3).len(), 1);
    assert_eq!(omissions(HOUR, 2).len(), 2);
    assert_eq!(omissions(HOUR, 1).len(), 0, "one may have made it up by itself");
    assert_eq!(omissions(Duration::from_secs(60), 3).len(), 0, "it may be on its way");
}

#[test]
fn seats_are_named_first_and_are_no_more_than_four() {
    let mut alone = Alone::new(IndexConfig::default());
    for n in 1..=30 {
        alone.up(n);
    }
    alone.index.set_seats(alone.now, Region::ALL, &(20..40).map(addr).collect::<Vec<_>>());
    for asker in 1..=30 {
        let find = Find { request: 9, target: START_KEY, records: None, page: None };
        let outputs = alone.say(asker, IndexMessage::Find(find));
        let [Output::Send(_, IndexMessage::Found(found)), ..] = &outputs[..] else { panic!() };
        assert_eq!((found.contacts.len(), found.seats), (12, 0b1111));
        let ids: BTreeSet<_> = found.contacts.iter().map(|contact| contact.id).collect();
        assert!(ids.len() == 12 && !ids.contains(&id(asker)));
        let is_seat = |peer: &PeerAddr| (20..32).any(|n| id(n) == peer.id);
        assert!(found.contacts[..4].iter().all(is_seat), "twelve are known");
    }
}

#[test]
fn what_comes_is_passed_on_once() {
    let mut alone = Alone::new(IndexConfig { warm_near: 0, warm_random: 0, ..Default::default() });
    for n in 1..=4 {
        alone.up(n);
    }
    alone.index.set_seats(alone.now, Region::ALL, &[addr(1), addr(2)]);
    alone.index.set_seat(alone.now, Some(Region::ALL));
    alone.run(Duration::from_secs(30));
    let mut number = 0;
    let mut passed = |from: usize, told: bool| {
        number += 1;
        let record = alone::value_of(&secret(5), NETWORK, number, START + HOUR);
        let store = Store { request: 7, record: record.bytes().clone() };
        alone.say(from, IndexMessage::Store(store));
        if told {
            let digests = vec![shard::digest(&record.slot(), number)];
            alone.say(2, IndexMessage::Offer(Offer { request: 8, digests }));
        }
        let offered = alone.run(Duration::from_secs(5)).into_iter().filter_map(|output| {
            let Output::Send(to, IndexMessage::Offer(_)) = output else { return None };
            (1..=4).find(|n| id(*n) == to)
        });
        offered.collect::<BTreeSet<_>>()
    };
    assert_eq!(passed(3, false), [1, 2].into(), "fellows are told, and nobody else");
    assert_eq!(passed(1, false), [].into(), "a fellow tells the others itself");
    assert_eq!(passed(3, true), [].into(), "one of them was faster");
}

#[test]
fn seats_known_are_bounded_and_what_is_said_displaces_nothing_verified() {
    let mut alone = Alone::new(IndexConfig::default());
    let (seats, now) = (&mut alone.index.seats, Instant::ZERO);
    let key_of = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&(n << 16).to_be_bytes());
        Key::from_bytes(bytes)
    };
    let region = |n: u32| Region::of(&key_of(n), 16);
    seats.set(now, region(0), &[addr(1)], None);
    for n in 1..4_200 {
        seats.set(now + Duration::from_secs(n.into()), region(n), &[addr(2)], Some(now));
    }
    assert_eq!(seats.regions.len(), 4096);
    assert_eq!(seats.seat(id(1), &key_of(0)), Some(lookup::Seat::Here), "it was verified");
    assert_eq!(seats.seat(id(2), &key_of(1)), None, "it was not used");
    assert_eq!(seats.seat(id(2), &key_of(4_199)), Some(lookup::Seat::Here));
    seats.set(now, Region::of(&key_of(0), 4), &[addr(3)], Some(now));
    assert_eq!(seats.seat(id(3), &key_of(0)), None);
    seats.set(now, Region::of(&key_of(0), 4), &[addr(3)], None);
    assert_eq!(seats.seat(id(1), &key_of(0)), None, "of one key there is one region");
    assert_eq!(seats.seat(id(3), &key_of(1)), Some(lookup::Seat::Here));
    seats.set(now, Region::ALL, &[], None);
    assert_eq!(seats.regions.len(), 0);
}
