//! The parts of specs that several kinds share, and what they mean to core.

use std::collections::BTreeMap;
use std::time::Duration;

use checkpoint_keeper_core::policy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Problems;
use crate::rules::{self, validations};
use crate::scalars::{
    ExactName, LabelKey, LabelValue, LengthOfTime, LengthOfTimeOrForever, SizeOrShareText, SizeText,
};

/// Whether a policy deletes or only reports what it would delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// The policy governs archives and deletes.
    #[default]
    Enforce,
    /// The policy governs nothing; its report is the difference that it would make.
    DryRun,
}

impl From<Mode> for policy::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Enforce => Self::Enforce,
            Mode::DryRun => Self::DryRun,
        }
    }
}

/// A Kubernetes label selector: all of its parts must match; empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelectorSpec {
    /// matchLabels are labels that must be there with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "x-kubernetes-validations" = validations(&[&rules::LABEL_KEYS])))]
    pub match_labels: BTreeMap<String, LabelValue>,
    /// matchExpressions are requirements on labels, all of which must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<RequirementSpec>,
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::SELECTOR_VALUES])))]
pub struct RequirementSpec {
    /// key is the label's key.
    pub key: LabelKey,
    /// operator says what must hold of the label.
    pub operator: SelectorOperator,
    /// values are those of In and NotIn; none for Exists and DoesNotExist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<LabelValue>,
}

/// What a requirement asks of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelectorSpec {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> policy::LabelSelector {
        let mut requirements = Vec::new();
        for (key, value) in &self.match_labels {
            let at = format!("{path}.matchLabels.{key}");
            if !rules::is_label_key(key) {
                problems.add(&at, rules::LABEL_KEY.message, None);
            }
            if !rules::is_label_value(&value.0) {
                problems.add(&at, format!("{:?} {}", value.0, rules::LABEL_VALUE.message), None);
            }
            let operator = policy::Operator::In(vec![value.0.clone()]);
            requirements.push(policy::Requirement { key: key.clone(), operator });
        }
        for (index, expression) in self.match_expressions.iter().enumerate() {
            let at = format!("{path}.matchExpressions[{index}]");
            if !rules::is_label_key(&expression.key.0) {
                problems.add(
                    &format!("{at}.key"),
                    format!("{:?} {}", expression.key.0, rules::LABEL_KEY.message),
                    None,
                );
            }
            for (index, value) in expression.values.iter().enumerate() {
                if !rules::is_label_value(&value.0) {
                    let message = format!("{:?} {}", value.0, rules::LABEL_VALUE.message);
                    problems.add(&format!("{at}.values[{index}]"), message, None);
                }
            }
            match expression.operator() {
                Some(operator) => {
                    requirements.push(policy::Requirement { key: expression.key.0.clone(), operator });
                }
                None => problems.add(&at, rules::SELECTOR_VALUES.message, None),
            }
        }
        policy::LabelSelector(requirements)
    }
}

impl RequirementSpec {
    /// The operator with its values; none where they break [`rules::SELECTOR_VALUES`].
    fn operator(&self) -> Option<policy::Operator> {
        let values = || self.values.iter().map(|value| value.0.clone()).collect();
        match (self.operator, self.values.is_empty()) {
            (SelectorOperator::In, false) => Some(policy::Operator::In(values())),
            (SelectorOperator::NotIn, false) => Some(policy::Operator::NotIn(values())),
            (SelectorOperator::Exists, true) => Some(policy::Operator::Exists),
            (SelectorOperator::DoesNotExist, true) => Some(policy::Operator::DoesNotExist),
            (SelectorOperator::In | SelectorOperator::NotIn, true)
            | (SelectorOperator::Exists | SelectorOperator::DoesNotExist, false) => None,
        }
    }
}

/// Reads an optional label selector; absent matches everything.
pub(crate) fn labels(
    selector: Option<&LabelSelectorSpec>,
    path: &str,
    problems: &mut Problems,
) -> policy::LabelSelector {
    selector.map(|selector| selector.read(path, problems)).unwrap_or_default()
}

