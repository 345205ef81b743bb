//! `checkpoint-keeper gc` before it deletes (it asks, or refuses), while it does (a line for each deletion, an audit
//! file), and on a terminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use support::{Place, Run, of, server};

/// A place in which the policy keeps one archive of each container, with so many of one.
fn place_with(archives: u32) -> Place {
    let place = Place::new();
    (1..=archives).for_each(|second| _ = place.add(&server(second)));
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}");
    place
}

/// A program on a terminal.
struct Terminal {
    child: Child,
    screen: BufReader<File>,
}

impl Terminal {
    fn start(mut command: Command, columns: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(OwnedFd::from(terminal.try_clone().unwrap()));
        let child = command.stdin(end()).stdout(end()).stderr(end()).env("NO_COLOR", "1").spawn().unwrap();
        Self { child, screen: BufReader::new(File::from(controller)) }
    }

    /// Reads until this is shown.
    fn shows(&mut self, wanted: &str) -> String {
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).contains(wanted) {
            let mut byte = [0];
            self.screen.read_exact(&mut byte).unwrap_or_else(|error| {
                panic!("{error}; {wanted:?} was not shown, but {}", String::from_utf8_lossy(&shown))
            });
            shown.extend(byte);
        }
        String::from_utf8_lossy(&shown).into_owned()
    }

    fn types(&mut self, text: &str) {
        self.screen.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// What else is shown until the program ends, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let mut shown = Vec::new();
        // A terminal that nobody writes to any more is an error to whoever reads from it.
        let _ = self.screen.read_to_end(&mut shown);
        (String::from_utf8_lossy(&shown).into_owned(), self.child.wait().unwrap().code())
    }
}

#[test]
fn a_person_at_a_terminal_is_shown_what_goes_and_asked() {
    let place = place_with(2);
    let oldest = place.files().into_iter().next().unwrap();
    for answer in ["n\n", "\n", "\u{4}", "maybe\n"] {
        let mut terminal = Terminal::start(place.unconfirmed_gc(), 100);
        let shown = terminal.shows("Delete 1 archive? [y/N]");
        assert!(shown.contains(&format!("\n  {oldest}\r\n")), "{shown}");
        assert!(shown.contains("MaxCountPerContainer       1  21.5Ki"), "{shown}");
        assert!(shown.contains("team            1  21.5Ki"), "{shown}");
        terminal.types(answer);
        let (shown, code) = terminal.end();
        assert_eq!((code, place.files().len()), (Some(1), 2), "{answer:?}: {shown}");
        assert!(shown.contains("nothing was deleted"), "{shown}");
    }
    let mut terminal = Terminal::start(place.unconfirmed_gc(), 100);
    terminal.shows("[y/N]");
    terminal.types("y\n");
    let (shown, code) = terminal.end();
    assert_eq!((code, place.files().len()), (Some(0), 1), "{shown}");
    assert!(shown.contains("deleted checkpoint-web-0_team-server"), "{shown}");
    // What is to stay needs no answer.
    let (shown, code) = Terminal::start(place.unconfirmed_gc(), 100).end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("[y/N]"), "{shown}");
}

#[test]
fn what_was_not_shown_is_not_deleted_however_long_the_answer_took() {
    let place = place_with(2);
    let mut command = place.unconfirmed_gc();
    command.args(["--settle", "0s"]);
    let mut terminal = Terminal::start(command, 100);
    terminal.shows("Delete 1 archive? [y/N]");
    // Two more come, and one of them pushes out the other.
    (3..=4).for_each(|second| _ = place.add(&server(second)));
    terminal.types("y\n");
    let shown = terminal.shows("Delete 3 archives? [y/N]");
    assert!(shown.contains("more is to be deleted by now than was shown"), "{shown}");
    assert_eq!(place.files().len(), 4);
    // Fewer need no other answer; and what is pinned by now stays.
    let oldest = place.files().into_iter().next().unwrap();
    fs::write(place.directory().join(format!("{oldest}.keep")), "").unwrap();
    terminal.types("y\n");
    let (shown, code) = terminal.end();
    let files = place.files();
    assert_eq!((code, files.len()), (Some(0), 3), "the newest, a pinned one and its pin: {files:?} {shown}");
    assert!(files.contains(&oldest), "{files:?}");
}

