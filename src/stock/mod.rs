//! Accepts vehicles over HTTP, stores them, and publishes an event about each.
//!
//! A request goes `api` -> `committer` -> `store`, which writes the vehicle and its event together; from there `relay`
//! publishes the events in the order of their log.

mod api;
mod batch_writer;
pub mod committer;
pub mod relay;
pub mod store;
mod write_status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::database::{Access, DatabaseUrl};
use crate::event::VEHICLE_CREATED;
use crate::http::{Health, HttpArgs, HttpServer, SkippedRows};
use crate::kafka::{ClusterCheck, Instance, KafkaArgs, Naming};
use crate::registry::{Codec, RegistryArgs};
use crate::secret::SecretParser;
use crate::shutdown::ShutdownArgs;
use crate::trace::TraceArgs;
use api::StockApi;
use committer::Committer;
pub use relay::DEFAULT_RETENTION;
use relay::{Relay, RelayMetrics, RelayStatus, SessionSettings};

/// On this machine.
pub const DEFAULT_DATABASE_URL: &str = "postgres://postgres:postgres@127.0.0.1:5432/stock";

#[derive(Args, Clone, Debug)]
pub struct StockArgs {
    /// Port to serve HTTP on
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = 3002)]
    pub port: u16,

    #[command(flatten)]
    pub http: HttpArgs,

    /// Where to keep vehicles: postgres://user:password@host/database or sqlite:<path>
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        default_value = DEFAULT_DATABASE_URL,
        hide_env_values = true,
        value_parser = SecretParser::new(str::parse::<DatabaseUrl>),
        help_heading = "Database"
    )]
    pub database_url: DatabaseUrl,

    /// A file that holds the database's URL, which may be a secret
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "PATH", help_heading = "Database")]
    pub database_url_file: Option<PathBuf>,

    /// How long a published event is kept in the database
    #[arg(
        long,
        env = "OUTBOX_RETENTION",
        value_name = "DURATION",
        default_value_t = DEFAULT_RETENTION.into(),
        value_parser = parse_retention,
        help_heading = "Database"
    )]
    pub outbox_retention: humantime::Duration,

    #[command(flatten)]
    pub kafka: KafkaArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,

    #[command(flatten)]
    pub shutdown: ShutdownArgs,

    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Runs `work` as a task of its own, which another thread may run.
async fn on_its_own(
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let task = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
    task.await.with_context(|| format!("the {name} panicked"))
}

/// The longest that a published event can be kept: about as long as there have been computers.
const MAX_RETENTION: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

fn parse_retention(text: &str) -> Result<humantime::Duration, String> {
    match text.parse::<humantime::Duration>() {
        Ok(retention) if *retention <= MAX_RETENTION => Ok(retention),
        Ok(_) => Err("must be at most 100 years".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the role until `shutdown`.
///
/// # Errors
/// When it cannot start with these arguments; what is merely away is waited for.
pub async fn run(args: StockArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let server = HttpServer::bind(args.http.host, args.port, "--port")?;
    run_on(server, args, shutdown).await
}

/// Runs the role with an HTTP server that is already bound.
///
/// # Errors
/// As [`run`].
pub async fn run_on(server: HttpServer, args: StockArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let database_url = DatabaseUrl::resolve(&args.database_url, args.database_url_file.as_ref())?;
    let store = store::open(&database_url, Access::Owner).await.context("--database-url")?;
    let codec = Arc::new(Codec::new(&args.registry)?);
    let topic = Naming::new(&args.kafka).topic(VEHICLE_CREATED);
    let arrivals = Arc::new(Notify::new());
    let mut metrics = Registry::with_prefix("stock");
    let health = Arc::new(Health::new(&["database", "kafka", "schema-registry", "relay"]));
    tracing::info!(address = %server.address(), "stock listens");

    let (submitter, committer) = Committer::new(Arc::clone(&store), Arc::clone(&arrivals), &mut metrics);
    let writes = committer.status();
    let api = Arc::new(StockApi::new(Arc::clone(&store), submitter, SkippedRows::register(&mut metrics)));
    let relay_metrics = RelayMetrics::register(&mut metrics);
    let status = RelayStatus::new(relay_metrics.clone());
    let cluster = Arc::new(ClusterCheck::new(&args.kafka, vec![topic.clone()], None)?);
    let relay = Relay {
        kafka: args.kafka.clone(),
        codec: Arc::clone(&codec),
        store: Arc::clone(&store),
        cluster: Arc::clone(&cluster),
        holder: Instance::unique_name(),
        settings: SessionSettings { retention: args.outbox_retention.into(), ..SessionSettings::default() },
        arrivals,
        metrics: relay_metrics,
        status: status.clone(),
        // Stops after the last request was served, so that what it brought goes out at once.
        shutdown: CancellationToken::new(),
    };
    let relay_shutdown = relay.shutdown.clone();
    let all_served = CancellationToken::new();
    let serve = async {
        let _ending = shutdown.drop_guard_ref();
        let grace = args.shutdown.grace();
        let serving = server.serve(Arc::clone(&health), metrics, api.routes(), shutdown.clone(), grace);
        let served = args.shutdown.bound(0.75, &shutdown, "requests", serving).await;
        all_served.cancel();
        served
    };
    let commit = async {
        let _ending = shutdown.drop_guard_ref();
        let committing = on_its_own("committer", {
            let all_served = all_served.clone();
            async move { committer.run(&all_served).await }
        });
        let committed = args.shutdown.bound(0.8, &shutdown, "committer", committing).await;
        relay_shutdown.cancel();
        committed
    };
    // When one ends, all end.
    let relay = async {
        let _ending = shutdown.drop_guard_ref();
        let relaying = on_its_own("relay", relay.run());
        args.shutdown.bound_or_leave(0.15, &relay_shutdown, "relay", relaying).await
    };
    let (served, committed, relayed, (), (), (), ()) = tokio::join!(
        serve,
        commit,
        relay,
        health.watch("database", &shutdown, async || {
            store.check().await?;
            writes.judge()
        }),
        health.watch("relay", &shutdown, async || status.judge(&store.backlog().await?)),
        health.watch("kafka", &shutdown, async || cluster.check().await),
        health.watch("schema-registry", &shutdown, async || Ok(codec
            .check(&[(VEHICLE_CREATED, &topic)])
            .await?)),
    );
    served.and(committed).and(relayed)
}
