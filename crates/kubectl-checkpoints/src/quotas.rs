//! What quotas allow, and how much of that is used: shown below what `usage` adds up.

use anstyle::Style;
use checkpoint_keeper_api::CheckpointQuota;
use checkpoint_keeper_api::quota::{EXCEEDED, NEARLY_EXCEEDED, QuotaUsed};
use checkpoint_keeper_core::quantity::human;
use checkpoint_keeper_terminal::table::{Column, Kind};
use kube::ResourceExt;
use serde::Serialize;

use crate::failure::Failure;
use crate::session::Session;
use crate::show::{bad, bar, doubtful, figure, line, name, table};

/// One quota, and what its namespace holds as its status says, which may be some minutes old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaUse {
    namespace: String,
    name: String,
    /// None: it was not counted yet.
    archives: Option<u64>,
    /// None: any number.
    most_archives: Option<u64>,
    /// None: it was not counted yet.
    bytes: Option<u64>,
    /// None: any size.
    most_bytes: Option<u64>,
    /// Of the limit that is nearest to being reached, rounded down. None: not counted yet, or the limit is 0.
    used_percent: Option<u64>,
    is_exceeded: bool,
    is_nearly_exceeded: bool,
    /// The figures may be too small, as the report of some node leaves the namespace out.
    is_partial: bool,
}

/// The quotas of one namespace, or of all; none where the user may not list them, which is noted.
pub async fn read(session: &Session, namespace: Option<&str>) -> Vec<QuotaUse> {
    let objects = session.list_if_allowed::<CheckpointQuota>(namespace).await.unwrap_or_default();
    let mut quotas = Vec::new();
    for object in &objects {
        match object.to_quota() {
            Ok(quota) => quotas.push(quota_use(object, quota.hard.count, quota.hard.bytes)),
            Err(errors) => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                let whose = object.namespace().unwrap_or_default();
                session.unseen(format!(
                    "CheckpointQuota {whose}/{}: {}",
                    object.name_any(),
                    errors.join("; ")
                ));
            }
        }
    }
    quotas.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    quotas
}

fn quota_use(object: &CheckpointQuota, most_archives: Option<u64>, most_bytes: Option<u64>) -> QuotaUse {
    let status = object.status.as_ref();
    let held = status.and_then(|status| status.used.as_ref()).map(QuotaUsed::held);
    let percents = status.and_then(|status| status.used_percent.as_ref());
    let percent = percents.and_then(|percents| percents.count.max(percents.bytes));
    let is = |type_: &str| {
        let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
        conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    QuotaUse {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        archives: held.as_ref().map(|held| held.count),
        most_archives,
        bytes: held.as_ref().map(|held| held.bytes),
        most_bytes,
        used_percent: percent.and_then(|percent| u64::try_from(percent).ok()),
        is_exceeded: is(EXCEEDED),
        is_nearly_exceeded: is(NEARLY_EXCEEDED),
        is_partial: status.is_some_and(|status| status.partial),
    }
}

/// Prints a table of quotas, if there are any.
pub fn show(quotas: &[QuotaUse]) -> Result<(), Failure> {
    if quotas.is_empty() {
        return Ok(());
    }
    let row = |quota: &QuotaUse| {
        let (style, state) = match (quota.is_exceeded, quota.is_nearly_exceeded) {
            (true, _) => (bad(), "exceeded"),
            // No checkpoint more has room in it.
            (false, _) if quota.used_percent == Some(100) => (doubtful(), "used up"),
            (false, true) => (doubtful(), "nearly exceeded"),
            (false, false) => (Style::new(), "-"),
        };
        let state = if quota.is_partial { format!("{state} (partial)") } else { state.to_owned() };
        let percent = quota.used_percent;
        let cells = vec![
            format!("{}/{}", quota.namespace, quota.name),
            of(quota.archives, quota.most_archives, |count| count.to_string()),
            of(quota.bytes, quota.most_bytes, human),
            percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
            state,
            bar(percent.unwrap_or(0), 100),
        ];
        (style, cells)
    };
    let columns = [
        name("QUOTA"),
        figure("ARCHIVES"),
        figure("SIZE"),
        figure("USED"),
        Column::new("STATE", Kind::Word),
        Column::optional("", Kind::Word),
    ];
    line("")?;
    table(&columns, quotas.iter().map(row).collect())
}

/// `12 of 50`; `12` where there is no limit, and `?` for what was not counted yet.
fn of(used: Option<u64>, most: Option<u64>, text: impl Fn(u64) -> String) -> String {
    let used = used.map_or_else(|| "?".to_owned(), &text);
    most.map_or_else(|| used.clone(), |most| format!("{used} of {}", text(most)))
}
