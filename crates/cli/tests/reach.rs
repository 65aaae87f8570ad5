//! `ping` and `pipe`: with a daemon and without, to the last byte.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Daemon, Guard, Home, PATIENCE, SpawnPiped, drain, failure, feed, finish, json};
use serde_json::Value;

/// More than every window and buffer on the way together.
const LARGE: usize = 20_000_000;

/// Pings fast; checks the lines against each other and that all were answered.
fn check_ping(command: &mut Command, count: usize) -> Vec<Value> {
    command.args(["--count", &count.to_string(), "--interval", "10"]);
    let (code, lines) = json(command);
    assert_eq!(code, 0, "{lines:?}");
    let (summary, replies) = lines.split_last().unwrap();
    assert_eq!(summary["sent"], count);
    assert_eq!(summary["received"], count);
    assert!(summary["first_reply_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(replies.len(), count);
    for (seq, reply) in (1..).zip(replies) {
        assert_eq!(reply["seq"], seq);
        assert!(reply["rtt_ms"].as_f64().unwrap() > 0.0);
        assert!(reply["path"] == "direct" || reply["path"] == "relayed", "{reply}");
        assert!(reply["via"].is_null() || reply["via"].is_string());
    }
    lines
}

#[test]
fn ping_by_address_by_invite_and_by_id() {
    let homes = [Home::new(), Home::new(), Home::new(), Home::new()];
    let mut a = homes[0].up(&[]);
    let mut b = homes[1].up(&["--peer", &a.at()]);
    b.until(|event| event["event"] == "joined");
    a.until(|event| event["event"] == "joined");
    // The daemon of A knows B; a node of its own knows the address, the invite, or a common peer.
    check_ping(&mut homes[0].command(&["ping", &b.id]), 3);
    // Each of a home of its own: who knows A as well may be connected through it first.
    for (home, peer) in [(&homes[3], b.at()), (&homes[2], b.invite.clone())] {
        let lines = check_ping(&mut home.node(&["ping", &peer]), 3);
        assert_eq!(lines[0]["path"], "direct");
        assert_eq!(lines[0]["remote"], *b.address);
        assert_eq!(lines[3]["direct_after_ms"], 0.0);
    }
    check_ping(&mut homes[2].node(&["ping", &b.id, "--peer", &a.at()]), 3);
    let c = homes[2].up(&[]);
    check_ping(&mut homes[2].command(&["ping", &b.id, "--peer", &a.invite]), 3);
    for daemon in [a, b, c] {
        daemon.terminate();
    }
}

#[test]
fn people_read_replies() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let mut command = homes[1].node(&["ping", &a.at(), "-c", "2", "-i", "10"]);
    let output = finish(command.spawn_piped());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("reply 2: ") && text.contains("2 sent, 2 received"), "{text}");
    a.terminate();
}

#[test]
fn an_endless_ping_ends_with_its_summary() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    for with_daemon in [false, true] {
        let b = with_daemon.then(|| homes[1].up(&[]));
        let mut command = homes[1].node(&["ping", &a.at(), "--count", "0", "-i", "10", "--json"]);
        let mut process = command.spawn_piped();
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        for _ in 0..5 {
            lines.next().unwrap().unwrap();
        }
        process.signal("INT");
        let last: Value = serde_json::from_str(&lines.last().unwrap().unwrap()).unwrap();
        assert!(last["received"].as_u64().unwrap() >= 5, "{last}");
        process.wait(Duration::from_secs(6));
        b.into_iter().for_each(Daemon::terminate);
    }
    a.terminate();
}

#[test]
fn who_cannot_be_reached_is_named() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let id = homes[0].id();
    let start = Instant::now();
    let text = failure(&mut homes[1].node(&["ping", &id, "--timeout", "1"]), 1);
    assert!(text.contains(&id[..8]) && text.contains("--peer"), "{text}");
    let nobody = format!("{id}@127.0.0.1:9");
    let text = failure(&mut homes[1].node(&["pipe", "connect", &nobody, "--timeout", "1"]), 1);
    assert!(text.contains("could not be reached within 1 s"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(15));
    let own = homes[1].id();
    let text = failure(&mut homes[1].node(&["ping", &own]), 1);
    assert!(text.contains("own id"), "{text}");
}

