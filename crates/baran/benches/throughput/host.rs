//! Threads with a runtime of their own, and the processor time that they take.

use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::runtime::Handle;

/// Whatever fails here is a broken set-up.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Longest wait for any work.
const PATIENCE: Duration = Duration::from_secs(60);

/// A thread with a single-threaded runtime: what runs on it can use one core at the most, and its
/// processor time is the thread's.
pub(crate) struct Host {
    handle: Handle,
    /// Dropped to end the thread.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Host {
    pub(crate) fn start() -> Outcome<Self> {
        let (tx, rx) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || -> Outcome<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tx.send(runtime.handle().clone())?;
            // Ends with an error, when the host is dropped.
            drop(runtime.block_on(stopped));
            Ok(())
        });
        Ok(Self { handle: rx.recv()?, _stop: stop })
    }

    /// Starts work on this host.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = Outcome<T>> + Send + 'static,
    ) -> Work<T> {
        let (tx, rx) = mpsc::channel();
        self.handle.spawn(async move { tx.send(work.await) });
        Work(rx)
    }

    /// Does work on this host.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Outcome<T>> + Send + 'static,
    ) -> Outcome<T> {
        self.begin(work).wait()
    }

    /// Processor time of this host in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> Outcome<f64> {
        self.run(async { Ok(nanoseconds(clock_gettime(ClockId::ThreadCPUTime))) })
    }
}

/// Work that was begun.
pub(crate) struct Work<T>(mpsc::Receiver<Outcome<T>>);

impl<T> Work<T> {
    /// Waits for what comes of it.
    pub(crate) fn wait(self) -> Outcome<T> {
        self.0.recv_timeout(PATIENCE)?
    }
}

/// Processor time of the whole process in nanoseconds, the kernel's work for it included.
pub(crate) fn process_cpu_ns() -> f64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

fn nanoseconds(time: Timespec) -> f64 {
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
