//! Epochs: how long a vote holds, and who votes in each.
//!
//! Every region has epochs of its own, shifted against those of the others, so that the network
//! does not vote in step. The electors of an epoch are those nearest to a point that nobody can
//! choose: they are seldom members of the region that they judge, and others each time.

use core::time::Duration;

use blake3::Hasher;

use super::Region;
use crate::id::NodeId;
use crate::key::Key;
use crate::time::UnixTime;

/// Epochs for which a seat may be held before it is given to somebody else: six hours (design §7)
/// of whole ones. In half hours elections alone, of which each candidate has 32 links and as many
/// mandates to show, would be a tenth of what control traffic may be.
pub const TERM_EPOCHS: u64 = 6;

/// How the calendar is cut into epochs: the same in the whole network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epochs {
    len_s: u64,
}

impl Epochs {
    /// Epochs of so many whole seconds, one at least.
    #[must_use]
    pub fn new(len: Duration) -> Self {
        Self { len_s: len.as_secs().max(1) }
    }

    /// How long one is.
    #[must_use]
    pub fn len(self) -> Duration {
        Duration::from_secs(self.len_s)
    }

    /// The epoch of a region at a moment.
    #[must_use]
    pub fn at(self, region: Region, now: UnixTime) -> u64 {
        now.as_secs().saturating_add(self.offset_s(region)) / self.len_s
    }

    /// When an epoch of a region begins.
    #[must_use]
    pub fn start(self, region: Region, epoch: u64) -> UnixTime {
        let shifted_s = epoch.saturating_mul(self.len_s);
        UnixTime::from_secs(shifted_s.saturating_sub(self.offset_s(region)))
    }

    fn offset_s(self, region: Region) -> u64 {
        draw("baran 1 offset of a region", &[&name(region)]) % self.len_s
    }
}

/// The point whose nearest nodes vote on a region in an epoch.
#[must_use]
pub fn elector_point(region: Region, epoch: u64) -> Key {
    let mut hasher = Hasher::new_derive_key("baran 1 electors of a region");
    hasher.update(&name(region)).update(&epoch.to_be_bytes());
    Key::from_bytes(*hasher.finalize().as_bytes())
}

/// How many terms a node has begun by an epoch: each begins them at a time of its own, so the seats
/// of a region do not all change hands at once.
pub(super) fn term_number(node: NodeId, epoch: u64) -> u64 {
    let offset = draw("baran 1 offset of a term", &[node.as_bytes()]) % TERM_EPOCHS;
    epoch.saturating_add(offset) / TERM_EPOCHS
}

/// A number that everybody draws alike from what is named.
pub(super) fn draw(context: &str, parts: &[&[u8]]) -> u64 {
    let mut hasher = Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    Key::from_bytes(*hasher.finalize().as_bytes()).head()
}

/// The bytes by which a region is named in what is hashed.
pub(super) fn name(region: Region) -> [u8; 5] {
    let mut name = [0; 5];
    name[0] = region.bits();
    name[1..].copy_from_slice(&region.prefix().to_be_bytes());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_a_region_follow_each_other() {
        let epochs = Epochs::new(Duration::from_secs(1800));
        let region = Region::from_parts(0xb000_0000, 4).unwrap();
        let now = UnixTime::from_secs(1_700_000_000);
        let epoch = epochs.at(region, now);
        let (start, next) = (epochs.start(region, epoch), epochs.start(region, epoch + 1));
        assert!(start <= now && now < next && next - start == epochs.len());
        assert_eq!(epochs.at(region, start), epoch);
        assert_eq!(epochs.at(region, next), epoch + 1);
        assert_ne!(epochs.start(Region::ALL, epoch), start, "regions are shifted");
        assert_ne!(elector_point(region, epoch), elector_point(region, epoch + 1));
        assert_ne!(elector_point(region, epoch), elector_point(Region::ALL, epoch));
    }

    #[test]
    fn a_calendar_that_is_off_harms_nothing() {
        let epochs = Epochs::new(Duration::ZERO);
        assert_eq!(epochs.at(Region::ALL, UnixTime::from_secs(u64::MAX)), u64::MAX);
        assert_eq!(epochs.start(Region::ALL, 0), UnixTime::from_secs(0));
    }

    #[test]
    fn terms_are_staggered() {
        let numbers: std::collections::BTreeSet<_> =
            (0..64).map(|n| term_number(NodeId::from_bytes([n; 32]), 1_000_006)).collect();
        assert_eq!(numbers.len(), 2, "some have begun another");
        let node = NodeId::from_bytes([7; 32]);
        assert_eq!(term_number(node, 500 + TERM_EPOCHS), term_number(node, 500) + 1);
    }
}
