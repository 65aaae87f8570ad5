//! What the owner says: signed, on disk, then told.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand_core::Rng;

use super::room::{Draft, Room};
use super::{DiskAction, Event, RequestId, TopicError, Topics};
use crate::id::NodeId;
use crate::time::{Instant, UnixTime};
use crate::topic::access::capability::Rank;
use crate::topic::access::epoch::EpochChange;
use crate::topic::access::keys::SEAL_LEN;
use crate::topic::entry::{
    self, KIND_APPLICATION, KIND_CONTROL, KIND_HERE, KIND_MESSAGE, PAYLOAD_LEN_MAX, Signed,
};
use crate::topic::id::TopicId;
use crate::topic::log::Applied;
use crate::topic::presence::STATUS_LEN_MAX;

/// Entries that are signed and written together.
const BATCH_MAX: usize = 64;

/// Bytes of payload that are.
const BATCH_LEN_MAX: usize = 512 * 1024;

impl Topics {
    pub(super) fn say(
        &mut self,
        now: Instant,
        request: RequestId,
        topic: TopicId,
        kind: u8,
        payload: Bytes,
    ) {
        let unix = self.unix(now);
        let max = PAYLOAD_LEN_MAX - SEAL_LEN;
        let error = match self.rooms.get_mut(&topic) {
            None => TopicError::NotJoined,
            Some(_) if payload.len() > max => TopicError::TooLarge { max },
            Some(_) if (KIND_MESSAGE + 1..KIND_APPLICATION).contains(&kind) => TopicError::Kind,
            Some(room) if room.outbox.len() >= self.config.outbox_max => TopicError::TooMany,
            Some(room) => match room.may_say(self.me, unix) {
                Err(error) => error,
                Ok(()) => {
                    room.outbox.push_back(Draft { request: Some(request), kind, payload });
                    return self.sign_next(now, topic);
                }
            },
        };
        self.event(Event::Failed { request, error });
    }

    /// Makes a new key without some members, and says so.
    pub(super) fn remove(
        &mut self,
        now: Instant,
        request: RequestId,
        topic: TopicId,
        members: &[NodeId],
    ) {
        let unix = self.unix(now);
        let me = self.me;
        let error = match self.rooms.get_mut(&topic) {
            None => TopicError::NotJoined,
            Some(room)
                if room.access.rank(unix) < Rank::Manage || room.access.keys().is_public() =>
            {
                TopicError::NotAllowed(room.access.rank(unix))
            }
            Some(room) => match room.epoch_change(me, unix, members, &mut self.rng) {
                None => TopicError::NoKey,
                Some(payload) => {
                    room.outbox.push_back(Draft {
                        request: Some(request),
                        kind: KIND_CONTROL,
                        payload,
                    });
                    return self.sign_next(now, topic);
                }
            },
        };
        self.event(Event::Failed { request, error });
    }

    /// Says that we are a member, in a private topic where we have said nothing yet: others learn
    /// from it what we may do, and seal new keys to us.
    pub(super) fn say_here(&mut self, now: Instant, topic: TopicId) {
        let (me, unix) = (self.me, self.unix(now));
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        if room.access.rank(unix) < Rank::Read {
            return;
        }
        let is_said = room.log.head(me).is_some() || !room.outbox.is_empty();
        if !room.access.keys().is_public() && room.access.chain().is_some() && !is_said {
            room.outbox.push_back(Draft { request: None, kind: KIND_HERE, payload: Bytes::new() });
            self.sign_next(now, topic);
        }
    }

    /// Signs what waits, unless something is being written: its number is not known to be taken
    /// until then.
    fn sign_next(&mut self, now: Instant, topic: TopicId) {
        let (unix_ms, network) = (self.unix_ms(now), self.network.clone());
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        if !room.writing.is_empty() || room.outbox.is_empty() {
            return;
        }
        let (mut seq, mut backlink, heads) = room.log.next_draft_parts();
        let mut heads = Some(heads);
        // In our first entry, and again when it is another.
        let chain = room.access.chain().filter(|chain| room.chains.get(&self.me) != Some(chain));
        let mut chain: Option<Bytes> = chain.map(|chain| chain.encode().into());
        let mut len = 0;
        let mut failed = Vec::new();
        while room.writing.len() < BATCH_MAX && len < BATCH_LEN_MAX {
            let Some(draft) = room.outbox.pop_front() else { break };
            len += draft.payload.len();
            let Some((epoch, payload)) = room.seal(draft.kind, &draft.payload, &mut self.rng)
            else {
                failed.extend(draft.request);
                continue;
            };
            let chain = chain.take();
            let draft_entry = entry::Draft {
                seq,
                backlink,
                heads: heads.take().unwrap_or_default(),
                time_ms: unix_ms,
                epoch,
                kind: draft.kind,
                chain,
                payload,
            };
            let signed = Signed::sign(&self.secret, &network, topic, draft_entry);
            (seq, backlink) = (seq + 1, Some(signed.id()));
            room.writing.push((draft.request, signed));
        }
        let entries: Vec<_> = room
            .writing
            .iter()
            .map(|(_, entry)| (entry.author(), entry.seq(), entry.bytes().clone()))
            .collect();
        for request in failed {
            self.event(Event::Failed { request, error: TopicError::NoKey });
        }
        if !entries.is_empty() {
            let token = self.write(DiskAction::Entries(topic, entries));
            self.writes.insert(token, topic);
        }
    }

