//! Results for programs.

use std::io::{self, Write};

use checkpoint_keeper_core::engine::file::Outcome;
use checkpoint_keeper_core::plan::Reason;
pub use checkpoint_keeper_core::report::write_line as line;
use checkpoint_keeper_core::report::{Explanation, Report, write_pretty};
use jiff::Timestamp;
use serde::Serialize;

use super::inspection::Inspected;

/// Prints the report of one pass.
pub fn report(report: &Report) -> io::Result<()> {
    print(report)
}

/// Prints the explanation of one verdict.
pub fn explanation(explanation: &Explanation) -> io::Result<()> {
    print(explanation)
}

/// Prints what was inspected, as a list.
pub fn inspected(inspected: &[Inspected]) -> io::Result<()> {
    print(&inspected)
}

fn print(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write_pretty(&mut out, value)?;
    out.flush()
}

/// One deletion, as a line of a log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    time: Timestamp,
    file: String,
    namespace: Option<String>,
    pod: Option<String>,
    pod_uid: Option<String>,
    container: Option<String>,
    checkpointed_at: Timestamp,
    size_bytes: u64,
    reason: Reason,
    policy: Option<String>,
    detail: String,
    #[serde(flatten)]
    in_cluster: Option<InCluster>,
}

/// What a log of many nodes has to know besides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InCluster {
    /// The node that the archive lay on.
    pub node: String,
    /// The generation of the policy's object by which it was decided; none where no policy decided.
    pub policy_generation: Option<i64>,
}

impl Deletion {
    /// The same deletion, as one of many nodes'.
    #[must_use]
    pub fn in_cluster(self, in_cluster: InCluster) -> Self {
        Self { in_cluster: Some(in_cluster), ..self }
    }

    /// The same deletion, with who asked for it and why in place of details.
    #[must_use]
    pub fn asked(self, asked: Option<String>) -> Self {
        Self { detail: asked.unwrap_or(self.detail), ..self }
    }
}

/// What is to be known of a deletion for good.
pub fn deletion(outcome: &Outcome, time: Timestamp) -> Deletion {
    let (archive, verdict) = (&outcome.deletion.archive, &outcome.deletion.verdict);
    let identity = archive.identity.as_deref();
    Deletion {
        time,
        file: archive.file.to_json_text().into_owned(),
        namespace: identity.map(|identity| identity.namespace.clone()),
        pod: identity.map(|identity| identity.pod.clone()),
        pod_uid: identity.and_then(|identity| identity.pod_uid.clone()),
        container: identity.map(|identity| identity.container.clone()),
        checkpointed_at: archive.taken,
        size_bytes: archive.size,
        reason: verdict.reason,
        policy: verdict.policy.as_ref().map(ToString::to_string),
        detail: verdict.detail.to_string(),
        in_cluster: None,
    }
}

/// The names of all that an agent's audit line has.
#[cfg(test)]
pub(crate) fn audit_fields() -> Vec<String> {
    let deletion = Deletion {
        time: Timestamp::UNIX_EPOCH,
        file: String::new(),
        namespace: None,
        pod: None,
        pod_uid: None,
        container: None,
        checkpointed_at: Timestamp::UNIX_EPOCH,
        size_bytes: 0,
        reason: Reason::MaxAge,
        policy: None,
        detail: String::new(),
        in_cluster: Some(InCluster { node: String::new(), policy_generation: None }),
    };
    // As they stand in a line, which a map would sort.
    let line = serde_json::to_string(&deletion).unwrap();
    line.split('"').skip(1).filter(|text| line.contains(&format!("\"{text}\":"))).map(str::to_owned).collect()
}
