//! Why one archive has its verdict, as data for programs and as text for people.

use std::fmt::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::{MOST_DRY_RUNS, Row};
use crate::engine::View;
use crate::name::printable;
use crate::plan::{
    self, Action, Archive, Because, Effect, Governed, Judgement, Next, Outcome, Reason, Rule, Saw, Snapshot,
    Tried, Verdict, seconds,
};

/// Why an archive has its verdict, what each rule saw, and what takes it next.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The archive, as in a report.
    pub archive: Row,
    /// The plan's verdict about it.
    pub verdict: VerdictRow,
    /// The policy that governs it, as Kind/name or Kind/namespace/name; null where none does for certain.
    pub governed_by: Option<String>,
    /// What each rule saw and decided, in the order in which rules act.
    pub rules: Vec<RuleRow>,
    /// What takes it if nothing changes but the time; null where nothing does.
    pub next: Option<NextRow>,
    /// What it waits for to go: `Time`, `Nothing`, `Now`, `DeletionLimit`, `PoliciesConfirmed`,
    /// `ClockTrusted` or `OrphanConfirmed`.
    pub waits_for: &'static str,
    /// What takes it next, as a sentence for people.
    pub next_text: String,
    /// What each policy in dry-run mode would do with it, of eight at most.
    pub dry_runs: Vec<DryRunRow>,
    /// The time that it was decided for, to the second.
    pub now: Timestamp,
}

/// What a policy in dry-run mode would do with the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DryRunRow {
    /// The policy, as Kind/name or Kind/namespace/name.
    pub policy: String,
    /// What would become of the archive: Deletes (it stays now), Keeps (it is to go now), `DecidesTheSame` (as is
    /// decided now, by this policy) or Nothing (this policy does not decide about it).
    pub effect: EffectName,
    /// The verdict that it would have.
    pub verdict: VerdictRow,
}

/// What would become of an archive by a policy in dry-run mode, as JSON names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum EffectName {
    /// It stays now, and would be deleted.
    Deletes,
    /// It is to go now, and would stay.
    Keeps,
    /// What is decided now, by this policy.
    DecidesTheSame,
    /// This policy does not decide about it.
    Nothing,
}

impl DryRunRow {
    fn new(tried: &Tried) -> Self {
        let effect = match tried.effect {
            Effect::Deletes => EffectName::Deletes,
            Effect::Keeps => EffectName::Keeps,
            Effect::DecidesTheSame => EffectName::DecidesTheSame,
            Effect::Nothing => EffectName::Nothing,
        };
        Self { policy: tried.policy.to_string(), effect, verdict: VerdictRow::new(&tried.verdict) }
    }

    fn in_words(&self) -> String {
        let VerdictRow { reason, detail, .. } = &self.verdict;
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        match self.effect {
            EffectName::Deletes => format!("would delete it: {reason}{detail}"),
            EffectName::Keeps => format!("would keep it: {reason}{detail}"),
            EffectName::DecidesTheSame => format!("would decide the same: {reason}{detail}"),
            EffectName::Nothing => "would change nothing for it".to_owned(),
        }
    }
}

/// What a plan says of one archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictRow {
    /// Whether it stays or is to be deleted.
    pub verdict: Action,
    /// Why.
    pub reason: Reason,
    /// The policy that gave the reason, as Kind/name or Kind/namespace/name; null where none did.
    pub policy: Option<String>,
    /// The figures behind the reason.
    pub detail: String,
}

impl VerdictRow {
    /// A verdict, as it is told.
    pub fn new(verdict: &Verdict) -> Self {
        Self {
            verdict: verdict.action(),
            reason: verdict.reason,
            policy: verdict.policy.as_ref().map(ToString::to_string),
            detail: verdict.detail.to_string(),
        }
    }
}

/// What one rule saw and decided.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleRow {
    /// The rule's name: of one that takes archives, the reason of its verdicts.
    pub rule: String,
    /// The policy that has the rule; null where none has it, or none is needed.
    pub policy: Option<String>,
    /// What the rule decided: Deletes (the archive goes), Protects (it stays, although a later rule would delete it or
    /// none may), Passes (the rule has nothing against it) or `DoesNotApply`.
    pub outcome: OutcomeName,
    /// The reason of Deletes and Protects; null else.
    pub reason: Option<Reason>,
    /// Why it decided so, and what it saw, in words.
    pub detail: String,
    /// What the rule saw, in words; empty where it looks at no figures.
    pub saw: String,
    /// The same as figures.
    pub figures: Figures,
}

