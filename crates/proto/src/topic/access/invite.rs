//! Invites to a topic, as text.
//!
//! An invite is `barantopic1` and the envelope of [`crate::invite`] around a payload:
//!
//! ```text
//! public  = {0: name, ? 7: [peer], ? 8: title}
//! private = {1: id, 2: relay secret, ? 3: epoch, ? 4: read key of the epoch,
//!            ? 5: chain, ? 6: secret key of the chain's subject, ? 7: [peer], ? 8: title}
//! ```
//!
//! Fields 3 and 4 go together, and so do 5 and 6. Unknown keys are skipped. A private invite is a
//! bearer's token: the key of field 6 was drawn for it, and who has the text signs with it the last
//! link of a chain to itself. So an invite is used by as many as it is shown to, none of whom has
//! to be known when it is made, and every one of whom has a capability of its own afterwards.
//!
//! Invariants: no text panics; what is allocated is bounded by the text, which is bounded by
//! [`TOPIC_TEXT_LEN_MAX`]; whatever [`TopicInvite::to_text`] writes is read back. Whether the chain
//! is signed is seen by [`TopicInvite::join`].

use core::str::FromStr;

use minicbor::decode::Error as DecodeError;
use minicbor::{Decode, Decoder, Encode};
use thiserror::Error;

use super::capability::{Chain, Grant, Rank};
use super::keys::{Secret, TopicKeys};
use super::{AccessError, check_name, to_cbor};
use crate::id::SecretKey;
use crate::invite::{InviteError, PeerAddr, from_envelope, to_envelope};
use crate::topic::id::TopicId;
use crate::wire::addr::bounded_len;

/// The longest text that is written and read, in bytes.
pub const TOPIC_TEXT_LEN_MAX: usize = 4_096;

/// Most members that an invite names: some, in case one is away.
pub const PEERS_MAX: usize = 3;

/// Longest title in bytes: a line on a screen.
pub const TITLE_LEN_MAX: usize = 64;

/// What every invite to a topic begins with.
const PREFIX: &str = "barantopic1";

/// The kind of invite that names a topic; 0 names a peer.
const KIND_TOPIC: u8 = 1;

/// An invite to a topic.
#[derive(Debug, Clone)]
pub struct TopicInvite {
    topic: Invited,
    title: Option<String>,
    peers: Vec<PeerAddr>,
}

/// What one is invited to.
#[derive(Debug, Clone)]
pub(super) enum Invited {
    /// A public topic of this name.
    Public(String),
    /// A private topic.
    Private(Box<Private>),
}

/// What an invite gives of a private topic.
#[derive(Debug, Clone)]
pub(super) struct Private {
    pub(super) id: TopicId,
    pub(super) relay: Secret,
    pub(super) read: Option<(u32, Secret)>,
    pub(super) bearer: Option<Bearer>,
}

/// A chain and the key of its subject.
#[derive(Debug, Clone)]
pub(super) struct Bearer {
    pub(super) chain: Chain,
    pub(super) key: SecretKey,
}

impl TopicInvite {
    pub(super) fn new(
        topic: Invited,
        title: Option<&str>,
        peers: &[PeerAddr],
    ) -> Result<Self, AccessError> {
        if title.is_some_and(|title| !is_title(title)) {
            return Err(AccessError::Title);
        }
        let peers = peers.iter().take(PEERS_MAX).cloned().collect();
        Ok(Self { topic, title: title.map(str::to_owned), peers })
    }

    pub(super) fn invited(&self) -> &Invited {
        &self.topic
    }

    /// Which topic it is for.
    #[must_use]
    pub fn topic(&self) -> TopicId {
        match &self.topic {
            Invited::Public(name) => TopicKeys::public(name).id,
            Invited::Private(private) => private.id,
        }
    }

    /// The name of a public topic.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.topic {
            Invited::Public(name) => Some(name),
            Invited::Private(_) => None,
        }
    }

    /// What a private invite says that it grants, to a key of its own; see [`TopicInvite::join`]
    /// for whether it does.
    #[must_use]
    pub fn promises(&self) -> Option<Grant> {
        match &self.topic {
            Invited::Public(_) => None,
            Invited::Private(private) => private.bearer.as_ref().map(|bearer| bearer.chain.last()),
        }
    }

    /// What the inviter calls the topic; at most [`TITLE_LEN_MAX`] bytes on one line.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// Some members, best first; at most [`PEERS_MAX`].
    #[must_use]
    pub fn peers(&self) -> &[PeerAddr] {
        &self.peers
    }

    /// Writes the invite, at most [`TOPIC_TEXT_LEN_MAX`] characters. Of a private topic it is a
    /// secret. Peers that do not fit, which takes long chains and many addresses, are left out from
    /// the end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut form = self.to_form();
        loop {
            let payload = to_cbor(&form);
            let text = to_envelope(PREFIX, KIND_TOPIC, &payload);
            if text.len() <= TOPIC_TEXT_LEN_MAX || form.peers.pop().is_none() {
                return text;
            }
        }
    }

    fn to_form(&self) -> Form {
        let mut form =
            Form { title: self.title.clone(), peers: self.peers.clone(), ..Form::default() };
        match &self.topic {
            Invited::Public(name) => form.name = Some(name.clone()),
            Invited::Private(private) => {
                form.id = Some(private.id);
                form.relay = Some(private.relay.clone());
                (form.epoch, form.read) = private.read.clone().unzip();
                let bearer = private.bearer.as_ref();
                form.chain = bearer.map(|bearer| bearer.chain.clone());
                form.bearer = bearer.map(|bearer| Secret::new(bearer.key.to_bytes()));
            }
        }
        form
    }
}

