//! Real kernels' NATs in network namespaces, and the real binary in them.
//!
//! The problem: whether two peers behind their NATs reach each other is decided
//! by code that nobody here wrote (conntrack, nftables, the socket layer), so
//! it is shown with that code. Each experiment builds a small internet, starts
//! the program `baran` on its hosts as a user would, and reads its JSON lines.
//!
//! - [`world`] builds internets; [`nat`] says what each kind of NAT does;
//!   [`nft`] cuts paths and loses packets, a TUN detour holds them;
//!   [`probe`] checks all that with plain UDP.
//! - [`process`] runs programs on hosts; [`node`] knows baran's commands.
//! - [`matrix`], [`failover`] and [`find`] are the experiments; [`table`] their results.
//! - [`harness`] makes a test fail, never skip, where the lab cannot run.

pub mod failover;
pub mod find;
pub mod harness;
mod lag;
pub mod matrix;
pub mod nat;
pub mod nft;
pub mod node;
pub mod probe;
pub mod process;
pub mod table;
pub mod world;
