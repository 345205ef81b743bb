//! `checkpoint-keeper gc`: one pass over a directory. Going on and on is `watch`'s part.

mod session;

use std::collections::{BTreeSet, HashSet};
use std::io::{ErrorKind, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use checkpoint_keeper_core::engine::file::Removal;
use checkpoint_keeper_core::engine::problem::Problem;
use checkpoint_keeper_core::engine::{Progress, View};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy_lint;
use checkpoint_keeper_core::report::{Explanation, Report, differences};
use checkpoint_keeper_node::driver::Event;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;

use self::session::{Session, engine_config};
use super::consent::{self, Consent};
use super::deletion_log::why_it_stays;
use crate::cli::{GcArguments, Output};
use crate::failure::{Failure, say};
use crate::output::{self, text::Fit};

/// Collects once, or for as long as wanted.
pub fn run(arguments: &GcArguments) -> Result<(), Failure> {
    let session = Session::prepare(arguments)?;
    if arguments.watch {
        let Session { files, policies, driver, deletions, .. } = session;
        return super::watch::run(driver, files, policies, engine_config(arguments), deletions, arguments);
    }
    Pass::new(session).run()
}

/// One pass over the directory.
struct Pass<'a> {
    session: Session<'a>,
    /// Problems that were said: each is said once, however many plans meet it.
    said: HashSet<String>,
    /// How many of them, and of the audit lines, are failures.
    failures: u64,
}

impl<'a> Pass<'a> {
    fn new(session: Session<'a>) -> Self {
        let failures = session.catalog_problems.len() as u64;
        Self { session, said: HashSet::new(), failures }
    }

    /// Plans, deletes what is to go, and prints the report.
    fn run(mut self) -> Result<(), Failure> {
        let arguments = self.session.arguments;
        let view = self.plan()?;
        let unmade = self.session.unmade_lookups.load(Ordering::Relaxed);
        if unmade > 0 {
            say("warning", format!("the API does not answer: {unmade} more lookups were not made"));
        }
        if let Some(file) = &arguments.explain {
            return explain(&view, file, arguments.output);
        }
        self.say_what_has_no_effect(&view);
        let mut report =
            if arguments.only_shows() { self.report_of(&view) } else { self.confirm_and_delete(view)? };
        report.totals.failures += self.failures;
        print(&report, arguments)?;
        if report.totals.failures > 0 { Err(Failure::AlreadyReported) } else { Ok(()) }
    }

