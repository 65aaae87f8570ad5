//! What the commands of topics write.

use std::fmt;

use baran::{Capability, Member, NodeId, Received};
use chrono::{DateTime, Local};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::short;
use crate::{escape, rate};

/// A topic that this node takes part in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicView {
    /// Its id.
    pub(crate) id: String,
    /// The name of a public one; null of a private one.
    pub(crate) name: Option<String>,
    /// What this node's owner, or the invite, calls it.
    pub(crate) title: Option<String>,
    /// What this node may do there.
    pub(crate) may: String,
    /// Members that are known.
    pub(crate) members: usize,
    /// Of them, those that are there, this node among them.
    pub(crate) online: usize,
    /// Entries that this node has.
    pub(crate) entries: usize,
}

impl TopicView {
    /// What to call it in a line.
    pub(crate) fn label(&self) -> &str {
        self.name.as_deref().or(self.title.as_deref()).unwrap_or_else(|| short(&self.id))
    }
}

impl fmt::Display for TopicView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.name.is_some() { "public" } else { "private" };
        write!(f, "{}  {kind}  {}", self.id, escape::name(self.label()))?;
        if let (Some(_), Some(title)) = (&self.name, &self.title) {
            write!(f, " ({})", escape::name(title))?;
        }
        let Self { members, online, entries, may, .. } = self;
        write!(f, ", may {may}, {online} of {members} there, {entries} entries")
    }
}

/// A topic that was founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Created {
    /// Its id.
    pub(crate) id: String,
    /// Its title.
    pub(crate) title: Option<String>,
    /// Lets everybody who has it write there.
    pub(crate) invite: String,
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.id, self.invite)
    }
}

/// An invite to a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicInviteView {
    /// The topic's id.
    pub(crate) topic: String,
    /// The invite.
    pub(crate) invite: String,
    /// What it lets do.
    pub(crate) may: String,
    /// Until when it can be used and grants anything, in seconds since 1970; null: for ever.
    pub(crate) expires: Option<u64>,
    /// What the invited are shown.
    pub(crate) title: Option<String>,
}

impl fmt::Display for TopicInviteView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.invite)
    }
}

/// A member of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberView {
    /// Its id.
    pub(crate) id: String,
    /// What it calls itself, which proves nothing.
    pub(crate) name: Option<String>,
    /// Whether it is this node.
    pub(crate) me: bool,
    /// What it may do, if it has shown that.
    pub(crate) may: Option<String>,
    /// Whether it is there.
    pub(crate) online: bool,
    /// Whether it says that nobody looks at its screen.
    pub(crate) away: bool,
    /// Whether it is linked to this node.
    pub(crate) neighbor: bool,
    /// Whether it was removed.
    pub(crate) removed: bool,
    /// Whether it said two things in one place, and counts no more.
    pub(crate) forked: bool,
    /// Its last entry that this node has.
    pub(crate) seq: u64,
    /// The last entry of this node that it has said to have.
    pub(crate) has_ours: u64,
}

impl MemberView {
    /// A member as `me` sees it.
    pub(crate) fn new(member: &Member, me: NodeId) -> Self {
        let profile = member.status.as_deref().map(Profile::read).unwrap_or_default();
        Self {
            id: member.id.to_string(),
            name: profile.name,
            me: member.id == me,
            may: member.rank.map(|rank| may(rank).to_owned()),
            online: member.is_online,
            away: profile.away,
            neighbor: member.is_neighbor,
            removed: member.is_removed,
            forked: member.is_forked,
            seq: member.seq,
            has_ours: member.has_ours,
        }
    }
}

impl fmt::Display for MemberView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presence = if self.online && !self.away { '●' } else { '○' };
        write!(f, "{presence} {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, "  {}", escape::name(name))?;
        }
        write!(f, "  may {}", self.may.as_deref().unwrap_or("unknown"))?;
        write!(f, ", {} entries", self.seq)?;
        let marks = [
            (self.me, "this node"),
            (self.neighbor, "linked"),
            (self.removed, "removed"),
            (self.forked, "forked its log"),
        ];
        marks.iter().filter(|(is_so, _)| *is_so).try_for_each(|(_, what)| write!(f, ", {what}"))
    }
}

