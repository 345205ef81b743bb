//! `checkpoint-keeper completion`, `man` and `version`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;

use support::{Run, files, program};

#[test]
fn each_shell_gets_completions_that_know_the_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let run = Run::of(program().args(["completion", shell]));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        assert!(run.stdout.contains("dry-run") && run.stdout.contains("inspect"), "{shell}: {}", run.stdout);
    }
    assert_eq!(Run::of(program().args(["completion", "command.com"])).code, Some(2));
}

#[test]
fn every_command_has_a_manual_page() {
    let parent = tempfile::TempDir::new().unwrap();
    let directory = parent.path().join("man1");
    let run = Run::of(program().arg("man").arg(&directory));
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""));
    let pages = files(&directory);
    for page in ["", "-gc", "-inspect", "-agent", "-controller", "-crds", "-completion", "-man", "-version"] {
        assert!(pages.contains(&format!("checkpoint-keeper{page}.1")), "{page:?}: {pages:?}");
    }
    let page = fs::read_to_string(directory.join("checkpoint-keeper-gc.1")).unwrap();
    assert!(page.contains("dry\\-run") && page.contains("never deleted"), "{page}");
    let run = Run::of(program().args(["man", "/dev/null/man1"]));
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("error: cannot write manual pages to /dev/null/man1: "), "{}", run.stderr);
}

#[test]
fn the_version_is_the_same_by_either_name() {
    let (command, option) = (Run::of(program().arg("version")), Run::of(program().arg("--version")));
    assert_eq!((command.code, option.code), (Some(0), Some(0)));
    assert_eq!(command.stdout, option.stdout);
    assert_eq!(command.stdout, format!("checkpoint-keeper {}\n", env!("CARGO_PKG_VERSION")));
}
