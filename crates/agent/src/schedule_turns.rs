//! Which schedules are named where not all can be. Namespaces take turns, so that none with many schedules keeps the
//! others' from being named, and of each namespace those go first of which users have to know.

use std::collections::BTreeMap;

use checkpoint_keeper_core::schedule::{RunResultKind, ScheduleState, TOO_MANY_SCHEDULES};

/// So many of the schedules at most, in the order of their turns: what is cut off at the end matters least.
pub(super) fn in_turn<'a>(
    schedules: impl IntoIterator<Item = &'a ScheduleState>,
    most: usize,
) -> Vec<&'a ScheduleState> {
    let mut by_namespace: BTreeMap<&str, Vec<&ScheduleState>> = BTreeMap::new();
    for state in schedules {
        by_namespace.entry(&state.schedule.namespace).or_default().push(state);
    }
    let mut turns = Vec::new();
    for (namespace, mut states) in by_namespace {
        states.sort_by_cached_key(|state| (weight(state), state.schedule.name.clone(), state.schedule.kind));
        let numbered = states.into_iter().take(most).enumerate();
        turns.extend(numbered.map(|(turn, state)| ((turn, weight(state), namespace), state)));
    }
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().take(most).map(|(_, state)| state).collect()
}

/// What is named first has the lowest.
fn weight(state: &ScheduleState) -> u8 {
    match state.last_failure.as_ref().filter(|_| state.failures > 0) {
        Some(failure) if failure.is(RunResultKind::MayBeFrozen) => 0,
        // There may be many of these, and it says nothing of containers.
        Some(failure) if failure.reason == TOO_MANY_SCHEDULES => 2,
        _ if state.failures > 0 => 1,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::schedule::Failure;
    use jiff::Timestamp;

    use super::*;
    use crate::metrics::example_schedule;

    fn state(namespace: &str, name: &str, reason: Option<&str>) -> ScheduleState {
        let mut state = example_schedule();
        namespace.clone_into(&mut state.schedule.namespace);
        name.clone_into(&mut state.schedule.name);
        state.failures = u32::from(reason.is_some());
        state.last_failure = reason.map(|reason| Failure {
            reason: reason.to_owned(),
            message: String::new(),
            at: Timestamp::UNIX_EPOCH,
            container: None,
        });
        state
    }

    #[test]
    fn namespaces_take_turns_and_of_each_what_fails_is_named_first() {
        let many = (0..500).map(|number| state("a-greedy", &format!("s{number}"), Some(TOO_MANY_SCHEDULES)));
        let others = [
            state("shop", "a", None),
            state("shop", "b", Some("CheckpointFailed")),
            state("shop", "c", Some("ContainerMayBeFrozen")),
            state("team", "a", None),
        ];
        let states: Vec<_> = many.chain(others).collect();
        let named: Vec<_> = in_turn(&states, 100)
            .into_iter()
            .map(|state| format!("{}/{}", state.schedule.namespace, state.schedule.name))
            .collect();
        let first = ["shop/c", "a-greedy/s0", "team/a", "shop/b", "a-greedy/s1", "a-greedy/s10", "shop/a"];
        assert_eq!((&named[..7], named.len()), (&first.map(str::to_owned)[..], 100));
    }
}
