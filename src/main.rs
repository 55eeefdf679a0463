#![deny(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic when the stream fails: use `output`"
)]

use clap::Parser;
use vehicle_platform::cli::Cli;
use vehicle_platform::process;

fn main() {
    let Cli { command, log } = Cli::parse();
    process::run(&log, command.run());
}
