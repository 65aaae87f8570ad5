//! The driver's part: what becomes of a node's wishes.

use core::time::Duration;

use baran_proto::machine::Machine;
use baran_proto::node::{Event, Input, Node, Output, Sample};
use baran_proto::path;

use super::{News, Note, What, World};
use crate::net::nat::Nat;

/// How long the driver leaves a link that is not preferred before it closes it: four ticks.
const RETIRED_FOR: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn carry_out(&mut self, host: u32, node: &mut Node, output: Output) {
        match output {
            Output::Dial { dial, peer, to } => self.dial(host, dial, peer, to),
            Output::CancelDial(dial) => self.cancel_dial(host, dial),
            Output::Send { link, message } => self.send(link, message),
            Output::SendTopic { link, message } => self.send_topic(link, &message),
            // What the node does not listen to any more is not read: the world is a little busier.
            Output::ExpelTopic(_) => {}
            Output::Path { link, action } => self.path_action(host, node, link, &action),
            Output::OpenRelayed { link, relay, channel } => {
                self.open_relayed(host, link, relay, channel);
            }
            Output::Retire(link) => {
                if let Some((conn, end)) = self.conns.of_link(link) {
                    self.push(RETIRED_FOR, What::Retired { conn, end });
                }
            }
            Output::InboundRelay(relay, allowed) => {
                let Some(relay) = self.addresses.owner(relay) else { return };
                let inbound = &mut self.hosts[host as usize].inbound;
                if allowed {
                    inbound.push(relay);
                } else if let Some(at) = inbound.iter().position(|known| *known == relay) {
                    inbound.swap_remove(at);
                }
            }
            Output::Forward(action) => self.forward_action(host, node, &action),
            Output::Gate(_) => {}
            // The node knows, so nothing is reported.
            Output::Close(link) => {
                self.close_now(link);
            }
            Output::CloseIfIdle(link) => {
                // Conversations of the owner's are no part of this world.
                if self.close_now(link) {
                    node.handle_input(self.now, Input::LinkDown(link));
                }
            }
            Output::Knock(addr) => self.knock(host, addr),
            Output::Disk { token, action } => {
                self.hosts[host as usize].disk.write(action);
                node.handle_input(self.now, Input::DiskDone { token, is_kept: true });
            }
            Output::Event(event) => self.report(host, node, event),
        }
    }

    /// What the driver does about an event, and what scenarios want to see.
    fn report(&mut self, host: u32, node: &mut Node, event: Event) {
        let is_news = match &event {
            Event::PeerUp { peer, .. } => {
                // As the driver does when it has served those who waited.
                node.handle_input(self.now, Input::Unwant(*peer));
                self.watched.contains(&(host, *peer))
            }
            Event::Unreachable(peer) => self.watched.contains(&(host, *peer)),
            Event::Index(_) | Event::Joined { .. } | Event::Alone | Event::Topic(_) => true,
            Event::PeerDown(_)
            | Event::Path { .. }
            | Event::Observed
            | Event::Home { .. }
            | Event::Serving { .. }
            | Event::Role(_)
            | Event::NotReached(_) => false,
        };
        if is_news {
            self.notes.push(Note { at: self.now, host, event });
        }
    }

    fn path_action(
        &mut self,
        host: u32,
        node: &mut Node,
        link: baran_proto::node::LinkId,
        action: &path::Output,
    ) {
        let Some((id, end)) = self.conns.of_link(link) else { return };
        match *action {
            path::Output::Close(path) => self.close_path(id, end, path),
            path::Output::Sample => {
                let samples = self.samples(id);
                node.handle_input(self.now, Input::Samples { link, samples });
            }
            path::Output::AddCandidate(addr) => {
                let is_outside = match self.hosts[host as usize].nat {
                    Nat::Open | Nat::Easy => addr == self.outside(host, host),
                    Nat::Hard => false,
                };
                let Some(conn) = self.conns.get_mut(id) else { return };
                conn.ends[end].has_candidate |= is_outside;
                // Of interest to nobody while there is a direct path.
                if end == 1 && !conn.is_direct() {
                    let client = conn.ends[0].host;
                    let after = self.latency(host, client);
                    self.push(after, What::Tell { conn: id, end: 0, news: News::Candidates });
                }
            }
            path::Output::RemoveCandidate(addr) => {
                let is_outside = addr == self.outside(host, host);
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.ends[end].has_candidate &= !is_outside;
                }
            }
            path::Output::StartRound => self.punch(id),
            path::Output::SetAvailable(..) | path::Output::Ping(_) | path::Output::Quiet => {}
            path::Output::Silent | path::Output::WantRelay { .. } | path::Output::Selected(_) => {}
        }
    }

    /// Counters that never move, so that the path manager sees an idle link; round trips are real.
    fn samples(&mut self, id: crate::net::conn::ConnId) -> Vec<Sample> {
        let Some(conn) = self.conns.get(id) else { return Vec::new() };
        let routes = conn.routes.clone();
        let of = |route: &crate::net::conn::Route| {
            let rtt = self.route_time(id, *route)? * 2;
            Some(Sample { path: route.path, tx: 0, rx: 0, rtt })
        };
        routes.iter().filter_map(of).collect()
    }
}
