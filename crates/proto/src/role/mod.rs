//! Roles that the network lends: who keeps the records of a part of the key space, signals and
//! relays for many (design §7).
//!
//! Above the floor of the index, in which everybody does a little, the key space is cut into
//! [`Region`]s. Each has a few *seats*; who holds one was measured by others and voted in by them,
//! for a term. Whatever a seat does the floor can do too, so the loss of all seats costs speed and
//! nothing else.

mod epoch;
mod machine;
pub mod mandate;
pub mod puzzle;
mod region;
pub mod report;
mod signature;
pub mod term;

pub use self::epoch::{Epochs, TERM_EPOCHS, elector_point};
pub use self::machine::{Event, RoleConfig, RoleStats};
pub(crate) use self::machine::{Output, PeerView, Roles};
pub use self::mandate::{Mandate, MandateError};
pub use self::region::{ACTIVE, Depth, ELECTORS, Plan, Region, STANDBY, elector_radius};
pub use self::term::{Kind, NetPrefix, Term, Vote};
