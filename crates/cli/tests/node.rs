//! `up`, `id`, `invite`, `status`, `roles`, and what a data directory and a port may be.

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Home, SpawnPiped, baran, chmod, failure, finish, json};

#[test]
fn the_id_stays() {
    let home = Home::new();
    let id = home.id();
    assert_eq!(id.len(), 52);
    assert_eq!(home.id(), id);
    let (code, lines) = json(&mut home.command(&["id"]));
    assert_eq!((code, lines.len()), (0, 1));
    assert_eq!(lines[0]["id"], *id);
    let daemon = home.up(&[]);
    assert_eq!(daemon.id, id);
    assert_eq!(home.id(), id);
    daemon.terminate();
}

#[test]
fn a_node_joins_when_it_has_a_peer_and_says_when_it_goes() {
    let (first, second) = (Home::new(), Home::new());
    let mut a = first.up(&[]);
    let mut b = second.up(&["--peer", &a.at()]);
    let joined = b.until(|event| event["event"] == "joined");
    assert_eq!(joined["peers"], 1);
    a.until(|event| event["event"] == "joined");
    a.until(|event| event["event"] == "peer-up" && event["peer"] == *b.id);
    let b_id = b.id.clone();
    b.terminate();
    a.until(|event| event["event"] == "peer-down" && event["peer"] == *b_id);
    a.terminate();
}

#[test]
fn people_read_the_same_as_text() {
    let home = Home::new();
    let process = home.node(&["up"]).spawn_piped();
    std::thread::sleep(Duration::from_secs(1));
    process.signal("INT");
    let output = finish(process);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("listening on 127.0.0.1:") && text.contains("invite: baran1"), "{text}");
    assert!(text.contains(&home.id()), "{text}");
}

#[test]
fn status_tells_about_both_sides() {
    let (first, second) = (Home::new(), Home::new());
    let a = first.up(&["--serve-rate", "1.5M", "--serve-reservations", "7"]);
    let mut b = second.up(&["--peer", &a.invite, "--serve", "off"]);
    b.until(|event| event["event"] == "joined");
    let (code, lines) = json(&mut first.command(&["status"]));
    assert_eq!((code, lines.len()), (0, 1));
    let status = &lines[0];
    assert_eq!(status["id"], *a.id);
    assert_eq!(status["network"], "main");
    assert_eq!(status["daemon"], true);
    assert_eq!(status["pid"], a.process.pid());
    assert_eq!(status["addresses"][0], *a.address);
    assert!(status["uptime_s"].as_f64().unwrap() > 0.0);
    assert!(status["observed"].is_array() && status["homes"].is_array());
    let nat = status["nat"].as_str().unwrap();
    let known = ["none", "endpoint-independent", "address-dependent", "unknown"];
    assert!(known.contains(&nat), "{nat}");
    assert_eq!(status["relay"]["rate_bytes_per_s"], 1_500_000);
    assert_eq!(status["relay"]["reservations_max"], 7);
    assert!(status["relay"]["serving"].is_array() && status["relay"]["channels"].is_array());
    assert!(status["relay"]["bytes"].is_u64() && status["relay"]["bytes_today"].is_u64());
    let peer = &status["peers"][0];
    assert_eq!(peer["id"], *b.id);
    assert_eq!(peer["path"], "direct");
    assert_eq!(peer["via"], serde_json::Value::Null);
    assert_eq!(peer["remote"], *b.address);
    assert!(peer["rtt_ms"].as_f64().unwrap() > 0.0 && peer["sessions"].is_u64());
    let output = finish(second.command(&["status"]).spawn_piped());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("id         {}", b.id)), "{text}");
    assert!(text.contains(&format!("{}  direct at {}", a.id, a.address)), "{text}");
    assert!(text.contains("the owner switched it off"), "{text}");
    a.terminate();
    b.terminate();
}

#[test]
fn what_the_owner_lends_is_kept_and_shown() {
    let home = Home::new();
    let roles = |daemon| {
        let (code, lines) = json(&mut home.command(&["roles"]));
        assert_eq!((code, lines.len()), (0, 1));
        assert_eq!(lines[0]["daemon"], daemon);
        lines[0].clone()
    };
    let lent = ["--serve-rate", "2M", "--serve-bytes-per-day", "1G", "--serve-hours", "0-24"];
    home.up(&lent).terminate();
    let daemon = home.up(&["--serve-reservations", "9"]);
    let before = roles(true);
    assert_eq!(before["id"], *daemon.id);
    let serve = &before["serve"];
    assert_eq!((&serve["mode"], &serve["hours"]), (&"auto".into(), &"0-24".into()));
    assert_eq!(serve["rate_bytes_per_s"], 2_000_000);
    assert_eq!(
        (&serve["bytes_per_day"], &serve["reservations_max"]),
        (&1_000_000_000.into(), &9.into())
    );
    assert!(serve["bytes_today"].is_u64() && serve["day_ends_s"].as_u64().unwrap() <= 86_400);
    assert!(before["homes"].is_array() && before["relay"]["channels"].is_array());
    assert!(before["index"]["answer_bytes"].is_u64());
    let is_solved = || roles(true)["puzzle"]["state"] == "solved";
    let start = Instant::now();
    while !is_solved() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(is_solved());
    let text = finish(home.command(&["roles"]).spawn_piped()).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("of 1.0 GB") && text.contains("puzzle     solved"), "{text}");
    daemon.terminate();
    home.up(&["--serve", "off"]).terminate();
    let file = std::fs::read_to_string(home.data().join("serve")).unwrap();
    assert!(file.contains("serve off\n") && file.contains("hours 0-24\n"), "{file}");
    let daemon = home.up(&[]);
    let off = roles(true);
    assert_eq!((&off["serve"]["mode"], &off["serve"]["paused"]), (&"off".into(), &"off".into()));
    daemon.terminate();
    std::fs::write(home.data().join("serve"), "rate fast\n").unwrap();
    let text = failure(&mut home.node(&["up"]), 1);
    assert!(text.contains("\"rate fast\" is no setting"), "{text}");
}

