//! What a node finds on disk when it starts, and writes as it runs.
//!
//! A node without a data directory keeps nothing: what it would write counts as written, because
//! nobody can ask for it after a restart.

mod topics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use baran_proto::id::{ID_LEN, NodeId};
use baran_proto::index::{DiskAction, Restored};
use baran_proto::key::{KEY_LEN, Key};
use baran_proto::peers::PeerCache;
use baran_proto::record::Slot;
use baran_proto::role::ROLE_LEN_MAX;
use baran_proto::time::UnixTime;
use baran_proto::wire::index::RecordKind;
use baran_store::{Batch, Store, StoreError, Table};
use bytes::Bytes;
use tracing::{debug, warn};

use crate::data::{DataDir, DataError};

/// Bytes of a slot as a key of the store: point, kind, author.
const SLOT_LEN: usize = KEY_LEN + 1 + ID_LEN;

/// The name of [`DiskAction::Role`] in the store.
const ROLE: &[u8] = b"role";
/// The name of what was served of a day's bytes: how much, and when that day ends.
const SERVED: &[u8] = b"served";
/// The name of what solves the puzzle, with the network's name behind it.
const NONCE: &[u8] = b"nonce ";

/// The disk of a node.
#[derive(Debug)]
pub(crate) struct Disk {
    place: Option<(Arc<DataDir>, Store)>,
    network: String,
    pub(crate) cache: PeerCache,
    is_cache_changed: bool,
}

/// What the node itself, rather than the machine, wrote in an earlier run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kept {
    /// Bytes served of a day, and when it ends.
    pub(crate) served: Option<(u64, UnixTime)>,
    /// What solves the puzzle in this network.
    pub(crate) nonce: Option<u64>,
}

/// Why what lies on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file of the data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task that writes was stopped.
    #[error("writing was interrupted")]
    Interrupted,
}

/// What the calendar says. Before 1970 it is 1970.
pub(crate) fn unix_now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_secs(since.as_secs())
}

impl Disk {
    /// Opens what lies in a data directory.
    ///
    /// # Errors
    ///
    /// If a file cannot be used, except a damaged peer cache, which is set aside.
    pub(crate) fn open(dir: Option<Arc<DataDir>>, network: &str) -> Result<Self, DiskError> {
        let Some(dir) = dir else {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(|_| DiskError::Interrupted)?;
            let cache = PeerCache::new(secret);
            let network = network.to_owned();
            return Ok(Self { place: None, network, cache, is_cache_changed: false });
        };
        let peers = dir.peers(network)?;
        if let Some(error) = &peers.lost {
            warn!(%error, "the peer cache cannot be used and was set aside");
        }
        let store = Store::open(&dir.path().join("store.redb"))?;
        Ok(Self {
            place: Some((dir, store)),
            network: network.to_owned(),
            cache: peers.cache,
            is_cache_changed: false,
        })
    }

    /// The port of last time.
    pub(crate) fn port(&self) -> Option<u16> {
        self.place.as_ref()?.0.port().ok().flatten()
    }

    /// Notes the port for next time.
    pub(crate) fn save_port(&self, addrs: &[SocketAddr]) {
        if let (Some((dir, _)), Some(addr)) = (&self.place, addrs.first())
            && let Err(error) = dir.save_port(addr.port())
        {
            warn!(%error, "the port is not saved; after a restart this node is harder to find");
        }
    }

    /// What the store holds.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(crate) fn restore(&self) -> Result<Restored, DiskError> {
        let Some((_, store)) = &self.place else { return Ok(Restored::default()) };
        let mut restored = Restored::default();
        for item in store.scan(Table::Records)? {
            restored.records.push(Bytes::from(item?.1));
        }
        for item in store.scan(Table::Own)? {
            restored.own.push(Bytes::from(item?.1));
        }
        for item in store.scan(Table::Sequences)? {
            let (key, value) = item?;
            if let (Some(slot), Some((sequence, until))) = (slot_of(&key), number_and_time(&value))
            {
                restored.sequences.push((slot, sequence, until));
            }
        }
        restored.topics = topics::restore(store)?;
        let role = store.read(Table::State, ROLE)?.unwrap_or_default();
        if role.len() <= ROLE_LEN_MAX {
            restored.role = role;
        }
        Ok(restored)
    }

    /// Writes what the index wants. The future is done when it is on disk.
    pub(crate) fn write(
        &self,
        action: DiskAction,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        self.write_batch(batch(action))
    }

    /// What else it holds.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(crate) fn kept(&self) -> Result<Kept, DiskError> {
        let Some((_, store)) = &self.place else { return Ok(Kept::default()) };
        let served = store.read(Table::State, SERVED)?;
        let nonce = store.read(Table::State, &self.nonce_name())?;
        Ok(Kept {
            served: served.as_deref().and_then(number_and_time),
            nonce: nonce.and_then(|nonce| Some(u64::from_be_bytes(nonce.try_into().ok()?))),
        })
    }

    fn nonce_name(&self) -> Vec<u8> {
        [NONCE, self.network.as_bytes()].concat()
    }

    /// Whether anything is kept at all.
    pub(crate) fn is_lasting(&self) -> bool {
        self.place.is_some()
    }

    /// Writes what was served of a day, and when that ends.
    pub(crate) fn write_served(
        &self,
        bytes: u64,
        until: UnixTime,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        self.write_state(SERVED.to_vec(), with_time(bytes, until))
    }

    /// Writes what solves the puzzle.
    pub(crate) fn write_nonce(
        &self,
        nonce: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        self.write_state(self.nonce_name(), nonce.to_be_bytes().to_vec())
    }

    fn write_state(
        &self,
        name: Vec<u8>,
        value: Vec<u8>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let mut batch = Batch::new();
        batch.put(Table::State, name, value);
        self.write_batch(batch)
    }

    fn write_batch(
        &self,
        batch: Batch,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let store = self.place.as_ref().map(|(_, store)| store.clone());
        async move {
            match store {
                Some(store) => store.write(batch).await,
                None => Ok(()),
            }
        }
    }

    /// A link to a peer stands, which is reached there.
    pub(crate) fn peer_seen(&mut self, peer: baran_proto::invite::PeerAddr) {
        self.cache.seen(unix_now(), peer, true);
        self.is_cache_changed = true;
    }

    pub(crate) fn peer_failed(&mut self, peer: NodeId) {
        self.cache.failed(peer);
        self.is_cache_changed = true;
    }

    /// Writes the peer cache if it has changed, in a task of its own.
    pub(crate) fn save_cache(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let (dir, _) = self.place.as_ref().filter(|_| self.is_cache_changed)?;
        self.is_cache_changed = false;
        let (dir, cache, network) = (Arc::clone(dir), self.cache.clone(), self.network.clone());
        Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = dir.save_peers(&cache, &network) {
                debug!(%error, "the peer cache is not saved");
            }
        }))
    }
}

