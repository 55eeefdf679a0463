//! The whole platform in one process, with nothing installed.
//!
//! The infrastructure is embedded: a Kafka broker, a schema registry, SQLite files. The roles are the very ones
//! that run alone, and reach the infrastructure over the network, so others can join in from outside.

pub mod broker;
mod registry;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::ads::{self, AdsArgs};
use crate::database::DatabaseUrl;
use crate::estimate::{self, EstimateArgs, ModelArgs, WorkArgs};
use crate::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::http::{HttpArgs, HttpServer};
use crate::kafka::{ClusterCheck, KafkaArgs};
use crate::output::Output;
use crate::registry::RegistryArgs;
use crate::shutdown::ShutdownArgs;
use crate::stock::{self, StockArgs};
use crate::trace::TraceArgs;
use broker::Broker;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Directory that keeps everything
    #[arg(long, env = "DATA_DIR", value_name = "PATH", default_value = "./data")]
    pub data_dir: PathBuf,

    /// Roles to run in this process, estimate as often as there are to be estimators; none for the infrastructure
    /// alone
    #[arg(
        long,
        env = "ROLES",
        value_name = "ROLE,...",
        value_delimiter = ',',
        default_value = "stock,estimate,estimate,ads"
    )]
    pub roles: Vec<Role>,

    /// Port of stock
    #[arg(long, env = "STOCK_PORT", value_name = "PORT", default_value_t = 3002, help_heading = "Ports")]
    pub stock_port: u16,

    /// Port of ads
    #[arg(long, env = "ADS_PORT", value_name = "PORT", default_value_t = 3003, help_heading = "Ports")]
    pub ads_port: u16,

    /// Port of the Kafka broker
    #[arg(long, env = "KAFKA_PORT", value_name = "PORT", default_value_t = 9092, help_heading = "Ports")]
    pub kafka_port: u16,

    /// Port of the schema registry
    #[arg(long, env = "REGISTRY_PORT", value_name = "PORT", default_value_t = 8081, help_heading = "Ports")]
    pub registry_port: u16,

    #[command(flatten)]
    pub work: WorkArgs,

    #[command(flatten)]
    pub model: ModelArgs,

    #[command(flatten)]
    pub shutdown: ShutdownArgs,

    #[command(flatten)]
    pub trace: TraceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Stock,
    Estimate,
    Ads,
    None,
}

/// Everything that has to be free before anything starts.
struct Reserved {
    data_dir: PathBuf,
    /// Keeps a second platform away from the files.
    _lock: File,
    kafka: TcpListener,
    registry: HttpServer,
    stock: Option<HttpServer>,
    ads: Option<HttpServer>,
}

impl Reserved {
    async fn claim(args: &DevArgs) -> anyhow::Result<Self> {
        let lock = lock(&args.data_dir)?;
        let kafka = TcpListener::bind((LOOPBACK, args.kafka_port)).await.with_context(|| {
            format!("cannot listen on {LOOPBACK}:{}; choose another port with --kafka-port", args.kafka_port)
        })?;
        let server = |role, port, flag| {
            args.roles.contains(&role).then(|| HttpServer::bind(LOOPBACK, port, flag)).transpose()
        };
        Ok(Self {
            data_dir: args.data_dir.clone(),
            _lock: lock,
            kafka,
            registry: HttpServer::bind(LOOPBACK, args.registry_port, "--registry-port")?,
            stock: server(Role::Stock, args.stock_port, "--stock-port")?,
            ads: server(Role::Ads, args.ads_port, "--ads-port")?,
        })
    }
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let in_use =
        || format!("cannot use the data directory {}; choose another with --data-dir", data_dir.display());
    fs::create_dir_all(data_dir).with_context(in_use)?;
    let lock = data_dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(lock).with_context(in_use)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(anyhow::anyhow!("another vehicle-platform dev is using it")).with_context(in_use)
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(in_use),
    }
}

