//! How much is told of schedules, so that no tenant floods the API with events or the log with lines: a bucket for each
//! namespace, and one for the node.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many events, or lines in the log, there may be.
pub(crate) const MESSAGES: Rates = Rates {
    namespace: Rate { burst: 100, refill: Duration::from_secs(2) },
    node: Rate { burst: 400, refill: Duration::from_millis(200) },
};

/// How many results events are made of, each one of many.
pub(crate) const RESULTS: Rates = Rates {
    namespace: Rate { burst: 500, refill: Duration::from_millis(500) },
    node: Rate { burst: 2_000, refill: Duration::from_millis(50) },
};

/// So many namespaces are remembered at most; where there are more, those whose buckets are full are forgotten.
const MOST_NAMESPACES: usize = 1_000;

/// How fast something may be told, of one namespace and of all together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    namespace: Rate,
    node: Rate,
}

/// So many at once, and the time after which there may be one more.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    refill: Duration,
}

/// What may be told.
#[derive(Debug)]
pub(crate) struct Budget {
    rates: Rates,
    node: Bucket,
    namespaces: HashMap<String, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(crate) fn new(rates: Rates, now: Instant) -> Self {
        Self { rates, node: Bucket::full(rates.node, now), namespaces: HashMap::new() }
    }

    /// Takes one thing to be told about a namespace; false: it is left out.
    pub(crate) fn take(&mut self, namespace: &str, now: Instant) -> bool {
        let Rates { namespace: rate, node } = self.rates;
        self.node.fill(node, now);
        if self.node.tokens < 1.0 {
            return false;
        }
        if self.namespaces.len() >= MOST_NAMESPACES && !self.namespaces.contains_key(namespace) {
            self.namespaces.retain(|_, bucket| {
                bucket.fill(rate, now);
                bucket.tokens < f64::from(rate.burst)
            });
        }
        let bucket = self.namespaces.entry(namespace.to_owned()).or_insert(Bucket::full(rate, now));
        bucket.fill(rate, now);
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        self.node.tokens -= 1.0;
        true
    }
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: f64::from(rate.burst), at: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let tokens = self.tokens + passed / rate.refill.as_secs_f64();
        (self.tokens, self.at) = (tokens.min(f64::from(rate.burst)), now.max(self.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_burst_and_a_rate_and_takes_nothing_from_another_one() {
        let begin = Instant::now();
        let mut budget = Budget::new(MESSAGES, begin);
        let mut told =
            |namespace: &str, now: Instant| (0..1_000).filter(|_| budget.take(namespace, now)).count();
        assert_eq!((told("a", begin), told("a", begin)), (100, 0));
        assert_eq!(told("b", begin), 100);
        assert_eq!(told("a", begin + Duration::from_mins(1)), 30);
        assert_eq!(told("a", begin + Duration::from_hours(1)), 100);
    }

    #[test]
    fn however_many_namespaces_there_are_a_node_tells_so_much_and_remembers_few() {
        let begin = Instant::now();
        let mut budget = Budget::new(MESSAGES, begin);
        let mut told = 0;
        for second in 0..600 {
            let now = begin + Duration::from_secs(second);
            told += (0..500).filter(|number| budget.take(&format!("{number} {second}"), now)).count();
        }
        assert!((3_300..=3_400).contains(&told), "{told}");
        assert!(budget.namespaces.len() <= MOST_NAMESPACES, "{}", budget.namespaces.len());
    }
}
