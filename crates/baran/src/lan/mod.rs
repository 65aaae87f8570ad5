//! Peers of the same LAN, found by multicast DNS (RFC 6762) service discovery (RFC 6763).
//!
//! A node registers an instance of `_baran._udp.local.` and browses for those of others. The
//! instance and its host have random names, new at every start. The TXT record holds `id`, the
//! node's identity, and `net`, a hash of the network's name and that identity: who does not know
//! the name learns neither it nor which nodes are of one network.
//!
//! Whoever is on the LAN may say anything. An identity is proved when it is dialled; what is
//! dialled must be an address on a network that this machine is attached to, so that nobody makes
//! us send elsewhere; what is remembered is bounded, and so is the cache of the library, by
//! starting it anew when it has grown too much. Nothing is sent on interfaces that look like the
//! way to the internet: a network is a LAN if it has private or link-local addresses and room for
//! more than two hosts.

mod attached;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baran_proto::invite::PeerAddr;
use mdns_sd::{IfKind, IfPredicate, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::debug;

use self::attached::Attached;
use crate::NodeId;

/// What nodes are found as (RFC 6763 §4.1.2).
const SERVICE: &str = "_baran._udp.local.";
const KEY_ID: &str = "id";
const KEY_NETWORK: &str = "net";

/// Most peers that are remembered.
const PEERS_MAX: usize = 256;
/// Most addresses of one peer: of both families, on two networks.
const ADDRS_MAX: usize = 4;
/// Most records in the library's cache: six for each peer and some of strangers.
const CACHE_MAX: i64 = 4_096;

/// Pause between looks at the library's cache.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// Looks between reports of all peers that are still there: whoever could not be reached earlier
/// is tried again.
const LOOKS_PER_REPORT: u32 = 30;
/// Pause before the library is started anew.
const RESTART_PAUSE: Duration = Duration::from_secs(10);

/// Who is announced.
#[derive(Debug, Clone)]
pub(crate) struct LanConfig {
    /// The node.
    pub(crate) id: NodeId,
    /// The network's name.
    pub(crate) network: String,
    /// Where the node listens. What listens on the first one's port is announced.
    pub(crate) local: Vec<SocketAddr>,
}

/// Announces the node on the LAN and looks for others until it is dropped.
#[derive(Debug)]
pub(crate) struct Lan {
    task: AbortHandle,
}

impl Lan {
    /// Starts. What is found goes to `found`, again after some minutes and when it changes; while
    /// that is full it is left out. Must be called inside a Tokio runtime. What the system refuses
    /// is tried again later and costs nothing else. Stops when `found` is closed.
    pub(crate) fn start(config: LanConfig, found: mpsc::Sender<PeerAddr>) -> Self {
        Self { task: tokio::spawn(run(config, found)).abort_handle() }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(config: LanConfig, found: mpsc::Sender<PeerAddr>) {
    loop {
        let ended = match Session::start(&config) {
            Ok(session) => session.run(&config, &found).await,
            Err(error) => Ended::Failed(error.to_string()),
        };
        match ended {
            Ended::NotWanted => return,
            Ended::Failed(why) => debug!(why, "discovery on the LAN starts anew"),
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// Why a session ended.
enum Ended {
    NotWanted,
    Failed(String),
}

/// One life of the library's thread.
struct Session {
    daemon: Daemon,
    events: mdns_sd::Receiver<ServiceEvent>,
    attached: Attached,
    /// By the instances' names, which others chose.
    peers: BTreeMap<String, PeerAddr>,
}

/// Ends the library's thread when dropped; it says goodbye to the LAN.
struct Daemon(ServiceDaemon);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.shutdown());
    }
}

impl Session {
    fn start(config: &LanConfig) -> Result<Self, mdns_sd::Error> {
        let daemon = Daemon(ServiceDaemon::new()?);
        let local = config.local.clone();
        let known = Mutex::new(Attached::look(&local));
        let on_lan = IfPredicate::new(move |interface| {
            let mut attached = known.lock().unwrap_or_else(PoisonError::into_inner);
            attached.refresh(&local);
            attached.serves(interface)
        });
        daemon.0.disable_interface(IfKind::All)?;
        daemon.0.enable_interface(IfKind::Predicate(on_lan.clone()))?;
        daemon.0.register(service(config, on_lan)?)?;
        let events = daemon.0.browse(SERVICE)?;
        let attached = Attached::look(&config.local);
        Ok(Self { daemon, events, attached, peers: BTreeMap::new() })
    }

    async fn run(mut self, config: &LanConfig, found: &mpsc::Sender<PeerAddr>) -> Ended {
        let mut looks = tokio::time::interval(LOOK_PERIOD);
        let mut looked = 0;
        loop {
            tokio::select! {
                event = self.events.recv_async() => match event {
                    Ok(event) => self.handle_event(config, found, event),
                    Err(_) => return Ended::Failed("too many events, or its thread ended".into()),
                },
                _ = looks.tick() => {
                    if !self.is_cache_small().await {
                        return Ended::Failed("too many records".into());
                    }
                    looked = (looked + 1) % LOOKS_PER_REPORT;
                    if looked == 0 {
                        self.peers.values().for_each(|peer| drop(found.try_send(peer.clone())));
                    }
                }
                () = found.closed() => return Ended::NotWanted,
            }
        }
    }

    fn handle_event(
        &mut self,
        config: &LanConfig,
        found: &mpsc::Sender<PeerAddr>,
        event: ServiceEvent,
    ) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                self.attached.refresh(&config.local);
                let Some(peer) = peer_of(config, &self.attached, &service) else { return };
                let name = service.fullname;
                let is_known = self.peers.get(&name) == Some(&peer);
                let is_full = self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&name);
                if !is_known && !is_full {
                    debug!(peer = %peer.id.short(), addrs = ?peer.addrs, "found on the LAN");
                    drop(found.try_send(peer.clone()));
                    self.peers.insert(name, peer);
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => drop(self.peers.remove(&name)),
            _ => {}
        }
    }

    async fn is_cache_small(&self) -> bool {
        let Ok(metrics) = self.daemon.0.get_metrics() else { return false };
        let Ok(metrics) = metrics.recv_async().await else { return false };
        let cached = metrics.iter().filter(|(name, _)| name.starts_with("cached-"));
        cached.map(|(_, count)| *count).sum::<i64>() <= CACHE_MAX
    }
}

/// What is registered. Its addresses are those of the LAN's interfaces, whatever becomes of them.
fn service(config: &LanConfig, on_lan: IfPredicate) -> Result<ServiceInfo, mdns_sd::Error> {
    let mut random = [0; 8];
    let drawn = getrandom::fill(&mut random);
    drawn.map_err(|error| mdns_sd::Error::Msg(error.to_string()))?;
    let name = format!("{:016x}", u64::from_be_bytes(random));
    let host = format!("{name}.local.");
    let port = config.local.first().map_or(0, SocketAddr::port);
    let hash = network_hash(&config.network, config.id);
    let properties = [(KEY_ID, config.id.to_string()), (KEY_NETWORK, hash)];
    let info = ServiceInfo::new(SERVICE, &name, &host, (), port, &properties[..])?;
    let mut info = info.enable_addr_auto();
    info.set_interfaces(vec![IfKind::Predicate(on_lan)]);
    // Nobody else has drawn the name: asking first would cost 750 ms (RFC 6762 §8.1).
    info.set_requires_probe(false);
    Ok(info)
}

/// The peer that an instance names; `None` if it is ourselves, of another network, or cannot be
/// dialled from here.
fn peer_of(config: &LanConfig, attached: &Attached, service: &ResolvedService) -> Option<PeerAddr> {
    let id: NodeId = service.get_property_val_str(KEY_ID)?.parse().ok()?;
    let network = service.get_property_val_str(KEY_NETWORK)?;
    if id == config.id || network != network_hash(&config.network, id) || service.port == 0 {
        return None;
    }
    let mut ips: Vec<_> = service.addresses.iter().filter_map(|ip| attached.dialable(ip)).collect();
    ips.sort_unstable();
    let places = ips.into_iter().take(ADDRS_MAX);
    let addrs: Vec<_> = places.map(|place| place.addr(service.port)).collect();
    (!addrs.is_empty()).then(|| PeerAddr { addrs, ..id.into() })
}

/// 128 bits that only who knows the network's name can make or check.
fn network_hash(network: &str, id: NodeId) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("baran 1 network on a LAN");
    hasher.update(id.as_bytes()).update(network.as_bytes());
    let hex = hasher.finalize().to_hex();
    hex.as_str()[..32].to_owned()
}

#[cfg(test)]
mod tests;
