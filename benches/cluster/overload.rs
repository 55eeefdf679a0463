//! Offers twice as many requests as stock can accept.

use std::time::Duration;

use crate::events::Events;
use crate::load::{self, Pace, Tally};
use crate::machine::sample_runnable;
use crate::processes::resident_mib;
use crate::report::{Goal, Report, Row};
use crate::sql::Sql;
use crate::stats::{percentile, say, show};
use crate::stock;
use crate::workspace::Workspace;

const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// Length of the closed loop that finds the maximum rate when it was not measured before.
const SEARCH: Duration = Duration::from_secs(5);
const SAMPLE: Duration = Duration::from_millis(100);

/// Resident memory of stock, in MiB.
struct Memory {
    before: f64,
    samples: Vec<f64>,
    after: f64,
}

impl Memory {
    fn peak(samples: &[f64]) -> f64 {
        samples.iter().copied().fold(0.0, f64::max)
    }

    /// Returns the peak of the last third of the load, divided by the peak of the first third.
    fn growth(&self) -> f64 {
        let third = self.samples.len() / 3;
        let (first, last) = (&self.samples[..third.max(1)], &self.samples[2 * third..]);
        Self::peak(last) / Self::peak(first)
    }
}

/// Measures stock under overload; `rate` is the result of the closed loop, if it ran.
pub async fn overload(workspace: &Workspace, report: &mut Report, rate: Option<f64>) {
    let settings = &workspace.settings;
    let site = workspace.site().await;
    let stock = stock::start_ready(workspace, &site).await;
    let pid = stock.process().pid;
    let mut sql = Sql::connect(site.url()).await;
    let events = Events::detect(&mut sql).await;
    let rate = match rate {
        Some(rate) => rate,
        None => load::post(stock.address(), settings.connections, SEARCH, Pace::Closed).await.rate(),
    };
    let offered = 2.0 * rate;
    let mut rounds: Vec<(Tally, Memory)> = Vec::new();
    for round in 1..=settings.rounds {
        events.await_published(&mut sql, DRAIN_LIMIT).await;
        sample_runnable();
        let before = resident_mib(pid);
        let mut samples = Vec::new();
        let sample = async {
            loop {
                samples.push(resident_mib(pid));
                tokio::time::sleep(SAMPLE).await;
            }
        };
        let length = Duration::from_secs(settings.seconds);
        let pace = Pace::Open { per_second: offered };
        let tally = tokio::select! {
            tally = load::post(stock.address(), settings.overload_connections, length, pace) => tally,
            () = sample => unreachable!("sampling does not end"),
        };
        tokio::time::sleep(Duration::from_secs(2)).await;
        say(&format!(
            "overload, round {round}: offered {}/s, sent {}/s, accepted {}/s, {} refused, {} failed, {:.0} MiB at most",
            show(offered),
            show(tally.sent() as f64 / tally.elapsed.as_secs_f64()),
            show(tally.rate()),
            tally.refused,
            tally.failed,
            Memory::peak(&samples),
        ));
        rounds.push((tally, Memory { before, samples, after: resident_mib(pid) }));
    }
    events.await_published(&mut sql, DRAIN_LIMIT).await;
    drop(sql);
    stock.stop().await;
    workspace.remove(site).await;

    let connections = settings.overload_connections;
    let offer = format!("Overload, twice the rate of the closed loop from {connections} connections");
    report.rows.push(
        Row::new(
            &format!("{offer}: sent"),
            "/s",
            each(&rounds, |tally, _| tally.sent() as f64 / tally.elapsed.as_secs_f64()),
        )
        .limit("offered", vec![offered]),
    );
    report.rows.push(
        Row::new("Overload: accepted (201)", "/s", each(&rounds, |tally, _| tally.rate()))
            .limit("closed loop", vec![rate]),
    );
    let share = |count: u64, tally: &Tally| count as f64 * 100.0 / tally.sent().max(1) as f64;
    report.rows.extend([
        Row::new("Overload: answered 201", "%", each(&rounds, |tally, _| share(tally.accepted, tally))),
        Row::new("Overload: answered 503", "%", each(&rounds, |tally, _| share(tally.refused, tally))),
        Row::new(
            "Overload: 503 without Retry-After",
            "",
            each(&rounds, |tally, _| tally.without_retry_after as f64),
        )
        .goal(Goal::AtMost(0.0)),
        Row::new("Overload: other responses or none", "", each(&rounds, |tally, _| tally.failed as f64))
            .goal(Goal::AtMost(0.0)),
        Row::new(
            "Overload: p99 of accepted requests, from sending",
            "ms",
            each(&rounds, |tally, _| percentile(&tally.from_send, 99)),
        )
        .goal(Goal::AtMost(100.0)),
        Row::new(
            "Overload: p99 of accepted requests, from the schedule",
            "ms",
            each(&rounds, |tally, _| percentile(&tally.from_schedule, 99)),
        ),
        Row::new(
            "Overload: memory of stock at its peak",
            "MiB",
            each(&rounds, |_, memory| Memory::peak(&memory.samples)),
        )
        .limit("before the first round", vec![rounds[0].1.before]),
        Row::new("Overload: memory of stock 2 s later", "MiB", each(&rounds, |_, memory| memory.after)),
        Row::new(
            "Overload: peak memory in the last third divided by that in the first",
            "",
            each(&rounds, |_, memory| memory.growth()),
        )
        .goal(Goal::AtMost(1.1)),
    ]);
}

fn each(rounds: &[(Tally, Memory)], figure: impl Fn(&Tally, &Memory) -> f64) -> Vec<f64> {
    rounds.iter().map(|(tally, memory)| figure(tally, memory)).collect()
}
