//! Defines the command line.

use clap::{Parser, Subcommand};

use crate::ads::{self, AdsArgs};
use crate::audit::{self, AuditArgs};
#[cfg(feature = "embedded")]
use crate::dev::{self, DevArgs};
use crate::dlq::{self, DlqArgs};
use crate::estimate::{self, EstimateArgs};
use crate::healthcheck::{self, HealthcheckArgs};
use crate::open_files;
use crate::shutdown::run_until_signal;
use crate::stock::{self, StockArgs};
use crate::telemetry::LogArgs;
use crate::trace;

/// The files that a role needs: its connections to three brokers, and some for clients.
const ROLE_FILES: u64 = 128;
/// The files that the whole platform needs in one process: about 170, and some for clients.
#[cfg(feature = "embedded")]
const DEV_FILES: u64 = 256;

/// Accepts vehicles, estimates their prices and publishes ads, connected by Apache Kafka
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
    /// Accept vehicles over HTTP, store them, and publish an event for each
    Stock(StockArgs),
    /// Estimate a price for each new vehicle
    Estimate(EstimateArgs),
    /// Turn priced vehicles into ads and serve them over HTTP
    Ads(AdsArgs),
    /// Run the whole platform in this process, without installing anything
    #[cfg(feature = "embedded")]
    Dev(DevArgs),
    /// Check that every vehicle in stock has one ad or is being processed; publish lost vehicles again with --repair
    Audit(AuditArgs),
    /// List, show, replay or discard dead letters
    Dlq(DlqArgs),
    /// Check whether a role on this machine is ready
    Healthcheck(HealthcheckArgs),
}

impl Command {
    /// Runs the command until it completes or a signal ends it.
    ///
    /// # Errors
    /// Returns the errors of the command.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Stock(_) | Self::Estimate(_) | Self::Ads(_) => open_files::claim(ROLE_FILES)?,
            #[cfg(feature = "embedded")]
            Self::Dev(_) => open_files::claim(DEV_FILES)?,
            Self::Audit(_) | Self::Dlq(_) | Self::Healthcheck(_) => {}
        }
        match self {
            Self::Stock(args) => {
                trace::init(&args.trace, "stock")?;
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| stock::run(args, shutdown)).await
            }
            Self::Estimate(args) => {
                trace::init(&args.trace, "estimate")?;
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| estimate::run(args, shutdown))
                    .await
            }
            Self::Ads(args) => {
                trace::init(&args.trace, "ads")?;
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| ads::run(args, shutdown)).await
            }
            #[cfg(feature = "embedded")]
            Self::Dev(args) => {
                trace::init(&args.trace, "dev")?;
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| dev::run(args, shutdown)).await
            }
            // A signal may end these at any point because they write only in transactions.
            Self::Audit(args) => audit::run(args).await,
            Self::Dlq(args) => dlq::run(args).await,
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
