//! Conditions in the statuses that the controller writes, as Kubernetes defines them. Pure.

use checkpoint_keeper_api::crds::PENDING;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message of a condition, in bytes; the API takes eight times that.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What a condition says, apart from its type and since when it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConditionContent {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    /// The reason, in CamelCase.
    pub(super) reason: &'static str,
    /// The reason as a sentence; one that is too long is cut.
    pub(super) message: String,
}

/// Sets the condition of this type, for this generation of its object. It keeps its place among the conditions, and
/// its transition time while its status stays the same. Conditions of other types are left alone.
pub(super) fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    content: ConditionContent,
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut condition = Condition {
        type_: type_.to_owned(),
        status: content.status.to_owned(),
        reason: content.reason.to_owned(),
        message: shortened(content.message),
        observed_generation: generation,
        // The API keeps seconds.
        last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(old) => {
            // What the API server says of an object that nobody has looked at has no time of its own.
            if old.status == condition.status && old.reason != PENDING {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - '…'.len_utf8()));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn content(status: &'static str, reason: &'static str) -> ConditionContent {
        ConditionContent { status, reason, message: String::new() }
    }

    #[test]
    fn only_another_status_moves_the_transition_time_and_other_conditions_are_left_alone() {
        let mut conditions = Vec::new();
        set(&mut conditions, "Ready", content("True", "Accepted"), Some(1), at(0));
        set(&mut conditions, "Audited", content("True", "Somebody"), None, at(0));
        for (what, content, time) in [
            ("another reason", content("True", "DryRun"), at(0)),
            ("another status", content("False", "Invalid"), at(50)),
        ] {
            let mut changed = conditions.clone();
            set(&mut changed, "Ready", content.clone(), Some(2), at(50));
            let [ready, audited] = changed.as_slice() else { panic!("{changed:?}") };
            assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", content.status), "{what}");
            assert_eq!(
                (ready.reason.as_str(), ready.observed_generation),
                (content.reason, Some(2)),
                "{what}"
            );
            assert_eq!(ready.last_transition_time.0, time, "{what}");
            assert_eq!(*audited, conditions[1], "{what}");
        }
    }

    #[test]
    fn what_was_pending_has_no_time_that_would_be_kept() {
        let mut conditions = Vec::new();
        set(&mut conditions, "Ready", content("Unknown", PENDING), None, Timestamp::UNIX_EPOCH);
        set(&mut conditions, "Ready", content("Unknown", "NodesNotReporting"), Some(1), at(0));
        assert_eq!(conditions[0].last_transition_time.0, at(0));
    }

    #[test]
    fn no_message_is_longer_than_the_api_takes() {
        let text = shortened("ä".repeat(10_000));
        assert!(text.len() <= MAX_MESSAGE_BYTES && text.ends_with("ä…"), "{}", text.len());
    }
}
