//! The only place that deletes: what it must never do, whatever lies in the directory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::engine::file::Removal;
use checkpoint_keeper_node::store::{OpenError, Presence, Store};
use support::{archive, name, write_old};
use tempfile::TempDir;

/// Something done to a file.
type Change = fn(&Path);

fn store(directory: &TempDir) -> Store {
    Store::open(directory.path()).unwrap()
}

#[test]
fn every_kind_of_marker_pins() {
    let directory = TempDir::new().unwrap();
    let markers: [(&str, Change); 6] = [
        ("empty", |path| fs::write(path, "").unwrap()),
        ("valid", |path| fs::write(path, r#"{"managedBy":"me"}"#).unwrap()),
        ("malformed", |path| fs::write(path, "{{{").unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("dangling", |path| symlink("/nowhere", path).unwrap()),
        ("unreadable", |path| {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
        }),
    ];
    for (place, (kind, mark)) in markers.into_iter().enumerate() {
        let path = write_old(directory.path(), &archive(kind, u32::try_from(place).unwrap()));
        mark(&path.with_added_extension("keep"));
    }
    let store = store(&directory);
    let listing = store.list().unwrap();
    assert_eq!(listing.files.len(), 6);
    for (file, stat) in &listing.files {
        assert!(listing.pinned.contains(file), "{file} is pinned in the listing");
        assert!(store.is_pinned(file), "{file} is pinned when looked at");
        assert!(matches!(store.remove(file, stat), Removal::Pinned), "{file}");
    }
    assert_eq!(store.list().unwrap().files.len(), 6);
}

#[test]
fn a_marker_that_comes_between_plan_and_unlink_pins() {
    let directory = TempDir::new().unwrap();
    let path = write_old(directory.path(), &archive("server", 1));
    let store = store(&directory);
    let (file, stat) = store.list().unwrap().files.remove(0);
    fs::write(path.with_added_extension("keep"), "").unwrap();
    assert!(matches!(store.remove(&file, &stat), Removal::Pinned));
    assert!(path.exists());
}

#[test]
fn a_name_too_long_for_a_marker_is_no_pin() {
    let directory = TempDir::new().unwrap();
    let long = format!("checkpoint-{}.tar", "x".repeat(255 - 15));
    assert_eq!(long.len(), 255);
    fs::write(directory.path().join(&long), archive("server", 1).build().unwrap()).unwrap();
    let store = store(&directory);
    let (file, stat) = store.list().unwrap().files.remove(0);
    assert!(!store.is_pinned(&file));
    assert!(matches!(store.remove(&file, &stat), Removal::Removed));
}

#[test]
fn a_file_that_was_replaced_or_changed_survives() {
    let directory = TempDir::new().unwrap();
    let store = store(&directory);
    let changes: [(&str, Change); 4] = [
        ("replaced", |path| {
            let other = path.with_file_name("other");
            fs::copy(path, &other).unwrap();
            fs::rename(other, path).unwrap();
        }),
        ("grown", |path| {
            use std::io::Write;
            fs::File::options().append(true).open(path).unwrap().write_all(b"x").unwrap();
        }),
        ("rewritten", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, bytes).unwrap();
        }),
        ("another link", |path| {
            // The inode's change time moves on, as with a rename to and fro.
            fs::hard_link(path, path.with_file_name("link")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let path = write_old(directory.path(), &archive("server", 1));
        let file = name(path.file_name().unwrap().as_bytes());
        let stat = store.stat(&file).unwrap().unwrap();
        change(&path);
        assert!(matches!(store.remove(&file, &stat), Removal::Changed), "{what}");
        assert!(path.exists(), "{what}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn what_is_no_regular_file_is_not_listed_read_or_removed() {
    let directory = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    let precious = write_old(outside.path(), &archive("server", 1));
    symlink(&precious, directory.path().join("checkpoint-link.tar")).unwrap();
    symlink("/nowhere", directory.path().join("checkpoint-dangling.tar")).unwrap();
    fs::create_dir(directory.path().join("checkpoint-directory.tar")).unwrap();
    fs::write(directory.path().join("checkpoint-directory.tar/inside"), "x").unwrap();
    let pipe = directory.path().join("checkpoint-pipe.tar");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    fs::write(directory.path().join("checkpoint-notes.tar.bak"), "mine").unwrap();
    let store = store(&directory);
    let listing = store.list().unwrap();
    assert!(listing.files.is_empty() && listing.failures.is_empty(), "{listing:?}");
    // A stat of something else, to see that what is there now decides.
    let stat = Store::open(outside.path()).unwrap().list().unwrap().files[0].1;
    for other in
        ["checkpoint-link.tar", "checkpoint-dangling.tar", "checkpoint-directory.tar", "checkpoint-pipe.tar"]
    {
        assert!(store.read(&name(other), &stat).unwrap().is_none(), "{other}");
        assert!(matches!(store.remove(&name(other), &stat), Removal::AlreadyGone), "{other}");
        assert!(directory.path().join(other).symlink_metadata().is_ok(), "{other}");
    }
    assert!(precious.exists());
}

#[test]
fn a_swapped_directory_does_not_lead_the_unlink_astray() {
    let parent = TempDir::new().unwrap();
    let here = parent.path().join("checkpoints");
    fs::create_dir(&here).unwrap();
    let path = write_old(&here, &archive("server", 1));
    let store = Store::open(&here).unwrap();
    let (file, stat) = store.list().unwrap().files.remove(0);
    assert_eq!(store.presence(), Presence::Here);
    // Somebody moves the directory away and puts a link to a precious one in its place.
    let precious = parent.path().join("precious");
    fs::create_dir(&precious).unwrap();
    let copy = precious.join(path.file_name().unwrap());
    fs::copy(&path, &copy).unwrap();
    fs::rename(&here, parent.path().join("moved")).unwrap();
    symlink(&precious, &here).unwrap();
    assert_eq!(store.presence(), Presence::Replaced);
    assert!(matches!(store.remove(&file, &stat), Removal::DirectoryMoved));
    fs::remove_file(&here).unwrap();
    assert_eq!(store.presence(), Presence::Gone);
    assert!(matches!(store.remove(&file, &stat), Removal::DirectoryMoved));
    // A link to itself leads neither anywhere nor nowhere.
    symlink(&here, &here).unwrap();
    assert_eq!(store.presence(), Presence::Unknown(rustix::io::Errno::LOOP));
    let Removal::Failed(error) = store.remove(&file, &stat) else { panic!("it is not known where that is") };
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
    fs::remove_file(&here).unwrap();
    assert!(copy.exists(), "the copy in the other directory is not ours");
    assert_eq!(support::files(&parent.path().join("moved")).len(), 1, "nor is what was moved away");
    fs::rename(parent.path().join("moved"), &here).unwrap();
    assert!(matches!(store.remove(&file, &stat), Removal::Removed), "back again, it is the same");
}

#[test]
fn names_of_any_bytes_are_read_and_removed() {
    let directory = TempDir::new().unwrap();
    let names: [&[u8]; 5] = [
        b"checkpoint-line\nbreak.tar",
        b"checkpoint-\xff\xfe.tar",
        b"checkpoint-\x1b[31mred.tar",
        b"checkpoint- -rf *.tar",
        b"checkpoint-'; rm.tar",
    ];
    for file in names {
        let path = directory.path().join(std::ffi::OsStr::from_bytes(file));
        fs::write(path, archive("server", 1).build().unwrap()).unwrap();
    }
    let store = store(&directory);
    for file in names {
        let stat = store.stat(&name(file)).unwrap().unwrap();
        assert_eq!(store.read(&name(file), &stat).unwrap().unwrap().state, State::Complete);
        assert!(matches!(store.remove(&name(file), &stat), Removal::Removed));
    }
    assert!(support::files(directory.path()).is_empty());
}

#[test]
fn a_second_collector_on_one_directory_is_kept_off() {
    let directory = TempDir::new().unwrap();
    let first = store(&directory);
    first.lock().unwrap();
    let second = store(&directory);
    assert!(matches!(second.lock(), Err(OpenError::Locked(_))));
    assert!(second.list().is_ok(), "looking is free");
    drop(first);
    second.lock().unwrap();
}

#[test]
fn a_directory_that_is_none_is_an_error_with_its_name() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file, directory.path().join("missing")] {
        let error = Store::open(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

/// A writer that stalls, and one that is about to rewrite what is there.
#[test]
fn what_somebody_has_open_for_writing_stays() {
    // On the file system of temporary files, and on one in memory.
    for parent in [std::env::temp_dir(), "/dev/shm".into()] {
        let directory = TempDir::new_in(&parent).unwrap();
        let path = write_old(directory.path(), &archive("server", 1));
        let store = store(&directory);
        let (file, stat) = store.list().unwrap().files.remove(0);
        for options in [fs::File::options().append(true), fs::File::options().write(true).read(true)] {
            let writer = options.open(&path).unwrap();
            assert!(matches!(store.remove(&file, &stat), Removal::InUse), "{}", parent.display());
            assert!(path.exists());
            drop(writer);
        }
        // A reader is no writer.
        let _reader = fs::File::open(&path).unwrap();
        assert!(matches!(store.remove(&file, &stat), Removal::Removed), "{}", parent.display());
        assert!(store.no_leases().is_none());
    }
}
