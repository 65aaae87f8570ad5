//! What clients want of topics.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use baran::{Capability, Joined, NodeId, Since, Topic, TopicId, TopicInvite, TopicLabel, UnixTime};
use data_encoding::{BASE64, HEXLOWER};
use tokio::io::{AsyncBufRead, AsyncWrite};

use super::chat;
use super::names::Names;
use super::protocol::{Message, SinceWhen, TopicAnswer, TopicRequest, write_line};
use super::server::{Server, until_stopped};
use crate::view::topic::may;
use crate::view::{
    Created, Left, MemberView, NeighborView, Removed, Said, Sent, TopicInviteView, TopicStatus,
    TopicView,
};

/// What every invite to a topic begins with.
pub(crate) const INVITE_PREFIX: &str = "barantopic1";
/// Characters of an id that are enough to name it, if no other begins so.
const PREFIX_MIN: usize = 4;
/// How often it is looked whether this node still takes part.
const LEFT_POLL: Duration = Duration::from_secs(5);

/// Does what a client wants.
///
/// # Errors
///
/// If that is not possible, or the client is gone.
pub(super) async fn handle(
    server: &Server,
    request: TopicRequest,
    reader: &mut (impl AsyncBufRead + Send + Unpin),
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> Result<()> {
    let answer = match request {
        TopicRequest::Create { title } => create(server, title).await?,
        TopicRequest::Join { what } => join(server, &what).await?,
        TopicRequest::List => return list(server, writer).await,
        TopicRequest::Invite { topic, may, expires_s, title } => {
            let joined = known(server, &topic).await?;
            let invite = invite(server, &joined, may.as_deref(), expires_s, title).await?;
            TopicAnswer::Invite(invite)
        }
        TopicRequest::Members { topic } => {
            let joined = known(server, &topic).await?;
            for member in members(server, &joined).await? {
                write(writer, TopicAnswer::Member(member)).await?;
            }
            return write_line(writer, &Message::End).await;
        }
        TopicRequest::Remove { topic, members } => {
            let joined = known(server, &topic).await?;
            TopicAnswer::Removed(remove(server, &joined, &members).await?)
        }
        TopicRequest::Leave { topic } => {
            let joined = known(server, &topic).await?;
            joined.leave().await?;
            server.labels.change(joined.id(), |label| *label = TopicLabel::default())?;
            TopicAnswer::Left(Left { left: joined.id().to_string() })
        }
        TopicRequest::Send { topic, payload } => {
            let payload = BASE64.decode(payload.as_bytes())?;
            let joined = known_or_public(server, &topic, writer).await?;
            let seq = joined.send(payload).await?;
            TopicAnswer::Sent(Sent { topic: joined.id().to_string(), seq })
        }
        TopicRequest::Tail { topic, since, follow } => {
            let joined = known_or_public(server, &topic, writer).await?;
            return tokio::select! {
                result = tail(joined, since, follow, writer) => result,
                () = until_stopped(reader) => Ok(()),
            };
        }
        TopicRequest::Status { topic } => {
            let joined = known(server, &topic).await?;
            TopicAnswer::Status(status(server, &joined).await?)
        }
        TopicRequest::Chat { topic, name } => {
            let joined = known_or_public(server, &topic, writer).await?;
            return chat::run(server, joined, name, reader, writer).await;
        }
    };
    write(writer, answer).await
}

/// Writes an answer.
pub(super) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    answer: TopicAnswer,
) -> Result<()> {
    write_line(writer, &Message::Topic(answer)).await
}

async fn create(server: &Server, title: Option<String>) -> Result<TopicAnswer> {
    let joined = server.node.topic(Topic::create()).await?;
    server.labels.change(joined.id(), |label| label.title.clone_from(&title))?;
    let invite = joined.invite(Capability::Write, None, title.as_deref()).await?;
    let id = joined.id().to_string();
    Ok(TopicAnswer::Created(Created { id, title, invite: invite.to_text() }))
}

async fn join(server: &Server, what: &str) -> Result<TopicAnswer> {
    let joined = if is_invite(what) {
        take_up(server, what).await?
    } else if let Ok(id) = what.parse::<TopicId>() {
        let joined = server.node.topic(id).await;
        joined.context("an id alone lets nobody in: ask a member for an invite")?
    } else {
        server.node.topic(Topic::public(what)).await?
    };
    Ok(TopicAnswer::Joined(view(server, &joined).await?))
}

async fn take_up(server: &Server, text: &str) -> Result<Joined> {
    let invite: TopicInvite = text.parse()?;
    let title = invite.title().map(str::to_owned);
    let joined = server.node.topic(invite).await?;
    server.labels.change(joined.id(), |label| label.title = label.title.take().or(title))?;
    Ok(joined)
}

