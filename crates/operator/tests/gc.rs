//! `checkpoint-keeper gc`: what it shows, what it deletes, and how it fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use checkpoint_keeper_testkit::{ArchiveBuilder, Dialect};
use serde_json::{Value, json};
use support::{Place, Run, cluster_policy, of, program, server, verdicts};

fn real_archives() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/archives")
}

/// The real archives, as if they had been there for long.
fn with_real_archives() -> Place {
    let place = Place::new();
    for entry in fs::read_dir(real_archives()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".tar") {
            place.add_bytes(&name, &fs::read(entry.path()).unwrap());
        }
    }
    place
}

const NOON: &str = "2026-11-23T12:00:00Z";

#[test]
fn a_dry_run_over_real_archives_says_what_would_happen_and_why() {
    let place = with_real_archives();
    place.cluster_policy(
        "retention: {perContainer: {maxCount: 1}}\nincomplete: {action: Delete, gracePeriod: 1h}",
    );
    let before = place.files();
    let report = place.gc_json(&["--dry-run", "--now", NOON]);
    let cut_off = "checkpoint-db-0_shop-eu-engine-2026-11-22T15:59:46Z.tar";
    let expected = [
        (cut_off, "Delete Incomplete"),
        ("checkpoint-db-0_shop-eu-engine-2026-11-22T16:00:22Z.tar", "Keep WithinLimits"),
        ("checkpoint-db-0_shop-eu-proxy-2026-11-22T15:59:46Z.tar", "Keep WithinLimits"),
        (
            "checkpoint-web-b97f476fd-5dfj4_shop-server-2026-11-22T15:59:42Z.tar",
            "Delete MaxCountPerContainer",
        ),
        ("checkpoint-web-b97f476fd-5dfj4_shop-server-2026-11-22T15:59:44Z.tar", "Keep WithinLimits"),
        (
            "checkpoint-web-b97f476fd-7f4gx_shop-server-2026-11-22T16:00:18Z.tar",
            "Delete MaxCountPerContainer",
        ),
        ("checkpoint-web-b97f476fd-7f4gx_shop-server-2026-11-22T16:00:20Z.tar", "Keep WithinLimits"),
        ("ledger-gzip.tar", "Keep UnknownIdentity"),
        ("ledger-zstd.tar", "Keep UnknownIdentity"),
    ];
    let expected: Vec<_> = expected.map(|(file, verdict)| (file.to_owned(), verdict.to_owned())).into();
    assert_eq!(verdicts(&report), expected);
    let row = report["archives"].as_array().unwrap().iter().find(|row| row["container"] == "proxy").unwrap();
    assert_eq!(
        *row,
        json!({
            "file": "checkpoint-db-0_shop-eu-proxy-2026-11-22T15:59:46Z.tar",
            "namespace": "shop-eu", "pod": "db-0", "podUid": "e8f4d4ff-7d16-4cdd-a9bd-8d5d37e77a65",
            "container": "proxy", "runtime": "io.containerd.runc.v2",
            "checkpointedAt": "2026-11-22T15:59:46.507168732Z", "sizeBytes": 292_864, "state": "Complete",
            "verdict": "Keep", "reason": "WithinLimits", "policy": "ClusterCheckpointPolicy/default",
            "detail": "", "deleted": false, "createdBy": null,
        })
    );
    assert_eq!(
        report["totals"],
        json!({"archives": 9, "bytes": 3_960_847, "deleteArchives": 3, "deleteBytes": 1_212_928, "failures": 0})
    );
    assert!(
        report["filesystem"]["totalBytes"].as_u64().unwrap()
            >= report["filesystem"]["freeBytes"].as_u64().unwrap()
    );
    assert_eq!(place.files(), before, "a dry run changes nothing");
}

