//! The log: for people on a terminal, for programs as JSON.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// What to log: a level, or tracing directives such as info,librdkafka=debug
    #[arg(long, env = "LOG", value_name = "FILTER", default_value = "info,actix_server=warn", value_parser = parse_filter, global = true)]
    pub log: String,

    /// How to write it
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

fn parse_filter(text: &str) -> Result<String, ParseError> {
    text.parse::<EnvFilter>().map(|_| text.to_owned())
}

/// Sends the log of the whole process to standard error.
pub fn init(args: &LogArgs) {
    let filter = EnvFilter::new(&args.log);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).with_target(false).init();
        }
        LogFormat::Json => builder.json().init(),
    }
}
