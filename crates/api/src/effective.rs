//! Which of a cluster's objects are in force, and why the others are not.
//!
//! Agents go by the policies, the controller writes the reasons into the objects' status: both ask
//! this one function, so that what people read is what happens.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint_keeper_core::policy::{
    InvalidPolicy, Kind, Mode, Policy, PolicyRef, PolicySet, Precedence, Retention,
};
use jiff::Timestamp;
use kube::Resource;
use serde_json::Value;

use crate::{
    CheckpointPolicy, CheckpointRestoreOperator, CheckpointStoragePolicy, ClusterCheckpointPolicy,
    FieldError, Governs, LegacyPolicies, is_same_path, parts, status::PolicyStatus, storage,
};

/// An object as the API gave it.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<K> {
    /// It is what its kind says.
    Parsed(K),
    /// It is not: it was stored by another version, or before a rule existed.
    Unparsable(Box<Unparsable>),
}

/// What is known of an object that is not what its kind says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unparsable {
    /// Its namespace; none where its kind has none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Which object of that name.
    pub uid: Option<String>,
    /// Which version of the whole object.
    pub resource_version: Option<String>,
    /// Which version of what its author wants.
    pub generation: Option<i64>,
    /// Its status, as far as that is one.
    pub status: Option<PolicyStatus>,
    /// Its `spec.deletionLimit`, if there is one: that of a storage policy binds all the same.
    pub deletion_limit: Option<Value>,
    /// Its `spec.precedence`, if there is one: an object that goes before namespaces' policies stands for them too.
    pub precedence: Option<Value>,
    /// What is wrong.
    pub error: String,
}

/// All objects of the kinds that say what may be deleted.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// The administrator's retention.
    pub cluster: Vec<Seen<ClusterCheckpointPolicy>>,
    /// The namespaces' own retention.
    pub namespaced: Vec<Seen<CheckpointPolicy>>,
    /// What checkpoints may use on nodes.
    pub storage: Vec<Seen<CheckpointStoragePolicy>>,
    /// The older operator's retention.
    pub legacy: Vec<Seen<CheckpointRestoreOperator>>,
}

impl Objects {
    /// Applies others, as the API would: each takes the place of the object of its name, whose age it keeps, or is new
    /// and the youngest.
    pub fn apply(&mut self, others: Self) {
        apply(&mut self.cluster, others.cluster);
        apply(&mut self.namespaced, others.namespaced);
        apply(&mut self.storage, others.storage);
        apply(&mut self.legacy, others.legacy);
    }

    /// Which objects they are.
    pub fn refs(&self) -> Vec<PolicyRef> {
        let mut refs = refs_of(Kind::ClusterCheckpointPolicy, &self.cluster);
        refs.extend(refs_of(Kind::CheckpointPolicy, &self.namespaced));
        refs.extend(refs_of(Kind::CheckpointStoragePolicy, &self.storage));
        refs.extend(refs_of(Kind::CheckpointRestoreOperator, &self.legacy));
        refs
    }
}

fn name_of<K: Resource>(object: &Seen<K>) -> (Option<&str>, &str) {
    match object {
        Seen::Parsed(object) => {
            (object.meta().namespace.as_deref(), object.meta().name.as_deref().unwrap_or_default())
        }
        Seen::Unparsable(object) => (object.namespace.as_deref(), &object.name),
    }
}

fn refs_of<K: Resource>(kind: Kind, objects: &[Seen<K>]) -> Vec<PolicyRef> {
    let one = |object| {
        let (namespace, name) = name_of(object);
        PolicyRef { kind, namespace: namespace.map(str::to_owned), name: name.to_owned(), part: None }
    };
    objects.iter().map(one).collect()
}

fn apply<K: Resource>(objects: &mut Vec<Seen<K>>, others: Vec<Seen<K>>) {
    for mut other in others {
        let same = objects.iter_mut().find(|object| name_of(object) == name_of(&other));
        let Some(same) = same else {
            objects.push(other);
            continue;
        };
        if let (Seen::Parsed(before), Seen::Parsed(object)) = (&*same, &mut other) {
            let (before, now) = (before.meta().clone(), object.meta_mut());
            (now.creation_timestamp, now.uid) = (before.creation_timestamp, before.uid);
            now.generation = before.generation;
        }
        *same = other;
    }
}

