//! Writes to the API, one after the other, at a bounded rate. Where one fails, what it was about is left alone for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use checkpoint_keeper_api::api_object::ApiObject;
use checkpoint_keeper_api::container_checkpoint::{NODE_LABEL, node_label};
use checkpoint_keeper_api::{ContainerCheckpoint, ContainerCheckpointSpec, NodeCheckpointStore};
use checkpoint_keeper_core::engine::cluster::{ClusterUpdate, TimedUpdate};
use checkpoint_keeper_core::hold::Hold;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::pods::LookupResult;
use checkpoint_keeper_node::clock;
use checkpoint_keeper_runtime::liveness::now;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

use super::difference::{self, ApiWrite, Object};
use super::entries::Key;
use super::hold_log::HoldLog;
use super::rate::WriteRate;
use super::turns::{HoldThrottle, Turns};
use super::{Inventory, is_older, key_of};
use crate::api_write::{WRITER, WriteError, within_timeout};
use crate::problem_type::ProblemType;

/// How long the objects of a namespace are left alone after a write there failed, at first and at most.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What is remembered from one look to the next.
pub(super) struct Progress {
    rate: WriteRate,
    /// Where a write failed, a namespace or one object of it: until when it is left alone, and for how long that was.
    paused: BTreeMap<(String, Option<String>), (Instant, Duration)>,
    /// When pins that are not shown were last looked at, and which was the last of them.
    pub(super) looked_for_ends: Option<Instant>,
    pub(super) last_hidden: Option<FileName>,
    /// Which object was written last.
    pub(super) turns: Turns,
    /// Which markers were written a moment ago.
    pub(super) holds: HoldThrottle,
    pub(super) log: HoldLog,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            rate: WriteRate::new(now()),
            paused: BTreeMap::new(),
            looked_for_ends: None,
            last_hidden: None,
            turns: Turns::default(),
            holds: HoldThrottle::default(),
            log: HoldLog::new(now()),
        }
    }

    /// Whether an object is left alone for a while, or all of its namespace.
    pub(super) fn is_paused(&self, (namespace, name): &Key) -> bool {
        [None, Some(name.clone())]
            .into_iter()
            .any(|name| self.paused.get(&(namespace.clone(), name)).is_some_and(|(until, _)| now() < *until))
    }
}

