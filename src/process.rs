//! How an executable of the platform begins and ends.

use std::process;

use crate::output;
use crate::telemetry::{self, LogArgs};

/// Runs `work` with a log and a runtime, and ends the process: with 0, or with 1 after reporting the error of `work`.
pub fn run(log: &LogArgs, work: impl Future<Output = anyhow::Result<()>>) -> ! {
    telemetry::init(log);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::report_error(format_args!("cannot start the async runtime: {error}"));
            process::exit(1);
        }
    };
    let code = match runtime.block_on(work) {
        Ok(()) => 0,
        Err(error) => {
            output::report_error(format_args!("{error:#}"));
            1
        }
    };
    // Not by returning: that would wait for threads that are still inside a call to an absent broker.
    process::exit(code);
}
