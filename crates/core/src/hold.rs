//! Holds: a user's wish through the API that an archive is kept, which lives on the disk as a marker beside it.
//!
//! The marker is what protects. It ends only by a change of an object that is there, or by its own `until`; that an
//! object is gone or was made anew, by whomever, means nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::Clock;

/// Why an archive is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Why, in the user's words.
    pub reason: String,
    /// When it ends by itself; none: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Who asked for it, as the API server knows them; none where that was not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Hold {
    /// Whether it is over. By a clock that is not trusted, none is.
    pub fn is_over(&self, now: Timestamp, clock: Clock) -> bool {
        clock == Clock::Trusted && self.until.is_some_and(|until| until <= now)
    }
}

/// What lies beside an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    /// Nothing.
    None,
    /// A pin of someone at the node, or one that cannot be read: it is theirs to remove.
    Foreign,
    /// A hold.
    Hold(Hold),
}

/// What an object of the API says of an archive's hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The hold that its spec asks for.
    pub hold: Option<Hold>,
    /// Whether its status says that a hold was in force which an earlier generation of its spec asked for: that this
    /// one asks for none is then a user's change.
    pub was_held_before: bool,
    /// Whether its status says that a hold is in force which this very generation of its spec asks for. That another
    /// one lies on the disk is then no user's change: the object is from a backup, or its kind was restored.
    pub is_answered: bool,
}

/// What is to be done about a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldStep {
    /// Nothing: disk and object agree.
    None,
    /// Write this marker.
    Write(Hold),
    /// Remove the marker: the hold was ended, or is over.
    Remove,
    /// The object lacks the hold that is in force: give it back.
    Restore(Hold),
}

/// What is to be done so that the disk and the object agree. `wish` is none where there is no object.
pub fn step(marker: &Marker, wish: Option<&Wish>, now: Timestamp, clock: Clock) -> HoldStep {
    let wanted = wish.and_then(|wish| wish.hold.as_ref());
    let present = match marker {
        Marker::Foreign => return HoldStep::None,
        Marker::None => None,
        Marker::Hold(hold) => Some(hold),
    };
    match (present, wanted) {
        (None, None) => HoldStep::None,
        (None, Some(hold)) if hold.is_over(now, clock) => HoldStep::None,
        (Some(hold), Some(other)) if hold != other && wish.is_some_and(|wish| wish.is_answered) => {
            if hold.is_over(now, clock) { HoldStep::Remove } else { HoldStep::None }
        }
        (Some(_), Some(hold)) if hold.is_over(now, clock) => HoldStep::Remove,
        (_, Some(hold)) if present == Some(hold) => HoldStep::None,
        (_, Some(hold)) => HoldStep::Write(hold.clone()),
        (Some(hold), None) => {
            if hold.is_over(now, clock) || wish.is_some_and(|wish| wish.was_held_before) {
                HoldStep::Remove
            } else if wish.is_some() {
                HoldStep::Restore(hold.clone())
            } else {
                HoldStep::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn hold(reason: &str, until: Option<i64>) -> Hold {
        Hold { reason: reason.to_owned(), until: until.map(at), by: None }
    }

    fn wish(hold: Option<Hold>, was_held_before: bool) -> Wish {
        Wish { hold, was_held_before, is_answered: false }
    }

    #[test]
    fn a_hold_ends_by_a_change_of_a_live_object_or_by_its_until_and_by_nothing_else() {
        let (now, held) = (at(1_000), hold("evidence", None));
        let marker = Marker::Hold(held.clone());
        let step = |wish: Option<&Wish>| step(&marker, wish, now, Clock::Trusted);
        // The object, its namespace or its kind was deleted.
        assert_eq!(step(None), HoldStep::None);
        // It came back, from wherever, and knows nothing of the hold.
        assert_eq!(step(Some(&wish(None, false))), HoldStep::Restore(held.clone()));
        // A user took the hold out of an object that showed it.
        assert_eq!(step(Some(&wish(None, true))), HoldStep::Remove);
        assert_eq!(step(Some(&wish(Some(held.clone()), true))), HoldStep::None);
        let other = hold("appeal", Some(2_000));
        assert_eq!(step(Some(&wish(Some(other.clone()), true))), HoldStep::Write(other));
    }

    #[test]
    fn an_object_from_a_backup_neither_shortens_nor_ends_a_newer_hold() {
        let newer = Marker::Hold(hold("evidence", Some(5_000)));
        for until in [Some(500), Some(2_000), Some(9_000), None] {
            let mut older = wish(Some(hold("evidence", until)), false);
            // What a user asks for now.
            assert_ne!(step(&newer, Some(&older), at(1_000), Clock::Trusted), HoldStep::None);
            // What was answered before.
            older.is_answered = true;
            assert_eq!(step(&newer, Some(&older), at(1_000), Clock::Trusted), HoldStep::None);
            assert_eq!(step(&newer, Some(&older), at(5_000), Clock::Trusted), HoldStep::Remove);
            // It was removed from the disk: when in doubt, it holds.
            let missing = step(&Marker::None, Some(&older), at(400), Clock::Trusted);
            assert_eq!(missing, HoldStep::Write(hold("evidence", until)));
        }
    }

    #[test]
    fn until_ends_a_hold_by_a_trusted_clock_only() {
        let over = hold("evidence", Some(1_000));
        let marker = Marker::Hold(over.clone());
        for wish in [None, Some(wish(None, false)), Some(wish(Some(over.clone()), true))] {
            assert_eq!(step(&marker, wish.as_ref(), at(1_000), Clock::Trusted), HoldStep::Remove);
            assert_ne!(step(&marker, wish.as_ref(), at(1_000), Clock::Suspect), HoldStep::Remove);
            assert_ne!(step(&marker, wish.as_ref(), at(999), Clock::Trusted), HoldStep::Remove);
        }
        let wanted = wish(Some(over.clone()), false);
        assert_eq!(step(&Marker::None, Some(&wanted), at(1_000), Clock::Trusted), HoldStep::None);
        // When in doubt, it holds.
        assert_eq!(step(&Marker::None, Some(&wanted), at(1_000), Clock::Suspect), HoldStep::Write(over));
    }

    #[test]
    fn a_pin_of_someone_at_the_node_is_left_alone() {
        for wish in [None, Some(wish(None, true)), Some(wish(Some(hold("mine", None)), false))] {
            assert_eq!(step(&Marker::Foreign, wish.as_ref(), at(1), Clock::Trusted), HoldStep::None);
        }
    }
}
