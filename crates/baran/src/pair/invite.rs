//! The side that shows the code.

use std::collections::BTreeMap;
use std::time::Duration;

use baran_proto::machine::Machine;
use baran_proto::pair::inviter::{CallerId, Event, Input, Inviter, Output};
use baran_proto::pair::{ATTEMPT_MAX, PROTOCOL, PairCode};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Clock, PIECE_LEN, PairError, seed};
use crate::data::DataError;
use crate::{Acceptor, Connection, Node, PeerAddr, PublishError, RecvStream};

/// Numbers that are drawn before one is shown that somebody else shows too.
const DRAWS_MAX: usize = 4;
/// Longest look at whether somebody does.
const DRAW_WAIT: Duration = Duration::from_secs(1);
/// Pause before the number is announced again that nobody keeps.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(500);
/// Words of callers that wait for the machine.
const INPUTS_MAX: usize = 64;
/// Messages that wait for a caller: more than the protocol has.
const OUTPUTS_MAX: usize = 8;
/// Longest wait for the last messages.
const CLOSE_MAX: Duration = Duration::from_secs(6);

/// A code that is shown. Dropping it ends the code.
#[derive(Debug)]
pub struct Invitation {
    node: Node,
    code: PairCode,
    acceptor: Acceptor,
    inviter: Inviter,
    clock: Clock,
    /// The announcement, which ends with this.
    announcing: JoinSet<()>,
    /// The callers.
    talks: JoinSet<()>,
}

/// A peer that proved the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// The peer, and where it says to be reachable.
    pub peer: PeerAddr,
    /// Whether it has said that it is paired too; else its side may have failed.
    pub is_confirmed: bool,
}

impl Node {
    /// Draws a code, for one peer and at most [`CODE_LIFE`](super::CODE_LIFE), and announces its
    /// number as long as the invitation lasts. Takes a second at most: it looks whether somebody
    /// else shows the same number.
    ///
    /// # Errors
    ///
    /// If the node shows a code already or the system gives no randomness.
    pub async fn invite_by_words(&self) -> Result<Invitation, PairError> {
        let acceptor = self.accept(PROTOCOL)?;
        let code = draw(self).await?;
        let clock = Clock::start();
        let inviter = Inviter::new(clock.now(), self.id(), code, seed()?);
        let mut announcing = JoinSet::new();
        announcing.spawn(announce(self.clone(), code.topic()));
        let (node, talks) = (self.clone(), JoinSet::new());
        Ok(Invitation { node, code, acceptor, inviter, clock, announcing, talks })
    }
}

/// A code of a number that nobody else shows, as far as can be told at once.
async fn draw(node: &Node) -> Result<PairCode, PairError> {
    let mut rng = ChaCha20Rng::from_seed(seed()?);
    let mut code = PairCode::draw(&mut rng);
    for _ in 1..DRAWS_MAX {
        let mut lookup = node.lookup(&code.topic());
        match timeout(DRAW_WAIT, lookup.next()).await {
            Ok(Some(Ok(_))) => code = PairCode::draw(&mut rng),
            _ => break,
        }
    }
    Ok(code)
}

/// Keeps the topic announced until the node is closed. A node that has just started, or has lost
/// everybody, goes on trying.
async fn announce(node: Node, topic: String) {
    loop {
        match node.announce(&topic).await {
            // The node does the rest as long as the announcement lives.
            Ok(mut announcement) if announcement.receipt().kept > 0 => {
                while announcement.renewed().await.is_some() {}
                return;
            }
            Err(PublishError::Closed) => return,
            _ => sleep(ANNOUNCE_PAUSE).await,
        }
    }
}

impl Invitation {
    /// The code, to be told to the person at the other node and to nobody else.
    #[must_use]
    pub fn code(&self) -> PairCode {
        self.code
    }

