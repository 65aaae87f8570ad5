//! Runs a scenario: `cargo run --release -p baran-sim --example run -- lookup --nodes 1000`.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// A world is some hundred million small allocations, of which each node's lie apart: a fifth less
/// processor time than with the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A deterministic network of many nodes in virtual time.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    sim: baran_sim::Sim,
    /// Writes one JSON object in the place of the table
    #[arg(long, global = true)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.sim.run(cli.json, &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
