//! Turns processed vehicles into ads, and serves them.

mod ad;
mod api;
mod ingest;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub use ad::{Ad, Offer};

use crate::database::{Access, DatabaseUrl};
use crate::event::VEHICLE_PROCESSED;
use crate::http::{Health, HttpArgs, HttpServer, SkippedRows};
use crate::kafka::{ClusterCheck, GroupLag, Instance, KafkaArgs, Naming, Worker, WorkerStatus};
use crate::registry::{Codec, RegistryArgs};
use crate::secret::SecretParser;
use crate::shutdown::ShutdownArgs;
use crate::trace::TraceArgs;
use ingest::Ingest;

/// The consumer group.
pub const GROUP: &str = "ms-vehicles-ads";

/// Records that wait for the database at most.
const MAX_IN_FLIGHT: usize = 20_000;
/// Bytes of records that wait for the database at most: less than the 48 MB that MongoDB takes in one message.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;

/// On this machine.
pub const DEFAULT_DATABASE_URL: &str = "mongodb://127.0.0.1:27017/vehicles";

#[derive(Args, Clone, Debug)]
pub struct AdsArgs {
    /// Port to serve HTTP on
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = 3003)]
    pub port: u16,

    #[command(flatten)]
    pub http: HttpArgs,

    /// Where to keep ads: mongodb://user:password@host/database or sqlite:<path>
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

    /// Name that tells this instance apart and stays the same when it restarts [default: the host's name and a
    /// number that is free on this machine]
    #[arg(long, env = "INSTANCE_ID", value_name = "NAME", help_heading = "Kafka")]
    pub instance_id: Option<String>,

    #[command(flatten)]
    pub kafka: KafkaArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,

    #[command(flatten)]
    pub shutdown: ShutdownArgs,

    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Runs the role until `shutdown`.
///
/// # Errors
/// When it cannot start with these arguments; what is merely away is waited for.
pub async fn run(args: AdsArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let server = HttpServer::bind(args.http.host, args.port, "--port")?;
    run_on(server, args, shutdown).await
}

/// Runs the role with an HTTP server that is already bound.
///
/// # Errors
/// As [`run`].
pub async fn run_on(server: HttpServer, args: AdsArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let database_url = DatabaseUrl::resolve(&args.database_url, args.database_url_file.as_ref())?;
    let store = store::open(&database_url, Access::Owner).await.context("--database-url")?;
    let codec = Arc::new(Codec::new(&args.registry)?);
    let naming = Naming::new(&args.kafka);
    let topic = naming.topic(VEHICLE_PROCESSED);
    let group = naming.group(GROUP);
    let instance = Instance::claim("ads", args.instance_id.as_deref());
    let mut metrics = Registry::with_prefix("ads");
    let published = Counter::default();
    metrics.register("ads_published", "Ads that became visible", published.clone());
    let skipped = Arc::new(SkippedRows::register(&mut metrics));
    let health = Arc::new(Health::new(&["database", "kafka", "schema-registry", "worker"]));
    let cluster = ClusterCheck::new(&args.kafka, vec![topic.clone()], Some(&group))?;
    let status = WorkerStatus::register(&mut metrics, Duration::ZERO);
    let lag = GroupLag::register(&cluster, &topic, &status, &mut metrics);
    tracing::info!(address = %server.address(), "ads listens");

    let (ingest, writer) = Ingest::new(Arc::clone(&codec), Arc::clone(&store), published);
    let worker = Worker {
        kafka: args.kafka.clone(),
        topic,
        transactional_id: format!("{group}.{}", instance.name()),
        group,
        max_in_flight: MAX_IN_FLIGHT,
        max_in_flight_bytes: MAX_IN_FLIGHT_BYTES,
        handler: Arc::new(ingest),
        status: status.clone(),
        shutdown: shutdown.clone(),
    };
    // When one ends, all end.
    let work = async {
        let _ending = shutdown.drop_guard_ref();
        args.shutdown.bound_or_leave(0.9, &shutdown, "worker", worker.run()).await
    };
    let serve = async {
        let _ending = shutdown.drop_guard_ref();
        let routes = api::routes(Arc::clone(&store), Arc::clone(&skipped));
        let grace = args.shutdown.grace();
        let serving = server.serve(Arc::clone(&health), metrics, routes, shutdown.clone(), grace);
        args.shutdown.bound(0.9, &shutdown, "requests", serving).await
    };
    let (worked, (), served, (), (), (), (), ()) = tokio::join!(
        work,
        writer,
        serve,
        lag.watch(&shutdown),
        health.watch("database", &shutdown, async || Ok(store.check().await?)),
        health.watch("kafka", &shutdown, async || cluster.check().await),
        health.watch("worker", &shutdown, async || status.judge()),
        health.watch("schema-registry", &shutdown, async || Ok(codec.check(&[]).await?)),
    );
    worked.and(served)
}
