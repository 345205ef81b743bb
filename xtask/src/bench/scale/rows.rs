//! What is told of a simulation.

use std::time::Duration;

use super::observed::Phase;
use super::requests::{What, Who};
use crate::bench::row::{Budget, Row};

/// A change, from its first request to the last that followed from it.
pub(super) struct Change {
    /// How long it took until all nodes' reports were right, and until the policy's status was.
    pub(super) told: Duration,
    pub(super) judged: Duration,
    pub(super) phase: Phase,
}

/// All that was measured.
pub(super) struct Measured {
    pub(super) agents: usize,
    pub(super) archives: usize,
    pub(super) start: Change,
    /// How long it took until every archive was shown.
    pub(super) listed: Duration,
    pub(super) idle: Phase,
    pub(super) dry_run: Change,
    pub(super) enforce: Change,
    /// How often the controller ended and was started anew.
    pub(super) restarts: usize,
}

/// Writes of idle agents and of the controller, in all: a cluster at rest is left at rest.
const MOST_IDLE_WRITES: f64 = 0.0;

/// More kinds of requests than agents make.
const EVERY_KIND: usize = 50;

fn is_asked(what: &What) -> bool {
    !what.is_watch() && what.resource != "leases"
}

impl Measured {
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        rows.extend(self.change("scale-start", "20 agents start each second", &self.start));
        rows.push(Row::new(
            "scale-start",
            self.what("20 agents start each second: until every archive is a ContainerCheckpoint"),
            self.listed.as_secs_f64(),
            "s",
        ));
        rows.extend(self.idle());
        rows.extend(self.change("scale-dry-run", "a policy changes, dry run", &self.dry_run));
        rows.extend(self.change(
            "scale-enforce",
            "the policy is enforced: of ten archives one goes",
            &self.enforce,
        ));
        rows.extend(self.sizes());
        let what = self.what("times that the controller lost its lease and was started anew");
        rows.push(Row::new("scale-restarts", what, self.restarts as f64, "times"));
        rows
    }

    fn what(&self, what: &str) -> String {
        format!("{} nodes × {} archives, {what}", self.agents, self.archives)
    }

    fn change(&self, id: &'static str, what: &str, change: &Change) -> Vec<Row> {
        let phase = &change.phase;
        let requests = &phase.requests;
        let asked = requests.count(Who::Agents, is_asked);
        let written = requests.count(Who::Agents, What::is_write);
        let by_controller = requests.count(Who::Controller, is_asked);
        let (replies, news) = phase.sent();
        let (later, failed) = phase.refused();
        let row =
            |part: &str, value: f64, unit| Row::new(id, self.what(&format!("{what}: {part}")), value, unit);
        vec![
            row("until every node's report is right", change.told.as_secs_f64(), "s"),
            row("until the policy's status is right", change.judged.as_secs_f64(), "s"),
            row("requests of agents but for watches", asked as f64, "requests").note(format!(
                "{written} of them write, over {:.0} s, at most {} in one second; {}",
                phase.busy_seconds(),
                requests.most_a_second(),
                requests.most(Who::Agents, 6)
            )),
            row("requests of the controller but for watches", by_controller as f64, "requests")
                .note(requests.most(Who::Controller, 4)),
            row("what the API server sent", replies + news, "MiB")
                .note(format!("{news:.1} MiB of it through watches")),
            row("requests that are told to come later (429)", later, "requests")
                .note(format!("{failed} failed by an error of the server")),
            row("time on a CPU of the API server", phase.cpu_seconds(|reading| reading.api_server), "s")
                .note(format!(
                    "etcd {:.1} s, controller {:.1} s, agents {:.1} s",
                    phase.cpu_seconds(|reading| reading.etcd),
                    phase.cpu_seconds(|reading| reading.controller),
                    phase.cpu_seconds(|reading| reading.agents)
                )),
        ]
    }

    fn idle(&self) -> Vec<Row> {
        let (phase, seconds) = (&self.idle, self.idle.seconds());
        let requests = &phase.requests;
        let a_second = |count: u64| count as f64 / seconds;
        let row = |part: &str, value: f64, unit| {
            Row::new("scale-idle", self.what(&format!("idle: {part}")), value, unit)
        };
        let writes = requests.count(Who::Agents, What::is_write)
            + requests.count(Who::Controller, |what| what.is_write() && what.resource != "leases");
        let begun = requests.count(Who::Agents, What::is_watch);
        let open = phase.end.watches();
        vec![
            row("requests of agents but for watches", a_second(requests.count(Who::Agents, is_asked)), "1/s")
                .note(requests.most(Who::Agents, EVERY_KIND)),
            row("writes of agents and controller", writes as f64, "writes")
                .budget(Budget::AtMost(MOST_IDLE_WRITES))
                .note(format!("in {seconds:.0} s")),
            row("watches of agents begun anew", a_second(begun), "1/s").note(format!(
                "at most {} in one second; {open} watches of all clients are open",
                requests.most_watches_a_second()
            )),
            row("requests of the controller", a_second(requests.count(Who::Controller, |_| true)), "1/s")
                .note(requests.most(Who::Controller, 4)),
            row("what the API server sends", self.sent_a_second(), "KiB/s"),
            row("CPU of all agents", phase.cpu(|reading| reading.agents), "% of one"),
            row("CPU of the controller", phase.cpu(|reading| reading.controller), "% of one"),
            row("CPU of the API server", phase.cpu(|reading| reading.api_server), "% of one")
                .note(format!("etcd {:.1} %", phase.cpu(|reading| reading.etcd))),
        ]
    }

    fn sent_a_second(&self) -> f64 {
        let (replies, news) = self.idle.sent();
        (replies + news) * 1_024.0 / self.idle.seconds()
    }

    fn sizes(&self) -> Vec<Row> {
        let (idle, end) = (&self.idle.end, &self.enforce.phase.end);
        let row = |part: &str, value: f64| Row::new("scale-size", self.what(part), value, "MiB");
        let agents = idle.agents;
        vec![
            row("the database of etcd, what is in use", idle.etcd_used).note(format!(
                "{:.0} MiB on the disk; after the changes {:.0} and {:.0}",
                idle.etcd_size, end.etcd_used, end.etcd_size
            )),
            row("resident memory of the controller", idle.controller.resident)
                .note(format!("at most {:.0} MiB in all", end.controller.highest)),
            row("resident memory of the API server", idle.api_server.resident)
                .note(format!("at most {:.0} MiB in all", end.api_server.highest)),
            row("resident memory of all agents in few processes", agents.resident)
                .note(format!("{} threads", agents.threads)),
        ]
    }
}
