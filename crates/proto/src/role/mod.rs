//! Roles that the network lends: who keeps the records of a part of the key space, signals and
//! relays for many (design §7).
//!
//! Above the floor of the index, in which everybody does a little, the key space is cut into
//! [`Region`]s. Each has a few *seats*; who holds one was measured by others and voted in by them,
//! for a term. Whatever a seat does the floor can do too, so the loss of all seats costs speed and
//! nothing else.

mod capacity;
mod epoch;
mod machine;
pub mod mandate;
pub mod puzzle;
mod region;
pub mod report;
pub mod term;

/// Longest that [`DiskAction::Role`](crate::index::DiskAction::Role) writes, in bytes: a few
/// mandates of 2 KB, and the seats of a region.
pub const ROLE_LEN_MAX: usize = 64 * 1024;

pub use self::capacity::{credited_bytes_per_s, credited_log2};
pub use self::epoch::{Epochs, TERM_EPOCHS, elector_point};
pub use self::machine::{Event, RoleConfig, RoleStats, encode_state};
pub(crate) use self::machine::{Output, PeerView, Roles};
pub use self::mandate::{Mandate, MandateError};
pub use self::region::{
    ACTIVE, Depth, ELECTORS, Plan, REGION_BITS_MAX, Region, STANDBY, elector_radius,
};
pub use self::term::{Kind, NetPrefix, Term, Vote};