#[test]
fn the_table_is_one_that_a_person_enjoys_reading() {
    let place = with_real_archives();
    place.cluster_policy(
        "retention: {perContainer: {maxCount: 1}}\nincomplete: {action: Delete, gracePeriod: 1h}",
    );
    let run = place.gc(&["--dry-run", "--now", NOON]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    // The disk is this machine's.
    let shown = run.stdout.split("; the disk").next().unwrap().to_owned();
    insta::assert_snapshot!(shown);
}

const REPLACED: &str = "checkpoint-web-b97f476fd-5dfj4_shop-server-2026-11-22T15:59:42Z.tar";

/// `gc --explain` of one of the real archives, by a policy with several rules.
fn explained(file: &str, options: &[&str]) -> (Place, Run) {
    let place = with_real_archives();
    place.cluster_policy(
        "retention: {minAge: 1h, maxAge: 2d, perContainer: {maxCount: 1}}\nincomplete: {action: Delete, gracePeriod: 1h}",
    );
    let before = place.files();
    let run = place.gc(&[&["--explain", file, "--now", NOON], options].concat());
    assert_eq!(place.files(), before, "what is explained stays");
    (place, run)
}

#[test]
fn a_verdict_is_explained_for_a_person_rule_by_rule() {
    let (_, replaced) = explained(REPLACED, &[]);
    assert_eq!((replaced.code, replaced.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(replaced.stdout);
    let kept = REPLACED.replace("42Z", "44Z");
    let (_, kept) = explained(&kept, &["--dry-run"]);
    assert_eq!((kept.code, kept.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(kept.stdout);
}

#[test]
fn what_has_no_date_that_could_be_is_of_unknown_age() {
    let place = Place::new();
    let path =
        place.add_bytes("backup.tar", &fs::read(format!("{}/ledger-gzip.tar", real_archives())).unwrap());
    fs::File::options().append(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    place.cluster_policy("retention: {maxAge: 2d}");
    let row = |run: &Run| run.stdout.lines().find(|line| line.contains("backup.tar")).unwrap().to_owned();
    let shown = row(&place.gc(&["--dry-run", "--now", NOON]));
    assert!(shown.contains(" unknown "), "{shown}");
    assert_eq!(place.gc_json(&["--dry-run", "--now", NOON])["archives"][0]["checkpointedAt"], Value::Null);
    let explained = place.gc(&["--dry-run", "--now", NOON, "--explain", "backup.tar"]).stdout;
    assert!(
        explained.contains("  taken    unknown; its age counts from when it was first seen\n"),
        "{explained}"
    );
    let inspected = Run::of(program().arg("inspect").arg(&path)).stdout;
    assert!(inspected.contains("checkpointed  1970-01-01T00:00:00.000Z, which cannot be"), "{inspected}");
}

#[test]
fn a_verdict_is_explained_for_programs_as_the_report_has_it() {
    let (place, run) = explained(REPLACED, &["--output", "json"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let explanation: Value = serde_json::from_str(&run.stdout).unwrap();
    let report = place.gc_json(&["--dry-run", "--now", NOON]);
    let row = report["archives"].as_array().unwrap().iter().find(|row| row["file"] == REPLACED).unwrap();
    assert_eq!(explanation["archive"], *row);
    assert_eq!(explanation["governedBy"], "ClusterCheckpointPolicy/default");
    assert_eq!((&explanation["waitsFor"], &explanation["next"]), (&json!("Now"), &Value::Null));
    assert_eq!(explanation["nextText"], "It is to go now.");
    let rule = |name: &str| {
        explanation["rules"].as_array().unwrap().iter().find(|rule| rule["rule"] == name).unwrap().clone()
    };
    let count = rule("MaxCountPerContainer");
    assert_eq!((&count["outcome"], &count["reason"]), (&json!("Deletes"), &json!("MaxCountPerContainer")));
    assert_eq!(
        count["figures"],
        json!({"unit": "Archives", "have": 2, "limit": 1, "position": 2, "since": null, "until": null})
    );
    assert_eq!(rule("MaxAge")["outcome"], "Passes");
    assert_eq!(rule("Orphaned")["outcome"], "DoesNotApply");
}

#[test]
fn an_archive_that_is_not_there_is_not_explained_and_close_names_are_told() {
    let (_, run) = explained(&REPLACED.replace("42Z", "43Z"), &[]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    let hint = format!("hint: did you mean {REPLACED}");
    assert!(run.stderr.contains("there is no archive") && run.stderr.contains(&hint), "{}", run.stderr);
    let (_, run) = explained("nothing-like-it", &[]);
    assert_eq!(run.code, Some(2));
    assert!(!run.stderr.contains("hint"), "{}", run.stderr);
}

/// Lines of the table, without the age and the order, which are those of the machine.
fn table(text: &str) -> BTreeSet<String> {
    let cells = |line: &str| {
        let cells: Vec<_> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        cells
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != 4)
            .map(|(_, cell)| *cell)
            .collect::<Vec<_>>()
            .join(" | ")
    };
    let text = text.split("; the disk").next().unwrap();
    text.lines().filter(|line| !line.is_empty()).map(cells).collect()
}

#[test]
fn the_readme_shows_what_is_printed() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let readme = fs::read_to_string(format!("{root}/README.md")).unwrap();
    let command = readme.lines().find_map(|line| line.trim().strip_prefix("cargo run -- gc ")).unwrap();
    let policy = command.split(' ').skip_while(|word| *word != "--policy").nth(1).unwrap();
    let shown = readme.split("```\n").find(|block| block.starts_with("VERDICT")).unwrap();
    let place = with_real_archives();
    fs::copy(format!("{root}/{policy}"), place.root().join("policy.yaml")).unwrap();
    let run = place.gc(&["--dry-run"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(table(shown), table(&run.stdout), "the README shows something else:\n{}", run.stdout);
}

#[test]
fn what_is_applied_to_a_cluster_first_deletes_nothing() {
    let place = with_real_archives();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policy.yaml");
    fs::copy(example, place.root().join("policy.yaml")).unwrap();
    let (before, run) = (place.files(), place.gc(&[]));
    assert_eq!((run.code, place.files()), (Some(0), before), "{run:?}");
    assert!(run.stdout.contains("ClusterCheckpointPolicy/default (DryRun) would delete"), "{}", run.stdout);
}

#[test]
fn what_is_to_go_goes_once_and_the_second_pass_finds_nothing() {
    let place = with_real_archives();
    place.cluster_policy(
        "retention: {perContainer: {maxCount: 1}}\nincomplete: {action: Delete, gracePeriod: 1h}",
    );
    let planned: Vec<String> = verdicts(&place.gc_json(&["--dry-run"]))
        .into_iter()
        .filter_map(|(file, verdict)| verdict.starts_with("Delete").then_some(file))
        .collect();
    let before = place.files();
    let report = place.gc_json(&[]);
    let deleted = |row: &&Value| row["deleted"] == true;
    assert_eq!(report["archives"].as_array().unwrap().iter().filter(deleted).count(), 3);
    let gone: Vec<String> = before.difference(&place.files()).cloned().collect();
    assert_eq!(gone, planned);
    let again = place.gc(&[]);
    assert_eq!(again.code, Some(0));
    assert!(again.stdout.contains("0 deleted, which frees 0"), "{}", again.stdout);
}

#[test]
fn a_dry_run_writes_nothing_and_needs_no_lock() {
    let place = Place::new();
    place.add(&server(1));
    place.cluster_policy("retention: {perContainer: {maxCount: 9999}}");
    let state = place.state();
    let mut watching = place.watch().stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(watching.stderr.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    let run = place.gc(&["--dry-run", "--state", state.to_str().unwrap()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!state.exists(), "a dry run makes no catalog");
    let second = place.gc(&[]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("another collector works on"), "{}", second.stderr);
    signal(&watching, "TERM");
    assert_eq!(watching.wait().unwrap().code(), Some(0), "SIGTERM ends it cleanly");
}

fn signal(child: &std::process::Child, signal: &str) {
    let status = std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn watching_says_a_line_for_each_deletion() {
    let place = Place::new();
    place.add(&server(1));
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}");
    let mut watching = place.watch().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(watching.stderr.take().unwrap());
    let mut begun = String::new();
    said.read_line(&mut begun).unwrap();
    assert_eq!(begun, "note: watching; 1 archive here, 0 to delete\n");
    server(2).write_to(&place.directory()).unwrap();
    let mut out = BufReader::new(watching.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let (_, line) = line.split_once(' ').unwrap();
    assert_eq!(
        line,
        "deleted checkpoint-web-0_team-server-2026-01-01T06:00:01Z.tar team/web-0/server 21.5Ki \
         MaxCountPerContainer (2 archives, limit 1) by ClusterCheckpointPolicy/default\n"
    );
    signal(&watching, "INT");
    assert_eq!(watching.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    for second in 0..2_000 {
        fs::hard_link(place.add(&server(0)), place.directory().join(format!("checkpoint-{second}.tar")))
            .unwrap();
    }
    place.cluster_policy("retention: {perContainer: {maxCount: 9999}}");
    for output in ["text", "json"] {
        let mut child = program()
            .args(["gc", "--dry-run", "--output", output, "--policy"])
            .arg(place.root().join("policy.yaml"))
            .arg(place.directory())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{output}");
    }
}

#[test]
fn a_directory_without_archives_is_said_to_be_so() {
    let place = Place::new();
    place.cluster_policy("retention: {perContainer: {maxCount: 9999}}");
    fs::write(place.directory().join("notes.txt"), "mine").unwrap();
    fs::write(place.directory().join("backup.tar"), "not a checkpoint").unwrap();
    let run = place.gc(&[]);
    assert_eq!(run.code, Some(0));
    assert_eq!(run.stdout, format!("No archives in {}.\n", place.directory().display()));
    assert_eq!(place.files().len(), 2);
}

/// A tar of one file, as anybody makes them.
fn tar_of(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(156, b"0");
    put(257, b"ustar\0");
    put(148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend_from_slice(data);
    header.resize(header.len().next_multiple_of(512) + 1_024, 0);
    header
}

#[test]
fn foreign_files_are_never_touched() {
    let place = Place::new();
    place.cluster_policy(
        "retention: {keepLatest: 0, maxAge: 1h, maxArchiveSize: 1Ki, perContainer: {maxCount: 1}}\n\
         incomplete: {action: Delete, gracePeriod: 1s}",
    );
    let archive = server(1).build().unwrap();
    place.add_bytes("backup.tar", b"not a checkpoint");
    place.add_bytes("renamed-by-hand.tar", &archive);
    place.add_bytes("cut-off.tar", &archive[..archive.len() / 2]);
    // By the kubelet's kind of name, but nothing that a runtime ever wrote.
    place.add_bytes("checkpoint-notes.tar", b"my notes");
    let epoch = tar_of("weights.bin", &[b'w'; 2_000]);
    place.add_bytes("checkpoint-epoch3.tar", &epoch);
    place.add_bytes("checkpoint-epoch4.tar", &epoch[..1_500]);
    place.add_bytes("checkpoint-x.tar.bak", &archive);
    place.add_bytes(".checkpoint-x.tar", &archive);
    fs::create_dir(place.directory().join("checkpoint-directory.tar")).unwrap();
    let before = place.files();
    let report = place.gc_json(&[]);
    assert_eq!(place.files(), before);
    let expected = [
        ("checkpoint-epoch3.tar", "Keep UnknownIdentity"),
        ("checkpoint-epoch4.tar", "Keep UnknownIdentity"),
        ("checkpoint-notes.tar", "Keep UnknownIdentity"),
        ("renamed-by-hand.tar", "Keep NoPolicy"),
    ];
    assert_eq!(verdicts(&report), expected.map(|(file, verdict)| (file.to_owned(), verdict.to_owned())));
}

#[test]
fn a_policy_in_dry_run_mode_deletes_nothing_and_shows_the_difference() {
    let place = Place::new();
    let old = place.add(&server(1));
    place.add(&server(2));
    place.policy(&format!(
        "{}---\n{}",
        cluster_policy("kept", "retention: {perContainer: {maxCount: 5}}"),
        cluster_policy(
            "tried",
            "mode: DryRun\nselector: {pods: [web-0]}\nretention: {perContainer: {maxCount: 1}}"
        ),
    ));
    let report = place.gc_json(&[]);
    assert_eq!(place.files().len(), 2);
    let old = old.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        report["dryRunPolicies"],
        json!([{"policy": "ClusterCheckpointPolicy/tried", "wouldDelete": [old], "wouldKeep": []}])
    );
    let text = place.gc(&["--dry-run"]).stdout;
    assert!(text.contains("ClusterCheckpointPolicy/tried (DryRun) would delete 1 more"), "{text}");
    assert!(text.contains(&format!("would delete {old}")), "{text}");
}

#[test]
fn wrong_usage_and_wrong_policies_end_with_two_and_a_hint() {
    let place = Place::new();
    place.add(&server(1));
    let policy = place.cluster_policy("retention: {perContainer: {maxCuont: 1}}");
    let run = place.gc(&[]);
    assert_eq!(run.code, Some(2));
    let at = format!("{}:6:", policy.display());
    assert!(run.stderr.contains(&at) && run.stderr.contains("did you mean"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
    assert_eq!(place.files().len(), 1);

    let missing = Run::of(program().args(["gc", "--policy", "/nowhere/policy.yaml"]).arg(place.directory()));
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("/nowhere/policy.yaml: cannot be read: No such file"),
        "{}",
        missing.stderr
    );
    let none = Run::of(program().args(["gc"]).arg(place.directory()));
    assert_eq!(none.code, Some(2));
    assert!(none.stderr.contains("--policy"), "{}", none.stderr);
    let archive = place.directory().join(server(1).file_name());
    place.cluster_policy("retention: {maxAge: 1d}");
    let state = place.gc(&["--state", archive.to_str().unwrap()]);
    assert_eq!(state.code, Some(2));
    assert!(state.stderr.contains("names an archive"), "{}", state.stderr);
    let now = Run::of(program().args(["gc", "--policy", "x", "--now", NOON]));
    assert_eq!(now.code, Some(2));
}

#[test]
fn a_directory_that_is_not_there_ends_with_one() {
    let place = Place::new();
    place.cluster_policy("retention: {perContainer: {maxCount: 9999}}");
    fs::remove_dir(place.directory()).unwrap();
    let run = place.gc(&["--dry-run"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("cannot open the directory"), "{}", run.stderr);
    assert!(run.stderr.contains("No such file"), "{}", run.stderr);
}

#[test]
fn names_of_any_bytes_are_shown_without_breaking_the_terminal() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    place.cluster_policy("retention: {perContainer: {maxCount: 9999}}");
    let bytes = ArchiveBuilder::new("team", "web-0", "server").dialect(Dialect::Podman).build().unwrap();
    let names: [&[u8]; 3] =
        [b"checkpoint-\x1b[31m\n.tar", b"checkpoint-\xff.tar", "checkpoint-é.tar".as_bytes()];
    for name in names {
        let path = place.directory().join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, &bytes).unwrap();
        support::age(&path);
    }
    let run = place.gc(&["--dry-run"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stdout.contains(r"checkpoint-\x1b[31m\n.tar"), "{}", run.stdout);
    assert!(!run.stdout.contains('\x1b'));
    let files: Vec<String> =
        verdicts(&place.gc_json(&["--dry-run"])).into_iter().map(|(file, _)| file).collect();
    assert_eq!(files, ["checkpoint-\x1b[31m\n.tar", r"checkpoint-\xff.tar", "checkpoint-é.tar"]);
}

#[test]
fn now_is_only_for_what_if() {
    let place = Place::new();
    place.add(&of("team", "web-0", "server", 1));
    place.add(&of("team", "web-0", "server", 2));
    place.cluster_policy("retention: {maxAge: 30d}");
    let deletions =
        |now: &str| place.gc_json(&["--dry-run", "--now", now])["totals"]["deleteArchives"].clone();
    assert_eq!(deletions("2026-01-31T06:00:00Z"), 0);
    assert_eq!(deletions("2026-02-01T06:00:00Z"), 1, "the newest stays");
    assert_eq!(deletions("1999-01-01T00:00:00Z"), 0);
}

/// Whether an object has the properties that the schema wants, and no others.
fn matches_schema(schema: &Value, object: &Value) {
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let (there, allowed) = (keys(object), keys(&schema["properties"]));
    assert!(there.is_subset(&allowed), "{there:?} are not all among {allowed:?}");
    for required in schema["required"].as_array().unwrap() {
        assert!(there.contains(required.as_str().unwrap()), "{required} is missing in {there:?}");
    }
}

#[test]
fn what_is_printed_as_json_is_what_the_schema_says() {
    let schema = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/gc.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let place = with_real_archives();
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}");
    let report = place.gc_json(&["--dry-run"]);
    matches_schema(&schema, &report);
    matches_schema(&schema["$defs"]["Totals"], &report["totals"]);
    matches_schema(&schema["$defs"]["FileSystem"], &report["filesystem"]);
    let row = &schema["$defs"]["Row"];
    for archive in report["archives"].as_array().unwrap() {
        matches_schema(row, archive);
        for name in ["state", "verdict", "reason"] {
            assert!(
                row["properties"][name]["enum"].as_array().unwrap().contains(&archive[name]),
                "{archive}"
            );
        }
    }
}
