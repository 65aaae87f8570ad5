//! The paths of one link: which exist, which one carries the data, and when one is dead.
//!
//! A link is a QUIC connection with several paths (draft-ietf-quic-multipath): relayed ones, which
//! work at once, and direct ones, which are punched (design §5; RFC 5128 §3 for the idea, RFC 8445
//! for the vocabulary of candidates). The QUIC layer probes and validates; this machine decides:
//!
//! - **Selection.** Direct before relayed; among equals the shorter round trip, with hysteresis:
//!   a rival must be better by a quarter and 2 ms for two seconds. The selected path is
//!   *available*, all others are *backup*. Each side selects for what it sends.
//! - **Rounds.** While no direct path exists the client starts rounds of hole punching, at once
//!   when candidates change, else after 5, 10, 20, 40, then every 60 s.
//! - **Watchdog.** When we transmit on a path and hear nothing, all paths are pinged after one
//!   sample. [`Config::silence_ms`] after the silence began the path is closed, if another one has
//!   answered since. QUIC then retransmits on that one, and nothing is lost.
//! - **Warm backup.** The client asks for a relayed path through another relay than those in use
//!   until [`Config::relayed_paths`] stand.
//!
//! Invariants: at most one path is selected, and it is open; a path is closed only if another is
//! open; a path that was closed is never selected again.

mod watchdog;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use self::watchdog::{Verdict, Watchdog};
use crate::id::NodeId;
use crate::machine::Machine;
use crate::time::Instant;
use crate::timer::Timers;

/// Which side of the QUIC connection we are. Only the client opens paths and starts rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Dialled.
    Client,
    /// Was dialled.
    Server,
}

/// A QUIC path number (draft-ietf-quic-multipath §2), unique within its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathId(pub u32);

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// Straight to the peer's address.
    Direct(SocketAddr),
    /// Through the node `via`.
    Relayed {
        /// The node that forwards; `None` if it is not known (yet), as when a peer reaches us
        /// through a relay whose announcement was overtaken by the first packet.
        via: Option<NodeId>,
    },
}

impl Remote {
    /// Whether no third node is in between.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

/// What QUIC counts for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Which path.
    pub path: PathId,
    /// Datagrams sent on it since it exists.
    pub tx: u64,
    /// Datagrams received on it since it exists.
    pub rx: u64,
    /// Smoothed round-trip time.
    pub rtt: Duration,
}

/// What can happen to the paths of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A path is validated and may carry data.
    Opened {
        /// Its number.
        path: PathId,
        /// Where it leads.
        remote: Remote,
    },
    /// A path is gone, whoever closed it.
    Closed(PathId),
    /// The counters that [`Output::Sample`] asked for.
    Samples(Vec<Sample>),
    /// Our own candidate addresses, all of them.
    Candidates(Vec<SocketAddr>),
    /// The peer named more of its addresses (client only).
    PeerCandidates,
    /// A relayed path was asked for and could not be had (client only).
    RelayFailed,
    /// Another relay to the peer became known (client only).
    RelayKnown,
}

/// What the path manager wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send data on this path (`true`) or only when no such path is left.
    SetAvailable(PathId, bool),
    /// Close the path.
    Close(PathId),
    /// Make the path transmit something that must be answered.
    Ping(PathId),
    /// Report the counters of all paths as [`Input::Samples`].
    Sample,
    /// Tell the peer that we may be reached here.
    AddCandidate(SocketAddr),
    /// Take that back.
    RemoveCandidate(SocketAddr),
    /// Probe all pairs of candidates.
    StartRound,
    /// Open a relayed path through a relay other than these.
    WantRelay {
        /// Relays in use.
        besides: Vec<NodeId>,
    },
    /// Data flows on this path from now on.
    Selected(Selected),
}

/// The path in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// Its number.
    pub path: PathId,
    /// Where it leads.
    pub remote: Remote,
    /// Smoothed round-trip time, if it was measured.
    pub rtt: Option<Duration>,
}

