//! Channels of relays, of the whole world in one table.
//!
//! The real forwarder ([`baran_proto::forward`]) looks at every datagram; here no datagram is
//! simulated, so all that is left of it is which two hosts a number joins, and until when.

use std::collections::VecDeque;

use baran_proto::forward::ChannelPair;
use baran_proto::frame::Channel;
use baran_proto::id::NodeId;
use baran_proto::time::Instant;

use super::conn::ConnId;

/// Two hosts that a third forwards for.
#[derive(Debug)]
pub struct Bridge {
    /// Who forwards.
    pub relay: u32,
    /// Opener and target.
    pub hosts: [u32; 2],
    /// Their identities.
    pub peers: [NodeId; 2],
    /// Until when.
    pub expires: Instant,
    /// The connections of which a path goes this way.
    pub users: Vec<ConnId>,
}

/// All of them, by number.
#[derive(Debug, Default)]
pub struct Bridges {
    all: Vec<Option<Bridge>>,
    /// Longest free first, so that a number comes back late.
    free: VecDeque<u32>,
}

/// The numbers of the two ends of channel `slot`.
#[must_use]
pub fn numbers(slot: u32) -> ChannelPair {
    ChannelPair { a: Channel(slot * 2), b: Channel(slot * 2 + 1) }
}

/// The channel of a number, and which end of it.
#[must_use]
pub fn slot_of(channel: Channel) -> (u32, usize) {
    (channel.0 / 2, (channel.0 % 2) as usize)
}

impl Bridges {
    /// Adds one and returns its slot.
    ///
    /// # Panics
    ///
    /// With more than 2³¹ channels.
    pub fn add(&mut self, bridge: Bridge) -> u32 {
        // Numbers rest for a while: a late message about the old channel must not hit the new one.
        let slot = if self.free.len() > 1024 { self.free.pop_front() } else { None };
        let slot = slot.unwrap_or_else(|| {
            self.all.push(None);
            u32::try_from(self.all.len() - 1).expect("fewer channels than fit in memory")
        });
        self.all[slot as usize] = Some(bridge);
        slot
    }

    /// The channel in `slot`.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&Bridge> {
        self.all.get(slot as usize)?.as_ref()
    }

    /// The channel in `slot`.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Bridge> {
        self.all.get_mut(slot as usize)?.as_mut()
    }

    /// Removes the channel in `slot`.
    pub fn remove(&mut self, slot: u32) -> Option<Bridge> {
        let bridge = self.all.get_mut(slot as usize)?.take()?;
        self.free.push_back(slot);
        Some(bridge)
    }
}
