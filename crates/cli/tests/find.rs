//! `put`, `get`, `announce`, `lookup`, `resolve`: what is found with nobody's server.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::time::Duration;

use common::{Daemon, Home, PATIENCE, SpawnPiped, failure, feed, finish, json};

/// A hub and two nodes that know only the hub.
struct Network {
    homes: [Home; 3],
    daemons: [Daemon; 3],
}

impl Network {
    fn new() -> Self {
        let homes = [Home::new(), Home::new(), Home::new()];
        let mut hub = homes[0].up(&[]);
        let mut others = [1, 2].map(|node| homes[node].up(&["--peer", &hub.at()]));
        for daemon in &mut others {
            daemon.until(|event| event["event"] == "joined");
        }
        hub.until(|event| event["event"] == "joined");
        let [a, b] = others;
        Self { homes, daemons: [hub, a, b] }
    }

    fn end(self) {
        for daemon in self.daemons {
            daemon.terminate();
        }
    }
}

#[test]
fn values_are_put_and_read() {
    let network = Network::new();
    let [_, author, reader] = &network.homes;
    let id = &network.daemons[1].id;
    let (code, lines) = json(&mut author.command(&["put", "greeting", "hello"]));
    assert_eq!((code, lines.len()), (0, 1), "{lines:?}");
    assert_eq!(lines[0]["id"], **id);
    assert_eq!(lines[0]["name"], "greeting");
    assert!(lines[0]["kept"].as_u64().unwrap() >= 1, "{lines:?}");
    assert!(lines[0]["wanted"].as_u64() >= lines[0]["kept"].as_u64(), "{lines:?}");
    let output = finish(reader.command(&["get", id, "greeting"]).spawn_piped());
    assert!(output.status.success());
    assert_eq!(output.stdout, b"hello");
    let (code, lines) = json(&mut reader.command(&["get", id, "greeting"]));
    assert_eq!((code, lines.len()), (0, 1));
    assert_eq!(lines[0]["value"], "hello");
    assert!(lines[0].get("value_base64").is_none());
    let first = lines[0]["sequence"].as_u64().unwrap();
    assert!(lines[0]["expires"].as_u64().unwrap() > 1_700_000_000);
    // The next version, of bytes that are no text and would move a terminal's cursor.
    let bytes = [&[0, 0xff, 0x1b, b'[', b'2', b'J', b'\n'][..], &[7; 1_017]].concat();
    let mut put = author.command(&["put", "greeting", "-"]).spawn_piped();
    let feeder = feed(put.0.stdin.take().unwrap(), bytes.clone());
    let output = finish(put);
    feeder.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("to read it: baran get"), "{text}");
    let output =
        finish(reader.command(&["get", &network.daemons[1].invite, "greeting"]).spawn_piped());
    assert_eq!(output.stdout, bytes);
    let (_, lines) = json(&mut reader.command(&["get", id, "greeting"]));
    assert!(lines[0]["value"].is_null() && lines[0]["value_base64"].is_string());
    assert!(lines[0]["sequence"].as_u64().unwrap() > first);
    // What the author says of itself is read at the author too.
    let output = finish(author.command(&["get", id, "greeting"]).spawn_piped());
    assert_eq!(output.stdout, bytes);
    let text = failure(&mut reader.command(&["get", id, "nothing"]), 1);
    assert!(text.contains("has published nothing by the name \"nothing\""), "{text}");
    let (code, lines) = json(&mut reader.command(&["get", id, "nothing"]));
    assert_eq!((code, lines.len()), (1, 1));
    assert!(lines[0]["error"].is_string());
    network.end();
}

#[test]
fn values_are_bounded_before_a_node_is_asked() {
    let home = Home::new();
    let long = "x".repeat(1_025);
    let text = failure(&mut home.node(&["put", "name", &long]), 1);
    assert!(text.contains("at most 1024 bytes"), "{text}");
    let mut put = home.node(&["put", "name", "-"]).spawn_piped();
    let feeder = feed(put.0.stdin.take().unwrap(), vec![b'x'; 1 << 20]);
    let output = finish(put);
    feeder.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("at most 1024 bytes"));
    assert!(!home.data().exists());
}

