//! That every manifest in the book, and every example, is one that `gc` and the API server take. That a real API server
//! takes them too is tested on one: `tests/cluster/tests/cluster/book.rs`.

use checkpoint_keeper_api::manifest;
use checkpoint_keeper_api::{ContainerCheckpointSpec, NodeCheckpointStoreSpec};
use kube::core::cel::Validator;
use serde_json::Value;

use crate::source::{DEFINITIONS, Definition, pages};

/// A policy, for files that hold none: `gc` wants one.
const POLICY: &str = "{apiVersion: checkpoint-keeper.io/v1alpha1, kind: ClusterCheckpointPolicy, metadata: {name: beside}, \
                      spec: {retention: {maxAge: 1d}}}";

/// Each manifest of the book, and where it is.
fn manifests() -> Vec<(String, String)> {
    let blocks = pages().into_values().flat_map(|page| page.blocks());
    blocks.filter(|block| block.language == "yaml").map(|block| (block.place, block.text)).collect()
}

fn documents(place: &str, text: &str) -> Vec<Value> {
    let documents: Result<Vec<Value>, _> = serde_saphyr::from_multiple(text);
    documents.unwrap_or_else(|error| panic!("{place}: {error}"))
}

/// What the API server's schema and rules say to an object.
fn by_rules(object: &Value) -> Vec<String> {
    let is_it = |definition: &&Definition| {
        object["apiVersion"] == definition.api_version.as_str() && object["kind"] == definition.kind.as_str()
    };
    let definition = DEFINITIONS.iter().find(is_it);
    let definition =
        definition.unwrap_or_else(|| panic!("there is no kind {} {}", object["apiVersion"], object["kind"]));
    // This evaluator lacks type(); on ints and texts the other spelling says the same.
    let schema = definition
        .schema
        .to_string()
        .replace("type(self) == int", "string(self) != self")
        .replace("type(self) in [int]", "string(self) != self");
    match Validator::new().validate(&schema.parse().unwrap(), object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn every_manifest_of_ours_is_understood_and_valid() {
    let (mut count, mut kinds) = (0, std::collections::BTreeSet::new());
    for (place, text) in manifests() {
        let documents = documents(&place, &text);
        assert!(!documents.is_empty(), "{place}: holds no object");
        for object in &documents {
            let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
            let (Some(version), Some(kind)) = (version, kind) else {
                panic!("{place}: is no manifest; if it is a part of one, it is yaml,fragment: {object}")
            };
            assert!(object["metadata"]["name"].is_string(), "{place}: {kind} has no name");
            if !version.starts_with("checkpoint-keeper.io/") && !version.starts_with("criu.org/") {
                continue;
            }
            count += 1;
            kinds.insert(kind.to_owned());
            assert_eq!(by_rules(object), Vec::<String>::new(), "{place}: {kind}");
            // What no file of policies holds is read by its type: no field may be lost.
            let spec = object["spec"].clone();
            let read = match kind {
                "ContainerCheckpoint" => serde_json::from_value::<ContainerCheckpointSpec>(spec.clone())
                    .map(|spec| serde_json::to_value(spec).unwrap()),
                "NodeCheckpointStore" => serde_json::from_value::<NodeCheckpointStoreSpec>(spec.clone())
                    .map(|spec| serde_json::to_value(spec).unwrap()),
                _ => {
                    let files = [("manifest", object.to_string()), ("policy", POLICY.to_owned())];
                    if let Err(errors) = manifest::load(&files) {
                        panic!("{place}: {errors:?}");
                    }
                    continue;
                }
            };
            assert_eq!(read.unwrap_or_else(|error| panic!("{place}: {error}")), spec, "{place}");
        }
    }
    assert!(count >= 10 && kinds.len() >= 4, "only {count} manifests of {kinds:?} were found");
}

#[test]
fn every_part_of_a_manifest_is_yaml() {
    for page in pages().values() {
        for block in page.blocks().into_iter().filter(|block| block.language == "yaml,fragment") {
            documents(&block.place, &block.text);
        }
    }
}

/// A language that nobody knows would be shown without colours, and be checked by nobody.
#[test]
fn every_block_says_what_it_is() {
    let known = ["yaml", "yaml,fragment", "sh", "console", "json", "text", "promql"];
    for page in pages().values() {
        for block in page.blocks() {
            let is_known = known.contains(&block.language.as_str());
            assert!(is_known, "{}: {:?} is none of {known:?}", block.place, block.language);
        }
    }
}
