//! Standing for a seat.
//!
//! For an ordinary one of the next epoch a candidate asks that epoch's electors in the first part
//! of the running one, and is looked at in the last part: a vote says that it was up all the while.
//! For a seat at once the electors of the running epoch are asked.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Roles, Search, Timer};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::role::epoch::elector_point;
use crate::role::mandate::{Mandate, expiry, median};
use crate::role::term::{Kind, RANKS_MAX, ROLE_INDEX, ROLE_RELAY, ROLE_SIGNAL, Term, Vote, digest};
use crate::role::{ELECTORS, Plan};
use crate::time::Instant;
use crate::wire::RoleMessage;
use crate::wire::role::{Apply, Ballot};

/// Candidates for every two seats that are wanted: a third of those who apply may fail. Holders
/// of seats apply besides, and each candidate costs a link to each elector.
const CANDIDATES_PER_TWO: usize = 3;

/// Epochs in which who was not elected does not stand again, as long as seats are filled: a rank
/// that is too low stays so for hours.
const REST_EPOCHS: u32 = 2;

/// Nodes of a network in which everybody who is willing applies.
const ALL_APPLY: f64 = 16.0;

/// Most that eagerness grows: everybody of a region applies long before.
const EAGERNESS_MAX: u32 = 16;

/// Attempts to have a seat at once, after which the pauses between them grow no more.
const ACTING_TRIES_MAX: u32 = 4;

/// What we stand for.
#[derive(Debug)]
pub(super) struct Candidacy {
    pub(super) term: Term,
    bytes: Bytes,
    pub(super) electors: Vec<PeerAddr>,
    votes: BTreeMap<NodeId, Vote>,
}

impl Roles {
    /// Stands for a seat of the next epoch, if this node is among those that should.
    pub(super) fn apply(&mut self, now: Instant) {
        let (Some(plan), Some(epoch), Some(unix)) = (self.plan(), self.epoch(now), self.unix(now))
        else {
            return;
        };
        let up = self.up_since.map_or(Duration::ZERO, |since| now - since);
        if !self.is_willing() {
            return;
        }
        if up < self.config.uptime_min {
            let at = now + (self.config.uptime_min - up);
            return self.timers.set(Timer::Apply, at);
        }
        let is_young = up < self.epochs.len();
        let (region, epoch) = (self.region(), epoch + 1);
        let ends = self.epochs.start(region, epoch);
        if ends - unix <= self.config.probing {
            return; // Too late: the electors begin to look.
        }
        let seats = plan.active + plan.standby;
        let is_filled = self.grow_eager(now, seats);
        let term = self.ordinary_term(plan, epoch);
        let holds_seat = term.since_epoch < epoch;
        // Who has been there for long mostly stays: others stand if seats are wanting.
        let is_resting = self.eagerness == 0 && (self.rest > 0 || is_young && is_filled);
        self.rest = self.rest.saturating_sub(1);
        let is_wanted = !is_resting && self.is_among(&term, self.candidates(seats, is_filled));
        if holds_seat || is_wanted {
            self.stand(term);
        }
    }

    /// How many of the best of the region are to stand.
    fn candidates(&self, seats: usize, is_filled: bool) -> usize {
        if is_filled {
            // Others have the seats, and count for half as much again.
            return seats * 2 / CANDIDATES_PER_TWO;
        }
        // The first time is no evidence that too few stand.
        (seats * CANDIDATES_PER_TWO / 2) << self.eagerness.saturating_sub(1)
    }

    fn ordinary_term(&self, plan: Plan, epoch: u64) -> Term {
        let expires = expiry(self.epochs, self.region(), epoch);
        self.term(plan, Kind::Ordinary, epoch, expires.as_secs())
    }

    /// An epoch has begun: who may have to stand soon asks a home how many seats there are.
    pub(super) fn ask_whether_to_stand(&mut self, now: Instant) {
        let (Some(plan), Some(epoch)) = (self.plan(), self.epoch(now)) else { return };
        if !self.is_willing() || self.told_seat.is_some() {
            return;
        }
        let wanted = self.candidates(2 * (plan.active + plan.standby), false);
        let home = self.homes.first().and_then(|home| self.contact_of(*home));
        if self.is_among(&self.ordinary_term(plan, epoch + 1), wanted) {
            self.ask_for_seats(home.as_slice());
        }
    }

