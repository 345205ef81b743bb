//! `completion`, `man` and `version`; and what completes the names of objects.

use std::io::Write;

use checkpoint_keeper_api::{ContainerCheckpoint, NodeCheckpointStore};
use clap::{CommandFactory, FromArgMatches};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cli::{Arguments, Complete, Completion, Global, Man};
use crate::failure::Failure;
use crate::session::Session;

/// What kubectl runs to complete `kubectl checkpoints`: a program of this name in the path.
const FOR_KUBECTL: &str = "\
#!/bin/sh
# kubectl completes `kubectl checkpoints` by this, as kubectl_complete-checkpoints in the path.
exec kubectl checkpoints __complete -- \"$@\"
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

/// Writes a manual page for the program and for each command.
pub fn man(arguments: &Man) -> Result<(), Failure> {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory)
        .and_then(|()| {
            let command = Arguments::command().disable_help_subcommand(true);
            clap_mangen::generate_to(command.name("kubectl-checkpoints"), directory)
        })
        .map_err(|error| {
            Failure::new(format!("cannot write manual pages to {}: {error}", directory.display()))
        })
}

/// What the words before the one that is to be completed say: which cluster and namespace, and which command.
pub struct Begun {
    /// What all commands have.
    pub global: Global,
    command: Option<String>,
}

impl Begun {
    /// The words may be no whole command line, and what is missing or wrong is left out.
    #[must_use]
    pub fn of(arguments: &Complete) -> Option<Self> {
        let (_, before) = arguments.words.split_last()?;
        let words = ["kubectl-checkpoints"].into_iter().chain(before.iter().map(String::as_str));
        let matches = Arguments::command().ignore_errors(true).try_get_matches_from(words).ok()?;
        let global = Global::from_arg_matches(&matches).ok()?;
        Some(Self { global, command: matches.subcommand_name().map(str::to_owned) })
    }
}

/// What may stand in place of the last word: one a line, and then `:4`, by which kubectl knows that no files are meant.
pub async fn candidates(
    session: &Session,
    arguments: &Complete,
    begun: Option<&Begun>,
) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (*last, before));
    let command = begun.and_then(|begun| begun.command.as_deref());
    let names = match (before.last(), command) {
        (Some(&"--node"), _) => names_of::<NodeCheckpointStore>(session, None).await,
        (Some(&("-n" | "--namespace")), _) => names_of::<Namespace>(session, None).await,
        (_, None) => commands(),
        (_, Some("show" | "explain" | "pin" | "unpin" | "discard")) => {
            names_of::<ContainerCheckpoint>(session, Some(&session.namespace)).await
        }
        (_, Some("create")) => names_of::<Pod>(session, Some(&session.namespace)).await,
        _ => Vec::new(),
    };
    let mut text: String =
        names.iter().filter(|name| name.starts_with(last)).map(|name| format!("{name}\n")).collect();
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
