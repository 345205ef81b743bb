//! `doctor`: looks for what is wrong, with a hint for each finding. What it may not see it says.

mod admission_policies;
mod older_operator;
mod pods;
mod policies;

use std::collections::BTreeSet;

use anstyle::Style;
use checkpoint_keeper_api::node_store::NodeCheckpointStoreStatus;
use checkpoint_keeper_api::{AGENT_SELECTOR, CheckpointPolicy, NodeCheckpointStore};
use checkpoint_keeper_core::quantity::human;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};

use crate::failure::{Failure, said};
use crate::fitness;
use crate::kinds::age;
use crate::session::Session;
use crate::show::{bad, doubtful, good, indented, some};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    /// It is as it should be.
    Ok,
    /// It could not be seen.
    Unknown,
    /// It may be wrong, or is wrong and harms little.
    Warning,
    /// It is wrong: the exit code is 1.
    Error,
}

impl Grade {
    /// The word that begins a finding's line.
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Ok => good(),
            Self::Unknown => Style::new(),
            Self::Warning => doubtful(),
            Self::Error => bad(),
        }
    }
}

/// How wide the column of grades is, with the gap behind it.
const WIDTH: usize = 9;

/// Everything that was found.
#[derive(Default)]
struct Findings {
    has_errors: bool,
}

impl Findings {
    fn add(&mut self, grade: Grade, what: &str, hint: Option<&str>) -> Result<(), Failure> {
        self.has_errors |= grade == Grade::Error;
        indented(grade.style(), &format!("{:WIDTH$}", grade.name()), what)?;
        hint.map_or(Ok(()), |hint| indented(Style::new().dimmed(), &" ".repeat(WIDTH), hint))
    }

    fn unknown(&mut self, what: &str, error: &kube::Error) -> Result<(), Failure> {
        self.add(Grade::Unknown, &format!("{what}: {}", said(error)), None)
    }
}

/// Looks for what is wrong.
pub async fn run(session: &Session) -> Result<(), Failure> {
    let mut findings = Findings::default();
    let all = &mut findings;
    if kinds(session, all).await? {
        agents(session, all).await?;
        pods::check(session, all).await?;
        admission_policies::check(session, all).await?;
        let failing = schedules(session, all).await?;
        policies::check(session, all, &failing).await?;
    }
    older_operator::check(session, all).await?;
    rights(session, all).await?;
    if findings.has_errors { Err(Failure::AlreadyReported) } else { Ok(()) }
}

