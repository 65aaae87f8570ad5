//! `baran topic`.

use std::io::{IsTerminal, Read};

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;

use super::{Ending, about, open, unexpected};
use crate::args::{Global, NodeArgs, TailArgs, TopicArgs, TopicCommand, TopicInviteArgs};
use crate::daemon::client::{Client, message};
use crate::daemon::protocol::{Command, Message, TopicAnswer, TopicRequest};
use crate::output::Output;

/// Longest thing to say, in bytes: what a signed and sealed entry has room for.
const TEXT_LEN_MAX: usize = 32_728;

/// What is said of a node that ends with the command.
const PASSING: &str =
    "no daemon runs, so this node is gone again: run `baran up` for others to reach it";

/// Does what the user wants of topics.
///
/// # Errors
///
/// If it is not possible.
pub(crate) async fn run(global: &Global, command: &TopicCommand, output: Output) -> Result<()> {
    let asking = Asking { global, output };
    match command {
        TopicCommand::Create { title, node } => {
            asking.all(node, TopicRequest::Create { title: title.clone() }).await
        }
        TopicCommand::Join { what, node } => {
            asking.all(node, TopicRequest::Join { what: what.clone() }).await
        }
        TopicCommand::List { node } => asking.all(node, TopicRequest::List).await,
        TopicCommand::Invite(args) => asking.invite(args).await,
        TopicCommand::Members(TopicArgs { topic, node }) => {
            asking.all(node, TopicRequest::Members { topic: topic.clone() }).await
        }
        TopicCommand::Remove { topic, members, node } => {
            let (topic, members) = (topic.clone(), members.clone());
            asking.all(node, TopicRequest::Remove { topic, members }).await
        }
        TopicCommand::Leave(TopicArgs { topic, node }) => {
            asking.all(node, TopicRequest::Leave { topic: topic.clone() }).await
        }
        TopicCommand::Send { topic, text, node } => {
            let payload = BASE64.encode(&read_text(text)?);
            asking.all(node, TopicRequest::Send { topic: topic.clone(), payload }).await
        }
        TopicCommand::Tail(args) => asking.tail(args).await,
        TopicCommand::Status(TopicArgs { topic, node }) => {
            asking.all(node, TopicRequest::Status { topic: topic.clone() }).await
        }
    }
}

/// What is to be said: of the command line, or what standard input has, without the end of its last
/// line.
fn read_text(argument: &str) -> Result<Vec<u8>> {
    let mut text = argument.as_bytes().to_vec();
    if argument == "-" {
        text.clear();
        let limit = TEXT_LEN_MAX as u64 + 2;
        let read = std::io::stdin().lock().take(limit).read_to_end(&mut text);
        read.context("standard input")?;
        text.pop_if(|last| *last == b'\n');
    }
    match text.len() {
        0 => bail!("standard input has nothing to say"),
        1..=TEXT_LEN_MAX => Ok(text),
        _ => bail!("a message has at most {TEXT_LEN_MAX} bytes, and this one has more"),
    }
}

struct Asking<'a> {
    global: &'a Global,
    output: Output,
}

