//! What hosts give to others: counted always, limited where the world says so.

use core::time::Duration;

use baran_proto::machine::Machine;
use baran_proto::node::{Input, Node};
use baran_proto::time::Instant;

use super::World;

impl World {
    /// Something comes to a host at `at` for which it sends so many `bytes`: how long it waits, if
    /// it is not lost.
    pub(super) fn serve(&mut self, host: u32, at: Instant, bytes: u32) -> Option<Duration> {
        if bytes == 0 {
            return Some(Duration::ZERO);
        }
        let service = &mut self.hosts[host as usize].service;
        if self.config.is_limited {
            return service.take(at, bytes);
        }
        service.carry(at, bytes);
        Some(Duration::ZERO)
    }

    /// Tells a node how full its owner's allowance is, and not to serve when nothing is left of the
    /// day, as the driver does on its ticks.
    pub(super) fn tell_allowance(&mut self, host: u32, node: &mut Node) {
        let now = self.now;
        let service = &mut self.hosts[host as usize].service;
        let Some((load, is_day_used)) = service.news(now) else { return };
        node.handle_input(now, Input::Load(load));
        if node.relays() == is_day_used {
            node.handle_input(now, Input::Serve(!is_day_used));
        }
    }

    /// Whether a host's node serves others.
    #[must_use]
    pub fn is_serving(&self, host: u32) -> bool {
        self.hosts[host as usize].node().is_some_and(Node::relays)
    }

    /// Lets a host's node serve others, or not.
    pub fn set_serving(&mut self, host: u32, is_on: bool) {
        if self.hosts[host as usize].is_on && self.is_serving(host) != is_on {
            self.input(host, Input::Serve(is_on));
        }
    }
}