    /// Waits for the peer that knows the code. `store` is called before that peer is told that it
    /// is paired. Dropping the future ends the code.
    ///
    /// # Errors
    ///
    /// If somebody guessed wrong, nobody came in time, the node was closed or `store` failed. The
    /// code is dead in any case.
    pub async fn paired(
        mut self,
        mut store: impl FnMut(&PeerAddr) -> Result<(), DataError> + Send,
    ) -> Result<Pairing, PairError> {
        let (inputs, mut heard) = mpsc::channel(INPUTS_MAX);
        let mut callers = BTreeMap::new();
        let mut count = 0;
        let mut result = None;
        let result = loop {
            if let Some(result) = result.take_if(|_| self.inviter.is_done()) {
                break result;
            }
            let deadline = self.inviter.poll_timeout();
            tokio::select! {
                connection = self.acceptor.next() => {
                    let connection = connection.ok_or(PairError::Closed)?;
                    count += 1;
                    let (caller, peer) = (CallerId(count), connection.peer());
                    let (sender, outputs) = mpsc::channel(OUTPUTS_MAX);
                    callers.insert(caller, sender);
                    while self.talks.try_join_next().is_some() {}
                    self.talks.spawn(talk(connection, caller, inputs.clone(), outputs));
                    let own = self.node.invite();
                    let input = Input::Called { caller, peer, own };
                    self.inviter.handle_input(self.clock.now(), input);
                }
                Some(input) = heard.recv() => {
                    self.inviter.handle_input(self.clock.now(), input);
                }
                Some(_) = self.announcing.join_next() => return Err(PairError::Closed),
                () = self.clock.wait(deadline) => {
                    self.inviter.handle_timeout(self.clock.now());
                }
            }
            while let Some(output) = self.inviter.poll_output() {
                match output {
                    Output::Send { caller, bytes } => {
                        let Some(sender) = callers.get(&caller) else { continue };
                        // A caller that does not read is not waited for.
                        drop(sender.try_send(bytes));
                    }
                    Output::Close(caller) => drop(callers.remove(&caller)),
                    Output::Event(Event::Paired(peer)) => {
                        // Nothing that comes after it is sent if this fails.
                        store(&peer)?;
                        result = Some(Ok(peer));
                    }
                    Output::Event(Event::WrongGuess(peer)) => {
                        result = Some(Err(PairError::WrongGuess(peer)));
                    }
                    Output::Event(Event::Expired) => result = Some(Err(PairError::Expired)),
                }
            }
        };
        let is_confirmed = self.inviter.is_confirmed();
        self.finish().await;
        Ok(Pairing { peer: result?, is_confirmed })
    }

    /// Lets the last messages reach the callers.
    async fn finish(mut self) {
        self.announcing.abort_all();
        let drain = async { while self.talks.join_next().await.is_some() {} };
        drop(timeout(CLOSE_MAX, drain).await);
    }
}

/// Carries bytes between one caller and the machine until the machine ends it.
async fn talk(
    connection: Connection,
    caller: CallerId,
    inputs: mpsc::Sender<Input>,
    mut outputs: mpsc::Receiver<Vec<u8>>,
) {
    let Ok(Ok((mut send, recv))) = timeout(ATTEMPT_MAX, connection.accept_bi()).await else {
        drop(inputs.send(Input::Gone(caller)).await);
        return;
    };
    let write = async {
        while let Some(bytes) = outputs.recv().await {
            if send.write_all(&bytes).await.is_err() {
                return;
            }
        }
        drop(send.finish());
    };
    let read = async {
        hear(recv, caller, &inputs).await;
        // Only the machine says when it is over.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    connection.close(0, "").await;
}

/// Reads to the end.
async fn hear(mut recv: RecvStream, caller: CallerId, inputs: &mpsc::Sender<Input>) {
    while let Ok(Some(bytes)) = recv.read_chunk(PIECE_LEN).await {
        if inputs.send(Input::Received { caller, bytes: bytes.to_vec() }).await.is_err() {
            return;
        }
    }
    drop(inputs.send(Input::Gone(caller)).await);
}
