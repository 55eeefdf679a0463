//! The vehicle platform. README.md describes what it does, the modules how it does it.

#![deny(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic when the stream fails: use `output`"
)]

pub mod ads;
pub mod audit;
pub mod backoff;
mod canonical;
pub mod cli;
pub mod console;
pub mod database;
#[cfg(feature = "embedded")]
pub mod dev;
pub mod dlq;
pub mod duration;
pub mod environment;
pub mod estimate;
pub mod event;
mod excerpt;
mod expected_panic;
pub mod healthcheck;
pub mod http;
pub mod https;
pub mod kafka;
pub mod load;
pub mod log_queue;
pub mod open_files;
pub mod output;
pub mod page;
pub mod process;
pub mod registry;
pub mod role;
pub mod schemas;
pub mod secret;
pub mod shutdown;
pub mod stock;
pub mod telemetry;
pub mod trace;
pub mod vehicle;
