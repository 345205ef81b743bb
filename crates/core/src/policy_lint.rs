//! Policies, and parts of them, that can never act: legal, and hardly what their author meant.
//!
//! Some of it shows in the policies alone, some only beside what lies on a node. Pure, as everything here.

use std::collections::BTreeMap;
use std::fmt;

use crate::identity::Identity;
use crate::plan::{FileSystem, Snapshot, precedence};
use crate::policy::{
    Kind, LabelSelector, Labels, Limit, Mode, Operator, Policy, PolicyRef, PolicySet, Selector, Size,
    StoragePolicy,
};
use crate::quantity;

/// The label that every namespace has, with its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A policy of which all or a part has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoEffect {
    /// Which policy.
    pub policy: PolicyRef,
    /// What of it, and why.
    pub why: Why,
}

impl NoEffect {
    /// The same as text that does not name the policy, for where it stands beside it.
    pub fn without_name(&self) -> String {
        let part = self.policy.part.as_ref().map(|part| format!("{part} ")).unwrap_or_default();
        format!("{part}{}", self.why)
    }
}

impl fmt::Display for NoEffect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.policy.to_string();
        // Of an object of several parts, which one it is.
        let part = self.policy.part.as_ref().filter(|part| !policy.ends_with(part.as_str()));
        write!(formatter, "{policy}{} {}", part.map(|part| format!(" {part}")).unwrap_or_default(), self.why)
    }
}

/// Why something has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Another policy goes first for every archive that it is for.
    Shadowed(PolicyRef),
    /// Nothing here is of what it names: `namespace`, `pod` or `container`, and the names.
    NothingNamed(&'static str, Vec<String>),
    /// A limit that a lower one of a wider group always comes before.
    Limit {
        /// The one without effect: `perContainer.maxCount`.
        limit: &'static str,
        /// The lower one.
        beside: &'static str,
    },
    /// A count below the number of newest ones that always stay.
    BelowKeepLatest {
        /// The count: `perContainer.maxCount`.
        limit: &'static str,
        /// How many always stay.
        keep_latest: u32,
    },
    /// Whatever is not protected by its age is gone by its age.
    MinAgeNotBelowMaxAge,
    /// A storage policy that asks for nothing.
    NoStorageRule,
    /// A low watermark, and nowhere a high one.
    LowWatermarkAlone,
    /// These fields only say something of a watermark or `minFree`, and there is neither.
    NoPressureRule(&'static str),
    /// Nothing may ever be taken.
    ReservesEverything,
    /// More free bytes than the file system has.
    MinFreeBytes {
        /// Wanted.
        wanted: u64,
        /// There.
        total: u64,
    },
    /// More free inodes than the file system has.
    MinFreeInodes {
        /// Wanted.
        wanted: u64,
        /// There.
        total: u64,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shadowed(first) => {
                write!(formatter, "governs nothing: {first} goes before it for every archive that it is for")
            }
            Self::NothingNamed(what, names) => {
                write!(formatter, "governs nothing here: no archive is of the {what} {}", names.join(", "))
            }
            Self::Limit { limit, beside } => {
                write!(formatter, "{limit} has no effect: {beside} is lower, and for more archives")
            }
            Self::BelowKeepLatest { limit, keep_latest } => {
                write!(formatter, "{limit} is below keepLatest: the {keep_latest} newest always stay")
            }
            Self::MinAgeNotBelowMaxAge => formatter
                .write_str("minAge is not below maxAge: no limit by count or size ever takes anything"),
            Self::NoStorageRule => formatter.write_str("has no rule, so it changes nothing"),
            Self::LowWatermarkAlone => {
                formatter.write_str("lowWatermark has no effect: there is no highWatermark")
            }
            Self::NoPressureRule(field) => {
                write!(formatter, "{field} has no effect: there is neither highWatermark nor minFree")
            }
            Self::ReservesEverything => formatter
                .write_str("reserved is 100%, so neither highWatermark nor minFree ever takes anything"),
            Self::MinFreeBytes { wanted, total } => {
                let (wanted, total) = (quantity::human(*wanted), quantity::human(*total));
                write!(
                    formatter,
                    "minFree.bytes has no effect: {wanted} is more than the {total} of this disk"
                )
            }
            Self::MinFreeInodes { wanted, total } => write!(
                formatter,
                "minFree.inodes has no effect: {wanted} is more than the {total} inodes of this disk"
            ),
        }
    }
}

