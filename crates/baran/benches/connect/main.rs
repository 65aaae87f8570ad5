//! A hundred real nodes in one process, 50 ms apart: what it costs to reach a peer by its id.
//!
//! Every second node is behind a port-restricted NAT. *Cold*: the two never had a connection.
//! *Warm*: they had one, it was closed, and its link is gone. The unit is the round trip of 50 ms
//! between any two nodes. The targets and what came out are in `docs/performance.md`.
//!
//! The process starts itself again in a network namespace of its own (Linux, root or user
//! namespaces). Arguments: `--nodes N` (100), `--connects N` of each kind (100), `--settle S`
//! before the first of them (200).

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

mod nat;
mod network;
mod probe;
mod wire;

use std::time::Duration;

use baran::PeerAddr;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tokio::time::sleep;

use crate::nat::Place;
use crate::network::{Contact, Member};
use crate::wire::Wire;

/// Whatever fails here is a broken set-up.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ONE_WAY: Duration = Duration::from_millis(25);

/// The unit of all results.
const ROUND_TRIP_S: f64 = 0.05;

/// Places of the probes, beyond those of the nodes.
const PROBES: [(u8, bool); 4] = [(250, false), (251, false), (252, true), (253, true)];

/// Most nodes: each has a number of its own below the probes'.
const NODES_MAX: u8 = 250;

/// Seconds after the last node joined: links that the start needed are closed, relayed channels
/// (120 s) have expired, tables are full.
const SETTLE_S: usize = 200;

/// How long the network is watched at rest.
const REST: Duration = Duration::from_secs(10);

/// Until a link that nobody uses is closed: twice of what the node keeps it in reserve.
const PARTED_MAX: Duration = Duration::from_secs(60);

/// Which pairs: whether the source, whether the target is behind a NAT.
const KINDS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn main() -> Outcome<()> {
    wire::alone()?;
    let nodes = u8::try_from(number("--nodes", 100))?.clamp(2, NODES_MAX);
    let connects = number("--connects", 100);
    let places = (0..nodes).map(|n| (n, n % 2 == 1)).chain(PROBES);
    let addrs: Vec<_> = places.map(|(n, is_natted)| Place::new(n, is_natted).inner).collect();
    let wire = Wire::new(&addrs, ONE_WAY)?;
    let round_trip = probe::check(PROBES.map(|(n, is_natted)| Place::new(n, is_natted)), ONE_WAY)?;
    println!("{nodes} nodes, a bare round trip takes {:.1} ms", round_trip.as_secs_f64() * 1e3);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let settle = Duration::from_secs(u64::try_from(number("--settle", SETTLE_S))?.max(1));
    runtime.block_on(measure(nodes, connects, settle, &wire))?;
    match wire.overflowed() {
        0 => Ok(()),
        lost => Err(format!("{lost} packets overflowed the wire: the figures are void").into()),
    }
}

/// The number after an argument.
fn number(name: &str, default: usize) -> usize {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn measure(nodes: u8, connects: usize, settle: Duration, wire: &Wire) -> Outcome<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let members = network::start(nodes, &mut rng).await?;
    sleep(settle).await;
    rest(&members, wire).await?;
    println!(
        "in round trips of 50 ms    | reached | connected p50 p90 | first byte p50 p90 | \
              straight | direct p50 p90 | requests p50 p90"
    );
    // What the handshake alone takes.
    let mut pairs = network::strangers(&members, false, false, &mut rng);
    pairs.truncate(connects);
    row("by address", (false, false), &all(&members, &pairs, Member::at).await);
    let by_id = |to: &Member| PeerAddr::from(to.node.id());
    for (source, target) in KINDS {
        let mut pairs = network::strangers(&members, source, target, &mut rng);
        pairs.truncate(connects);
        row("cold", (source, target), &all(&members, &pairs, by_id).await);
        let pairs = network::parted(&members, pairs, PARTED_MAX).await?;
        row("warm", (source, target), &all(&members, &pairs, by_id).await);
    }
    Ok(())
}

/// What the network does when nobody wants anything.
async fn rest(members: &[Member], wire: &Wire) -> Outcome<()> {
    let (mut tables, mut warm, mut links) = (Vec::new(), Vec::new(), Vec::new());
    let mut asked = 0;
    for member in members {
        let status = member.status().await?;
        tables.push(status.index.table);
        warm.push(status.index.warm);
        links.push(status.peers.len());
        asked += status.index.requests_sent;
    }
    for counts in [&mut tables, &mut warm, &mut links] {
        counts.sort_unstable();
    }
    let (packets, bytes) = wire.delivered();
    sleep(REST).await;
    let (packets, bytes) = (wire.delivered().0 - packets, wire.delivered().1 - bytes);
    let mut asked_later = 0;
    for member in members {
        asked_later += member.asked().await?;
    }
    let per_node_s = |n: u64| n as f64 / members.len() as f64 / REST.as_secs_f64();
    let middle = members.len() / 2;
    println!(
        "at rest, per node: {} in the table, {} warm, {} links; a second: {:.2} requests, {:.1} \
         packets, {:.0} bytes\n",
        tables[middle],
        warm[middle],
        links[middle],
        per_node_s(asked_later - asked),
        per_node_s(packets),
        per_node_s(bytes)
    );
    Ok(())
}

/// Makes contact along each pair, one after the other.
async fn all(
    members: &[Member],
    pairs: &[(usize, usize)],
    how: impl Fn(&Member) -> PeerAddr,
) -> Vec<Option<Contact>> {
    let mut contacts = Vec::new();
    for (from, to) in pairs {
        let contact = network::contact(&members[*from], how(&members[*to])).await;
        if let Err(error) = &contact {
            eprintln!("node {from} does not reach node {to}: {error}");
        }
        contacts.push(contact.ok());
    }
    contacts
}

fn row(what: &str, (source, target): (bool, bool), contacts: &[Option<Contact>]) {
    let name = |is_natted| if is_natted { "natted" } else { "open" };
    let what = format!("{what}, {} to {}", name(source), name(target));
    let tried = contacts.len();
    let contacts: Vec<_> = contacts.iter().flatten().collect();
    let reached = format!("{}/{tried}", contacts.len());
    let quantiles = |of: &dyn Fn(&Contact) -> Option<f64>| {
        let mut values: Vec<_> = contacts.iter().filter_map(|contact| of(contact)).collect();
        values.sort_by(f64::total_cmp);
        let at = |q: usize| values.get(values.len().saturating_sub(1) * q / 100).copied();
        [50, 90].map(|q| at(q).map_or_else(|| "-".into(), |value| format!("{value:.2}")))
    };
    let trips = |s: f64| s / ROUND_TRIP_S;
    let [connected, slow_connected] = quantiles(&|contact| Some(trips(contact.connected_s)));
    let [first, slow_first] = quantiles(&|contact| Some(trips(contact.first_byte_s)));
    let [direct, slow_direct] = quantiles(&|contact| contact.direct_s.map(trips));
    let [asked, much_asked] = quantiles(&|contact| Some(contact.requests));
    let straight = contacts.iter().filter(|contact| contact.is_direct).count();
    println!(
        "{what:26} | {reached:>7} | {connected:>9} {slow_connected:>7} | {first:>9} {slow_first:>7}"
    );
    println!(
        "{:26} | {straight:8} straight, {direct:>6} {slow_direct:>7} | {asked:>8} {much_asked:>7}",
        ""
    );
}