#[test]
fn nobody_is_asked_after_yes() {
    let place = place_with(3);
    let mut command = place.unconfirmed_gc();
    command.arg("-y");
    let (shown, code) = Terminal::start(command, 100).end();
    assert_eq!((code, place.files().len()), (Some(0), 1), "{shown}");
}

#[test]
fn without_a_terminal_more_than_half_needs_a_yes() {
    let place = place_with(3);
    for output in ["text", "wide", "json"] {
        let run = Run::of(place.unconfirmed_gc().args(["-o", output]));
        assert_eq!((run.code, place.files().len()), (Some(2), 3), "{run:?}");
        assert_eq!(
            run.stderr,
            "error: refusing to delete 2 of 3 archives, which is more than half\n  \
             hint: run with --dry-run to see them, or give --yes\n"
        );
        assert_eq!(run.stdout, "");
    }
    place.add(&of("team", "web-1", "server", 1));
    let run = Run::of(&mut place.unconfirmed_gc());
    assert_eq!((run.code, place.files().len()), (Some(0), 2), "half of them may go: {run:?}");
}

#[test]
fn each_deletion_is_a_line_and_json_stays_one_document() {
    let place = place_with(2);
    let run = place.gc(&["-o", "json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["totals"]["deleteArchives"], 1);
    let (_, line) = run.stderr.split_once(' ').unwrap();
    assert_eq!(
        line,
        "deleted checkpoint-web-0_team-server-2026-01-01T06:00:01Z.tar team/web-0/server 21.5Ki \
         MaxCountPerContainer (2 archives, limit 1) by ClusterCheckpointPolicy/default\n"
    );
    place.add(&server(3));
    let run = place.gc(&[]);
    let mut lines = run.stdout.lines();
    assert!(lines.next().unwrap().contains(" deleted checkpoint-web-0_team-server"), "{}", run.stdout);
    assert_eq!(lines.next(), Some(""));
    assert!(lines.next().unwrap().starts_with("VERDICT"), "{}", run.stdout);
    let rows: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), 1, "what is gone was said above: {rows:?}");
    assert!(run.stdout.contains("\ndeleted  MaxCountPerContainer         1  21.5Ki\n"), "{}", run.stdout);
    assert!(run.stdout.contains("\nteam              2  43Ki        1  21.5Ki\n"), "{}", run.stdout);
}

#[test]
fn a_run_that_is_killed_has_said_what_it_deleted() {
    let place = Place::new();
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}");
    let bytes = server(1).build().unwrap();
    for number in 0..800 {
        place.add_bytes(&format!("checkpoint-{number:03}.tar"), &bytes);
    }
    let mut command = place.unconfirmed_gc();
    let mut child = command.arg("--yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    out.read_line(&mut said).unwrap();
    // Nobody reads on, so it cannot get to the end: the pipe is full before.
    child.kill().unwrap();
    child.wait().unwrap();
    out.read_to_string(&mut said).unwrap();
    let said = said.lines().filter(|line| line.ends_with("ClusterCheckpointPolicy/default")).count();
    let gone = 800 - place.files().len();
    assert!(gone == said || gone == said + 1, "{gone} are gone, and {said} were said to be");
    assert!((1..799).contains(&gone), "{gone}");
}