/// What shows in the policies alone.
pub fn without_effect(policies: &PolicySet) -> Vec<NoEffect> {
    let mut found = Vec::new();
    // Only those of its namespace and those of no namespace can go before a policy.
    let mut by_namespace: BTreeMap<Option<&str>, Vec<&Policy>> = BTreeMap::new();
    for policy in &policies.retention {
        by_namespace.entry(policy.namespace.as_deref()).or_default().push(policy);
    }
    for policy in &policies.retention {
        let of_namespace = policy.namespace.as_deref().and_then(|name| by_namespace.get(&Some(name)));
        let near = by_namespace.get(&None).into_iter().chain(of_namespace).flatten();
        let before = near.filter(|other| other.id != policy.id && shadows(other, policy));
        if let Some(first) = before.min_by_key(|other| precedence(other)) {
            found.push(of(&policy.id, Why::Shadowed(first.id.clone())));
        } else if policy.id.kind != Kind::CheckpointRestoreOperator {
            found.extend(limits(policy).into_iter().map(|why| of(&policy.id, why)));
        }
    }
    let any = |wanted: fn(&StoragePolicy) -> bool| policies.storage.iter().any(wanted);
    let (high, min_free) = (any(has_high), any(has_min_free));
    for policy in &policies.storage {
        found.extend(storage(policy, high, min_free).into_iter().map(|why| of(&policy.id, why)));
    }
    found
}

/// What shows only beside what lies on a node.
pub fn without_effect_here(policies: &PolicySet, here: &Snapshot) -> Vec<NoEffect> {
    let mut found = Vec::new();
    let known: Vec<_> = here.archives.iter().filter_map(|archive| archive.identity.as_deref()).collect();
    let native = |policy: &&Policy| policy.id.kind != Kind::CheckpointRestoreOperator;
    for policy in policies.retention.iter().filter(native).filter(|_| !known.is_empty()) {
        let namespaces = namespaces(policy);
        let mut left = known.clone();
        let parts: [(&'static str, &[String], Name); 3] = [
            ("namespace", &namespaces, |identity| &identity.namespace),
            ("pod", &policy.selector.pods, |identity| &identity.pod),
            ("container", &policy.selector.containers, |identity| &identity.container),
        ];
        for (what, names, name) in parts {
            if names.is_empty() {
                continue;
            }
            left.retain(|identity| names.iter().any(|wanted| wanted == name(identity)));
            if left.is_empty() {
                found.push(of(&policy.id, Why::NothingNamed(what, names.to_vec())));
                break;
            }
        }
    }
    if let Some(filesystem) = here.filesystem {
        found.extend(policies.storage.iter().flat_map(|policy| min_free(policy, filesystem)));
    }
    found
}

/// What storage policies that are enforced on a node of these labels ask for, and its disk does not have.
pub fn beyond_disk(
    policies: &[StoragePolicy],
    node: Option<&Labels>,
    filesystem: Option<FileSystem>,
) -> Vec<NoEffect> {
    let Some(filesystem) = filesystem else { return Vec::new() };
    let is_here = |policy: &&StoragePolicy| {
        let selector = &policy.node_selector;
        selector.0.is_empty() || node.is_some_and(|labels| selector.matches(labels))
    };
    let here = policies.iter().filter(|policy| policy.mode == Mode::Enforce).filter(is_here);
    here.flat_map(|policy| min_free(policy, filesystem)).collect()
}

/// What of a policy's `minFree` is more than a file system has.
fn min_free(policy: &StoragePolicy, filesystem: FileSystem) -> impl Iterator<Item = NoEffect> {
    let (bytes, inodes) = (filesystem.total_bytes, filesystem.total_inodes);
    let wanted = policy.min_free_bytes.filter(|wanted| bytes > 0 && *wanted > bytes);
    let of_bytes = wanted.map(|wanted| Why::MinFreeBytes { wanted, total: bytes });
    // Some file systems make inodes as they need them, and report none.
    let wanted = policy.min_free_inodes.filter(|wanted| inodes > 0 && *wanted > inodes);
    let of_inodes = wanted.map(|wanted| Why::MinFreeInodes { wanted, total: inodes });
    of_bytes.into_iter().chain(of_inodes).map(|why| of(&policy.id, why))
}

/// One part of whose checkpoint it is.
type Name = fn(&Identity) -> &str;

fn of(policy: &PolicyRef, why: Why) -> NoEffect {
    NoEffect { policy: policy.clone(), why }
}

/// Whether one goes before another for every archive that the other is for.
fn shadows(first: &Policy, other: &Policy) -> bool {
    first.mode == Mode::Enforce && precedence(first) < precedence(other) && covers(first, other)
}

/// Whether one is for every archive that the other is for.
fn covers(wide: &Policy, narrow: &Policy) -> bool {
    let (one, other): (&Selector, &Selector) = (&wide.selector, &narrow.selector);
    let names = |wide: &[String], narrow: &[String]| {
        wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|name| wide.contains(name)))
    };
    let own: Vec<String> = narrow.namespace.iter().cloned().collect();
    let namespaces = if other.namespaces.is_empty() { &own } else { &other.namespaces };
    (wide.namespace.is_none() || wide.namespace == narrow.namespace)
        && names(&one.namespaces, namespaces)
        && labels(&one.namespace_labels, &other.namespace_labels)
        && labels(&one.pod_labels, &other.pod_labels)
        && names(&one.pods, &other.pods)
        && names(&one.containers, &other.containers)
}