    /// Something is on disk, or cannot be.
    pub(crate) fn disk_done(&mut self, now: Instant, token: u64, is_kept: bool) {
        let Some(topic) = self.writes.remove(&token) else { return };
        let unix = self.unix(now);
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let written = core::mem::take(&mut room.writing);
        let mut events = Vec::new();
        let mut entries = Vec::new();
        for (request, signed) in written {
            let seq = signed.seq();
            let result = match is_kept {
                false => Err(TopicError::Disk),
                true => match room.log.apply(unix, signed, false) {
                    Applied::New(new) => {
                        entries.extend(new);
                        Ok(())
                    }
                    _ => Err(TopicError::Forked),
                },
            };
            let Some(request) = request else { continue };
            events.push(match result {
                Ok(()) => Event::Sent { request, topic, seq },
                Err(error) => Event::Failed { request, error },
            });
        }
        if let Some(chain) = room.access.chain().filter(|_| !entries.is_empty()).cloned() {
            room.chains.insert(self.me, chain);
        }
        // On a full disk each is told, and each may be tried again.
        self.applied(now, topic, entries, None);
        for event in events {
            self.event(event);
        }
        self.sign_next(now, topic);
    }

    /// Nothing that waits can be said.
    pub(super) fn fail_outbox(&mut self, _now: Instant, topic: TopicId) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        let waiting = core::mem::take(&mut room.outbox);
        for request in waiting.into_iter().filter_map(|draft| draft.request) {
            self.event(Event::Failed { request, error: TopicError::Forked });
        }
    }

    pub(super) fn set_status(&mut self, now: Instant, topic: TopicId, status: Bytes) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        if status.len() + SEAL_LEN <= STATUS_LEN_MAX && room.status != status {
            room.status = status;
            self.set_presence(now, topic, core::time::Duration::ZERO);
        }
    }
}

impl Room {
    fn may_say(&self, me: NodeId, unix: UnixTime) -> Result<(), TopicError> {
        let rank = self.access.rank(unix);
        if self.log.is_quarantined(me) {
            return Err(TopicError::Forked);
        }
        if self.removed.contains_key(&me) {
            return Err(TopicError::NoKey);
        }
        if rank < Rank::Write {
            return Err(TopicError::NotAllowed(rank));
        }
        Ok(())
    }

    /// A payload as it travels: sealed in a private topic, unless it is about the topic itself.
    fn seal(
        &self,
        kind: u8,
        payload: &Bytes,
        rng: &mut rand_chacha::ChaCha8Rng,
    ) -> Option<(u32, Bytes)> {
        if self.access.keys().is_public() {
            return Some((0, payload.clone()));
        }
        let epoch = self.epoch();
        if matches!(kind, KIND_CONTROL | KIND_HERE) {
            return Some((epoch, payload.clone()));
        }
        Some((epoch, self.seal_with(epoch, payload, rng)?))
    }

    /// A new key, for everybody that has shown to be allowed to read but those that are removed.
    fn epoch_change(
        &self,
        me: NodeId,
        unix: UnixTime,
        members: &[NodeId],
        rng: &mut rand_chacha::ChaCha8Rng,
    ) -> Option<Bytes> {
        let last = |member: &NodeId| self.log.head(*member).map_or(0, |span| span.head);
        // With a member goes the invite that it came by, or it would come again; those that came
        // by the same one are named among those that remain.
        let came_by = |member: &NodeId| self.chains.get(member)?.issuers().last();
        let root = NodeId::from_bytes(*self.id().as_bytes());
        let bearers = members.iter().filter_map(came_by);
        let is_bearer = |id: &NodeId| *id != root && self.log.head(*id).is_none() && *id != me;
        let bearers = bearers.filter(is_bearer);
        let removed: BTreeMap<_, _> =
            members.iter().copied().chain(bearers).map(|id| (id, last(&id))).collect();
        let removed: Vec<_> = removed.into_iter().collect();
        let mut remain: Vec<_> = self
            .chains
            .keys()
            .copied()
            .filter(|member| *member != me && !members.contains(member))
            .filter(|member| !self.removed.contains_key(member))
            .filter(|member| self.rank_of(*member, unix).is_some_and(|rank| rank >= Rank::Read))
            .collect();
        remain.push(me);
        let (epoch, previous) = self.access.newest_read_key()?;
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        let epoch = epoch.checked_add(1)?;
        let change = EpochChange::new(epoch, &removed, &remain, &key, previous, rng).ok()?;
        Some(change.encode().into())
    }
}
