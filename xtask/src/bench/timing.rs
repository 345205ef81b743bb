//! Taking times: several rounds, the two sides of a comparison in turns, and the middle of them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;

/// Times, sorted.
#[derive(Debug)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that so many of a hundred do not exceed (nearest rank).
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).or(self.0.last()).copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> Duration {
        self.percentile(50)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Times one call.
pub(super) fn once<T>(call: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let result = call()?;
    let time = start.elapsed();
    drop(result);
    Ok(time)
}

/// Times one call again and again.
pub(super) fn rounds<T>(rounds: usize, mut call: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<Times> {
    (0..rounds).map(|_| once(&mut call)).collect::<anyhow::Result<_>>().map(Times::new)
}

/// Times two calls in turns, so that whatever else the machine does meets both.
pub(super) fn in_turns<T, U>(
    rounds: usize,
    one: impl FnMut() -> anyhow::Result<T>,
    other: impl FnMut() -> anyhow::Result<U>,
) -> anyhow::Result<(Times, Times)> {
    in_prepared_turns(rounds, || Ok(()), one, other)
}

/// The same, each call after a preparation that is not timed.
pub(super) fn in_prepared_turns<T, U>(
    rounds: usize,
    mut prepare: impl FnMut() -> anyhow::Result<()>,
    mut one: impl FnMut() -> anyhow::Result<T>,
    mut other: impl FnMut() -> anyhow::Result<U>,
) -> anyhow::Result<(Times, Times)> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        prepare()?;
        ones.push(once(&mut one)?);
        prepare()?;
        others.push(once(&mut other)?);
    }
    Ok((Times::new(ones), Times::new(others)))
}

/// Runs a command to its end, its output thrown away.
pub(super) fn silently(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "{} ended with {status}", command.get_program().display());
    Ok(())
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(super) fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_taken() {
        let times = Times::new((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(times.median(), Duration::from_millis(100));
        assert_eq!(times.percentile(99), Duration::from_millis(198));
        assert_eq!(times.percentile(100), Duration::from_millis(200));
        assert_eq!(Times::new(vec![Duration::from_secs(1)]).median(), Duration::from_secs(1));
        assert_eq!(Times::new(Vec::new()).median(), Duration::ZERO);
    }
}
