//! Linked peers: who they are, what waits for them, and which links are to last.

use super::{Output, PeerView, Roles};
use crate::bucket::TokenBucket;
use crate::cbor::Cbor;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::role::NetPrefix;
use crate::time::Instant;
use crate::wire::RoleMessage;

/// Messages of one peer whose puzzles and signatures are looked at: one in a second, and so many at
/// once. A mandate of strangers costs a tenth of a second of processor time.
const COSTLY: (u64, u64) = (1, 32);

/// Peers to which messages wait for a link.
const WAITING_MAX: usize = 256;

/// Messages that wait for a link to one peer.
const WAITING_EACH_MAX: usize = 4;

/// A linked peer.
#[derive(Debug)]
pub(super) struct Linked {
    /// Who, and where others reach it: every node has some dozens of these, and few are looked at.
    pub(super) contact: Cbor<PeerAddr>,
    pub(super) net: Option<NetPrefix>,
    /// What it may make us verify.
    pub(super) costly: TokenBucket,
    /// When it was told last who has seats, and a digest of those.
    pub(super) answered: Option<(Instant, u64)>,
    /// It was shown our mandate, as somebody whom our seat is to serve.
    pub(super) is_guest: bool,
}

impl Linked {
    fn new(peer: &PeerView) -> Box<Self> {
        let (contact, net) = (Cbor::new(&peer.contact), peer.ip.map(NetPrefix::of));
        let costly = TokenBucket::new(COSTLY.0, COSTLY.1);
        Box::new(Self { contact, net, costly, answered: None, is_guest: false })
    }
}

impl Roles {
    /// A peer is linked. Its links may be direct, or may become so.
    pub(crate) fn peer_up(&mut self, now: Instant, peer: &PeerView) {
        let id = peer.contact.id;
        self.linked.insert(id, Linked::new(peer));
        for message in self.waiting.remove(&id).unwrap_or_default() {
            self.outputs.push_back(Output::Send(id, message));
        }
        self.seat_up(now, id);
    }

    /// A linked peer is elsewhere.
    pub(crate) fn peer_moved(&mut self, peer: &PeerView) {
        let id = peer.contact.id;
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.contact.clone_from(&peer.contact);
        }
        if let Some(linked) = self.linked.get_mut(&id) {
            linked.net = peer.ip.map(NetPrefix::of);
            linked.contact = Cbor::new(&peer.contact);
        }
    }

    /// Where a linked peer is reached.
    pub(super) fn contact_of(&self, id: NodeId) -> Option<PeerAddr> {
        self.linked.get(&id)?.contact.get()
    }

    /// The last link to a peer is gone: because a side closed it, or because nothing was heard.
    pub(crate) fn peer_down(&mut self, now: Instant, id: NodeId, is_polite: bool) {
        if self.linked.remove(&id).is_some() {
            self.seat_down(now, id, is_polite);
        }
    }

    /// A peer that was to be reached could not be.
    pub(crate) fn unreachable(&mut self, now: Instant, id: NodeId) {
        if self.waiting.remove(&id).is_some() {
            self.seat_unreachable(now, id);
        }
    }

    pub(super) fn send(&mut self, to: NodeId, message: RoleMessage) {
        if self.linked.contains_key(&to) {
            self.outputs.push_back(Output::Send(to, message));
        }
    }

    /// Sends to a peer, which is reached first if need be.
    pub(super) fn tell(&mut self, peer: &PeerAddr, message: RoleMessage) {
        if peer.id == self.id {
            return;
        }
        if self.linked.contains_key(&peer.id) {
            return self.send(peer.id, message);
        }
        let has_room = self.waiting.len() < WAITING_MAX;
        match self.waiting.get_mut(&peer.id) {
            Some(waiting) if waiting.len() < WAITING_EACH_MAX => waiting.push(message),
            Some(_) => {}
            None if has_room => {
                self.waiting.insert(peer.id, vec![message]);
                self.outputs.push_back(Output::Reach(peer.clone()));
            }
            None => {}
        }
    }

    /// Wants the link to a peer to last, or not.
    pub(super) fn keep(&mut self, id: NodeId, is_kept: bool) {
        let is_news = if is_kept { self.kept.insert(id) } else { self.kept.remove(&id) };
        if is_news {
            self.outputs.push_back(Output::Keep(id, is_kept));
        }
    }
}
