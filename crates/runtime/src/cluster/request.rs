//! The request for each lookup: a read of one object's metadata, nothing else.

use checkpoint_keeper_core::pods::OwnerRef;
use kube::core::Request;
use kube::core::params::{GetParams, ListParams};

/// A read of one object, or of one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Get {
    /// The path of the collection.
    collection: String,
    pub(super) wanted: Wanted,
}

/// What a reply must be about to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The namespace whose UID is the cluster's.
    Cluster(Object),
    /// A namespace.
    Namespace(Object),
    /// A pod.
    Pod(Object),
    /// An owner.
    Owner(Object),
    /// The pods of a node, by a field selector.
    Pods(String),
    /// The kinds of a group's version.
    Kinds,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) group: String,
    /// `pods`
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// How a kind is requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) api_version: String,
    pub(super) plural: String,
    pub(super) is_namespaced: bool,
}

impl Kind {
    /// The kinds that own pods in every cluster. The version is the one that is served, whichever the
    /// reference names.
    pub(super) fn built_in(owner: &OwnerRef) -> Option<Self> {
        let (api_version, plural) = match (owner.group(), owner.kind.as_str()) {
            ("apps", "ReplicaSet") => ("apps/v1", "replicasets"),
            ("apps", "Deployment") => ("apps/v1", "deployments"),
            ("apps", "StatefulSet") => ("apps/v1", "statefulsets"),
            ("apps", "DaemonSet") => ("apps/v1", "daemonsets"),
            ("batch", "Job") => ("batch/v1", "jobs"),
            ("batch", "CronJob") => ("batch/v1", "cronjobs"),
            ("", "ReplicationController") => ("v1", "replicationcontrollers"),
            _ => return None,
        };
        Some(Self { api_version: api_version.to_owned(), plural: plural.to_owned(), is_namespaced: true })
    }
}

impl Get {
    pub(super) fn cluster() -> Self {
        let wanted = Wanted::Cluster(core("namespaces", None, "kube-system"));
        Self { collection: "/api/v1/namespaces".to_owned(), wanted }
    }

    pub(super) fn namespace(name: &str) -> Self {
        let wanted = Wanted::Namespace(core("namespaces", None, name));
        Self { collection: "/api/v1/namespaces".to_owned(), wanted }
    }

    pub(super) fn pod(namespace: &str, name: &str) -> Self {
        let wanted = Wanted::Pod(core("pods", Some(namespace), name));
        Self { collection: format!("/api/v1/namespaces/{namespace}/pods"), wanted }
    }

    /// All pods of a node that run, or are about to.
    pub(super) fn pods_on(node: &str) -> Self {
        Self { collection: "/api/v1/pods".to_owned(), wanted: Wanted::Pods(running_on(node)) }
    }

    pub(super) fn kinds_of(api_version: &str) -> Self {
        Self { collection: root(api_version), wanted: Wanted::Kinds }
    }

    pub(super) fn owner(kind: &Kind, namespace: &str, name: &str) -> Self {
        let namespace = kind.is_namespaced.then(|| namespace.to_owned());
        let within = namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}"));
        let collection = format!("{}{}/{}", root(&kind.api_version), within.unwrap_or_default(), kind.plural);
        let group = kind.api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let object = Object { group, plural: kind.plural.clone(), namespace, name: name.to_owned() };
        Self { collection, wanted: Wanted::Owner(object) }
    }

    /// The request to send.
    pub(super) fn http(&self) -> Result<http::Request<Vec<u8>>, kube::core::request::Error> {
        let request = Request::new(self.collection.clone());
        match &self.wanted {
            Wanted::Cluster(object)
            | Wanted::Namespace(object)
            | Wanted::Pod(object)
            | Wanted::Owner(object) => request.get_metadata(&object.name, &GetParams::default()),
            Wanted::Pods(fields) => request.list_metadata(&ListParams::default().fields(fields)),
            Wanted::Kinds => {
                let (parent, version) = self.collection.rsplit_once('/').unwrap_or_default();
                Request::new(parent).get(version, &GetParams::default())
            }
        }
    }
}

fn core(plural: &str, namespace: Option<&str>, name: &str) -> Object {
    Object {
        group: String::new(),
        plural: plural.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    }
}

fn root(api_version: &str) -> String {
    let kind = if api_version.contains('/') { "apis" } else { "api" };
    format!("/{kind}/{api_version}")
}

/// Whether an owner reference can be made into a path. Users write the references of their pods, and the API does not
/// check them.
pub(super) fn check(owner: &OwnerRef) -> Result<(), String> {
    let is_part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        (1..=253).contains(&part.len()) && part.bytes().all(plain) && part != "." && part != ".."
    };
    let mut versions = owner.api_version.split('/');
    let is_version = versions.by_ref().take(2).all(is_part) && versions.next().is_none();
    if is_version && is_part(&owner.name) {
        Ok(())
    } else {
        Err("its owner reference names nothing that can exist".to_owned())
    }
}

/// The field selector of the pods of a node that run, or are about to.
pub fn running_on(node: &str) -> String {
    format!("spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed")
}

/// Whether a node can have that name.
pub fn is_node_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(plain)
}
