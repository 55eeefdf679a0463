#![deny(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic when the stream fails: use `output`"
)]

use vehicle_platform::cli::Cli;
use vehicle_platform::{environment, process};

fn main() {
    let Cli { command, log } = environment::parse();
    process::run(&log, command.run());
}
