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
    pub(super) budget: Option<Budget>,
    pub(super) baseline: Option<Baseline>,
    /// Measured ÷ baseline.
    pub(super) ratio: Option<f64>,
    /// None where there is no budget, or nothing was measured.
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
        let note = String::new();
        Self { id, what, measured, budget: None, baseline: None, ratio: None, met: None, samples: 1, note }
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

    /// Judges it.
    pub(super) fn budget(mut self, budget: Budget) -> Self {
        self.met = match budget {
            Budget::AtMost(most) => self.measured.map(|measured| measured.value <= most),
            Budget::TimesBaseline(times) => self.ratio.map(|ratio| ratio <= times),
        };
        self.budget = Some(budget);
        self
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
            let budget = match row.budget {
                Some(Budget::AtMost(most)) => format!("≤ {}", shown(most, unit)),
                Some(Budget::TimesBaseline(times)) => format!("≤ {times} × baseline"),
                None => "—".to_owned(),
            };
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
    fn figures_are_rounded_to_what_they_mean() {
        for (value, wanted) in
            [(0.0, 0.0), (123_456.7, 123_457.0), (12.345_6, 12.35), (0.001_234_56, 0.001_235)]
        {
            assert!((rounded(value) - wanted).abs() < 1e-12, "{value}");
        }
    }
}
