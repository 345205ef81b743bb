//! The annotations of `spec.dump` that name a container or its runtime. All others are skipped.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::json_scalar::{MAX_TEXT, Scalar, Text};

/// No key that is kept is longer, in bytes.
const MAX_KEY: usize = 64;

/// The longest map of labels that is kept, in bytes. CRI-O writes the names that it holds as annotations, too.
const MAX_LABELS: usize = 512 << 10;

/// What is kept of a value that is too long to be a name: what is no name either.
const TOO_LONG: &str = "(too long)";

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
                while let Some(key) = map.next_key::<Scalar<'_>>()? {
                    let key = match key.as_text::<A::Error>(MAX_KEY)? {
                        Text::Short(key) if is_kept(&key) => key.into_owned(),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    let longest = if key == CRI_O_LABELS { MAX_LABELS } else { MAX_TEXT };
                    match map.next_value::<Scalar<'_>>()?.as_text::<A::Error>(longest)? {
                        Text::Short(value) => kept.insert(key, value.into_owned()),
                        // It is there, and no name of anything.
                        Text::TooLong => kept.insert(key, TOO_LONG.to_owned()),
                        Text::None => kept.remove(&key),
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
            assert!(is_kept(key) && key.len() <= MAX_KEY, "{key}");
        }
        for key in ["app", "io.kubernetes.pod.names", "io.kubernetes.cri-o.Annotations"] {
            assert!(!is_kept(key), "{key}");
        }
    }
    #[test]
    fn what_is_too_long_for_a_name_is_there_and_not_kept() {
        let long = "x".repeat(MAX_TEXT + 1);
        let key = CONTAINERD.namespace;
        let kept = |json: &str| serde_json::from_str::<Annotations>(json).unwrap().0;
        let value = kept(&format!(r#"{{"{key}": "{long}"}}"#)).remove(key);
        assert_eq!(value.as_deref(), Some(TOO_LONG));
        // It counts as any later value does.
        assert_eq!(kept(&format!(r#"{{"{key}": "a", "{key}": "{long}"}}"#))[key], TOO_LONG);
        assert_eq!(kept(&format!(r#"{{"{key}": "{long}", "{key}": "a"}}"#))[key], "a");
        assert_eq!(kept(&format!(r#"{{"{key}": "a", "{key}": 7}}"#)).len(), 0);
        // The labels of a pod are many names, and long keys are none that matter.
        let labels = format!(r#"{{"{CRI_O_LABELS}": "{long}", "{long}": "a", "{long}\n": "a"}}"#);
        assert_eq!(kept(&labels).into_iter().collect::<Vec<_>>(), [(CRI_O_LABELS.to_owned(), long)]);
    }
}