/// Whether a text is meant to be an invite.
pub(crate) fn is_invite(text: &str) -> bool {
    let start = text.trim_start().get(..INVITE_PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(INVITE_PREFIX))
}

async fn list(server: &Server, writer: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    for (id, _) in server.node.topics().await? {
        // It may have been left meanwhile.
        let Ok(joined) = server.node.topic(id).await else { continue };
        write(writer, TopicAnswer::Joined(view(server, &joined).await?)).await?;
    }
    write_line(writer, &Message::End).await
}

/// A topic as its owner sees it.
pub(super) async fn view(server: &Server, joined: &Joined) -> Result<TopicView> {
    let id = joined.id();
    let topics = server.node.topics().await?;
    let name = topics.into_iter().find(|(known, _)| *known == id).and_then(|(_, name)| name);
    let label = server.labels.load()?.remove(&id).unwrap_or_default();
    let members = joined.members().await?;
    Ok(TopicView {
        id: id.to_string(),
        name,
        title: label.title,
        may: may(joined.capability().await?).to_owned(),
        members: members.iter().filter(|member| !member.is_removed).count(),
        online: members.iter().filter(|member| member.is_online && !member.is_removed).count(),
        entries: joined.stats().await?.entries,
    })
}

/// Makes an invite.
pub(super) async fn invite(
    server: &Server,
    joined: &Joined,
    to: Option<&str>,
    expires_s: Option<u64>,
    title: Option<String>,
) -> Result<TopicInviteView> {
    let topics = server.node.topics().await?;
    let is_public = topics.iter().any(|(id, name)| *id == joined.id() && name.is_some());
    if is_public && (to.is_some() || expires_s.is_some()) {
        bail!(
            "the topic is public: everybody who knows its name may write there for ever, so leave \
             --may and --expires out"
        );
    }
    let rank = match to.unwrap_or("write") {
        "relay" => Capability::Relay,
        "read" => Capability::Read,
        "write" => Capability::Write,
        "manage" => Capability::Manage,
        other => bail!("{other:?} is nothing that somebody may do"),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.context("this machine's clock is before 1970")?.as_secs();
    let expires = expires_s.map(|after| now.saturating_add(after));
    let label = server.labels.load()?.remove(&joined.id()).unwrap_or_default();
    let title = title.or(label.title);
    let invite = joined.invite(rank, expires.map(UnixTime::from_secs), title.as_deref()).await?;
    Ok(TopicInviteView {
        topic: joined.id().to_string(),
        invite: invite.to_text(),
        may: may(rank).to_owned(),
        expires,
        title,
    })
}

/// Who takes part, those first that are there.
pub(super) async fn members(server: &Server, joined: &Joined) -> Result<Vec<MemberView>> {
    let me = server.node.id();
    let mut members: Vec<_> =
        joined.members().await?.iter().map(|member| MemberView::new(member, me)).collect();
    members.sort_by_key(|member| (member.removed, !member.online));
    Ok(members)
}

async fn remove(server: &Server, joined: &Joined, whom: &[String]) -> Result<Removed> {
    let known = joined.members().await?;
    let mut ids = Vec::new();
    for text in whom {
        let id = member(text, known.iter().map(|member| member.id))?;
        if id == server.node.id() {
            bail!("{} is this node: to go yourself, run `baran topic leave`", id.short());
        }
        ids.push(id);
    }
    ids.sort_unstable();
    ids.dedup();
    joined.remove(ids.clone()).await?;
    let removed = ids.iter().map(ToString::to_string).collect();
    Ok(Removed { topic: joined.id().to_string(), removed })
}

/// The member whose id is `text` or begins with it.
fn member(text: &str, known: impl Iterator<Item = NodeId>) -> Result<NodeId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let start = text.to_ascii_lowercase();
    let mut found = known.filter(|id| id.to_string().starts_with(&start));
    match (found.next(), found.next()) {
        (Some(id), None) if start.len() >= PREFIX_MIN => Ok(id),
        (Some(_), Some(_)) => bail!("several members' ids begin with {text:?}: give more of it"),
        _ => bail!("no member's id begins with {text:?}: see `baran topic members`"),
    }
}

async fn tail(
    joined: Joined,
    since: SinceWhen,
    follow: bool,
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> Result<()> {
    let mut messages = joined.messages(match since {
        SinceWhen::All => Since::Start,
        SinceWhen::Now => Since::Now,
        SinceWhen::Ago(ms) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
            Since::Time(now.saturating_sub(ms))
        }
    });
    let mut names = Names::default();
    loop {
        let next = match follow {
            true => messages.next_within(LEFT_POLL).await,
            false => messages.next_ready().await,
        };
        match next {
            Some(received) => {
                let name = names.of(received.author, &joined).await;
                write(writer, TopicAnswer::Said(Said::new(&received, name))).await?;
            }
            None if !follow => return write_line(writer, &Message::End).await,
            None if joined.stats().await.is_err() => bail!("this node has left the topic"),
            None => {}
        }
    }
}

