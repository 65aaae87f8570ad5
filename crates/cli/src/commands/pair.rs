//! `invite --words` and `join`.

use anyhow::Result;
use baran::pair::PairCode;

use super::{Ending, open, unexpected};
use crate::args::{Global, NodeArgs};
use crate::daemon::client::{Client, message};
use crate::daemon::protocol::{Command, Message};
use crate::output::Output;
use crate::progress::Spinner;
use crate::view::PairEvent;

/// `baran invite --words`: shows a code and waits for the peer that has it.
///
/// # Errors
///
/// If no peer was paired.
pub(crate) async fn invite(global: &Global, args: &NodeArgs, output: Output) -> Result<()> {
    run(global, args, output, Command::InviteWords, "waiting for the other side").await
}

/// `baran join`: pairs with the node that shows the code.
///
/// # Errors
///
/// If no peer was paired.
pub(crate) async fn join(
    global: &Global,
    args: &NodeArgs,
    code: &PairCode,
    timeout_s: u64,
    output: Output,
) -> Result<()> {
    let command = Command::JoinWords { code: code.to_string(), timeout_ms: timeout_s * 1_000 };
    run(global, args, output, command, "looking for the node that shows the code").await
}

async fn run(
    global: &Global,
    args: &NodeArgs,
    output: Output,
    command: Command,
    what: &'static str,
) -> Result<()> {
    let mut ending = Ending::new()?;
    let mut client = open(global, args, output, &mut ending).await?;
    let result = tokio::select! {
        result = pair(&mut client, command, output, what) => result,
        // The node hears of it by the end of the connection, and the code is dead.
        () = ending.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    client.close().await;
    result
}

async fn pair(
    client: &mut Client,
    command: Command,
    output: Output,
    what: &'static str,
) -> Result<()> {
    let spinner = Spinner::start(output, what);
    client.request(command).await?;
    loop {
        let answer = message(&mut client.reader).await?;
        let Message::Pair(event) = answer else { return Err(unexpected(&answer)) };
        spinner.above(|| output.item(&event))?;
        match event {
            PairEvent::Code { code, .. } => spinner.above(|| {
                output.hint(&format!("on the other machine, run: baran join {code}"));
            }),
            PairEvent::Paired { confirmed, .. } => {
                if !confirmed {
                    let hint = "the other side did not say that it is paired too: look there";
                    spinner.above(|| output.hint(hint));
                }
                return Ok(());
            }
        }
    }
}
