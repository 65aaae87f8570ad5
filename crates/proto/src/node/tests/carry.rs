//! What the world does when a node wants something done: the driver's part.

use std::hash::Hash;

use super::super::*;
use super::world::{Host, LATENCY, Nat, PATIENCE, What, World, id};
use crate::egress::canonical;
use crate::wire::{LENGTH_LEN, Message};

/// Pause before the first packet of a dial is sent again, and how often it is.
const AGAIN: Duration = Duration::from_millis(300);
const AGAIN_MAX: u32 = 2;

/// How long a NAT lets in answers.
const HOLE: Duration = Duration::from_secs(60);

impl World {
    /// Carries out all outputs of a node.
    pub(super) fn drain(&mut self, n: usize) {
        while let Some(output) = self.hosts[n].node.poll_output() {
            if let Some(trace) = &mut self.trace {
                format!("{:?} {n} {output:?}", self.now).hash(trace);
            }
            self.hosts[n].log.push((self.now, output.clone()));
            self.carry_out(n, output);
        }
    }

    fn carry_out(&mut self, n: usize, output: Output) {
        match output {
            Output::Dial { dial, peer, to } => {
                self.hosts[n].dials.insert(dial);
                self.dial(n, dial, peer, to, 0);
            }
            Output::CancelDial(dial) => {
                self.hosts[n].dials.remove(&dial);
            }
            Output::Send { link, message } => self.send(n, link, message),
            // No topics in this world.
            Output::SendTopic { .. } | Output::ExpelTopic(_) => {}
            Output::Path { link, action } => self.path_action(n, link, &action),
            Output::OpenRelayed { link, relay, channel } => {
                let Some((conn, 0)) = self.hosts[n].links.get(&link).copied() else { return };
                let server = self.conns[conn].hosts[1];
                match self.hop(n, relay, channel).filter(|(to, _)| *to == server) {
                    Some((_, back)) if self.hosts[server].inbound.contains(&relay) => {
                        let remotes =
                            [channel, back].map(|channel| RemoteAddr::Relayed { relay, channel });
                        self.push(LATENCY * 4, What::PathOpens(conn, remotes));
                    }
                    _ => self.tell(conn, 0, PATIENCE, Input::RelayPathFailed),
                }
            }
            Output::Retire(link) => {
                if let Some((_, 0)) = self.hosts[n].links.get(&link) {
                    self.push(Duration::from_millis(50), What::Retire(n, link));
                }
            }
            Output::Close(link) => self.push(Duration::ZERO, What::CloseIfIdle(n, link)),
            Output::CloseIfIdle(link) => {
                self.push(Duration::from_millis(1), What::CloseIfIdle(n, link));
            }
            Output::Knock(addr) => {
                let now = self.now;
                if !self.loses_knocks && self.hosts[n].gate.check(now, addr, 1, 1).is_ok() {
                    self.hosts[n].holes.insert(addr, now);
                }
            }
            Output::Disk { token, action } => {
                let is_kept = self.hosts[n].disk.write(action);
                let done = Input::DiskDone { token, is_kept };
                self.push(Duration::from_millis(2), What::Input(n, done));
            }
            Output::InboundRelay(relay, true) => {
                self.hosts[n].inbound.insert(relay);
            }
            Output::InboundRelay(relay, false) => {
                assert!(self.hosts[n].inbound.remove(&relay), "only what was accepted is ended");
            }
            Output::Forward(action) => self.forward_action(n, &action),
            Output::Gate(action) => self.hosts[n].gate_action(self.now, action),
            // As the driver does when it has served those who waited.
            Output::Event(Event::PeerUp { peer, .. }) => {
                self.push(Duration::ZERO, What::Input(n, Input::Unwant(peer)));
            }
            Output::Event(_) => {}
        }
    }

