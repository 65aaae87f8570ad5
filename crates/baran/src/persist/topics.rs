//! Topics in the store.
//!
//! ```text
//! Topics   topic                    what we hold of it, who was removed
//! Entries  topic | author | seq     an entry; seq as 8 bytes, big-endian
//! Heads    topic | author           what is known of an author beside its entries
//! ```

use baran_proto::id::{ID_LEN, NodeId};
use baran_proto::topic::id::{TOPIC_ID_LEN, TopicId};
use baran_proto::topic::machine::{DiskAction, RestoredTopic};
use baran_store::{Batch, Store, StoreError, Table};
use bytes::Bytes;

fn author_key(topic: TopicId, author: NodeId) -> Vec<u8> {
    [&topic.as_bytes()[..], author.as_bytes()].concat()
}

fn entry_key(topic: TopicId, author: NodeId, seq: u64) -> Vec<u8> {
    [&topic.as_bytes()[..], author.as_bytes(), &seq.to_be_bytes()].concat()
}

/// Adds what an action changes to a batch.
pub(super) fn write(batch: &mut Batch, action: DiskAction) {
    match action {
        DiskAction::State(topic, state) => {
            batch.put(Table::Topics, topic.as_bytes().to_vec(), state.to_vec());
        }
        DiskAction::Entries(topic, entries) => {
            for (author, seq, entry) in entries {
                batch.put(Table::Entries, entry_key(topic, author, seq), entry.to_vec());
            }
        }
        DiskAction::Trim { topic, entries } => {
            for (author, seq) in entries {
                batch.remove(Table::Entries, entry_key(topic, author, seq));
            }
        }
        DiskAction::Author(topic, author, state) => {
            batch.put(Table::Heads, author_key(topic, author), state.to_vec());
        }
        DiskAction::Drop(topic) => {
            for table in [Table::Topics, Table::Entries, Table::Heads] {
                batch.remove_prefix(table, topic.as_bytes().to_vec());
            }
        }
    }
}

/// All topics that were not dropped.
pub(super) fn restore(store: &Store) -> Result<Vec<RestoredTopic>, StoreError> {
    store.scan(Table::Topics)?.map(|item| restore_one(store, item?)).collect()
}

fn restore_one(
    store: &Store,
    (topic, state): (Vec<u8>, Vec<u8>),
) -> Result<RestoredTopic, StoreError> {
    let entries = store.scan_prefix(Table::Entries, &topic)?;
    let entries =
        entries.map(|item| Ok(Bytes::from(item?.1))).collect::<Result<_, StoreError>>()?;
    let mut authors = Vec::new();
    for item in store.scan_prefix(Table::Heads, &topic)? {
        let (key, value) = item?;
        let id = key.get(TOPIC_ID_LEN..).and_then(|id| <[u8; ID_LEN]>::try_from(id).ok());
        authors.extend(id.map(|id| (NodeId::from_bytes(id), Bytes::from(value))));
    }
    let topic = <[u8; TOPIC_ID_LEN]>::try_from(&topic[..]).map(TopicId::from_bytes);
    let topic = topic.unwrap_or_else(|_| TopicId::from_bytes([0; TOPIC_ID_LEN]));
    Ok(RestoredTopic { topic, state: state.into(), entries, authors })
}
