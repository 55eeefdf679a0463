//! Measures POST in a closed loop and compares it with pgbench.

use std::time::Duration;

use crate::events::Events;
use crate::load::{self, Pace};
use crate::machine::sample_runnable;
use crate::pgbench::{Mode, Pgbench};
use crate::processes::{Process, Watch};
use crate::report::{CpuRound, CpuTable, Goal, Report, Row};
use crate::sql::Sql;
use crate::stats::{median, percentile, say, show};
use crate::stock;
use crate::workspace::Workspace;

/// Time after the load within which the relay must have published all events.
const RELAY_TIME: Duration = Duration::from_secs(2);
/// Longest wait for the relay before the next round starts.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// Brokers that have just started are slow until their JVM has compiled what they run.
const WARM_UP: Duration = Duration::from_secs(20);

/// Measures how many vehicles per second are accepted and what each one costs. Returns the rate.
pub async fn throughput(workspace: &Workspace, report: &mut Report) -> f64 {
    let (seconds, connections) = (workspace.settings.seconds, workspace.settings.connections);
    let pgbench = Pgbench::prepare(workspace).await;
    let site = workspace.site().await;
    let stock = stock::start_ready(workspace, &site).await;
    let mut sql = Sql::connect(site.url()).await;
    let events = Events::detect(&mut sql).await;
    let mut processes = vec![stock.process(), Process::load_generator()];
    processes.extend(workspace.engines.iter().cloned());

    load::post(stock.address(), connections, WARM_UP, Pace::Closed).await;
    events.await_published(&mut sql, DRAIN_LIMIT).await;
    let (mut rates, mut p99, mut waiting, mut failed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut limits, mut cpu) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 1..=workspace.settings.rounds {
        sample_runnable();
        let watch = Watch::start(processes.clone());
        let tally =
            load::post(stock.address(), connections, Duration::from_secs(seconds), Pace::Closed).await;
        let during_load = watch.end();
        tokio::time::sleep(RELAY_TIME).await;
        let metric = stock.metric("stock_outbox_depth").await;
        cpu.push(CpuRound { during_load, in_all: watch.end(), vehicles: tally.accepted });
        let counted = events.depth(&mut sql).await as f64;
        waiting.push(metric.unwrap_or(counted).max(counted));
        rates.push(tally.rate());
        p99.push(percentile(&tally.from_send, 99));
        failed.push((tally.refused + tally.failed) as f64);
        say(&format!(
            "post, round {round}: {}/s, {} responses other than 201; 2 s later {counted} events are unpublished (metric: {metric:?})",
            show(tally.rate()),
            tally.refused + tally.failed
        ));
        match events.await_published(&mut sql, DRAIN_LIMIT).await {
            Some(after) => say(&format!("  all are published {:.1} s after that", after.as_secs_f64())),
            None => report
                .notes
                .push(format!("Events were still unpublished {DRAIN_LIMIT:?} after a round of load.")),
        }
        for (mode, limit) in Mode::ALL.into_iter().zip(&mut limits) {
            sample_runnable();
            let outcome = pgbench.run(connections, mode, seconds).await;
            say(&format!("  pgbench, {}: {}/s", mode.name(), show(outcome.per_second)));
            limit.push(outcome.per_second);
        }
    }
    drop(sql);
    stock.stop().await;
    workspace.remove(site).await;
    workspace.remove(pgbench.site).await;

    let best = if median(&limits[0]) > median(&limits[1]) { 0 } else { 1 };
    let (mode, limit) = (Mode::ALL[best].name(), limits[best].clone());
    let work = format!("POST /stock, {connections} connections, with the relay");
    let rate = median(&rates);
    report.rows.extend([
        Row::new(&work, "/s", rates)
            .limit(&format!("pgbench, {mode}, two inserts"), limit)
            .goal(Goal::RatioAtLeast(2.5)),
        Row::new(&format!("{work}: p99"), "ms", p99),
        Row::new(&format!("{work}: responses other than 201"), "", failed).goal(Goal::AtMost(0.0)),
        Row::new("Unpublished events 2 s after that load", "", waiting).goal(Goal::AtMost(0.0)),
    ]);
    report.add_cpu(CpuTable { work: format!("{work}, until 2 s after the load"), rounds: cpu });
    rate
}

/// Measures how long a single client waits for a response.
pub async fn latency(workspace: &Workspace, report: &mut Report) {
    let seconds = workspace.settings.seconds.div_ceil(2);
    let pgbench = Pgbench::prepare(workspace).await;
    let site = workspace.site().await;
    let stock = stock::start_ready(workspace, &site).await;
    load::post(stock.address(), 1, Duration::from_secs(2), Pace::Closed).await;
    let (mut p50, mut limits) = (Vec::new(), [Vec::new(), Vec::new()]);
    for round in 1..=workspace.settings.rounds {
        sample_runnable();
        let tally = load::post(stock.address(), 1, Duration::from_secs(seconds), Pace::Closed).await;
        p50.push(percentile(&tally.from_send, 50));
        let mut text = format!("latency, round {round}: {:.3} ms", p50[p50.len() - 1]);
        for (mode, limit) in Mode::ALL.into_iter().zip(&mut limits) {
            let outcome = pgbench.run(1, mode, seconds).await;
            text += &format!(", pgbench {} {:.3} ms", mode.name(), outcome.mean_milliseconds);
            limit.push(outcome.mean_milliseconds);
        }
        say(&text);
    }
    stock.stop().await;
    workspace.remove(site).await;
    workspace.remove(pgbench.site).await;

    let best = if median(&limits[0]) < median(&limits[1]) { 0 } else { 1 };
    report.rows.push(
        Row::new("POST /stock, 1 connection: p50", "ms", p50)
            .limit(&format!("pgbench, {}, mean", Mode::ALL[best].name()), limits[best].clone())
            .goal(Goal::RatioAtMost(1.0)),
    );
}
