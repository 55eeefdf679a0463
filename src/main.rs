#![deny(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic when the stream fails: use `output`"
)]

use std::process;

use clap::Parser;
use vehicle_platform::cli::Cli;
use vehicle_platform::{output, telemetry};

fn main() {
    let cli = Cli::parse();
    telemetry::init(&cli.log);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::report_error(format_args!("cannot start the async runtime: {error}"));
            process::exit(1);
        }
    };
    let code = match runtime.block_on(cli.command.run()) {
        Ok(()) => 0,
        Err(error) => {
            output::report_error(format_args!("{error:#}"));
            1
        }
    };
    // Returning from `main` would wait for threads that are blocked in a call to an unavailable broker.
    process::exit(code);
}
