//! Which stores are of nodes that do not exist any more. Pure: asking and deleting is `node_cache`'s part.
//!
//! A list is no proof: it may be of a cache, of a part, or of nothing. A store goes when the API itself
//! said twice of that very node that it is not there, a minute apart; an error says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// How long after the first answer the second one is asked for.
pub const APART: Duration = Duration::from_mins(1);

/// The most nodes that are asked for in one go.
const MOST_QUESTIONS: usize = 20;

/// A store, by the name that is its node's too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId {
    /// The node.
    pub node: String,
    /// Which store of that name.
    pub uid: String,
}

/// What the API says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    Exists,
    /// It is not there.
    Missing,
    /// Something else.
    Failed(String),
}

#[derive(Debug, Clone, Copy)]
struct Evidence {
    asked: Instant,
    missing_since: Option<Instant>,
}

/// What is known so far of nodes that may not exist any more.
#[derive(Debug, Default)]
pub struct Departed(BTreeMap<StoreId, Evidence>);

impl Departed {
    /// Whose nodes are to be asked for now, and when to look again.
    pub fn questions(
        &mut self,
        stores: &BTreeSet<StoreId>,
        nodes: &BTreeSet<String>,
        now: Instant,
    ) -> (Vec<StoreId>, Option<Instant>) {
        let is_suspect = |store: &StoreId| !nodes.is_empty() && !nodes.contains(&store.node);
        self.0.retain(|store, _| stores.contains(store) && is_suspect(store));
        let due = |store: &StoreId| self.0.get(store).map_or(now, |evidence| evidence.asked + APART);
        let suspects: Vec<&StoreId> = stores.iter().filter(|store| is_suspect(store)).collect();
        let asked = suspects.iter().filter(|store| due(store) <= now).take(MOST_QUESTIONS);
        let asked: Vec<StoreId> = asked.map(|store| (*store).clone()).collect();
        let next = suspects.iter().filter(|store| !asked.contains(store)).map(|store| due(store)).min();
        // Those asked now are asked again then, whatever the answer.
        let again = (!asked.is_empty()).then(|| now + APART);
        (asked, [next, again].into_iter().flatten().min())
    }

    /// Whether this answer is the last that was missing. `asked` is from before the question.
    pub fn is_gone(&mut self, store: &StoreId, answer: &Answer, asked: Instant) -> bool {
        let evidence = self.0.entry(store.clone()).or_insert(Evidence { asked, missing_since: None });
        evidence.asked = asked;
        match answer {
            Answer::Exists => {
                evidence.missing_since = None;
                false
            }
            Answer::Failed(_) => false,
            Answer::Missing => {
                let since = *evidence.missing_since.get_or_insert(asked);
                asked.duration_since(since) >= APART
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(node: &str) -> StoreId {
        StoreId { node: node.to_owned(), uid: format!("uid-of-{node}") }
    }

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_store_goes_when_its_node_was_missing_twice_a_minute_apart_and_not_otherwise() {
        type Case = (&'static str, Vec<(u64, Answer)>, bool);
        use Answer::{Exists, Missing};
        let failed = || Answer::Failed("500".to_owned());
        let table: Vec<Case> = vec![
            ("once", vec![(0, Missing)], false),
            ("twice", vec![(0, Missing), (60, Missing)], true),
            ("too soon", vec![(0, Missing), (59, Missing)], false),
            ("errors say nothing", vec![(0, failed()), (60, failed()), (120, failed())], false),
            ("an error and one answer", vec![(0, failed()), (60, Missing)], false),
            ("with an error between", vec![(0, Missing), (60, failed()), (120, Missing)], true),
            ("it was there meanwhile", vec![(0, Missing), (60, Exists), (120, Missing)], false),
            ("gone again", vec![(0, Missing), (60, Exists), (120, Missing), (180, Missing)], true),
        ];
        let begin = Instant::now();
        for (what, answers, is_gone) in table {
            let mut departed = Departed::default();
            let mut gone = false;
            for (second, answer) in answers {
                gone = departed.is_gone(&store("n1"), &answer, begin + Duration::from_secs(second));
            }
            assert_eq!(gone, is_gone, "{what}");
        }
    }

    #[test]
    fn only_what_no_list_shows_is_asked_for_and_not_all_the_time() {
        let begin = Instant::now();
        let later = |seconds| begin + Duration::from_secs(seconds);
        let stores: BTreeSet<StoreId> = [store("here"), store("gone")].into();
        let mut departed = Departed::default();
        // An empty list says nothing.
        assert_eq!(departed.questions(&stores, &nodes(&[]), begin), (vec![], None));
        assert_eq!(departed.questions(&stores, &nodes(&["here", "gone"]), begin), (vec![], None));
        let again = Some(later(60));
        assert_eq!(departed.questions(&stores, &nodes(&["here"]), begin), (vec![store("gone")], again));
        assert!(!departed.is_gone(&store("gone"), &Answer::Missing, begin));
        assert_eq!(departed.questions(&stores, &nodes(&["here"]), later(59)), (vec![], again));
        let (asked, _) = departed.questions(&stores, &nodes(&["here"]), later(60));
        assert_eq!(asked, [store("gone")]);
    }

    #[test]
    fn what_was_known_of_a_node_that_came_back_or_of_a_new_store_counts_no_more() {
        let begin = Instant::now();
        let stores: BTreeSet<StoreId> = [store("n1")].into();
        for (listed, now_there) in [
            (nodes(&["other", "n1"]), stores.clone()),
            (nodes(&["other"]), [StoreId { uid: "another".to_owned(), ..store("n1") }].into()),
        ] {
            let mut departed = Departed::default();
            departed.is_gone(&store("n1"), &Answer::Missing, begin);
            departed.questions(&now_there, &listed, begin + Duration::from_secs(30));
            assert!(!departed.is_gone(&store("n1"), &Answer::Missing, begin + APART));
        }
    }

    #[test]
    fn a_fleet_that_is_gone_is_not_asked_for_in_one_go() {
        let stores: BTreeSet<StoreId> = (0..100).map(|number| store(&number.to_string())).collect();
        let now = Instant::now();
        let (asked, again) = Departed::default().questions(&stores, &nodes(&["other"]), now);
        assert_eq!((asked.len(), again), (MOST_QUESTIONS, Some(now)));
    }
}
