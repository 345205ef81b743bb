//! Whether the admission policies are there that limit what agents may write.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::ResourceExt;
use kube::api::ListParams;

use super::{Findings, Grade};
use crate::failure::Failure;
use crate::session::Session;

/// How the names of the admission policies, and of their bindings, end.
const RULES: [&str; 6] = [
    "agent-own-node",
    "status-by-agent",
    "agent-pod-annotations",
    "controller-finalizer",
    "agent-own-checkpoints",
    "checkpoints-by-users",
];

/// Whether each policy is there and bound.
pub(super) async fn check(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let ours = ListParams::default().labels("app.kubernetes.io/name=checkpoint-keeper");
    let (policies, bindings) = match (
        session.list::<ValidatingAdmissionPolicy>(None, &ours).await,
        session.list::<ValidatingAdmissionPolicyBinding>(None, &ours).await,
    ) {
        (Ok(policies), Ok(bindings)) => (policies, bindings),
        (Err(error), _) | (_, Err(error)) => {
            return findings.unknown("whether the admission policies are there", &error);
        }
    };
    let bound: BTreeSet<_> = bindings.iter().map(|binding| &binding.spec.policy_name).collect();
    let has_rule = |rule: &&str| {
        let mut names = policies.iter().map(ResourceExt::name_any);
        names.any(|name| name.ends_with(&format!("-{rule}")) && bound.contains(&name))
    };
    let missing: Vec<_> = RULES.into_iter().filter(|rule| !has_rule(rule)).collect();
    if missing.is_empty() {
        return findings.add(Grade::Ok, "all admission policies are there and bound", None);
    }
    let what = format!(
        "admission policies are missing or not bound: {}; what they forbid is possible",
        missing.join(", ")
    );
    let hint =
        "kubectl apply -f config/deploy/4-admission.yaml, or helm upgrade, whichever it was installed with";
    findings.add(Grade::Error, &what, Some(hint))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_admission_policy_that_is_installed_is_looked_for() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/deploy/4-admission.yaml");
        let all = std::fs::read_to_string(path).unwrap();
        let policies = all.split("\n---").filter_map(|object| {
            let is_policy = object.lines().any(|line| line == "kind: ValidatingAdmissionPolicy");
            let mut names = object.lines().filter_map(|line| line.strip_prefix("  name: "));
            names.next().filter(|_| is_policy)
        });
        let policies: BTreeSet<&str> = policies.collect();
        let looked_for = RULES.map(|rule| format!("checkpoint-keeper-{rule}"));
        assert_eq!(policies, looked_for.iter().map(String::as_str).collect());
    }
}
