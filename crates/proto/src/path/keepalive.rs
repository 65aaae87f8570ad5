//! Keeps the paths of a link alive, and notices when the peer is gone.
//!
//! A UDP mapping of a NAT lives as long as something passes: two minutes by the book (RFC 4787
//! REQ-5), half a minute or less in some homes. How long is found out, not assumed: pauses start at
//! the first of [`PAUSES_S`] and climb while the mappings of both sides prove to outlive them.
//!
//! **Proof.** An own packet proves nothing, because it renews a mapping that had gone. A packet of
//! the peer's that comes in after a pause in which nothing went out does. So the two sides take
//! turns, the client first, and nothing needs to be said about it: whoever sent the last keep-alive
//! looks [`GRACE`] after the pause whether the other's came. If it did not, the turn has failed: he
//! whose turn it was repeats it for twice that time, and at [`LATE`] the other pings too. Both
//! begin
//! anew there with shorter pauses, which climb again after four times as many good turns as before.
//! Both sides see the same turns, so they agree; where they do not, each failure brings both nearer
//! to the first pause, where they meet.
//!
//! **Every path, both ways.** A ping on a path that is not in use is acknowledged on the one that
//! is
//! (draft-ietf-quic-multipath allows it, `noq` 1.4.0 always does), which renews no mapping of the
//! peer's on that path.
//! So whoever looks at the other's turn pings what it has not sent on since, whether the turn came
//! or not. That a path's round-trip time was measured anew tells that it was acknowledged.
//!
//! **While data flows** turns are not kept: each side pings what it has not sent on for the first
//! pause.
//!
//! **Loss.** When something was sent and nothing is heard on any path, all paths are pinged once a
//! second, and after [`DOUBTS_MAX`] of these looks the link is lost. Looks are counted, not
//! seconds, so that a process that was stopped for a while does not take its own sleep for the
//! peer's. On a link with data that is 14 to 16 s after the last packet heard; on an idle one 26 s
//! after the pause, so within 41 s at first and 86 s at the longest pause.
//!
//! Needs one deadline for each link: while it is idle, two or three looks at the counters a pause.

use core::time::Duration;
use std::collections::VecDeque;

use super::{PathId, Sample, Side};
use crate::flat::FlatMap;
use crate::machine::{self, Machine};
use crate::time::Instant;

/// Pauses of an idle link in seconds. NATs that keep a mapping for less than 30 s are rare; half of
/// that survives a lost turn. The last is half of what RFC 4787 REQ-5 demands.
pub const PAUSES_S: [u64; 3] = [15, 30, 60];

/// How much later than the peer's turn is looked whether it came. Longer than what both may differ
/// in when they saw the last packet, and than most retransmissions of a lost keep-alive.
pub const GRACE: Duration = Duration::from_secs(4);

/// How much later than its turn a peer that did not take it is pinged, and when both begin anew.
pub const LATE: Duration = Duration::from_secs(12);

/// After what time an answer to a keep-alive is looked for.
pub const ANSWER: Duration = Duration::from_secs(2);

/// Looks without anything heard after which the link is lost.
pub const DOUBTS_MAX: u32 = 12;

/// Pause between looks while data flows.
const BUSY: Duration = Duration::from_secs(2);

/// Pause between looks while nothing is heard.
const DOUBT: Duration = Duration::from_secs(1);

/// Good turns after which the next pause is tried: one of each side. Four times as many after each
/// failure there.
const TURNS: u32 = 2;

/// Failures beyond which the number of turns does not grow: a try costs one turn in 128.
const FAILURES_MAX: u32 = 3;

/// What happens to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A path is validated.
    Opened(PathId),
    /// A path is gone.
    Closed(PathId),
    /// The [path manager](super::PathManager) is quiet ([`Output::Quiet`](super::Output::Quiet)).
    Quiet,
    /// Something was written or arrived on a quiet link.
    Active,
    /// The counters that [`Output::Look`] asked for.
    Counters(Vec<Sample>),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Report the counters of all paths as [`Input::Counters`].
    Look,
    /// Make the path transmit something that must be answered.
    Ping(PathId),
    /// A path of a quiet link did not answer: the path manager should see to it.
    Unanswered,
    /// The peer is gone: give the link up.
    Lost,
}

#[derive(Debug)]
struct Path {
    tx: u64,
    rx: u64,
    rtt: Duration,
    /// The last look that found something sent.
    sent_at: Instant,
    /// Whether something was received or acknowledged, and sent, since this turn began.
    is_heard: bool,
    is_sent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Data flows.
    Busy {
        /// Looks in a row that heard nothing although something was sent.
        doubts: u32,
    },
    /// The next counters are those to compare with while nothing flows.
    Quieting,
    /// Nothing passed since `since`.
    Waiting { since: Instant, is_ours: bool, stage: Stage },
    /// We pinged what nothing was heard on, for the first time at `at`.
    Asked { at: Instant, is_ours: bool, looks: u32 },
    /// The link was given up.
    Lost,
}

