//! The orphan rule.

use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Detail, Reason};
use checkpoint_keeper_core::policy::{OrphanRule, OrphanWhen, Policy};

use crate::plan_support::*;

pub(crate) fn orphans(when: OrphanWhen, grace: Duration) -> Policy {
    with(cluster("default"), |policy| policy.orphans = Some(OrphanRule { when, grace }))
}

#[test]
fn each_kind_of_orphan_goes_by_its_own_absence() {
    let gone = absent(HOUR * 2, Duration::ZERO);
    let absences = [
        (OrphanWhen::PodDeleted, Absences { pod: gone, ..Absences::default() }),
        (OrphanWhen::WorkloadDeleted, Absences { workload: gone, ..Absences::default() }),
        (OrphanWhen::NamespaceDeleted, Absences { namespace: gone, ..Absences::default() }),
    ];
    for (when, _) in absences {
        for (what, absences) in absences {
            let outcome = case([archive("a").aged(DAY).gone(absences)]).policy(orphans(when, HOUR)).run();
            assert_eq!(outcome.deleted().len(), usize::from(when == what), "{when:?} {what:?}");
            if when == what {
                assert_eq!(outcome.reason("a"), Reason::Orphaned);
                assert_eq!(outcome.detail("a"), Detail::GoneSince(ago(HOUR * 2)));
            } else {
                assert_eq!(outcome.reason("a"), Reason::WithinLimits);
            }
        }
    }
}

#[test]
fn orphans_are_retained_by_default_and_without_knowledge() {
    let all = Absences {
        pod: absent(DAY * 9, Duration::ZERO),
        workload: absent(DAY * 9, Duration::ZERO),
        namespace: absent(DAY * 9, Duration::ZERO),
    };
    assert_eq!(case([archive("a").aged(DAY).gone(all)]).policy(cluster("p")).deleted(), [""; 0]);
    for when in [OrphanWhen::PodDeleted, OrphanWhen::WorkloadDeleted, OrphanWhen::NamespaceDeleted] {
        let unknown = [archive("a").aged(DAY), archive("b").aged(DAY).gone(Absences::default())];
        assert_eq!(case(unknown).policy(orphans(when, Duration::ZERO)).deleted(), [""; 0]);
    }
}

#[test]
fn an_orphan_goes_when_confirmed_again_after_the_grace_period_and_not_before() {
    let run = |since: Duration, confirmed: Duration| {
        let gone = Absences { pod: absent(since, confirmed), ..Absences::default() };
        case([archive("a").aged(DAY * 9).gone(gone)]).policy(orphans(OrphanWhen::PodDeleted, HOUR)).run()
    };
    assert_eq!(run(HOUR, Duration::ZERO).reason("a"), Reason::Orphaned);
    assert_eq!(run(HOUR * 3, HOUR * 2).reason("a"), Reason::Orphaned);
    let early = run(HOUR.checked_sub(Duration::from_secs(1)).unwrap(), Duration::ZERO);
    assert_eq!(early.reason("a"), Reason::OrphanGracePeriod);
    assert_eq!(early.detail("a"), Detail::GraceEnds(now().checked_add(Duration::from_secs(1)).unwrap()));
    // Long gone, but last confirmed before the end of the grace period.
    assert_eq!(run(HOUR * 3, HOUR * 2 + Duration::from_secs(1)).reason("a"), Reason::OrphanGracePeriod);
    assert_eq!(run(DAY * 5, DAY * 5).reason("a"), Reason::OrphanGracePeriod);
}

#[test]
fn a_grace_period_that_never_ends_never_takes() {
    let gone = Absences { pod: absent(DAY * 900, Duration::ZERO), ..Absences::default() };
    let case =
        case([archive("a").aged(DAY).gone(gone)]).policy(orphans(OrphanWhen::PodDeleted, Duration::MAX));
    assert_eq!(case.reason("a"), Reason::OrphanGracePeriod);
}
