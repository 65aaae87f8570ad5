//! What members call themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use baran::{Joined, NodeId};
use tokio::time::Instant;

use crate::view::Profile;

/// How often names are asked for at most.
const FRESH: Duration = Duration::from_secs(1);

/// Names of a topic's members, of about now.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: BTreeMap<NodeId, String>,
    asked: Option<Instant>,
}

impl Names {
    /// What `author` calls itself.
    pub(super) async fn of(&mut self, author: NodeId, joined: &Joined) -> Option<String> {
        let now = Instant::now();
        let is_fresh = self.asked.is_some_and(|asked| now.duration_since(asked) < FRESH);
        if !is_fresh && let Ok(members) = joined.members().await {
            self.asked = Some(now);
            // Who is away keeps the name that it had.
            self.names.extend(members.iter().filter_map(|member| {
                Some((member.id, Profile::read(member.status.as_deref()?).name?))
            }));
        }
        self.names.get(&author).cloned()
    }
}
