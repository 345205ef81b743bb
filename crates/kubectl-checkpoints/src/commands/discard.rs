//! `discard`: having archives deleted, after a question.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_api::container_checkpoint::DISCARDED;
use checkpoint_keeper_core::quantity::human;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::sleep;

use super::pin::{each, patch, user};
use super::show::get;
use crate::cli::Discard;
use crate::failure::Failure;
use crate::kinds::{age, current, is_held, status, taken};
use crate::session::Session;
use crate::show::line;

/// How often is looked what came of it.
const POLL: Duration = Duration::from_millis(300);

/// How often at most: about half a minute.
const POLLS: u32 = 100;

/// Has archives deleted.
pub async fn run(session: &Session, arguments: &Discard) -> Result<(), Failure> {
    let mut objects = Vec::new();
    for name in &arguments.names {
        objects.push(get(session, name).await?);
    }
    if let Some(held) = objects.iter().find(|object| is_held(object)) {
        return Err(Failure::with_hint(
            format!("{} is held: {}", held.name_any(), why(held)),
            format!("kubectl checkpoints unpin {} ends the hold, if you may", held.name_any()),
        ));
    }
    if !arguments.yes && !agrees(&objects)? {
        return Err(Failure::new("nothing is deleted"));
    }
    let by = user(session).await;
    let spec = json!({"discard": {"reason": arguments.reason, "by": by}});
    let names: Vec<String> = objects.iter().map(ResourceExt::name_any).collect();
    each(&names, async |name| discard(session, name, &spec, arguments.no_wait).await).await
}

fn why(object: &ContainerCheckpoint) -> String {
    let held = status(object).condition("Held");
    held.map(|held| held.message.clone()).unwrap_or_default()
}

/// Asks the person at the terminal; without one, nobody can agree.
fn agrees(objects: &[ContainerCheckpoint]) -> Result<bool, Failure> {
    let now = Timestamp::now();
    for object in objects {
        let is = status(object);
        let size = human(is.size.value());
        line(&format!(
            "{}: {} of {}/{} on {}, taken {} ago",
            object.name_any(),
            size,
            is.pod_name,
            is.container_name,
            is.node_name,
            age(taken(object), now)
        ))?;
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask at: --yes deletes without a question".to_owned(),
        ));
    }
    let what = if objects.len() == 1 {
        "this archive".to_owned()
    } else {
        format!("these {} archives", objects.len())
    };
    let mut error = anstream::stderr();
    write!(error, "Delete {what} for good? [y/N] ")?;
    error.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

async fn discard(
    session: &Session,
    name: &str,
    spec: &serde_json::Value,
    no_wait: bool,
) -> Result<String, Failure> {
    let object = patch(session, name, spec).await?;
    if no_wait {
        return Ok(format!("{name}: asked for"));
    }
    for _ in 0..POLLS {
        let now = session.api::<ContainerCheckpoint>().get_opt(name).await;
        let now = now.map_err(|error| Failure::of_request(&format!("get the checkpoint {name}"), &error))?;
        let Some(now) = now.filter(|now| now.uid() == object.uid()) else {
            return Ok(format!("{name}: deleted"));
        };
        if let Some(condition) = current(&now, DISCARDED).filter(|condition| condition.reason == "Pinned") {
            return Err(Failure::new(format!("{name}: {}", condition.message)));
        }
        sleep(POLL).await;
    }
    Err(Failure::with_hint(
        format!("{name}: the archive is still there; it is deleted once it may be"),
        format!("kubectl checkpoints explain {name}"),
    ))
}
