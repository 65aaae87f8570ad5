//! Borrowing others: reservations at homes, and channels that we opened through relays.
//!
//! A *home* is a peer that granted us a reservation: it forwards frames to us from whoever asks
//! for us by our id. We keep up to [`NodeConfig::homes`](super::NodeConfig::homes) of them and
//! tell every peer, so that it can hold a warm relayed path beside the direct one.

use core::time::Duration;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use super::dial::Word;
use super::link::Link;
use super::{DialId, Event, LinkId, Node, Output, PathId, RemoteAddr, Timer};
use crate::egress::canonical;
use crate::frame::Channel;
use crate::id::NodeId;
use crate::index;
use crate::path;
use crate::time::Instant;
use crate::wire::NodeMessage;
use crate::wire::node::{
    HOME_ADDRS_MAX, HOMES_MAX, Hello, Home, Homes, RENEWED, RefusalReason, Refused, RelayIncoming,
    RelayOpened, RelayRenew, Reserve, Reserved,
};

/// Longest life of what a relay lends, whatever it claims.
pub(super) const TTL_MAX: Duration = Duration::from_secs(4 * 3600);

/// Time to wait for the answer to a request for a reservation.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long a refusal for want of a direct path is respected at first. The two sides of a link see
/// a new path open half a round trip apart, so one may ask too early; doubled each time, because
/// one side may go on seeing a path that the other has lost.
const PAUSE_NOT_DIRECT: Duration = Duration::from_millis(500);

/// Pause before a relay that does not lend itself at the moment is asked again.
const PAUSE_FULL: Duration = Duration::from_secs(60);

/// The same for one whose owner does not relay at all.
const PAUSE_OFF: Duration = Duration::from_secs(3600);

/// The same for one whose bytes are used up: mostly those of the moment.
const PAUSE_BUDGET: Duration = Duration::from_secs(2);

/// Time for a direct path to open, before we say without a reservation that a link is to last.
const KEEP_PAUSE: Duration = Duration::from_secs(10);

/// How long a channel that somebody opened to us is remembered unless a path uses it: as long as
/// most relays keep one that is not renewed.
const INCOMING_MAX: Duration = Duration::from_secs(120);

/// How long changes of where we are are gathered before peers are told. A relay that died is
/// noticed by its guests' peers themselves, so nothing waits for this.
const TELL_PAUSE: Duration = Duration::from_secs(2);

/// The same when all that is new is one more home: others mostly follow, and those that were told
/// serve meanwhile.
const GAIN_PAUSE: Duration = Duration::from_secs(10);

/// What a peer was told of where we are, as hashes: it is kept for every link.
#[derive(Debug)]
pub(super) struct Told {
    addrs: u64,
    homes: Vec<u64>,
}

impl Told {
    fn of(message: &Homes) -> Self {
        Self {
            addrs: hash((&message.addrs, message.is_open)),
            homes: message.homes.iter().map(hash_home).collect(),
        }
    }

    /// Whether it is not enough to reach us: one home that is gone is no news while two others are
    /// there, the first of them the one that is tried first. Nor is it news that there are better
    /// ones.
    fn is_outdated(&self, addrs: u64, homes: &[u64]) -> bool {
        let is_first_gone = self.homes.first().is_some_and(|first| !homes.contains(first));
        self.addrs != addrs || is_first_gone || !index::are_enough(&self.homes, homes)
    }
}

fn hash_home(home: &Home) -> u64 {
    hash((home.id, &home.addrs))
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Half the life that a relay claims to lend: when to renew it.
fn renewal(ttl_s: u32) -> Duration {
    Duration::from_secs(ttl_s.into()).clamp(Duration::from_secs(1), TTL_MAX) / 2
}

/// What a channel that we hold is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// Nothing yet.
    Spare,
    /// An attempt to connect.
    Dial(DialId),
    /// A path of this link, which is being validated.
    Opening(LinkId),
    /// This path of this link.
    Path(LinkId, PathId),
}

impl Usage {
    /// Whether the link `id` uses the channel or is about to.
    pub(super) fn is_of(self, id: LinkId) -> bool {
        matches!(self, Self::Opening(link) | Self::Path(link, _) if link == id)
    }
}

/// A channel at a relay, known by its number there.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) target: NodeId,
    pub(super) is_neighbour: bool,
    /// We asked for it, so we renew it while it is of use.
    pub(super) ours: bool,
    usage: Usage,
    /// Pause between renewals.
    renewal: Duration,
}

