//! Policies from files: multi-document YAML (and so JSON) of the kinds that say what is kept. Schedules beside them
//! are checked, and left to the agents.
//!
//! Everything that is wrong with every document is reported at once, with file, line, field and a
//! hint. What the API server would refuse is refused here too, in the same words.
//!
//! Limits, so that no input can exhaust memory or time: 4 MiB and 1000 documents a file, 200 000
//! values and 24 levels a document, 5 000 values out of aliases a document, 200 errors reported.

mod check;
mod documents;
mod error;
mod object;
mod tree;

use std::collections::BTreeMap;

use checkpoint_keeper_core::policy::{
    LabelSelector, Limit, Mode, Policy, PolicyRef, PolicySet, StoragePolicy,
};

use self::check::Finding;
pub use self::error::{ManifestError, ManifestWarning};
use self::object::{Meaning, ObjectId};
use self::tree::{Node, Place, Tree};
use crate::effective::Objects;
use crate::{LegacyPolicies, LegacySettings};

/// The largest file that is read, in bytes.
pub const LARGEST_FILE: usize = 4 << 20;
/// The most documents of a file.
pub const MOST_DOCUMENTS: usize = 1_000;
/// Points between the watermarks above which a digit may be missing: 8% for 85%.
const FAR_BELOW: u32 = 30;
/// The most errors that are reported.
const MOST_ERRORS: usize = 200;

/// What files say.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The policies in force.
    pub policies: PolicySet,
    /// The objects that say what is kept, in force or not.
    pub objects: Objects,
    /// What the older operator's objects set beside retention.
    pub legacy: Vec<LegacySettings>,
    /// What is legal and perhaps not meant.
    pub warnings: Vec<ManifestWarning>,
    /// What is left out on purpose.
    pub notes: Vec<ManifestWarning>,
}

/// Reads policies from files, each a name (for messages) and its text, whatever directory they are for.
///
/// Errors: everything that is wrong in any of the files, in their order; never empty.
pub fn load<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)]) -> Result<Loaded, Vec<ManifestError>> {
    load_for(files, |_| true)
}

/// The same for one directory: an object of the older operator that names another one is not in force. Whether
/// a path that an object names is that directory, `is_here` says.
pub fn load_for<N: AsRef<str>, T: AsRef<str>>(
    files: &[(N, T)],
    is_here: impl Fn(&str) -> bool,
) -> Result<Loaded, Vec<ManifestError>> {
    let mut loader = Loader::default();
    for (name, text) in files {
        loader.file(name.as_ref(), text.as_ref());
    }
    if files.is_empty() {
        loader.errors.push(ManifestError::of_file("policy", "no file given", None));
    }
    loader.finish(is_here)
}

/// Where an object was read.
#[derive(Debug, Clone)]
struct Origin {
    file: String,
    place: Place,
}

#[derive(Default)]
struct Loader {
    loaded: Loaded,
    legacy: Vec<(LegacySettings, LegacyPolicies, Origin)>,
    seen: BTreeMap<ObjectId, Origin>,
    /// A file in which something was skipped.
    skipped: Option<String>,
    errors: Vec<ManifestError>,
}