/// Runs the platform until `shutdown`.
///
/// # Errors
/// When a port or the data directory is taken, or a part of the platform fails.
pub async fn run(args: DevArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    check_roles(&args.roles)?;
    let reserved = Reserved::claim(&args).await?;
    let broker = Broker::start(reserved.kafka, &reserved.data_dir.join("kafka"))
        .await
        .context("cannot start the Kafka broker")?;
    let plan = Plan {
        kafka: KafkaArgs::single_node(broker.address()),
        registry: RegistryArgs::at(reserved.registry.address())?,
        data_dir: reserved.data_dir,
        work: args.work.clone(),
        model: args.model.clone(),
        shutdown: args.shutdown.clone(),
    };
    let endpoints = Endpoints {
        stock: reserved.stock.as_ref().map(HttpServer::address),
        ads: reserved.ads.as_ref().map(HttpServer::address),
        kafka: broker.address(),
        registry: reserved.registry.address(),
        estimators: args.roles.iter().filter(|role| **role == Role::Estimate).count(),
    };
    // The platform runs whether this is read or not.
    Output::stdout().lines(&endpoints.describe(&args));

    let topics = [VEHICLE_CREATED, VEHICLE_PROCESSED].map(|event| event.topic.to_owned());
    // Here and not only by the roles: those that join from outside would ask for three replicas.
    ClusterCheck::new(&plan.kafka, topics.to_vec(), None)?.check().await?;

    // The roles end first, then what they stand on.
    let infrastructure = CancellationToken::new();
    let registry_file = plan.data_dir.join("schemas.json");
    let registry =
        registry::run(reserved.registry, &registry_file, infrastructure.clone(), args.shutdown.grace());
    let roles = async {
        let result = plan.run_roles(reserved.stock, reserved.ads, endpoints.estimators, &shutdown).await;
        infrastructure.cancel();
        result
    };
    let registry = async {
        let _ending = shutdown.drop_guard_ref();
        registry.await
    };
    let (roles, registry) = tokio::join!(roles, registry);
    broker.shutdown().await;
    roles.and(registry)
}

fn check_roles(roles: &[Role]) -> anyhow::Result<()> {
    let count = |wanted| roles.iter().filter(|role| **role == wanted).count();
    if count(Role::None) > 0 && roles.len() > 1 {
        bail!("--roles: none stands alone");
    }
    if count(Role::Stock) > 1 || count(Role::Ads) > 1 {
        bail!("--roles: only estimate can be there more than once");
    }
    Ok(())
}

/// What the roles are told.
struct Plan {
    kafka: KafkaArgs,
    registry: RegistryArgs,
    data_dir: PathBuf,
    work: WorkArgs,
    model: ModelArgs,
    shutdown: ShutdownArgs,
}

impl Plan {
    async fn run_roles(
        &self,
        stock: Option<HttpServer>,
        ads: Option<HttpServer>,
        estimators: usize,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        // When one ends, all end.
        let stock = async {
            let Some(server) = stock else { return Ok(()) };
            let _ending = shutdown.drop_guard_ref();
            stock::run_on(server, self.stock()?, shutdown.clone()).await.context("stock")
        };
        let ads = async {
            let Some(server) = ads else { return Ok(()) };
            let _ending = shutdown.drop_guard_ref();
            ads::run_on(server, self.ads()?, shutdown.clone()).await.context("ads")
        };
        let estimators = futures::future::join_all((1..=estimators).map(|number| async move {
            let _ending = shutdown.drop_guard_ref();
            let estimator = estimate::run(self.estimate(number), self.model.estimator(), shutdown.clone());
            estimator.instrument(tracing::info_span!("estimate", number)).await.context("estimate")
        }));
        let stock = stock.instrument(tracing::info_span!("stock"));
        let ads = ads.instrument(tracing::info_span!("ads"));
        let (stock, ads, estimators, ()) = tokio::join!(stock, ads, estimators, shutdown.cancelled());
        estimators.into_iter().chain([stock, ads]).collect()
    }

