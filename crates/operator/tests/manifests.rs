//! The promises of `config/deploy` that can be read off its files. What a cluster makes of them is tested on
//! one: `tests/cluster/tests/cluster/rights.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use checkpoint_keeper_api::{AGENT_ACCOUNT, CONTROLLER_ACCOUNT, NAMESPACE};
use serde_json::{Value, json};

/// Every object that `kubectl apply -f config/deploy` makes, with its file, in the order of the files.
fn objects() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/deploy");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let objects_of = |path: &std::path::PathBuf| -> Vec<(String, Value)> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!objects.is_empty(), "{name} holds nothing");
        objects.into_iter().map(|object| (name.clone(), object)).collect()
    };
    files.iter().flat_map(objects_of).collect()
}

fn of_kind(kind: &str) -> Vec<Value> {
    let objects = objects().into_iter().map(|(_, object)| object);
    objects.filter(|object| object["kind"] == kind).collect()
}

/// The one object of this kind.
fn only(kind: &str) -> Value {
    let mut objects = of_kind(kind);
    assert_eq!(objects.len(), 1, "{kind}");
    objects.remove(0)
}

fn strings(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn every_object_is_ours_and_the_namespace_comes_first() {
    let objects = objects();
    assert_eq!(objects[0].1["kind"], "Namespace");
    assert_eq!(objects[0].1["metadata"]["name"], NAMESPACE);
    // They follow in this order, so that nothing runs before it is known what it may not do.
    let place = |kind: &str| objects.iter().position(|(_, object)| object["kind"] == kind).unwrap();
    let order = ["Namespace", "ServiceAccount", "ClusterRole", "ValidatingAdmissionPolicy", "DaemonSet"];
    assert!(order.map(place).is_sorted(), "{order:?}");
    let mut known = BTreeSet::new();
    for (file, object) in &objects {
        let (kind, metadata) = (object["kind"].as_str().unwrap(), &object["metadata"]);
        let name = metadata["name"].as_str().unwrap();
        assert!(object["apiVersion"].is_string(), "{file}: {object}");
        assert!(name.starts_with("checkpoint-keeper"), "{file}: {kind} {name}");
        assert_eq!(
            metadata["labels"]["app.kubernetes.io/name"], "checkpoint-keeper",
            "{file}: {kind} {name}"
        );
        let namespaced = [
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "DaemonSet",
            "Deployment",
            "PodDisruptionBudget",
            "ResourceQuota",
        ]
        .contains(&kind);
        let namespace = if namespaced { json!(NAMESPACE) } else { Value::Null };
        assert_eq!(metadata["namespace"], namespace, "{file}: {kind} {name}");
        assert!(known.insert(format!("{kind} {name}")), "{file}: {kind} {name} is there twice");
    }
}

#[test]
fn no_role_grants_what_nobody_of_ours_is_to_have() {
    // The others are for users.
    let bound: BTreeSet<String> = [of_kind("ClusterRoleBinding"), of_kind("RoleBinding")]
        .concat()
        .iter()
        .map(|binding| binding["roleRef"]["name"].as_str().unwrap().to_owned())
        .collect();
    let mut roles = [of_kind("ClusterRole"), of_kind("Role")].concat();
    roles.retain(|role| bound.contains(role["metadata"]["name"].as_str().unwrap()));
    assert_eq!(roles.len(), 3, "{bound:?}");
    for role in &roles {
        let name = &role["metadata"]["name"];
        assert!(role["aggregationRule"].is_null(), "{name} grants what others write");
        for rule in list(&role["rules"]) {
            let (verbs, resources) = (strings(&rule["verbs"]), strings(&rule["resources"]));
            let known = ["get", "list", "watch", "create", "update", "patch", "delete"];
            assert!(verbs.iter().all(|verb| known.contains(verb)), "{name}: {rule}");
            assert!(rule["nonResourceURLs"].is_null(), "{name}: {rule}");
            let all = strings(&rule["apiGroups"]).contains("*")
                || resources.iter().any(|resource| resource.contains('*'));
            assert!(!all, "{name}: {rule}");
            let reads = verbs.is_subset(&["get", "list", "watch"].into());
            for resource in resources {
                let kind = resource.split('/').next().unwrap();
                match kind {
                    "secrets" | "configmaps" | "serviceaccounts" | "users" | "groups" => {
                        panic!("{name}: {rule}")
                    }
                    "pods" | "nodes" => {
                        let is_agent = name == AGENT_ACCOUNT;
                        let is_one_of_those = match resource {
                            // 4-admission.yaml narrows it down to two annotations.
                            "pods" => verbs == ["patch"].into(),
                            "nodes/checkpoint" => verbs == ["create"].into(),
                            "nodes/metrics" => verbs == ["get"].into(),
                            _ => false,
                        };
                        let is_read = reads && resource == kind;
                        assert!(is_read || (is_agent && is_one_of_those), "{name}: {rule}");
                    }
                    _ => {}
                }
                let rights = strings(&rule["apiGroups"]).contains("rbac.authorization.k8s.io");
                assert!(!rights, "{name}: {rule}");
            }
        }
    }
}

#[test]
fn roles_of_users_are_about_kinds_of_their_namespaces_and_each_adds_what_it_should() {
    let mut granted = BTreeMap::new();
    for role in of_kind("ClusterRole") {
        let labels = role["metadata"]["labels"].as_object().unwrap();
        let Some(to) = labels.keys().find_map(|label| label.split_once("/aggregate-to-")) else { continue };
        for rule in list(&role["rules"]) {
            assert_eq!(strings(&rule["apiGroups"]), ["checkpoint-keeper.io"].into(), "{rule}");
            for resource in strings(&rule["resources"]) {
                let verbs: Vec<_> = strings(&rule["verbs"]).into_iter().collect();
                granted.insert(format!("{} {resource}", to.1), verbs.join(" "));
            }
        }
    }
    let granted: Vec<_> = granted.iter().map(|(what, verbs)| format!("{what}: {verbs}")).collect();
    assert_eq!(
        granted,
        [
            "admin containercheckpoints: discard",
            "edit checkpointpolicies: create delete deletecollection patch update",
            "edit checkpointschedules: create delete deletecollection patch update",
            "edit containercheckpoints: hold patch update",
            "view checkpointpolicies: get list watch",
            "view checkpointquotas: get list watch",
            "view checkpointschedules: get list watch",
            "view containercheckpoints: get list watch",
        ]
    );
}

#[test]
fn every_binding_gives_a_role_of_ours_to_the_account_of_its_name() {
    let bindings = [of_kind("ClusterRoleBinding"), of_kind("RoleBinding")].concat();
    assert_eq!(bindings.len(), 3);
    for binding in bindings {
        let name = binding["metadata"]["name"].as_str().unwrap();
        let kind = binding["kind"].as_str().unwrap().trim_end_matches("Binding");
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        assert_eq!(binding["roleRef"], role);
        assert!(of_kind(kind).iter().any(|role| role["metadata"]["name"] == name), "no {kind} {name}");
        let account = json!([{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]);
        assert_eq!(binding["subjects"], account);
        let accounts = of_kind("ServiceAccount");
        assert!(accounts.iter().any(|account| account["metadata"]["name"] == name), "no account {name}");
    }
}

#[test]
fn admission_policies_refuse_where_they_cannot_tell_and_speak_of_our_accounts() {
    let account = |kind: &str| only(kind)["spec"]["template"]["spec"]["serviceAccountName"].clone();
    assert_eq!(
        (account("DaemonSet"), account("Deployment")),
        (AGENT_ACCOUNT.into(), CONTROLLER_ACCOUNT.into())
    );
    let policies = of_kind("ValidatingAdmissionPolicy");
    assert_eq!(policies.len(), 6);
    for policy in policies {
        let (name, spec) = (&policy["metadata"]["name"], &policy["spec"]);
        assert_eq!(spec["failurePolicy"], "Fail", "{name}");
        let is_controllers = name.as_str().is_some_and(|name| name.contains("-controller-"));
        let account = if is_controllers { CONTROLLER_ACCOUNT } else { AGENT_ACCOUNT };
        let user = format!("'system:serviceaccount:{NAMESPACE}:{account}'");
        assert!(spec.to_string().contains(&user), "{name} is not about {user}");
        for validation in list(&spec["validations"]) {
            assert!(validation["message"].is_string(), "{name}: {validation}");
            assert_eq!(validation["reason"], "Forbidden", "{name}: {validation}");
        }
        let bindings = of_kind("ValidatingAdmissionPolicyBinding");
        let binding = bindings.iter().find(|binding| binding["spec"]["policyName"] == *name);
        let binding = &binding.unwrap_or_else(|| panic!("{name} is not in force"))["spec"];
        assert_eq!(binding, &json!({"policyName": name, "validationActions": ["Deny"]}));
    }
}

/// What holds for the agent's pod and the controller's.
fn check_pod(workload: &Value) {
    let pod = &workload["spec"]["template"]["spec"];
    for field in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "initContainers"] {
        assert!(pod[field].is_null(), "{field}");
    }
    assert_eq!(pod["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}));
    assert_eq!(pod["automountServiceAccountToken"], true);
    assert!(pod["terminationGracePeriodSeconds"].is_number());
    assert_eq!(
        workload["spec"]["selector"]["matchLabels"],
        workload["spec"]["template"]["metadata"]["labels"]
    );
    let [container] = list(&pod["containers"]) else { panic!("not one container: {pod}") };
    assert_eq!(
        container["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        })
    );
    assert_eq!(container["command"], json!(["/checkpoint-keeper"]));
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["resources"]["limits"], json!({"memory": "128Mi"}));
    assert_eq!(
        strings(&json!(container["resources"]["requests"].as_object().unwrap().keys().collect::<Vec<_>>())),
        ["cpu", "memory"].into()
    );
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
}

#[test]
fn the_agents_pod_has_two_directories_of_its_node_and_no_capability() {
    let agent = only("DaemonSet");
    check_pod(&agent);
    let pod = &agent["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsUser"], 0);
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["securityContext"]["seLinuxOptions"], json!({"type": "spc_t"}));
    let nodes = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        nodes["nodeSelectorTerms"],
        json!([{"matchExpressions": [
            {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
            {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]},
            {"key": "eks.amazonaws.com/compute-type", "operator": "NotIn", "values": ["fargate"]},
        ]}])
    );
    // Two at once would be one too many for the directory's lock.
    assert_eq!(agent["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"], 0);
    assert_eq!(
        pod["volumes"],
        json!([
            // A node without the directory holds no roll-out up.
            {"name": "checkpoints", "hostPath": {"path": "/var/lib/kubelet/checkpoints", "type": "DirectoryOrCreate"}},
            {"name": "state", "hostPath": {"path": "/var/lib/checkpoint-keeper", "type": "DirectoryOrCreate"}},
        ])
    );
    let mounts = &pod["containers"][0]["volumeMounts"];
    assert_eq!(
        mounts,
        &json!([
            {"name": "checkpoints", "mountPath": "/var/lib/kubelet/checkpoints"},
            {"name": "state", "mountPath": "/var/lib/checkpoint-keeper"},
        ])
    );
}

#[test]
fn the_controllers_pods_are_nobody_and_have_nothing_of_their_node() {
    let controller = only("Deployment");
    check_pod(&controller);
    let pod = &controller["spec"]["template"]["spec"];
    assert_eq!(controller["spec"]["replicas"], 2);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    let budget = only("PodDisruptionBudget");
    assert_eq!(budget["spec"]["selector"], controller["spec"]["selector"]);
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert!(pod["volumes"].is_null() && pod["containers"][0]["volumeMounts"].is_null());
}

#[test]
fn the_image_is_the_same_everywhere() {
    let workloads = [only("DaemonSet"), only("Deployment")];
    let images =
        workloads.each_ref().map(|workload| &workload["spec"]["template"]["spec"]["containers"][0]["image"]);
    assert_eq!(images[0], images[1]);
    assert!(images[0].is_string());
}
