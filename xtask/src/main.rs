//! Every check of the project behind one command: `cargo xtask`.
//!
//! What a developer runs and what continuous integration runs is the same list of steps, so that a
//! green run at home means a green run there. A check that cannot run on this machine fails and
//! says what to install; it is never skipped.
//!
//! The crate is built before everything else, on machines that hold nothing yet. It therefore has
//! two dependencies and no derive macros.

#![allow(clippy::print_stdout, reason = "a command line program talks to its user")]

mod deps;
mod prepare;
mod process;
mod runner;
mod spdx;
mod steps;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use workspace::Workspace;

const HELP: &str = "\
cargo xtask: every check of the project behind one command

  cargo xtask test [--only STEP]... [--keep-going] [--list]
      Runs all checks, as continuous integration does; stops at the first that fails.
      --only STEP     runs this step alone (may be repeated)
      --keep-going    runs the remaining steps after a failure too
      --list          lists the steps
  cargo xtask tidy [--bless]
      Checks what the compiler does not: direction of dependency, sizes, words, the wire hash.
      --bless         writes the hash of the wire format into PROTOCOL.md
  cargo xtask lab [ARGS]...
      Builds the binary in the release profile and runs the lab with it; ARGS go to the lab.
  cargo xtask help
      Prints this.
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Test { only: Vec<String>, keep_going: bool },
    ListSteps,
    Tidy { bless: bool },
    Lab { args: Vec<String> },
}

fn main() -> ExitCode {
    let command = match parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error:#}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; false means that its checks failed and it has said so.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Help => {
            print!("{HELP}");
            Ok(true)
        }
        Command::ListSteps => {
            for step in steps::ALL {
                println!("{:10} {}", step.name, step.about);
            }
            Ok(true)
        }
        Command::Test { only, keep_going } => {
            let chosen = runner::choose(steps::ALL, &only)?;
            let workspace = Workspace::load()?;
            Ok(runner::run(&chosen, &workspace, keep_going))
        }
        Command::Tidy { bless } => {
            let workspace = Workspace::load()?;
            if bless {
                tidy::wire::bless(&workspace.root)?;
            }
            tidy::run(&workspace)?;
            Ok(true)
        }
        Command::Lab { args } => {
            steps::lab_release(&Workspace::load()?, &args)?;
            Ok(true)
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Command> {
    let Some(name) = args.next() else { return Ok(Command::Help) };
    match name.as_str() {
        "help" | "-h" | "--help" => Ok(Command::Help),
        "lab" => Ok(Command::Lab { args: args.collect() }),
        "test" => parse_test(args),
        "tidy" => {
            let mut bless = false;
            for arg in args {
                match arg.as_str() {
                    "--bless" => bless = true,
                    "-h" | "--help" => return Ok(Command::Help),
                    _ => bail!("tidy does not know the argument {arg}"),
                }
            }
            Ok(Command::Tidy { bless })
        }
        _ => bail!("there is no command {name}"),
    }
}

fn parse_test(mut args: impl Iterator<Item = String>) -> Result<Command> {
    let mut only = Vec::new();
    let mut keep_going = false;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => only.push(args.next().context("--only needs the name of a step")?),
            "--keep-going" => keep_going = true,
            "--list" => return Ok(Command::ListSteps),
            "-h" | "--help" => return Ok(Command::Help),
            _ => match arg.strip_prefix("--only=") {
                Some(step) => only.push(step.to_owned()),
                None => bail!("test does not know the argument {arg}"),
            },
        }
    }
    Ok(Command::Test { only, keep_going })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: &Command) {
        let parsed = parse(line.split_whitespace().map(str::to_owned)).unwrap();
        assert_eq!(&parsed, expect, "{line}");
    }

    #[test]
    fn commands_and_options_are_understood() {
        let test = |only: &[&str], keep_going| Command::Test {
            only: only.iter().map(ToString::to_string).collect(),
            keep_going,
        };
        check("", &Command::Help);
        check("help", &Command::Help);
        check("test", &test(&[], false));
        check("test --keep-going", &test(&[], true));
        check("test --only fmt --only=tidy", &test(&["fmt", "tidy"], false));
        check("test --list", &Command::ListSteps);
        check("tidy --bless", &Command::Tidy { bless: true });
        check("lab --json x", &Command::Lab { args: vec!["--json".into(), "x".into()] });
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["tests", "test --fast", "test --only", "tidy now"] {
            let args = line.split_whitespace().map(str::to_owned);
            assert!(parse(args).is_err(), "{line}");
        }
    }
}
