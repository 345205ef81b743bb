//! The committed definitions, their shape, and every CEL rule evaluated as the API server does.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use checkpoint_keeper_api::crds::{BUNDLE_VERSION, crd_files, crds, crds_yaml, legacy_crds};
use checkpoint_keeper_api::{
    CATEGORY, GROUP, LEGACY_GROUP, LEGACY_VERSION, VERSION, manifest, node_store, quota, rules,
};
use checkpoint_keeper_core::policy::Kind;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel::Validator;
use serde_json::{Value, json};

fn all() -> Vec<CustomResourceDefinition> {
    [crds(), legacy_crds()].concat()
}

fn schema(kind: &str) -> Value {
    let crd = all().into_iter().find(|crd| crd.spec.names.kind == kind).expect("a kind of ours");
    serde_json::to_value(&crd.spec.versions[0].schema).unwrap()["openAPIV3Schema"].clone()
}

/// Whoever fills a report goes by the constants, and the API server by the schema.
#[test]
fn the_bounds_of_a_report_are_those_of_its_definition() {
    let schema = schema("NodeCheckpointStore");
    for (list, most) in [
        ("namespaces", node_store::MOST_NAMESPACES),
        ("quotas", node_store::MOST_QUOTAS),
        ("policies", node_store::MOST_POLICIES),
        ("schedules", node_store::MOST_SCHEDULES),
        ("deletions", node_store::MOST_DELETIONS),
        ("discards", node_store::MOST_DISCARDS),
        ("unreachableLimits", node_store::MOST_UNREACHABLE),
        ("problems", node_store::MOST_PROBLEMS),
    ] {
        let list_schema = &schema["properties"]["status"]["properties"][list];
        assert_eq!(list_schema["maxItems"], most, "{list}");
    }
    let nodes = &self::schema(QUOTA)["properties"]["status"]["properties"]["nodes"];
    assert_eq!(nodes["maxItems"], quota::MOST_NODES);
}

/// What the controller may not change in a report, the rules of admission say field by field.
#[test]
fn the_rules_of_admission_name_every_field_of_a_report() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/deploy/4-admission.yaml");
    let rules = std::fs::read_to_string(path).unwrap();
    let crd = crds().into_iter().find(|crd| crd.spec.names.kind == "NodeCheckpointStore").unwrap();
    let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let status = schema.properties.unwrap().remove("status").unwrap().properties.unwrap();
    for field in status.keys().filter(|field| *field != "conditions") {
        let rule = format!("object.status.?{field} == oldObject.status.?{field}");
        assert!(rules.contains(&rule), "{rule}");
    }
}

#[test]
fn committed_definitions_are_those_of_the_code() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let hint = "run `cargo xtask generate`";
    let mut names = BTreeSet::new();
    for (name, content) in crd_files() {
        let path = config.join(&name);
        let committed =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}; {hint}"));
        assert!(committed == content, "config/{name} differs from the types in crates/api; {hint}");
        names.insert(name);
    }
    let present = ["crd", "crd-legacy"].map(|folder| {
        let entries = std::fs::read_dir(config.join(folder)).unwrap();
        // What kustomize reads has no ending.
        entries
            .map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()))
            .filter(|name| !name.ends_with("/Kustomization"))
            .collect::<BTreeSet<_>>()
    });
    assert_eq!(&present[0] | &present[1], names, "a definition without a type; {hint}");
}

#[test]
fn names_and_scopes_are_the_documented_ones() {
    let told: Vec<_> = crds()
        .iter()
        .map(|crd| {
            let (names, version) = (&crd.spec.names, &crd.spec.versions[0].name);
            let short = names.short_names.clone().unwrap_or_default().join(",");
            // There may be very many archives: they are not listed with the rest.
            let is_listed = names.kind != "ContainerCheckpoint";
            let category = is_listed.then(|| vec![CATEGORY.to_owned()]);
            assert_eq!(names.categories, category, "{}", names.kind);
            assert_eq!((crd.spec.group.as_str(), version.as_str()), (GROUP, VERSION));
            format!("{} {}/{version} {} {short}", names.plural, crd.spec.group, crd.spec.scope)
        })
        .collect();
    assert_eq!(
        told,
        [
            "clustercheckpointpolicies checkpoint-keeper.io/v1alpha1 Cluster cckpol",
            "checkpointpolicies checkpoint-keeper.io/v1alpha1 Namespaced ckpol",
            "checkpointstoragepolicies checkpoint-keeper.io/v1alpha1 Cluster ckstorage",
            "checkpointschedules checkpoint-keeper.io/v1alpha1 Namespaced cksched",
            "checkpointquotas checkpoint-keeper.io/v1alpha1 Namespaced ckquota",
            "containercheckpoints checkpoint-keeper.io/v1alpha1 Namespaced cckpt",
            "nodecheckpointstores checkpoint-keeper.io/v1alpha1 Cluster nckstore",
        ]
    );
    assert_eq!(crds_yaml().matches("\n---\n").count(), 7);
    for crd in all() {
        let names = &crd.spec.names;
        assert_eq!(names.list_kind, Some(format!("{}List", names.kind)));
        assert!(crd.metadata.annotations.unwrap()[BUNDLE_VERSION].starts_with('v'));
    }
}