    /// Sends the first packet of a dial, and again after a while unless it was answered.
    pub(super) fn dial(
        &mut self,
        n: usize,
        dial: DialId,
        peer: NodeId,
        to: RemoteAddr,
        tries: u32,
    ) {
        if !self.hosts[n].dials.contains(&dial) {
            return;
        }
        let reached = match to {
            RemoteAddr::Direct(addr) => {
                let (now, gate) = (self.now, &mut self.hosts[n].gate);
                let may_pass = gate.check(now, addr, 1200, 1).is_ok();
                if may_pass {
                    self.hosts[n].holes.insert(addr, now);
                }
                (0..self.hosts.len())
                    .filter(|_| may_pass)
                    .find(|to| {
                        let is_outside = self.outside(*to, n) == addr;
                        let is_inside = self.is_same_site(n, *to) && self.local(*to) == addr;
                        self.passes(n, *to) && (is_outside && self.lets_in(*to, n) || is_inside)
                    })
                    .map(|server| {
                        let is_inside = self.is_same_site(n, server);
                        let from = if is_inside { self.local(n) } else { self.outside(n, server) };
                        (server, [to, RemoteAddr::Direct(from)])
                    })
            }
            RemoteAddr::Relayed { relay, channel } => self
                .hop(n, relay, channel)
                .filter(|(server, _)| self.hosts[*server].inbound.contains(&relay))
                .map(|(server, channel)| (server, [to, RemoteAddr::Relayed { relay, channel }])),
        };
        match reached.filter(|(server, _)| id(*server) == peer) {
            Some((server, remotes)) => {
                self.push(LATENCY * 2, What::Dialled(n, dial, peer, remotes, server));
            }
            None if tries < AGAIN_MAX => {
                self.push(AGAIN, What::Dial(n, dial, peer, to, tries + 1));
            }
            None => {
                let failed = What::Input(n, Input::DialFailed(dial));
                self.push(PATIENCE - AGAIN * AGAIN_MAX, failed);
            }
        }
    }

    /// Whether the NAT of host `n` lets in what `from` sends it unasked.
    fn lets_in(&self, n: usize, from: usize) -> bool {
        // Neighbours do not see each other from outside (no hairpinning).
        let hole = self.hosts[n].holes.get(&self.outside(from, n));
        let hole = hole.filter(|_| !self.is_same_site(n, from));
        self.hosts[n].nat == Nat::None || hole.is_some_and(|at| self.now - *at < HOLE)
    }

    fn send(&mut self, n: usize, link: LinkId, message: NodeMessage) {
        let (conn, end) = self.hosts[n].links[&link];
        // Through the codec, so that nobody says what nobody may read.
        let bytes = Message::Node(message).encode();
        let Ok(Message::Node(message)) = Message::decode(&bytes[LENGTH_LEN..]) else {
            panic!("a node wrote what it would not read")
        };
        let paths: Vec<_> = self.conns[conn].paths.keys().copied().collect();
        self.wake(conn, end, Duration::ZERO);
        if paths.into_iter().any(|path| self.is_path_alive(conn, path)) {
            self.wake(conn, 1 - end, LATENCY);
            self.tell(conn, 1 - end, LATENCY, move |link| Input::Message { link, message });
        }
    }

    /// Something passes after a time of quiet.
    fn wake(&mut self, conn: usize, end: usize, after: Duration) {
        if core::mem::take(&mut self.conns[conn].is_quiet[end]) {
            self.tell(conn, end, after, Input::Active);
        }
    }

    fn path_action(&mut self, n: usize, link: LinkId, action: &path::Output) {
        let Some((conn, end)) = self.hosts[n].links.get(&link).copied() else { return };
        match *action {
            path::Output::Close(path) => {
                self.conns[conn].paths.remove(&path);
                for (end, after) in [(end, Duration::ZERO), (1 - end, LATENCY)] {
                    self.tell(conn, end, after, move |link| Input::PathClosed { link, path });
                }
            }
            path::Output::Sample => {
                let samples = self.sample(conn, end);
                self.tell(conn, end, Duration::ZERO, |link| Input::Samples { link, samples });
            }
            path::Output::AddCandidate(addr) => {
                self.conns[conn].candidates[end].insert(addr);
                if end == 1 {
                    self.tell(conn, 0, LATENCY, Input::PeerCandidates);
                }
            }
            path::Output::RemoveCandidate(addr) => {
                assert!(self.conns[conn].candidates[end].remove(&addr), "was added before");
            }
            path::Output::StartRound => {
                assert_eq!(end, 0, "only a client starts rounds");
                self.punch(conn);
            }
            path::Output::Quiet => self.conns[conn].is_quiet[end] = true,
            path::Output::SetAvailable(..) | path::Output::Ping(_) => {}
            path::Output::Silent | path::Output::WantRelay { .. } | path::Output::Selected(_) => {
                panic!("the node keeps {action:?} to itself")
            }
        }
    }

