//! What `baran roles` writes: what the node serves, for whom, and within which limits.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::status::{Channel, channels, pairs};
use super::{Path, list, ms, short, texts};
use crate::rate;

/// What a node does for others at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Roles {
    /// Its id.
    pub(crate) id: String,
    /// Whether it is a daemon; else it was started for this answer, and serves nobody.
    pub(crate) daemon: bool,
    /// Whether and what it may serve, and how much of that it did.
    pub(crate) serve: Serve,
    /// What it relays.
    pub(crate) relay: Relay,
    /// What it does for the index.
    pub(crate) index: Index,
    /// The puzzle of its identity.
    pub(crate) puzzle: Puzzle,
    /// The seat that the network lent it; null if none.
    pub(crate) seat: Option<Seat>,
    /// Seats of its region that it knows, and votes that it gave since its start.
    pub(crate) seats: Seats,
    /// The peers that relay and signal for it.
    pub(crate) homes: Vec<Home>,
}

/// The owner's limits, and how near the node is to them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Serve {
    /// `auto` or `off`.
    pub(crate) mode: String,
    /// Why nobody is served at the moment: `off`, `hours`, `battery`, `metered` or `day-used`; null
    /// if the node serves.
    pub(crate) paused: Option<String>,
    /// Bytes a second at most.
    pub(crate) rate_bytes_per_s: u64,
    /// Bytes in 24 hours at most.
    pub(crate) bytes_per_day: u64,
    /// Such as `22-6`; null for always.
    pub(crate) hours: Option<String>,
    /// Peers that may be reached through it at a time.
    pub(crate) reservations_max: usize,
    /// Bytes served of those allowed a day.
    pub(crate) bytes_today: u64,
    /// Seconds until that day ends.
    pub(crate) day_ends_s: u64,
}

/// What a node relays and signals.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Relay {
    /// Ids of the peers that it relays to and signals for.
    pub(crate) serving: Vec<String>,
    /// Pairs of peers that it forwards for.
    pub(crate) channels: Vec<Channel>,
    /// Bytes forwarded since its start.
    pub(crate) bytes: u64,
}

/// What a node does for the index.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Records that it keeps for others.
    pub(crate) records: usize,
    /// Their bytes.
    pub(crate) record_bytes: u64,
    /// Requests that it answered since its start.
    pub(crate) requests_served: u64,
    /// Bytes of its answers, those of signalling among them.
    pub(crate) answer_bytes: u64,
}

/// A seat, and why the node holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seat {
    /// Of which region: the bits that its keys begin with, and `*`.
    pub(crate) region: String,
    /// Whether it serves; else it stands by.
    pub(crate) active: bool,
    /// Whether it is lent for minutes, because too few seats were left.
    pub(crate) acting: bool,
    /// Votes of its mandate.
    pub(crate) votes: usize,
    /// Bytes a second that electors measured.
    pub(crate) measured_bytes_per_s: Vec<u64>,
    /// Its place among the seats of the region that the node knows, from 1.
    pub(crate) rank: Option<usize>,
    /// Seconds until the mandate ends.
    pub(crate) ends_s: u64,
}

/// What a node knows of the seats of its region, and did to fill them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seats {
    /// Its region.
    pub(crate) region: String,
    /// Seats that it knows there, their mandates verified.
    pub(crate) known: usize,
    /// Ids of those that serve it as homes.
    pub(crate) homes: Vec<String>,
    /// Votes that it gave since its start.
    pub(crate) votes_given: u64,
}

/// How far the puzzle of an identity is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum Puzzle {
    /// The node serves nobody, so it does not solve it.
    #[default]
    Unwanted,
    /// It is being solved.
    Solving {
        /// Tries that were made.
        tries: u64,
        /// Tries that it takes on average.
        expected: u64,
    },
    /// It is solved.
    Solved,
}

/// A peer that relays and signals for a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Home {
    /// Its id.
    pub(crate) id: String,
    /// The way to it.
    #[serde(flatten)]
    pub(crate) path: Path,
    /// Round-trip time in milliseconds, smoothed.
    pub(crate) rtt_ms: Option<f64>,
}

impl Roles {
    /// Puts what `status` says of roles into the fields of the output.
    pub(crate) fn new(status: &baran::Status, daemon: bool) -> Self {
        let home = |id: &baran::NodeId| {
            let path = status.peers.iter().find(|peer| peer.id == *id).map(|peer| peer.path);
            let rtt_ms = path.and_then(|path| path.rtt).map(ms);
            Home { id: id.to_string(), path: Path::from(path), rtt_ms }
        };
        Self {
            id: status.id.to_string(),
            daemon,
            serve: Serve::from(&status.serve),
            relay: Relay {
                serving: texts(&status.relay.reservations),
                channels: channels(&status.relay),
                bytes: status.relay.bytes,
            },
            index: Index {
                records: status.index.records,
                record_bytes: status.index.record_bytes,
                requests_served: status.index.requests_served,
                answer_bytes: status.serve.answer_bytes,
            },
            puzzle: Puzzle::from(status.puzzle),
            seat: Seat::new(&status.roles),
            seats: Seats::new(status),
            homes: status.homes.iter().map(home).collect(),
        }
    }
}

