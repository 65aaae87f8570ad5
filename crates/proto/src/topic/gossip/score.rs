//! What is thought of peers, also of those that are no neighbours: who comes back is no stranger.

use core::time::Duration;

use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::time::Instant;

/// Points at or below which a neighbour is dropped.
pub const DROP_BELOW: i64 = -20;

/// Points at or below which a peer is banned.
pub const BAN_BELOW: i64 = -60;

/// How long a ban lasts.
pub const BAN: Duration = Duration::from_secs(600);

/// Points above which a peer may be a neighbour (again).
const FIT_ABOVE: i64 = DROP_BELOW / 2;

/// Most points: merits do not excuse everything that follows.
const POINTS_MAX: i64 = 20;

/// Most peers of whom something is thought.
const SCORES_MAX: usize = 256;

/// Most bans at a time.
const BANS_MAX: usize = 256;

/// Points are counted in thousandths, for the decay's sake.
const PARTS: i64 = 1_000;

/// Every such step takes a fifteenth: (14/15)^10 is half, so the half-life is 60 s.
const DECAY_STEP: Duration = Duration::from_secs(6);
const DECAY_DIVISOR: i64 = 15;

/// Steps after which nothing is left of any score: 60,000 · (14/15)^160 < 1.
const DECAY_STEPS_MAX: u32 = 160;

#[derive(Debug, Clone, Copy)]
struct Score {
    parts: i64,
    /// Up to when it has decayed.
    at: Instant,
}

impl Score {
    fn decay(&mut self, now: Instant) {
        let mut steps = 0;
        while self.at + DECAY_STEP <= now {
            steps += 1;
            if steps > DECAY_STEPS_MAX || self.parts == 0 {
                *self = Self { parts: 0, at: now };
                return;
            }
            // Rounded away from zero, so that it gets there.
            let part = self.parts / DECAY_DIVISOR;
            self.parts -= if part == 0 { self.parts.signum() } else { part };
            self.at += DECAY_STEP;
        }
    }
}

/// What a peer's points lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// No neighbour any more.
    Drop,
    /// Banned from this moment on.
    Ban,
}

/// The points of peers, and who is banned.
#[derive(Debug, Default)]
pub(super) struct Scores {
    scores: FlatMap<NodeId, Score>,
    /// Until when.
    bans: FlatMap<NodeId, Instant>,
}

impl Scores {
    /// Adds points, which may be negative, and says what the sum leads to.
    pub(super) fn add(&mut self, now: Instant, peer: NodeId, points: i64) -> Verdict {
        if self.is_banned(now, peer) {
            return Verdict::Fine;
        }
        if !self.scores.contains_key(&peer) {
            self.make_room(now);
            self.scores.insert(peer, Score { parts: 0, at: now });
        }
        let Some(score) = self.scores.get_mut(&peer) else { return Verdict::Fine };
        score.decay(now);
        let parts = score.parts.saturating_add(points.saturating_mul(PARTS));
        // Nothing is remembered below a ban: it would only outlast its decay.
        score.parts = parts.clamp(BAN_BELOW * PARTS, POINTS_MAX * PARTS);
        if score.parts <= BAN_BELOW * PARTS {
            self.ban(now, peer);
            Verdict::Ban
        } else if points < 0 && score.parts <= DROP_BELOW * PARTS {
            Verdict::Drop
        } else {
            Verdict::Fine
        }
    }

    /// Whether nothing speaks against a peer as a neighbour.
    pub(super) fn is_fit(&mut self, now: Instant, peer: NodeId) -> bool {
        if self.is_banned(now, peer) {
            return false;
        }
        let score = self.scores.get_mut(&peer);
        score.is_none_or(|score| {
            score.decay(now);
            score.parts > FIT_ABOVE * PARTS
        })
    }

    pub(super) fn is_banned(&self, now: Instant, peer: NodeId) -> bool {
        self.bans.get(&peer).is_some_and(|until| now < *until)
    }

    fn ban(&mut self, now: Instant, peer: NodeId) {
        self.bans.retain(|_, until| now < *until);
        if self.bans.len() >= BANS_MAX {
            let first = self.bans.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            first.map(|first| self.bans.remove(&first));
        }
        self.bans.insert(peer, now + BAN);
    }

    /// Forgets the peer of whom the least is thought, in either sense.
    fn make_room(&mut self, now: Instant) {
        if self.scores.len() < SCORES_MAX {
            return;
        }
        self.scores.values_mut().for_each(|score| score.decay(now));
        let least = self.scores.iter().min_by_key(|(_, score)| score.parts.abs());
        let least = least.map(|(peer, _)| *peer);
        least.map(|least| self.scores.remove(&least));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u64) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn points(scores: &mut Scores, now: Instant) -> i64 {
        scores.add(now, peer(1), 0);
        scores.scores[&peer(1)].parts
    }

    #[test]
    fn half_is_forgotten_in_a_minute_and_all_in_the_end() {
        let mut scores = Scores::default();
        assert_eq!(scores.add(at(0), peer(1), -19), Verdict::Fine);
        let half = points(&mut scores, at(60));
        assert!((-10_000..-9_000).contains(&half), "{half}");
        assert!(scores.is_fit(at(60), peer(1)));
        assert_eq!(points(&mut scores, at(2_000)), 0);
    }

    #[test]
    fn merits_are_capped_and_faults_lead_to_a_drop_then_a_ban() {
        let mut scores = Scores::default();
        assert_eq!(scores.add(at(0), peer(1), 1_000), Verdict::Fine);
        assert_eq!(scores.add(at(0), peer(1), -40), Verdict::Drop);
        assert!(!scores.is_fit(at(0), peer(1)) && !scores.is_banned(at(0), peer(1)));
        assert_eq!(scores.add(at(0), peer(1), i64::MIN), Verdict::Ban);
        assert!(scores.is_banned(at(599), peer(1)) && !scores.is_banned(at(600), peer(1)));
        assert!(scores.is_fit(at(600), peer(1)));
    }

    #[test]
    fn scores_and_bans_are_bounded_and_the_worst_are_kept() {
        let mut scores = Scores::default();
        assert_eq!(scores.add(at(0), peer(0), -15), Verdict::Fine);
        for n in 1..2_000 {
            scores.add(at(0), peer(n), -1);
        }
        assert_eq!(scores.scores.len(), SCORES_MAX);
        assert!(!scores.is_fit(at(0), peer(0)));
        for n in 0..1_000 {
            scores.add(at(n), peer(n), -100);
        }
        assert!(scores.bans.len() <= BANS_MAX);
        assert!(scores.is_banned(at(999), peer(999)));
    }
}