#[test]
fn networks_never_mix() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&["--network", "one"]);
    check_ping(&mut homes[1].node(&["ping", &a.at(), "--network", "one"]), 1);
    let mut other = homes[1].node(&["ping", &a.at(), "--network", "two", "--timeout", "2"]);
    assert!(failure(&mut other, 1).contains("could not be reached"));
    let text = failure(&mut homes[0].command(&["status", "--network", "two"]), 1);
    assert!(text.contains("in network \"one\""), "{text}");
    a.terminate();
}

#[test]
fn a_daemon_that_dies_leaves_pings_missing() {
    let homes = [Home::new(), Home::new()];
    let mut a = homes[0].up(&[]);
    let words = ["ping", &a.at(), "-c", "20", "-i", "100", "--timeout", "1", "--json"];
    let mut process = homes[1].node(&words).spawn_piped();
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    a.process.signal("KILL");
    let summary: Value = serde_json::from_str(&lines.last().unwrap().unwrap()).unwrap();
    assert!(summary["received"].as_u64() < summary["sent"].as_u64(), "{summary}");
    assert_eq!(process.wait(PATIENCE), 1);
    a.process.wait(PATIENCE);
}

#[test]
fn pings_go_on_when_the_peer_comes_back() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let words = ["ping", &a.at(), "--count", "0", "--interval", "20", "--json"];
    let mut process = homes[1].node(&words).spawn_piped();
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines().map(|line| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        line
    });
    assert!(lines.next().unwrap()["seq"].is_u64());
    let bind = a.address.clone();
    a.terminate();
    lines.find(|line| line["event"] == "lost" && line["reason"].is_string()).unwrap();
    let mut again = homes[0].command(&["up", "--json", "--allow-net", "127.0.0.0/8"]);
    let a = Daemon::start(again.args(["--bind", &bind]));
    assert!(lines.find(|line| line["seq"].is_u64()).is_some());
    process.signal("INT");
    let summary = lines.last().unwrap();
    assert!(summary["received"].as_u64().unwrap() >= 2, "{summary}");
    process.wait(PATIENCE);
    a.terminate();
}

/// Starts `pipe listen` and waits until it listens.
fn listen(command: &mut Command) -> (Guard, BufReader<std::process::ChildStderr>) {
    let mut process = command.arg("--json").spawn_piped();
    let mut stderr = BufReader::new(process.0.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "listening", "{line}");
    (process, stderr)
}

fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn checksum(bytes: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    (bytes.len(), hasher.finish())
}

/// Sends both ways at once, one way ending long before the other.
fn check_pipe(mut listener: Guard, mut connector: Guard) {
    let (large, small) = (random(LARGE, 1), random(LARGE / 10, 2));
    let from_listener = drain(listener.0.stdout.take().unwrap());
    let from_connector = drain(connector.0.stdout.take().unwrap());
    let writers = [
        feed(connector.0.stdin.take().unwrap(), large.clone()),
        feed(listener.0.stdin.take().unwrap(), small.clone()),
    ];
    assert_eq!(checksum(&from_listener.join().unwrap()), checksum(&large));
    assert_eq!(checksum(&from_connector.join().unwrap()), checksum(&small));
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(listener.wait(PATIENCE), 0);
    assert_eq!(connector.wait(PATIENCE), 0);
}

#[test]
fn a_pipe_between_daemons_is_exact() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let b = homes[1].up(&[]);
    let (listener, _stderr) = listen(&mut homes[0].command(&["pipe", "listen"]));
    let connector = homes[1].command(&["pipe", "connect", &a.invite]).spawn_piped();
    check_pipe(listener, connector);
    a.terminate();
    b.terminate();
}

