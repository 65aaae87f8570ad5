use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn opened(scratch: &tempfile::TempDir) -> DataDir {
    DataDir::open(&scratch.path().join("data")).unwrap()
}

#[test]
fn what_is_made_is_for_its_owner_alone_and_stays() {
    let scratch = scratch();
    let path = scratch.path().join("parents/are/made");
    let dir = DataDir::open(&path).unwrap();
    let secret = dir.secret().unwrap();
    let lock = dir.lock().unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("key")), 0o600);
    assert_eq!(mode(&path.join("lock")), 0o600);
    assert_eq!(dir.socket_path(), path.join("daemon.sock"));
    drop(lock);
    let again = DataDir::open(&path).unwrap().secret().unwrap();
    assert_eq!(again.to_bytes(), secret.to_bytes());
    let names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn all_who_create_the_key_at_once_get_the_same() {
    let scratch = scratch();
    let dir = opened(&scratch);
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let dir = dir.clone();
            std::thread::spawn(move || dir.secret().unwrap().to_bytes())
        })
        .collect();
    let keys: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_looser_directory_is_refused() {
    let scratch = scratch();
    let dir = opened(&scratch);
    for loose in [0o750, 0o701, 0o777, 0o1720] {
        chmod(dir.path(), loose);
        let error = DataDir::open(dir.path()).unwrap_err();
        let DataError::NotPrivate(NotPrivate::Mode { mode, is_dir, .. }) = error else {
            panic!("{error}");
        };
        assert_eq!((mode, is_dir), (loose, true));
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
}

#[test]
fn an_unwritable_directory_is_refused() {
    let scratch = scratch();
    let dir = opened(&scratch);
    chmod(dir.path(), 0o500);
    assert!(matches!(DataDir::open(dir.path()), Err(DataError::Unwritable(_))));
    chmod(dir.path(), 0o700);
    fs::write(dir.path().join("file"), "").unwrap();
    let below = DataDir::open(&dir.path().join("file/below")).unwrap_err();
    assert!(matches!(below, DataError::Io { .. }), "{below}");
    let file = DataDir::open(&dir.path().join("file")).unwrap_err();
    assert!(
        matches!(file, DataError::NotPrivate(NotPrivate::WrongType { expected: "directory", .. })),
        "{file}"
    );
}

#[test]
fn symbolic_links_are_refused() {
    let scratch = scratch();
    let dir = opened(&scratch);
    let link = scratch.path().join("link");
    symlink(dir.path(), &link).unwrap();
    assert!(matches!(DataDir::open(&link), Err(DataError::NotPrivate(NotPrivate::Symlink(_)))));
    let with_slash = scratch.path().join("link/");
    assert!(matches!(
        DataDir::open(&with_slash),
        Err(DataError::NotPrivate(NotPrivate::Symlink(_)))
    ));

    let elsewhere = scratch.path().join("elsewhere");
    fs::write(&elsewhere, [7; 32]).unwrap();
    chmod(&elsewhere, 0o600);
    for name in ["key", "lock"] {
        symlink(&elsewhere, dir.path().join(name)).unwrap();
    }
    assert!(matches!(dir.secret(), Err(DataError::NotPrivate(NotPrivate::Symlink(_)))));
    assert!(matches!(dir.lock(), Err(DataError::NotPrivate(NotPrivate::Symlink(_)))));
    assert_eq!(fs::read(&elsewhere).unwrap(), [7; 32]);
    fs::remove_file(&elsewhere).unwrap();
    assert!(
        matches!(dir.secret(), Err(DataError::NotPrivate(NotPrivate::Symlink(_)))),
        "a dangling one too"
    );
}

#[test]
fn a_wrong_key_is_refused_and_left_alone() {
    let scratch = scratch();
    let dir = opened(&scratch);
    let key = dir.path().join("key");
    for len in [0, 31, 33, 4096] {
        fs::write(&key, vec![1; len]).unwrap();
        chmod(&key, 0o600);
        let error = dir.secret().unwrap_err();
        assert!(
            matches!(error, DataError::KeyLength { len: found, .. } if found == len as u64),
            "{error}"
        );
        assert_eq!(fs::metadata(&key).unwrap().len(), len as u64);
    }
    fs::write(&key, [1; 32]).unwrap();
    chmod(&key, 0o640);
    let error = dir.secret().unwrap_err();
    assert!(
        matches!(error, DataError::NotPrivate(NotPrivate::Mode { mode: 0o640, is_dir: false, .. })),
        "{error}"
    );
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    chmod(&key, 0o700);
    assert!(matches!(
        dir.secret(),
        Err(DataError::NotPrivate(NotPrivate::WrongType { expected: "file", .. }))
    ));
}

#[test]
fn another_users_directory_is_refused() {
    // Nobody but the superuser could make one, and nobody but others owns `/`.
    let foreign = Path::new("/");
    if rustix::process::geteuid().is_root() {
        let scratch = scratch();
        let dir = opened(&scratch);
        std::os::unix::fs::chown(dir.path(), Some(12_345), None).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, DataError::NotPrivate(NotPrivate::Owner { owner: 12_345, .. })),
            "{error}"
        );
    } else {
        assert!(matches!(
            DataDir::open(foreign),
            Err(DataError::NotPrivate(NotPrivate::Owner { owner: 0, .. }))
        ));
    }
}

#[test]
fn a_second_lock_names_the_holder_of_the_first() {
    let scratch = scratch();
    let dir = opened(&scratch);
    let first = dir.lock().unwrap();
    let error = dir.lock().unwrap_err();
    let pid = std::process::id();
    assert!(matches!(error, DataError::InUse { pid: Some(found), .. } if found == pid));
    assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
    drop(first);
    dir.lock().unwrap();
}

#[test]
fn the_default_place_follows_the_environment() {
    let path = |text: &str| Some(PathBuf::from(text));
    let check = |baran, xdg, expect: &str| {
        assert_eq!(default_path(baran, xdg, path("/h")), Path::new(expect));
    };
    check(path("b"), path("/x"), "b");
    check(None, path("/x"), "/x/baran");
    check(None, path("relative"), "/h/.local/share/baran");
    check(None, None, "/h/.local/share/baran");
}
