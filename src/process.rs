//! Starts and ends an executable of the platform.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;
use std::{io, process};

use crate::log_queue::LogQueue;
use crate::output;
use crate::telemetry::{self, LogArgs};

/// The time that the process waits at its end for the reader of its log.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs `work` with a log and an async runtime, then ends the process. The exit code is 0, or 1 after reporting the
/// error of `work`.
pub fn run(log: &LogArgs, work: impl Future<Output = anyhow::Result<()>>) -> ! {
    let log = match telemetry::init(log) {
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
    // The hook has logged the panic.
    let result = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
    end(log, result.unwrap_or_else(|_| Err(anyhow::Error::msg("panicked"))));
}

/// Reports the error, if any, and ends the process. Returning from `main` instead would wait for threads that are
/// blocked in calls to an unavailable broker.
fn end(mut log: LogQueue, result: anyhow::Result<()>) -> ! {
    if let Err(error) = &result {
        output::report_error(&mut log, format_args!("{error:#}"));
    }
    log.flush_within(LOG_TIMEOUT);
    process::exit(i32::from(result.is_err()));
}