#[test]
fn the_names_that_core_has_for_kinds_are_those_of_their_definitions() {
    for kind in Kind::ALL {
        let crd = all().into_iter().find(|crd| crd.spec.names.kind == kind.name()).unwrap();
        assert_eq!(kind.api_version(), format!("{}/{}", crd.spec.group, crd.spec.versions[0].name));
        if crd.spec.group == GROUP {
            assert_eq!(crd.spec.names.short_names.unwrap(), [kind.short_name()]);
        }
    }
}

/// Fields of ours in it would be taken away by whoever applies that project's definition again.
#[test]
fn the_older_operators_definition_has_its_fields_and_no_others() {
    for crd in legacy_crds() {
        let version = crd.spec.versions[0].name.as_str();
        assert_eq!((crd.spec.group.as_str(), version), (LEGACY_GROUP, LEGACY_VERSION));
        assert_eq!((&crd.spec.names.short_names, &crd.spec.names.categories), (&None, &None));
    }
    let schedules = legacy_crds().into_iter().find(|crd| crd.spec.names.kind == SCHEDULE).unwrap();
    let schedules = serde_json::to_value(&schedules.spec.versions[0].schema).unwrap();
    let of_schedules = |path: &str| {
        let fields =
            schedules.pointer(&format!("/openAPIV3Schema/properties/spec{path}/properties")).unwrap();
        fields.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    let sorted = |path: &str| {
        let all = of_schedules(path);
        let mut names: Vec<_> = all.split(' ').map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(sorted(""), "containerNames namespace selector triggers");
    assert_eq!(sorted("/properties/triggers"), "interval onAnnotation onKubernetesEvents resourceThreshold");
    let threshold = "/properties/triggers/properties/resourceThreshold";
    assert_eq!(sorted(threshold), "cpuPercent memoryPercent pollIntervalSeconds");
    assert_eq!(sorted(&format!("{threshold}/properties/cpuPercent")), "lower upper");
    let required = schedules.pointer("/openAPIV3Schema/properties/spec/required").unwrap();
    assert_eq!(required, &json!(["namespace", "selector", "triggers"]));
    let schema = schema(LEGACY);
    assert_eq!(schema["properties"]["status"]["x-kubernetes-preserve-unknown-fields"], true);
    let fields = |path: &str| {
        let fields = schema.pointer(path).unwrap().as_object().unwrap();
        fields.keys().cloned().collect::<BTreeSet<_>>()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let spec = "/properties/spec/properties";
    assert_eq!(
        fields(spec),
        set(&[
            "applyPoliciesImmediately",
            "checkpointDirectory",
            "containerPolicies",
            "globalPolicy",
            "namespacePolicies",
            "podPolicies",
        ])
    );
    assert_eq!(
        fields(&format!("{spec}/globalPolicy/properties")),
        set(&[
            "maxCheckpointSize",
            "maxCheckpointsPerContainer",
            "maxCheckpointsPerNamespace",
            "maxCheckpointsPerPod",
            "maxTotalSizePerContainer",
            "maxTotalSizePerNamespace",
            "maxTotalSizePerPod",
            "retainOrphan",
        ])
    );
    let limits = ["maxCheckpointSize", "maxCheckpoints", "maxTotalSize", "retainOrphan"];
    for (list, names) in [
        ("containerPolicies", &["namespace", "pod", "container"][..]),
        ("podPolicies", &["namespace", "pod"]),
        ("namespacePolicies", &["namespace"]),
    ] {
        let path = format!("{spec}/{list}/items/properties");
        assert_eq!(fields(&path), set(&[names, &limits].concat()), "{list}");
    }
}

/// What has keys is repeated in managedFields row by row. Only conditions have several writers.
#[test]
fn of_the_lists_in_reports_only_conditions_are_by_key() {
    fn check(schema: &Value, path: &str, found: &mut usize) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["type"] == "array" {
                let is_by_key = field["x-kubernetes-list-type"] == "map";
                assert_eq!(is_by_key, name == "conditions", "{path}");
                *found += 1;
            }
            check(field, &path, found);
            check(&field["items"], &path, found);
        }
    }
    for (kind, lists) in [(QUOTA, 2), ("NodeCheckpointStore", 10)] {
        let mut found = 0;
        check(&schema(kind)["properties"]["status"], kind, &mut found);
        assert!(found >= lists, "{kind}: {found} lists");
    }
}

/// What Kubernetes asks of a structural schema, and this project of its own.
fn check_structural(schema: &Value, path: &str) {
    for forbidden in ["anyOf", "oneOf", "allOf", "not", "$ref", "nullable", "definitions"] {
        assert!(schema.get(forbidden).is_none(), "{path}: {forbidden}");
    }
    assert!(
        schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true,
        "{path}: neither a type nor int-or-string: {schema}"
    );
    let is_open = path == "CheckpointRestoreOperator.status";
    assert_eq!(schema["x-kubernetes-preserve-unknown-fields"] == true, is_open, "{path}");
    let own = path.contains(".spec.") && !path.ends_with(']') && !path.ends_with('}');
    assert!(
        !own || schema["description"].as_str().is_some_and(|text| text.len() > 3),
        "{path}: no description"
    );
    // `kubectl explain` sorts fields: each sentence must say which one it is about.
    let (_, field) = path.rsplit_once('.').unwrap_or_default();
    assert!(
        !own || schema["description"].as_str().is_some_and(|text| text.starts_with(&format!("{field} "))),
        "{path}: the description does not begin with the field's name: {}",
        schema["description"]
    );
    if path.contains(".spec.") {
        match schema["type"].as_str() {
            Some("string") => {
                let is_bounded = schema["maxLength"].is_number() || schema["format"] == "date-time";
                assert!(is_bounded || schema["enum"].is_array(), "{path}: no maxLength");
            }
            Some("array") => {
                assert!(schema["maxItems"].is_number(), "{path}: no maxItems");
                assert!(schema["x-kubernetes-list-type"].is_string(), "{path}: no list type");
            }
            Some("integer") => {
                assert!(schema["minimum"].is_number(), "{path}: no minimum");
                let older = path.starts_with(LEGACY);
                assert!(older || schema["maximum"].is_number(), "{path}: no maximum");
                assert!(["int32", "int64"].contains(&schema["format"].as_str().unwrap()), "{path}: format");
            }
            _ => {}
        }
        if schema["additionalProperties"].is_object() {
            assert!(schema["maxProperties"].is_number(), "{path}: no maxProperties");
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        check_structural(field, &format!("{path}.{name}"));
    }
    if schema["items"].is_object() {
        check_structural(&schema["items"], &format!("{path}[]"));
    }
    if schema["additionalProperties"].is_object() {
        check_structural(&schema["additionalProperties"], &format!("{path}{{}}"));
    }
}

#[test]
fn schemas_are_structural_bounded_and_explained() {
    for crd in all() {
        let kind = &crd.spec.names.kind;
        check_structural(&schema(kind), kind);
    }
}

/// `kubectl explain` sorts fields by their names: a description that begins with its field's stands alone.
#[test]
fn every_description_begins_with_the_name_of_its_field() {
    fn check(schema: &Value, path: &str) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let description = field["description"].as_str().unwrap_or_default();
            let is_of_every_kind =
                path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str());
            assert!(
                is_of_every_kind || description.starts_with(name.as_str()),
                "{path}.{name}: {description:?}"
            );
            check(field, &format!("{path}.{name}"));
        }
        for part in ["items", "additionalProperties"] {
            if schema[part].is_object() {
                check(&schema[part], path);
            }
        }
    }
    for crd in all() {
        check(&schema(&crd.spec.names.kind), "");
    }
}

