//! Settings of a run.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::support::BINARY;

/// Measures vehicle-platform on the cluster of tests/cluster and compares it with its engines alone
#[derive(Clone, Debug, Parser)]
pub struct Settings {
    /// Measures to run, separated by commas
    #[arg(
        long,
        env = "BENCH",
        value_delimiter = ',',
        default_value = "post,latency,overload,relay,pages,estimate,ads,waiting,pipeline"
    )]
    pub measures: Vec<Measure>,

    /// Rounds of each measure, which alternate with rounds of its limit; the results are medians
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,

    /// Length of one round of load, in seconds
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,

    /// Connections in the closed loop
    #[arg(long, env = "BENCH_CONNECTIONS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,

    /// Maximum number of connections in the overload
    #[arg(long, env = "BENCH_OVERLOAD_CONNECTIONS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub overload_connections: u32,

    /// Unpublished events when the relay starts
    #[arg(long, env = "BENCH_BACKLOG", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub backlog: u64,

    /// Published events that precede the backlog; 0 omits that measure
    #[arg(long, env = "BENCH_HISTORY", default_value_t = 10_000_000)]
    pub history: u64,

    /// Timeout for processing one backlog, in seconds
    #[arg(long, env = "BENCH_RELAY_SECONDS", default_value_t = 180)]
    pub relay_seconds: u64,

    /// Vehicles in the table for the pages measure
    #[arg(long, env = "BENCH_ROWS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub rows: u64,

    /// Events in the backlogs of estimate and of ads
    #[arg(long, env = "BENCH_RECORDS", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub records: u64,

    /// Vehicles that wait in one estimator
    #[arg(long, env = "BENCH_WAITING", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub waiting: u64,

    /// POSTs per second through the whole pipeline
    #[arg(long, env = "BENCH_PIPELINE_RATE", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pipeline_rate: u32,

    /// Length of one round of the pipeline, in seconds
    #[arg(long, env = "BENCH_PIPELINE_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub pipeline_seconds: u64,

    /// Estimators in the pipeline
    #[arg(long, env = "BENCH_ESTIMATORS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3))]
    pub estimators: u32,

    /// Processing time of the estimators in the pipeline
    #[arg(long, env = "BENCH_PROCESSING_TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub processing_time: Duration,

    /// Executable to measure
    #[arg(long, env = "BENCH_BINARY", default_value = BINARY)]
    pub binary: PathBuf,

    /// Directory for the results and the logs of the roles
    #[arg(long, env = "BENCH_OUTPUT", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"))]
    pub output: PathBuf,

    /// Passed by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    Post,
    Latency,
    Overload,
    Relay,
    Pages,
    Estimate,
    Ads,
    Waiting,
    Pipeline,
}