/// Whether the kinds are defined, and whose.
async fn kinds(session: &Session, findings: &mut Findings) -> Result<bool, Failure> {
    let found = session
        .list::<CheckpointPolicy>(
            Some(&session.namespace),
            &ListParams { limit: Some(1), ..ListParams::default() },
        )
        .await;
    let is_there = !matches!(&found, Err(kube::Error::Api(status)) if status.code == 404);
    if is_there {
        findings.add(Grade::Ok, "the kinds of checkpoint-keeper.io are defined", None)?;
    } else {
        let hint =
            "install checkpoint-keeper first: helm install, or kubectl apply -f config/crd -f config/deploy";
        findings.add(
            Grade::Error,
            "the kinds of checkpoint-keeper.io are not defined in this cluster",
            Some(hint),
        )?;
    }
    match session.client.list_api_group_resources("criu.org/v1").await {
        Ok(resources) => {
            let kinds: Vec<String> = resources
                .resources
                .iter()
                .filter(|one| !one.name.contains('/'))
                .map(|one| one.kind.clone())
                .collect();
            let what = format!("the older operator's kinds are defined: {}", kinds.join(", "));
            findings.add(Grade::Ok, &what, Some("its objects are read as they are"))?;
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => findings.unknown("whether the older operator's kinds are defined", &error)?,
    }
    Ok(is_there)
}

/// The agents' `DaemonSet`s; none if there are none that this user may see.
async fn daemon_sets(session: &Session, findings: &mut Findings) -> Result<Vec<DaemonSet>, Failure> {
    let params = ListParams::default().labels(AGENT_SELECTOR);
    let sets = session.list(Some(&session.operator_namespace), &params).await;
    match sets {
        Ok(sets) => Ok(sets),
        Err(error) => {
            let what = format!(
                "the agents' DaemonSets; images for {} are assumed",
                fitness::ARCHITECTURES.join(" and ")
            );
            findings.unknown(&what, &error)?;
            Ok(Vec::new())
        }
    }
}

/// Whether the agents look where the kubelets write.
fn directories(stores: &[NodeCheckpointStore], findings: &mut Findings) -> Result<(), Failure> {
    let reports: Vec<_> = stores.iter().filter_map(|store| store.status.as_ref()).collect();
    if reports.is_empty() || reports.iter().any(|status| status.archives > 0) {
        return Ok(());
    }
    let hint = "well if there never was a checkpoint; if there was, the kubelet's root directory is another one \
                (agent.kubeletRootDir)";
    findings.add(Grade::Warning, "no agent has found an archive in its directory", Some(hint))
}

/// The nodes that have an agent's pod, which is not ending; none where the pods cannot be seen.
async fn agents_nodes(session: &Session) -> Option<BTreeSet<String>> {
    let params = ListParams::default().labels(AGENT_SELECTOR);
    let pods = session.list::<Pod>(Some(&session.operator_namespace), &params).await.ok()?;
    let there = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Some(there.filter_map(|pod| pod.spec?.node_name).collect())
}

/// Whether each node has an agent that collects.
async fn agents(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let stores = match session.list::<NodeCheckpointStore>(None, &ListParams::default()).await {
        Ok(stores) => stores,
        Err(error) => {
            return findings.unknown("the nodes' stores", &error);
        }
    };
    match session.list::<Node>(None, &ListParams::default()).await {
        Ok(nodes) => {
            let sets = daemon_sets(session, findings).await?;
            // A report outlives its agent.
            let agents = agents_nodes(session).await;
            let has_agent = |node: &String| agents.as_ref().is_none_or(|agents| agents.contains(node));
            let reporting: BTreeSet<String> =
                stores.iter().map(ResourceExt::name_any).filter(has_agent).collect();
            let others = nodes.iter().filter(|node| !reporting.contains(&node.name_any()));
            // Those that no agent is made for are named, and nothing is wrong with them.
            let (mut without, mut unfit) = (Vec::new(), Vec::new());
            for node in others {
                match fitness::unfit(node, &sets) {
                    Some(why) => unfit.push(format!("{} ({why})", node.name_any())),
                    None => without.push(node.name_any()),
                }
            }
            let ours = nodes.len() - without.len() - unfit.len();
            let beside = if unfit.is_empty() {
                String::new()
            } else {
                format!("; there is none for {}", some(&unfit))
            };
            let what = format!("{ours} of {} nodes have an agent that has reported{beside}", nodes.len());
            if without.is_empty() {
                findings.add(Grade::Ok, &what, None)?;
            } else {
                let hint = format!(
                    "without one: {}; kubectl -n {} get pods -o wide",
                    some(&without),
                    session.operator_namespace
                );
                // Without any, nothing at all is collected.
                let grade = if ours == 0 { Grade::Error } else { Grade::Warning };
                findings.add(grade, &what, Some(&hint))?;
            }
        }
        Err(error) => findings.unknown("the nodes", &error)?,
    }
    directories(&stores, findings)?;
    let mut same = OfNodes::default();
    for store in &stores {
        let (node, Some(status)) = (store.name_any(), store.status.as_ref()) else { continue };
        match status.ready() {
            Some(ready) if ready.status == "True" => {}
            Some(ready) => {
                let hint = match ready.reason.as_str() {
                    "AgentNotReady" => format!(
                        "kubectl -n {} get pods --field-selector spec.nodeName={node}",
                        session.operator_namespace
                    ),
                    _ => format!("kubectl describe nodecheckpointstore {node}"),
                };
                same.add(Grade::Error, &node, format!("{} ({})", ready.message, ready.reason), Some(hint));
            }
            None => {
                same.add(Grade::Warning, &node, "its agent has not reported yet".to_owned(), None);
            }
        }
        for problem in &status.problems {
            let what = format!("{} ({})", problem.message, problem.type_);
            same.add_since(&node, what, problem.since.0);
        }
        if let Some((grade, what, hint)) = full_disk(status) {
            same.add(grade, &node, what, hint);
        }
        if status.more_without_namespace > 0 || !status.without_namespace.is_empty() {
            let count = i64::try_from(status.without_namespace.len()).unwrap_or(i64::MAX);
            let count = count.saturating_add(status.more_without_namespace);
            let hint = format!(
                "kubectl get nodecheckpointstore {node} -o yaml names them; its spec.discard deletes them"
            );
            let what = match count {
                1 => "1 archive belongs to no namespace that is there".to_owned(),
                count => format!("{count} archives belong to no namespace that is there"),
            };
            same.add(Grade::Warning, &node, what, Some(hint));
        }
    }
    same.say(findings)
}

/// From which use of a file system on it is a warning, and an error, in percent.
const NEARLY_FULL: i32 = 90;
const FULL: i32 = 95;

/// Whether the file system of a node's archives is full, and whether a policy sees to that.
fn full_disk(status: &NodeCheckpointStoreStatus) -> Option<(Grade, String, Option<String>)> {
    let filesystem = status.filesystem.as_ref().filter(|disk| disk.used_percent >= NEARLY_FULL)?;
    let limits = status.storage_limits.as_ref();
    let is_seen_to =
        limits.is_some_and(|limits| limits.high_watermark.is_some() || limits.min_free.is_some());
    let what = format!(
        "the disk of its archives is {}% full; they use {} of {}",
        filesystem.used_percent,
        human(status.size.value()),
        human(filesystem.capacity.value()),
    );
    if is_seen_to {
        let grade = if filesystem.used_percent >= FULL { Grade::Warning } else { return None };
        return Some((grade, what, None));
    }
    let grade = if filesystem.used_percent >= FULL { Grade::Error } else { Grade::Warning };
    let hint = "no CheckpointStoragePolicy of mode Enforce with highWatermark or minFree is for this node: see A disk \
                is full on the book's page Troubleshooting";
    Some((grade, what, Some(hint.to_owned())))
}

/// What was found on nodes: what is the same on several is said once.
#[derive(Default)]
struct OfNodes(Vec<Found>);

/// What is the same on these nodes; the hint is about the first of them.
struct Found {
    grade: Grade,
    what: String,
    hint: Option<String>,
    nodes: Vec<String>,
    /// Since when the first of them has it, where that is known.
    since: Option<Timestamp>,
}

impl OfNodes {
    fn add(&mut self, grade: Grade, node: &str, what: String, hint: Option<String>) {
        self.push(Found { grade, what, hint, nodes: vec![node.to_owned()], since: None });
    }

    fn add_since(&mut self, node: &str, what: String, since: Timestamp) {
        let (grade, nodes) = (Grade::Warning, vec![node.to_owned()]);
        self.push(Found { grade, what, hint: None, nodes, since: Some(since) });
    }

    fn push(&mut self, new: Found) {
        match self.0.iter_mut().find(|found| found.what == new.what) {
            Some(found) => {
                found.nodes.extend(new.nodes);
                found.since = found.since.into_iter().chain(new.since).min();
            }
            None => self.0.push(new),
        }
    }

    fn say(self, findings: &mut Findings) -> Result<(), Failure> {
        let now = Timestamp::now();
        for Found { grade, what, hint, nodes, since } in self.0 {
            let since = since.map(|since| format!(", for {}", age(Some(since), now))).unwrap_or_default();
            findings.add(grade, &format!("{}: {what}{since}", some(&nodes)), hint.as_deref())?;
        }
        Ok(())
    }
}

/// Whether kubelets make checkpoints, as far as schedules have tried. Returns the schedules that fail on some node, each as
/// namespace/name.
async fn schedules(session: &Session, findings: &mut Findings) -> Result<BTreeSet<String>, Failure> {
    let Ok(stores) = session.list::<NodeCheckpointStore>(None, &ListParams::default()).await else {
        return Ok(BTreeSet::new());
    };
    let (mut same, mut failing) = (OfNodes::default(), BTreeSet::new());
    for store in &stores {
        for schedule in store.status.iter().flat_map(|status| &status.schedules) {
            let Some(reason) = &schedule.reason else { continue };
            let message = schedule.message.as_deref().unwrap_or_default();
            let what = format!("schedule {}/{}: {message} ({reason})", schedule.namespace, schedule.name);
            let hint = schedule_hint(reason, message).map(str::to_owned);
            same.add(Grade::Error, &store.name_any(), what, hint);
            failing.insert(format!("{}/{}", schedule.namespace, schedule.name));
        }
    }
    same.say(findings)?;
    Ok(failing)
}

/// What helps against what keeps a schedule from succeeding: by its reason, and where that is the kubelet's or the
/// runtime's, by their words.
fn schedule_hint(reason: &str, message: &str) -> Option<&'static str> {
    match reason {
        "InsufficientStorage" => {
            return Some("see the node's disk, minFree, and maxArchiveSize of the policy");
        }
        "QuotaExceeded" => {
            return Some("kubectl get checkpointquotas shows what is used; raise hard, or discard some");
        }
        "ContainerMayBeFrozen" => {
            return Some("look whether the container still answers, and restart its pod if not");
        }
        _ => {}
    }
    let message = message.to_lowercase();
    let by_words = [
        ("feature gate", "switch the feature gate ContainerCheckpoint on in the kubelet's configuration"),
        (
            "has not the right",
            "the agents' account needs the right to create nodes/checkpoint: install its role anew",
        ),
        (
            "is not trusted",
            "the kubelet's certificate is signed by itself: pin it, as the book's page Install says",
        ),
        ("cannot be reached", "a network policy or firewall may keep the agent from its node's port 10250"),
        (
            "checkpoint support is disabled",
            "the container runtime has checkpoints switched off (CRI-O: enable_criu_support)",
        ),
        ("criu", "is CRIU installed on the node, and new enough? The message is CRIU's or the runtime's own"),
    ];
    by_words.into_iter().find(|(words, _)| message.contains(words)).map(|(_, hint)| hint)
}

