//! Policies that are replaced, and policies that may not be those of now.
#![allow(clippy::unwrap_used)]

mod plan_support;

use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::handover::{GoverningHistory, HANDOVER, HistoryChanges};
use checkpoint_keeper_core::plan::{Governed, Plan, Reason, plan_with};
use checkpoint_keeper_core::policy::{Confidence, Kind, Mode, Policy, PolicySet, Precedence};
use plan_support::*;

const SECOND: Duration = Duration::from_secs(1);

/// A node that plans again and again, and remembers what governed.
struct Node {
    case: Case,
    history: GoverningHistory,
    uptime: Duration,
}

impl Node {
    fn new(policies: &[Policy]) -> Self {
        let mut node = Self {
            case: case(series("a", "shop/web-0/server", 4)),
            history: GoverningHistory::default(),
            uptime: SECOND,
        };
        node.go_by(policies);
        node
    }

    fn go_by(&mut self, policies: &[Policy]) {
        self.case.policies.retention = policies.to_vec();
    }

    fn plan_at(&mut self, uptime: Duration) -> Outcome {
        self.uptime = uptime;
        self.history.fill(&mut self.case.snapshot, uptime);
        let outcome = self.case.run();
        self.history.note(&self.case.snapshot, &outcome.plan, uptime);
        outcome
    }
}

fn strict() -> Policy {
    keep(|retention| retention.per_container = count(1))
}

fn protecting() -> Policy {
    with(local("shop", "protecting"), |policy| policy.retention.keep_latest = 100)
}

#[test]
fn a_policy_that_is_deleted_and_created_anew_costs_nothing() {
    let mut node = Node::new(&[strict(), protecting()]);
    assert_eq!(node.plan_at(SECOND).deleted(), [""; 0]);
    node.go_by(&[strict()]);
    for second in [2, 3, 300] {
        let outcome = node.plan_at(SECOND * second);
        assert_eq!(outcome.deleted(), [""; 0], "{second}");
        assert_eq!((outcome.reason("a1"), outcome.policy("a1")), (Reason::Handover, "default".to_owned()));
    }
    node.go_by(&[strict(), protecting()]);
    assert_eq!(node.plan_at(SECOND * 301).reason("a1"), Reason::WithinLimits);
    // Again, and from the beginning.
    node.go_by(&[strict()]);
    assert_eq!(node.plan_at(SECOND * 1_000).deleted(), [""; 0]);
    assert_eq!(node.plan_at(SECOND * 999 + HANDOVER).deleted(), [""; 0]);
    // It does not come back.
    assert_eq!(node.plan_at(SECOND * 1_000 + HANDOVER).deleted(), ["a1", "a2", "a3"]);
}

#[test]
fn a_policy_that_is_renamed_costs_nothing_also_when_the_new_one_comes_later() {
    let mut node = Node::new(&[protecting()]);
    node.plan_at(SECOND);
    node.go_by(&[]);
    assert_eq!(node.plan_at(SECOND * 2).reason("a1"), Reason::NoPolicy);
    node.go_by(&[strict()]);
    assert_eq!(node.plan_at(SECOND * 60).reason("a1"), Reason::Handover);
    let renamed = with(protecting(), |policy| policy.id.name = "renamed".to_owned());
    node.go_by(&[strict(), renamed]);
    assert_eq!(node.plan_at(SECOND * 120).deleted(), [""; 0]);
}

#[test]
fn a_policy_that_selects_something_else_by_now_is_handed_over() {
    let mut node = Node::new(&[strict(), protecting()]);
    node.plan_at(SECOND);
    let changes: [fn(&mut Policy); 2] =
        [|policy| policy.selector.pods = vec!["db-0".to_owned()], |policy| policy.mode = Mode::DryRun];
    for change in changes {
        node.go_by(&[strict(), with(protecting(), change)]);
        assert_eq!(node.plan_at(SECOND * 2).reason("a1"), Reason::Handover);
        node.go_by(&[strict(), protecting()]);
        node.plan_at(SECOND * 3);
    }
}

