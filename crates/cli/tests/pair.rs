//! `invite --words` and `join`: two nodes that know no more of each other than a hub.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{Daemon, Home, PATIENCE, SpawnPiped, failure, finish, json};

/// A node that shows a code, and the code.
fn show(home: &Home, more: &[&str]) -> (Daemon, String) {
    let words = [&["invite", "--words", "--json"], more].concat();
    let mut shown = Daemon::read(home.command(&words).spawn_piped());
    let event = shown.until(|event| event["event"] == "code");
    assert!(event["id"].is_string() && event["expires_s"] == 600, "{event}");
    let code = event["code"].as_str().unwrap().to_owned();
    (shown, code)
}

fn wrong(code: &str) -> String {
    let (rest, last) = code.rsplit_once('-').unwrap();
    format!("{rest}-{}", if last == "zoo" { "zone" } else { "zoo" })
}

#[test]
fn two_daemons_pair_and_stay_peers() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let hub = homes[0].up(&[]);
    let binds = [(); 2].map(|()| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().to_string()
    });
    let up = |node: usize, more: &[&str]| {
        let words = ["up", "--json", "--allow-net", "127.0.0.0/8", "--bind", &binds[node - 1]];
        Daemon::start(&mut homes[node].command(&[&words[..], more].concat()))
    };
    let mut a = up(1, &["--peer", &hub.at()]);
    let mut b = up(2, &["--peer", &hub.at()]);
    a.until(|event| event["event"] == "joined");
    b.until(|event| event["event"] == "joined");
    let (mut shown, code) = show(&homes[1], &[]);
    // As a person would type it.
    let typed = code.replace('-', " ").to_uppercase();
    let (status, lines) = json(&mut homes[2].command(&["join", &typed]));
    assert_eq!((status, lines.len()), (0, 1), "{lines:?}");
    assert_eq!(lines[0]["event"], "paired");
    assert_eq!(lines[0]["peer"], *a.id);
    assert!(lines[0]["invite"].as_str().unwrap().starts_with("baran1"));
    let event = shown.until(|event| event["event"] == "paired");
    assert_eq!(event["peer"], *b.id);
    assert_eq!(event["confirmed"], true);
    assert_eq!(shown.process.wait(PATIENCE), 0);
    for (home, peer) in [(&homes[1], &b.id), (&homes[2], &a.id)] {
        let text = std::fs::read_to_string(home.data().join("paired")).unwrap();
        assert!(text.starts_with(&**peer) && text.trim_end().ends_with(" main"), "{text}");
    }
    // The code is used.
    let text = failure(&mut homes[2].command(&["join", &code, "-t", "1"]), 1);
    assert!(text.contains("nobody shows a code with the number"), "{text}");
    // With the hub gone, and whatever else they remember, they find each other again.
    for daemon in [hub, a, b] {
        daemon.terminate();
    }
    for home in &homes[1..] {
        for file in ["peers", "store.redb"] {
            // A short run may have left none.
            drop(std::fs::remove_file(home.data().join(file)));
        }
    }
    let mut a = up(1, &[]);
    let b = up(2, &[]);
    let b_id = b.id.clone();
    a.until(|event| event["event"] == "peer-up" && event["peer"] == *b_id);
    // Not so in another network.
    a.terminate();
    let a = up(1, &["--network", "other"]);
    let (_, lines) = json(&mut homes[1].command(&["status"]));
    assert_eq!(lines[0]["peers"], serde_json::json!([]));
    a.terminate();
    b.terminate();
}

#[test]
fn one_wrong_guess_ends_the_code() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let mut b = homes[1].up(&["--peer", &a.at()]);
    b.until(|event| event["event"] == "joined");
    let (mut shown, code) = show(&homes[0], &[]);
    let text = failure(&mut homes[0].command(&["invite", "--words"]), 1);
    assert!(text.contains("shows another code already"), "{text}");
    let text = failure(&mut homes[1].command(&["join", &wrong(&code)]), 1);
    assert!(text.contains("the words are wrong, and the code is dead"), "{text}");
    let event = shown.until(|event| event["error"].is_string());
    assert!(event["error"].as_str().unwrap().contains("tried other words"), "{event}");
    assert_eq!(shown.process.wait(PATIENCE), 1);
    let (status, lines) = json(&mut homes[1].command(&["join", &code, "-t", "1"]));
    assert_eq!(status, 1);
    assert!(lines[0]["error"].as_str().unwrap().contains("nobody shows a code"), "{lines:?}");
    for home in &homes {
        assert!(!home.data().join("paired").exists());
    }
    a.terminate();
    b.terminate();
}

#[test]
fn an_interrupted_invitation_is_over() {
    let homes = [Home::new(), Home::new()];
    let a = homes[0].up(&[]);
    let mut b = homes[1].up(&["--peer", &a.at()]);
    b.until(|event| event["event"] == "joined");
    let (mut shown, code) = show(&homes[0], &[]);
    shown.process.signal("INT");
    assert_eq!(shown.process.wait(PATIENCE), 1);
    failure(&mut homes[1].command(&["join", &code, "-t", "1"]), 1);
    // The node may show another one.
    let (mut shown, code) = show(&homes[0], &[]);
    let output = finish(homes[1].command(&["join", &code]).spawn_piped());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("paired with {}\n", a.id));
    assert_eq!(shown.process.wait(PATIENCE), 0);
    a.terminate();
    b.terminate();
}

#[test]
fn without_daemons_the_commands_are_the_nodes() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let hub = homes[0].up(&[]);
    let at = hub.at();
    let words = ["--peer", &at, "--bind", "127.0.0.1:0", "--allow-net", "127.0.0.0/8"];
    let (mut shown, code) = show(&homes[1], &words);
    let (status, lines) = json(&mut homes[2].command(&[&["join", &code], &words[..]].concat()));
    assert_eq!(status, 0, "{lines:?}");
    assert_eq!(lines[0]["peer"], *homes[1].id());
    assert_eq!(shown.process.wait(PATIENCE), 0);
    hub.terminate();
}

#[test]
fn who_is_alone_is_told_so() {
    let home = Home::new();
    let text = failure(&mut home.node(&["join", "4711-maple-river-stone", "-t", "1"]), 1);
    assert!(text.contains("not connected to anybody yet"), "{text}");
}

#[test]
fn codes_are_checked_before_anything_is_done() {
    let home = Home::new();
    for (words, expect) in [
        (&["join"][..], "WORDS"),
        (&["join", "4711"], "a code is a number and three words"),
        (&["join", "4711-mapel-river-stone"], "was it maple?"),
        (&["join", "47110-maple-river-stone"], "is no number of a code"),
        (&["join", "\x1b[2J-maple-river-stone"], "is no number of a code"),
        (&["invite", "--words", "--qr"], "--qr"),
    ] {
        let text = failure(&mut home.command(words), 2);
        assert!(text.contains(expect) && !text.contains('\x1b'), "{text}");
        let (code, lines) = json(&mut home.command(words));
        assert_eq!((code, lines.len()), (2, 1));
        assert!(lines[0]["error"].is_string());
    }
    assert!(!home.data().exists());
}
