//! Measures estimate on a backlog, without processing time.

use vehicle_platform::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};

use crate::copy_loop::{Commits, CopyLoop};
use crate::drain::{Backlog, Drained};
use crate::machine::sample_runnable;
use crate::records::{self, created};
use crate::report::{CpuTable, Goal, Report, Row};
use crate::role::Role;
use crate::stats::{say, show};
use crate::transactions::BATCH;
use crate::workspace::{Site, Workspace};

/// Measures both loops and estimate on the same backlog in each round.
pub async fn estimate(workspace: &Workspace, report: &mut Report) {
    let count = workspace.settings.records;
    let (mut rates, mut cpu) = (Vec::new(), Vec::new());
    let mut limits = [(Commits::AtTheEnd, Vec::new()), (Commits::Transactions, Vec::new())];
    for round in 1..=workspace.settings.rounds {
        say(&format!("estimate, round {round}"));
        let site = workspace.site().await;
        records::write(workspace, &site, VEHICLE_CREATED, count, created).await;
        for (commits, limit) in &mut limits {
            sample_runnable();
            let rate = copy(workspace, &site, *commits).await;
            say(&format!("  librdkafka alone, commits {commits:?}: {}/s", show(rate)));
            limit.push(rate);
        }
        sample_runnable();
        let drained = drain(workspace, report, &site).await;
        rates.push(drained.as_ref().map_or(0.0, |drained| drained.per_second));
        cpu.extend(drained.map(|drained| drained.cpu));
        workspace.remove(site).await;
    }
    let work = format!("Estimate, a backlog of {} vehicles, processing time 0 s", show(count as f64));
    let batch = show(BATCH as f64);
    let [(_, plain), (_, transactions)] = limits;
    report.rows.extend([
        Row::new(&work, "/s", rates.clone())
            .limit("librdkafka, consume and produce without transactions", plain)
            .goal(Goal::RatioAtLeast(0.6)),
        Row::new(&work, "/s", rates)
            .limit(&format!("librdkafka, consume and produce in transactions of {batch}"), transactions)
            .goal(Goal::RatioAtLeast(1.5)),
    ]);
    report.add_cpu(CpuTable { work, rounds: cpu });
}

async fn copy(workspace: &Workspace, site: &Site, commits: Commits) -> f64 {
    let to = site.topic(&format!("limit-{commits:?}"));
    workspace.create_topic(&to).await;
    let (kafka, from) = (workspace.kafka.clone(), site.topic(VEHICLE_CREATED.topic));
    let count = workspace.settings.records;
    let rate = CopyLoop { kafka, from, to: to.clone(), count, commits }.run().await;
    // Transaction markers also occupy offsets.
    assert!(records::end(workspace, &to).await >= count, "the loop did not write all records");
    rate
}

async fn drain(workspace: &Workspace, report: &mut Report, site: &Site) -> Option<Drained> {
    let count = workspace.settings.records;
    let mut estimate = Role::start(workspace, site, "estimate", &["--processing-time", "0s"]);
    let backlog = Backlog {
        what: "estimate",
        begun: "estimate_records_read_total",
        done: "estimate_records_committed_total",
        count,
    };
    let drained = backlog.drain(workspace, report, &mut estimate).await;
    if drained.is_some() {
        let letters = estimate.metric("estimate_dead_letters_total").await;
        assert_eq!(letters, Some(0.0), "estimate refused valid events");
        let written = records::end(workspace, &site.topic(VEHICLE_PROCESSED.topic)).await;
        assert!(written >= count, "estimate did not write all events");
    }
    estimate.stop().await;
    drained
}