#[test]
fn topics_are_announced_and_found() {
    let network = Network::new();
    let [_, a, b] = &network.homes;
    let ids = [network.daemons[1].id.clone(), network.daemons[2].id.clone()];
    let text = failure(&mut b.command(&["lookup", "chess/vienna"]), 1);
    assert!(text.contains("nobody announces this topic"), "{text}");
    let announce =
        |home: &Home| home.command(&["announce", "chess/vienna", "--json"]).spawn_piped();
    let mut announcers = [a, b].map(|home| Daemon::read(announce(home)));
    for announcer in &mut announcers {
        let event = announcer.until(|event| event["event"] == "announced");
        assert_eq!(event["topic"], "chess/vienna");
        assert!(event["kept"].as_u64().unwrap() >= 1, "{event}");
        assert!(event["wanted"].is_u64());
    }
    let (code, lines) = json(&mut network.homes[0].command(&["lookup", "chess/vienna"]));
    assert_eq!(code, 0, "{lines:?}");
    let mut found: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    found.sort_unstable();
    let mut expected = ids.each_ref().map(String::as_str);
    expected.sort_unstable();
    assert_eq!(found, expected);
    // As text: ids alone, for other commands.
    let output =
        finish(network.homes[0].command(&["lookup", "chess/vienna", "--limit", "1"]).spawn_piped());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(ids.contains(&text.trim_end().to_owned()), "{text}");
    for mut announcer in announcers {
        announcer.process.signal("INT");
        assert_eq!(announcer.process.wait(PATIENCE), 0);
    }
    network.end();
}

#[test]
fn peers_are_found_by_id() {
    let network = Network::new();
    let [_, a, b] = &network.daemons;
    // A node publishes where it is as soon as it knows that itself.
    let mut tries = 0;
    let lines = loop {
        let (code, lines) = json(&mut network.homes[2].command(&["resolve", &a.id]));
        if code == 0 {
            break lines;
        }
        tries += 1;
        assert!(tries < 100, "{lines:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["id"], *a.id);
    let addresses = lines[0]["addresses"].as_array().unwrap();
    assert!(addresses.iter().any(|addr| *addr == *a.address), "{lines:?}");
    assert!(lines[0]["homes"].is_array());
    assert!(lines[0]["invite"].as_str().unwrap().starts_with("baran1"));
    let output = finish(network.homes[2].command(&["resolve", &a.id]).spawn_piped());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("addresses  {}", a.address)), "{text}");
    let nobody = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";
    let text = failure(&mut network.homes[2].command(&["resolve", nobody]), 1);
    assert!(text.contains("nobody knows where 25njqamc is"), "{text}");
    // A passer-by that knows the hub alone reaches a peer that the hub did not name.
    let passer = Home::new();
    let hub = network.daemons[0].at();
    let words = ["ping", &b.id, "--peer", &hub, "-c", "2", "-i", "10"];
    let (code, lines) = json(&mut passer.node(&words));
    assert_eq!(code, 0, "{lines:?}");
    let (code, lines) = json(&mut passer.node(&["put", "from", "me", "--peer", &hub]));
    assert_eq!(code, 0, "{lines:?}");
    let id = passer.id();
    let output = finish(network.homes[2].command(&["get", &id, "from"]).spawn_piped());
    assert_eq!(output.stdout, b"me");
    network.end();
}

#[test]
fn who_is_alone_is_told_so() {
    let home = Home::new();
    let daemon = home.up(&[]);
    let nobody = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";
    // Longer than the time-out: the node has had its chance.
    std::thread::sleep(Duration::from_millis(1_100));
    for words in [
        &["put", "name", "value"][..],
        &["get", nobody, "name"],
        &["announce", "topic"],
        &["lookup", "topic"],
        &["resolve", nobody],
    ] {
        let (code, lines) = json(&mut home.command(&[words, &["-t", "1"]].concat()));
        assert_eq!((code, lines.len()), (1, 1), "{words:?} {lines:?}");
        let error = lines[0]["error"].as_str().unwrap();
        assert!(error.contains("not connected to anybody yet"), "{words:?} {error}");
        assert_eq!(error.contains("on this node's disk"), words[0] == "put", "{error}");
    }
    let (_, lines) = json(&mut home.command(&["status"]));
    assert_eq!(lines[0]["index"]["joined_by"], serde_json::Value::Null);
    let text = finish(home.command(&["status"]).spawn_piped()).stdout;
    assert!(String::from_utf8(text).unwrap().contains("joined     not yet"));
    // What was put meanwhile is found as soon as there is somebody.
    let other = Home::new();
    let mut second = other.up(&["--peer", &daemon.at()]);
    second.until(|event| event["event"] == "joined" && event["by"] == "configured");
    let mut tries = 0;
    loop {
        let output = finish(other.command(&["get", &daemon.id, "name"]).spawn_piped());
        if output.stdout == b"value" {
            break;
        }
        tries += 1;
        assert!(tries < 100, "the value does not come");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (_, lines) = json(&mut other.command(&["status"]));
    let index = &lines[0]["index"];
    assert_eq!(index["joined_by"], "configured");
    for field in ["table", "warm", "records", "record_bytes", "requests_sent", "requests_served"] {
        assert!(index[field].is_u64(), "{field}: {index}");
    }
    daemon.terminate();
    second.terminate();
}