/// What beside the objects decides which are in force.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The namespaces whose `CheckpointRestoreOperator`s govern the cluster: the operator's own first of all.
    pub operator_namespaces: BTreeSet<String>,
    /// Whether the older operator runs as well. Its objects are then left to it, as two collectors must not delete in
    /// one directory.
    pub other_operator: bool,
    /// The directory that agents collect in.
    pub directory: String,
}

/// The policies in force, and what became of each object.
#[derive(Debug, Clone, Default)]
pub struct EffectivePolicies {
    /// What agents go by.
    pub policies: PolicySet,
    /// What became of each object, with the generation that was looked at.
    pub acceptances: BTreeMap<PolicyRef, (Option<i64>, Acceptance)>,
    /// The objects whose changes wait for the next archive or sweep, as their authors left it.
    pub deferred: BTreeSet<PolicyRef>,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It is in force.
    Accepted,
    /// It is in force for its own namespace alone, as it is not in one whose objects govern the cluster.
    OwnNamespace,
    /// It is understood, governs nothing, and reports what it would change.
    DryRun,
    /// An older object is in force in its place.
    Superseded(PolicyRef),
    /// These entries name another namespace; the rest is in force.
    ForeignNamespace(Vec<String>),
    /// The older operator runs and acts by it: what it governs is left to that one.
    OtherOperator,
    /// No agent has that directory.
    DirectoryNotMounted(String),
    /// It is not understood: nothing that it could govern is deleted by policy.
    Invalid(String),
}

impl Acceptance {
    /// Whether all of it is as its author wants it.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Accepted | Self::OwnNamespace | Self::DryRun)
    }

    /// Whether nodes act by it, or by a part of it.
    pub fn is_in_force(&self) -> bool {
        match self {
            Self::Accepted | Self::OwnNamespace | Self::DryRun | Self::ForeignNamespace(_) => true,
            Self::Superseded(_) | Self::OtherOperator | Self::DirectoryNotMounted(_) | Self::Invalid(_) => {
                false
            }
        }
    }

    /// The reason of the condition `Accepted`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::OwnNamespace => "OwnNamespace",
            Self::DryRun => "DryRun",
            Self::Superseded(_) => "Superseded",
            Self::ForeignNamespace(_) => "ForeignNamespace",
            Self::OtherOperator => "OtherOperator",
            Self::DirectoryNotMounted(_) => "DirectoryNotMounted",
            Self::Invalid(_) => "Invalid",
        }
    }

    /// The same in words, with what would mend it.
    pub fn message(&self, id: &PolicyRef) -> String {
        match self {
            Self::Accepted => "The policy is in force.".to_owned(),
            Self::OwnNamespace => {
                let namespace = id.namespace.as_deref().unwrap_or_default();
                format!(
                    "The policy is in force and governs namespace {namespace} only. To let it govern the whole \
                     cluster, start the agents and the controller with --cluster-policy-namespaces={namespace}."
                )
            }
            Self::DryRun => "The policy deletes nothing; nodes report what it would change.".to_owned(),
            Self::Superseded(other) => format!("{other} is older and in force; delete one of the two."),
            Self::ForeignNamespace(entries) => {
                let (namespace, name) = (id.namespace.as_deref().unwrap_or_default(), &id.name);
                format!(
                    "{} name another namespace and are not in force; only an object in the operator's own \
                     namespace governs others. To move it there: kubectl get checkpointrestoreoperators.criu.org \
                     {name} -n {namespace} -o yaml | sed 's/^  namespace: {namespace}$/  namespace: \
                     OPERATOR-NAMESPACE/' | kubectl create -f -",
                    entries.join(", ")
                )
            }
            Self::OtherOperator => {
                "The older checkpoint-restore-operator is running and acts by this object; what it governs is \
                 left alone here, and it is enforced as soon as that one has stopped."
                    .to_owned()
            }
            Self::DirectoryNotMounted(directory) => format!(
                "{directory} is not where the agents collect; set spec.checkpointDirectory to their directory, \
                 or mount this one."
            ),
            Self::Invalid(error) if id.kind == Kind::CheckpointStoragePolicy => {
                format!("{error}. Until it is mended, only its deletionLimit is in force.")
            }
            Self::Invalid(error) => {
                format!("{error}. Until it is mended, nothing that it could govern is deleted by policy.")
            }
        }
    }
}

