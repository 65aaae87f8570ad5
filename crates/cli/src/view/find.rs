//! What `put`, `get`, `announce`, `lookup`, `resolve`, `invite --words` and `join` write.

use std::fmt;

use baran::{NodeId, PeerAddr, Receipt, Value};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{InviteView, list};

/// A published value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Id of this node, whose value it is.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Nodes that keep it.
    pub(crate) kept: usize,
    /// Nodes that should.
    pub(crate) wanted: usize,
    /// Seconds by which the peers' clocks are ahead, if that is too much for records.
    pub(crate) clock_skew_s: Option<i64>,
}

impl Kept {
    pub(crate) fn new(id: NodeId, name: &str, receipt: Receipt, clock_skew_s: Option<i64>) -> Self {
        let Receipt { kept, wanted, .. } = receipt;
        Self { id: id.to_string(), name: name.to_owned(), kept, wanted, clock_skew_s }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kept by {}", nodes(self.kept, self.wanted))?;
        if self.kept > 0 {
            write!(f, "; to read it: baran get {} {:?}", self.id, self.name)?;
        }
        Ok(())
    }
}

/// `3 of 20 nodes`.
fn nodes(kept: usize, wanted: usize) -> String {
    match (kept, wanted) {
        (0, _) => "nobody yet".to_owned(),
        (1, 0..=1) => "1 node".to_owned(),
        _ if kept >= wanted => format!("{kept} nodes"),
        _ => format!("{kept} of {wanted} nodes"),
    }
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ValueView {
    /// The value, if it is text.
    pub(crate) value: Option<String>,
    /// The value in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value_base64: Option<String>,
    /// Higher in each version of it.
    pub(crate) sequence: u64,
    /// When those who keep it drop it, in seconds since 1970.
    pub(crate) expires: u64,
}

impl From<&Value> for ValueView {
    fn from(found: &Value) -> Self {
        let text = str::from_utf8(&found.value).ok().map(ToOwned::to_owned);
        let value_base64 = text.is_none().then(|| BASE64.encode(&found.value));
        let (sequence, expires) = (found.sequence, found.expires.as_secs());
        Self { value: text, value_base64, sequence, expires }
    }
}

impl ValueView {
    /// The value as it was published.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let base64 = self.value_base64.unwrap_or_default();
        // What stands here was encoded by the node that works for us.
        let bytes = || BASE64.decode(base64.as_bytes()).unwrap_or_default();
        self.value.map_or_else(bytes, String::into_bytes)
    }
}

impl fmt::Display for ValueView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.clone().into_bytes()))
    }
}

/// A topic is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announced {
    /// Always `announced`.
    pub(crate) event: String,
    /// The topic.
    pub(crate) topic: String,
    /// Nodes that keep the announcement.
    pub(crate) kept: usize,
    /// Nodes that should.
    pub(crate) wanted: usize,
    /// Seconds by which the peers' clocks are ahead, if that is too much for records.
    pub(crate) clock_skew_s: Option<i64>,
}

impl Announced {
    pub(crate) fn new(topic: &str, receipt: Receipt, clock_skew_s: Option<i64>) -> Self {
        let Receipt { kept, wanted, .. } = receipt;
        Self { event: "announced".to_owned(), topic: topic.to_owned(), kept, wanted, clock_skew_s }
    }
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "announced, kept by {}", nodes(self.kept, self.wanted))
    }
}

/// A peer of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundPeer {
    /// Its id.
    pub(crate) id: String,
}

impl fmt::Display for FoundPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// Where a peer says it is.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Resolved(pub(crate) InviteView);

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "id         {}", self.0.id)?;
        writeln!(f, "addresses  {}", list(&self.0.addresses, ToString::to_string))?;
        writeln!(f, "homes      {}", list(&self.0.homes, Clone::clone))?;
        write!(f, "invite     {}", self.0.invite)
    }
}

/// What happens to a code of words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum PairEvent {
    /// It is shown.
    Code {
        /// The code.
        code: String,
        /// This node's id.
        id: String,
        /// Seconds that it may be used.
        expires_s: u64,
    },
    /// It has paired a peer.
    Paired {
        /// The peer's id.
        peer: String,
        /// The peer's invite.
        invite: String,
        /// Whether the peer has said that it is paired too.
        confirmed: bool,
    },
}

impl PairEvent {
    pub(crate) fn paired(peer: &PeerAddr, confirmed: bool) -> Self {
        Self::Paired { peer: peer.id.to_string(), invite: peer.to_invite(), confirmed }
    }
}

impl fmt::Display for PairEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { code, .. } => f.write_str(code),
            Self::Paired { peer, .. } => write!(f, "paired with {peer}"),
        }
    }
}