/// Reads a list of exact names.
pub(crate) fn names(names: &[ExactName], path: &str, problems: &mut Problems) -> Vec<String> {
    names.iter().enumerate().map(|(index, name)| name.read(&format!("{path}[{index}]"), problems)).collect()
}

/// What stays. Every limit is per node; 0 or absent turns that one limit off; oldest archives go first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::TIERS_AND_MAX_AGE, &rules::TIERS_AND_MAX_COUNT])))]
pub struct RetentionSpec {
    /// keepLatest is how many of the newest complete archives are kept per node although a rule of this policy
    /// would delete them: of each workload's container against maxAge and tiers, and of each group that a limit
    /// by count or size counts against that limit. Default 1; 0 protects none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000), extend("default" = 1))]
    pub keep_latest: Option<i32>,
    /// keepLatestFor is how long keepLatest still holds after the last pod of that workload left the node:
    /// a length of time such as 24h or 7d, or Forever. Default 7d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "7d"))]
    pub keep_latest_for: Option<LengthOfTimeOrForever>,
    /// minAge protects younger archives from limits by count and size and from tiers; they count all the
    /// same. A length of time such as 1h. Default, and 0: none is protected by its age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_age: Option<LengthOfTime>,
    /// maxAge is the age above which archives go: a length of time such as 24h, 30d or 4w. Default, and 0: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<LengthOfTime>,
    /// maxArchiveSize is the size above which an archive goes, even the newest: such as 20Gi; a number
    /// without a suffix is bytes. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_archive_size: Option<SizeText>,
    /// perContainer limits the archives of one container of one pod, per node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_container: Option<LimitSpec>,
    /// perWorkload limits the archives of one container over all pods of a workload (Deployment, CronJob,
    /// DaemonSet, StatefulSet, …), per node. No effect on archives whose workload is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_workload: Option<LimitSpec>,
    /// perPod limits the archives of one pod, per node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_pod: Option<LimitSpec>,
    /// perNamespace limits the archives of one namespace, per node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_namespace: Option<LimitSpec>,
    /// tiers keep the newest archive of each of so many hours, days, weeks, months and years, in UTC,
    /// instead of maxAge and perContainer.maxCount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<TiersSpec>,
}

/// Limits on a group of archives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitSpec {
    /// maxCount is how many archives stay on a node. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_count: Option<i64>,
    /// maxTotalSize is how much the archives may have together on a node: a size such as 50Gi (a number
    /// without a suffix is bytes), or a share of the file system such as 10%. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<SizeOrShareText>,
}

impl LimitSpec {
    pub(crate) fn read(limit: Option<&Self>, path: &str, problems: &mut Problems) -> policy::Limit {
        let Some(limit) = limit else { return policy::Limit::default() };
        policy::Limit {
            max_count: count(limit.max_count, &format!("{path}.maxCount"), problems),
            max_total_size: limit
                .max_total_size
                .as_ref()
                .and_then(|size| size.read(&format!("{path}.maxTotalSize"), problems)),
        }
    }
}

/// How many periods keep their newest archive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::TIERS_KEEP])))]
pub struct TiersSpec {
    /// hourly is the number of hours of which the newest archive is kept, as with restic's --keep-hourly.
    /// Absent, and 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub hourly: Option<i32>,
    /// daily is the number of days of which the newest archive is kept, as with restic's --keep-daily.
    /// Absent, and 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub daily: Option<i32>,
    /// weekly is the number of weeks, which begin on Monday, of which the newest archive is kept, as with
    /// restic's --keep-weekly. Absent, and 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub weekly: Option<i32>,
    /// monthly is the number of months of which the newest archive is kept, as with restic's --keep-monthly.
    /// Absent, and 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub monthly: Option<i32>,
    /// yearly is the number of years of which the newest archive is kept, as with restic's --keep-yearly.
    /// Absent, and 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub yearly: Option<i32>,
}

