//! Quick runs.
use baran_sim::{population, world};
use core::time::Duration;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let nodes: usize = args[1].parse().unwrap();
    let minutes: u64 = args[2].parse().unwrap();
    let churn: f64 = args[3].parse().unwrap();
    let mut w = world::World::new(world::Config::default());
    w.populate(&population::Config { nodes, churn_per_h: churn, ..Default::default() }, Duration::from_secs(30));
    println!("populated {:.2} s cpu", cpu());
    for m in 1..=minutes {
        w.run_until(baran_proto::time::Instant::from_micros(m * 60_000_000));
        let t = w.totals();
        println!("{m} min: {:.2} s cpu, online {} conns {} pending {} events {} timeouts {} dials {} failed {} links {} rss {} MB", cpu(), w.online(), w.conns_len(), w.pending(), t.events, t.timeouts, t.dials, t.dials_failed, t.links, rss());
    }
    let t = w.totals();
    println!("{:?}", t.messages);
    let n = nodes as f64;
    let tr = w.traffic();
    println!("per node: control {:.0} handshake {:.0} dial {:.0} keepalive {:.0}", tr.control_bytes as f64/n, tr.handshake_bytes as f64/n, tr.dial_bytes as f64/n, tr.keep_alive_bytes as f64/n);
    println!("{}", w.describe());
    println!("trace {}", w.trace());
}
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn rss() -> u64 {
    let s = std::fs::read_to_string("/proc/self/statm").unwrap();
    s.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / 1_000_000
}
