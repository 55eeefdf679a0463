//! Accepts vehicles over HTTP, stores them, and publishes an event about each.
//!
//! A request goes `api` -> `committer` -> `vehicle_store`, which writes the vehicle and its event together; from there `relay`
//! publishes the events in the order of their log.

mod api;
mod batch_writer;
pub mod committer;
mod idempotency;
pub mod relay;
pub mod vehicle_store;
mod write_status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::database::{Access, DatabaseError, DatabaseUrl};
use crate::duration::parse_duration;
use crate::event::VEHICLE_CREATED;
use crate::http::{ApiKeys, CorsOrigins, HttpServer, Need, Port, SkippedRows};
use crate::kafka::{ClusterCheck, Instance, Naming};
use crate::registry::Codec;
use crate::role::{Part, Role, RoleArgs, on_its_own};
use crate::secret::SecretParser;
use api::StockApi;
use committer::Committer;
pub use idempotency::IdempotencyKey;
pub use relay::DEFAULT_RETENTION;
use relay::{Relay, RelayMetrics, RelayStatus, SessionSettings};
use vehicle_store::VehicleStore;

/// The default URL: a database on this machine.
pub const DEFAULT_DATABASE_URL: &str = "postgres://postgres:postgres@127.0.0.1:5432/stock";

#[derive(Args, Clone, Debug)]
pub struct StockArgs {
    /// Port to serve HTTP on
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = Port::new(3002), value_parser = Port::parser())]
    pub port: Port,

    /// Database to store vehicles in: postgres://user:password@host/database or sqlite:PATH
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        default_value = DEFAULT_DATABASE_URL,
        hide_env_values = true,
        value_parser = SecretParser::new(vehicle_store::parse_url),
        help_heading = "Database"
    )]
    pub database_url: DatabaseUrl,

    /// Time for which a published event is retained in the database
    #[arg(
        long,
        env = "OUTBOX_RETENTION",
        value_name = "DURATION",
        default_value_t = DEFAULT_RETENTION.into(),
        value_parser = |text: &str| parse_duration(text).map(humantime::Duration::from),
        help_heading = "Database"
    )]
    pub outbox_retention: humantime::Duration,

    #[command(flatten)]
    pub keys: ApiKeys,

    #[command(flatten)]
    pub origins: CorsOrigins,

    #[command(flatten)]
    pub role: RoleArgs,
}

/// The stock role, bound to its address but not running yet.
pub struct Stock {
    server: HttpServer,
    store: Arc<dyn VehicleStore>,
    codec: Arc<Codec>,
    retention: Duration,
    keys: ApiKeys,
    role: RoleArgs,
}

impl Stock {
    /// Binds the listener and checks the arguments. Does not connect to any dependency.
    ///
    /// # Errors
    /// Fails when the port is in use, or an argument can never work.
    pub async fn bind(args: StockArgs) -> anyhow::Result<Self> {
        let server = HttpServer::bind(&args.role.http, args.port)?.allow_origins(args.origins);
        let store = vehicle_store::open(&args.database_url, Access::Owner).await;
        let store = store.context("--database-url (DATABASE_URL)")?;
        let codec = Arc::new(Codec::new(&args.role.registry)?);
        let retention = args.outbox_retention.into();
        Ok(Self { server, store, codec, retention, keys: args.keys, role: args.role })
    }

    /// Returns the address that the role listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Runs the role until `shutdown` and waits for dependencies that are unavailable.
    ///
    /// On shutdown, the role completes the requests in progress, then writes their vehicles, then publishes the events
    /// about them.
    ///
    /// # Errors
    /// Fails when a part of the role fails.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { server, store, codec, retention, keys, role: args } = self;
        let topic = Naming::new(&args.kafka).topic(VEHICLE_CREATED);
        let arrivals = Arc::new(Notify::new());
        let mut metrics = Registry::with_prefix("stock");
        tracing::info!(address = %server.address(), "stock listens");

        let (submitter, committer) = Committer::new(Arc::clone(&store), Arc::clone(&arrivals), &mut metrics);
        let writes = committer.status();
        let skipped = SkippedRows::register(&mut metrics);
        let api = Arc::new(StockApi::new(Arc::clone(&store), submitter, skipped, keys));
        let relay_metrics = RelayMetrics::register(&mut metrics);
        let status = RelayStatus::new(relay_metrics.clone());
        let cluster = Arc::new(ClusterCheck::new(&args.kafka, vec![topic.clone()], None)?);
        let (all_served, all_written) = (CancellationToken::new(), CancellationToken::new());
        let relay = Relay {
            kafka: args.kafka.clone(),
            codec: Arc::clone(&codec),
            store: Arc::clone(&store),
            cluster: Arc::clone(&cluster),
            holder: Instance::unique_name(),
            settings: SessionSettings { retention, ..SessionSettings::default() },
            arrivals,
            metrics: relay_metrics,
            status: status.clone(),
            shutdown: all_written.clone(),
        };

        let mut role = Role::new(&args.shutdown, shutdown.clone());
        role.check("database", Need::Requests, async || {
            store.check().await.map_err(DatabaseError::with_separate_cause)?;
            writes.judge()
        });
        role.check("relay", Need::Background, async || {
            status.judge(&store.backlog().await.map_err(DatabaseError::with_separate_cause)?)
        });
        role.check("kafka", Need::Background, async || cluster.check().await);
        role.check("schema-registry", Need::Background, async || {
            codec.check(&[(VEHICLE_CREATED, &topic)]).await
        });
        let requests = Part::new("requests", 0.75).then_stop(&all_served);
        let serving = server.serve(role.health(), metrics, api.routes(), shutdown, args.shutdown.grace());
        role.run_part(requests, serving);
        // No client waits any more, so an unavailable database must not delay the end.
        let writing = Part::new("committer", 0.8).then_stop(&all_written).or_abandon();
        let committing = on_its_own("committer", async move { committer.run(&all_served).await });
        role.run_part(writing, committing);
        let relaying = Part::new("relay", 0.95).or_abandon();
        role.run_part(relaying, on_its_own("relay", relay.run()));
        role.run().await
    }
}