/// Figures of the path manager.
#[derive(Debug, Clone)]
pub struct Config {
    /// Milliseconds of silence after which a path is dead, at the least; three round trips if that
    /// is more. 200 ms survives two lost probes at common round trips (measured: 5 % loss closes
    /// no path) and leaves the 500 ms of design §11 for the rest.
    pub silence_ms: u64,
    /// Milliseconds between samples while something is sent.
    pub sample_ms: u64,
    /// Milliseconds between samples while nothing is.
    pub sample_idle_ms: u64,
    /// Relayed paths that the client wants in all.
    pub relayed_paths: usize,
    /// Direct paths beyond which the client closes the worst.
    pub direct_paths_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            silence_ms: 200,
            sample_ms: 40,
            sample_idle_ms: 500,
            relayed_paths: 2,
            direct_paths_max: 3,
        }
    }
}

/// Pause before rounds of punching that follow one that failed. The first is longer than a round's
/// own probes (4 s), the last keeps a mapping alive long enough for the peer to move.
const ROUND_PAUSES_S: [u64; 5] = [5, 10, 20, 40, 60];

/// Time to gather candidates that arrive together before a round starts.
const ROUND_SETTLE: Duration = Duration::from_micros(200);

/// How long a rival must be better before it is selected.
const RIVAL_PATIENCE: Duration = Duration::from_secs(2);

/// Pause before a second relay is asked for, and between attempts.
const RELAY_PAUSES_S: [u64; 5] = [0, 2, 5, 15, 60];

/// Least time between two requests for a relay, whatever the peer says about its homes meanwhile:
/// each may cost dials.
const RELAY_GAP: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Round,
    Sample,
    Relay,
}

#[derive(Debug)]
struct Path {
    remote: Remote,
    rtt: Option<Duration>,
    watchdog: Watchdog,
}

