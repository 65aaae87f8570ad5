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
//!   answered since. QUIC then retransmits on that one, and nothing is lost. If none has, another
//!   is selected until one does.
//! - **Warm backup.** The client asks for a relayed path through another relay than those in use
//!   until [`Config::relayed_paths`] stand.
//! - **Quiet.** Samples become rarer when nothing passes and end after some seconds
//!   ([`Output::Quiet`]); rounds and requests for relays end too once their pauses have grown to
//!   the longest. [`Input::Active`] resumes all of it. What keeps an idle link alive meanwhile is
//!   [`keepalive`].
//!
//! Invariants: at most one path is selected, and it is open; a path is closed only if another is
//! open; a path that was closed is never selected again.

mod api;
pub mod keepalive;
mod watchdog;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

pub use self::api::*;
use self::watchdog::{Verdict, Watchdog};
use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::machine::{self, Machine};
use crate::time::Instant;
use crate::timer::Timers;

/// Pause before rounds of punching that follow one that failed. The first is longer than a round's
/// own probes (4 s), the last keeps a mapping alive long enough for the peer to move.
const ROUND_PAUSES_S: [u64; 5] = [5, 10, 20, 40, 60];

/// Time to gather candidates that arrive together before a round starts.
const ROUND_SETTLE: Duration = Duration::from_micros(200);

/// How long a link is sampled closely after something passed.
const CLOSELY: Duration = Duration::from_secs(2);

/// Samples in a row at the idle pace that find nothing before a link is quiet.
const CALM_SAMPLES: u32 = 2;

/// Time for an answer to the first thing written after a quiet time, beside the round trip: what a
/// peer may delay an acknowledgement by (RFC 9000 §18.2) and some.
const ANSWER_SLACK: Duration = Duration::from_millis(30);

/// Longest wait for that answer before the counters are looked at.
const ANSWER_MAX: Duration = Duration::from_millis(200);

/// Silence on all paths after which the peer is sought by other ways. Much longer than that of one
/// path, because a dial costs more than a switch.
const SILENT: Duration = Duration::from_millis(1500);

/// How long a rival must be better before it is selected.
const RIVAL_PATIENCE: Duration = Duration::from_secs(2);

/// Pause before a second relay is asked for, and between attempts.
const RELAY_PAUSES_S: [u64; 5] = [0, 2, 5, 15, 60];

/// Least time between two requests for a relay, whatever the peer says about its homes meanwhile:
/// each may cost dials.
const RELAY_GAP: Duration = Duration::from_millis(250);