    /// The counters of busy paths: what is sent into a dead one is not answered.
    fn sample(&mut self, conn: usize, end: usize) -> Vec<Sample> {
        let paths: Vec<_> = self.conns[conn].paths.keys().copied().collect();
        let samples = paths.into_iter().map(|path| {
            let is_alive = self.is_path_alive(conn, path);
            let state = self.conns[conn].paths.get_mut(&path).unwrap();
            let is_relayed = matches!(state.remotes[0], RemoteAddr::Relayed { .. });
            state.tx[end] += u64::from(self.is_busy);
            state.rx[end] += u64::from(self.is_busy && is_alive);
            let rtt = LATENCY * if is_relayed { 4 } else { 2 };
            Sample { path, tx: state.tx[end], rx: state.rx[end], rtt }
        });
        samples.collect()
    }

    /// Opens a direct path if a pair of candidates can be punched and both gates let probes out.
    fn punch(&mut self, conn: usize) {
        let [a, b] = self.conns[conn].hosts;
        let [ours, theirs] = self.conns[conn].candidates.clone();
        let is_local = self.is_same_site(a, b)
            && ours.contains(&self.local(a))
            && theirs.contains(&self.local(b));
        // A mapping that depends on the address is only good for one whose filter lets all in.
        let nats = [self.hosts[a].nat, self.hosts[b].nat];
        let is_punchable = (!nats.contains(&Nat::Hard) || nats.contains(&Nat::None))
            && !self.is_same_site(a, b)
            && ours.contains(&self.outside(a, b))
            && theirs.contains(&self.outside(b, a));
        let (from, to) = match (is_local, is_punchable) {
            (true, _) => (self.local(a), self.local(b)),
            (false, true) => (self.outside(a, b), self.outside(b, a)),
            (false, false) => return,
        };
        let now = self.now;
        let mut probe = |n: usize, to| self.hosts[n].gate.check(now, to, 64, 1).is_ok();
        if probe(a, to) && probe(b, from) && self.passes(a, b) {
            let remotes = [to, from].map(RemoteAddr::Direct);
            self.push(LATENCY * 4, What::PathOpens(conn, remotes));
        }
    }

    fn forward_action(&mut self, n: usize, action: &ForwardAction) {
        let now = self.now;
        let forwarder = &mut self.hosts[n].forwarder;
        match *action {
            ForwardAction::Open { token, a, b, ttl } => {
                let result = forwarder.open(a, b, now + ttl);
                let opened = Input::ChannelOpened { token, result };
                self.push(Duration::ZERO, What::Input(n, opened));
            }
            ForwardAction::Extend(channel, ttl) => {
                forwarder.extend(channel, now + ttl);
            }
            ForwardAction::ClosePeer(peer) => {
                forwarder.close_peer(peer);
            }
            ForwardAction::Rebind(peer, addr) => {
                forwarder.rebind(peer, None, addr);
            }
        }
    }
}

impl Host {
    fn gate_action(&mut self, now: Instant, action: GateAction) {
        match action {
            GateAction::Trust(addr) => {
                *self.trusted.entry(canonical(addr)).or_default() += 1;
                self.gate.trust(addr);
            }
            GateAction::Untrust(addr) => {
                let held = self.trusted.get_mut(&canonical(addr)).expect("was trusted");
                *held = held.checked_sub(1).expect("was trusted as often");
                self.gate.untrust(addr);
            }
            GateAction::Pair(ttl) => self.gate.pair(now, ttl),
            GateAction::LocalNets(nets) => self.gate.set_local_subnets(&nets),
        }
    }
}
