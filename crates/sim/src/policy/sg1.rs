//! SG-1: super peers by gossip (Montresor, *A Robust Protocol for Building Superpeer Overlay
//! Topologies*, P2P 2004).
//!
//! Every node has a capacity, the number of clients that it can serve, and begins as a super peer
//! without any. Super peers gossip by Newscast (Jelasity, Kowalczyk and van Steen 2003): each keeps
//! the newest descriptors of some others, exchanges them with one of those every cycle, and adds
//! its own. One such view is of all super peers, one of those that have room. Each cycle a super
//! peer turns to the most capable one with room that is more capable than itself, or as capable and
//! fuller, and gives it as many clients as it takes. Without clients left it becomes its client; if
//! some are left, it changes roles with a client of the other that is more capable than itself. A
//! client whose super peer is gone becomes a super peer. So the most capable are left, as few as
//! can serve all.
//!
//! Where the paper is silent, this favours it: gossip passes every NAT, and costs its datagrams but
//! no connection; and a node that cannot be dialled knows it, and counts as capable of no client.

use core::time::Duration;
use std::collections::BTreeMap;

use baran_proto::invite::PeerAddr;
use baran_proto::node::Input;
use baran_proto::time::Instant;

use crate::draw::Draw;
use crate::net::kind::Kind;
use crate::net::nat::Nat;
use crate::world::World;

/// Pause between two exchanges of a node: Newscast's usual one.
const CYCLE: Duration = Duration::from_secs(10);

/// Descriptors of a view: Newscast's usual number.
const VIEW: usize = 20;

/// Bytes of a descriptor: id, address, age, capacity and load.
const DESCRIPTOR: u32 = 32 + 18 + 2 + 4;

/// Bytes of a message without one.
const PING: u32 = 40;

/// Bytes a second that a client is reckoned at: a call that is relayed for it.
const CLIENT_BYTES_PER_S: u64 = 4_000;

/// Most clients of a super peer: a region's share of a seat.
const CLIENTS_MAX: u64 = super::NODES_PER_SERVER as u64;

/// What one super peer knows of another.
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    host: u32,
    at: Instant,
    capacity: usize,
    load: usize,
}

/// The newest descriptors, one for each host.
#[derive(Debug, Clone, Default)]
struct View(Vec<Descriptor>);

impl View {
    /// Of whom a host knew when it was on last, and of whom it knows nothing yet.
    fn of_cache(world: &World, host: u32) -> Self {
        let cache = world.cache_of(host);
        let all = cache.iter().filter(|known| known.host != host).take(VIEW);
        let at = Instant::ZERO;
        Self(all.map(|known| Descriptor { host: known.host, at, capacity: 0, load: 0 }).collect())
    }

    /// Takes the newest of both, for `us`.
    fn merge(&mut self, others: &[Descriptor], us: u32) {
        self.0.extend(others.iter().filter(|other| other.host != us));
        self.0.sort_by_key(|one| (core::cmp::Reverse(one.at), one.host));
        let mut seen = Vec::with_capacity(VIEW);
        self.0.retain(|one| {
            let is_new = seen.len() < VIEW && !seen.contains(&one.host);
            if is_new {
                seen.push(one.host);
            }
            is_new
        });
    }
}

/// Whom a view is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// All super peers.
    Connected,
    /// Those that have room.
    Underloaded,
}

#[derive(Debug, Clone)]
enum Role {
    /// Serves these clients.
    Super(Vec<u32>),
    /// Is served by this one.
    Client(u32),
}

#[derive(Debug)]
struct Member {
    /// Of its host.
    run: u32,
    role: Role,
    /// By [`Of`].
    views: [View; 2],
    next: Instant,
}

/// All nodes' parts of the protocol.
#[derive(Debug)]
pub(super) struct Sg1 {
    members: BTreeMap<u32, Member>,
    /// The roles in which hosts begin that have stood for long.
    settled: BTreeMap<u32, Role>,
    draw: Draw,
}

