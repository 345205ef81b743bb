//! Which nodes can have an agent at all: those that a `DaemonSet` of agents selects. Where these cannot be read, those that
//! the chart's default values select.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// The architectures that images are made for.
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Labels of nodes that no machine of their own is behind, each with its value.
const VIRTUAL: [(&str, &str); 2] =
    [("type", "virtual-kubelet"), ("eks.amazonaws.com/compute-type", "fargate")];

type Labels = BTreeMap<String, String>;

/// Why a node can have no agent, where these are the agents' `DaemonSet`s; none if it can have one. Without any, the
/// chart's default values count.
pub fn unfit(node: &Node, sets: &[DaemonSet]) -> Option<String> {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    if sets.is_empty() {
        return by_default(&labels);
    }
    let pods = sets.iter().filter_map(|set| set.spec.template.spec.as_ref());
    if pods.into_iter().any(|pod| selects(pod, &labels)) {
        return None;
    }
    Some(by_default(&labels).unwrap_or_else(|| "no DaemonSet of agents selects it".to_owned()))
}

fn by_default(labels: &Labels) -> Option<String> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    if VIRTUAL.iter().any(|(name, value)| label(name) == Some(value)) {
        return Some("virtual".to_owned());
    }
    let is_other = |name: &str, known: &[&str]| label(name).filter(|value| !known.contains(value));
    is_other("kubernetes.io/os", &["linux"])
        .or_else(|| is_other("kubernetes.io/arch", &ARCHITECTURES))
        .map(str::to_owned)
}

/// Whether pods like this one may run on a node of these labels; taints do not keep agents away.
fn selects(pod: &PodSpec, labels: &Labels) -> bool {
    let selector = pod.node_selector.clone().unwrap_or_default();
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| fits(term, labels)))
}

fn fits(term: &NodeSelectorTerm, labels: &Labels) -> bool {
    term.match_expressions.iter().flatten().all(|expression| holds(expression, labels))
}

fn holds(expression: &NodeSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&expression.key);
    let values = expression.values.clone().unwrap_or_default();
    let is_one = value.is_some_and(|value| values.contains(value));
    let compared = || {
        let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
        Some(number(value)?.cmp(&number(values.first())?))
    };
    match expression.operator.as_str() {
        "In" => is_one,
        "NotIn" => !is_one,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: &[(&str, &str)]) -> Node {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut node = Node::default();
        node.metadata.labels = Some(labels);
        node
    }

    #[test]
    fn a_node_says_by_its_labels_why_it_can_have_no_agent() {
        let unfit = |labels: &[(&str, &str)]| unfit(&node(labels), &[]);
        let usual = [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "arm64")];
        assert_eq!(unfit(&usual), None);
        assert_eq!(unfit(&[]), None);
        assert_eq!(super::unfit(&Node::default(), &[]), None);
        assert_eq!(unfit(&[usual[0], ("kubernetes.io/arch", "ppc64le")]).as_deref(), Some("ppc64le"));
        assert_eq!(unfit(&[("kubernetes.io/os", "windows"), usual[1]]).as_deref(), Some("windows"));
        assert_eq!(unfit(&[usual[0], usual[1], VIRTUAL[0]]).as_deref(), Some("virtual"));
        assert_eq!(unfit(&[usual[0], usual[1], VIRTUAL[1]]).as_deref(), Some("virtual"));
    }

    #[test]
    fn what_the_daemon_sets_select_counts_where_they_are_known() {
        let set = |expressions: serde_json::Value| -> DaemonSet {
            let term = json!({"nodeSelectorTerms": [{"matchExpressions": expressions}]});
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}});
            let pod = json!({"containers": [], "nodeSelector": {"kubernetes.io/os": "linux"}, "affinity": affinity});
            serde_json::from_value(json!({"spec": {"selector": {}, "template": {"spec": pod}}})).unwrap()
        };
        let arch = |names: &[&str]| json!({"key": "kubernetes.io/arch", "operator": "In", "values": names});
        let sets = [
            set(json!([arch(&["s390x", "amd64"]), {"key": "pool", "operator": "NotIn", "values": ["a"]}])),
            set(
                json!([{"key": "pool", "operator": "Exists"}, {"key": "disks", "operator": "Gt", "values": ["3"]}]),
            ),
        ];
        let unfit = |labels: &[(&str, &str)]| {
            let all = [&[("kubernetes.io/os", "linux")], labels].concat();
            unfit(&node(&all), &sets)
        };
        assert_eq!(unfit(&[("kubernetes.io/arch", "s390x")]), None);
        let none = Some("no DaemonSet of agents selects it");
        assert_eq!(unfit(&[("kubernetes.io/arch", "arm64")]).as_deref(), none);
        assert_eq!(unfit(&[("kubernetes.io/arch", "ppc64le")]).as_deref(), Some("ppc64le"));
        assert_eq!(unfit(&[("kubernetes.io/arch", "amd64"), ("pool", "a")]).as_deref(), none);
        assert_eq!(unfit(&[("pool", "a"), ("disks", "4")]), None);
        assert_eq!(unfit(&[("pool", "a"), ("disks", "3")]).as_deref(), none);
        assert_eq!(super::unfit(&node(&[("kubernetes.io/arch", "amd64")]), &sets).as_deref(), none);
    }
}