/// "Default 5" is what `kubectl get -o yaml` then shows. What counts only where no policy says otherwise is no default.
#[test]
fn a_description_announces_a_default_exactly_where_the_api_server_writes_it() {
    fn check(schema: &Value, path: &str, found: &mut usize) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let description = field["description"].as_str().unwrap_or_default();
            let sentence = description.split(". ").find_map(|sentence| sentence.strip_prefix("Default "));
            let announced = sentence.and_then(|default| default.split([';', ':', ' ']).next());
            let announced = announced.map(|default| default.trim_end_matches('.').to_owned());
            let written = match &field["default"] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            // "Default Default" says nothing.
            if path != "ClusterCheckpointPolicy.precedence" {
                assert_eq!(announced, written, "{path}: {description}");
            }
            *found += usize::from(announced.is_some());
            check(field, &path, found);
            check(&field["items"], &path, found);
        }
    }
    let mut found = 0;
    for crd in crds() {
        let kind = &crd.spec.names.kind;
        check(&schema(kind)["properties"]["spec"], kind, &mut found);
    }
    assert!(found > 20, "{found}");
}

/// The API server writes defaults into every object that it reads, and an agent takes a field that it does not know for a
/// policy that it does not understand: with one more default, all agents of earlier releases would stop deleting. What a
/// new field means where it is absent is for the code, and its description says `Absent: …`.
#[test]
fn no_field_of_a_spec_gets_a_default_that_earlier_agents_do_not_know() {
    fn defaults(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if !field["default"].is_null() {
                found.push(path.clone());
            }
            defaults(field, &path, found);
            defaults(&field["items"], &path, found);
        }
    }
    let mut found = Vec::new();
    for crd in crds() {
        let kind = &crd.spec.names.kind;
        defaults(&schema(kind)["properties"]["spec"], kind, &mut found);
    }
    let known = [
        "ClusterCheckpointPolicy.damaged.gracePeriod",
        "ClusterCheckpointPolicy.incomplete.gracePeriod",
        "ClusterCheckpointPolicy.mode",
        "ClusterCheckpointPolicy.orphans.gracePeriod",
        "ClusterCheckpointPolicy.orphans.when",
        "ClusterCheckpointPolicy.precedence",
        "ClusterCheckpointPolicy.retention.keepLatest",
        "ClusterCheckpointPolicy.retention.keepLatestFor",
        "CheckpointPolicy.damaged.gracePeriod",
        "CheckpointPolicy.incomplete.gracePeriod",
        "CheckpointPolicy.mode",
        "CheckpointPolicy.orphans.gracePeriod",
        "CheckpointPolicy.orphans.when",
        "CheckpointPolicy.retention.keepLatest",
        "CheckpointPolicy.retention.keepLatestFor",
        "CheckpointStoragePolicy.mode",
        "CheckpointSchedule.jitter",
        "CheckpointSchedule.maxConcurrentPerNode",
        "CheckpointSchedule.mode",
        "CheckpointSchedule.retries.backoff",
        "CheckpointSchedule.retries.limit",
        "CheckpointSchedule.suspend",
        "CheckpointSchedule.timeout",
        "CheckpointSchedule.triggers.onAnnotation",
        "CheckpointSchedule.triggers.resources.cooldown",
        "CheckpointSchedule.triggers.resources.poll",
        "CheckpointQuota.onExceed",
        "CheckpointQuota.warnAt",
    ];
    assert_eq!(found, known);
}

