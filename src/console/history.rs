//! Keeps the figures of the last minutes for the plots.

use std::collections::VecDeque;

use serde::Serialize;

/// The number of samples: one per second for five minutes.
const SAMPLES: usize = 300;
/// The time and the number of vehicles from which the quantile of the path is taken, in milliseconds.
const PATH_WINDOW: i64 = 10_000;
const MAX_PATHS: usize = 5_000;

/// The figures of one second. A figure is absent while its source does not answer.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The end of the second, in milliseconds since the Unix epoch.
    pub at: i64,
    pub accepted: f64,
    pub published: f64,
    pub ads: f64,
    /// The lag of the estimators and of ads.
    pub estimate_lag: Option<i64>,
    pub ads_lag: Option<i64>,
    /// The 99th percentiles of POST and of the path less the processing time, in milliseconds.
    pub post_p99: Option<f64>,
    pub path_p99: Option<f64>,
}

/// The number of vehicles at each stage since the console started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub accepted: u64,
    pub published: u64,
    pub ads: u64,
}

#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    before: Option<(i64, Totals)>,
    /// When each of the latest ads was published, and how long its vehicle took.
    paths: VecDeque<(i64, i64)>,
}

impl History {
    /// Records that a vehicle took `millis` from its acceptance to its ad.
    pub fn path(&mut self, now: i64, millis: i64) {
        self.paths.push_back((now, millis));
        if self.paths.len() > MAX_PATHS {
            self.paths.pop_front();
        }
    }

    /// Ends a second. `sample` has the figures other than the rates and the path.
    pub fn sample(&mut self, totals: Totals, processing: i64, sample: Sample) -> Sample {
        let now = sample.at;
        let (since, before) = self.before.replace((now, totals)).unwrap_or((now, totals));
        let seconds = millis_to_seconds((now - since).max(1));
        let rate = |after: u64, before: u64| count(after.saturating_sub(before)) / seconds;
        while self.paths.front().is_some_and(|(at, _)| now - at > PATH_WINDOW) {
            self.paths.pop_front();
        }
        let mut paths: Vec<_> = self.paths.iter().map(|(_, millis)| (millis - processing).max(0)).collect();
        paths.sort_unstable();
        let rank = (paths.len() * 99).div_ceil(100).saturating_sub(1);
        let sample = Sample {
            accepted: rate(totals.accepted, before.accepted),
            published: rate(totals.published, before.published),
            ads: rate(totals.ads, before.ads),
            path_p99: paths.get(rank).map(|millis| millis_to_seconds(*millis) * 1_000.0),
            ..sample
        };
        self.samples.push_back(sample.clone());
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        sample
    }

    pub fn samples(&self) -> &VecDeque<Sample> {
        &self.samples
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time is far below 2^53 ms")]
fn millis_to_seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "a count is far below 2^53")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(accepted: u64) -> Totals {
        Totals { accepted, ..Totals::default() }
    }

    fn at(at: i64) -> Sample {
        Sample { at, ..Sample::default() }
    }

    #[test]
    fn rates_are_per_second_and_the_first_sample_has_none() {
        let mut history = History::default();
        assert_eq!(history.sample(totals(500), 0, at(1_000)).accepted.to_bits(), 0f64.to_bits());
        assert_eq!(history.sample(totals(600), 0, at(3_000)).accepted.to_bits(), 50f64.to_bits());
        for second in 4..1_000 {
            history.sample(totals(600), 0, at(second * 1_000));
        }
        assert_eq!(history.samples().len(), SAMPLES);
    }

    #[test]
    fn the_path_is_the_99th_percentile_of_the_last_seconds_less_the_processing_time() {
        let mut history = History::default();
        for millis in 1..=100 {
            history.path(1_000, 30_000 + millis);
        }
        let path = |history: &mut History, now| history.sample(totals(0), 30_000, at(now)).path_p99;
        assert_eq!(path(&mut history, 2_000), Some(99.0));
        assert_eq!(path(&mut history, 12_000), None);
    }
}
