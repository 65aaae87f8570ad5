//! The terminal while a chat has it, and that it is given back as it was.

use std::io::{Stdout, stdout};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc;

use super::draw::draw;
use super::state::Chat;

/// Events that wait: a paste without brackets is one for each character.
const QUEUE: usize = 1_024;
/// How often it is looked whether the chat has ended.
const POLL: Duration = Duration::from_millis(100);

/// The terminal. Given back when dropped, and before a panic is told.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    has_ended: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal; what happens there comes from the receiver.
    ///
    /// # Errors
    ///
    /// If it is none that can be taken.
    pub(super) fn open() -> Result<(Self, mpsc::Receiver<Event>)> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        let has_ended = Arc::new(AtomicBool::new(false));
        let terminal = take().inspect_err(|_| give_back())?;
        let screen = Self { terminal, has_ended: Arc::clone(&has_ended) };
        let (events, queue) = mpsc::channel(QUEUE);
        // Nothing can interrupt a read of the terminal, so a thread of its own waits for it.
        std::thread::spawn(move || {
            while !has_ended.load(Ordering::Relaxed) {
                let event = match event::poll(POLL) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                // The terminal is gone, or the chat is.
                let Ok(event) = event else { return };
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
        });
        Ok((screen, queue))
    }

    /// Draws a chat.
    ///
    /// # Errors
    ///
    /// If the terminal is gone.
    pub(super) fn draw(&mut self, chat: &mut Chat) -> Result<()> {
        self.terminal.draw(|frame| draw(frame, chat)).context("draw on the terminal")?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        give_back();
    }
}

fn take() -> Result<Terminal<CrosstermBackend<Stdout>>> {
    enable_raw_mode().context("take the terminal")?;
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste).context("take the terminal")?;
    Terminal::new(CrosstermBackend::new(stdout())).context("take the terminal")
}

fn give_back() {
    drop(disable_raw_mode());
    drop(execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show));
}
