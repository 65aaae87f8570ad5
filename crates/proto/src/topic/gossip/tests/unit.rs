//! One machine by hand.

use super::super::*;
use super::world::ms;
use crate::topic::id::ShortId;

const T0: Instant = Instant::ZERO;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn id(n: u8) -> ShortId {
    ShortId::from_bytes([n; 16])
}

fn new() -> Gossip {
    let mut gossip = Gossip::new(node(0), GossipConfig::default(), T0, [7; 32]);
    assert_eq!(gossip.poll_timeout(), Some(T0));
    assert_eq!(advance(&mut gossip, T0), [Output::WantMembers]);
    gossip
}

fn drain(gossip: &mut Gossip) -> Vec<Output> {
    core::iter::from_fn(|| gossip.poll_output()).collect()
}

fn advance(gossip: &mut Gossip, to: Instant) -> Vec<Output> {
    gossip.handle_timeout(to);
    let outputs = drain(gossip);
    machine::check_deadline(gossip, to);
    outputs
}

fn input(gossip: &mut Gossip, now: Instant, input: Input) -> Vec<Output> {
    gossip.handle_input(now, input);
    drain(gossip)
}

fn message(gossip: &mut Gossip, now: Instant, from: u8, message: GossipMessage) -> Vec<Output> {
    input(gossip, now, Input::Message { peer: node(from), message })
}

fn send(to: u8, message: GossipMessage) -> Output {
    Output::Send { peer: node(to), message }
}

fn push(to: u8, n: u8) -> Output {
    Output::Push { peer: node(to), id: id(n) }
}

const ASK: GossipMessage = GossipMessage::Neighbor { is_urgent: false };

fn yes() -> GossipMessage {
    GossipMessage::Neighbored { is_accepted: true, members: Vec::new() }
}

/// A machine with so many neighbours, 1 to `count`, all eager.
fn with_neighbors(count: u8) -> Gossip {
    let mut gossip = new();
    for n in 1..=count {
        input(&mut gossip, T0, Input::PeerUp(node(n)));
        let outputs = message(&mut gossip, T0, n, ASK);
        assert!(outputs.contains(&Output::Neighbor { peer: node(n), is_up: true }));
    }
    gossip
}

/// Makes a neighbour lazy, as a duplicate does.
fn make_lazy(gossip: &mut Gossip, n: u8) {
    input(gossip, T0, Input::Have { id: id(200 + n), from: Some(node(n)), len: 1 });
    message(gossip, T0, n, GossipMessage::Prune);
    gossip.announce_all();
    drain(gossip);
}

