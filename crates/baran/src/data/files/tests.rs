use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use baran_proto::id::NodeId;
use baran_proto::invite::PeerAddr;
use baran_proto::time::UnixTime;

use baran_store::private::NotPrivate;

use super::*;

fn opened(scratch: &tempfile::TempDir) -> DataDir {
    DataDir::open(&scratch.path().join("data")).unwrap()
}

fn some_cache(dir: &DataDir) -> PeerCache {
    let mut cache = dir.peers("main").unwrap().cache;
    for n in 1..=20 {
        let addrs = vec![([9, n, 1, 1], 4433).into()];
        let peer = PeerAddr { addrs, ..NodeId::from_bytes([n; 32]).into() };
        cache.seen(UnixTime::from_secs(1_800_000_000), peer, n > 10);
    }
    cache
}

fn names(dir: &DataDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_cache_and_the_port_come_back_and_are_the_owners_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = opened(&scratch);
    assert_eq!(dir.port().unwrap(), None);
    let cache = some_cache(&dir);
    dir.save_peers(&cache, "main").unwrap();
    dir.save_port(4433).unwrap();
    dir.save_port(65_535).unwrap();
    let again = opened(&scratch);
    let found = again.peers("main").unwrap();
    assert_eq!((found.cache, found.lost), (cache, None));
    assert_eq!(again.port().unwrap(), Some(65_535));
    assert_eq!(names(&dir), ["peers", "port"]);
    for name in ["peers", "port"] {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().mode() & 0o7777, 0o600);
    }
}

#[test]
fn every_new_cache_has_a_secret_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = opened(&scratch);
    let encoded = || dir.peers("main").unwrap().cache.encode("main");
    assert_ne!(encoded(), encoded());
}

#[test]
fn an_unusable_cache_is_set_aside_and_costs_no_start() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = opened(&scratch);
    dir.save_peers(&some_cache(&dir), "main").unwrap();
    let path = dir.path().join("peers");
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[300] ^= 4;
    let other = CacheError::OtherNetwork { found: "main".into() };
    let cases = [
        (&good[..good.len() / 2], "main", CacheError::Truncated),
        (&[], "main", CacheError::Truncated),
        (&flipped, "main", CacheError::Damaged),
        (&good, "test", other),
        (&vec![0; CACHE_LEN_MAX * 2], "main", CacheError::NotACache),
    ];
    for (bytes, network, expect) in cases {
        dir.replace("peers", bytes).unwrap();
        let found = dir.peers(network).unwrap();
        assert_eq!(found.lost, Some(expect));
        assert!(found.cache.is_empty());
        assert_eq!(names(&dir), ["peers.bad"]);
        assert_eq!(fs::read(dir.path().join("peers.bad")).unwrap(), bytes);
        assert_eq!(dir.peers(network).unwrap().lost, None);
    }
}

#[test]
fn what_is_no_port_is_none() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = opened(&scratch);
    for text in ["", "0", "65536", "-1", "port", "\u{fffd}", "4433 4434", &"4".repeat(1000)] {
        dir.replace("port", text.as_bytes()).unwrap();
        assert_eq!(dir.port().unwrap(), None, "{text}");
    }
    dir.replace("port", &[0xff, 0xfe]).unwrap();
    assert_eq!(dir.port().unwrap(), None);
    dir.replace("port", b" 7000 ").unwrap();
    assert_eq!(dir.port().unwrap(), Some(7000));
}

#[test]
fn a_write_that_a_crash_cut_leaves_the_old_file_and_nothing_else_for_long() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = opened(&scratch);
    dir.save_port(1).unwrap();
    fs::write(dir.path().join("port.new"), "23456 and much that is longer than a port").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(dir.path().join("port.new"), mode).unwrap();
    assert_eq!(dir.port().unwrap(), Some(1));
    dir.save_port(2).unwrap();
    assert_eq!(dir.port().unwrap(), Some(2));
    assert_eq!(names(&dir), ["port"]);
}

#[test]
fn nothing_is_read_from_or_written_to_where_a_link_leads() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = opened(&scratch);
    let elsewhere = scratch.path().join("elsewhere");
    fs::write(&elsewhere, "7").unwrap();
    for name in ["port", "port.new", "peers"] {
        symlink(&elsewhere, dir.path().join(name)).unwrap();
    }
    assert!(matches!(dir.port(), Err(DataError::NotPrivate(NotPrivate::Symlink(_)))));
    assert!(matches!(dir.peers("main"), Err(DataError::NotPrivate(NotPrivate::Symlink(_)))));
    assert!(matches!(dir.save_port(9), Err(DataError::NotPrivate(NotPrivate::Symlink(_)))));
    assert_eq!(fs::read(&elsewhere).unwrap(), b"7");
}

#[test]
fn writers_of_one_process_do_not_mix() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = opened(&scratch);
    let cache = some_cache(&dir);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| dir.save_peers(&cache, "main").unwrap()));
        }
    });
    assert_eq!(dir.peers("main").unwrap().lost, None);
    assert_eq!(names(&dir), ["peers"]);
}
