//! Why pods of agents are not ready, as far as Kubernetes says it.

use checkpoint_keeper_api::AGENT_SELECTOR;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use kube::api::ListParams;

use super::{Findings, Grade};
use crate::failure::Failure;
use crate::session::Session;

/// Names each pod that is not ready, and why.
pub(super) async fn check(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let params = ListParams::default().labels(AGENT_SELECTOR);
    let pods = match session.list::<Pod>(Some(&session.operator_namespace), &params).await {
        Ok(pods) => pods,
        Err(error) => return findings.unknown("the agents' pods", &error),
    };
    for pod in &pods {
        if let Some(why) = unready(pod) {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let node = node.map(|node| format!(" on {node}")).unwrap_or_default();
            let hint = format!("kubectl -n {} describe pod {}", session.operator_namespace, pod.name_any());
            let what = format!("the agent's pod {}{node} is not ready: {why}", pod.name_any());
            findings.add(Grade::Error, &what, Some(&hint))?;
        }
    }
    Ok(())
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
        let parts = [reason, message].into_iter().flatten().map(String::as_str).collect::<Vec<_>>();
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
