//! What the status of each quota should say, and which of them say something else. Pure: carrying it out is `writer`'s
//! part, and adding the nodes up is `quota_sums`'.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_api::CheckpointQuota;
use checkpoint_keeper_api::quota::{
    CheckpointQuotaStatus, EXCEEDED, MOST_NODES, NEARLY_EXCEEDED, QuotaNode, QuotaReadyReason,
    QuotaUsedPercent, READY,
};
use checkpoint_keeper_api::scalars::QuantityText;
use checkpoint_keeper_core::quantity::human;
use checkpoint_keeper_core::quota::{Held, Level, OnExceed, Quota};
use checkpoint_keeper_runtime::quota_objects::SeenQuota;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::ApiResource;
use serde_json::{Value, json};

use super::condition::{self, ConditionContent};
use super::node_report::NodeReport;
use super::quota_sums::{NamespaceSum, Sums};
use super::status_write::{ObjectId, StatusEvent, StatusWrite};
use super::throttle::interval_for;

/// The type of the problem that a status cannot be written.
pub const PROBLEM: &str = "QuotaUnwritten";

/// How a quota is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaState {
    /// Less is used than from where on it warns.
    Fine,
    /// It has reached that.
    NearlyExceeded,
    /// More is used than it allows.
    Exceeded,
    /// It is not understood.
    Invalid,
}

impl QuotaState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fine, Self::NearlyExceeded, Self::Exceeded, Self::Invalid];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "Fine",
            Self::NearlyExceeded => "NearlyExceeded",
            Self::Exceeded => "Exceeded",
            Self::Invalid => "Invalid",
        }
    }
}

/// How much of one of a quota's limits is used.
#[derive(Debug, Clone, PartialEq)]
pub struct UsedRatio {
    /// The quota's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which limit: `count` or `bytes`.
    pub resource: &'static str,
    /// What is used, divided by the limit.
    pub ratio: f64,
    /// The share of the limit from which on the quota warns; none: it does not.
    pub warn_ratio: Option<f64>,
}

/// What follows from the nodes' reports.
#[derive(Debug, Default)]
pub struct Judged {
    /// The statuses that are not as they should be.
    pub writes: Vec<StatusWrite>,
    /// The state of each quota.
    pub states: Vec<QuotaState>,
    /// How much of each limit is used.
    pub ratios: Vec<UsedRatio>,
}

/// What the statuses should say, and do not.
pub fn desired(objects: &[SeenQuota], reports: &[Arc<NodeReport>], now: Timestamp) -> Judged {
    let metadata_of = |seen: &SeenQuota| match seen {
        Ok(object) => object.metadata.clone(),
        Err(broken) => broken.metadata.clone(),
    };
    let namespaces: BTreeSet<String> =
        objects.iter().filter_map(|seen| metadata_of(seen).namespace).collect();
    let sums = Sums::of(&namespaces, reports);
    // Each is sent to the agents of all nodes.
    let figures_wait = interval_for(reports.len());
    let mut judged = Judged::default();
    for seen in objects {
        let metadata = metadata_of(seen);
        let (read, before) = match seen {
            Ok(object) => {
                let read = object
                    .to_quota()
                    .map_err(|fields| fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
                (read, object.status.clone().unwrap_or_default())
            }
            Err(broken) => {
                let status = broken.status.clone().and_then(|status| serde_json::from_value(status).ok());
                (Err(broken.error.clone()), status.unwrap_or_default())
            }
        };
        let created = metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
        let sum = sums.of_namespace(metadata.namespace.as_deref().unwrap_or_default(), created);
        let usage = QuotaUse { quota: read.as_ref().map_err(String::as_str), sum: &sum };
        judged.states.push(usage.state());
        judged.ratios.extend(read.iter().flat_map(|quota| ratios(quota, sum.held)));
        judged.writes.extend(usage.write(&metadata, &before, figures_wait, now));
    }
    judged
}

fn ratios(quota: &Quota, held: Held) -> Vec<UsedRatio> {
    let warn_ratio = quota.warn_at.map(|share| share.of(10_000) as f64 / 10_000.0);
    let of = |resource: &'static str, held: u64, hard: Option<u64>| {
        let hard = hard?;
        let (namespace, name) = (quota.namespace.clone(), quota.name.clone());
        Some(UsedRatio { namespace, name, resource, ratio: held as f64 / hard.max(1) as f64, warn_ratio })
    };
    let count = of("count", held.count, quota.hard.count);
    count.into_iter().chain(of("bytes", held.bytes, quota.hard.bytes)).collect()
}