#[test]
fn status_without_a_daemon_says_so() {
    let home = Home::new();
    let (code, lines) = json(&mut home.node(&["status", "--network", "other"]));
    assert_eq!(code, 0);
    assert_eq!(lines[0]["daemon"], false);
    assert_eq!(lines[0]["network"], "other");
    assert_eq!(lines[0]["id"], *home.id());
}

#[test]
fn invites_are_text_and_pictures() {
    let home = Home::new();
    let daemon = home.up(&[]);
    let (code, lines) = json(&mut home.command(&["invite", "--qr"]));
    assert_eq!((code, lines.len()), (0, 1));
    assert_eq!(lines[0]["id"], *daemon.id);
    assert_eq!(lines[0]["invite"], *daemon.invite);
    assert_eq!(lines[0]["addresses"][0], *daemon.address);
    assert!(lines[0]["homes"].is_array());
    let text = finish(home.command(&["invite"]).spawn_piped()).stdout;
    assert_eq!(String::from_utf8(text).unwrap(), format!("{}\n", daemon.invite));
    let picture = finish(home.command(&["invite", "--qr"]).spawn_piped()).stdout;
    let picture = String::from_utf8(picture).unwrap();
    assert!(picture.lines().count() > 15 && picture.contains('█'), "{picture}");
    daemon.terminate();
}

#[test]
fn an_invite_without_daemon_names_an_address_only_if_that_will_stay() {
    let home = Home::new();
    let (_, lines) = json(&mut home.node(&["invite"]));
    assert_eq!(lines[0]["addresses"], serde_json::json!([]));
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bind = format!("127.0.0.1:{port}");
    let (_, lines) = json(&mut home.command(&["invite", "--bind", &bind]));
    assert_eq!(lines[0]["addresses"], serde_json::json!([bind]));
}

#[test]
fn a_second_daemon_names_the_first() {
    let home = Home::new();
    let daemon = home.up(&[]);
    let start = Instant::now();
    let text = failure(&mut home.node(&["up"]), 1);
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(text.contains(&format!("process {}", daemon.process.pid())), "{text}");
    let (code, lines) = json(&mut home.node(&["up"]));
    assert_eq!((code, lines.len()), (1, 1));
    assert!(lines[0]["error"].as_str().unwrap().contains("is in use"), "{lines:?}");
    // The refused one has not taken the first one's socket away.
    assert_eq!(json(&mut home.command(&["status"])).0, 0);
    daemon.terminate();
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way() {
    let home = Home::new();
    let mut daemon = home.up(&[]);
    daemon.process.signal("KILL");
    daemon.process.wait(Duration::from_secs(5));
    assert!(home.data().join("daemon.sock").exists());
    let (_, lines) = json(&mut home.node(&["status"]));
    assert_eq!(lines[0]["daemon"], false);
    let daemon = home.up(&[]);
    assert_eq!(json(&mut home.command(&["status"])).1[0]["daemon"], true);
    daemon.terminate();
    assert!(!home.data().join("daemon.sock").exists());
}

#[test]
fn the_socket_is_the_owners_and_garbage_harms_nobody() {
    use std::io::{Read, Write};
    let home = Home::new();
    let daemon = home.up(&[]);
    let path = home.data().join("daemon.sock");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let long = vec![b'x'; 2 << 20];
    for garbage in [&b"\n"[..], b"{\"command\":\"dance\"}\n", b"\xff\0\xfe\n", &long, b"{"] {
        let mut client = UnixStream::connect(&path).unwrap();
        drop(client.write_all(garbage));
        drop(client.shutdown(std::net::Shutdown::Write));
        let mut answer = String::new();
        drop(client.read_to_string(&mut answer));
        assert!(answer.is_empty() || answer.starts_with("{\"error\":"), "{answer}");
    }
    let idle: Vec<_> = (0..200).map(|_| UnixStream::connect(&path)).collect();
    drop(idle);
    let (code, _) = json(&mut home.command(&["status"]));
    assert_eq!(code, 0);
    daemon.terminate();
}

#[test]
fn a_taken_port_is_named() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = socket.local_addr().unwrap().to_string();
    let text = failure(&mut Home::new().command(&["up", "--bind", &bind]), 1);
    assert!(text.contains(&bind), "{text}");
}

