//! The long help of each command: what it writes with `--json`. `docs/cli.md` says it in full.

pub(crate) const DATA: &str = "\
Data directory: the identity, the lock and the daemon's socket [default: $BARAN_DATA, else \
$XDG_DATA_HOME/baran, else ~/.local/share/baran]";

pub(crate) const OVERVIEW: &str = "\
PEER is a node id (52 characters), an invite (baran1...) or ID@ip:port.

A command uses the daemon (`baran up`) of its data directory if one runs, else a node of its own,
with the same identity, for as long as it lasts.

With --json every command writes one JSON object a line. A command that fails writes
{\"error\":TEXT} there too. Ids are written in full, times in milliseconds to the microsecond.

Exit codes: 0 done, 1 failed, 2 wrong command line.";

pub(crate) const UP: &str = "\
With --json, a line for each event. First
  {\"event\":\"listening\",\"id\",\"invite\",\"addresses\":[...]}
then, when the node is connected to a peer, and again after it had none,
  {\"event\":\"joined\",\"peers\":N}
and whenever something changes
  {\"event\":\"peer-up\"|\"peer-down\",\"peer\"}
  {\"event\":\"path\",\"peer\",\"path\":\"direct\"|\"relayed\",\"via\",\"remote\",\"rtt_ms\"}
  {\"event\":\"observed\",\"addresses\":[...],\"invite\"}      others see this node there
  {\"event\":\"home\",\"peer\",\"held\":true|false,\"invite\"}   the peer relays to this node
  {\"event\":\"serving\",\"peer\",\"granted\":true|false}      this node relays to the peer
  {\"event\":\"unreachable\",\"peer\"}                        nobody could be asked; tried again

SIGTERM, SIGINT and SIGHUP close the node within 5 s, exit code 0. A second daemon on the same data
directory exits at once with code 1 and names the first one's process.";

pub(crate) const PING: &str = "\
With --json, a line for each reply
  {\"seq\",\"rtt_ms\",\"path\":\"direct\"|\"relayed\",\"via\",\"remote\"}
with the path in use when it came (`via`: id of the peer that relays, `remote`: the peer's address
if direct), {\"event\":\"lost\",\"reason\"} when the connection broke, and at the end
  {\"sent\",\"received\",\"first_reply_ms\",\"direct_after_ms\"}
first_reply_ms counts from the command's start; direct_after_ms from the first reply to the moment
the path became direct, whatever the interval: 0 if it was by then, null if it never was.

Exit code 0 only if every ping was answered. Ctrl-C ends with the last line.";

pub(crate) const PIPE: &str = "\
`listen` waits for one peer, `connect` is that peer. Each side's standard input comes out at the
other's standard output, byte by byte, to its end; the other direction goes on. Exit code 0 only if
each side has written out all that the other sent, and both know it.

With --json, on standard error
  {\"event\":\"listening\",\"id\",\"invite\"}
  {\"event\":\"open\",\"peer\",\"path\":\"direct\"|\"relayed\",\"via\",\"remote\"}
  {\"event\":\"done\",\"sent\",\"received\",\"seconds\"}
  {\"error\"}
The command ends when both inputs have ended: if one side has nothing to say, give it </dev/null.";

pub(crate) const STATUS: &str = "\
With --json, one object:
  {\"id\",\"network\",\"daemon\":true|false,\"pid\",\"uptime_s\",
   \"addresses\":[...],          this machine's
   \"observed\":[...],           as others see them
   \"nat\":\"none\"|\"endpoint-independent\"|\"address-dependent\"|\"unknown\",
   \"homes\":[id...],            peers that relay and signal for this node
   \"relay\":{\"rate_bytes_per_s\",\"bytes_per_day\",\"reservations_max\",   the owner's limits
            \"serving\":[id...],   peers that this node relays and signals for
            \"channels\":[{\"from\",\"to\"}...],\"bytes\",\"bytes_today\"},
   \"peers\":[{\"id\",\"path\",\"via\",\"remote\",\"rtt_ms\",\"sessions\"}...]}";

pub(crate) const ID: &str = "\
Makes the identity if the data directory has none. With --json: {\"id\"}";

pub(crate) const INVITE: &str = "\
The QR code follows the text if standard output is a terminal. Without a daemon the invite names no
address, unless --bind says which port the node will have.

With --json: {\"id\",\"invite\",\"addresses\":[...],\"homes\":[id...]}";
