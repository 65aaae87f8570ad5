//! Requests: sent at once on a link that stands, else when one is had.

use core::time::Duration;

use super::job::JobId;
use super::lookup::Ask;
use super::{Index, Output};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::IndexMessage;
use crate::wire::index::{Find, RecordKind, Store};

/// What a job asks of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// What is near, and what is there.
    Find {
        /// The key: that of the look-up, or another of its region.
        target: Key,
        records: Option<RecordKind>,
        page: Option<u64>,
    },
    /// To keep the job's record.
    Store,
    /// Which records it lacks; so many of them it may still ask for.
    Offer { left: usize },
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) peer: NodeId,
    /// `None` for what no job waits for.
    pub(super) job: Option<JobId>,
    pub(super) what: What,
    pub(super) sent: Instant,
}

/// What waits until a peer is reached.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: Vec<(JobId, What)>,
}

impl Waiting {
    /// The requests, as if they had been sent.
    pub(super) fn for_requests(self, peer: NodeId, now: Instant) -> impl Iterator<Item = Request> {
        let request = move |(job, what)| Request { peer, job: Some(job), what, sent: now };
        self.requests.into_iter().map(request)
    }
}

impl Index {
    pub(super) fn ask(&mut self, now: Instant, job: JobId, ask: Ask, records: Option<RecordKind>) {
        let what = What::Find { target: ask.target, records, page: None };
        if self.linked.contains_key(&ask.peer.id) {
            self.request(now, ask.peer.id, Some(job), what);
        } else {
            self.reach(job, ask.peer, ask.via, what);
        }
    }

    /// Wants a link to `peer` for a request of `job`.
    pub(super) fn reach(&mut self, job: JobId, peer: PeerAddr, vias: Vec<NodeId>, what: What) {
        let waiting = self.waiting.or_default(peer.id);
        waiting.requests.push((job, what));
        // Said again for each job: it may know other ways.
        self.outputs.push_back(Output::Reach { peer, vias });
    }

    /// Sends a request on a link that stands.
    pub(super) fn request(&mut self, now: Instant, peer: NodeId, job: Option<JobId>, what: What) {
        let number = self.next_request;
        let Some(record) = job.and_then(|job| self.subject(job)) else { return };
        let message = match what {
            What::Find { target, records, page } => {
                IndexMessage::Find(Find { request: number, target, records, page })
            }
            What::Store => match record {
                Some(record) => IndexMessage::Store(Store { request: number, record }),
                None => return,
            },
            What::Offer { .. } => return,
        };
        self.next_request = self.next_request.wrapping_add(1);
        self.requests.insert(number, Request { peer, job, what, sent: now });
        self.requests_sent += 1;
        self.outputs.push_back(Output::Send(peer, message));
    }

    /// A peer was reached: sends what waited for it.
    pub(super) fn ask_waiting(&mut self, now: Instant, peer: NodeId) {
        let Some(waiting) = self.waiting.remove(&peer) else { return };
        let rtt = self.linked.get(&peer).and_then(|linked| linked.rtt);
        for (id, what) in waiting.requests {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.lookup.set_linked(peer, true, rtt);
            }
            self.request(now, peer, Some(id), what);
        }
        self.outputs.push_back(Output::Release(peer));
    }

    /// Takes the request that an answer of `from` names, and learns the round trip from it.
    pub(super) fn take_request(
        &mut self,
        now: Instant,
        from: NodeId,
        number: u32,
    ) -> Option<Request> {
        if self.requests.get(&number).is_none_or(|request| request.peer != from) {
            return None;
        }
        let request = self.requests.remove(&number)?;
        // A store waits for the disk, so it says nothing of the way.
        if let What::Find { .. } = request.what
            && let Some(linked) = self.linked.get_mut(&from)
        {
            let rtt = now - request.sent;
            linked.rtt = Some(linked.rtt.map_or(rtt, |old| smooth(old, rtt)));
        }
        Some(request)
    }

    /// Nobody waits for the answers to a job's requests.
    pub(super) fn drop_requests(&mut self, job: JobId) {
        self.requests.retain(|_, request| request.job != Some(job));
        let mut released = Vec::new();
        self.waiting.retain(|peer, waiting| {
            waiting.requests.retain(|(of, _)| *of != job);
            if waiting.requests.is_empty() {
                released.push(*peer);
            }
            !waiting.requests.is_empty()
        });
        for peer in released {
            if !self.warming.contains_key(&peer) {
                self.outputs.push_back(Output::Release(peer));
            }
        }
    }
}

/// A running average as of TCP's (RFC 6298 §2).
fn smooth(old: Duration, new: Duration) -> Duration {
    (old * 7 + new) / 8
}