impl Inventory {
    /// Writes to the API. Returns whether the next write may follow: an API that does not answer one does not answer
    /// the next either.
    pub(super) async fn write(&self, write: ApiWrite, progress: &mut Progress) -> bool {
        let (namespace, name) = write.key().clone();
        let (all, one) = ((namespace.clone(), None), (namespace.clone(), Some(name)));
        sleep(progress.rate.next(now())).await;
        let is_new = matches!(write, ApiWrite::Create(..));
        let Err(error) = self.carry_out(write).await else {
            progress.paused.remove(&all);
            progress.paused.remove(&one);
            return true;
        };
        // Where nothing can be made, the namespace is gone, or going: the engine asks, and knows better then. What is
        // refused otherwise is one object's affair.
        let code = match &error {
            WriteError::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        };
        let is_namespaces = is_new || code.is_none_or(|code| code == 429 || code >= 500);
        if is_new && code.is_some_and(|code| [403, 404].contains(&code)) {
            let what = ClusterUpdate::Namespaces(vec![(namespace.clone(), LookupResult::NotFound)]);
            self.engine.send_update(TimedUpdate { at: clock::now(), what });
        }
        let place = if is_namespaces { all } else { one };
        let pause = progress.paused.get(&place).map_or(PAUSE, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
        progress.paused.retain(|_, (until, _)| now() < *until + LONGEST_PAUSE);
        progress.paused.insert(place, (now() + pause, pause));
        let what = format!("ContainerCheckpoints of the namespace {namespace} cannot be written: {error}");
        self.context.state.problem(ProblemType::CheckpointsUnwritten, namespace, what, now());
        code.is_some()
    }

    async fn carry_out(&self, write: ApiWrite) -> Result<(), WriteError> {
        let (namespace, name) = write.key().clone();
        // Where nothing can be made, the namespace is gone: that is no success.
        let is_new = matches!(write, ApiWrite::Create(..));
        let api = Api::<ContainerCheckpoint>::namespaced(self.context.client.clone(), &namespace);
        // What users wrote into its metadata keeps no answer from being read.
        let kind = ApiResource::erase::<ContainerCheckpoint>(&());
        let there: Api<ApiObject> = Api::namespaced_with(self.context.client.clone(), &namespace, &kind);
        let read =
            |object: ApiObject| object.parse().map_err(kube::Error::SerdeError).map_err(WriteError::Api);
        let params = PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() };
        let written = match write {
            ApiWrite::Create(_, hold) => {
                let mut object = ContainerCheckpoint::new(&name, spec(hold.as_ref()));
                object.labels_mut().insert(NODE_LABEL.to_owned(), node_label(&self.context.node));
                object.metadata.owner_references =
                    self.context.own.store_uid().map(|uid| vec![self.owner(uid)]);
                let params = PostParams { field_manager: Some(WRITER.to_owned()), ..PostParams::default() };
                within_timeout(api.create(&params, &object)).await
            }
            ApiWrite::Own(_, store) => {
                let patch = Patch::Merge(json!({"metadata": {"ownerReferences": [self.owner(store)]}}));
                within_timeout(there.patch(&name, &params, &patch)).await.and_then(read)
            }
            ApiWrite::Restore(_, hold) => {
                let patch = Patch::Merge(json!({"spec": spec(Some(&hold))}));
                within_timeout(there.patch(&name, &params, &patch)).await.and_then(read)
            }
            ApiWrite::Status(_, status) => {
                let mut object = json!({"apiVersion": api_version(), "kind": ContainerCheckpoint::kind(&())});
                object["metadata"] = json!({"name": name});
                object["status"] = serde_json::to_value(&status).map_err(kube::Error::SerdeError)?;
                let params = PatchParams::apply(WRITER).force();
                within_timeout(there.patch_status(&name, &params, &Patch::Apply(&object)))
                    .await
                    .and_then(read)
            }
            ApiWrite::Delete(key, uid, version) => {
                // What a user asked meanwhile, and the watch has not shown yet, is not to be lost.
                let preconditions = Preconditions { uid: Some(uid), resource_version: Some(version) };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                return match within_timeout(api.delete(&name, &params)).await {
                    Err(WriteError::Api(kube::Error::Api(status))) if [404, 409].contains(&status.code) => {
                        Ok(())
                    }
                    Ok(_) => {
                        // The watch says so a moment later.
                        self.objects().objects.remove(&key);
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
            }
        };
        match written {
            Ok(object) => {
                self.note(&object);
                Ok(())
            }
            // It was deleted meanwhile: the watch says so.
            Err(WriteError::Api(kube::Error::Api(status))) if status.code == 404 && !is_new => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the objects are deleted with: the node's store of that UID, which goes with the node. Else those of a node that is
    /// gone would stay for ever.
    fn owner(&self, uid: String) -> OwnerReference {
        OwnerReference {
            api_version: NodeCheckpointStore::api_version(&()).into_owned(),
            kind: NodeCheckpointStore::kind(&()).into_owned(),
            name: self.context.node.clone(),
            uid,
            ..OwnerReference::default()
        }
    }

    /// Takes over what the API answered, which the watch shows a moment later: until then it would be written again.
    fn note(&self, object: &ContainerCheckpoint) {
        let mut cache = self.objects();
        let key = key_of(object);
        if !cache.objects.get(&key).is_some_and(|known| is_older(object, known.as_ref())) {
            cache.objects.insert(key, Some(Object::of(object)));
        }
    }
}

fn api_version() -> String {
    ContainerCheckpoint::api_version(&()).into_owned()
}

/// A spec with this hold and nothing else.
fn spec(hold: Option<&Hold>) -> ContainerCheckpointSpec {
    ContainerCheckpointSpec { hold: hold.map(difference::spec_of), discard: None }
}