/// Time in which a relayed path that was asked for comes, or does not.
const RELAY_ANSWER: Duration = Duration::from_secs(20);

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
    paths: FlatMap<PathId, Path>,
    selected: Option<PathId>,
    rival: Option<(PathId, Instant)>,
    candidates: Vec<SocketAddr>,
    rounds_failed: usize,
    relays_failed: usize,
    /// When a relay may be asked for again.
    relay_not_before: Instant,
    /// A relay was asked for, and there is no word of it yet.
    is_relay_asked: bool,
    /// A round, or a request for a relay, came due on a quiet link and waits for its end.
    is_round_spared: bool,
    is_relay_spared: bool,
    active_until: Instant,
    /// Samples in a row that found nothing.
    calm: u32,
    is_quiet: bool,
    is_silence_told: bool,
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
            paths: FlatMap::new(),
            selected: None,
            rival: None,
            candidates: Vec::new(),
            rounds_failed: 0,
            relays_failed: 0,
            relay_not_before: Instant::ZERO,
            is_relay_asked: false,
            is_round_spared: false,
            is_relay_spared: false,
            active_until: Instant::ZERO,
            calm: 0,
            is_quiet: false,
            is_silence_told: false,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Wants so many relayed paths from this moment on.
    pub fn set_relayed_paths(&mut self, now: Instant, wanted: usize) {
        self.config.relayed_paths = wanted;
        self.want_relay(now);
    }

    /// Whether no path has been heard for a while, although something was sent.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.is_silence_told
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
            self.is_relay_asked = false;
        }
        self.outputs.push_back(Output::SetAvailable(path, false));
        self.select(now);
        self.want_round(now, Duration::ZERO);
        self.want_relay(now);
        self.be_active(now);
        self.schedule_sample(now);
    }

    /// Watches the link closely for a while, and does what it was spared while it was quiet.
    fn be_active(&mut self, now: Instant) {
        self.active_until = now + CLOSELY;
        self.calm = 0;
        self.is_quiet = false;
        if core::mem::take(&mut self.is_round_spared) {
            self.want_round(now, Duration::ZERO);
        }
        if core::mem::take(&mut self.is_relay_spared) {
            self.want_relay_after(now, Duration::ZERO);
        }
    }

    /// Something was written, or arrived: whether the path still carries it is asked once an answer
    /// must be there.
    fn handle_active(&mut self, now: Instant) {
        self.be_active(now);
        if self.paths.is_empty() {
            return;
        }
        let rtt = self.selected().and_then(|selected| selected.rtt).unwrap_or_default();
        let least = Duration::from_millis(self.config.sample_ms);
        let pause = (rtt * 5 / 4 + ANSWER_SLACK).clamp(least, ANSWER_MAX.max(least));
        self.timers.set(Timer::Sample, now + pause);
    }

    /// Asks for no more samples.
    fn be_quiet(&mut self) {
        self.is_quiet = true;
        self.timers.stop(Timer::Sample);
        self.outputs.push_back(Output::Quiet);
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
        // What is left is looked at for a while.
        self.be_active(now);
        self.schedule_sample(now);
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
        self.is_round_spared = false;
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
        let pause = RELAY_PAUSES_S[self.relays_failed.min(RELAY_PAUSES_S.len() - 1)];
        self.want_relay_after(now, Duration::from_secs(pause));
    }

    fn want_relay_after(&mut self, now: Instant, pause: Duration) {
        let relayed = self.paths.values().filter(|path| !path.remote.is_direct()).count();
        if self.side == Side::Client
            && !self.paths.is_empty()
            && relayed < self.config.relayed_paths
        {
            let at = now + pause + ROUND_SETTLE;
            self.timers.set_if_idle(Timer::Relay, at.max(self.relay_not_before));
        } else {
            self.timers.stop(Timer::Relay);
        }
    }

    fn handle_round_due(&mut self, now: Instant) {
        if self.is_quiet && self.rounds_failed >= ROUND_PAUSES_S.len() {
            self.is_round_spared = true;
            return;
        }
        self.outputs.push_back(Output::StartRound);
        let pause = ROUND_PAUSES_S[self.rounds_failed.min(ROUND_PAUSES_S.len() - 1)];
        self.rounds_failed += 1;
        self.want_round(now, Duration::from_secs(pause));
    }

    fn handle_relay_due(&mut self, now: Instant) {
        if core::mem::take(&mut self.is_relay_asked) {
            // Whoever answers reports success as a path or failure; silence is failure.
            self.relays_failed += 1;
        }
        if self.is_quiet && self.relays_failed >= RELAY_PAUSES_S.len() {
            self.is_relay_spared = true;
            return;
        }
        let besides = self.relays_in_use();
        self.outputs.push_back(Output::WantRelay { besides });
        self.is_relay_asked = true;
        self.relay_not_before = now + RELAY_GAP;
        self.timers.set(Timer::Relay, now + RELAY_ANSWER);
    }

    /// Selects the best path if none is selected or the best one is of a better tier.
    fn select(&mut self, now: Instant) {
        let tier = |path: &Path| {
            let rtt = path.rtt.unwrap_or(Duration::MAX);
            (path.watchdog.is_dead(), !path.remote.is_direct(), rtt)
        };
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
        if current_state.watchdog.is_dead() {
            // Where all are silent none is better.
            if !state.watchdog.is_dead() {
                self.switch_to(best);
            }
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
        self.calm = self.calm.saturating_add(1);
        for sample in samples {
            let Some(path) = self.paths.get_mut(&sample.path) else { continue };
            path.rtt = Some(sample.rtt);
            let verdict = path.watchdog.observe(now, sample.tx, sample.rx, silence, sample.rtt);
            if path.watchdog.is_active() {
                self.active_until = now + CLOSELY;
                self.calm = 0;
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
                // Nothing else is known to work: the peer may be about to close another path, and a
                // stalled machine hears nothing on any. Another path is selected nevertheless,
                // because a peer that is quiet acknowledges on this one, and hears of the change on
                // that one. If nothing comes of it, the link is lost in the end ([`keepalive`]).
                self.want_round(now, Duration::ZERO);
                self.want_relay(now);
            }
        }
        self.tell_silence(now);
        self.select(now);
        self.close_surplus();
        let is_silent = self.paths.values().any(|path| path.watchdog.silent_since().is_some());
        if now < self.active_until || self.rival.is_some() || is_silent {
            self.calm = 0;
        }
    }

    /// Says once for each silence that no path is heard any more: the peer may be gone, or was
    /// restarted and knows nothing of this link.
    fn tell_silence(&mut self, now: Instant) {
        let since = |path: &Path| path.watchdog.silent_since();
        let is_silent = !self.paths.is_empty()
            && self.paths.values().all(|path| since(path).is_some_and(|at| now - at >= SILENT));
        if is_silent && !self.is_silence_told {
            self.outputs.push_back(Output::Silent);
        }
        self.is_silence_told = is_silent;
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

    /// Samples closely only where there is something to decide: with one path there is not.
    fn schedule_sample(&mut self, now: Instant) {
        if self.paths.is_empty() || self.is_quiet {
            self.timers.stop(Timer::Sample);
        } else if self.calm >= CALM_SAMPLES {
            self.be_quiet();
        } else {
            let pause = if now < self.active_until && self.paths.len() > 1 {
                self.config.sample_ms
            } else {
                self.config.sample_idle_ms
            };
            self.timers.set(Timer::Sample, now + Duration::from_millis(pause));
        }
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
                self.is_relay_asked = false;
                self.is_relay_spared = false;
                self.timers.stop(Timer::Relay);
                self.want_relay(now);
            }
            Input::RelayKnown => {
                self.relays_failed = 0;
                self.is_relay_asked = false;
                self.is_relay_spared = false;
                self.timers.stop(Timer::Relay);
                self.want_relay(now);
            }
            Input::Active => self.handle_active(now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Round => self.handle_round_due(now),
                Timer::Sample => {
                    self.outputs.push_back(Output::Sample);
                    self.schedule_sample(now);
                }
                Timer::Relay => self.handle_relay_due(now),
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        machine::pop(&mut self.outputs)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}

#[cfg(test)]
mod tests;
