//! Estimates a price for each vehicle that stock has accepted.

mod bounded_estimator;
mod estimate_error;
mod estimator;
mod model;
mod pricing;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::Args;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

use crate::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::http::{Docs, HttpServer, Need, Port};
use crate::kafka::{ClusterCheck, GroupLag, Instance, Naming, Worker, WorkerStatus, asyncapi};
use crate::registry::{Codec, WriterArgs};
use crate::role::{Part, Role, RoleArgs};
use bounded_estimator::BoundedEstimator;
pub use estimate_error::EstimateError;
pub use estimator::{Estimator, SimulatedEstimator};
pub use model::ModelArgs;
use pricing::Pricing;

/// The consumer group.
pub const GROUP: &str = "ms-price-estimate";

/// The lower limit of `--max-in-flight-bytes`: the largest record that topics accept by default.
const MIN_IN_FLIGHT_BYTES: u64 = 1 << 20;
/// The upper limit of `--max-in-flight-bytes`.
const MAX_IN_FLIGHT_BYTES: u64 = 1 << 40;

/// The settings of the role, independent of its pricing model.
#[derive(Args, Clone, Debug)]
pub struct EstimateArgs {
    /// Port to serve health and metrics on [default: none]
    #[arg(long, env = "PORT", value_name = "PORT", value_parser = Port::parser())]
    pub port: Option<Port>,

    #[command(flatten)]
    pub work: WorkArgs,

    /// Name that identifies this instance and stays the same across restarts [default: the host's name and a number
    /// that is free on this machine]
    #[arg(long, env = "INSTANCE_ID", value_name = "NAME", help_heading = "Kafka")]
    pub instance_id: Option<String>,

    #[command(flatten)]
    pub writer: WriterArgs,

    #[command(flatten)]
    pub role: RoleArgs,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Work")]
pub struct WorkArgs {
    /// Maximum number of vehicles that one estimator holds; at the limit, it stops reading
    #[arg(long, env = "MAX_IN_FLIGHT", value_name = "N", default_value = "100000", value_parser = parse_count)]
    pub max_in_flight: usize,

    /// Maximum size of the records that one estimator holds, such as 32MiB; at the limit, it stops reading
    #[arg(long, env = "MAX_IN_FLIGHT_BYTES", value_name = "BYTES", default_value = "32MiB", value_parser = parse_max_in_flight_bytes)]
    pub max_in_flight_bytes: usize,

    /// Maximum number of estimates that run at the same time; other vehicles in flight wait [default: that of
    /// --max-in-flight]
    #[arg(long, env = "MAX_CONCURRENT_ESTIMATES", value_name = "N", value_parser = parse_count)]
    pub max_concurrent_estimates: Option<usize>,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=10_000_000) => Ok(number),
        _ => Err("must be an integer from 1 to 10000000".to_owned()),
    }
}

fn parse_max_in_flight_bytes(text: &str) -> Result<usize, String> {
    let ByteSize(bytes) = text.parse()?;
    if (MIN_IN_FLIGHT_BYTES..=MAX_IN_FLIGHT_BYTES).contains(&bytes) {
        usize::try_from(bytes).map_err(|_| "is more than this machine can address".to_owned())
    } else {
        Err("must be from 1MiB to 1TiB".to_owned())
    }
}

/// The estimate role, bound to its address if it has a port, but not running yet.
pub struct Estimate {
    server: Option<HttpServer>,
    codec: Arc<Codec>,
    work: WorkArgs,
    instance_id: Option<String>,
    role: RoleArgs,
}

/// The role has health and metrics only.
const DOCS: Docs = Docs { openapi: OpenApi::default, problems: &[], asyncapi: asyncapi::document };

impl Estimate {
    /// Binds the listener, if the role has one, and checks the arguments. Does not connect to any dependency.
    ///
    /// # Errors
    /// Fails when the port is in use, or an argument can never work.
    pub fn bind(args: EstimateArgs) -> anyhow::Result<Self> {
        let server = HttpServer::bind_given(&args.role.http, args.port)?;
        let codec = Arc::new(Codec::of_writer(&args.role.registry, &args.writer)?);
        Ok(Self { server, codec, work: args.work, instance_id: args.instance_id, role: args.role })
    }

    /// Returns the address that the role listens on, if it has a port.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(HttpServer::address)
    }

    /// Runs the role with a pricing model until `shutdown` and waits for dependencies that are unavailable.
    ///
    /// # Errors
    /// Fails when a part of the role fails.
    pub async fn run(self, estimator: impl Estimator, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { server, codec, work, instance_id, role: args } = self;
        let naming = Naming::new(&args.kafka);
        let (created, processed) = (naming.topic(VEHICLE_CREATED), naming.topic(VEHICLE_PROCESSED));
        let group = naming.group(GROUP);
        let instance = Instance::claim("estimate", instance_id.as_deref());
        let mut metrics = Registry::with_prefix("estimate");
        let cluster = ClusterCheck::new(&args.kafka, vec![created.clone(), processed.clone()], Some(&group))?;
        let status = WorkerStatus::register(&mut metrics, estimator.max_duration());
        let lag = GroupLag::register(&cluster, &created, &status, &mut metrics);
        let max_concurrent = work.max_concurrent_estimates.unwrap_or(work.max_in_flight);
        let pricing = Arc::new(Pricing {
            codec: Arc::clone(&codec),
            estimator: BoundedEstimator::new(estimator, max_concurrent, status.clone(), &mut metrics),
            topic: processed.clone(),
        });
        tracing::info!(instance = instance.name(), group, "estimate starts");

        let worker = Worker {
            kafka: args.kafka.clone(),
            topic: created,
            transactional_id: format!("{group}.{}", instance.name()),
            group,
            max_in_flight: work.max_in_flight,
            max_in_flight_bytes: work.max_in_flight_bytes,
            handler: Arc::clone(&pricing),
            status: status.clone(),
            shutdown: shutdown.clone(),
        };

        let written = [(VEHICLE_PROCESSED, processed.as_str())];
        let mut role = Role::new(&args.shutdown, shutdown.clone());
        role.check("kafka", Need::Background, async || cluster.check().await);
        role.check("model", Need::Background, async || {
            pricing.estimator.check().await.context("the pricing model cannot be used")
        });
        role.check("worker", Need::Background, async || status.judge());
        role.check("schema-registry", Need::Background, async || codec.check(&written).await);
        role.run_part(Part::new("worker", 0.9).or_abandon(), worker.run());
        if let Some(server) = server {
            tracing::info!(address = %server.address(), "estimate listens");
            let serving = server.serve(
                role.health(),
                metrics,
                |config| DOCS.configure(config),
                shutdown.clone(),
                args.shutdown.grace(),
            );
            role.run_part(Part::new("requests", 0.9), serving);
        }
        // It also finds partitions that the consumer does not read.
        role.run_part(Part::new("lag", 0.9), async {
            lag.watch(&shutdown).await;
            Ok(())
        });
        role.run().await
    }
}