/// How far a turn of the peer's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not yet due, or ours.
    Early,
    /// It came, and what we pinged in turn is about to be acknowledged.
    Echoed,
    /// It did not come in time.
    Late,
}

/// Keep-alives of one link. See the module's documentation.
#[derive(Debug)]
pub struct KeepAlive {
    side: Side,
    paths: FlatMap<PathId, Path>,
    state: State,
    /// Whether the path manager is.
    is_quiet: bool,
    next: Option<Instant>,
    /// Index of the pause that holds.
    level: usize,
    /// Good turns at this level.
    turns: u32,
    /// Failures at each level.
    failures: [u32; PAUSES_S.len()],
    outputs: VecDeque<Output>,
}

impl KeepAlive {
    /// Of a link without paths yet.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            side,
            paths: FlatMap::new(),
            state: State::Busy { doubts: 0 },
            is_quiet: false,
            next: None,
            level: 0,
            turns: 0,
            failures: [0; PAUSES_S.len()],
            outputs: VecDeque::new(),
        }
    }

    /// The pause after which an idle path is kept alive.
    #[must_use]
    pub fn pause(&self) -> Duration {
        Duration::from_secs(PAUSES_S[self.level])
    }

    fn be_busy(&mut self, now: Instant, doubts: u32) {
        self.state = State::Busy { doubts };
        let pause = if doubts == 0 { BUSY } else { DOUBT };
        self.next = (!self.paths.is_empty()).then(|| now + pause);
    }

    fn wait(&mut self, since: Instant, is_ours: bool) {
        self.paths.values_mut().for_each(|path| (path.is_heard, path.is_sent) = (false, false));
        self.state = State::Waiting { since, is_ours, stage: Stage::Early };
        let pause = self.pause();
        self.next = Some(since + if is_ours { pause } else { pause + GRACE });
    }

    fn ask(&mut self, now: Instant, is_ours: bool) {
        self.paths.values_mut().for_each(|path| path.is_heard = false);
        let all = self.unheard();
        self.ping(&all);
        self.state = State::Asked { at: now, is_ours, looks: 0 };
        self.next = Some(now + ANSWER);
    }

    fn unheard(&self) -> Vec<PathId> {
        self.paths.iter().filter(|(_, path)| !path.is_heard).map(|(id, _)| *id).collect()
    }

    fn ping(&mut self, paths: &[PathId]) {
        self.outputs.extend(paths.iter().copied().map(Output::Ping));
    }

    /// A turn was taken in time.
    fn succeed(&mut self) {
        self.turns += 1;
        let above = self.level + 1;
        if let Some(failures) = self.failures.get(above)
            && self.turns >= TURNS * 4_u32.pow(*failures)
        {
            (self.level, self.turns) = (above, 0);
        }
    }

    fn fail(&mut self) {
        self.failures[self.level] = (self.failures[self.level] + 1).min(FAILURES_MAX);
        self.level = self.level.saturating_sub(1);
        self.turns = 0;
    }

    /// Takes the counters. Says whether anything was heard, and sent, since the last ones.
    fn count(&mut self, now: Instant, samples: &[Sample]) -> (bool, bool) {
        let (mut heard, mut sent) = (false, false);
        for sample in samples {
            let Some(path) = self.paths.get_mut(&sample.path) else { continue };
            let is_sent = sample.tx != path.tx;
            let is_heard = sample.rx != path.rx || sample.rtt != path.rtt;
            (path.tx, path.rx, path.rtt) = (sample.tx, sample.rx, sample.rtt);
            if is_sent {
                path.sent_at = now;
            }
            path.is_heard |= is_heard;
            path.is_sent |= is_sent;
            heard |= is_heard;
            sent |= is_sent;
        }
        (heard, sent)
    }

    fn handle_counters(&mut self, now: Instant, samples: &[Sample]) {
        let (heard, sent) = self.count(now, samples);
        let is_all_heard = self.paths.values().all(|path| path.is_heard);
        match self.state {
            State::Lost => {}
            State::Quieting => self.wait(now, self.side == Side::Client),
            State::Busy { doubts } => self.look_busy(now, doubts, heard, sent),
            State::Waiting { is_ours: true, .. } if is_all_heard => {
                // The peer's pauses are shorter than ours.
                self.fail();
                self.wait(now, true);
            }
            State::Waiting { is_ours: true, .. } => self.ask(now, true),
            State::Waiting { since, is_ours: false, stage } => {
                self.look_waiting(now, since, stage, is_all_heard);
            }
            State::Asked { at, is_ours, looks } => {
                self.look_asked(now, (at, is_ours, looks + 1), is_all_heard);
            }
        }
    }

    /// Whether the peer took its turn.
    fn look_waiting(&mut self, now: Instant, since: Instant, stage: Stage, is_all_heard: bool) {
        let due = since + self.pause();
        match stage {
            Stage::Echoed => {
                self.succeed();
                self.wait(due, true);
            }
            Stage::Early => {
                let silent: Vec<_> = self
                    .paths
                    .iter()
                    .filter(|(_, path)| !path.is_sent)
                    .map(|(id, _)| *id)
                    .collect();
                self.ping(&silent);
                let (stage, pause) = match (is_all_heard, silent.is_empty()) {
                    (true, true) => return self.look_waiting(now, since, Stage::Echoed, true),
                    (true, false) => (Stage::Echoed, ANSWER),
                    (false, _) => (Stage::Late, LATE.saturating_sub(GRACE)),
                };
                self.state = State::Waiting { since, is_ours: false, stage };
                self.next = Some(now + pause);
            }
            Stage::Late if is_all_heard => {
                self.fail();
                self.wait(due + LATE, true);
            }
            Stage::Late => self.ask(now, false),
        }
    }

    /// Whether what we pinged was acknowledged.
    fn look_asked(
        &mut self,
        now: Instant,
        (at, is_ours, looks): (Instant, bool, u32),
        is_all_heard: bool,
    ) {
        let asked = ANSWER * looks;
        if is_all_heard && is_ours && looks == 1 {
            self.succeed();
            self.wait(at, false);
        } else if is_all_heard && is_ours {
            self.fail();
            // What comes long after our last ping is the peer's, and the next turn ours.
            self.wait(at + LATE, asked > 2 * GRACE);
        } else if is_all_heard {
            self.fail();
            self.wait(at, false);
        } else if is_ours && asked <= LATE {
            if asked < 2 * GRACE {
                let unheard = self.unheard();
                self.ping(&unheard);
            }
            self.state = State::Asked { at, is_ours, looks };
            self.next = Some(now + ANSWER);
        } else {
            let is_any_heard = self.paths.values().any(|path| path.is_heard);
            self.fail();
            self.unanswered();
            self.be_busy(now, if is_any_heard { 0 } else { looks });
        }
    }

    fn unanswered(&mut self) {
        self.is_quiet = false;
        self.outputs.push_back(Output::Unanswered);
    }

    fn look_busy(&mut self, now: Instant, doubts: u32, heard: bool, sent: bool) {
        let doubts = match doubts {
            _ if heard => 0,
            0 if !sent => 0,
            doubts => doubts + 1,
        };
        if doubts > DOUBTS_MAX {
            self.state = State::Lost;
            self.next = None;
            self.outputs.push_back(Output::Lost);
            return;
        }
        let unused_max = Duration::from_secs(PAUSES_S[0]);
        for (id, path) in self.paths.iter_mut() {
            if doubts > 0 || now - path.sent_at >= unused_max {
                path.sent_at = now;
                self.outputs.push_back(Output::Ping(*id));
            }
        }
        if self.is_quiet && doubts > 1 {
            self.unanswered();
        }
        if self.is_quiet && doubts == 0 {
            self.wait(now, self.side == Side::Client);
        } else {
            self.be_busy(now, doubts);
        }
    }
}

