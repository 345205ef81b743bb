//! `pin` and `unpin`: holds, and waiting until the node's disk has them.

use std::time::Duration;

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_api::container_checkpoint::HELD;
use checkpoint_keeper_core::duration;
use checkpoint_keeper_terminal::say::say;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::show::get;
use crate::cli::{Pin, Unpin};
use crate::failure::Failure;
use crate::kinds::{current, status};
use crate::session::Session;
use crate::show::line;

/// How often is looked what came of it.
const POLL: Duration = Duration::from_millis(300);

/// How often at most: about half a minute.
const POLLS: u32 = 100;

/// Who asks, as the cluster knows them; none where it does not say.
pub async fn user(session: &Session) -> Option<String> {
    let api: Api<SelfSubjectReview> = Api::all(session.client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await.ok()?;
    review.status?.user_info?.username
}

/// The time that was meant: a time, or a length of time from now.
fn time(text: &str) -> Result<Timestamp, Failure> {
    let now = Timestamp::now();
    let time = text.parse().ok().or_else(|| now.checked_add(duration::parse(text).ok()?).ok());
    let time: Timestamp = time.ok_or_else(|| {
        Failure::Usage(format!(
            "--until {text} is neither a time such as 2027-01-01T00:00:00Z nor a length of time such as 30d"
        ))
    })?;
    if time <= now {
        return Err(Failure::Usage(format!("--until {text} is over already")));
    }
    Ok(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// Has archives held.
pub async fn pin(session: &Session, arguments: &Pin) -> Result<(), Failure> {
    let until = arguments.until.as_deref().map(time).transpose()?;
    let by = user(session).await;
    let hold = json!({"reason": arguments.reason, "until": until, "by": by});
    let spec = json!({"hold": hold});
    each(&arguments.names, async |name| change(session, name, &spec, true, arguments.no_wait).await).await
}

/// Ends holds.
pub async fn unpin(session: &Session, arguments: &Unpin) -> Result<(), Failure> {
    let spec = json!({"hold": null});
    each(&arguments.names, async |name| change(session, name, &spec, false, arguments.no_wait).await).await
}

/// Does something with each of these, and prints what came of it. What fails is said, and the others are tried all the same;
/// only where nothing more can be printed it ends.
pub async fn each(
    names: &[String],
    act: impl AsyncFn(&str) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let mut has_failed = false;
    for name in names {
        match act(name).await {
            Ok(text) => line(&text)?,
            Err(Failure::ClosedPipe) => return Err(Failure::ClosedPipe),
            Err(failure) => {
                let _ = failure.report();
                has_failed = true;
            }
        }
    }
    if has_failed { Err(Failure::AlreadyReported) } else { Ok(()) }
}

/// Changes the spec of a checkpoint.
pub async fn patch(session: &Session, name: &str, spec: &Value) -> Result<ContainerCheckpoint, Failure> {
    let object = get(session, name).await?;
    let name = object.name_any();
    let patch = Patch::Merge(json!({"spec": spec}));
    let patched = session.api::<ContainerCheckpoint>().patch(&name, &PatchParams::default(), &patch).await;
    patched.map_err(|error| Failure::of_request(&format!("change the checkpoint {name}"), &error))
}

async fn change(
    session: &Session,
    name: &str,
    spec: &Value,
    is_to_be_held: bool,
    no_wait: bool,
) -> Result<String, Failure> {
    let object = patch(session, name, spec).await?;
    let name = object.name_any();
    if no_wait {
        return Ok(format!("{name}: asked for"));
    }
    for _ in 0..POLLS {
        let now = session.api::<ContainerCheckpoint>().get_opt(&name).await;
        let now = now.map_err(|error| Failure::of_request(&format!("get the checkpoint {name}"), &error))?;
        let Some(now) = now else {
            return if is_to_be_held {
                Err(Failure::new(format!("{name}: the archive was deleted before it could be held")))
            } else {
                Ok(format!("{name}: gone"))
            };
        };
        if let Some(held) = current(&now, HELD) {
            match (held.status.as_str(), is_to_be_held) {
                ("True", true) => return Ok(format!("{name}: held")),
                ("False", false) => return Ok(format!("{name}: not held any more")),
                ("True", false) if held.reason == "PinnedOnNode" => {
                    return Err(Failure::new(format!("{name}: {}", held.message)));
                }
                ("False", true) if held.reason != "NotHeld" => {
                    return Err(Failure::new(format!("{name}: {}", held.message)));
                }
                _ => {}
            }
        }
        sleep(POLL).await;
    }
    say("note", format!("the spec of {name} is changed, and stays so"));
    Err(Failure::with_hint(
        format!("{name}: the agent of {} has not said yet what came of it", status(&object).node_name),
        "`kubectl checkpoints doctor` shows which nodes have no agent",
    ))
}
