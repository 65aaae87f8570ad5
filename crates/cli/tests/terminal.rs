//! What only a terminal shows: the QR code and the progress of a pipe.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use common::{Guard, Home, PATIENCE, SpawnPiped, drain, feed, finish};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Starts a command whose standard output and error are a terminal of this many columns.
fn start_in_terminal(command: &mut Command, columns: u16) -> (Guard, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = File::options().read(true).write(true).open(name).unwrap();
    tcsetwinsize(&theirs, size).unwrap();
    let process = command.spawn_with(Stdio::piped(), theirs.try_clone().unwrap(), theirs);
    // The command's ends are closed here, so that ours ends with the process.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    (process, ours.into())
}

/// All that the terminal was sent. Its reading end fails once nobody has the other one.
fn read_all(mut terminal: File) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = terminal.read(&mut piece) {
        bytes.extend_from_slice(&piece[..len]);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_invite_is_drawn_if_it_fits() {
    let home = Home::new();
    for (columns, is_drawn) in [(120, true), (20, false)] {
        let mut command = home.node(&["invite"]);
        let (mut process, terminal) = start_in_terminal(&mut command, columns);
        let text = read_all(terminal);
        assert_eq!(process.wait(PATIENCE), 0, "{text}");
        assert!(text.contains("baran1"), "{text}");
        assert_eq!(text.contains('█'), is_drawn, "{text}");
        assert_eq!(text.contains("the QR code needs a terminal of"), !is_drawn, "{text}");
    }
}

#[test]
fn a_value_cannot_command_the_terminal() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let mut b = homes[1].up(&["--peer", &a.at()]);
    b.until(|event| event["event"] == "joined");
    let put =
        finish(homes[1].command(&["put", "name", "\u{1b}]0;owned\u{7}\u{9b}2J"]).spawn_piped());
    assert!(put.status.success(), "{put:?}");
    let (mut process, terminal) =
        start_in_terminal(&mut homes[0].command(&["get", &b.id, "name"]), 120);
    let text = read_all(terminal);
    assert_eq!(process.wait(PATIENCE), 0, "{text}");
    assert!(text.contains("\\u{1b}]0;owned\\u{7}\\u{9b}2J"), "{text:?}");
    assert!(!text.contains("\u{1b}]0;owned") && !text.contains('\u{9b}'), "{text:?}");
    a.terminate();
    b.terminate();
}

#[test]
fn a_pipe_shows_its_progress() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let mut listener = homes[0].command(&["pipe", "listen"]).spawn_piped();
    drop(listener.0.stdin.take());
    let out = drain(listener.0.stdout.take().unwrap());
    // The listener says on standard error that it listens.
    listener.0.stderr.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    let mut command = homes[1].node(&["pipe", "connect", &a.at()]);
    let (mut process, terminal) = start_in_terminal(&mut command, 120);
    let writer = feed(process.0.stdin.take().unwrap(), vec![7; 3_000_000]);
    let text = read_all(terminal);
    assert_eq!(process.wait(PATIENCE), 0, "{text}");
    assert_eq!(out.join().unwrap().len(), 3_000_000);
    assert!(text.contains("connected to ") && text.contains("/s), received"), "{text}");
    assert!(text.contains("3.0 MB sent, 0 B received in"), "{text}");
    writer.join().unwrap();
    assert_eq!(listener.wait(PATIENCE), 0);
    a.terminate();
}
