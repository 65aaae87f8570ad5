//! Progress on the terminal, if there is one.

use core::time::Duration;
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

/// Least pause between two lines.
const PAUSE: Duration = Duration::from_millis(200);

/// A line on standard error that is written over and over. The only part that looks at a real
/// clock; nothing of it reaches the world.
#[derive(Debug)]
pub struct Progress {
    is_shown: bool,
    label: String,
    began: Instant,
    shown: Option<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        let is_shown = std::io::stderr().is_terminal();
        Self { is_shown, label: String::new(), began: Instant::now(), shown: None }
    }
}

impl Progress {
    /// With some words before all others; of several at a time nothing is shown.
    #[must_use]
    pub fn of(jobs: NonZeroUsize, label: String) -> Self {
        let all = Self::default();
        Self { label, is_shown: all.is_shown && jobs == NonZeroUsize::MIN, ..all }
    }

    /// Says how far it is: a share, and a few words.
    pub fn at(&mut self, share: f64, words: &str) {
        let is_due = self.shown.is_none_or(|at| at.elapsed() >= PAUSE);
        if !self.is_shown || !is_due {
            return;
        }
        self.shown = Some(Instant::now());
        let passed = self.began.elapsed();
        let left = if share > 0.02 { passed.mul_f64((1.0 - share) / share) } else { passed };
        let mut line = format!("{}{:3.0} %  {words}", self.label, share * 100.0);
        if share > 0.02 {
            line.push_str(&format!("  {} s left", left.as_secs()));
        }
        let mut stderr = std::io::stderr().lock();
        // A terminal that is gone is no reason to stop.
        drop(write!(stderr, "\r\x1b[K{line}"));
        drop(stderr.flush());
    }

    /// Clears the line.
    pub fn end(&mut self) {
        if self.is_shown && self.shown.take().is_some() {
            drop(write!(std::io::stderr().lock(), "\r\x1b[K"));
        }
    }
}
