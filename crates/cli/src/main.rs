//! The command `baran`.
//!
//! The command line is in [`args`], what each command does in [`commands`], how it is written in
//! [`output`] and [`view`]. Commands that need a node ask one through [`daemon`]: the daemon's, or
//! one that they start for themselves, by the same words.

mod args;
mod chat;
mod commands;
mod daemon;
mod escape;
mod help;
mod output;
mod progress;
mod qr;
mod rate;
mod serve;
mod view;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use tracing::level_filters::LevelFilter;

use crate::args::{Cli, Command};
use crate::commands::{about, find, pair, ping, pipe, store, topic, up};
use crate::output::Output;

/// The command line was wrong, as by convention.
const USAGE: u8 = 2;
/// Longest wait for threads that read standard input, which nothing can interrupt.
const THREADS_MAX: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let start = Instant::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // What is logged to the screen of a chat would spoil it.
    if !(matches!(cli.command, Command::Chat(_)) && std::io::stderr().is_terminal()) {
        log(cli.global.verbose);
    }
    let output = Output::new(cli.global.json);
    let output = if matches!(cli.command, Command::Pipe(_)) { output.on_stderr() } else { output };
    if let Command::Join(join) = &cli.command
        && let Err(error) = join.code()
    {
        return usage(&error);
    }
    match run(&cli, start, output) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; tells whether all went well.
fn run(cli: &Cli, start: Instant, output: Output) -> Result<bool> {
    let global = &cli.global;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(async {
        match &cli.command {
            Command::Up(args) => Box::pin(up::run(global, args, output)).await.map(|()| true),
            Command::Ping(args) => Box::pin(ping::run(global, args, start, output)).await,
            Command::Pipe(args) => Box::pin(pipe::run(global, args, output)).await.map(|()| true),
            Command::Status(args) => about::status(global, args, output).await.map(|()| true),
            Command::Roles(args) => about::roles(global, args, output).await.map(|()| true),
            Command::Id => about::id(global, output).map(|()| true),
            Command::Invite(args) if args.words => {
                pair::invite(global, &args.node, output).await.map(|()| true)
            }
            Command::Invite(args) => about::invite(global, args, output).await.map(|()| true),
            Command::Join(args) => {
                let code = args.code()?;
                pair::join(global, &args.node, &code, args.timeout, output).await.map(|()| true)
            }
            Command::Put(args) => find::put(global, args, output).await,
            Command::Get(args) => find::get(global, args, output).await.map(|()| true),
            Command::Announce(args) => find::announce(global, args, output).await.map(|()| true),
            Command::Lookup(args) => find::lookup(global, args, output).await,
            Command::Resolve(args) => find::resolve(global, args, output).await.map(|()| true),
            Command::Topic(command) => {
                Box::pin(topic::run(global, command, output)).await.map(|()| true)
            }
            Command::Chat(args) => Box::pin(chat::run(global, args, output)).await.map(|()| true),
            Command::Store(command) => store::run(global, command, output).map(|()| true),
            Command::Sim(sim) => sim.run(global.json, &mut std::io::stdout().lock()),
            Command::Completions { shell } => about::completions(*shell, output).map(|()| true),
            Command::Man { dir } => about::man(dir.as_deref(), output).map(|()| true),
        }
    });
    runtime.shutdown_timeout(THREADS_MAX);
    result
}

/// Writes help, the version, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let written = error.print();
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let text = error.render().to_string();
    if std::env::args_os().any(|arg| arg == "--json") {
        let object = serde_json::json!({ "error": text.trim_end() });
        drop(Output::new(true).raw(&format!("{object}\n")));
    }
    // What was copied from elsewhere comes back here.
    drop(std::io::stderr().write_all(escape::escape(&text).as_bytes()));
    ExitCode::from(USAGE)
}

fn log(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
}