#[test]
fn an_edit_a_first_policy_and_one_that_takes_precedence_act_at_once() {
    let mut first = Node::new(&[strict()]);
    assert_eq!(first.plan_at(SECOND).deleted(), ["a1", "a2", "a3"]);
    let mut edited = Node::new(&[keep(|retention| retention.keep_latest = 5)]);
    assert_eq!(edited.plan_at(SECOND).deleted(), [""; 0]);
    edited.go_by(&[strict()]);
    assert_eq!(edited.plan_at(SECOND * 2).deleted(), ["a1", "a2", "a3"]);
    // An entry of the older operator's object that goes is an edit of that object.
    let part = |part: Option<&str>| {
        with(strict(), |policy| {
            policy.id = reference(Kind::CheckpointRestoreOperator, Some("keeper"), "sample");
            policy.id.part = part.map(str::to_owned);
        })
    };
    let entry = with(part(Some("podPolicies[0]")), |policy| {
        policy.selector.pods = vec!["web-0".to_owned()];
        policy.retention.per_container = count(9);
    });
    let mut older = Node::new(&[part(None), entry]);
    assert_eq!(older.plan_at(SECOND).deleted(), [""; 0]);
    older.go_by(&[part(None)]);
    assert_eq!(older.plan_at(SECOND * 2).deleted(), ["a1", "a2", "a3"]);
    let mut preceded = Node::new(&[keep(|retention| retention.keep_latest = 5)]);
    preceded.plan_at(SECOND);
    let own = with(local("shop", "own"), |policy| policy.retention.per_container = count(1));
    preceded.go_by(&[keep(|retention| retention.keep_latest = 5), own]);
    assert_eq!(preceded.plan_at(SECOND * 2).deleted(), ["a1", "a2", "a3"]);
}

/// What governed last counts, not what governed first.
#[test]
fn a_policy_that_took_precedence_is_handed_over_when_it_goes() {
    let mut node = Node::new(&[strict()]);
    assert_eq!(node.plan_at(SECOND).deleted(), ["a1", "a2", "a3"]);
    node.go_by(&[strict(), protecting()]);
    assert_eq!(node.plan_at(SECOND * 2).deleted(), [""; 0]);
    node.go_by(&[strict()]);
    assert_eq!(node.plan_at(SECOND * 3).reason("a1"), Reason::Handover);
    assert_eq!(node.plan_at(SECOND * 4).reason("a1"), Reason::Handover);
    assert_eq!(node.plan_at(SECOND * 3 + HANDOVER).deleted(), ["a1", "a2", "a3"]);
}

#[test]
fn what_governed_is_remembered_across_a_restart_and_forgotten_with_the_archives() {
    let mut node = Node::new(&[strict(), protecting()]);
    node.history.fill(&mut node.case.snapshot, SECOND);
    let plan = node.case.run().plan;
    let changes = node.history.note(&node.case.snapshot, &plan, SECOND);
    assert_eq!(changes.remember.len(), 1, "{changes:?}");
    assert_eq!(node.history.note(&node.case.snapshot, &plan, SECOND), HistoryChanges::default(), "once");
    // All of it once more, into a memory that was lost.
    assert_eq!(node.history.all().collect::<Vec<_>>(), changes.remember);
    node.history = GoverningHistory::new(changes.remember);
    node.go_by(&[strict()]);
    assert_eq!(node.plan_at(SECOND * 9).reason("a1"), Reason::Handover);
    node.case.snapshot.archives.clear();
    let plan = node.case.run().plan;
    assert_eq!(node.history.note(&node.case.snapshot, &plan, SECOND * 10).forget.len(), 1);
}

#[test]
fn a_plan_says_who_governs_whatever_its_verdicts_say() {
    let mut archives = series("a", "shop/web-0/server", 2);
    archives[0].pinned = true;
    archives.push(archive("wet").of("bank/web-0/server").unsettled());
    let mut case = case(archives).policy(strict());
    let plan = case.run().plan;
    assert!(
        plan.governed.iter().all(|governed| matches!(governed, Governed::By(id) if id.name == "default"))
    );
    assert_eq!(plan.policy_of(0).map(|id| id.name.as_str()), Some("default"));
    case.policies.retention.clear();
    assert!(case.run().plan.governed.iter().all(|governed| *governed == Governed::NoPolicy));
    assert!(case.broken(None).run().plan.governed.iter().all(|governed| *governed == Governed::Uncertain));
}

