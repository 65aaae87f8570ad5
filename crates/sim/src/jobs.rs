//! Several runs at a time: each is of one thread and knows nothing of the others.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::thread;

/// Does `run` with each of the items, `jobs` at a time; the results are in the order of the items.
///
/// # Panics
///
/// If one of the runs does.
pub fn run_all<T: Sync, R: Send>(
    jobs: NonZeroUsize,
    items: &[T],
    run: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let todo = Mutex::new(items.iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        loop {
            let next = todo.lock().expect("no run holds it").next();
            let Some((at, item)) = next else { break };
            let result = run(item);
            done.lock().expect("no run holds it").push((at, result));
        }
    };
    thread::scope(|scope| (0..jobs.get().min(items.len())).for_each(|_| drop(scope.spawn(work))));
    let mut done = done.into_inner().expect("all threads have ended");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Processor time that this process took so far, in seconds, where the system tells (Linux).
#[must_use]
pub fn processor_s() -> Option<f64> {
    /// Ticks in a second, as `/proc` has them on every Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold anything and ends with the last bracket: proc_pid_stat(5).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || times.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..20).collect();
        for jobs in 1..4 {
            let jobs = NonZeroUsize::new(jobs).expect("not zero");
            let squares = run_all(jobs, &items, |n| n * n);
            assert_eq!(squares, items.iter().map(|n| n * n).collect::<Vec<_>>());
        }
        assert!(run_all(NonZeroUsize::MIN, &[], |n: &u64| *n).is_empty());
    }
}
