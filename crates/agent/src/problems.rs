//! Logging what is wrong on the node and with its view of the cluster.

use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::problem_log::{Entry, Problem, ProblemLog};
use tokio::time::{MissedTickBehavior, interval};

use super::api::{ApiContext, TICK};
use super::problem_type::ProblemType;

impl ApiContext {
    /// Logs each problem when it appears and when it ends, for as long as it is polled.
    pub(super) async fn log_problems(&self) {
        let mut log = ProblemLog::default();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            log.update(self.current_problems(), now()).iter().for_each(Entry::log);
        }
    }

    fn current_problems(&self) -> Vec<Problem> {
        let now = now();
        let mut problems = self.objects.watch_problems(now);
        problems.extend(self.own.watch_problems(now));
        problems.extend(self.cluster_watch.watch_problems(now));
        if self.own.now().is_paused {
            let message = "policies could not be confirmed for too long and delete nothing".to_owned();
            problems.push(Problem { kind: "PoliciesPaused", subject: String::new(), message });
        }
        // These are told of above, or where the status is written.
        let told = [ProblemType::NodeUnwatched, ProblemType::StoreUnwatched, ProblemType::StoreUnwritten];
        self.state.read(|observed| {
            let rest = observed.problems().filter(|(kind, ..)| !told.contains(kind));
            problems.extend(rest.map(|(kind, subject, message)| Problem {
                kind: kind.name(),
                subject: subject.to_owned(),
                message: message.to_owned(),
            }));
        });
        problems
    }
}