fn key_of(slot: &Slot) -> Vec<u8> {
    let mut key = Vec::with_capacity(SLOT_LEN);
    key.extend(slot.key.as_bytes());
    key.push(match slot.kind {
        RecordKind::Node => 0,
        RecordKind::Announcement => 1,
        RecordKind::Value => 2,
    });
    key.extend(slot.author.as_bytes());
    key
}

fn slot_of(key: &[u8]) -> Option<Slot> {
    let (point, rest) = key.split_first_chunk::<KEY_LEN>()?;
    let (kind, author) = rest.split_first()?;
    let kind = match kind {
        0 => RecordKind::Node,
        1 => RecordKind::Announcement,
        2 => RecordKind::Value,
        _ => return None,
    };
    let author = NodeId::from_bytes(author.try_into().ok()?);
    Some(Slot { key: Key::from_bytes(*point), kind, author })
}

fn with_time(number: u64, until: UnixTime) -> Vec<u8> {
    [number.to_be_bytes(), until.as_secs().to_be_bytes()].concat()
}

fn number_and_time(value: &[u8]) -> Option<(u64, UnixTime)> {
    let (number, until) = value.split_first_chunk::<8>()?;
    let until = u64::from_be_bytes(until.try_into().ok()?);
    Some((u64::from_be_bytes(*number), UnixTime::from_secs(until)))
}

fn batch(action: DiskAction) -> Batch {
    let mut batch = Batch::new();
    match action {
        DiskAction::Keep { slot, record, sequence, remember_until } => {
            batch.put(Table::Records, key_of(&slot), record.to_vec());
            batch.put(Table::Sequences, key_of(&slot), with_time(sequence, remember_until));
        }
        DiskAction::Drop(slots) => {
            for slot in slots {
                batch.remove(Table::Records, key_of(&slot));
            }
        }
        DiskAction::Forget(slots) => {
            for slot in slots {
                batch.remove(Table::Sequences, key_of(&slot));
            }
        }
        DiskAction::Own { slot, record } => {
            batch.put(Table::Own, key_of(&slot), record.to_vec());
        }
        DiskAction::Role(bytes) => {
            batch.put(Table::State, ROLE.to_vec(), bytes);
        }
        DiskAction::Topic(action) => topics::write(&mut batch, action),
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn roles_come_back_from_the_store() {
        let place = tempfile::tempdir().unwrap();
        let dir = Arc::new(DataDir::open(&place.path().join("data")).unwrap());
        let disk = Disk::open(Some(Arc::clone(&dir)), "main").unwrap();
        assert!(disk.restore().unwrap().role.is_empty());
        for bytes in [vec![1; 9], vec![2; ROLE_LEN_MAX]] {
            disk.write(DiskAction::Role(bytes.clone())).await.unwrap();
            assert_eq!(disk.restore().unwrap().role, bytes);
        }
        disk.write(DiskAction::Role(vec![3; ROLE_LEN_MAX + 1])).await.unwrap();
        assert!(disk.restore().unwrap().role.is_empty(), "nothing of ours is that long");
    }

    #[test]
    fn a_slot_comes_back_from_its_key() {
        let id = NodeId::from_bytes([9; 32]);
        for kind in [RecordKind::Node, RecordKind::Announcement, RecordKind::Value] {
            let slot = Slot { key: Key::of_node(id), kind, author: id };
            assert_eq!(slot_of(&key_of(&slot)), Some(slot));
        }
        assert_eq!(slot_of(&[0; SLOT_LEN - 1]), None);
        assert_eq!(slot_of(&[7; SLOT_LEN]), None);
    }
}
