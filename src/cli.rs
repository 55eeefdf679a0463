//! Defines the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::ads::{Ads, AdsArgs};
use crate::audit::{self, AuditArgs};
use crate::console::{Console, ConsoleArgs};
#[cfg(feature = "embedded")]
use crate::dev::{self, DevArgs};
use crate::dlq::{self, DlqArgs};
use crate::environment::command_of;
use crate::estimate::{Estimate, EstimateArgs, ModelArgs};
use crate::healthcheck::{self, HealthcheckArgs};
use crate::load::{self, LoadArgs};
use crate::open_files::{self, ROLE_FILES};
use crate::output::Output;
use crate::schemas::{self, SchemasArgs};
use crate::shutdown::{end_on_signal, run_until_signal};
use crate::stock::{Stock, StockArgs};
use crate::telemetry::LogArgs;
use crate::trace::{self, TraceArgs};

const NAME: &str = "vehicle-platform";

/// Accepts vehicles, estimates their prices and publishes ads, connected by Apache Kafka
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Accept vehicles over HTTP, store them, and publish an event for each
    Stock(Traced<StockArgs>),
    /// Estimate a price for each new vehicle
    Estimate {
        #[command(flatten)]
        estimate: Traced<EstimateArgs>,

        #[command(flatten)]
        model: ModelArgs,
    },
    /// Turn priced vehicles into ads and serve them over HTTP
    Ads(Traced<AdsArgs>),
    /// Run the whole platform in this process, without installing anything
    #[cfg(feature = "embedded")]
    Dev(Traced<DevArgs>),
    /// Offer vehicles to a running platform, wait for their ads, and check that none is lost or doubled
    Load(LoadArgs),
    /// Show the running platform on a web page: the pipeline, each vehicle's way, and whether anything is lost
    Console(ConsoleArgs),
    /// Check that every vehicle in stock has one ad or is being processed; publish lost vehicles again with --repair
    Audit(AuditArgs),
    /// List, show, replay or discard dead letters
    Dlq(DlqArgs),
    /// Check, register, show or compare the schemas of events
    Schemas(SchemasArgs),
    /// Check whether a role on this machine is ready
    Healthcheck(HealthcheckArgs),
    /// Print the completions of a shell
    Completions {
        /// Shell to print them for, such as bash
        shell: Shell,
    },
    /// Write a man page for each command
    Man {
        /// Directory to write them to; it is created if it does not exist
        directory: PathBuf,
    },
}

/// A command whose process exports traces.
#[derive(Args, Clone, Debug)]
pub struct Traced<A: Args> {
    #[command(flatten)]
    pub args: A,

    #[command(flatten)]
    pub trace: TraceArgs,
}

impl<A: Args> Traced<A> {
    /// Prepares the process: checks that it can open `files` files, and exports traces as `service`.
    fn prepare(self, service: &'static str, files: u64) -> anyhow::Result<A> {
        open_files::claim(files)?;
        trace::init(&self.trace, service)?;
        Ok(self.args)
    }
}

impl Command {
    /// Runs the command until it completes or a signal ends it.
    ///
    /// # Errors
    /// Returns the errors of the command.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Stock(role) => {
                let args = role.prepare("stock", ROLE_FILES)?;
                let timeout = args.role.shutdown.shutdown_timeout;
                run_until_signal(timeout, async |shutdown| Stock::bind(args).await?.run(shutdown).await).await
            }
            Self::Estimate { estimate: role, model } => {
                let args = role.prepare("estimate", ROLE_FILES)?;
                let timeout = args.role.shutdown.shutdown_timeout;
                let run = async |shutdown| Estimate::bind(args)?.run(model.estimator(), shutdown).await;
                run_until_signal(timeout, run).await
            }
            Self::Ads(role) => {
                let args = role.prepare("ads", ROLE_FILES)?;
                let timeout = args.role.shutdown.shutdown_timeout;
                run_until_signal(timeout, async |shutdown| Ads::bind(args).await?.run(shutdown).await).await
            }
            #[cfg(feature = "embedded")]
            Self::Dev(platform) => {
                let files = platform.args.files();
                let args = platform.prepare("dev", files)?;
                run_until_signal(args.shutdown.shutdown_timeout, |shutdown| dev::run(args, shutdown)).await
            }
            Self::Console(args) => {
                open_files::claim(ROLE_FILES)?;
                let timeout = args.shutdown.shutdown_timeout;
                run_until_signal(timeout, async |shutdown| Console::bind(args)?.run(shutdown).await).await
            }
            Self::Load(args) => load::run(args).await,
            // A signal may end these at any point because they write only in transactions.
            Self::Audit(args) => end_on_signal(audit::run(args)).await,
            Self::Dlq(args) => end_on_signal(dlq::run(args)).await,
            Self::Schemas(args) => end_on_signal(schemas::run(args)).await,
            Self::Healthcheck(args) => end_on_signal(healthcheck::run(args)).await,
            Self::Completions { shell } => {
                let mut completions = Vec::new();
                clap_complete::generate(shell, &mut command_of::<Cli>(), NAME, &mut completions);
                let mut output = Output::stdout();
                output.raw(&completions);
                Ok(output.finish()?)
            }
            Self::Man { directory } => std::fs::create_dir_all(&directory)
                .and_then(|()| clap_mangen::generate_to(command_of::<Cli>(), &directory))
                .with_context(|| format!("cannot write man pages to {}", directory.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_of::<Cli>().debug_assert();
    }
}