    fn stock(&self) -> anyhow::Result<StockArgs> {
        Ok(StockArgs {
            port: 0,
            http: HttpArgs { host: LOOPBACK },
            database_url: self.sqlite("stock.db")?,
            database_url_file: None,
            outbox_retention: stock::DEFAULT_RETENTION.into(),
            kafka: self.kafka.clone(),
            registry: self.registry.clone(),
            shutdown: self.shutdown.clone(),
            // The process has one collector, which dev has set up.
            trace: TraceArgs::default(),
        })
    }

    /// The instance's name is the platform's own: it does not depend on what else runs on this machine.
    fn estimate(&self, number: usize) -> EstimateArgs {
        EstimateArgs {
            port: None,
            http: HttpArgs { host: LOOPBACK },
            work: self.work.clone(),
            instance_id: Some(format!("dev-{number}")),
            kafka: self.kafka.clone(),
            registry: self.registry.clone(),
            shutdown: self.shutdown.clone(),
            // The process has one collector, which dev has set up.
            trace: TraceArgs::default(),
        }
    }

    fn ads(&self) -> anyhow::Result<AdsArgs> {
        Ok(AdsArgs {
            port: 0,
            http: HttpArgs { host: LOOPBACK },
            database_url: self.sqlite("ads.db")?,
            database_url_file: None,
            instance_id: Some("dev".to_owned()),
            kafka: self.kafka.clone(),
            registry: self.registry.clone(),
            shutdown: self.shutdown.clone(),
            // The process has one collector, which dev has set up.
            trace: TraceArgs::default(),
        })
    }

    fn sqlite(&self, file: &str) -> anyhow::Result<DatabaseUrl> {
        let url = format!("sqlite:{}", self.data_dir.join(file).display());
        url.parse().map_err(|error| anyhow::anyhow!("--data-dir: {error}"))
    }
}

/// What listens where.
struct Endpoints {
    stock: Option<SocketAddr>,
    ads: Option<SocketAddr>,
    kafka: SocketAddr,
    registry: SocketAddr,
    estimators: usize,
}

impl Endpoints {
    fn describe(&self, args: &DevArgs) -> String {
        let mut lines = Vec::new();
        lines.extend(self.stock.map(|address| format!("  stock            http://{address}/stock")));
        if self.estimators > 0 {
            let time = humantime::format_duration(args.model.processing_time);
            lines.push(format!("  estimate         {} in this process, {time} a vehicle", self.estimators));
        }
        lines.extend(self.ads.map(|address| format!("  ads              http://{address}/ads")));
        lines.push(format!("  kafka            {}", self.kafka));
        lines.push(format!("  schema registry  http://{}", self.registry));
        lines.push(format!("  data             {}", args.data_dir.display()));

        lines.push("\nTry:".to_owned());
        if let Some(address) = self.stock {
            lines.push(format!(
                "  curl -i http://{address}/stock -H 'Content-Type: application/json' -d '{{\"vin\":\"vin\",\"model\":\"model\",\"manufacturer\":\"manufacturer\",\"year\":2022,\"odometer\":1000,\"odometerUnit\":\"odometerUnit\"}}'"
            ));
        }
        lines.extend(self.ads.map(|address| format!("  curl http://{address}/ads")));
        let mut join = "  vehicle-platform estimate".to_owned();
        if self.kafka.port() != 9092 {
            join.push_str(&format!(" --kafka-bootstrap-servers {}", self.kafka));
        }
        if self.registry.port() != 8081 {
            join.push_str(&format!(" --schema-registry-url http://{}", self.registry));
        }
        lines.push(format!("{join}   # in another terminal: one more estimator"));
        lines.push("\nCtrl-C ends it; what was answered 201 is kept.\n".to_owned());
        lines.join("\n")
    }
}
