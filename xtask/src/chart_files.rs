//! The chart's files that are made from others: `values.yaml` and the table of its README from `values.schema.json`, which
//! says of every value what it is, of which type, and what it is by default; and the definitions from `crates/api`.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context;
use checkpoint_keeper_testcluster::chart::CHART;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::repository::repository;

/// One value of the chart, or a group of values.
#[derive(Debug, Deserialize)]
struct Schema {
    #[serde(default)]
    description: String,
    #[serde(default)]
    default: Value,
    #[serde(default)]
    properties: Properties,
}

/// Values by their names, in the order in which the schema has them.
#[derive(Debug, Default)]
struct Properties(Vec<(String, Schema)>);

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Properties;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("schemas by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                let mut properties = Vec::new();
                while let Some(property) = map.next_entry()? {
                    properties.push(property);
                }
                Ok(Properties(properties))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Schema {
    /// Whether it is a group of values, and none itself.
    fn is_group(&self) -> bool {
        !self.properties.0.is_empty() && self.default.is_null()
    }
}

/// How wide a comment may be.
const WIDTH: usize = 100;

/// A description as comments of this indentation.
fn comment(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + 2 + line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(lines, "{:indent$}# {line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &format!("{:indent$}# {line}\n", "")
}

/// `values.yaml`: each value with its default below its description. JSON is YAML, too.
fn values(properties: &Properties, indent: usize) -> String {
    let mut text = String::new();
    for (name, schema) in &properties.0 {
        if indent == 0 && !text.is_empty() {
            text.push('\n');
        }
        text += &comment(&schema.description, indent);
        if schema.is_group() {
            let _ = writeln!(text, "{:indent$}{name}:", "");
            text += &values(&schema.properties, indent + 2);
        } else {
            let _ = writeln!(text, "{:indent$}{name}: {}", "", schema.default);
        }
    }
    text
}

/// The rows of the README's table, for the values below this prefix.
fn rows(properties: &Properties, prefix: &str) -> String {
    let row = |(name, schema): &(String, Schema)| {
        let path = format!("{prefix}{name}");
        if schema.is_group() {
            return rows(&schema.properties, &format!("{path}."));
        }
        let default = schema.default.to_string().replace('|', "\\|");
        format!("| `{path}` | `{default}` | {} |\n", schema.description.replace('|', "\\|"))
    };
    properties.0.iter().map(row).collect()
}

/// Where the table of values stands in the README. The book includes what is between them.
const BEGIN: &str =
    "<!-- made from values.schema.json by `cargo xtask generate` -->\n<!-- ANCHOR: values -->\n";
const END: &str = "<!-- ANCHOR_END: values -->\n";

/// The generated files: each path below the repository, and its content.
pub(crate) fn files() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let chart = PathBuf::from(CHART);
    let read = |path: &PathBuf| {
        let path = repository().join(path);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let schema: Schema = serde_json::from_str(&read(&chart.join("values.schema.json"))?)?;
    let head = comment("Made from values.schema.json by `cargo xtask generate`; do not edit.", 0);
    let readme = read(&chart.join("README.md"))?;
    let (before, rest) = readme.split_once(BEGIN).context("README.md has no place for the values")?;
    let (_, after) = rest.split_once(END).context("README.md has no end of the values")?;
    let table =
        format!("| value | default | what it is |\n| --- | --- | --- |\n{}", rows(&schema.properties, ""));
    let mut files = vec![
        (chart.join("values.yaml"), format!("{head}\n{}", values(&schema.properties, 0))),
        (chart.join("README.md"), format!("{before}{BEGIN}{table}{END}{after}")),
    ];
    let definitions = checkpoint_keeper_api::crds::crd_files();
    files.extend(definitions.into_iter().map(|(name, content)| (chart.join("files").join(name), content)));
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn committed_files_are_those_that_are_made() {
        let mut definitions = BTreeSet::new();
        for (path, content) in files().unwrap() {
            let committed = std::fs::read_to_string(repository().join(&path)).unwrap_or_default();
            assert!(committed == content, "{} is old: run `cargo xtask generate`", path.display());
            definitions.insert(path);
        }
        for folder in ["crd", "crd-legacy"] {
            let folder = PathBuf::from("charts/checkpoint-keeper/files").join(folder);
            for entry in std::fs::read_dir(repository().join(&folder)).unwrap() {
                let path = folder.join(entry.unwrap().file_name());
                assert!(definitions.contains(&path), "{} is of no kind", path.display());
            }
        }
    }

    #[test]
    fn every_value_has_a_description_a_type_and_a_default() {
        // helm takes a key without a value (`key:`) out of the values: then there is no default for it, either.
        fn requires_all(name: &str, schema: &Schema, raw: &Value) {
            let names: Vec<_> = schema.properties.0.iter().map(|(name, _)| name.clone()).collect();
            assert_eq!(raw["required"], serde_json::json!(names), "{name} takes what has no value");
        }
        fn check(name: &str, schema: &Schema, raw: &Value) {
            assert!(schema.description.ends_with('.'), "{name} has no description");
            assert!(!raw["type"].is_null() || !raw["enum"].is_null(), "{name} has no type");
            if !schema.is_group() {
                assert!(raw.get("default").is_some(), "{name} has no default");
                return;
            }
            assert_eq!(raw["additionalProperties"], false, "{name} takes what is mistyped");
            requires_all(name, schema, raw);
            for (inner, schema) in &schema.properties.0 {
                check(&format!("{name}.{inner}"), schema, &raw["properties"][inner]);
            }
        }
        let text = std::fs::read_to_string(repository().join("charts/checkpoint-keeper/values.schema.json"))
            .unwrap();
        let (schema, raw): (Schema, Value) =
            (serde_json::from_str(&text).unwrap(), serde_json::from_str(&text).unwrap());
        assert_eq!(raw["additionalProperties"], false);
        requires_all("the chart", &schema, &raw);
        for (name, schema) in &schema.properties.0 {
            check(name, schema, &raw["properties"][name]);
        }
    }

    #[test]
    fn a_pool_can_override_every_setting_of_agents() {
        let text = std::fs::read_to_string(repository().join("charts/checkpoint-keeper/values.schema.json"))
            .unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        let agent = &schema["properties"]["agent"]["properties"];
        let pool = &agent["pools"]["additionalProperties"];
        assert_eq!(pool["additionalProperties"], false, "a pool takes what is mistyped");
        let names = |properties: &Value, without: &str| -> BTreeSet<String> {
            let names = properties.as_object().unwrap().keys().cloned();
            names.filter(|name| name != without).collect()
        };
        assert_eq!(names(&pool["properties"], "nodeLabel"), names(agent, "pools"));
        for name in names(agent, "pools") {
            let same = format!("#/properties/agent/properties/{name}");
            // Of a group a pool may have a part.
            let group = agent[&name]["properties"].as_object();
            for inner in group.into_iter().flat_map(serde_json::Map::keys) {
                let own = &pool["properties"][&name]["properties"][inner]["$ref"];
                assert_eq!(*own, format!("{same}/properties/{inner}"));
            }
            assert!(group.is_some() || pool["properties"][&name]["$ref"] == same, "{name}");
        }
    }
}
