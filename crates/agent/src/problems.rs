//! Logging what is wrong on the node and with its view of the cluster.

use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::problem_log::{Entry, Problem, ProblemLog};
use tokio::time::{MissedTickBehavior, interval};

use super::api::{ApiContext, TICK};

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
            problems.push(Problem { kind: "policies paused", subject: String::new(), message });
        }
        // These are told of above, or where the status is written.
        let is_told =
            |problem: &Problem| matches!(problem.kind, "watch node" | "watch store" | "write store");
        self.state
            .read(|observed| problems.extend(observed.problems_to_log().filter(|problem| !is_told(problem))));
        problems
    }
}
