//! What the two JSON members say.
//!
//! `config.dump` is checkpointctl's `ContainerConfig` (`lib/metadata.go`) or Podman's own container
//! configuration, `spec.dump` an OCI runtime specification. Only the fields that matter are kept, a
//! field of the wrong type is one that is not there, and of a key that comes twice the last one
//! counts, as in Go.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::identity::Identity;

/// Who made the container: `cri-o` or `libpod` (containers/storage, CRI-O and Podman).
pub(super) const MANAGER: &str = "io.container.manager";
/// The engine, as checkpointctl writes it.
pub(super) const CHECKPOINTCTL_ENGINE: &str = "org.criu.checkpoint.engine.name";

/// The longest name, image or other text that is kept from `config.dump`, in bytes.
const MAX_TEXT: usize = 4 << 10;

/// The fields of `config.dump` that matter.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) image: Option<String>,
    pub(super) image_ref: Option<String>,
    pub(super) runtime: Option<String>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) checkpointed_at: Option<Timestamp>,
    pub(super) restored_at: Option<Timestamp>,
    pub(super) restored: Option<bool>,
    /// Whether there is a `rootfsImageID`, which libpod writes and no CRI runtime does.
    pub(super) has_image_id: bool,
}

impl Config {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        serde_json::from_slice(bytes).map_err(|_| "config.dump is not a JSON object")
    }
}

/// The fields of `spec.dump` that matter.
#[derive(Debug, Default)]
pub(super) struct Spec {
    pub(super) annotations: Annotations,
}

impl Spec {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        serde_json::from_slice(bytes).map_err(|_| "spec.dump is not a JSON object")
    }
}

/// The annotations that have a say in whose or which archive it is. Others are not kept; a value
/// that is no string takes its key away.
#[derive(Debug, Default)]
pub(crate) struct Annotations(pub(crate) BTreeMap<String, String>);

/// A value of which only text and truth count.
enum Scalar {
    Text(String),
    Bool(bool),
    Other,
}

impl Scalar {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() && text.len() <= MAX_TEXT => Some(text),
            _ => None,
        }
    }

    fn bool(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A time, unless it is Go's zero time, which means none.
    fn time(self) -> Option<Timestamp> {
        /// 0001-01-01T00:00:00Z, in seconds from the epoch.
        const GO_ZERO: i64 = -62_135_596_800;
        let time: Timestamp = self.text()?.parse().ok()?;
        (time.as_second() != GO_ZERO || time.subsec_nanosecond() != 0).then_some(time)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a container's configuration")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
                let mut config = Config::default();
                let mut image_id = None;
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "id" => config.id = map.next_value::<Scalar>()?.text(),
                        "name" => config.name = map.next_value::<Scalar>()?.text(),
                        "rootfsImageName" => config.image = map.next_value::<Scalar>()?.text(),
                        "rootfsImageRef" => config.image_ref = map.next_value::<Scalar>()?.text(),
                        "rootfsImageID" => image_id = map.next_value::<Scalar>()?.text(),
                        "runtime" => config.runtime = map.next_value::<Scalar>()?.text(),
                        "createdTime" => config.created_at = map.next_value::<Scalar>()?.time(),
                        "checkpointedTime" => {
                            config.checkpointed_at = map.next_value::<Scalar>()?.time();
                        }
                        "restoredTime" => config.restored_at = map.next_value::<Scalar>()?.time(),
                        "restored" => config.restored = map.next_value::<Scalar>()?.bool(),
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                config.has_image_id = image_id.is_some();
                config.image_ref = config.image_ref.or(image_id);
                Ok(config)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Spec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an OCI runtime specification")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spec, A::Error> {
                let mut spec = Spec::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "annotations" {
                        spec.annotations = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(spec)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

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

fn is_kept(key: &str) -> bool {
    Identity::is_annotation(key) || key == MANAGER || key == CHECKPOINTCTL_ENGINE
}