/// Whether whatever satisfies the narrow selector satisfies the wide one.
fn labels(wide: &LabelSelector, narrow: &LabelSelector) -> bool {
    wide.0.iter().all(|requirement| narrow.0.contains(requirement))
}

/// The namespaces that a policy names; none: it names none.
fn namespaces(policy: &Policy) -> Vec<String> {
    if let Some(namespace) = &policy.namespace {
        return vec![namespace.clone()];
    }
    let named =
        policy.selector.namespace_labels.0.iter().find_map(|requirement| match &requirement.operator {
            Operator::In(names) if requirement.key == NAMESPACE_NAME => Some(names.clone()),
            _ => None,
        });
    named.unwrap_or_else(|| policy.selector.namespaces.clone())
}

fn limits(policy: &Policy) -> Vec<Why> {
    let rules = &policy.retention;
    let mut found = Vec::new();
    // Not perWorkload: where the workload is not known, it is no limit.
    let levels: [(Limit, &'static str, &'static str); 3] = [
        (rules.per_container, "perContainer.maxCount", "perContainer.maxTotalSize"),
        (rules.per_pod, "perPod.maxCount", "perPod.maxTotalSize"),
        (rules.per_namespace, "perNamespace.maxCount", "perNamespace.maxTotalSize"),
    ];
    for (place, (limit, count, size)) in levels.iter().enumerate() {
        let wider = &levels[place + 1..];
        let lower = |wide: &&(Limit, &'static str, &'static str)| matches!((limit.max_count, wide.0.max_count), (Some(narrow), Some(wide)) if wide < narrow);
        if let Some((_, beside, _)) = wider.iter().find(lower) {
            found.push(Why::Limit { limit: count, beside });
        }
        let smaller =
            |wide: &&(Limit, &'static str, &'static str)| match (limit.max_total_size, wide.0.max_total_size)
            {
                (Some(Size::Bytes(narrow)), Some(Size::Bytes(wide))) => wide < narrow,
                (Some(Size::Share(narrow)), Some(Size::Share(wide))) => wide < narrow,
                _ => false,
            };
        if let Some((_, _, beside)) = wider.iter().find(smaller) {
            found.push(Why::Limit { limit: size, beside });
        }
        if limit.max_count.is_some_and(|most| most < u64::from(rules.keep_latest)) {
            found.push(Why::BelowKeepLatest { limit: count, keep_latest: rules.keep_latest });
        }
    }
    if matches!((rules.min_age, rules.max_age), (Some(least), Some(most)) if least >= most) {
        found.push(Why::MinAgeNotBelowMaxAge);
    }
    found
}

fn has_high(policy: &StoragePolicy) -> bool {
    policy.high_watermark.is_some_and(|share| !share.is_zero())
}

fn has_min_free(policy: &StoragePolicy) -> bool {
    policy.min_free_bytes.is_some() || policy.min_free_inodes.is_some()
}

/// What of a storage policy has no effect; whether any policy has a watermark or `minFree` is given.
fn storage(policy: &StoragePolicy, high: bool, min_free: bool) -> Vec<Why> {
    let low = policy.low_watermark.is_some_and(|share| !share.is_zero());
    let mut found = Vec::new();
    if low && !high {
        found.push(Why::LowWatermarkAlone);
    }
    if !high && !min_free {
        if policy.critical_watermark.is_some() {
            found.push(Why::NoPressureRule("criticalWatermark"));
        }
        if policy.reserved.is_some() {
            found.push(Why::NoPressureRule("reserved"));
        }
    } else if policy.reserved.is_some_and(|share| Some(share) == crate::quantity::Share::percent(100)) {
        found.push(Why::ReservesEverything);
    }
    let silent = StoragePolicy {
        mode: policy.mode,
        ..StoragePolicy::silent(policy.id.clone(), policy.node_selector.clone())
    };
    if *policy == silent {
        found.push(Why::NoStorageRule);
    }
    found
}
