//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use baran::pair::PairCode;
use baran::{Hours, HoursError, Net, NodeId, PeerAddr, ServeLimits};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{help, rate};

pub(crate) use self::topic::name as member_name;
pub(crate) use self::topic::{ChatArgs, TailArgs, TopicArgs, TopicCommand, TopicInviteArgs};

mod topic;

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
    /// Show what this node serves others, and how near its limits it is
    #[command(after_long_help = help::ROLES)]
    Roles(NodeArgs),
    /// Show this node's id
    #[command(after_long_help = help::ID)]
    Id,
    /// Show this node's invite, as text and as a QR code, or as words to tell somebody
    #[command(after_long_help = help::INVITE)]
    Invite(InviteArgs),
    /// Pair with the node that shows these words
    #[command(after_long_help = help::JOIN)]
    Join(JoinArgs),
    /// Run a whole network of nodes in virtual time, and measure it
    #[command(after_long_help = help::SIM)]
    Sim(baran_sim::Sim),
    /// Publish a small value under a name, signed by this node
    #[command(after_long_help = help::PUT)]
    Put(PutArgs),
    /// Read a value that a node published
    #[command(after_long_help = help::GET)]
    Get(GetArgs),
    /// Be found by a topic until Ctrl-C
    #[command(after_long_help = help::ANNOUNCE)]
    Announce(AnnounceArgs),
    /// Find the peers that announce a topic
    #[command(after_long_help = help::LOOKUP)]
    Lookup(LookupArgs),
    /// Find where a peer is by its id
    #[command(after_long_help = help::RESOLVE)]
    Resolve(ResolveArgs),
    /// Take part in topics: groups that talk, whoever of them is there
    #[command(subcommand, after_long_help = help::TOPIC)]
    Topic(TopicCommand),
    /// Talk in a topic, in this terminal
    #[command(after_long_help = help::CHAT)]
    Chat(ChatArgs),
    /// Check, compact or write out the store of a node that is stopped
    #[command(subcommand, after_long_help = help::STORE)]
    Store(StoreCommand),
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
    /// Address to listen on, repeatable [default: every address, the port of last time]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) bind: Vec<SocketAddr>,
    /// Peer to keep a connection to, repeatable: an id, an invite, or ID@ip:port
    #[arg(long = "peer", value_name = "PEER")]
    pub(crate) peers: Vec<PeerAddr>,
    /// Addresses that may be reached although their kind forbids it (loopback, reserved ranges),
    /// repeatable; for tests and closed networks
    #[arg(long = "allow-net", value_name = "CIDR")]
    pub(crate) allow_nets: Vec<Net>,
    /// Neither look for peers on the local network nor be found there
    #[arg(long)]
    pub(crate) no_lan: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// Seconds of an epoch in which seats are voted in [default: 3600]; the same in the whole
    /// network, for networks that are made for a test
    #[arg(long, value_name = "SECONDS", hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(30..=86_400))]
    pub(crate) epoch: Option<u64>,
    /// Ask a public registry for peers when nobody else answers, and be listed there; it tells the
    /// world that this address runs a node, see below
    #[arg(long, value_name = "NAME")]
    pub(crate) registry: Option<Registry>,
}

/// What the owner lends. What is given is kept for later runs.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Whether to serve others: relay, signal, keep and answer the index. Even with auto never on
    /// battery or where the way out is metered [default: auto]
    #[arg(long, value_name = "auto|off")]
    pub(crate) serve: Option<ServeMode>,
    /// Bytes a second to serve at most, such as 500K or 10M [default: 10M]
    #[arg(long, value_name = "RATE", value_parser = rate::parse)]
    pub(crate) serve_rate: Option<u64>,
    /// Bytes to serve in 24 hours at most, such as 5G [default: 20G]
    #[arg(long, value_name = "BYTES", value_parser = rate::parse)]
    pub(crate) serve_bytes_per_day: Option<u64>,
    /// Hours to serve in by this machine's clock, such as 22-6, or always [default: always]
    #[arg(long, value_name = "HOURS")]
    pub(crate) serve_hours: Option<ServeHours>,
    /// Peers that may be reached through this node at a time [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) serve_reservations: Option<u16>,
}

impl ServeArgs {
    /// Puts what is given in the place of what holds; tells whether anything was.
    pub(crate) fn apply(&self, limits: &mut ServeLimits) -> bool {
        let before = limits.clone();
        let Self { serve, serve_rate, serve_bytes_per_day, serve_hours, serve_reservations } = self;
        if let Some(serve) = serve {
            limits.is_on = *serve == ServeMode::Auto;
        }
        if let Some(hours) = serve_hours {
            limits.hours = hours.0;
        }
        limits.rate_bytes_per_s = serve_rate.unwrap_or(limits.rate_bytes_per_s);
        limits.bytes_per_day = serve_bytes_per_day.unwrap_or(limits.bytes_per_day);
        limits.reservations = serve_reservations.map_or(limits.reservations, usize::from);
        *limits != before
    }
}

/// Whether a node serves others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServeMode {
    /// Where it costs the owner nothing but capacity to spare
    Auto,
    /// Never
    Off,
}

/// Hours to serve in; `None` for always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServeHours(Option<Hours>);

impl FromStr for ServeHours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        if text == "always" { Ok(Self(None)) } else { text.parse().map(|hours| Self(Some(hours))) }
    }
}

