//! Whether the controller has pods, and why pods of it and of agents are not ready, as far as Kubernetes says it.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use kube::api::ListParams;

use super::{Findings, Grade};
use crate::failure::Failure;
use crate::session::Session;

/// The label of all pods of an installation.
const OURS: &str = "app.kubernetes.io/name=checkpoint-keeper";

/// The label that says what a pod is of: `agent` or `controller`.
const COMPONENT: &str = "app.kubernetes.io/component";

/// Names each pod that is not ready, and why.
pub(super) async fn check(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let params = ListParams::default().labels(OURS);
    let pods = match session.list::<Pod>(Some(&session.operator_namespace), &params).await {
        Ok(pods) => pods,
        Err(error) => return findings.unknown("the pods of the agents and the controller", &error),
    };
    if !pods.iter().any(|pod| component(pod) == "controller") {
        let what = "the controller has no pod: policies and quotas do not say what came of them";
        let hint = format!("kubectl -n {} get deployments", session.operator_namespace);
        findings.add(Grade::Error, what, Some(&hint))?;
    }
    for pod in &pods {
        if let Some(why) = unready(pod) {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let node = node.map(|node| format!(" on {node}")).unwrap_or_default();
            let hint = format!("kubectl -n {} describe pod {}", session.operator_namespace, pod.name_any());
            let what = format!("the {}'s pod {}{node} is not ready: {why}", component(pod), pod.name_any());
            findings.add(Grade::Error, &what, Some(&hint))?;
        }
    }
    Ok(())
}

fn component(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(COMPONENT)).map_or("agent", String::as_str)
}

/// Why it is not ready; none: it is, or is about to end.
fn unready(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let condition = |kind: &str| status.conditions.iter().flatten().find(|one| one.type_ == kind);
    if pod.metadata.deletion_timestamp.is_some() || condition("Ready").is_some_and(|one| one.status == "True")
    {
        return None;
    }
    let said = |reason: Option<&String>, message: Option<&String>| {
        let parts = [reason, message].into_iter().flatten().map(String::as_str);
        let parts = parts.filter(|text| !text.is_empty()).collect::<Vec<_>>();
        (!parts.is_empty()).then(|| parts.join(": "))
    };
    let not_started = |one: &ContainerStatus| {
        let state = one.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|one| said(one.reason.as_ref(), one.message.as_ref()));
        let last = one.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        let last = last.map(|last| format!("; it ended before with exit code {}", last.exit_code));
        Some(format!("{}{}", waiting?, last.unwrap_or_default()))
    };
    let unscheduled = condition("PodScheduled").filter(|one| one.status == "False");
    unscheduled
        .and_then(|one| said(one.reason.as_ref(), one.message.as_ref()))
        .or_else(|| status.container_statuses.iter().flatten().find_map(not_started))
        .or_else(|| said(status.reason.as_ref(), status.message.as_ref()))
        .or_else(|| condition("Ready").and_then(|one| said(one.reason.as_ref(), one.message.as_ref())))
        .or_else(|| status.phase.clone())
}
