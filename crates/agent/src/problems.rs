//! Logging what is wrong on the node and with its view of the cluster.

use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::problem_log::{Entry, Problem, ProblemLog};
use tokio::time::{MissedTickBehavior, interval};

use super::context::{ApiContext, TICK};
use super::problem_type::ProblemType;
use super::state::Observations;

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

    /// All problems that there are now.
    pub(super) fn current_problems(&self) -> Vec<Problem> {
        let now = now();
        let mut problems = self.objects.watch_problems(now);
        problems.extend(self.own.watch_problems(now));
        problems.extend(self.quotas.watch_problem(now));
        problems.extend(self.cluster_watch.watch_problems(now));
        if self.own.now().is_paused {
            let message = "policies could not be confirmed for too long and delete nothing".to_owned();
            problems.push(Problem { kind: "PoliciesPaused", subject: String::new(), message });
        }
        self.state.read(|observed| problems.extend(problems_to_log(observed)));
        problems
    }
}

/// The node's problems as far as they are not told of where the API's side meets them.
fn problems_to_log(observed: &Observations) -> Vec<Problem> {
    let mut is_first_lookup = true;
    let mut is_logged = |kind: ProblemType| match kind {
        ProblemType::NodeUnwatched | ProblemType::StoreUnwatched | ProblemType::StoreUnwritten => false,
        // While the API does not answer, many lookups fail, each ever more rarely: that is one problem.
        ProblemType::LookupFailed => std::mem::take(&mut is_first_lookup),
        _ => true,
    };
    let problems = observed.problems().filter(|(kind, ..)| is_logged(*kind));
    let problem = |(kind, subject, message): (ProblemType, &str, &str)| {
        let subject = if kind == ProblemType::LookupFailed { "" } else { subject };
        Problem { kind: kind.name(), subject: subject.to_owned(), message: message.to_owned() }
    };
    problems.map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::AgentState;

    #[test]
    fn lookups_that_fail_are_one_problem_however_many_and_whichever_they_are() {
        let state = AgentState::new();
        let fail = |kind, subject: &str| {
            state.problem(kind, subject.to_owned(), format!("nothing known of {subject}"), now());
        };
        let logged = || {
            let problems = state.read(problems_to_log).into_iter();
            problems.map(|problem| format!("{} {}", problem.kind, problem.subject)).collect::<Vec<_>>()
        };
        fail(ProblemType::LookupFailed, "pod team/a");
        assert_eq!(logged(), ["LookupFailed "]);
        fail(ProblemType::LookupFailed, "pod team/0");
        fail(ProblemType::FileUnreadable, "a.tar");
        fail(ProblemType::FileUnreadable, "b.tar");
        fail(ProblemType::StoreUnwatched, "");
        assert_eq!(logged(), ["FileUnreadable a.tar", "FileUnreadable b.tar", "LookupFailed "]);
    }
}
