//! Puts a price on each vehicle that stock has taken.

mod bounded_estimator;
mod estimate_error;
mod estimator;
mod model;
mod pricing;

use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::http::{Health, HttpArgs, HttpServer};
use crate::kafka::{ClusterCheck, GroupLag, Instance, KafkaArgs, Naming, Worker, WorkerStatus};
use crate::registry::{Codec, RegistryArgs};
use crate::shutdown::ShutdownArgs;
use crate::trace::TraceArgs;
use bounded_estimator::BoundedEstimator;
pub use estimate_error::EstimateError;
pub use estimator::{Estimator, SimulatedEstimator};
pub use model::ModelArgs;
use pricing::Pricing;

/// The consumer group.
pub const GROUP: &str = "ms-price-estimate";

/// A record of the largest size that topics take by default.
const MIN_IN_FLIGHT_BYTES: usize = 1 << 20;

/// The settings of the role, whatever its pricing model.
#[derive(Args, Clone, Debug)]
pub struct EstimateArgs {
    /// Port to serve health and metrics on [default: none]
    #[arg(long, env = "PORT", value_name = "PORT")]
    pub port: Option<u16>,

    #[command(flatten)]
    pub http: HttpArgs,

    #[command(flatten)]
    pub work: WorkArgs,

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

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Work")]
pub struct WorkArgs {
    /// Vehicles that one estimator holds at most; beyond it, it stops reading
    #[arg(long, env = "MAX_IN_FLIGHT", value_name = "N", default_value = "100000", value_parser = parse_count)]
    pub max_in_flight: usize,

    /// Bytes of records that one estimator holds at most, such as 32MiB; beyond it, it stops reading
    #[arg(long, env = "MAX_IN_FLIGHT_BYTES", value_name = "BYTES", default_value = "32MiB", value_parser = parse_max_in_flight_bytes)]
    pub max_in_flight_bytes: usize,

    /// Estimates that run at a time at most; other vehicles in flight wait for their turn [default: as many as may be
    /// in flight]
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
    match usize::try_from(bytes) {
        Ok(bytes) if bytes >= MIN_IN_FLIGHT_BYTES => Ok(bytes),
        _ => Err("must be at least 1MiB".to_owned()),
    }
}

/// Runs the role with a pricing model until `shutdown`.
///
/// # Errors
/// When it cannot start with these arguments; it waits for what is unavailable.
pub async fn run(
    args: EstimateArgs,
    estimator: impl Estimator,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let server = args.port.map(|port| HttpServer::bind(args.http.host, port, "--port")).transpose()?;
    let codec = Arc::new(Codec::new(&args.registry)?);
    let naming = Naming::new(&args.kafka);
    let (created, processed) = (naming.topic(VEHICLE_CREATED), naming.topic(VEHICLE_PROCESSED));
    let group = naming.group(GROUP);
    let instance = Instance::claim("estimate", args.instance_id.as_deref());
    let mut metrics = Registry::with_prefix("estimate");
    let health = Arc::new(Health::new(&["kafka", "model", "schema-registry", "worker"]));
    let cluster = ClusterCheck::new(&args.kafka, vec![created.clone(), processed.clone()], Some(&group))?;
    let status = WorkerStatus::register(&mut metrics, estimator.max_duration());
    let lag = GroupLag::register(&cluster, &created, &status, &mut metrics);
    let max_concurrent = args.work.max_concurrent_estimates.unwrap_or(args.work.max_in_flight);
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
        max_in_flight: args.work.max_in_flight,
        max_in_flight_bytes: args.work.max_in_flight_bytes,
        handler: Arc::clone(&pricing),
        status: status.clone(),
        shutdown: shutdown.clone(),
    };
    // When one ends, all end.
    let work = async {
        let _ending = shutdown.drop_guard_ref();
        args.shutdown.bound_or_leave(0.9, &shutdown, "worker", worker.run()).await
    };
    // Only where it can be seen.
    let has_metrics = server.is_some();
    let measure = async {
        if has_metrics {
            lag.watch(&shutdown).await;
        }
    };
    let serve = async {
        let Some(server) = server else { return Ok(()) };
        let _ending = shutdown.drop_guard_ref();
        tracing::info!(address = %server.address(), "estimate listens");
        let grace = args.shutdown.grace();
        let serving = server.serve(Arc::clone(&health), metrics, |_| {}, shutdown.clone(), grace);
        args.shutdown.bound(0.9, &shutdown, "requests", serving).await
    };
    let (worked, served, (), (), (), (), ()) = tokio::join!(
        work,
        serve,
        measure,
        health.watch("kafka", &shutdown, async || cluster.check().await),
        health.watch("model", &shutdown, async || pricing.estimator.check().await),
        health.watch("worker", &shutdown, async || status.judge()),
        health.watch("schema-registry", &shutdown, async || {
            Ok(codec.check(&[(VEHICLE_PROCESSED, &processed)]).await?)
        }),
    );
    worked.and(served)
}