/// What a member says of itself, as JSON in its status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Whether nobody looks at its screen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) away: bool,
}

impl Profile {
    /// Longest name that is shown, in bytes.
    pub(crate) const NAME_LEN_MAX: usize = 32;

    /// Reads what somebody says; what makes no sense is nothing. A name is cut to
    /// [`Profile::NAME_LEN_MAX`] bytes.
    pub(crate) fn read(status: &[u8]) -> Self {
        let mut read: Self = serde_json::from_slice(status).unwrap_or_default();
        if let Some(name) = &mut read.name {
            name.truncate(name.floor_char_boundary(Self::NAME_LEN_MAX));
            *name = name.trim().to_owned();
        }
        read.name = read.name.filter(|name| !name.is_empty());
        read
    }

    /// What is said.
    pub(crate) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and truth are JSON")
    }
}

/// Members that were removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// The topic's id.
    pub(crate) topic: String,
    /// Their ids.
    pub(crate) removed: Vec<String>,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "removed {}", self.removed.join(", "))
    }
}

/// A topic that was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    /// Its id.
    pub(crate) left: String,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left {}", self.left)
    }
}

/// Something that was said by this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The topic's id.
    pub(crate) topic: String,
    /// Its number in this node's log there.
    pub(crate) seq: u64,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent, number {} of this node", self.seq)
    }
}

/// Something that somebody said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Id of who.
    pub(crate) author: String,
    /// What the author calls itself, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Its number in the author's log.
    pub(crate) seq: u64,
    /// When by the author's clock, in milliseconds since 1970.
    pub(crate) time: u64,
    /// What; null if that is no text, or cannot be read for lack of the key.
    pub(crate) text: Option<String>,
    /// What, in base64, if it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
    /// What kind of payload it is, if no message.
    #[serde(default, skip_serializing_if = "is_message")]
    pub(crate) kind: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_message(kind: &u8) -> bool {
    *kind == baran::KIND_MESSAGE
}

impl Said {
    /// What was received, of an author of this name.
    pub(crate) fn new(received: &Received, name: Option<String>) -> Self {
        let bytes = received.payload.as_deref();
        let text = bytes.and_then(|bytes| str::from_utf8(bytes).ok()).map(str::to_owned);
        let data = bytes.filter(|_| text.is_none()).map(|bytes| BASE64.encode(bytes));
        Self {
            author: received.author.to_string(),
            name,
            seq: received.seq,
            time: received.time_ms,
            text,
            data,
            kind: received.kind,
        }
    }

    /// Its lines for people, escaped.
    pub(crate) fn lines(&self) -> Vec<String> {
        match (&self.text, &self.data) {
            (Some(text), _) => escape::lines(text),
            (None, Some(data)) => {
                let padding = data.bytes().filter(|byte| *byte == b'=').count();
                vec![format!("[no text: {} bytes]", (data.len() / 4 * 3).saturating_sub(padding))]
            }
            (None, None) => vec!["[cannot be read: its key is not known]".to_owned()],
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:", local(self.time, "%F %T"), who(self.name.as_deref(), &self.author, 8))?;
        let mut lines = self.lines().into_iter();
        write!(f, " {}", lines.next().unwrap_or_default())?;
        // A line of a message never begins where a line of ours does.
        lines.try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// A topic at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicStatus {
    /// What it is.
    #[serde(flatten)]
    pub(crate) topic: TopicView,
    /// Bytes of the entries.
    pub(crate) bytes: usize,
    /// Members whose logs are known.
    pub(crate) authors: usize,
    /// How often members were removed: the number of the key.
    pub(crate) epoch: u32,
    /// Linked members.
    pub(crate) neighbors: Vec<NeighborView>,
    /// Entries that were pushed to this node and new to it.
    pub(crate) pushed_new: u64,
    /// Entries that were pushed to this node, which had them.
    pub(crate) pushed_duplicate: u64,
}

/// A linked member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NeighborView {
    /// Its id.
    pub(crate) id: String,
    /// Since when both have the same, in milliseconds since 1970; null if they do not, or have not
    /// compared.
    pub(crate) synced_since: Option<u64>,
}

impl fmt::Display for TopicStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TopicView { id, name, title, may, members, online, entries } = &self.topic;
        let text = |text: &Option<String>, none: &str| {
            text.as_deref().map_or_else(|| none.to_owned(), escape::name)
        };
        writeln!(f, "id         {id}")?;
        writeln!(f, "name       {}", text(name, "- (private)"))?;
        writeln!(f, "title      {}", text(title, "-"))?;
        writeln!(f, "may        {may}")?;
        writeln!(f, "members    {members}, of whom {online} there")?;
        let bytes = rate::human(u64::try_from(self.bytes).unwrap_or(u64::MAX));
        writeln!(f, "entries    {entries} of {} authors, {bytes}", self.authors)?;
        writeln!(f, "epoch      {}", self.epoch)?;
        writeln!(f, "pushed     {} new, {} known", self.pushed_new, self.pushed_duplicate)?;
        let count = self.neighbors.len();
        write!(f, "neighbours {count}")?;
        self.neighbors.iter().try_for_each(|neighbor| {
            let id = short(&neighbor.id);
            match neighbor.synced_since {
                Some(since) => write!(f, "\n  {id} in step since {}", local(since, "%F %T")),
                None => write!(f, "\n  {id} not in step yet"),
            }
        })
    }
}

