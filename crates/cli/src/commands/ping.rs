//! `baran ping`.

use std::time::Instant;

use anyhow::{Result, bail};
use tokio::io::AsyncWriteExt;

use super::Ending;
use crate::args::{Global, PingArgs};
use crate::daemon::client::{Client, message};
use crate::daemon::protocol::{Command, Message, PingRequest};
use crate::output::Output;

/// Pings and writes what comes; `start` is the command's. Returns whether every ping was answered.
///
/// # Errors
///
/// If the peer was never reached.
pub(crate) async fn run(
    global: &Global,
    args: &PingArgs,
    start: Instant,
    output: Output,
) -> Result<bool> {
    let mut ending = Ending::new()?;
    let mut client = tokio::select! {
        client = Client::open(global, &args.node, output) => client?,
        () = ending.wait() => bail!("interrupted"),
    };
    let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let request = PingRequest {
        to: args.to.to_invite(),
        count: args.count,
        interval_ms: args.interval,
        timeout_ms: args.timeout * 1_000,
        elapsed_us,
    };
    let result = ping(&mut client, request, &mut ending, output).await;
    client.close().await;
    result
}

async fn ping(
    client: &mut Client,
    request: PingRequest,
    ending: &mut Ending,
    output: Output,
) -> Result<bool> {
    client.request(Command::Ping(request)).await?;
    let Client { reader, writer, .. } = client;
    // A line that is being read must be read to its end, so the signal is watched beside.
    let stop = async {
        ending.wait().await;
        drop(writer.shutdown().await);
        ending.wait().await;
    };
    let read = async {
        loop {
            match message(reader).await? {
                Message::Pong(pong) => output.item(&pong)?,
                Message::PingLost(lost) => output.item(&lost)?,
                Message::Summary(summary) => {
                    output.item(&summary)?;
                    return Ok(summary.sent > 0 && summary.received == summary.sent);
                }
                other => bail!("the node gave an unexpected answer: {other:?}"),
            }
        }
    };
    tokio::select! {
        result = read => result,
        () = stop => bail!("interrupted"),
    }
}
