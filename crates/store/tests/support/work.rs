//! Batches by number, and what a store holds after so many of them.
//!
//! Each is a few entries of logs, their heads and records, as a node writes them; some remove a
//! log or the oldest records, which bounds the whole. The number of the last batch is in the
//! store too, so that its contents can be held against the one model that they must equal: a batch
//! that is there in part, out of order, or lost shows.

use std::collections::BTreeMap;

use baran_store::{Batch, Store, StoreError, Table};

/// Where the number of the last batch is.
const COUNT: &[u8] = b"count";
/// Records that are not removed yet, at least.
const RECORDS_KEPT: u64 = 40;

enum Op {
    Put(Table, Vec<u8>, Vec<u8>),
    Prefix(Table, Vec<u8>),
    Range(Table, Vec<u8>, Vec<u8>),
}

/// Topic and author of batch `number`.
fn log(number: u64) -> Vec<u8> {
    let (topic, author) = (number % 2, number % 3);
    [[u8::try_from(topic).unwrap(); 32], [u8::try_from(author).unwrap(); 32]].concat()
}

fn value(number: u64, len: u64) -> Vec<u8> {
    let len = usize::try_from(len).unwrap();
    let mut value = number.to_le_bytes().repeat(len.div_ceil(8));
    value.truncate(len);
    value
}

fn ops(number: u64) -> Vec<Op> {
    let (log, key) = (log(number), number.to_be_bytes());
    let mut ops = vec![
        Op::Put(Table::Own, COUNT.to_vec(), key.to_vec()),
        Op::Put(Table::Records, key.to_vec(), value(number, number % 11 * 300)),
    ];
    if number.is_multiple_of(3) {
        // Large enough that the file grows, and shrinks again.
        ops.push(match number % 90 {
            0 => Op::Prefix(Table::Topics, Vec::new()),
            topic => Op::Put(Table::Topics, topic.to_be_bytes().to_vec(), value(number, 50_000)),
        });
    }
    if number.is_multiple_of(13) {
        ops.push(Op::Prefix(Table::Entries, log.clone()));
    }
    if number.is_multiple_of(5) {
        let end = number.saturating_sub(RECORDS_KEPT).to_be_bytes().to_vec();
        ops.push(Op::Range(Table::Records, vec![0; 8], end));
    }
    for part in 0..1 + number % 3 {
        let seq = (number * 4 + part).to_be_bytes();
        let len = number * 7 % 1_500 + part * 2_000;
        ops.push(Op::Put(Table::Entries, [&log[..], &seq].concat(), value(number, len)));
    }
    ops.push(Op::Put(Table::Heads, log, key.to_vec()));
    ops
}

/// The batch of this number, from 1 on.
pub(crate) fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    for op in ops(number) {
        match op {
            Op::Put(table, key, value) => batch.put(table, key, value),
            Op::Prefix(table, prefix) => batch.remove_prefix(table, prefix),
            Op::Range(table, start, end) => batch.remove_range(table, start, end),
        };
    }
    batch
}

/// Everything in a store.
pub(crate) type Contents = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// What a store holds after the first batches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) count: u64,
    contents: Contents,
}

impl Model {
    /// After `count` of them. Only forwards.
    pub(crate) fn advance(&mut self, count: u64) {
        assert!(count >= self.count, "back from {} to {count}", self.count);
        for number in self.count + 1..=count {
            for op in ops(number) {
                let contents = &mut self.contents;
                match op {
                    Op::Put(table, key, value) => drop(contents.insert((table, key), value)),
                    Op::Prefix(table, prefix) => {
                        contents.retain(|(of, key), _| *of != table || !key.starts_with(&prefix));
                    }
                    Op::Range(table, start, end) => {
                        contents.retain(|(of, key), _| *of != table || *key < start || *key >= end)
                    }
                }
            }
        }
        self.count = count;
    }

    /// Holds a store against the model, which goes as far as the store says that it is: no less
    /// than what was `acknowledged` and no more than what was `handed_over`.
    pub(crate) fn check(
        &mut self,
        store: &Store,
        acknowledged: u64,
        handed_over: u64,
    ) -> Result<(), String> {
        let count = count(store).map_err(|error| error.to_string())?;
        if !(acknowledged..=handed_over).contains(&count) {
            return Err(format!("{count} batches of {acknowledged} to {handed_over}"));
        }
        self.advance(count);
        let found = contents(store).map_err(|error| error.to_string())?;
        let differs = found.iter().find(|(key, value)| self.contents.get(key) != Some(value));
        let lacks = self.contents.keys().find(|key| !found.contains_key(key));
        match (differs, lacks) {
            (None, None) => Ok(()),
            (differs, lacks) => Err(format!(
                "after {count} batches {:?} is wrong and {lacks:?} absent",
                differs.map(|(key, _)| key)
            )),
        }
    }
}

/// How many batches the store says that it holds.
pub(crate) fn count(store: &Store) -> Result<u64, StoreError> {
    let count = store.read(Table::Own, COUNT)?;
    Ok(count.map_or(0, |count| u64::from_be_bytes(count.try_into().unwrap())))
}

fn contents(store: &Store) -> Result<Contents, StoreError> {
    let mut contents = Contents::new();
    for table in Table::ALL {
        for entry in store.scan(table)? {
            let (key, value) = entry?;
            contents.insert((table, key), value);
        }
    }
    Ok(contents)
}