/// Clients that a host can serve: none if they cannot dial it.
fn capacity(world: &World, host: u32) -> usize {
    let host = &world.hosts[host as usize];
    if host.nat != Nat::Open {
        return 0;
    }
    let clients = host.service.lent() / CLIENT_BYTES_PER_S;
    usize::try_from(clients.clamp(1, CLIENTS_MAX)).unwrap_or_default()
}

/// Of these hosts, the most capable first, those that are left as super peers: the first ones that
/// can serve all.
pub(super) fn settled(world: &World, hosts: &[u32]) -> Vec<u32> {
    let mut served = 0;
    let is_needed = |host: &&u32| {
        let is_needed = served < hosts.len();
        served += capacity(world, **host);
        is_needed
    };
    hosts.iter().take_while(is_needed).copied().collect()
}

impl Sg1 {
    pub(super) fn new(seed: u64) -> Self {
        Self { members: BTreeMap::new(), settled: BTreeMap::new(), draw: Draw::new(seed, 10) }
    }

    /// Of `hosts`, which have stood for long, `supers` serve the others.
    pub(super) fn settle(&mut self, world: &World, supers: &[u32], hosts: &[u32]) {
        let mut clients = hosts.iter().copied().filter(|host| !supers.contains(host));
        for host in supers {
            let own: Vec<_> = clients.by_ref().take(capacity(world, *host)).collect();
            self.settled.extend(own.iter().map(|client| (*client, Role::Client(*host))));
            self.settled.insert(*host, Role::Super(own));
        }
    }

    pub(super) fn is_super(&self, host: u32) -> bool {
        self.members.get(&host).is_some_and(|member| matches!(member.role, Role::Super(_)))
    }

    /// Whoever is due takes a turn.
    pub(super) fn tick(&mut self, world: &mut World) {
        self.members.retain(|host, member| {
            let host = &world.hosts[*host as usize];
            host.is_on && host.run == member.run
        });
        for (number, host) in (0..).zip(&world.hosts) {
            if host.is_on && !self.members.contains_key(&number) {
                let settled = self.settled.remove(&number).filter(|_| host.run == 1);
                let member = Member {
                    run: host.run,
                    role: settled.unwrap_or(Role::Super(Vec::new())),
                    views: [View::of_cache(world, number), View::default()],
                    next: world.now + self.draw.part_of(CYCLE),
                };
                self.members.insert(number, member);
            }
        }
        let is_due = |(_, member): &(&u32, &Member)| member.next <= world.now;
        let due: Vec<_> = self.members.iter().filter(is_due).map(|(host, _)| *host).collect();
        for host in due {
            self.cycle(world, host);
            if let Some(member) = self.members.get_mut(&host) {
                member.next = world.now + CYCLE;
            }
        }
    }

    fn cycle(&mut self, world: &mut World, host: u32) {
        match self.members.get(&host).map(|member| member.role.clone()) {
            Some(Role::Client(of)) => self.ask_super(world, host, of),
            Some(Role::Super(_)) => {
                self.drop_lost_clients(host);
                self.exchange(world, host, Of::Connected);
                self.exchange(world, host, Of::Underloaded);
                self.hand_over(world, host);
            }
            None => {}
        }
    }

    /// A client pings its super peer; without an answer it becomes one itself.
    fn ask_super(&mut self, world: &mut World, host: u32, of: u32) {
        let is_answered = pass(world, [host, of], [PING; 2])
            && self.clients(of).is_some_and(|clients| clients.contains(&host));
        if !is_answered {
            self.set_role(host, Role::Super(Vec::new()));
            return;
        }
        let is_joined = world.hosts[host as usize].node().is_none_or(|node| node.is_joined());
        if !is_joined && let Some(peer) = contact(world, of, host) {
            world.input(host, Input::Registry(vec![peer]));
        }
    }

