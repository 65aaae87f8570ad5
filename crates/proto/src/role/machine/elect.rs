//! The ledger of an elector.
//!
//! A *poll* is a region and an epoch (and whether seats are lent at once). Those who apply are
//! noted; when the poll's moment has come, the elector tries to reach the highest ranks among them
//! as any other node would, and votes for as many as there are seats. Who cannot be reached makes
//! room for the next.

use core::time::Duration;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Output, Roles, Timer};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::role::epoch::{draw, elector_point, name};
use crate::role::mandate::{electors_min, expiry};
use crate::role::term::{Kind, Term, Vote, digest};
use crate::role::{ELECTORS, Region, elector_radius};
use crate::time::{Instant, UnixTime};
use crate::wire::RoleMessage;
use crate::wire::role::{Apply, Ballot, DeclineReason, Declined, ECHO_LEN_MAX, Echo};

/// Polls at a time: a node is an elector of one region in thirty, in each epoch.
const POLLS_MAX: usize = 32;

/// Candidates of one poll: three for each seat are expected.
const APPLICANTS_MAX: usize = 256;

/// One elector of so many measures a candidate.
const MEASURED_BY: u64 = 8;

/// Messages of a measurement, of [`ECHO_LEN_MAX`] bytes: what fits the queue of a home link.
const ECHOES: u32 = 4;

/// How long they are waited for.
const ECHO_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PollId(u64);

/// Those who stand for seats of a region in an epoch.
#[derive(Debug)]
pub(super) struct Poll {
    region: Region,
    epoch: u64,
    kind: Kind,
    /// Whether its moment has come.
    is_open: bool,
    applicants: Vec<Applicant>,
}

/// How far an elector is with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Noted,
    /// It is being reached.
    Probing,
    /// It is being measured: when the first echo came back.
    Measuring(Option<Instant>),
    /// It has our vote, since then.
    Voted(Instant),
    /// It could not be reached.
    Failed,
}

/// One who stands for a seat.
#[derive(Debug)]
struct Applicant {
    contact: PeerAddr,
    term: Term,
    bytes: Bytes,
    score: f64,
    stage: Stage,
}

impl Applicant {
    fn id(&self) -> NodeId {
        self.term.holder
    }

    fn has_vote(&self) -> bool {
        matches!(self.stage, Stage::Voted(_))
    }
}

impl Roles {
    pub(super) fn handle_apply(&mut self, now: Instant, from: NodeId, apply: &Apply) {
        if let Err(reason) = self.note(now, from, apply) {
            let declined = Declined { reason, retry_after_s: 0 };
            self.send(from, RoleMessage::Declined(declined));
        }
    }

    /// Notes a candidate, cheap checks first.
    fn note(&mut self, now: Instant, from: NodeId, apply: &Apply) -> Result<(), DeclineReason> {
        let (Some(_), Some(plan), Some(unix)) = (self.nonce, self.plan(), self.unix(now)) else {
            return Err(DeclineReason::NoElector);
        };
        let term = Term::decode(&apply.term).map_err(|_| DeclineReason::Invalid)?;
        self.check_term(unix, from, &term)?;
        // Before anything is kept of it.
        if !self.is_solved(from, apply.nonce) {
            return Err(DeclineReason::Invalid);
        }
        let at = self.poll_of(now, &term).ok_or(DeclineReason::NoElector)?;
        let applicants = &self.polls.get(&at).ok_or(DeclineReason::NoElector)?.applicants;
        let known = applicants.iter().position(|one| one.id() == from);
        if known.is_none() && applicants.len() >= APPLICANTS_MAX {
            return Err(DeclineReason::NoElector);
        }
        // Once for each epoch; a seat that is lent at once is renewed.
        if term.kind == Kind::Ordinary && known.is_some() {
            return Err(DeclineReason::Time);
        }
        if term.since_epoch < term.epoch && !self.is_proved(now, &term, &apply.mandate) {
            return Err(DeclineReason::Invalid);
        }
        let contact = self.contact_of(from).ok_or(DeclineReason::Invalid)?;
        let poll = self.polls.get_mut(&at).ok_or(DeclineReason::NoElector)?;
        let renewed = known.map(|known| poll.applicants.remove(known));
        let (score, bytes) = (term.score(), apply.term.clone());
        poll.applicants.push(Applicant { contact, term, bytes, score, stage: Stage::Noted });
        if renewed.is_some_and(|old| old.has_vote()) {
            // One of the seats that may be lent is its own already.
            self.vote(now, at, from, None);
        } else if poll.is_open {
            self.advance_poll(now, at);
        }
        debug_assert!(plan.electors <= ELECTORS);
        Ok(())
    }