/// Which objects are in force.
pub fn effective_policies(objects: &Objects, scope: &Scope) -> EffectivePolicies {
    let mut found = EffectivePolicies::default();
    for object in &objects.cluster {
        match object {
            Seen::Parsed(object) => {
                let read = object.to_policy().map(|policy| (policy.mode, policy));
                found.retention(object.policy_ref(), object.metadata.generation, None, read);
                if object.spec.precedence == parts::Precedence::Override {
                    found.goes_before_namespaces(&object.policy_ref());
                }
            }
            Seen::Unparsable(object) => {
                found.unparsable(Kind::ClusterCheckpointPolicy, object, None);
                if object.precedence.as_ref().is_some_and(|precedence| precedence != "Default") {
                    found.goes_before_namespaces(&id(Kind::ClusterCheckpointPolicy, object));
                }
            }
        }
    }
    for object in &objects.namespaced {
        match object {
            Seen::Parsed(object) => {
                let namespace = object.metadata.namespace.clone();
                let read = object.to_policy().map(|policy| (policy.mode, policy));
                found.retention(object.policy_ref(), object.metadata.generation, namespace, read);
            }
            Seen::Unparsable(object) => {
                found.unparsable(Kind::CheckpointPolicy, object, object.namespace.clone());
            }
        }
    }
    for object in &objects.storage {
        match object {
            Seen::Parsed(object) => {
                let acceptance = match object.to_policy() {
                    Ok(policy) => {
                        let dry_run = policy.mode == Mode::DryRun;
                        found.policies.storage.push(policy);
                        if dry_run { Acceptance::DryRun } else { Acceptance::Accepted }
                    }
                    // It only ever takes more, but for its deletion limit: without the rest less goes, and so
                    // nothing else need wait.
                    Err(errors) => {
                        found.policies.storage.push(object.limit_alone());
                        Acceptance::Invalid(in_words(&errors))
                    }
                };
                found.acceptances.insert(object.policy_ref(), (object.metadata.generation, acceptance));
            }
            Seen::Unparsable(object) => {
                let acceptance = Acceptance::Invalid(object.error.clone());
                let id = id(Kind::CheckpointStoragePolicy, object);
                let limit = object.deletion_limit.as_ref();
                found.policies.storage.push(storage::unparsable_limit(id.clone(), limit));
                found.acceptances.insert(id, (object.generation, acceptance));
            }
        }
    }
    found.legacy(&objects.legacy, scope);
    let generations =
        found.acceptances.iter().filter_map(|(id, (generation, _))| Some((id.clone(), (*generation)?)));
    found.policies.generations = generations.collect();
    found
}

pub(crate) fn id(kind: Kind, object: &Unparsable) -> PolicyRef {
    PolicyRef { kind, namespace: object.namespace.clone(), name: object.name.clone(), part: None }
}

