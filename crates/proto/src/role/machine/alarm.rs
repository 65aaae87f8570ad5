//! Noticing that seats are gone, and lending some at once.
//!
//! A leaf that loses a home says so to its neighbours, each of whom looks at its own link to that
//! seat: within seconds a region knows. When fewer than half of the seats that should serve are
//! there, those with high ranks ask the electors of the running epoch for seats that last minutes.

use core::time::Duration;

use super::{Roles, Timer};
use crate::id::NodeId;
use crate::key::Key;
use crate::role::Plan;
use crate::time::Instant;
use crate::wire::RoleMessage;
use crate::wire::role::Lost;

/// How often the same loss is told.
const AGAIN: Duration = Duration::from_secs(60);

/// Neighbours that are told.
const TOLD_MAX: usize = 8;

/// Losses that are remembered as told.
const ALARMS_MAX: usize = 32;

/// Times that seats are asked for in vain before some are lent at once.
const ASKED_MIN: u32 = 2;

impl Roles {
    /// Tells the neighbours that a seat is not heard.
    pub(super) fn alarm(&mut self, now: Instant, seat: NodeId) {
        self.alarms.retain(|_, at| now - *at < AGAIN);
        if self.alarms.contains_key(&seat) || self.alarms.len() >= ALARMS_MAX {
            return;
        }
        self.alarms.insert(seat, now);
        let region = self.region();
        let neighbours: Vec<_> = self
            .linked
            .keys()
            .copied()
            .filter(|id| region.contains(&Key::of_node(*id)))
            .take(TOLD_MAX)
            .collect();
        for neighbour in neighbours {
            self.send(neighbour, RoleMessage::Lost(Lost { seat }));
        }
    }

    /// The link to a peer is silent: if it is a seat, it is asked whether it is there.
    pub(crate) fn doubt(&mut self, now: Instant, id: NodeId) {
        self.check(now, id);
    }

    /// Somebody does not hear a seat: looks at our own link to it.
    pub(super) fn handle_lost(&mut self, now: Instant, seat: NodeId) {
        if seat != self.id {
            self.check(now, seat);
        }
    }

    /// Whether fewer than half of the seats that should serve are there.
    pub(super) fn are_too_few(&self, now: Instant, plan: Plan) -> bool {
        self.living(now) < plan.active.div_ceil(2)
    }

    /// Stands for a seat at once, if seats were asked for and too few are there.
    pub(super) fn consider_acting(&mut self, now: Instant, plan: Plan) {
        if self.asked >= ASKED_MIN && self.are_too_few(now, plan) {
            let pause = self.draw(self.config.gather);
            self.timers.set_if_idle(Timer::Acting, now + pause);
        }
    }
}
