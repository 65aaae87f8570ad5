//! Cuts of the power: what was synced is on the disk, of what was written since any part.

use std::path::Path;

use baran_store::Store;

use super::Random;
use super::disk::{Disk, Event};
use super::work::{Model, batch};

/// Bytes that a disk writes as a whole, at least.
const SECTOR: usize = 512;
/// Batches of a run, and cuts in it.
const BATCHES: u64 = 60;
const CUTS: usize = 100;

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) cuts: usize,
    /// At so many of them something was written and not synced.
    pub(crate) in_the_middle: usize,
    /// At so many of them the last batch that was there had not been acknowledged yet.
    pub(crate) ahead: usize,
}

/// Cuts the power `cuts` times in runs of seeds from `seed` on. Panics if anything is lost.
pub(crate) fn cut(cuts: usize, seed: u64) -> Outcome {
    let mut outcome = Outcome::default();
    for seed in seed.. {
        let left = cuts - outcome.cuts;
        if left == 0 {
            break;
        }
        run(seed, left.min(CUTS), &mut outcome);
    }
    outcome
}

fn run(seed: u64, cuts: usize, outcome: &mut Outcome) {
    let mut random = Random::new(seed);
    let (start, events) = record(&mut random);
    let mut at: Vec<_> = (0..cuts).map(|_| random.below(events.len() + 1)).collect();
    at.sort_unstable();
    let mut at = at.into_iter().peekable();
    let mut model = Model::default();
    let mut cut = Cut { synced: start, ..Cut::default() };
    for index in 0..=events.len() {
        while at.next_if_eq(&index).is_some() {
            outcome.cuts += 1;
            outcome.in_the_middle += usize::from(!cut.pending.is_empty());
            let count = cut.check(&mut random, &model, &format!("seed {seed}, event {index}"));
            outcome.ahead += usize::from(count > cut.acknowledged);
        }
        if let Some(event) = events.get(index) {
            cut.pass(event);
            // No cut from here on can be before it.
            model.advance(cut.acknowledged);
        }
    }
}

/// Writes batches, some of them at once; what was on the disk before, and what was done to it.
fn record(random: &mut Random) -> (Vec<u8>, Vec<Event>) {
    let disk = Disk::default();
    let handle = disk.clone();
    let store = Store::with_backend(Path::new("disk"), move || handle.clone()).unwrap();
    let start = disk.bytes();
    disk.record();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut number = 0;
        while number < BATCHES {
            let group = 1 + random.below(8) as u64;
            disk.note(Event::HandedOver(number + group));
            // In their order: the first poll of each hands it over.
            let mut tasks = tokio::task::JoinSet::new();
            for number in number + 1..=number + group {
                let store = store.clone();
                tasks.spawn(async move { store.write(batch(number)).await });
            }
            for written in tasks.join_all().await {
                written.unwrap();
            }
            number += group;
            disk.note(Event::Acknowledged(number));
        }
    });
    drop(store);
    (start, disk.events())
}

/// The disk at some moment.
#[derive(Debug, Default)]
struct Cut {
    synced: Vec<u8>,
    /// Writes and changes of the length since the last sync.
    pending: Vec<Event>,
    handed_over: u64,
    acknowledged: u64,
}

impl Cut {
    fn pass(&mut self, event: &Event) {
        match event {
            Event::Write(..) | Event::SetLen(_) => self.pending.push(event.clone()),
            Event::Sync => {
                for event in std::mem::take(&mut self.pending) {
                    match event {
                        Event::SetLen(len) => self.synced.resize(len, 0),
                        Event::Write(at, data) => {
                            self.synced[at..at + data.len()].copy_from_slice(&data);
                        }
                        _ => {}
                    }
                }
            }
            Event::HandedOver(number) => self.handed_over = *number,
            Event::Acknowledged(number) => self.acknowledged = *number,
        }
    }

    /// What is left on the disk if the power fails here.
    fn left(&self, random: &mut Random) -> Vec<u8> {
        let mut left = self.synced.clone();
        // All of it, none of it, or something in between.
        let odds = random.below(5);
        for event in &self.pending {
            match event {
                Event::Write(at, data) => {
                    for (start, end) in arrived(data, odds, random) {
                        // What lies behind the end of the file is nowhere.
                        let end = end.min(left.len().saturating_sub(*at));
                        if start < end {
                            left[at + start..at + end].copy_from_slice(&data[start..end]);
                        }
                    }
                }
                Event::SetLen(len) if random.below(4) < odds => left.resize(*len, 0),
                _ => {}
            }
        }
        left
    }

    /// Opens what is left and looks at all of it. Returns how many batches are there.
    fn check(&self, random: &mut Random, model: &Model, what: &str) -> u64 {
        let disk = Disk::holding(self.left(random));
        let store = Store::with_backend(Path::new("disk"), move || disk.clone());
        let store = store.unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut model = model.clone();
        let checked = model.check(&store, self.acknowledged, self.handed_over);
        checked.unwrap_or_else(|error| panic!("{what}: {error}"));
        model.count
    }
}

/// The parts of a write that arrive, from where to where in it: all, none, the beginning, or some
/// sectors.
fn arrived(data: &[u8], odds: usize, random: &mut Random) -> Vec<(usize, usize)> {
    let len = data.len();
    match random.below(3) {
        0 if random.below(4) < odds => vec![(0, len)],
        0 => Vec::new(),
        1 if (1..4).contains(&odds) => vec![(0, random.below(len + 1))],
        _ => {
            let starts = (0..len).step_by(SECTOR).filter(|_| random.below(4) < odds);
            starts.map(|start| (start, (start + SECTOR).min(len))).collect()
        }
    }
}
