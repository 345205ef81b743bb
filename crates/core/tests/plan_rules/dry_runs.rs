//! What each policy in dry-run mode would do with one archive.

use checkpoint_keeper_core::plan::{Effect, Reason, tried};
use checkpoint_keeper_core::policy::Mode;

use crate::plan_support::*;

fn trial(namespace: &str, name: &str, most: u64) -> checkpoint_keeper_core::policy::Policy {
    with(local(namespace, name), |policy| {
        policy.mode = Mode::DryRun;
        policy.retention.per_container = count(most);
    })
}

#[test]
fn each_dry_run_says_what_it_would_do_with_an_archive() {
    let selects_another =
        with(trial("shop", "unconcerned", 1), |policy| policy.selector.containers = vec!["proxy".into()]);
    let lax = keep(|retention| retention.max_age = Some(HOUR * 4));
    let full = with(storage("node"), |policy| {
        policy.mode = Mode::DryRun;
        policy.per_namespace.limit.max_count = Some(1);
    });
    let case = case(series("a", "shop/web-0/server", 5))
        .policy(trial("shop", "strict", 2))
        .policy(selects_another)
        .policy(trial("blog", "of-others", 1))
        .policy(lax)
        .storage(full);
    let plan = case.run().plan;
    let of = |place: usize, most: usize| {
        let tried = tried(&case.snapshot, &case.policies, case.now, (&plan, place), most);
        tried.into_iter().map(|one| (one.policy.name, one.effect, one.verdict.reason)).collect::<Vec<_>>()
    };
    // a1 goes as things are, by the policy that is enforced; a3 stays; a5 is the newest.
    assert_eq!(
        of(0, 8),
        [
            ("strict".to_owned(), Effect::DecidesTheSame, Reason::MaxCountPerContainer),
            ("unconcerned".to_owned(), Effect::Nothing, Reason::MaxAge),
            ("node".to_owned(), Effect::Nothing, Reason::MaxAge),
        ]
    );
    assert_eq!(
        of(2, 8),
        [
            ("strict".to_owned(), Effect::Deletes, Reason::MaxCountPerContainer),
            ("unconcerned".to_owned(), Effect::Nothing, Reason::WithinLimits),
            ("node".to_owned(), Effect::Deletes, Reason::NamespaceCeiling),
        ]
    );
    assert_eq!(
        of(4, 1),
        [("strict".to_owned(), Effect::DecidesTheSame, Reason::WithinLimits)],
        "at most one"
    );
    assert_eq!(of(9, 8), [], "there is no such archive");

    // One that would spare what goes now.
    let case = case_of_spared();
    let plan = case.run().plan;
    let spared = tried(&case.snapshot, &case.policies, case.now, (&plan, 0), 8);
    assert_eq!(spared.iter().map(|one| one.effect).collect::<Vec<_>>(), [Effect::Keeps]);
}

fn case_of_spared() -> Case {
    let strict = keep(|retention| retention.max_age = Some(HOUR * 4));
    let lax = with(local("shop", "trial"), |policy| policy.mode = Mode::DryRun);
    case(series("a", "shop/web-0/server", 5)).policy(strict).policy(lax)
}
