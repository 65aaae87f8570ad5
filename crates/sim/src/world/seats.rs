//! Who holds a seat, in the eyes of somebody who sees all.

use baran_proto::role::{Depth, Plan, Region};

use super::World;
use crate::policy::NODES_PER_SERVER;

impl World {
    /// Who holds a seat, and of which region. Where no network lends them, those who serve hold
    /// them, of the whole key space.
    #[must_use]
    pub fn seats(&self) -> Vec<(u32, Region)> {
        let all = (0..).zip(&self.hosts).filter(|(_, host)| host.is_on);
        if self.config.policy.has_floor() {
            let serving = all.filter_map(|(number, host)| match host.node.as_ref()?.seat() {
                Some((region, true)) => Some((number, region)),
                _ => None,
            });
            return serving.collect();
        }
        let serving = all.filter(|(number, _)| self.is_serving(*number));
        serving.map(|(number, _)| (number, Region::ALL)).collect()
    }

    /// How many regions a network of so many nodes has, and how many seats that serve.
    #[must_use]
    pub fn planned_seats(&self, nodes: usize) -> (usize, usize) {
        if !self.config.policy.has_floor() {
            return (1, nodes.div_ceil(NODES_PER_SERVER));
        }
        let mut depth = Depth::default();
        depth.update(nodes as f64);
        let regions = 1 << depth.bits();
        (regions, Plan::of(nodes as f64).map_or(0, |plan| plan.active * regions))
    }
}
