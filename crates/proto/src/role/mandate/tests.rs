use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::role::Region;
use crate::role::term::ROLE_INDEX;

const NETWORK: &str = "main";
const EPOCH_S: u64 = 1800;

/// An election with everything right, of which a test makes something wrong.
#[derive(Clone)]
struct Election {
    network: &'static str,
    term: Term,
    holder: SecretKey,
    electors: Vec<SecretKey>,
    /// The third number of the IPv4 network of each.
    nets: Vec<Option<u8>>,
    measures: Vec<Option<u8>>,
    nonce: u64,
}

fn epochs() -> Epochs {
    Epochs::new(Duration::from_secs(EPOCH_S))
}

fn now() -> UnixTime {
    UnixTime::from_secs(1_700_000_000)
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

impl Election {
    fn new() -> Self {
        let region = Region::ALL;
        let epoch = epochs().at(region, now());
        let term = Term {
            region,
            epoch,
            holder: secret(1).id(),
            kind: Kind::Ordinary,
            roles: ROLE_INDEX,
            capacity_log2: 20,
            electors: 32,
            since_epoch: epoch,
            expires_s: expiry(epochs(), region, epoch).as_secs(),
        };
        Self {
            network: NETWORK,
            term,
            holder: secret(1),
            electors: (10..27).map(secret).collect(),
            nets: (10..27).map(Some).collect(),
            measures: vec![None; 17],
            nonce: 1,
        }
    }

    fn hold(&self) -> Mandate {
        let votes = self.electors.iter().zip(&self.nets).zip(&self.measures);
        let votes = votes.map(|((elector, net), measured)| {
            let net = net
                .map(|net| NetPrefix::of(IpAddr::from([203, 0, net, elector.id().as_bytes()[0]])));
            Vote::sign(elector, self.network, &self.term.encode(), self.nonce, net, *measured)
        });
        Mandate::sign(&self.holder, self.network, &self.term, votes.collect(), 1)
    }
}

/// What a verifier of a network of so many nodes says to a mandate.
fn verify_among(nodes: f64, bytes: &Bytes, at: UnixTime) -> Result<Mandate, MandateError> {
    let mut context = Context {
        network: NETWORK,
        now: at,
        skew: Duration::from_secs(600),
        epochs: epochs(),
        acting: Duration::from_secs(300),
        nodes,
        verify: NodeId::verify,
        is_solved: &mut |_, nonce| nonce == 1,
        net_of: &|_| None,
    };
    Mandate::verify(bytes, &mut context)
}

fn verify(election: &Election) -> Result<(), MandateError> {
    verify_among(80.0, election.hold().bytes(), now()).map(|_| ())
}

#[test]
fn seventeen_votes_of_thirty_two_make_a_mandate() {
    let election = Election::new();
    let mandate = election.hold();
    assert!(mandate.bytes().len() < 2_200, "{}", mandate.bytes().len());
    assert_eq!(verify_among(80.0, mandate.bytes(), now()), Ok(mandate.clone()));
    assert_eq!((mandate.term(), mandate.votes().len()), (&election.term, 17));

    let mut under = election;
    under.electors.pop();
    assert_eq!(verify(&under), Err(MandateError::UnderVoted { counted: 16, quorum: 17 }));
}

#[test]
fn the_largest_fits() {
    let mut election = Election::new();
    election.nonce = u64::MAX;
    election.electors = (10..40).map(secret).collect();
    election.nets = (10..40).map(Some).collect();
    election.measures = vec![Some(255); 30];
    let mandate = election.hold();
    assert_eq!(mandate.votes().len(), 17 + 2, "the quorum and some to spare");
    assert!(mandate.bytes().len() <= 3_100, "{}", mandate.bytes().len());
}

#[test]
fn an_acting_one_needs_ten_and_lasts_minutes() {
    let mut election = Election::new();
    election.term.kind = Kind::Acting;
    election.electors.truncate(10);
    assert!(matches!(verify(&election), Err(MandateError::FromTheFuture)), "too long");
    election.term.expires_s = now().as_secs() + 300;
    let bytes = election.hold().bytes().clone();
    assert!(verify_among(80.0, &bytes, now()).is_ok());
    let later = now() + Duration::from_secs(901);
    assert_eq!(verify_among(80.0, &bytes, later), Err(MandateError::Expired));
    let before = UnixTime::from_secs(now().as_secs() - 601);
    assert_eq!(verify_among(80.0, &bytes, before), Err(MandateError::FromTheFuture));
    election.electors.pop();
    assert_eq!(verify(&election), Err(MandateError::UnderVoted { counted: 9, quorum: 10 }));
}

#[test]
fn of_another_network_region_or_epoch_it_is_void() {
    let mut other = Election::new();
    other.network = "other";
    assert!(matches!(verify(&other), Err(MandateError::Signature(_))));

    let mut elsewhere = Election::new();
    let key = Key::of_node(elsewhere.term.holder);
    let outside = Region::of(&key, 1).prefix() ^ 1 << 31;
    elsewhere.term.region = Region::from_parts(outside, 1).unwrap();
    elsewhere.term.epoch = epochs().at(elsewhere.term.region, now());
    elsewhere.term.since_epoch = elsewhere.term.epoch;
    elsewhere.term.expires_s =
        expiry(epochs(), elsewhere.term.region, elsewhere.term.epoch).as_secs();
    assert_eq!(verify(&elsewhere), Err(MandateError::Region));

    // Votes for one epoch under a term of another.
    let (mut later, past) = (Election::new(), Election::new().hold());
    later.term.epoch += 1;
    later.term.expires_s += EPOCH_S;
    let replayed = Mandate::sign(&later.holder, NETWORK, &later.term, past.votes(), 1);
    let at = epochs().start(Region::ALL, later.term.epoch);
    assert!(matches!(verify_among(80.0, replayed.bytes(), at), Err(MandateError::Signature(_))));
}

#[test]
fn it_holds_from_its_epoch_to_the_end_of_the_next() {
    let bytes = Election::new().hold().bytes().clone();
    let start = epochs().start(Region::ALL, epochs().at(Region::ALL, now()));
    let at = |s: i64| {
        let at = UnixTime::from_secs(start.as_secs().saturating_add_signed(s));
        verify_among(80.0, &bytes, at).map(|_| ())
    };
    assert_eq!(at(-601), Err(MandateError::FromTheFuture));
    assert_eq!(at(-600), Ok(()));
    assert_eq!(at(4_199), Ok(()), "the skew of clocks is granted");
    assert_eq!(at(4_200), Err(MandateError::Expired));

    let mut long = Election::new();
    long.term.expires_s += 1;
    assert_eq!(verify(&long), Err(MandateError::FromTheFuture));
    let mut unborn = Election::new();
    unborn.term.since_epoch += 1;
    assert_eq!(verify(&unborn), Err(MandateError::FromTheFuture));
}

#[test]
fn each_elector_counts_once() {
    let mut doubled = Election::new();
    doubled.electors[3] = doubled.electors[4].clone();
    assert_eq!(verify(&doubled), Err(MandateError::Doubled(doubled.electors[4].id())));
    let mut own = Election::new();
    own.electors[16] = own.holder.clone();
    assert_eq!(verify(&own), Err(MandateError::Doubled(own.holder.id())));
}

#[test]
fn each_network_counts_once() {
    let mut crowded = Election::new();
    crowded.nets[3] = crowded.nets[4];
    assert_eq!(verify(&crowded), Err(MandateError::UnderVoted { counted: 16, quorum: 17 }));
    crowded.electors.push(secret(27));
    crowded.nets.push(Some(27));
    crowded.measures.push(None);
    assert_eq!(verify(&crowded), Ok(()), "one more vote in its place");
    let mut private = Election::new();
    private.nets = vec![None; 17];
    assert_eq!(verify(&private), Ok(()), "private networks are not told apart");

    // Who is seen in the network of another one is there, whatever it says.
    let mandate = Election::new().hold();
    let liar = mandate.votes()[0].elector;
    let mut context = Context {
        network: NETWORK,
        now: now(),
        skew: Duration::ZERO,
        epochs: epochs(),
        acting: Duration::ZERO,
        nodes: 80.0,
        verify: NodeId::verify,
        is_solved: &mut |_, _| true,
        net_of: &|id| (id == liar).then(|| NetPrefix::of(IpAddr::from([203, 0, 20, 1]))),
    };
    assert_eq!(
        Mandate::verify(mandate.bytes(), &mut context),
        Err(MandateError::UnderVoted { counted: 16, quorum: 17 })
    );
}

#[test]
fn electors_stand_near_the_point() {
    // With so many nodes the electors of a test, which stand anywhere, are none.
    let bytes = Election::new().hold().bytes().clone();
    assert_eq!(
        verify_among(1e6, &bytes, now()),
        Err(MandateError::UnderVoted { counted: 0, quorum: 17 })
    );
}

#[test]
fn as_many_electors_are_counted_as_there_must_be() {
    let mut small = Election::new();
    (small.term.electors, small.electors) = (5, small.electors[..3].to_vec());
    assert_eq!(
        verify(&small),
        Err(MandateError::Electors { claimed: 5, least: 32 }),
        "a few cannot call themselves a small network in a large one"
    );
    let bytes = small.hold().bytes().clone();
    assert!(verify_among(6.0, &bytes, now()).is_ok());
    assert_eq!([4.0, 24.0, 66.0, 1e6].map(electors_min), [2, 11, 32, 32]);
    let mut large = Election::new();
    large.term.electors = 33;
    assert!(matches!(verify(&large), Err(MandateError::Electors { .. })));
}

#[test]
fn puzzles_are_solved() {
    let mut unsolved = Election::new();
    unsolved.nonce = 2;
    assert!(matches!(verify(&unsolved), Err(MandateError::Puzzle(_))));
}

#[test]
fn capacity_is_what_most_measured() {
    let mut fast = Election::new();
    let capacity = |election: &Election| {
        let mandate = verify_among(80.0, election.hold().bytes(), now()).expect("it is valid");
        mandate.term().capacity_log2
    };
    fast.measures[0] = Some(10);
    assert_eq!(capacity(&fast), 20, "one alone does not bind");
    fast.measures[1] = Some(30);
    assert_eq!(capacity(&fast), 10, "of two the lower");
    fast.measures[2] = Some(18);
    assert_eq!(capacity(&fast), 18);
    fast.measures[0] = Some(25);
    assert_eq!(capacity(&fast), 20, "never more than is claimed");
    assert_eq!(median([3, 1, 2, 9].into_iter()), Some(2));
}

#[test]
fn a_forged_bit_makes_it_void() {
    let bytes = Election::new().hold().bytes().to_vec();
    for at in (0..bytes.len()).step_by(7) {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        let forged = Bytes::from(forged);
        assert!(verify_among(80.0, &forged, now()).is_err(), "byte {at}");
    }
    for len in [0, 1, 100, bytes.len() - 1] {
        let cut = Bytes::copy_from_slice(&bytes[..len]);
        assert!(matches!(verify_among(80.0, &cut, now()), Err(MandateError::Malformed(_))));
    }
    let mut long = bytes;
    long.push(0);
    assert!(matches!(verify_among(80.0, &long.into(), now()), Err(MandateError::Malformed(_))));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), at: u64) {
        let at = UnixTime::from_secs(at);
        prop_assert!(verify_among(80.0, &bytes.into(), at).is_err());
    }

    #[test]
    fn numbers_at_their_ends_never_panic(epoch: u64, since: u64, expires_s: u64, at: u64) {
        let mut election = Election::new();
        election.electors.truncate(1);
        election.term.epoch = epoch;
        election.term.since_epoch = since;
        election.term.expires_s = expires_s;
        let _ = election.term.score();
        let bytes = election.hold().bytes().clone();
        prop_assert!(verify_among(80.0, &bytes, UnixTime::from_secs(at)).is_err());
    }
}
