//! Measures the platform on the cluster of tests/cluster and compares it with what its engines can do alone.
//!
//! `make bench` runs it. It observes the platform from outside: over HTTP, PostgreSQL, Kafka and /proc. It creates
//! separate databases and topics and removes them at the end, even after a failed measure.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a bench fails by panicking, and its figures are floats"
)]

mod ads;
mod copy_loop;
mod drain;
mod estimate;
mod events;
mod follower;
mod http;
mod load;
mod machine;
mod overload;
mod pages;
mod pgbench;
mod pipeline;
mod post;
mod processes;
mod records;
mod relay;
mod report;
mod role;
mod settings;
mod sql;
mod stats;
mod stock;
#[path = "../../tests/support/mod.rs"]
mod support;
mod transactions;
mod waiting;
mod workspace;

use std::panic::AssertUnwindSafe;

use chrono::{SecondsFormat, Utc};
use clap::Parser as _;
use futures::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};

use machine::Machine;
use report::Report;
use settings::{Measure, Settings};
use stats::say;
use workspace::{Workspace, cluster};

/// Runs on one thread, so that the load generator takes little processor time from the processes it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let settings = Settings::parse();
    std::fs::create_dir_all(&settings.output).unwrap();
    let mut report = Report {
        machine: Machine::describe(cluster("versions")),
        rows: Vec::new(),
        cpu: Vec::new(),
        notes: Vec::new(),
        failures: Vec::new(),
        started: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
    };
    let workspace = Workspace::new(settings.clone());
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let interrupted = tokio::select! {
        () = run(&workspace, &mut report) => false,
        _ = tokio::signal::ctrl_c() => true,
        _ = terminated.recv() => true,
    };
    say("removing the databases and topics of the bench");
    workspace.remove_all().await;
    if interrupted {
        report.failures.push("interrupted".to_owned());
    }
    report.machine.finish();

    let markdown = report.markdown(&settings);
    let json = serde_json::to_string_pretty(&report.json(&settings)).unwrap();
    std::fs::write(settings.output.join("results.md"), &markdown).unwrap();
    std::fs::write(settings.output.join("results.json"), json).unwrap();
    println!("\n{markdown}\nwritten to {0}/results.md and {0}/results.json", settings.output.display());
    if !report.failures.is_empty() {
        std::process::exit(1);
    }
}

/// Runs the selected measures in order. A failed measure does not stop the others.
async fn run(workspace: &Workspace, report: &mut Report) {
    let mut rate = None;
    for &measure in &workspace.settings.measures {
        say(&format!("{measure:?}"));
        let work = async {
            match measure {
                Measure::Post => rate = Some(post::throughput(workspace, report).await),
                Measure::Latency => post::latency(workspace, report).await,
                Measure::Overload => overload::overload(workspace, report, rate).await,
                Measure::Relay => relay::relay(workspace, report).await,
                Measure::Pages => pages::pages(workspace, report).await,
                Measure::Estimate => estimate::estimate(workspace, report).await,
                Measure::Ads => ads::ads(workspace, report).await,
                Measure::Waiting => waiting::waiting(workspace, report).await,
                Measure::Pipeline => pipeline::pipeline(workspace, report).await,
            }
        };
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            report.failures.push(format!("{measure:?} failed, see its panic in the log"));
            workspace.remove_all().await;
        }
    }
}
