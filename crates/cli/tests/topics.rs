//! `topic` and `chat`: groups that talk.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Daemon, Home, PATIENCE, SpawnPiped, failure, feed, finish, json};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

/// Two daemons that know each other.
fn pair() -> ([Home; 2], [Daemon; 2]) {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let mut b = homes[1].up(&["--peer", &a.at()]);
    b.until(|event| event["event"] == "joined");
    (homes, [a, b])
}

/// The one object that a command writes, which must go well.
fn one(home: &Home, words: &[&str]) -> Value {
    let (code, mut lines) = json(&mut home.command(words));
    assert_eq!((code, lines.len()), (0, 1), "{words:?}: {lines:?}");
    lines.remove(0)
}

/// Asks until the answer is as wanted.
fn until(home: &Home, words: &[&str], is_it: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, lines) = json(&mut home.command(words));
        if is_it(&lines) {
            return lines;
        }
        assert!(Instant::now() < deadline, "{words:?}: {lines:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn end(daemons: [Daemon; 2]) {
    for daemon in daemons {
        daemon.terminate();
    }
}

#[test]
fn a_private_topic_is_founded_joined_talked_in_and_closed_to_one() {
    let ([here, there], daemons) = pair();
    let founded = one(&here, &["topic", "create", "--title", "our club"]);
    let (id, invite) = (text(&founded["id"]), text(&founded["invite"]));
    assert!(id.len() == 52 && invite.starts_with("barantopic1"), "{founded}");
    let joined = one(&there, &["topic", "join", invite]);
    assert_eq!([&joined["id"], &joined["title"], &joined["may"]], [id, "our club", "write"]);
    assert!(joined["name"].is_null());
    let tail = there.command(&["topic", "tail", &id[..8], "--json"]).spawn_piped();
    let mut tail = Daemon::read(tail);
    let sent = one(&here, &["topic", "send", "our club", "hello\n\u{1b}[2Jthere"]);
    assert!(sent["topic"] == id && sent["seq"].is_u64(), "{sent}");
    let said = tail.until(|said| said["author"] == daemons[0].id);
    assert_eq!(said["text"], "hello\n\u{1b}[2Jthere");
    assert!(said["time"].as_u64().unwrap() > 1_700_000_000_000, "{said}");
    assert!(said["seq"] == sent["seq"] && said.get("data").is_none(), "{said}");
    let mut send = there.command(&["topic", "send", "our club", "-"]).spawn_piped();
    let feeder = feed(send.0.stdin.take().unwrap(), vec![0xff, b'\n']);
    assert!(finish(send).status.success());
    feeder.join().unwrap();
    let said = tail.until(|said| said["author"] == daemons[1].id);
    assert!(said["text"].is_null() && said["data"] == "/w==", "{said}");
    tail.process.signal("INT");
    assert_eq!(tail.process.wait(PATIENCE), 0);
    // For people: escaped, and no line of a message begins where one of ours does.
    let words = ["topic", "tail", "our club", "--no-follow", "--since", "10m"];
    let output = finish(there.command(&words).spawn_piped());
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains(": hello\n    \\u{1b}[2Jthere\n"), "{shown}");
    assert!(output.status.success() && shown.contains("[no text: 1 bytes]"), "{shown}");

    let members = until(&here, &["topic", "members", "our club"], |lines| lines.len() == 2);
    let other = members.iter().find(|member| member["id"] == *daemons[1].id).unwrap();
    assert!(other["online"] == true && other["may"] == "write", "{other}");
    assert!(members.iter().any(|member| member["me"] == true && member["may"] == "manage"));
    let status = one(&here, &["topic", "status", "our club"]);
    assert_eq!(status["neighbors"][0]["id"], *daemons[1].id);
    assert!(status["epoch"] == 0 && status["bytes"].is_u64(), "{status}");
    let removed = one(&here, &["topic", "remove", "our club", &daemons[1].id[..8]]);
    assert_eq!(removed["removed"][0], *daemons[1].id);
    one(&here, &["topic", "send", "our club", "among us"]);
    let is_out = |lines: &[Value]| lines[0]["error"].is_string();
    until(&there, &["topic", "send", "our club", "hello?"], is_out);
    let (_, lines) = json(&mut there.command(&["topic", "tail", "our club", "--no-follow"]));
    assert!(lines.iter().all(|said| said["text"] != "among us"), "{lines:?}");
    assert_eq!(one(&there, &["topic", "leave", "our club"])["left"], id);
    until(&there, &["topic", "list"], <[Value]>::is_empty);
    end(daemons);
}

