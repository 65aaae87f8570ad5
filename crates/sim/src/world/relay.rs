//! The relay role's data plane, reduced to who is joined to whom and for how long.

use baran_proto::forward::OpenError;
use baran_proto::machine::Machine;
use baran_proto::node::{ForwardAction, Input, Node};

use super::{What, World};
use crate::net::channel::{Bridge, numbers, slot_of};

/// Channels that one host forwards at most, as the real forwarder does unless told otherwise.
const CHANNELS_MAX: usize = 1024;

impl World {
    pub(super) fn forward_action(&mut self, host: u32, node: &mut Node, action: &ForwardAction) {
        match *action {
            ForwardAction::Open { token, a, b, ttl } => {
                let hosts = [self.host_of(a.peer), self.host_of(b.peer)];
                let state = &self.hosts[host as usize];
                let result = match hosts {
                    _ if state.bridges.len() >= CHANNELS_MAX => Err(OpenError::Full),
                    [Some(opener), Some(target)] if opener != target => {
                        let expires = self.now + ttl;
                        let slot = self.bridges.add(Bridge {
                            relay: host,
                            hosts: [opener, target],
                            peers: [a.peer, b.peer],
                            expires,
                            users: Vec::new(),
                        });
                        self.hosts[host as usize].bridges.push(slot);
                        self.push_at(expires, What::ChannelEnds(slot));
                        Ok(numbers(slot))
                    }
                    _ => Err(OpenError::Unroutable),
                };
                node.handle_input(self.now, Input::ChannelOpened { token, result });
            }
            ForwardAction::Extend(channel, ttl) => {
                let expires = self.now + ttl;
                if let Some(bridge) = self.bridges.get_mut(slot_of(channel).0)
                    && bridge.relay == host
                {
                    bridge.expires = bridge.expires.max(expires);
                }
            }
            ForwardAction::ClosePeer(peer) => {
                let bridges = self.hosts[host as usize].bridges.clone();
                for slot in bridges {
                    if self.bridges.get(slot).is_some_and(|bridge| bridge.peers.contains(&peer)) {
                        self.drop_bridge(slot);
                    }
                }
            }
            // Hosts keep their addresses.
            ForwardAction::Rebind(..) => {}
        }
    }

    pub(super) fn channel_ends(&mut self, slot: u32) {
        let Some(bridge) = self.bridges.get(slot) else { return };
        let (relay, expires) = (bridge.relay, bridge.expires);
        if expires > self.now {
            self.push_at(expires, What::ChannelEnds(slot));
            return;
        }
        self.drop_bridge(slot);
        let pair = numbers(slot);
        self.input(relay, Input::ChannelsExpired(vec![pair.a, pair.b]));
    }

    pub(super) fn drop_bridge(&mut self, slot: u32) {
        let Some(bridge) = self.bridges.remove(slot) else { return };
        self.hosts[bridge.relay as usize].bridges.retain(|known| *known != slot);
        self.drop_users(slot, bridge.users);
    }
}
