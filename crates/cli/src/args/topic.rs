//! The command line of `topic` and `chat`.

use baran::{TopicInvite, TopicLabel};
use clap::{Args, Subcommand, ValueEnum};

use super::{NodeArgs, TOPIC_LEN_MAX};
use crate::daemon::protocol::SinceWhen;
use crate::daemon::topics::is_invite;
use crate::help;
use crate::view::Profile;

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Found a private topic, and show an invite to write there
    #[command(after_long_help = help::TOPIC_CREATE)]
    Create {
        /// What to call it, 1 to 64 bytes; the invited see it too
        #[arg(long, value_parser = title)]
        title: Option<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Take part in a topic
    #[command(after_long_help = help::TOPIC_JOIN)]
    Join {
        /// An invite (barantopic1...), or the name of a public topic
        #[arg(value_name = "INVITE|NAME", value_parser = topic)]
        what: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show in which topics this node takes part
    #[command(after_long_help = help::TOPIC_LIST)]
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Make an invite to a topic
    #[command(after_long_help = help::TOPIC_INVITE)]
    Invite(TopicInviteArgs),
    /// Show who takes part in a topic, and who is there
    #[command(after_long_help = help::TOPIC_MEMBERS)]
    Members(TopicArgs),
    /// Remove members from a private topic
    #[command(after_long_help = help::TOPIC_REMOVE)]
    Remove {
        /// Which: its name, title, id or the beginning of its id
        #[arg(value_parser = topic)]
        topic: String,
        /// Whom: ids, or the beginnings of members' ids
        #[arg(required = true, value_name = "ID", value_parser = member)]
        members: Vec<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Take part in a topic no longer, and drop what this node has of it
    #[command(after_long_help = help::TOPIC_LEAVE)]
    Leave(TopicArgs),
    /// Say something in a topic
    #[command(after_long_help = help::TOPIC_SEND)]
    Send {
        /// Which: its name, title, id or the beginning of its id
        #[arg(value_parser = topic)]
        topic: String,
        /// What, at most 32728 bytes; - reads it from standard input
        #[arg(value_parser = text, allow_hyphen_values = true)]
        text: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show what was said in a topic, and what is being said
    #[command(after_long_help = help::TOPIC_TAIL)]
    Tail(TailArgs),
    /// Show figures of a topic, and with whom this node is in step
    #[command(after_long_help = help::TOPIC_STATUS)]
    Status(TopicArgs),
}

/// One topic.
#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    /// Which: its name, title, id or the beginning of its id
    #[arg(value_parser = topic)]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TopicInviteArgs {
    /// Which: its name, title, id or the beginning of its id
    #[arg(value_parser = topic)]
    pub(crate) topic: String,
    /// What the invited may do; each may do what those before it may [default: write]
    #[arg(long, value_name = "WHAT")]
    pub(crate) may: Option<May>,
    /// How long the invite, and what it lets do, lasts: such as 30m, 12h, 7d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    pub(crate) expires: Option<u64>,
    /// What the invited are shown [default: the topic's title]
    #[arg(long, value_parser = title)]
    pub(crate) title: Option<String>,
    /// Draw the QR code even if standard output is no terminal
    #[arg(long)]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Which: its name, title, id or the beginning of its id
    #[arg(value_parser = topic)]
    pub(crate) topic: String,
    /// From when on: all, now, or so long ago, such as 10m
    #[arg(long, value_name = "WHEN", default_value = "all", value_parser = since)]
    pub(crate) since: SinceWhen,
    /// Go on with what comes until Ctrl-C, which is so unless --no-follow is given
    #[arg(long, short, overrides_with = "no_follow")]
    pub(crate) follow: bool,
    /// End after what this node has already
    #[arg(long, overrides_with = "follow")]
    pub(crate) no_follow: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Which: the name of a public topic, or the title, the id, the beginning of the id or an
    /// invite of a private one
    #[arg(value_parser = topic)]
    pub(crate) topic: String,
    /// What others are to see as your name, at most 32 bytes [default: that of last time]
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What members may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum May {
    /// Keep and pass on what they cannot read
    Relay,
    /// Read
    Read,
    /// Write
    Write,
    /// Remove members
    Manage,
}

impl May {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Read => "read",
            Self::Write => "write",
            Self::Manage => "manage",
        }
    }
}

/// Longest time until an invite expires: about a hundred years.
const EXPIRY_MAX_S: u64 = 36_500 * 86_400;

/// Something that means a topic. An invite is read, so that one that was cut is no name.
fn topic(text: &str) -> Result<String, String> {
    if is_invite(text) {
        let read = text.parse::<TopicInvite>();
        return read.map(|_| text.trim().to_owned()).map_err(|error| error.to_string());
    }
    if text.parse::<baran::PeerAddr>().is_ok_and(|peer| peer.id.to_string() != text) {
        return Err("this is a node, not a topic: give it by --peer".to_owned());
    }
    super::bounded(text, TOPIC_LEN_MAX)
}

fn title(text: &str) -> Result<String, String> {
    if TopicLabel::is_valid(text) {
        return Ok(text.to_owned());
    }
    Err(format!("a title has 1 to {} bytes on one line", TopicLabel::LEN_MAX))
}

/// A name by which members are called.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let max = Profile::NAME_LEN_MAX;
    if (1..=max).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("a name has 1 to {max} bytes on one line"))
}

fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("there is nothing to say".to_owned()) } else { Ok(text.to_owned()) }
}

fn member(text: &str) -> Result<String, String> {
    let is_id = |c: char| c.is_ascii_alphabetic() || ('2'..='7').contains(&c);
    if (4..=52).contains(&text.len()) && text.chars().all(is_id) {
        return Ok(text.to_owned());
    }
    Err("an id has 52 letters and digits from 2 to 7, and its beginning at least 4".to_owned())
}

/// Seconds of a time such as `90s`, `30m`, `12h`, `7d`.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: such as 90s, 30m, 12h, 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

fn expiry(text: &str) -> Result<u64, String> {
    match seconds(text)? {
        seconds @ 1..=EXPIRY_MAX_S => Ok(seconds),
        _ => Err(format!("{text:?} is no time until an invite expires: such as 30m, 12h, 7d")),
    }
}

fn since(text: &str) -> Result<SinceWhen, String> {
    match text {
        "all" => Ok(SinceWhen::All),
        "now" => Ok(SinceWhen::Now),
        _ => Ok(SinceWhen::Ago(seconds(text)?.saturating_mul(1_000))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn times_are_read() {
        assert_eq!(since("10m"), Ok(SinceWhen::Ago(600_000)));
        assert_eq!(since("all"), Ok(SinceWhen::All));
        assert_eq!(expiry("7d"), Ok(604_800));
        for wrong in ["", "7", "d", "-1d", "1w", "1é", "99999999999999999999d"] {
            since(wrong).unwrap_err();
        }
        expiry("0s").unwrap_err();
        expiry("40000d").unwrap_err();
    }

    #[test]
    fn what_cannot_mean_a_topic_is_refused() {
        let id = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";
        let at = format!("{id}@127.0.0.1:1");
        let long = "x".repeat(1_025);
        for wrong in ["", &long, "barantopic1abc", "BARANTOPIC1", &at] {
            let parsed = Cli::try_parse_from(["baran", "topic", "join", wrong]);
            assert!(parsed.unwrap_err().use_stderr(), "{wrong}");
        }
        for right in ["birds", id, "barantopic", "Ω", "a b"] {
            Cli::try_parse_from(["baran", "topic", "join", right]).unwrap();
        }
    }

    #[test]
    fn a_tail_follows_unless_the_last_word_is_otherwise() {
        for (words, follows) in [
            (&[][..], true),
            (&["--no-follow"], false),
            (&["--no-follow", "-f"], true),
            (&["-f", "--no-follow"], false),
        ] {
            let words = [&["baran", "topic", "tail", "birds"], words].concat();
            let cli = Cli::try_parse_from(&words).unwrap();
            let Command::Topic(TopicCommand::Tail(tail)) = cli.command else { panic!() };
            assert_eq!(!tail.no_follow, follows, "{words:?}");
        }
    }

    #[test]
    fn members_and_names_are_bounded() {
        for wrong in ["abc", "ab1d", "abcé", &"a".repeat(53)] {
            member(wrong).unwrap_err();
        }
        assert_eq!(name(" ana "), Ok("ana".to_owned()));
        for wrong in ["", "  ", "a\nb", &"a".repeat(33)] {
            name(wrong).unwrap_err();
        }
    }
}
