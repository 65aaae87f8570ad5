//! Topics: a group talks, however its messages arrive (design §8).
//!
//! What is said is an entry of its author's signed log. Members hold connections to a few
//! others, push new entries along a tree and compare what they have now and then, so that who was
//! away catches up from anybody who was not.

pub mod gossip;
pub mod id;