    fn clients(&self, host: u32) -> Option<&Vec<u32>> {
        match &self.members.get(&host)?.role {
            Role::Super(clients) => Some(clients),
            Role::Client(_) => None,
        }
    }

    fn set_role(&mut self, host: u32, role: Role) {
        if let Some(member) = self.members.get_mut(&host) {
            member.role = role;
        }
    }

    fn drop_lost_clients(&mut self, host: u32) {
        let Some(mut clients) = self.clients(host).cloned() else { return };
        clients.retain(|client| {
            let role = self.members.get(client).map(|member| &member.role);
            matches!(role, Some(Role::Client(of)) if *of == host)
        });
        self.set_role(host, Role::Super(clients));
    }

    /// What a super peer says of itself.
    fn describe(&self, world: &World, host: u32) -> Option<Descriptor> {
        let load = self.clients(host)?.len();
        Some(Descriptor { host, at: world.now, capacity: capacity(world, host), load })
    }

    /// Newscast: both take the newest of what either knows. Whoever does not answer is forgotten.
    fn exchange(&mut self, world: &mut World, host: u32, of: Of) {
        let Some(peer) = self.draw_peer(host, of) else { return };
        let views = [host, peer].map(|host| self.view_with_own(world, host, of));
        let is_passed = match &views {
            [Some(ours), Some(theirs)] => pass(world, [host, peer], [ours, theirs].map(|v| len(v))),
            _ => false,
        };
        match views {
            [Some(ours), Some(theirs)] if is_passed => {
                for (to, view) in [(host, theirs), (peer, ours)] {
                    if let Some(member) = self.members.get_mut(&to) {
                        member.views[of as usize].merge(&view, to);
                    }
                }
            }
            _ => self.forget(host, peer),
        }
    }

    /// One of a view, or the super peer of one that has become a client.
    fn draw_peer(&mut self, host: u32, of: Of) -> Option<u32> {
        let known = self.draw.pick(&self.members.get(&host)?.views[of as usize].0)?.host;
        let Some(Role::Client(of)) = self.members.get(&known).map(|member| &member.role) else {
            return Some(known);
        };
        let peer = *of;
        self.forget(host, known);
        (peer != host).then_some(peer)
    }

    /// The view of a super peer, and itself if it belongs there.
    fn view_with_own(&self, world: &World, host: u32, of: Of) -> Option<Vec<Descriptor>> {
        let own = self.describe(world, host)?;
        let view = &self.members.get(&host)?.views[of as usize].0;
        let is_there = of == Of::Connected || own.load < own.capacity;
        Some(view.iter().copied().chain(is_there.then_some(own)).collect())
    }

    fn forget(&mut self, host: u32, peer: u32) {
        if let Some(member) = self.members.get_mut(&host) {
            member.views.iter_mut().for_each(|view| view.0.retain(|one| one.host != peer));
        }
    }

    /// Hands clients over to a more capable super peer, and perhaps the role as well.
    fn hand_over(&mut self, world: &mut World, host: u32) {
        let Some(own) = self.describe(world, host) else { return };
        let Some(member) = self.members.get(&host) else { return };
        let rank = |one: &Descriptor| (one.capacity, one.load, one.host);
        let others = member.views.iter().flat_map(|view| &view.0);
        let others = others.filter(|one| one.load < one.capacity && rank(one) > rank(&own));
        let Some(best) = others.copied().max_by_key(rank) else { return };
        // It says how many it takes at this moment.
        let current = self.describe(world, best.host).filter(|now| now.load < now.capacity);
        let is_there = pass(world, [host, best.host], [DESCRIPTOR; 2]);
        let Some(best) = current.filter(|_| is_there) else {
            self.forget(host, best.host);
            return;
        };
        let (Some(mut clients), Some(mut theirs)) =
            (self.clients(host).cloned(), self.clients(best.host).cloned())
        else {
            return;
        };
        let room = best.capacity - best.load;
        for client in clients.split_off(clients.len().saturating_sub(room)) {
            self.set_role(client, Role::Client(best.host));
            theirs.push(client);
            tell(world, host, client);
        }
        if clients.is_empty() && theirs.len() < best.capacity {
            theirs.push(host);
            self.set_role(host, Role::Client(best.host));
        } else {
            let heir = theirs.iter().position(|other| capacity(world, *other) > own.capacity);
            if let Some(heir) = heir {
                let heir = core::mem::replace(&mut theirs[heir], host);
                self.set_role(host, Role::Client(best.host));
                for client in &clients {
                    self.set_role(*client, Role::Client(heir));
                    tell(world, host, *client);
                }
                clients.truncate(capacity(world, heir));
                self.set_role(heir, Role::Super(clients));
            } else {
                self.set_role(host, Role::Super(clients));
            }
        }
        self.set_role(best.host, Role::Super(theirs));
    }
}

