//! A process that writes under load and is killed, again and again.
//!
//! The writer says on its standard output what was acknowledged. What it said is kept here, in
//! another process, and held against what the store has after each kill.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use baran_store::Store;
use tokio::task::JoinSet;

use super::Random;
use super::work::{Model, batch, count};

/// Tells the writer's lines from those of a test runner.
const MARK: &str = "on disk: ";
/// Batches that the writer has under way at a time.
const AT_ONCE: u64 = 8;
/// Longer than a writer takes to start and write something.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) kills: u64,
    /// Batches that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Batches that are there; the kill came between the disk and the word for some of them.
    pub(crate) found: u64,
    /// Kills that came before the first word of their writer.
    pub(crate) early: u64,
}

/// The writer: continues where the store at `path` ends, until it is killed.
pub(crate) fn write_on(path: &Path) {
    let store = Store::open(path).unwrap();
    let mut number = count(&store).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        loop {
            while (tasks.len() as u64) < AT_ONCE {
                number += 1;
                let (store, number) = (store.clone(), number);
                // Polled in the order in which they come, which hands them over.
                tasks.spawn(async move { store.write(batch(number)).await.map(|()| number) });
            }
            let number = tasks.join_next().await.unwrap().unwrap().unwrap();
            let mut out = std::io::stdout();
            writeln!(out, "{MARK}{number}").and_then(|()| out.flush()).unwrap();
        }
    })
}

/// Kills `kills` writers, which `writer` makes commands for. Panics if anything is lost.
pub(crate) fn kill(
    kills: u64,
    seed: u64,
    path: &Path,
    writer: impl Fn() -> Command,
    mut progress: impl FnMut(&Outcome),
) -> Outcome {
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let mut outcome = Outcome::default();
    // What was acknowledged, in this process alone.
    let mut list: Vec<u64> = Vec::new();
    for _ in 0..kills {
        let said = run_and_kill(&mut writer(), &mut random);
        outcome.kills += 1;
        outcome.early += u64::from(said.is_empty());
        list.extend(said);
        list.sort_unstable();
        let highest = list.last().copied().unwrap_or(0);
        let store = Store::open(path).unwrap();
        let most = outcome.found.max(highest) + AT_ONCE;
        let checked = model.check(&store, highest, most);
        checked.unwrap_or_else(|error| panic!("kill {}: {error}", outcome.kills));
        outcome.found = model.count;
        outcome.acknowledged = list.len() as u64;
        progress(&outcome);
    }
    let is_once = list.is_sorted_by(|one, other| one < other);
    assert!(is_once, "a batch was acknowledged twice: it was lost in between");
    outcome
}

/// What the writer said before it died.
fn run_and_kill(command: &mut Command, random: &mut Random) -> Vec<u64> {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, numbers) = channel();
    let reader = std::thread::spawn(move || {
        // The last line may be cut off; the runner may write to the first.
        for line in lines.map_while(Result::ok) {
            if let Some((_, number)) = line.split_once(MARK) {
                sender.send(number.parse::<u64>().unwrap()).unwrap();
            }
        }
    });
    let mut said = Vec::new();
    if random.below(4) == 0 {
        // Somewhere between its start and its first writes.
        pause(random, 20_000);
    } else {
        await_words(&numbers, 1 + random.below(40), &mut said);
        pause(random, 4_000);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    said.extend(numbers.try_iter());
    said
}

fn await_words(numbers: &Receiver<u64>, count: usize, said: &mut Vec<u64>) {
    for _ in 0..count {
        said.push(numbers.recv_timeout(PATIENCE).expect("the writer ended or hangs"));
    }
}

fn pause(random: &mut Random, end_us: usize) {
    std::thread::sleep(Duration::from_micros(random.below(end_us) as u64));
}
