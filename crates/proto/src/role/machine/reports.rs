//! Removing a seat that does not serve: reports are gathered by its fellows, and enough of them
//! make its mandate void for whoever sees them.

use core::time::Duration;

use super::{Event, Roles};
use crate::id::NodeId;
use crate::role::report::{Charge, REPORTS_MIN, Reason, Removal, Report};
use crate::role::{Kind, Region, Term};
use crate::time::Instant;
use crate::wire::RoleMessage;
use crate::wire::role::Accusation;

/// Times in a row that a seat is not had before it is reported.
const FAILURES: u8 = 3;

/// From the beginning of its seat, the time in which a seat gets the records of its region.
const LEARNING: Duration = Duration::from_secs(600);

/// Seats on which reports are gathered at a time.
const CASES_MAX: usize = 16;

/// Removals that are remembered, and told to those who ask.
const REMOVALS_MAX: usize = 16;

/// Reports on one seat.
#[derive(Debug, Default)]
pub(super) struct Case {
    reports: Vec<Report>,
}

impl Roles {
    /// A seat could not be had, though it should be there.
    pub(super) fn seat_failed(&mut self, now: Instant, id: NodeId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.failures = seat.failures.saturating_add(1);
        if seat.failures == FAILURES {
            self.accuse(now, id, Reason::Dead);
        }
    }

    /// A seat denied a record that two others gave. One that is new may not have it yet.
    pub(crate) fn omission(&mut self, now: Instant, id: NodeId) {
        let (Some(unix), Some(seat)) = (self.unix(now), self.seats.get(&id)) else { return };
        let term = seat.mandate.term();
        let begun = self.epochs.start(term.region, term.since_epoch);
        if term.kind == Kind::Ordinary && begun + LEARNING <= unix {
            self.accuse(now, id, Reason::Omission);
        }
    }

    /// Signs a report and gives it to the other seats that we know.
    fn accuse(&mut self, now: Instant, id: NodeId, reason: Reason) {
        let (Some(seat), Some(nonce)) = (self.seats.get(&id), self.nonce) else { return };
        let (Some(unix), region) = (self.unix(now), seat.mandate.term().region) else { return };
        let charge = Charge { seat: id, region, epoch: self.epochs.at(region, unix) };
        let report = Report::sign(&self.secret, &self.network, &charge, nonce, self.net, reason);
        let accusation = Accusation { charge, report };
        let judges: Vec<_> = self.seats.keys().copied().filter(|other| *other != id).collect();
        for judge in judges {
            self.send(judge, RoleMessage::Report(accusation.clone()));
        }
        if self.told_seat.is_some() {
            self.handle_report(now, self.id, &accusation);
        }
    }

    /// Gathers a report. One that comes from elsewhere is passed on to all fellows: each leaf knows
    /// only a few of them.
    pub(super) fn handle_report(&mut self, now: Instant, from: NodeId, accusation: &Accusation) {
        let Accusation { charge, report } = accusation.clone();
        let Some(unix) = self.unix(now) else { return };
        let epoch = self.epochs.at(charge.region, unix);
        let is_seat = self.seats.contains_key(&charge.seat) || charge.seat == self.id;
        let is_time = is_recent(&charge, epoch);
        // Others may not reach whom we hear.
        let is_wrong = report.reason == Reason::Dead && self.hears(charge.seat);
        let is_judge = self.told_seat.is_some() && is_seat && is_time && !is_wrong;
        let Self { cases, epochs, .. } = self;
        cases.retain(|case, _| is_recent(case, epochs.at(case.region, unix)));
        if !is_judge || self.cases.len() >= CASES_MAX && !self.cases.contains_key(&charge) {
            return;
        }
        let gathered = self.cases.get(&charge).map_or(&[][..], |case| &case.reports);
        if gathered.iter().any(|other| report.repeats(other)) || !self.is_valid(&charge, &report) {
            return;
        }
        if !self.seats.contains_key(&from) && from != self.id {
            let fellows = self.seats.keys().copied().filter(|id| *id != charge.seat);
            for fellow in fellows.collect::<Vec<_>>() {
                self.send(fellow, RoleMessage::Report(accusation.clone()));
            }
        }
        let case = self.cases.or_default(charge);
        case.reports.push(report);
        if case.reports.len() >= REPORTS_MIN {
            let reports = core::mem::take(&mut case.reports);
            self.cases.remove(&charge);
            self.remove_seat(now, &Removal { charge, reports });
        }
    }

    /// Whether a seat is there, as far as we can tell: ourselves, or one that is linked and not
    /// doubted.
    fn hears(&self, seat: NodeId) -> bool {
        let is_there = self.seats.get(&seat).is_some_and(|seat| !seat.is_lost);
        seat == self.id || is_there && self.linked.contains_key(&seat)
    }

    fn is_valid(&mut self, charge: &Charge, report: &Report) -> bool {
        let Self { puzzles, network, config, .. } = self;
        report.is_valid(network, charge, config.verify, &mut |id, nonce| {
            puzzles.is_solved(network, config.is_solved, id, nonce)
        })
    }

    pub(super) fn handle_removal(&mut self, now: Instant, removal: &Removal) {
        let Some(unix) = self.unix(now) else { return };
        if !is_recent(&removal.charge, self.epochs.at(removal.charge.region, unix)) {
            return;
        }
        let is_known = self.removed.iter().any(|other| other.charge == removal.charge);
        let is_news = !is_known && removal.charge.region.contains(&self.key);
        let Self { puzzles, network, config, .. } = self;
        let is_valid = is_news
            && removal.is_valid(network, config.verify, &mut |id, nonce| {
                puzzles.is_solved(network, config.is_solved, id, nonce)
            });
        if is_valid {
            self.remove_seat(now, removal);
        }
    }

    pub(super) fn is_removed(&self, term: &Term) -> bool {
        self.removed.iter().any(|removal| removal.charge.covers(term))
    }

    /// Removals of a region, for who asks for its seats.
    pub(super) fn removals_of(&self, region: Region) -> Vec<Removal> {
        self.removed.iter().filter(|removal| removal.charge.region == region).cloned().collect()
    }

    fn remove_seat(&mut self, now: Instant, removal: &Removal) {
        let charge = removal.charge;
        if self.removed.len() >= REMOVALS_MAX {
            self.removed.pop_front();
        }
        self.removed.push_back(removal.clone());
        self.event(Event::Removed(charge.seat));
        if charge.seat == self.id {
            self.mandates.retain(|own| !charge.covers(own.term()));
        } else if self.seats.get(&charge.seat).is_some_and(|it| charge.covers(it.mandate.term())) {
            self.forget_seat(now, charge.seat);
            self.hints.remove(&charge.seat);
        }
        // Who is removed is to stop.
        let told: Vec<_> = self.seats.keys().copied().chain([charge.seat]).collect();
        for seat in told {
            self.send(seat, RoleMessage::Removal(removal.clone()));
        }
        self.review(now);
    }
}

/// Whether a charge is of the running epoch of its region or of the one before: who reports may be
/// a little behind.
fn is_recent(charge: &Charge, epoch: u64) -> bool {
    charge.epoch == epoch || charge.epoch.checked_add(1) == Some(epoch)
}
