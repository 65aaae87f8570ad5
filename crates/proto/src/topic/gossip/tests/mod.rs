//! One machine by hand in `unit`, many of them in `world`.

mod figures;
mod hostile;
mod unit;
mod world;