/// One quota, as far as it is understood, beside what its namespace holds.
struct QuotaUse<'a> {
    quota: Result<&'a Quota, &'a str>,
    sum: &'a NamespaceSum<'a>,
}

impl QuotaUse<'_> {
    /// How the number of archives compares to its limit, and how their bytes do.
    fn levels(&self) -> (Option<Level>, Option<Level>) {
        self.quota.map(|quota| quota.levels(self.sum.held)).unwrap_or_default()
    }

    fn state(&self) -> QuotaState {
        let (count, bytes) = self.levels();
        match count.max(bytes) {
            _ if self.quota.is_err() => QuotaState::Invalid,
            Some(Level::Exceeded) => QuotaState::Exceeded,
            Some(Level::Reached | Level::Near) => QuotaState::NearlyExceeded,
            Some(Level::Below) | None => QuotaState::Fine,
        }
    }

    fn ready(&self) -> ConditionContent {
        let content = |reason: QuotaReadyReason, message: String| ConditionContent {
            status: reason.status(),
            reason: reason.name(),
            message,
        };
        if let Err(why) = self.quota {
            return content(
                QuotaReadyReason::InvalidQuota,
                format!("It binds nothing, as it is not understood: {why}"),
            );
        }
        if let Some((node, more)) = self.sum.left_out {
            let more = match more {
                0 => String::new(),
                more => format!(" and those of {more} more"),
            };
            let message = format!(
                "More may be used than is told: the report of {node}{more} does not name all namespaces with archives."
            );
            return content(QuotaReadyReason::UsagePartial, message);
        }
        let stale = match self.sum.stale() {
            (0, _) => String::new(),
            (nodes, since) => {
                let since = since.map_or_else(String::new, |since| format!(", since {since}"));
                format!(
                    " The figures of {nodes} of them are old{since}, as no agent sees the directory there."
                )
            }
        };
        let nodes = match self.sum.nodes.len() {
            1 => "1 node has".to_owned(),
            nodes => format!("{nodes} nodes have"),
        };
        let message = format!("{nodes} archives of the namespace.{stale}");
        content(QuotaReadyReason::Accepted, message)
    }

    fn exceeded(&self, figures: &str) -> ConditionContent {
        let (count, bytes) = self.levels();
        let is_over = |level: Option<Level>| level == Some(Level::Exceeded);
        let (status, reason) = match (is_over(count), is_over(bytes)) {
            _ if self.quota.is_err() => ("Unknown", QuotaReadyReason::InvalidQuota.name()),
            (false, false) => ("False", "WithinHard"),
            (true, false) => ("True", "CountExceeded"),
            (false, true) => ("True", "BytesExceeded"),
            (true, true) => ("True", "CountAndBytesExceeded"),
        };
        ConditionContent { status, reason, message: figures.to_owned() }
    }

    fn nearly_exceeded(&self, figures: &str) -> ConditionContent {
        let (count, bytes) = self.levels();
        let (status, reason) = match count.max(bytes) {
            _ if self.quota.is_err() => ("Unknown", QuotaReadyReason::InvalidQuota.name()),
            Some(Level::Reached | Level::Exceeded) => ("True", "HardReached"),
            Some(Level::Near) => ("True", "WarnAtReached"),
            Some(Level::Below) | None => ("False", "BelowWarnAt"),
        };
        ConditionContent { status, reason, message: figures.to_owned() }
    }

    /// `12 of 200 archives, 3Gi of 100Gi`
    fn figures(&self) -> String {
        let Held { count, bytes } = self.sum.held;
        let Ok(quota) = self.quota else { return format!("{count} archives, {}", human(bytes)) };
        let count = match quota.hard.count {
            Some(hard) => format!("{count} of {hard} archives"),
            None => format!("{count} archives"),
        };
        let bytes = match quota.hard.bytes {
            Some(hard) => format!("{} of {}", human(bytes), human(hard)),
            None => human(bytes),
        };
        format!("{count}, {bytes}")
    }

    fn used_percent(&self) -> Option<QuotaUsedPercent> {
        let percent = |held: u64, hard: Option<u64>| {
            let hard = hard.filter(|hard| *hard > 0)?;
            i64::try_from(u128::from(held) * 100 / u128::from(hard)).ok()
        };
        let hard = self.quota.ok()?.hard;
        let (count, bytes) =
            (percent(self.sum.held.count, hard.count), percent(self.sum.held.bytes, hard.bytes));
        (count.is_some() || bytes.is_some()).then_some(QuotaUsedPercent { count, bytes })
    }

    /// The write that makes the status say all this, if it does not.
    fn write(
        &self,
        metadata: &ObjectMeta,
        before: &CheckpointQuotaStatus,
        figures_wait: Duration,
        now: Timestamp,
    ) -> Option<StatusWrite> {
        // One without these was not given by an API.
        let (uid, resource_version) = (metadata.uid.clone()?, metadata.resource_version.clone()?);
        let figures = self.figures();
        let contents = [
            (READY, self.ready()),
            (EXCEEDED, self.exceeded(&figures)),
            (NEARLY_EXCEEDED, self.nearly_exceeded(&figures)),
        ];
        let event = self.event(&contents, before, &figures);
        let mut conditions = before.conditions.clone();
        for (type_, content) in contents {
            condition::set(&mut conditions, type_, content, metadata.generation, now);
        }
        let (stale_nodes, stale_since) = self.sum.stale();
        let status = CheckpointQuotaStatus {
            observed_generation: metadata.generation,
            used: Some(self.sum.held.into()),
            used_percent: self.used_percent(),
            partial: self.sum.left_out.is_some(),
            nodes: nodes(self.sum),
            more_nodes: whole(self.sum.nodes.len().saturating_sub(MOST_NODES)),
            stale_nodes: whole(stale_nodes),
            stale_since: stale_since.map(Time),
            conditions,
        };
        let says = |status: &CheckpointQuotaStatus| {
            let told = status.conditions.iter();
            told.map(|one| (one.status.clone(), one.reason.clone(), one.observed_generation))
                .collect::<Vec<_>>()
        };
        (status != *before).then(|| StatusWrite {
            object: ObjectId {
                resource: ApiResource::erase::<CheckpointQuota>(&()),
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone().unwrap_or_default(),
                uid,
            },
            resource_version,
            is_urgent: says(&status) != says(before),
            status: fields(&status),
            figures_wait,
            event,
            problem: PROBLEM,
        })
    }

    /// What has come true that the status did not say; of both the worse.
    fn event(
        &self,
        contents: &[(&'static str, ConditionContent)],
        before: &CheckpointQuotaStatus,
        figures: &str,
    ) -> Option<StatusEvent> {
        let on_exceed = self.quota.ok()?.on_exceed;
        let is = |conditions: &[Condition], type_: &str| {
            conditions.iter().any(|one| one.type_ == type_ && one.status == "True")
        };
        let came_true = |type_: &str| {
            contents.iter().any(|(its, content)| *its == type_ && content.status == "True")
                && !is(&before.conditions, type_)
        };
        let then = match on_exceed {
            OnExceed::Reject => "Checkpoints that exceed it are not made.",
            OnExceed::Warn => "Checkpoints that exceed it are made all the same.",
        };
        if came_true(EXCEEDED) {
            let note = format!("The namespace holds more than its quota: {figures}. {then}");
            return Some(StatusEvent { is_good: false, reason: "QuotaExceeded", note });
        }
        came_true(NEARLY_EXCEEDED).then(|| StatusEvent {
            is_good: false,
            reason: "QuotaNearlyExceeded",
            note: format!("The namespace holds nearly as much as its quota: {figures}. {then}"),
        })
    }
}

/// The nodes with the most bytes, by name.
fn nodes(sum: &NamespaceSum<'_>) -> Vec<QuotaNode> {
    let mut all: Vec<_> = sum.nodes.iter().collect();
    all.sort_by(|(one, its), (other, others)| {
        (others.bytes, others.count, &one.node).cmp(&(its.bytes, its.count, &other.node))
    });
    all.truncate(MOST_NODES);
    all.sort_by(|(one, _), (other, _)| one.node.cmp(&other.node));
    let node = |(report, held): &(&Arc<NodeReport>, Held)| QuotaNode {
        name: report.node.clone(),
        count: i64::try_from(held.count).unwrap_or(i64::MAX),
        bytes: QuantityText::exact_bytes(held.bytes),
        stale_since: report.stale_since.map(Time),
    };
    all.into_iter().map(node).collect()
}

/// All fields, those that are not there as null, so that a merge takes them away.
fn fields(status: &CheckpointQuotaStatus) -> Value {
    let percent = status.used_percent.as_ref();
    json!({
        "conditions": status.conditions,
        "observedGeneration": status.observed_generation,
        "used": status.used,
        "usedPercent": percent.map(|percent| json!({"count": percent.count, "bytes": percent.bytes})),
        "partial": status.partial,
        "nodes": status.nodes,
        "moreNodes": status.more_nodes,
        "staleNodes": status.stale_nodes,
        "staleSince": status.stale_since,
    })
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
