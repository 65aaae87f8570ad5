//! Delay without `netem`: packets take a detour through this process.
//!
//! Kernels without the `netem` discipline can lose and throttle but not delay.
//! Here the routing rules of a router send what comes from its inside into a TUN
//! device; a task holds each packet for a fixed time and writes it back, upon
//! which it goes on its way through NAT and filter. Packets from outside are not
//! held, so the round trip between two hosts takes the sum of their lags.
//!
//! On the first pass the packet must stay unknown to conntrack: a flow that is
//! confirmed on the way into the detour would leave it untranslated.
//!
//! Limits: timers tick in milliseconds; packets for the router itself (hairpin)
//! do not take the detour and are lost to the tracking exemption; throughput is
//! that of one copy in and one out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use patchbay::Router;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tun_rs::{AsyncDevice, DeviceBuilder};

use crate::nft;

/// Packets in the detour at one time; more are dropped, as a router would.
const QUEUE: usize = 8192;

/// Larger than any MTU here.
const PACKET_MAX: usize = 65_536;

/// Routes what comes from the inside of `router` through the detour.
fn detour(inside: &str) -> String {
    format!(
        r#"
for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done
ip link set lag up
for family in -4 -6; do
    ip $family route add default dev lag table 100 || [ $family = -6 ]
    ip $family rule add iif {inside} lookup 100 pref 100 || [ $family = -6 ]
done
nft -f - <<END
table inet lab_lag {{
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
        iifname "{inside}" notrack
    }}
}}
END
"#
    )
}

/// Holds every packet from the inside of `router` for `one_way`.
///
/// # Errors
///
/// If the kernel has no TUN device or refuses a rule.
pub(crate) async fn hold(router: &Router, one_way: Duration) -> Result<()> {
    let wan_and_inside = router.interfaces();
    let inside = wan_and_inside.get(1).context("a router has an inside")?.name().to_owned();
    let open = router.spawn(|_| async { DeviceBuilder::new().name("lag").build_async() })?;
    let device = Arc::new(
        open.await?.context("open /dev/net/tun; may this user (chmod 666, or run as root)?")?,
    );
    nft::run_child(router.spawn_command(nft::shell(&detour(&inside)))?, "").await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reader = Arc::clone(&device);
    router.spawn(move |_| take_in(reader, one_way, sender))?;
    router.spawn(move |_| let_out(device, receiver))?;
    Ok(())
}

type Held = (Instant, Vec<u8>);

async fn take_in(device: Arc<AsyncDevice>, one_way: Duration, queue: mpsc::Sender<Held>) {
    let mut buffer = vec![0; PACKET_MAX];
    while let Ok(len) = device.recv(&mut buffer).await {
        // A full queue drops; a closed one is the end of the world.
        let _ = queue.try_send((Instant::now() + one_way, buffer[..len].to_vec()));
    }
}

async fn let_out(device: Arc<AsyncDevice>, mut queue: mpsc::Receiver<Held>) {
    while let Some((at, packet)) = queue.recv().await {
        sleep_until(at).await;
        let _ = device.send(&packet).await;
    }
}
