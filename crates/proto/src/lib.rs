//! The protocols of baran, as state machines and the messages that move them.
//!
//! Nothing here does I/O, reads a clock, spawns a task or draws from global randomness: every
//! machine has the shape of [`machine::Machine`] and is driven by the real network in the crate
//! `baran` or by a simulator. The largest one is the whole [`node::Node`]; the forwarder of relayed
//! frames ([`forward`]) and the egress gate ([`egress`]) stand beside it because they see every
//! datagram and must answer at once.
//!
//! Invariants: the same inputs at the same times give the same outputs; every queue, table and
//! message is bounded; a peer's misbehaviour is data, never a panic.

pub mod allowance;
pub mod bootstrap;
pub mod bucket;
pub mod candidate;
mod cbor;
pub mod credit;
pub mod egress;
mod flat;
pub mod forward;
pub mod frame;
pub mod id;
pub mod index;
pub mod invite;
pub mod key;
pub mod machine;
pub mod node;
pub mod pair;
pub mod path;
pub mod peers;
pub mod record;
pub mod role;
mod signature;
pub mod stun;
pub mod time;
pub mod timer;
pub mod topic;
pub mod wire;
