//! `put`, `get`, `announce`, `lookup` and `resolve`: what the index is asked.

use std::io::{IsTerminal, Read};

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;

use super::{Ending, open, unexpected};
use crate::args::{AnnounceArgs, GetArgs, Global, LookupArgs, NodeArgs, PutArgs, ResolveArgs};
use crate::daemon::client::{Client, message};
use crate::daemon::protocol::{Command, Message};
use crate::output::Output;
use crate::progress::Spinner;
use crate::view::Resolved;

/// Longest value, in bytes.
const VALUE_LEN_MAX: usize = 1_024;

/// `baran put`. Returns whether anybody keeps the value.
///
/// # Errors
///
/// If it could not be published.
pub(crate) async fn put(global: &Global, args: &PutArgs, output: Output) -> Result<bool> {
    let value = read_value(&args.value)?;
    let (name, timeout_ms) = (args.name.clone(), args.wait.ms());
    let command = Command::Put { name, value: BASE64.encode(&value), timeout_ms };
    let answer = ask(global, &args.node, output, command, "storing the value").await?;
    let Message::Kept(kept) = answer else { return Err(unexpected(&answer)) };
    warn_of_clock(kept.clock_skew_s, output);
    output.item(&kept)?;
    if kept.kept == 0 {
        output.hint("nobody else keeps it yet: run `baran up`, which goes on storing it");
    } else if kept.kept < kept.wanted {
        output.hint("too few nodes keep it for it to be safe: run `baran up`, which goes on");
    }
    Ok(kept.kept > 0)
}

/// The value of the command line, or what standard input has.
fn read_value(argument: &str) -> Result<Vec<u8>> {
    let value = if argument == "-" {
        let mut value = Vec::new();
        let limit = VALUE_LEN_MAX as u64 + 1;
        let read = std::io::stdin().lock().take(limit).read_to_end(&mut value);
        read.context("standard input")?;
        value
    } else {
        argument.as_bytes().to_vec()
    };
    if value.len() > VALUE_LEN_MAX {
        bail!("a value has at most {VALUE_LEN_MAX} bytes, and this one has more");
    }
    Ok(value)
}

/// `baran get`.
///
/// # Errors
///
/// If there is no such value, or nobody could be asked.
pub(crate) async fn get(global: &Global, args: &GetArgs, output: Output) -> Result<()> {
    let (id, name) = (args.author.id, &args.name);
    let (author, timeout_ms) = (id.to_string(), args.wait.ms());
    let command = Command::Get { author, name: name.clone(), timeout_ms };
    let answer = ask(global, &args.node, output, command, "looking for the value").await?;
    let Message::Value(value) = answer else { return Err(unexpected(&answer)) };
    let Some(value) = value else {
        bail!("{} has published nothing by the name {name:?}, or nobody keeps it", id.short());
    };
    if output.is_json() || std::io::stdout().is_terminal() {
        Ok(output.item(&value)?)
    } else {
        Ok(output.bytes(&value.into_bytes())?)
    }
}

/// `baran resolve`.
///
/// # Errors
///
/// If nobody knows, or nobody could be asked.
pub(crate) async fn resolve(global: &Global, args: &ResolveArgs, output: Output) -> Result<()> {
    let id = args.peer.id;
    let command = Command::Resolve { id: id.to_string(), timeout_ms: args.wait.ms() };
    let answer = ask(global, &args.node, output, command, "looking for the peer").await?;
    let Message::Resolved(peer) = answer else { return Err(unexpected(&answer)) };
    let Some(peer) = peer else {
        bail!("nobody knows where {} is: is it running, in the same network?", id.short());
    };
    Ok(output.item(&Resolved(peer))?)
}

/// `baran announce`: until it is interrupted.
///
/// # Errors
///
/// If it could not be announced.
pub(crate) async fn announce(global: &Global, args: &AnnounceArgs, output: Output) -> Result<()> {
    let mut ending = Ending::new()?;
    let mut client = open(global, &args.node, output, &mut ending).await?;
    let command = Command::Announce { topic: args.topic.clone(), timeout_ms: args.wait.ms() };
    let result = tokio::select! {
        result = keep_announced(&mut client, command, output) => result,
        // The node hears of it by the end of the connection.
        () = ending.wait() => Ok(()),
    };
    client.close().await;
    result
}

async fn keep_announced(client: &mut Client, command: Command, output: Output) -> Result<()> {
    let mut spinner = Some(Spinner::start(output, "announcing the topic"));
    client.request(command).await?;
    loop {
        let answer = message(&mut client.reader).await?;
        let Message::Announced(announced) = answer else { return Err(unexpected(&answer)) };
        if spinner.take().is_some() {
            warn_of_clock(announced.clock_skew_s, output);
            output.hint("Ctrl-C ends the announcement");
        }
        output.item(&announced)?;
    }
}

/// `baran lookup`. Returns whether anybody was found.
///
/// # Errors
///
/// If nobody could be asked.
pub(crate) async fn lookup(global: &Global, args: &LookupArgs, output: Output) -> Result<bool> {
    let mut ending = Ending::new()?;
    let mut client = open(global, &args.node, output, &mut ending).await?;
    let (topic, limit, timeout_ms) = (args.topic.clone(), args.limit, args.wait.ms());
    let command = Command::Lookup { topic, limit, timeout_ms };
    let result = tokio::select! {
        result = write_found(&mut client, command, output) => result,
        () = ending.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    client.close().await;
    if result? == 0 {
        bail!("nobody announces this topic, as far as those know who could be asked");
    }
    Ok(true)
}

/// Writes the peers as they come; how many.
async fn write_found(client: &mut Client, command: Command, output: Output) -> Result<u64> {
    let spinner = Spinner::start(output, "looking for peers");
    client.request(command).await?;
    let mut count = 0;
    loop {
        match message(&mut client.reader).await? {
            Message::Found(peer) => spinner.above(|| output.item(&peer))?,
            Message::End => return Ok(count),
            other => return Err(unexpected(&other)),
        }
        count += 1;
    }
}

/// Asks for one answer.
async fn ask(
    global: &Global,
    args: &NodeArgs,
    output: Output,
    command: Command,
    what: &'static str,
) -> Result<Message> {
    let mut ending = Ending::new()?;
    let mut client = open(global, args, output, &mut ending).await?;
    let spinner = Spinner::start(output, what);
    let asked = async {
        client.request(command).await?;
        message(&mut client.reader).await
    };
    let answer = tokio::select! {
        answer = asked => answer,
        () = ending.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    drop(spinner);
    client.close().await;
    answer
}

/// Says that this machine's clock keeps others from what was published.
fn warn_of_clock(skew_s: Option<i64>, output: Output) {
    if let Some(skew) = skew_s {
        let skew = skew.unsigned_abs();
        output.hint(&format!(
            "this machine's clock is {skew} s off its peers': they may not find this; set the clock"
        ));
    }
}
