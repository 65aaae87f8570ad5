//! A deterministic internet for the nodes of [`baran_proto`], and what happens in it.
//!
//! A *world* ([`world`]) is hosts with NATs and places ([`net`]), a population that comes and goes
//! ([`population`]), and one queue of events ([`engine`]). Each host runs the very
//! [`Node`](baran_proto::node::Node) of the real program; nothing of a protocol is written twice.
//! A *scenario* ([`scenario`]) puts such a world through something and measures: [`run`].
//!
//! Everything is drawn from one seed. Two runs of one scenario with the same flags have the same
//! [trace]: a digest of every event and message in its order.

pub mod args;
pub mod cache;
pub mod draw;
pub mod engine;
pub mod net;
pub mod plot;
pub mod policy;
pub mod population;
pub mod progress;
pub mod report;
pub mod scenario;
pub mod trace;
mod verify;
pub mod world;

use std::io::Write;

use anyhow::{Context, Result};

pub use self::args::Args;
use self::progress::Progress;

/// Runs the scenario, writes its table (or with `json` one object) to `out` and its plot to a
/// file; tells whether all targets are met.
///
/// # Errors
///
/// If the output or the plot cannot be written.
pub fn run(args: &Args, json: bool, out: &mut dyn Write) -> Result<bool> {
    let report = scenario::run(args, Progress::default());
    if let Some(path) = &args.plot {
        report.plot(path).with_context(|| format!("plot to {}", path.display()))?;
    }
    if args.trace_hash {
        writeln!(out, "{}", report.trace).context("write the digest")?;
    } else if json {
        writeln!(out, "{}", report.to_json()).context("write the report")?;
    } else {
        write!(out, "{report}").context("write the report")?;
    }
    Ok(report.is_met())
}
