//! Finding and being found through the index: values, topics, peers.

use std::pin::Pin;
use std::task::{Context, Poll};

use baran_proto::index::{self, Command, QueryId};
use baran_proto::key::Key;
use baran_proto::record::{Content, NAME_LEN_MAX, Record, VALUE_LEN_MAX};
use baran_proto::time::UnixTime;
use baran_proto::wire::index::RecordKind;
use bytes::Bytes;
use futures_core::Stream;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{Node, NodeId, PeerAddr};

/// Peers that one look-up of a topic yields unless another number is asked for.
const LOOKUP_LIMIT: usize = 256;

/// Answers that wait for whoever asked, besides one for each record that is wanted.
pub(crate) const ANSWERS_BESIDES: usize = 16;

/// Why nothing could be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FindError {
    /// Nobody is connected who could be asked.
    #[error("not connected to anybody yet")]
    NotJoined,
    /// The node is closed.
    #[error("the node is closed")]
    Closed,
    /// Too much is looked up at a time, or the like.
    #[error("{0}")]
    Failed(String),
}

/// Why nothing could be published.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// Nobody is connected. A value is on disk nevertheless, and is stored when somebody is.
    #[error("not connected to anybody yet")]
    NotJoined,
    /// The value.
    #[error("a value has at most {VALUE_LEN_MAX} bytes")]
    TooLarge,
    /// Its name.
    #[error("a name has 1 to {NAME_LEN_MAX} bytes")]
    Name,
    /// The node is closed.
    #[error("the node is closed")]
    Closed,
    /// The disk, or a limit.
    #[error("{0}")]
    Failed(String),
}

/// How many nodes keep a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Nodes that have it on disk.
    pub kept: usize,
    /// Nodes that should have it: 20, or all there are near its key.
    pub wanted: usize,
    /// Nodes that refused it because their calendar differs from ours by more than ten minutes.
    pub clocks: usize,
}

impl Receipt {
    /// Whether enough nodes keep the record for it to outlive most of them.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.kept > 0 && self.kept * 2 >= self.wanted
    }
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// What its author published, at most 1 KiB.
    pub value: Bytes,
    /// Higher in each version of it.
    pub sequence: u64,
    /// When those who keep it drop it, in seconds since 1970.
    pub expires: UnixTime,
}

/// An announcement. Dropping it ends it: it is not repeated, and is gone within two hours.
#[derive(Debug)]
pub struct Announcement {
    answers: mpsc::Receiver<index::Event>,
    receipt: Receipt,
}

impl Announcement {
    /// How the latest round of storing went.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Waits for the next round of storing, about an hour later. `None` once the node is closed.
    pub async fn renewed(&mut self) -> Option<Receipt> {
        while let Some(event) = self.answers.recv().await {
            if let Some(receipt) = receipt(&event) {
                self.receipt = receipt;
                return Some(receipt);
            }
        }
        None
    }
}

/// The peers of a topic, as they are found: a fair sample if there are many. Ends when the look-up
/// does.
#[derive(Debug)]
pub struct Lookup {
    node: Node,
    /// The query, until it is sent.
    question: Option<(Key, usize)>,
    answers: Option<mpsc::Receiver<index::Event>>,
    sending: Option<Sending>,
    cost: Option<index::LookupCost>,
}

struct Sending(Pin<Box<dyn Future<Output = Option<mpsc::Receiver<index::Event>>> + Send>>);

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sending")
    }
}

impl Lookup {
    /// The next peer; `None` when there are no more.
    ///
    /// # Errors
    ///
    /// If nobody can be asked. Nothing comes afterwards.
    pub async fn next(&mut self) -> Option<Result<PeerAddr, FindError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// What the look-up took, once it has ended.
    #[must_use]
    pub fn cost(&self) -> Option<index::LookupCost> {
        self.cost
    }

    /// Yields at most so many peers. Must be called before the first is taken.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        if let Some((_, max)) = &mut self.question {
            *max = limit.max(1);
        }
        self
    }

    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<Option<mpsc::Receiver<index::Event>>> {
        let Self { node, question, sending, .. } = self;
        let sending = sending.get_or_insert_with(|| {
            let (node, question) = (node.clone(), question.take());
            Sending(Box::pin(async move {
                let (secret, limit) = question?;
                let find = move |query| Command::FindTopic { query, secret, limit };
                node.ask_index(limit, find).await
            }))
        });
        sending.0.as_mut().poll(cx)
    }
}

impl Stream for Lookup {
    type Item = Result<PeerAddr, FindError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<PeerAddr, FindError>>> {
        if self.answers.is_none() {
            if self.question.is_none() && self.sending.is_none() {
                return Poll::Ready(None);
            }
            let Poll::Ready(answers) = self.poll_answers(cx) else { return Poll::Pending };
            self.sending = None;
            match answers {
                Some(answers) => self.answers = Some(answers),
                None => return Poll::Ready(Some(Err(FindError::Closed))),
            }
        }
        loop {
            let Some(answers) = &mut self.answers else { return Poll::Ready(None) };
            let Poll::Ready(event) = answers.poll_recv(cx) else { return Poll::Pending };
            let end = match event {
                Some(index::Event::Record { record, .. }) => {
                    return Poll::Ready(Some(Ok(record.author().into())));
                }
                Some(index::Event::Done { cost, .. }) => {
                    self.cost = Some(cost);
                    None
                }
                Some(index::Event::NotJoined(_)) => Some(Err(FindError::NotJoined)),
                Some(index::Event::Failed { reason, .. }) => Some(Err(FindError::Failed(reason))),
                Some(index::Event::Kept { .. }) => continue,
                None => Some(Err(FindError::Closed)),
            };
            self.answers = None;
            return Poll::Ready(end);
        }
    }
}

