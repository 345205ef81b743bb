//! `create`: asks for a checkpoint by the annotation of a pod, and waits for its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_core::schedule::{RESULT_ANNOTATION, TRIGGER_ANNOTATION};
use checkpoint_keeper_terminal::say::say;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cli::{Create, DryRun};
use crate::failure::Failure;
use crate::kinds::status;
use crate::session::Session;
use crate::show::line;

/// How often is looked for an answer.
const POLL: Duration = Duration::from_millis(500);

/// For how long an annotation that no schedule goes by is waited for.
const NOTICED: Duration = Duration::from_secs(20);

/// For how long the object of an archive is waited for.
const SHOWN: Duration = Duration::from_secs(5);

/// Has a checkpoint made.
pub async fn run(session: &Session, arguments: &Create) -> Result<(), Failure> {
    let pods = session.api::<Pod>();
    let pod = &arguments.pod;
    let wrong =
        |doing: &str, error: &kube::Error| Failure::of_request(&format!("{doing} the pod {pod}"), error);
    let before = pods.get(pod).await.map_err(|error| wrong("get", &error))?;
    let container = arguments.container.as_deref();
    if let Some(container) = container {
        let names = containers(&before);
        if !names.contains(&container) {
            return Err(Failure::Usage(format!(
                "the pod {pod} has no container {container}; it has {}",
                names.join(", ")
            )));
        }
    }
    let last = before.annotations().get(RESULT_ANNOTATION).cloned();
    // What was asked for before and is tried on has an answer already that says why.
    let is_under_way = before.annotations().get(TRIGGER_ANNOTATION).is_some_and(|value| value == "true");
    if arguments.dry_run != DryRun::Client {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {TRIGGER_ANNOTATION: "true"}}}));
        let params = PatchParams { dry_run: arguments.dry_run == DryRun::Server, ..PatchParams::default() };
        pods.patch(pod, &params, &patch).await.map_err(|error| wrong("annotate", &error))?;
    }
    let run = match arguments.dry_run {
        DryRun::None => None,
        DryRun::Client => Some("dry run"),
        DryRun::Server => Some("server dry run"),
    };
    if let Some(run) = run {
        return line(&format!("{pod}: would be annotated with {TRIGGER_ANNOTATION}=true ({run})"));
    }
    if !arguments.wait {
        line(&format!("{pod}: asked for; the annotation {RESULT_ANNOTATION} will say what came of it"))?;
        return Ok(());
    }
    let begin = Instant::now();
    let shows_progress = std::io::stderr().is_terminal();
    let mut told = None;
    loop {
        let now = pods.get(pod).await.map_err(|error| wrong("get", &error))?;
        let answer = now.annotations().get(RESULT_ANNOTATION).filter(|answer| Some(*answer) != last.as_ref());
        let is_over = !now.annotations().contains_key(TRIGGER_ANNOTATION);
        if let Some(answer) = answer
            && (is_over || container.is_some_and(|container| has_archive(answer, container)))
        {
            clear(shows_progress)?;
            return say_answer(session, pod, answer, container).await;
        }
        // What is tried again has an answer as well: why it did not succeed yet.
        let latest = if is_under_way { now.annotations().get(RESULT_ANNOTATION) } else { answer };
        let why = latest.and_then(|answer| reasons(answer, container));
        if let Some(why) = why
            && told.as_ref() != Some(&why)
        {
            clear(shows_progress)?;
            say("note", format!("{pod}: {why}"));
            told = Some(why);
        }
        let waited = begin.elapsed();
        if !is_over && latest.is_none() && waited > NOTICED {
            clear(shows_progress)?;
            say(
                "warning",
                format!(
                    "{pod} is not answered yet: does a CheckpointSchedule with triggers.onAnnotation select it?"
                ),
            );
            return Err(Failure::with_hint(
                format!("{pod}: no answer within {} s", waited.as_secs()),
                "kubectl get cksched shows the schedules; the annotation stays, and is acted on as soon as one selects the pod",
            ));
        }
        if waited > arguments.timeout {
            clear(shows_progress)?;
            let why = told.map(|why| format!(": {why}")).unwrap_or_default();
            let waited = waited.as_secs();
            return Err(Failure::new(format!("{pod}: not done within {waited} s, and it is tried on{why}")));
        }
        if shows_progress {
            write!(anstream::stderr(), "\rcheckpointing {pod} … {} s ", waited.as_secs())?;
        }
        sleep(POLL).await;
    }
}

