//! Keep-alives, computed: idle links cost no events.
//!
//! The two sides of an idle link take turns, with pauses of 15, 30 and 60 s that climb after two
//! good turns ([`baran_proto::path::keepalive`], which the driver runs for each link). Here a
//! mapping always proves to live, and only the age of a link counts; the turns that a link saves
//! while data flows are counted all the same.

use core::time::Duration;

use baran_proto::path::keepalive::{DOUBTS_MAX, GRACE, PAUSES_S};

use crate::draw::Draw;

/// Good turns after which the next pause holds.
const TURNS: u64 = 2;

/// The pause of an idle link of this age.
#[must_use]
pub fn pause_at(age: Duration) -> Duration {
    let mut left = age.as_secs();
    for pause in PAUSES_S {
        if left < TURNS * pause {
            return Duration::from_secs(pause);
        }
        left -= TURNS * pause;
    }
    Duration::from_secs(PAUSES_S[PAUSES_S.len() - 1])
}

/// Turns of both sides in the life of a link.
#[must_use]
pub fn turns(age: Duration) -> u64 {
    let (mut left, mut turns) = (age.as_secs(), 0);
    for (at, pause) in PAUSES_S.into_iter().enumerate() {
        let is_last = at + 1 == PAUSES_S.len();
        let here = (left / pause).min(if is_last { u64::MAX } else { TURNS });
        turns += here;
        left -= here * pause;
        if !is_last && here < TURNS {
            break;
        }
    }
    turns
}

/// After what time a link is lost once something was sent that nobody answers: one look a second.
#[must_use]
pub fn lost_after_sending() -> Duration {
    Duration::from_secs(u64::from(DOUBTS_MAX) + 2)
}

/// After what time the loss of a peer is noticed on an idle link of this age: somewhere in the
/// pause it is the turn of either side.
pub fn lost_after(draw: &mut Draw, age: Duration) -> Duration {
    draw.part_of(pause_at(age) + GRACE) + lost_after_sending()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_climb_with_age() {
        let s = Duration::from_secs;
        let of = |age| pause_at(s(age)).as_secs();
        assert_eq!([of(0), of(29), of(30), of(89), of(90), of(9_999)], [15, 15, 30, 30, 60, 60]);
        assert_eq!([turns(s(14)), turns(s(30)), turns(s(90)), turns(s(90 + 600))], [0, 2, 4, 14]);
    }
}
