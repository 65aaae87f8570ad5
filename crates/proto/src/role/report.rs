//! Failure reports: the word of those whom a seat serves that it does not.
//!
//! ```text
//! report  = [reporter, nonce, net or null, reason, signature]              CBOR (RFC 8949)
//! signed  = "baran 1 failure report" | ["network", seat, region, epoch, nonce, net, reason]
//! removal = {0: seat, 1: region, 2: epoch, 3: [report]}
//! ```
//!
//! Reports of [`REPORTS_MIN`] nodes of the region, in networks of their own, make the seat's
//! mandates of that epoch and of those before it void for whoever sees them. It can be elected
//! again.

use minicbor::{Decode, Decoder, Encode};

use super::Region;
use super::term::{NetPrefix, Term};
use crate::id::{NodeId, SIGNATURE_LEN, SecretKey};
use crate::key::Key;
use crate::record::Verify;
use crate::wire::addr::bounded_len;

/// Reports that remove a seat (design §7).
pub const REPORTS_MIN: usize = 8;

/// What a seat did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Reason {
    /// It was not there three times in a row.
    #[n(0)]
    Dead,
    /// It denied a record that two other seats have.
    #[n(1)]
    Omission,
}

/// A seat that is reported: of which region, and in which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Charge {
    /// Whose seat.
    #[n(0)]
    pub seat: NodeId,
    /// Of which region.
    #[n(1)]
    pub region: Region,
    /// The running one, so that all who report in it say the same.
    #[n(2)]
    pub epoch: u64,
}

impl Charge {
    /// Whether a term is void if the charge is upheld.
    #[must_use]
    pub fn covers(&self, term: &Term) -> bool {
        (term.holder, term.region) == (self.seat, self.region) && term.epoch <= self.epoch
    }
}

/// One node's word about a seat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Report {
    /// Whose word.
    #[n(0)]
    pub reporter: NodeId,
    /// The solution of its puzzle.
    #[n(1)]
    pub nonce: u64,
    /// The network that it is in; absent if that is a private one.
    #[n(2)]
    pub net: Option<NetPrefix>,
    /// What it saw.
    #[n(3)]
    pub reason: Reason,
    /// Over all of that and the charge.
    #[cbor(n(4), with = "crate::signature")]
    pub signature: [u8; SIGNATURE_LEN],
}

impl Report {
    /// Signs a report.
    #[must_use]
    pub fn sign(
        secret: &SecretKey,
        network: &str,
        charge: &Charge,
        nonce: u64,
        net: Option<NetPrefix>,
        reason: Reason,
    ) -> Self {
        let signature = [0; SIGNATURE_LEN];
        let mut report = Self { reporter: secret.id(), nonce, net, reason, signature };
        report.signature = secret.sign(&report.message(network, charge));
        report
    }

    /// Whether it is the word of a node of the region on another one: its puzzle is asked for last.
    pub fn is_valid(
        &self,
        network: &str,
        charge: &Charge,
        verify: Verify,
        is_solved: &mut dyn FnMut(NodeId, u64) -> bool,
    ) -> bool {
        self.reporter != charge.seat
            && charge.region.contains(&Key::of_node(self.reporter))
            && verify(&self.reporter, &self.message(network, charge), &self.signature)
            && is_solved(self.reporter, self.nonce)
    }

    fn message(&self, network: &str, charge: &Charge) -> Vec<u8> {
        crate::signature::message("baran 1 failure report", network, |e| {
            e.encode(charge)?.encode(self.nonce)?.encode(self.net)?.encode(self.reason)?.ok()
        })
    }
}

/// Enough reports to make a mandate void.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Removal {
    /// Which one.
    #[n(0)]
    pub charge: Charge,
    /// [`REPORTS_MIN`] at most are written.
    #[cbor(n(1), decode_with = "decode_reports")]
    pub reports: Vec<Report>,
}

impl Removal {
    /// Whether it is valid: enough reports, of distinct nodes in distinct networks.
    pub fn is_valid(
        &self,
        network: &str,
        verify: Verify,
        is_solved: &mut dyn FnMut(NodeId, u64) -> bool,
    ) -> bool {
        let is_distinct = self
            .reports
            .iter()
            .enumerate()
            .all(|(at, report)| !self.reports[..at].iter().any(|other| report.repeats(other)));
        self.reports.len() >= REPORTS_MIN
            && is_distinct
            && self
                .reports
                .iter()
                .all(|report| report.is_valid(network, &self.charge, verify, is_solved))
    }
}

impl Report {
    /// Whether it adds nothing to another one.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.reporter == other.reporter || self.net.is_some() && self.net == other.net
    }
}

fn decode_reports<C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Vec<Report>, minicbor::decode::Error> {
    let len = bounded_len(d, REPORTS_MIN)?;
    (0..len).map(|_| d.decode_with(ctx)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn report(charge: &Charge, by: u8, net: u8) -> Report {
        let secret = SecretKey::from_bytes([by; 32]);
        let net = Some(NetPrefix::of(IpAddr::from([203, 0, net, 1])));
        Report::sign(&secret, "main", charge, 1, net, Reason::Dead)
    }

    #[test]
    fn eight_of_networks_of_their_own_remove_a_seat() {
        let seat = SecretKey::from_bytes([9; 32]).id();
        let charge = Charge { seat, region: Region::ALL, epoch: 7 };
        let removal = |nets: [u8; 8], by: [u8; 8]| Removal {
            charge,
            reports: nets.into_iter().zip(by).map(|(net, by)| report(&charge, by, net)).collect(),
        };
        let is_valid = |removal: &Removal, network| {
            removal.is_valid(network, NodeId::verify, &mut |_, nonce| nonce == 1)
        };
        let (nets, by) = ([1, 2, 3, 4, 5, 6, 7, 8], [11, 12, 13, 14, 15, 16, 17, 18]);
        let valid = removal(nets, by);
        assert!(is_valid(&valid, "main") && !is_valid(&valid, "other"));
        let bytes = minicbor::to_vec(&valid).unwrap();
        assert!(bytes.len() < 1_100, "{}", bytes.len());
        assert_eq!(minicbor::decode::<Removal>(&bytes).unwrap(), valid);
        assert!(!is_valid(&removal([1, 2, 3, 4, 5, 6, 7, 7], by), "main"), "one network twice");
        assert!(!is_valid(&removal(nets, [11, 12, 13, 14, 15, 16, 17, 17]), "main"));
        assert!(!is_valid(&removal(nets, [11, 12, 13, 14, 15, 16, 17, 9]), "main"), "by itself");
        let mut few = valid.clone();
        few.reports.pop();
        assert!(!is_valid(&few, "main"));
        let mut other = valid.clone();
        other.charge.epoch += 1;
        assert!(!is_valid(&other, "main"), "of another epoch");
        let unsolved = valid.is_valid("main", NodeId::verify, &mut |_, _| false);
        assert!(!unsolved);
    }
}
