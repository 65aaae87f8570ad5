//! `baran store`: on the data directory of a node that is stopped, and of none that runs.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use common::{Home, SpawnPiped, failure, finish, json};

/// A node that ran, published something, and was stopped.
fn stopped() -> Home {
    let home = Home::new();
    let daemon = home.up(&[]);
    // Alone nobody else keeps it; it is on this node's disk all the same.
    let (_, lines) = json(&mut home.command(&["put", "name", "value", "-t", "1"]));
    assert!(!lines.is_empty());
    daemon.terminate();
    home
}

#[test]
fn a_store_is_checked_compacted_and_written_out() {
    let home = stopped();
    let path = home.data().join("store.redb");
    let before = fs::read(&path).unwrap();
    let (code, lines) = json(&mut home.command(&["store", "check"]));
    assert_eq!((code, lines.len()), (0, 1), "{lines:?}");
    assert_eq!((&lines[0]["whole"], &lines[0]["format"]), (&true.into(), &1.into()));
    assert_eq!(lines[0]["file_bytes"], before.len());
    let tables = lines[0]["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 7);
    let entries: u64 = tables.iter().map(|table| table["entries"].as_u64().unwrap()).sum();
    assert!(entries > 0, "{lines:?}");
    let text = finish(home.command(&["store", "check"]).spawn_piped());
    assert!(String::from_utf8(text.stdout).unwrap().starts_with("whole: "));

    let (code, exported) = json(&mut home.command(&["store", "export"]));
    assert_eq!((code, exported.len() as u64), (0, entries));
    assert!(
        exported.iter().all(|entry| ["table", "key", "value"].iter().all(|k| entry[k].is_string()))
    );
    assert!(exported.iter().any(|entry| entry["table"] == "own"), "{exported:?}");
    assert!(before == fs::read(&path).unwrap(), "the file changed");

    let file = home.data().join("export");
    let name = file.to_str().unwrap();
    let (code, lines) = json(&mut home.command(&["store", "export", name]));
    assert_eq!((code, &lines[0]["entries"]), (0, &entries.into()), "{lines:?}");
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(lines[0]["bytes"], text.len());
    assert!(failure(&mut home.command(&["store", "export", name]), 1).contains("exists"));
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "an export was overwritten");

    let (code, lines) = json(&mut home.command(&["store", "compact"]));
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(lines[0]["before_bytes"], before.len());
    assert_eq!(lines[0]["after_bytes"], path.metadata().unwrap().len());
    let (_, after) = json(&mut home.command(&["store", "export"]));
    assert_eq!(after, exported);
}

#[test]
fn a_node_that_runs_is_left_alone() {
    let home = Home::new();
    let daemon = home.up(&[]);
    for command in ["check", "compact", "export"] {
        let text = failure(&mut home.command(&["store", command]), 1);
        assert!(text.contains("a node that is stopped"), "{text}");
        assert!(text.contains(&format!("process {}", daemon.process.pid())), "{text}");
    }
    daemon.terminate();
    assert_eq!(json(&mut home.command(&["store", "check"])).0, 0);
}

#[test]
fn damage_is_told_and_left_as_it_is() {
    let home = stopped();
    let path = home.data().join("store.redb");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    fs::write(home.data().join("store.redb.format-1.backup"), whole).unwrap();
    let before = fs::read(&path).unwrap();
    let file = home.data().join("export");
    let export = ["store", "export", file.to_str().unwrap()];
    for command in [&["store", "check"][..], &["store", "compact"], &export] {
        let text = failure(&mut home.command(command), 1);
        assert!(text.contains("is damaged ("), "{text}");
        assert!(text.contains("move it away"), "{text}");
        assert!(text.contains("store.redb.format-1.backup"), "{text}");
    }
    assert!(before == fs::read(&path).unwrap());
    assert!(!file.exists(), "a part of an export stays");
    let (code, lines) = json(&mut home.command(&["store", "check"]));
    assert_eq!(code, 1);
    assert!(lines[0]["error"].as_str().unwrap().contains("is damaged"), "{lines:?}");
}

#[test]
fn nothing_is_made_where_there_is_no_store() {
    let home = Home::new();
    assert!(failure(&mut home.command(&["store", "check"]), 1).contains("has no store yet"));
    assert!(!home.data().exists());
    assert!(failure(&mut home.command(&["store"]), 2).contains("check"));
}
