//! `show`: all that the API says of one checkpoint.

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_api::container_checkpoint::{CreatedBy, HELD};
use checkpoint_keeper_core::policy::GROUP;
use checkpoint_keeper_core::quantity::human;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cli::Show;
use crate::failure::{Failure, missing};
use crate::kinds::{age, is_held, status, until};
use crate::session::Session;
use crate::show::{data, line};

/// The object of that name, or of the archive whose file has that name.
pub async fn get(session: &Session, name: &str) -> Result<ContainerCheckpoint, Failure> {
    // As `-o name` prints it.
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    let not_there = || {
        Failure::with_hint(
            format!("there is no checkpoint {name} in the namespace {}", session.namespace),
            "kubectl checkpoints list -A shows all there are",
        )
    };
    // The name of an object ends with a hash.
    if !name.ends_with(".tar") {
        return session.api::<ContainerCheckpoint>().get(name).await.map_err(|error| {
            if missing(&error) == Some(name) {
                not_there()
            } else {
                Failure::of_request(&format!("get the checkpoint {name}"), &error)
            }
        });
    }
    let objects = session
        .list::<ContainerCheckpoint>(Some(&session.namespace), &ListParams::default())
        .await
        .map_err(|error| Failure::of_request("list the checkpoints", &error))?;
    let mut found: Vec<_> = objects.into_iter().filter(|object| status(object).file == name).collect();
    match found.pop() {
        Some(object) if found.is_empty() => Ok(object),
        Some(_) => Err(Failure::with_hint(
            format!("several nodes have a file {name}"),
            "kubectl checkpoints list -o wide shows the names of their checkpoints",
        )),
        None => Err(not_there()),
    }
}

/// Shows one checkpoint.
pub async fn run(session: &Session, arguments: &Show) -> Result<(), Failure> {
    let object = get(session, &arguments.name).await?;
    if let Some(format) = arguments.output {
        return data(&object, format);
    }
    let (is, now) = (status(&object), Timestamp::now());
    let time = |time: &Time| format!("{} ({} ago)", time.0, age(Some(time.0), now));
    let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "not known".to_owned());
    let owner = is.owner.as_ref();
    let mut lines = vec![
        ("Name", object.name_any()),
        ("Namespace", object.namespace().unwrap_or_default()),
        ("Pod", format!("{} ({})", is.pod_name, optional(&is.pod_uid))),
        ("Container", is.container_name.clone()),
        (
            "Owner",
            owner.map_or_else(|| "none known".to_owned(), |owner| format!("{} {}", owner.kind, owner.name)),
        ),
        ("Node", is.node_name.clone()),
        ("File", is.file.clone()),
        ("Size", human(is.size.value())),
        ("State", is.state.name().to_owned()),
        ("Checkpointed", is.checkpointed_at.as_ref().map_or_else(|| "not known".to_owned(), time)),
        (
            "Expires",
            is.expires_at.as_ref().map_or_else(
                || no_expiry(&object).to_owned(),
                |at| format!("{} ({})", at.0, until(Some(at.0), now)),
            ),
        ),
        ("Image", optional(&is.image)),
        ("Runtime", optional(&is.runtime)),
        (
            "Created by",
            is.created_by.as_ref().map_or_else(
                || "not by a schedule, as far as is known".to_owned(),
                |by| {
                    let CreatedBy { schedule, trigger, requested_at, .. } = by;
                    format!("the CheckpointSchedule {schedule}{}: {trigger} at {}", group(by), requested_at.0)
                },
            ),
        ),
    ];
    if let Some(hold) = &object.spec.hold {
        let end = hold.until.as_ref().map_or_else(String::new, |until| format!(", until {}", until.0));
        let by = hold.by.as_ref().map_or_else(String::new, |by| format!(", by {}", by.0));
        lines.push(("Hold", format!("{}{end}{by}", hold.reason.0)));
    }
    if let Some(discard) = &object.spec.discard {
        let by = discard.by.as_ref().map_or_else(String::new, |by| format!(", by {}", by.0));
        lines.push(("Discard", format!("{}{by}", discard.reason.0)));
    }
    for (title, text) in lines {
        line(&format!("{:<14}{text}", format!("{title}:")))?;
    }
    for condition in &is.conditions {
        line(&format!("{:<14}{}", format!("{}:", condition.type_), in_words(condition)))?;
    }
    Ok(())
}

/// Why no time is named at which a rule deletes it.
fn no_expiry(object: &ContainerCheckpoint) -> &'static str {
    if is_held(object) {
        "not while it is held"
    } else {
        "not by its age; limits or a full disk may delete it"
    }
}

/// Whose kind a schedule is, where it is not our own.
fn group(by: &CreatedBy) -> String {
    match by.api_version.split_once('/') {
        Some((group, _)) if group != GROUP => format!(" ({group})"),
        _ => String::new(),
    }
}

/// What a condition says. The message of whether it is held says its reason as well.
fn in_words(condition: &Condition) -> String {
    let Condition { type_, status, reason, message, .. } = condition;
    let status = match status.as_str() {
        "True" => "yes",
        "False" => "no",
        other => other,
    };
    match message.as_str() {
        "" => format!("{status} ({reason})"),
        message if type_ == HELD && ["Held", "NotHeld"].contains(&reason.as_str()) => {
            format!("{status}: {message}")
        }
        message => format!("{status} ({reason}): {message}"),
    }
}
