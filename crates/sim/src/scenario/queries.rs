//! What users do: publish values, look them up, reach each other by id; and how it goes.

use core::time::Duration;
use std::collections::BTreeMap;

use baran_proto::id::NodeId;
use baran_proto::index::{self, Command, QueryId};
use baran_proto::invite::PeerAddr;
use baran_proto::key::Key;
use baran_proto::node::{Event, Input};
use baran_proto::time::Instant;
use baran_proto::topic::machine as topic;
use baran_proto::wire::index::RecordKind;
use bytes::Bytes;

use crate::draw::Draw;
use crate::world::World;

/// After what time somebody who looked for something gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whoever has been on for so long is asked to look things up.
const SETTLED: Duration = Duration::from_secs(20);

/// The name of every value.
const NAME: &str = "value";

/// Bytes of a value.
const VALUE_LEN: usize = 200;

/// A value that somebody published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    /// Who.
    pub(super) host: u32,
    /// In which run of it.
    run: u32,
    /// It was switched off before it heard that anybody keeps the value: no promise was made.
    pub(super) is_void: bool,
    /// Nodes that kept it, and that should.
    pub(super) kept: Option<(usize, usize)>,
}

/// What somebody looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought {
    /// The value of a publisher.
    Value(u32),
    /// A link to a peer.
    Peer(u32),
}

/// A look-up that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) sought: Sought,
    pub(super) began: Instant,
    /// Time to the first right answer.
    pub(super) found: Option<Duration>,
    /// What the look-up took, if it came to an end.
    pub(super) cost: Option<index::LookupCost>,
}

#[derive(Debug)]
struct Open {
    sought: Sought,
    run: u32,
    began: Instant,
    found: Option<Duration>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Queries {
    draw: Draw,
    next: u64,
    open: BTreeMap<(u32, QueryId), Open>,
    connecting: BTreeMap<(u32, NodeId), Open>,
    publishing: BTreeMap<(u32, QueryId), usize>,
    /// Everything that was published.
    pub(super) published: Vec<Published>,
    /// Everything that was looked for.
    pub(super) outcomes: Vec<Outcome>,
    /// What became new in a topic: when, at which host, in which run of it, up to which arrival.
    pub(super) topic_news: Vec<(Instant, u32, u32, u64)>,
}

/// Where the value of a publisher is.
pub(super) fn key_of(world: &World, publisher: u32) -> Key {
    Key::of_value(world.hosts[publisher as usize].id, NAME)
}

impl Queries {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            draw: Draw::new(seed, 8),
            next: 0,
            open: BTreeMap::new(),
            connecting: BTreeMap::new(),
            publishing: BTreeMap::new(),
            published: Vec::new(),
            topic_news: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Somebody honest who is on and settled.
    pub(super) fn pick(&mut self, world: &World) -> Option<u32> {
        for _ in 0..10_000 {
            let at = self.draw.below(world.hosts.len());
            let host = &world.hosts[at];
            let is_settled = host.is_on && world.now - host.since >= SETTLED;
            if is_settled && !host.is_adversary {
                return u32::try_from(at).ok();
            }
        }
        None
    }

    /// Lets any node that is on look for a random value, however short it has been on.
    pub(super) fn look_up_by_anybody(&mut self, world: &mut World) {
        let Some(host) = self.pick_value() else { return };
        for _ in 0..1_000 {
            let by = self.draw.below(world.hosts.len());
            if world.hosts[by].is_on && !world.hosts[by].is_adversary {
                return self.look_up(world, u32::try_from(by).unwrap_or_default(), host);
            }
        }
    }

    fn draw_query(&mut self) -> QueryId {
        self.next += 1;
        QueryId(self.next)
    }

    /// Publishes a value of `host`.
    pub(super) fn publish(&mut self, world: &mut World, host: u32) {
        let query = self.draw_query();
        self.publishing.insert((host, query), self.published.len());
        let run = world.hosts[host as usize].run;
        self.published.push(Published { host, run, is_void: false, kept: None });
        let value = Bytes::from(self.draw.bytes().repeat(VALUE_LEN.div_ceil(32)));
        let value = value.slice(..VALUE_LEN);
        world.input(host, Input::Index(Command::Publish { query, name: NAME.into(), value }));
    }

    /// Lets a random node look for a random value.
    pub(super) fn look_up_any(&mut self, world: &mut World) {
        let Some(by) = self.pick(world) else { return };
        let Some(host) = self.pick_value() else { return };
        self.look_up(world, by, host);
    }

    /// The publisher of a value that should be there.
    pub(super) fn pick_value(&mut self) -> Option<u32> {
        let at = self.draw.below(self.published.len());
        self.published.get(at).filter(|one| !one.is_void).map(|one| one.host)
    }

