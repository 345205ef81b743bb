//! `checkpoint-keeper inspect`: what it shows of real archives, and of what is none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Place, Run, program, server};

const ARCHIVES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/archives");

fn inspect(arguments: &[&str]) -> Run {
    Run::of(program().arg("inspect").args(arguments))
}

#[test]
fn a_real_archive_is_described_for_a_person() {
    let archive = format!("{ARCHIVES}/checkpoint-db-0_shop-eu-engine-2026-11-22T16:00:22Z.tar");
    let run = inspect(&[&archive]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(run.stdout);
}

#[test]
fn a_directory_gives_all_its_archives() {
    let run = inspect(&["--output", "json", ARCHIVES]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let mut found: Value = serde_json::from_str(&run.stdout).unwrap();
    for archive in found.as_array_mut().unwrap() {
        // Where the repository lies, and when it was checked out.
        archive.as_object_mut().unwrap().remove("path");
        if archive["namespace"].is_null() {
            archive.as_object_mut().unwrap().remove("checkpointedAt");
        }
    }
    insta::assert_json_snapshot!(found);
}

#[test]
fn a_link_is_followed_and_what_is_no_archive_is_said_to_be_none() {
    let place = Place::new();
    let archive = place.add(&server(1));
    let link = place.root().join("link");
    std::os::unix::fs::symlink(&archive, &link).unwrap();
    let text = place.root().join("notes.txt");
    fs::write(&text, "x".repeat(2_000)).unwrap();
    let run = inspect(&["--output", "json", link.to_str().unwrap(), text.to_str().unwrap()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&found[0]["pod"], &found[0]["state"]), (&"web-0".into(), &"Complete".into()));
    assert_eq!((&found[1]["pod"], &found[1]["state"]), (&Value::Null, &"Foreign".into()));
}

#[test]
fn each_state_is_told_with_what_is_wrong() {
    let place = Place::new();
    let whole = server(1).build().unwrap();
    let mut bent = whole.clone();
    bent[100] ^= 1;
    let images = server(1).without("checkpoint/pstree.img").build().unwrap();
    for (file, bytes, state, problem) in [
        ("checkpoint-1.tar", &whole[..], "Complete", None),
        (
            "checkpoint-2.tar",
            &images,
            "NoImages",
            Some("has no checkpoint/pstree.img, so nothing can be restored"),
        ),
        ("checkpoint-3.tar", &whole[..700], "Incomplete", Some("ends within a header")),
        ("checkpoint-4.tar", &bent, "Damaged", Some("a tar header's checksum is wrong")),
        ("checkpoint-5.tar", b"BZh91AY&SY", "Foreign", Some("is packed with bzip2, which is not unpacked")),
    ] {
        let path = place.root().join(file);
        fs::write(&path, bytes).unwrap();
        let run = inspect(&["--output", "json", path.to_str().unwrap()]);
        let found: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!((&found[0]["state"], found[0]["problem"].as_str()), (&state.into(), problem), "{file}");
        let text = inspect(&[path.to_str().unwrap()]).stdout;
        let line = problem.map_or(state.to_owned(), |problem| format!("{state}: {problem}"));
        assert!(
            text.lines().any(|shown| shown.trim_start().starts_with("state") && shown.ends_with(&line)),
            "{text}"
        );
    }
}

#[test]
fn each_path_that_cannot_be_read_is_named() {
    let place = Place::new();
    let archive = place.add(&server(1));
    let run = inspect(&["/nowhere/a.tar", archive.to_str().unwrap(), "/dev/null"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("/nowhere/a.tar: No such file"), "{}", run.stderr);
    assert!(run.stderr.contains("/dev/null: is not a file"), "{}", run.stderr);
    assert!(run.stdout.contains("team/web-0/server"), "the others are shown: {}", run.stdout);
}

#[test]
fn a_pinned_archive_is_said_to_be_so() {
    let place = Place::new();
    let (pinned, other) = (place.add(&server(1)), place.add(&server(2)));
    let mut marker = pinned.clone().into_os_string();
    marker.push(".keep");
    fs::create_dir(marker).unwrap();
    let link = place.root().join("link");
    std::os::unix::fs::symlink(&pinned, &link).unwrap();
    let directory = place.directory();
    let paths = [&directory, &link, &other].map(|path| path.to_str().unwrap());
    let run = inspect(&[&["-o", "json"], &paths[..]].concat());
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    let told: Vec<_> = found.as_array().unwrap().iter().map(|archive| archive["pinned"].clone()).collect();
    assert_eq!(told, [true, false, true, false], "{run:?}");
    let text = inspect(&paths[1..2]).stdout;
    assert!(text.contains("pinned        by the file beside it"), "{text}");
}