    /// More nodes stand from epoch to epoch while fewer seats are filled than there should be. Who
    /// heard nothing of seats has no reason to change its mind. Whether they are all filled.
    fn grow_eager(&mut self, now: Instant, seats: usize) -> bool {
        let has_seat = self.told_seat.is_some();
        let named = self.seats_named.take();
        let filled = if has_seat { Some(self.living(now)) } else { named };
        match filled {
            Some(filled) if filled >= seats => self.eagerness = 0,
            Some(filled) => {
                // Few at once were lost at once: those who come first by rank among them.
                let is_depleted = self.eagerness == 0 && filled * 4 < seats * 3;
                let steps = if is_depleted { 2 } else { 1 };
                self.eagerness = (self.eagerness + steps).min(EAGERNESS_MAX);
            }
            None => {}
        }
        filled.is_some_and(|filled| filled >= seats)
    }

    /// Stands for a seat at once, if too few are there.
    pub(super) fn apply_acting(&mut self, now: Instant) {
        let (Some(plan), Some(epoch), Some(unix)) = (self.plan(), self.epoch(now), self.unix(now))
        else {
            return;
        };
        let own = self.current(now).map(|own| (own.term().kind, own.expires() - unix));
        let is_needed = match own {
            None => self.are_too_few(now, plan),
            Some((Kind::Ordinary, _)) => false,
            // Those lent at once stand in for those that are elected.
            Some((Kind::Acting, _)) => self.living_elected() < plan.active.div_ceil(2),
        };
        if !self.is_willing() || !is_needed {
            self.acting_tries = 0;
            return;
        }
        if let Some((_, left)) = own
            && left > self.config.acting / 2
        {
            return self.timers.set(Timer::Acting, now + (left - self.config.acting / 2));
        }
        let tries = self.acting_tries.min(ACTING_TRIES_MAX);
        self.acting_tries += 1;
        let pause = self.config.gather * 4 * 2u32.pow(tries);
        let pause = pause.min(self.config.acting / 2) + self.draw(self.config.gather);
        self.timers.set(Timer::Acting, now + pause);
        let expires = unix + self.config.acting;
        let term = self.term(plan, Kind::Acting, epoch, expires.as_secs());
        if self.is_among(&term, (plan.active * 2) << tries) {
            self.stand(term);
        }
    }

    fn is_willing(&self) -> bool {
        self.serves && self.is_ready()
    }

    /// The term that we would have.
    fn term(&self, plan: Plan, kind: Kind, epoch: u64, expires_s: u64) -> Term {
        let region = self.region();
        let held = self.mandates.iter().map(Mandate::term).find(|term| {
            kind == Kind::Ordinary
                && (term.kind, term.region, term.epoch + 1) == (kind, region, epoch)
        });
        let claimed = self.config.capacity_log2.min(self.measured_log2.unwrap_or(u8::MAX));
        Term {
            region,
            epoch,
            holder: self.id,
            kind,
            roles: match kind {
                Kind::Ordinary => ROLE_INDEX | ROLE_SIGNAL | ROLE_RELAY,
                Kind::Acting => ROLE_INDEX | ROLE_SIGNAL,
            },
            capacity_log2: held.map_or(claimed, |term| term.capacity_log2.min(claimed)),
            electors: u8::try_from(plan.electors).unwrap_or(u8::MAX),
            since_epoch: held.map_or(epoch, |term| term.since_epoch),
            expires_s,
        }
    }

    /// Whether a term is expected to be among so many best of the region, if all had weight 1.
    fn is_among(&self, term: &Term, wanted: usize) -> bool {
        let nodes = self.nodes.unwrap_or_default();
        let share = wanted as f64 / (nodes * term.region.share()).max(1.0);
        // Of draws u the share above e^(−1/s) has a score above s.
        nodes <= ALL_APPLY || share >= 1.0 || term.score() > -1.0 / (1.0 - share).ln()
    }

