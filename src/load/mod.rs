//! Offers vehicles to stock and reconciles what it accepted with the ads.
//!
//! Latencies count from the time at which a vehicle was scheduled, on the clock of this process: a slow answer delays no
//! other vehicle, and the clocks of the services do not matter.

mod ads_client;
mod catalogue;
mod counts;
mod fleet;
mod follower;
mod latencies;
mod ledger;
mod offer;
mod progress;
mod reconciliation;
mod report;
mod service_url;
mod stock_client;
mod vin;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use ads_client::{AdsClient, AdsPage, ListedAd};
pub use fleet::Fleet;
pub use follower::Follower;
pub use latencies::{Latencies, Quantiles};
pub use ledger::{Ledger, Outcome, Standing};
pub use offer::{Offer, Pace, SharedLedger};
pub use reconciliation::{Finding, Reconciler, Reconciliation};
pub use report::Report;
pub use service_url::ServiceUrl;
pub use stock_client::{Attempt, StockClient};

use crate::duration::parse_duration;
use crate::http::ClientKeys;
use crate::open_files;
use crate::output::Output;
use ledger::MAX_VEHICLES;
use progress::{Progress, UPDATE_EVERY, describe};
use report::Setting;

const DEFAULT_RATE: f64 = 100.0;
const DEFAULT_LENGTH: Duration = Duration::from_secs(60);
/// The files that a load needs in addition to its connections.
const OTHER_FILES: u64 = 32;

#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Vehicles per second, on a schedule that does not wait for answers [default: 100]
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate, conflicts_with = "connections")]
    pub rate: Option<f64>,

    /// Connections that each send the next vehicle once the previous one is answered, instead of a schedule
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Option<u32>,

    /// How long to offer vehicles [default: 1m, without a limit when --count is given]
    #[arg(id = "length", long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub length: Option<Duration>,

    /// Maximum number of vehicles to offer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VEHICLES)))]
    pub count: Option<u32>,

    /// Seed of the makes, models, years and odometers; the same seed offers the same ones. VINs differ in each run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,

    /// Number that distinguishes the VINs of a run from those of others [default: random]. With the seed and the run of an
    /// earlier load, the same vehicles are offered again with the same idempotency keys, so none is stored twice
    #[arg(long, value_name = "NUMBER")]
    pub run: Option<u32>,

    /// Print the result as a JSON document
    #[arg(long)]
    pub json: bool,

    /// Address of stock
    #[arg(
        long,
        env = "STOCK_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:3002",
        help_heading = "Services"
    )]
    pub stock_url: ServiceUrl,

    /// Address of ads
    #[arg(
        long,
        env = "ADS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:3003",
        help_heading = "Services"
    )]
    pub ads_url: ServiceUrl,

    #[command(flatten)]
    pub keys: ClientKeys,

    /// Duration of an estimate, which is subtracted from the latency until the ad
    #[arg(long, env = "PROCESSING_TIME", value_name = "DURATION", default_value = "30s", value_parser = parse_duration, help_heading = "Limits")]
    pub processing_time: Duration,

    /// Time for a vehicle to be accepted, retries included
    #[arg(long, env = "LOAD_DEADLINE", value_name = "DURATION", default_value = "1m", value_parser = parse_duration, help_heading = "Limits")]
    pub deadline: Duration,

    /// Time without a further ad, although one is due, after which vehicles without an ad are lost
    #[arg(long, env = "LOAD_WAIT", value_name = "DURATION", default_value = "1m", value_parser = parse_duration, help_heading = "Limits")]
    pub wait: Duration,

    /// Time to watch for second ads after all others; one that appears later is not seen
    #[arg(long, env = "LOAD_SETTLE", value_name = "DURATION", default_value = "5s", value_parser = parse_duration, help_heading = "Limits")]
    pub settle: Duration,

    /// Maximum number of vehicles that wait for an answer; with a schedule, further ones are counted and not sent
    #[arg(long, env = "MAX_OUTSTANDING", value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Limits")]
    pub max_outstanding: u32,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=100_000.0).contains(rate));
    rate.ok_or_else(|| "must be a number from 0.001 to 100000".to_owned())
}

impl LoadArgs {
    fn pace(&self) -> Pace {
        match self.connections {
            Some(connections) => Pace::Closed { connections },
            None => Pace::Open {
                per_second: self.rate.unwrap_or(DEFAULT_RATE),
                max_outstanding: self.max_outstanding as usize,
            },
        }
    }

    fn length(&self) -> Option<Duration> {
        self.length.or(self.count.is_none().then_some(DEFAULT_LENGTH))
    }

