//! By what rule nodes serve others: ours, and those of other networks to compare it with.
//!
//! Under [`Policy::Mandate`] nodes decide among themselves, inside the node's machine, and all of
//! them serve a little (the *floor*); [`Policy::Floor`] shows what that does alone. The others are
//! super-peer networks as they were built: an ordinary node answers nobody, and which ones serve is
//! decided here, by rules that know no more than such a network's nodes did. The nodes are the same
//! in everything else.

mod sg1;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use baran_proto::time::Instant;
use clap::ValueEnum;

use self::sg1::Sg1;
use crate::net::nat::Nat;
use crate::world::World;

/// Nodes for each that serves: a region's share of active and waiting seats, so that all policies
/// spend about the same on servers.
pub const NODES_PER_SERVER: usize = 85;

/// Fewest servers of a network.
const SERVERS_MIN: usize = 3;

/// Uplink from which on a node declares itself fit: 20 Mbit/s, which a tenth has.
const FIT_BYTES_PER_S: u64 = 2_500_000;

/// How long a node is on before it declares itself fit. Gnutella asked for an hour on average; this
/// is generous to whoever waits for servers.
const FIT_AFTER: Duration = Duration::from_secs(180);

/// How long one rests that quit because it had too much to do.
const REST: Duration = Duration::from_secs(600);

/// By what rule nodes serve others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Policy {
    /// Seats are lent by vote, above a floor that everybody keeps
    Mandate,
    /// The floor alone: everybody serves a little and nobody holds a seat
    Floor,
    /// A few chosen nodes serve, which everybody knows
    Fixed,
    /// A node that finds itself open, fast and long enough on serves
    SelfAsserted,
    /// The same, and it stops for ten minutes when it gave more than its owner lends
    QuitOnOverload,
    /// Gossip moves clients to the most capable (Montresor 2004)
    Sg1,
}

impl Policy {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mandate => "mandate",
            Self::Floor => "floor",
            Self::Fixed => "fixed",
            Self::SelfAsserted => "self-asserted",
            Self::QuitOnOverload => "quit-on-overload",
            Self::Sg1 => "sg1",
        }
    }

    /// Whether all nodes serve a little, whoever else serves.
    #[must_use]
    pub fn has_floor(self) -> bool {
        matches!(self, Self::Mandate | Self::Floor)
    }
}

impl World {
    fn is_fit(&self, host: u32) -> bool {
        let host = &self.hosts[host as usize];
        host.nat == Nat::Open && host.service.capacity >= FIT_BYTES_PER_S
    }

    /// The most capable of these hosts first.
    fn by_capacity(&self, mut hosts: Vec<u32>) -> Vec<u32> {
        hosts.sort_by_key(|host| (u64::MAX - self.hosts[*host as usize].service.capacity, *host));
        hosts
    }

    /// Who of these hosts serves in a network of them that has stood for long: all of them where
    /// there is a floor.
    pub(crate) fn former_servers(&self, hosts: &[u32]) -> Vec<u32> {
        let all = hosts.iter().copied();
        match self.config.policy {
            Policy::Mandate | Policy::Floor => hosts.to_vec(),
            Policy::Fixed => {
                let can_be = |host: &u32| {
                    let host = &self.hosts[*host as usize];
                    host.nat == Nat::Open && !host.is_adversary
                };
                let mut servers = self.by_capacity(all.filter(can_be).collect());
                servers.truncate((hosts.len() / NODES_PER_SERVER).max(SERVERS_MIN));
                servers
            }
            Policy::SelfAsserted | Policy::QuitOnOverload => {
                all.filter(|host| self.is_fit(*host)).collect()
            }
            Policy::Sg1 => sg1::settled(self, &self.by_capacity(hosts.to_vec())),
        }
    }
}

/// The policy at work: looks at all hosts every second.
#[derive(Debug)]
pub struct Servers {
    /// Who serves by the world's past: the fixed ones, and who was fit when the world began.
    former: BTreeSet<u32>,
    /// Those that quit, and until when.
    resting: BTreeMap<u32, Instant>,
    sg1: Sg1,
}