impl Held {
    /// The link of which it is a path.
    pub(super) fn user(&self) -> Option<LinkId> {
        match self.usage {
            Usage::Path(link, _) => Some(link),
            Usage::Spare | Usage::Dial(_) | Usage::Opening(_) => None,
        }
    }

    /// Whether a path or an attempt depends on it.
    pub(super) fn is_used(&self) -> bool {
        self.usage != Usage::Spare
    }
}

impl Node {
    pub(super) fn handle_hello(&mut self, now: Instant, id: LinkId, hello: &Hello) {
        let Some(link) = self.links.get_mut(&id) else { return };
        (link.relays, link.run) = (hello.relays, hello.run);
        self.drop_dead_links(now, id);
        let Some(link) = self.links.get(&id) else { return };
        let relay = link.peer;
        self.index.hear_nodes(relay, hello.nodes);
        if self.index.peer_hello(now, relay, hello.indexes, hello.unix_s) {
            self.search_wanted(now);
        }
        self.want_home(now, id);
        self.ask_signaller(id);
        // Whoever named this peer as its home can be given a path through it.
        let is_home = |link: &Link| link.said.homes().homes.iter().any(|home| home.id == relay);
        let served: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| !link.is_means && is_home(link))
            .map(|(id, _)| *id)
            .collect();
        for id in served {
            self.feed_paths(now, id, path::Input::RelayKnown);
        }
    }

    /// Asks the peer of a link to be our home, if it offers and we want more.
    pub(super) fn want_home(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if self.timers.is_set(Timer::Reservation(id)) {
            return;
        }
        if !link.relays || link.paths.frame_addr().is_none() {
            return self.keep_without(now, id);
        }
        let (peer, is_released) = (link.peer, link.is_released);
        // Two that go on asking for the other's sake while each gives back would never end.
        if !self.is_kept(peer) || is_released && !self.wants_kept(id) {
            return;
        }
        // Those asked count too: all of them may say yes.
        let taken = || self.links.values().filter(|l| l.is_asked || l.home_addr.is_some());
        if taken().any(|home| home.peer == peer) {
            return;
        }
        // Seats come first among homes, so there is always room for one.
        if taken().count() >= self.config.homes && !self.roles.is_kept(peer) {
            return self.keep_without(now, id);
        }
        if let Some(link) = self.links.get_mut(&id) {
            (link.is_asked, link.is_released) = (true, false);
        }
        self.ask_reservation(now, id);
    }

    /// Says in a while that a link is to last, for which there is no reservation to say it.
    fn keep_without(&mut self, now: Instant, id: LinkId) {
        let is_said = self.links.get(&id).is_none_or(|link| link.is_said_kept);
        if !is_said && self.wants_kept(id) {
            self.timers.set_if_idle(Timer::Keep(id), now + KEEP_PAUSE);
        }
    }

    /// Tells a peer that lends us no reservation that its link is to last: it would close it.
    pub(super) fn say_kept(&mut self, id: LinkId) {
        let is_wanted = self.wants_kept(id);
        let Some(link) = self.links.get_mut(&id).filter(|_| is_wanted) else { return };
        let is_known = link.is_said_kept || link.is_asked || link.home_addr.is_some();
        if !is_known {
            link.is_said_kept = true;
            self.send(id, NodeMessage::Reserve(Reserve {}));
        }
    }

    fn ask_reservation(&mut self, now: Instant, id: LinkId) {
        self.send(id, NodeMessage::Reserve(Reserve {}));
        self.timers.set(Timer::Reservation(id), now + ANSWER_MAX);
    }

    /// Asks whoever may still be asked: a home is wanted in the place of one that is gone.
    pub(super) fn want_homes(&mut self, now: Instant) {
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            self.want_home(now, id);
        }
    }

    pub(super) fn handle_reserved(&mut self, now: Instant, id: LinkId, granted: &Reserved) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !core::mem::take(&mut link.is_asked) && link.home_addr.is_none() {
            return;
        }
        link.not_direct = 0;
        match (link.home_addr, link.paths.frame_addr()) {
            (None, None) => self.timers.stop(Timer::Reservation(id)),
            (held, addr) => {
                self.timers.set(Timer::Reservation(id), now + renewal(granted.ttl_s));
                if held.is_none() {
                    self.move_home(now, id, addr);
                }
            }
        }
    }

    /// It is time to renew, the answer is overdue, or a pause is over.
    pub(super) fn renew_reservation(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let is_silent = core::mem::take(&mut link.is_asked);
        if link.home_addr.is_some() {
            self.ask_reservation(now, id);
        } else if is_silent {
            self.timers.set(Timer::Reservation(id), now + PAUSE_FULL);
            self.want_homes(now);
        } else {
            self.want_home(now, id);
        }
    }

    /// Our home's frames come from `addr` from now on, or from nowhere.
    pub(super) fn move_home(&mut self, now: Instant, id: LinkId, addr: Option<SocketAddr>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let peer = link.peer;
        let old = core::mem::replace(&mut link.home_addr, addr);
        if let Some(old) = old {
            self.outputs.push_back(Output::InboundRelay(old, false));
        }
        if let Some(new) = addr {
            self.outputs.push_back(Output::InboundRelay(new, true));
        }
        if old.is_some() != addr.is_some() {
            self.event(Event::Home { peer, held: addr.is_some() });
        }
        let homes = self.links.values().filter(|link| link.home_addr.is_some()).count();
        if old.is_none() && homes > 1 {
            self.timers.set_if_idle(Timer::Tell, now + GAIN_PAUSE);
        } else {
            self.tell_homes(now);
        }
    }

    pub(super) fn drop_home(&mut self, now: Instant, id: LinkId, link: &Link) {
        self.timers.stop(Timer::Reservation(id));
        if let Some(addr) = link.home_addr {
            self.outputs.push_back(Output::InboundRelay(addr, false));
            self.event(Event::Home { peer: link.peer, held: false });
            self.tell_homes(now);
        }
        if link.home_addr.is_some() || link.is_asked {
            self.want_homes(now);
        }
    }

    /// Tells everybody where we are, in a moment: changes come together.
    pub(super) fn tell_homes(&mut self, now: Instant) {
        self.timers.set_no_later(Timer::Tell, now + TELL_PAUSE);
    }

    pub(super) fn tell_homes_now(&mut self, now: Instant) {
        let place = self.place();
        self.index.set_place(now, place);
        let ids: Vec<_> = self.links.keys().copied().collect();
        let homes = self.ranked_homes();
        for id in ids {
            if self.is_worth_telling(id) {
                self.send_homes(id, homes.clone());
            }
        }
    }

    /// Whether the peer of a link is to know that we are elsewhere: a link made for one request is
    /// closed in a moment, and what it was told is enough if there was any home at all.
    fn is_worth_telling(&self, id: LinkId) -> bool {
        let Some(link) = self.links.get(&id) else { return false };
        let is_told = link.told.as_ref().is_some_and(|told| !told.homes.is_empty());
        !(is_told && link.is_means) || self.is_kept(link.peer)
    }

    /// Where we can be reached through others, for our invite.
    #[must_use]
    pub fn our_homes(&self) -> Vec<Home> {
        let mut homes = self.ranked_homes();
        homes.truncate(HOMES_MAX);
        homes
    }

    /// Tells the peer of a link our homes, which are ranked, unless it knows enough.
    pub(super) fn send_homes(&mut self, id: LinkId, mut homes: Vec<Home>) {
        let (is_open, addrs) = (self.is_open(), self.public_addrs());
        let Some(link) = self.links.get_mut(&id) else { return };
        // For relayed paths beside a direct one that the owner uses, who is open has homes too.
        let are_needed = !(is_open && link.is_means);
        homes.retain(|home| are_needed && home.id != link.peer);
        let held: Vec<_> = homes.iter().map(hash_home).collect();
        homes.truncate(HOMES_MAX);
        debug_assert!(homes.iter().all(|home| home.addrs.len() <= HOME_ADDRS_MAX));
        let message = Homes { homes, addrs, is_open };
        let told = Told::of(&message);
        if link.told.as_ref().is_none_or(|before| before.is_outdated(told.addrs, &held)) {
            link.told = Some(told);
            self.send(id, NodeMessage::Homes(message));
        }
    }

    pub(super) fn handle_homes(&mut self, now: Instant, id: LinkId, homes: &Homes) {
        if let Some(link) = self.links.get_mut(&id) {
            link.is_open = homes.is_open;
            link.said.update(homes);
            let peer = link.peer;
            self.unwant_homes_of(peer, &homes.homes);
            self.feed_paths(now, id, path::Input::RelayKnown);
            self.peer_moved(now, peer);
        }
    }

    /// The path manager of a link wants a relayed path besides those it has.
    pub(super) fn want_relay(&mut self, now: Instant, id: LinkId, besides: &[NodeId]) {
        if self.held.values().any(|held| held.usage == Usage::Opening(id)) {
            return;
        }
        let Some(link) = self.links.get(&id) else { return };
        let target = link.peer;
        let spare = self.held.iter_mut().find(|((on, _), held)| {
            held.target == target
                && held.ours
                && held.usage == Usage::Spare
                && self.links.get(on).is_some_and(|relay| !besides.contains(&relay.peer))
        });
        if let Some(((on, channel), held)) = spare
            && let Some(relay) = self.links.get(on).and_then(|link| link.paths.frame_addr())
        {
            held.usage = Usage::Opening(id);
            self.outputs.push_back(Output::OpenRelayed { link: id, relay, channel: *channel });
            return;
        }
        let signaller = |home: NodeId| {
            self.link_to(home).filter(|on| self.links[on].paths.frame_addr().is_some())
        };
        // The home that was sought least; one that is at hand rather than one to be dialled.
        let best = link
            .said
            .attempts()
            .filter(|(home, _)| ![self.id, target].contains(&home.id))
            .filter(|(home, _)| !besides.contains(&home.id))
            .map(|(home, attempts)| (attempts, signaller(home.id), home))
            .min_by_key(|(attempts, on, _)| (*attempts, on.is_none()));
        let needs_relay = link.was_relayed && !link.is_means;
        match best.map(|(_, on, home)| (on, home)) {
            None => self.feed_paths(now, id, path::Input::RelayFailed),
            Some((Some(on), home)) => {
                self.count_attempt(id, home.id);
                self.request_channel(on, target);
            }
            // Nobody is dialled for the sake of a link that is itself only means, or that never
            // needed a relay: homes have homes, and each link would lead to more.
            Some((None, _)) if !needs_relay => {
                self.feed_paths(now, id, path::Input::RelayFailed);
            }
            Some((None, home)) => {
                // Its first Hello brings us back here; counted only when it is overdue.
                if self.is_wanted_for(home.id, target) {
                    self.count_attempt(id, home.id);
                }
                self.want_as_home(now, &home, target, Word::Peer);
            }
        }
    }

    /// Notes that a path of link `id` is sought or was had through `relay`.
    pub(super) fn count_attempt(&mut self, id: LinkId, relay: NodeId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.said.count_attempt(relay);
        }
    }

    pub(super) fn handle_relay_opened(&mut self, now: Instant, on: LinkId, opened: &RelayOpened) {
        let Some(target) = self.requests.remove(&(on, opened.request)) else { return };
        let is_neighbour = self.pair_if_neighbour(opened.target_addr);
        let renewal = renewal(opened.ttl_s);
        self.timers.set(Timer::Channel(on, opened.channel), now + renewal);
        let held = Held { target, is_neighbour, ours: true, usage: Usage::Spare, renewal };
        self.held.insert((on, opened.channel), held);
        if is_neighbour {
            self.mark_neighbour(now, target);
        }
        match self.live_link_to(target) {
            Some(_) => self.feed_links(now, target, &path::Input::RelayKnown),
            None if self.is_wanted(target) => {
                // The target knocks at our address meanwhile: mostly that is all it takes.
                let addr = canonical(opened.target_addr);
                self.dial(now, target, RemoteAddr::Direct(addr), Word::Peer);
                self.dial_relayed(now, on, opened.channel, target);
            }
            None => {}
        }
    }

    fn dial_relayed(&mut self, now: Instant, on: LinkId, channel: Channel, target: NodeId) {
        if self.is_dialling_relayed(target) {
            return;
        }
        let Some(relay) = self.links.get(&on).and_then(|link| link.paths.frame_addr()) else {
            return;
        };
        // No word of anybody's: the relay is a peer that we are linked to.
        let to = RemoteAddr::Relayed { relay, channel };
        if let Some(dial) = self.dial(now, target, to, Word::Peer) {
            self.use_channel(on, channel, Usage::Dial(dial));
        }
    }

    pub(super) fn handle_refused(&mut self, now: Instant, on: LinkId, refused: &Refused) {
        let Some(request) = refused.request else {
            self.handle_reservation_refused(now, on, refused.reason);
            return;
        };
        let Some(target) = self.requests.remove(&(on, request)) else { return };
        match self.link_to(target) {
            Some(_) => self.feed_links(now, target, &path::Input::RelayFailed),
            None => {
                self.ask_next_via(now, target);
                self.report_if_unreachable(target);
                self.give_up_if_idle(now, target);
            }
        }
    }

    /// No reservation here: asks again when the owner may have changed their mind.
    fn handle_reservation_refused(&mut self, now: Instant, on: LinkId, reason: RefusalReason) {
        let Some(link) = self.links.get_mut(&on) else { return };
        let was_home = link.home_addr.is_some();
        if !core::mem::take(&mut link.is_asked) && !was_home {
            return;
        }
        let pause = match reason {
            RefusalReason::Off => PAUSE_OFF,
            RefusalReason::Budget => PAUSE_BUDGET,
            RefusalReason::NotDirect => {
                link.not_direct = link.not_direct.saturating_add(1);
                let doublings = 2u32.saturating_pow(link.not_direct - 1);
                PAUSE_NOT_DIRECT.saturating_mul(doublings).min(PAUSE_FULL)
            }
            _ => PAUSE_FULL,
        };
        // One that is short of bytes for a moment has the reservation still.
        if was_home && reason != RefusalReason::Budget {
            self.move_home(now, on, None);
        }
        self.timers.set(Timer::Reservation(on), now + pause);
        self.want_homes(now);
    }

    pub(super) fn handle_relay_incoming(&mut self, now: Instant, on: LinkId, new: &RelayIncoming) {
        if self.links.get(&on).is_none_or(|link| link.home_addr.is_none()) {
            return;
        }
        let is_neighbour = self.pair_if_neighbour(new.peer_addr);
        let incoming = self.held.iter().filter(|((at, _), held)| *at == on && !held.ours).count();
        let has_room = incoming < self.config.channels_per_peer_max;
        if has_room && !self.held.contains_key(&(on, new.channel)) {
            let (target, ours, usage) = (new.peer, false, Usage::Spare);
            let held = Held { target, is_neighbour, ours, usage, renewal: TTL_MAX };
            self.held.insert((on, new.channel), held);
            self.timers.set(Timer::Channel(on, new.channel), now + INCOMING_MAX);
            // At most once for each channel: the address is what our home says it is.
            if self.live_link_to(new.peer).is_none() {
                let addr = canonical(new.peer_addr);
                self.openness.sent(now, addr);
                self.outputs.push_back(Output::Knock(addr));
            }
        }
        if is_neighbour {
            self.mark_neighbour(now, new.peer);
        }
    }

    /// Renews a channel that is of use, if it is for us to do; another runs out by itself.
    pub(super) fn renew_channel(&mut self, now: Instant, on: LinkId, channel: Channel) {
        let Some(held) = self.held.get(&(on, channel)) else { return };
        if held.usage == Usage::Spare {
            self.release_channel(on, channel);
            return;
        }
        if !held.ours {
            return; // Whatever ends the path lets go of it.
        }
        let renewed = held.renewal.saturating_mul(RENEWED).min(TTL_MAX / 2);
        self.timers.set(Timer::Channel(on, channel), now + renewed);
        self.send(on, NodeMessage::RelayRenew(RelayRenew { channel }));
    }

    /// Notes what a channel is for, if we hold it.
    pub(super) fn use_channel(&mut self, on: LinkId, channel: Channel, usage: Usage) {
        if let Some(held) = self.held.get_mut(&(on, channel)) {
            held.usage = usage;
        }
    }

    /// The dial that a channel was for is not needed: the channel may serve a path.
    pub(super) fn spare_channel(&mut self, dial: DialId) {
        for held in self.held.values_mut().filter(|held| held.usage == Usage::Dial(dial)) {
            held.usage = Usage::Spare;
        }
    }

    /// A relay closed a channel. Only who asked for one is told: what it says of others is no
    /// reason to forget that we knocked for them.
    pub(super) fn handle_relay_closed(&mut self, on: LinkId, channel: Channel) {
        if self.held.get(&(on, channel)).is_some_and(|held| held.ours) {
            self.release_channel(on, channel);
        }
    }

    pub(super) fn release_channel(&mut self, on: LinkId, channel: Channel) {
        self.timers.stop(Timer::Channel(on, channel));
        self.held.remove(&(on, channel));
    }

    /// Lets go of the channels that were used so: each is dead or needed by nobody.
    pub(super) fn release_channels(&mut self, is_over: impl Fn(Usage) -> bool) {
        let over: Vec<_> =
            self.held.iter().filter(|(_, held)| is_over(held.usage)).map(|(key, _)| *key).collect();
        for (on, channel) in over {
            self.release_channel(on, channel);
        }
    }

    /// Asks a home that was reached for the sake of others for all of them, before it said what it
    /// offers: mostly it does.
    pub(super) fn ask_as_home(&mut self, on: LinkId) {
        let Some(link) = self.links.get(&on) else { return };
        if link.paths.frame_addr().is_none() {
            return;
        }
        for target in self.targets_of(link.peer) {
            self.request_channel(on, target);
        }
    }

    pub(super) fn drop_held(&mut self, on: LinkId) {
        let gone: Vec<_> = self.held.keys().filter(|(at, _)| *at == on).copied().collect();
        for key in gone {
            self.release_channel(key.0, key.1);
        }
        self.requests.retain(|(at, _), _| *at != on);
    }
}
