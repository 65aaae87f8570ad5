//! Changes that are made together or not at all.

use crate::error::StoreError;
use crate::{BATCH_LEN_MAX, KEY_LEN_MAX, OPERATION_LEN, Table, VALUE_LEN_MAX};

/// Changes that are made together or not at all, in their order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) operations: Vec<Operation>,
    len: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) table: Table,
    /// Of a range the first.
    pub(crate) key: Vec<u8>,
    pub(crate) change: Change,
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(Vec<u8>),
    Remove,
    /// Removes the keys from the operation's own up to this one, which stays; `None` for all that
    /// come after.
    RemoveTo(Option<Vec<u8>>),
}

impl Change {
    fn len(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Remove | Self::RemoveTo(None) => 0,
            Self::RemoveTo(Some(end)) => end.len(),
        }
    }
}

impl Batch {
    /// A batch without changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `value` at `key`, whether or not there is one.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> &mut Self {
        self.push(Operation { table, key, change: Change::Put(value) })
    }

    /// Removes what is at `key`, if there is anything.
    pub fn remove(&mut self, table: Table, key: Vec<u8>) -> &mut Self {
        self.push(Operation { table, key, change: Change::Remove })
    }

    /// Removes all keys that begin with `prefix`; an empty one empties the table. However many
    /// they are, it counts as one operation; the commit takes time in proportion.
    pub fn remove_prefix(&mut self, table: Table, prefix: Vec<u8>) -> &mut Self {
        let end = after_prefix(&prefix);
        self.push(Operation { table, key: prefix, change: Change::RemoveTo(end) })
    }

    /// Removes the keys from `start` on that come before `end`. Nothing if `end` is not after
    /// `start`.
    pub fn remove_range(&mut self, table: Table, start: Vec<u8>, end: Vec<u8>) -> &mut Self {
        self.push(Operation { table, key: start, change: Change::RemoveTo(Some(end)) })
    }

    fn push(&mut self, operation: Operation) -> &mut Self {
        self.len += operation.key.len() + operation.change.len() + OPERATION_LEN;
        self.operations.push(operation);
        self
    }

    /// How much of [`BATCH_LEN_MAX`] it takes: its keys and values and 64 for each operation, in
    /// bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let within = |what, len, max| match len <= max {
            true => Ok(()),
            false => Err(StoreError::TooLarge { what, len, max }),
        };
        for Operation { key, change, .. } in &self.operations {
            within("key", key.len(), KEY_LEN_MAX)?;
            match change {
                Change::Put(value) => within("value", value.len(), VALUE_LEN_MAX)?,
                // What comes after the longest prefix is no longer than it.
                Change::RemoveTo(Some(end)) => within("key", end.len(), KEY_LEN_MAX)?,
                Change::Remove | Change::RemoveTo(None) => {}
            }
        }
        within("batch", self.len, BATCH_LEN_MAX)
    }
}

/// The first key after all that begin with `prefix`; `None` if there can be none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_comes_after_a_prefix_of_the_highest_bytes_is_nothing() {
        assert_eq!(after_prefix(b""), None);
        assert_eq!(after_prefix(&[255; 32]), None);
        assert_eq!(after_prefix(&[1, 254, 255, 255]), Some(vec![1, 255]));
    }

    proptest! {
        #[test]
        fn a_key_lies_before_the_end_of_its_prefixes_alone(
            prefix in prop::collection::vec(prop::sample::select(vec![0u8, 1, 254, 255]), 0..5),
            key in prop::collection::vec(prop::sample::select(vec![0u8, 1, 254, 255]), 0..7),
        ) {
            let is_within = key >= prefix && after_prefix(&prefix).is_none_or(|end| key < end);
            prop_assert_eq!(is_within, key.starts_with(&prefix));
        }
    }
}