impl RetentionSpec {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> policy::Retention {
        let defaults = policy::Retention::default();
        if self.tiers.is_some() && self.max_age.is_some() {
            problems.add(&format!("{path}.tiers"), rules::TIERS_AND_MAX_AGE.message, None);
        }
        if self.tiers.is_some() && self.per_container.as_ref().is_some_and(|limit| limit.max_count.is_some())
        {
            problems.add(&format!("{path}.tiers"), rules::TIERS_AND_MAX_COUNT.message, None);
        }
        let mut limit = |limit: &Option<LimitSpec>, name: &str| {
            LimitSpec::read(limit.as_ref(), &format!("{path}.{name}"), problems)
        };
        let (per_container, per_workload) =
            (limit(&self.per_container, "perContainer"), limit(&self.per_workload, "perWorkload"));
        let (per_pod, per_namespace) =
            (limit(&self.per_pod, "perPod"), limit(&self.per_namespace, "perNamespace"));
        policy::Retention {
            keep_latest: keep_latest(self.keep_latest, &format!("{path}.keepLatest"), problems),
            keep_latest_for: self
                .keep_latest_for
                .as_ref()
                .and_then(|time| time.read(&format!("{path}.keepLatestFor"), problems))
                .unwrap_or(defaults.keep_latest_for),
            min_age: self.min_age.as_ref().and_then(|age| age.read(&format!("{path}.minAge"), problems)),
            max_age: self.max_age.as_ref().and_then(|age| age.read(&format!("{path}.maxAge"), problems)),
            max_archive_size: self
                .max_archive_size
                .as_ref()
                .and_then(|size| size.read(&format!("{path}.maxArchiveSize"), problems)),
            per_container,
            per_workload,
            per_pod,
            per_namespace,
            tiers: self.tiers.as_ref().map(|tiers| tiers.read(&format!("{path}.tiers"), problems)),
        }
    }
}

impl TiersSpec {
    fn read(&self, path: &str, problems: &mut Problems) -> policy::Tiers {
        let before = problems.0.len();
        let mut tier = |value: Option<i32>, name: &str| {
            value.map_or(0, |value| natural(value, &format!("{path}.{name}"), problems))
        };
        let tiers = policy::Tiers {
            hourly: tier(self.hourly, "hourly"),
            daily: tier(self.daily, "daily"),
            weekly: tier(self.weekly, "weekly"),
            monthly: tier(self.monthly, "monthly"),
            yearly: tier(self.yearly, "yearly"),
        };
        if tiers == policy::Tiers::default() && problems.0.len() == before {
            problems.add(&path, rules::TIERS_KEEP.message, None);
        }
        tiers
    }
}

/// `keepLatest` with its default.
pub(crate) fn keep_latest(value: Option<i32>, path: &str, problems: &mut Problems) -> u32 {
    value.map_or(policy::DEFAULT_KEEP_LATEST, |value| natural(value, path, problems))
}

/// A count that is off where it is 0 or absent.
pub(crate) fn count(value: Option<i64>, path: &str, problems: &mut Problems) -> Option<u64> {
    let value = value?;
    if value < 0 {
        problems.add(&path, format!("{value} is negative"), Some("0 turns the limit off".to_owned()));
    }
    u64::try_from(value).ok().filter(|count| *count > 0)
}

/// A number that is not negative.
pub(crate) fn natural<I: TryInto<U> + std::fmt::Display + Copy, U: Default>(
    value: I,
    path: &str,
    problems: &mut Problems,
) -> U {
    value.try_into().unwrap_or_else(|_| {
        problems.add(&path, format!("{value} is negative"), None);
        U::default()
    })
}

/// Where a cluster-wide policy stands among the policies that are for an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Precedence {
    /// Policies of the archive's namespace go before it.
    #[default]
    Default,
    /// It goes before policies of the archive's namespace: what it keeps, no team can delete.
    Override,
}