    /// Looks at everything, asks what there is to ask, and says what is wrong. Returns the last plan.
    fn plan(&mut self) -> Result<Arc<View>, Failure> {
        let bar = progress_bar("reading archives");
        let mut last = None;
        self.session.driver.plan(|event| match event {
            Event::Reading(Progress { done, total }) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            }
            Event::Problem(problem) => {
                let text = problem.to_string();
                if self.said.insert(text.clone()) {
                    self.failures += u64::from(problem.is_failure());
                    bar.suspend(|| say(if problem.is_failure() { "error" } else { "warning" }, text));
                }
            }
            Event::Planned(view) => last = Some(Arc::clone(view)),
            _ => {}
        });
        bar.finish_and_clear();
        last.ok_or_else(|| anyhow::anyhow!("no plan was made").into())
    }

    fn say_what_has_no_effect(&self, view: &View) {
        for policy in &view.plan.unjudged_storage {
            say(
                "warning",
                format!("{policy} has a nodeSelector; without --node-labels it does nothing here"),
            );
        }
        for found in policy_lint::without_effect_here(&self.session.policies, &view.snapshot) {
            say("warning", found);
        }
    }

    /// What a plan is, for a person or a program.
    fn report_of(&self, view: &View) -> Report {
        let View { snapshot, plan, .. } = view;
        let wall = self.session.arguments.now.unwrap_or_else(Timestamp::now);
        let directory = self.session.driver.store().path().display().to_string();
        let mut report = Report::new(directory, snapshot, plan, wall);
        let differences = differences(snapshot, &self.session.policies, wall, plan, usize::MAX);
        report.add_differences(snapshot, &differences);
        report
    }

    /// Deletes what is to go, unless that is refused. Returns what came of it.
    fn confirm_and_delete(&mut self, view: Arc<View>) -> Result<Report, Failure> {
        let mut confirmed = self.confirm(view);
        if let Ok(report) = &mut confirmed {
            self.delete(report);
            if let Some(error) = self.session.driver.store().no_leases() {
                say("note", Problem::NoLeases(error.to_string()));
            }
        }
        // What was read is remembered also where nothing may be deleted.
        self.session.driver.flush(|event| {
            if let Event::Catalog(problem) = event {
                say("error", problem);
                self.failures += 1;
            }
        });
        confirmed
    }

    /// Obtains consent to a plan, and returns what that plan is: this one, or one that deletes nothing else.
    fn confirm(&mut self, mut view: Arc<View>) -> Result<Report, Failure> {
        loop {
            let report = self.report_of(&view);
            match consent::obtain(&report, self.session.arguments.yes)? {
                Consent::NotNeeded => return Ok(report),
                // While the user was deciding, the directory and the cluster may have changed.
                Consent::Answered => {
                    let shown = std::mem::replace(&mut view, self.plan()?);
                    if deletions_of(&view).is_subset(&deletions_of(&shown)) {
                        return Ok(self.report_of(&view));
                    }
                    say("note", "more is to be deleted by now than was shown");
                }
            }
        }
    }

    /// Carries the last plan out, and reports each deletion when it happens.
    fn delete(&mut self, report: &mut Report) {
        let bar = progress_bar("deleting");
        bar.set_length(report.totals.delete_archives);
        let mut is_first_error = true;
        let Session { driver, deletions, .. } = &mut self.session;
        driver.carry_out_plan(|event| {
            let Event::Finished(outcome) = event else { return };
            bar.inc(1);
            report.note(outcome);
            bar.suspend(|| {
                if !matches!(outcome.removal, Removal::Removed) {
                    if let Some((kind, why)) = why_it_stays(outcome) {
                        say(kind, why);
                    }
                    return;
                }
                // Deleting goes on when a line cannot be written. A closed pipe is no error: its reader needs no more.
                match deletions.deleted(outcome) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                    Err(error) => {
                        if std::mem::take(&mut is_first_error) {
                            say("error", format!("cannot write the output: {error}"));
                        }
                        self.failures += 1;
                    }
                }
            });
        });
        bar.finish_and_clear();
        self.failures += deletions.audit_failures;
    }
}

/// Explains one verdict.
fn explain(view: &View, file: &str, output: Output) -> Result<(), Failure> {
    let explanation =
        Explanation::of(view, file).map_err(|error| Failure::Usage(vec![format!("--explain: {error}")]))?;
    match output {
        Output::Json => output::json::explanation(&explanation)?,
        Output::Text | Output::Wide => output::text::explanation(&explanation)?,
    }
    Ok(())
}

/// The archives that a plan deletes, each with what tells it from another file of its name.
fn deletions_of(view: &View) -> BTreeSet<(&FileName, u64, Timestamp)> {
    let archives = view.plan.deletions().map(|place| &view.snapshot.archives[place]);
    archives.map(|archive| (&archive.file, archive.size, archive.changed)).collect()
}

fn print(report: &Report, arguments: &GcArguments) -> Result<(), Failure> {
    match arguments.output {
        Output::Json => output::json::report(report)?,
        Output::Text => output::text::report(report, arguments.only_shows(), Fit::Terminal)?,
        Output::Wide => output::text::report(report, arguments.only_shows(), Fit::Everything)?,
    }
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
    let bar = ProgressBar::no_length().with_message(what);
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}
