//! A hundred machines on one wire: addresses of this namespace whose packets take time.
//!
//! All addresses are the namespace's own, and the kernel would hand packets between them over at
//! once. Here the table of local addresses is asked only for what comes in from a TUN device, and
//! everything that leaves a socket is routed into that device. Two threads hold each packet for a
//! fixed time, translate those of hosts behind NATs ([`crate::nat`]), and write it back.
//!
//! Limits: IPv4 and UDP only; nothing is lost or reordered; a packet is let out within about
//! 0.1 ms of its time, later if the machine is busy.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::Outcome;
use crate::nat::Nats;

/// Set in the process that was started under `unshare`.
const UNSHARED: &str = "BARAN_BENCH_UNSHARED";

const MTU: u16 = 1500;

/// Packets under way at one time; more are dropped and counted.
const QUEUE: usize = 65_536;

/// Routes by way of the device. The rule for local addresses stands first in a fresh namespace; it
/// is asked last here, and before all others for what comes out of the device. Sources are local
/// addresses too, which the kernel takes for forgeries unless told otherwise.
const ROUTES: &str = "
ip link set lo up
ip link set wire up txqueuelen 20000
for conf in all wire; do
    echo 1 > /proc/sys/net/ipv4/conf/$conf/accept_local
    echo 0 > /proc/sys/net/ipv4/conf/$conf/rp_filter
done
ip -batch -
ip route add default dev wire table 100
ip rule add pref 10 iif wire lookup local
ip rule add pref 20 lookup 100
ip rule add pref 30 lookup local
ip rule del pref 0";

/// Makes sure that this process is alone in a network namespace: starts itself again in one, and
/// returns in that process.
pub(crate) fn alone() -> Outcome<()> {
    if std::env::var_os(UNSHARED).is_some() {
        return Ok(());
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(format!("start unshare: {}", command.env(UNSHARED, "1").exec()).into())
}

/// The wire, for as long as the process lasts.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    counts: Arc<Counts>,
}

/// What went over a wire.
#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
    overflowed: AtomicU64,
}

type Held = (Instant, Vec<u8>);

impl Wire {
    /// Gives the namespace these addresses, and lets every packet between them take `one_way`.
    pub(crate) fn new(addrs: &[Ipv4Addr], one_way: Duration) -> Outcome<Self> {
        let device = DeviceBuilder::new().name("wire").mtu(MTU).build_sync();
        let device = device.map_err(|e| format!("open /dev/net/tun ({e}); this needs root"))?;
        let mut shell = Command::new("sh").args(["-ec", ROUTES]).stdin(Stdio::piped()).spawn()?;
        let mut batch = shell.stdin.take().ok_or("a pipe was asked for")?;
        for addr in addrs {
            writeln!(batch, "address add {addr}/32 dev lo")?;
        }
        drop(batch);
        if !shell.wait()?.success() {
            return Err("the routes of the wire cannot be set".into());
        }
        let wire = Self { counts: Arc::default() };
        let device = Arc::new(device);
        let nats = Arc::new(Mutex::new(Nats::default()));
        let (queue, held) = mpsc::sync_channel(QUEUE);
        let (reader, reader_nats) = (Arc::clone(&device), Arc::clone(&nats));
        let counts = Arc::clone(&wire.counts);
        std::thread::spawn(move || take_in(&reader, one_way, &reader_nats, &queue, &counts));
        let counts = Arc::clone(&wire.counts);
        std::thread::spawn(move || let_out(&device, &nats, &held, &counts));
        Ok(wire)
    }

    /// Packets delivered so far, and their bytes.
    pub(crate) fn delivered(&self) -> (u64, u64) {
        let Counts { packets, bytes, .. } = &*self.counts;
        (packets.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
    }

    /// Packets lost because more than the queue holds were under way; a run with any is void.
    pub(crate) fn overflowed(&self) -> u64 {
        self.counts.overflowed.load(Ordering::Relaxed)
    }
}

fn take_in(
    device: &SyncDevice,
    one_way: Duration,
    nats: &Mutex<Nats>,
    queue: &mpsc::SyncSender<Held>,
    counts: &Counts,
) {
    let mut buffer = vec![0; usize::from(MTU)];
    while let Ok(len) = device.recv(&mut buffer) {
        let now = Instant::now();
        let mut packet = buffer[..len].to_vec();
        let leaves = nats.lock().unwrap_or_else(PoisonError::into_inner).out(now, &mut packet);
        if leaves && queue.try_send((now + one_way, packet)).is_err() {
            counts.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn let_out(device: &SyncDevice, nats: &Mutex<Nats>, held: &mpsc::Receiver<Held>, counts: &Counts) {
    // All packets are held equally long, so they leave in the order in which they came.
    while let Ok((at, mut packet)) = held.recv() {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        let arrives = nats.lock().unwrap_or_else(PoisonError::into_inner).back(now, &mut packet);
        if arrives && device.send(&packet).is_ok() {
            counts.packets.fetch_add(1, Ordering::Relaxed);
            counts.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
    }
}
