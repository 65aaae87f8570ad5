//! Nodes against bare `noq`, over loopback, in one process and one run.
//!
//! Measures one stream's throughput, processor time per byte, what a relay forwards per core, the
//! time to reach a peer and the time of an echo: for `noq` alone on plain sockets with the same
//! settings, for two nodes, and for two nodes with a third between them. The targets and what came
//! out are in `docs/performance.md`.
//!
//! Each endpoint, and the relay, is a thread. Where there are fewer cores than threads, or other
//! work, times of day say little; the ratios of processor time hold.
//!
//! Environment: `BARAN_BENCH_MB` sets the megabytes of a transfer (256).

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

mod bare;
mod host;
mod measure;
mod nodes;
mod rounds;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};

use crate::measure::{Contact, Kind, Transfer};
use crate::rounds::Rounds;

/// Samples that criterion takes of each kind.
const TRANSFERS: usize = 15;

/// The same, of contacts.
const CONTACTS: usize = 15;

/// Echoes in one contact.
const ECHOES: usize = 500;

fn main() {
    let megabytes = std::env::var("BARAN_BENCH_MB").ok().and_then(|mb| mb.parse().ok());
    let bytes = megabytes.unwrap_or(256_usize) * 1_000_000;
    // One measurement is one sample, whatever time it takes.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_nanos(1))
        .measurement_time(Duration::from_nanos(1))
        .without_plots()
        .configure_from_args();

    let mut transfers = Rounds::new(Transfer::measure, bytes);
    let throughput = Throughput::Bytes(bytes as u64);
    bench(&mut criterion, "one stream", TRANSFERS, Some(throughput), &mut transfers, |s| s.seconds);

    let mut contacts = Rounds::new(Contact::measure, ECHOES);
    bench(&mut criterion, "connect", CONTACTS, None, &mut contacts, |s| s.connect_s);
    contacts.rewind();
    bench(&mut criterion, "first byte back", CONTACTS, None, &mut contacts, |s| s.first_byte_s);
    contacts.rewind();
    bench(&mut criterion, "echo", CONTACTS, None, &mut contacts, |s| s.echo_s);

    if !transfers.is_empty() {
        print_transfers(&transfers, bytes);
    }
    if !contacts.is_empty() {
        print_contacts(&contacts);
    }
    criterion.final_summary();
}

fn bench<S>(
    criterion: &mut Criterion,
    name: &str,
    samples: usize,
    throughput: Option<Throughput>,
    rounds: &mut Rounds<S>,
    time_s: fn(&S) -> f64,
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(samples).sampling_mode(SamplingMode::Flat);
    if let Some(throughput) = throughput {
        group.throughput(throughput);
    }
    for kind in Kind::ALL {
        group.bench_function(kind.name(), |bencher| {
            bencher.iter_custom(|count| rounds.next(kind, count, time_s));
        });
    }
    group.finish();
}

fn print_transfers(transfers: &Rounds<Transfer>, bytes: usize) {
    let gbit = bytes as f64 * 8.0 / 1e9;
    println!("\nOne stream of {} MB, medians of {} rounds:", bytes / 1_000_000, transfers.len());
    println!("          Gb/s   processor, ns per byte: all = sender + receiver + relay");
    for kind in Kind::ALL {
        let speed = transfers.median(kind, |s| gbit / s.seconds);
        let [all, sender, receiver, relay] =
            [0, 1, 2, 3].map(|i| transfers.median(kind, |s| s.cpu_ns_per_byte[i]));
        let name = kind.name();
        println!("{name:8} {speed:5.2}   {all:.3} = {sender:.3} + {receiver:.3} + {relay:.3}");
    }
    for (this, base) in [(Kind::Direct, Kind::Bare), (Kind::Relayed, Kind::Direct)] {
        let speed = transfers.ratio(this, base, |s| 1.0 / s.seconds);
        let core = transfers.ratio(this, base, |s| 1.0 / s.cpu_ns_per_byte[0]);
        let (this, base) = (this.name(), base.name());
        println!("{this}/{base}: {core:.3} per core, {speed:.3} by the clock");
    }
    let relay = transfers.median(Kind::Relayed, |s| 8.0 / s.cpu_ns_per_byte[3]);
    println!("relay: {relay:.1} Gb/s per core");
}

fn print_contacts(contacts: &Rounds<Contact>) {
    println!("\nReaching a peer never met, medians of {} rounds, in ms:", contacts.len());
    println!("         connected  first byte back   echo on a new stream");
    for kind in Kind::ALL {
        let ms = |of: fn(&Contact) -> f64| contacts.median(kind, of) * 1e3;
        let (connect, first, echo) =
            (ms(|s| s.connect_s), ms(|s| s.first_byte_s), ms(|s| s.echo_s));
        println!("{:8} {connect:9.2} {first:16.2} {echo:22.3}", kind.name());
    }
}
