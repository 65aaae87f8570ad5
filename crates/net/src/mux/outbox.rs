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
    overrun: Notify,
}

impl Outbox {
    /// Adds a message. When too many wait, [`Outbox::overrun`] returns.
    pub(crate) fn push(&self, message: Message) {
        let mut waiting = lock(&self.waiting);
        if waiting.messages.len() < WAITING_MAX {
            waiting.messages.push_back(message);
        } else {
            waiting.overrun = true;
            self.overrun.notify_one();
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

    /// Returns once too many messages wait, of which some are lost.
    pub(crate) async fn overrun(&self) {
        while !lock(&self.waiting).overrun {
            self.overrun.notified().await;
        }
    }

    /// Waits for messages and returns all of them, encoded.
    pub(crate) async fn take(&self) -> Vec<u8> {
        loop {
            let (messages, credits) = {
                let mut waiting = lock(&self.waiting);
                (std::mem::take(&mut waiting.messages), std::mem::take(&mut waiting.credits))
            };
            if !messages.is_empty() || !credits.is_empty() {
                let credits = credits.into_iter().map(|(stream, limit)| {
                    Message::Mux(MuxMessage::Credit(Credit { stream, limit }))
                });
                return messages.into_iter().chain(credits).flat_map(|m| m.encode()).collect();
            }
            self.notify.notified().await;
        }
    }
}
