//! The driver's part in finding: questions of the owner, the disk, the peer cache.

use std::collections::BTreeMap;
use std::time::Duration;

use baran_net::link::link_code;
use baran_proto::index::{self, DiskAction, QueryId, Restored};
use baran_proto::node::{Input, LinkId};
use baran_proto::time::Instant;
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Command, Driver, OFFER_MAX};
use crate::find::Question;
use crate::persist::{Kept, unix_now};
use crate::registry::Situation;
use crate::{IndexStatus, NodeId, PeerAddr};

/// Pause between notes that a peer is still there, for the peer cache.
const SEEN_AGAIN: Duration = Duration::from_secs(600);

/// Peers found on the local network; the search ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Lan {
    peers: mpsc::Receiver<PeerAddr>,
    #[cfg(feature = "lan")]
    _search: crate::lan::Lan,
}

/// Peers of the local network that wait for the driver.
#[cfg(feature = "lan")]
const LAN_QUEUE: usize = 64;

/// The next peer of the local network; never, if it is not looked at.
pub(super) async fn found(lan: &mut Option<Lan>) -> Option<PeerAddr> {
    match lan {
        Some(lan) => match lan.peers.recv().await {
            Some(peer) => Some(peer),
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// The questions that are being answered.
#[derive(Debug, Default)]
pub(super) struct Queries {
    next: u64,
    answers: BTreeMap<QueryId, mpsc::Sender<index::Event>>,
    /// When each linked peer was noted in the cache last, and where it was.
    seen: BTreeMap<NodeId, (Instant, PeerAddr)>,
}

impl Driver {
    /// Gives the machine what it had when it ran last.
    pub(crate) fn boot(&mut self, restored: Restored, kept: Kept, mut rng: ChaCha8Rng) {
        self.resume_day(kept.served);
        self.see_to_serving();
        self.input(Input::Clock(unix_now()));
        self.input(Input::Restore(restored));
        let cached = self.disk.cache.order(unix_now(), &mut rng);
        debug!(cached = cached.len(), "peers of earlier runs");
        self.input(Input::Boot(cached));
        // An identity that ends with the process is not worth it.
        if self.serving.is_wanted() && self.disk.is_lasting() {
            self.solve_puzzle(kept.nonce);
        }
    }

    /// Looks for peers on the local network.
    #[cfg(feature = "lan")]
    pub(crate) fn find_lan(&self, network: &str) -> Option<Lan> {
        let (id, local) = (self.node.id(), self.endpoint.control().local_addrs());
        let (found, peers) = mpsc::channel(LAN_QUEUE);
        let config = crate::lan::LanConfig { id, network: network.to_owned(), local };
        Some(Lan { peers, _search: crate::lan::Lan::start(config, found) })
    }

    /// Looks for nobody: this build has no search of the local network.
    #[cfg(not(feature = "lan"))]
    #[expect(clippy::unused_self, reason = "as in a build that has it")]
    pub(crate) fn find_lan(&self, _network: &str) -> Option<Lan> {
        None
    }

    /// Tells the registry whether it is needed, and where we are.
    pub(super) fn tell_registry(&self) {
        self.registry.tell(|| {
            let mut addrs = self.node.candidates().offer(false, OFFER_MAX);
            addrs.extend(self.node.candidates().host_addrs());
            let local = self.endpoint.control().local_addrs();
            Situation {
                has_peers: !self.links.is_empty(),
                is_open: self.node.is_open(),
                addrs,
                port: local.first().map_or(0, std::net::SocketAddr::port),
            }
        });
    }

    pub(super) fn ask(&mut self, question: Question, answers: mpsc::Sender<index::Event>) {
        let query = QueryId(self.queries.next);
        self.queries.next += 1;
        self.queries.answers.insert(query, answers);
        self.input(Input::Index((question.0)(query)));
    }

    pub(super) fn answer(&mut self, event: index::Event) {
        let (query, is_last) = match &event {
            index::Event::Record { query, .. } | index::Event::Kept { query, .. } => {
                (*query, false)
            }
            index::Event::Done { query, .. } | index::Event::Failed { query, .. } => (*query, true),
            // An announcement and a value are stored as soon as somebody is there.
            index::Event::NotJoined(query) => (*query, false),
        };
        // What finds no room is what nobody takes; it is withdrawn when nobody listens.
        let is_gone = self.queries.answers.get(&query).is_none_or(|to| to.try_send(event).is_err());
        if is_last || is_gone && self.queries.answers.get(&query).is_some_and(|to| to.is_closed()) {
            self.queries.answers.remove(&query);
        }
    }

    /// Ends what nobody waits for.
    pub(super) fn withdraw_queries(&mut self) {
        let given_up: Vec<_> = self
            .queries
            .answers
            .iter()
            .filter(|(_, answers)| answers.is_closed())
            .map(|(query, _)| *query)
            .collect();
        for query in given_up {
            self.queries.answers.remove(&query);
            self.input(Input::Index(index::Command::Cancel(query)));
        }
    }

    pub(super) fn write(&self, token: u64, action: DiskAction) {
        let (writing, own) = (self.disk.write(action), self.own.clone());
        tokio::spawn(async move {
            let written = writing.await;
            if let Err(error) = &written {
                warn!(%error, "nothing can be written to disk");
            }
            let is_kept = written.is_ok();
            drop(own.send(Command::DiskDone { token, is_kept }).await);
        });
    }

    /// Notes the linked peers in the cache, with where they are.
    pub(super) fn note_peers(&mut self) {
        let now = self.now();
        let peers: Vec<_> = self.links.values().map(baran_net::link::Link::peer).collect();
        self.queries.seen.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            let Some(contact) = self.node.contact(peer).filter(|_| self.node.serves(peer)) else {
                continue;
            };
            let is_news = self
                .queries
                .seen
                .get(&peer)
                .is_none_or(|(at, known)| now - *at >= SEEN_AGAIN || *known != contact);
            if is_news && !contact.addrs.is_empty() {
                self.queries.seen.insert(peer, (now, contact.clone()));
                self.disk.peer_seen(contact);
            }
        }
    }

    /// Closes a link that is of no use, unless a conversation is on it.
    pub(super) fn close_if_idle(&mut self, id: LinkId) {
        if self.links.get(&id).is_some_and(|link| link.sessions() == 0) {
            self.close(id, "not needed any more");
            let now = self.now();
            baran_proto::machine::Machine::handle_input(&mut self.node, now, Input::LinkDown(id));
        }
    }

    pub(super) fn close(&mut self, id: LinkId, reason: &'static str) {
        if let Some(link) = self.links.remove(&id) {
            link.close(link_code::SHUTDOWN, reason);
            self.retired.remove(&id);
            self.end_topic_link(id);
        }
    }

    pub(super) fn index_status(&self) -> IndexStatus {
        let stats = self.node.index_stats();
        IndexStatus {
            table: stats.table,
            warm: stats.warm,
            records: stats.records,
            record_bytes: stats.record_bytes,
            nodes_estimate: stats.nodes,
            joined_by: self.joined_by.filter(|_| !self.links.is_empty()),
            clock_skew_s: stats.clock_skew_s,
            requests_sent: stats.requests_sent,
            requests_served: stats.requests_served,
        }
    }
}
