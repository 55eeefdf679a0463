//! Measures the time from a 201 of stock until the ad is visible.

use std::time::{Duration, Instant};

use crate::follower::{Follower, PAUSE};
use crate::load::{self, Pace, Tally};
use crate::machine::sample_runnable;
use crate::processes::{Process, Watch};
use crate::report::{CpuRound, CpuTable, Goal, Report, Row};
use crate::role::{Role, await_assigned};
use crate::stats::{percentile, say, show};
use crate::stock;
use crate::workspace::{Site, Workspace};

const WARM_UP: Duration = Duration::from_secs(2);
/// Longest wait for the last ads of a round, in addition to the processing time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The figures of one round.
struct Round {
    rate: f64,
    failed: f64,
    p50: f64,
    p99: f64,
    without_ad: f64,
    skipped: f64,
    resolution: f64,
}

/// The roles that a vehicle passes through.
struct Pipeline {
    stock: Role,
    estimators: Vec<Role>,
    ads: Role,
}

impl Pipeline {
    async fn start(workspace: &Workspace, site: &Site) -> Self {
        let processing_time = humantime::format_duration(workspace.settings.processing_time).to_string();
        let estimator =
            |_| Role::start(workspace, site, "estimate", &["--processing-time", &processing_time]);
        let mut pipeline = Self {
            stock: stock::start(workspace, site),
            estimators: (0..workspace.settings.estimators).map(estimator).collect(),
            ads: Role::start(workspace, site, "ads", &["--database-url", site.ads_url()]),
        };
        for role in pipeline.roles() {
            role.await_ready().await;
        }
        await_assigned(&pipeline.estimators).await;
        await_assigned(std::slice::from_ref(&pipeline.ads)).await;
        pipeline
    }

    fn roles(&mut self) -> impl Iterator<Item = &mut Role> {
        self.estimators.iter_mut().chain([&mut self.stock, &mut self.ads])
    }

    fn processes(&self, workspace: &Workspace) -> Vec<Process> {
        let estimators = self.estimators.iter().enumerate().map(|(index, estimator)| Process {
            name: format!("estimate {}", index + 1),
            ..estimator.process()
        });
        let mut processes = vec![self.stock.process()];
        processes.extend(estimators);
        processes.extend([self.ads.process(), Process::load_generator()]);
        processes.extend(workspace.engines.iter().cloned());
        processes
    }

    async fn stop(self) {
        self.stock.stop().await;
        for estimator in self.estimators {
            estimator.stop().await;
        }
        self.ads.stop().await;
    }
}

pub async fn pipeline(workspace: &Workspace, report: &mut Report) {
    let settings = &workspace.settings;
    let site = workspace.site().await;
    let mut pipeline = Pipeline::start(workspace, &site).await;
    let mut follower = Follower::new(pipeline.ads.address());
    let processes = pipeline.processes(workspace);
    let (mut rounds, mut cpu) = (Vec::new(), Vec::new());
    // Round 0 is the warm-up.
    for round in 0..=settings.rounds {
        follower.reset();
        sample_runnable();
        let length = if round == 0 { WARM_UP } else { Duration::from_secs(settings.pipeline_seconds) };
        let watch = Watch::start(processes.clone());
        let pace = Pace::Open { per_second: settings.pipeline_rate.into() };
        let load = load::post(pipeline.stock.address(), settings.connections, length, pace);
        let tally = follower.during(load).await;
        let during_load = watch.end();
        let vins = tally.accepted_at.iter().map(|(vin, _)| *vin);
        follower.until_seen(vins, settings.processing_time + PATIENCE).await;
        let in_all = watch.end();
        pipeline.roles().for_each(Role::assert_running);
        let figures = evaluate(&tally, &follower, settings.processing_time);
        say(&format!(
            "pipeline, {}: {} accepted, {}/s; p50 {} ms, p99 {} ms; {} without an ad, {} skipped by `after`; p99 of the \
             time between polls {} ms",
            if round == 0 { "warm-up".to_owned() } else { format!("round {round}") },
            tally.accepted,
            show(figures.rate),
            show(figures.p50),
            show(figures.p99),
            figures.without_ad,
            figures.skipped,
            show(figures.resolution),
        ));
        if round > 0 {
            cpu.push(CpuRound { during_load, in_all, vehicles: tally.accepted });
            rounds.push(figures);
        }
    }
    pipeline.stop().await;
    workspace.remove(site).await;
    add_rows(workspace, report, &rounds, cpu);
}

fn evaluate(tally: &Tally, follower: &Follower, processing_time: Duration) -> Round {
    let mut delays = Vec::with_capacity(tally.accepted_at.len());
    for (vin, accepted) in &tally.accepted_at {
        let visible: Option<Instant> = follower.seen(*vin);
        let delay = visible.map(|visible| visible.saturating_duration_since(*accepted));
        delays.extend(delay.map(|delay| delay.saturating_sub(processing_time)));
    }
    Round {
        rate: tally.rate(),
        failed: (tally.refused + tally.failed) as f64,
        p50: percentile(&delays, 50),
        p99: percentile(&delays, 99),
        without_ad: (tally.accepted_at.len() - delays.len()) as f64,
        skipped: follower.skipped as f64,
        resolution: percentile(&follower.gaps, 99),
    }
}

fn add_rows(workspace: &Workspace, report: &mut Report, rounds: &[Round], cpu: Vec<CpuRound>) {
    let settings = &workspace.settings;
    let offered = f64::from(settings.pipeline_rate);
    let work = format!(
        "Pipeline, {} POST/s for {} s, {} estimators, processing time {}",
        show(offered),
        settings.pipeline_seconds,
        settings.estimators,
        humantime::format_duration(settings.processing_time),
    );
    let each = |figure: fn(&Round) -> f64| rounds.iter().map(figure).collect::<Vec<_>>();
    let delay = "from the 201 until the ad is visible, without the processing time";
    report.rows.extend([
        Row::new(&format!("{work}: accepted"), "/s", each(|round| round.rate))
            .limit("offered", vec![offered]),
        Row::new("Pipeline: responses other than 201", "", each(|round| round.failed))
            .goal(Goal::AtMost(0.0)),
        Row::new(&format!("Pipeline: {delay}: p50"), "ms", each(|round| round.p50)),
        Row::new(&format!("Pipeline: {delay}: p99"), "ms", each(|round| round.p99)).goal(Goal::AtMost(500.0)),
        Row::new("Pipeline: resolution of these times, p99", "ms", each(|round| round.resolution)),
        Row::new("Pipeline: accepted vehicles without an ad", "", each(|round| round.without_ad))
            .goal(Goal::AtMost(0.0)),
        Row::new("Pipeline: ads that following `after` skipped", "", each(|round| round.skipped))
            .goal(Goal::AtMost(0.0)),
    ]);
    report.notes.push(format!(
        "Pipeline: GET /ads is polled every {PAUSE:?} with `after`, on a separate connection. An ad counts as visible \
         when the response that contains it is received. The resolution is the time from sending a poll to the \
         response of the next one: each time is too long by at most this. An ad that `after` skipped is found about \
         100 ms later."
    ));
    report.add_cpu(CpuTable { work: format!("{work}, until the last ad is visible"), rounds: cpu });
}
