//! Messages that wait for the control stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use baran_proto::wire::mux::Credit;
use baran_proto::wire::{Message, MuxMessage};
use tokio::sync::Notify;

use super::lock;

/// Messages that may wait. A peer that does not take this many is not worth the memory.
const WAITING_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// The latest limit of each stream: an older one need not be sent.
    credits: BTreeMap<u64, u64>,
    overrun: bool,
}

/// The queue in front of a control stream.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    notify: Notify,
}

impl Outbox {
    /// Adds a message. When too many wait, the next [`Outbox::take`] fails.
    pub(crate) fn push(&self, message: Message) {
        let mut waiting = lock(&self.waiting);
        if waiting.messages.len() < WAITING_MAX {
            waiting.messages.push_back(message);
        } else {
            waiting.overrun = true;
        }
        drop(waiting);
        self.notify.notify_one();
    }

    /// Adds credit for a stream.
    pub(crate) fn credit(&self, stream: u64, limit: u64) {
        lock(&self.waiting).credits.insert(stream, limit);
        self.notify.notify_one();
    }

    /// Forgets credit for a stream that has ended.
    pub(crate) fn forget(&self, stream: u64) {
        lock(&self.waiting).credits.remove(&stream);
    }

    /// Waits for messages and returns all of them, encoded. `None` if too many waited.
    pub(crate) async fn take(&self) -> Option<Vec<u8>> {
        loop {
            let (messages, credits, overrun) = {
                let mut waiting = lock(&self.waiting);
                (
                    std::mem::take(&mut waiting.messages),
                    std::mem::take(&mut waiting.credits),
                    waiting.overrun,
                )
            };
            if overrun {
                return None;
            }
            if !messages.is_empty() || !credits.is_empty() {
                let credits = credits.into_iter().map(|(stream, limit)| {
                    Message::Mux(MuxMessage::Credit(Credit { stream, limit }))
                });
                let bytes = messages.into_iter().chain(credits).flat_map(|m| m.encode());
                return Some(bytes.collect());
            }
            self.notify.notified().await;
        }
    }
}
