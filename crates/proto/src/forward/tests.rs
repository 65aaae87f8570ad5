use core::time::Duration;
use std::collections::BTreeMap;

use proptest::prelude::*;
use rand_core::SeedableRng;

use super::*;
use crate::bucket::DAY;

/// A rate, in bytes per second, that the tests which are about something else do not reach.
const AMPLE: u64 = 1 << 40;

fn peer(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The endpoint of peer `n`, at an address of its own.
fn end(n: u8) -> Endpoint {
    Endpoint { peer: peer(n), addr: SocketAddr::from(([10, 0, 0, n], 4000)) }
}

fn at(s: u64) -> Instant {
    Instant::default() + Duration::from_secs(s)
}

fn config() -> ForwardConfig {
    ForwardConfig {
        rate_bytes_per_s: AMPLE,
        burst_bytes: AMPLE,
        bytes_per_day: u64::MAX,
        channels_max: 4,
    }
}

fn forwarder(config: &ForwardConfig) -> Forwarder {
    Forwarder::new(config, ChaCha8Rng::seed_from_u64(7))
}

/// A forwarder with one channel between peers 1 and 2 that lasts 100 s.
fn opened(config: &ForwardConfig) -> (Forwarder, ChannelPair) {
    let mut relay = forwarder(config);
    let pair = relay.open(end(1), end(2), at(100)).unwrap();
    (relay, pair)
}

#[test]
fn forwards_both_ways_and_counts() {
    let (mut relay, pair) = opened(&config());
    let there = relay.forward(at(1), end(1).addr, pair.a, 3000, 2);
    assert_eq!(there, Ok(Hop { to: end(2).addr, channel: pair.b }));
    let back = relay.forward(at(1), end(2).addr, pair.b, 1200, 1);
    assert_eq!(back, Ok(Hop { to: end(1).addr, channel: pair.a }));
    assert_eq!((relay.bytes_from(pair.a), relay.bytes_from(pair.b)), (Some(3000), Some(1200)));
    let expect = ForwardStats { channels: 1, frames: 3, bytes: 4200, ..Default::default() };
    assert_eq!(relay.stats(), expect);
}

#[test]
fn spelling_of_the_source_does_not_matter() {
    let (mut relay, pair) = opened(&config());
    let hop = relay.forward(at(1), addr("[::ffff:10.0.0.1]:4000"), pair.a, 100, 1).unwrap();
    assert_eq!(hop.to, addr("10.0.0.2:4000"));

    let mapped = Endpoint { peer: peer(3), addr: addr("[::ffff:10.0.0.3]:4000") };
    let pair = relay.open(mapped, end(4), at(9)).unwrap();
    let hop = relay.forward(at(1), end(4).addr, pair.b, 100, 1).unwrap();
    assert_eq!(hop.to, addr("10.0.0.3:4000"));
    assert!(relay.forward(at(1), end(3).addr, pair.a, 100, 1).is_ok());
}

#[test]
fn foreign_sources_are_refused() {
    let (mut relay, pair) = opened(&config());
    for from in ["10.0.0.1:4001", "10.0.0.2:4000", "10.0.0.9:4000", "[::1]:4000"] {
        assert_eq!(relay.forward(at(1), addr(from), pair.a, 100, 1), Err(Drop::Foreign), "{from}");
    }
    // Each side's number is for that side alone.
    assert_eq!(relay.forward(at(1), end(1).addr, pair.b, 100, 5), Err(Drop::Foreign));
    assert_eq!(relay.stats(), ForwardStats { channels: 1, foreign: 9, ..Default::default() });
}

#[test]
fn wrong_nonce_and_slot_out_of_range_are_unknown() {
    let (mut relay, pair) = opened(&config());
    for bit in 0..32 {
        let number = Channel(pair.a.0 ^ (1 << bit));
        let expect = if number == pair.b { Drop::Foreign } else { Drop::Unknown };
        assert_eq!(relay.forward(at(1), end(1).addr, number, 100, 1), Err(expect));
    }
    let mut empty = forwarder(&config());
    assert_eq!(empty.forward(at(1), end(1).addr, Channel(0), 100, 1), Err(Drop::Unknown));
}

#[test]
fn expires_on_time_and_can_be_extended() {
    let (mut relay, pair) = opened(&config());
    let last = Instant::from_micros(at(100).as_micros() - 1);
    assert!(relay.forward(last, end(1).addr, pair.a, 100, 1).is_ok());
    assert_eq!(relay.forward(at(100), end(1).addr, pair.a, 100, 1), Err(Drop::Expired));
    assert_eq!(relay.forward(at(100), end(2).addr, pair.b, 100, 1), Err(Drop::Expired));

    assert!(relay.extend(pair.b, at(200)));
    assert!(relay.extend(pair.a, at(150)), "an earlier end changes nothing");
    assert_eq!(relay.poll_timeout(), Some(at(200)));
    assert!(relay.forward(at(199), end(1).addr, pair.a, 100, 1).is_ok());

    assert_eq!(relay.handle_timeout(at(199)), []);
    assert_eq!(relay.handle_timeout(at(200)), [pair.b, pair.a]);
    assert_eq!(relay.poll_timeout(), None);
    assert_eq!(relay.forward(at(200), end(1).addr, pair.a, 100, 1), Err(Drop::Unknown));
    assert!(!relay.extend(pair.a, at(300)));
    assert_eq!(relay.bytes_from(pair.a), None);
}

#[test]
fn rate_binds_over_all_channels_and_refusals_are_free() {
    let rate = 1000;
    let (mut relay, pair) =
        opened(&ForwardConfig { rate_bytes_per_s: rate, burst_bytes: 0, ..config() });
    let other = relay.open(end(3), end(4), at(100)).unwrap();
    // A burst below one batch is raised to it.
    assert!(relay.forward(at(1), end(1).addr, pair.a, 65_536, 50).is_ok());
    assert_eq!(relay.forward(at(1), end(3).addr, other.a, 1, 1), Err(Drop::Rate));
    for _ in 0..100 {
        assert_eq!(relay.forward(at(2), end(9).addr, pair.a, 1000, 1), Err(Drop::Foreign));
        assert_eq!(relay.forward(at(2), end(1).addr, pair.a, 1001, 1), Err(Drop::Rate));
    }
    assert!(relay.forward(at(2), end(3).addr, other.a, 1000, 1).is_ok());
    assert_eq!(relay.stats().rate, 101);
}

#[test]
fn day_budget_binds_exactly_and_renews() {
    let (mut relay, pair) = opened(&ForwardConfig { bytes_per_day: 2000, ..config() });
    let later = at(5) + DAY;
    assert!(relay.extend(pair.a, later + DAY));
    assert!(relay.forward(at(5), end(1).addr, pair.a, 1500, 1).is_ok());
    assert_eq!(relay.forward(at(5), end(2).addr, pair.b, 501, 1), Err(Drop::DayBudget));
    assert!(relay.forward(at(6), end(2).addr, pair.b, 500, 1).is_ok());
    assert_eq!(relay.forward(at(7), end(1).addr, pair.a, 1, 1), Err(Drop::DayBudget));
    let eve = Instant::from_micros(later.as_micros() - 1);
    assert_eq!(relay.forward(eve, end(1).addr, pair.a, 1, 1), Err(Drop::DayBudget));
    assert!(relay.forward(later, end(1).addr, pair.a, 2000, 1).is_ok());
    assert_eq!((relay.allowance().today(later).0, relay.stats().bytes), (2000, 4000));
    assert_eq!(relay.stats().day_budget, 3);
}

#[test]
fn role_that_is_off_opens_nothing() {
    for config in [
        ForwardConfig::default(),
        ForwardConfig { rate_bytes_per_s: 0, ..config() },
        ForwardConfig { bytes_per_day: 0, ..config() },
    ] {
        let mut relay = forwarder(&config);
        assert!(!relay.is_on());
        assert_eq!(relay.open(end(1), end(2), at(9)), Err(OpenError::Off));
    }
}

#[test]
fn open_refuses_what_cannot_be_a_channel() {
    let mut relay = forwarder(&config());
    let again = Endpoint { addr: addr("10.0.0.9:1"), ..end(1) };
    assert_eq!(relay.open(end(1), again, at(9)), Err(OpenError::SamePeer));
    for bad in [
        "0.0.0.0:9",
        "[::]:9",
        "224.0.0.1:9",
        "[ff02::1]:9",
        "255.255.255.255:9",
        "[::ffff:255.255.255.255]:9",
        "10.0.0.2:0",
        "[::ffff:10.0.0.1]:4000",
    ] {
        let bad = Endpoint { peer: peer(2), addr: addr(bad) };
        assert_eq!(relay.open(end(1), bad, at(9)), Err(OpenError::Unroutable));
        assert_eq!(relay.open(bad, end(1), at(9)), Err(OpenError::Unroutable));
    }
    assert_eq!(relay.stats(), ForwardStats::default());
}

#[test]
fn full_table_takes_more_only_when_some_have_ended() {
    let mut relay = forwarder(&config());
    let first = relay.open(end(1), end(2), at(10)).unwrap();
    for _ in 1..4 {
        relay.open(end(1), end(2), at(50)).unwrap();
    }
    assert_eq!(relay.open(end(3), end(4), at(50)), Err(OpenError::Full));
    assert_eq!(relay.handle_timeout(at(10)).len(), 2);
    let next = relay.open(end(3), end(4), at(50)).unwrap();
    assert_eq!(relay.stats().channels, 4);
    assert_eq!(next.a.slot(), first.a.slot());
    assert_ne!(next.a, first.a);
    assert_eq!(relay.forward(at(10), end(1).addr, first.a, 9, 1), Err(Drop::Unknown));
    assert_eq!(relay.open(end(5), end(6), at(99)), Err(OpenError::Full));
    let none =
        forwarder(&ForwardConfig { channels_max: 0, ..config() }).open(end(1), end(2), at(9));
    assert_eq!(none, Err(OpenError::Full));
}

#[test]
fn largest_table_fits_the_channel_number() {
    let mut relay = forwarder(&ForwardConfig { channels_max: usize::MAX, ..config() });
    let mut last = None;
    for _ in 0..CHANNELS_LIMIT {
        last = Some(relay.open(end(1), end(2), at(9)).unwrap());
    }
    assert_eq!(last.unwrap().b.slot(), u16::MAX);
    assert_eq!(relay.open(end(1), end(2), at(9)), Err(OpenError::Full));
    assert!(relay.forward(at(1), end(2).addr, last.unwrap().b, 100, 1).is_ok());
    assert_eq!(relay.close_peer(peer(1)), CHANNELS_LIMIT);
}

#[test]
fn nonce_of_a_reused_slot_differs_from_the_last() {
    let mut relay = forwarder(&ForwardConfig { channels_max: 1, ..config() });
    let mut last = relay.open(end(1), end(2), at(9)).unwrap();
    // Enough draws that unguarded 16-bit nonces would meet.
    for _ in 0..200_000 {
        assert!(relay.close(last.b));
        let next = relay.open(end(1), end(2), at(9)).unwrap();
        assert!(next.a != last.a && next.b != last.b);
        last = next;
    }
}

#[test]
fn closing_ends_both_directions() {
    for side in [0, 1] {
        let (mut relay, pair) = opened(&config());
        assert!(relay.close([pair.a, pair.b][side]));
        assert!(!relay.close(pair.a) && !relay.close(pair.b));
        assert_eq!(relay.forward(at(1), end(1).addr, pair.a, 9, 1), Err(Drop::Unknown));
        assert_eq!(relay.forward(at(1), end(2).addr, pair.b, 9, 1), Err(Drop::Unknown));
        assert_eq!((relay.stats().channels, relay.poll_timeout()), (0, None));
    }
}

#[test]
fn closing_a_peer_leaves_the_others() {
    let (mut relay, one) = opened(&config());
    let two = relay.open(end(3), end(1), at(100)).unwrap();
    let rest = relay.open(end(3), end(2), at(100)).unwrap();
    assert_eq!(relay.close_peer(peer(1)), 2);
    assert_eq!(relay.close_peer(peer(1)), 0);
    assert_eq!(relay.forward(at(1), end(2).addr, one.b, 9, 1), Err(Drop::Unknown));
    assert_eq!(relay.forward(at(1), end(3).addr, two.a, 9, 1), Err(Drop::Unknown));
    assert!(relay.forward(at(1), end(3).addr, rest.a, 9, 1).is_ok());
}

#[test]
fn rebinding_moves_the_peer_and_nobody_else() {
    let (mut relay, pair) = opened(&config());
    let other = relay.open(end(3), end(1), at(100)).unwrap();
    let new = addr("[::ffff:192.0.2.7]:5000");
    assert_eq!(relay.rebind(peer(1), Some(addr("10.0.0.1:9")), new), 0);
    assert_eq!(relay.rebind(peer(9), None, new), 0);
    assert_eq!(relay.rebind(peer(1), None, addr("224.0.0.1:9")), 0);
    assert_eq!(relay.rebind(peer(1), None, end(2).addr), 1, "not onto the other side's address");
    assert_eq!(relay.rebind(peer(1), Some(end(2).addr), end(1).addr), 1);
    assert_eq!(relay.rebind(peer(1), Some(addr("[::ffff:10.0.0.1]:4000")), new), 2);

    assert_eq!(relay.forward(at(1), end(1).addr, pair.a, 9, 1), Err(Drop::Foreign));
    assert!(relay.forward(at(1), new, pair.a, 9, 1).is_ok());
    let hop = relay.forward(at(1), end(3).addr, other.a, 9, 1).unwrap();
    assert_eq!(hop, Hop { to: addr("192.0.2.7:5000"), channel: other.b });
}

#[test]
fn counters_saturate() {
    let (mut relay, pair) = opened(&config());
    for _ in 0..2 {
        assert!(relay.forward(at(1), end(1).addr, pair.a, 9, usize::MAX).is_ok());
        assert!(relay.forward(at(1), end(9).addr, pair.a, 9, usize::MAX).is_err());
    }
    assert_eq!((relay.stats().frames, relay.stats().foreign), (u64::MAX, u64::MAX));
    assert_eq!(relay.forward(at(1), end(1).addr, pair.a, usize::MAX, 1), Err(Drop::Rate));
}

/// A step of the model test; small numbers, so that steps meet.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open { a: u8, b: u8, lasts_s: u64 },
    Extend { channel: usize, lasts_s: u64 },
    Close { channel: usize },
    ClosePeer { peer: u8 },
    Rebind { peer: u8, host: u8 },
    Timeout,
    Wait { s: u64 },
    Forward { channel: usize, host: u8 },
    Guess { number: u32, host: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..6, 1u8..6, 1u64..30).prop_map(|(a, b, lasts_s)| Step::Open { a, b, lasts_s }),
        1 => (0usize..40, 1u64..30).prop_map(|(channel, lasts_s)| Step::Extend {
            channel,
            lasts_s
        }),
        1 => (0usize..40).prop_map(|channel| Step::Close { channel }),
        1 => (1u8..6).prop_map(|peer| Step::ClosePeer { peer }),
        1 => (1u8..6, 1u8..9).prop_map(|(peer, host)| Step::Rebind { peer, host }),
        1 => Just(Step::Timeout),
        1 => (0u64..9).prop_map(|s| Step::Wait { s }),
        8 => (0usize..40, 1u8..9).prop_map(|(channel, host)| Step::Forward { channel, host }),
        2 => (any::<u32>(), 1u8..9).prop_map(|(number, host)| Step::Guess { number, host }),
    ]
}

