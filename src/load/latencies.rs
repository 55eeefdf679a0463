//! Collects latencies in constant memory.

use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// The longest latency in microseconds: one hour. Longer ones count as this.
const LONGEST: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The distribution of latencies, with three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// The quantiles of latencies. They are serialized in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    #[serde(serialize_with = "millis")]
    pub p50: Duration,
    #[serde(serialize_with = "millis")]
    pub p90: Duration,
    #[serde(serialize_with = "millis")]
    pub p99: Duration,
    #[serde(rename = "p99.9", serialize_with = "millis")]
    pub p999: Duration,
    #[serde(serialize_with = "millis")]
    pub max: Duration,
}

impl Latencies {
    /// Creates an empty distribution.
    ///
    /// # Errors
    /// Never fails with these bounds.
    pub fn new() -> anyhow::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, SIGNIFICANT_DIGITS);
        Ok(Self(histogram.context("cannot create a histogram")?))
    }

    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST).min(LONGEST));
    }

    /// Returns the latency that a part of all latencies, from 0 to 1, does not exceed.
    pub fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile).min(LONGEST))
    }

    /// Returns the quantiles, or `None` when there are no latencies.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let at = |quantile| self.at(quantile);
        let quantiles =
            Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) };
        (!self.0.is_empty()).then_some(quantiles)
    }
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    serializer.serialize_f64(f64::from(micros) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantiles_have_three_significant_digits_and_are_written_in_milliseconds() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.quantiles(), None);
        (1..=1_000).for_each(|millis| latencies.record(Duration::from_millis(millis)));
        let written = json!(latencies.quantiles());
        for (name, expected) in
            [("p50", 500.0), ("p90", 900.0), ("p99", 990.0), ("p99.9", 999.0), ("max", 1_000.0)]
        {
            let value = written[name].as_f64().unwrap();
            assert!((value - expected).abs() <= expected / 1_000.0, "{name}: {value}");
        }
    }

    #[test]
    fn a_latency_beyond_the_bounds_counts_as_the_bound() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::MAX);
        assert_eq!(latencies.at(0.5), Duration::ZERO);
        assert_eq!(latencies.at(1.0), Duration::from_secs(3_600));
    }
}
