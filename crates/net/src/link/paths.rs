//! The watcher of a link: what happens to its paths, and what keeps them alive.

use std::pin::Pin;

use baran_proto::machine::Machine;
use baran_proto::node::RemoteAddr;
use baran_proto::path::keepalive::{self, KeepAlive};
use baran_proto::path::{PathId, Side};
use noq::PathEvent;
use tracing::debug;

use super::{Link, LinkEvent, LinkEvents, link_code, number};
use crate::mux::lock;
use crate::stir::Change;

/// What keeps the paths of a link alive.
#[derive(Debug)]
struct Alive {
    machine: KeepAlive,
    paths: Vec<PathId>,
    is_lost: bool,
}

impl Alive {
    fn new(side: Side) -> Self {
        Self { machine: KeepAlive::new(side), paths: Vec::new(), is_lost: false }
    }
}

impl Link {
    /// Turns what happens to paths into events, and keeps them alive.
    pub(super) async fn run_watch(
        &self,
        mut paths: noq::PathEvents,
        mut updates: noq::NatTraversalUpdates,
        events: &LinkEvents,
    ) -> String {
        let mut pending = None;
        if !self.is_relayed(noq::PathId::ZERO) {
            pending = self.mux.conn.observed_external_addr().get().map(LinkEvent::Observed);
        }
        let mut alive = Alive::new(self.mux.side);
        self.keep_alive(&mut alive, keepalive::Input::Opened(PathId(0)));
        loop {
            if let Some(event) = pending.take()
                && events.send((self.id, event)).await.is_err()
            {
                return "the node is gone".into();
            }
            let wait = alive.machine.poll_timeout().map(|at| at - self.mux.now());
            tokio::select! {
                event = next(&mut paths) => match event {
                    Some(Ok(event)) => {
                        if matches!(event, PathEvent::RemoteStatus { .. }) {
                            // The peer turns to another path, perhaps because it hears nothing of
                            // us on this one.
                            self.mux.stir.touch();
                        }
                        pending = self.path_event(event);
                        match pending {
                            Some(LinkEvent::PathOpened(path, _)) => {
                                self.keep_alive(&mut alive, keepalive::Input::Opened(path));
                            }
                            Some(LinkEvent::PathClosed(path)) => {
                                self.keep_alive(&mut alive, keepalive::Input::Closed(path));
                            }
                            _ => {}
                        }
                    }
                    Some(Err(lagged)) => debug!(%lagged, "path events lost"),
                    None => std::future::pending().await,
                },
                update = next(&mut updates) => match update {
                    Some(_) => pending = Some(LinkEvent::PeerCandidates),
                    None => std::future::pending().await,
                },
                change = self.mux.stir.changed() => match change {
                    Change::Quiet => self.keep_alive(&mut alive, keepalive::Input::Quiet),
                    Change::Active => {
                        self.keep_alive(&mut alive, keepalive::Input::Active);
                        pending = Some(LinkEvent::Active);
                    }
                },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    alive.machine.handle_timeout(self.mux.now());
                    self.drain_alive(&mut alive);
                }
            }
            if alive.is_lost {
                self.close(link_code::SILENT, "nothing heard");
                return "nothing was heard of the peer".into();
            }
        }
    }

    fn keep_alive(&self, alive: &mut Alive, input: keepalive::Input) {
        match input {
            keepalive::Input::Opened(path) => alive.paths.push(path),
            keepalive::Input::Closed(path) => alive.paths.retain(|open| *open != path),
            _ => {}
        }
        alive.machine.handle_input(self.mux.now(), input);
        self.drain_alive(alive);
    }

    /// Carries out what the machine wants that keeps paths alive.
    fn drain_alive(&self, alive: &mut Alive) {
        while let Some(output) = alive.machine.poll_output() {
            match output {
                keepalive::Output::Look => {
                    let counters = self.counters(&alive.paths);
                    let input = keepalive::Input::Counters(counters);
                    alive.machine.handle_input(self.mux.now(), input);
                }
                keepalive::Output::Ping(path) => self.ping(path),
                keepalive::Output::Unanswered => self.mux.stir.touch(),
                keepalive::Output::Lost => alive.is_lost = true,
            }
        }
    }

    fn is_relayed(&self, path: noq::PathId) -> bool {
        !matches!(self.remote_of(path), Some(RemoteAddr::Direct(_)))
    }

    fn path_event(&self, event: PathEvent) -> Option<LinkEvent> {
        match event {
            PathEvent::Established { id, .. } => {
                Some(LinkEvent::PathOpened(number(id), self.remote_of(id)?))
            }
            PathEvent::Abandoned { id, reason, .. } => {
                debug!(peer = %self.peer().short(), ?id, ?reason, "path gone");
                Some(LinkEvent::PathClosed(number(id)))
            }
            PathEvent::Discarded { id, .. } => {
                if let Some(mapped) = lock(&self.mapped).remove(&number(id)) {
                    self.control.remove_relayed(mapped);
                }
                None
            }
            // Over a relayed path the peer sees an address that exists only inside it.
            PathEvent::ObservedAddr { id, addr, .. } if !self.is_relayed(id) => {
                Some(LinkEvent::Observed(addr))
            }
            _ => None,
        }
    }
}

async fn next<S: tokio_stream::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}