/// What a rule decided about an archive, as JSON names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum OutcomeName {
    /// The archive goes.
    Deletes,
    /// It stays, although a later rule would delete it or none may.
    Protects,
    /// The rule has nothing against it.
    Passes,
    /// The rule is not about it.
    DoesNotApply,
}

impl OutcomeName {
    /// The same as a word in text.
    const fn in_words(self) -> &'static str {
        match self {
            Self::Deletes => "deletes",
            Self::Protects => "protects",
            Self::Passes => "passes",
            Self::DoesNotApply => "does not apply",
        }
    }
}

/// What a rule saw; all that it has no figure for is null.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// What is counted: `Archives`, `Bytes`, `Seconds`, `Deletions` or `HundredthsOfPercent`.
    pub unit: Option<&'static str>,
    /// How much there is.
    pub have: Option<u64>,
    /// How much may be.
    pub limit: Option<u64>,
    /// The place among what counts, the newest first, from 1; 0: the archive does not count.
    pub position: Option<u64>,
    /// Since when what the archive belongs to is gone.
    pub since: Option<Timestamp>,
    /// When a grace period ends.
    pub until: Option<Timestamp>,
}

/// What takes an archive, and when.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NextRow {
    /// The time.
    pub at: Timestamp,
    /// The reason for which it then goes.
    pub reason: Reason,
    /// The policy that gives that reason; null where none does.
    pub policy: Option<String>,
}

/// There is no archive of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no archive {}{}", printable(.file), hint(.close))]
pub struct NoSuchArchive {
    /// The name, as it was given.
    pub file: String,
    /// Names of archives that are like it.
    pub close: Vec<String>,
}

fn hint(close: &[String]) -> String {
    if close.is_empty() { String::new() } else { format!("\n  hint: did you mean {}?", close.join(" or ")) }
}

/// So many names that are like one that is not there are told.
const MOST_CLOSE: usize = 3;

/// The place of an archive in a snapshot, by its name as it is shown or as JSON has it.
fn place_of(snapshot: &Snapshot, file: &str) -> Result<usize, NoSuchArchive> {
    let archives = &snapshot.archives;
    let is_named =
        |archive: &Archive| archive.file.to_json_text() == file || archive.file.to_string() == file;
    if let Some(place) = archives.iter().position(is_named) {
        return Ok(place);
    }
    let alike = |name: &str| {
        let same = |(one, other): &(char, char)| one == other;
        let from_begin = name.chars().zip(file.chars()).take_while(same).count();
        let from_end = name.chars().rev().zip(file.chars().rev()).take_while(same).count();
        from_begin + from_end
    };
    let mut close: Vec<(usize, String)> = archives
        .iter()
        .map(|archive| archive.file.to_string())
        .map(|name| (alike(&name), name))
        .filter(|(alike, name)| alike * 2 > name.chars().count().max(file.chars().count()))
        .collect();
    close.sort_by(|(one, a), (other, b)| other.cmp(one).then_with(|| a.cmp(b)));
    let close = close.into_iter().take(MOST_CLOSE).map(|(_, name)| name).collect();
    Err(NoSuchArchive { file: file.to_owned(), close })
}

impl Explanation {
    /// Explains why the archive of that name has its verdict in a view.
    ///
    /// Errors: there is no such archive; with names that are like it.
    pub fn of(view: &View, file: &str) -> Result<Self, NoSuchArchive> {
        let View { snapshot, policies, confidence, made_at, plan, .. } = view;
        let place = place_of(snapshot, file)?;
        let tried = plan::tried(snapshot, policies, *made_at, (plan, place), MOST_DRY_RUNS);
        plan::explain(snapshot, policies, confidence, *made_at, place)
            .and_then(|explanation| Self::new(snapshot, &explanation, *made_at))
            .map(|explanation| Self { dry_runs: tried.iter().map(DryRunRow::new).collect(), ..explanation })
            .ok_or_else(|| NoSuchArchive { file: file.to_owned(), close: Vec::new() })
    }

    /// An explanation of an archive of this snapshot, without dry runs; none where the snapshot has no such archive.
    pub fn new(snapshot: &Snapshot, explanation: &plan::Explanation, now: Timestamp) -> Option<Self> {
        let archive = snapshot.archives.get(explanation.place)?;
        let governed_by = match &explanation.governed {
            Governed::By(policy) => Some(policy.to_string()),
            Governed::SoonBy(_) | Governed::NoPolicy | Governed::Uncertain => None,
        };
        Some(Self {
            archive: Row::new(archive, &explanation.verdict),
            verdict: VerdictRow::new(&explanation.verdict),
            governed_by,
            rules: explanation.judgements.iter().map(RuleRow::new).collect(),
            next: NextRow::new(&explanation.next),
            waits_for: waits_for(&explanation.next),
            next_text: next_text(&explanation.next, explanation.verdict.reason),
            dry_runs: Vec::new(),
            now: seconds(now),
        })
    }
}

