//! `show`: all that the API says of one checkpoint.

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_core::quantity::human;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::cli::Show;
use crate::failure::Failure;
use crate::kinds::{age, status, until};
use crate::session::Session;
use crate::show::{data, line};

/// The object of that name.
pub async fn get(session: &Session, name: &str) -> Result<ContainerCheckpoint, Failure> {
    // As `-o name` prints it.
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    session.api::<ContainerCheckpoint>().get(name).await.map_err(|error| match &error {
        kube::Error::Api(status)
            if status.code == 404
                && status.message.contains("not found")
                && !status.message.contains("page") =>
        {
            Failure::with_hint(
                format!("there is no checkpoint {name} in the namespace {}", session.namespace),
                "kubectl checkpoints list -A shows all there are",
            )
        }
        _ => Failure::of_request(&format!("get the checkpoint {name}"), &error),
    })
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
                || "by no rule by age, as things are".to_owned(),
                |at| format!("{} ({})", at.0, until(Some(at.0), now)),
            ),
        ),
        ("Image", optional(&is.image)),
        ("Runtime", optional(&is.runtime)),
        (
            "Created by",
            is.created_by.as_ref().map_or_else(
                || "not by a schedule, as far as is known".to_owned(),
                |by| format!("{} {} for {} ({})", by.api_version, by.schedule, by.trigger, by.requested_at.0),
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
        line(&format!(
            "{:<14}{} ({}) {}",
            format!("{}:", condition.type_),
            condition.status,
            condition.reason,
            condition.message
        ))?;
    }
    Ok(())
}
