//! Turns processed vehicles into ads and serves them over HTTP.

mod ad;
pub mod ad_store;
mod api;
mod ingest;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub use ad::{Ad, Offer};

use crate::database::{Access, DatabaseError, DatabaseUrl};
use crate::event::VEHICLE_PROCESSED;
use crate::http::{CorsOrigins, HttpServer, Need, Port, SkippedRows};
use crate::kafka::{ClusterCheck, GroupLag, Instance, Naming, Worker, WorkerStatus};
use crate::registry::Codec;
use crate::role::{Part, Role, RoleArgs, on_its_own};
use crate::secret::SecretParser;
use ad_store::AdStore;
use ingest::Ingest;

/// The consumer group.
pub const GROUP: &str = "ms-vehicles-ads";

/// The maximum number of records that wait for the database.
const MAX_IN_FLIGHT: usize = 20_000;
/// The maximum size in bytes of the records that wait for the database: less than the 48 MB that MongoDB accepts in one
/// message.
const MAX_IN_FLIGHT_BYTES: usize = 8 << 20;

/// The default URL: a database on this machine.
pub const DEFAULT_DATABASE_URL: &str = "mongodb://127.0.0.1:27017/vehicles";

#[derive(Args, Clone, Debug)]
pub struct AdsArgs {
    /// Port to serve HTTP on
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = Port::new(3003), value_parser = Port::parser())]
    pub port: Port,

    /// Database to store ads in: mongodb://user:password@host/database or sqlite:PATH
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        default_value = DEFAULT_DATABASE_URL,
        hide_env_values = true,
        value_parser = SecretParser::new(ad_store::parse_url),
        help_heading = "Database"
    )]
    pub database_url: DatabaseUrl,

    /// Name that identifies this instance and stays the same across restarts [default: the host's name and a number
    /// that is free on this machine]
    #[arg(long, env = "INSTANCE_ID", value_name = "NAME", help_heading = "Kafka")]
    pub instance_id: Option<String>,

    #[command(flatten)]
    pub origins: CorsOrigins,

    #[command(flatten)]
    pub role: RoleArgs,
}

/// The ads role, bound to its address but not running yet.
pub struct Ads {
    server: HttpServer,
    store: Arc<dyn AdStore>,
    codec: Arc<Codec>,
    instance_id: Option<String>,
    role: RoleArgs,
}

impl Ads {
    /// Binds the listener and checks the arguments. Does not connect to any dependency.
    ///
    /// # Errors
    /// Fails when the port is in use, or an argument can never work.
    pub async fn bind(args: AdsArgs) -> anyhow::Result<Self> {
        let server = HttpServer::bind(&args.role.http, args.port)?.allow_origins(args.origins);
        let store = ad_store::open(&args.database_url, Access::Owner).await;
        let store = store.context("--database-url (DATABASE_URL)")?;
        let codec = Arc::new(Codec::new(&args.role.registry)?);
        Ok(Self { server, store, codec, instance_id: args.instance_id, role: args.role })
    }

    /// Returns the address that the role listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Runs the role until `shutdown` and waits for dependencies that are unavailable.
    ///
    /// # Errors
    /// Fails when a part of the role fails.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { server, store, codec, instance_id, role: args } = self;
        let naming = Naming::new(&args.kafka);
        let topic = naming.topic(VEHICLE_PROCESSED);
        let group = naming.group(GROUP);
        let instance = Instance::claim("ads", instance_id.as_deref());
        let mut metrics = Registry::with_prefix("ads");
        let published = Counter::default();
        metrics.register("ads_published", "Ads that the database confirmed as stored", published.clone());
        let skipped = Arc::new(SkippedRows::register(&mut metrics));
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

        let mut role = Role::new(&args.shutdown, shutdown.clone());
        role.check("database", Need::Requests, async || {
            store.check().await.map_err(DatabaseError::with_separate_cause)
        });
        role.check("kafka", Need::Background, async || cluster.check().await);
        role.check("worker", Need::Background, async || status.judge());
        role.check("schema-registry", Need::Background, async || codec.check(&[]).await);
        let routes = api::routes(Arc::clone(&store), Arc::clone(&skipped));
        let serving = server.serve(role.health(), metrics, routes, shutdown.clone(), args.shutdown.grace());
        role.run_part(Part::new("requests", 0.9), serving);
        // The writer ends after the worker, which sends it the ads. If it fails, the worker would wait for it forever.
        let working = async { tokio::try_join!(worker.run(), on_its_own("writer", writer)).map(drop) };
        role.run_part(Part::new("worker", 0.9).or_abandon(), working);
        role.run_part(Part::new("lag", 0.9), async {
            lag.watch(&shutdown).await;
            Ok(())
        });
        role.run().await
    }
}
