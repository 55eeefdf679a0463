//! Measures the platform on the cluster of tests/cluster, next to the limits of its engines.
//!
//! `make bench` runs it. It looks at the platform from outside: HTTP, PostgreSQL, Kafka and /proc. What it has on the
//! engines is its own and is removed in the end, also after a measure has failed.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a bench fails by panicking, and its figures are floats"
)]

mod events;
mod http;
mod load;
mod machine;
mod overload;
mod pages;
mod pgbench;
mod post;
mod processes;
mod relay;
mod report;
mod settings;
mod sql;
mod stats;
mod stock;
#[path = "../../tests/support/mod.rs"]
mod support;
mod transactions;
mod workspace;

use std::panic::AssertUnwindSafe;

use chrono::{SecondsFormat, Utc};
use clap::Parser as _;
use futures::FutureExt as _;

use machine::Machine;
use report::Report;
use settings::{Measure, Settings};
use stats::say;
use workspace::{Workspace, cluster};

/// One thread: the load generator takes as little as possible from what it measures.
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
    let interrupted = tokio::select! {
        () = run(&workspace, &mut report) => false,
        _ = tokio::signal::ctrl_c() => true,
    };
    say("removing what the bench has on the engines");
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

/// Runs the measures that were asked for, in their order. One that fails does not stop the others.
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
            }
        };
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            report.failures.push(format!("{measure:?} failed, see above"));
            workspace.remove_all().await;
        }
    }
}
