//! Reconciles the vehicles in stock with both topics, the dead letters and the ads.

mod gather;
mod path;
mod report;
mod scratch;
mod trail;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{TimeDelta, Utc};
use clap::Args;
use tokio::runtime::Handle;

use crate::ads;
use crate::ads::ad_store::AdStore;
use crate::database::{Access, DatabaseError, DatabaseUrl};
use crate::duration::parse_duration;
use crate::kafka::{KafkaArgs, Naming};
use crate::output::Output;
use crate::secret::SecretParser;
use crate::stock;
use crate::stock::vehicle_store::VehicleStore;
use crate::vehicle::StockedVehicle;
use gather::{Gathered, gather};
use report::Report;
use trail::Finding;

/// The time that a vehicle may take in addition to the estimate.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// Publish lost vehicles again: append the event of each to the event log for stock to publish. Vehicles that are
    /// being processed or in a dead-letter topic are skipped
    #[arg(long, conflicts_with = "vin")]
    pub repair: bool,

    /// Print the whole path of this vehicle instead
    #[arg(long, value_name = "VIN")]
    pub vin: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Duration of an estimate; a vehicle that has not advanced for 10 s longer is late
    #[arg(long, env = "PROCESSING_TIME", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub processing_time: Duration,

    /// Database of stock: postgres://user:password@host/database or sqlite:PATH
    #[arg(
        long,
        env = "STOCK_DATABASE_URL",
        value_name = "URL",
        default_value = stock::DEFAULT_DATABASE_URL,
        hide_env_values = true,
        value_parser = SecretParser::new(stock::vehicle_store::parse_url),
        help_heading = "Databases"
    )]
    pub stock_database_url: DatabaseUrl,

    /// Database of ads: mongodb://user:password@host/database or sqlite:PATH
    #[arg(
        long,
        env = "ADS_DATABASE_URL",
        value_name = "URL",
        default_value = ads::DEFAULT_DATABASE_URL,
        hide_env_values = true,
        value_parser = SecretParser::new(ads::ad_store::parse_url),
        help_heading = "Databases"
    )]
    pub ads_database_url: DatabaseUrl,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

/// The systems that an audit reads.
struct Sources {
    vehicles: Arc<dyn VehicleStore>,
    ads: Arc<dyn AdStore>,
    kafka: KafkaArgs,
    naming: Naming,
}

/// Runs an audit.
///
/// # Errors
/// Fails when a system does not answer, or when there are findings or unresolved dead letters.
pub async fn run(args: AuditArgs) -> anyhow::Result<()> {
    let vehicles = stock::vehicle_store::open(&args.stock_database_url, Access::Observer).await;
    let ads = ads::ad_store::open(&args.ads_database_url, Access::Observer).await;
    let sources = Sources {
        vehicles: vehicles.context("--stock-database-url (STOCK_DATABASE_URL)")?,
        ads: ads.context("--ads-database-url (ADS_DATABASE_URL)")?,
        kafka: args.kafka.clone(),
        naming: Naming::new(&args.kafka),
    };
    let runtime = Handle::current();
    let audit = tokio::task::spawn_blocking(move || match &args.vin {
        Some(vin) => path::print_path(&sources, &runtime, vin, args.json, Output::stdout()),
        None => audit(&args, &sources, &runtime),
    });
    audit.await.context("the audit panicked")?
}

/// Returns whether stock has the vehicle, readable or not.
fn is_there(found: Result<Option<StockedVehicle>, DatabaseError>) -> Result<bool, DatabaseError> {
    match found {
        Ok(stocked) => Ok(stocked.is_some()),
        Err(DatabaseError::Unreadable(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

fn audit(args: &AuditArgs, sources: &Sources, runtime: &Handle) -> anyhow::Result<()> {
    let allowed = TimeDelta::from_std(args.processing_time + GRACE).context("--processing-time")?;
    let Gathered { scratch, dead_letters, unreadable } = gather(sources, runtime)?;
    let mut report = Report::new(dead_letters, unreadable);
    scratch.for_each_trail(|trail| {
        let (stage, findings) = trail.judge(Utc::now(), allowed);
        if trail.created_at.is_some() {
            report.count_vehicle(stage);
        }
        for finding in findings {
            // The vehicle may have been accepted during the audit.
            if finding == Finding::AdWithoutVehicle
                && is_there(runtime.block_on(sources.vehicles.find(&trail.vin)))?
            {
                continue;
            }
            report.add(finding, &trail.vin);
            if args.repair && finding.is_repaired_by_announcing() {
                // A vehicle that was removed meanwhile was removed intentionally.
                if let Some(stocked) = runtime.block_on(sources.vehicles.find(&trail.vin))? {
                    runtime.block_on(sources.vehicles.reannounce(&stocked))?;
                    report.count_repaired();
                }
            }
        }
        Ok(())
    })?;
    let mut output = Output::stdout();
    if args.json {
        output.pretty_json(&report);
    } else {
        report.print(&mut output);
    }
    output.finish()?;
    if !report.is_clean() {
        bail!("the audit has findings, see the report");
    }
    Ok(())
}