/// Public registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Registry {
    /// The Mainline DHT, by which file sharers find each other
    Mainline,
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

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read all of it, check every sum and count; changes nothing
    #[command(after_long_help = help::STORE)]
    Check,
    /// Give the room back that it takes and does not need
    #[command(after_long_help = help::STORE)]
    Compact,
    /// Write all entries as JSON, one a line; changes nothing
    #[command(after_long_help = help::STORE)]
    Export {
        /// Write into this file, which must not exist, not to standard output
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// Show a code of a number and three words, and wait for the one who types it
    #[arg(long, conflicts_with_all = ["qr", "no_qr"])]
    pub(crate) words: bool,
    /// Draw the QR code even if standard output is no terminal
    #[arg(long, conflicts_with = "no_qr")]
    pub(crate) qr: bool,
    /// Write the text alone
    #[arg(long)]
    pub(crate) no_qr: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The code, such as 4711-maple-river-stone; blanks will do, and the first four letters of each
    /// word
    #[arg(required = true, num_args = 1..=4, value_name = "WORDS")]
    words: Vec<String>,
    /// Seconds to look for the node that shows it
    #[arg(long, short, value_name = "S", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

impl JoinArgs {
    /// The code.
    ///
    /// # Errors
    ///
    /// If it is none: a wrong command line, which says what to do.
    pub(crate) fn code(&self) -> Result<PairCode, clap::Error> {
        self.words.join(" ").parse().map_err(|error| {
            let mut command = Cli::command();
            let join = command.find_subcommand_mut("join").expect("there is such a command");
            join.error(clap::error::ErrorKind::ValueValidation, error)
        })
    }
}

/// How long commands wait that ask others.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Seconds that a node has from its start to find a peer, and to wait for answers
    #[arg(long, short, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
}

impl WaitArgs {
    pub(crate) fn ms(&self) -> u64 {
        self.timeout * 1_000
    }
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Name of the value, 1 to 64 bytes; another value of this name is replaced
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// The value, at most 1024 bytes; - reads it from standard input
    pub(crate) value: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Who published it: a node id or an invite
    #[arg(value_name = "ID")]
    pub(crate) author: PeerAddr,
    /// Name of the value
    #[arg(value_parser = name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AnnounceArgs {
    /// The topic: any text, the same at all who take part
    #[arg(value_parser = announced)]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LookupArgs {
    /// The topic
    #[arg(value_parser = announced)]
    pub(crate) topic: String,
    /// Peers to find at most
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// Whom: a node id or an invite
    #[arg(value_name = "ID")]
    pub(crate) peer: PeerAddr,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Longest name of a value, in bytes.
const NAME_LEN_MAX: usize = 64;
/// Longest topic, in bytes: it must fit a line of a terminal, and of the daemon.
const TOPIC_LEN_MAX: usize = 1_024;

fn name(text: &str) -> Result<String, String> {
    bounded(text, NAME_LEN_MAX)
}

fn announced(text: &str) -> Result<String, String> {
    bounded(text, TOPIC_LEN_MAX)
}

fn bounded(text: &str, max: usize) -> Result<String, String> {
    match text.len() {
        1.. if text.len() <= max => Ok(text.to_owned()),
        len => Err(format!("it has 1 to {max} bytes, this has {len}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_given_of_what_is_lent_takes_the_place_of_what_holds() {
        let limits_after = |words: &[&str], limits: &mut ServeLimits| {
            let cli = Cli::try_parse_from([&["baran", "up"], words].concat()).unwrap();
            let Command::Up(up) = cli.command else { panic!("{words:?}") };
            up.serve.apply(limits)
        };
        let mut limits = ServeLimits::default();
        assert!(!limits_after(&[], &mut limits));
        assert!(limits_after(&["--serve-hours", "22-6", "--serve-rate", "1M"], &mut limits));
        assert!(limits_after(&["--serve", "off", "--serve-bytes-per-day", "5G"], &mut limits));
        assert_eq!(limits.hours.map(|hours| hours.to_string()).as_deref(), Some("22-6"));
        assert_eq!((limits.is_on, limits.rate_bytes_per_s), (false, 1_000_000));
        assert_eq!((limits.bytes_per_day, limits.reservations), (5_000_000_000, 512));
        assert!(limits_after(&["--serve", "auto", "--serve-hours", "always"], &mut limits));
        assert_eq!((limits.is_on, limits.hours), (true, None));
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

    #[test]
    fn words_may_be_one_argument_or_four() {
        for line in ["baran join 4711-maple-river-stone", "baran join 4711 MAPL rive stone -t 5"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Join(join) = cli.command else { panic!("{line}") };
            assert_eq!(join.code().unwrap().to_string(), "4711-maple-river-stone");
        }
        for (line, expect) in [
            ("baran join 4711-mapel-river-stone", "was it maple?"),
            ("baran join 4711 maple", "a code is a number and three words"),
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Join(join) = cli.command else { panic!("{line}") };
            let error = join.code().unwrap_err();
            assert!(error.use_stderr() && error.to_string().contains(expect), "{error}");
        }
    }

    #[test]
    fn names_and_topics_are_bounded() {
        let long = "x".repeat(65);
        for words in [&["put", "", "v"][..], &["put", &long, "v"], &["announce", ""]] {
            let error = Cli::try_parse_from([&["baran"], words].concat()).unwrap_err();
            assert!(error.to_string().contains("it has 1 to "), "{error}");
        }
        assert!(Cli::try_parse_from(["baran", "put", &long[1..], "-"]).is_ok());
    }
}
