//! Who may do what in a topic, and with which keys.
pub mod capability;
pub mod epoch;
pub mod keys;