impl Asking<'_> {
    /// Asks, and writes all that is answered.
    async fn all(&self, node: &NodeArgs, request: TopicRequest) -> Result<()> {
        let mut ending = Ending::new()?;
        let mut client = open(self.global, node, self.output, &mut ending).await?;
        let is_passing = client.has_own_node();
        let tells = matches!(
            request,
            TopicRequest::Create { .. } | TopicRequest::Join { .. } | TopicRequest::Send { .. }
        );
        let result = tokio::select! {
            result = self.write_all(&mut client, request) => result,
            () = ending.wait() => Err(anyhow::anyhow!("interrupted")),
        };
        client.close().await;
        if result? == 0 {
            self.output.hint("none: `baran topic create` founds one, `baran topic join` joins one");
        }
        if is_passing && tells {
            self.output.hint(PASSING);
        }
        Ok(())
    }

    /// Writes answers to the last; how many.
    async fn write_all(&self, client: &mut Client, request: TopicRequest) -> Result<u64> {
        let is_list = matches!(request, TopicRequest::List | TopicRequest::Members { .. });
        client.request(Command::Topic(request)).await?;
        let mut count = 0;
        loop {
            match message(&mut client.reader).await? {
                Message::Topic(TopicAnswer::JoinedPublic(name)) => {
                    self.joined_public(&name);
                    continue;
                }
                Message::Topic(answer) => self.write(answer)?,
                Message::End if is_list => return Ok(count),
                other => return Err(unexpected(&other)),
            }
            count += 1;
            if !is_list {
                return Ok(count);
            }
        }
    }

    fn joined_public(&self, name: &str) {
        let name = crate::escape::name(name);
        self.output.hint(&format!("joined the public topic {name}, which this node was not in"));
    }

    fn write(&self, answer: TopicAnswer) -> Result<()> {
        let output = self.output;
        match answer {
            TopicAnswer::Created(created) => {
                output.item(&created)?;
                output.hint("others take part by: baran topic join INVITE");
            }
            TopicAnswer::Joined(topic) => output.item(&topic)?,
            TopicAnswer::Invite(invite) => output.item(&invite)?,
            TopicAnswer::Member(member) => output.item(&member)?,
            TopicAnswer::Removed(removed) => output.item(&removed)?,
            TopicAnswer::Left(left) => output.item(&left)?,
            TopicAnswer::Sent(sent) => output.item(&sent)?,
            TopicAnswer::Said(said) => output.item(&said)?,
            TopicAnswer::Status(status) => output.item(&status)?,
            other @ (TopicAnswer::JoinedPublic(_) | TopicAnswer::Chat(_)) => {
                return Err(unexpected(&Message::Topic(other)));
            }
        }
        Ok(())
    }

    async fn invite(&self, args: &TopicInviteArgs) -> Result<()> {
        let request = TopicRequest::Invite {
            topic: args.topic.clone(),
            may: args.may.map(|may| may.as_str().to_owned()),
            expires_s: args.expires,
            title: args.title.clone(),
        };
        let mut ending = Ending::new()?;
        let mut client = open(self.global, &args.node, self.output, &mut ending).await?;
        let is_passing = client.has_own_node();
        let asked = async {
            client.request(Command::Topic(request)).await?;
            message(&mut client.reader).await
        };
        let answer = tokio::select! {
            answer = asked => answer,
            () = ending.wait() => Err(anyhow::anyhow!("interrupted")),
        };
        client.close().await;
        let answer = answer?;
        let Message::Topic(TopicAnswer::Invite(invite)) = answer else {
            return Err(unexpected(&answer));
        };
        self.output.item(&invite)?;
        if is_passing {
            self.output.hint(PASSING);
        }
        if args.qr && !self.output.is_json() {
            about::draw(&invite.invite, std::io::stdout().is_terminal(), self.output)?;
        }
        Ok(())
    }

    /// Writes what is said until the user ends it, or all is written.
    async fn tail(&self, args: &TailArgs) -> Result<()> {
        let mut ending = Ending::new()?;
        let mut client = open(self.global, &args.node, self.output, &mut ending).await?;
        let (topic, follow) = (args.topic.clone(), !args.no_follow);
        let request = TopicRequest::Tail { topic, since: args.since, follow };
        let written = async {
            client.request(Command::Topic(request)).await?;
            loop {
                match message(&mut client.reader).await? {
                    Message::Topic(TopicAnswer::JoinedPublic(name)) => self.joined_public(&name),
                    Message::Topic(TopicAnswer::Said(said)) => self.output.item(&said)?,
                    Message::End => return Ok(()),
                    other => return Err(unexpected(&other)),
                }
            }
        };
        let result = tokio::select! {
            result = written => result,
            // The node hears of it by the end of the connection.
            () = ending.wait() => Ok(()),
        };
        client.close().await;
        result
    }
}
