//! Whether somebody holds a lease, by when it was seen to be renewed. Watching it is [`super::objects`]' part.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;

use super::objects::Cache;

/// How long a lease counts as renewed after it was, where it does not say itself.
const LEASE: Duration = Duration::from_secs(15);

/// The longest that is believed: one that is never renewed again must not hold for years.
const LONGEST_LEASE: Duration = Duration::from_mins(1);

/// A lease as it was when it was last seen to change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Renewal {
    spec: LeaseSpec,
    at: Instant,
    /// When it was last seen at all. Silence is no proof: a watch can hang.
    seen: Instant,
}

impl Renewal {
    /// By our own clock: whoever renews a lease need not agree with it on what time it is. One that is
    /// seen for the first time counts as renewed, as nothing says that it was not; one that is only seen
    /// again does not.
    pub(super) fn seen(spec: LeaseSpec, before: Option<&Self>, now: Instant) -> Self {
        let same = before.filter(|before| before.spec == spec);
        Self { at: same.map_or(now, |same| same.at), seen: now, spec }
    }

    /// For how long it counts as renewed.
    fn counts(&self) -> Duration {
        let seconds = self.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map_or(LEASE, Duration::from_secs).min(LONGEST_LEASE)
    }

    /// Whether somebody holds it who, when it was last seen, had renewed it within twice the time that it
    /// holds.
    fn is_held(&self) -> bool {
        let held = self.spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
        held && self.seen.saturating_duration_since(self.at) < self.counts() * 2
    }

    fn is_quiet(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) >= self.counts()
    }
}

impl Cache<Renewal> {
    pub(super) fn is_held(&self) -> bool {
        self.objects.values().any(Renewal::is_held)
    }

    /// Whether it is held by somebody who was not heard of for so long that it is to be asked.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.objects.values().any(|renewal| renewal.is_held() && renewal.is_quiet(now))
    }
}