impl Servers {
    /// For a world in which these hosts have stood for long; with `is_new` they have not, but the
    /// fixed ones are known.
    #[must_use]
    pub fn new(world: &World, hosts: &[u32], is_new: bool) -> Self {
        let is_known = !is_new || world.config.policy == Policy::Fixed;
        let former = if is_known { world.former_servers(hosts) } else { Vec::new() };
        let mut sg1 = Sg1::new(world.config.seed);
        if world.config.policy == Policy::Sg1 {
            sg1.settle(world, &former, hosts);
        }
        Self { former: former.into_iter().collect(), resting: BTreeMap::new(), sg1 }
    }

    /// Lets those serve that the policy says, and the others not.
    pub fn tick(&mut self, world: &mut World) {
        match world.config.policy {
            Policy::Mandate | Policy::Floor => return,
            Policy::Sg1 => self.sg1.tick(world),
            Policy::Fixed | Policy::SelfAsserted | Policy::QuitOnOverload => {}
        }
        for host in 0..u32::try_from(world.hosts.len()).unwrap_or(u32::MAX) {
            if world.hosts[host as usize].is_on {
                let is_server = self.is_server(world, host);
                world.set_serving(host, is_server);
            }
        }
    }

    fn is_server(&mut self, world: &mut World, host: u32) -> bool {
        match world.config.policy {
            Policy::Mandate | Policy::Floor => true,
            Policy::Fixed => self.former.contains(&host),
            Policy::SelfAsserted => self.asserts_itself(world, host),
            Policy::QuitOnOverload => self.asserts_itself(world, host) && !self.rests(world, host),
            Policy::Sg1 => self.sg1.is_super(host),
        }
    }

    fn asserts_itself(&self, world: &World, host: u32) -> bool {
        let state = &world.hosts[host as usize];
        let was_on = state.run == 1 && self.former.contains(&host);
        world.is_fit(host) && (was_on || world.now - state.since >= FIT_AFTER)
    }

    fn rests(&mut self, world: &mut World, host: u32) -> bool {
        let now = world.now;
        if self.resting.get(&host).is_some_and(|until| *until > now) {
            return true;
        }
        let is_overloaded = world.hosts[host as usize].service.is_overloaded(now);
        if is_overloaded {
            self.resting.insert(host, now + REST);
        }
        is_overloaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Config, Profile};

    /// A world of one host that is fit and one that is not, both just switched on.
    fn world(policy: Policy) -> (World, Servers) {
        let mut world = World::new(Config { policy, ..Config::default() });
        for capacity in [FIT_BYTES_PER_S, FIT_BYTES_PER_S - 1] {
            let capacity = Some(capacity);
            let host =
                world.add_host(&Profile { capacity, nat: Some(Nat::Open), ..Profile::default() });
            world.join(host);
        }
        let servers = Servers::new(&world, &[0, 1], true);
        (world, servers)
    }

    fn serving_after(world: &mut World, servers: &mut Servers, time: Duration) -> [bool; 2] {
        world.run_until(world.now + time);
        servers.tick(world);
        [0, 1].map(|host| world.is_serving(host))
    }

    #[test]
    fn who_asserts_itself_is_fit_and_has_been_on() {
        let (mut world, mut servers) = world(Policy::SelfAsserted);
        let second = Duration::from_secs(1);
        assert_eq!(serving_after(&mut world, &mut servers, FIT_AFTER - second), [false, false]);
        assert_eq!(serving_after(&mut world, &mut servers, second), [true, false]);
    }

    #[test]
    fn who_gave_more_than_is_lent_rests() {
        let (mut world, mut servers) = world(Policy::QuitOnOverload);
        assert_eq!(serving_after(&mut world, &mut servers, FIT_AFTER), [true, false]);
        let now = world.now;
        let service = &mut world.hosts[0].service;
        let too_much = u32::try_from(service.lent() * 60 + 1).unwrap();
        service.carry(now, too_much);
        let second = Duration::from_secs(1);
        assert_eq!(serving_after(&mut world, &mut servers, second), [false, false]);
        assert_eq!(serving_after(&mut world, &mut servers, REST - second), [false, false]);
        assert_eq!(serving_after(&mut world, &mut servers, second), [true, false]);
    }

    #[test]
    fn the_fixed_are_the_fastest_that_are_open() {
        let (world, servers) = world(Policy::Fixed);
        assert_eq!(servers.former, BTreeSet::from([0, 1]));
        assert_eq!(world.by_capacity(vec![1, 0]), [0, 1]);
    }
}
