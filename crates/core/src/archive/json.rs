//! What the two JSON members say.
//!
//! `config.dump` is checkpointctl's `ContainerConfig` (`lib/metadata.go`) or Podman's own container
//! configuration, `spec.dump` an OCI runtime specification. Only the fields that matter are kept, a
//! field of the wrong type is one that is not there, and of a key that comes twice the last one
//! counts, as in Go.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::annotations::Annotations;
use crate::json_scalar::{Scalar, Text};

/// No key that matters is longer, in bytes.
const MAX_KEY: usize = 64;

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
                while let Some(key) = map.next_key::<Scalar<'_>>()? {
                    let Text::Short(key) = key.as_text::<A::Error>(MAX_KEY)? else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let text = match &*key {
                        "id" => &mut config.id,
                        "name" => &mut config.name,
                        "rootfsImageName" => &mut config.image,
                        "rootfsImageRef" => &mut config.image_ref,
                        "rootfsImageID" => &mut image_id,
                        "runtime" => &mut config.runtime,
                        "createdTime" => {
                            config.created_at = map.next_value::<Scalar<'_>>()?.time()?;
                            continue;
                        }
                        "checkpointedTime" => {
                            config.checkpointed_at = map.next_value::<Scalar<'_>>()?.time()?;
                            continue;
                        }
                        "restoredTime" => {
                            config.restored_at = map.next_value::<Scalar<'_>>()?.time()?;
                            continue;
                        }
                        "restored" => {
                            config.restored = map.next_value::<Scalar<'_>>()?.bool();
                            continue;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *text = map.next_value::<Scalar<'_>>()?.text()?;
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
                while let Some(key) = map.next_key::<Scalar<'_>>()? {
                    if matches!(key.as_text::<A::Error>(MAX_KEY)?, Text::Short(key) if key == "annotations") {
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