    fn check_term(&self, unix: UnixTime, from: NodeId, term: &Term) -> Result<(), DeclineReason> {
        let epoch = self.epochs.at(term.region, unix);
        let nodes = self.nodes.unwrap_or_default();
        let is_mine = term.region.contains(&Key::of_node(from))
            && self.key.distance(&elector_point(term.region, term.epoch)) <= elector_radius(nodes);
        let expires = match term.kind {
            Kind::Ordinary => expiry(self.epochs, term.region, term.epoch),
            // Clocks differ, and by more it would last longer than it may.
            Kind::Acting => unix + self.config.acting + self.config.gather,
        };
        let is_time = match term.kind {
            Kind::Ordinary => term.epoch == epoch + 1 && term.expires_s == expires.as_secs(),
            Kind::Acting => term.epoch == epoch && term.expires_s <= expires.as_secs(),
        };
        let electors = usize::from(term.electors);
        if term.holder != from || !(electors_min(nodes)..=ELECTORS).contains(&electors) {
            Err(DeclineReason::Invalid)
        } else if !is_mine {
            Err(DeclineReason::NoElector)
        } else if !is_time || term.since_epoch > term.epoch {
            Err(DeclineReason::Time)
        } else {
            Ok(())
        }
    }

    /// Whether a mandate shows that its holder had the seat before, with that capacity.
    fn is_proved(&mut self, now: Instant, term: &Term, mandate: &Bytes) -> bool {
        self.verify(now, mandate).is_ok_and(|before| {
            let before = before.term();
            (before.holder, before.region, before.since_epoch)
                == (term.holder, term.region, term.since_epoch)
                && (before.kind, before.epoch + 1) == (Kind::Ordinary, term.epoch)
                && term.capacity_log2 <= before.capacity_log2
        })
    }

    /// The poll of a term, which is opened if there is room.
    fn poll_of(&mut self, now: Instant, term: &Term) -> Option<PollId> {
        let is_of = |poll: &Poll| {
            (poll.region, poll.epoch, poll.kind) == (term.region, term.epoch, term.kind)
        };
        if let Some((at, _)) = self.polls.iter().find(|(_, poll)| is_of(poll)) {
            return Some(*at);
        }
        if self.polls.len() >= POLLS_MAX {
            return None;
        }
        let opens = match term.kind {
            Kind::Acting => now + self.config.gather,
            Kind::Ordinary => {
                let ends = self.epochs.start(term.region, term.epoch);
                let ends = self.instant_of(now, ends);
                let window = self.config.probing;
                let wait = (ends - now).saturating_sub(window) + self.draw(window / 2);
                now + wait.min(ends - now)
            }
        };
        let at = PollId(self.next_poll);
        self.next_poll += 1;
        let Term { region, epoch, kind, .. } = *term;
        self.polls.insert(at, Poll { region, epoch, kind, is_open: false, applicants: Vec::new() });
        self.timers.set(Timer::Poll(at), opens);
        Some(at)
    }

    /// Looks at as many candidates as there are votes left for, the highest ranks first.
    pub(super) fn advance_poll(&mut self, now: Instant, at: PollId) {
        let (Some(plan), acting) = (self.plan(), self.config.acting) else { return };
        let Some(poll) = self.polls.get_mut(&at) else { return };
        poll.is_open = true;
        let votes = match poll.kind {
            Kind::Ordinary => plan.active + plan.standby,
            Kind::Acting => plan.active,
        };
        poll.applicants.sort_by(|a, b| b.score.total_cmp(&a.score));
        // A seat that was lent at once and has run out leaves its place to others.
        let is_taken = |one: &Applicant| match one.stage {
            Stage::Probing | Stage::Measuring(_) => true,
            Stage::Voted(since) => poll.kind == Kind::Ordinary || now - since < acting,
            Stage::Noted | Stage::Failed => false,
        };
        let left = votes.saturating_sub(poll.applicants.iter().filter(|one| is_taken(one)).count());
        let noted = poll.applicants.iter_mut().filter(|one| one.stage == Stage::Noted);
        let mut next = Vec::new();
        for one in noted.take(left) {
            one.stage = Stage::Probing;
            next.push(one.contact.clone());
        }
        let is_acting = poll.kind == Kind::Acting;
        for contact in next {
            if is_acting {
                self.vote(now, at, contact.id, None);
            } else {
                self.outputs.push_back(Output::Probe(contact));
            }
        }
    }

    /// A candidate was reached directly, or could not be.
    pub(crate) fn probed(&mut self, now: Instant, id: NodeId, is_reached: bool) {
        let of = |poll: &Poll| {
            poll.applicants.iter().any(|one| one.id() == id && one.stage == Stage::Probing)
        };
        let polls: Vec<_> =
            self.polls.iter().filter(|(_, poll)| of(poll)).map(|(at, _)| *at).collect();
        for at in polls {
            if !is_reached {
                self.set_stage(at, id, Stage::Failed);
                self.advance_poll(now, at);
            } else if self.is_measured_by_us(at, id) {
                self.measure(now, at, id);
            } else {
                self.vote(now, at, id, None);
            }
        }
    }

    fn applicant(&mut self, at: PollId, id: NodeId) -> Option<&mut Applicant> {
        self.polls.get_mut(&at)?.applicants.iter_mut().find(|one| one.id() == id)
    }