impl From<Precedence> for policy::Precedence {
    fn from(precedence: Precedence) -> Self {
        match precedence {
            Precedence::Default => Self::Default,
            Precedence::Override => Self::Override,
        }
    }
}

/// What becomes of archives that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// They stay, as far as this rule goes.
    Retain,
    /// They go when the grace period has passed.
    Delete,
}

/// What must be gone for an archive to be an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OrphanWhen {
    /// The topmost owner of the pod (Deployment, CronJob, …); for a bare pod, the pod.
    #[default]
    WorkloadDeleted,
    /// The pod, by its name.
    PodDeleted,
    /// The namespace.
    NamespaceDeleted,
}

/// What becomes of archives whose workload, pod or namespace is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrphansSpec {
    /// action says whether orphans go. Required.
    pub action: Action,
    /// when says what must be gone for an archive to be an orphan. Default WorkloadDeleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OrphanWhen", extend("default" = "WorkloadDeleted"))]
    pub when: Option<OrphanWhen>,
    /// gracePeriod is how long an orphan stays after its absence was first confirmed: a length of time.
    /// Default 24h; 0: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "24h"))]
    pub grace_period: Option<LengthOfTime>,
}

/// How long orphans stay where a policy does not say.
pub const DEFAULT_ORPHAN_GRACE: Duration = Duration::from_hours(24);

impl OrphansSpec {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<policy::OrphanRule> {
        let grace =
            grace(self.grace_period.as_ref(), &format!("{path}.gracePeriod"), DEFAULT_ORPHAN_GRACE, problems);
        let when = match self.when.unwrap_or_default() {
            OrphanWhen::WorkloadDeleted => policy::OrphanWhen::WorkloadDeleted,
            OrphanWhen::PodDeleted => policy::OrphanWhen::PodDeleted,
            OrphanWhen::NamespaceDeleted => policy::OrphanWhen::NamespaceDeleted,
        };
        match self.action {
            Action::Retain => None,
            Action::Delete => Some(policy::OrphanRule { when, grace }),
        }
    }
}

/// What becomes of archives that are incomplete: cut off by a full disk or a failed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncompleteSpec {
    /// action says whether incomplete archives go. Required.
    pub action: Action,
    /// gracePeriod is how long an incomplete archive stays after its last change: a length of time.
    /// Default 1h; 0: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "1h"))]
    pub grace_period: Option<LengthOfTime>,
}

/// How long incomplete archives stay where a policy does not say.
pub const DEFAULT_INCOMPLETE_GRACE: Duration = Duration::from_hours(1);

impl IncompleteSpec {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Duration> {
        let path = format!("{path}.gracePeriod");
        let grace = grace(self.grace_period.as_ref(), &path, DEFAULT_INCOMPLETE_GRACE, problems);
        match self.action {
            Action::Retain => None,
            Action::Delete => Some(grace),
        }
    }
}

/// What becomes of archives that are damaged: they begin as archives and contradict themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DamagedSpec {
    /// action says whether damaged archives go. Required.
    pub action: Action,
    /// gracePeriod is how long a damaged archive stays after its last change: a length of time.
    /// Default 24h; 0: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "24h"))]
    pub grace_period: Option<LengthOfTime>,
}

/// How long damaged archives stay where a policy does not say.
pub const DEFAULT_DAMAGED_GRACE: Duration = Duration::from_hours(24);

impl DamagedSpec {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Duration> {
        let path = format!("{path}.gracePeriod");
        let grace = grace(self.grace_period.as_ref(), &path, DEFAULT_DAMAGED_GRACE, problems);
        match self.action {
            Action::Retain => None,
            Action::Delete => Some(grace),
        }
    }
}

/// A grace period with its default; 0 is none at all.
pub(crate) fn grace(
    time: Option<&LengthOfTime>,
    path: &str,
    default: Duration,
    problems: &mut Problems,
) -> Duration {
    time.and_then(|time| time.read_with_zero(path, problems)).unwrap_or(default)
}
