//! The file of the peers that this node is paired with.
//!
//! One line for each: id, seconds since 1970, invite, and the network, which may have blanks. Lines
//! that begin with `#` are skipped, and so are, with a warning, those that make no sense: a person
//! may edit the file. What is written takes the place of the old file at once.

use std::time::{SystemTime, UNIX_EPOCH};

use baran_proto::time::UnixTime;

use crate::PeerAddr;
use crate::data::{DataDir, DataError};

const FILE: &str = "paired";
/// Most lines: beyond what a person pairs, within what a node keeps connections to.
const PEERS_MAX: usize = 256;
/// Longest file, with the longest invites.
const LEN_MAX: usize = 512 * 1024;

/// A peer that this node is paired with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedPeer {
    /// The peer, and where it was reachable when they were paired.
    pub peer: PeerAddr,
    /// When they were paired, by this machine's clock.
    pub since: UnixTime,
    /// In which network.
    network: Network,
}

/// A network's name, which may be any text, without line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network(String);

impl Network {
    fn new(name: &str) -> Self {
        Self(name.escape_debug().to_string())
    }
}

/// The file `paired` of a data directory. The caller holds its
/// [`DataLock`](crate::data::DataLock).
#[derive(Debug, Clone)]
pub struct PairedPeers {
    dir: DataDir,
}

impl PairedPeers {
    /// The file of `dir`. It need not be there.
    #[must_use]
    pub fn of(dir: &DataDir) -> Self {
        Self { dir: dir.clone() }
    }

    /// The peers of a network, in the order in which they were paired.
    ///
    /// # Errors
    ///
    /// If the file is a symbolic link, is of another user, is open to others, is too long or cannot
    /// be read.
    pub fn of_network(&self, network: &str) -> Result<Vec<PairedPeer>, DataError> {
        let network = Network::new(network);
        let mut peers = self.load()?;
        peers.retain(|peer| peer.network == network);
        Ok(peers)
    }

    /// Adds a peer, in the place of what is known of it in this network. Returns when that is on
    /// disk; blocks until then.
    ///
    /// # Errors
    ///
    /// If there are 256 of them, or the file cannot be read or written.
    pub fn add(&self, peer: &PeerAddr, network: &str) -> Result<(), DataError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = UnixTime::from_secs(since.as_secs());
        let (mut peers, network) = (self.load()?, Network::new(network));
        peers.retain(|known| known.peer.id != peer.id || known.network != network);
        if peers.len() >= PEERS_MAX {
            let full = format!("it has {PEERS_MAX} peers: remove the lines of some");
            return Err(self.dir.misfit("add to", FILE, full));
        }
        peers.push(PairedPeer { peer: peer.clone(), since, network });
        let text: String = peers.iter().map(line).collect();
        self.dir.replace(FILE, text.as_bytes())
    }

    fn load(&self) -> Result<Vec<PairedPeer>, DataError> {
        self.dir.read_lines(FILE, LEN_MAX, PEERS_MAX, parse)
    }
}

fn line(peer: &PairedPeer) -> String {
    let (id, since, invite) = (peer.peer.id, peer.since.as_secs(), peer.peer.to_invite());
    format!("{id} {since} {invite} {}\n", peer.network.0)
}

fn parse(line: &str) -> Option<PairedPeer> {
    let mut parts = line.splitn(4, ' ');
    let (id, since, invite, network) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let peer: PeerAddr = invite.parse().ok()?;
    let since = UnixTime::from_secs(since.parse().ok()?);
    let network = Network(network.to_owned());
    (peer.id.to_string() == id).then_some(PairedPeer { peer, since, network })
}
