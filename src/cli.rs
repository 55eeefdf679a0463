//! The command line.

use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::ads::{self, AdsArgs};
use crate::audit::{self, AuditArgs};
#[cfg(feature = "embedded")]
use crate::dev::{self, DevArgs};
use crate::dlq::{self, DlqArgs};
use crate::estimate::{self, EstimateArgs};
use crate::healthcheck::{self, HealthcheckArgs};
use crate::shutdown::run_until_signal;
use crate::stock::{self, StockArgs};
use crate::telemetry::LogArgs;

/// How long a command that is no role may take to end: it has nothing to bring home.
const TOOL_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes vehicles, estimates their prices, and advertises them, over Apache Kafka
#[derive(Debug, Parser)]
#[command(name = "vehicle-platform", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take vehicles over HTTP, keep them, and announce them
    Stock(StockArgs),
    /// Put a price on each vehicle that was announced
    Estimate(EstimateArgs),
    /// Turn vehicles with a price into ads, and serve them
    Ads(AdsArgs),
    /// Run the whole platform in this process, with nothing installed
    #[cfg(feature = "embedded")]
    Dev(DevArgs),
    /// Check that every vehicle in stock has one ad, or is on its way to it; repair what is lost
    Audit(AuditArgs),
    /// Look into the dead-letter topics, and replay or discard what lies there
    Dlq(DlqArgs),
    /// Ask a role on this machine whether it is ready
    Healthcheck(HealthcheckArgs),
}

impl Command {
    /// Runs it until it is done, or was ended by a signal.
    ///
    /// # Errors
    /// Those of the command.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Stock(args) => {
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| stock::run(args, shutdown)).await
            }
            Self::Estimate(args) => {
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| estimate::run(args, shutdown))
                    .await
            }
            Self::Ads(args) => {
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| ads::run(args, shutdown)).await
            }
            #[cfg(feature = "embedded")]
            Self::Dev(args) => {
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| dev::run(args, shutdown)).await
            }
            Self::Audit(args) => {
                run_until_signal(TOOL_SHUTDOWN_TIMEOUT, |shutdown| audit::run(args, shutdown)).await
            }
            Self::Dlq(args) => {
                run_until_signal(TOOL_SHUTDOWN_TIMEOUT, |shutdown| dlq::run(args, shutdown)).await
            }
            Self::Healthcheck(args) => healthcheck::run(args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
