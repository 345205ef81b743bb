//! The generation of the policy that decided about each deletion under way. An object may change while its deletion waits
//! or is carried out.

use std::collections::BTreeMap;

use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy::{PolicyRef, PolicySet};

/// The generation of the policy that wants each archive deleted which is being deleted.
#[derive(Debug, Default)]
pub(super) struct DecidingGenerations(BTreeMap<FileName, Option<i64>>);

impl DecidingGenerations {
    /// Notes that a plan by these policies has an archive deleted.
    pub(super) fn begin(&mut self, file: &FileName, policy: Option<&PolicyRef>, policies: &PolicySet) {
        let generation = policy.and_then(|policy| policies.generation(policy));
        self.0.insert(file.clone(), generation);
    }

    /// The generation that decided about an archive whose deletion came to its end.
    pub(super) fn end(&mut self, file: &FileName) -> Option<i64> {
        self.0.remove(file).flatten()
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::policy::Kind;

    use super::*;

    #[test]
    fn a_deletion_is_of_the_generation_that_wanted_it_whatever_comes_meanwhile() {
        let object = PolicyRef {
            kind: Kind::CheckpointRestoreOperator,
            namespace: Some("team".to_owned()),
            name: "main".to_owned(),
            part: None,
        };
        let part = PolicyRef { part: Some("containerPolicies[1]".to_owned()), ..object.clone() };
        let policies = |generation| PolicySet {
            generations: [(object.clone(), generation)].into(),
            ..PolicySet::default()
        };
        let file = |name: &str| FileName::new(name.as_bytes()).unwrap();
        let mut generations = DecidingGenerations::default();
        generations.begin(&file("a"), Some(&part), &policies(3));
        generations.begin(&file("b"), Some(&object), &policies(4));
        generations.begin(&file("c"), None, &policies(4));
        let ended = ["a", "b", "c", "d"].map(|name| generations.end(&file(name)));
        assert_eq!(ended, [Some(3), Some(4), None, None]);
        assert!(generations.0.is_empty(), "{generations:?}");
    }
}