/// The word for what somebody may do.
pub(crate) fn may(rank: Capability) -> &'static str {
    match rank {
        Capability::Relay => "relay",
        Capability::Read => "read",
        Capability::Write => "write",
        Capability::Manage => "manage",
    }
}

/// `ana·25nj`: a name, which anybody may take, and the beginning of the id, which not everybody
/// can.
pub(crate) fn who(name: Option<&str>, id: &str, len: usize) -> String {
    let id = id.get(..len).unwrap_or(id);
    // A name with the dot could pass for another with an id.
    name.map_or_else(
        || id.to_owned(),
        |name| format!("{}·{id}", escape::name(name).replace('·', ".")),
    )
}

/// A time in milliseconds since 1970 by this machine's clock, as the `format` of `strftime` says.
pub(crate) fn local(time_ms: u64, format: &str) -> String {
    let time = i64::try_from(time_ms).ok().and_then(DateTime::from_timestamp_millis);
    // Others choose their clocks.
    time.map_or_else(
        || "?".to_owned(),
        |time| time.with_timezone(&Local).format(format).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, name: Option<&str>) -> Said {
        let (author, name) = ("25njqamcweflpvkl".to_owned(), name.map(str::to_owned));
        Said { author, name, seq: 1, time: 0, text: Some(text.to_owned()), data: None, kind: 0 }
    }

    #[test]
    fn what_is_said_cannot_pass_for_another_line() {
        let text =
            said("one\n1970-01-01 00:00:00 bob·25njqamc: two\n\x1b[2J", Some("ana\n")).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].ends_with(" ana\\u{a}·25njqamc: one"), "{text}");
        assert!(lines[1..].iter().all(|line| line.starts_with("    ")), "{text}");
        assert!(lines[2].ends_with("\\u{1b}[2J"), "{text}");
        assert!(said("x", Some("ana·25nj")).to_string().contains("ana.25nj·25njqamc"));
    }

    #[test]
    fn what_is_no_text_or_of_no_clock_is_shown_all_the_same() {
        let mut said = Said { text: None, data: Some("/w==".to_owned()), ..said("", None) };
        assert!(said.to_string().contains("[no text"), "{said}");
        said = Said { data: None, time: u64::MAX, ..said };
        assert!(said.to_string().starts_with("? 25njqamc: [cannot be read"), "{said}");
    }

    #[test]
    fn profiles_are_bounded_and_read_from_anything() {
        let profile = Profile { name: Some("ana".to_owned()), away: true };
        assert_eq!(Profile::read(&profile.write()), profile);
        let long = format!("{{\"name\":\" {}\"}}", "é".repeat(40));
        let name = Profile::read(long.as_bytes()).name.unwrap();
        assert!(name.len() <= Profile::NAME_LEN_MAX && name.starts_with('é'), "{name}");
        for nonsense in [&b""[..], b"\xff", b"[]", b"{\"name\":7}", b"{\"name\":\"  \"}"] {
            assert_eq!(Profile::read(nonsense), Profile::default());
        }
    }
}