impl RuleRow {
    fn new(judgement: &Judgement) -> Self {
        let (outcome, reason) = match judgement.outcome {
            Outcome::Took { reason, .. } => (OutcomeName::Deletes, Some(reason)),
            Outcome::Spared { reason, .. } => (OutcomeName::Protects, Some(reason)),
            Outcome::Kept => (OutcomeName::Passes, None),
            Outcome::DoesNotApply(_) => (OutcomeName::DoesNotApply, None),
        };
        Self {
            rule: judgement.rule.name(),
            policy: judgement.policy.as_ref().map(ToString::to_string),
            outcome,
            reason,
            detail: [why(judgement), judgement.saw.to_string()]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
            saw: judgement.saw.to_string(),
            figures: Figures::of(judgement.saw),
        }
    }
}

fn why(judgement: &Judgement) -> String {
    match judgement.outcome {
        // What the rule saw says it all.
        Outcome::Took { .. } if judgement.saw != Saw::Nothing => String::new(),
        Outcome::Took { reason, detail } | Outcome::Spared { reason, detail } => {
            let detail = detail.to_string();
            if detail.is_empty() || judgement.saw.to_string() == detail {
                reason.to_string()
            } else {
                format!("{reason}: {detail}")
            }
        }
        Outcome::Kept if judgement.rule == Rule::Governing => "this policy governs it".to_owned(),
        Outcome::Kept => String::new(),
        Outcome::DoesNotApply(Because::Decided(reason)) => format!("{reason} has decided already"),
        Outcome::DoesNotApply(Because::NoPolicy) => "no policy governs it".to_owned(),
        Outcome::DoesNotApply(Because::NoSuchRule) => "no policy has such a rule for it".to_owned(),
        Outcome::DoesNotApply(Because::OtherArchives) => "they are about other archives".to_owned(),
        Outcome::DoesNotApply(Because::Overridden) => {
            "the policy that governs it has precedence Override, and decides alone".to_owned()
        }
    }
}

impl Figures {
    fn of(saw: Saw) -> Self {
        let of = |unit, have, limit| Self { unit: Some(unit), have: Some(have), limit, ..Self::default() };
        match saw {
            Saw::Nothing | Saw::FormerLabels | Saw::Uncertain(_) | Saw::NotGone | Saw::Tiers(_) => {
                Self::default()
            }
            Saw::Age { age, limit } => of("Seconds", age.as_secs(), Some(limit.as_secs())),
            Saw::Size { have, limit } => of("Bytes", have, Some(limit)),
            Saw::Count { have, limit, position, .. } => {
                Self { position: Some(position), ..of("Archives", have, Some(limit)) }
            }
            Saw::TotalSize { have, limit, position, .. } => {
                Self { position: Some(position), ..of("Bytes", have, Some(limit)) }
            }
            Saw::Gone { since, until } => {
                Self { since: Some(seconds(since)), until: Some(seconds_after(until)), ..Self::default() }
            }
            Saw::Deletions(allowed) => of("Deletions", allowed, None),
            Saw::Disk { used, .. } => of("HundredthsOfPercent", u64::from(used), None),
        }
    }
}

impl NextRow {
    fn new(next: &Next) -> Option<Self> {
        let Next::At(expiration) = next else { return None };
        Some(Self {
            at: seconds_after(expiration.at),
            reason: expiration.reason,
            policy: expiration.policy.as_ref().map(ToString::to_string),
        })
    }
}

/// A time to the second, and not earlier than it is.
fn seconds_after(time: Timestamp) -> Timestamp {
    let second = time.as_second() + i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(second).unwrap_or(time)
}

fn waits_for(next: &Next) -> &'static str {
    match next {
        Next::Now => "Now",
        Next::DeletionLimit => "DeletionLimit",
        Next::PoliciesConfirmed => "PoliciesConfirmed",
        Next::ClockTrusted => "ClockTrusted",
        Next::OrphanConfirmed => "OrphanConfirmed",
        Next::At(_) => "Time",
        Next::Nothing => "Nothing",
    }
}

