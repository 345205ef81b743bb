//! What a measurement says, as JSON and as a table.

use std::fmt::Write as _;

use serde::Serialize;

use super::machine::Machine;

/// A whole run.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) machine: Machine,
    pub(super) rows: Vec<Row>,
}

/// One figure beside its budget and its baseline.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: &'static str,
    pub(super) what: String,
    /// None where it could not be measured; the note says why.
    pub(super) measured: Option<Quantity>,
    /// All of them are to be met.
    pub(super) budgets: Vec<Budget>,
    pub(super) baseline: Option<Baseline>,
    /// Measured ÷ baseline.
    pub(super) ratio: Option<f64>,
    /// None where there is no budget, or one that could not be judged.
    pub(super) met: Option<bool>,
    pub(super) samples: usize,
    pub(super) note: String,
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantity {
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

/// What a figure may be at most.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Budget {
    /// That much, in the unit of what is measured.
    AtMost(f64),
    /// So many times the baseline.
    TimesBaseline(f64),
}

impl Budget {
    fn shown(self, unit: &str) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {}", shown(most, unit)),
            Self::TimesBaseline(times) => format!("≤ {times} × baseline"),
        }
    }
}

/// What the figure stands beside, in its unit.
#[derive(Debug, Serialize)]
pub(super) struct Baseline {
    pub(super) what: String,
    #[serde(flatten)]
    pub(super) quantity: Quantity,
}

impl Row {
    /// A figure without a budget.
    pub(super) fn new(id: &'static str, what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let measured = Some(Quantity { value: rounded(value), unit });
        let what = what.into();
        let (budgets, note) = (Vec::new(), String::new());
        Self { id, what, measured, budgets, baseline: None, ratio: None, met: None, samples: 1, note }
    }

    /// What could not be measured, and so has no budget to miss.
    pub(super) fn skipped(id: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { measured: None, samples: 0, ..Self::new(id, what, 0.0, "") }.note(why)
    }

    /// Stands it beside `value`, in the same unit. To be called before [`Self::budget`].
    pub(super) fn baseline(mut self, what: impl Into<String>, value: f64) -> Self {
        if let Some(measured) = self.measured {
            self.ratio = (value > 0.0).then(|| rounded(measured.value / value));
            let quantity = Quantity { value: rounded(value), unit: measured.unit };
            self.baseline = Some(Baseline { what: what.into(), quantity });
        }
        self
    }

    /// Judges it, by this as well as by what it was judged by before.
    pub(super) fn budget(mut self, budget: Budget) -> Self {
        self.budgets.push(budget);
        let verdicts = self.budgets.iter().map(|budget| self.meets(*budget));
        self.met = verdicts.reduce(|one, other| Some(one? && other?)).flatten();
        self
    }

    fn meets(&self, budget: Budget) -> Option<bool> {
        match budget {
            Budget::AtMost(most) => self.measured.map(|measured| measured.value <= most),
            Budget::TimesBaseline(times) => self.ratio.map(|ratio| ratio <= times),
        }
    }

    pub(super) fn samples(mut self, samples: usize) -> Self {
        self.samples = samples;
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl Results {
    /// The rows whose budget is missed.
    pub(super) fn missed(&self) -> Vec<String> {
        let missed = self.rows.iter().filter(|row| row.met == Some(false));
        missed.map(|row| format!("{} ({})", row.id, row.what)).collect()
    }

    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        text.push_str("| row | what | measured | budget | baseline | ratio | met | note |\n");
        text.push_str("| --- | --- | ---: | ---: | ---: | ---: | --- | --- |\n");
        for row in &self.rows {
            let unit = row.measured.map_or("", |measured| measured.unit);
            let measured = row.measured.map_or("—".to_owned(), |measured| shown(measured.value, unit));
            let budgets: Vec<String> = row.budgets.iter().map(|budget| budget.shown(unit)).collect();
            let budget = if budgets.is_empty() { "—".to_owned() } else { budgets.join(", ") };
            let baseline = row.baseline.as_ref().map_or("—".to_owned(), |baseline| {
                format!("{} ({})", shown(baseline.quantity.value, unit), baseline.what)
            });
            let ratio = row.ratio.map_or("—".to_owned(), |ratio| format!("{ratio}"));
            let met = row.met.map_or("—", |met| if met { "yes" } else { "**no**" });
            let (id, what, note) = (row.id, &row.what, &row.note);
            let samples = (row.samples > 1).then(|| format!("{} samples", row.samples));
            let notes: Vec<&str> = samples
                .as_deref()
                .into_iter()
                .chain([note.as_str()])
                .filter(|note| !note.is_empty())
                .collect();
            let note = notes.join("; ");
            let _ = writeln!(
                text,
                "| {id} | {what} | {measured} | {budget} | {baseline} | {ratio} | {met} | {note} |"
            );
        }
        text
    }
}

fn shown(value: f64, unit: &str) -> String {
    format!("{value} {unit}")
}

/// Four significant digits, or all of a whole number: more would be noise.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = (3.0 - value.abs().log10().floor()).max(0.0);
    let scale = 10_f64.powf(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_judged_by_the_figure_or_by_the_ratio() {
        let row = || Row::new("id", "what", 30.0, "ms").baseline("find", 20.0);
        assert_eq!(row().ratio, Some(1.5));
        assert_eq!(row().met, None);
        assert_eq!(row().budget(Budget::AtMost(30.0)).met, Some(true));
        assert_eq!(row().budget(Budget::AtMost(29.9)).met, Some(false));
        assert_eq!(row().budget(Budget::TimesBaseline(1.5)).met, Some(true));
        assert_eq!(row().budget(Budget::TimesBaseline(1.4)).met, Some(false));
    }

    #[test]
    fn of_several_budgets_all_are_to_be_met() {
        let row = || Row::new("id", "what", 30.0, "ms").baseline("sort", 20.0);
        let judged =
            |times, most| row().budget(Budget::TimesBaseline(times)).budget(Budget::AtMost(most)).met;
        assert_eq!(judged(1.5, 30.0), Some(true));
        assert_eq!(judged(1.4, 30.0), Some(false));
        assert_eq!(judged(1.5, 29.0), Some(false));
        let without_baseline = Row::new("id", "what", 30.0, "ms");
        let judged = without_baseline.budget(Budget::AtMost(30.0)).budget(Budget::TimesBaseline(1.5));
        assert_eq!(judged.met, None);
    }

    #[test]
    fn figures_are_rounded_to_what_they_mean() {
        for (value, wanted) in
            [(0.0, 0.0), (123_456.7, 123_457.0), (12.345_6, 12.35), (0.001_234_56, 0.001_235)]
        {
            assert!((rounded(value) - wanted).abs() < 1e-12, "{value}");
        }
    }
}
