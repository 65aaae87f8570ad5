//! A deterministic internet for the nodes of [`baran_proto`], and what happens in it.
pub mod draw;
pub mod engine;
pub mod net;
pub mod population;
pub mod trace;
pub mod world;
pub mod cache;
