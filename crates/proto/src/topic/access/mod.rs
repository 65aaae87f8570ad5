//! Who may do what in a topic, and with which keys.
//!
//! A public topic is its name: who knows it may read and write, and nothing is encrypted. A private
//! one is a secret and a root key pair, and who takes part has three things, which [`Access`]
//! keeps together:
//!
//! - **keys** ([`keys`]): the relay secret, by which members find and know each other, and the read
//!   keys of some epochs, by which they read;
//! - **a capability** ([`capability`]): signatures from the root to its own key, which say what it
//!   may do, to whoever asks;
//! - both come by **an invite** ([`invite`]), which anybody who has the text can take up, and are
//!   taken back by **a new epoch** ([`epoch`]), whose key those that were removed do not get.
//!
//! Keys say what a node *can* do, the capability what it *may*: a member whose capability expired
//! still reads what it has the keys of, but others take nothing from it.
//!
//! Invariants of an [`Access`]: its capability, if any, holds in its topic, apart from the time;
//! its root key, if any, is that of the topic; a public topic has neither, and no read keys.

pub mod capability;
pub mod epoch;
pub mod invite;
pub mod keys;

use std::collections::BTreeMap;

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use thiserror::Error;

use self::capability::{CapabilityError, Chain, Grant, LINKS_MAX, Rank};
use self::invite::{Bearer, Invited, Private, TopicInvite};
use self::keys::{SECRET_LEN, Secret, TopicKeys, first_read_key, relay_secret};
use crate::id::{NodeId, SecretKey};
use crate::invite::PeerAddr;
use crate::time::UnixTime;
use crate::topic::id::TopicId;
use crate::wire::addr::bounded_len;

/// Longest name of a public topic in bytes: as the command line takes it.
pub const NAME_LEN_MAX: usize = 1_024;

/// Most epochs whose read keys are kept; the key of each later one opens that of the one before
/// it, so what is forgotten can be found again.
pub const EPOCHS_MAX: usize = 1_024;

/// Longest encoding of an [`Access`] in bytes; the largest has 40 bytes for each of
/// [`EPOCHS_MAX`], and at most 1,200 beside.
pub const ACCESS_LEN_MAX: usize = 48 * 1_024;

/// What a node keeps of a topic that it takes part in.
#[derive(Debug, Clone)]
pub struct Access {
    keys: TopicKeys,
    /// Of a public topic.
    name: Option<String>,
    reads: BTreeMap<u32, Secret>,
    /// The node's own chain and what it was found to grant.
    granted: Option<(Chain, Grant)>,
    /// If the node founded the topic.
    root: Option<SecretKey>,
}

impl Access {
    /// Founds a private topic. The caller draws `secret` and the seed of `root`; `me` is the node
    /// that founds it, and may manage it for ever.
    #[must_use]
    pub fn found(secret: &[u8; SECRET_LEN], root: SecretKey, me: NodeId) -> Self {
        let id = TopicId::from_bytes(*root.id().as_bytes());
        let chain = Chain::root(&root, me, Rank::Manage, None);
        let grant = Grant { subject: me, rank: Rank::Manage, expires: None };
        Self {
            keys: TopicKeys::private(id, relay_secret(secret)),
            name: None,
            reads: [(0, Secret::new(first_read_key(secret)))].into(),
            granted: Some((chain, grant)),
            root: Some(root),
        }
    }

    /// Takes part in a public topic.
    ///
    /// # Errors
    ///
    /// [`AccessError::Name`] for a name that is empty or longer than [`NAME_LEN_MAX`].
    pub fn public(name: &str) -> Result<Self, AccessError> {
        check_name(name)?;
        let (keys, name) = (TopicKeys::public(name), Some(name.to_owned()));
        Ok(Self { keys, name, reads: BTreeMap::new(), granted: None, root: None })
    }

    /// Takes over what another access to the same topic has and this one lacks: read keys, the root
    /// key, a capability that is worth more.
    pub fn merge(&mut self, other: Self) {
        if other.keys.id != self.keys.id {
            return;
        }
        for (epoch, key) in other.reads {
            self.reads.entry(epoch).or_insert(key);
        }
        while self.reads.len() > EPOCHS_MAX {
            self.reads.pop_first();
        }
        let worth =
            |granted: &Option<(Chain, Grant)>| granted.as_ref().map(|(_, grant)| grant.worth());
        if worth(&other.granted) > worth(&self.granted) {
            self.granted = other.granted;
        }
        self.root = self.root.take().or(other.root);
    }

    /// Takes up an invite to a private topic.
    fn join(invite: &Private, me: NodeId) -> Result<Self, AccessError> {
        let Private { id, relay, read, bearer } = invite;
        let take = |Bearer { chain, key }: &Bearer| {
            let Grant { rank, expires, .. } = chain.check(*id)?;
            let own = chain.extend(key, me, rank, expires)?;
            Ok::<_, AccessError>((own, Grant { subject: me, rank, expires }))
        };
        Ok(Self {
            keys: TopicKeys::private(*id, *relay.bytes()),
            name: None,
            reads: read.iter().cloned().collect(),
            granted: bearer.as_ref().map(take).transpose()?,
            root: None,
        })
    }