/// What takes an archive next that has its verdict for that reason, as a sentence.
fn next_text(next: &Next, reason: Reason) -> String {
    match next {
        Next::Now => "It is to go now.".to_owned(),
        Next::DeletionLimit => "It goes as soon as the deletion limit allows.".to_owned(),
        Next::PoliciesConfirmed => "It goes as soon as the policies are confirmed again.".to_owned(),
        Next::ClockTrusted => "It goes as soon as this node's clock is trusted.".to_owned(),
        Next::OrphanConfirmed => {
            "It goes as soon as the API confirms that what it belongs to is gone.".to_owned()
        }
        Next::At(expiration) => {
            let policy = expiration.policy.as_ref().map(|policy| format!(" of {policy}")).unwrap_or_default();
            format!(
                "It goes at {} by {}{policy}, if nothing else changes. Limits, tiers and a full disk may take it sooner.",
                seconds_after(expiration.at),
                expiration.reason
            )
        }
        Next::Nothing if reason == Reason::Pinned => "While it is pinned, no rule takes it.".to_owned(),
        Next::Nothing => "Time alone does not take it; limits, tiers and a full disk may.".to_owned(),
    }
}

/// The explanation as text for a person. Nothing in it acts on a terminal.
impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = &self.archive;
        let safe = |text: &str| printable(text).into_owned();
        writeln!(formatter, "{}", safe(&row.shown))?;
        if let (Some(namespace), Some(pod), Some(container)) = (&row.namespace, &row.pod, &row.container) {
            writeln!(formatter, "  of       {}", safe(&format!("{namespace}/{pod}/{container}")))?;
        } else {
            writeln!(formatter, "  of       an unknown pod")?;
        }
        match row.checkpointed_at {
            Some(taken) => writeln!(formatter, "  taken    {}", seconds(taken))?,
            None => writeln!(formatter, "  taken    unknown; its age counts from when it was first seen")?,
        }
        writeln!(formatter, "  size     {}", crate::quantity::human(row.size_bytes))?;
        writeln!(formatter, "  state    {}", row.state.name())?;
        let policy = self.governed_by.as_deref().unwrap_or("no policy, or none for certain");
        writeln!(formatter, "  policy   {}", safe(policy))?;
        let verdict = match (row.verdict, row.reason) {
            (Action::Keep, Reason::DeletionPending) => "It waits to be deleted",
            (Action::Keep, _) => "It stays",
            (Action::Delete, _) => "It is to be deleted",
        };
        match row.detail.strip_prefix("else ").filter(|_| row.reason == Reason::DeletionPending) {
            // The rule that takes it once there is room.
            Some(rule) => write!(formatter, "\n{verdict}: {}", safe(rule))?,
            None => write!(formatter, "\n{verdict}: {}", row.reason)?,
        }
        if !row.detail.is_empty() && row.reason != Reason::DeletionPending {
            write!(formatter, " ({})", safe(&row.detail))?;
        }
        if let Some(policy) = &row.policy {
            write!(formatter, ", by {}", safe(policy))?;
        }
        writeln!(formatter, ".\n{}\n\nThe rules, in their order:", safe(&self.next_text))?;
        let (mut idle, shown): (Vec<&RuleRow>, Vec<&RuleRow>) =
            self.rules.iter().partition(|rule| rule.outcome == OutcomeName::DoesNotApply);
        let width = shown.iter().map(|rule| rule.rule.len()).max().unwrap_or_default();
        for rule in shown {
            let mut line = String::new();
            write!(line, "  {:width$}  {:8}", rule.rule, rule.outcome.in_words())?;
            write!(line, "  {}", rule.detail)?;
            if let Some(policy) =
                rule.policy.as_deref().filter(|policy| self.governed_by.as_deref() != Some(policy))
            {
                write!(line, " [{policy}]")?;
            }
            writeln!(formatter, "{}", safe(line.trim_end()))?;
        }
        if !self.dry_runs.is_empty() {
            writeln!(formatter, "\nPolicies in dry-run mode, which delete nothing:")?;
        }
        for dry_run in &self.dry_runs {
            writeln!(formatter, "  {}", safe(&format!("{}  {}", dry_run.policy, dry_run.in_words())))?;
        }
        idle.sort_by(|one, other| one.detail.cmp(&other.detail));
        for same in idle.chunk_by(|one, other| one.detail == other.detail) {
            let names: Vec<&str> = same.iter().map(|rule| rule.rule.as_str()).collect();
            if let Some(first) = same.first() {
                writeln!(formatter, "\nDo not apply, as {}:\n  {}", first.detail, names.join(", "))?;
            }
        }
        Ok(())
    }
}
