//! Pairing by words for clients. Whoever is paired is stored, and a daemon stays connected to it.

use std::time::Duration;

use anyhow::Result;
use baran::pair::{CODE_LIFE, PairCode};
use tokio::io::{AsyncBufRead, AsyncWrite};

use super::protocol::{Message, write_line};
use super::server::{Server, until_stopped};
use crate::view::PairEvent;

/// Shows a code until a peer has used it, it is dead or the client stops.
///
/// # Errors
///
/// If no peer was paired.
pub(super) async fn invite(
    server: &Server,
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let invitation = server.node.invite_by_words().await?;
    let code = PairEvent::Code {
        code: invitation.code().to_string(),
        id: server.node.id().to_string(),
        expires_s: CODE_LIFE.as_secs(),
    };
    write_line(writer, &Message::Pair(code)).await?;
    let store = |peer: &_| server.paired.add(peer, &server.network);
    let pairing = tokio::select! {
        pairing = invitation.paired(store) => pairing?,
        () = until_stopped(reader) => return Ok(()),
    };
    let event = PairEvent::paired(&pairing.peer, pairing.is_confirmed);
    server.keep(pairing.peer);
    write_line(writer, &Message::Pair(event)).await
}

/// Pairs with whoever shows a code.
///
/// # Errors
///
/// If no peer was paired.
pub(super) async fn join(
    server: &Server,
    code: &PairCode,
    limit_ms: u64,
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let store = |peer: &_| server.paired.add(peer, &server.network);
    let limit = Duration::from_millis(limit_ms);
    let peer = tokio::select! {
        peer = server.node.join_by_words(code, limit, store) => peer?,
        () = until_stopped(reader) => return Ok(()),
    };
    let event = PairEvent::paired(&peer, true);
    server.keep(peer);
    write_line(writer, &Message::Pair(event)).await
}
