//! What holds of orphans and of labels of namespaces while namespaces, pods, workloads and clusters are deleted
//! and made anew, policies come and go, and watches end, lag and return.
#![allow(clippy::unwrap_used, clippy::panic)]

mod plan_support;
mod pods_support;

use std::time::Duration;

use checkpoint_keeper_core::plan::Reason;
use checkpoint_keeper_core::policy::OrphanWhen;
use plan_support::{HOUR, labels, tries};
use pods_support::world::{LABELS, Step, World, step};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

proptest! {
    #![proptest_config(tries(400))]

    #[test]
    fn nothing_that_is_made_anew_is_gone_and_nothing_goes_by_labels_that_its_namespace_did_not_have(
        steps in vec(step(), 1..100),
        when in select(vec![OrphanWhen::PodDeleted, OrphanWhen::WorkloadDeleted, OrphanWhen::NamespaceDeleted]),
        grace in select(vec![Duration::ZERO, HOUR]),
        env in select(LABELS.to_vec()),
        is_sparing in any::<bool>(),
    ) {
        let mut world = World::new(when, grace, env, is_sparing);
        world.node.ask();
        for step in &steps {
            world.do_one(step);
            world.node.later(Duration::from_secs(1));
            world.check(when, grace)?;
        }
    }
}

/// The property above is about something: all that it forbids can come about.
#[test]
fn what_is_deleted_for_good_goes_in_the_end_by_the_labels_that_it_had() {
    for when in [OrphanWhen::PodDeleted, OrphanWhen::WorkloadDeleted, OrphanWhen::NamespaceDeleted] {
        let mut world = World::new(when, HOUR, "dev", true);
        world.do_one(&Step::Policy(true));
        (0..9).for_each(|_| _ = world.node.later(Duration::from_mins(1)).ask());
        assert_eq!(
            labels(&[("env", "dev")]),
            *world.node.snapshot().archives[0].namespace_labels.clone().unwrap()
        );
        world.do_one(&Step::DeleteNamespace);
        (0..90).for_each(|_| _ = world.node.later(Duration::from_mins(1)).ask());
        assert_eq!(world.node.reasons(), [Reason::Orphaned; 3], "{when:?}");
    }
}