    fn stand(&mut self, term: Term) {
        let point = elector_point(term.region, term.epoch);
        let bytes = term.encode();
        let candidacy = Candidacy { term, bytes, electors: Vec::new(), votes: BTreeMap::new() };
        self.search(point, ELECTORS, Search::Electors(Box::new(candidacy)));
    }

    /// The electors are known: asks all of them.
    pub(super) fn ask_electors(
        &mut self,
        now: Instant,
        mut candidacy: Candidacy,
        nodes: &[PeerAddr],
    ) {
        let Some(nonce) = self.nonce else { return };
        let electors = nodes.iter().filter(|node| node.id != self.id).take(ELECTORS);
        candidacy.electors = electors.cloned().collect();
        // A look-up counts a small network better than an estimate does: too high a quorum cannot
        // be had, and who counts too few is not believed.
        let found = u8::try_from(candidacy.electors.len()).unwrap_or(u8::MAX);
        candidacy.term.electors = found;
        candidacy.bytes = candidacy.term.encode();
        let term = &candidacy.term;
        let proof = self
            .mandates
            .iter()
            .find(|own| term.since_epoch < term.epoch && own.term().epoch + 1 == term.epoch)
            .map(|mandate| mandate.bytes().clone())
            .unwrap_or_default();
        for elector in &candidacy.electors {
            let (term, mandate) = (candidacy.bytes.clone(), proof.clone());
            self.tell(elector, RoleMessage::Apply(Apply { term, nonce, mandate }));
        }
        self.candidacies.retain(|other| other.term.kind != candidacy.term.kind);
        self.candidacies.push(candidacy);
        self.review(now);
    }

    pub(super) fn handle_vote(&mut self, now: Instant, from: NodeId, ballot: Ballot) {
        let Ballot { term, vote } = ballot;
        let candidacy = self.candidacies.iter_mut().find(|one| digest(&one.bytes) == term);
        let Some(candidacy) = candidacy.filter(|_| vote.elector == from) else { return };
        let is_asked = candidacy.electors.iter().any(|elector| elector.id == from);
        if is_asked && vote.is_signed(&self.network, &candidacy.bytes, self.config.verify) {
            candidacy.votes.insert(from, vote);
            if candidacy.term.kind == Kind::Acting {
                self.take_office(now);
            }
        }
    }

    /// Makes mandates of the votes that are there, of those terms that have begun.
    pub(super) fn take_office(&mut self, now: Instant) {
        let (Some(unix), Some(nonce)) = (self.unix(now), self.nonce) else { return };
        let mut standing = core::mem::take(&mut self.candidacies);
        standing.retain(|candidacy| {
            let term = &candidacy.term;
            let has_begun = self.epochs.at(term.region, unix) >= term.epoch;
            if !has_begun {
                return true;
            }
            let votes: Vec<_> = candidacy.votes.values().cloned().collect();
            if votes.len() < term.quorum() {
                if term.kind == Kind::Ordinary {
                    self.rest = REST_EPOCHS;
                }
                return term.kind == Kind::Acting && term.expires_s > unix.as_secs();
            }
            let measured = median(votes.iter().filter_map(|vote| vote.measured_log2));
            let mandate = Mandate::sign(&self.secret, &self.network, term, votes, nonce);
            self.measured_log2 = measured.or(self.measured_log2);
            let Ok(mandate) = self.verify(now, mandate.bytes()) else {
                return term.kind == Kind::Acting;
            };
            self.mandates.push(mandate);
            self.introduce(candidacy);
            false
        });
        // Those that began meanwhile, by the outputs of this very call, there are none.
        self.candidacies.append(&mut standing);
        self.review(now);
    }

    /// Asks some electors whom else they elected.
    fn introduce(&mut self, candidacy: &Candidacy) {
        let voted = candidacy.electors.iter().filter(|one| candidacy.votes.contains_key(&one.id));
        let some: Vec<_> = voted.take(RANKS_MAX / 4).cloned().collect();
        self.ask_for_seats(&some);
    }
}
