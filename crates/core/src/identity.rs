//! Whose checkpoint an archive holds: the container, by the names the runtime wrote.
//!
//! Holds the rule that turns what is written inside an archive into an [`Identity`]. Reading the
//! archive's bytes is [`crate::archive`]'s part; a file's *name* is never an identity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::annotations::{Annotations, CHECKPOINTCTL, CONTAINERD, CRI_O_LABELS, Dialect, KUBELET};

/// The container whose checkpoint an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID; for a static pod, the hash of its manifest. Some runtimes leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The container's name in the pod.
    pub container: String,
}

impl Dialect {
    /// The identity in this dialect, if namespace, pod and container are there and well-formed,
    /// and the UID is well-formed or not there (an empty one is not there).
    fn identity(&self, values: &BTreeMap<String, String>) -> Option<Identity> {
        let namespace = values.get(self.namespace).filter(|name| is_label(name))?;
        let pod = values.get(self.pod).filter(|name| is_subdomain(name))?;
        let container = values.get(self.container).filter(|name| is_label(name))?;
        let pod_uid = match values.get(self.uid) {
            Some(uid) if !uid.is_empty() => Some(uid.clone()).filter(|uid| is_uid(uid))?.into(),
            _ => None,
        };
        Some(Identity {
            namespace: namespace.clone(),
            pod: pod.clone(),
            pod_uid,
            container: container.clone(),
        })
    }
}

/// A container's name as the runtime made it, taken apart.
pub(crate) struct RuntimeName {
    pub(crate) identity: Identity,
    /// How often the kubelet had restarted the container; absent when it is no 32-bit number.
    pub(crate) attempt: Option<u32>,
}

impl RuntimeName {
    /// Splits `[k8s_]<container>_<pod>_<namespace>_<uid>_<attempt>`. Others make names of five parts
    /// as well; what tells them apart is the UID.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        // One more than can be right, so that a name of any length costs the same.
        let parts: Vec<&str> = name.splitn(7, '_').collect();
        let ([container, pod, namespace, uid, attempt] | ["k8s", container, pod, namespace, uid, attempt]) =
            *parts.as_slice()
        else {
            return None;
        };
        let well_formed = is_label(container)
            && is_subdomain(pod)
            && is_label(namespace)
            && is_pod_uid(uid)
            && !attempt.is_empty()
            && attempt.bytes().all(|byte| byte.is_ascii_digit());
        well_formed.then(|| Self {
            identity: Identity {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                pod_uid: Some(uid.to_owned()),
                container: container.to_owned(),
            },
            attempt: attempt.parse().ok(),
        })
    }
}

impl Identity {
    /// The identity in a container's name as the runtime makes it:
    /// `[k8s_]<container>_<pod>_<namespace>_<uid>_<attempt>` (containerd without the prefix, CRI-O
    /// with it). None of the parts can hold an underscore, so a name either splits exactly or is
    /// none of theirs.
    pub fn from_runtime_name(name: &str) -> Option<Self> {
        RuntimeName::parse(name).map(|name| name.identity)
    }

    /// The identity that annotations give, by the first dialect that is complete and well-formed:
    /// CRI-O's label map, the kubelet's names, containerd's, checkpointctl's.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Option<Self> {
        annotations
            .get(CRI_O_LABELS)
            .and_then(|labels| serde_json::from_str::<Annotations>(labels).ok())
            .and_then(|labels| KUBELET.identity(&labels.0))
            .or_else(|| KUBELET.identity(annotations))
            .or_else(|| CONTAINERD.identity(annotations))
            .or_else(|| CHECKPOINTCTL.identity(annotations))
    }

    /// Whose checkpoint it is. The runtime's name decides alone where it splits exactly, because a
    /// pod's own annotations get copied among the runtime's: they supply what is missing and
    /// override nothing. So where name and annotations speak of two containers (as in hand-made
    /// archives of the older operator's tests), it is the name's.
    ///
    /// Not for archives that libpod wrote, as they are of no Kubernetes pod: the caller has to exclude those.
    pub fn resolve(name: Option<&str>, annotations: &BTreeMap<String, String>) -> Option<Self> {
        name.and_then(Self::from_runtime_name).or_else(|| Self::from_annotations(annotations))
    }
}

