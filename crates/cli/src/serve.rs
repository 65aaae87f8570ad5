//! The side of `baran ping` that answers: whatever a peer writes on a stream comes back.
//!
//! Every node that this program runs answers, as hosts answer ICMP echo (RFC 1122 §3.2.2.6). An
//! answer has the length of the question and goes to a peer that has proved its key, so nothing is
//! amplified. Bounded are the conversations at a time and, by taking small pieces, what one holds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use baran::{Acceptor, Connection, Node};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::daemon::protocol::PING;

/// Conversations at a time.
const SESSIONS_MAX: usize = 256;
/// Bytes taken at a time: 64 pings.
const PIECE_LEN: usize = 1_024;
/// Longest silence in a conversation.
const IDLE_MAX: Duration = Duration::from_secs(3_600);

/// Answers pings.
#[derive(Debug)]
pub(crate) struct Responder {
    acceptor: Acceptor,
}

impl Responder {
    /// Lets `node` accept pings.
    ///
    /// # Errors
    ///
    /// If something else at the node accepts them.
    pub(crate) fn new(node: &Node) -> Result<Self> {
        Ok(Self { acceptor: node.accept(PING)? })
    }

    /// Answers until the node is closed or this is cancelled.
    pub(crate) async fn run(mut self) {
        let places = Arc::new(Semaphore::new(SESSIONS_MAX));
        let mut sessions = JoinSet::new();
        while let Some(connection) = self.acceptor.next().await {
            while sessions.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                sessions.spawn(connection.close(1, "too many pings at once"));
                continue;
            };
            sessions.spawn(async move {
                answer(&connection).await;
                connection.close(0, "").await;
                drop(place);
            });
        }
    }
}

async fn answer(connection: &Connection) {
    while let Ok(Ok((mut send, mut recv))) = timeout(IDLE_MAX, connection.accept_bi()).await {
        while let Ok(Ok(Some(piece))) = timeout(IDLE_MAX, recv.read_chunk(PIECE_LEN)).await {
            if send.write_all(&piece).await.is_err() {
                break;
            }
        }
    }
}
