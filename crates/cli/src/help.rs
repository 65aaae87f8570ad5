//! The long help of each command: what it writes with `--json`. `docs/cli.md` says it in full.

pub(crate) const DATA: &str = "\
Data directory: the identity, the lock and the daemon's socket [default: $BARAN_DATA, else \
$XDG_DATA_HOME/baran, else ~/.local/share/baran]";

pub(crate) const OVERVIEW: &str = "\
PEER is a node id (52 characters), an invite (baran1...) or ID@ip:port. A peer is found by its id
alone as soon as this node is connected to anybody of the network.

A command uses the daemon (`baran up`) of its data directory if one runs, else a node of its own,
with the same identity, for as long as it lasts.

With --json every command writes one JSON object a line. A command that fails writes
{\"error\":TEXT} there too. Ids are written in full, times in milliseconds to the microsecond.

Exit codes: 0 done, 1 failed, 2 wrong command line.";

pub(crate) const UP: &str = "\
With --json, a line for each event. First
  {\"event\":\"listening\",\"id\",\"invite\",\"addresses\":[...]}
then, when the node is connected to a peer, and again after it had none,
  {\"event\":\"joined\",\"peers\":N,\"by\":\"lan\"|\"cache\"|\"registry\"|\"configured\"|
                                  \"incoming\"}
and whenever something changes
  {\"event\":\"alone\"}                               no known peer answers; tried again
  {\"event\":\"peer-up\"|\"peer-down\",\"peer\"}
  {\"event\":\"path\",\"peer\",\"path\":\"direct\"|\"relayed\",\"via\",\"remote\",\"rtt_ms\"}
  {\"event\":\"observed\",\"addresses\":[...],\"invite\"}      others see this node there
  {\"event\":\"home\",\"peer\",\"held\":true|false,\"invite\"}   the peer relays to this node
  {\"event\":\"serving\",\"peer\",\"granted\":true|false}      this node relays to the peer
  {\"event\":\"unreachable\",\"peer\"}                        nobody could be asked; tried again

What is given of the --serve options is kept in the data directory and holds for later runs too,
until something else is given. The rate and the bytes of a day are limits of all that is served
together: relayed bytes, answers of the index, signalling. Bytes of the day are counted over
restarts. `baran roles` shows where it stands.

--registry mainline lets a node that has had no peer for 12 s look for some in the BitTorrent
Mainline DHT, and lists it there while it has none or strangers can reach it. Everybody who knows
the network's name can then read that this address runs the node with this id. Off unless given, and
only in a program built with `--features mainline`.

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
   \"serve\",\"puzzle\":           as `baran roles` has them
   \"index\":{\"joined_by\":\"lan\"|\"cache\"|\"configured\"|\"incoming\"|null,   null: alone
            \"table\",\"warm\",          peers in the table; warm connections
            \"records\",\"record_bytes\",   kept for others
            \"nodes_estimate\",         of the whole network; null if unknown
            \"clock_skew_s\",           by which the peers' calendars are ahead
            \"requests_sent\",\"requests_served\"},
   \"peers\":[{\"id\",\"path\",\"via\",\"remote\",\"rtt_ms\",\"sessions\"}...]}";

pub(crate) const ROLES: &str = "\
With --json, one object:
  {\"id\",\"daemon\":true|false,
   \"serve\":{\"mode\":\"auto\"|\"off\",
            \"paused\":\"off\"|\"hours\"|\"battery\"|\"metered\"|\"day-used\"|null,
            \"rate_bytes_per_s\",\"bytes_per_day\",\"hours\",\"reservations_max\",
            \"bytes_today\",\"day_ends_s\"},
   \"relay\":{\"serving\":[id...],\"channels\":[{\"from\",\"to\"}...],\"bytes\"},
   \"index\":{\"records\",\"record_bytes\",\"requests_served\",\"answer_bytes\"},
   \"puzzle\":{\"state\":\"unwanted\"|\"solving\"|\"solved\",\"tries\",\"expected\"},
   \"homes\":[{\"id\",\"path\",\"via\",\"remote\",\"rtt_ms\"}...]}";

pub(crate) const ID: &str = "\
Makes the identity if the data directory has none. With --json: {\"id\"}";

pub(crate) const SIM: &str = "\
Nodes run the same state machines as here, in a network of virtual time with NATs, latency, churn
and adversaries. One seed gives one run. Nothing is sent; a large world takes memory and minutes.

  baran sim lookup --nodes 10000 --minutes 10
  baran sim mass-restart --within 60 --seeds 1..5
  baran sim all-seats-lost --policy fixed --plot lost.svg
  baran sim report --nodes 1000,10000

Exit code 1 if a target of the scenario is missed. With --json: one object with all figures, or
{\"runs\":[...],\"figures\":{NAME:{\"median\",\"least\",\"most\"}},\"met\"} with --seeds.";

pub(crate) const INVITE: &str = "\
The QR code follows the text if standard output is a terminal. Without a daemon the invite names no
address if --bind gives the node a port of the system's choice.

With --json: {\"id\",\"invite\",\"addresses\":[...],\"homes\":[id...]}

With --words a code is shown, such as 4711-maple-river-stone, for one peer and ten minutes:
  here    baran invite --words
  there   baran join 4711-maple-river-stone
The two nodes find each other on the LAN or in the network, prove the words to each other without
sending them, and stay each other's peers from then on. One wrong guess ends the code. With --json
  {\"event\":\"code\",\"code\",\"id\",\"expires_s\"}
  {\"event\":\"paired\",\"peer\",\"invite\",\"confirmed\":true|false}
Exit code 0 only if a peer was paired.";

pub(crate) const JOIN: &str = "\
Example: baran join 4711-maple-river-stone

The code is shown by `baran invite --words` on the other machine, which must still be waiting, in
the same LAN or the same network. Both nodes are peers of each other from then on, in later runs
too; the file `paired` of the data directory lists them.

With --json: {\"event\":\"paired\",\"peer\",\"invite\",\"confirmed\":true}";

pub(crate) const PUT: &str = "\
Example: baran put address 'Vienna, Praterstern'
         baran put key - <id_ed25519.pub

Anybody who knows this node's id reads it with `baran get ID NAME`. The nodes near its place in the
index keep it. It is stored anew as long as this node runs, in later runs too; without it, it lasts
48 hours.

With --json: {\"id\",\"name\",\"kept\",\"wanted\"}: the nodes that keep it, of those that should.
Exit code 1 if nobody keeps it yet.";

pub(crate) const GET: &str = "\
Example: baran get 25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena address

The value goes to standard output as it is, byte by byte; on a terminal, escaped and with a line's
end. Exit code 1 if there is none.

With --json: {\"value\",\"sequence\",\"expires\"}; a value that is no UTF-8 is null and stands, in
base64, in \"value_base64\". \"expires\" is in seconds since 1970.";

pub(crate) const ANNOUNCE: &str = "\
Example: baran announce chess/vienna

Whoever looks the topic up finds this node, until Ctrl-C and for two hours at most after it. Those
who keep the announcement do not learn the topic's name. With a daemon it is the daemon that is
announced.

With --json, now and about every hour: {\"event\":\"announced\",\"topic\",\"kept\",\"wanted\"}";

pub(crate) const LOOKUP: &str = "\
Example: baran lookup chess/vienna --limit 5

Writes the ids of the peers as they are found, one a line; of many, a fair sample. Exit code 1 if
nobody announces the topic.

With --json: {\"id\"} a line";

pub(crate) const RESOLVE: &str = "\
Example: baran resolve 25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena

What the peer itself has published of where it is. Exit code 1 if nobody knows.

With --json: {\"id\",\"invite\",\"addresses\":[...],\"homes\":[id...]}";

pub(crate) const STORE: &str = "\
The node must be stopped: each of them takes the data directory for itself, and fails at once with
the process that has it if one runs.

`check` and `export` change nothing. `compact` loses nothing, whenever it is interrupted. A damaged
store is left as it is; the error says what was found and what to do. An export holds all that the
node keeps, for others and of its own, but not its identity; a file gets the mode 0600 and is never
overwritten.

With --json
  check    {\"whole\":true,\"format\",\"file_bytes\",\"unused_bytes\",
            \"tables\":[{\"table\",\"entries\",\"key_bytes\",\"value_bytes\"}...]}
  compact  {\"before_bytes\",\"after_bytes\",\"freed_bytes\"}
  export   to a file: {\"file\",\"entries\",\"bytes\"}
An entry is {\"table\",\"key\",\"value\"}, with or without --json: the key in hexadecimal, the value
in base64.

Exit code 1 if the store is damaged or cannot be used.";

pub(crate) const TOPIC: &str = "\
A topic is a group. What one member says reaches all, by way of each other; who was away gets it
later from whoever is there. Everybody who knows the name of a public topic may read and write
there. A private one is encrypted; who has an invite may do what the invite says.

  here    baran topic create --title club            shows an invite
  there   baran topic join barantopic1...
  here    baran topic send club 'hello'
  there   baran topic tail club
  both    baran chat club

TOPIC is a name, a title, an id or the beginning of an id, at least 4 characters. `send`, `tail` and
`chat` join a public topic of the name if there is no other.

A node takes part as long as it runs, in later runs too, until `baran topic leave`. So let a daemon
run (`baran up`): without one, a command takes part for as long as it lasts.";

pub(crate) const TOPIC_CREATE: &str = "\
Example: baran topic create --title 'our club'

Whoever has the invite may write there and invite others. This node may remove members. For other
invites: `baran topic invite`. The title stays with this node and in its invites.

With --json: {\"id\",\"title\",\"invite\"}";

pub(crate) const TOPIC_JOIN: &str = "\
Example: baran topic join barantopic1aeak...
         baran topic join birds

A text that is no invite is the name of a public topic, which anybody may join who knows it.

With --json: {\"id\",\"name\",\"title\",\"may\":\"relay\"|\"read\"|\"write\"|\"manage\",\"members\",
\"online\",\"entries\"}; the name of a private topic is null.";

pub(crate) const TOPIC_LIST: &str = "\
With --json, a line for each topic: what `baran topic join` writes.";

pub(crate) const TOPIC_INVITE: &str = "\
Example: baran topic invite club --may read --expires 7d --qr

Everybody who has the text can use it until it expires. What it lets do expires with it. Nobody can
let others do more than he may himself. An invite to a public topic holds the name, so --may and
--expires are refused.

With --json: {\"topic\",\"invite\",\"may\",\"expires\",\"title\"}; \"expires\" is in seconds since
1970, null for never.";

pub(crate) const TOPIC_MEMBERS: &str = "\
Those that are there are marked with \u{25cf}. Anybody may take any name; the id tells who it is.

With --json, a line for each
  {\"id\",\"name\",\"me\",\"may\",\"online\",\"away\",\"neighbor\",\"removed\",\"forked\",
   \"seq\",\"has_ours\"}
\"seq\" is its last entry here, \"has_ours\" the last one of this node that it has said to have.";

pub(crate) const TOPIC_REMOVE: &str = "\
Example: baran topic remove club 25njqamc

The members read nothing that is said from then on, and what they say counts no more. What they have
they keep. Only who may manage the topic can do it.

With --json: {\"topic\",\"removed\":[id...]}";

pub(crate) const TOPIC_LEAVE: &str = "\
This node drops all that it has of the topic, the right to be there too. To come back into a private
one takes an invite. What was said stays with the others.

With --json: {\"left\":id}";

pub(crate) const TOPIC_SEND: &str = "\
Example: baran topic send birds 'a kestrel on the church'
         uptime | baran topic send birds -

Returns when it is on this node's disk and on its way. Of standard input the last line's end is not
sent.

With --json: {\"topic\",\"seq\"}: the id, and the number in this node's log there.";

pub(crate) const TOPIC_TAIL: &str = "\
Example: baran topic tail birds --since 10m
         baran topic tail birds --json --no-follow | jq .text

Writes what was said in the order in which this node came to know it. Goes on until Ctrl-C, exit
code 0.

With --json, a line for each
  {\"author\",\"seq\",\"time\",\"text\"}
with \"name\" too if the author says one. \"time\" is in milliseconds since 1970, by the author's
clock. What is no text is null and stands, in base64, in \"data\"; what is not a message has a
\"kind\", 16 to 255, an application's.";

pub(crate) const TOPIC_STATUS: &str = "\
With --json, one object: what `baran topic join` writes, and
  \"bytes\",\"authors\",\"epoch\",                 of the entries; how often the key was changed
  \"neighbors\":[{\"id\",\"synced_since\"}...],   in ms since 1970; null: not in step
  \"pushed_new\",\"pushed_duplicate\"            entries that came new, and again";

pub(crate) const CHAT: &str = "\
Example: baran chat birds --name ana

  Enter           say it          Ctrl-J, Alt-Enter   a new line in it
  PageUp, PageDown, Home, End     scroll              Up, Down   what you typed before
  Ctrl-A, Ctrl-E  begin, end      Ctrl-W, Ctrl-U, Ctrl-K   erase a word, to the begin, to the end
  Tab             show or hide the members            Ctrl-C, Ctrl-D   end
  /me /who /name /invite /help /quit                  //text says /text

Behind what you said: … is being written, ✓ is on this node's disk, ✓✓ 3 has reached 3 members, as
far as they have said so: within seconds in a topic of up to 32 members, not at all in a larger one.
Names are what members say; behind the dot is the beginning of the id, which is theirs alone.";
