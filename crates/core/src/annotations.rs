//! The annotations of `spec.dump` that name a container or its runtime. All others are skipped.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::json_scalar::Scalar;

/// Who made the container: `cri-o` or `libpod` (containers/storage, CRI-O and Podman).
pub(crate) const MANAGER: &str = "io.container.manager";
/// The engine, as checkpointctl writes it.
pub(crate) const CHECKPOINTCTL_ENGINE: &str = "org.criu.checkpoint.engine.name";

/// CRI-O's labels of the container: a JSON map in a string.
pub(crate) const CRI_O_LABELS: &str = "io.kubernetes.cri-o.Labels";

/// The annotations (or labels) that name a container, one set for each writer. The sets are never
/// mixed: a field from one and a field from another may speak of two containers.
pub(crate) struct Dialect {
    pub(crate) namespace: &'static str,
    pub(crate) pod: &'static str,
    pub(crate) uid: &'static str,
    pub(crate) container: &'static str,
}

/// The kubelet's labels, which CRI-O also writes as annotations (kubelet `pkg/kubelet/types`).
pub(crate) const KUBELET: Dialect = Dialect {
    namespace: "io.kubernetes.pod.namespace",
    pod: "io.kubernetes.pod.name",
    uid: "io.kubernetes.pod.uid",
    container: "io.kubernetes.container.name",
};

/// containerd's CRI plugin (`internal/cri/annotations`).
pub(crate) const CONTAINERD: Dialect = Dialect {
    namespace: "io.kubernetes.cri.sandbox-namespace",
    pod: "io.kubernetes.cri.sandbox-name",
    uid: "io.kubernetes.cri.sandbox-uid",
    container: "io.kubernetes.cri.container-name",
};

/// checkpointctl and the images it builds (`lib/annotations.go`).
pub(crate) const CHECKPOINTCTL: Dialect = Dialect {
    namespace: "org.criu.checkpoint.pod.namespace",
    pod: "org.criu.checkpoint.pod.name",
    uid: "org.criu.checkpoint.pod.uid",
    container: "org.criu.checkpoint.container.name",
};

/// The annotations that have a say in whose or which archive it is. Others are not kept; a value
/// that is no string takes its key away.
#[derive(Debug, Default)]
pub(crate) struct Annotations(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Annotations;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut kept = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !is_kept(&key) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    match map.next_value::<Scalar>()? {
                        Scalar::Text(value) => kept.insert(key, value),
                        _ => kept.remove(&key),
                    };
                }
                Ok(Annotations(kept))
            }
            fn visit_str<E>(self, _: &str) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }
            fn visit_unit<E>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }
            fn visit_u64<E>(self, _: u64) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Annotations, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Annotations::default())
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// Whether the annotation is one of those that are kept.
fn is_kept(key: &str) -> bool {
    [CRI_O_LABELS, MANAGER, CHECKPOINTCTL_ENGINE].contains(&key)
        || [KUBELET, CONTAINERD, CHECKPOINTCTL]
            .iter()
            .any(|of| [of.namespace, of.pod, of.uid, of.container].contains(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_of_a_dialect_have_a_say() {
        let dialects = [KUBELET, CONTAINERD, CHECKPOINTCTL];
        let keys = dialects.iter().flat_map(|of| [of.namespace, of.pod, of.uid, of.container]);
        for key in keys.chain([CRI_O_LABELS]) {
            assert!(is_kept(key), "{key}");
        }
        for key in ["app", "io.kubernetes.pod.names", "io.kubernetes.cri-o.Annotations"] {
            assert!(!is_kept(key), "{key}");
        }
    }
}