impl Machine for KeepAlive {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        if self.state == State::Lost {
            return;
        }
        match input {
            Input::Opened(path) => {
                let new = Path {
                    tx: 0,
                    rx: 0,
                    rtt: Duration::ZERO,
                    sent_at: now,
                    is_heard: false,
                    is_sent: false,
                };
                self.paths.insert(path, new);
                // Nothing is known of its mapping.
                (self.level, self.turns) = (0, 0);
                self.is_quiet = false;
                self.be_busy(now, 0);
            }
            Input::Closed(path) => {
                self.paths.remove(&path);
                if self.paths.is_empty() {
                    self.be_busy(now, 0);
                }
            }
            Input::Quiet => {
                self.is_quiet = true;
                // What is in doubt is looked at until it is not.
                if !matches!(self.state, State::Busy { doubts: 1.. }) && !self.paths.is_empty() {
                    self.state = State::Quieting;
                    self.outputs.push_back(Output::Look);
                }
            }
            Input::Active => {
                self.is_quiet = false;
                if !matches!(self.state, State::Busy { .. }) {
                    self.be_busy(now, 0);
                }
            }
            Input::Counters(samples) => self.handle_counters(now, &samples),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_some_and(|at| at <= now) {
            self.next = None;
            self.outputs.push_back(Output::Look);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        machine::pop(&mut self.outputs)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests;
