//! In which order what waits has its turn, so that what one namespace's users change all the time keeps nothing of the
//! others from its own. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use checkpoint_keeper_core::hold::Marker;
use checkpoint_keeper_core::name::FileName;

use super::difference::{ApiWrite, MarkerChange, Markers};
use super::entries::{HiddenPin, Key};

/// How long a hold that is in force stays as it is after its marker was written. A new hold never waits.
const UNCHANGED: Duration = Duration::from_secs(5);

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Turns {
    namespace: Option<String>,
    /// The name of the last object of each namespace, where that has had its turn and has more to be written.
    names: BTreeMap<String, String>,
}

impl Turns {
    /// Puts writes into the order of their turns. Namespaces take turns, one write each, from behind the one that had
    /// the last. In each of them objects go first whose archives are gone, then the others from behind the one that was
    /// written last.
    pub(super) fn order(&mut self, writes: Vec<ApiWrite>) -> Vec<ApiWrite> {
        let mut namespaces: BTreeMap<String, Vec<ApiWrite>> = BTreeMap::new();
        for write in writes {
            namespaces.entry(write.key().0.clone()).or_default().push(write);
        }
        self.names.retain(|namespace, _| namespaces.contains_key(namespace));
        let mut places = Vec::new();
        for (namespace, writes) in namespaces {
            let (deletions, mut others): (Vec<_>, Vec<_>) =
                writes.into_iter().partition(|write| matches!(write, ApiWrite::Delete(..)));
            if let Some(last) = self.names.get(&namespace) {
                others.sort_by(|one, other| one.key().1.cmp(&other.key().1));
                let behind = others.partition_point(|write| write.key().1 <= *last);
                others.rotate_left(behind);
            }
            let has_waited = self.namespace.as_ref().is_none_or(|last| namespace > *last);
            let writes = deletions.into_iter().chain(others).enumerate();
            places.extend(writes.map(|(round, write)| ((round, !has_waited), write)));
        }
        // Of one round, the namespaces stay in their order.
        places.sort_by_key(|(place, _)| *place);
        places.into_iter().map(|(_, write)| write).collect()
    }

    /// Notes that a write has its turn.
    pub(super) fn note(&mut self, write: &ApiWrite) {
        let (namespace, name) = write.key();
        self.namespace = Some(namespace.clone());
        if !matches!(write, ApiWrite::Delete(..)) {
            self.names.insert(namespace.clone(), name.clone());
        }
    }
}

/// When the markers of holds were written, as far as that was a moment ago.
#[derive(Debug, Default)]
pub(super) struct HoldThrottle {
    written: BTreeMap<Key, Instant>,
    /// When the first of the changes that were left out last may be made.
    due: Option<Instant>,
}

impl HoldThrottle {
    /// Leaves out the changes of holds that were written a moment ago, and returns whose: of these the API is told
    /// nothing either until they are made.
    pub(super) fn put_off(
        &mut self,
        changes: &mut Vec<MarkerChange>,
        markers: &Markers,
        now: Instant,
    ) -> BTreeSet<Key> {
        self.written.retain(|_, at| now.saturating_duration_since(*at) < UNCHANGED);
        let is_soon = |change: &mut MarkerChange| {
            matches!(markers.get(&change.key), Some(Marker::Hold(_)))
                && self.written.contains_key(&change.key)
        };
        let put_off: BTreeSet<Key> = changes.extract_if(.., is_soon).map(|change| change.key).collect();
        let written = put_off.iter().filter_map(|key| self.written.get(key));
        self.due = written.min().map(|written| *written + UNCHANGED);
        let written = changes.iter().filter(|change| change.hold.is_some());
        self.written.extend(written.map(|change| (change.key.clone(), now)));
        put_off
    }

    /// How long to wait until something that was left out may be made; none where there is none. Says so once.
    pub(super) fn take_wait(&mut self, now: Instant) -> Option<Duration> {
        self.due.take().map(|due| due.saturating_duration_since(now))
    }
}

