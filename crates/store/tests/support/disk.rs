//! A disk in memory that fails on demand, and that remembers what was done to it.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// The disk. Clones are handles of the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Writes, changes of the length and syncs that were asked for.
    changes: u64,
    fault: Option<Fault>,
    /// Whether the fault struck.
    has_failed: bool,
    /// What was done, in its order, if that is wanted.
    events: Option<Vec<Event>>,
}

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// With which change it begins, counted from 1.
    pub(crate) at: u64,
    /// What the system says.
    pub(crate) kind: ErrorKind,
    /// Whether it lasts until [`Disk::mend`].
    pub(crate) lasts: bool,
}

/// What was done.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Where, and what.
    Write(usize, Vec<u8>),
    SetLen(usize),
    Sync,
    /// As far as this, batches were handed over.
    HandedOver(u64),
    /// As far as this, batches were acknowledged.
    Acknowledged(u64),
}

impl Disk {
    /// A disk that holds `bytes`.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { bytes, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what it holds.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// From now on it remembers.
    pub(crate) fn record(&self) {
        self.state().events = Some(Vec::new());
    }

    /// Adds something to what it remembers.
    pub(crate) fn note(&self, event: Event) {
        self.state().note(event);
    }

    /// What it remembers; it goes on from there.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.state().events.replace(Vec::new()).unwrap()
    }

    /// Lets it fail; counts changes from here.
    pub(crate) fn break_with(&self, fault: Fault) {
        let mut state = self.state();
        state.changes = 0;
        state.has_failed = false;
        state.fault = Some(fault);
    }

    /// Ends the fault. Returns whether it struck.
    pub(crate) fn mend(&self) -> bool {
        let mut state = self.state();
        state.fault = None;
        state.has_failed
    }

    /// Whether the fault struck.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().has_failed
    }
}

impl State {
    fn note(&mut self, event: Event) {
        if let Some(events) = &mut self.events {
            events.push(event);
        }
    }

    /// Counts a change; tells whether it fails.
    fn change(&mut self, is_sync: bool) -> io::Result<()> {
        self.changes += 1;
        let Some(Fault { at, kind, lasts }) = self.fault else { return Ok(()) };
        // What has room already can be synced on a full disk.
        let can_fail = !(is_sync && kind == ErrorKind::StorageFull);
        let is_due = if lasts { self.changes >= at } else { self.changes == at };
        if can_fail && is_due {
            self.has_failed = true;
            return Err(kind.into());
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let start = usize::try_from(offset).unwrap();
        let end = start.checked_add(out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(state.bytes.get(start..end).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.change(false)?;
        let len = usize::try_from(len).unwrap();
        state.bytes.resize(len, 0);
        state.note(Event::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change(true)?;
        state.note(Event::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let start = usize::try_from(offset).unwrap();
        if let Err(error) = state.change(false) {
            // Part of it arrives.
            let part = data.len() / 2;
            state.bytes[start..start + part].copy_from_slice(&data[..part]);
            return Err(error);
        }
        state.bytes[start..start + data.len()].copy_from_slice(data);
        if state.events.is_some() {
            state.note(Event::Write(start, data.to_vec()));
        }
        Ok(())
    }
}
