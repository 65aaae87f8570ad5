//! What survives a restart: our mandates, where the seats of our region are, and when that was so.
//!
//! ```text
//! state = [[mandate: bytes], [contact], unix_s]                            CBOR (RFC 8949)
//! ```

use bytes::Bytes;
use minicbor::{Decoder, Encoder};

use super::hints::{HINT_EPOCHS, Hint};
use super::{Output, Roles};
use crate::invite::PeerAddr;
use crate::role::ROLE_LEN_MAX;
use crate::role::epoch::draw;
use crate::role::mandate::Mandate;
use crate::role::term::RANKS_MAX;
use crate::time::{Instant, UnixTime};
use crate::wire::addr::bounded_len;

/// Mandates that are kept: the one in force and the next.
const MANDATES_MAX: usize = 4;

/// What [`DiskAction::Role`](crate::index::DiskAction::Role) writes: a node's mandates, and the
/// seats that it knew at a moment; the first ones of each, if there are more than are kept.
///
/// # Panics
///
/// Never: writing to memory cannot fail.
#[must_use]
pub fn encode_state(mandates: &[&Bytes], seats: &[&PeerAddr], at: UnixTime) -> Vec<u8> {
    let mandates = &mandates[..mandates.len().min(MANDATES_MAX)];
    let seats = &seats[..seats.len().min(RANKS_MAX)];
    let mut encoder = Encoder::new(Vec::new());
    let write = |e: &mut Encoder<Vec<u8>>| {
        e.array(3)?.array(mandates.len() as u64)?;
        for mandate in mandates {
            e.bytes(mandate)?;
        }
        e.encode(seats)?.u64(at.as_secs())?.ok()
    };
    write(&mut encoder).expect("writing to memory cannot fail");
    let state = encoder.into_writer();
    debug_assert!(state.len() <= ROLE_LEN_MAX);
    state
}

impl Roles {
    /// Wants it on disk, if it is another, or of another epoch.
    pub(super) fn persist(&mut self, now: Instant) {
        let Some(epoch) = self.epoch(now) else { return };
        let mandates: Vec<_> = self.mandates.iter().map(Mandate::bytes).collect();
        let seats = self.seats.values().filter(|seat| !seat.is_lost);
        let seats: Vec<_> = seats.map(|seat| &seat.contact).collect();
        let state = encode_state(&mandates, &seats, self.epochs.start(self.region(), epoch));
        let name = draw("baran 1 state of roles", &[&state]);
        if core::mem::replace(&mut self.persisted, name) != name {
            self.outputs.push_back(Output::Persist(state.into()));
        }
    }

    /// What the disk held; after the calendar and the puzzle, before all else. Mandates are
    /// verified as anybody's are, as soon as there is an estimate of how many nodes there are.
    pub(crate) fn restore(&mut self, now: Instant, state: &[u8]) {
        let Ok((mandates, contacts, at)) = read(state) else { return };
        self.stored = mandates;
        // Of those of long ago few are there, and each costs an attempt to reach it.
        let latest = at + self.epochs.len() * (HINT_EPOCHS + 1);
        let is_recent = self.unix(now).is_none_or(|unix| unix <= latest);
        for contact in contacts.into_iter().filter(|_| is_recent) {
            let hint = Hint::unsaid(now, contact.clone()).wait(now + self.config.ask * 2);
            self.insert_hint(now, contact.id, hint);
        }
    }

    /// Takes up the mandates of the last run that still hold.
    pub(super) fn resume(&mut self, now: Instant) {
        for bytes in core::mem::take(&mut self.stored) {
            if let Ok(mandate) = self.verify(now, &bytes)
                && mandate.term().holder == self.id
            {
                self.mandates.push(mandate);
            }
        }
        self.review(now);
    }
}

type State = (Vec<Bytes>, Vec<PeerAddr>, UnixTime);

fn read(state: &[u8]) -> Result<State, minicbor::decode::Error> {
    let d = &mut Decoder::new(state);
    if state.len() > ROLE_LEN_MAX || d.array()? != Some(3) {
        return Err(minicbor::decode::Error::message("not the state of roles"));
    }
    let len = bounded_len(d, MANDATES_MAX)?;
    let mandates =
        (0..len).map(|_| d.bytes().map(Bytes::copy_from_slice)).collect::<Result<_, _>>()?;
    let len = bounded_len(d, RANKS_MAX)?;
    let contacts = (0..len).map(|_| d.decode()).collect::<Result<_, _>>()?;
    Ok((mandates, contacts, UnixTime::from_secs(d.u64()?)))
}
