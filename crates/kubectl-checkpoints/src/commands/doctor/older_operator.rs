//! Whether the older operator runs, or left something behind.
//!
//! What runs it is found by its image or its labels, in whichever namespace it is. That it acts by objects the controller
//! says in their conditions, which [`super::policies`] shows.

use std::collections::BTreeSet;
use std::time::Duration;

use checkpoint_keeper_api::AGENT_SELECTOR;
use checkpoint_keeper_api::legacy::{OTHER_OPERATOR_LEASE, OTHER_OPERATOR_NAMESPACES};
use checkpoint_keeper_api::legacy_schedule::{FINALIZER, LegacyCheckpointSchedule};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::ListParams;

use super::{Findings, Grade};
use crate::failure::Failure;
use crate::session::Session;

/// The name of its image in any registry, and of the product in its manifests' labels.
const NAME: &str = "checkpoint-restore-operator";

/// The agents' option that names the namespaces in which they look whether it runs.
const OPTION: &str = "--other-operator-namespace=";

/// A `Deployment` or a `DaemonSet` of the older operator.
struct Installation {
    kind: &'static str,
    namespace: String,
    name: String,
    wanted: i32,
    ready: i32,
}

/// The namespaces in which agents look whether it runs.
struct Watched {
    namespaces: BTreeSet<String>,
    /// Whether they are the agents' own, as their arguments say, and not those by default.
    is_known: bool,
}

/// Whether it runs where agents see it, and whether schedules wait for it.
pub(super) async fn check(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let watched = watched(session).await;
    let installations = installations(session, &watched.namespaces, findings).await?;
    let is_watched = |one: &Installation| one.ready > 0 && watched.namespaces.contains(&one.namespace);
    let leading = if installations.iter().any(is_watched) { leading(session, findings).await? } else { None };
    let hint =
        "two collectors on one directory: its policies are left to it; end it to have them obeyed here";
    let unled = "two collectors on one directory, and agents do not see that it runs, as it holds no lease \
                 (--leader-elect): end it";
    for one in installations {
        let Installation { kind, namespace, name, wanted, ready } = &one;
        let what = |state: &str| format!("the older operator {state} in {namespace}: {kind} {name}");
        if *ready == 0 {
            let (grade, state) = match *wanted {
                0 => (Grade::Ok, "is installed, scaled down to nothing,"),
                _ => (Grade::Warning, "is installed, and not ready,"),
            };
            findings.add(grade, &what(state), None)?;
        } else if watched.namespaces.contains(namespace) {
            let is_seen = leading.as_ref().is_none_or(|leading| leading.contains(namespace));
            findings.add(Grade::Error, &what("runs"), Some(if is_seen { hint } else { unled }))?;
        } else {
            let unseen = if watched.is_known { "agents do not see" } else { "agents may not see" };
            let hint = format!(
                "two collectors on one directory, and {unseen} it there: end it, or add {namespace} to the chart's \
                 otherOperatorNamespaces ({OPTION}…)"
            );
            findings.add(Grade::Error, &what("runs"), Some(&hint))?;
        }
    }
    schedules(session, findings).await
}

/// The namespaces in which its lease is held; none where that cannot be seen.
async fn leading(session: &Session, findings: &mut Findings) -> Result<Option<BTreeSet<String>>, Failure> {
    let params = ListParams::default().fields(&format!("metadata.name={OTHER_OPERATOR_LEASE}"));
    match session.list::<Lease>(None, &params).await {
        Ok(leases) => {
            // A clock that is not that of the cluster may be off by minutes.
            let since = Timestamp::now() - Duration::from_mins(10);
            let is_held = |lease: &Lease| {
                lease.spec.as_ref().is_some_and(|spec| {
                    spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty())
                        && spec.renew_time.as_ref().is_some_and(|renewed| renewed.0 >= since)
                })
            };
            let held = leases.iter().filter(|lease| is_held(lease));
            Ok(Some(held.filter_map(ResourceExt::namespace).collect()))
        }
        Err(error) => {
            findings.unknown("whether the older operator holds its lease", &error)?;
            Ok(None)
        }
    }
}