async fn status(server: &Server, joined: &Joined) -> Result<TopicStatus> {
    let stats = joined.stats().await?;
    let neighbor = |synced: &baran::Synced| NeighborView {
        id: synced.peer.to_string(),
        synced_since: synced.since_ms,
    };
    Ok(TopicStatus {
        topic: view(server, joined).await?,
        bytes: stats.bytes,
        authors: stats.authors,
        epoch: stats.epoch,
        neighbors: stats.synced.iter().map(neighbor).collect(),
        pushed_new: stats.pushed.0,
        pushed_duplicate: stats.pushed.1,
    })
}

/// The topic that the user means, in which this node takes part.
async fn known(server: &Server, text: &str) -> Result<Joined> {
    match find(server, text).await? {
        Some(id) => Ok(server.node.topic(id).await?),
        None => bail!(
            "this node takes part in no topic of this name, title or id: `baran topic list` tells \
             in which it does, `baran topic join` takes part in another"
        ),
    }
}

/// The same; if there is none, the text is the name of a public one, in which this node then takes
/// part.
async fn known_or_public(
    server: &Server,
    text: &str,
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> Result<Joined> {
    if let Some(id) = find(server, text).await? {
        return Ok(server.node.topic(id).await?);
    }
    if is_invite(text) {
        return take_up(server, text).await;
    }
    if text.parse::<TopicId>().is_ok() {
        bail!("this node takes no part in that topic: join it by an invite first");
    }
    let joined = server.node.topic(Topic::public(text)).await?;
    write(writer, TopicAnswer::JoinedPublic(text.to_owned())).await?;
    Ok(joined)
}

/// The topic that the user means, if this node takes part in one that is called so.
async fn find(server: &Server, text: &str) -> Result<Option<TopicId>> {
    let topics = server.node.topics().await?;
    let named = match text.parse().ok() {
        None if is_invite(text) => Some(text.parse::<TopicInvite>()?.topic()),
        id => id,
    };
    if let Some(id) = named {
        return Ok(topics.iter().map(|(known, _)| *known).find(|known| *known == id));
    }
    if let Some((id, _)) = topics.iter().find(|(_, name)| name.as_deref() == Some(text)) {
        return Ok(Some(*id));
    }
    let labels = server.labels.load()?;
    let is_titled = |id: &TopicId| {
        labels.get(id).and_then(|label| label.title.as_deref()).is_some_and(|title| title == text)
    };
    let ids: Vec<_> = topics.iter().map(|(id, _)| *id).collect();
    let titled: Vec<_> = ids.iter().copied().filter(|id| is_titled(id)).collect();
    match titled[..] {
        [] => {}
        [id] => return Ok(Some(id)),
        _ => bail!("{} topics have this title: give the id of one", titled.len()),
    }
    let started: Vec<_> = ids.into_iter().filter(|id| begins(*id, text)).collect();
    match started[..] {
        [] => Ok(None),
        [id] => Ok(Some(id)),
        _ => bail!("several topics' ids begin with {text:?}: give more of it"),
    }
}

/// Whether an id, in either spelling, begins with a text that is long enough to mean it.
fn begins(id: TopicId, text: &str) -> bool {
    let start = text.to_ascii_lowercase();
    start.len() >= PREFIX_MIN
        && (id.to_string().starts_with(&start)
            || HEXLOWER.encode(id.as_bytes()).starts_with(&start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_means_it_in_either_spelling() {
        let id = TopicId::from_bytes([0xa7; 32]);
        assert!(begins(id, "a7a7") && begins(id, "A7A7a") && begins(id, &id.to_string()[..4]));
        assert!(!begins(id, "a7a") && !begins(id, "a7a8") && !begins(id, ""));
    }

    #[test]
    fn members_are_named_by_what_is_theirs_alone() {
        let ids = [[1; 32], [2; 32]].map(NodeId::from_bytes);
        let find = |text: &str| member(text, ids.into_iter());
        let text = ids[0].to_string();
        assert_eq!(find(&text[..8]).unwrap(), ids[0]);
        assert_eq!(find(&text[..8].to_uppercase()).unwrap(), ids[0]);
        let stranger = NodeId::from_bytes([9; 32]);
        assert_eq!(find(&stranger.to_string()).unwrap(), stranger);
        assert!(find("ae").unwrap_err().to_string().contains("no member's id begins"));
        let both = [ids[0], ids[0]].into_iter();
        assert!(member(&text[..8], both).unwrap_err().to_string().contains("several"));
    }
}
