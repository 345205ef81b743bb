//! The lease as the API has it: looked at, taken, renewed and given back. What to do when is `election`'s part.
//!
//! Every writing names the version that it replaces, so that of two replicas one loses.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::election::{LeaseTimings, Lost, Record, Refused, Seen, Step, next};
use super::plain;
use crate::problem_log::{Entry, Problem, ProblemLog};

/// The lease's name.
pub const NAME: &str = "checkpoint-keeper";

/// How long a request about it may take: a renewal that was not answered leaves time for another.
const REQUEST: Duration = Duration::from_secs(3);

/// Until when this process is known to lead; none: it does not.
pub type HeldUntil = Option<Instant>;

/// Takes and renews the lease for one replica.
pub struct LeaderElector {
    api: Api<Lease>,
    me: String,
    /// By whom its fields are written.
    field_manager: &'static str,
    timings: LeaseTimings,
    seen: Seen,
    /// The lease as it was last seen, with what others keep in it.
    lease: Lease,
    held: watch::Sender<HeldUntil>,
    problems: ProblemLog,
    /// Who held it when it was last seen, for the log.
    holder: Option<String>,
}

impl LeaderElector {
    /// A replica of this name that does not hold it.
    pub fn new(
        client: &Client,
        namespace: &str,
        me: String,
        field_manager: &'static str,
        timings: LeaseTimings,
    ) -> Self {
        let seen = Seen::nothing(me.clone(), timings, Instant::now());
        let api = Api::namespaced(client.clone(), namespace);
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let lease = Lease { metadata, ..Lease::default() };
        Self {
            api,
            me,
            field_manager,
            timings,
            seen,
            lease,
            held: watch::Sender::new(None),
            problems: ProblemLog::default(),
            holder: None,
        }
    }

    /// A receiver of the time until which this replica leads.
    pub fn held_until(&self) -> watch::Receiver<HeldUntil> {
        self.held.subscribe()
    }

    /// Gets it and holds it, for as long as that is possible.
    pub async fn keep(&mut self) -> Lost {
        loop {
            match next(&self.seen, Instant::now()) {
                Step::Look => self.look().await,
                Step::Create | Step::Take => {
                    self.write(true).await;
                    if self.seen.held_until().is_some() {
                        self.note_holder(Some(self.me.clone()));
                    }
                }
                Step::Renew => self.write(false).await,
                Step::Wait(until) => sleep_until(until).await,
                Step::GiveUp(lost) => {
                    self.held.send_replace(None);
                    return lost;
                }
            }
            let held = self.seen.held_until();
            self.held.send_if_modified(|told| std::mem::replace(told, held) != held);
        }
    }

    async fn look(&mut self) {
        let begun = Instant::now();
        match timeout_at(self.limit(begun), self.api.get_opt(NAME)).await {
            Ok(Ok(found)) => {
                self.succeeded("LeaseUnseen");
                let holder = found.as_ref().and_then(|lease| record(lease, self.timings).holder);
                // That it holds it by its name, as a process before it did, does not mean that it leads.
                if holder.as_ref() != Some(&self.me) {
                    self.note_holder(holder);
                }
                self.seen.found(
                    found.as_ref().map(|lease| record(lease, self.timings)),
                    begun,
                    Instant::now(),
                );
                self.lease = found.unwrap_or_else(|| Lease {
                    metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                    ..Lease::default()
                });
            }
            Ok(Err(error)) => {
                self.failed("LeaseUnseen", format!("cannot look at the lease: {}", plain(&error)));
                self.seen.not_found_out(begun);
            }
            Err(_) => {
                self.failed("LeaseUnseen", "cannot look at the lease: no answer in time".to_owned());
                self.seen.not_found_out(begun);
            }
        }
    }

    /// Logs who leads, where that is another one than before.
    fn note_holder(&mut self, holder: Option<String>) {
        if holder == self.holder {
            return;
        }
        match &holder {
            Some(holder) if *holder == self.me => {
                tracing::info!(identity = self.me, "this replica leads from now on");
            }
            Some(holder) => tracing::info!(leader = holder, "another replica leads"),
            None => tracing::info!("no replica leads"),
        }
        self.holder = holder;
    }

