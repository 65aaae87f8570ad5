//! What lies between hosts: distance, addresses, NATs, QUIC connections and relays' channels.

pub mod account;
pub mod addr;
pub mod capacity;
pub mod channel;
pub mod conn;
pub mod geo;
pub mod keepalive;
pub mod kind;
pub mod nat;
