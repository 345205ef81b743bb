//! That alerts, their runbooks and their tests go together, and that rules and dashboards ask for metrics that there are.
//! Whether alerts fire, promtool and a real Prometheus say (`cluster/alerts.rs`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[derive(Debug, Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    r#for: String,
    keep_firing_for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Cases {
    tests: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    alert_rule_test: Vec<Expectation>,
}

#[derive(Debug, Deserialize)]
struct Expectation {
    alertname: String,
    exp_alerts: Vec<Value>,
}

fn read(path: &str) -> String {
    let path = Path::new(REPOSITORY).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_saphyr::from_str(&read("charts/checkpoint-keeper/files/alerts.yaml")).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The names of a folder's files with this extension, without it.
fn names(folder: &str, extension: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(Path::new(REPOSITORY).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|its| its == extension));
    paths.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn each_alert_has_its_runbook_and_each_runbook_its_alert() {
    let folder = "docs/book/src/runbooks";
    let rules = rules();
    let alerts: BTreeSet<String> = rules.iter().map(|rule| rule.alert.clone()).collect();
    assert_eq!(alerts.len(), rules.len(), "two alerts of one name");
    let mut pages = names(folder, "md");
    assert!(pages.remove("index"));
    assert_eq!(alerts, pages);
    let index = read(&format!("{folder}/index.md"));
    for alert in &alerts {
        assert!(index.contains(&format!("[{alert}]({alert}.md)")), "the index lacks {alert}");
        let page = read(&format!("{folder}/{alert}.md"));
        let mut headings = page.lines().filter(|line| line.starts_with('#'));
        assert_eq!(headings.next(), Some(format!("# {alert}").as_str()));
        let expected = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];
        // What begins with one `#` is a comment among commands.
        let headings: Vec<&str> = headings.filter(|line| line.starts_with("##")).collect();
        assert_eq!(headings, expected, "{alert}");
    }
}

#[test]
fn each_alert_says_how_bad_it_is_what_it_is_about_and_where_its_runbook_is() {
    for Rule { alert, r#for, labels, annotations, .. } in rules() {
        assert!(["critical", "warning", "info"].contains(&labels["severity"].as_str()), "{alert}");
        assert!(!r#for.is_empty(), "{alert}");
        let runbook = annotations["runbook_url"].rsplit('/').next().unwrap();
        assert_eq!(runbook, format!("{alert}.html"));
        assert!(annotations["description"].len() > annotations["summary"].len() / 2, "{alert}");
        assert!(!annotations["summary"].ends_with('.'), "{alert}");
    }
}

/// It takes minutes until a new leader reports what the one before did.
#[test]
fn alerts_that_go_by_the_leaders_metrics_and_no_others_outlast_a_change_of_leader() {
    let signals = read("docs/signals.md");
    let rows = signals.lines().filter(|row| row.contains("only the leader reports it"));
    let leaders: BTreeSet<&str> = rows.flat_map(metrics).collect();
    assert!(leaders.len() > 5, "{leaders:?}");
    for Rule { alert, expr, keep_firing_for, .. } in rules() {
        let goes_by_leader = metrics(&expr).iter().any(|metric| leaders.contains(metric));
        assert_eq!(keep_firing_for.is_some(), goes_by_leader, "{alert}");
    }
}

/// A mistyped one would have two alerts, or none.
#[test]
fn types_of_problems_that_rules_name_are_types_that_there_are() {
    let explained = read("docs/book/src/troubleshooting.md");
    let mut named = BTreeSet::new();
    for Rule { alert, expr, .. } in rules() {
        for operator in ["type=~\"", "type!~\"", "type=\""] {
            let lists = expr.split(operator).skip(1).filter_map(|rest| rest.split('"').next());
            for name in lists.flat_map(|list| list.split('|')) {
                assert!(explained.contains(&format!("| `{name}` |")), "{alert}: there is no problem {name}");
                named.insert(name.to_owned());
            }
        }
    }
    assert!(named.len() > 8, "{named:?}");
}

#[test]
fn of_each_alert_promtool_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let cases: Cases = serde_saphyr::from_str(&read("tests/monitoring/alerts_test.yaml")).unwrap();
    let tested = |fires: bool| -> BTreeSet<String> {
        let expectations = cases.tests.iter().flat_map(|case| &case.alert_rule_test);
        let expectations = expectations.filter(|one| one.exp_alerts.is_empty() != fires);
        expectations.map(|one| one.alertname.clone()).collect()
    };
    let alerts: BTreeSet<String> = rules().into_iter().map(|rule| rule.alert).collect();
    assert_eq!(tested(true), alerts);
    assert_eq!(tested(false), alerts);
}

