//! What the driver does for the machine, and what it tells the owner.

use std::sync::PoisonError;

use baran_net::link::Link;
use baran_proto::allowance::refusal;
use baran_proto::machine::Machine;
use baran_proto::node::{self, ForwardAction, GateAction, Input, LinkId, Output};
use baran_proto::path;
use baran_proto::role;
use baran_proto::time::Instant;
use tracing::{debug, info, trace};

use super::{Command, Driver};
use crate::{Event, JoinedBy, PathInfo, PeerStatus, RelayStatus, Seat, Status};

impl Driver {
    /// Carries out what the machine wants.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            trace!(?output);
            match output {
                Output::Dial { dial, peer, to } => {
                    let task = self.endpoint.dial(dial, peer, to);
                    self.dials.insert(dial, task);
                }
                Output::CancelDial(dial) => {
                    if let Some(task) = self.dials.remove(&dial) {
                        task.abort();
                    }
                }
                Output::Send { link, message } => {
                    if !self.links.contains_key(&link) {
                        continue;
                    }
                    let message = match self.may_send(&message) {
                        true => Some(message),
                        false => refusal(&message),
                    };
                    message.into_iter().for_each(|message| self.links[&link].send(message));
                }
                Output::SendTopic { link, message } => self.send_topic(link, message),
                Output::ExpelTopic(peer) => self.expel_topic(peer),
                Output::Path { link, action } => self.path_action(link, &action),
                Output::OpenRelayed { link, relay, channel } => {
                    if let Some(link) = self.links.get(&link).cloned() {
                        let own = self.own.clone();
                        tokio::spawn(async move {
                            if let Err(reason) = link.open_relayed(relay, channel).await {
                                debug!(peer = %link.peer().short(), reason, "no relayed path");
                                drop(own.send(Command::RelayPathFailed(link.id())).await);
                            }
                        });
                    }
                }
                Output::Retire(link) => {
                    self.retired.insert(link, 0);
                }
                Output::Close(link) => self.close(link, "nothing is heard on it"),
                Output::CloseIfIdle(link) => self.close_if_idle(link),
                Output::Knock(addr) => self.endpoint.control().knock(addr),
                Output::Disk { token, action } => self.write(token, action),
                Output::InboundRelay(relay, allowed) => {
                    self.endpoint.control().set_inbound_relay(relay, allowed);
                }
                Output::Forward(action) => self.forward_action(&action),
                Output::Gate(action) => self.gate_action(action),
                Output::Event(event) => self.report(event),
            }
        }
    }

    fn path_action(&mut self, id: LinkId, action: &path::Output) {
        let Some(link) = self.links.get(&id) else { return };
        match *action {
            path::Output::SetAvailable(path, available) => link.set_available(path, available),
            path::Output::Close(path) => link.close_path(path),
            path::Output::Ping(path) => link.ping(path),
            path::Output::Sample => {
                let paths: Vec<_> = self.node.paths(id).iter().map(|path| path.path).collect();
                let samples = link.sample(&paths);
                let now = self.now();
                self.node.handle_input(now, Input::Samples { link: id, samples });
            }
            path::Output::AddCandidate(addr) => link.add_candidate(addr),
            path::Output::RemoveCandidate(addr) => link.remove_candidate(addr),
            path::Output::StartRound => link.start_round(),
            path::Output::Quiet => link.be_quiet(),
            path::Output::Silent | path::Output::WantRelay { .. } | path::Output::Selected(_) => {}
        }
    }

    fn forward_action(&mut self, action: &ForwardAction) {
        let control = self.endpoint.control();
        let now = control.now();
        match *action {
            ForwardAction::Open { token, a, b, ttl } => {
                let result = control.with_forwarder(|relay| relay.open(a, b, now + ttl));
                self.node.handle_input(now, Input::ChannelOpened { token, result });
            }
            ForwardAction::Extend(channel, ttl) => {
                control.with_forwarder(|relay| relay.extend(channel, now + ttl));
            }
            ForwardAction::ClosePeer(peer) => {
                control.with_forwarder(|relay| relay.close_peer(peer));
            }
            ForwardAction::Rebind(peer, addr) => {
                control.with_forwarder(|relay| relay.rebind(peer, None, addr));
            }
        }
    }

    fn gate_action(&self, action: GateAction) {
        let control = self.endpoint.control();
        match action {
            GateAction::Trust(addr) => {
                if !control.trust(addr) {
                    debug!(%addr, "the gate does not trust this address");
                }
            }
            GateAction::Untrust(addr) => control.untrust(addr),
            GateAction::Pair(ttl) => {
                let now = control.now();
                control.with_gate(|gate| gate.pair(now, ttl));
            }
            GateAction::LocalNets(nets) => {
                control.with_gate(|gate| gate.set_local_subnets(&nets));
            }
        }
    }

    fn report(&mut self, event: node::Event) {
        let event = match event {
            node::Event::Index(event) => return self.answer(event),
            node::Event::Topic(event) => return self.report_topic(&event),
            node::Event::NotReached(peer) => return self.disk.peer_failed(peer),
            node::Event::Joined { how, peers } => {
                let by = JoinedBy::from(how);
                self.joined_by = Some(by);
                Event::Joined { by, peers }
            }
            node::Event::Alone => {
                self.joined_by = None;
                Event::Alone
            }
            node::Event::PeerUp { peer, .. } => Event::PeerUp(peer),
            node::Event::PeerDown(peer) => Event::PeerDown(peer),
            node::Event::Path { link, peer, selected } => {
                if let Some(link) = self.links.get(&link) {
                    link.set_selected(selected);
                }
                Event::Path { peer, path: PathInfo::from(selected) }
            }
            node::Event::Observed => Event::Observed(self.node.candidates().observed()),
            node::Event::Home { peer, held } => Event::Home { peer, held },
            node::Event::Serving { peer, granted } => Event::Serving { peer, granted },
            node::Event::Unreachable(peer) => Event::Unreachable(peer),
            node::Event::Role(role::Event::Seat(seat)) => {
                Event::Seat(seat.map(|(region, is_active)| Seat { region, is_active }))
            }
            node::Event::Role(role::Event::Void { peer, why }) => {
                return debug!(%peer, %why, "a mandate that is not valid");
            }
            node::Event::Role(role::Event::Removed(peer)) => {
                return info!(%peer, "reports removed a seat");
            }
            node::Event::Role(role::Event::Home { .. }) => return self.refresh_snapshot(),
        };
        self.refresh_snapshot();
        // Nobody may be listening.
        drop(self.events.send(event));
    }

    pub(super) fn status(&self) -> Status {
        let candidates = self.node.candidates();
        let forwarded = self.endpoint.control().with_forwarder(|relay| relay.stats());
        let mut peers: Vec<_> =
            self.links.values().filter_map(|link| self.peer_status(link)).collect();
        peers.sort_by_key(|peer| peer.id);
        let snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Status {
            id: self.node.id(),
            network: self.network.clone(),
            addresses: snapshot.addresses,
            observed: candidates.observed(),
            mapping: candidates.mapping(),
            serve: self.serve_status(),
            puzzle: self.puzzle.status(),
            relay: RelayStatus {
                reservations: self.node.reservations().collect(),
                channels: self.node.channels().collect(),
                bytes: forwarded.bytes,
            },
            roles: self.node.role_stats(),
            homes: self.node.our_homes().into_iter().map(|home| home.id).collect(),
            index: self.index_status(),
            peers,
            uptime: self.now() - Instant::ZERO,
        }
    }

    fn peer_status(&self, link: &Link) -> Option<PeerStatus> {
        if self.node.link_to(link.peer()) != Some(link.id()) {
            return None;
        }
        let selected = self.node.selected(link.id())?;
        let mut path = PathInfo::from(selected);
        path.rtt = link.rtt().or(path.rtt);
        let backups = self
            .node
            .paths(link.id())
            .into_iter()
            .filter(|path| path.path != selected.path)
            .map(PathInfo::from)
            .collect();
        Some(PeerStatus { id: link.peer(), path, backups, sessions: link.sessions() })
    }
}