#[test]
fn a_candidate_is_linked_asked_and_taken() {
    let mut gossip = new();
    let outputs = input(&mut gossip, T0, Input::Found(vec![node(0).into(), node(1).into()]));
    assert_eq!(outputs[..], [Output::Connect(node(1).into())]);
    let outputs = input(&mut gossip, T0, Input::PeerUp(node(1)));
    assert_eq!(outputs, [send(1, GossipMessage::Neighbor { is_urgent: true })]);
    let outputs = message(&mut gossip, T0, 1, yes());
    assert_eq!(outputs[0], Output::Neighbor { peer: node(1), is_up: true });
    assert_eq!(gossip.neighbors().collect::<Vec<_>>(), [(node(1), true)]);
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_and_then_given_up() {
    let mut gossip = new();
    input(&mut gossip, T0, Input::Found(vec![node(1).into()]));
    input(&mut gossip, T0, Input::PeerUp(node(1)));
    let again = send(1, GossipMessage::Neighbor { is_urgent: true });
    assert!(advance(&mut gossip, T0 + ms(4_000)).contains(&again));
    let outputs = advance(&mut gossip, T0 + ms(8_000));
    assert!(outputs.contains(&Output::Disconnect(node(1))));
    // What comes too late is answered, so that nobody holds half of an edge.
    input(&mut gossip, T0 + ms(8_000), Input::PeerUp(node(1)));
    let outputs = message(&mut gossip, T0 + ms(8_000), 1, yes());
    assert_eq!(outputs[0], send(1, GossipMessage::Parted));
}

#[test]
fn a_lost_neighbour_is_replaced_at_once_by_several_attempts() {
    let mut gossip = with_neighbors(4);
    let found = (11..=20).map(|n| node(n).into()).collect();
    let outputs = input(&mut gossip, T0, Input::Found(found));
    assert_eq!(outputs.len(), 1);
    let outputs = input(&mut gossip, T0, Input::PeerDown(node(1)));
    assert_eq!(outputs[0], Output::Neighbor { peer: node(1), is_up: false });
    let connects = outputs.iter().filter(|output| matches!(output, Output::Connect(_)));
    assert_eq!(connects.count(), 2);
}

#[test]
fn a_full_view_refuses_unless_it_is_urgent() {
    let mut gossip = with_neighbors(8);
    input(&mut gossip, T0, Input::PeerUp(node(9)));
    let outputs = message(&mut gossip, T0, 9, ASK);
    let is_refusal = |output: &Output| {
        let Output::Send { message, .. } = output else { return false };
        matches!(message, GossipMessage::Neighbored { is_accepted: false, members } if
            members.len() == 8)
    };
    assert!(outputs.len() == 1 && is_refusal(&outputs[0]), "{outputs:?}");
    let outputs = message(&mut gossip, T0, 9, GossipMessage::Neighbor { is_urgent: true });
    let is_parting =
        |output: &Output| matches!(output, Output::Send { message: GossipMessage::Parted, .. });
    assert!(outputs.iter().any(is_parting));
    assert!(gossip.is_neighbor(node(9)));
    assert_eq!(gossip.neighbors().count(), 8);
}

#[test]
fn looks_into_the_index_grow_rare() {
    let mut gossip = new();
    let (mut now, mut looks) = (T0, Vec::new());
    while now < T0 + ms(3_600_000) {
        now = gossip.poll_timeout().unwrap();
        if advance(&mut gossip, now).contains(&Output::WantMembers) {
            looks.push(now);
        }
    }
    let pauses: Vec<_> = looks.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert!(pauses[0] < 25, "{pauses:?}");
    assert!(pauses[8..].iter().all(|pause| (85..=151).contains(pause)), "{pauses:?}");
}

#[test]
fn an_entry_is_pushed_to_the_eager_and_announced_to_the_lazy() {
    let mut gossip = with_neighbors(5);
    (4..=5).for_each(|n| make_lazy(&mut gossip, n));
    let have = |n, from| Input::Have { id: id(n), from: Some(node(from)), len: 1 };
    assert_eq!(input(&mut gossip, T0, have(1, 1)), [push(2, 1), push(3, 1)]);
    assert_eq!(input(&mut gossip, T0, have(2, 2)), [push(1, 2), push(3, 2)]);
    // Known already.
    assert_eq!(input(&mut gossip, T0, have(2, 3)), []);
    // One of the lazy ones has it: no need to tell.
    message(&mut gossip, T0, 4, GossipMessage::Have(vec![id(2)]));
    let outputs = advance(&mut gossip, T0 + ms(50));
    let expected = [
        send(4, GossipMessage::Have(vec![id(1)])),
        send(5, GossipMessage::Have(vec![id(1), id(2)])),
    ];
    assert_eq!(outputs, expected);
}

#[test]
fn announcements_go_out_when_a_message_is_full() {
    let mut gossip = with_neighbors(1);
    make_lazy(&mut gossip, 1);
    for n in 0..64 {
        let outputs = input(&mut gossip, T0, Input::Have { id: id(n), from: None, len: 1 });
        assert_eq!(outputs.len(), usize::from(n == 63));
    }
}

#[test]
fn a_large_entry_is_pushed_twice_and_announced_at_once() {
    let mut gossip = with_neighbors(4);
    let outputs = input(&mut gossip, T0, Input::Have { id: id(1), from: None, len: LARGE + 1 });
    let have = |n| send(n, GossipMessage::Have(vec![id(1)]));
    assert_eq!(outputs, [push(1, 1), push(2, 1), have(3), have(4)]);
}

#[test]
fn a_duplicate_prunes_on_both_sides() {
    let mut gossip = with_neighbors(2);
    input(&mut gossip, T0, Input::Have { id: id(1), from: Some(node(1)), len: 1 });
    let duplicate = Input::Duplicate { id: id(1), from: node(2), len: 1 };
    let outputs = input(&mut gossip, T0, duplicate.clone());
    assert_eq!(outputs, [send(2, GossipMessage::Prune)]);
    // Once, for what is on its way; again if it goes on.
    assert_eq!(input(&mut gossip, T0 + ms(500), duplicate.clone()), []);
    let outputs = input(&mut gossip, T0 + ms(1_500), duplicate);
    assert_eq!(outputs, [send(2, GossipMessage::Prune)]);
    message(&mut gossip, T0, 1, GossipMessage::Prune);
    assert_eq!(gossip.neighbors().collect::<Vec<_>>(), [(node(1), false), (node(2), false)]);
}

#[test]
fn what_is_announced_and_does_not_come_is_grafted_from_one_after_the_other() {
    let mut gossip = with_neighbors(2);
    (1..=2).for_each(|n| make_lazy(&mut gossip, n));
    for n in 1..=2 {
        assert_eq!(message(&mut gossip, T0, n, GossipMessage::Have(vec![id(1)])), []);
    }
    assert_eq!(advance(&mut gossip, T0 + ms(299)), []);
    assert_eq!(advance(&mut gossip, T0 + ms(450)), [send(1, GossipMessage::Graft(vec![id(1)]))]);
    assert_eq!(advance(&mut gossip, T0 + ms(800)), [send(2, GossipMessage::Graft(vec![id(1)]))]);
    assert!(gossip.neighbors().all(|(_, is_eager)| is_eager));
    let have = Input::Have { id: id(1), from: Some(node(2)), len: 1 };
    assert_eq!(input(&mut gossip, T0 + ms(900), have), []);
    assert_eq!(gossip.missing.len(), 0);
}

#[test]
fn a_graft_is_answered_with_what_is_held() {
    let mut gossip = with_neighbors(1);
    make_lazy(&mut gossip, 1);
    input(&mut gossip, T0, Input::Have { id: id(1), from: None, len: 1 });
    let outputs = message(&mut gossip, T0, 1, GossipMessage::Graft(vec![id(1), id(2)]));
    assert_eq!(outputs, [push(1, 1)]);
    assert_eq!(gossip.neighbors().collect::<Vec<_>>(), [(node(1), true)]);
}

#[test]
fn a_swap_takes_the_place_of_a_lazy_neighbour_only() {
    for has_lazy in [false, true] {
        let mut gossip = with_neighbors(5);
        if has_lazy {
            make_lazy(&mut gossip, 3);
        }
        input(&mut gossip, T0, Input::Found(vec![node(9).into()]));
        let now = T0 + ms(150_000);
        // Something is said, so the tree is of use.
        input(&mut gossip, now, Input::Have { id: id(1), from: None, len: 1 });
        let outputs = advance(&mut gossip, now);
        assert_eq!(outputs.contains(&Output::Connect(node(9).into())), has_lazy);
        if has_lazy {
            input(&mut gossip, now, Input::PeerUp(node(9)));
            message(&mut gossip, now, 9, yes());
            assert!(gossip.is_neighbor(node(9)) && !gossip.is_neighbor(node(3)));
        }
    }
}

#[test]
fn an_announcement_well_ahead_of_the_push_grafts_a_faster_edge() {
    let mut gossip = with_neighbors(2);
    make_lazy(&mut gossip, 2);
    for (n, lead, is_faster) in [(1, 140, false), (2, 160, true)] {
        message(&mut gossip, T0, 2, GossipMessage::Have(vec![id(n)]));
        let have = Input::Have { id: id(n), from: Some(node(1)), len: 1 };
        let outputs = input(&mut gossip, T0 + ms(lead), have);
        let graft = send(2, GossipMessage::Graft(Vec::new()));
        assert_eq!(outputs.contains(&graft), is_faster);
        assert_eq!(gossip.neighbors().nth(1), Some((node(2), is_faster)));
    }
}

#[test]
fn few_duplicates_prune_an_edge_that_is_of_use() {
    let mut gossip = with_neighbors(2);
    let mut prunes = 0;
    for n in 0..200 {
        let now = T0 + ms(50 * u64::from(n));
        let (new, old) = if n % 2 == 0 { (1, 2) } else { (2, 1) };
        input(&mut gossip, now, Input::Have { id: id(n), from: Some(node(new)), len: 1 });
        let duplicate = Input::Duplicate { id: id(n), from: node(old), len: 1 };
        let outputs = input(&mut gossip, now, duplicate);
        prunes += usize::from(outputs.contains(&send(old, GossipMessage::Prune)));
    }
    // One in about ten to twenty.
    assert!((5..40).contains(&prunes), "{prunes}");
}

#[test]
fn who_is_no_neighbour_is_told_so() {
    let mut gossip = with_neighbors(1);
    let graft = GossipMessage::Graft(vec![id(1)]);
    assert_eq!(message(&mut gossip, T0, 9, graft), [send(9, GossipMessage::Parted)]);
    let answers = (0..99).map(|_| message(&mut gossip, T0, 9, GossipMessage::Prune).len());
    assert!(answers.sum::<usize>() <= 20);
    assert_eq!(message(&mut gossip, T0, 9, GossipMessage::Parted), []);
}

#[test]
fn links_that_nobody_uses_are_let_go_and_bounded() {
    let mut gossip = new();
    for n in 1..=100 {
        input(&mut gossip, T0, Input::PeerUp(node(n)));
    }
    assert_eq!(gossip.peers.len(), 32);
    advance(&mut gossip, T0 + ms(20_000));
    assert!(gossip.peers.is_empty());
}

#[test]
fn members_of_shuffles_become_candidates() {
    let mut gossip = with_neighbors(5);
    let shuffle = GossipMessage::Shuffle(vec![node(0).into(), node(1).into(), node(9).into()]);
    let outputs = message(&mut gossip, T0, 1, shuffle);
    let [Output::Send { message: GossipMessage::Shuffled(members), .. }] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(members.len(), 4);
    assert_eq!(gossip.passive.iter().map(|addr| addr.id).collect::<Vec<_>>(), [node(9)]);
    // Answers that nobody asked for do not.
    message(&mut gossip, T0, 1, GossipMessage::Shuffled(vec![node(10).into()]));
    assert_eq!(gossip.passive.len(), 1);
}

mod any {
    use proptest::prelude::*;

    use super::*;

    fn any_message() -> impl Strategy<Value = GossipMessage> {
        let members = || prop::collection::vec((0..30_u8).prop_map(|n| node(n).into()), 0..10);
        let ids = || prop::collection::vec((0..50_u8).prop_map(id), 0..66);
        prop_oneof![
            any::<bool>().prop_map(|is_urgent| GossipMessage::Neighbor { is_urgent }),
            (any::<bool>(), members()).prop_map(|(is_accepted, members)| {
                GossipMessage::Neighbored { is_accepted, members }
            }),
            Just(GossipMessage::Parted),
            members().prop_map(GossipMessage::Shuffle),
            members().prop_map(GossipMessage::Shuffled),
            ids().prop_map(GossipMessage::Have),
            ids().prop_map(GossipMessage::Graft),
            Just(GossipMessage::Prune),
        ]
    }

    fn any_input() -> impl Strategy<Value = Input> {
        let peer = || (0..30_u8).prop_map(node);
        let entry = || (0..50_u8).prop_map(id);
        prop_oneof![
            prop::collection::vec(peer().prop_map(PeerAddr::from), 0..30).prop_map(Input::Found),
            peer().prop_map(Input::PeerUp),
            peer().prop_map(Input::PeerDown),
            peer().prop_map(Input::Unreachable),
            (peer(), any_message()).prop_map(|(peer, message)| Input::Message { peer, message }),
            (entry(), prop::option::of(peer()), 0..9_000_usize)
                .prop_map(|(id, from, len)| Input::Have { id, from, len }),
            (entry(), peer(), 0..9_000_usize).prop_map(|(id, from, len)| Input::Duplicate {
                id,
                from,
                len
            }),
            (peer(), any::<u32>())
                .prop_map(|(peer, weight)| { Input::Bad { peer, weight: weight >> 27 } }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn no_input_breaks_the_invariants(
            steps in prop::collection::vec((any_input(), 0..2_000_u64), 0..150),
        ) {
            let mut gossip = Gossip::new(node(0), GossipConfig::default(), T0, [1; 32]);
            let (mut now, mut up) = (T0, std::collections::BTreeSet::new());
            for (step, pause) in steps {
                gossip.handle_input(now, step);
                let mut outputs = drain(&mut gossip);
                now += ms(pause);
                outputs.extend(advance(&mut gossip, now));
                for output in outputs {
                    match output {
                        Output::Neighbor { peer, is_up: true } => prop_assert!(up.insert(peer)),
                        Output::Neighbor { peer, is_up: false } => prop_assert!(up.remove(&peer)),
                        Output::Send { peer, .. } | Output::Push { peer, .. } => {
                            prop_assert_ne!(peer, node(0));
                        }
                        Output::Connect(addr) => prop_assert_ne!(addr.id, node(0)),
                        Output::Disconnect(_) | Output::WantMembers | Output::Ban(_) => {}
                    }
                }
                let neighbors: Vec<_> = gossip.neighbors().map(|(id, _)| id).collect();
                prop_assert!(up.iter().eq(&neighbors));
                prop_assert!(up.len() <= 8);
                prop_assert!(up.iter().all(|peer| !gossip.is_banned(now, *peer)));
                prop_assert!(gossip.passive.len() <= 64);
            }
        }
    }
}
