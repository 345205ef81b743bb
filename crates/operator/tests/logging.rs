//! What agent and controller log.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Place, Run, program};

/// A cluster that nobody answers for.
const NOBODY: &str = "http://127.0.0.1:1";

fn kubeconfig(place: &Place) -> PathBuf {
    let path = place.root().join("kubeconfig");
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{NOBODY}'}}}}]\n\
         users: [{{name: u, user: {{token: secret-token}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    );
    std::fs::write(&path, config).unwrap();
    path
}

fn agent(place: &Place) -> Command {
    let mut command = program();
    command.args(["agent", "--node-name", "node-1", "--namespace", "ops", "--listen", "127.0.0.1:0"]);
    command.arg("--kubeconfig").arg(kubeconfig(place)).arg("--directory").arg(place.directory());
    command.arg("--state").arg(place.root().join("catalog"));
    command
}

fn end(child: &mut Child) -> Option<i32> {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    child.wait().unwrap().code()
}

#[test]
fn an_agent_says_what_it_is_each_problem_once_and_why_it_ends() {
    let place = Place::new();
    let mut child = agent(&place).args(["--log-format", "json"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| {
        let line = line.unwrap();
        assert!(!line.contains("secret-token"), "{line}");
        serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let start = lines.next().unwrap();
    assert_eq!(start["level"], "INFO");
    assert_eq!((&start["role"], &start["node"]), (&"agent".into(), &"node-1".into()), "{start}");
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(start["interval"], "60s");
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut problems: Vec<String> = Vec::new();
    // All that it watches; each goes on failing meanwhile.
    while problems.len() < 9 {
        let line = lines.next().unwrap();
        assert!(Instant::now() < deadline, "{problems:?}");
        assert_eq!(line["level"], "WARN", "{line}");
        let message = line["message"].as_str().unwrap();
        assert_eq!(message.matches(&format!("no reply from {NOBODY}")).count(), 1, "{message}");
        assert_eq!(message.matches("Connection refused").count(), 1, "{message}");
        problems.push(format!("{} {}", line["problem"], line["subject"]));
    }
    let all = problems.len();
    problems.sort();
    problems.dedup();
    assert_eq!(problems.len(), all, "each once: {problems:?}");
    assert_eq!(end(&mut child), Some(0));
    let rest: Vec<Value> = lines.collect();
    assert_eq!(rest.last().unwrap()["message"], "received a signal; stopping", "{rest:?}");
}

#[test]
fn the_reason_of_an_exit_is_logged() {
    let place = Place::new();
    std::fs::remove_dir(place.directory()).unwrap();
    let run = Run::of(&mut agent(&place));
    assert_eq!(run.code, Some(1));
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(lines[0].contains(" INFO ") && lines[0].contains("checkpoint-keeper starts"), "{}", run.stderr);
    assert!(lines[1].contains("ERROR ") && lines[1].contains("exiting: "), "{}", run.stderr);
    assert_eq!(lines.len(), 2, "{}", run.stderr);

    let mut command = program();
    command.args(["controller", "--namespace", "ops", "--identity", "one", "--kubeconfig", "/nowhere"]);
    let run = Run::of(command.args(["--log-level", "error"]));
    assert_eq!((run.code, run.stderr.lines().count()), (Some(2), 1), "{}", run.stderr);
    assert!(
        run.stderr.contains("ERROR ") && run.stderr.contains("exiting: --kubeconfig /nowhere"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_level_that_is_none_is_wrong_usage() {
    let mut command = program();
    command.args(["controller", "--namespace", "ops", "--identity", "one", "--log-level", "inof"]);
    let run = Run::of(&mut command);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("--log-level") && run.stderr.contains("info,kube=debug"), "{}", run.stderr);
}