#[test]
fn unusable_data_directories_are_refused() {
    let home = Home::new();
    let data = home.data();
    let check = |words: &[&str], expect: &str| {
        let text = failure(&mut home.node(words), 1);
        assert!(text.contains(expect), "{text}");
        assert!(text.starts_with("error: ") && text.lines().count() == 1, "{text}");
    };
    home.id();
    for words in [&["up"][..], &["id"], &["status"], &["invite"]] {
        if words == ["id"] {
            continue;
        }
        chmod(&data, 0o755);
        check(words, "chmod 700");
        chmod(&data, 0o500);
        check(words, "cannot be written to");
        chmod(&data, 0o700);
        chmod(&data.join("key"), 0o644);
        check(words, "chmod 600");
        chmod(&data.join("key"), 0o600);
    }
    std::fs::rename(&data, data.with_extension("real")).unwrap();
    symlink(data.with_extension("real"), &data).unwrap();
    check(&["up"], "is a symbolic link");
    let mut below = baran();
    let below = below.args(["id", "--data"]).arg(data.with_extension("real").join("key/below"));
    let text = failure(below, 1);
    assert!(text.contains("Not a directory"), "{text}");
}

#[test]
fn wrong_command_lines_end_with_2() {
    let home = Home::new();
    for (words, expect) in [
        (&["up", "--bind", "nowhere"][..], "nowhere"),
        (&["up", "--allow-net", "10.0.0.0/99"], "10.0.0.0/99"),
        (&["up", "--serve-hours", "night"], "such as 22-6"),
        (&["up", "--serve-rate", "fast"], "is no amount of bytes"),
        (&["ping"], "PEER"),
        (&["dance"], "dance"),
    ] {
        let text = failure(&mut home.command(words), 2);
        assert!(text.contains(expect), "{text}");
        let (code, lines) = json(&mut home.command(words));
        assert_eq!((code, lines.len()), (2, 1));
        assert!(lines[0]["error"].is_string());
    }
}

#[test]
fn malformed_peers_are_explained() {
    const BARE: &str = "baran1aeakcacyedlvvgabqkyqvn6vjp7nhslea45a5yls6pnkmizfv4bbu2hxa5irupozp76a";
    const ID: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";
    let home = Home::new();
    for (peer, expect) in [
        ("bob".to_owned(), "has 52 characters, this has 3"),
        (ID.replacen('5', "1", 1), "character 2 is neither"),
        (format!("{}b", &ID[..51]), "cannot end a node id"),
        (format!("{ID}@example.org:1"), "is not ip:port"),
        (format!("{ID}@0.0.0.0:1"), "nobody can be reached at"),
        (BARE.replacen("aea", "ae!", 1), "character 9 of the invite is wrong"),
        ("baran1aaaaaaaa".to_owned(), "cut short"),
        (BARE[..BARE.len() - 8].to_owned(), "typing mistake"),
        (BARE.replacen("njp", "npj", 1).replacen("vvg", "vgv", 1), "typing mistake"),
        ("a".repeat(2_000), "more than 1024 characters"),
        ("\x1b]0;owned\x07\u{9b}2J".to_owned(), "\\u{9b}2J"),
    ] {
        for words in [&["ping", &peer][..], &["pipe", "connect", &peer], &["up", "--peer", &peer]] {
            let text = failure(&mut home.command(words), 2);
            assert!(text.contains(expect), "{text}");
            assert!(!text.contains(['\x1b', '\u{9b}']), "{text:?}");
        }
    }
    assert!(!home.data().exists());
}

#[test]
fn shells_and_manuals() {
    let bash = finish(baran().args(["completions", "bash"]).spawn_piped());
    assert!(String::from_utf8(bash.stdout).unwrap().contains("_baran()"));
    let page = finish(baran().arg("man").spawn_piped());
    assert!(String::from_utf8(page.stdout).unwrap().contains(".TH baran 1"));
    let dir = tempfile::tempdir().unwrap();
    let pages = finish(baran().args(["man", "--dir"]).arg(dir.path()).spawn_piped());
    assert!(pages.status.success());
    assert!(dir.path().join("baran-ping.1").exists());
}

#[test]
fn help_documents_the_json() {
    for (command, field) in [
        ("up", "\"event\":\"listening\""),
        ("ping", "direct_after_ms"),
        ("pipe", "\"event\":\"open\""),
        ("status", "address-dependent"),
        ("roles", "bytes_today"),
        ("id", "{\"id\"}"),
        ("invite", "\"event\":\"code\""),
        ("join", "\"event\":\"paired\""),
        ("put", "\"wanted\""),
        ("get", "value_base64"),
        ("announce", "\"event\":\"announced\""),
        ("lookup", "{\"id\"}"),
        ("resolve", "\"homes\""),
    ] {
        let output = finish(baran().args(["help", command]).spawn_piped());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(field), "{text}");
    }
}