#[test]
fn the_audit_file_has_a_line_for_each_deletion_and_stops_none() {
    let place = place_with(2);
    let audit = place.root().join("audit.json");
    let path = audit.to_str().unwrap();
    let run = place.gc(&["--audit", path, "--dry-run"]);
    assert_eq!((run.code, audit.exists()), (Some(0), false), "a dry run writes nothing: {run:?}");
    assert_eq!(place.gc(&["--audit", path]).code, Some(0));
    place.add(&server(3));
    assert_eq!(place.gc(&["--audit", path]).code, Some(0));
    let lines = fs::read_to_string(&audit).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (&line["file"], &line["reason"])).collect();
    let file = |second: u32| Value::from(server(second).file_name());
    let reason = Value::from("MaxCountPerContainer");
    assert_eq!(told, [(&file(1), &reason), (&file(2), &reason)]);

    // A device that is always full.
    (4..=6).for_each(|second| _ = place.add(&server(second)));
    let run = place.gc(&["--audit", "/dev/full"]);
    assert_eq!((run.code, place.files().len()), (Some(1), 1), "{run:?}");
    let complaint = "error: cannot write the audit file /dev/full: No space left on device";
    assert_eq!(run.stderr.matches(complaint).count(), 1, "{}", run.stderr);
    assert!(run.stdout.contains("; 3 failed;"), "{}", run.stdout);
}

#[test]
fn an_audit_file_that_can_never_be_written_is_wrong_usage() {
    let place = place_with(2);
    let archive = place.directory().join("checkpoint-new.tar");
    for (path, complaint) in [
        ("/nowhere/audit", "--audit /nowhere/audit: cannot be written: No such file"),
        ("/", "--audit /: cannot be written: Is a directory"),
        (archive.to_str().unwrap(), "names an archive"),
    ] {
        let run = place.gc(&["--audit", path]);
        assert_eq!((run.code, place.files().len()), (Some(2), 2), "{run:?}");
        assert!(run.stderr.contains(complaint), "{}", run.stderr);
    }
}

#[test]
fn a_table_fits_the_terminal_and_wide_shows_everything() {
    let place = place_with(2);
    place.add(&of("a-namespace-of-some-length", "a-pod-with-quite-a-long-name-0", "container", 1));
    let dry_run = |more: &[&str], columns| {
        let mut command = place.unconfirmed_gc();
        command.arg("--dry-run").args(more);
        let (shown, _) = Terminal::start(command, columns).end();
        // Behind what the bar of progress leaves.
        let at = shown.find("VERDICT").unwrap();
        shown[at..].lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    for columns in [80, 100, 120, 200] {
        let table = dry_run(&[], columns);
        assert!(
            table.iter().all(|line| line.chars().count() <= usize::from(columns)),
            "{columns}: {table:#?}"
        );
    }
    let last = "Not shown: POLICY, DETAIL, FILE; see them with -o wide.";
    assert_eq!(dry_run(&[], 80).last().unwrap(), last);
    let wide = dry_run(&["-o", "wide"], 80);
    assert!(wide[0].contains("DETAIL") && wide[0].ends_with("FILE"), "{wide:#?}");
    assert!(wide.iter().any(|line| line.contains(&server(1).file_name())), "{wide:#?}");
    assert_eq!(wide.len(), 4, "{wide:#?}");
}

#[test]
fn files_are_named_where_rows_could_not_be_told_apart() {
    let place = Place::new();
    place.cluster_policy("retention: {perContainer: {maxCount: 9}}");
    place.add(&server(1));
    place.add(&of("team", "web-1", "server", 1));
    let text = place.gc(&["--dry-run"]).stdout;
    assert!(!text.contains("FILE"), "{text}");
    let twin = place.add(&server(2));
    let text = place.gc(&["--dry-run"]).stdout;
    assert!(text.contains("FILE") && text.contains(twin.file_name().unwrap().to_str().unwrap()), "{text}");
}

#[test]
fn output_that_cannot_be_written_keeps_nothing_from_being_deleted() {
    for output in ["text", "json"] {
        // Whoever reads may have had enough, which is no error.
        let place = place_with(4);
        let mut command = place.unconfirmed_gc();
        command.args(["--yes", "-o", output]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!((child.wait().unwrap().code(), place.files().len()), (Some(0), 1), "{output}");
        // A disk may be full, which is one.
        let place = place_with(4);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = place.unconfirmed_gc();
        let child =
            command.args(["--yes", "-o", output]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), place.files().len()), (Some(1), 1), "{output}: {said}");
        assert!(said.contains("error: cannot write the output: No space left on device"), "{said}");
    }
}
