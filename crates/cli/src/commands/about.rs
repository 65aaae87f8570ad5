//! Commands that tell something and end: `id`, `invite`, `status`, `roles`, `completions`, `man`.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result, bail};
use baran::PeerAddr;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::{Cli, Global, InviteArgs, NodeArgs};
use crate::daemon::client::{Client, data_dir, message};
use crate::daemon::protocol::{Command, Message};
use crate::output::Output;
use crate::qr;
use crate::view::{IdView, InviteView};

/// `baran id`: the key decides it, no node is asked.
///
/// # Errors
///
/// If the key cannot be read or made.
pub(crate) fn id(global: &Global, output: Output) -> Result<()> {
    let id = data_dir(global)?.secret()?.id().to_string();
    Ok(output.item(&IdView { id })?)
}

/// `baran status`.
///
/// # Errors
///
/// If no node can be asked.
pub(crate) async fn status(global: &Global, args: &NodeArgs, output: Output) -> Result<()> {
    let mut client = Client::open(global, args, output).await?;
    let answer = ask(&mut client, Command::Status).await;
    client.close().await;
    match answer? {
        Message::Status(status) => Ok(output.item(&*status)?),
        other => bail!("the node gave an unexpected answer: {other:?}"),
    }
}

/// `baran roles`.
///
/// # Errors
///
/// If no node can be asked.
pub(crate) async fn roles(global: &Global, args: &NodeArgs, output: Output) -> Result<()> {
    let mut client = Client::open(global, args, output).await?;
    let answer = ask(&mut client, Command::Roles).await;
    client.close().await;
    match answer? {
        Message::Roles(roles) => Ok(output.item(&*roles)?),
        other => bail!("the node gave an unexpected answer: {other:?}"),
    }
}

/// `baran invite`.
///
/// # Errors
///
/// If no node can be asked.
pub(crate) async fn invite(global: &Global, args: &InviteArgs, output: Output) -> Result<()> {
    let mut client = Client::open(global, &args.node, output).await?;
    // A node that is not told where to listen takes the port that it had last time.
    let is_passing = client.has_own_node() && args.node.bind.iter().any(|bind| bind.port() == 0);
    let answer = ask(&mut client, Command::Invite).await;
    client.close().await;
    let Message::Invite(mut invite) = answer? else {
        bail!("the node gave another answer than an invite");
    };
    if is_passing {
        // The next node will listen on another port.
        let peer: PeerAddr = invite.invite.parse()?;
        invite = InviteView::from(&PeerAddr { addrs: Vec::new(), ..peer });
        output.hint(
            "no daemon runs, so this invite names no address: run `baran up` first, or give the \
             --bind ADDR:PORT that it will have",
        );
    }
    output.item(&invite)?;
    let is_terminal = std::io::stdout().is_terminal();
    if !output.is_json() && !args.no_qr && (args.qr || is_terminal) {
        draw(&invite.invite, is_terminal, output)?;
    }
    Ok(())
}

async fn ask(client: &mut Client, command: Command) -> Result<Message> {
    client.request(command).await?;
    message(&mut client.reader).await
}

/// Draws an invite, if it fits the terminal.
///
/// # Errors
///
/// If it fits no QR code, or the output's reader is gone.
pub(super) fn draw(invite: &str, is_terminal: bool, output: Output) -> Result<()> {
    let picture = qr::draw(invite, is_terminal)?;
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let columns = size.map_or(usize::MAX, |size| usize::from(size.ws_col));
    let needed = qr::width(&picture);
    if is_terminal && columns != 0 && columns < needed {
        output.hint(&format!("the QR code needs a terminal of {needed} columns"));
        return Ok(());
    }
    Ok(output.raw(&picture)?)
}

/// `baran completions`.
///
/// # Errors
///
/// If the output's reader is gone.
pub(crate) fn completions(shell: Shell, output: Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "baran", &mut script);
    Ok(output.raw(&String::from_utf8(script)?)?)
}

/// `baran man`.
///
/// # Errors
///
/// If the pages cannot be written.
pub(crate) fn man(dir: Option<&Path>, output: Output) -> Result<()> {
    if let Some(dir) = dir {
        let written = clap_mangen::generate_to(Cli::command(), dir);
        return written.with_context(|| format!("write manual pages into {}", dir.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    Ok(output.raw(&String::from_utf8(page)?)?)
}
