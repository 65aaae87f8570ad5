//! A node that works for commands: over the socket of a daemon, or in the command's own process.

pub(crate) mod chat;
pub(crate) mod client;
mod finder;
pub(crate) mod frame;
mod names;
mod pairer;
mod pinger;
mod pipe;
pub(crate) mod protocol;
pub(crate) mod server;
pub(crate) mod topics;