#[test]
fn a_public_topic_is_joined_by_its_name() {
    let ([here, there], daemons) = pair();
    let output = finish(here.command(&["topic", "send", "birds", "a kestrel"]).spawn_piped());
    assert!(output.status.success());
    let hint = String::from_utf8(output.stderr).unwrap();
    assert!(hint.contains("joined the public topic birds"), "{hint}");
    let tail = there.command(&["topic", "tail", "birds", "--json"]).spawn_piped();
    let mut tail = Daemon::read(tail);
    tail.until(|said| said["text"] == "a kestrel");
    let id = text(&one(&here, &["topic", "list"])["id"]).to_owned();
    assert_eq!(one(&there, &["topic", "join", "birds"])["id"], *id);
    // An invite to it may be made, but not one that limits.
    let invite = one(&here, &["topic", "invite", "birds", "--title", "feathers"]);
    assert!(invite["title"] == "feathers" && invite["expires"].is_null(), "{invite}");
    let error = failure(&mut here.command(&["topic", "invite", "birds", "--may", "read"]), 1);
    assert!(error.contains("the topic is public"), "{error}");
    let output = finish(here.command(&["topic", "invite", "birds", "--qr"]).spawn_piped());
    assert!(String::from_utf8(output.stdout).unwrap().contains('█'));
    end(daemons);
}

#[test]
fn invites_let_do_what_they_say() {
    let ([here, there], daemons) = pair();
    one(&here, &["topic", "create", "--title", "paper"]);
    let words = ["topic", "invite", "paper", "--may", "read", "--expires", "7d"];
    let invite = one(&here, &words);
    assert!(invite["may"] == "read" && invite["expires"].as_u64() > Some(1_700_000_000));
    let joined = one(&there, &["topic", "join", text(&invite["invite"])]);
    assert!(joined["may"] == "read" && joined["title"] == "paper", "{joined}");
    let error = failure(&mut there.command(&["topic", "send", "paper", "me too"]), 1);
    assert!(error.contains("may only Read"), "{error}");
    let error = failure(&mut there.command(&["topic", "remove", "paper", &daemons[0].id]), 1);
    assert!(error.contains("may only Read"), "{error}");
    let error = failure(&mut there.command(&["topic", "invite", "paper", "--may", "write"]), 1);
    assert!(error.starts_with("error: "), "{error}");
    end(daemons);
}

#[test]
fn what_is_wrong_is_told_with_its_exit_code() {
    let home = Home::new();
    let daemon = home.up(&[]);
    let long = "x".repeat(1_025);
    for words in [
        &["topic"][..],
        &["topic", "join", ""],
        &["topic", "join", &long],
        &["topic", "join", "barantopic1nonsense"],
        &["topic", "join", &daemon.invite],
        &["topic", "create", "--title", "two\nlines"],
        &["topic", "invite", "x", "--may", "dance"],
        &["topic", "invite", "x", "--expires", "soon"],
        &["topic", "remove", "x"],
        &["topic", "remove", "x", "?"],
        &["topic", "send", "x", ""],
        &["topic", "tail", "x", "--since", "yesterday"],
        &["chat", "x", "--name", &long],
    ] {
        failure(&mut home.command(words), 2);
    }
    let nobody = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";
    for (words, expect) in [
        (&["topic", "members", "birds"][..], "takes part in no topic of this name"),
        (&["topic", "send", nobody, "x"], "join it by an invite first"),
        (&["topic", "join", nobody], "an id alone lets nobody in"),
        (&["chat", "birds"], "chat needs a terminal"),
    ] {
        let error = failure(&mut home.command(words), 1);
        assert!(error.contains(expect), "{words:?}: {error}");
    }
    let big = "x".repeat(32_729);
    let error = failure(&mut home.command(&["topic", "send", "birds", &big]), 1);
    assert!(error.contains("at most 32728 bytes"), "{error}");
    let (_, lines) = json(&mut home.command(&["topic", "list"]));
    assert!(lines.is_empty(), "{lines:?}");
    one(&home, &["topic", "create", "--title", "twice"]);
    one(&home, &["topic", "create", "--title", "twice"]);
    let error = failure(&mut home.command(&["topic", "status", "twice"]), 1);
    assert!(error.contains("2 topics have this title"), "{error}");
    daemon.terminate();
}

