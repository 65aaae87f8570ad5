//! The signed part of a record, in CBOR.

use std::net::SocketAddr;

use bytes::Bytes;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{Content, NAME_LEN_MAX, NODE_ADDRS_MAX, NODE_VERSIONS_MAX, RecordError, VALUE_LEN_MAX};
use crate::id::NodeId;
use crate::key::Key;
use crate::time::UnixTime;
use crate::wire::addr::{bounded_len, decode_addrs, encode_addrs};
use crate::wire::index::RecordKind;
use crate::wire::node::{Home, decode_homes, encode_homes};

/// The fields that the author signs.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Body {
    #[n(0)]
    kind: RecordKind,
    #[n(1)]
    pub(super) author: NodeId,
    /// Of announcements only: the others' follows from the rest.
    #[n(2)]
    key: Option<Key>,
    #[n(3)]
    pub(super) sequence: u64,
    #[cbor(n(4), encode_with = "encode_time", decode_with = "decode_time")]
    pub(super) expires: UnixTime,
    #[n(5)]
    node: Option<NodeBody>,
    #[n(6)]
    value: Option<ValueBody>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct NodeBody {
    #[cbor(
        n(0),
        encode_with = "encode_addrs::<NODE_ADDRS_MAX, _, _>",
        decode_with = "decode_addrs::<NODE_ADDRS_MAX, _>"
    )]
    addrs: Vec<SocketAddr>,
    #[cbor(n(1), encode_with = "encode_homes", decode_with = "decode_homes")]
    homes: Vec<Home>,
    #[cbor(n(2), encode_with = "encode_versions", decode_with = "decode_versions")]
    versions: Vec<u32>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ValueBody {
    #[n(0)]
    name: String,
    #[cbor(n(1), encode_with = "encode_value", decode_with = "decode_value")]
    value: Bytes,
}

impl Body {
    pub(super) fn new(
        author: NodeId,
        key: Option<Key>,
        sequence: u64,
        expires: UnixTime,
        content: Content,
    ) -> Result<Self, RecordError> {
        let (kind, node, value) = match content {
            Content::Node { addrs, homes, versions } => {
                (RecordKind::Node, Some(NodeBody { addrs, homes, versions }), None)
            }
            Content::Announcement => (RecordKind::Announcement, None, None),
            Content::Value { name, value } => {
                check_value(&name, &value)?;
                (RecordKind::Value, None, Some(ValueBody { name, value }))
            }
        };
        if key.is_some() != (kind == RecordKind::Announcement) {
            return Err(RecordError::Key);
        }
        Ok(Self { kind, author, key, sequence, expires, node, value })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Where the record stands and what it says.
    pub(super) fn into_content(self) -> Result<(Key, Content), RecordError> {
        match (self.kind, self.key, self.node, self.value) {
            (RecordKind::Node, None, Some(node), None) => {
                let NodeBody { addrs, homes, versions } = node;
                Ok((Key::of_node(self.author), Content::Node { addrs, homes, versions }))
            }
            (RecordKind::Announcement, Some(key), None, None) => Ok((key, Content::Announcement)),
            (RecordKind::Value, None, None, Some(ValueBody { name, value })) => {
                check_value(&name, &value)?;
                Ok((Key::of_value(self.author, &name), Content::Value { name, value }))
            }
            (RecordKind::Announcement, None, ..)
            | (RecordKind::Node | RecordKind::Value, Some(_), ..) => Err(RecordError::Key),
            _ => Err(RecordError::Malformed("the fields of another kind".to_owned())),
        }
    }
}

/// Decodes all of a body.
pub(super) fn decode(bytes: &[u8]) -> Result<Body, RecordError> {
    let mut decoder = Decoder::new(bytes);
    let body = decoder.decode()?;
    if decoder.position() != bytes.len() {
        return Err(RecordError::Malformed("bytes after the body".to_owned()));
    }
    Ok(body)
}

fn check_value(name: &str, value: &[u8]) -> Result<(), RecordError> {
    if !(1..=NAME_LEN_MAX).contains(&name.len()) {
        return Err(RecordError::Name { len: name.len() });
    }
    if value.len() > VALUE_LEN_MAX {
        return Err(RecordError::ValueTooLarge { len: value.len() });
    }
    Ok(())
}

fn encode_time<C, W: Write>(
    time: &UnixTime,
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.u64(time.as_secs())?.ok()
}

fn decode_time<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<UnixTime, minicbor::decode::Error> {
    d.u64().map(UnixTime::from_secs)
}

/// Encodes the first [`NODE_VERSIONS_MAX`] versions.
fn encode_versions<C, W: Write>(
    versions: &[u32],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let versions = &versions[..versions.len().min(NODE_VERSIONS_MAX)];
    e.array(versions.len() as u64)?;
    versions.iter().try_for_each(|version| e.u32(*version)?.ok())
}

fn decode_versions<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u32>, minicbor::decode::Error> {
    let len = bounded_len(d, NODE_VERSIONS_MAX)?;
    (0..len).map(|_| d.u32()).collect()
}

fn encode_value<C, W: Write>(
    value: &Bytes,
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.bytes(value)?.ok()
}

fn decode_value<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, minicbor::decode::Error> {
    d.bytes().map(Bytes::copy_from_slice)
}