#[test]
fn conditions_have_the_bounds_that_kubernetes_has_for_them() {
    for crd in crds() {
        let status = &schema(&crd.spec.names.kind)["properties"]["status"];
        let fields = &status["properties"]["conditions"]["items"]["properties"];
        assert_eq!(fields["message"]["maxLength"], 32_768, "{}", crd.spec.names.kind);
        assert_eq!(fields["status"]["enum"], json!(["True", "False", "Unknown"]));
        assert!(fields["reason"]["pattern"].is_string() && fields["type"]["maxLength"] == 316);
    }
}

#[test]
fn yaml_of_the_definitions_reads_back_as_they_are() {
    for (crd, (name, content)) in all().iter().zip(crd_files()) {
        let mut read: Value = serde_saphyr::from_str(&content).unwrap();
        let mut original = serde_json::to_value(crd).unwrap();
        for value in [&mut read, &mut original] {
            whole_numbers(value);
        }
        assert_eq!(read, original, "{name}");
    }
}

fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => *value = json!(number.as_f64()),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn object(kind: &str, spec: &Value) -> Value {
    let group = if kind == LEGACY { "criu.org/v1" } else { "checkpoint-keeper.io/v1alpha1" };
    let mut metadata = json!({"name": "x"});
    if kind == "CheckpointPolicy" {
        metadata["namespace"] = json!("n");
    }
    json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec})
}