    /// Makes an invite, which everybody who has its text can take up until it expires.
    ///
    /// In a private topic it carries `bearer`, a key that the caller draws for it and to which
    /// `signer` (the key that this access is of, or the topic's root) grants `rank`, of which those
    /// that join grant it to themselves. Removing that key removes all of them. A rank of at least
    /// [`Rank::Read`] carries the newest read key. Of `peers`, best first, the first
    /// [`PEERS_MAX`](invite::PEERS_MAX) are named. In a public topic only `title` and `peers`
    /// matter.
    ///
    /// # Errors
    ///
    /// [`AccessError::Title`], [`AccessError::NoCapability`], [`AccessError::NoReadKey`], and
    /// [`AccessError::Capability`] for what the signer cannot pass on.
    pub fn invite(
        &self,
        signer: &SecretKey,
        bearer: SecretKey,
        rank: Rank,
        expires: Option<UnixTime>,
        title: Option<&str>,
        peers: &[PeerAddr],
    ) -> Result<TopicInvite, AccessError> {
        if let Some(name) = &self.name {
            return TopicInvite::new(Invited::Public(name.clone()), title, peers);
        }
        let relay = self.keys.relay().ok_or(AccessError::NoCapability)?;
        let chain = self.grant_to(signer, bearer.id(), rank, expires)?;
        let newest = || self.reads.last_key_value().ok_or(AccessError::NoReadKey);
        let read = (rank >= Rank::Read).then(newest).transpose()?;
        let topic = Invited::Private(Box::new(Private {
            id: self.keys.id,
            relay: Secret::new(*relay),
            read: read.map(|(epoch, key)| (*epoch, key.clone())),
            bearer: Some(Bearer { chain, key: bearer }),
        }));
        TopicInvite::new(topic, title, peers)
    }

    fn grant_to(
        &self,
        signer: &SecretKey,
        subject: NodeId,
        rank: Rank,
        expires: Option<UnixTime>,
    ) -> Result<Chain, AccessError> {
        if signer.id().as_bytes() == self.keys.id.as_bytes() {
            return Ok(Chain::root(signer, subject, rank, expires));
        }
        let (own, _) = self.granted.as_ref().ok_or(AccessError::NoCapability)?;
        let chain = own.extend(signer, subject, rank, expires)?;
        // Who joins adds a link.
        if chain.len() >= LINKS_MAX { Err(CapabilityError::TooLong.into()) } else { Ok(chain) }
    }

    /// What the node may do at `now`: in a private topic what its capability says, and without one
    /// that holds, to relay, for which the keys suffice.
    #[must_use]
    pub fn rank(&self, now: UnixTime) -> Rank {
        let granted = self.grant().filter(|grant| grant.is_valid(now));
        match granted {
            Some(grant) => grant.rank,
            None if self.keys.is_public() => Rank::Write,
            None => Rank::Relay,
        }
    }

    /// What the node's capability grants, whether it expired or not; `None` if it has none.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        self.granted.as_ref().map(|(_, grant)| *grant)
    }

    /// The keys that all members have.
    #[must_use]
    pub fn keys(&self) -> &TopicKeys {
        &self.keys
    }

    /// The name of a public topic.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The node's capability, in a private topic.
    #[must_use]
    pub fn chain(&self) -> Option<&Chain> {
        self.granted.as_ref().map(|(chain, _)| chain)
    }

    /// The topic's root key, if the node founded it.
    #[must_use]
    pub fn root(&self) -> Option<&SecretKey> {
        self.root.as_ref()
    }

    /// The read key of an epoch, if it is known.
    #[must_use]
    pub fn read_key(&self, epoch: u32) -> Option<&[u8; SECRET_LEN]> {
        self.reads.get(&epoch).map(Secret::bytes)
    }

    /// The latest epoch whose read key is known, and that key.
    #[must_use]
    pub fn newest_read_key(&self) -> Option<(u32, &[u8; SECRET_LEN])> {
        self.reads.last_key_value().map(|(epoch, key)| (*epoch, key.bytes()))
    }

    /// Keeps the read key of an epoch, in place of another one if need be: the caller decides which
    /// of two changes of an epoch counts. Beyond [`EPOCHS_MAX`] the earliest is forgotten. Returns
    /// whether anything changed; in a public topic nothing does.
    pub fn learn(&mut self, epoch: u32, key: [u8; SECRET_LEN]) -> bool {
        let key = Secret::new(key);
        if self.keys.is_public() || self.reads.get(&epoch) == Some(&key) {
            return false;
        }
        self.reads.insert(epoch, key);
        let forgotten = if self.reads.len() > EPOCHS_MAX { self.reads.pop_first() } else { None };
        forgotten.is_none_or(|(forgotten, _)| forgotten != epoch)
    }

    /// The encoding for the disk, at most [`ACCESS_LEN_MAX`] bytes. It holds all secrets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let form = Form {
            name: self.name.clone(),
            id: self.name.is_none().then_some(self.keys.id),
            relay: self.keys.relay().map(|relay| Secret::new(*relay)),
            reads: self.reads.clone(),
            chain: self.chain().cloned(),
            root: self.root.as_ref().map(|root| Secret::new(root.to_bytes())),
        };
        to_cbor(&form)
    }

    /// Reads what [`Access::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`AccessError::TooLarge`], [`AccessError::Malformed`], [`AccessError::Name`],
    /// [`AccessError::NotTheRoot`] and [`AccessError::Capability`].
    pub fn decode(bytes: &[u8]) -> Result<Self, AccessError> {
        if bytes.len() > ACCESS_LEN_MAX {
            return Err(AccessError::TooLarge { len: bytes.len() });
        }
        let malformed = |error: DecodeError| AccessError::Malformed(error.to_string());
        let access = minicbor::decode::<Form>(bytes).map_err(malformed)?.into_access()?;
        // Refuses what does not belong together, and bytes left over, too.
        if access.encode() == bytes {
            Ok(access)
        } else {
            Err(AccessError::Malformed("another spelling, or bytes left over".to_owned()))
        }
    }
}

