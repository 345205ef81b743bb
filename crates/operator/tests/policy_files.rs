//! The policy files of `gc`: read with a bound, judged as a whole, and followed while it watches.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Place, Run, cluster_policy, of, program, server, wait_until};

fn names(place: &Place) -> usize {
    place.files().len()
}

#[test]
fn a_file_without_an_end_is_not_read_to_its_end() {
    let place = Place::new();
    place.add(&server(1));
    for (path, hint) in [
        ("/dev/zero", "/dev/zero: cannot be read: it has more than 4 MiB"),
        ("/", "/: cannot be read: Is a directory"),
        ("/missing", "/missing: cannot be read: No such file"),
    ] {
        let run = Run::of(program().arg("gc").arg(place.directory()).args(["--policy", path]));
        assert_eq!((run.code, names(&place)), (Some(2), 1), "{run:?}");
        assert!(run.stderr.contains(hint), "{}", run.stderr);
    }
    let endless = fs::File::open("/dev/zero").unwrap();
    let run = Run::of(program().arg("gc").arg(place.directory()).args(["--policy", "-"]).stdin(endless));
    assert_eq!((run.code, names(&place)), (Some(2), 1), "{run:?}");
    assert!(run.stderr.contains("more than 4 MiB"), "{}", run.stderr);
    // A pipe that ends is a file like others.
    let mut child = program()
        .arg("gc")
        .arg(place.directory())
        .args(["--dry-run", "--policy", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let policy = cluster_policy("piped", "retention: {perPod: {maxCount: 3}}");
    child.stdin.take().unwrap().write_all(policy.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("cckpol/piped"));
}

#[test]
fn a_policy_that_can_never_act_is_named() {
    let place = Place::new();
    place.add(&server(1));
    place.policy(
        "apiVersion: checkpoint-keeper.io/v1alpha1
kind: ClusterCheckpointPolicy
metadata: {name: a}
spec: {retention: {maxAge: 9999w}}
---
apiVersion: checkpoint-keeper.io/v1alpha1
kind: ClusterCheckpointPolicy
metadata: {name: b}
spec: {retention: {perContainer: {maxCount: 1}}}
---
apiVersion: checkpoint-keeper.io/v1alpha1
kind: CheckpointPolicy
metadata: {name: c, namespace: taem}
spec: {retention: {keepLatest: 3, minAge: 2d, maxAge: 1d, perContainer: {maxCount: 2}, perPod: {maxCount: 1}}}
---
apiVersion: checkpoint-keeper.io/v1alpha1
kind: CheckpointStoragePolicy
metadata: {name: d}
spec: {highWatermark: 0%, lowWatermark: 70%, minFree: {bytes: 4Ei, inodes: 9000000000000000}, reserved: 100%}
---
apiVersion: checkpoint-keeper.io/v1alpha1
kind: CheckpointStoragePolicy
metadata: {name: e}
spec: {}
",
    );
    let run = place.gc(&["--dry-run"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for said in [
        "ClusterCheckpointPolicy/b governs nothing: ClusterCheckpointPolicy/a goes before it",
        "CheckpointPolicy/taem/c governs nothing here: no archive is of the namespace taem",
        "CheckpointPolicy/taem/c perContainer.maxCount has no effect: perPod.maxCount is lower",
        "CheckpointPolicy/taem/c perPod.maxCount is below keepLatest: the 3 newest always stay",
        "CheckpointPolicy/taem/c minAge is not below maxAge",
        "CheckpointStoragePolicy/d lowWatermark has no effect: there is no highWatermark",
        "CheckpointStoragePolicy/d reserved is 100%",
        "CheckpointStoragePolicy/d minFree.bytes has no effect: 4Ei is more than",
        "CheckpointStoragePolicy/e has no rule",
    ] {
        assert!(run.stderr.contains(&format!("warning: {said}")), "lacks {said:?}: {}", run.stderr);
    }
}

#[test]
fn what_an_object_of_the_older_kind_means_here_is_said_before_what_it_would_take() {
    let place = Place::new();
    (1..=3).for_each(|second| _ = place.add(&server(second)));
    let policy = place.policy(
        "apiVersion: criu.org/v1
kind: CheckpointRestoreOperator
metadata: {name: sample, namespace: shop}
spec:
  globalPolicy:
    retainOrphan: false
    maxCheckpointsPerContainer: 1
    maxCheckpointsPerPod: 0
    maxTotalSizePerPod: 1Gi
    maxTotalSizePerNamespace: 2Gi
",
    );
    let policy = policy.to_str().unwrap();
    let said = [
        "CheckpointRestoreOperator shop/sample, once the older operator has ended:",
        "  * it governs the namespace shop alone, on every node;",
        "  * maxCheckpointsPerPod: 0 turns that one limit off, and maxTotalSizePerPod goes on acting;",
        "  * retainOrphan: false deletes an archive 1h after",
        "  * of the archives that a limit counts or adds up the newest complete ones stay (1;",
        "  * the time inside an archive says which is older;",
    ];
    // Nothing is deleted, although it was confirmed and nobody said that it is a dry run.
    let run = place.gc(&["--from-older-operator"]);
    assert_eq!((run.code, names(&place)), (Some(0), 3), "{run:?}");
    let places: Vec<_> = said.iter().map(|text| run.stdout.find(text)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {}", run.stdout);
    let table = run.stdout.find("VERDICT").unwrap();
    assert!(Some(table) > places[5] && run.stdout.contains("2 to delete"), "{}", run.stdout);
    // What a program reads is the report alone.
    let run = place.gc(&["--from-older-operator", "--output", "json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["totals"]["deleteArchives"], names(&place)), (&2.into(), 3));
    said.iter().for_each(|text| assert!(run.stderr.contains(text), "lacks {text:?}: {}", run.stderr));
    // Who does not know that it can be asked is told so, once.
    let run = place.gc(&["--dry-run"]);
    assert_eq!(run.stderr.matches("--from-older-operator says which").count(), 1, "{}", run.stderr);
    let both =
        program().args(["gc", "--from-older-operator", "--watch", "--policy", policy]).output().unwrap();
    assert_eq!(both.status.code(), Some(2));
    place.cluster_policy("retention: {perContainer: {maxCount: 3}}");
    let run = place.gc(&["--from-older-operator"]);
    assert!(run.stdout.starts_with("there are no objects of the older operator\n"), "{run:?}");
    assert!(!place.gc(&["--dry-run"]).stderr.contains("older-operator"));
}

#[test]
fn an_object_of_the_older_kind_for_another_directory_is_not_applied() {
    let place = Place::new();
    (1..=3).for_each(|second| _ = place.add(&server(second)));
    let object = |directory: &str| {
        format!(
            "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata: {{name: a, namespace: b}}\n\
             spec: {{checkpointDirectory: {directory}, globalPolicy: {{maxCheckpointsPerContainer: 1}}}}\n---\n\
             apiVersion: criu.org/v1\nkind: CheckpointSchedule\nmetadata: {{name: s, namespace: b}}\n\
             spec: {{namespace: b, selector: {{}}, triggers: {{interval: 1h}}}}\n"
        )
    };
    place.policy(&object("/var/lib/kubelet/checkpoints"));
    let run = place.gc(&[]);
    assert_eq!((run.code, names(&place)), (Some(0), 3), "{run:?}");
    assert!(run.stderr.contains("CheckpointRestoreOperator/b/a: is not applied"), "{}", run.stderr);
    assert!(
        run.stderr.contains("note: ") && run.stderr.contains("CheckpointSchedule/b/s: is skipped"),
        "{run:?}"
    );
    // The same directory by another name, and through a link.
    let link = place.root().join("link");
    std::os::unix::fs::symlink(place.directory(), &link).unwrap();
    for directory in [format!("{}/", place.directory().display()), link.display().to_string()] {
        place.policy(&object(&directory));
        let run = place.gc(&["--dry-run"]);
        assert!(run.stdout.contains("2 to delete"), "{directory}: {run:?}");
    }
}

#[test]
fn a_state_that_is_no_catalog_is_wrong_usage_and_left_as_it_is() {
    let place = Place::new();
    (1..=3).for_each(|second| _ = place.add(&server(second)));
    place.cluster_policy("retention: {perContainer: {maxCount: 1}}");
    let precious = place.root().join("precious.conf");
    fs::write(&precious, "precious\n").unwrap();
    let pipe = place.root().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for state in [precious.as_path(), pipe.as_path(), place.root(), "/dev/null".as_ref()] {
        let run = place.gc(&["--state", state.to_str().unwrap()]);
        assert_eq!((run.code, names(&place)), (Some(2), 3), "{run:?}");
        assert!(run.stderr.contains(&format!("--state: {} is not a", state.display())), "{}", run.stderr);
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious\n");
    assert!(!place.root().join("precious.conf.damaged").exists());
}

#[test]
fn nothing_that_is_said_acts_on_a_terminal() {
    let place = Place::new();
    let evil = "a\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\u{2066}\u{2028}";
    place.add(&server(1));
    place.add_bytes(&format!("checkpoint-{evil}.tar"), b"no archive");
    place.policy(&format!(
        "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetadata: {{name: {evil:?}}}\n\
         spec: {{{evil:?}: 1, retention: {{maxAge: {evil:?}}}}}\n---\nkind: {evil:?}\napiVersion: {evil:?}\n"
    ));
    let safe = |what: &str, text: &str| {
        let acts = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2066}\u{2028}".contains(c));
        assert!(!text.contains(acts), "{what}: {text:?}");
        assert!(!text.is_empty(), "{what}");
    };
    let run = place.gc(&[]);
    assert_eq!(run.code, Some(2));
    safe("wrong policies", &run.stderr);
    // The path of a file, too.
    let path = place.root().join(format!("{evil}.yaml"));
    fs::write(&path, cluster_policy("default", "retention: {perContainer: {maxCount: 1}}\nmode: DryRun"))
        .unwrap();
    for output in ["text", "json"] {
        let mut gc = program();
        gc.arg("gc").arg(place.directory()).arg("--policy").arg(&path).args([
            "--dry-run",
            "--output",
            output,
        ]);
        let run = Run::of(&mut gc);
        assert_eq!(run.code, Some(0), "{run:?}");
        safe(output, &run.stdout);
        safe("warnings", &run.stderr);
        let mut inspect = program();
        let run = Run::of(inspect.arg("inspect").arg(place.directory()).args(["--output", output]));
        safe("inspect", &run.stdout);
    }
}

/// A watch, and what it says.
struct Watching {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Watching {
    fn start(place: &Place, interval: &str) -> Self {
        let mut watch = place.watch();
        watch.args(["--interval", interval]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = watch.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut watching = Self { child, said };
        watching.says("watching;");
        watching
    }

    /// Waits for a line that holds this.
    fn says(&mut self, wanted: &str) {
        let mut all = String::new();
        loop {
            let before = all.len();
            self.said.read_line(&mut all).unwrap();
            assert!(all.len() > before, "ended without {wanted:?}: {all}");
            if all[before..].contains(wanted) {
                return;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Ends it, and gives the lines of its deletions.
    fn end(self) -> Vec<String> {
        self.signal("TERM");
        drop(self.said);
        let output = self.child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_watch_reads_its_policies_again_on_a_signal_and_deletes_nothing_while_they_are_wrong() {
    let place = Place::new();
    (1..=4).for_each(|second| _ = place.add(&server(second)));
    place.cluster_policy("retention: {perContainer: {maxCount: 4}}");
    // The interval is long: only the signal has it look.
    let mut watching = Watching::start(&place, "1h");
    place.cluster_policy("retention: {perContainer: {maxCount: 3}}");
    watching.signal("HUP");
    watching.says("read again");
    wait_until("the new policy holds", || names(&place), |left| *left == 3);
    // A typo: nothing goes, not even what the last good policy would take.
    place.cluster_policy("retention: {perContainer: {maxCuont: 1}}");
    watching.signal("HUP");
    watching.says("maxCuont");
    watching.says("nothing is deleted");
    server(5).write_to(&place.directory()).unwrap();
    of("team", "web-1", "server", 5).write_to(&place.directory()).unwrap();
    // It is said once, and once more when something else is wrong.
    watching.signal("HUP");
    fs::remove_file(place.root().join("policy.yaml")).unwrap();
    watching.signal("HUP");
    watching.says("cannot be read");
    place.cluster_policy("retention: {perContainer: {maxCount: 2}}");
    watching.signal("HUP");
    watching.says("read again");
    wait_until("it is right again", || names(&place), |left| *left == 3);
    // The limit that was the last good one took only what it took before the typo.
    let deleted = watching.end();
    let by = |limit: &str| deleted.iter().filter(|line| line.contains(limit)).count();
    assert_eq!((by("limit 3"), by("limit 2"), deleted.len()), (1, 2, 3), "{deleted:?}");
}

#[test]
fn a_watch_follows_its_policies_without_being_told() {
    let place = Place::new();
    (1..=4).for_each(|second| _ = place.add(&server(second)));
    place.cluster_policy("retention: {perContainer: {maxCount: 4}}");
    let mut watching = Watching::start(&place, "1s");
    // As editors do it: another file takes the name.
    let new = place.root().join("new");
    fs::write(&new, cluster_policy("default", "retention: {perContainer: {maxCount: 1}}")).unwrap();
    fs::rename(&new, place.root().join("policy.yaml")).unwrap();
    watching.says("read again");
    wait_until("the new policy holds", || names(&place), |left| *left == 1);
    assert_eq!(watching.end().len(), 3);
}

#[test]
fn a_watch_keeps_to_the_last_storage_policies_while_a_file_is_wrong() {
    let place = Place::new();
    let storage = "---\napiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointStoragePolicy\nmetadata: {name: disk}\n\
                   spec: {perNamespace: {maxCount: 3}}\n";
    let retention = |spec: &str| format!("{}{storage}", cluster_policy("default", spec));
    (1..=2).for_each(|second| _ = place.add(&server(second)));
    place.policy(&retention("retention: {perContainer: {maxCount: 2}}"));
    let mut watching = Watching::start(&place, "1h");
    place.policy(&retention("retention: {perContainer: {maxCuont: 2}}"));
    watching.signal("HUP");
    watching.says("maxCuont");
    watching.says("only storage policies delete");
    // Three is more than the retention policy would keep, and four more than the storage policy does.
    (3..=4).for_each(|second| _ = server(second).write_to(&place.directory()).unwrap());
    wait_until("the storage policy acts", || names(&place), |left| *left == 3);
    let deleted = watching.end();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    assert!(deleted[0].contains("NamespaceCeiling") && deleted[0].contains("disk"), "{deleted:?}");
}