impl FromStr for TopicInvite {
    type Err = TopicInviteError;

    /// Reads an invite in any case; blanks around it are ignored.
    fn from_str(text: &str) -> Result<Self, TopicInviteError> {
        let text = text.trim();
        if text.len() > TOPIC_TEXT_LEN_MAX {
            return Err(TopicInviteError::TooLong);
        }
        let body = match text.split_at_checked(PREFIX.len()) {
            Some((prefix, body)) if prefix.eq_ignore_ascii_case(PREFIX) => body,
            _ => return Err(TopicInviteError::NotAnInvite),
        };
        let (kind, payload) = from_envelope(PREFIX, body)?;
        if kind != KIND_TOPIC {
            return Err(TopicInviteError::Kind { found: kind });
        }
        let mut decoder = Decoder::new(&payload);
        let form: Form = decoder.decode().map_err(|error| malformed(&error.to_string()))?;
        if decoder.position() != payload.len() {
            return Err(malformed("bytes left over"));
        }
        form.into_invite()
    }
}

/// Why a text is no invite to a topic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopicInviteError {
    /// The text does not begin like one.
    #[error("not an invite to a topic: it begins with {PREFIX}")]
    NotAnInvite,
    /// The text is longer than an invite may be.
    #[error("more than {TOPIC_TEXT_LEN_MAX} characters: copy one invite and nothing else")]
    TooLong,
    /// The invite is for something else than a topic.
    #[error("the invite (kind {found}) does not name a topic: ask for a topic's invite")]
    Kind {
        /// The kind in the invite.
        found: u8,
    },
    /// It was mistyped, a newer program wrote it, or its payload is wrong.
    #[error(transparent)]
    Envelope(#[from] InviteError),
}

fn malformed(why: &str) -> TopicInviteError {
    InviteError::Malformed(why.to_owned()).into()
}

/// Whether a text can be a title: 1 to [`TITLE_LEN_MAX`] bytes on one line. It is shown as it is,
/// so what moves the cursor has no place in it.
#[must_use]
pub fn is_title(title: &str) -> bool {
    (1..=TITLE_LEN_MAX).contains(&title.len()) && !title.chars().any(char::is_control)
}

/// The payload.
#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct Form {
    #[n(0)]
    name: Option<String>,
    #[n(1)]
    id: Option<TopicId>,
    #[n(2)]
    relay: Option<Secret>,
    #[n(3)]
    epoch: Option<u32>,
    #[n(4)]
    read: Option<Secret>,
    #[n(5)]
    chain: Option<Chain>,
    #[n(6)]
    bearer: Option<Secret>,
    #[cbor(n(7), decode_with = "decode_peers", skip_if = "Vec::is_empty", default)]
    peers: Vec<PeerAddr>,
    #[n(8)]
    title: Option<String>,
}

impl Form {
    fn into_invite(mut self) -> Result<TopicInvite, TopicInviteError> {
        if self.title.as_deref().is_some_and(|title| !is_title(title)) {
            return Err(malformed("a title that is none"));
        }
        let (title, peers) = (self.title.take(), core::mem::take(&mut self.peers));
        Ok(TopicInvite { topic: self.into_invited()?, title, peers })
    }

    fn into_invited(self) -> Result<Invited, TopicInviteError> {
        let read = match (self.epoch, self.read) {
            (None, None) => None,
            (Some(epoch), Some(key)) => Some((epoch, key)),
            _ => return Err(malformed("an epoch without a key, or a key without an epoch")),
        };
        let bearer = match (self.chain, self.bearer) {
            (None, None) => None,
            (Some(chain), Some(key)) => {
                Some(Bearer { chain, key: SecretKey::from_bytes(*key.bytes()) })
            }
            _ => return Err(malformed("a chain without a key, or a key without a chain")),
        };
        let rank = bearer.as_ref().map(|bearer| bearer.chain.last().rank);
        match (self.name, self.id, self.relay) {
            (Some(name), None, None) if read.is_none() && bearer.is_none() => {
                check_name(&name).map_err(|error| malformed(&error.to_string()))?;
                Ok(Invited::Public(name))
            }
            (None, Some(_), Some(_)) if rank >= Some(Rank::Read) && read.is_none() => {
                Err(malformed("a reader without a read key"))
            }
            (None, Some(id), Some(relay)) => {
                Ok(Invited::Private(Box::new(Private { id, relay, read, bearer })))
            }
            _ => Err(malformed("neither public nor private")),
        }
    }
}

fn decode_peers<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<PeerAddr>, DecodeError> {
    let len = bounded_len(d, PEERS_MAX)?;
    (0..len).map(|_| d.decode_with(ctx)).collect()
}

#[cfg(test)]
mod tests;