    /// Lets `by` look for the value of `publisher`.
    pub(super) fn look_up(&mut self, world: &mut World, by: u32, publisher: u32) {
        if by == publisher {
            return;
        }
        let query = self.draw_query();
        let open = Open {
            sought: Sought::Value(publisher),
            run: world.hosts[by as usize].run,
            began: world.now,
            found: None,
        };
        self.open.insert((by, query), open);
        let key = key_of(world, publisher);
        let find = Command::Find { query, key, kind: RecordKind::Value, limit: 1 };
        world.input(by, Input::Index(find));
    }

    /// Lets a random node reach another one by its id alone.
    pub(super) fn connect_any(&mut self, world: &mut World) {
        let (Some(by), Some(to)) = (self.pick(world), self.pick(world)) else { return };
        let id = world.hosts[to as usize].id;
        let is_linked =
            world.hosts[by as usize].node().is_none_or(|node| node.link_to(id).is_some());
        if by == to || is_linked || self.connecting.contains_key(&(by, id)) {
            return;
        }
        let open = Open {
            sought: Sought::Peer(to),
            run: world.hosts[by as usize].run,
            began: world.now,
            found: None,
        };
        self.connecting.insert((by, id), open);
        world.watch(by, id);
        world.input(by, Input::Want { peer: PeerAddr::from(id), keep: false });
    }

    /// Takes what nodes told their owners since the last call.
    pub(super) fn read(&mut self, world: &mut World) {
        for note in core::mem::take(&mut world.notes) {
            match note.event {
                Event::Index(event) => self.read_index(world, note.host, note.at, event),
                Event::Topic(topic::Event::News { next, .. }) => {
                    let run = world.hosts[note.host as usize].run;
                    self.topic_news.push((note.at, note.host, run, next));
                }
                Event::PeerUp { peer, .. } => {
                    if let Some(open) = self.connecting.remove(&(note.host, peer)) {
                        world.unwatch(note.host, peer);
                        let found = Some(note.at - open.began);
                        self.over(&Open { found, ..open }, None);
                    }
                }
                _ => {}
            }
        }
        self.give_up(world);
    }

    fn read_index(&mut self, world: &World, host: u32, at: Instant, event: index::Event) {
        match event {
            index::Event::Record { query, record } => {
                let Some(open) = self.open.get_mut(&(host, query)) else { return };
                if let Sought::Value(publisher) = open.sought
                    && record.author() == world.hosts[publisher as usize].id
                    && open.found.is_none()
                {
                    open.found = Some(at - open.began);
                }
            }
            index::Event::Done { query, cost } => {
                if let Some(open) = self.open.remove(&(host, query)) {
                    self.over(&open, Some(cost));
                }
            }
            index::Event::Kept { query, kept, wanted, .. } => {
                if let Some(published) = self.publishing.get(&(host, query)) {
                    self.published[*published].kept = Some((kept, wanted));
                }
            }
            index::Event::NotJoined(query) | index::Event::Failed { query, .. } => {
                if let Some(open) = self.open.remove(&(host, query)) {
                    self.over(&open, None);
                }
            }
        }
    }

    fn over(&mut self, open: &Open, cost: Option<index::LookupCost>) {
        let Open { sought, began, found, .. } = *open;
        self.outcomes.push(Outcome { sought, began, found, cost });
    }

    /// Ends what nobody waits for any more; who was switched off is no witness.
    fn give_up(&mut self, world: &mut World) {
        let now = world.now;
        let is_late = |open: &Open| now - open.began >= PATIENCE;
        for one in self.published.iter_mut().filter(|one| one.kept.is_none()) {
            let host = &world.hosts[one.host as usize];
            one.is_void |= !host.is_on || host.run != one.run;
        }
        let is_gone = |host: u32, open: &Open| {
            let host = &world.hosts[host as usize];
            !host.is_on || host.run != open.run
        };
        let gone: Vec<_> = self
            .open
            .iter()
            .filter(|((host, _), open)| is_gone(*host, open) || is_late(open))
            .map(|(key, open)| (*key, is_gone(key.0, open)))
            .collect();
        let unreached: Vec<_> = self
            .connecting
            .iter()
            .filter(|((host, _), open)| is_gone(*host, open) || is_late(open))
            .map(|(key, open)| {
                let Sought::Peer(to) = open.sought else { return (*key, true) };
                // Nor is it anybody's fault if the one that was sought was switched off.
                (*key, is_gone(key.0, open) || !world.hosts[to as usize].is_on)
            })
            .collect();
        for (key, is_void) in gone {
            if let Some(open) = self.open.remove(&key).filter(|_| !is_void) {
                world.input(key.0, Input::Index(Command::Cancel(key.1)));
                self.over(&open, None);
            }
        }
        for (key, is_void) in unreached {
            world.unwatch(key.0, key.1);
            if let Some(open) = self.connecting.remove(&key) {
                world.input(key.0, Input::Unwant(key.1));
                if !is_void {
                    self.over(&open, None);
                }
            }
        }
    }

    /// Whether everything that was asked has been answered.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.connecting.is_empty()
    }
}
