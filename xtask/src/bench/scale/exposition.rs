//! Figures of a page of metrics, as Prometheus reads it.

/// A page of metrics.
#[derive(Debug, Default, Clone)]
pub(super) struct Exposition(String);

impl Exposition {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The sum of all series of a metric whose labels are as asked; 0 where there are none.
    pub(super) fn sum(&self, metric: &str, are_asked: impl Fn(Labels<'_>) -> bool) -> f64 {
        let series = self.0.lines().filter_map(|line| series(line, metric));
        series.filter(|(labels, _)| are_asked(*labels)).map(|(_, value)| value).sum()
    }

    /// The sum of all series of a metric.
    pub(super) fn total(&self, metric: &str) -> f64 {
        self.sum(metric, |_| true)
    }
}

/// A series' labels, as they are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels<'a>(&'a str);

impl<'a> Labels<'a> {
    /// A label's value, for values without quotes in them; none where there is no such label.
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        let mut rest = self.0;
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, next) = after.split_once('"')?;
            if key.trim_start_matches(',') == name {
                return Some(value);
            }
            rest = next;
        }
        None
    }
}

/// The labels and the value of a line of this metric.
fn series<'a>(line: &'a str, metric: &str) -> Option<(Labels<'a>, f64)> {
    let rest = line.strip_prefix(metric)?;
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}')?,
        // Else it is a metric whose name only begins like this one.
        None => ("", rest.strip_prefix(' ')?),
    };
    Some((Labels(labels), value.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_metric_are_added_up_by_their_labels() {
        let page = Exposition::new(
            "# HELP requests_total x\nrequests_total{code=\"200\",verb=\"GET\"} 3\n\
             requests_total{code=\"429\",verb=\"GET\"} 4\nrequests_total_more 100\nsize 1.5e+06\n"
                .to_owned(),
        );
        assert!((page.total("requests_total") - 7.0).abs() < f64::EPSILON);
        let refused = page.sum("requests_total", |labels| labels.get("code") == Some("429"));
        assert!((refused - 4.0).abs() < f64::EPSILON);
        let get = page.sum("requests_total", |labels| labels.get("verb") == Some("GET"));
        assert!((get - 7.0).abs() < f64::EPSILON);
        assert!(page.sum("requests_total", |labels| labels.get("erb").is_some()).abs() < f64::EPSILON);
        assert!((page.total("size") - 1_500_000.0).abs() < f64::EPSILON);
        assert!(page.total("absent").abs() < f64::EPSILON);
    }
}
