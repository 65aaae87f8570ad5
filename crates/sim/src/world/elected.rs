//! Seats of a network that has stood: who holds them when the world begins.
//!
//! What elections of the last hours would have made of those who are on is worked out by the rules
//! of [`baran_proto::role`]: ranks by `Term::score`, the electors that stand nearest to each
//! epoch's point, a majority of votes. Nobody is probed and no capacity is measured wrong. The
//! mandates are real ones: each node finds its own on its disk when it starts for the first time,
//! with the contacts of seats, and verifies what it is shown as always.

use core::time::Duration;
use std::collections::BTreeMap;

use baran_proto::id::NodeId;
use baran_proto::key::Key;
use baran_proto::node::NodeConfig;
use baran_proto::role::mandate::expiry;
use baran_proto::role::term::{ROLE_INDEX, ROLE_RELAY, ROLE_SIGNAL};
use baran_proto::role::{
    Depth, Epochs, Kind, Mandate, NetPrefix, Plan, Region, RoleConfig, TERM_EPOCHS, Term, Vote,
    elector_point, encode_state,
};

use super::World;
use super::adversary::nearest_of;
use super::host::PUZZLE;
use crate::draw::Draw;

/// Elections that are worked out: from no seat held to terms that end at different times, two
/// terms are enough.
const ELECTIONS: u64 = 2 * TERM_EPOCHS;

/// One elector of so many measures a candidate.
const MEASURED_BY: usize = 8;

/// Who holds the seats when the world begins.
#[derive(Debug, Default)]
pub(super) struct Elected {
    bits: u8,
    /// Hosts with larger numbers are new.
    hosts: usize,
    /// Of each region.
    seats: BTreeMap<Region, Vec<u32>>,
    /// Of each host that has one, the mandate in force first.
    mandates: BTreeMap<u32, Vec<Mandate>>,
}

/// What the elections of one region are worked out with.
struct Election<'a> {
    region: Region,
    plan: Plan,
    epochs: Epochs,
    /// Who may have a seat.
    members: &'a [u32],
    /// Who has one, and since which epoch.
    held: BTreeMap<u32, u64>,
}

impl World {
    /// Gives those that will be on, all within `within`, the seats that they would have in a
    /// network that has stood.
    pub(crate) fn elect_former(&mut self, on: &[u32], within: Duration) {
        let Some(plan) = Plan::of(on.len() as f64) else { return };
        let mut depth = Depth::default();
        depth.update(on.len() as f64);
        let mut elected =
            Elected { bits: depth.bits(), hosts: self.hosts.len(), ..Elected::default() };
        let mut keys: Vec<_> =
            on.iter().map(|host| (self.hosts[*host as usize].key, *host)).collect();
        keys.sort_unstable();
        let mut members: BTreeMap<Region, Vec<u32>> = BTreeMap::new();
        for (key, host) in &keys {
            members.entry(Region::of(key, elected.bits)).or_default().push(*host);
        }
        let config = RoleConfig::default();
        let epochs = Epochs::new(config.epoch);
        for (region, members) in &members {
            let now = epochs.at(*region, self.unix());
            let left = epochs.start(*region, now + 1) - self.unix();
            // Who starts so late in an epoch stands for no seat of the next: that was voted on.
            let is_late = left <= config.uptime_min + config.probing + within;
            let mut election =
                Election { region: *region, plan, epochs, members, held: BTreeMap::new() };
            for epoch in now - ELECTIONS..=now + u64::from(is_late) {
                let terms = election.hold(self, epoch);
                for term in terms.into_iter().filter(|_| epoch >= now) {
                    let Some((host, mandate)) = self.mandate_of(&term, &keys) else { continue };
                    elected.mandates.entry(host).or_default().push(mandate);
                    if epoch == now {
                        elected.seats.entry(*region).or_default().push(host);
                    }
                }
            }
        }
        self.elected = elected;
    }

    /// A term's mandate, if enough of the nodes nearest to its electors' point give their votes.
    fn mandate_of(&self, term: &Term, keys: &[(Key, u32)]) -> Option<(u32, Mandate)> {
        let holder = self.host_of(term.holder)?;
        let is_bad = |host: u32| self.hosts[host as usize].is_adversary;
        let (count, bytes) = (usize::from(term.electors), term.encode());
        let point = elector_point(term.region, term.epoch);
        let near = nearest_of(keys, &point, count + 1).into_iter().map(|(_, host)| host);
        let electors = near.filter(|host| *host != holder).take(count).enumerate();
        // Adversaries vote for their like alone.
        let willing = electors.filter(|(_, elector)| !is_bad(*elector) || is_bad(holder));
        let vote = |(at, elector): (usize, u32)| {
            let measured = at.is_multiple_of(MEASURED_BY).then_some(term.capacity_log2);
            self.vote_of(elector, &bytes, measured)
        };
        let votes: Vec<_> = willing.map(vote).collect();
        let secret = self.secret(holder, self.hosts[holder as usize].salt);
        (votes.len() >= term.quorum())
            .then(|| (holder, Mandate::sign(&secret, &network(), term, votes, PUZZLE)))
    }