impl Seat {
    fn new(roles: &baran::RoleStats) -> Option<Self> {
        let (region, active) = roles.seat?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let power = |log2: &u8| 1u64.checked_shl(u32::from(*log2)).unwrap_or(u64::MAX);
        Some(Self {
            region: region.to_string(),
            active,
            acting: roles.is_acting,
            votes: roles.votes,
            measured_bytes_per_s: roles.measured_log2.iter().map(power).collect(),
            rank: roles.rank.map(|rank| rank + 1),
            ends_s: roles.expires_s.saturating_sub(now.as_secs()),
        })
    }
}

impl Seats {
    fn new(status: &baran::Status) -> Self {
        let roles = &status.roles;
        Self {
            region: baran::Region::of_node(status.id, roles.bits).to_string(),
            known: roles.seats_known,
            homes: texts(&roles.homes),
            votes_given: roles.votes_given,
        }
    }
}

impl From<&baran::ServeStatus> for Serve {
    fn from(serve: &baran::ServeStatus) -> Self {
        let limits = &serve.limits;
        Self {
            mode: if limits.is_on { "auto" } else { "off" }.to_owned(),
            paused: serve.pause.map(|pause| pause.as_str().to_owned()),
            rate_bytes_per_s: limits.rate_bytes_per_s,
            bytes_per_day: limits.bytes_per_day,
            hours: limits.hours.map(|hours| hours.to_string()),
            reservations_max: limits.reservations,
            bytes_today: serve.bytes_today,
            day_ends_s: serve.day_left.as_secs(),
        }
    }
}

impl From<baran::PuzzleStatus> for Puzzle {
    fn from(puzzle: baran::PuzzleStatus) -> Self {
        match puzzle {
            baran::PuzzleStatus::Unwanted => Self::Unwanted,
            baran::PuzzleStatus::Solving { tries, expected } => Self::Solving { tries, expected },
            baran::PuzzleStatus::Solved { .. } => Self::Solved,
        }
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |ids: &[String]| list(ids, |id| short(id).to_owned());
        if self.daemon {
            writeln!(f, "serves     {}", self.serve)?;
        } else {
            writeln!(f, "serves     nobody: no daemon runs (see `baran up`)")?;
        }
        let Serve { hours, reservations_max, .. } = &self.serve;
        let rate = rate::human(self.serve.rate_bytes_per_s);
        write!(f, "limits     {rate}/s, {reservations_max} reservations, ")?;
        writeln!(f, "{}", hours.as_deref().unwrap_or("at any hour"))?;
        writeln!(f, "serving    {}", ids(&self.relay.serving))?;
        writeln!(f, "relaying   {}", pairs(&self.relay.channels))?;
        writeln!(f, "relayed    {}", rate::human(self.relay.bytes))?;
        let Index { records, record_bytes, requests_served, answer_bytes } = &self.index;
        writeln!(f, "keeps      {records} records for others, {}", rate::human(*record_bytes))?;
        writeln!(f, "answered   {requests_served} requests, {}", rate::human(*answer_bytes))?;
        writeln!(f, "puzzle     {}", self.puzzle)?;
        match &self.seat {
            Some(seat) => writeln!(f, "seat       {seat}")?,
            None => writeln!(f, "seat       none")?,
        }
        let Seats { region, known, homes, votes_given } = &self.seats;
        write!(f, "region     {region}: {known} seats known, {} of them our homes, ", homes.len())?;
        writeln!(f, "{votes_given} votes given")?;
        write!(f, "homes      {}", self.homes.len())?;
        for home in &self.homes {
            write!(f, "\n  {}  {}", home.id, home.path)?;
            if let Some(rtt) = home.rtt_ms {
                write!(f, ", {rtt:.3} ms")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.active { "serving" } else { "standing by" };
        write!(f, "{state} in region {}, {} votes", self.region, self.votes)?;
        if let Some(rank) = self.rank {
            write!(f, ", rank {rank}")?;
        }
        for rate in &self.measured_bytes_per_s {
            write!(f, ", measured {}/s", rate::human(*rate))?;
        }
        let acting = if self.acting { "lent at once, " } else { "" };
        write!(f, ", {acting}ends in {} min", self.ends_s.div_ceil(60))
    }
}

impl fmt::Display for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.paused.as_deref() {
            None => write!(f, "others")?,
            Some("off") => return write!(f, "nobody: the owner switched it off"),
            Some("hours") => write!(f, "nobody until its hours")?,
            Some("battery") => write!(f, "nobody: this machine runs on battery")?,
            Some("metered") => write!(f, "nobody: this machine's way out is metered")?,
            Some("day-used") => write!(f, "nobody: the bytes of the day are used up")?,
            Some(other) => write!(f, "nobody: {other}")?,
        }
        let (today, day) = (rate::human(self.bytes_today), rate::human(self.bytes_per_day));
        write!(f, ", today {today} of {day}")
    }
}

impl fmt::Display for Puzzle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwanted => f.write_str("not solved: only who serves others needs it"),
            Self::Solving { tries, expected } => {
                write!(f, "being solved, {tries} tries of about {expected}")
            }
            Self::Solved => f.write_str("solved"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_with_its_reason() {
        let text = |paused: Option<&str>| {
            Serve { paused: paused.map(str::to_owned), bytes_per_day: 2_000, ..Serve::default() }
                .to_string()
        };
        assert_eq!(text(None), "others, today 0 B of 2.0 kB");
        assert_eq!(text(Some("off")), "nobody: the owner switched it off");
        for pause in [baran::Pause::Battery, baran::Pause::Metered, baran::Pause::DayUsed] {
            let text = text(Some(pause.as_str()));
            assert!(text.starts_with("nobody: this") || text.contains("used up"), "{text}");
        }
    }
}