fn receipt(event: &index::Event) -> Option<Receipt> {
    match *event {
        index::Event::Kept { kept, wanted, clocks, .. } => Some(Receipt { kept, wanted, clocks }),
        index::Event::Record { .. }
        | index::Event::Done { .. }
        | index::Event::NotJoined(_)
        | index::Event::Failed { .. } => None,
    }
}

impl Node {
    /// Signs a value of at most 1 KiB, writes it to this node's disk, and stores it at the nodes
    /// near its key under `name` (1 to 64 bytes). A later one of the same name replaces it. It is
    /// stored anew as long as this node runs, in later runs too, and lasts 48 hours without it.
    ///
    /// # Errors
    ///
    /// If it is too large, cannot be written, or nobody is connected. In the last case it is
    /// stored as soon as somebody is.
    pub async fn publish(
        &self,
        name: &str,
        value: impl Into<Bytes>,
    ) -> Result<Receipt, PublishError> {
        let (name, value) = (name.to_owned(), value.into());
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            return Err(PublishError::Name);
        }
        if value.len() > VALUE_LEN_MAX {
            return Err(PublishError::TooLarge);
        }
        let publish = move |query| Command::Publish { query, name, value };
        let answers = self.ask_index(1, publish).await.ok_or(PublishError::Closed)?;
        Ok(await_receipt(answers).await?.0)
    }

    /// The newest value that a node published under a name, if those near its key have one.
    ///
    /// # Errors
    ///
    /// If nobody can be asked.
    pub async fn get(&self, author: NodeId, name: &str) -> Result<Option<Value>, FindError> {
        let key = Key::of_value(author, name);
        let newest = self.newest(key, RecordKind::Value, author).await?;
        Ok(newest.and_then(|record| match record.content() {
            Content::Value { value, .. } => Some(Value {
                value: value.clone(),
                sequence: record.sequence(),
                expires: record.expires(),
            }),
            Content::Node { .. } | Content::Announcement => None,
        }))
    }

    /// Where a node says it is, if those near it know. To reach it [`Node::connect`] is enough.
    ///
    /// # Errors
    ///
    /// If nobody can be asked.
    pub async fn resolve(&self, id: NodeId) -> Result<Option<PeerAddr>, FindError> {
        let newest = self.newest(Key::of_node(id), RecordKind::Node, id).await?;
        Ok(newest.and_then(|record| match record.content() {
            Content::Node { addrs, homes, .. } => {
                Some(PeerAddr { id, addrs: addrs.clone(), homes: homes.clone() })
            }
            Content::Value { .. } | Content::Announcement => None,
        }))
    }

    async fn newest(
        &self,
        key: Key,
        kind: RecordKind,
        author: NodeId,
    ) -> Result<Option<Record>, FindError> {
        let find = move |query| Command::Find { query, key, kind, limit: 1 };
        let mut answers = self.ask_index(1, find).await.ok_or(FindError::Closed)?;
        let mut newest: Option<Record> = None;
        loop {
            match answers.recv().await {
                Some(index::Event::Record { record, .. }) if record.author() == author => {
                    newest = Some(record);
                }
                Some(index::Event::Record { .. } | index::Event::Kept { .. }) => {}
                Some(index::Event::Done { .. }) => return Ok(newest),
                Some(index::Event::NotJoined(_)) => return Err(FindError::NotJoined),
                Some(index::Event::Failed { reason, .. }) => {
                    return Err(FindError::Failed(reason));
                }
                None => return Err(FindError::Closed),
            }
        }
    }

    /// Announces that this node takes part in a public topic, until the announcement is dropped.
    /// Those who keep it do not learn the topic's name.
    ///
    /// # Errors
    ///
    /// If nobody is connected.
    pub async fn announce(&self, topic: &str) -> Result<Announcement, PublishError> {
        let secret = Key::topic_secret(topic);
        let announce = move |query| Command::Announce { query, secret };
        let answers = self.ask_index(1, announce).await.ok_or(PublishError::Closed)?;
        let (receipt, answers) = await_receipt(answers).await?;
        Ok(Announcement { answers, receipt })
    }

    /// Looks for the peers that announced a public topic: 256 at most, unless
    /// [`Lookup::limit`] says otherwise.
    #[must_use]
    pub fn lookup(&self, topic: &str) -> Lookup {
        Lookup {
            node: self.clone(),
            question: Some((Key::topic_secret(topic), LOOKUP_LIMIT)),
            answers: None,
            sending: None,
            cost: None,
        }
    }
}

async fn await_receipt(
    mut answers: mpsc::Receiver<index::Event>,
) -> Result<(Receipt, mpsc::Receiver<index::Event>), PublishError> {
    loop {
        let event = answers.recv().await.ok_or(PublishError::Closed)?;
        match event {
            index::Event::NotJoined(_) => return Err(PublishError::NotJoined),
            index::Event::Failed { reason, .. } => return Err(PublishError::Failed(reason)),
            event => {
                if let Some(receipt) = receipt(&event) {
                    return Ok((receipt, answers));
                }
            }
        }
    }
}

/// A question to the index, without its number.
pub(crate) struct Question(pub(crate) Box<dyn FnOnce(QueryId) -> Command + Send>);

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}
