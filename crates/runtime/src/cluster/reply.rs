//! What a reply means. Pure: a status and a body in, a [`LookupResult`] out.
//!
//! Only the API itself, speaking of the very object that was asked for, can say that it is not
//! there. A proxy's 404, one for a kind that is not served (any more), and whatever cannot be
//! understood are no answers.

use checkpoint_keeper_api::api_object::Metadata;
use checkpoint_keeper_core::pods::{LivePod, LookupResult, OwnerRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;

use super::request::{Get, Kind, Object, Wanted};

/// The kubelet's mark on the mirror of a static pod (kubelet `pkg/kubelet/types`).
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// The longest part of a message that is worth showing.
const MESSAGE: usize = 200;

#[derive(Deserialize)]
struct Partials {
    kind: String,
    items: Vec<Metadata>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    kind: String,
    reason: String,
    message: String,
    details: Details,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    name: String,
    group: String,
    /// The plural, against what its name says (`apimachinery/pkg/api/errors`, `NewNotFound`).
    kind: String,
}

#[derive(Deserialize)]
struct Kinds {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    namespaced: bool,
}

/// Why there is no answer.
pub(super) enum Refusal {
    /// The API does not let us read it.
    Forbidden(String),
    /// Whatever else.
    Failed(String),
}

impl From<Refusal> for LookupResult {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Forbidden(why) => Self::Forbidden(why),
            Refusal::Failed(why) => Self::Failed(why),
        }
    }
}

/// What a reply to `get` says.
pub(super) fn finding(get: &Get, status: u16, body: &[u8]) -> LookupResult {
    match (&get.wanted, status) {
        (
            Wanted::Cluster(object) | Wanted::Namespace(object) | Wanted::Pod(object) | Wanted::Owner(object),
            200,
        ) => match of_object(object, body) {
            Some(metadata) => found(&get.wanted, metadata),
            None => LookupResult::Failed(format!("the reply is no such object: {}", beginning(body))),
        },
        (Wanted::Pods(_), 200) => {
            let list = serde_json::from_slice::<Partials>(body).ok();
            let list =
                list.filter(|list| ["PartialObjectMetadataList", "PodList"].contains(&list.kind.as_str()));
            let pods = list.and_then(|list| {
                let pod = |item: Metadata| item.metadata.namespace.is_some().then(|| live_pod(item));
                list.items.into_iter().map(pod).collect()
            });
            pods.map_or_else(
                || LookupResult::Failed(format!("the reply is no list of pods: {}", beginning(body))),
                LookupResult::NodePods,
            )
        }
        (
            Wanted::Cluster(object) | Wanted::Namespace(object) | Wanted::Pod(object) | Wanted::Owner(object),
            404,
        ) if is_not_found(object, body) => LookupResult::NotFound,
        _ => refusal(status, body).into(),
    }
}

/// How a kind is requested, by the reply to a request for all kinds of its group's version.
pub(super) fn kind(owner: &OwnerRef, status: u16, body: &[u8]) -> Result<Kind, Refusal> {
    if status != 200 {
        return Err(refusal(status, body));
    }
    let kinds: Kinds = serde_json::from_slice(body)
        .map_err(|_| Refusal::Failed(format!("the reply lists no kinds: {}", beginning(body))))?;
    let is_it = |resource: &Resource| resource.kind == owner.kind && !resource.name.contains('/');
    let not_served =
        || Refusal::Failed(format!("the API serves no {} of {}", plain(&owner.kind), owner.api_version));
    let resource = kinds.resources.into_iter().find(is_it).ok_or_else(not_served)?;
    Ok(Kind {
        api_version: owner.api_version.clone(),
        plural: resource.name,
        is_namespaced: resource.namespaced,
    })
}

/// The metadata in a body, if it is that object's.
fn of_object(object: &Object, body: &[u8]) -> Option<Metadata> {
    let read = serde_json::from_slice::<Metadata>(body).ok()?;
    let metadata = &read.metadata;
    let is_it = metadata.name.as_ref() == Some(&object.name) && metadata.namespace == object.namespace;
    (is_it && metadata.uid.is_some()).then_some(read)
}

fn found(wanted: &Wanted, read: Metadata) -> LookupResult {
    match wanted {
        // Every cluster has this namespace from the start, and the API refuses to delete it.
        Wanted::Cluster(_) => read.metadata.uid.map_or_else(
            || LookupResult::Failed("the namespace has no UID".to_owned()),
            LookupResult::Cluster,
        ),
        Wanted::Namespace(_) => namespace(read)
            .unwrap_or_else(|| LookupResult::Failed("the namespace has no creationTimestamp".to_owned())),
        Wanted::Pod(_) => LookupResult::Pod(live_pod(read)),
        _ => LookupResult::Owner {
            uid: read.metadata.uid,
            controller: controller(read.metadata.owner_references),
        },
    }
}

/// What a namespace's metadata say.
pub fn namespace(read: Metadata) -> Option<LookupResult> {
    let created = read.metadata.creation_timestamp?.0;
    if read.has_too_many_labels {
        return Some(LookupResult::Failed("the namespace has more labels than are read".to_owned()));
    }
    Some(LookupResult::Namespace { labels: read.metadata.labels.into_iter().flatten().collect(), created })
}

/// What a pod's metadata say.
pub fn live_pod(read: Metadata) -> LivePod {
    let Metadata { metadata, has_too_many_labels } = read;
    let is_mirror = metadata.annotations.is_some_and(|annotations| annotations.contains_key(MIRROR));
    LivePod {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.filter(|_| !is_mirror),
        labels: (!has_too_many_labels).then(|| metadata.labels.into_iter().flatten().collect()),
        controller: controller(metadata.owner_references),
    }
}

fn controller(references: Option<Vec<OwnerReference>>) -> Option<OwnerRef> {
    let controls = |reference: &OwnerReference| reference.controller == Some(true);
    let OwnerReference { api_version, kind, name, uid, .. } = references?.into_iter().find(controls)?;
    Some(OwnerRef { api_version, kind, name, uid: Some(uid) })
}

/// Whether the API says of that very object that it is not there.
fn is_not_found(object: &Object, body: &[u8]) -> bool {
    serde_json::from_slice::<Status>(body).is_ok_and(|status| {
        status.kind == "Status"
            && status.reason == "NotFound"
            && status.details.name == object.name
            && status.details.kind == object.plural
            && status.details.group == object.group
    })
}

/// A reply that answers nothing.
fn refusal(status: u16, body: &[u8]) -> Refusal {
    match serde_json::from_slice::<Status>(body) {
        Ok(said) if said.kind == "Status" => {
            let why = format!("{} ({}, {status})", plain(&said.message), plain(&said.reason));
            if status == 403 && said.reason == "Forbidden" {
                Refusal::Forbidden(why)
            } else {
                Refusal::Failed(why)
            }
        }
        _ => Refusal::Failed(format!("{status}: {}", beginning(body))),
    }
}

fn beginning(body: &[u8]) -> String {
    plain(&String::from_utf8_lossy(&body[..body.len().min(MESSAGE)]))
}

/// Text from outside, on one line, not too long, and without what a terminal would act on.
pub(super) fn plain(text: &str) -> String {
    let visible = |char: char| if char.is_control() { ' ' } else { char };
    let short: String = text.chars().take(MESSAGE).map(visible).collect();
    short.trim().to_owned()
}
