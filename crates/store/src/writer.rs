//! The thread that writes: takes what callers hand over and commits it in groups.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::StoreError;
use crate::shared::Shared;
use crate::{BATCH_LEN_MAX, Batch};

/// How long the first batch of a group waits for others. About what a commit takes on a disk that
/// keeps what it acknowledges: more would slow a lone writer down, less would group little.
pub const GROUP_WAIT: Duration = Duration::from_millis(3);

/// A group of as many operations, or of [`BATCH_LEN_MAX`] bytes, waits for no others.
pub const GROUP_OPERATIONS: usize = 256;

/// Most that waits to be written, in bytes of [`Batch::len`]: whoever comes then waits as well.
pub const QUEUE_LEN_MAX: usize = 4 * BATCH_LEN_MAX;

/// A batch and whoever waits for it.
#[derive(Debug)]
struct Request {
    batch: Batch,
    done: oneshot::Sender<Result<(), StoreError>>,
    /// Its part of [`QUEUE_LEN_MAX`], free again once it is done.
    _room: OwnedSemaphorePermit,
}

/// The caller's end.
#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` only while it is dropped.
    requests: Option<Sender<Request>>,
    room: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let (requests, received) = mpsc::channel();
        let own = Arc::clone(shared);
        let thread = thread::Builder::new().name("baran-store".to_owned());
        let thread = thread.spawn(move || run(&own, &received));
        let thread = thread.map_err(StoreError::io("start a thread for", shared.path()))?;
        let room = Arc::new(Semaphore::new(QUEUE_LEN_MAX));
        Ok(Self { requests: Some(requests), room, thread: Some(thread) })
    }

    /// Hands over `batch`, which was checked, and waits until it is on disk.
    pub(crate) async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let len = u32::try_from(batch.len()).map_err(|_| StoreError::Closed)?;
        let room = Arc::clone(&self.room).acquire_many_owned(len).await;
        let room = room.map_err(|_| StoreError::Closed)?;
        let (done, is_done) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        let request = Request { batch, done, _room: room };
        requests.send(request).map_err(|_| StoreError::Closed)?;
        is_done.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends once nobody can hand anything over and everything is written.
        drop(self.requests.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of the store panicked");
        }
    }
}

fn run(shared: &Shared, requests: &Receiver<Request>) {
    while let Ok(first) = requests.recv() {
        let group = gather(first, requests);
        let batches: Vec<_> = group.iter().map(|request| &request.batch).collect();
        let result = shared.commit(&batches);
        for request in group {
            // Whoever does not wait any more needs no answer.
            drop(request.done.send(result.clone()));
        }
    }
}

/// Takes what comes soon after `first`.
fn gather(first: Request, requests: &Receiver<Request>) -> Vec<Request> {
    let until = Instant::now() + GROUP_WAIT;
    let (mut operations, mut len) = (first.batch.operations.len(), first.batch.len());
    let mut group = vec![first];
    while operations < GROUP_OPERATIONS && len < BATCH_LEN_MAX {
        let wait = until.saturating_duration_since(Instant::now());
        match requests.recv_timeout(wait) {
            Ok(request) => {
                operations += request.batch.operations.len();
                len += request.batch.len();
                group.push(request);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    group
}
