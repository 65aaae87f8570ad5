//! A medium that can be written to and stays as it is: what is written lies over it, in memory.
//!
//! Opening a database writes to it, and repairs it if it must. Whether a file is ours, whole and
//! of a known format can therefore only be found out on a copy, and this is one that costs only
//! what is written. The locks are those of the file.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

const PAGE_LEN: usize = 4_096;

/// The medium and what was written over it.
#[derive(Debug)]
pub(crate) struct Scratch<B> {
    /// Read only, and for its locks.
    base: B,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    /// Length of the whole, in bytes.
    len: u64,
    /// What is left of the medium: it ends here if it was cut off meanwhile.
    base_len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE_LEN]>>,
}

impl<B: StorageBackend> Scratch<B> {
    /// Lies over `base`. A file is open for reading and writing, as its locks demand.
    pub(crate) fn new(base: B) -> io::Result<Self> {
        let len = base.len()?;
        let over = Mutex::new(Over { len, base_len: len, pages: BTreeMap::new() });
        Ok(Self { base, over })
    }

    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as it is in the medium, with zeros where that has ended.
    fn page_of_base(&self, over: &Over, index: u64) -> io::Result<Box<[u8; PAGE_LEN]>> {
        let mut page = Box::new([0; PAGE_LEN]);
        let start = index.saturating_mul(PAGE_LEN as u64);
        let left = over.base_len.saturating_sub(start);
        let len = usize::try_from(left).unwrap_or(PAGE_LEN).min(PAGE_LEN);
        if len > 0 {
            self.base.read(start, &mut page[..len])?;
        }
        Ok(page)
    }
}

/// The parts of `offset..offset + len` that lie in one page each: which page, where it starts in
/// it, and how long it is.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset.saturating_add(done as u64);
        let start = usize::try_from(at % PAGE_LEN as u64).expect("less than a page");
        let part = (PAGE_LEN - start).min(len - done);
        done += part;
        (part > 0).then_some((at / PAGE_LEN as u64, start, part))
    })
}

impl<B: StorageBackend> StorageBackend for Scratch<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > over.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for (index, start, len) in parts(offset, rest.len()) {
            let (part, after) = rest.split_at_mut(len);
            match over.pages.get(&index) {
                Some(page) => part.copy_from_slice(&page[start..start + len]),
                None => part.copy_from_slice(&self.page_of_base(&over, index)?[start..start + len]),
            }
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over();
        if len < over.len {
            over.base_len = over.base_len.min(len);
            let first = len.div_ceil(PAGE_LEN as u64);
            drop(over.pages.split_off(&first));
            // What grows back is zero.
            let start = usize::try_from(len % PAGE_LEN as u64).expect("less than a page");
            if let Some(page) = over.pages.get_mut(&(len / PAGE_LEN as u64)) {
                page[start..].fill(0);
            }
        }
        over.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        let mut rest = data;
        for (index, start, len) in parts(offset, data.len()) {
            let (part, after) = rest.split_at(len);
            if !over.pages.contains_key(&index) {
                let page = self.page_of_base(&over, index)?;
                over.pages.insert(index, page);
            }
            if let Some(page) = over.pages.get_mut(&index) {
                page[start..start + len].copy_from_slice(part);
            }
            rest = after;
        }
        over.len = over.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.base.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.base.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use proptest::prelude::*;
    use redb::backends::FileBackend;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u16, Vec<u8>),
        SetLen(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = 0..20_000u16;
        prop_oneof![
            (len.clone(), prop::collection::vec(any::<u8>(), 0..9_000))
                .prop_map(|(offset, data)| Step::Write(offset, data)),
            len.prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn it_reads_as_a_written_file_does_and_leaves_the_file_alone(
            before in prop::collection::vec(any::<u8>(), 0..15_000),
            steps in prop::collection::vec(step(), 0..8),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&before).unwrap();
            let base = FileBackend::new(file.try_clone().unwrap()).unwrap();
            let scratch = Scratch::new(base).unwrap();
            let mut expect = before.clone();
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        let (start, end) = (usize::from(offset), usize::from(offset) + data.len());
                        scratch.write(u64::from(offset), &data).unwrap();
                        expect.resize(expect.len().max(end), 0);
                        expect[start..end].copy_from_slice(&data);
                    }
                    Step::SetLen(len) => {
                        scratch.set_len(u64::from(len)).unwrap();
                        expect.resize(usize::from(len), 0);
                    }
                }
                let mut read = vec![1; usize::try_from(scratch.len().unwrap()).unwrap()];
                scratch.read(0, &mut read).unwrap();
                prop_assert!(read == expect);
            }
            prop_assert!(scratch.read(expect.len() as u64, &mut [0]).is_err());
            let mut after = vec![0; before.len()];
            file.read_exact_at(&mut after, 0).unwrap();
            prop_assert!(after == before);
            prop_assert_eq!(file.metadata().unwrap().len(), before.len() as u64);
        }
    }
}