    /// The vote of a host's node.
    pub(super) fn vote_of(&self, host: u32, term: &[u8], measured_log2: Option<u8>) -> Vote {
        let state = &self.hosts[host as usize];
        let net = Some(NetPrefix::of(state.ip.into()));
        let secret = self.secret(host, state.salt);
        Vote::sign(&secret, &network(), term, PUZZLE, net, measured_log2)
    }

    /// What a node finds of roles on its disk when it starts for the first time: its mandates, and
    /// where seats of its region are: a seat knows all of them, and others their homes.
    pub(super) fn former_roles(&self, host: u32) -> Vec<u8> {
        let Elected { bits, hosts, seats, mandates } = &self.elected;
        let region = Region::of(&self.hosts[host as usize].key, *bits);
        let Some(seats) = seats.get(&region).filter(|_| (host as usize) < *hosts) else {
            return Vec::new();
        };
        let own = mandates.get(&host).map_or(&[][..], Vec::as_slice);
        let mut known: Vec<_> = seats.iter().copied().filter(|seat| *seat != host).collect();
        if own.is_empty() {
            let mut draw = Draw::new(self.config.seed, 8 << 32 | u64::from(host));
            while known.len() > RoleConfig::default().homes {
                let at = draw.below(known.len());
                known.swap_remove(at);
            }
        }
        let known: Vec<_> = known.into_iter().map(|seat| self.former_contact(seat)).collect();
        let own: Vec<_> = own.iter().map(Mandate::bytes).collect();
        encode_state(&own, &known.iter().collect::<Vec<_>>(), self.unix())
    }
}

impl Election<'_> {
    /// Elects the seats of an epoch, in the order of their ranks.
    fn hold(&mut self, world: &World, epoch: u64) -> Vec<Term> {
        let term = |host: &u32| {
            let since_epoch = self.held.get(host).copied().unwrap_or(epoch);
            let state = &world.hosts[*host as usize];
            self.term(state.id, state.lent_log2(), epoch, since_epoch)
        };
        let rank = |host: &u32| {
            let term = term(host);
            (term.score(), *host, term)
        };
        let mut ranks: Vec<_> = self.members.iter().map(rank).collect();
        ranks.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
        ranks.truncate(self.plan.active + self.plan.standby);
        self.held = ranks.iter().map(|(_, host, term)| (*host, term.since_epoch)).collect();
        ranks.into_iter().map(|(.., term)| term).collect()
    }

    fn term(&self, holder: NodeId, capacity_log2: u8, epoch: u64, since_epoch: u64) -> Term {
        Term {
            region: self.region,
            epoch,
            holder,
            kind: Kind::Ordinary,
            roles: ROLE_INDEX | ROLE_SIGNAL | ROLE_RELAY,
            capacity_log2,
            electors: u8::try_from(self.plan.electors).unwrap_or(u8::MAX),
            since_epoch,
            expires_s: expiry(self.epochs, self.region, epoch).as_secs(),
        }
    }
}

/// The network that all nodes are of.
fn network() -> String {
    NodeConfig::default().network
}

#[cfg(test)]
mod tests {
    use baran_proto::node::Node;

    use super::*;
    use crate::population::Config as Population;
    use crate::world::{Config, Host};

    const HALF: Duration = Duration::from_secs(30);

    /// A network that has stood, about to be switched on within half a minute.
    fn stood(nodes: usize) -> World {
        let mut world = World::new(Config::default());
        world.populate(&Population { nodes, ..Population::default() }, HALF, 0.0);
        world
    }

    #[test]
    fn a_network_that_has_stood_has_its_seats_and_they_are_elected() {
        let mut world = stood(100);
        world.run_until(world.now() + HALF * 2);
        let (_, planned) = world.planned_seats(100);
        // Who counts fewer nodes than there are expects fewer to serve.
        let serving = world.seats().len();
        assert!(serving >= planned * 3 / 4, "{serving} of {planned}");
        let on = || world.hosts.iter().filter_map(Host::node).map(Node::role_stats);
        // Some may be lent at once by those that started first.
        let elected = on().filter(|stats| stats.seat.is_some() && !stats.is_acting);
        let votes: Vec<_> = elected.map(|stats| stats.votes).collect();
        assert_eq!(votes.len(), world.elected.mandates.len(), "each took up its own");
        assert!(votes.iter().all(|votes| *votes >= 17), "{votes:?}");
        assert!(on().filter(|stats| !stats.homes.is_empty()).count() > 80);
    }

    #[test]
    fn terms_do_not_end_all_at_once() {
        let world = stood(300);
        let first = world.elected.mandates.values().filter_map(|all| all.first());
        let mut since: Vec<_> =
            first.map(|own| own.term().epoch - own.term().since_epoch).collect();
        since.sort_unstable();
        since.dedup();
        assert!(since.len() > 3, "{since:?}");
    }
}
