//! How an archive came into being, where this program asked for it: by which schedules, or as what a failed dump left.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::State;
use crate::identity::Identity;
use crate::name::{FileName, NameKind};

/// How an archive came into being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Creation {
    /// The requests that its dump served.
    pub requests: Vec<CreationRequest>,
    /// Whether the dump failed for certain: the file is what it left, and of no use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_failed: bool,
}

/// A request that a dump served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreationRequest {
    /// The API group and version of the schedule.
    pub api_version: String,
    /// The schedule's namespace.
    pub namespace: String,
    /// The schedule's name.
    pub name: String,
    /// The schedule's UID: one made anew under the same name is another schedule.
    pub uid: String,
    /// The name of the trigger: `Interval`, `Schedule`, `Annotation`, …
    pub trigger: String,
    /// When it was due.
    pub due: Timestamp,
}

/// The end of a dump that this program asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpEnd {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// When it was asked for.
    pub started: Timestamp,
    /// When its end was known.
    pub ended: Timestamp,
    /// The requests that it served.
    pub requests: Vec<CreationRequest>,
    /// What came of it.
    pub result: DumpResult,
}

/// What came of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpResult {
    /// There is a whole archive.
    Made {
        /// Its file.
        file: FileName,
    },
    /// It failed for certain: a file that it may have left is not written to any more, and of no use.
    Failed,
}

impl DumpEnd {
    /// Whether an archive is what this dump made or left: `claimed` is when its file was last written, `identity` what
    /// it says of itself, where it says anything.
    pub fn is_of(
        &self,
        file: &FileName,
        state: State,
        identity: Option<&Identity>,
        written: Timestamp,
    ) -> bool {
        let is_right_container = |identity: &Identity| {
            (&identity.namespace, &identity.pod, &identity.container)
                == (&self.namespace, &self.pod, &self.container)
        };
        if written < self.started || !identity.is_none_or(is_right_container) {
            return false;
        }
        match &self.result {
            DumpResult::Made { file: made } => file == made && state.is_whole() && identity.is_some(),
            DumpResult::Failed => state == State::Incomplete && self.names(file) && written <= self.ended,
        }
    }

    /// Whether the kubelet names an archive of this dump like that: by the container, and by a second in which the dump
    /// was under way. (Names of namespaces and containers have dashes, so that one file name may fit two containers: of
    /// such a one no end is told.)
    fn names(&self, file: &FileName) -> bool {
        let begin = format!("checkpoint-{}_{}-{}-", self.pod, self.namespace, self.container);
        let seconds = self.started.as_second()..=self.ended.as_second();
        // The time takes 20 bytes, or 25 with an offset; what is before it has to be all of the rest.
        let is_rest_a_time = |name: &[u8]| {
            name.strip_prefix(begin.as_bytes()).is_some_and(|rest| matches!(rest.len(), 24 | 29))
        };
        file.kind() == NameKind::Kubelet
            && is_rest_a_time(file.as_bytes())
            && file.checkpoint_time().is_some_and(|time| seconds.contains(&time.as_second()))
    }

    /// How an archive that is of this dump came into being.
    pub fn creation(&self) -> Creation {
        Creation { requests: self.requests.clone(), is_failed: self.result == DumpResult::Failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn file(name: &str) -> FileName {
        FileName::new(name.as_bytes()).unwrap()
    }

    fn end(result: DumpResult) -> DumpEnd {
        DumpEnd {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            container: "app".to_owned(),
            started: at("2026-03-01T10:00:00.5Z"),
            ended: at("2026-03-01T10:00:09.2Z"),
            requests: Vec::new(),
            result,
        }
    }

    fn identity(container: &str) -> Identity {
        Identity {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            pod_uid: None,
            container: container.to_owned(),
        }
    }

    #[test]
    fn what_a_failed_dump_left_is_told_by_its_name_its_seconds_and_its_state() {
        let end = end(DumpResult::Failed);
        let left = file("checkpoint-web-0_shop-app-2026-03-01T10:00:00Z.tar");
        let written = at("2026-03-01T10:00:07Z");
        assert!(end.is_of(&left, State::Incomplete, None, written));
        assert!(end.is_of(&left, State::Incomplete, Some(&identity("app")), written));
        let with_offset = file("checkpoint-web-0_shop-app-2026-03-01T12:00:09+02:00.tar");
        assert!(end.is_of(&with_offset, State::Incomplete, None, written));

        assert!(!end.is_of(&left, State::Incomplete, Some(&identity("other")), written));
        for state in [State::Complete, State::NoImages, State::Damaged, State::Unreadable, State::Unread] {
            assert!(!end.is_of(&left, state, None, written), "{state:?}");
        }
        for early_or_late in [at("2026-03-01T10:00:00.4Z"), at("2026-03-01T10:00:09.3Z")] {
            assert!(!end.is_of(&left, State::Incomplete, None, early_or_late));
        }
        for name in [
            "checkpoint-web-0_shop-app-2026-03-01T09:59:59Z.tar",
            "checkpoint-web-0_shop-app-2026-03-01T10:00:10Z.tar",
            "checkpoint-web-0_shop-app-x-2026-03-01T10:00:00Z.tar",
            "checkpoint-web-00_shop-app-2026-03-01T10:00:00Z.tar",
            "checkpoint-web-0_shop-app-.tar",
            "web-0_shop-app-2026-03-01T10:00:00Z.tar",
        ] {
            assert!(!end.is_of(&file(name), State::Incomplete, None, written), "{name}");
        }
    }

    #[test]
    fn what_a_dump_made_is_the_whole_file_that_it_named_of_its_container() {
        let made = file("checkpoint-web-0_shop-app-2026-03-01T10:00:00Z.tar");
        let end = end(DumpResult::Made { file: made.clone() });
        let written = at("2026-03-01T10:00:07Z");
        let own = identity("app");
        assert!(end.is_of(&made, State::Complete, Some(&own), written));
        assert!(!end.is_of(&file("other.tar"), State::Complete, Some(&own), written));
        assert!(!end.is_of(&made, State::Incomplete, Some(&own), written));
        assert!(!end.is_of(&made, State::Complete, None, written));
        assert!(!end.is_of(&made, State::Complete, Some(&identity("other")), written));
        assert!(!end.is_of(&made, State::Complete, Some(&own), at("2026-03-01T10:00:00Z")), "an older file");
    }
}
