//! What goes wrong on a real node: kills, full and read-only disks, files that may not be touched.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Place, Run, age, files, of, program, server, verdicts};

const PROGRAM: &str = env!("CARGO_BIN_EXE_checkpoint-keeper");

/// Runs a shell script in a mount namespace of its own, where it may mount what it likes: all of
/// that is gone when it ends, however it ends. `$1` is the directory, `$2` the place, `$3` the
/// program.
fn in_own_mounts(place: &Place, script: &str) -> Run {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !rustix_is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-euc", script, "sh"]).arg(place.directory()).arg(place.root()).arg(PROGRAM);
    Run::of(&mut command)
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_kill_at_any_instant_of_a_sweep_loses_nothing_that_is_to_stay() {
    const CONTAINERS: u32 = 10;
    const EACH: u32 = 60;
    const ROUNDS: u32 = 20;
    // Made once; each round links anew what the last one deleted.
    let source = Place::new();
    let mut kept = BTreeSet::new();
    for container in 0..CONTAINERS {
        for second in 0..EACH {
            let archive = of("team", "web-0", &format!("c{container}"), second);
            source.add(&archive);
            if second >= EACH - 3 {
                kept.insert(archive.file_name());
            }
        }
    }
    let all = source.files();
    let place = Place::new();
    place.cluster_policy("retention: {perContainer: {maxCount: 3}}");
    let state = place.state();
    let mut in_the_middle = 0;
    for round in 0..ROUNDS {
        for file in all.difference(&place.files()) {
            fs::hard_link(source.directory().join(file), place.directory().join(file)).unwrap();
        }
        let mut collecting = program()
            .args(["gc", "--yes"])
            .arg(place.directory())
            .arg("--policy")
            .arg(place.root().join("policy.yaml"))
            .arg("--state")
            .arg(&state)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A different instant each time: as soon as so many are gone, or it has ended.
        let enough = all.len() - 1 - all.len() * round as usize / ROUNDS as usize;
        support::wait_until(
            "enough are gone",
            || collecting.try_wait().unwrap().is_some() || place.files().len() <= enough,
            |enough| *enough,
        );
        let _ = collecting.kill();
        collecting.wait().unwrap();
        let left = place.files();
        assert!(left.is_superset(&kept), "round {round}: {:?}", kept.difference(&left));
        in_the_middle += u32::from(left != kept && left != all);
        if round % 5 == 4 {
            let healed = place.gc(&["--state", state.to_str().unwrap()]);
            assert_eq!((healed.code, healed.stderr.as_str()), (Some(0), ""), "round {round}");
            assert_eq!(place.files(), kept, "round {round}");
        }
    }
    assert!(in_the_middle > 0, "no kill ever came in the middle of a sweep");
}

#[test]
fn a_kill_while_watching_and_writing_the_catalog_costs_at_most_a_second_reading() {
    let place = Place::new();
    place.cluster_policy("retention: {perContainer: {maxCount: 5}}");
    let state = place.state();
    for round in 0..20 {
        let mut watching = place
            .watch()
            .arg("--state")
            .arg(&state)
            .args(["--settle", "10ms"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for second in 0..20 {
            server(round * 20 + second).write_to(&place.directory()).unwrap();
        }
        // A different moment each time: as soon as so many are gone.
        let left = 24 - usize::try_from(round).unwrap() % 15;
        support::wait_until("some were deleted", || place.files().len(), |count| *count <= left);
        watching.kill().unwrap();
        watching.wait().unwrap();
        let newest: BTreeSet<String> =
            (15..20).map(|second| server(round * 20 + second).file_name()).collect();
        assert!(place.files().is_superset(&newest), "round {round}");
    }
    place.files().iter().for_each(|file| age(&place.directory().join(file)));
    let run = place.gc(&["--state", state.to_str().unwrap()]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(place.files().len(), 5);
}

#[test]
fn a_full_disk_never_blocks_deletion() {
    let place = Place::new();
    let source = Place::new();
    (0..6).for_each(|second| _ = source.add(&server(second).pages(vec![1; 100_000])));
    fs::rename(source.directory(), place.root().join("source")).unwrap();
    place.cluster_policy(
        "retention: {perContainer: {maxCount: 2}}\nincomplete: {action: Delete, gracePeriod: 1ms}",
    );
    let run = in_own_mounts(
        &place,
        r#"mount -t tmpfs -o size=2m tmpfs "$1"
        cp -a "$2"/source/. "$1"/
        dd if=/dev/zero of="$1"/filler bs=4k 2>/dev/null && exit 9
        code=0
        "$3" gc --yes "$1" --policy "$2"/policy.yaml --state "$1"/catalog || code=$?
        echo "code $code"
        ls "$1""#,
    );
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.contains("cannot open the catalog"), "said what failed: {}", run.stderr);
    assert!(run.stdout.contains("4 deleted") && run.stdout.contains("code 1"), "{}", run.stdout);
    let left: BTreeSet<&str> = run.stdout.lines().filter(|line| line.starts_with("checkpoint-")).collect();
    let newest = [server(4).file_name(), server(5).file_name()];
    assert_eq!(left, newest.iter().map(String::as_str).collect());
}

#[test]
fn what_a_full_disk_cut_off_is_incomplete_and_goes_after_its_grace_period() {
    let place = Place::new();
    let source = Place::new();
    source.add(&server(1).pages(vec![1; 900_000]));
    source.add(&server(2).pages(vec![1; 900_000]));
    fs::rename(source.directory(), place.root().join("source")).unwrap();
    place.cluster_policy("incomplete: {action: Delete, gracePeriod: 1h}");
    let run = in_own_mounts(
        &place,
        r#"mount -t tmpfs -o size=1m tmpfs "$1"
        cp "$2"/source/*06:00:01Z.tar "$1"/
        cp "$2"/source/*06:00:02Z.tar "$1"/ 2>/dev/null && exit 9
        touch --date '2 hours ago' "$1"/*.tar
        "$3" gc --yes "$1" --policy "$2"/policy.yaml --output json"#,
    );
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let expected = [
        (server(1).file_name(), "Keep WithinLimits".to_owned()),
        (server(2).file_name(), "Delete Incomplete".to_owned()),
    ];
    assert_eq!(verdicts(&report), expected);
}

#[test]
fn a_read_only_disk_is_reported_for_each_archive() {
    let place = Place::new();
    let source = Place::new();
    (0..3).for_each(|second| _ = source.add(&server(second)));
    fs::rename(source.directory(), place.root().join("source")).unwrap();
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}");
    let run = in_own_mounts(
        &place,
        r#"mount -t tmpfs tmpfs "$1"
        cp -a "$2"/source/. "$1"/
        mount -o remount,ro "$1"
        code=0
        "$3" gc --yes "$1" --policy "$2"/policy.yaml --output json || code=$?
        test $code = 1
        test "$(ls "$1" | wc -l)" = 3"#,
    );
    assert_eq!(run.code, Some(0), "{run:#?}");
    for second in 0..2 {
        let complaint = format!("error: cannot delete {}: Read-only file system", server(second).file_name());
        assert!(run.stderr.contains(&complaint), "{}", run.stderr);
    }
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["totals"]["failures"], 2);
    assert!(report["archives"].as_array().unwrap().iter().all(|row| row["deleted"] == false));
}

/// Ext4 on a loop device, which an ioctl shuts down as it does itself when its disk has died: from
/// then on, every read of a file and every change is an input/output error.
#[test]
fn on_a_disk_that_died_every_archive_is_kept_and_every_failure_named() {
    if !rustix_is_root() {
        eprintln!("not run: only root has loop devices");
        return;
    }
    let place = Place::new();
    let source = Place::new();
    (0..3).for_each(|second| _ = source.add(&server(second)));
    fs::rename(source.directory(), place.root().join("source")).unwrap();
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}\norphans: {action: Delete}");
    let run = in_own_mounts(
        &place,
        r#"truncate -s 32M "$2"/disk
        mkfs.ext4 -q "$2"/disk
        mount -o loop "$2"/disk "$1"
        cp -a "$2"/source/. "$1"/
        sync --file-system "$1"
        printf 'apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetadata: {name: lax}\nspec: {}\n' >"$2"/lax.yaml
        "$3" gc --yes "$1" --policy "$2"/lax.yaml --state "$2"/catalog >/dev/null
        perl -e 'open(D, "<", $ARGV[0]) or die; $how = pack("L", 2); ioctl(D, 0x8004587d, $how) or die $!' "$1"
        code=0
        "$3" gc --yes "$1" --policy "$2"/policy.yaml --output json >"$2"/unknown.json 2>"$2"/unknown.err || code=$?
        test $code = 1
        code=0
        "$3" gc --yes "$1" --policy "$2"/policy.yaml --state "$2"/catalog --output json || code=$?
        test $code = 1
        umount "$1"
        mount -o loop "$2"/disk "$1"
        test "$(ls "$1" | grep -c ^checkpoint-)" = 3"#,
    );
    assert_eq!(run.code, Some(0), "{run:#?}");
    // Read before it died, so that the plan knows what to take, and cannot.
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["totals"]["deleteArchives"], 2);
    assert_eq!(report["totals"]["failures"], 2);
    assert!(report["archives"].as_array().unwrap().iter().all(|row| row["deleted"] == false));
    for second in 0..2 {
        let complaint = format!("error: cannot delete {}: Input/output error", server(second).file_name());
        assert!(run.stderr.contains(&complaint), "{}", run.stderr);
    }
    // Never read, so that nothing is known of them.
    let read = |name| fs::read_to_string(place.root().join(name)).unwrap();
    let report: Value = serde_json::from_str(&read("unknown.json")).unwrap();
    let rows = report["archives"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!((&row["state"], &row["reason"]), (&"Unreadable".into(), &"UnknownIdentity".into()));
        let complaint = format!("error: cannot read {}: Input/output error", row["file"].as_str().unwrap());
        assert!(read("unknown.err").contains(&complaint), "{}", read("unknown.err"));
    }
}

#[test]
fn an_archive_that_may_not_be_read_is_kept_and_one_that_may_not_be_deleted_is_named() {
    let place = Place::new();
    let secret = place.add(&server(1));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).unwrap();
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for second in 2..4 {
        open(&place.add(&server(second)), 0o644);
    }
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}");
    open(place.root(), 0o777);
    open(&place.directory(), 0o555);
    let mut command = Command::new(if rustix_is_root() { "setpriv" } else { "env" });
    if rustix_is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    // The program may lie where only root gets to.
    let copy = place.root().join("checkpoint-keeper");
    // By a process of its own: while this one writes a program, another test's fork holds it open,
    // and a file held open for writing cannot be run.
    assert!(Command::new("cp").arg(PROGRAM).arg(&copy).status().unwrap().success());
    command
        .arg(copy)
        .args(["gc", "--yes"])
        .arg(place.directory())
        .arg("--policy")
        .arg(place.root().join("policy.yaml"));
    let run = Run::of(command.args(["--output", "json", "--state"]).arg(place.state()));
    open(&place.directory(), 0o755);
    assert_eq!(run.code, Some(1), "{run:#?}");
    let complaint = format!("error: cannot delete {}: Permission denied", server(2).file_name());
    assert!(run.stderr.contains(&complaint), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let row = report["archives"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["file"] == server(1).file_name())
        .unwrap();
    assert_eq!((&row["state"], &row["reason"]), (&"Unreadable".into(), &"UnknownIdentity".into()));
    assert!(row["detail"].as_str().unwrap().contains("Permission denied"), "{row}");
    assert!(run.stderr.contains(&format!("error: cannot read {}: Permission denied", server(1).file_name())));
    assert_eq!(files(&place.directory()).len(), 3);
    // A failure is not remembered: whoever may read it the next time does.
    open(&secret, 0o600);
    let report = place.gc_json(&["--dry-run", "--state", place.state().to_str().unwrap()]);
    assert!(report["archives"].as_array().unwrap().iter().all(|row| row["state"] == "Complete"), "{report}");
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_the_collecting() {
    let place = Place::new();
    place.add(&server(1));
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}");
    let mut watching = place
        .watch()
        .stdout(fs::File::options().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for second in 2..6 {
        server(second).write_to(&place.directory()).unwrap();
        let newest = BTreeSet::from([server(second).file_name()]);
        support::wait_until("only the newest is left", || place.files(), |left| *left == newest);
    }
    assert_eq!(watching.try_wait().unwrap(), None, "still watching");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn the_watermark_does_not_count_on_what_another_name_holds_on_to() {
    let place = Place::new();
    let source = Place::new();
    (0..8).for_each(|second| _ = source.add(&server(second).pages(vec![1; 2_000_000])));
    fs::rename(source.directory(), place.root().join("source")).unwrap();
    place.policy(
        "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointStoragePolicy\nmetadata: {name: disk}\n\
         spec: {highWatermark: 80%, lowWatermark: 60%, reserved: 1%}\n",
    );
    let run = in_own_mounts(
        &place,
        r#"mount -t tmpfs -o size=19m tmpfs "$1"
        mkdir "$1"/checkpoints "$1"/backup
        cp -a "$2"/source/. "$1"/checkpoints/
        "$3" gc --yes "$1"/checkpoints --dry-run --policy "$2"/policy.yaml
        cp -al "$1"/checkpoints/. "$1"/backup/
        "$3" gc --yes "$1"/checkpoints --policy "$2"/policy.yaml
        ls "$1"/checkpoints | wc -l"#,
    );
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("3 to delete"), "without other names it takes what it needs: {}", run.stdout);
    assert!(run.stdout.ends_with("\n8\n"), "{}", run.stdout);
    assert!(
        run.stdout.contains(" cannot be freed, as checkpoints use no more than is reserved"),
        "{}",
        run.stdout
    );
}
