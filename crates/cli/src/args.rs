//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use baran::{Net, NodeId, PeerAddr};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{help, rate};

/// Peers reach each other directly, whatever NAT they sit behind, with nobody's server in between.
#[derive(Debug, Parser)]
#[command(name = "baran", version, after_long_help = help::OVERVIEW)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    #[arg(long, global = true, value_name = "DIR", help = help::DATA)]
    pub(crate) data: Option<PathBuf>,
    /// Write one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log to standard error: -v what happens, -vv details, -vvv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node in the foreground until SIGTERM or Ctrl-C
    #[command(after_long_help = help::UP)]
    Up(UpArgs),
    /// Measure the way to a peer and watch it become direct
    #[command(after_long_help = help::PING)]
    Ping(PingArgs),
    /// Join standard input and output with a peer's
    #[command(subcommand, after_long_help = help::PIPE)]
    Pipe(PipeCommand),
    /// Show addresses, NAT, peers and what this node does for others
    #[command(after_long_help = help::STATUS)]
    Status(NodeArgs),
    /// Show this node's id
    #[command(after_long_help = help::ID)]
    Id,
    /// Show this node's invite, as text and as a QR code
    #[command(after_long_help = help::INVITE)]
    Invite(InviteArgs),
    /// Write the completions of a shell
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Write the manual
    Man {
        /// Write a page for every command into this directory, not the main one to standard output
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Options of commands that may start a node.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Network to be part of; nodes of different networks never meet [default: main]
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Address to listen on, repeatable [default: every address, a port of the system's choice]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) bind: Vec<SocketAddr>,
    /// Peer to keep a connection to, repeatable: an id, an invite, or ID@ip:port
    #[arg(long = "peer", value_name = "PEER")]
    pub(crate) peers: Vec<PeerAddr>,
    /// Addresses that may be reached although their kind forbids it (loopback, reserved ranges),
    /// repeatable; for tests and closed networks
    #[arg(long = "allow-net", value_name = "CIDR")]
    pub(crate) allow_nets: Vec<Net>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Bytes a second to relay for others at most, such as 500K or 10M; off relays nothing
    /// [default: 10M]
    #[arg(long, value_name = "RATE", value_parser = rate::parse)]
    pub(crate) relay_limit: Option<u64>,
    /// Bytes to relay for others in 24 hours at most, such as 5G [default: 20G]
    #[arg(long, value_name = "BYTES", value_parser = rate::parse)]
    pub(crate) relay_bytes_per_day: Option<u64>,
    /// Peers that may be reached through this node at a time [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) relay_reservations: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Whom: an id, an invite, or ID@ip:port
    #[arg(value_name = "PEER")]
    pub(crate) to: PeerAddr,
    /// How many; 0 goes on until Ctrl-C
    #[arg(long, short, value_name = "N", default_value_t = 4)]
    pub(crate) count: u64,
    /// Milliseconds from one to the next
    #[arg(long, short, value_name = "MS", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) interval: u64,
    /// Seconds to wait for the connection, and for a reply
    #[arg(long, short, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PipeCommand {
    /// Wait for one peer that connects
    #[command(after_long_help = help::PIPE)]
    Listen {
        /// Take only this peer, repeatable [default: the first that comes]
        #[arg(long, value_name = "ID")]
        from: Vec<NodeId>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Connect to a peer that listens
    #[command(after_long_help = help::PIPE)]
    Connect {
        /// Whom: an id, an invite, or ID@ip:port
        #[arg(value_name = "PEER")]
        to: PeerAddr,
        /// Seconds to wait for the connection
        #[arg(long, short, value_name = "S", default_value_t = 30,
            value_parser = clap::value_parser!(u64).range(1..=86_400))]
        timeout: u64,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// Draw the QR code even if standard output is no terminal
    #[arg(long, conflicts_with = "no_qr")]
    pub(crate) qr: bool,
    /// Write the text alone
    #[arg(long)]
    pub(crate) no_qr: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_stand_anywhere() {
        for line in [
            "baran --json --data d ping 25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena",
            "baran ping 25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena --data d --json",
            "baran pipe listen --data d --json",
            "baran pipe --data d --json listen",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json, "{line}");
            assert_eq!(cli.global.data, Some(PathBuf::from("d")), "{line}");
        }
    }
}