/// What the model knows of one direction.
#[derive(Clone, Debug)]
struct Known {
    peers: [u8; 2],
    hosts: [u8; 2],
    out: Channel,
    expires: Instant,
}

/// The obvious table that the forwarder has to agree with.
#[derive(Default)]
struct Model {
    live: BTreeMap<Channel, Known>,
    /// Every number that was ever given out.
    numbers: Vec<Channel>,
}

impl Model {
    fn number(&self, index: usize) -> Channel {
        self.numbers.get(index).copied().unwrap_or(Channel(0xffff_ffff))
    }

    fn add(&mut self, pair: ChannelPair, a: u8, b: u8, expires: Instant) {
        for (own, out, from, to) in [(pair.a, pair.b, a, b), (pair.b, pair.a, b, a)] {
            let known = Known { peers: [from, to], hosts: [from, to], out, expires };
            assert!(self.live.insert(own, known).is_none(), "a number in use was given out");
            self.numbers.push(own);
        }
    }

    fn rebind(&mut self, peer: u8, host: u8) {
        for known in self.live.values_mut() {
            let hosts = known.hosts;
            for side in [0, 1] {
                if known.peers[side] == peer && hosts[1 - side] != host {
                    known.hosts[side] = host;
                }
            }
        }
    }

    fn forward(&self, now: Instant, host: u8, channel: Channel) -> Result<Hop, Drop> {
        let known = self.live.get(&channel).ok_or(Drop::Unknown)?;
        if known.hosts[0] != host {
            return Err(Drop::Foreign);
        }
        if known.expires <= now {
            return Err(Drop::Expired);
        }
        Ok(Hop { to: end(known.hosts[1]).addr, channel: known.out })
    }
}