/// Bytes of a message with these descriptors.
fn len(view: &[Descriptor]) -> u32 {
    PING + DESCRIPTOR * u32::try_from(view.len()).unwrap_or_default()
}

/// Sends a datagram and its answer; tells whether both arrive.
fn pass(world: &mut World, hosts: [u32; 2], bytes: [u32; 2]) -> bool {
    let [a, b] = hosts;
    world.hosts[a as usize].traffic.datagram(Kind::Policy, bytes[0]);
    let is_there = world.reaches(a, b) && !world.draw.chance(world.config.loss);
    if is_there {
        world.hosts[b as usize].traffic.datagram(Kind::Policy, bytes[1]);
    }
    is_there && !world.draw.chance(world.config.loss)
}

/// Tells a client that another serves it.
fn tell(world: &mut World, from: u32, client: u32) {
    if world.hosts[client as usize].is_on {
        world.hosts[from as usize].traffic.datagram(Kind::Policy, DESCRIPTOR);
    }
}

/// Where a host is, as it says to `viewer`.
fn contact(world: &World, host: u32, viewer: u32) -> Option<PeerAddr> {
    let state = &world.hosts[host as usize];
    let homes = state.node()?.our_homes();
    Some(PeerAddr { id: state.id, addrs: vec![world.outside(host, viewer)], homes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::world::{Config, Profile};

    /// A world of these uplinks in multiples of one client, all on, that know each other.
    fn world(clients: &[u64]) -> (World, Sg1) {
        let config = Config { policy: Policy::Sg1, loss: 0.0, ..Config::default() };
        let mut world = World::new(config);
        for clients in clients {
            // An owner lends a quarter.
            let capacity = Some(clients * CLIENT_BYTES_PER_S * 4);
            world.add_host(&Profile { capacity, nat: Some(Nat::Open), ..Profile::default() });
        }
        let all: Vec<_> = (0..).zip(clients).map(|(host, _)| host).collect();
        world.remember_former(&all, &all, &[], 0.0);
        all.iter().for_each(|host| world.join(*host));
        (world, Sg1::new(1))
    }

    fn run(world: &mut World, sg1: &mut Sg1, cycles: u32) {
        for _ in 0..cycles * 10 {
            sg1.tick(world);
            world.run_until(world.now + Duration::from_secs(1));
        }
    }

    #[test]
    fn the_most_capable_are_left_and_clients_replace_who_is_gone() {
        let mut clients = vec![2; 40];
        (clients[7], clients[9]) = (80, 81);
        let (mut world, mut sg1) = world(&clients);
        run(&mut world, &mut sg1, 12);
        let supers = |sg1: &Sg1| (0..40).filter(|host| sg1.is_super(*host)).collect::<Vec<_>>();
        assert_eq!(supers(&sg1), [9]);
        assert_eq!(sg1.clients(9).map(Vec::len), Some(39));
        world.retire(9);
        run(&mut world, &mut sg1, 12);
        assert_eq!(supers(&sg1), [7]);
    }
}
