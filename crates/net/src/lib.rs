//! The network of a baran node: one UDP socket, QUIC on `noq`, and the links over it.
//!
//! This crate moves bytes for the state machines of `baran-proto` and decides nothing: the socket
//! asks the forwarder and the egress gate, the endpoint authenticates, a link carries the control
//! stream, sessions and paths. A new version of `noq` touches this crate and no other.
//!
//! Invariants: every connection is mutually authenticated by raw Ed25519 keys (RFC 7250) before
//! anything of it is looked at; every queue is bounded; no stream is left unread in QUIC.

pub mod budget;
pub mod endpoint;
pub mod link;
pub mod mux;
pub mod quic;
pub mod socket;
mod stir;