/// What the commands need: a verb, a group, a resource, the namespace that is meant or the operator's.
const RIGHTS: [(&str, &str, &str, &str, &str, bool); 6] = [
    ("list, show", "list", "checkpoint-keeper.io", "containercheckpoints", "", false),
    ("pin, unpin", "hold", "checkpoint-keeper.io", "containercheckpoints", "", false),
    ("discard", "discard", "checkpoint-keeper.io", "containercheckpoints", "", false),
    ("create", "patch", "", "pods", "", false),
    ("usage, list --node", "list", "checkpoint-keeper.io", "nodecheckpointstores", "", true),
    // Connections are WebSockets, and these begin with a GET.
    ("explain, plan, list --node", "get", "", "pods", "portforward", true),
];

/// Which commands this user may use.
async fn rights(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let api: Api<SelfSubjectAccessReview> = Api::all(session.client.clone());
    for (commands, verb, group, resource, subresource, is_operators) in RIGHTS {
        let namespace = match resource {
            "nodecheckpointstores" => None,
            _ if is_operators => Some(session.operator_namespace.clone()),
            _ => Some(session.namespace.clone()),
        };
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            namespace,
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()).filter(|text| !text.is_empty()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        match api.create(&PostParams::default(), &review).await {
            Ok(review) if review.status.as_ref().is_some_and(|status| status.allowed) => {
                findings.add(Grade::Ok, &format!("you may use {commands}"), None)?;
            }
            Ok(_) => {
                let path = [resource, subresource]
                    .iter()
                    .filter(|part| !part.is_empty())
                    .copied()
                    .collect::<Vec<_>>()
                    .join("/");
                let what = format!("you may not use {commands}: it needs the right to {verb} {path}");
                findings.add(Grade::Warning, &what, None)?;
            }
            Err(error) => findings.unknown(&format!("whether you may use {commands}"), &error)?,
        }
    }
    Ok(())
}
