//! Whose turn it is: pauses, queues, and how many dials are under way.

use core::time::Duration;

use rand_core::Rng;

use super::{Bootstrap, Output, Timer};
use crate::id::NodeId;
use crate::time::Instant;

/// Tries after which a peer of the LAN that is in no cache is forgotten, until it is found again.
const LAN_TRIES_MAX: u32 = 4;

impl Bootstrap {
    /// Starts from the beginning: everybody's first try, in order.
    pub(super) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        for candidate in self.candidates.values_mut() {
            candidate.restart();
        }
        self.queue.clear();
        let lan: Vec<_> =
            self.candidates.iter().filter(|(_, c)| c.is_lan).map(|(id, _)| *id).collect();
        for peer in lan {
            self.enqueue(peer);
        }
        if self.wants_more() {
            for i in 0..self.active_len() {
                self.enqueue(self.order[i]);
            }
        }
        self.watch(now);
        self.serve(now);
    }

    /// Watches for how long there is no link, if there is none.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.is_joined() {
            return;
        }
        if !self.is_alone_said {
            self.timers.set_if_idle(Timer::Alone, now + self.config.alone_after);
        }
        if self.order.len() > self.active_len() {
            // After the active ones had their first turn.
            let (together, pause) = self.config.pace;
            let turns = self.active_len().div_ceil(together);
            let turns = u32::try_from(turns).unwrap_or(u32::MAX);
            self.timers.set_if_idle(Timer::Sweep, now + pause.saturating_mul(turns));
        }
    }

    /// Enough links: waits for nothing but the dials that are under way.
    pub(super) fn rest(&mut self) {
        self.queue.clear();
        self.timers.stop(Timer::Sweep);
        self.timers.stop(Timer::Pace);
        for i in 0..self.order.len() {
            self.timers.stop(Timer::Due(self.order[i]));
        }
    }

    /// Too few links: the active peers are dialled after a pause.
    pub(super) fn resume(&mut self, now: Instant) {
        if self.began.is_none() || !self.wants_more() {
            return;
        }
        for i in 0..self.active_len() {
            let peer = self.order[i];
            if self.is_idle(peer) && !self.timers.is_set(Timer::Due(peer)) {
                self.schedule(now, peer);
            }
        }
    }

    fn active_len(&self) -> usize {
        self.order.len().min(self.config.active)
    }

    /// Neither linked, nor being dialled, nor about to be.
    fn is_idle(&self, peer: NodeId) -> bool {
        !self.up.contains_key(&peer)
            && !self.dialling.contains_key(&peer)
            && !self.queue.contains(&peer)
            && !self.lan_queue.contains(&peer)
    }

    /// The peer's turn has come.
    pub(super) fn enqueue(&mut self, peer: NodeId) {
        let Some(candidate) = self.candidates.get(&peer) else { return };
        if !self.is_idle(peer) {
            return;
        }
        self.timers.stop(Timer::Due(peer));
        if candidate.is_lan {
            self.lan_queue.push_back(peer);
        } else if self.wants_more() {
            self.queue.push_back(peer);
        }
    }

    /// The next of the rest has its turn, as long as there is no link.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.is_joined() || self.order.len() <= self.active_len() {
            return;
        }
        if let Some(peer) = self.order.remove(self.active_len()) {
            self.order.push_back(peer);
            self.enqueue(peer);
        }
        let (fast, slow) = self.config.sweep;
        let pause = if self.is_fast(now) { fast } else { slow };
        self.timers.set(Timer::Sweep, now + pause.max(Duration::from_millis(1)));
    }

    /// Dials those whose turn it is, as far as the limits allow.
    pub(super) fn serve(&mut self, now: Instant) {
        while self.dialling.len() < self.config.in_flight_max
            && self.dialling.values().filter(|is_lan| **is_lan).count()
                < self.config.lan_in_flight_max
            && let Some(peer) = self.lan_queue.pop_front()
        {
            self.dial(now, peer, true);
        }
        while self.dialling.len() < self.config.in_flight_max && !self.queue.is_empty() {
            if !self.timers.is_set(Timer::Pace) {
                self.pace_left = self.config.pace.0;
                self.timers.set(Timer::Pace, now + self.config.pace.1);
            }
            if self.pace_left == 0 {
                return;
            }
            let Some(peer) = self.queue.pop_front() else { return };
            self.pace_left -= 1;
            self.dial(now, peer, false);
        }
    }

    fn dial(&mut self, now: Instant, peer: NodeId, is_lan: bool) {
        let Some(candidate) = self.candidates.get(&peer) else { return };
        self.outputs.push_back(Output::Dial { peer: candidate.place.peer(peer) });
        self.dialling.insert(peer, is_lan);
        self.timers.set(Timer::Attempt(peer), now + self.config.attempt);
    }

    /// A dial came to nothing.
    pub(super) fn fail(&mut self, now: Instant, peer: NodeId) {
        if self.dialling.remove(&peer).is_none() {
            return;
        }
        self.timers.stop(Timer::Attempt(peer));
        let Some(candidate) = self.candidates.get_mut(&peer) else { return };
        candidate.tries = candidate.tries.saturating_add(1);
        let tries = candidate.tries;
        let is_cached = self.order.contains(&peer);
        // It left the LAN, and is dialled as the cached peer that it is.
        candidate.is_lan &= tries < LAN_TRIES_MAX || !is_cached;
        match self.order.iter().position(|other| *other == peer) {
            None if tries >= LAN_TRIES_MAX => self.drop_candidate(peer),
            None => self.schedule(now, peer),
            Some(i) if i >= self.config.active || !self.wants_more() => {}
            Some(i) if tries >= self.config.tries_max && self.order.len() > self.config.active => {
                self.replace_active(now, i);
            }
            Some(_) => self.schedule(now, peer),
        }
    }

    /// The next of the rest becomes active for the `i`-th peer, which goes last.
    fn replace_active(&mut self, now: Instant, i: usize) {
        let Some(peer) = self.order.remove(i) else { return };
        if let Some(candidate) = self.candidates.get_mut(&peer) {
            candidate.restart();
        }
        self.order.push_back(peer);
        let next = self.order[self.config.active - 1];
        if self.is_idle(next) {
            self.schedule(now, next);
        }
    }

    /// Gives the peer its turn after a pause: at least the base, at most three times the pause
    /// before and the cap.
    pub(super) fn schedule(&mut self, now: Instant, peer: NodeId) {
        let ((base, cap), is_fast) = (self.pauses(now), self.is_fast(now));
        let Some(candidate) = self.candidates.get_mut(&peer) else { return };
        let (sure_tries, sure_pause) = self.config.sure;
        let is_sure = is_fast && candidate.tries < sure_tries;
        let cap = if is_sure { cap.min(sure_pause) } else { cap };
        let cap = cap.max(Duration::from_millis(1));
        let base = base.clamp(Duration::from_millis(1), cap);
        let most = candidate.pause.max(base).saturating_mul(3);
        let span = u64::try_from((most - base).as_micros()).unwrap_or(u64::MAX);
        let drawn = base + Duration::from_micros(self.rng.next_u64() % span.max(1));
        candidate.pause = drawn.min(cap);
        self.timers.set(Timer::Due(peer), now + candidate.pause);
    }

    fn pauses(&self, now: Instant) -> (Duration, Duration) {
        if self.is_fast(now) {
            self.config.fast
        } else if self.is_joined() {
            self.config.slow_linked
        } else {
            self.config.slow
        }
    }

    fn is_fast(&self, now: Instant) -> bool {
        self.began.is_none_or(|began| now - began < self.config.fast_for)
    }

    /// The peer needs no dialling.
    pub(super) fn stop(&mut self, peer: NodeId) {
        self.dialling.remove(&peer);
        self.timers.stop(Timer::Attempt(peer));
        self.timers.stop(Timer::Due(peer));
        self.queue.retain(|queued| *queued != peer);
        self.lan_queue.retain(|queued| *queued != peer);
    }

    /// Forgets a peer, and its dial if one is under way.
    pub(super) fn drop_candidate(&mut self, peer: NodeId) {
        if self.dialling.contains_key(&peer) {
            self.outputs.push_back(Output::GiveUp(peer));
        }
        self.stop(peer);
        self.candidates.remove(&peer);
    }
}
