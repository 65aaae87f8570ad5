//! What `baran status` writes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::roles::{Puzzle, Serve};
use super::{Path, list, ms, short, texts};
use crate::rate;

/// A node at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Its id.
    pub(crate) id: String,
    /// Its network.
    pub(crate) network: String,
    /// Whether it is a daemon; else it was started for this answer.
    pub(crate) daemon: bool,
    /// Process that it runs in.
    pub(crate) pid: u32,
    /// Seconds since its start.
    pub(crate) uptime_s: f64,
    /// Its own addresses.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Its addresses as others see them, those with most voices first.
    pub(crate) observed: Vec<SocketAddr>,
    /// `none`, `endpoint-independent`, `address-dependent` or `unknown`.
    pub(crate) nat: String,
    /// Ids of the peers that relay and signal for it.
    pub(crate) homes: Vec<String>,
    /// What it may do for others, and whether it does.
    #[serde(default)]
    pub(crate) serve: Serve,
    /// The puzzle of its identity.
    #[serde(default)]
    pub(crate) puzzle: Puzzle,
    /// What it relays for others.
    pub(crate) relay: Relay,
    /// Its part in the index.
    #[serde(default)]
    pub(crate) index: Index,
    /// The peers that it is connected to.
    pub(crate) peers: Vec<Peer>,
}

/// Pairs of peers that are shown to a person.
const PAIRS_SHOWN: usize = 8;

/// What a node knows of the index and does for it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// How it found its first peer: `lan`, `cache`, `configured` or `incoming`; null while alone.
    pub(crate) joined_by: Option<String>,
    /// Peers in its table.
    pub(crate) table: usize,
    /// Warm connections.
    pub(crate) warm: usize,
    /// Records that it keeps for others.
    pub(crate) records: usize,
    /// Their bytes.
    pub(crate) record_bytes: u64,
    /// Nodes of the whole network, estimated.
    pub(crate) nodes_estimate: Option<f64>,
    /// Seconds by which the peers' calendars are ahead of this machine's.
    pub(crate) clock_skew_s: Option<i64>,
    /// Requests that it made since its start.
    pub(crate) requests_sent: u64,
    /// Requests that it answered since its start.
    pub(crate) requests_served: u64,
}

/// What a node does for others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Relay {
    /// The owner's limit.
    pub(crate) rate_bytes_per_s: u64,
    /// The owner's limit.
    pub(crate) bytes_per_day: u64,
    /// The owner's limit.
    pub(crate) reservations_max: usize,
    /// Ids of the peers that it signals for and relays to.
    pub(crate) serving: Vec<String>,
    /// Pairs of peers that it forwards for.
    pub(crate) channels: Vec<Channel>,
    /// Bytes forwarded since its start.
    pub(crate) bytes: u64,
    /// Bytes served of those allowed a day, relayed or not.
    pub(crate) bytes_today: u64,
}

/// A pair of peers that a node forwards for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Channel {
    /// Id of the peer that asked for it.
    pub(crate) from: String,
    /// Id of the peer that it leads to.
    pub(crate) to: String,
}

/// A peer that a node is connected to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its id.
    pub(crate) id: String,
    /// The way to it.
    #[serde(flatten)]
    pub(crate) path: Path,
    /// Round-trip time in milliseconds, smoothed.
    pub(crate) rtt_ms: Option<f64>,
    /// Conversations that are open.
    pub(crate) sessions: usize,
}

impl Status {
    /// Puts `status` into the fields of the output.
    pub(crate) fn new(status: &baran::Status, daemon: bool) -> Self {
        let (relay, limits) = (&status.relay, &status.serve.limits);
        Self {
            id: status.id.to_string(),
            network: status.network.clone(),
            daemon,
            pid: std::process::id(),
            uptime_s: (status.uptime.as_secs_f64() * 1e3).round() / 1e3,
            addresses: status.addresses.clone(),
            observed: status.observed.clone(),
            nat: status.mapping.as_str().to_owned(),
            homes: texts(&status.homes),
            serve: Serve::from(&status.serve),
            puzzle: Puzzle::from(status.puzzle),
            relay: Relay {
                rate_bytes_per_s: limits.rate_bytes_per_s,
                bytes_per_day: limits.bytes_per_day,
                reservations_max: limits.reservations,
                serving: texts(&relay.reservations),
                channels: channels(relay),
                bytes: relay.bytes,
                bytes_today: status.serve.bytes_today,
            },
            index: Index::from(&status.index),
            peers: status.peers.iter().map(Peer::from).collect(),
        }
    }
}

impl From<&baran::IndexStatus> for Index {
    fn from(index: &baran::IndexStatus) -> Self {
        Self {
            joined_by: index.joined_by.map(|by| by.as_str().to_owned()),
            table: index.table,
            warm: index.warm,
            records: index.records,
            record_bytes: index.record_bytes,
            nodes_estimate: index.nodes_estimate,
            clock_skew_s: index.clock_skew_s,
            requests_sent: index.requests_sent,
            requests_served: index.requests_served,
        }
    }
}

/// The pairs of peers that a node forwards for.
pub(super) fn channels(relay: &baran::RelayStatus) -> Vec<Channel> {
    let text = |(from, to): &(baran::NodeId, baran::NodeId)| Channel {
        from: from.to_string(),
        to: to.to_string(),
    };
    relay.channels.iter().map(text).collect()
}

