//! The passive view: members that could be neighbours.
//!
//! Some of them come from the index, whose samples are fair, the others from peers, who may name
//! whom they like. So those of the latest sample, up to half of the view, are not displaced by
//! what peers say.

use rand_chacha::ChaCha8Rng;

use super::pick;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::time::Instant;

/// Failures in a row that remove a candidate.
const FAILURES_MAX: u8 = 2;

#[derive(Debug, Clone)]
struct Candidate {
    addr: PeerAddr,
    /// When it may be tried again.
    retry_at: Instant,
    failures: u8,
    is_sampled: bool,
}

/// At most so many candidates as it was made for, in no order.
#[derive(Debug)]
pub(super) struct Passive {
    max: usize,
    candidates: Vec<Candidate>,
}

impl Passive {
    pub(super) const fn new(max: usize) -> Self {
        Self { max, candidates: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerAddr> {
        self.candidates.iter().map(|candidate| &candidate.addr)
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&PeerAddr> {
        self.iter().find(|addr| addr.id == id)
    }

    /// What follows is the latest sample.
    pub(super) fn start_sample(&mut self) {
        self.candidates.iter_mut().for_each(|candidate| candidate.is_sampled = false);
    }

    /// Takes in a candidate that may be tried from a moment on; if there is no room, for a random
    /// other one.
    pub(super) fn insert(
        &mut self,
        rng: &mut ChaCha8Rng,
        addr: PeerAddr,
        retry_at: Instant,
        is_sampled: bool,
    ) {
        let sampled = self.candidates.iter().filter(|candidate| candidate.is_sampled).count();
        let is_sampled = is_sampled && sampled < self.max / 2;
        if let Some(old) = self.candidates.iter_mut().find(|old| old.addr.id == addr.id) {
            // What a peer says of another may fill a gap and changes nothing else.
            let is_bare = old.addr.addrs.is_empty() && old.addr.homes.is_empty();
            let says_something = !addr.addrs.is_empty() || !addr.homes.is_empty();
            if says_something && (is_sampled || is_bare) {
                old.addr = addr;
            }
            old.is_sampled |= is_sampled;
            return;
        }
        let candidate = Candidate { addr, retry_at, failures: 0, is_sampled };
        if self.candidates.len() < self.max {
            self.candidates.push(candidate);
            return;
        }
        let others = self.candidates.iter_mut().filter(|old| !old.is_sampled);
        let mut others: Vec<_> = others.collect();
        if let Some(at) = pick(rng, others.len()) {
            *others[at] = candidate;
        }
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        self.candidates.retain(|candidate| candidate.addr.id != id);
    }

    /// A candidate does not want, and may be asked again from a moment on.
    pub(super) fn refused(&mut self, id: NodeId, retry_at: Instant) {
        if let Some(candidate) = self.find(id) {
            candidate.failures = 0;
            candidate.retry_at = retry_at;
        }
    }

    /// A candidate could not be reached. The second time in a row it is removed.
    pub(super) fn failed(&mut self, id: NodeId, retry_at: Instant) {
        let Some(candidate) = self.find(id) else { return };
        candidate.failures += 1;
        candidate.retry_at = retry_at;
        if candidate.failures >= FAILURES_MAX {
            self.remove(id);
        }
    }

    /// One at random of those that may be tried and pass a test; one of the latest sample if that
    /// is preferred and there is one.
    pub(super) fn draw(
        &self,
        rng: &mut ChaCha8Rng,
        now: Instant,
        prefers_sampled: bool,
        mut passes: impl FnMut(NodeId) -> bool,
    ) -> Option<PeerAddr> {
        let ready = self.candidates.iter().filter(|candidate| candidate.retry_at <= now);
        let mut ready: Vec<_> = ready.filter(|candidate| passes(candidate.addr.id)).collect();
        if prefers_sampled && ready.iter().any(|candidate| candidate.is_sampled) {
            ready.retain(|candidate| candidate.is_sampled);
        }
        let at = pick(rng, ready.len())?;
        Some(ready[at].addr.clone())
    }

    /// When the next one may be tried, of those that may not yet.
    pub(super) fn next_retry(&self, now: Instant) -> Option<Instant> {
        let later = self.candidates.iter().map(|candidate| candidate.retry_at);
        later.filter(|at| *at > now).min()
    }

    fn find(&mut self, id: NodeId) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| candidate.addr.id == id)
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    fn member(n: u8) -> PeerAddr {
        NodeId::from_bytes([n; 32]).into()
    }

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::from_seed([1; 32])
    }

    #[test]
    fn what_peers_say_does_not_displace_the_sample() {
        let (mut passive, mut rng) = (Passive::new(8), rng());
        for n in 0..4 {
            passive.insert(&mut rng, member(n), Instant::ZERO, true);
        }
        for n in 4..200 {
            passive.insert(&mut rng, member(n), Instant::ZERO, false);
            assert!(passive.len() <= 8);
        }
        assert!((0..4).all(|n| passive.get(member(n).id).is_some()));
        let drawn = passive.draw(&mut rng, Instant::ZERO, true, |_| true).unwrap();
        assert!(drawn.id <= member(3).id);
        // At most half of the view is a sample, and an old one is protected no longer.
        passive.start_sample();
        for n in 200..=255 {
            passive.insert(&mut rng, member(n), Instant::ZERO, true);
        }
        assert_eq!(passive.candidates.iter().filter(|old| old.is_sampled).count(), 4);
    }

    #[test]
    fn candidates_wait_and_the_second_failure_removes_them() {
        let (mut passive, mut rng) = (Passive::new(8), rng());
        let at = Instant::from_micros;
        passive.insert(&mut rng, member(1), at(5), false);
        assert_eq!(passive.draw(&mut rng, at(4), false, |_| true), None);
        assert_eq!(passive.next_retry(at(4)), Some(at(5)));
        assert_eq!(passive.draw(&mut rng, at(5), false, |_| true), Some(member(1)));
        assert_eq!(passive.draw(&mut rng, at(5), false, |_| false), None);
        passive.failed(member(1).id, at(9));
        assert_eq!(passive.draw(&mut rng, at(8), false, |_| true), None);
        passive.refused(member(1).id, at(9));
        passive.failed(member(1).id, at(9));
        assert_eq!(passive.len(), 1);
        passive.failed(member(1).id, at(9));
        assert_eq!(passive.len(), 0);
    }

    #[test]
    fn a_peer_cannot_change_the_address_of_another() {
        let (mut passive, mut rng) = (Passive::new(8), rng());
        let with = |port| PeerAddr { addrs: vec![([192, 0, 2, 1], port).into()], ..member(1) };
        passive.insert(&mut rng, member(1), Instant::ZERO, false);
        passive.insert(&mut rng, with(1), Instant::ZERO, false);
        passive.insert(&mut rng, with(2), Instant::ZERO, false);
        assert_eq!(passive.get(member(1).id), Some(&with(1)));
        passive.insert(&mut rng, with(3), Instant::ZERO, true);
        assert_eq!(passive.get(member(1).id), Some(&with(3)));
    }
}