    /// Returns the number of vehicles that will be offered, if it is known.
    fn expected(&self) -> Option<u64> {
        let scheduled = match (self.pace(), self.length()) {
            (Pace::Open { per_second, .. }, Some(length)) => {
                let scheduled = (length.as_secs_f64() * per_second).ceil().min(f64::from(MAX_VEHICLES));
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
                Some(scheduled as u64)
            }
            _ => None,
        };
        scheduled.into_iter().chain(self.count.map(u64::from)).min()
    }
}

/// Runs a load. The first signal ends the offer; the second one ends the load.
///
/// # Errors
/// Fails when a service does not answer, a vehicle was lost or doubled, or stock accepted none.
pub async fn run(args: LoadArgs) -> anyhow::Result<()> {
    let connections = args.connections.unwrap_or(args.max_outstanding);
    open_files::claim(u64::from(connections) + OTHER_FILES)?;
    let offering = Offering::default();
    tokio::select! {
        result = load(&args, &offering) => result,
        result = interrupted(&offering) => {
            result?;
            bail!("interrupted before the vehicles were compared with the ads")
        }
    }
}

/// The phase in which vehicles are offered.
#[derive(Default)]
struct Offering {
    /// Ends the phase early.
    stop: CancellationToken,
    is_over: CancellationToken,
}

/// Returns after the signal that ends the load.
async fn interrupted(offering: &Offering) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if offering.is_over.is_cancelled() || offering.stop.is_cancelled() {
            return Ok(());
        }
        offering.stop.cancel();
    }
}

async fn load(args: &LoadArgs, offering: &Offering) -> anyhow::Result<()> {
    let run = args.run.unwrap_or_else(rand::random);
    let fleet = Fleet::new(args.seed, run);
    let stock = StockClient::new(&args.stock_url, args.keys.authorization())?;
    let ads = AdsClient::new(&args.ads_url)?;
    let mut progress = Progress::start();
    stock.check().await?;
    // The ads of an earlier run count as well when it is repeated.
    let follower = if args.run.is_some() {
        ads.page(None).await?;
        Follower::from_beginning(ads)
    } else {
        progress.begin("reading the ads that exist", None);
        let mut read = 0;
        Follower::from_end(ads, |_| {
            read += 1;
            progress.update(read, "");
        })
        .await?
    };

    let started = Instant::now();
    let ledger = SharedLedger::new(Ledger::new(started, args.processing_time)?);
    let mut reconciler = Reconciler { fleet, ledger: ledger.clone(), follower };
    let offer = Offer {
        fleet,
        stock,
        ledger: ledger.clone(),
        pace: args.pace(),
        started,
        length: args.length(),
        max_vehicles: args.count.unwrap_or(MAX_VEHICLES),
        deadline: args.deadline,
    };
    progress.begin("offering vehicles", args.expected());
    let stop = offering.stop.clone();
    // A task of its own, which the reading of ads does not delay.
    let offered = tokio::spawn(async move { offer.run(&stop).await });
    let offered = shown(&mut progress, &ledger, offering, reconciler.follow_during(offered)).await;
    offered.context("offering vehicles panicked")??;
    offering.is_over.cancel();

    // An estimator that is restarted begins its estimates again.
    let patience = args.wait.saturating_add(args.processing_time);
    progress.begin("waiting for the ads", Some(ledger.lock().standing().accepted));
    let complete = shown(&mut progress, &ledger, offering, reconciler.await_ads(patience)).await;
    progress.begin("watching for second ads", None);
    shown(&mut progress, &ledger, offering, reconciler.settle(args.settle)).await;
    progress.begin("comparing", None);
    let found = reconciler.reconcile(args.wait).await.with_context(|| {
        let Standing { accepted, advertised, .. } = ledger.lock().standing();
        format!(
            "stock accepted {accepted} vehicles, and {advertised} ads were seen, but the result is unknown"
        )
    })?;
    progress.finish();

    let setting =
        Setting { seed: args.seed, run, processing_time: args.processing_time, patience: args.wait };
    let report = Report::new(setting, &ledger.lock(), complete, found);
    let mut output = Output::stdout();
    if args.json {
        output.pretty_json(&report);
    } else {
        report.print(&mut output);
    }
    output.finish()?;
    match report.failure() {
        Some(failure) => bail!(failure),
        None => Ok(()),
    }
}

/// Shows the progress of `work` until it is done.
async fn shown<T>(
    progress: &mut Progress,
    ledger: &SharedLedger,
    offering: &Offering,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(UPDATE_EVERY);
    let mut is_stopping = offering.stop.is_cancelled();
    loop {
        tokio::select! {
            result = &mut work => return result,
            () = offering.stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                progress.say("finishing the vehicles under way; a second Ctrl-C ends without comparing");
            }
            _ = ticks.tick() => {
                let standing = ledger.lock().standing();
                let done = if offering.is_over.is_cancelled() { standing.advertised } else { standing.offered };
                progress.update(done, &describe(&standing));
            }
        }
    }
}
