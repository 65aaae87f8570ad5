//! `baran chat`: a conversation in a terminal.
//!
//! The node does the work; this shows what it says ([`state`], drawn by [`draw`]) and sends on what
//! is typed ([`input`]). Whatever comes from others is escaped when it becomes a line
//! ([`crate::escape`]); a name is shown with the beginning of the id that says it, which is made
//! longer until it tells all members apart.

mod draw;
mod input;
mod screen;
mod state;
mod wrap;

use std::io::{IsTerminal, stdin, stdout};
use std::pin::pin;

use anyhow::{Result, bail};
use tokio::sync::mpsc;

use self::screen::Screen;
use self::state::{Action, Chat};
use crate::args::{ChatArgs, Global};
use crate::commands::{Ending, open, unexpected};
use crate::daemon::client::{Client, Reader, message};
use crate::daemon::protocol::{Command, Message, TopicAnswer, TopicRequest, write_line};
use crate::output::Output;

/// Answers that wait to be shown.
const QUEUE: usize = 1_024;

/// `baran chat`.
///
/// # Errors
///
/// If there is no terminal, no such topic, or the node ends before the user does.
pub(crate) async fn run(global: &Global, args: &ChatArgs, output: Output) -> Result<()> {
    if output.is_json() || !stdin().is_terminal() || !stdout().is_terminal() {
        bail!("chat needs a terminal: use `baran topic tail` and `baran topic send` without one");
    }
    let mut ending = Ending::new()?;
    let mut client = open(global, &args.node, output, &mut ending).await?;
    let is_passing = client.has_own_node();
    let result = talk(&mut client, args, &mut ending).await;
    client.close().await;
    if is_passing && result.is_ok() {
        output.hint("no daemon runs, so this node is gone again: run `baran up` to stay in reach");
    }
    result
}

async fn talk(client: &mut Client, args: &ChatArgs, ending: &mut Ending) -> Result<()> {
    let (topic, name) = (args.topic.clone(), args.name.clone());
    client.request(Command::Topic(TopicRequest::Chat { topic, name })).await?;
    // What fails at the beginning is told where commands tell it.
    let mut chat = tokio::select! {
        chat = begin(&mut client.reader) => chat?,
        () = ending.wait() => bail!("interrupted"),
    };
    let (answers, mut queue) = mpsc::channel(QUEUE);
    let (reader, writer) = (&mut client.reader, &mut client.writer);
    // A line that is being read must be read to its end.
    let mut reading = pin!(async {
        loop {
            match message(reader).await? {
                Message::Topic(answer) => answers.send(answer).await?,
                other => return Err::<(), _>(unexpected(&other)),
            }
        }
    });
    let (mut screen, mut events) = Screen::open()?;
    loop {
        while let Ok(answer) = queue.try_recv() {
            chat.answer(answer);
        }
        screen.draw(&mut chat)?;
        let event = tokio::select! {
            result = &mut reading => return result,
            Some(answer) = queue.recv() => {
                chat.answer(answer);
                continue;
            }
            event = events.recv() => event,
            () = ending.wait() => return Ok(()),
        };
        // Without a terminal there is nobody to talk.
        let Some(event) = event else { return Ok(()) };
        match chat.event(&event) {
            None => {}
            Some(Action::Quit) => return Ok(()),
            Some(Action::Ask(ask)) => write_line(writer, &ask).await?,
        }
    }
}

/// The chat of the topic that was asked for.
async fn begin(reader: &mut Reader) -> Result<Chat> {
    let mut joined = None;
    loop {
        match message(reader).await? {
            Message::Topic(answer @ TopicAnswer::JoinedPublic(_)) => joined = Some(answer),
            Message::Topic(TopicAnswer::Joined(topic)) => {
                let mut chat = Chat::new(topic);
                joined.into_iter().for_each(|answer| chat.answer(answer));
                return Ok(chat);
            }
            other => return Err(unexpected(&other)),
        }
    }
}
