//! When the registry is visited, and what is done there.
//!
//! The library's node runs in a thread of its own for as long as a visit takes. It speaks to
//! strangers, so whatever becomes of it (an error, a panic, no end) costs the visit and nothing
//! else.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use baran_proto::invite::PeerAddr;
use baran_proto::record::Record;
use futures_core::Stream;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, MutableItem};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::slot::{self, PEERS_MAX, SLOTS, Seen};
use super::{Identity, MainlineConfig, Situation};
use crate::persist::unix_now;

/// Slots that are read at a time: where there are many nodes, half of them tell enough.
const TOGETHER: usize = 8;
/// Most editions of one item that are looked at: twice the nodes that should keep it.
const EDITIONS_MAX: usize = 40;
/// Longest time for reading a slot, and for writing it.
const SLOT_MAX: Duration = Duration::from_secs(20);
/// Longest visit.
const VISIT_MAX: Duration = Duration::from_secs(150);

/// Visits the registry when the node needs it or is of use to it, until nobody takes what is found.
pub(super) async fn run(
    config: MainlineConfig,
    identity: Identity,
    mut situations: watch::Receiver<Situation>,
    found: mpsc::Sender<Vec<PeerAddr>>,
) {
    let mut seed = [0; 32];
    if let Err(error) = getrandom::fill(&mut seed) {
        return debug!(%error, "no registry without randomness");
    }
    let mut plan = Plan::new(config, ChaCha8Rng::from_seed(seed));
    loop {
        let situation = situations.borrow_and_update().clone();
        let due = plan.due(Instant::now(), &situation, identity.is_lasting);
        let pause = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = situations.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = found.closed() => return,
            () = pause => {}
        }
        let visit = Visit {
            config: plan.config.clone(),
            identity: identity.clone(),
            situation,
            rng: ChaCha8Rng::from_rng(&mut plan.rng),
        };
        let peers = visit.guarded().await;
        plan.visited(Instant::now());
        if !peers.is_empty() {
            // If the last answer was not even taken, the next visit brings another.
            drop(found.try_send(peers));
        }
    }
}

/// When the next visit is due.
struct Plan {
    config: MainlineConfig,
    rng: ChaCha8Rng,
    has_peers: bool,
    due: Option<Instant>,
    pause: Duration,
}

impl Plan {
    fn new(config: MainlineConfig, rng: ChaCha8Rng) -> Self {
        let pause = config.pause.0;
        Self { config, rng, has_peers: true, due: None, pause }
    }

    /// When to visit next as things stand; `None` while there is nothing to do.
    fn due(&mut self, now: Instant, situation: &Situation, is_lasting: bool) -> Option<Instant> {
        if self.has_peers != situation.has_peers {
            self.has_peers = situation.has_peers;
            self.due = None;
            self.pause = self.config.pause.0;
        }
        let is_useful = !self.has_peers || situation.is_open && is_lasting;
        if !is_useful {
            return None;
        }
        if self.due.is_none() {
            let wait = if self.has_peers { self.config.refresh / 8 } else { self.config.patience };
            self.due = Some(now + self.jitter(wait));
        }
        self.due
    }

    fn visited(&mut self, now: Instant) {
        let wait = if self.has_peers { self.config.refresh } else { self.pause };
        self.pause = (self.pause * 2).min(self.config.pause.1);
        self.due = Some(now + self.jitter(wait));
    }

    /// From three quarters to five quarters: nodes that started together do not come together.
    fn jitter(&mut self, wait: Duration) -> Duration {
        wait * (75 + self.rng.next_u32() % 51) / 100
    }
}

/// One visit.
struct Visit {
    config: MainlineConfig,
    identity: Identity,
    situation: Situation,
    rng: ChaCha8Rng,
}

impl Visit {
    /// Carries it out apart; whatever goes wrong, nobody was found.
    async fn guarded(self) -> Vec<PeerAddr> {
        let mut task = JoinSet::new();
        task.spawn(self.run());
        match timeout(VISIT_MAX, task.join_next()).await {
            Ok(Some(Ok(peers))) => peers,
            Ok(ended) => {
                debug!(?ended, "the registry's library failed");
                Vec::new()
            }
            Err(_) => {
                debug!("the registry does not come to an end");
                Vec::new()
            }
        }
    }