#[test]
fn an_overriding_policy_goes_before_a_tenants() {
    let own = || with(local("shop", "own"), |policy| policy.retention.per_container = count(1));
    let evidence = |precedence| {
        with(cluster("evidence"), |policy| {
            (policy.precedence, policy.retention.keep_latest) = (precedence, 100);
        })
    };
    let archives = || case(series("a", "shop/web-0/server", 3)).policy(own());
    assert_eq!(archives().policy(evidence(Precedence::Default)).deleted(), ["a1", "a2"]);
    let held = archives().policy(evidence(Precedence::Override));
    assert_eq!((held.deleted().len(), held.run().policy("a3")), (0, "evidence".to_owned()));
    // Also before what a tenant wrote that nobody understands.
    assert_eq!(held.broken(Some("shop")).reason("a1"), Reason::WithinLimits);
    // One that is not understood could have been such a one.
    let mut broken = archives().broken(None);
    assert_eq!(broken.deleted(), ["a1", "a2"]);
    broken.policies.invalid[0].precedence = Precedence::Override;
    assert_eq!((broken.deleted().len(), broken.reason("a1")), (0, Reason::PolicyInvalid));
    // A namespaced policy cannot claim it.
    let greedy = with(own(), |policy| policy.precedence = Precedence::Override);
    let rivals =
        case(series("a", "shop/web-0/server", 3)).policy(greedy).policy(evidence(Precedence::Override));
    assert_eq!(rivals.deleted(), [""; 0]);
}

// ---- Policies that may not be those of now -------------------------------------------------------------

fn by(case: &Case, confidence: &Confidence) -> Plan {
    plan_with(&case.snapshot, &case.policies, confidence, case.now)
}

fn stale(confirmed: &[Policy]) -> Confidence {
    Confidence::Stale {
        confirmed: Arc::new(PolicySet { retention: confirmed.to_vec(), ..PolicySet::default() }),
    }
}

#[test]
fn while_policies_are_stale_only_what_the_confirmed_ones_and_the_newest_want_goes() {
    let of = |most| keep(|retention| retention.per_container = count(most));
    let case = case(series("a", "shop/web-0/server", 5)).policy(of(1));
    let gone = |confidence: &Confidence| by(&case, confidence).deletions().count();
    assert_eq!(gone(&Confidence::Current), 4);
    assert_eq!(gone(&stale(&[of(3)])), 2);
    assert_eq!(gone(&stale(&[of(1)])), 4);
    assert_eq!(gone(&stale(&[])), 0);
    // A protecting policy that is not seen any more protects all the same.
    assert_eq!(gone(&stale(&[of(1), protecting()])), 0);
    let plan = by(&case, &stale(&[of(3)]));
    let reasons: Vec<_> = plan.verdicts.iter().map(|verdict| verdict.reason).collect();
    let expected = [
        Reason::MaxCountPerContainer,
        Reason::MaxCountPerContainer,
        Reason::PolicyStale,
        Reason::PolicyStale,
        Reason::WithinLimits,
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn policies_that_were_not_confirmed_for_too_long_pause_and_storage_policies_go_on() {
    let strict = || case(series("a", "shop/web-0/server", 5)).policy(strict());
    let plan = by(&strict(), &Confidence::Paused);
    assert_eq!(plan.deletions().count(), 0);
    assert_eq!(plan.verdicts[0].reason, Reason::PolicyStale);
    let mut discarded = strict();
    discarded.snapshot.archives[1].discarded = true;
    assert_eq!(by(&discarded, &Confidence::Paused).deletions().collect::<Vec<_>>(), [1]);
    let ceiling = with(storage("s"), |policy| policy.per_namespace.limit = count(3));
    assert_eq!(by(&strict().storage(ceiling), &Confidence::Paused).deletions().count(), 2);
    let full = strict().storage(watermark(50, 0)).disk(disk(100 * MI, 0));
    assert_eq!(by(&full, &Confidence::Paused).deletions().count(), 4);
    assert_eq!(by(&full, &stale(&[])).deletions().count(), 4);
}
