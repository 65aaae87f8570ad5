//! Who is there: a network that has stood for a while, and how its members come and go.
//!
//! Sessions are Weibull-distributed with a shape well below one (Stutzbach and Rejaie,
//! *Understanding Churn in Peer-to-Peer Networks*, IMC 2006: shapes of 0.34 to 0.59): many end
//! soon, some last for days. A world that begins has been running for ever: who is on at that
//! moment is in a long session (the inspection paradox), and what is left of it has the
//! equilibrium distribution of the renewal process.
//!
//! A departure is followed by an arrival somewhere else, so that the number of those who are on
//! stays about the same.

use core::time::Duration;

use baran_proto::time::Instant;

use crate::draw::Draw;
use crate::policy::Policy;
use crate::world::{Profile, World};

/// Shape of session lengths.
const SHAPE: f64 = 0.55;

/// The gamma function at 1 + 1/[`SHAPE`]: mean of a Weibull of scale 1.
const MEAN_OF_UNIT: f64 = 1.702;

/// How the population is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Nodes that are on at a time.
    pub nodes: usize,
    /// Share of those who are on that leaves in an hour.
    pub churn_per_h: f64,
    /// Of all who ever come, the share that is on at a time.
    pub availability: f64,
    /// Share of departures for good, each in exchange for a newcomer.
    pub replaced: f64,
    /// Share of the first caches' contacts that are not on.
    pub stale: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { nodes: 1_000, churn_per_h: 0.0, availability: 0.5, replaced: 0.1, stale: 0.2 }
    }
}

/// The rules by which hosts come and go once the world runs.
#[derive(Debug)]
pub struct Churn {
    draw: Draw,
    scale_s: f64,
    mean_off_s: f64,
    replaced: f64,
}

impl Churn {
    fn new(seed: u64, config: &Config) -> Option<Self> {
        (config.churn_per_h > 0.0).then(|| {
            let mean_s = 3600.0 / config.churn_per_h;
            let availability = config.availability.clamp(0.01, 0.99);
            Self {
                draw: Draw::new(seed, 7),
                scale_s: mean_s / MEAN_OF_UNIT,
                mean_off_s: mean_s * (1.0 - availability) / availability,
                replaced: config.replaced,
            }
        })
    }

    fn session(&mut self) -> Duration {
        seconds(self.draw.weibull(self.scale_s, SHAPE))
    }

    /// What is left of a session that is going on.
    fn rest_of_session(&mut self) -> Duration {
        seconds(self.scale_s * self.draw.gamma(1.0 / SHAPE).powf(1.0 / SHAPE))
    }

    fn absence(&mut self) -> Duration {
        seconds(self.draw.exponential(self.mean_off_s))
    }
}

/// A duration of at least a second and at most a year.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(1.0, 3.2e7))
}

impl World {
    /// Fills the world: as many hosts on as asked for, each with a cache of a former run and the
    /// seats that it had, and with churn as many others that are off. A share of those who are on
    /// works against the others. They are switched on within `within`, in random order.
    pub fn populate(&mut self, config: &Config, within: Duration, adversaries: f64) {
        let on = config.nodes as f64;
        let off = if config.churn_per_h > 0.0 { on / config.availability - on } else { 0.0 };
        let stale = off.max(on * config.stale);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number")]
        let others = stale as usize;
        let mut draw = Draw::new(self.config.seed, 9);
        let hosts: Vec<_> = (0..config.nodes + others)
            .map(|number| {
                let is_bad = number < config.nodes && draw.chance(adversaries);
                let profile = if is_bad { Profile::adversary() } else { Profile::default() };
                self.add_host(&profile)
            })
            .collect();
        let (first, rest) = hosts.split_at(config.nodes);
        let known = self.former_servers(first);
        // Fixed servers are never gone.
        let gone = if self.config.policy == Policy::Fixed {
            Vec::new()
        } else {
            self.former_servers(rest)
        };
        self.remember_former(&hosts, &known, &gone, config.stale);
        if self.config.policy == Policy::Mandate {
            self.elect_former(first, within);
        }
        let mut churn = Churn::new(self.config.seed, config);
        for host in first {
            let after = self.draw.part_of(within);
            self.join_at(self.now + after, *host);
        }
        if let Some(churn) = &mut churn {
            for host in rest {
                let after = within + churn.absence();
                self.join_at(self.now + after, *host);
            }
        }
        self.population = churn;
        self.settled_at = self.now + within;
    }