/// The names of a pod's containers: those of its spec, and its init, sidecar and ephemeral ones.
fn containers(pod: &Pod) -> Vec<&str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|one| one.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| one.name.as_str());
    spec.containers.iter().map(|one| one.name.as_str()).chain(init).chain(ephemeral).collect()
}

fn clear(shows_progress: bool) -> Result<(), Failure> {
    if shows_progress {
        write!(anstream::stderr(), "\r\x1b[K")?;
    }
    Ok(())
}

/// Whether an answer, which may not be the last one, names the archive of this container.
fn has_archive(answer: &str, container: &str) -> bool {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let mut results = answer["containers"].as_array().into_iter().flatten();
    results.any(|result| result["name"] == container && result["archive"].is_string())
}

/// What an answer says of each container that is waited for and has no archive yet; none: nothing.
fn reasons(answer: &str, wanted: Option<&str>) -> Option<String> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let of_container = |result: &Value| {
        let name = result["name"].as_str().filter(|name| wanted.is_none_or(|wanted| wanted == *name))?;
        Some(format!("{name}: {}", result["error"].as_str()?))
    };
    let reasons: Vec<String> =
        answer["containers"].as_array().into_iter().flatten().filter_map(of_container).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Says what came of each container that was waited for.
async fn say_answer(session: &Session, pod: &str, answer: &str, wanted: Option<&str>) -> Result<(), Failure> {
    let answer: Value = serde_json::from_str(answer)
        .map_err(|_| Failure::new(format!("{pod}: the answer is not understood: {answer}")))?;
    let Some(results) = answer["containers"].as_array() else {
        let message = answer["message"].as_str().unwrap_or("nothing was checkpointed");
        return Err(Failure::new(format!("{pod}: {message}")));
    };
    if let Some(wanted) = wanted
        && !results.iter().any(|result| result["name"] == wanted)
    {
        return Err(Failure::with_hint(
            format!("{pod}/{wanted}: no checkpoint was made of this container"),
            "the schedule that selects the pod names its containers in spec.containers; by default all of the pod's spec.containers",
        ));
    }
    let is_wanted = |result: &&Value| wanted.is_none_or(|wanted| result["name"] == wanted);
    let results: Vec<&Value> = results.iter().filter(is_wanted).collect();
    let objects = shown(session, pod, results.iter().filter_map(|result| result["archive"].as_str())).await;
    let mut has_failed = false;
    for result in results {
        let name = result["name"].as_str().unwrap_or_default();
        if let Some(file) = result["archive"].as_str() {
            match objects.get(file) {
                Some(object) => line(&format!("{pod}/{name}: {object} ({file})"))?,
                None => line(&format!("{pod}/{name}: {file}"))?,
            }
        } else {
            has_failed = true;
            say("error", format!("{pod}/{name}: {}", result["error"].as_str().unwrap_or("it failed")));
        }
    }
    if has_failed { Err(Failure::AlreadyReported) } else { Ok(()) }
}

/// The names of the objects of these files, which other commands take. Those that do not show in a few seconds are left out:
/// not all archives have one, nor may each user list them.
async fn shown<'a>(
    session: &Session,
    pod: &str,
    files: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, String> {
    let files: BTreeSet<&str> = files.collect();
    let params = ListParams::default().fields(&format!("status.podName={pod}"));
    let begin = Instant::now();
    let mut names = BTreeMap::new();
    while names.len() < files.len() {
        let Ok(objects) = session.list::<ContainerCheckpoint>(Some(&session.namespace), &params).await else {
            break;
        };
        let objects = objects.into_iter().map(|object| (status(&object).file.clone(), object.name_any()));
        names = objects.filter(|(file, _)| files.contains(file.as_str())).collect();
        if begin.elapsed() > SHOWN {
            break;
        }
        if names.len() < files.len() {
            sleep(POLL).await;
        }
    }
    names
}