/// A DNS label (RFC 1123): what a namespace and a container may be called.
fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_dns_part(name)
}

/// A DNS subdomain as Kubernetes checks it (no limit on one label): what a pod may be called.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_part)
}

fn is_dns_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('-')
        && !part.ends_with('-')
        && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// What the API server and the kubelet make for a pod: a UUID, or for a static pod, 32 hexadecimal
/// digits. (A static pod's manifest may name any other UID; then annotations decide.)
fn is_pod_uid(uid: &str) -> bool {
    let groups: Vec<usize> = uid.splitn(6, '-').map(str::len).collect();
    (groups == [8, 4, 4, 4, 12] || groups == [32])
        && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// A UID or a static pod's hash, held loosely: it is compared, never taken apart.
fn is_uid(uid: &str) -> bool {
    (1..=128).contains(&uid.len())
        && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "5744a2df-d174-487a-aa0c-c20695010502";

    fn text(name: &str) -> Option<String> {
        let id = Identity::from_runtime_name(name)?;
        let uid = id.pod_uid.unwrap_or_default();
        Some(format!("{}/{}/{}/{uid}", id.namespace, id.pod, id.container))
    }

    #[test]
    fn a_runtime_name_splits_exactly_or_not_at_all() {
        let long_label = "a".repeat(63);
        let too_long = "a".repeat(64);
        let table = [
            ("server_web-0_shop_{UID}_0", Some("shop/web-0/server/{UID}")),
            ("k8s_server_web-0_shop_{UID}_12", Some("shop/web-0/server/{UID}")),
            ("k8s_web-0_shop_{UID}_0", Some("shop/web-0/k8s/{UID}")),
            ("k8s_k8s_web-0_shop_{UID}_0", Some("shop/web-0/k8s/{UID}")),
            ("server_web.0.a_shop_{UID}_0", Some("shop/web.0.a/server/{UID}")),
            ("x_server_web-0_shop_{UID}_0", None),
            ("k8s_server_web-0_shop_{UID}_0_0", None),
            ("server_web-0_shop_{UID}", None),
            ("server_web-0_shop_{UID}_", None),
            ("k8s_server_web-0_shop_{UID}_", None),
            ("server_web-0_shop_{UID}_0_", None),
            ("server_web-0_shop_{UID}_x", None),
            ("server_web-0_shop_{UID}_-1", None),
            ("server_web-0_shop__0", None),
            ("server_web-0__{UID}_0", None),
            ("_web-0_shop_{UID}_0", None),
            ("server_*_shop_{UID}_0", None),
            ("server_web-0_*_{UID}_0", None),
            ("Server_web-0_shop_{UID}_0", None),
            ("server_web..0_shop_{UID}_0", None),
            ("server_-web_shop_{UID}_0", None),
            ("server_web_shop.eu_{UID}_0", None),
            ("ledger", None),
            ("", None),
            ("_____", None),
        ];
        for (name, wanted) in table {
            let wanted = wanted.map(|wanted| wanted.replace("{UID}", UID));
            assert_eq!(text(&name.replace("{UID}", UID)), wanted, "{name}");
        }
        assert!(text(&format!("{long_label}_web_shop_{UID}_0")).is_some());
        assert_eq!(text(&format!("{too_long}_web_shop_{UID}_0")), None);
        assert!(text(&format!("c_{}_shop_{UID}_0", "p".repeat(253))).is_some());
        assert_eq!(text(&format!("c_{}_shop_{UID}_0", "p".repeat(254))), None);
        for (name, is_ours) in [
            ("c_p_n_0123456789abcdef0123456789abcdef_0", true),
            ("c_p_n_5744A2DF-D174-487A-AA0C-C20695010502_4294967295", true),
            // What podman-compose makes of a project `my_app` with a service `web_api`.
            ("my_app_web_api_1", false),
            ("k8s_my_app_web_api_1", false),
            ("c_p_n_u-1_0", false),
            ("c_p_n_5744a2dfd174487aaa0cc20695010502a_0", false),
            ("c_p_n_5744a2df-d174-487a-aa0cc2069501-0502_0", false),
            ("c_p_n_5744a2df-d174-487a-aa0c-c20695010502-_0", false),
            ("c_p_n_5744a2df-d174-487a-aa0c-c2069501050g_0", false),
            ("c_p_n_5744a2df-d174-487a-aa0c-c2069501050_0", false),
            ("c_p_n_--------------------------------_0", false),
        ] {
            assert_eq!(text(name).is_some(), is_ours, "{name}");
        }
    }

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    const FULL: &str = r#"{"io.kubernetes.pod.namespace":"a","io.kubernetes.pod.name":"b",
        "io.kubernetes.pod.uid":"u","io.kubernetes.container.name":"c"}"#;

    #[test]
    fn a_dialect_counts_only_whole() {
        let pod = |ns, name| {
            annotations(&[(KUBELET.namespace, ns), (KUBELET.pod, name), (KUBELET.container, "c2")])
        };
        let mut both = pod("a2", "b2");
        both.insert(CRI_O_LABELS.into(), FULL.into());
        let id = Identity::from_annotations(&both).unwrap();
        assert_eq!(
            (&*id.namespace, &*id.pod, &*id.container, id.pod_uid.as_deref()),
            ("a", "b", "c", Some("u"))
        );

        // Labels that are empty, not JSON, not a map, partial or malformed: the next dialect.
        let partial = FULL.replace(r#""io.kubernetes.pod.name":"b","#, "");
        let star = FULL.replace(r#":"b""#, r#":"*""#);
        let number = FULL.replace(r#":"b""#, r":7");
        for labels in ["", "{}", "null", "[]", "{", "7", &partial, &star, &number] {
            let mut both = pod("a2", "b2");
            both.insert(CRI_O_LABELS.into(), labels.into());
            let id = Identity::from_annotations(&both).unwrap();
            assert_eq!((&*id.namespace, &*id.pod, id.pod_uid), ("a2", "b2", None), "{labels}");
        }

        // Never put together from two dialects.
        let mixed = annotations(&[
            (KUBELET.namespace, "a"),
            (KUBELET.pod, "b"),
            (CONTAINERD.container, "c"),
            (CHECKPOINTCTL.namespace, "a"),
            (CHECKPOINTCTL.container, "c"),
        ]);
        assert_eq!(Identity::from_annotations(&mixed), None);
        assert_eq!(Identity::from_annotations(&pod("a", "*")), None);
        assert_eq!(Identity::from_annotations(&pod("", "b")), None);
        let mut uid = pod("a", "b");
        for malformed in ["../u", "u/1", "u 1", "u_1", "é"] {
            uid.insert(KUBELET.uid.into(), malformed.into());
            assert_eq!(Identity::from_annotations(&uid), None, "a malformed UID spoils its dialect");
        }
        uid.insert(KUBELET.uid.into(), "u.1-X".into());
        assert_eq!(Identity::from_annotations(&uid).unwrap().pod_uid.as_deref(), Some("u.1-X"));
        uid.insert(KUBELET.uid.into(), String::new());
        assert_eq!(Identity::from_annotations(&uid).unwrap().pod_uid, None);
    }

    #[test]
    fn annotations_never_override_the_runtimes_name() {
        let theirs = annotations(&[(CRI_O_LABELS, FULL)]);
        let id = Identity::resolve(Some(&format!("server_web-0_shop_{UID}_0")), &theirs).unwrap();
        assert_eq!((&*id.namespace, &*id.pod, &*id.container), ("shop", "web-0", "server"));
        let id = Identity::resolve(Some("ledger"), &theirs).unwrap();
        assert_eq!((&*id.namespace, &*id.pod, &*id.container), ("a", "b", "c"));
        assert_eq!(Identity::resolve(None, &BTreeMap::new()), None);
    }
}