fn in_words(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl EffectivePolicies {
    fn retention(
        &mut self,
        id: PolicyRef,
        generation: Option<i64>,
        namespace: Option<String>,
        read: Result<(Mode, Policy), Vec<FieldError>>,
    ) {
        let acceptance = match read {
            Ok((mode, policy)) => {
                self.policies.retention.push(policy);
                if mode == Mode::DryRun { Acceptance::DryRun } else { Acceptance::Accepted }
            }
            Err(errors) => {
                self.policies.invalid.push(InvalidPolicy {
                    id: id.clone(),
                    namespace,
                    precedence: Precedence::Default,
                });
                Acceptance::Invalid(in_words(&errors))
            }
        };
        self.acceptances.insert(id, (generation, acceptance));
    }

    /// One that goes before namespaces' policies, and is not understood, might govern what they govern.
    fn goes_before_namespaces(&mut self, id: &PolicyRef) {
        let invalid = self.policies.invalid.iter_mut().filter(|policy| policy.id == *id);
        invalid.for_each(|policy| policy.precedence = Precedence::Override);
    }

    fn unparsable(&mut self, kind: Kind, object: &Unparsable, namespace: Option<String>) {
        let id = id(kind, object);
        self.policies.invalid.push(InvalidPolicy {
            id: id.clone(),
            namespace,
            precedence: Precedence::Default,
        });
        self.acceptances.insert(id, (object.generation, Acceptance::Invalid(object.error.clone())));
    }

    /// The older operator's objects: in each place the oldest is in force.
    fn legacy(&mut self, objects: &[Seen<CheckpointRestoreOperator>], scope: &Scope) {
        let governs = |namespace: &Option<String>| {
            let own = namespace.clone().unwrap_or_default();
            if scope.operator_namespaces.contains(&own) { None } else { Some(own) }
        };
        let mut parsed: Vec<&CheckpointRestoreOperator> = Vec::new();
        for object in objects {
            match object {
                Seen::Parsed(object) => parsed.push(object),
                Seen::Unparsable(object) => {
                    let namespace = governs(&object.namespace);
                    self.unparsable(Kind::CheckpointRestoreOperator, object, namespace);
                }
            }
        }
        parsed.sort_by_key(|object| age_and_name(object));
        let mut first: BTreeMap<Option<String>, PolicyRef> = BTreeMap::new();
        for object in parsed {
            let (id, generation) = (object.policy_ref(), object.metadata.generation);
            let settings = object.settings();
            let place = governs(&object.metadata.namespace);
            let acceptance = if let Some(first) = first.get(&place) {
                Acceptance::Superseded(first.clone())
            } else if !is_same_path(&settings.checkpoint_directory, &scope.directory) {
                Acceptance::DirectoryNotMounted(settings.checkpoint_directory)
            } else {
                first.insert(place.clone(), id.clone());
                if !settings.apply_policies_immediately {
                    self.deferred.insert(id.clone());
                }
                let governs = place.as_deref().map_or(Governs::Cluster, Governs::Namespace);
                let mut read = object.to_policies(governs);
                if scope.other_operator
                    && let Ok(read) = &mut read
                {
                    read.policies.iter_mut().for_each(take_nothing);
                }
                self.legacy_in_force(read, &id, place.clone())
            };
            self.acceptances.insert(id, (generation, acceptance));
        }
        if scope.other_operator {
            for (id, (_, acceptance)) in &mut self.acceptances {
                if id.kind == Kind::CheckpointRestoreOperator {
                    *acceptance = Acceptance::OtherOperator;
                }
            }
        }
    }

    fn legacy_in_force(
        &mut self,
        read: Result<LegacyPolicies, Vec<FieldError>>,
        id: &PolicyRef,
        namespace: Option<String>,
    ) -> Acceptance {
        match read {
            Ok(policies) => {
                let dry_run = policies.policies.iter().any(|policy| policy.mode == Mode::DryRun);
                self.policies.retention.extend(policies.policies);
                if !policies.foreign.is_empty() {
                    Acceptance::ForeignNamespace(policies.foreign)
                } else if dry_run {
                    Acceptance::DryRun
                } else if namespace.is_some() {
                    Acceptance::OwnNamespace
                } else {
                    Acceptance::Accepted
                }
            }
            Err(errors) => {
                self.policies.invalid.push(InvalidPolicy {
                    id: id.clone(),
                    namespace,
                    precedence: Precedence::Default,
                });
                Acceptance::Invalid(in_words(&errors))
            }
        }
    }
}

/// Leaves a policy what it governs, and nothing that it would delete: what is another's to delete must not
/// fall to the next policy, which may keep less.
fn take_nothing(policy: &mut Policy) {
    let Retention { keep_latest, keep_latest_for, .. } = policy.retention;
    policy.retention = Retention { keep_latest, keep_latest_for, ..Retention::default() };
    policy.orphans = None;
    policy.incomplete_grace = None;
    policy.damaged_grace = None;
}

/// The oldest first; of equally old ones, by name.
fn age_and_name(
    object: &CheckpointRestoreOperator,
) -> (bool, Option<Timestamp>, Option<String>, Option<String>) {
    let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (created.is_none(), created, object.metadata.namespace.clone(), object.metadata.name.clone())
}