/// The paths of one link. See the module's documentation.
#[derive(Debug)]
pub struct PathManager {
    config: Config,
    side: Side,
    paths: BTreeMap<PathId, Path>,
    selected: Option<PathId>,
    rival: Option<(PathId, Instant)>,
    candidates: Vec<SocketAddr>,
    rounds_failed: usize,
    relays_failed: usize,
    /// When a relay may be asked for again.
    relay_not_before: Instant,
    active_until: Instant,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

impl PathManager {
    /// A link without paths yet.
    #[must_use]
    pub fn new(mut config: Config, side: Side) -> Self {
        // A pause of nothing would make a timer that is due for ever.
        config.sample_ms = config.sample_ms.max(1);
        config.sample_idle_ms = config.sample_idle_ms.max(1);
        Self {
            config,
            side,
            paths: BTreeMap::new(),
            selected: None,
            rival: None,
            candidates: Vec::new(),
            rounds_failed: 0,
            relays_failed: 0,
            relay_not_before: Instant::ZERO,
            active_until: Instant::ZERO,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// The path that carries the data.
    #[must_use]
    pub fn selected(&self) -> Option<Selected> {
        let path = self.selected?;
        let state = self.paths.get(&path)?;
        Some(Selected { path, remote: state.remote, rtt: state.rtt })
    }

    /// All open paths, in the order of their numbers.
    pub fn paths(&self) -> impl Iterator<Item = Selected> + '_ {
        self.paths.iter().map(|(path, state)| Selected {
            path: *path,
            remote: state.remote,
            rtt: state.rtt,
        })
    }

    /// The address that relayed frames between the two peers themselves travel to: that of the
    /// direct path with the lowest number, a choice on which both sides agree without a word.
    #[must_use]
    pub fn frame_addr(&self) -> Option<SocketAddr> {
        self.paths.values().find_map(|path| match path.remote {
            Remote::Direct(addr) => Some(addr),
            Remote::Relayed { .. } => None,
        })
    }

    fn has_direct(&self) -> bool {
        self.paths.values().any(|path| path.remote.is_direct())
    }

    fn handle_opened(&mut self, now: Instant, path: PathId, remote: Remote) {
        self.paths.insert(path, Path { remote, rtt: None, watchdog: Watchdog::default() });
        if remote.is_direct() {
            self.rounds_failed = 0;
            self.timers.stop(Timer::Round);
        } else {
            self.relays_failed = 0;
        }
        self.outputs.push_back(Output::SetAvailable(path, false));
        self.select(now);
        self.want_round(now, Duration::ZERO);
        self.want_relay(now);
        self.active_until = now + Duration::from_secs(2);
        self.schedule_sample(now);
    }

    fn handle_closed(&mut self, now: Instant, path: PathId) {
        if self.paths.remove(&path).is_none() {
            return;
        }
        if self.selected == Some(path) {
            self.selected = None;
        }
        self.select(now);
        self.want_round(now, Duration::ZERO);
        self.want_relay(now);
    }

    fn handle_candidates(&mut self, now: Instant, candidates: Vec<SocketAddr>) {
        let gone: Vec<_> =
            self.candidates.iter().filter(|addr| !candidates.contains(addr)).copied().collect();
        let new: Vec<_> =
            candidates.iter().filter(|addr| !self.candidates.contains(addr)).copied().collect();
        self.candidates = candidates;
        self.outputs.extend(gone.into_iter().map(Output::RemoveCandidate));
        if !new.is_empty() {
            self.outputs.extend(new.into_iter().map(Output::AddCandidate));
            self.restart_rounds(now);
        }
    }

    /// Starts over with punching because something changed.
    fn restart_rounds(&mut self, now: Instant) {
        self.rounds_failed = 0;
        self.timers.stop(Timer::Round);
        self.want_round(now, Duration::ZERO);
    }

    fn want_round(&mut self, now: Instant, pause: Duration) {
        let wanted = self.side == Side::Client
            && !self.paths.is_empty()
            && !self.has_direct()
            && !self.candidates.is_empty();
        if wanted {
            self.timers.set_if_idle(Timer::Round, now + ROUND_SETTLE + pause);
        } else {
            self.timers.stop(Timer::Round);
        }
    }

    fn want_relay(&mut self, now: Instant) {
        let relayed = self.paths.values().filter(|path| !path.remote.is_direct()).count();
        if self.side == Side::Client
            && !self.paths.is_empty()
            && relayed < self.config.relayed_paths
        {
            let pause = RELAY_PAUSES_S[self.relays_failed.min(RELAY_PAUSES_S.len() - 1)];
            let at = now + Duration::from_secs(pause) + ROUND_SETTLE;
            self.timers.set_if_idle(Timer::Relay, at.max(self.relay_not_before));
        } else {
            self.timers.stop(Timer::Relay);
        }
    }

    /// Selects the best path if none is selected or the best one is of a better tier.
    fn select(&mut self, now: Instant) {
        let tier = |path: &Path| (!path.remote.is_direct(), path.rtt.unwrap_or(Duration::MAX));
        let Some((best, state)) = self.paths.iter().min_by_key(|(id, path)| (tier(path), **id))
        else {
            self.selected = None;
            return;
        };
        let best = *best;
        let Some((current, current_state)) =
            self.selected.and_then(|id| self.paths.get(&id).map(|state| (id, state)))
        else {
            self.switch_to(best);
            return;
        };
        if best == current {
            self.rival = None;
            return;
        }
        if state.remote.is_direct() && !current_state.remote.is_direct() {
            self.switch_to(best);
            return;
        }
        let clearly_better = match (state.rtt, current_state.rtt) {
            (Some(rival), Some(held)) => rival * 5 / 4 + Duration::from_millis(2) < held,
            _ => false,
        };
        match self.rival {
            _ if !clearly_better => self.rival = None,
            Some((rival, since)) if rival == best => {
                if now - since >= RIVAL_PATIENCE {
                    self.switch_to(best);
                }
            }
            _ => self.rival = Some((best, now)),
        }
    }

    fn switch_to(&mut self, path: PathId) {
        self.outputs.push_back(Output::SetAvailable(path, true));
        if let Some(old) = self.selected.replace(path)
            && self.paths.contains_key(&old)
        {
            self.outputs.push_back(Output::SetAvailable(old, false));
        }
        self.rival = None;
        self.outputs.extend(self.selected().map(Output::Selected));
    }

    fn handle_samples(&mut self, now: Instant, samples: &[Sample]) {
        let silence = Duration::from_millis(self.config.silence_ms);
        let (mut dead, mut suspicion) = (Vec::new(), false);
        for sample in samples {
            let Some(path) = self.paths.get_mut(&sample.path) else { continue };
            path.rtt = Some(sample.rtt);
            let verdict = path.watchdog.observe(now, sample.tx, sample.rx, silence, sample.rtt);
            if path.watchdog.is_active() {
                self.active_until = now + Duration::from_secs(2);
            }
            match verdict {
                Verdict::Alive => {}
                Verdict::Suspect => suspicion = true,
                Verdict::Dead => dead.push(sample.path),
            }
        }
        if suspicion {
            // All paths: whether another one answers decides what becomes of the suspect.
            self.outputs.extend(self.paths.keys().copied().map(Output::Ping));
        }
        for path in dead {
            if self.is_replaceable(path) {
                self.outputs.push_back(Output::Close(path));
                self.handle_closed(now, path);
            } else {
                // Nothing else is known to work: QUIC's own idle time-out judges it. The peer may
                // be about to close another path, and a stalled machine hears nothing on any.
                self.want_round(now, Duration::ZERO);
                self.want_relay(now);
            }
        }
        self.select(now);
        self.close_surplus();
    }

    /// Whether another path was heard since `path` fell silent.
    fn is_replaceable(&self, path: PathId) -> bool {
        let since = self.paths.get(&path).and_then(|path| path.watchdog.silent_since());
        since.is_some_and(|since| {
            self.paths
                .iter()
                .any(|(id, other)| *id != path && other.watchdog.was_heard_after(since))
        })
    }

    /// Closes direct paths that are more than anybody needs, the slowest first.
    fn close_surplus(&mut self) {
        if self.side == Side::Server {
            return;
        }
        let mut direct: Vec<_> = self
            .paths
            .iter()
            .filter(|(id, path)| path.remote.is_direct() && Some(**id) != self.selected)
            .map(|(id, path)| (path.rtt, *id))
            .collect();
        direct.sort();
        for (_, path) in direct.into_iter().skip(self.config.direct_paths_max.saturating_sub(1)) {
            self.paths.remove(&path);
            self.outputs.push_back(Output::Close(path));
        }
    }

    /// Samples only where there is something to decide: with one path there is not.
    fn schedule_sample(&mut self, now: Instant) {
        if self.paths.is_empty() {
            self.timers.stop(Timer::Sample);
            return;
        }
        let pause = if now < self.active_until && self.paths.len() > 1 {
            self.config.sample_ms
        } else {
            self.config.sample_idle_ms
        };
        self.timers.set(Timer::Sample, now + Duration::from_millis(pause));
    }

    fn relays_in_use(&self) -> Vec<NodeId> {
        self.paths
            .values()
            .filter_map(|path| match path.remote {
                Remote::Relayed { via } => via,
                Remote::Direct(_) => None,
            })
            .collect()
    }
}

impl Machine for PathManager {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Opened { path, remote } => self.handle_opened(now, path, remote),
            Input::Closed(path) => self.handle_closed(now, path),
            Input::Samples(samples) => {
                self.handle_samples(now, &samples);
                self.schedule_sample(now);
            }
            Input::Candidates(candidates) => self.handle_candidates(now, candidates),
            Input::PeerCandidates => self.restart_rounds(now),
            Input::RelayFailed => {
                self.relays_failed += 1;
                self.timers.stop(Timer::Relay);
                self.want_relay(now);
            }
            Input::RelayKnown => {
                self.relays_failed = 0;
                self.timers.stop(Timer::Relay);
                self.want_relay(now);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Round => {
                    self.outputs.push_back(Output::StartRound);
                    let pause = ROUND_PAUSES_S[self.rounds_failed.min(ROUND_PAUSES_S.len() - 1)];
                    self.rounds_failed += 1;
                    self.want_round(now, Duration::from_secs(pause));
                }
                Timer::Sample => {
                    self.outputs.push_back(Output::Sample);
                    self.schedule_sample(now);
                }
                Timer::Relay => {
                    let besides = self.relays_in_use();
                    self.outputs.push_back(Output::WantRelay { besides });
                    self.relay_not_before = now + RELAY_GAP;
                    // Whoever answers reports success as a path or failure; silence is failure.
                    self.timers.set(Timer::Relay, now + Duration::from_secs(20));
                }
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}

#[cfg(test)]
mod tests;