    /// Fills the world with hosts that are switched on for the first time, each with an invite that
    /// names some `invited` others: such as will serve where that can be known, else open ones.
    pub fn populate_new(&mut self, nodes: u32, invited: usize, within: Duration) {
        let all: Vec<_> = (0..nodes).map(|_| self.add_host(&Profile::default())).collect();
        let named = match self.config.policy {
            Policy::Mandate | Policy::Floor | Policy::Sg1 => self.open_of(&all),
            Policy::Fixed | Policy::SelfAsserted | Policy::QuitOnOverload => {
                self.former_servers(&all)
            }
        };
        for host in all {
            self.invite(host, &named, invited);
            let after = self.draw.part_of(within);
            self.join_at(self.now + after, host);
        }
    }

    /// Adds newcomers, each of which some peers that are on invite, and switches them on within
    /// `within`; returns when which one comes, in this order.
    pub fn add_crowd(
        &mut self,
        nodes: u32,
        invited: usize,
        within: Duration,
    ) -> Vec<(Instant, u32)> {
        let mut crowd = Vec::new();
        for _ in 0..nodes {
            let host = self.add_host(&Profile::default());
            self.introduce(host, invited);
            let at = self.now + self.draw.part_of(within);
            self.join_at(at, host);
            crowd.push((at, host));
        }
        crowd.sort_unstable();
        crowd
    }

    /// Switches off a share of these hosts without a word and for good.
    pub fn vanish(&mut self, hosts: &mut Vec<u32>, share: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number")]
        let lost = (hosts.len() as f64 * share).round() as usize;
        let goodbye = core::mem::replace(&mut self.config.goodbye, 0.0);
        for _ in 0..lost.min(hosts.len()) {
            let at = self.draw.below(hosts.len());
            let host = hosts.swap_remove(at);
            self.retire(host);
        }
        self.config.goodbye = goodbye;
    }

    /// A host was switched on: when will it go off?
    pub(crate) fn plan_leave(&mut self, host: u32) {
        let is_first = self.hosts[host as usize].run == 1 && self.now <= self.settled_at;
        let Some(churn) = &mut self.population else { return };
        if self.hosts[host as usize].is_adversary {
            return;
        }
        let after = if is_first { churn.rest_of_session() } else { churn.session() };
        self.leave_at(self.now + after, host);
    }

    /// A host was switched off: who comes in exchange, and when?
    pub(crate) fn plan_return(&mut self, host: u32) {
        let Some(churn) = &mut self.population else { return };
        let at = self.now + churn.absence();
        if !churn.draw.chance(churn.replaced) {
            self.join_at(at, host);
            return;
        }
        let newcomer = self.add_host(&Profile::default());
        self.introduce(newcomer, 8);
        self.join_at(at, newcomer);
    }

    /// Switches off all hosts that are on at one moment, without a word, and on again after
    /// `off_for` within some time. Returns when the last one is on.
    pub fn restart_all(&mut self, off_for: Duration, within: Duration) -> Instant {
        let all: Vec<_> = (0..u32::try_from(self.hosts.len()).unwrap_or(u32::MAX))
            .filter(|host| self.hosts[*host as usize].is_on)
            .collect();
        let churn = self.population.take();
        let goodbye = core::mem::replace(&mut self.config.goodbye, 0.0);
        for host in &all {
            self.leave(*host);
        }
        self.config.goodbye = goodbye;
        for host in all {
            let after = off_for + self.draw.part_of(within);
            self.join_at(self.now + after, host);
        }
        self.population = churn;
        self.now + off_for + within
    }
}
