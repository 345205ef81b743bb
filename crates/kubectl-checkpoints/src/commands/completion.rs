//! `completion` and `version`; and what completes the names of objects.

use std::io::Write;

use checkpoint_keeper_api::{ContainerCheckpoint, NodeCheckpointStore};
use clap::CommandFactory;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cli::{Arguments, Complete, Completion};
use crate::failure::Failure;
use crate::session::Session;

/// What kubectl runs to complete `kubectl checkpoints`: a program of this name in the path.
const FOR_KUBECTL: &str = "\
#!/bin/sh
# kubectl completes `kubectl checkpoints` by this, as kubectl_complete-checkpoints in the path.
exec kubectl checkpoints __complete \"$@\"
";

/// Prints a script.
pub fn script(arguments: &Completion) -> Result<(), Failure> {
    let mut text = Vec::new();
    match arguments.shell {
        Some(shell) => {
            clap_complete::generate(shell, &mut Arguments::command(), "kubectl-checkpoints", &mut text);
        }
        None => text.extend_from_slice(FOR_KUBECTL.as_bytes()),
    }
    Ok(std::io::stdout().write_all(&text)?)
}

/// Prints name and version, as `--version` does.
pub fn version() -> Result<(), Failure> {
    Ok(std::io::stdout().write_all(Arguments::command().render_version().as_bytes())?)
}

/// What may stand in place of the last word: one a line, and then `:4`, by which kubectl knows that no files are meant.
pub async fn candidates(session: &Session, arguments: &Complete) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    let (begin, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (*last, before));
    let names = match before {
        [] => commands(),
        [.., "--node"] => names_of::<NodeCheckpointStore>(session, None).await,
        ["show" | "explain" | "pin" | "unpin" | "discard", ..] => {
            names_of::<ContainerCheckpoint>(session, Some(&session.namespace)).await
        }
        ["create", ..] => names_of::<Pod>(session, Some(&session.namespace)).await,
        _ => Vec::new(),
    };
    let mut text: String =
        names.iter().filter(|name| name.starts_with(begin)).map(|name| format!("{name}\n")).collect();
    text.push_str(":4\n");
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn commands() -> Vec<String> {
    let command = Arguments::command();
    command.get_subcommands().filter(|one| !one.is_hide_set()).map(|one| one.get_name().to_owned()).collect()
}

async fn names_of<K>(session: &Session, namespace: Option<&str>) -> Vec<String>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + std::fmt::Debug,
{
    // Who cannot see them completes nothing; a shell is no place to complain.
    let objects: Vec<K> = session.list(namespace, &ListParams::default()).await.unwrap_or_default();
    objects.iter().map(ResourceExt::name_any).collect()
}
