//! Which nodes can have an agent at all, by the labels that the chart's node affinity goes by.

use k8s_openapi::api::core::v1::Node;

/// The architectures that images are made for.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Labels of nodes that no machine of their own is behind, each with its value.
const VIRTUAL: [(&str, &str); 2] =
    [("type", "virtual-kubelet"), ("eks.amazonaws.com/compute-type", "fargate")];

/// Why a node can have no agent; none if it can have one.
pub fn unfit(node: &Node) -> Option<String> {
    let labels = node.metadata.labels.as_ref()?;
    let label = |name: &str| labels.get(name).map(String::as_str);
    if VIRTUAL.iter().any(|(name, value)| label(name) == Some(value)) {
        return Some("virtual".to_owned());
    }
    let is_other = |name: &str, known: &[&str]| label(name).filter(|value| !known.contains(value));
    is_other("kubernetes.io/os", &["linux"])
        .or_else(|| is_other("kubernetes.io/arch", &ARCHITECTURES))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_node_says_by_its_labels_why_it_can_have_no_agent() {
        let node = |labels: &[(&str, &str)]| {
            let labels: BTreeMap<_, _> =
                labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut node = Node::default();
            node.metadata.labels = Some(labels);
            unfit(&node)
        };
        let usual = [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "arm64")];
        assert_eq!(node(&usual), None);
        assert_eq!(node(&[]), None);
        assert_eq!(unfit(&Node::default()), None);
        assert_eq!(node(&[usual[0], ("kubernetes.io/arch", "ppc64le")]).as_deref(), Some("ppc64le"));
        assert_eq!(node(&[("kubernetes.io/os", "windows"), usual[1]]).as_deref(), Some("windows"));
        assert_eq!(node(&[usual[0], usual[1], VIRTUAL[0]]).as_deref(), Some("virtual"));
        assert_eq!(node(&[usual[0], usual[1], VIRTUAL[1]]).as_deref(), Some("virtual"));
    }
}