    fn failed(&mut self, kind: &'static str, message: String) {
        let problem = Problem { kind, subject: NAME.to_owned(), message };
        self.problems.begin(problem, Instant::now().into_std()).iter().for_each(Entry::log);
    }

    fn succeeded(&mut self, kind: &'static str) {
        self.problems.end(kind, NAME, Instant::now().into_std()).iter().for_each(Entry::log);
    }

    /// How long a request may take; an answer that comes after the lease has ended is of no use.
    fn limit(&self, begun: Instant) -> Instant {
        self.seen.held_until().map_or(begun + REQUEST, |end| end.min(begun + REQUEST))
    }

    /// Writes it as ours: for the first time, or once more.
    async fn write(&mut self, is_new: bool) {
        let begun = Instant::now();
        let now = microseconds(Timestamp::now());
        let spec = self.lease.spec.clone().unwrap_or_default();
        let mut lease = self.lease.clone();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.timings.duration.as_secs()).ok(),
            acquire_time: if is_new { Some(MicroTime(now)) } else { spec.acquire_time },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(is_new)),
            ..spec
        });
        self.seen.attempt(now, begun);
        let written = timeout_at(self.limit(begun), self.send(&lease)).await.map_err(|_| None);
        match written.and_then(|answer| answer.map_err(Some)) {
            Ok(lease) => {
                self.succeeded("LeaseUnwritten");
                self.seen.written(record(&lease, self.timings), begun, Instant::now());
                self.lease = lease;
            }
            Err(error) => {
                let how = match &error {
                    Some(kube::Error::Api(status)) if status.code == 409 => Refused::Conflict,
                    _ => Refused::Unanswered,
                };
                let why = error.as_ref().map_or_else(|| "no answer in time".to_owned(), plain);
                // Of two that want it, one loses: that is no error.
                if how != Refused::Conflict || !is_new {
                    self.failed("LeaseUnwritten", format!("cannot write the lease: {why}"));
                }
                self.seen.refused(how, begun);
            }
        }
    }

    /// Updates the lease where there is one: the update fails for a replica that saw an older version.
    async fn send(&self, lease: &Lease) -> Result<Lease, kube::Error> {
        let how = PostParams { field_manager: Some(self.field_manager.to_owned()), dry_run: false };
        if lease.metadata.resource_version.is_some() {
            self.api.replace(NAME, &how, lease).await
        } else {
            self.api.create(&how, lease).await
        }
    }

    /// Gives it back, so that another replica need not wait for its end. Nothing may be written after this.
    pub async fn release(mut self) {
        self.held.send_replace(None);
        // A renewal may have been under way, and may arrive between looking and writing.
        for _ in 0..2 {
            if self.seen.held_until().is_none() {
                return;
            }
            self.look().await;
            if self.seen.held_until().is_none() {
                return;
            }
            match timeout(REQUEST, self.send(&given_back(&self.lease))).await {
                Ok(Ok(_)) => {
                    tracing::info!(identity = self.me, "this replica gave the lease back and leads no more");
                    return;
                }
                Ok(Err(error)) => {
                    self.failed("LeaseUnreturned", format!("cannot give the lease back: {}", plain(&error)));
                }
                Err(_) => {
                    self.failed(
                        "LeaseUnreturned",
                        "cannot give the lease back: no answer in time".to_owned(),
                    );
                }
            }
        }
    }
}

fn given_back(lease: &Lease) -> Lease {
    let mut lease = lease.clone();
    let spec = lease.spec.take().unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: None,
        // Clients that do not know that a lease without a holder is free wait only for its duration.
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(microseconds(Timestamp::now()))),
        ..spec
    });
    lease
}

fn record(lease: &Lease, timings: LeaseTimings) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: seconds.map_or(timings.duration, Duration::from_secs),
        renewed: spec.renew_time.map(|time| microseconds(time.0)),
    }
}

/// As the API keeps it.
fn microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