/// The metrics of ours that a text names.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_part = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
    let words = text.split(|sign| !is_part(sign));
    words.filter(|word| word.starts_with("checkpoint_keeper_")).collect()
}

#[test]
fn rules_and_dashboards_ask_for_metrics_that_there_are() {
    let signals = read("docs/signals.md");
    let there_are = metrics(&signals);
    assert!(there_are.len() > 40, "{there_are:?}");
    let is_there = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        there_are.contains(name)
            || parts.iter().any(|part| name.strip_suffix(part).is_some_and(|name| there_are.contains(name)))
    };
    for rule in rules() {
        let asked = metrics(&rule.expr);
        assert!(!asked.is_empty(), "{} asks for nothing of ours", rule.alert);
        for name in asked {
            assert!(is_there(name), "{} asks for {name}", rule.alert);
        }
    }
    let folder = "charts/checkpoint-keeper/files/dashboards";
    for name in names(folder, "json") {
        let dashboard = read(&format!("{folder}/{name}.json"));
        for metric in metrics(&dashboard) {
            assert!(is_there(metric), "the dashboard {name} asks for {metric}");
        }
    }
}

/// What Grafana's own linter of dashboards would say, as far as a program can see it without that: its rules on data
/// sources, units, titles, jobs, counters and the dashboard as a whole.
#[test]
fn dashboards_keep_the_rules_that_grafanas_linter_has() {
    let folder = "charts/checkpoint-keeper/files/dashboards";
    let mut uids = BTreeSet::new();
    for name in names(folder, "json") {
        let dashboard: Value = serde_json::from_str(&read(&format!("{folder}/{name}.json"))).unwrap();
        assert_eq!(dashboard["editable"], false, "{name}");
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{name}: its uid is taken");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let [source, job, ..] = &variables[..] else { panic!("{name} has not both variables") };
        assert_eq!(
            (&source["name"], &source["type"]),
            (&"datasource".into(), &"datasource".into()),
            "{name}"
        );
        assert_eq!(
            (&job["name"], &job["multi"], &job["allValue"]),
            (&"job".into(), &true.into(), &".+".into())
        );
        for variable in &variables[1..] {
            // By the time that is shown, which may be long ago.
            assert_eq!(variable["refresh"], 2, "{name}: {}", variable["name"]);
        }
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: two panels have one id");
            if panel["type"] != "row" {
                lint(&name, panel);
            }
        }
        assert!(ids.len() > 10, "{name}");
    }
    assert_eq!(uids.len(), 3);
}

fn lint(dashboard: &str, panel: &Value) {
    let title = panel["title"].as_str().unwrap();
    let at = format!("{dashboard}: {title}");
    let source = serde_json::json!({"type": "prometheus", "uid": "${datasource}"});
    assert!(!title.is_empty() && !panel["description"].as_str().unwrap().is_empty(), "{at}");
    assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{at}: no unit");
    assert_eq!(panel["datasource"], source, "{at}");
    let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array();
    let colors: Vec<&Value> = steps.into_iter().flatten().map(|step| &step["color"]).collect();
    assert!(colors.windows(2).all(|pair| pair[0] != pair[1]), "{at}: a threshold changes nothing");
    let targets = panel["targets"].as_array().unwrap();
    assert!(!targets.is_empty(), "{at}");
    for target in targets {
        assert_eq!(target["datasource"], source, "{at}");
        let query = target["expr"].as_str().unwrap();
        // Alerts of sums have no job.
        let selectors = query.matches('{').count();
        let by_job = query.matches("{job=~\"$job\"").count();
        assert!(query.starts_with("ALERTS{") || (selectors == by_job && selectors > 0), "{at}: {query}");
        let is_counter = |name: &&&str| name.ends_with("_total") || name.ends_with("_bucket");
        for counter in metrics(query).iter().filter(is_counter) {
            let whole = query.matches(&format!("{counter}{{")).count();
            assert_eq!(whole, query.matches(&format!("rate({counter}{{")).count(), "{at}: {query}");
        }
        assert_eq!(
            query.matches("rate(").count(),
            query.matches("[$__rate_interval]").count(),
            "{at}: {query}"
        );
    }
}