    fn set_stage(&mut self, at: PollId, id: NodeId, stage: Stage) {
        if let Some(applicant) = self.applicant(at, id) {
            applicant.stage = stage;
        }
    }

    /// Whether it falls to us to measure a candidate that has not been measured as a seat before.
    fn is_measured_by_us(&mut self, at: PollId, id: NodeId) -> bool {
        let us = self.id;
        self.applicant(at, id).is_some_and(|one| {
            let term = &one.term;
            let parts: [&[u8]; 4] =
                [us.as_bytes(), id.as_bytes(), &name(term.region), &term.epoch.to_be_bytes()];
            let drawn = draw("baran 1 who measures whom", &parts);
            term.since_epoch == term.epoch && drawn < u64::MAX / MEASURED_BY
        })
    }

    fn measure(&mut self, now: Instant, at: PollId, id: NodeId) {
        self.set_stage(at, id, Stage::Measuring(None));
        for number in 0..ECHOES {
            let payload = Bytes::from(vec![0; ECHO_LEN_MAX]);
            self.send(id, RoleMessage::Echo(Echo { number, payload }));
        }
        self.timers.set(Timer::Echo(id), now + ECHO_MAX);
    }

    /// The dispersion of a train of messages tells the rate of the narrowest part of the way
    /// (Keshav, *A Control-Theoretic Approach to Flow Control*, 1991).
    pub(super) fn handle_echoed(&mut self, now: Instant, from: NodeId, echo: &Echo) {
        let Some((at, since)) = self.measuring(from) else { return };
        match since {
            None => self.set_stage(at, from, Stage::Measuring(Some(now))),
            Some(first) if echo.number == ECHOES - 1 => {
                let micros = (now - first).as_micros().max(1);
                let bytes = u128::from(ECHOES - 1) * ECHO_LEN_MAX as u128;
                let rate = bytes * 1_000_000 / micros;
                let measured = u8::try_from(rate.max(1).ilog2()).unwrap_or(u8::MAX);
                self.timers.stop(Timer::Echo(from));
                self.vote(now, at, from, Some(measured));
            }
            Some(_) => {}
        }
    }

    /// A train that does not arrive measures nothing, and the vote is given without.
    pub(super) fn echo_late(&mut self, now: Instant, id: NodeId) {
        if let Some((at, _)) = self.measuring(id) {
            self.vote(now, at, id, None);
        }
    }

    fn measuring(&self, id: NodeId) -> Option<(PollId, Option<Instant>)> {
        self.polls.iter().find_map(|(at, poll)| {
            poll.applicants.iter().find(|one| one.id() == id).and_then(|one| match one.stage {
                Stage::Measuring(since) => Some((*at, since)),
                Stage::Noted | Stage::Probing | Stage::Voted(_) | Stage::Failed => None,
            })
        })
    }

    fn vote(&mut self, now: Instant, at: PollId, id: NodeId, measured_log2: Option<u8>) {
        let Some(nonce) = self.nonce else { return };
        self.set_stage(at, id, Stage::Voted(now));
        let Some(applicant) = self.applicant(at, id) else { return };
        let (contact, term) = (applicant.contact.clone(), applicant.bytes.clone());
        let vote = Vote::sign(&self.secret, &self.network, &term, nonce, self.net, measured_log2);
        self.votes_given += 1;
        self.tell(&contact, RoleMessage::Vote(Ballot { term: digest(&term), vote }));
    }

    /// Those of a region to whom we gave our votes, for the running epoch.
    pub(super) fn elected(&self, now: Instant, region: Region) -> Vec<(PeerAddr, Term)> {
        let Some(unix) = self.unix(now) else { return Vec::new() };
        let mut seen = BTreeSet::new();
        let is_of =
            |poll: &&Poll| poll.region == region && poll.epoch <= self.epochs.at(region, unix);
        self.polls
            .values()
            .rev()
            .filter(is_of)
            .flat_map(|poll| &poll.applicants)
            .filter(|one| one.has_vote() && one.term.expires_s > unix.as_secs())
            .filter(|one| seen.insert(one.id()))
            .map(|one| (one.contact.clone(), one.term.clone()))
            .collect()
    }

    /// Forgets polls whose seats have all run out.
    pub(super) fn drop_old_polls(&mut self, now: Instant) {
        let Some(unix) = self.unix(now) else { return };
        let epochs = self.epochs;
        let over: Vec<_> = self
            .polls
            .iter()
            .filter(|(_, poll)| expiry(epochs, poll.region, poll.epoch) <= unix)
            .map(|(at, _)| *at)
            .collect();
        for at in over {
            self.polls.remove(&at);
            self.timers.stop(Timer::Poll(at));
        }
    }

    /// Votes given in each poll, for tests.
    #[cfg(test)]
    pub(super) fn votes_by_poll(&self) -> Vec<(Kind, usize)> {
        let votes = |poll: &Poll| poll.applicants.iter().filter(|one| one.has_vote()).count();
        self.polls.values().map(|poll| (poll.kind, votes(poll))).collect()
    }
}