/// Each pair once, with the number of its channels, and how many pairs are left out.
pub(super) fn pairs(channels: &[Channel]) -> String {
    let mut counts: BTreeMap<[&str; 2], usize> = BTreeMap::new();
    for channel in channels {
        let mut pair = [short(&channel.from), short(&channel.to)];
        pair.sort_unstable();
        *counts.entry(pair).or_default() += 1;
    }
    let text = |([a, b], count): (&[&str; 2], &usize)| match count {
        1 => format!("{a}-{b}"),
        _ => format!("{a}-{b} ×{count}"),
    };
    let shown: Vec<_> = counts.iter().take(PAIRS_SHOWN).map(text).collect();
    let more = counts.len() - shown.len();
    let shown = list(&shown, Clone::clone);
    if more == 0 { shown } else { format!("{shown} and {more} more pairs") }
}

impl From<&baran::PeerStatus> for Peer {
    fn from(peer: &baran::PeerStatus) -> Self {
        Self {
            id: peer.id.to_string(),
            path: Path::from(Some(peer.path)),
            rtt_ms: peer.path.rtt.map(ms),
            sessions: peer.sessions,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "id         {}", self.id)?;
        writeln!(f, "network    {}", self.network)?;
        if self.daemon {
            writeln!(f, "daemon     process {}, up {:.0} s", self.pid, self.uptime_s)?;
        } else {
            writeln!(f, "daemon     none: this node was started to answer (see `baran up`)")?;
        }
        writeln!(f, "addresses  {}", list(&self.addresses, ToString::to_string))?;
        writeln!(f, "seen at    {}", list(&self.observed, ToString::to_string))?;
        writeln!(f, "NAT        {}", self.nat)?;
        writeln!(f, "homes      {}", list(&self.homes, |id| short(id).to_owned()))?;
        writeln!(f, "serving    {}", list(&self.relay.serving, |id| short(id).to_owned()))?;
        writeln!(f, "relaying   {}", pairs(&self.relay.channels))?;
        writeln!(f, "relayed    {}", rate::human(self.relay.bytes))?;
        if self.daemon {
            writeln!(f, "serves     {} (see `baran roles`)", self.serve)?;
            writeln!(f, "puzzle     {}", self.puzzle)?;
        }
        write!(f, "{}", self.index)?;
        write!(f, "\npeers      {}", self.peers.len())?;
        for peer in &self.peers {
            write!(f, "\n  {}  {}", peer.id, peer.path)?;
            if let Some(rtt) = peer.rtt_ms {
                write!(f, ", {rtt:.3} ms")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = match self.joined_by.as_deref() {
            None => "not yet: no peer is connected",
            Some("lan") => "by the local network",
            Some("cache") => "by a peer of an earlier run",
            Some("registry") => "by a peer in the public registry",
            Some("configured") => "by a peer that the owner named",
            Some("incoming") => "by a peer that called",
            Some(other) => other,
        };
        writeln!(f, "joined     {joined}")?;
        let size = self.nodes_estimate.map_or_else(|| "size unknown".to_owned(), about);
        writeln!(f, "index      {} in the table, {} warm; {size}", self.table, self.warm)?;
        let bytes = rate::human(self.record_bytes);
        write!(f, "keeps      {} records for others, {bytes}", self.records)?;
        match self.clock_skew_s {
            Some(skew) if skew.unsigned_abs() > SKEW_TOLD_S => {
                let side = if skew > 0 { "behind" } else { "ahead of" };
                let skew = skew.unsigned_abs();
                write!(f, "\nclock      {skew} s {side} its peers': set this machine's clock")
            }
            _ => Ok(()),
        }
    }
}

/// A difference of the calendars that people are told of.
const SKEW_TOLD_S: u64 = 60;

/// A number of nodes, with two digits.
fn about(nodes: f64) -> String {
    if nodes < 10.0 {
        return format!("about {nodes:.0} nodes");
    }
    let unit = 10_f64.powf(nodes.log10().floor() - 1.0);
    format!("about {:.0} nodes", (nodes / unit).round() * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_with_two_digits() {
        for (nodes, text) in
            [(1.0, "1"), (9.4, "9"), (12.0, "12"), (1_234.0, "1200"), (98_765.0, "99000")]
        {
            assert_eq!(about(nodes), format!("about {text} nodes"));
        }
    }

    #[test]
    fn pairs_are_counted_and_the_first_are_shown() {
        let of = |pairs: &[(u8, u8)]| -> Vec<Channel> {
            let text = |n: u8| char::from(b'a' + n).to_string().repeat(8);
            pairs.iter().map(|(a, b)| Channel { from: text(*a), to: text(*b) }).collect()
        };
        assert_eq!(pairs(&[]), "-");
        let three = of(&[(0, 1), (1, 0), (0, 2)]);
        assert_eq!(pairs(&three), "aaaaaaaa-bbbbbbbb ×2, aaaaaaaa-cccccccc");
        let many: Vec<_> = (1..=10).map(|n| (0, n)).collect();
        assert!(pairs(&of(&many)).ends_with("aaaaaaaa-iiiiiiii and 2 more pairs"));
    }

    #[test]
    fn a_wrong_clock_is_told_which_way() {
        let text = |skew| Index { clock_skew_s: Some(skew), ..Index::default() }.to_string();
        assert!(!text(59).contains("clock"));
        assert!(text(3_600).contains("3600 s behind its peers'"));
        assert!(text(-86_400).contains("86400 s ahead of its peers'"));
    }
}
