//! The API's schemas of a version of Kubernetes, as kubeconform reads them: made from what that version's module publishes.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::components::{go, key, once};
use crate::paths::Cache;
use crate::process::output;

/// The oldest version of Kubernetes that is supported, in its last patch.
pub const OLDEST: &str = "1.32.13";

/// Changes with how the schemas are made.
const MADE_AS: &str = "1";

/// The folder with the schemas of a version, which are made if they are not there yet: 10 s for one that was not built.
pub fn provide(cache: &Cache, version: &str) -> anyhow::Result<PathBuf> {
    let folder = cache.folder(&format!("schemas-{}", key(&[version, MADE_AS])));
    once(&folder, |folder| {
        let module = format!("k8s.io/kubernetes@v{version}");
        let found: Value =
            serde_json::from_str(&output(go(cache, folder).args(["mod", "download", "-json", &module]))?)?;
        let source = found["Dir"].as_str().context("Go does not say where the module is")?;
        let text = std::fs::read_to_string(Path::new(source).join("api/openapi-spec/swagger.json"))?;
        write(folder, serde_json::from_str(&text)?)
    })?;
    Ok(folder)
}

/// How kubeconform finds them.
pub fn location(folder: &Path) -> String {
    format!("{}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json", folder.display())
}

/// Writes all definitions into one file, and for each kind one that refers to its own.
fn write(folder: &Path, mut swagger: Value) -> anyhow::Result<()> {
    let mut definitions = swagger["definitions"].take();
    for (name, definition) in definitions.as_object().context("there are no definitions")? {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |field: &str| kind[field].as_str().unwrap_or_default().to_lowercase();
            let (group, version, kind) = (text("group"), text("version"), text("kind"));
            let group = group.split('.').next().filter(|group| !group.is_empty());
            let suffix = group.map_or_else(|| version.clone(), |group| format!("{group}-{version}"));
            let reference = json!({"$ref": format!("_definitions.json#/definitions/{name}")});
            std::fs::write(folder.join(format!("{kind}-{suffix}.json")), reference.to_string())?;
        }
    }
    strict(&mut definitions);
    std::fs::write(folder.join("_definitions.json"), json!({"definitions": definitions}).to_string())?;
    Ok(())
}

/// Allows no field that a schema does not name, and says what Swagger cannot: a number or a text.
fn strict(schema: &mut Value) {
    if let Some(list) = schema.as_array_mut() {
        list.iter_mut().for_each(strict);
    }
    let Some(object) = schema.as_object_mut() else { return };
    object.values_mut().for_each(strict);
    if object.get("format").is_some_and(|format| format == "int-or-string") {
        *object = Map::from_iter([("type".to_owned(), json!(["string", "integer"]))]);
    }
    // A field that is called "properties" is no such list.
    let names_fields = object.get("type").is_some_and(|kind| kind == "object")
        && object.get("properties").is_some_and(Value::is_object);
    if names_fields && !object.contains_key("additionalProperties") {
        object.insert("additionalProperties".to_owned(), json!(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_take_no_unknown_field_and_numbers_where_both_may_be() {
        let mut schema = json!({"type": "object", "properties": {
            "port": {"type": "string", "format": "int-or-string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }});
        strict(&mut schema);
        assert_eq!(
            schema,
            json!({"type": "object", "additionalProperties": false, "properties": {
                "port": {"type": ["string", "integer"]},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }})
        );
    }
}