#[test]
fn a_pipe_between_own_nodes_is_exact() {
    let homes = [Home::new(), Home::new(), Home::new()];
    // The listener is found through a common peer, by its bare id.
    let a = homes[0].up(&[]);
    let id = homes[1].id();
    let (listener, _stderr) = listen(&mut homes[1].node(&["pipe", "listen", "--peer", &a.at()]));
    let connector = homes[2].node(&["pipe", "connect", &id, "--peer", &a.at()]).spawn_piped();
    check_pipe(listener, connector);
    a.terminate();
}

#[test]
fn one_direction_ends_while_the_other_goes_on() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let (mut listener, mut stderr) = listen(&mut homes[0].command(&["pipe", "listen"]));
    let mut connector = homes[1].node(&["pipe", "connect", &a.at(), "--json"]).spawn_piped();
    drop(connector.0.stdin.take());
    let mut heard = Vec::new();
    listener.0.stdout.take().unwrap().read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty());
    // The far end has ended; this one still speaks, and is heard at once.
    let mut stdin = listener.0.stdin.take().unwrap();
    let mut out = BufReader::new(connector.0.stdout.take().unwrap());
    for text in ["still\n", "here\n"] {
        stdin.write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, text);
    }
    drop(stdin);
    assert_eq!(listener.wait(PATIENCE), 0);
    assert_eq!(connector.wait(PATIENCE), 0);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let events: Vec<Value> = rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], "open");
    assert_eq!(events[1]["event"], "done");
    assert_eq!((&events[1]["sent"], &events[1]["received"]), (&Value::from(11), &Value::from(0)));
    a.terminate();
}

#[test]
fn who_connects_may_be_chosen() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let friend = homes[1].id();
    let (mut listener, _stderr) =
        listen(&mut homes[0].command(&["pipe", "listen", "--from", &friend]));
    let text = failure(&mut homes[2].node(&["pipe", "connect", &a.at()]), 1);
    assert!(text.contains("waits for somebody else"), "{text}");
    let text = failure(&mut homes[0].command(&["pipe", "listen"]), 1);
    assert!(text.contains("another `baran pipe listen` waits"), "{text}");
    drop(listener.0.stdin.take());
    let output = finish(homes[1].node(&["pipe", "connect", &a.at()]).spawn_piped());
    assert!(output.status.success());
    assert_eq!(listener.wait(PATIENCE), 0);
    a.terminate();
}

#[test]
fn nobody_listens() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let text = failure(&mut homes[1].node(&["pipe", "connect", &a.at()]), 1);
    assert!(text.contains("nobody accepts this protocol"), "{text}");
    // A listener that goes leaves the place to the next.
    let (listener, _stderr) = listen(&mut homes[0].command(&["pipe", "listen"]));
    drop(listener);
    let (_listener, _stderr) = listen(&mut homes[0].command(&["pipe", "listen"]));
    a.terminate();
}

#[test]
fn what_was_not_delivered_is_a_failure_at_both_ends() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    for kill_listener in [true, false] {
        let (mut listener, _stderr) = listen(&mut homes[0].command(&["pipe", "listen"]));
        let mut connector = homes[1].node(&["pipe", "connect", &a.at()]).spawn_piped();
        let mut stdin = connector.0.stdin.take().unwrap();
        stdin.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        listener.0.stdout.as_mut().unwrap().read_exact(&mut heard).unwrap();
        let survivor = if kill_listener {
            drop(listener);
            &mut connector
        } else {
            connector.signal("TERM");
            assert_eq!(connector.wait(PATIENCE), 1);
            &mut listener
        };
        assert_eq!(survivor.wait(PATIENCE), 1);
    }
    // A reader that goes away is told to the other side.
    let (mut listener, _stderr) = listen(&mut homes[0].command(&["pipe", "listen"]));
    drop(listener.0.stdout.take());
    let mut connector = homes[1].node(&["pipe", "connect", &a.at()]).spawn_piped();
    let writer = feed(connector.0.stdin.take().unwrap(), random(LARGE, 3));
    assert_eq!(listener.wait(PATIENCE), 1);
    let output = finish(connector);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("standard output failed"), "{text}");
    writer.join().unwrap();
    a.terminate();
}