impl Loader {
    fn file(&mut self, file: &str, text: &str) {
        if text.len() > LARGEST_FILE {
            let message = format!("has {} bytes; policies are read from files of at most 4 MiB", text.len());
            self.errors.push(ManifestError::of_file(file, message, None));
            return;
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let documents = documents::split(text);
        if documents.len() > MOST_DOCUMENTS {
            let message = format!("has {} documents; at most {MOST_DOCUMENTS} are read", documents.len());
            self.errors.push(ManifestError::of_file(file, message, None));
            return;
        }
        let mut objects = 0;
        for (index, document) in documents.iter().enumerate() {
            match tree::parse(document.text, document.above) {
                Ok(Some(node)) => {
                    objects += 1;
                    self.document(file, index + 1, &node);
                }
                Ok(None) => {}
                Err(error) => {
                    objects += 1;
                    let message = format!("not valid YAML: {}", error.message);
                    let hint =
                        document.text.contains('\t').then_some("YAML is indented with spaces, not with tabs");
                    self.errors.push(ManifestError::of_file(file, message, hint).at(error.at, index + 1));
                }
            }
            if self.errors.len() >= MOST_ERRORS {
                return;
            }
        }
        if objects == 0 {
            self.no_policy(file);
        }
    }

    fn no_policy(&mut self, file: &str) {
        let hint = Some(
            "a policy begins with apiVersion: checkpoint-keeper.io/v1alpha1 and kind: ClusterCheckpointPolicy",
        );
        self.errors.push(ManifestError::of_file(file, "no policy in this file", hint));
    }

    fn document(&mut self, file: &str, document: usize, node: &Node) {
        let Some(items) = object::items(node) else { return self.object(file, document, node) };
        if let Tree::List(items) = &items.value {
            for item in items {
                if self.errors.len() > MOST_ERRORS {
                    break;
                }
                self.object(file, document, item);
            }
            if items.is_empty() {
                self.errors.push(
                    ManifestError::of_file(file, "the list holds no policy", None).at(node.at, document),
                );
            }
        }
    }

    fn object(&mut self, file: &str, document: usize, node: &Node) {
        if let Some(kind) = object::other_kind(node) {
            self.skip(file, node, format!("is skipped: a {kind} says nothing about what is kept"));
            return;
        }
        let (read, mut findings) = object::read(node);
        let mut means = None;
        if let Some(read) = read {
            let origin = Origin { file: file.to_owned(), place: node.place_of("metadata.name") };
            if let Some(first) = self.seen.get(&read.id) {
                let message = format!("is there twice; the first is in {}:{}", first.file, first.place.line);
                findings.push(Finding::new(origin.place, "metadata.name", message, None));
            }
            match read.object.meaning() {
                Ok(meaning) => means = Some((read.id, meaning, origin, read.object)),
                // Where a field was not even readable, what its group lacks without it is no news.
                Err(problems) => findings.extend(
                    problems
                        .into_iter()
                        .filter(|problem| !findings.iter().any(|known| known.is_within(&problem.path)))
                        .map(|problem| {
                            Finding::new(
                                node.place_of(&problem.path),
                                &problem.path,
                                problem.message,
                                problem.hint,
                            )
                        })
                        .collect::<Vec<_>>(),
                ),
            }
        }
        if !findings.is_empty() {
            let described = object::describe(node);
            findings.sort_by_key(|found| found.at);
            self.errors.extend(findings.into_iter().map(|found| ManifestError {
                object: described.clone(),
                field: Some(found.path).filter(|path| !path.is_empty()),
                hint: found.hint,
                ..ManifestError::of_file(file, found.message, None).at(found.at, document)
            }));
            return;
        }
        let Some((id, meaning, origin, read)) = means else { return };
        read.add_to(&mut self.loaded.objects);
        match meaning {
            Meaning::Retention(policy) => self.retention(*policy, &origin),
            Meaning::Storage(policy) => self.storage(*policy, &origin),
            Meaning::Legacy(legacy) => {
                let (settings, policies) = *legacy;
                self.legacy.push((settings, policies, origin.clone()));
            }
            Meaning::Schedule(ignored) => {
                let object = object::describe(node).unwrap_or_default();
                self.loaded.warnings.extend(ignored.into_iter().map(|problem| ManifestWarning {
                    file: file.to_owned(),
                    line: node.place_of(&problem.path).line,
                    object: object.clone(),
                    message: problem.to_string(),
                }));
                self.skip(file, node, "is skipped: it says what is checkpointed, and agents carry it out");
            }
            Meaning::Quota => self.skip(
                file,
                node,
                "is skipped: it says how much is checkpointed over all nodes, and a cluster counts that",
            ),
        }
        self.seen.insert(id, origin);
    }

    /// Notes that an object is left out on purpose.
    fn skip(&mut self, file: &str, node: &Node, message: impl Into<String>) {
        self.skipped = Some(file.to_owned());
        self.loaded.notes.push(ManifestWarning {
            file: file.to_owned(),
            line: node.at.line,
            object: object::describe(node).unwrap_or_default(),
            message: message.into(),
        });
    }

    fn retention(&mut self, policy: Policy, origin: &Origin) {
        let rules = &policy.retention;
        let limits = [rules.per_container, rules.per_workload, rules.per_pod, rules.per_namespace];
        let none = limits.iter().all(|limit| *limit == Limit::default())
            && rules.max_age.is_none()
            && rules.max_archive_size.is_none()
            && rules.tiers.is_none()
            && policy.orphans.is_none()
            && policy.incomplete_grace.is_none()
            && policy.damaged_grace.is_none();
        if none {
            self.warn(origin, &policy.id, "has no rule, so it keeps every archive that it governs");
        }
        if policy.mode == Mode::DryRun {
            self.warn(origin, &policy.id, "is a dry run: it governs nothing and deletes nothing");
        }
        self.loaded.policies.retention.push(policy);
    }

    fn storage(&mut self, policy: StoragePolicy, origin: &Origin) {
        if policy.node_selector != LabelSelector::default() {
            let message = "selects nodes by their labels, which are not known without a cluster";
            self.warn(origin, &policy.id, message);
        }
        if policy.mode == Mode::DryRun {
            self.warn(origin, &policy.id, "is a dry run: it deletes nothing");
        }
        if let (Some(high), Some(low)) = (policy.high_watermark, policy.low_watermark)
            && !low.is_zero()
            && low < high.minus_percent(FAR_BELOW)
        {
            let message = format!(
                "lowWatermark {low} is far below highWatermark {high}: one full disk, and so much goes"
            );
            self.warn(origin, &policy.id, message);
        }
        self.loaded.policies.storage.push(policy);
    }

    fn warn(&mut self, origin: &Origin, id: &PolicyRef, message: impl Into<String>) {
        self.loaded.warnings.push(ManifestWarning {
            file: origin.file.clone(),
            line: origin.place.line,
            object: id.to_string(),
            message: message.into(),
        });
    }

    fn finish(mut self, is_here: impl Fn(&str) -> bool) -> Result<Loaded, Vec<ManifestError>> {
        let policies = &self.loaded.policies;
        let is_none = policies.retention.is_empty() && policies.storage.is_empty() && self.legacy.is_empty();
        if let Some(file) = self.skipped.take().filter(|_| self.errors.is_empty() && is_none) {
            self.no_policy(&file);
        }
        if self.errors.len() > MOST_ERRORS {
            self.errors.truncate(MOST_ERRORS);
            let file = self.errors.last().map(|error| error.file.clone()).unwrap_or_default();
            self.errors.push(ManifestError::of_file(&file, "and more errors", None));
        }
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        self.mark_effective(is_here);
        Ok(self.loaded)
    }

    /// Of the older operator's objects that are for this directory, the oldest is in force.
    fn mark_effective(&mut self, is_here: impl Fn(&str) -> bool) {
        let (mut legacy, elsewhere): (Vec<_>, Vec<_>) = std::mem::take(&mut self.legacy)
            .into_iter()
            .partition(|(settings, ..)| settings.named_directory.as_deref().is_none_or(&is_here));
        for (mut settings, _, origin) in elsewhere {
            let message = format!(
                "is not applied: its checkpointDirectory is {}, which is another directory than this one",
                settings.checkpoint_directory
            );
            self.warn(&origin, &settings.id, message);
            settings.effective = false;
            self.loaded.legacy.push(settings);
        }
        // One without a time of creation was not in a cluster yet, so it is younger than one with.
        legacy.sort_by_key(|(settings, ..)| {
            (
                settings.created.is_none(),
                settings.created,
                settings.id.namespace.clone(),
                settings.id.name.clone(),
            )
        });
        let first = legacy.first().map(|(settings, ..)| settings.id.to_string()).unwrap_or_default();
        for (index, (mut settings, policies, origin)) in legacy.into_iter().enumerate() {
            settings.effective = index == 0;
            if settings.effective {
                for (entry, earlier) in &policies.repeated {
                    let message = format!("{entry} names the same as {earlier}, which is in force");
                    self.warn(&origin, &settings.id, message);
                }
                if policies.policies.iter().any(|policy| policy.mode == Mode::DryRun) {
                    self.warn(&origin, &settings.id, "is a dry run: it governs nothing and deletes nothing");
                }
                self.loaded.policies.retention.extend(policies.policies);
            } else {
                self.warn(&origin, &settings.id, format!("is superseded by {first}, which is older"));
            }
            self.loaded.legacy.push(settings);
        }
    }
}