/// The next of the pins that are not shown, at most so many: those behind the file that was looked at last, and then the
/// first ones again.
pub(super) fn next_pins(pins: &[HiddenPin], last: Option<&FileName>, most: usize) -> Vec<HiddenPin> {
    let mut pins: Vec<&HiddenPin> = pins.iter().collect();
    pins.sort_unstable_by(|one, other| one.file.cmp(&other.file));
    let behind = last.map_or(0, |last| pins.partition_point(|pin| pin.file <= *last));
    pins.rotate_left(behind);
    pins.into_iter().take(most).cloned().collect()
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::hold::Hold;
    use checkpoint_keeper_core::plan::FileId;

    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    fn create(namespace: &str, name: &str) -> ApiWrite {
        ApiWrite::Create(key(namespace, name), None)
    }

    fn delete(namespace: &str, name: &str) -> ApiWrite {
        ApiWrite::Delete(key(namespace, name), String::new(), String::new())
    }

    fn told(writes: &[ApiWrite]) -> String {
        let told = |write: &ApiWrite| format!("{}{}", write.key().0, write.key().1);
        writes.iter().map(told).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn namespaces_take_turns_and_each_goes_on_behind_its_last() {
        let mut turns = Turns::default();
        let waiting = || {
            let all = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("b", "2"), ("b", "3"), ("c", "1")];
            all.map(|(namespace, name)| create(namespace, name)).to_vec()
        };
        assert_eq!(told(&turns.order(waiting())), "a1 b1 c1 a2 b2 a3 b3");
        turns.note(&create("a", "1"));
        assert_eq!(told(&turns.order(waiting())), "b1 c1 a2 b2 a3 b3 a1");
        turns.note(&create("b", "2"));
        assert_eq!(told(&turns.order(waiting())), "c1 a2 b3 a3 b1 a1 b2");
        turns.note(&create("c", "1"));
        assert_eq!(told(&turns.order(waiting())), "a2 b3 c1 a3 b1 a1 b2");
        // What is gone makes room for what is new.
        let mut all = waiting();
        all.insert(0, delete("a", "9"));
        assert_eq!(told(&turns.order(all)), "a9 b3 c1 a2 b1 a3 b2 a1");
        turns.note(&delete("a", "9"));
        assert_eq!(told(&turns.order(waiting())), "b3 c1 a2 b1 a3 b2 a1");
        // Of what has nothing to write nothing is remembered.
        turns.order(vec![create("b", "1")]);
        assert_eq!(turns.names.into_keys().collect::<Vec<_>>(), ["b"]);
    }

    /// A user changes an object so often that there always is news, and only one write is made at a time.
    #[test]
    fn an_object_that_is_changed_all_the_time_keeps_no_other_from_its_turn() {
        let mut turns = Turns::default();
        let mut waiting: BTreeSet<Key> =
            (0..30).map(|number| key(["aaa", "bbb", "zzz"][number % 3], &format!("{number:0>2}"))).collect();
        let (restless, others) = (key("aaa", "00"), waiting.len() - 1);
        for pass in 0..others * 3 {
            let writes = waiting.iter().map(|(namespace, name)| create(namespace, name)).collect();
            let write = turns.order(writes).remove(0);
            turns.note(&write);
            let next = write.key().clone();
            if next != restless {
                waiting.remove(&next);
            }
            if waiting.len() == 1 {
                assert!(pass <= others * 2, "{pass}");
                return;
            }
        }
        panic!("these had no turn: {waiting:?}");
    }

    fn hold(reason: &str) -> Hold {
        Hold { reason: reason.to_owned(), until: None, by: None }
    }

    #[test]
    fn a_hold_that_was_just_written_stays_for_a_moment_and_a_new_one_waits_for_nothing() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let change = |name: &str, hold| MarkerChange {
            key: key("shop", name),
            file: FileName::new(format!("{name}.tar").into_bytes()).unwrap(),
            file_id: FileId { inode: 1, modified: (0, 0) },
            hold,
        };
        let mut throttle = HoldThrottle::default();
        // How long it waits, if it has to.
        let mut made = |change: &MarkerChange, marker: Marker, second| {
            let mut changes = vec![change.clone()];
            let markers = Markers::from([(change.key.clone(), marker)]);
            let put_off = throttle.put_off(&mut changes, &markers, at(second));
            assert_eq!(put_off.len() + changes.len(), 1);
            let wait = throttle.take_wait(at(second));
            assert!(wait.is_some() != put_off.is_empty() && throttle.take_wait(at(second)).is_none());
            wait.map(|wait| wait.as_secs())
        };
        let held = || Marker::Hold(hold("one"));
        assert_eq!(made(&change("a", Some(hold("one"))), Marker::None, 0), None);
        assert_eq!(made(&change("a", Some(hold("two"))), held(), 1), Some(4));
        assert_eq!(made(&change("a", None), held(), 4), Some(1));
        assert_eq!(made(&change("b", None), held(), 4), None, "another one");
        assert_eq!(made(&change("a", Some(hold("two"))), held(), 5), None);
        assert_eq!(made(&change("a", None), held(), 9), Some(1));
        assert_eq!(made(&change("a", None), held(), 10), None);
        // What was ended by mistake is held again at once.
        assert_eq!(made(&change("a", Some(hold("one"))), Marker::None, 10), None);
        assert_eq!(made(&change("a", None), held(), 100), None);
        assert!(throttle.written.is_empty());
    }

    #[test]
    fn of_very_many_pins_that_are_not_shown_each_has_its_turn() {
        let pin = |number: u32| HiddenPin {
            file: FileName::new(format!("{number:0>2}.tar").into_bytes()).unwrap(),
            bytes: 1,
            namespace: None,
        };
        let mut pins: Vec<HiddenPin> = [7, 3, 1, 9, 5].map(pin).to_vec();
        let round =
            |pins: &[HiddenPin], last: Option<&HiddenPin>| next_pins(pins, last.map(|pin| &pin.file), 2);
        assert_eq!(round(&pins, None), [pin(1), pin(3)]);
        assert_eq!(round(&pins, Some(&pin(3))), [pin(5), pin(7)]);
        assert_eq!(round(&pins, Some(&pin(7))), [pin(9), pin(1)]);
        // Whatever comes and goes meanwhile.
        pins.retain(|known| *known != pin(3));
        pins.push(pin(4));
        assert_eq!(round(&pins, Some(&pin(3))), [pin(4), pin(5)]);
        assert_eq!(round(&pins, Some(&pin(99))), [pin(1), pin(4)]);
        assert_eq!(round(&pins[..1], Some(&pin(7))), [pin(7)]);
        assert_eq!(round(&[], Some(&pin(7))), []);
    }
}