/// What the API server's rules say.
fn by_cel(kind: &str, spec: &Value) -> Vec<String> {
    // This evaluator lacks type(); on ints and texts the other spelling says the same.
    let schema = schema(kind)
        .to_string()
        .replace("type(self) == int", "string(self) != self")
        .replace("type(self) in [int]", "string(self) != self");
    match Validator::new().validate(&schema.parse().unwrap(), &object(kind, spec), None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

/// What a file's reader says. Beside a schedule or a quota, which it leaves to the cluster, it wants a policy.
fn by_file(kind: &str, spec: &Value) -> Vec<String> {
    let beside = object(CLUSTER, &json!({"retention": {"maxAge": "1d"}})).to_string();
    let mut files = vec![("x.yaml", object(kind, spec).to_string())];
    files.extend([SCHEDULE, QUOTA].contains(&kind).then_some(("policy.yaml", beside)));
    match manifest::load(&files) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

const CLUSTER: &str = "ClusterCheckpointPolicy";
const STORAGE: &str = "CheckpointStoragePolicy";
const LEGACY: &str = "CheckpointRestoreOperator";
const SCHEDULE: &str = "CheckpointSchedule";
const QUOTA: &str = "CheckpointQuota";

/// Kind, spec, and the rule whose message the API server must give; a file must be refused as well.
fn refused() -> Vec<(&'static str, Value, rules::Rule)> {
    let retention = |retention: Value| json!({"retention": retention});
    let expression =
        |expression: Value| json!({"selector": {"podSelector": {"matchExpressions": [expression]}}});
    let entry = |field: &str, value: Value| {
        let mut entry = json!({"namespace": "n", "pod": "p"});
        entry[field] = value;
        json!({"podPolicies": [entry]})
    };
    let held = |limit: Value| json!({"perNamespace": {"maxHeld": limit}});
    let mut cases = vec![
        (CLUSTER, retention(json!({"tiers": {"daily": 1}, "maxAge": "1d"})), rules::TIERS_AND_MAX_AGE),
        (
            CLUSTER,
            retention(json!({"tiers": {"daily": 1}, "perContainer": {"maxCount": 3}})),
            rules::TIERS_AND_MAX_COUNT,
        ),
        (CLUSTER, retention(json!({"tiers": {}})), rules::TIERS_KEEP),
        (CLUSTER, retention(json!({"tiers": {"daily": 0, "yearly": 0}})), rules::TIERS_KEEP),
        (CLUSTER, retention(json!({"keepLatestFor": "ever"})), rules::DURATION_OR_FOREVER),
        (CLUSTER, retention(json!({"keepLatestFor": "forever"})), rules::DURATION_OR_FOREVER),
        (CLUSTER, expression(json!({"key": "a", "operator": "In"})), rules::SELECTOR_VALUES),
        (CLUSTER, expression(json!({"key": "a", "operator": "NotIn", "values": []})), rules::SELECTOR_VALUES),
        (
            CLUSTER,
            expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            rules::SELECTOR_VALUES,
        ),
        (
            CLUSTER,
            expression(json!({"key": "a", "operator": "DoesNotExist", "values": ["b"]})),
            rules::SELECTOR_VALUES,
        ),
        (CLUSTER, expression(json!({"key": "a b", "operator": "Exists"})), rules::LABEL_KEY),
        (CLUSTER, expression(json!({"key": "", "operator": "Exists"})), rules::LABEL_KEY),
        (CLUSTER, expression(json!({"key": "-/a", "operator": "Exists"})), rules::LABEL_KEY),
        (CLUSTER, expression(json!({"key": "a", "operator": "In", "values": ["b c"]})), rules::LABEL_VALUE),
        (CLUSTER, json!({"selector": {"podSelector": {"matchLabels": {"a": "-b"}}}}), rules::LABEL_VALUE),
        (STORAGE, json!({"highWatermark": "80%", "lowWatermark": "80%"}), rules::LOW_BELOW_HIGH),
        (STORAGE, json!({"highWatermark": "100%", "lowWatermark": "100%"}), rules::LOW_BELOW_HIGH),
        (
            STORAGE,
            json!({"highWatermark": "90%", "criticalWatermark": "89.99%"}),
            rules::CRITICAL_NOT_BELOW_HIGH,
        ),
        (STORAGE, json!({"lowWatermark": "80%"}), rules::LOW_NEEDS_HIGH),
        (CLUSTER, json!({"selector": {"podSelector": {"matchLabels": {"a b": "c"}}}}), rules::LABEL_KEYS),
        (
            CLUSTER,
            json!({"selector": {"podSelector": {"matchLabels": {"ok": "", "-/a": "c"}}}}),
            rules::LABEL_KEYS,
        ),
        (STORAGE, json!({"deletionLimit": {"period": "0s"}}), rules::PERIOD_NOT_ZERO),
        (STORAGE, json!({"deletionLimit": {"period": "1"}}), rules::DURATION),
        (STORAGE, json!({"deletionLimit": {"burst": 0, "percent": 0}}), rules::DELETION_LIMIT_NOT_ZERO),
    ];
    let scheduled = |triggers: Value| json!({"selector": {}, "triggers": triggers});
    cases.extend([
        (SCHEDULE, scheduled(json!({})), rules::TRIGGER_THERE),
        (SCHEDULE, scheduled(json!({"onAnnotation": false, "onDisruption": []})), rules::TRIGGER_THERE),
        (SCHEDULE, scheduled(json!({"interval": "1h", "timeZone": "UTC"})), rules::TIME_ZONE_NEEDS_SCHEDULE),
        (SCHEDULE, scheduled(json!({"schedule": "0 * * * *", "timeZone": "Mars Base"})), rules::TIME_ZONE),
        (SCHEDULE, scheduled(json!({"resources": {}})), rules::THRESHOLD_THERE),
        (SCHEDULE, scheduled(json!({"resources": {"cpuPercent": {}}})), rules::ABOVE_OR_BELOW),
    ]);
    for interval in
        ["0s", "0", "500ms", "0.0h", "999us", "0.5s", "0.999999999s", "500ms499ms", "0.00001d", "0d5s"]
    {
        cases.push((SCHEDULE, scheduled(json!({"interval": interval})), rules::INTERVAL_AT_LEAST_A_SECOND));
    }
    let retained =
        |retention: Value| json!({"selector": {}, "triggers": {"interval": "1h"}, "retention": retention});
    cases.push((SCHEDULE, retained(json!({})), rules::SCHEDULE_RETENTION_THERE));
    cases.push((SCHEDULE, retained(json!({"maxAge": "0s"})), rules::PERIOD_NOT_ZERO));
    for timeout in ["0s", "999ms", "0.5s"] {
        let spec = json!({"selector": {}, "triggers": {"interval": "1h"}, "timeout": timeout});
        cases.push((SCHEDULE, spec, rules::TIMEOUT_AT_LEAST_A_SECOND));
    }
    for timeout in [
        "61m",
        "61.5m",
        "120m",
        "3601s",
        "36000s",
        "1.5h",
        "1.05h",
        "1h1s",
        "1.0h2m",
        "2h",
        "10h",
        "1d",
        "1w",
        "60m1s",
        "59m120s",
        "30m31m",
        "59m60.001s",
        "1h1ns",
        "999999h999999h999999h",
        "0d5m",
    ] {
        let spec = json!({"selector": {}, "triggers": {"interval": "1h"}, "timeout": timeout});
        cases.push((SCHEDULE, spec, rules::TIMEOUT_AT_MOST_AN_HOUR));
    }
    for poll in ["0s", "4s", "4.999s", "04s", "4999ms", "0m", "1.5s", "15us", "2s2.9s", "0.08m", "0.00001d"] {
        let spec = scheduled(json!({"resources": {"cpuPercent": {"above": 1}, "poll": poll}}));
        cases.push((SCHEDULE, spec, rules::POLL_AT_LEAST_FIVE_SECONDS));
    }
    for cron in ["", "* * * *", "* * * * * *", "@daily", "0 0 * * * UTC"] {
        cases.push((SCHEDULE, scheduled(json!({"schedule": cron})), rules::CRON_FIELDS));
    }
    let hard = |hard: Value| json!({"hard": hard});
    cases.push((QUOTA, hard(json!({})), rules::QUOTA_THERE));
    for bytes in [json!(1), json!("1023"), json!("0.5Ki"), json!(-1)] {
        cases.push((QUOTA, hard(json!({"bytes": bytes})), rules::QUOTA_SIZE_MINIMUM));
    }
    for bytes in ["", "10GB", "10%"] {
        cases.push((QUOTA, hard(json!({"bytes": bytes})), rules::SIZE));
    }
    for share in ["80", "101%"] {
        cases.push((QUOTA, json!({"hard": {"count": 1}, "warnAt": share}), rules::SHARE));
    }
    for duration in ["", "1", "30 days", "-1h", "1y", "d", "1h ", ".h", "1.2.3h"] {
        cases.push((CLUSTER, retention(json!({"maxAge": duration})), rules::DURATION));
    }
    let long = [
        "10000w",
        "100000d",
        "1000000h",
        "100000000m",
        "1000000000s",
        "1d10000w",
        "010000w",
        "+10000.5w",
        "1000000000000ms",
        "1000000000000µs",
    ];
    for duration in long {
        let rule = rules::DURATION_NOT_TOO_LONG;
        cases.push((CLUSTER, retention(json!({"maxAge": duration})), rule));
        cases.push((CLUSTER, retention(json!({"keepLatestFor": duration})), rule));
        cases.push((STORAGE, json!({"deletionLimit": {"period": duration}}), rule));
    }
    for share in ["", "%", "88", "101%", "100.01%", "-1%", "1.234%", "a%", "1.%"] {
        cases.push((STORAGE, json!({"highWatermark": share}), rules::SHARE));
    }
    for share in ["8%", "49.99%", "0.88%", "0.01%", "09%", "5.0%"] {
        cases.push((STORAGE, json!({"highWatermark": share}), rules::WATERMARK_AT_LEAST_HALF));
        cases.push((STORAGE, json!({"criticalWatermark": share}), rules::WATERMARK_AT_LEAST_HALF));
    }
    for size in ["", "Gi", "10GB", "1 Gi", "ten", "10%"] {
        cases.push((CLUSTER, retention(json!({"maxArchiveSize": size})), rules::SIZE));
    }
    for size in ["", "Gi", "10GB", "101%", "1.234%", "%"] {
        cases.push((CLUSTER, retention(json!({"perPod": {"maxTotalSize": size}})), rules::SIZE_OR_SHARE));
    }
    for size in [
        json!(1),
        json!(1023),
        json!("1"),
        json!("1023"),
        json!("0.5Ki"),
        json!("1m"),
        json!(-1),
        json!("-5Gi"),
    ] {
        cases.push((CLUSTER, retention(json!({"maxArchiveSize": size})), rules::SIZE_MINIMUM));
        cases.push((STORAGE, json!({"maxTotalSize": size}), rules::SIZE_MINIMUM));
        cases.push((LEGACY, json!({"globalPolicy": {"maxCheckpointSize": size}}), rules::SIZE_MINIMUM));
    }
    for size in [json!(1), json!("1023"), json!("0.5Ki"), json!(-1)] {
        cases.push((STORAGE, json!({"minFree": {"bytes": size}}), rules::FREE_SIZE_MINIMUM));
        cases.push((STORAGE, held(json!({"maxTotalSize": size})), rules::HELD_SIZE_MINIMUM));
    }
    for size in ["", "Gi", "10GB", "101%", "%"] {
        cases.push((STORAGE, held(json!({"maxTotalSize": size})), rules::SIZE_OR_SHARE));
    }
    for size in [
        json!(10),
        json!("10"),
        json!("999"),
        json!("1023"),
        json!("1e2"),
        json!(-1),
        json!("0.5Ki"),
        json!(".9Ki"),
        json!("0.5k"),
    ] {
        cases.push((LEGACY, entry("maxTotalSize", size), rules::SIZE_MINIMUM_IN_LIST));
    }
    for name in ["", "db-*", "Db", "-a", "a_b", "a/b"] {
        cases.push((CLUSTER, json!({"selector": {"pods": [name]}}), rules::NAME));
        cases.push((CLUSTER, json!({"selector": {"containers": ["ok", name]}}), rules::NAME));
        cases.push((LEGACY, entry("pod", json!(name)), rules::NAME));
    }
    cases
}

#[test]
fn what_a_rule_refuses_a_file_may_not_hold_either() {
    for (kind, spec, rule) in refused() {
        let cel = by_cel(kind, &spec);
        let fits = |error: &String| error.contains(rule.message);
        assert!(cel.iter().any(fits), "{kind} {spec}: {cel:?} lacks {}", rule.message);
        let is_error = |error: &String| error.contains("rule evaluation error");
        assert!(!cel.iter().any(is_error), "{kind} {spec}: {cel:?}");
        assert!(!by_file(kind, &spec).is_empty(), "{kind} {spec} is accepted from a file");
    }
}

/// The API server compares lengths of time by CEL, and whoever reads an object by its own arithmetic.
#[test]
fn what_the_api_server_takes_for_a_bounded_length_of_time_is_taken_when_it_is_read() {
    let schema = schema(SCHEDULE);
    let rules = |text: &Value, field: &str| {
        let schema = schema.pointer(field).unwrap().to_string().parse().unwrap();
        Validator::new().validate(&schema, text, None).is_ok()
    };
    let spec = "/properties/spec/properties";
    let timeout = format!("{spec}/timeout");
    let interval = format!("{spec}/triggers/properties/interval");
    let poll = format!("{spec}/triggers/properties/resources/properties/poll");
    let numbers = ["0", "0.5", "1", "2.6", "30", "61", "1000", "3599", "0.0001", ".00009", "99999"];
    let units = ["ns", "ms", "s", "m", "h", "d", "w"];
    let parts: Vec<String> =
        numbers.iter().flat_map(|number| units.map(|unit| format!("{number}{unit}"))).collect();
    let (mut taken, mut refused) = (0, 0);
    for (place, first) in parts.iter().enumerate() {
        // Each alone and with others behind it.
        for second in [
            "",
            parts[(place * 5 + 3) % parts.len()].as_str(),
            parts[(place * 13 + 5) % parts.len()].as_str(),
        ] {
            let text = format!("{first}{second}");
            let resources = json!({"cpuPercent": {"above": 1}, "poll": text});
            for (field, triggers, timeout) in [
                (&timeout, json!({"interval": "1h"}), text.as_str()),
                (&interval, json!({"interval": text}), "1m"),
                (&poll, json!({"resources": resources}), "1m"),
            ] {
                let spec = json!({"selector": {}, "triggers": triggers, "timeout": timeout});
                let is_taken = by_file(SCHEDULE, &spec).is_empty();
                assert_eq!(rules(&json!(text), field), is_taken, "{field}: {text}");
                *(if is_taken { &mut taken } else { &mut refused }) += 1;
            }
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} {refused}");
}

#[test]
fn every_rule_has_a_manifest_that_it_refuses() {
    let cases = refused();
    let mut pending: Vec<Value> = all().iter().map(|crd| schema(&crd.spec.names.kind)).collect();
    while let Some(value) = pending.pop() {
        for rule in value["x-kubernetes-validations"].as_array().into_iter().flatten() {
            // A file holds no objects that agents make: tests below and those of the API server have these rules.
            let of_agents_objects = [
                rules::FILE_NAME,
                rules::NOT_EMPTY,
                rules::HOLD_OR_DISCARD,
                rules::UNTIL_IN_TIME,
                rules::DISCARD_IS_FINAL,
            ];
            let is_tested = of_agents_objects.iter().any(|known| rule["rule"] == known.cel)
                || cases.iter().any(|(_, _, known)| rule["rule"] == known.cel);
            assert!(is_tested, "untested rule: {rule}");
        }
        match value {
            Value::Object(members) => pending.extend(members.into_iter().map(|(_, member)| member)),
            Value::Array(items) => pending.extend(items),
            _ => {}
        }
    }
}

#[test]
fn a_hold_and_a_discard_have_a_reason_and_exclude_each_other() {
    let reason = json!({"reason": "incident 4711"});
    let refused = |spec: Value, rule: rules::Rule| {
        let errors = by_cel("ContainerCheckpoint", &spec);
        assert!(errors.iter().any(|error| error.contains(rule.message)), "{spec}: {errors:?}");
    };
    for empty in ["", " ", "\t\n"] {
        refused(json!({"hold": {"reason": empty}}), rules::NOT_EMPTY);
        refused(json!({"discard": {"reason": empty}}), rules::NOT_EMPTY);
    }
    refused(json!({"hold": reason, "discard": reason}), rules::HOLD_OR_DISCARD);
    for time in ["9999-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
        refused(json!({"hold": {"reason": "evidence", "until": time}}), rules::UNTIL_IN_TIME);
    }
    let ends = json!({"reason": "evidence", "until": "9998-12-31T23:59:59Z"});
    for accepted in [json!({}), json!({"hold": reason}), json!({"hold": ends}), json!({"discard": reason})] {
        assert_eq!(by_cel("ContainerCheckpoint", &accepted), Vec::<String>::new(), "{accepted}");
    }
}

#[test]
fn what_a_file_may_hold_no_rule_refuses() {
    let mut cases = vec![
        (CLUSTER, json!({})),
        (CLUSTER, json!({"retention": {"tiers": {"yearly": 1}, "perContainer": {"maxTotalSize": "1Gi"}}})),
        (CLUSTER, json!({"retention": {"keepLatestFor": "Forever", "maxArchiveSize": 0}})),
        (CLUSTER, json!({"selector": {"podSelector": {"matchLabels": {"a.b/c": ""}}}})),
        (STORAGE, json!({"minFree": {"bytes": "1Gi", "inodes": 0}})),
        (STORAGE, json!({"highWatermark": "100%", "lowWatermark": "9.5%", "criticalWatermark": "100%"})),
        (STORAGE, json!({"highWatermark": "50%", "lowWatermark": "47%", "criticalWatermark": "50.0%"})),
        (STORAGE, json!({"highWatermark": "0%", "lowWatermark": "10%", "criticalWatermark": "60%"})),
        (STORAGE, json!({"highWatermark": "0.00%", "criticalWatermark": "00%", "protectLatest": 0})),
        (STORAGE, json!({"mode": "DryRun", "highWatermark": "99%", "criticalWatermark": "0%"})),
        (CLUSTER, json!({"precedence": "Override", "damaged": {"action": "Delete", "gracePeriod": "0"}})),
        (CLUSTER, json!({"retention": {"minAge": "1h"}})),
        (STORAGE, json!({"deletionLimit": {"burst": 0}})),
        (LEGACY, json!({})),
    ];
    for triggers in [
        json!({"interval": "1s"}),
        json!({"interval": "1.5s"}),
        json!({"interval": "1500ms"}),
        json!({"interval": ".5m"}),
        json!({"interval": "1d"}),
        json!({"interval": "0.5d"}),
        json!({"interval": "500ms500ms"}),
        json!({"interval": "999999h99999999m"}),
        json!({"schedule": " */5  0-12/2,20 1 * mon-fri "}),
        json!({"schedule": "0 0 29 2 *", "timeZone": "America/Argentina/Buenos_Aires"}),
        json!({"schedule": "0 0 * * *", "timeZone": "Etc/GMT+9"}),
        json!({"onAnnotation": true}),
        json!({"onDisruption": ["NodeDrain", "PodEviction", "Preemption", "PodDeletion"]}),
        json!({"resources": {"cpuPercent": {"above": 100, "below": 0}, "cooldown": "0"}}),
        json!({"resources": {"memoryPercent": {"below": 100}, "poll": "5s"}}),
        json!({"resources": {"memoryPercent": {"above": 1}, "poll": "1m"}}),
        json!({"resources": {"memoryPercent": {"above": 1}, "poll": "1m1s"}}),
        json!({"resources": {"memoryPercent": {"above": 1}, "poll": "5000ms"}}),
        json!({"resources": {"memoryPercent": {"above": 1}, "poll": "+005.5s"}}),
        json!({"resources": {"memoryPercent": {"above": 1}, "poll": "12s"}}),
        json!({"resources": {"memoryPercent": {"above": 1}, "poll": "2s3s"}}),
        json!({"resources": {"memoryPercent": {"above": 1}, "poll": "0.0001d"}}),
    ] {
        cases.push((SCHEDULE, json!({"selector": {}, "triggers": triggers})));
    }
    for timeout in [
        "1h", "1h0m", "01.0h", "60m", "59m60s", "10.61m", "1.61m", "3600s", "3599.9s", "90000ms", "30m30m",
        "0.5s0.5s",
    ] {
        let spec = json!({"selector": {}, "triggers": {"interval": "1h"}, "timeout": timeout});
        cases.push((SCHEDULE, spec));
    }
    cases.push((
        SCHEDULE,
        json!({
            "selector": {"matchLabels": {"app": "db"}}, "triggers": {"interval": "1h"}, "mode": "DryRun",
            "suspend": false, "jitter": "0", "startingDeadline": "0", "timeout": "1s", "maxConcurrentPerNode": 100,
            "retries": {"limit": 0, "backoff": "1ms"}, "containers": ["app"],
            "retention": {"keepLatest": 1, "maxAge": "1w"},
        }),
    ));
    for hard in [
        json!({"count": 0}),
        json!({"bytes": 0}),
        json!({"bytes": "1Ki"}),
        json!({"count": 1_000_000_000, "bytes": "100Gi"}),
    ] {
        cases.push((QUOTA, json!({"hard": hard})));
        cases.push((QUOTA, json!({"hard": hard, "warnAt": "0%", "onExceed": "Warn"})));
    }
    for duration in [
        "0",
        "0s",
        "1h30m",
        "1.5h",
        ".5m",
        "300ms",
        "7d",
        "2w",
        "1w1d1h",
        "+5m",
        "1µs",
        "1μs",
        "9999w",
        "99999d",
        "000010w",
        "1.12345678w",
        "99999999m",
        "1000000ms",
    ] {
        cases.push((CLUSTER, json!({"retention": {"maxAge": duration, "keepLatestFor": duration}})));
    }
    for size in [json!(0), json!("0"), json!("0%"), json!("12.5%"), json!("1Ki"), json!(1024)] {
        let held = json!({"maxCount": 0, "maxTotalSize": size});
        cases.push((STORAGE, json!({"perNamespace": {"maxHeld": held}})));
    }
    for share in ["0%", "100%", "100.0%", "12.5%", "0.05%", "5%"] {
        cases.push((CLUSTER, json!({"retention": {"perPod": {"maxTotalSize": share}}})));
        cases.push((STORAGE, json!({"reserved": share})));
    }
    for size in [
        json!(0),
        json!("0"),
        json!(1024),
        json!("1024"),
        json!("1Ki"),
        json!("1.5Gi"),
        json!("1e9"),
        json!("2k"),
        json!("7Ei"),
        json!("0.5Mi"),
        json!("12345"),
    ] {
        cases.push((
            CLUSTER,
            json!({"retention": {"maxArchiveSize": size, "perPod": {"maxTotalSize": size}}}),
        ));
        cases.push((LEGACY, json!({"namespacePolicies": [{"namespace": "n", "maxTotalSize": size}]})));
    }
    for (kind, spec) in cases {
        assert_eq!(by_file(kind, &spec), Vec::<String>::new(), "{kind} {spec}");
        assert_eq!(by_cel(kind, &spec), Vec::<String>::new(), "{kind} {spec}");
    }
}