impl TopicInvite {
    /// Takes part in the topic as `me`. Costs up to 9 operations with signatures.
    ///
    /// # Errors
    ///
    /// [`AccessError::Capability`] for an invite that grants nothing, whoever made it. Whether it
    /// has expired is seen by [`Access::rank`].
    pub fn join(&self, me: NodeId) -> Result<Access, AccessError> {
        match self.invited() {
            Invited::Public(name) => Access::public(name),
            Invited::Private(private) => Access::join(private, me),
        }
    }
}

/// Why there is no access, or no invite.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccessError {
    /// A public topic's name is empty or too long.
    #[error("a topic's name of {len} bytes: it must have 1 to {NAME_LEN_MAX}")]
    Name {
        /// Bytes of the name.
        len: usize,
    },
    /// A title is empty, too long, or has line breaks and the like.
    #[error("a title must have 1 to {} bytes, on one line", invite::TITLE_LEN_MAX)]
    Title,
    /// The node has nothing to pass on.
    #[error("this node has no capability in the topic: ask a member for an invite")]
    NoCapability,
    /// The node cannot read, so nobody can by its invite.
    #[error("this node has no read key of the topic: invite to relay only")]
    NoReadKey,
    /// The capability does not hold, or cannot be passed on so.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// More bytes than an access may have.
    #[error("an access of {len} bytes is too long: {ACCESS_LEN_MAX} are allowed")]
    TooLarge {
        /// Bytes.
        len: usize,
    },
    /// The bytes are no access.
    #[error("malformed access to a topic: {0}")]
    Malformed(String),
    /// The root key is another topic's.
    #[error("the root key is not that of the topic")]
    NotTheRoot,
}

fn to_cbor(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

fn check_name(name: &str) -> Result<(), AccessError> {
    let is_fine = (1..=NAME_LEN_MAX).contains(&name.len());
    if is_fine { Ok(()) } else { Err(AccessError::Name { len: name.len() }) }
}

/// An access as it is encoded.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Form {
    #[n(0)]
    name: Option<String>,
    #[n(1)]
    id: Option<TopicId>,
    #[n(2)]
    relay: Option<Secret>,
    #[cbor(
        n(3),
        encode_with = "encode_reads",
        decode_with = "decode_reads",
        skip_if = "BTreeMap::is_empty",
        default
    )]
    reads: BTreeMap<u32, Secret>,
    #[n(4)]
    chain: Option<Chain>,
    #[n(5)]
    root: Option<Secret>,
}

impl Form {
    fn into_access(self) -> Result<Access, AccessError> {
        if let Some(name) = self.name {
            return Access::public(&name);
        }
        let (Some(id), Some(relay)) = (self.id, self.relay) else {
            return Err(AccessError::Malformed("neither public nor private".to_owned()));
        };
        let root = self.root.map(|root| SecretKey::from_bytes(*root.bytes()));
        if root.as_ref().is_some_and(|root| root.id().as_bytes() != id.as_bytes()) {
            return Err(AccessError::NotTheRoot);
        }
        let check = |chain: Chain| chain.check(id).map(|grant| (chain, grant));
        Ok(Access {
            keys: TopicKeys::private(id, *relay.bytes()),
            name: None,
            reads: self.reads,
            granted: self.chain.map(check).transpose()?,
            root,
        })
    }
}

fn encode_reads<C, W: Write>(
    reads: &BTreeMap<u32, Secret>,
    e: &mut Encoder<W>,
    ctx: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.array(reads.len() as u64)?;
    reads.iter().try_for_each(|read| e.encode_with(read, ctx)?.ok())
}

fn decode_reads<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<BTreeMap<u32, Secret>, DecodeError> {
    let len = bounded_len(d, EPOCHS_MAX)?;
    (0..len).map(|_| d.decode_with(ctx)).collect()
}

#[cfg(test)]
mod tests;
