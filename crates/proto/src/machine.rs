//! The one shape of every protocol: fed inputs and the time, drained of outputs, asked for its
//! next deadline.
//!
//! Contract. After any `&mut` call the caller drains [`Machine::poll_output`] until it returns
//! `None`; only then does it ask [`Machine::poll_timeout`]. When that moment has come it calls
//! [`Machine::handle_timeout`] and drains again; afterwards the next deadline lies in the future,
//! which [`check_deadline`] asserts, so a driver cannot be made to spin.

use std::collections::VecDeque;

use crate::time::Instant;

/// A protocol as a state machine without I/O, clock, tasks or global randomness.
pub trait Machine {
    /// What can happen to it: a message received, a command, the completion of a request.
    type Input;
    /// What it wants done: a message to send, an event to report, a request to carry out.
    type Output;

    /// Takes one input.
    fn handle_input(&mut self, now: Instant, input: Self::Input);

    /// Does what is due at `now`. Harmless when nothing is.
    fn handle_timeout(&mut self, now: Instant);

    /// The next output, oldest first; `None` when drained.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// When [`Machine::handle_timeout`] is wanted next; `None` if nothing is waited for.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// Takes the oldest output of a queue. One that is drained gives its memory back: most machines
/// have nothing to say most of the time, and a node has one for each link.
pub(crate) fn pop<T>(outputs: &mut VecDeque<T>) -> Option<T> {
    let output = outputs.pop_front();
    if output.is_none() {
        outputs.shrink_to_fit();
    }
    output
}

/// Asserts (in debug builds) that a machine whose time-outs were handled at `now` and whose
/// outputs were drained does not ask for a moment that is already past.
///
/// # Panics
///
/// In debug builds, if the machine breaks that rule.
pub fn check_deadline<M: Machine>(machine: &M, now: Instant) {
    debug_assert!(
        machine.poll_timeout().is_none_or(|deadline| deadline > now),
        "a handled time-out is still due"
    );
}
