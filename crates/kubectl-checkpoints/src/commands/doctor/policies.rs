//! Whether each policy and schedule is in force and can act.

use std::collections::BTreeSet;

use checkpoint_keeper_api::{
    CheckpointPolicy, CheckpointRestoreOperator, CheckpointSchedule, CheckpointStoragePolicy,
    ClusterCheckpointPolicy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::ListParams;

use super::{Findings, Grade};
use crate::failure::Failure;
use crate::session::Session;

/// One policy or schedule.
struct Judged {
    kind: String,
    name: String,
    conditions: Vec<Condition>,
}

/// Whether each policy and schedule is in force and can act. Of the schedules in `failing` it was said on which nodes they fail.
pub(super) async fn check(
    session: &Session,
    findings: &mut Findings,
    failing: &BTreeSet<String>,
) -> Result<(), Failure> {
    let mut judged: Vec<Judged> = Vec::new();
    let mut is_all = true;
    macro_rules! collect {
        ($($kind:ty),+) => {$(
            match session.list::<$kind>(None, &ListParams::default()).await {
                Ok(objects) => judged.extend(objects.into_iter().map(|object| {
                    let namespace = object.namespace().map(|name| format!("{name}/")).unwrap_or_default();
                    Judged {
                        kind: <$kind as kube::Resource>::kind(&()).into_owned(),
                        name: format!("{namespace}{}", object.name_any()),
                        conditions: object.status.map(|status| status.conditions).unwrap_or_default(),
                    }
                })),
                // The older operator's kinds need not be there; whether ours are was looked at before.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    is_all = false;
                    findings.unknown(&<$kind as kube::Resource>::plural(&()), &error)?;
                }
            }
        )+};
    }
    collect!(
        ClusterCheckpointPolicy,
        CheckpointPolicy,
        CheckpointStoragePolicy,
        CheckpointSchedule,
        CheckpointRestoreOperator
    );
    let mut good = 0;
    for Judged { kind, name, conditions } in &judged {
        let is_said = kind == "CheckpointSchedule" && failing.contains(name);
        match conditions.iter().find(|condition| is_wrong(condition)) {
            Some(condition)
                if is_said && ["Healthy", "ContainerMayBeFrozen"].contains(&condition.type_.as_str()) => {}
            Some(condition) => {
                let is_error = condition.status != "Unknown" && condition.type_ != "WithoutEffect";
                let grade = if is_error { Grade::Error } else { Grade::Warning };
                let what = format!("{kind} {name}: {} ({})", condition.message, condition.reason);
                findings.add(grade, &what, hint(condition))?;
            }
            None => good += 1,
        }
    }
    let is_policy = |one: &&Judged| one.kind != "CheckpointSchedule";
    if is_all && judged.iter().filter(is_policy).count() == 0 {
        let hint = "without one nothing is deleted: examples/ has some to begin with";
        findings.add(Grade::Warning, "there are no policies", Some(hint))?;
    }
    if good == 0 {
        return Ok(());
    }
    let what = if good == judged.len() {
        format!("all policies and schedules ({good}) are in force and well")
    } else {
        format!("the other {good} of {} policies and schedules are in force and well", judged.len())
    };
    findings.add(Grade::Ok, &what, None)
}

/// What helps where a condition says that something is wrong.
fn hint(condition: &Condition) -> Option<&'static str> {
    match (condition.type_.as_str(), condition.reason.as_str()) {
        ("WithoutEffect", _) => Some("kubectl checkpoints plan -f shows what another version of it would do"),
        ("LimitsUnreachable", _) => Some("kubectl checkpoints list shows who holds what; unpin ends a hold"),
        ("Accepted" | "Ready", "Invalid") => {
            Some("the message names the field; until it is mended, nothing is deleted by it")
        }
        ("Accepted" | "Ready", "OtherOperator") => {
            Some("it is in force here once the older operator is scaled down")
        }
        ("ContainerMayBeFrozen", _) => {
            Some("look whether the container still answers, and restart its pod if not")
        }
        _ => None,
    }
}

/// Whether a condition says that something is wrong.
fn is_wrong(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        "Ready" | "Accepted" | "Healthy" => condition.status != "True",
        "LimitsUnreachable" | "WithoutEffect" | "ContainerMayBeFrozen" => condition.status == "True",
        _ => false,
    }
}