#[test]
fn without_a_daemon_topics_are_kept_for_later() {
    let home = Home::new();
    let output = finish(home.node(&["topic", "create", "--title", "diary"]).spawn_piped());
    let hint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && hint.contains("no daemon runs"), "{hint}");
    let (code, _) = json(&mut home.node(&["topic", "send", "diary", "rain"]));
    assert_eq!(code, 0);
    let (code, lines) = json(&mut home.node(&["topic", "tail", "diary", "--no-follow"]));
    assert_eq!((code, lines.len()), (0, 1), "{lines:?}");
    assert_eq!(lines[0]["text"], "rain");
}

#[test]
fn a_chat_talks_and_gives_the_terminal_back() {
    let ([here, there], daemons) = pair();
    one(&here, &["topic", "join", "birds"]);
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = File::options().read(true).write(true).open(name).unwrap();
    tcsetwinsize(&theirs, size).unwrap();
    let ends = [&theirs, &theirs, &theirs].map(|end| end.try_clone().unwrap());
    let mut command = here.command(&["chat", "birds", "--name", "ana"]);
    let [stdin, stdout, stderr] = ends;
    let mut chat = command.spawn_with(stdin, stdout, stderr);
    // The command's ends are closed here, so that ours ends with the process.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut ours = File::from(ours);
    let mut reader = ours.try_clone().unwrap();
    let shown = std::thread::spawn(move || {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(len @ 1..) = reader.read(&mut piece) {
            bytes.extend_from_slice(&piece[..len]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    // It has the terminal once nothing is echoed any more.
    let is_raw = || !tcgetattr(&theirs).unwrap().local_modes.contains(LocalModes::ECHO);
    let deadline = Instant::now() + PATIENCE;
    while !is_raw() {
        assert!(Instant::now() < deadline, "it does not take the terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
    ours.write_all(b"/me sees a kestrel\r").unwrap();
    let tail = there.command(&["topic", "tail", "birds", "--json"]).spawn_piped();
    let mut tail = Daemon::read(tail);
    let said = tail.until(|said| said["text"] == "/me sees a kestrel");
    assert_eq!(said["author"], *daemons[0].id);
    let members = until(&there, &["topic", "members", "birds"], |lines| {
        lines.iter().any(|member| member["name"] == "ana" && member["away"] == false)
    });
    assert!(members.iter().any(|member| member["id"] == *daemons[0].id), "{members:?}");
    one(&there, &["topic", "send", "birds", "\u{1b}]0;owned\u{7}seen"]);
    until(&here, &["topic", "tail", "birds", "--no-follow"], |lines| lines.len() == 2);
    std::thread::sleep(Duration::from_millis(300));
    chat.signal("TERM");
    assert_eq!(chat.wait(PATIENCE), 0);
    assert!(!is_raw(), "the terminal is as it was");
    drop(theirs);
    let shown = shown.join().unwrap();
    assert!(shown.contains("\u{1b}[?1049h") && shown.contains("\u{1b}[?1049l"), "{shown:?}");
    assert!(shown.contains("sees") && shown.contains("\\u{1b}]0;owned\\u{7}seen"), "{shown:?}");
    assert!(!shown.contains("\u{1b}]0;"), "{shown:?}");
    let away = |lines: &[Value]| {
        lines.iter().any(|member| member["name"] == "ana" && member["away"] == true)
    };
    until(&there, &["topic", "members", "birds"], away);
    end(daemons);
}
