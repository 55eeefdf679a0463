#![deny(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic when the stream fails: use `output`"
)]

use std::time::Duration;
use std::{io, process};

use clap::Parser;
use vehicle_platform::cli::Cli;
use vehicle_platform::log_queue::LogQueue;
use vehicle_platform::{output, telemetry};

/// How long the process waits at its end for the reader of its log.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

fn main() {
    let cli = Cli::parse();
    let log = match telemetry::init(&cli.log) {
        Ok(log) => log,
        Err(error) => {
            output::report_error(io::stderr(), format_args!("cannot start the log: {error}"));
            process::exit(1);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let reason = format!("cannot start the async runtime: {error}");
            end(log, Err(anyhow::Error::msg(reason)));
        }
    };
    end(log, runtime.block_on(cli.command.run()));
}

/// Ends the process. Returning from `main` would wait for threads that are blocked in a call to an unavailable broker.
fn end(mut log: LogQueue, result: anyhow::Result<()>) -> ! {
    if let Err(error) = &result {
        output::report_error(&mut log, format_args!("{error:#}"));
    }
    log.flush_within(LOG_TIMEOUT);
    process::exit(i32::from(result.is_err()));
}