    async fn run(mut self) -> Vec<PeerAddr> {
        let config = self.config.clone();
        // Names are resolved while it starts, which blocks.
        let dht = match tokio::task::spawn_blocking(move || start(&config)).await {
            Ok(Ok(dht)) => dht.as_async(),
            Ok(Err(error)) => {
                debug!(%error, "the registry cannot be used");
                return Vec::new();
            }
            Err(_) => return Vec::new(),
        };
        let mut slots: Vec<u8> = (0..SLOTS).collect();
        slot::shuffle(&mut slots, &mut self.rng);
        if self.situation.has_peers {
            let seen = read(dht.clone(), self.identity.network.clone(), slots[0]).await;
            self.list(&dht, vec![(slots[0], seen)]).await;
            return Vec::new();
        }
        let (mut all, mut read_slots) = (Seen::default(), Vec::new());
        for some in slots.chunks(TOGETHER) {
            let mut reading = JoinSet::new();
            for &number in some {
                let (dht, network) = (dht.clone(), self.identity.network.clone());
                reading.spawn(async move { (number, read(dht, network, number).await) });
            }
            while let Some(read) = reading.join_next().await {
                let Ok((number, seen)) = read else { continue };
                all.merge(&seen);
                read_slots.push((number, seen));
            }
            all.remove(self.identity.secret.id());
            if all.len() >= PEERS_MAX {
                break;
            }
        }
        let peers = all.pick(&self.identity.allow_nets, &mut self.rng);
        debug!(slots = read_slots.len(), nodes = all.len(), peers = peers.len(), "registry read");
        self.list(&dht, read_slots).await;
        peers
    }

    /// Writes this node into one of the slots that were read, if that is of use to anybody.
    async fn list(&mut self, dht: &AsyncDht, mut slots: Vec<(u8, Seen)>) {
        if !self.identity.is_lasting {
            return;
        }
        let unix = unix_now();
        let Some(own) = self.own_record(dht).await else { return };
        let listed = slots.iter_mut().filter_map(|(_, seen)| seen.remove(own.author())).max();
        // Nobody knows whether a node without peers can be reached: it takes nobody's place.
        let may_replace = self.situation.has_peers;
        let rng = &mut self.rng;
        let mut fit = slots.iter().filter(|(_, seen)| {
            seen.wants(unix, &own, listed) && (may_replace || seen.has_room(&own))
        });
        let item = fit.find_map(|(number, seen)| Some((number, seen.with(&own, unix, rng)?)));
        let Some((number, (sequence, value))) = item else { return };
        let key = slot::key(&self.identity.network, *number);
        let item = MutableItem::new(key, &value, sequence, None);
        match timeout(SLOT_MAX, dht.put_mutable(item, None)).await {
            Ok(Ok(kept)) => debug!(slot = number, nodes = kept.stored_at, "listed in the registry"),
            Ok(Err(error)) => debug!(slot = number, %error, "not listed in the registry"),
            Err(_) => debug!(slot = number, "not listed in the registry in time"),
        }
    }

    /// What is written of this node; `None` if it is nowhere to be reached.
    async fn own_record(&self, dht: &AsyncDht) -> Option<Record> {
        let Situation { has_peers, addrs, port, .. } = &self.situation;
        let mut addrs = addrs.clone();
        if !has_peers && let Ok(info) = timeout(SLOT_MAX, dht.info()).await {
            // Nobody else tells a node without peers where it is. A NAT that keeps ports lets in
            // those whom the node dials, and it dials all that it finds here.
            let seen_at = info.public_address().map(|addr| IpAddr::V4(*addr.ip()));
            addrs.extend(seen_at.map(|ip| SocketAddr::new(ip, *port)));
        }
        let Identity { secret, network, allow_nets, .. } = &self.identity;
        let addrs = slot::usable(addrs, allow_nets);
        if addrs.is_empty() {
            return None;
        }
        slot::own(secret, network, unix_now(), &addrs).ok()
    }
}

fn start(config: &MainlineConfig) -> std::io::Result<Dht> {
    let mut builder = Dht::builder();
    // Any free port: the usual one would say what this is.
    builder.bind_address(config.bind).port(0).request_timeout(config.timeout);
    if !config.servers.is_empty() {
        builder.bootstrap(&config.servers);
    }
    builder.build()
}

/// Reads the editions of a slot's item.
async fn read(dht: AsyncDht, network: String, number: u8) -> Seen {
    let key = slot::key(&network, number).verifying_key().to_bytes();
    let mut seen = Seen::default();
    let unix = unix_now();
    let mut items = pin!(dht.get_mutable(&key, None, None));
    let reading = async {
        for _ in 0..EDITIONS_MAX {
            let Some(item) = poll_fn(|context| items.as_mut().poll_next(context)).await else {
                return;
            };
            seen.take(&network, unix, item.seq(), item.value());
        }
    };
    if timeout(SLOT_MAX, reading).await.is_err() {
        debug!(slot = number, "reading takes too long");
    }
    seen
}