fn apply(relay: &mut Forwarder, model: &mut Model, now: &mut Instant, step: Step) {
    match step {
        Step::Open { a, b, lasts_s } => {
            let expires = *now + Duration::from_secs(lasts_s);
            match relay.open(end(a), end(b), expires) {
                Ok(pair) => model.add(pair, a, b, expires),
                Err(OpenError::SamePeer) => assert_eq!(a, b),
                Err(error) => {
                    assert_eq!(error, OpenError::Full);
                    assert_eq!(model.live.len(), 2 * 4);
                }
            }
        }
        Step::Extend { channel, lasts_s } => {
            let (number, expires) = (model.number(channel), *now + Duration::from_secs(lasts_s));
            let out = model.live.get(&number).map(|known| known.out);
            assert_eq!(relay.extend(number, expires), out.is_some());
            for number in [Some(number), out].into_iter().flatten() {
                if let Some(known) = model.live.get_mut(&number) {
                    known.expires = known.expires.max(expires);
                }
            }
        }
        Step::Close { channel } => {
            let gone = model.live.remove(&model.number(channel));
            assert_eq!(relay.close(model.number(channel)), gone.is_some());
            gone.and_then(|known| model.live.remove(&known.out));
        }
        Step::ClosePeer { peer: n } => {
            relay.close_peer(peer(n));
            model.live.retain(|_, known| !known.peers.contains(&n));
        }
        Step::Rebind { peer: n, host } => {
            relay.rebind(peer(n), None, end(host).addr);
            model.rebind(n, host);
        }
        Step::Timeout => {
            relay.handle_timeout(*now);
            model.live.retain(|_, known| known.expires > *now);
            assert!(relay.poll_timeout().is_none_or(|next| next > *now));
        }
        Step::Wait { s } => *now += Duration::from_secs(s),
        Step::Forward { channel, host } => {
            let number = model.number(channel);
            let hop = relay.forward(*now, end(host).addr, number, 100, 1);
            assert_eq!(hop, model.forward(*now, host, number));
        }
        Step::Guess { number, host } => {
            let hop = relay.forward(*now, end(host).addr, Channel(number), 100, 1);
            assert_eq!(hop, model.forward(*now, host, Channel(number)));
        }
    }
    assert_eq!(relay.stats().channels * 2, model.live.len());
    assert_eq!(relay.poll_timeout(), model.live.values().map(|known| known.expires).min());
}

proptest! {
    #[test]
    fn agrees_with_the_obvious_table(
        seed: u64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut relay = Forwarder::new(&config(), ChaCha8Rng::seed_from_u64(seed));
        let mut model = Model::default();
        let mut now = at(1);
        for step in steps {
            apply(&mut relay, &mut model, &mut now, step);
        }
    }

    /// Someone who guesses numbers gets nothing through, not even from a bound address.
    #[test]
    fn random_numbers_are_never_forwarded(numbers in prop::collection::vec(any::<u32>(), 256)) {
        let (mut relay, pair) = opened(&config());
        for number in numbers {
            prop_assume!(![pair.a, pair.b].contains(&Channel(number)));
            let hop = relay.forward(at(1), end(1).addr, Channel(number), 1200, 1);
            prop_assert_eq!(hop, Err(Drop::Unknown));
        }
        prop_assert_eq!(relay.stats().bytes, 0);
    }
}
