//! Reports the result of a load as text and as JSON.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::counts::Counts;
use super::latencies::Quantiles;
use super::ledger::{Ledger, Standing};
use super::reconciliation::{Finding, Reconciliation};
use crate::output::Output;

/// The result of a load. Durations are in seconds, latencies in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether something was accepted, and nothing was lost or doubled.
    pub clean: bool,
    pub seed: u64,
    pub run: u32,
    pub offered: u64,
    pub accepted: u64,
    pub accepted_per_second: f64,
    /// From the scheduled time of a vehicle to its 201, retries included.
    pub post_ms: Option<Quantiles>,
    /// From the scheduled time of a vehicle until its ad was seen, without the processing time.
    pub path_ms: Option<Quantiles>,
    pub processing_time_seconds: f64,
    /// Attempts that were repeated, by the reason.
    pub retried: Counts,
    pub refused: Counts,
    /// Vehicles that were not accepted in time, by the reason of the last attempt. They may have been stored.
    pub given_up: Counts,
    /// Vehicles that were not sent because too many others were waiting for an answer.
    pub dropped: u64,
    /// Whether each accepted vehicle had an ad before the patience was over.
    pub complete: bool,
    pub patience_seconds: f64,
    pub lost: Finding,
    pub doubled: Finding,
}

/// The settings that a report repeats.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub seed: u64,
    pub run: u32,
    pub processing_time: Duration,
    pub patience: Duration,
}

impl Report {
    pub fn new(setting: Setting, ledger: &Ledger, complete: bool, found: Reconciliation) -> Self {
        let Standing { offered, accepted, dropped, .. } = ledger.standing();
        let Setting { seed, run, processing_time, patience } = setting;
        let Reconciliation { lost, doubled } = found;
        let seconds = ledger.accepting_for().as_secs_f64();
        let count = u32::try_from(accepted).map_or(0.0, f64::from);
        Self {
            clean: accepted > 0 && lost.count == 0 && doubled.count == 0,
            seed,
            run,
            offered,
            accepted,
            accepted_per_second: if seconds > 0.0 { (count / seconds * 10.0).round() / 10.0 } else { 0.0 },
            post_ms: ledger.post().quantiles(),
            path_ms: ledger.path().quantiles(),
            processing_time_seconds: processing_time.as_secs_f64(),
            retried: ledger.retried().clone(),
            refused: ledger.refused().clone(),
            given_up: ledger.gave_up().clone(),
            dropped,
            complete,
            patience_seconds: patience.as_secs_f64(),
            lost,
            doubled,
        }
    }

    pub fn print(&self, output: &mut Output<impl Write>) {
        output.line(format_args!("{:>10}  vehicles offered", self.offered));
        output.line(format_args!("{:>10}  accepted, {}/s", self.accepted, self.accepted_per_second));
        for (what, counts) in
            [("retries", &self.retried), ("refused", &self.refused), ("given up", &self.given_up)]
        {
            let kinds: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
            let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
            output.line(format_args!("{:>10}  {what}{kinds}", counts.total()));
        }
        if self.dropped > 0 {
            output.line(format_args!(
                "{:>10}  dropped: not sent, because too many vehicles were waiting for an answer",
                self.dropped
            ));
        }
        let patience = humantime::format_duration(Duration::from_secs_f64(self.patience_seconds));
        let lost = format!(": accepted, but without an ad, and no further ad appeared for {patience}");
        for (name, meaning, found) in
            [("lost", lost.as_str(), &self.lost), ("doubled", ": with more than one ad", &self.doubled)]
        {
            let Finding { count, examples } = found;
            output.line(format_args!("{count:>10}  {name}{}", if *count > 0 { meaning } else { "" }));
            if *count > 0 {
                let more = if *count > examples.len() as u64 { ", ..." } else { "" };
                output.line(format_args!("{:>10}  {}{more}", "", examples.join(", ")));
            }
        }
        let rows = [("POST", &self.post_ms), ("until the ad", &self.path_ms)];
        output.line(format_args!(
            "{:<14}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "latency in ms", "p50", "p90", "p99", "p99.9", "max"
        ));
        for (what, quantiles) in rows {
            let Some(Quantiles { p50, p90, p99, p999, max }) = quantiles else { continue };
            let [p50, p90, p99, p999, max] =
                [p50, p90, p99, p999, max].map(|latency| latency.as_secs_f64() * 1_000.0);
            output.line(format_args!("{what:<14}{p50:>10.1}{p90:>10.1}{p99:>10.1}{p999:>10.1}{max:>10.1}"));
        }
        output.line(format_args!("--seed {} --run {} offers the same vehicles again", self.seed, self.run));
    }