async fn watched(session: &Session) -> Watched {
    let by_default = OTHER_OPERATOR_NAMESPACES.map(str::to_owned).into();
    let params = ListParams::default().labels(AGENT_SELECTOR);
    let sets =
        session.list::<DaemonSet>(Some(&session.operator_namespace), &params).await.unwrap_or_default();
    if sets.is_empty() {
        return Watched { namespaces: by_default, is_known: false };
    }
    let pods = sets.iter().filter_map(|set| set.spec.template.spec.as_ref());
    let arguments =
        pods.flat_map(|pod| &pod.containers).flat_map(|container| container.args.iter().flatten());
    let named = arguments.filter_map(|argument| argument.strip_prefix(OPTION));
    let named: BTreeSet<String> = named.flat_map(|names| names.split(',')).map(str::to_owned).collect();
    Watched { namespaces: if named.is_empty() { by_default } else { named }, is_known: true }
}

/// Its `Deployment`s and `DaemonSet`s in all namespaces; where these may not be listed, in those that agents look at and
/// in the one that is meant.
async fn installations(
    session: &Session,
    watched: &BTreeSet<String>,
    findings: &mut Findings,
) -> Result<Vec<Installation>, Failure> {
    match in_namespace(session, None).await {
        Ok(found) => return Ok(found),
        Err(error) => findings.unknown("whether the older operator runs in any namespace", &error)?,
    }
    let mut found = Vec::new();
    for namespace in
        watched.iter().chain((!watched.contains(&session.namespace)).then_some(&session.namespace))
    {
        found.extend(in_namespace(session, Some(namespace)).await.unwrap_or_default());
    }
    Ok(found)
}

async fn in_namespace(session: &Session, namespace: Option<&str>) -> Result<Vec<Installation>, kube::Error> {
    let all = ListParams::default();
    let deployments = session.list::<Deployment>(namespace, &all).await?;
    let sets = session.list::<DaemonSet>(namespace, &all).await?;
    let of_deployments =
        deployments.iter().filter(|one| is_it(&one.metadata, &one.spec.template)).map(|one| Installation {
            kind: "Deployment",
            namespace: one.namespace().unwrap_or_default(),
            name: one.name_any(),
            wanted: one.spec.replicas.unwrap_or(1),
            ready: one.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
        });
    let of_sets = sets.iter().filter(|one| is_it(&one.metadata, &one.spec.template)).map(|one| {
        let (wanted, ready) = one
            .status
            .as_ref()
            .map_or((0, 0), |status| (status.desired_number_scheduled, status.number_ready));
        Installation {
            kind: "DaemonSet",
            namespace: one.namespace().unwrap_or_default(),
            name: one.name_any(),
            wanted,
            ready,
        }
    });
    Ok(of_deployments.chain(of_sets).collect())
}

/// Whether it is the older operator: by the name of its image, or, where that was built under another name, by the labels of
/// its manifests.
fn is_it(metadata: &ObjectMeta, template: &PodTemplateSpec) -> bool {
    let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    let is_labelled = label("app.kubernetes.io/part-of") == Some(NAME)
        && label("app.kubernetes.io/component") == Some("manager");
    let containers = template.spec.iter().flat_map(|pod| &pod.containers);
    is_labelled
        || containers
            .filter_map(|container| container.image.as_deref())
            .any(|image| image_name(image) == NAME)
}

/// The last part of an image's name, without registry, tag and digest.
fn image_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last)
}

/// Whether schedules of its kind wait for it to take off its finalizer.
async fn schedules(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let objects = match session.list::<LegacyCheckpointSchedule>(None, &ListParams::default()).await {
        Ok(objects) => objects,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return findings.unknown("the older operator's schedules", &error),
    };
    for object in &objects {
        let has_finalizer = object.finalizers().iter().any(|one| one == FINALIZER);
        if has_finalizer && object.metadata.deletion_timestamp.is_some() {
            let what = format!(
                "CheckpointSchedule {}/{} is deleted and waits for the older operator's finalizer",
                object.namespace().unwrap_or_default(),
                object.name_any()
            );
            let hint = "the controller takes it off where the older operator does not run";
            findings.add(Grade::Error, &what, Some(hint))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_last_name_whatever_registry_tag_and_digest_it_has() {
        for image in [
            "checkpoint-restore-operator",
            "criu/checkpoint-restore-operator:latest",
            "quay.io:5000/criu/checkpoint-restore-operator:v0.1.0",
            "registry/x/checkpoint-restore-operator@sha256:0011",
            "registry/x/checkpoint-restore-operator:v1@sha256:0011",
        ] {
            assert_eq!(image_name(image), NAME, "{image}");
        }
        for image in ["checkpoint-restore-operator/sidecar:v1", "x/my-checkpoint-restore-operator", ""] {
            assert_ne!(image_name(image), NAME, "{image}");
        }
    }
}