    /// Describes why the load failed, or returns `None` when it is clean.
    pub fn failure(&self) -> Option<String> {
        let Self { lost, doubled, .. } = self;
        let mut failures = Vec::new();
        if self.accepted == 0 {
            failures.push("stock accepted no vehicle".to_owned());
        }
        if lost.count > 0 {
            failures.push(format!("{} accepted vehicles have no ad", lost.count));
        }
        if doubled.count > 0 {
            failures.push(format!("{} vehicles have more than one ad", doubled.count));
        }
        (!failures.is_empty()).then(|| failures.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::super::ledger::Outcome;
    use super::*;

    const SETTING: Setting = Setting {
        seed: 7,
        run: 3,
        processing_time: Duration::from_secs(30),
        patience: Duration::from_secs(60),
    };

    fn report(found: Reconciliation) -> Report {
        let now = Instant::now();
        let mut ledger = Ledger::new(now, SETTING.processing_time).unwrap();
        for number in 0..4 {
            ledger.offer(number, now);
        }
        ledger.retry("503 overloaded");
        ledger.settle(0, Outcome::Accepted, now + Duration::from_millis(5));
        ledger.settle(1, Outcome::Refused("401 unauthorized".to_owned()), now);
        ledger.settle(2, Outcome::GaveUp("no connection".to_owned()), now);
        ledger.settle(3, Outcome::Dropped, now);
        ledger.see(0, now + Duration::from_millis(30_100));
        Report::new(SETTING, &ledger, true, found)
    }

    fn text(report: &Report) -> String {
        let mut bytes = Vec::new();
        let mut output = Output::new(&mut bytes);
        report.print(&mut output);
        output.finish().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn one(vin: &str) -> Finding {
        Finding { count: 1, examples: vec![vin.to_owned()] }
    }

    #[test]
    fn a_clean_report_has_the_counts_and_the_latencies() {
        let report = report(Reconciliation::default());
        assert_eq!(report.failure(), None);
        let text = text(&report);
        for line in [
            "         4  vehicles offered",
            "         1  accepted, 200/s",
            "         1  retries (503 overloaded: 1)",
            "         1  refused (401 unauthorized: 1)",
            "         1  given up (no connection: 1)",
            "         1  dropped: not sent",
            "         0  lost\n",
            "         0  doubled\n",
            "until the ad       100.0",
            "--seed 7 --run 3",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let json = json!(report);
        assert_eq!(json["clean"], json!(true));
        assert_eq!(json["refused"], json!({ "401 unauthorized": 1 }));
        assert_eq!(json["lost"], json!({ "count": 0, "examples": [] }));
        assert!(json["postMs"]["p99.9"].is_number() && json["pathMs"]["max"].is_number(), "{json}");
    }

    #[test]
    fn a_lost_and_a_doubled_vehicle_are_named_and_a_failure() {
        let report = report(Reconciliation { lost: one("LOST"), doubled: one("TWICE") });
        assert_eq!(
            report.failure().as_deref(),
            Some("1 accepted vehicles have no ad, 1 vehicles have more than one ad")
        );
        let text = text(&report);
        for part in ["no further ad appeared for 1m", "LOST", "with more than one ad", "TWICE"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!report.clean);
    }

    #[test]
    fn a_run_that_accepted_nothing_is_a_failure() {
        let ledger = Ledger::new(Instant::now(), Duration::ZERO).unwrap();
        let report = Report::new(SETTING, &ledger, true, Reconciliation::default());
        assert_eq!(report.failure().as_deref(), Some("stock accepted no vehicle"));
        assert_eq!(json!(report)["postMs"], json!(null));
    }
}
